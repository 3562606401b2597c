"""How the figures of the studies look."""

from pathlib import Path

import matplotlib

matplotlib.use("Agg")
from matplotlib.figure import Figure  # after the choice of a backend that needs no screen

BLUE, BROWN, GREY, GREEN, VIOLET = "#1f6fb4", "#a6611a", "#9a9a9a", "#2a9d6f", "#7b52ab"
STYLE = {
    "font.size": 9,
    "axes.titlesize": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "legend.frameon": False,
    "legend.fontsize": 8,
    "figure.facecolor": "white",
}


def save(figure: Figure, path: Path) -> None:
    """Write a PNG; the same figure gives the same bytes."""
    figure.tight_layout()
    figure.savefig(path, dpi=140, metadata={"Software": None})
    matplotlib.pyplot.close(figure)
