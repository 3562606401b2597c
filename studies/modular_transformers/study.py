"""Does a price on wiring change which heads form, how they compose, and how well they can be read?

Claims   At equal loss the same circuit forms: induction heads read previous-token heads through their keys.
         What changes is its basis: heads read and write fewer channels, and a plain L1 penalty does as much.
         What distances and swaps add to L1 is short wires.
Run      python -m studies.modular_transformers            about 15 minutes of one quiet core; can be resumed
         python -m studies.modular_transformers --quick    half a minute: one seed, short runs, nothing written
Result   results/*, quoted in README.md; figure.png
"""

from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import pandas as pd
import torch

from studies.findings import save_findings, write_numbers
from studies.modular_transformers import numbers
from studies.modular_transformers.equal import equal_table
from studies.modular_transformers.measures import model_tables
from studies.modular_transformers.training import (
    CONDITIONS,
    STEPS,
    Condition,
    Data,
    Trial,
    make_task,
    runs_root,
    train,
)
from workbench.models.checkpoints import load_checkpoint, save_checkpoint
from workbench.models.transformer import Transformer
from workbench.results import model_hash, provenance

HERE = Path(__file__).parent
MIDDLE = {"none": 0.0, "l1": 1.0, "local": 0.5, "swaps": 0.5}
"""The strengths at which all conditions end at nearly the same loss."""
PENALISED = ["l1", "local", "swaps"]


@dataclass(frozen=True)
class Config:
    """All that is chosen.

    Args:
        data: what models are trained on.
        seeds: of the models on repeats; those on text are one of each.
        factors: strengths for the first seed, as multiples of those of `MIDDLE`.
        other_factors: strengths for the other seeds.
        losses: at which conditions are compared, by data.
        steps: of a run on repeats.
        n_shuffles: networks behind the chance level of Q.
    """

    data: tuple[Data, ...] = ("repeats", "text")
    seeds: tuple[int, ...] = (0, 1, 2)
    factors: tuple[float, ...] = (0.3, 1.0, 3.0)
    other_factors: tuple[float, ...] = (1.0, 3.0)
    losses: tuple[tuple[Data, float], ...] = (("repeats", 0.32), ("repeats", 0.385))
    steps: int = STEPS["repeats"]
    n_shuffles: int = 10
    seed: int = 0


@dataclass(frozen=True, eq=False)
class Findings:
    """Tidy tables; their columns are explained where they are made (`measures.py`, `equal.py`)."""

    models: pd.DataFrame
    heads: pd.DataFrame
    pairs: pd.DataFrame
    equal: pd.DataFrame

    @property
    def holds(self) -> dict[str, bool]:
        """Each claim of the README, and whether these numbers bear it out."""
        final = self.models[self.models["is_final"]]
        repeats = final[final["data"] == "repeats"]
        first = self.equal["loss"].min()
        at_first = self.equal[self.equal["loss"] == first]
        low = at_first.pivot(index="measure", columns="condition", values="low")
        high = at_first.pivot(index="measure", columns="condition", values="high")
        means = at_first.pivot(index="measure", columns="condition", values="mean")
        middle = repeats[repeats["strength"] == repeats["condition"].map(MIDDLE)]
        excess = (middle["q"] - middle["q_chance"]).groupby(middle["condition"])
        strong = repeats[repeats["strength"] > repeats["condition"].map(MIDDLE)]
        text = final[final["data"] == "text"].set_index("condition")
        by_distance = ["local", "swaps"]
        return {
            "every model makes the same circuit": bool(
                (repeats["induction"] > 10 * repeats["induction_chance"]).all()
                and (repeats["previous_token"] > 5 * repeats["previous_token_chance"]).all()
                and (repeats["k_z"] > 10).all()
                and (repeats[["k_matching", "copying"]] > 0.95).all(axis=None)
                and (repeats["k_cut"] > 0.5).all()
            ),
            "at equal loss its heads score lower with a penalty": bool(
                (low.loc["induction", "none"] > high.loc["induction", PENALISED]).all()
                and (
                    low.loc["previous_token", "none"] > high.loc["previous_token", PENALISED]
                ).all()
            ),
            "at equal loss any penalty makes heads read fewer channels": bool(
                (high.loc["channels", PENALISED] < low.loc["channels", "none"]).all()
            ),
            "prices by distance more than equal ones": bool(
                (high.loc["channels", by_distance] < low.loc["channels", "l1"]).all()
            ),
            "distances shorten wires beyond what placing the units of L1 does": bool(
                (high.loc["length", by_distance] < low.loc["length_placed", "l1"]).all()
            ),
            "swaps in training shorten wires by a tenth at most beyond placing the units afterwards": bool(
                0.9 < means.loc["length", "swaps"] / means.loc["length_placed", "local"] < 1
            ),
            "at middle strength distances make more modules than shuffled weights have, L1 no more": bool(
                (excess.min()[by_distance] > 0.02).all() and abs(excess.mean()["l1"]) < 0.01
            ),
            "at the highest strength nothing does": bool(
                (
                    (strong["q"] - strong["q_chance"]).groupby(strong["condition"]).mean() < 0.01
                ).all()
            ),
            "strong prices by distance leave fewer induction heads": bool(
                (strong[strong["condition"] != "l1"]["n_induction"] < 4).all()
            ),
            "on text too: the same circuit, shorter wires, fewer channels, at a loss within 2 %": bool(
                (text[["k_matching", "copying"]] > 0.95).all(axis=None)
                and (text["induction"] > 10 * text["induction_chance"]).all()
                and text["loss"].max() < 1.02 * text["loss"].min()
                and (
                    text.loc[by_distance, ["length", "channels"]].max()
                    < text.loc["none", ["length", "channels"]]
                ).all()
            ),
        }


