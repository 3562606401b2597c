"""How does a batch of probes grow, and what would a thousand models on a hundred machines take?

Claims   Two workers take little more than half the time of one; Ray takes some seconds longer.
         The engine's own time per job does not grow from a hundred models to a thousand.
         A job's cost grows as its prompts, and slower than its tokens but where pairs of positions are scored.
         A hundred machines gain less than the ratio of their cores: planning and reporting stay where they are.
Run      python -m studies.batch_scaling            a quarter of an hour of a quiet machine
         python -m studies.batch_scaling --quick    a few models and sizes; prints, and writes nothing here
Result   results/*.json, quoted in README.md; figure.png
"""

import argparse
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import pandas as pd
import torch

from probes.data import read_data
from probes.store import Store
from studies.batch_scaling import numbers
from studies.batch_scaling.batches import (
    Batch,
    keeping_seconds,
    loading_seconds,
    probe_seconds,
    report_seconds,
    timed,
)
from studies.batch_scaling.growth import costs, exponents
from studies.batch_scaling.models import letter_documents, tiny_models
from studies.batch_scaling.projection import Sweep, projected
from studies.findings import save_findings, write_numbers
from workbench import load
from workbench.results import provenance

HERE = Path(__file__).parent
RUNS = Path("runs/batch-scaling")
LIGHT = "residual-norms,head-behaviours,composition,logit-lens,direct-logit-attribution"
TINY = "residual-norms,copying-eigenvalues"
SQUARE = "head-behaviours"
SMALL = {
    "residual-norms": {"n_prompts": 4, "n_tokens": 16, "n_draws": 9},
    "copying-eigenvalues": {"n_null": 9},
}


@dataclass(frozen=True)
class Config:
    """All that is chosen.

    Args:
        rounds: how often each engine runs the same batch, in turn.
        many: numbers of tiny models; slopes are between the last two.
        kinds: models whose probes are projected; all probes but those in `without`.
        cores: of a machine of two, and of a hundred machines of two and of sixteen.
    """

    engines: tuple[tuple[str, int], ...] = (("local", 1), ("local", 2), ("ray", 1), ("ray", 2))
    rounds: int = 2
    engine_models: tuple[str, ...] = ("attn-2l@*",)
    many: tuple[int, ...] = (10, 100, 1000)
    growing: tuple[str, ...] = tuple(LIGHT.replace("composition,", "").split(","))
    prompts: tuple[int, ...] = (8, 16, 32, 64)
    tokens: tuple[int, ...] = (32, 64, 128)
    kinds: tuple[str, ...] = ("attn-2l", "smollm2")
    without: tuple[tuple[str, tuple[str, ...]], ...] = (
        ("smollm2", ("head-ablation", "order-spectrum")),
    )
    sweep: int = 1000
    cores: tuple[int, ...] = (2, 200, 1600)


@dataclass(frozen=True, eq=False)
class Findings:
    """Tidy tables; times in seconds where no unit is named.

    engines     every run of one batch by each engine
    many        batches of ten, a hundred, a thousand tiny models
    costs       one job at several sizes: probe prompts tokens seconds
    exponents   how those grow
    kinds       seconds and findings of each probe of one model of each kind
    parts       the other parts of a sweep, by kind
    projection  hours on so many cores
    """

    engines: pd.DataFrame
    many: pd.DataFrame
    costs: pd.DataFrame
    exponents: pd.DataFrame
    kinds: pd.DataFrame
    parts: pd.DataFrame
    projection: pd.DataFrame

    @property
    def holds(self) -> dict[str, bool]:
        """Each claim of the README, and whether these numbers bear it out."""
        run = self.engines.groupby(["engine", "workers"])["run"].min()
        saved = 1 - run["local", 2] / run["local", 1]
        many = self.many[self.many["engine"] == "local"].set_index("models")
        each = many["run"] / many["jobs"]
        hundred, thousand = sorted(each.index)[-2:]
        grown = self.exponents.set_index(["size", "probe"])["exponent"]
        far = self.projection[self.projection["cores"] >= 200]
        near = self.projection[self.projection["cores"] == 2].set_index("kind")
        gain = far["kind"].map(near["least"]) / far["least"]
        return {
            "the second worker saves 35 to 50 % of the time of one": bool(0.35 < saved < 0.5),
            "Ray takes three to ten seconds longer, with one worker or two": bool(
                all(3 < run["ray", n] - run["local", n] < 10 for n in (1, 2))
            ),
            "the time per job does not grow from a hundred models to a thousand": bool(
                each[thousand] < 1.1 * each[hundred]
            ),
            "a job's cost grows as its prompts do": bool(grown["prompts"].between(0.85, 1.1).all()),
            "it grows slower than its tokens, but for head behaviours": bool(
                (grown["tokens"].drop(SQUARE) < 0.9).all() and grown["tokens", SQUARE] > 1.5
            ),
            "a hundred machines gain less than the ratio of cores": bool(
                (gain < 0.9 * far["cores"] / 2).all() and (gain > 5).all()
            ),
        }


