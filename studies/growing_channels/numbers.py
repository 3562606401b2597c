"""The tables of README.md, written from the findings."""

from typing import TYPE_CHECKING

import pandas as pd

from studies.findings import markdown, number, percent, spread, whole
from studies.independent_heads.trained import REPEATS, TEXT

if TYPE_CHECKING:
    from studies.growing_channels.study import Findings


def blocks(findings: "Findings") -> dict[str, str]:
    """The text of each marked block, by its name."""
    return {
        "repeats": summary(findings.summary, REPEATS),
        "text": summary(findings.summary, TEXT),
        "gaps": gaps(findings.gaps),
        "use": use(findings.use),
    }


def summary(table: pd.DataFrame, task: str) -> str:
    """One row per way."""
    table = table[table["task"] == task].reset_index(drop=True)
    shown = {
        name: spread(table, number(3 if name == "gap" else 2, sign=name == "gap"), name)
        for name in ("loss", "gap", "previous", "induction")
    }
    cells = {
        "way": ("way", str),
        "channels": ("channels at the end", whole),
        "loss": ("loss, nats", str),
        "gap": ("more than wide", str),
    }
    if task == REPEATS:
        cells |= {
            "previous": ("best previous-token score, layer 0", str),
            "induction": ("best induction score", str),
        }
    return markdown(table.assign(**shown), cells)


def gaps(table: pd.DataFrame) -> str:
    """Per seed, with the interval over held-out rows."""
    table = table[table["way"] != "wide"]
    cells = {
        "task": ("task", str),
        "way": ("way", str),
        "seed": ("seed", whole),
        "gap": ("more than wide, nats", str),
    }
    return markdown(table.assign(gap=spread(table, number(3, sign=True), "gap")), cells)


def use(table: pd.DataFrame) -> str:
    """What is lost without channels, over seeds."""
    shown = {
        "cost": spread(table, number(2, sign=True), "cost"),
        "share": spread(table, percent(), "share"),
    }
    cells = {
        "task": ("task", str),
        "way": ("way", str),
        "without": ("without", str),
        "channels": ("channels", whole),
        "cost": ("costs, nats", str),
        "share": ("share of the variance that W_U reads", str),
    }
    return markdown(table.assign(**shown), cells)
