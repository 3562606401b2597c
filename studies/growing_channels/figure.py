"""The figure of the README: loss of each way, and what the old and the new channels are worth."""

from pathlib import Path
from typing import TYPE_CHECKING

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.axes import Axes

from studies.drawing import BLUE, BROWN, GREY, STYLE, save
from studies.growing_channels.trained import TASKS
from studies.independent_heads.trained import REPEATS

if TYPE_CHECKING:
    from studies.growing_channels.study import Findings


def draw(findings: "Findings", path: Path) -> None:
    """Write the figure."""
    with plt.rc_context(STYLE):
        figure, axes = plt.subplots(2, 2, figsize=(11.5, 7.5))
        for row, task in enumerate(TASKS):
            gap_panel(axes[row, 0], findings.gaps[findings.gaps["task"] == task])
            use_panel(axes[row, 1], findings.used[findings.used["task"] == task])
            name = "Repeats" if task == REPEATS else "Text"
            axes[row, 0].set_title(f"{name}: loss beyond the model that was wide from the start")
            axes[row, 1].set_title(f"{name}: cost of losing the old half, the new, a random one")
        save(figure, path)


def gap_panel(axes: Axes, gaps: pd.DataFrame) -> None:
    """One point a seed, with its interval."""
    ways = [way for way in gaps["way"].unique() if way != "wide"]
    for place, way in enumerate(ways):
        own = gaps[gaps["way"] == way]
        for number, row in enumerate(own.itertuples()):
            x = place + 0.12 * (number - (len(own) - 1) / 2)
            axes.vlines(x, row.gap_low, row.gap_high, color=BLUE, lw=1)
            axes.plot(x, row.gap, "o", ms=4, color=BLUE)
    axes.axhline(0, color=GREY, lw=0.8)
    axes.set_xticks(range(len(ways)), [way.replace(", ", ",\n") for way in ways])
    axes.set(ylabel="nats")


def use_panel(axes: Axes, used: pd.DataFrame) -> None:
    """Means over seeds as bars, one point a seed."""
    ways = list(used["way"].unique())
    colours = {"old": BROWN, "new": BLUE, "random": GREY}
    for offset, (group, colour) in enumerate(colours.items()):
        for place, way in enumerate(ways):
            own = used[(used["way"] == way) & (used["without"] == group)]["cost"]
            x = place + 0.26 * (offset - 1)
            axes.bar(x, own.mean(), 0.24, color=colour, label=group if place == 0 else None)
            axes.plot([x] * len(own), own, "k.", ms=3)
    axes.set_xticks(range(len(ways)), [way.replace(", ", ",\n") for way in ways])
    axes.set(ylabel="nats", ylim=(0, 1.2 * used["cost"].max()))
    axes.legend(loc="upper center", ncols=3)
