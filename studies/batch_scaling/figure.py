"""The figure of the README: throughput, overhead, growth of one job, and the projection."""

from pathlib import Path
from typing import TYPE_CHECKING

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.axes import Axes

from studies.drawing import BLUE, BROWN, GREEN, GREY, STYLE, VIOLET, save

if TYPE_CHECKING:
    from studies.batch_scaling.study import Findings

ENGINES = {"local": BLUE, "ray": BROWN}


def draw(findings: "Findings", path: Path) -> None:
    """Write the figure."""
    with plt.rc_context(STYLE):
        figure, axes = plt.subplots(2, 2, figsize=(11.5, 7.5))
        throughput(axes[0, 0], findings.engines)
        overhead(axes[0, 1], findings.many)
        growth(axes[1, 0], findings.costs)
        projection(axes[1, 1], findings.projection)
        save(figure, path)


def throughput(axes: Axes, table: pd.DataFrame) -> None:
    """Jobs a minute of every run."""
    for engine, own in table.groupby("engine", sort=False):
        rate = 60 * own["jobs"] / own["run"]
        axes.plot(own["workers"], rate, "o", ms=5, color=ENGINES[str(engine)], label=engine)
    one = table[(table["engine"] == "local") & (table["workers"] == 1)]
    rate = 60 * float((one["jobs"] / one["run"]).max())
    counts = [1, int(table["workers"].max())]
    axes.plot(counts, [rate * n for n in counts], "--", lw=1, color=GREY, label="in proportion")
    axes.set(xlabel="workers", ylabel="jobs a minute", xticks=counts)
    axes.set_ylim(bottom=0)
    axes.set_title("Throughput")
    axes.legend()


def overhead(axes: Axes, table: pd.DataFrame) -> None:
    """Time of a worker per job beside the probe, by number of models."""
    beside = 1000 * (table["workers"] * table["run"] - table["in_probes"]) / table["jobs"]
    for engine, own in table.groupby("engine", sort=False):
        axes.plot(own["models"], beside[own.index], "o-", color=ENGINES[str(engine)], label=engine)
    axes.set(xscale="log", yscale="log", xlabel="models", ylabel="ms of a worker a job")
    axes.set_yticks([10, 30, 100, 300, 1000], ["10", "30", "100", "300", "1,000"])
    axes.minorticks_off()
    axes.set_title("Beside the probes: starting, loading, keeping")
    axes.legend()


def growth(axes: Axes, table: pd.DataFrame) -> None:
    """Seconds of one job by what it reads."""
    colours = (BLUE, BROWN, GREEN, VIOLET, GREY)
    for colour, (probe, own) in zip(colours, table.groupby("probe", sort=False), strict=False):
        axes.plot(own["prompts"] * own["tokens"], own["seconds"], "o", ms=4, color=colour)
        axes.plot([], [], "o", color=colour, label=probe)
    axes.set(xscale="log", yscale="log", xlabel="prompts × tokens", ylabel="CPU seconds of a job")
    axes.set_xticks([300, 1000, 3000, 8000], ["300", "1,000", "3,000", "8,000"])
    axes.minorticks_off()
    axes.set_title("One job, by what it reads")
    axes.legend()


def projection(axes: Axes, table: pd.DataFrame) -> None:
    """Hours by cores, with what proportion alone would give."""
    for colour, (kind, own) in zip(
        (BLUE, BROWN, GREEN), table.groupby("kind", sort=False), strict=False
    ):
        axes.fill_between(own["cores"], own["least"], own["most"], color=colour, alpha=0.3, lw=0)
        axes.plot(own["cores"], own["least"], "o-", color=colour, label=str(kind))
        axes.plot(own["cores"], own["work"] / own["cores"], "--", lw=1, color=colour)
    axes.set(xscale="log", yscale="log", xlabel="cores", ylabel="hours")
    counts = sorted(set(table["cores"]))
    axes.set_xticks(counts, [f"{count:,}" for count in counts])
    axes.minorticks_off()
    axes.set_title(f"{int(table['models'].iloc[0]):,} models; dashed: work / cores")
    axes.legend()
