"""The figure of the README: deletions by depth and as foretold, several at once, gradient by path length."""

from pathlib import Path
from typing import TYPE_CHECKING

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.axes import Axes

from studies.drawing import BLUE, BROWN, GREEN, GREY, STYLE, VIOLET, save

if TYPE_CHECKING:
    from studies.residual_ensembles.study import Findings

MODELS = {"attn-2l": BLUE, "mlp-2l": GREEN, "smollm2": BROWN}


def draw(findings: "Findings", path: Path) -> None:
    """Write the figure."""
    with plt.rc_context(STYLE):
        figure, axes = plt.subplots(2, 2, figsize=(11.5, 8.0))
        depth_panel(axes[0, 0], findings.single)
        foretold_panel(axes[0, 1], findings.single)
        draw_panel(axes[1, 0], findings)
        length_panel(axes[1, 1], findings.lengths)
        save(figure, path)


def depth_panel(axes: Axes, single: pd.DataFrame) -> None:
    """Every sublayer of SmolLM2."""
    table = single[single["model"] == "smollm2"]
    for kind, colour in (("attn", VIOLET), ("mlp", BROWN)):
        rows = table[table["kind"] == kind]
        axes.vlines(rows["layer"], rows["true_low"], rows["true_high"], color=colour, lw=1)
        axes.plot(rows["layer"], rows["true"], "o", ms=4, color=colour, label=kind)
    axes.axhline(0, color=GREY, lw=0.8)
    axes.set_yscale("symlog", linthresh=0.1)
    axes.set(xlabel="layer of SmolLM2", ylabel="nats per token lost without it")
    axes.set_title(
        "Most sublayers of SmolLM2 can go one at a time,\na few of the first, and MLP 11, cannot"
    )
    axes.legend()


def foretold_panel(axes: Axes, single: pd.DataFrame) -> None:
    """Frozen prediction against the true cost."""
    for model, colour in MODELS.items():
        rows = single[single["model"] == model]
        axes.plot(rows["frozen"], rows["true"], "o", ms=4, alpha=0.7, color=colour, label=model)
    ends = [single[["frozen", "true"]].min().min(), single[["frozen", "true"]].max().max()]
    axes.plot(ends, ends, color=GREY, lw=0.8)
    for scale in (axes.set_xscale, axes.set_yscale):
        scale("symlog", linthresh=0.1)
    axes.set(xlabel="nats lost in the frozen network", ylabel="in the model itself")
    axes.set_title(
        "The paths through a part foretell roughly\nwhat it is worth, and mostly too little"
    )
    axes.legend()


def draw_panel(axes: Axes, findings: "Findings") -> None:
    """Several deleted or swapped in SmolLM2."""
    table = findings.draws[findings.draws["model"] == "smollm2"]
    for kind, colour in (("deleted", BLUE), ("swapped", VIOLET)):
        rows = table[table["kind"] == kind]
        axes.fill_between(
            rows["count"], rows["true_low"], rows["true_high"], color=colour, alpha=0.15, lw=0
        )
        axes.plot(rows["count"], rows["true"], "o-", ms=4, color=colour, label=f"{kind}, true")
        axes.plot(rows["count"], rows["frozen"], "o--", ms=3, lw=1, color=colour, label="frozen")
    facts = findings.models.set_index("model").loc["smollm2"]
    for value, label, style in (
        (facts["uniform"], "guessing", ":"),
        (facts["intact"], "intact", "--"),
    ):
        axes.axhline(value, color=GREY, lw=1, ls=style, label=label)
    axes.set_xscale("log", base=2)
    axes.set_xticks(sorted(table["count"].unique()), labels=sorted(table["count"].unique()))
    axes.set(xlabel="sublayers of 60 deleted, or swaps", ylabel="loss, nats per token")
    axes.set_title("More lesions cost more:\nafter eight swaps worse than guessing")
    axes.legend(ncols=2)


def length_panel(axes: Axes, lengths: pd.DataFrame) -> None:
    """SmolLM2's paths by length: how many, what a single one carries, what all of them do together."""
    rows = lengths[lengths["model"] == "smollm2"]
    axes.plot(rows["length"], rows["counted"], color=GREY, label="share of paths")
    axes.plot(
        rows["length"],
        rows["effective"],
        ".-",
        ms=4,
        lw=1,
        color=BLUE,
        label="× mean gradient of one",
    )
    share = rows["whole"] / rows["whole"].sum()
    axes.plot(rows["length"], share, color=BROWN, label="gradient of all together")
    axes.set_yscale("log")
    axes.set_ylim(1e-6, 1)
    axes.set(xlabel="length, in sublayers of SmolLM2", ylabel="share")
    axes.set_title(
        "Gradient comes through shorter paths than most are;\nall of a length together, shorter still"
    )
    axes.legend()
