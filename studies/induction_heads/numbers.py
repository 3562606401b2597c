"""The tables of README.md, written from the findings."""

from typing import TYPE_CHECKING

import pandas as pd

from studies.findings import markdown, number, spread, whole
from studies.induction_heads.trap import PERIOD

if TYPE_CHECKING:
    from studies.induction_heads.study import Findings

NOTED_Z, NOTED_DROP = 10, 0.05


def blocks(findings: "Findings") -> dict[str, str]:
    """The text of each marked block, by its name."""
    return {
        "heads": heads(findings.heads),
        "inputs": inputs(findings.inputs),
        "pairs": pairs(findings.pairs),
        "two-sided": two_sided(findings.two_sided),
        "formation": formation(findings.formation),
        "onsets": onsets(findings.onsets),
        "trap": trap(findings),
    }


def heads(table: pd.DataFrame) -> str:
    """Heads of the bundled models on random repeats."""
    table = table[table["prompts"] == "random periods"]
    shown = {name: spread(table, number(3), name) for name in ("previous_token", "induction")}
    cells = {
        "model": ("model", str),
        "label": ("head", str),
        "previous_token": ("previous-token", str),
        "previous_token_chance": ("chance", number(3)),
        "two_back": ("two back", number(3)),
        "induction": ("induction", str),
        "induction_chance": ("chance", number(3)),
        "copying": ("copying score", number(2)),
        "copying_z": ("z", number(1)),
    }
    return markdown(table.assign(**shown, label=_labels(table)), cells)


def inputs(table: pd.DataFrame) -> str:
    """The strongest pair through each input, by weights and by cutting."""
    bundled, moves_patterns = ~table["model"].str.startswith("fixed"), table["through"] != "V"
    table = table[bundled & moves_patterns]
    table = table.assign(drop=spread(table, number(3), "cut_drop"))
    cells = {
        "model": ("model", str),
        "through": ("through", str),
        "n_above_10": ("pairs of 16 with z > 10", whole),
        "top_pair": ("highest z", str),
        "top_z": ("z", number(1)),
        "top_matching": ("matching", number(2)),
        "cut_pair": ("falls most when cut", str),
        "drop": ("fall of the induction score", str),
    }
    return markdown(table, cells)


def pairs(table: pd.DataFrame) -> str:
    """Every pair that the norm score points at, or that matters when cut."""
    bundled = ~table["model"].str.startswith("fixed")
    noted = (table["z"] > NOTED_Z) | (table["drop"] > NOTED_DROP)
    table = table[bundled & noted]
    cells = {
        "model": ("model", str),
        "pair": ("pair", str),
        "through": ("through", str),
        "score": ("score", number(3)),
        "chance": ("chance", number(3)),
        "z": ("z", number(1)),
        "matching": ("matching", number(2)),
        "copying": ("copying of the reader", number(2)),
        "induction": ("its induction score", number(3)),
        "drop": ("falls by, when cut", str),
    }
    named = table["writer"] + " → " + table["reader"]
    return markdown(table.assign(pair=named, drop=spread(table, number(3), "drop")), cells)


def two_sided(table: pd.DataFrame) -> str:
    """Per reader the best match with both sides read through heads, and what cutting it costs."""
    rows = []
    for _, group in table.groupby(["model", "reader"], sort=False):
        best, following = group.sort_values("matching", ascending=False).iloc[:2].to_dict("records")
        both = f"{best['query_through']}, {best['key_through']}"
        rows.append(best | {"through": both, "following": following["matching"]})
    cells = {
        "model": ("model", str),
        "reader": ("reader", str),
        "through": ("queries, keys through", str),
        "matching": ("matching", number(2)),
        "following": ("next best of 16", number(2)),
        "drop_queries": ("falls when queries are cut", number(3)),
        "drop_keys": ("keys", number(3)),
        "drop_both": ("both", number(3)),
    }
    return markdown(pd.DataFrame(rows), cells)


def formation(table: pd.DataFrame) -> str:
    """The pair through training."""
    shown = {
        "previous_token": spread(table, number(2), "previous_token"),
        "induction": spread(table, number(2), "induction"),
        "in_context": spread(table, number(2, sign=True), "in_context"),
    }
    cells = {
        "step": ("step", whole),
        "copying": ("copying", number(2)),
        "matching": ("matching", number(2)),
        "z": ("K-composition, z", number(1)),
        "other_z": ("highest z of other pairs", number(1)),
        "previous_token": ("previous-token", str),
        "induction": ("induction", str),
        "in_context": ("learning in context, nats", str),
        "loss": ("loss, nats per token", number(2)),
    }
    return markdown(table.assign(**shown), cells)


def onsets(table: pd.DataFrame) -> str:
    """Which measure is half-way first."""
    table = table.sort_values("half_way")
    between = table["after"].map(whole) + " to " + table["by"].map(whole)
    cells = {
        "label": ("", str),
        "first": ("at the start", number(2)),
        "last": ("at the end", number(2)),
        "half_way": ("half-way at step", whole),
        "between": ("between the kept steps", str),
    }
    return markdown(table.assign(between=between), cells)


def trap(findings: "Findings") -> str:
    """Models of one period beside the one of random periods."""
    rows = []
    for model, table in findings.periods.groupby("model", sort=False):
        own = table[table["period"] == PERIOD].iloc[0]
        other = table[PERIOD % table["period"] != 0]
        keys = findings.inputs.query("model == @model and through == 'K'").iloc[0]
        rows.append(
            {
                "model": model,
                "own": own["induction_0"],
                "own_1": own["induction_1"],
                "own_loss": own["loss"],
                "other": other["induction_0"].max(),
                "other_1": other["induction_1"].max(),
                "other_chance": other["chance"].max(),
                "other_loss": other["loss"].mean(),
                "z": keys["top_z"],
                "drop": keys["cut_drop"],
            }
        )
    cells = {
        "model": ("model", str),
        "own_loss": (f"loss at period {PERIOD}", number(3)),
        "own": ("best induction score there, layer 0", number(2)),
        "own_1": ("layer 1", number(2)),
        "other_loss": ("loss at other periods", number(2)),
        "other": ("best induction score there, layer 0", number(2)),
        "other_1": ("layer 1", number(2)),
        "z": ("highest z through K", number(1)),
        "drop": ("largest fall when cut", number(2)),
    }
    return markdown(pd.DataFrame(rows), cells)


def _labels(table: pd.DataFrame) -> pd.Series:
    return table["layer"].astype(str) + "." + table["head"].astype(str)
