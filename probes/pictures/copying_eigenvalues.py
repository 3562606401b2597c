"""Copying and matching of all heads beside random heads; the plane of both."""

import plotly.graph_objects as go

from probes.pictures.panels import (
    CHANCE,
    Tables,
    blank,
    compared,
    labelled,
    measure,
    split_series,
)
from workbench.figures.theme import CATEGORICAL

MEASURES = ("copying", "matching", "copying, own token in top 5", "matching, own token in top 5")


def figures(tables: Tables) -> list[go.Figure]:
    """Panels of all measures, then heads by matching and copying, where induction heads lie in a corner."""
    found = compared(tables, [measure(name) for name in MEASURES], "Copying and matching")
    return [*found, _plane(split_series(tables)[0])]


def _plane(tables: Tables) -> go.Figure:
    figure = blank("Heads by matching (QK) and copying (OV)", 440)
    for index, (label, table) in enumerate(tables.items()):
        across, up = (labelled(measure(name).pick(table)) for name in ("matching", "copying"))
        both = across[["value"]].rename(columns={"value": "across"}).join(up["value"], how="inner")
        figure.add_scatter(
            x=both["across"],
            y=both["value"],
            mode="markers",
            name=label.replace("<", "&lt;"),
            text=both.index,
            marker={"size": 8, "opacity": 0.75, "color": CATEGORICAL[index % len(CATEGORICAL)]},
            hovertemplate="%{text}: matching %{x:.2f}, copying %{y:.2f}<extra></extra>",
        )
    line = {"width": 1, "color": CHANCE}
    figure.add_hline(0, line=line).add_vline(0, line=line)
    figure.update_xaxes(title_text="matching", range=[-1.05, 1.05])
    return figure.update_yaxes(title_text="copying", range=[-1.05, 1.05])
