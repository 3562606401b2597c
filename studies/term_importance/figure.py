"""The figure of the README: orders against the paper's, layers of order 1, MLPs, and a deep model."""

from pathlib import Path
from typing import TYPE_CHECKING

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from studies.drawing import BLUE, BROWN, GREEN, GREY, STYLE, save
from studies.term_importance.numbers import PAPER_LAYERS, PAPER_ORDERS

if TYPE_CHECKING:
    from studies.term_importance.study import Findings


def draw(findings: "Findings", path: Path) -> None:
    """Write the figure."""
    with plt.rc_context(STYLE):
        figure, axes = plt.subplots(2, 2, figsize=(11.5, 8.0))
        order_panel(axes[0, 0], findings.orders)
        layer_panel(axes[0, 1], findings.parts)
        mlp_panel(axes[1, 0], findings)
        deep_panel(axes[1, 1], findings)
        save(figure, path)


def order_panel(axes: Axes, orders: pd.DataFrame) -> None:
    """What each order gains, as a share of all that the model gains over guessing."""
    ours = orders[(orders["model"] == "attn-2l") & (orders["counted"] == "all")]
    total = ours["marginal"].sum()
    share = ours["marginal"].to_numpy() / total
    ends = np.sort(ours[["marginal_low", "marginal_high"]].to_numpy() / total, axis=1).T
    theirs = np.array([marginal for _, marginal in PAPER_ORDERS.values()])
    places = np.arange(3)
    axes.bar(places - 0.2, share, 0.38, color=BLUE, label="attn-2l, 2 × 4 heads")
    axes.errorbar(places - 0.2, share, [share - ends[0], ends[1] - share], fmt="none", ecolor="k")
    axes.bar(places + 0.2, theirs / theirs.sum(), 0.38, color=BROWN, label="paper, 2 × 12 heads")
    axes.set_xticks(places, ["direct", "one head", "two heads"])
    axes.set(ylabel="share of what is gained over guessing")
    axes.set_title("Pairs of heads gain little, here as in the paper;\nthe direct path more here")
    axes.legend()


def layer_panel(axes: Axes, parts: pd.DataFrame) -> None:
    """Each layer's heads alone and on top of the other's."""
    rows = parts[(parts["model"] == "attn-2l") & (parts["kind"] == "attn")].set_index("part")
    for offset, column, colour in ((-0.2, "alone", GREY), (0.2, "on_top", BLUE)):
        for place, part in enumerate(PAPER_LAYERS):
            value, low, high = rows.loc[part, [column, f"{column}_low", f"{column}_high"]]
            theirs = PAPER_LAYERS[part][0 if column == "alone" else 1]
            for base, number in ((0, -value), (2.6, -theirs)):
                axes.bar(base + place + offset, number, 0.38, color=colour)
            spread = [[value - low], [high - value]]
            axes.errorbar(place + offset, -value, spread[::-1], fmt="none", ecolor="k")
    for label, colour in (("on top of order 0", GREY), ("and of the other layer", BLUE)):
        axes.bar([0], [0], color=colour, label=label)
    axes.set_xticks(
        [0, 1, 2.6, 3.6], ["attn-2l\nlayer 0", "layer 1", "paper\nfirst layer", "second layer"]
    )
    axes.set(ylabel="nats per token gained by heads of order 1")
    axes.set_title(
        "Of single heads, those of the last layer have nearly all;\nthe first layer adds little to them"
    )
    axes.legend(loc="upper left")


def mlp_panel(axes: Axes, findings: "Findings") -> None:
    """mlp-2l by order."""
    _curves(axes, findings, "mlp-2l")
    axes.set_title(
        "With MLPs and norms held, the direct path is worse than\nguessing: later terms repair it"
    )


def deep_panel(axes: Axes, findings: "Findings") -> None:
    """SmolLM2 by order."""
    _curves(axes, findings, "smollm2")
    axes.set_yscale("log")
    axes.set_title(
        "SmolLM2: terms of few components do not make a model;\ncounted by heads they do"
    )


def _curves(axes: Axes, findings: "Findings", model: str) -> None:
    for counted, colour in (("all", BLUE), ("heads", GREEN)):
        rows = findings.orders.query("model == @model and counted == @counted")
        label = "heads and MLPs counted" if counted == "all" else "heads counted, MLPs act"
        axes.plot(rows["order"], rows["loss"], "o-", ms=3, lw=1.4, color=colour, label=label)
        axes.fill_between(
            rows["order"], rows["loss_low"], rows["loss_high"], color=colour, alpha=0.2, lw=0
        )
    facts = findings.models.query("model == @model").iloc[0]
    for value, label, style in (
        (facts["uniform"], "guessing", ":"),
        (facts["model_loss"], "the model", "--"),
    ):
        axes.axhline(value, color=GREY, lw=1, ls=style, label=label)
    axes.set(xlabel="all terms up to order", ylabel="loss, nats per token")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.legend()
