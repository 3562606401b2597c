"""Attention by distance: unevenness and reach of all heads, then the kernels of the least even heads."""

import plotly.graph_objects as go

from probes.pictures.panels import (
    GREY,
    MOST_LINES,
    Tables,
    blank,
    compared,
    labelled,
    measure,
    split_series,
)
from workbench.figures.theme import CATEGORICAL


def figures(tables: Tables) -> list[go.Figure]:
    """Panels of both summaries, then one figure of kernels for each model."""
    found = compared(
        tables, [measure("unevenness"), measure("mean distance")], "Attention by distance"
    )
    return found + [_kernels(label, table) for label, table in split_series(tables)[0].items()]


def _kernels(label: str, table: object) -> go.Figure:
    uneven = labelled(measure("unevenness").pick(table)).nlargest(MOST_LINES, "value")  # type: ignore[arg-type]
    kernel = measure("kernel").pick(table)  # type: ignore[arg-type]
    figure = blank(f"{label}: attention by distance, the {len(uneven)} least even heads", 380)
    chosen = zip(uneven.index, uneven["layer"], uneven["head"], strict=True)
    for index, (name, layer, head) in enumerate(chosen):
        rows = kernel[(kernel["layer"] == layer) & (kernel["head"] == head)]
        offset = rows["item"].astype(int)
        figure.add_scatter(
            x=offset,
            y=rows["value"],
            mode="lines",
            name=name,
            line={"color": CATEGORICAL[index % len(CATEGORICAL)], "width": 1.5},
            hovertemplate=f"{name}, %{{x}} back: %{{y:.3f}}<extra></extra>",
        )
        if index == 0:
            figure.add_scatter(
                x=offset,
                y=rows["null_mean"],
                mode="lines",
                name="uniform",
                line={"color": GREY, "dash": "dot"},
                hovertemplate="uniform, %{x} back: %{y:.3f}<extra></extra>",
            )
    figure.update_xaxes(title_text="tokens back")
    return figure.update_yaxes(title_text="attention", rangemode="tozero")
