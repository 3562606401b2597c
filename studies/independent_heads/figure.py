"""The figure of the README: loss by heads in both tasks, where heads look, and how alike they are."""

from pathlib import Path
from typing import TYPE_CHECKING

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from studies.drawing import BLUE, BROWN, GREEN, GREY, STYLE, VIOLET, save
from studies.independent_heads.trained import REPEATS, TEXT

if TYPE_CHECKING:
    from studies.independent_heads.study import Findings

COLOURS = {
    "joint": BLUE,
    "greedy": BROWN,
    "apart": VIOLET,
    "closed": GREEN,
    "layers": "#c94f7c",
    "given": "#3a3a3a",
    "patient": "#d9a441",
    "untrained": GREY,
}


def draw(findings: "Findings", path: Path) -> None:
    """Write the figure."""
    with plt.rc_context(STYLE):
        figure, axes = plt.subplots(2, 2, figsize=(11.5, 8.0))
        guess = findings.chance.set_index("task")["loss"]
        curve_panel(axes[0, 0], findings.curves, REPEATS, guess[REPEATS])
        curve_panel(axes[0, 1], findings.curves, TEXT, guess[TEXT])
        head_panel(axes[1, 0], findings.heads)
        likeness_panel(axes[1, 1], findings.likeness)
        axes[0, 0].set_title(
            "Repeats: at equal steps heads in turn find no\ninduction, with four times the steps they do"
        )
        axes[0, 1].set_title("Text: loss against the number of heads")
        axes[1, 0].set_title("Repeats: best scores of each model, one point a seed")
        axes[1, 1].set_title("How alike two heads of a layer are")
        save(figure, path)


def curve_panel(axes: Axes, curves: pd.DataFrame, task: str, guess: float) -> None:
    """Mean over seeds, with the lowest and the highest."""
    table = curves[curves["task"] == task]
    for way, own in table.groupby("way", sort=False):
        by_heads = own.groupby("heads")["loss"]
        mean, low, high = by_heads.mean(), by_heads.min(), by_heads.max()
        colour = COLOURS[str(way)]
        axes.plot(mean.index, mean, "o-", ms=4, color=colour, label=way)
        axes.vlines(mean.index, low, high, color=colour, lw=1)
    axes.axhline(guess, color=GREY, ls=":", label="guessing")
    axes.set(xlabel="heads", ylabel="held-out loss, nats")
    axes.legend(ncols=2)


def head_panel(axes: Axes, heads: pd.DataFrame) -> None:
    """The best previous-token score of layer 0 against the best induction score."""
    table = heads[heads["task"] == REPEATS]
    for way, own in table.groupby("way", sort=False):
        first = own[own["layer"] == 0].groupby("seed")["previous_token"].max()
        best = own.groupby("seed")["induction"].max()
        axes.plot(first, best, "o", ms=6, alpha=0.8, color=COLOURS[str(way)], label=way)
    axes.axvline(table["previous_token_chance"].iloc[0], color=GREY, ls=":")
    axes.axhline(table["induction_chance"].iloc[0], color=GREY, ls=":", label="chance")
    axes.set(xlabel="best previous-token score of layer 0", ylabel="best induction score")
    axes.set(xlim=(0, 1), ylim=(0, 1))
    axes.legend()


def likeness_panel(axes: Axes, likeness: pd.DataFrame) -> None:
    """Mean CKA of pairs by layer."""
    layers = [(REPEATS, 0), (REPEATS, 1), (TEXT, 0)]
    ways = list(likeness["way"].unique())
    for number, way in enumerate(ways):
        own = likeness[likeness["way"] == way].groupby(["task", "layer"])["likeness"]
        mean, low, high = own.mean(), own.min(), own.max()
        for place, key in enumerate(layers):
            if key not in mean.index:
                continue
            x = place + (number - len(ways) / 2) * 0.1
            axes.bar(x, mean[key], 0.09, color=COLOURS[way], label=way if key[1] == 0 else None)
            axes.vlines(x, low[key], high[key], color="k", lw=0.8)
    axes.set_xticks(range(len(layers)), [f"{task}, layer {layer}" for task, layer in layers])
    handles, labels = axes.get_legend_handles_labels()
    unique = dict(zip(labels, handles, strict=True))
    axes.legend(list(unique.values()), list(unique), ncols=2)
    axes.set(ylabel="mean linear CKA", ylim=(0, np.nan_to_num(likeness["likeness"].max()) * 1.4))
