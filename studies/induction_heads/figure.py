"""The figure of the README: the plane of matching and copying, cuts, formation, and the trap."""

from pathlib import Path
from typing import TYPE_CHECKING

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from studies.drawing import BLUE, BROWN, GREEN, GREY, STYLE, VIOLET, save
from studies.induction_heads.formation import MEASURES
from studies.induction_heads.trap import PERIOD

if TYPE_CHECKING:
    from studies.induction_heads.study import Findings

MODELS = {"attn-2l": BLUE, "induction-2l": GREEN, "fixed-period": BROWN}
CURVES = {
    "copying": GREY,
    "matching": VIOLET,
    "z": GREEN,
    "previous_token": BROWN,
    "induction": BLUE,
    "in_context": "black",
}


def draw(findings: "Findings", path: Path) -> None:
    """Write the figure."""
    with plt.rc_context(STYLE):
        figure, axes = plt.subplots(2, 2, figsize=(11.5, 8.2))
        plane_panel(axes[0, 0], findings.pairs)
        cut_panel(axes[0, 1], findings.pairs)
        formation_panel(axes[1, 0], findings.formation)
        period_panel(axes[1, 1], findings.periods)
        save(figure, path)


def plane_panel(axes: Axes, pairs: pd.DataFrame) -> None:
    """Every pair through K: does it match, and does the reader copy? Larger with the norm score's z."""
    keys = pairs[pairs["through"] == "K"]
    for name, colour in MODELS.items():
        rows = keys[keys["model"].str.startswith(name)]
        size = 14 + 2.5 * rows["z"].clip(lower=0)
        label = "one fixed period, three models" if name == "fixed-period" else name
        axes.scatter(
            rows["matching"], rows["copying"], s=size, color=colour, alpha=0.65, lw=0, label=label
        )
    works = keys.loc[keys[keys["model"] == "attn-2l"]["drop"].idxmax()]
    axes.annotate(
        f"{works['writer']} → {works['reader']}",
        (works["matching"], works["copying"]),
        (0.45, 0.78),
        arrowprops={"arrowstyle": "-", "color": GREY},
    )
    axes.set(
        xlabel="matching of the pair through K",
        ylabel="copying score of the reader",
        ylim=(-0.1, 1.12),
    )
    axes.set_title(
        "Induction heads sit in the corner: keys match, outputs copy.\n"
        "On one fixed period heads copy too, but match nothing"
    )
    axes.legend(loc="lower right")


def cut_panel(axes: Axes, pairs: pd.DataFrame) -> None:
    """Norm score against what cutting shows."""
    axes.axhline(0, color=GREY, lw=0.8)
    axes.axvline(0, color=GREY, lw=0.8)
    for name, colour in MODELS.items():
        rows = pairs[pairs["model"].str.startswith(name) & (pairs["through"] != "V")]
        for through, mark in (("K", "o"), ("Q", "^")):
            chosen = rows[rows["through"] == through]
            axes.plot(chosen["z"], chosen["drop"], mark, ms=5, mew=0, alpha=0.65, color=colour)
    for mark, label in (("o", "keys cut"), ("^", "queries cut")):
        axes.plot([], [], mark, ms=5, color=GREY, label=label)
    axes.set(
        xlabel="composition above chance, z", ylabel="fall of the reader's induction score when cut"
    )
    axes.set_title(
        "A large norm score is no proof:\nmost pairs above chance can be cut without effect"
    )
    axes.legend(loc="upper left")


def formation_panel(axes: Axes, table: pd.DataFrame) -> None:
    """Every measure from its first value to its last."""
    for measure, label in MEASURES.items():
        values = table[measure].to_numpy(float)
        share = (values - values[0]) / (values[-1] - values[0])
        axes.plot(table["step"], share, "o-", ms=3, lw=1.4, color=CURVES[measure], label=label)
    axes.axhline(0.5, color=GREY, lw=0.6, ls=":")
    axes.set(xlabel="training step of attn-2l", ylabel="share of the way to the last value")
    axes.set_xscale("function", functions=(lambda step: np.sqrt(np.maximum(step, 0)), np.square))
    axes.set_xlim(0, None)
    axes.set_xticks([0, 100, 250, 500, 750, 1000, 2000, 3000])
    axes.set_title("Copying and matching first,\nthen the norm score, then the behaviour")
    axes.legend(loc="lower right")


def period_panel(axes: Axes, table: pd.DataFrame) -> None:
    """Induction scores by the period of the prompts: layer 0 of the trap, layer 1 of the real one."""
    for name, rows in table.groupby("model", sort=False):
        is_trap = str(name).startswith("fixed")
        layer, colour = (0, BROWN) if is_trap else (1, GREEN)
        label = "one fixed period, layer 0" if is_trap else f"{name}, layer 1"
        known = label in axes.get_legend_handles_labels()[1]
        axes.plot(
            rows["period"],
            rows[f"induction_{layer}"],
            "o-",
            ms=4,
            lw=1.2,
            color=colour,
            label="_" if known else label,
        )
    chance = table.groupby("period")["chance"].first()
    axes.plot(chance.index, chance, color=GREY, lw=1, ls="--", label="chance")
    axes.axvline(PERIOD, color=BROWN, lw=0.6, ls=":")
    axes.set(xlabel="period of the prompts", ylabel="best induction score", ylim=(0, 1))
    axes.set_xticks(sorted(table["period"].unique()))
    axes.set_title(
        f"Trained on period {PERIOD} alone, heads of the first layer\n"
        f"pass for induction heads there, and at {PERIOD // 2}"
    )
    axes.legend(loc="center right", bbox_to_anchor=(1.0, 0.62))
