"""The tables of README.md, written from the findings."""

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from studies.findings import code, markdown, number, percent, spread
from studies.why_heads_look.repeats import READER, TARGET

if TYPE_CHECKING:
    from studies.why_heads_look.study import Findings

N_PAIRS, N_HEADS, N_PARTS = 4, 7, 5
SHOWN = (("looking", "IO", "S1"), ("largest", "S2", "mean"))
SIGNED = number(2, sign=True)


def blocks(findings: "Findings") -> dict[str, str]:
    """The text of each marked block, by its name."""
    return {
        "repeats": repeats(findings.repeats),
        "pairs": pairs(findings.pairs),
        "heads": heads(findings.heads),
        "contrasts": contrasts(findings.contrasts),
        "parts": parts(findings.parts, findings.contrasts),
        "removals": removals(findings.removals),
    }


def repeats(table: pd.DataFrame) -> str:
    """The reader at all kinds of cells, other heads at the targets."""
    is_reader, is_target = table["head"] == str(READER), table["cell"] == TARGET
    table = table[is_reader | is_target]
    table = table.sort_values(
        ["prompts", "head", "cell"],
        key=lambda column: column.map(_rank) if column.name in ("head", "cell") else column,
        kind="stable",
    )
    share = spread(table, percent(), "share").where(is_reader & is_target, "")
    shown = {name: spread(table, SIGNED, name) for name in ("contrast", "pair")}
    cells = {
        "prompts": ("prompts", str),
        "head": ("head", str),
        "cell": ("key", str),
        "contrast": ("score minus other keys' mean", str),
        "pair": ("of it the pair", str),
        "share": ("share", str),
        "attention": ("attention", number(3)),
        "alone": ("by the pair alone", number(3)),
        "without": ("without the pair", number(3)),
        "uniform": ("uniform", number(3)),
    }
    return markdown(table.assign(**shown, share=share), cells)


def _rank(name: str) -> int:
    order = (str(READER), TARGET, "elsewhere", "shuffled")
    return order.index(name) if name in order else len(order)


def pairs(table: pd.DataFrame) -> str:
    """The largest pairs of parts at the targets, and all others."""
    rows = []
    for prompts, group in table.groupby("prompts", sort=False):
        order = np.argsort(-group["value"].abs().to_numpy(), kind="stable")
        largest, rest = group.iloc[order[:N_PAIRS]], group.iloc[order[N_PAIRS:]]
        rows += largest.assign(size=largest["value"].abs()).to_dict("records")
        rows.append(
            {
                "prompts": prompts,
                "query": f"{len(rest)} others",
                "key": "",
                "composition": "",
                **{name: rest[name].sum() for name in ("value", "share")},
                "low": np.nan,
                "high": np.nan,
            }
        )
    frame = pd.DataFrame(rows)
    cells = {
        "prompts": ("prompts", str),
        "query": ("in the query", str),
        "key": ("in the key", str),
        "composition": ("composition", str),
        "shown": ("adds", str),
        "share": ("share", _percent),
    }
    return markdown(frame.assign(shown=spread(frame, SIGNED)), cells)


def heads(table: pd.DataFrame) -> str:
    """Who writes most for the expected name, and where it looks."""
    table = table.head(N_HEADS)
    cells = {
        "head": ("head", str),
        "effect": ("direct effect on IO − S, logits", str),
        "IO": ("attention on IO", number(2)),
        "S1": ("on S1", number(2)),
        "S2": ("on S2", number(2)),
    }
    return markdown(table.assign(effect=spread(table, SIGNED, "effect")), cells)


def contrasts(table: pd.DataFrame) -> str:
    """Every question: how large, how sure, how much cancels."""
    ratio = table["sizes"] / table["contrast"].abs()
    by_layer = table["layer_sizes"] / table["contrast"].abs()
    cells = {
        "sentences": ("sentences", str),
        "head": ("head", str),
        "asked": ("why", str),
        "contrast": ("difference of scores", str),
        "share_above": ("above 0 in", percent()),
        "attention": ("attention on the former", number(2)),
        "both": ("both sides written by heads and MLPs", SIGNED),
        "sizes": ("all pairs, in sizes", number(0)),
        "ratio": ("× the sum", number(0)),
        "by_layer": ("by layer", number(0)),
    }
    shown = {
        "asked": _asked(table),
        "contrast": spread(table, SIGNED, "contrast"),
        "ratio": ratio,
        "by_layer": by_layer,
    }
    return markdown(table.assign(**shown), cells)


def parts(table: pd.DataFrame, contrasts: pd.DataFrame) -> str:
    """The parts that add most through each side."""
    heads = contrasts.drop_duplicates("role").set_index("role")["head"]
    rows = []
    for role, key, versus in SHOWN:
        chosen = table[
            (table["role"] == role) & (table["key"] == key) & (table["versus"] == versus)
        ]
        for side in ("query", "key"):
            group = chosen[chosen["side"] == side]
            rows.append(
                group.loc[group["value"].abs().sort_values(ascending=False).index[:N_PARTS]]
            )
    frame = pd.concat(rows)
    cells = {
        "head": ("head", str),
        "asked": ("why", str),
        "side": ("through the", str),
        "part": ("part", code),
        "shown": ("adds", str),
        "above": ("above 0 in", percent()),
    }
    shown = {
        "head": frame["role"].map(heads),
        "asked": _asked(frame),
        "shown": spread(frame, SIGNED),
    }
    return markdown(frame.assign(**shown), cells)


def removals(table: pd.DataFrame) -> str:
    """Each head of one layer: adds, and costs."""
    cells = {
        "head": ("head", str),
        "S2": ("attention on S2", number(2)),
        "straight": ("adds straight to the query", str),
        "through": ("all paths through it", str),
        "lost": ("lost when taken out of the model", str),
    }
    shown = {name: spread(table, SIGNED, name) for name in ("straight", "through", "lost")}
    return markdown(table.assign(**shown), cells)


def _asked(table: pd.DataFrame) -> pd.Series:
    versus = table["versus"].replace("mean", "the other keys' mean")
    return table["key"] + " over " + versus


def _percent(value: float) -> str:
    return f"{number(1)(100 * value)} %"
