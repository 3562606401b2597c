"""Does a penalty on wiring length, with swaps, make networks modular, and which part of it does what?

Claims   Sparsity and a high Q come with the L1 part alone; a shuffle that is as sparse has most of that Q too.
         Swaps change no function and no graph: they shorten wires. Distances do both, at some cost in loss.
         Two computations that share nothing come apart into components, which rewirings of them do not.
         Unpruned, a network after L1 looks less modular than its shuffles, whatever it is.
Run      python -m studies.brain_inspired_modular_training [--quick] [--finished] [--mnist FOLDER]
Result   results/*.json, quoted in README.md; figure.png
"""

import argparse
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import pandas as pd

from studies.brain_inspired_modular_training import numbers
from studies.brain_inspired_modular_training.encodings import COLUMNS as ENCODINGS
from studies.brain_inspired_modular_training.published import beside
from studies.brain_inspired_modular_training.runs import Part, all_runs
from studies.brain_inspired_modular_training.spread import contrasts, summary
from studies.findings import read_findings, save_findings, write_numbers
from workbench.results import provenance

HERE = Path(__file__).parent
RUNS = Path("runs/bimt")
QUICK = Path("runs/bimt-quick")
FORMULAS = ("bimt-independence", "bimt-feature-sharing", "bimt-compositionality")
SHORT = (*FORMULAS, "bimt-two-moons", "bimt-s4", "bimt-digits")
LONG = ("bimt-modular-addition", "bimt-in-context")
APART = "bimt-independence"
FIVE, THREE = tuple(range(5)), tuple(range(3))
MEASURES = (
    *("test_loss", "score", "test_loss_pruned", "score_pruned"),
    *("q", "q_mean", "q_z", "q_pruned", "q_pruned_mean", "q_pruned_z"),
    *("cut", "cut_z", "cut_pruned", "cut_pruned_z"),
    *("wiring", "mean_length", "mean_length_pruned", "cross_talk", "cross_talk_pruned"),
    *("components", "components_mean", "live_units", "live_wires", *ENCODINGS),
)
PAIRS = (("l1", "none"), ("local", "l1"), ("swap", "l1"), ("bimt", "l1"), ("bimt", "swap"))
COMPARED = ("test_loss", "score", "q", "q_pruned", "q_pruned_z", "mean_length", "live_wires")


@dataclass(frozen=True)
class Config:
    """All that is chosen.

    Args:
        parts: experiments, each in five variants from some seeds.
        processes: trainings at once, of one thread each.
        finished: nothing is trained; runs that are not finished are left out.
    """

    parts: tuple[Part, ...] = (
        *(Part(name, FIVE) for name in SHORT),
        *(Part(name, THREE) for name in LONG),
    )
    processes: int = 2
    finished: bool = False


def quick() -> Config:
    """About ten minutes on two cores: three seeds of the formulas, one of the rest, some in fewer steps."""
    return Config(
        parts=(
            *(Part(name, THREE) for name in (*FORMULAS, "bimt-two-moons")),
            Part("bimt-s4", (0,), steps=10_000),
            Part("bimt-modular-addition", (0,), steps=5_000),
            Part("bimt-digits", (0,), steps=4_000),
            Part("bimt-in-context", (0,), steps=1_000),
        )
    )