def study(config: Config, folder: Path) -> Findings:
    """Every number of the README.

    Args:
        folder: where the results of the models that are projected stay.
    """
    data = read_data("stdlib")
    batch = Batch(config.engine_models, LIGHT, data, {})
    engines = []
    for number in range(config.rounds):
        for engine, workers in config.engines:
            engines.append({"round": number, **_said(timed(batch, engine, workers))})
    many, keeping = _many(config)
    model = load("attn-2l")
    grown = costs(model, data, config.growing, config.prompts, config.tokens)
    found = pd.DataFrame(many)
    shared = slopes(found, max(workers for _, workers in config.engines)) | {"keeping": keeping}
    kinds, parts = [], []
    for kind in config.kinds:
        asked = Batch((kind,), _probes(config, kind), data, {})
        kinds += probe_seconds(asked, os.cpu_count() or 1, folder / kind)
        own = {"loading": loading_seconds(kind), "report": report_seconds(folder / kind)}
        parts.append({"kind": kind, **own, **shared})
    table, parts_table = pd.DataFrame(kinds), pd.DataFrame(parts)
    return Findings(
        engines=pd.DataFrame(engines),
        many=found,
        costs=grown,
        exponents=exponents(grown),
        kinds=table,
        parts=parts_table,
        projection=projected(sweeps(table, parts_table), config.sweep, config.cores),
    )


def _many(config: Config) -> tuple[list[dict[str, object]], float]:
    """Batches of tiny models, and what keeping a result takes."""
    rows = []
    workers = max(workers for _, workers in config.engines)
    with TemporaryDirectory() as scratch:
        for count in config.many:
            place = Path(scratch) / str(count)
            names = tiny_models(count, place / "models")
            batch = Batch((names,), TINY, letter_documents(), SMALL)
            for engine in dict.fromkeys(engine for engine, _ in config.engines):
                rows.append(_said(timed(batch, engine, workers, place / engine)))
        store = Store(place / rows[0]["engine"] / "store")
        keeping = keeping_seconds(store, Store(Path(scratch) / "again"))
    return rows, keeping


def _probes(config: Config, kind: str) -> str:
    from probes.registry import probe_names

    left_out = dict(config.without).get(kind, ())
    return ",".join(name for name in probe_names() if name not in left_out)


def _said(row: dict[str, object]) -> dict[str, object]:
    print({name: round(x, 2) if isinstance(x, float) else x for name, x in row.items()}, flush=True)
    return row


def slopes(many: pd.DataFrame, workers: int) -> dict[str, float]:
    """What one job more takes, between the two largest batches of the local engine.

    Returns:
        per_job: of a worker beside the probe, the loading of a tiny model among it; planning; reporting; and
        report_fixed: the report of the smallest batch, nearly all of it what any report takes.
    """
    table = many[many["engine"] == "local"].sort_values("models")
    less, more = table.iloc[-2], table.iloc[-1]
    jobs = more["jobs"] - less["jobs"]
    beside = workers * (more["run"] - less["run"]) - (more["in_probes"] - less["in_probes"])
    return {
        "per_job": beside / jobs,
        "planning": (more["plan"] - less["plan"]) / jobs,
        "reporting": (more["report"] - less["report"]) / jobs,
        "report_fixed": table["report"].iloc[0],
    }


def sweeps(kinds: pd.DataFrame, parts: pd.DataFrame) -> dict[str, Sweep]:
    """What `projected` reads, by kind of model.

    A model's report takes what tiny ones do, job for job, or, where its tables are long, what its own report
    takes beyond a report of next to nothing.
    """
    found = {}
    for row in parts.to_dict("records"):
        own = kinds[kinds["model"] == row["kind"]]
        long = row["report"] - row["report_fixed"]
        found[str(row["kind"])] = Sweep(
            probes=dict(zip(own["probe"], own["seconds"], strict=True)),
            loading=row["loading"],
            per_job=row["per_job"],
            keeping=row["keeping"],
            planning=row["planning"],
            reporting=max(len(own) * row["reporting"], long),
        )
    return found


def quick() -> Config:
    """A few of everything, for a try."""
    return Config(
        engines=(("local", 1), ("local", 2)),
        rounds=1,
        engine_models=("attn-1l",),
        many=(2, 4),
        growing=("residual-norms",),
        prompts=(4, 8),
        tokens=(16, 32),
        kinds=("attn-1l",),
    )


def main(words: Sequence[str] | None = None) -> None:
    """Measure, draw, and write both into this folder; or try it small."""
    parser = argparse.ArgumentParser(prog="python -m studies.batch_scaling")
    parser.add_argument("--quick", action="store_true", help="small; nothing is written here")
    parser.add_argument("--runs", type=Path, default=RUNS, metavar="FOLDER")
    given = parser.parse_args(words)
    torch.set_num_threads(1)
    if given.quick:
        with TemporaryDirectory() as folder:
            print(study(quick(), Path(folder)).projection.round(4).to_string(index=False))
        return
    from studies.batch_scaling.figure import draw

    config = Config()
    findings = study(config, given.runs)
    save_findings(findings, HERE / "results", provenance(study=HERE.name, config=asdict(config)))
    write_numbers(HERE / "README.md", numbers.blocks(findings))
    draw(findings, HERE / "figure.png")
    for claim, holds in findings.holds.items():
        print(f"{'holds' if holds else 'FAILS'}  {claim}")
