"""Can a model's channels be added in the course of training, and do the old ones stay in use?

Claims   Grown half-way and trained on, a model is better than a narrow one and worse than a wide one.
         With the old channels frozen, little or nothing is gained at equal steps.
         The old channels stay in use, and remain the main ones.
Run      python -m studies.growing_channels            trains what is not kept under --runs, then measures
         python -m studies.growing_channels --quick    one seed, few steps; prints, and writes nothing here
Result   results/*.json, quoted in README.md; figure.png
"""

import argparse
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory

import pandas as pd
import torch

from studies.findings import save_findings, write_numbers
from studies.growing_channels import numbers
from studies.growing_channels.measures import (
    gap_row,
    loss_row,
    summary_table,
    use_rows,
    use_table,
)
from studies.growing_channels.trained import (
    NARROW,
    TASKS,
    WAYS,
    WIDE,
    Config,
    seeds_of,
    trained,
)
from studies.independent_heads.measures import rounded
from studies.independent_heads.trained import REPEATS, TEXT
from workbench.cache import cache_root
from workbench.models.checkpoints import save_checkpoint
from workbench.models.transformer import Transformer
from workbench.results import model_hash, provenance
from workbench.training.loop import Progress, ProgressFn

HERE = Path(__file__).parent
KEPT_SEED = 0
KEPT_WAYS = (WIDE, "grown", "frozen")


@dataclass(frozen=True, eq=False)
class Findings:
    """Tidy tables; their columns are explained where they are made.

    losses    every model
    gaps      how much more each loses than the wide model of its seed
    used      what is lost without the old, the new, or random channels
    summary   losses and gaps over seeds
    use       `used` over seeds
    """

    losses: pd.DataFrame
    gaps: pd.DataFrame
    used: pd.DataFrame
    summary: pd.DataFrame
    use: pd.DataFrame

    @property
    def holds(self) -> dict[str, bool]:
        """Each claim of the README, and whether these numbers bear it out."""
        gaps = self.summary.set_index(["task", "way"])["gap"]
        by_seed = self.gaps.set_index(["way", "task", "seed"])["gap"]
        repeats = gaps[REPEATS]
        use = self.use.set_index(["task", "way", "without"])["cost"]
        return {
            "grown models lose less than narrow ones and more than wide ones, seed by seed": bool(
                (by_seed["grown"] < by_seed["narrow"]).all() and (by_seed["grown"] > 0).all()
            ),
            "part of that is the schedule that starts anew": bool(
                0 < repeats["restarted"] < repeats["grown"]
            ),
            "repeats: with the old channels frozen, nothing is gained over narrow": bool(
                min(repeats["frozen"], repeats["unread, frozen"]) >= repeats["narrow"]
            ),
            "text: frozen gains some where new channels come in empty, none unread": bool(
                gaps[TEXT, "grown"] < gaps[TEXT, "frozen"] < gaps[TEXT, "narrow"]
                and gaps[TEXT, "unread, frozen"] >= gaps[TEXT, "narrow"]
            ),
            "empty or unread makes less than 0.05 nats where all is trained on": all(
                abs(gaps[task, "unread"] - gaps[task, "grown"]) < 0.05 for task in TASKS
            ),
            "the old channels stay in use, more than the new, frozen or not": all(
                use[task, way, "old"] > use[task, way, "new"]
                for task in self.summary["task"].unique()
                for way in ("grown", "frozen")
            ),
        }


def study(config: Config, runs: Path, progress: bool = False) -> Findings:
    """Every number of the README; about five minutes of one core where nothing is trained yet."""
    losses, gaps, used = [], [], []
    for task in TASKS:
        for seed in seeds_of(task, config):
            wide = None
            for way in WAYS:
                told = _told(way) if progress else None
                model = rounded(trained(task, way, seed, config, runs, told))
                row, sums = loss_row(task, way, seed, model, config)
                wide = sums if wide is None else wide
                losses.append(row)
                gaps.append(gap_row(task, way, seed, sums, wide, config))
                if way != NARROW:
                    used += use_rows(task, way, seed, model, config)
    tables = {"losses": pd.DataFrame(losses), "gaps": pd.DataFrame(gaps)}
    of_use = pd.DataFrame(used)
    return Findings(**tables, used=of_use, summary=summary_table(**tables), use=use_table(of_use))


def _told(way: str) -> ProgressFn:
    def tell(progress: Progress) -> None:
        print(f"{way}: {progress}")

    return tell


def kept_models(config: Config, runs: Path) -> dict[str, Transformer]:
    """The models that stay in this folder, by name."""
    return {
        f"{way}-{KEPT_SEED}": rounded(trained(REPEATS, way, KEPT_SEED, config, runs))
        for way in KEPT_WAYS
    }


def main(words: Sequence[str] | None = None) -> None:
    """Train, measure, draw, and write all into this folder; or try it small."""
    parser = argparse.ArgumentParser(prog="python -m studies.growing_channels")
    parser.add_argument(
        "--quick", action="store_true", help="one seed, few steps; nothing is written here"
    )
    parser.add_argument("--runs", type=Path, default=cache_root() / "studies" / HERE.name)
    given = parser.parse_args(words)
    torch.set_num_threads(1)
    if given.quick:
        small = replace(Config(), seeds=(0,), text_seeds=(0,), steps=40, n_rows=32, n_halves=2)
        with TemporaryDirectory() as folder:
            found = study(small, Path(folder))
        print(found.summary.round(3).to_string(index=False))
        return
    config = Config()
    write(config, study(config, given.runs, progress=True), given.runs)


def write(config: Config, findings: Findings, runs: Path) -> None:
    """Tables, README, figure and the kept models."""
    from studies.growing_channels.figure import draw

    kept = kept_models(config, runs)
    for name, model in kept.items():
        save_checkpoint(model, HERE / "models" / name, dtype=torch.float16)
    hashes = {name: model_hash(model) for name, model in kept.items()}
    made_by = provenance(study=HERE.name, config=asdict(config), model_hash=hashes)
    save_findings(findings, HERE / "results", made_by)
    write_numbers(HERE / "README.md", numbers.blocks(findings))
    draw(findings, HERE / "figure.png")
    for claim, holds in findings.holds.items():
        print(f"{'holds' if holds else 'FAILS'}  {claim}")