@dataclass(frozen=True, eq=False)
class Findings:
    """Tidy tables.

    runs       one row per network: everything measured
    variants   one row per experiment and variant: means over seeds, with intervals
    contrasts  one variant less another, seed by seed
    published  reported numbers beside ours
    """

    runs: pd.DataFrame
    variants: pd.DataFrame
    contrasts: pd.DataFrame
    published: pd.DataFrame

    @property
    def holds(self) -> dict[str, bool]:
        """Each claim of the README, and whether these numbers bear it out."""
        by = self.variants.set_index(["experiment", "variant"])
        small = [*FORMULAS, "bimt-two-moons"]
        wires, q = (by[name].unstack("variant").loc[small] for name in ("live_wires", "q_pruned"))
        runs = self.runs[self.runs["experiment"].isin(small)]
        shaped = runs[runs["variant"] != "none"]
        swapped = self.contrasts[self.contrasts["experiment"].isin(small)]
        swapped = swapped.set_index(["variant", "against", "measure"])["value"]
        parts = runs[runs["experiment"] == APART].groupby("variant")["components"]
        lengths = by["mean_length"].unstack("variant").loc[small]
        return {
            "L1 alone leaves under a tenth of the wires": bool(
                (wires["l1"] < wires["none"] / 10).all()
            ),
            "swaps alone leave loss, wires and Q as they are, and shorten the wires": bool(
                (abs(swapped["swap", "l1", "test_loss"] - 1) < 0.02).all()
                and (abs(swapped["swap", "l1", "q"]) < 0.002).all()
                and (swapped["swap", "l1", "mean_length"] < 0.7).all()
            ),
            "distances and swaps together make wires under a third as long as L1 does": bool(
                (lengths["bimt"] < lengths["l1"] / 3).all()
            ),
            "most of Q is in rewirings already": bool(
                (shaped["q_pruned"] - shaped["q_pruned_mean"] < 0.2 * shaped["q_pruned"]).mean()
                > 0.9
            ),
            "unpruned, nearly every shaped network is less modular than its shuffles": bool(
                (shaped["q_z"] < 0).mean() > 0.95
            ),
            "two formulas come apart in every network with distances, in none without a penalty": bool(
                (parts.min()[["local", "bimt"]] == 2).all() and parts.max()["none"] == 1
            ),
            "not always is BIMT's Q the highest of the five": bool(
                0 < (q.idxmax(axis=1) == "bimt").sum() < len(small)
            ),
        }


def study(config: Config, runs: Path) -> Findings:
    """Every number of the README."""
    rows = all_runs(config.parts, runs, config.processes, print, finished=config.finished)
    return Findings(
        runs=rows,
        variants=summary(rows, MEASURES),
        contrasts=contrasts(rows, PAIRS, COMPARED),
        published=beside(rows),
    )


def main(words: Sequence[str] | None = None) -> None:
    """Train what is not trained yet, measure, draw, and write both into this folder.

    `--quick` writes beside its runs instead, and leaves what is kept here alone.
    """
    from studies.brain_inspired_modular_training.figure import draw

    given = _arguments(words)
    config = replace(quick() if given.quick else Config(), finished=given.finished)
    if given.mnist is not None:
        part = Part("bimt-mnist", config.parts[-1].seeds, folder=given.mnist)
        config = replace(config, parts=(*config.parts, part))
    runs = given.runs or (QUICK if given.quick else RUNS)
    findings = study(config, runs)
    out = runs if given.quick or given.mnist else HERE
    made_by = provenance(study=HERE.name, config=asdict(config))
    save_findings(findings, out / "results", made_by)
    # What is quoted is what is kept, which is rounded.
    findings = read_findings(Findings, out / "results")
    if out == HERE:
        write_numbers(HERE / "README.md", numbers.blocks(findings))
    draw(findings, out / "figure.png", runs)
    print(f"written: {out / 'results'}")
    for claim, holds in findings.holds.items():
        print(f"{'holds' if holds else 'FAILS'}  {claim}")


def _arguments(words: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m studies.brain_inspired_modular_training")
    parser.add_argument("--quick", action="store_true", help="fewer seeds and steps; ten minutes")
    parser.add_argument(
        "--finished", action="store_true", help="train nothing: measure what is there"
    )
    parser.add_argument("--mnist", metavar="FOLDER", help="of the four MNIST files: a part more")
    parser.add_argument("--runs", type=Path, metavar="FOLDER", help="where networks are kept")
    return parser.parse_args(words)
