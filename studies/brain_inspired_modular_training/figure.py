"""The figure of the README: five networks of one task, and loss, wiring and modularity of all."""

from pathlib import Path
from typing import TYPE_CHECKING

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection

from studies.brain_inspired_modular_training.numbers import named
from studies.brain_inspired_modular_training.runs import folder_of
from studies.drawing import BLUE, BROWN, GREEN, GREY, STYLE, VIOLET, save
from workbench.training.experiments import VARIANTS, Request
from workbench.training.mlp import load_mlp
from workbench.training.reports import layout_of
from workbench.training.wires import wires

if TYPE_CHECKING:
    from studies.brain_inspired_modular_training.study import Findings

COLOURS = dict(zip(VARIANTS, (GREY, BROWN, GREEN, BLUE, VIOLET), strict=True))
DRAWN = "bimt-independence"
SIDES = (BLUE, BROWN)


def draw(findings: "Findings", path: Path, runs: Path) -> None:
    """Write the figure."""
    with plt.rc_context(STYLE):
        figure = plt.figure(figsize=(12.5, 8.2))
        grid = figure.add_gridspec(2, 1, height_ratios=(0.85, 1))
        top = grid[0].subgridspec(1, len(VARIANTS))
        for column, variant in enumerate(VARIANTS):
            axes = figure.add_subplot(top[column])
            rows = findings.runs.set_index(["experiment", "variant"], drop=False)
            wiring_panel(axes, rows.loc[[(DRAWN, variant)]].iloc[0], runs)
        bottom = grid[1].subgridspec(1, 3, wspace=0.28)
        z_panel(figure.add_subplot(bottom[0]), findings.runs)
        length_panel(figure.add_subplot(bottom[1]), findings.runs)
        q_panel(figure.add_subplot(bottom[2]), findings.runs)
        save(figure, path)


def wiring_panel(axes: Axes, row: pd.Series, runs: Path) -> None:
    """One network, inputs below: wires as wide as their weight, inputs in the colour of their output."""
    request = Request(name=DRAWN, variant=row["variant"], seed=int(row["seed"]))
    model = load_mlp(folder_of(request, runs))
    places = layout_of(request.experiment, model).places
    depth = {name: level for level, name in enumerate(places)}
    is_second = np.isin(model.in_perm.numpy(), (1, 3))
    largest = max(float(block.weight.detach().abs().max()) for block in wires(model))
    for block in wires(model):
        size = block.weight.detach().abs().numpy() / largest
        source, target = np.nonzero(size > 0.02)
        ends = [
            ((float(places[block.source][i, 0]), depth[block.source]),
             (float(places[block.target][j, 0]), depth[block.target]))
            for i, j in zip(source, target, strict=True)
        ]  # fmt: skip
        widths = 2.5 * size[source, target]
        axes.add_collection(LineCollection(ends, linewidths=widths, colors="#444444", alpha=0.7))
    for name, where in places.items():
        x = where[:, 0].numpy()
        is_own = is_second if name == "inputs" else model.out_perm.numpy() == 1
        colours = [SIDES[int(own)] for own in is_own] if name in ("inputs", "outputs") else GREY
        size = 28 if name in ("inputs", "outputs") else 6
        axes.scatter(x, np.full(len(x), depth[name]), s=size, c=colours, zorder=3, lw=0)
    axes.set(xlim=(-0.03, 1.03), ylim=(-0.2, len(places) - 0.8), xticks=[], yticks=[])
    axes.spines[:].set_visible(False)
    axes.set_title(
        f"{row['variant']}: test loss {row['test_loss']:.1e}\n"
        f"Q {row['q_pruned']:.2f}, mean wire {row['mean_length']:.3f}",
        color=COLOURS[row["variant"]],
    )


def z_panel(axes: Axes, runs: pd.DataFrame) -> None:
    """The same networks against either null."""
    axes.axhline(0, color=GREY, lw=0.8)
    for measure, x in (("q_z", 0), ("q_pruned_z", 1)):
        for index, variant in enumerate(VARIANTS):
            z = runs.loc[runs["variant"] == variant, measure]
            at = x + (index - 2) * 0.14
            jitter = np.linspace(-0.045, 0.045, len(z))
            axes.plot(at + jitter, z, "o", ms=3, mew=0, alpha=0.6, color=COLOURS[variant])
    axes.set_xticks([0, 1], ["whole network,\nagainst shuffles", "pruned,\nagainst rewirings"])
    axes.set_yscale("symlog", linthresh=5)
    axes.set_yticks([-30, -10, -5, 0, 5, 10, 30], ["−30", "−10", "−5", "0", "5", "10", "30"])
    axes.set(ylabel="z of Newman's Q, every network")
    axes.set_title(
        "After an L1 penalty the usual null calls\nevery network less modular than chance"
    )


def length_panel(axes: Axes, runs: pd.DataFrame) -> None:
    """Mean wire length of every network."""
    _by_experiment(axes, runs, "mean_length")
    axes.set_yscale("log")
    axes.set_ylim(top=1.3)
    axes.set(ylabel="mean wire length")
    axes.set_yticks([0.05, 0.1, 0.2, 0.4, 0.8], ["0.05", "0.1", "0.2", "0.4", "0.8"])
    axes.minorticks_off()
    axes.set_title("What distances and swaps buy: short wires")
    for variant, colour in COLOURS.items():
        axes.plot([], [], "o", ms=4, color=colour, label=variant)
    axes.legend(loc="upper right", ncols=5, columnspacing=0.6, handletextpad=0.0)


def q_panel(axes: Axes, runs: pd.DataFrame) -> None:
    """Q of every network, pruned."""
    _by_experiment(axes, runs, "q_pruned")
    axes.set(ylabel="Newman's Q, pruned")
    axes.set_title("Q: the L1 part brings most of it")


def _by_experiment(axes: Axes, runs: pd.DataFrame, measure: str) -> None:
    names = list(dict.fromkeys(runs["experiment"]))
    for x, name in enumerate(names):
        for index, variant in enumerate(VARIANTS):
            is_shown = (runs["experiment"] == name) & (runs["variant"] == variant)
            values = runs.loc[is_shown, measure]
            at = x + (index - 2) * 0.15
            axes.plot(
                [at] * len(values), values, "o", ms=3, mew=0, alpha=0.6, color=COLOURS[variant]
            )
            axes.plot(
                [at - 0.05, at + 0.05], [values.mean()] * 2, "-", lw=1.6, color=COLOURS[variant]
            )
    shown = [named(name) for name in names]
    axes.set_xticks(range(len(names)), shown, rotation=38, ha="right")
