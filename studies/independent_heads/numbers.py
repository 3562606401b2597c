"""The tables of README.md, written from the findings."""

from typing import TYPE_CHECKING

import pandas as pd

from studies.findings import markdown, number, percent, spread, whole
from studies.independent_heads.trained import REPEATS, TEXT

if TYPE_CHECKING:
    from studies.independent_heads.study import Findings

SHOWN_SEED = 0


def blocks(findings: "Findings") -> dict[str, str]:
    """The text of each marked block, by its name."""
    return {
        "repeats": summary(findings.summary, REPEATS),
        "text": summary(findings.summary, TEXT),
        "curve": curve(findings.curves),
        "gaps": gaps(findings.gaps),
        "heads": heads(findings.heads, ("joint", "greedy")),
        "patient": heads(findings.heads, ("patient",)),
        "likeness": likeness(findings.likeness),
        "chance": chance(findings),
    }


def summary(table: pd.DataFrame, task: str) -> str:
    """The last stages of one task."""
    table = table[table["task"] == task].reset_index(drop=True)
    digits = {"loss": 2, "gap": 2, "previous": 2, "induction": 2, "likeness": 2}
    shown = {
        name: spread(table, number(places, sign=name == "gap"), name)
        for name, places in digits.items()
    }
    shown["accuracy"] = spread(table, percent(), "accuracy")
    cells = {
        "way": ("way", str),
        "heads": ("heads", whole),
        "steps": ("steps in all", whole),
        "loss": ("loss, nats", str),
        "gap": ("more than joint", str),
        "accuracy": ("right", str),
        "previous": ("best previous-token score, layer 0", str),
    }
    if task == REPEATS:
        cells["induction"] = ("best induction score", str)
    return markdown(table.assign(**shown), cells)


def curve(table: pd.DataFrame) -> str:
    """Loss by number of heads, over seeds."""
    table = table[table["way"] != "given"]
    rows = []
    for (task, heads), own in table.groupby(["task", "heads"], sort=False):
        row: dict[str, object] = {"task": task, "heads": heads}
        for way, losses in own.groupby("way")["loss"]:
            write = number(2)
            row[str(way)] = f"{write(losses.mean())} [{write(losses.min())}, {write(losses.max())}]"
        rows.append(row)
    wide = pd.DataFrame(rows).sort_values(["task", "heads"])
    ways = [way for way in table["way"].unique() if way in wide]
    cells = {"task": ("task", str), "heads": ("heads", whole)}
    cells |= {way: (way, lambda text: "" if pd.isna(text) else str(text)) for way in ways}
    return markdown(wide, cells)


def gaps(table: pd.DataFrame) -> str:
    """Per seed, with the interval over held-out rows."""
    table = table[table["way"] != "joint"]
    shown = spread(table, number(2, sign=True), "gap")
    cells = {
        "task": ("task", str),
        "way": ("way", str),
        "seed": ("seed", whole),
        "gap": ("more than joint, nats", str),
    }
    return markdown(table.assign(gap=shown), cells)


def heads(table: pd.DataFrame, ways: tuple[str, ...]) -> str:
    """All heads of some models of one seed."""
    table = table[
        (table["task"] == REPEATS) & (table["seed"] == SHOWN_SEED) & table["way"].isin(ways)
    ]
    names = table["layer"].astype(str) + "." + table["head"].astype(str)
    cells = {
        "way": ("way", str),
        "name": ("head", str),
        "previous_token": ("previous token", number(2)),
        "previous_token_chance": ("chance", number(2)),
        "induction": ("induction", number(2)),
        "induction_chance": ("chance", number(2)),
        "duplicate_token": ("duplicates", number(2)),
        "duplicate_token_chance": ("chance", number(2)),
        "current_token": ("itself", number(2)),
        "first_token": ("first token", number(2)),
        "distance": ("looks back, tokens", number(1)),
        "copying": ("copying score", number(2)),
    }
    return markdown(table.assign(name=names), cells)


def likeness(table: pd.DataFrame) -> str:
    """By task, layer and way, over seeds."""
    rows = []
    for (task, layer, way), own in table.groupby(["task", "layer", "way"], sort=False):
        row: dict[str, object] = {"task": task, "layer": layer, "way": way}
        for name in ("likeness", "largest"):
            values = own[name]
            row |= {name: values.mean(), f"{name}_low": values.min(), f"{name}_high": values.max()}
        rows.append(row)
    wide = pd.DataFrame(rows)
    shown = {name: spread(wide, number(2), name) for name in ("likeness", "largest")}
    cells = {
        "task": ("task", str),
        "layer": ("layer", whole),
        "way": ("way", str),
        "likeness": ("mean CKA of two heads", str),
        "largest": ("largest", str),
    }
    return markdown(wide.assign(**shown), cells)


def chance(findings: "Findings") -> str:
    """What guessing loses."""
    cells = {"task": ("task", str), "loss": ("loss of guessing, nats", number(2))}
    return markdown(findings.chance, cells)
