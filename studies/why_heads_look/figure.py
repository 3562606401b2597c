"""The figure of the README: one pair in the small model, many in the public one, and what removal says."""

from pathlib import Path
from typing import TYPE_CHECKING

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from studies.drawing import BLUE, BROWN, GREEN, GREY, STYLE, save
from studies.why_heads_look.repeats import READER, TARGET

if TYPE_CHECKING:
    from studies.why_heads_look.study import Findings

N_PAIRS, N_PARTS = 8, 7
PROMPTS = {"random repeats": BLUE, "text": GREEN}


def draw(findings: "Findings", path: Path) -> None:
    """Write the figure."""
    with plt.rc_context(STYLE):
        figure, axes = plt.subplots(2, 2, figsize=(11.5, 8.4))
        cell_panel(axes[0, 0], findings.repeats)
        pair_panel(axes[0, 1], findings.pairs)
        part_panel(axes[1, 0], findings.parts)
        removal_panel(axes[1, 1], findings.removals)
        save(figure, path)


def cell_panel(axes: Axes, table: pd.DataFrame) -> None:
    """The whole contrast and the pair's part of it: targets, controls, other heads."""
    rows = [(str(READER), cell) for cell in (TARGET, "elsewhere", "shuffled")]
    rows += [(head, TARGET) for head in sorted(set(table["head"]) - {str(READER)})]
    known = table.set_index(["prompts", "head", "cell"])
    for index, (prompts, colour) in enumerate(PROMPTS.items()):
        found = known.loc[[(prompts, *row) for row in rows]]
        at = np.arange(len(rows)) + 0.4 * index - 0.2
        axes.barh(at, found["contrast"], 0.36, color=colour, alpha=0.3, label=f"{prompts}: whole")
        axes.barh(at, found["pair"], 0.14, color=colour, label="of it embed × 0.1")
        _bars(axes, found, "contrast", at, colour)
    axes.axvline(0, color=GREY, lw=0.8)
    axes.set_yticks(range(len(rows)), [f"{head}, {cell}" for head, cell in rows])
    axes.invert_yaxis()
    axes.set(xlabel="score minus the mean of the other keys")
    axes.set_title("attn-2l: head 1.1 looks behind earlier copies\nfor one pair of parts")
    axes.legend(loc="lower right")


def pair_panel(axes: Axes, table: pd.DataFrame) -> None:
    """The largest of all pairs at the targets."""
    labels = table["query"] + " × " + table["key"]
    sizes = table.assign(label=labels).groupby("label")["value"].apply(lambda x: x.abs().max())
    chosen = list(sizes.sort_values(ascending=False).index[:N_PAIRS])
    for index, (prompts, colour) in enumerate(PROMPTS.items()):
        rows = table.assign(label=labels)[table["prompts"] == prompts]
        found = rows.set_index("label").loc[chosen]
        at = np.arange(len(chosen)) + 0.4 * index - 0.2
        axes.barh(at, found["value"], 0.36, color=colour, label=prompts)
        _bars(axes, found, "", at, "black")
    axes.axvline(0, color=GREY, lw=0.8)
    axes.set_yticks(range(len(chosen)), chosen)
    axes.invert_yaxis()
    axes.set(xlabel="adds to the score of the target minus the mean of the others")
    axes.set_title("In the query × in the key, all 36 pairs:\nthe largest of them")
    axes.legend(loc="lower right")


def part_panel(axes: Axes, table: pd.DataFrame) -> None:
    """What enters a head of SmolLM2 through either side."""
    table = table[(table["role"] == "looking") & (table["versus"] == "S1")]
    at, ticks = 0, []
    for side, colour in (("query", BLUE), ("key", BROWN)):
        rows = table[table["side"] == side]
        rows = rows.loc[rows["value"].abs().sort_values(ascending=False).index[:N_PARTS]]
        places = np.arange(len(rows)) + at
        axes.barh(places, rows["value"], 0.7, color=colour, alpha=0.6, label=f"through the {side}")
        _bars(axes, rows, "", places, "black")
        ticks += list(zip(places, rows["part"], strict=True))
        at += len(rows) + 1
    axes.axvline(0, color=GREY, lw=0.8)
    axes.set_yticks([place for place, _ in ticks], [part for _, part in ticks])
    axes.invert_yaxis()
    axes.set(xlabel="adds to the score of the expected name minus the other's")
    axes.set_title(
        "smollm2: one head's query says which name came twice;\nno part of the keys stands out"
    )
    axes.legend(loc="lower right")


def removal_panel(axes: Axes, table: pd.DataFrame) -> None:
    """What each head of a layer adds, and what its removal costs."""
    shown = {"straight": "adds straight to the query", "through": "all paths through it"}
    shown |= {"lost": "lost when taken out"}
    at = np.arange(len(table))
    for index, (name, label) in enumerate(shown.items()):
        places = at + 0.26 * (index - 1)
        axes.bar(places, table[name], 0.24, color=(BLUE, GREEN, BROWN)[index], label=label)
        error = np.abs(table[[f"{name}_low", f"{name}_high"]].to_numpy().T - table[name].to_numpy())
        axes.errorbar(places, table[name], error, fmt="none", ecolor="black", lw=0.8)
    axes.axhline(table["contrast"].iloc[0], color=GREY, ls="--", lw=1, label="the whole difference")
    axes.axhline(0, color=GREY, lw=0.8)
    axes.set_xticks(at, table["head"])
    axes.set(ylabel="difference of scores", ylim=(-0.2, 2.35))
    axes.set_title(
        "What it costs to take a head out is what all paths\nthrough it say, not what it adds straight"
    )
    axes.legend(loc="upper right")


def _bars(axes: Axes, rows: pd.DataFrame, name: str, at: np.ndarray, colour: str) -> None:
    value, low, high = (
        name or "value",
        f"{name}_low" if name else "low",
        f"{name}_high" if name else "high",
    )
    error = np.abs(rows[[low, high]].to_numpy().T - rows[value].to_numpy())
    axes.errorbar(rows[value], at, xerr=error, fmt="none", ecolor=colour, lw=0.8)
