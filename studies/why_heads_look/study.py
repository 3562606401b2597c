"""Why does a head look here rather than elsewhere? Its score, as an exact sum over pairs of parts.

Claims   The induction head of attn-2l looks where it does for one pair of parts: what a previous-token head
         wrote into the key, times the query's own embedding. Alone it looks there too; without it nothing does.
         In SmolLM2 the head that writes most for the expected name does not look at it.
         A head that does look there hears which name came twice through its query, mostly from one earlier
         head; taking that one out costs half, as all paths through it say, and not what it adds straight.
         There, single pairs mean little: their sizes come to tens of times their sum.
Run      python -m studies.why_heads_look
Result   results/*, quoted in README.md; figure.png
"""

from dataclasses import asdict, dataclass
from pathlib import Path

import pandas as pd

from studies.findings import save_findings, write_numbers
from studies.why_heads_look import names, numbers, repeats
from studies.why_heads_look.sentences import HELD_OUT, SELECTION, sentences
from workbench.models import load
from workbench.results import model_hash, provenance

HERE = Path(__file__).parent
SMALL, PUBLIC = "attn-2l", "smollm2"
IOI, THIRD = "one name twice", "three names"


@dataclass(frozen=True)
class Config:
    """All that is chosen.

    Args:
        n_rows: prompts of each kind for attn-2l, of `n_pos` tokens.
        n_queries: repeats looked at in each, at most.
        n_selection: sentences on which heads are chosen.
        n_held_out: sentences on which they are taken apart; as many with a third name.
        n_removals: sentences in which heads are taken out.
    """

    n_rows: int = 32
    n_pos: int = 128
    n_queries: int = 12
    n_selection: int = 16
    n_held_out: int = 24
    n_removals: int = 12
    seed: int = 0


@dataclass(frozen=True, eq=False)
class Findings:
    """Tidy tables; their columns are explained where they are made."""

    repeats: pd.DataFrame
    pairs: pd.DataFrame
    heads: pd.DataFrame
    contrasts: pd.DataFrame
    parts: pd.DataFrame
    removals: pd.DataFrame

    @property
    def holds(self) -> dict[str, bool]:
        """Each claim of the README, and whether these numbers bear it out."""
        reader = self.repeats[self.repeats["head"] == str(repeats.READER)]
        target = reader[reader["cell"] == repeats.TARGET]
        # By head and kind of cell, all but the reader's own targets.
        other = self.repeats.drop(index=target.index)
        is_pair = (self.pairs["query"] == "embed") & (self.pairs["key"] == repeats.WRITER)
        others = self.pairs[~is_pair]
        heads, questions = (
            self.heads.set_index("head"),
            self.contrasts.set_index(["sentences", "role", "key", "versus"]),
        )
        largest = heads.loc[questions.loc[(IOI, "largest", "IO", "S2"), "head"]]
        moved = questions.loc[(IOI, "looking", "IO", "S1")]
        removed = self.removals.set_index("head")
        feeding = removed.loc[self.removals.loc[self.removals["straight"].idxmax(), "head"]]
        rest = removed.drop(index=feeding.name)
        return {
            "one pair is nine tenths of why the induction head looks there, in repeats and in text": bool(
                (target["share_low"] > 0.9).all()
            ),
            "no other pair of the 36 is a tenth of it": bool(others["share"].abs().max() < 0.1),
            "elsewhere, in shuffled tokens and for other heads the pair adds less than a tenth of that": bool(
                other["pair"].abs().max() < 0.1 * target["pair"].min()
            ),
            "alone the pair looks at the same place; without it hardly anything is left": bool(
                (target["alone"] > 0.7 * target["attention"]).all()
                and (target["without"] < 0.05).all()
            ),
            "the head that writes most for the expected name looks at the other one": bool(
                largest["S2"] > 0.5 and largest["IO"] < 0.1
            ),
            "one earlier head, through the query, is most of why the expected name is looked at": bool(
                feeding["straight_low"] > 0.5 * moved["contrast"]
                and rest["straight"].max() < 0.25 * feeding["straight"]
            ),
            "taken out, it costs what all paths through it come to, no other head of its layer anything": bool(
                abs(feeding["lost"] - feeding["through"]) < 0.1 * feeding["contrast"]
                and feeding["lost_low"] > 0.3 * feeding["contrast"]
                and rest["lost"].abs().max() < 0.1 * feeding["contrast"]
            ),
            "that is half of the contrast, less than it adds straight": bool(
                feeding["lost_high"] < 0.75 * feeding["contrast"]
                and feeding["lost_high"] < feeding["straight_low"]
            ),
            "pairs of parts come to more than ten times their sum, in sizes": bool(
                (self.contrasts["sizes"] > 10 * self.contrasts["contrast"].abs()).all()
            ),
        }


def small(config: Config) -> dict[str, pd.DataFrame]:
    """The induction head of attn-2l."""
    settings = (config.n_rows, config.n_pos, config.n_queries, config.seed)
    return repeats.tables(load(SMALL), *settings)


def public(config: Config) -> dict[str, pd.DataFrame]:
    """Heads of SmolLM2 on sentences with two names."""
    model, seed = load(PUBLIC), config.seed
    selection = sentences(SELECTION, config.n_selection, seed)
    held_out = sentences(HELD_OUT, config.n_held_out, seed)
    with_third = sentences(HELD_OUT, config.n_held_out, seed, third=True)
    heads = names.heads_table(model, selection, seed)
    chosen = names.chosen_heads(model, heads, selection)
    found = names.taken_apart(model, held_out, chosen)
    control = names.taken_apart(model, with_third, chosen)
    tables = [
        names.contrasts_table(found, IOI, seed),
        names.contrasts_table(control, THIRD, seed),
    ]
    return {
        "heads": heads,
        "contrasts": pd.concat(tables, ignore_index=True),
        "parts": names.parts_table(found, seed),
        "removals": names.removals_table(model, held_out[: config.n_removals], chosen, seed),
    }


def study(config: Config) -> Findings:
    """Every number of the README; takes about three minutes of one core."""
    return Findings(**small(config), **public(config))


def main() -> None:
    """Measure, draw, and write both into this folder."""
    from studies.why_heads_look.figure import draw

    config = Config()
    findings = study(config)
    hashes = {name: model_hash(load(name)) for name in (SMALL, PUBLIC)}
    made_by = provenance(study=HERE.name, config=asdict(config), model_hash=hashes)
    save_findings(findings, HERE / "results", made_by)
    write_numbers(HERE / "README.md", numbers.blocks(findings))
    draw(findings, HERE / "figure.png")
    for claim, holds in findings.holds.items():
        print(f"{'holds' if holds else 'FAILS'}  {claim}")
