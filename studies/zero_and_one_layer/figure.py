"""The figure of the README: the bigram table, the heads that copy, the skip-trigrams and their bugs."""

from pathlib import Path
from typing import TYPE_CHECKING

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import torch
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm

from studies.drawing import BLUE, BROWN, GREY, STYLE, save
from studies.zero_and_one_layer.counts import read_counts
from workbench.models import load
from workbench.weights import effective_weights

if TYPE_CHECKING:
    from studies.zero_and_one_layer.study import Findings


def draw(findings: "Findings", path: Path) -> None:
    """Write the figure."""
    with plt.rc_context(STYLE):
        figure, axes = plt.subplots(1, 3, figsize=(12.5, 4.0), width_ratios=[1.05, 1, 1])
        bigram_panel(axes[0])
        copying_panel(axes[1], findings.copying)
        bug_panel(axes[2], findings.bugs)
        save(figure, path)


def bigram_panel(axes: Axes) -> None:
    """Log-probability by the model against log share by counting; darker where more of the text is."""
    counts = read_counts().corpus
    weights = effective_weights(load("attn-0l"))
    with torch.no_grad():
        said = (weights.W_E @ weights.W_U + weights.b_U).log_softmax(-1).numpy()
    occurs = counts > 0
    counted = np.log10((counts / np.maximum(counts.sum(1, keepdims=True), 1))[occurs])
    mesh = axes.hist2d(
        counted,
        said[occurs] / np.log(10),
        bins=[np.arange(-5.5, 0.01, 0.1), np.arange(-7, 0.01, 0.1)],
        weights=counts[occurs],
        norm=LogNorm(),
        cmap="Blues",
    )[3]
    mesh.set_rasterized(True)
    axes.plot([-5.5, 0], [-5.5, 0], color=GREY, lw=1)
    axes.set(xlabel="log₁₀ share of the next token, counted", ylabel="log₁₀ probability, attn-0l")
    axes.set_title("attn-0l is the bigram table,\nexcept where pairs are rare")
    axes.figure.colorbar(mesh, ax=axes, label="tokens of the training text", pad=0.02)


def copying_panel(axes: Axes, table: pd.DataFrame) -> None:
    """What the removal of each head costs, by its copying score."""
    axes.axhline(0, color=GREY, lw=0.8)
    for name, colour, label in (
        ("cost_repeated", BLUE, "tokens that stand earlier"),
        ("cost_new", BROWN, "new tokens"),
    ):
        value = table[name]
        ends = np.abs(table[[f"{name}_low", f"{name}_high"]].to_numpy().T - value.to_numpy())
        axes.errorbar(table["score"], value, ends, fmt="o", ms=5, lw=1, color=colour, label=label)
    reach = 1.96 * float(table["null_std"].iloc[0])
    axes.axvspan(-reach, reach, color=GREY, alpha=0.25, lw=0)
    axes.text(0, axes.get_ylim()[1] * 0.97, "random\nheads", ha="center", va="top", color="#555")
    axes.set(
        xlabel="copying score of the head's weights", ylabel="loss without the head, nats more"
    )
    axes.set_title("Five of eight heads copy,\nby weights and by behaviour")
    axes.legend(loc="upper right")


def bug_panel(axes: Axes, table: pd.DataFrame) -> None:
    """Confirmed skip-trigrams and bugs: how true each is, and how strongly it is raised."""
    axes.axhline(0, color=GREY, lw=0.8)
    axes.axvline(0, color=GREY, lw=0.8)
    for kind, colour, label in (
        ("confirmed", BLUE, "confirmed skip-trigrams"),
        ("bug", BROWN, "the bugs they imply"),
    ):
        rows = table[table["kind"] == kind]
        axes.plot(
            rows["rate"] - rows["chance"],
            rows["effect"],
            "o",
            ms=5,
            alpha=0.7,
            mew=0,
            color=colour,
            label=label,
        )
    axes.set(
        xlabel="how much oftener out follows than by chance",
        ylabel="effect of the source on log p(out), nats",
    )
    axes.set_title("The head raises bugs as strongly,\nthough two in three are never true")
    axes.legend(loc="upper right")
