"""How do two layers of attention make induction heads, when, and what only looks like one?

Claims   An induction head reads a previous-token head through its keys, and stops working when that is cut.
         The norm score finds more pairs than there are; a large score and matching near 1 find the pair.
         In training, copying and matching come first, then the norm score, then the induction score.
         A model of one fixed period shows "induction" in every head and has no circuit for it.
Run      python -m studies.induction_heads
Result   results/*.json, quoted in README.md; figure.png
"""

from dataclasses import asdict, dataclass
from pathlib import Path

import pandas as pd

from studies.findings import save_findings, write_numbers
from studies.induction_heads import numbers
from studies.induction_heads.composing import Rows, heads_table, pairs_table, strongest
from studies.induction_heads.formation import formation_table, onsets
from studies.induction_heads.trap import PERIOD, SEEDS, folder_of, period_table, rows_of
from studies.induction_heads.two_sided import two_sided_table
from workbench.models import load
from workbench.models.catalog import list_models
from workbench.models.protocol import Model
from workbench.prompts import random_repeats, reach
from workbench.results import model_hash, provenance

HERE = Path(__file__).parent
TEXT, SYMBOLS = "attn-2l", "induction-2l"


def kept_steps(name: str) -> tuple[int, ...]:
    """The steps at which a bundled model was kept."""
    return next(info.steps for info in list_models() if info.name == name)


@dataclass(frozen=True)
class Config:
    """All that is chosen.

    Args:
        models: whose heads are scored and cut.
        steps: of attn-2l; all that were kept if empty.
        seeds: of the models trained on one period.
        periods: on which those and induction-2l are scored.
        n_prompts: random repeats on which heads are scored.
        n_rows: contexts of 256 tokens of held-out text for the loss at each step.
        n_null: random heads behind each chance level.
    """

    models: tuple[str, ...] = (TEXT, SYMBOLS)
    steps: tuple[int, ...] = ()
    seeds: tuple[int, ...] = SEEDS
    periods: tuple[int, ...] = (6, 8, 10, 12, 14, 15, 16, 17, 18, 20, 22, 24)
    n_prompts: int = 32
    n_rows: int = 256
    n_null: int = 200
    seed: int = 0


@dataclass(frozen=True, eq=False)
class Findings:
    """Tidy tables; their columns are explained where they are made.

    Heads of models of one period are scored twice: `prompts` says on which.
    """

    heads: pd.DataFrame
    pairs: pd.DataFrame
    inputs: pd.DataFrame
    two_sided: pd.DataFrame
    formation: pd.DataFrame
    onsets: pd.DataFrame
    periods: pd.DataFrame

    @property
    def holds(self) -> dict[str, bool]:
        """Each claim of the README, and whether these numbers bear it out."""
        keys = self.pairs[self.pairs["through"] == "K"]
        text = keys[keys["model"] == TEXT]
        works = text.loc[text["drop"].idxmax()]
        others = self.pairs[(self.pairs["model"] == TEXT)].drop(index=works.name)
        both = (text["z"] > 10) & (text["matching"] > 0.9)
        half = self.onsets.set_index("measure")["half_way"]
        matched = self.two_sided.query("model == @SYMBOLS and matching > 0.9")
        trapped = self.periods[self.periods["model"] != SYMBOLS]
        home = trapped["period"] == PERIOD
        trap_pairs = self.pairs[~self.pairs["model"].isin([TEXT, SYMBOLS])]
        return {
            "cutting one key path ends induction in attn-2l": bool(
                works["drop"] > 0.9 * works["induction"] and others["drop"].max() < 0.05
            ),
            "score and matching together find that pair alone": bool(
                both.sum() == 1 and both[works.name]
            ),
            "induction-2l also matches one head's output with another's, in every reader": bool(
                set(zip(matched["query_through"], matched["key_through"], strict=True))
                == {("0.1", "0.0")}
                and len(matched) == 4
                and (matched["drop_both"] < 1.25 * matched["drop_keys"]).all()
            ),
            "copying, then matching, then the norm score, then induction": bool(
                half["copying"] < half["matching"] < half["z"] < half["induction"]
            ),
            "one period: first-layer heads pass for induction heads, and nothing composes": bool(
                trapped.loc[home, "induction_0"].min() > 0.6
                and trapped.loc[~home & (trapped["period"] > PERIOD / 2), "induction_0"].max() < 0.2
                and trap_pairs.query("through == 'K'")["z"].max() < 0
                and trap_pairs["drop"].max() < 0.05
            ),
        }


def circuits(config: Config) -> dict[str, pd.DataFrame]:
    """Heads and pairs of the bundled models on random repeats, of the others on repeats of their one period."""
    heads, pairs, two_sided = [], [], []
    for model, kind, rows in _scored(config):
        heads.append(heads_table(model, rows, config.seed).assign(prompts=kind))
        if kind == "random periods":
            two_sided.append(two_sided_table(model, rows))
        if kind != "other periods":
            pairs.append(pairs_table(model, rows, config.n_null, config.seed))
    of_pairs = pd.concat(pairs, ignore_index=True)
    return {
        "heads": pd.concat(heads, ignore_index=True),
        "pairs": of_pairs,
        "inputs": strongest(of_pairs),
        "two_sided": pd.concat(two_sided, ignore_index=True),
    }


def _scored(config: Config) -> list[tuple[Model, str, Rows]]:
    found: list[tuple[Model, str, Rows]] = []
    for name in config.models:
        model = load(name)
        rows = random_repeats(model, config.n_prompts, min(reach(model), 128), config.seed)
        found.append((model, "random periods", rows))
    for seed in config.seeds:
        model = load(str(folder_of(seed)))
        own = rows_of(PERIOD, config.n_prompts, config.seed)
        found.append((model, "its own period", own))
        rows = random_repeats(model, config.n_prompts, reach(model), config.seed)
        found.append((model, "other periods", rows))
    return found


def training(config: Config) -> dict[str, pd.DataFrame]:
    """What forms when in attn-2l."""
    steps = config.steps or kept_steps(TEXT)
    table = formation_table(TEXT, steps, config.n_rows, config.n_prompts, config.seed)
    return {"formation": table, "onsets": onsets(table)}


def trap(config: Config) -> dict[str, pd.DataFrame]:
    """Loss and induction scores by period."""
    models = [load(str(folder_of(seed))) for seed in config.seeds] + [load(SYMBOLS)]
    return {"periods": period_table(models, config.periods, config.n_prompts, config.seed)}


def study(config: Config) -> Findings:
    """Every number of the README; takes about two minutes of one core."""
    return Findings(**circuits(config), **training(config), **trap(config))


def main() -> None:
    """Measure, draw, and write both into this folder."""
    from studies.induction_heads.figure import draw

    config = Config()
    findings = study(config)
    names = [*config.models, *(str(folder_of(seed)) for seed in config.seeds)]
    hashes = {Path(name).name: model_hash(load(name)) for name in names}
    hashes |= {
        f"{TEXT} at step {step}": model_hash(load(TEXT, step=step))
        for step in config.steps or kept_steps(TEXT)
    }
    made_by = provenance(study=HERE.name, config=asdict(config), model_hash=hashes)
    save_findings(findings, HERE / "results", made_by)
    write_numbers(HERE / "README.md", numbers.blocks(findings))
    draw(findings, HERE / "figure.png")
    for claim, holds in findings.holds.items():
        print(f"{'holds' if holds else 'FAILS'}  {claim}")
