"""The figure of the README: what loss buys in wire length and in channels, what forms, and one head's wires."""

from pathlib import Path
from typing import TYPE_CHECKING

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from studies.drawing import BLUE, BROWN, GREEN, GREY, STYLE, save
from studies.modular_transformers.training import CONDITIONS

if TYPE_CHECKING:
    from studies.modular_transformers.study import Findings

COLOURS = dict(zip(CONDITIONS, (GREY, BROWN, GREEN, BLUE), strict=True))
LABELS = {
    "none": "no penalty (in training)",
    "l1": "L1",
    "local": "wire length",
    "swaps": "wire length and swaps",
}


def draw(findings: "Findings", path: Path) -> None:
    """Write the figure."""
    models = findings.models[findings.models["data"] == "repeats"]
    with plt.rc_context(STYLE):
        figure, axes = plt.subplots(2, 2, figsize=(11.5, 8.2))
        length_panel(axes[0, 0], models)
        curve_panel(axes[0, 1], models, "channels", "channels of a head in use, of 64")
        axes[0, 1].axhline(models["channels_chance"].mean(), color=GREY, lw=0.8, ls=":")
        axes[0, 1].set_title("Any penalty makes heads read and write\nfewer channels")
        curve_panel(axes[1, 0], models, "previous_token", "best previous-token score")
        axes[1, 0].axhline(models["previous_token_chance"].mean(), color=GREY, lw=0.8, ls=":")
        axes[1, 0].set_title("The earlier head of the circuit, at equal loss")
        modules_panel(axes[1, 1], models[models["is_final"]])
        save(figure, path)


def curve_panel(axes: Axes, models: pd.DataFrame, measure: str, label: str) -> None:
    """A measure against the loss: every model a point, means over seeds joined."""
    models = models[models["loss"] < 0.62]
    for condition in CONDITIONS:
        rows = models[models["condition"] == condition]
        colour = COLOURS[condition]
        axes.plot(rows["loss"], rows[measure], "o", ms=4, mew=0, alpha=0.5, color=colour)
        by = "step" if condition == "none" else "strength"
        means = rows.groupby(by)[["loss", measure]].mean()
        axes.plot(means["loss"], means[measure], lw=1.4, color=colour, label=LABELS[condition])
    axes.set(xlabel="held-out loss on repeats, nats", ylabel=label)


def length_panel(axes: Axes, models: pd.DataFrame) -> None:
    """Wire length as it is, and what L1 would have with its units placed afterwards."""
    curve_panel(axes, models, "length", "mean wire length")
    rows = models[(models["condition"] == "l1") & models["is_final"]]
    means = rows.groupby("strength")[["loss", "length_placed"]].mean()
    axes.plot(
        means["loss"],
        means["length_placed"],
        lw=1.2,
        ls="--",
        color=COLOURS["l1"],
        label="L1, units placed afterwards",
    )
    axes.set(ylim=(0, None))
    axes.legend(loc="lower left")
    axes.set_title("Short wires come from distances in the loss,\nand shorter ones with swaps")


def modules_panel(axes: Axes, final: pd.DataFrame) -> None:
    """Newman's Q above that of shuffled weights."""
    for place, condition in enumerate(CONDITIONS):
        rows = final[final["condition"] == condition]
        strengths = sorted(rows["strength"].unique())
        for index, strength in enumerate(strengths):
            group = rows[rows["strength"] == strength]
            at = place + 0.24 * (index - (len(strengths) - 1) / 2)
            excess = group["q"] - group["q_chance"]
            axes.bar(at, excess.mean(), 0.2, color=COLOURS[condition], alpha=0.75)
            axes.plot(np.full(len(group), at), excess, "o", ms=3, mew=0, color="black")
    axes.axhline(0, color=GREY, lw=0.8)
    axes.set_xticks(range(len(CONDITIONS)), [LABELS[name].split(" (")[0] for name in CONDITIONS])
    axes.set(ylabel="Newman's Q less that of shuffled weights")
    axes.set_title("Modules, by condition and rising strength")
