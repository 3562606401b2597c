"""Figures of composition: the writer-by-reader matrices over chance, and the graph of heads by layer.

White is chance, as measured on random heads of the same shapes; blue is more, brown is less.
"""

import html
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from jaxtyping import Float
from plotly.subplots import make_subplots

from workbench.figures.theme import (
    CATEGORICAL,
    DIVERGING,
    SEQUENTIAL,
    TEMPLATE,
    plotly_scale,
    symmetric_limit,
)
from workbench.figures.tokens import figure_text

COLOURS = {"Q": CATEGORICAL[0], "K": CATEGORICAL[5], "V": CATEGORICAL[2]}
BENDS = {"Q": -1.0, "K": 1.0, "V": 0.35}
WIDTHS = (1.0, 1.8, 2.8, 4.0, 5.5)
CURVE = np.linspace(0, 1, 15)
MANY, GAPS = 40, 16


def composition_maps(
    scores: Mapping[str, Float[np.ndarray, "writer reader"]],
    labels: Sequence[str],
    *,
    title: str,
    unit: str,
    axis: str = "head",
    white: float = 0.0,
) -> go.Figure:
    """A heat map for each input that is read through, on one scale; NaN is left blank.

    Rows and columns without a number, as the last layer's among the writers, are left out.

    Args:
        scores: by input, "Q", "K" or "V".
        labels: of the rows, and of the columns.
        axis: what a row and a column are, a head or a layer.
        white: the score at chance, which is white.
    """
    stacked = np.stack(list(scores.values()))
    rows = np.flatnonzero(np.isfinite(stacked).any(axis=(0, 2)))
    columns = np.flatnonzero(np.isfinite(stacked).any(axis=(0, 1)))
    limit, unit = symmetric_limit(stacked - white), html.escape(unit)
    figure = make_subplots(
        cols=len(scores),
        subplot_titles=[f"{through}-composition" for through in scores],
        horizontal_spacing=0.06,
        shared_yaxes=True,
    )
    for column, (through, values) in enumerate(scores.items(), start=1):
        cells = go.Heatmap(
            z=np.asarray(values, np.float32)[rows][:, columns],
            x=[labels[index] for index in columns.tolist()],
            y=[labels[index] for index in rows.tolist()],
            coloraxis="coloraxis",
            name=through,
            hovertemplate=f"{axis} %{{y}} → {through} of {axis} %{{x}}<br>%{{z:.3f}} {unit}<extra></extra>",
            hoverongaps=False,
            xgap=1 if len(columns) <= GAPS else 0,
            ygap=1 if len(rows) <= GAPS else 0,
        )
        figure.add_trace(cells, row=1, col=column)
    # Written out as categories: plotly reads "0.3" as a number.
    plain = {"type": "category", "showgrid": False, "zeroline": False}
    figure.update_xaxes(title_text=f"reader ({axis})", **plain)
    figure.update_yaxes(autorange="reversed", **plain)
    figure.update_yaxes(title_text=f"writer ({axis})", col=1)
    figure.update_layout(template=TEMPLATE, title_text=html.escape(title), margin={"t": 84})
    return figure.update_coloraxes(
        cmin=white - limit,
        cmax=white + limit,
        colorscale=plotly_scale(DIVERGING),
        colorbar={"title": {"text": unit, "side": "top"}, "thickness": 14},
    )


def head_graph(
    edges: pd.DataFrame,
    heads: Sequence[tuple[int, int]],
    *,
    value: str,
    title: str,
    unit: str,
    limit: float | None = None,
) -> go.Figure:
    """Heads by layer, layer 0 below; an edge from writer to reader is thicker the higher its value.

    Each edge has a dot at its middle with `customdata` (through, writer, reader).

    Args:
        edges: rows that are drawn, with columns through writer reader writer_layer writer_head reader_layer
            reader_head and those named by `value`.
        heads: (layer, head) of every head.
        limit: the value of the thickest edges; default the largest one.
    """
    figure = go.Figure(layout={"template": TEMPLATE, "title": {"text": html.escape(title)}})
    most = limit or float(edges[value].max() if len(edges) else 1.0) or 1.0
    thin = 1.0 if len(heads) <= MANY else 0.6
    for through, colour in COLOURS.items():
        chosen = edges[edges["through"] == through]
        bins = np.clip(np.floor(chosen[value] / most * len(WIDTHS)), 0, len(WIDTHS) - 1)
        for index, width in enumerate(WIDTHS):
            _add_lines(
                figure, chosen[bins == index], through, {"color": colour, "width": thin * width}
            )
        _add_middles(figure, chosen, through, value, html.escape(unit))
    _add_nodes(figure, edges, heads)
    n_layers, widest = 1 + max(h[0] for h in heads), 1 + max(h[1] for h in heads)
    plain = {"showgrid": False, "zeroline": False}
    figure.update_xaxes(title_text="head", range=[-0.8, widest - 0.2], dtick=1, **plain)
    figure.update_yaxes(title_text="layer", range=[-0.4, n_layers - 0.6], dtick=1, **plain)
    height = 130 + (170 if len(heads) <= MANY else 30) * n_layers
    return figure.update_layout(hovermode="closest", hoverdistance=14, height=min(1000, height))


