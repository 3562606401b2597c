"""What do attention heads become that are trained one after another, each on what the earlier ones left?

Claims   At equal steps, in turn, no previous-token head and no induction is found; with four times the steps
         induction is, through a head that keeps the last few tokens from being predicted.
         With the first layer of a jointly trained model given, a second layer finds induction at once.
         On text, in turn, more is lost than jointly; a penalty on likeness gains nothing.
Run      python -m studies.independent_heads            trains what is not kept under --runs, then measures
         python -m studies.independent_heads --quick    one seed, few steps; prints, and writes nothing here
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
from studies.independent_heads import numbers
from studies.independent_heads.measures import (
    chance_losses,
    curve_rows,
    gap_row,
    head_table,
    likeness_rows,
    summary_table,
    untrained_likeness,
)
from studies.independent_heads.trained import (
    LAYERS,
    REPEATS,
    TEXT,
    WAYS,
    Config,
    Stage,
    seeds_of,
    trained,
)
from workbench.cache import cache_root
from workbench.models.checkpoints import save_checkpoint
from workbench.results import model_hash, provenance
from workbench.training.loop import Progress, ProgressFn

HERE = Path(__file__).parent
KEPT_SEED = 0
KEPT_WAYS = ("joint", "greedy", "given", "patient")


@dataclass(frozen=True, eq=False)
class Findings:
    """Tidy tables; their columns are explained where they are made.

    curves     every stage of every training
    gaps       how much more the last stage loses than the joint model of its seed
    heads      every head of every last stage
    likeness   how alike heads of one layer are
    summary    one row per task and way
    chance     what guessing loses
    """

    curves: pd.DataFrame
    gaps: pd.DataFrame
    heads: pd.DataFrame
    likeness: pd.DataFrame
    summary: pd.DataFrame
    chance: pd.DataFrame

    @property
    def holds(self) -> dict[str, bool]:
        """Each claim of the README, and whether these numbers bear it out."""
        repeats = self.summary[self.summary["task"] == REPEATS].set_index("way")
        text = self.curves[self.curves["task"] == TEXT].set_index(["way", "heads"])["loss"]
        in_turn = repeats.loc[["greedy", "apart", "layers"]]
        patient = repeats.loc["patient"]
        own = self.heads.query("task == @REPEATS and way == 'patient' and layer == 0")
        near = own.loc[own.groupby("seed")["previous_token"].idxmax()]
        gap = self.gaps.groupby(["task", "way"])["gap_low"].min()
        likeness = self.summary.set_index(["task", "way"])["likeness"]
        loss = self.summary.set_index(["task", "way"])["loss"]
        return {
            "at equal steps: in turn, no previous-token head and no induction; jointly, both": bool(
                in_turn["induction_high"].max() < 0.3
                and in_turn["previous_high"].max() < 0.3
                and repeats.loc["joint", "induction_low"] > 0.6
                and repeats.loc["joint", "previous_low"] > 0.4
            ),
            "with four times the steps: induction, no previous-token head, and more loss": bool(
                patient["induction_low"] > 0.6
                and patient["previous_high"] < 0.4
                and gap[REPEATS, "patient"] > 0
            ),
            "by way of a first-layer head that looks near and copies negatively": bool(
                (near["copying"] < -0.5).all() and (near["distance"] < 6).all()
            ),
            "behind a given first layer, induction to nearly the loss of the joint model": bool(
                repeats.loc["given", "induction_low"] > 0.6
                and repeats.loc["given", "gap_high"] < 0.1
            ),
            "text: in turn, more is lost than jointly from two heads on": bool(
                all(text["greedy", n] > text["joint", n] for n in (2, 4, 8))
                and gap[TEXT, "greedy"] > 0
            ),
            "heads apart are less alike, and lose no less": all(
                likeness[task, "apart"] < likeness[task, "greedy"]
                and loss[task, "apart"] >= loss[task, "greedy"]
                for task in WAYS
            ),
        }


def study(config: Config, runs: Path, progress: bool = False) -> Findings:
    """Every number of the README; about six minutes of one core where nothing is trained yet."""
    curves, gaps, heads, likeness = [], [], [], []
    for task, ways in WAYS.items():
        for seed in seeds_of(task, "joint", config):
            likeness += untrained_likeness(task, LAYERS[task], seed)
            joint = None
            for way in ways:
                if seed not in seeds_of(task, way, config):
                    continue
                told = _told(way) if progress else None
                stages = trained(task, way, seed, config, runs, told)
                rows, last = curve_rows(task, way, seed, stages, config)
                joint = joint or last
                curves += rows
                gaps.append(gap_row(task, way, seed, last, joint))
                heads.append(head_table(task, way, seed, stages[-1].model, config))
                likeness += likeness_rows(task, way, seed, stages[-1].model)
    tables = {
        "curves": pd.DataFrame(curves),
        "gaps": pd.DataFrame(gaps),
        "heads": pd.concat(heads, ignore_index=True),
        "likeness": pd.DataFrame(likeness),
    }
    chance = pd.DataFrame(chance_losses().items(), columns=["task", "loss"])
    return Findings(**tables, summary=summary_table(**tables), chance=chance)


def _told(way: str) -> ProgressFn:
    def tell(progress: Progress) -> None:
        print(f"{way}: {progress}")

    return tell


def kept_models(config: Config, runs: Path) -> dict[str, Stage]:
    """The last stages that stay in this folder, by name."""
    return {
        f"{way}-{KEPT_SEED}": trained(REPEATS, way, KEPT_SEED, config, runs)[-1]
        for way in KEPT_WAYS
    }


def main(words: Sequence[str] | None = None) -> None:
    """Train, measure, draw, and write all into this folder; or try it small."""
    parser = argparse.ArgumentParser(prog="python -m studies.independent_heads")
    parser.add_argument(
        "--quick", action="store_true", help="one seed, few steps; nothing is written here"
    )
    parser.add_argument("--runs", type=Path, default=cache_root() / "studies" / HERE.name)
    given = parser.parse_args(words)
    torch.set_num_threads(1)
    if given.quick:
        with TemporaryDirectory() as folder:
            found = study(replace(Config(), seeds=(0,), steps=10, n_rows=32), Path(folder))
        print(found.summary.round(3).to_string(index=False))
        return
    config = Config()
    findings = study(config, given.runs, progress=True)
    write(config, findings, given.runs)


def write(config: Config, findings: Findings, runs: Path) -> None:
    """Tables, README, figure and the kept models."""
    from studies.independent_heads.figure import draw

    kept = kept_models(config, runs)
    for name, stage in kept.items():
        save_checkpoint(stage.model, HERE / "models" / name, dtype=torch.float16)
    hashes = {name: model_hash(stage.model) for name, stage in kept.items()}
    made_by = provenance(study=HERE.name, config=asdict(config), model_hash=hashes)
    save_findings(findings, HERE / "results", made_by)
    write_numbers(HERE / "README.md", numbers.blocks(findings))
    draw(findings, HERE / "figure.png")
    for claim, holds in findings.holds.items():
        print(f"{'holds' if holds else 'FAILS'}  {claim}")