def trials(config: Config) -> tuple[Trial, ...]:
    """Every model that is trained."""
    found = []
    for data in config.data:
        is_text = data == "text"
        for seed in config.seeds[:1] if is_text else config.seeds:
            steps = STEPS["text"] if is_text else config.steps
            factors = config.factors if seed == config.seeds[0] else config.other_factors
            for condition in CONDITIONS:
                found += [
                    Trial(data=data, condition=condition, strength=s, seed=seed, steps=steps)
                    for s in strengths(condition, (1.0,) if is_text else factors)
                ]
    return tuple(found)


def strengths(condition: Condition, factors: tuple[float, ...]) -> list[float]:
    """The strengths of a condition."""
    if condition == "none":
        return [0.0]
    return [round(MIDDLE[condition] * factor, 6) for factor in factors]


def measured(trial: Trial, folder: Path, config: Config) -> dict[str, pd.DataFrame]:
    """Tables of one trained model; of its snapshots the first alone."""
    task = make_task(trial.data)
    names = asdict(trial)
    del names["steps"]
    rows = []
    for step in trial.snapshots:
        row, _, _ = model_tables(load_checkpoint(folder, step=step), task, config.seed, 0)
        rows.append(names | {"step": step, "is_final": False} | row)
    model = final_model(folder)
    row, heads, pairs = model_tables(model, task, config.seed, config.n_shuffles)
    rows.append(names | {"step": trial.steps, "is_final": True} | row)
    return {
        "models": pd.DataFrame(rows),
        "heads": heads.assign(**names),
        "pairs": pairs.assign(**names),
    }


def final_model(folder: Path) -> Transformer:
    """A trained model with its weights rounded to float16, as kept models are."""
    return load_checkpoint(folder).half().float()


def study(config: Config, root: Path) -> Findings:
    """Every number of the README; trains what is missing under `root`."""
    torch.set_num_threads(1)
    found = [measured(trial, train(trial, root), config) for trial in trials(config)]
    tables = {
        name: pd.concat([each[name] for each in found], ignore_index=True)
        for name in ("models", "heads", "pairs")
    }
    return Findings(**tables, equal=equal_table(tables["models"], config.losses))


def kept_folder(condition: str) -> Path:
    """Where the first seed's model of middle strength is kept in the repository."""
    return HERE / "models" / condition


def main() -> None:
    """Train what is missing, measure, draw, and write all into this folder."""
    from studies.modular_transformers.figure import draw

    config, root = Config(), runs_root()
    findings = study(config, root)
    hashes = {trial.name: model_hash(final_model(root / trial.name)) for trial in trials(config)}
    for condition in CONDITIONS:
        steps, strength = config.steps, MIDDLE[condition]
        kept = Trial(data="repeats", condition=condition, strength=strength, steps=steps)
        folder = kept_folder(condition)
        save_checkpoint(final_model(root / kept.name), folder, dtype=torch.float16)
    made_by = provenance(study=HERE.name, config=asdict(config), model_hash=hashes)
    save_findings(findings, HERE / "results", made_by)
    write_numbers(HERE / "README.md", numbers.blocks(findings))
    draw(findings, HERE / "figure.png")
    for claim, holds in findings.holds.items():
        print(f"{'holds' if holds else 'FAILS'}  {claim}")


def quick() -> None:
    """The same trainings and measures, short: one seed on repeats; printed, and nothing kept."""
    config = Config(
        data=("repeats",), seeds=(0,), factors=(1.0,), losses=(), steps=240, n_shuffles=2
    )
    with TemporaryDirectory() as scratch:
        findings = study(config, Path(scratch))
    final = findings.models[findings.models["is_final"]]
    shown = ["condition", "loss", "induction", "previous_token", "k_z", "length", "channels", "q"]
    print(final[shown].round(3).to_string(index=False))