def pattern_map(
    pattern: Float[np.ndarray, "query key"], tokens: Sequence[str], *, title: str
) -> go.Figure:
    """Attention from each query to each key, white for none; the scale ends at the largest."""
    names = [figure_text(token, 12) for token in tokens]
    places = [f"{place}·{name}" for place, name in enumerate(names)]
    cells = go.Heatmap(
        z=np.asarray(pattern, np.float32),
        x=places,
        y=places,
        zmin=0,
        colorscale=plotly_scale(SEQUENTIAL),
        colorbar={"title": {"text": "attention", "side": "top"}, "thickness": 14},
        hovertemplate="query %{y}<br>key %{x}<br>%{z:.3f}<extra></extra>",
    )
    figure = go.Figure(cells, layout={"template": TEMPLATE, "title": {"text": html.escape(title)}})
    plain = {"type": "category", "showgrid": False, "zeroline": False}
    figure.update_xaxes(title_text="key", tickangle=-45, **plain)
    figure.update_yaxes(title_text="query", autorange="reversed", **plain)
    return figure.update_layout(height=170 + 15 * min(len(tokens), 40))


def _add_lines(figure: go.Figure, rows: pd.DataFrame, through: str, line: dict[str, Any]) -> None:
    if not len(rows):
        return
    points = np.concatenate([np.vstack([_curve(row), [np.nan, np.nan]]) for row in _ends(rows)])
    figure.add_scatter(
        x=points[:, 0].astype(np.float32),
        y=points[:, 1].astype(np.float32),
        mode="lines",
        line=line,
        opacity=0.75,
        hoverinfo="skip",
        legendgroup=through,
        showlegend=False,
    )


def _add_middles(
    figure: go.Figure, rows: pd.DataFrame, through: str, value: str, unit: str
) -> None:
    middles = np.array([_curve(row)[len(CURVE) // 2] for row in _ends(rows)]).reshape(-1, 2)
    figure.add_scatter(
        x=middles[:, 0],
        y=middles[:, 1],
        mode="markers",
        name=f"through {through}",
        marker={
            "size": 9,
            "color": COLOURS[through],
            "line": {"color": "white", "width": 1},
        },
        customdata=rows[["through", "writer", "reader", value]].to_numpy(object),
        hovertemplate="%{customdata[1]} → %{customdata[0]} of %{customdata[2]}"
        f"<br>%{{customdata[3]:.3f}} {unit}<extra>click: virtual head</extra>",
        legendgroup=through,
        showlegend=bool(len(rows)),
    )


def _add_nodes(figure: go.Figure, edges: pd.DataFrame, heads: Sequence[tuple[int, int]]) -> None:
    labels = [f"{layer}.{head}" for layer, head in heads]
    joined = set(edges["writer"]) | set(edges["reader"])
    is_small = len(heads) <= MANY
    # Greys that stand out from light and dark paper alike, those with an edge more than the others.
    plain, edged = ("#868e96", "#495057") if is_small else ("rgba(128,128,128,0.35)", "#868e96")
    figure.add_scatter(
        x=[head for _, head in heads],
        y=[layer for layer, _ in heads],
        mode="markers+text" if is_small else "markers",
        text=labels if is_small else None,
        customdata=labels,
        textfont={"size": 12, "color": "white"},
        marker={
            "symbol": "circle",
            "size": 34 if is_small else 9,
            "color": [edged if label in joined else plain for label in labels],
            "line": {"color": "white", "width": 1 if is_small else 0},
        },
        hovertemplate="head %{customdata}<extra></extra>",
        showlegend=False,
    )


def _ends(rows: pd.DataFrame) -> list[tuple[np.ndarray, np.ndarray, float]]:
    columns = ("writer_head", "writer_layer", "reader_head", "reader_layer")
    numbers = rows[list(columns)].to_numpy(float)
    return [
        (row[:2], row[2:], BENDS[through])
        for row, through in zip(numbers, rows["through"], strict=True)
    ]


def _curve(edge: tuple[np.ndarray, np.ndarray, float]) -> Float[np.ndarray, "point 2"]:
    # Bent, each input by another amount: the three edges of a pair stay apart, and pass by other nodes.
    start, end, bend = edge
    span = float(end[1] - start[1])
    middle = (start + end) / 2 + np.array([bend * (0.28 + 0.12 * span), 0.0])
    t = CURVE[:, None]
    return (1 - t) ** 2 * start + 2 * t * (1 - t) * middle + t**2 * end
