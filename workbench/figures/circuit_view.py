"""Figures of one head's circuits: eigenvalues, a block of entries, singular values, measures and their null.

The eigenvalue plane follows Elhage et al. 2021, "A Mathematical Framework for Transformer Circuits" ("Copying
behaviour"): angle as it is, radius on a log scale, because sizes differ by orders of magnitude.
"""

import html
from collections.abc import Mapping, Sequence
from typing import Literal

import numpy as np
import plotly.graph_objects as go
from jaxtyping import Complex, Float, Num

from workbench.figures.theme import (
    CATEGORICAL,
    DIVERGING,
    TEMPLATE,
    plotly_scale,
    symmetric_limit,
)
from workbench.figures.tokens import figure_text

DECADES = 4
MAX_NULL_POINTS = 3000
MAX_LABELS = 80
POSITIVE, NEGATIVE, NULL = DIVERGING[8], DIVERGING[1], "#8d8d8d"


def eigenvalue_plane(
    values: Complex[np.ndarray, " eigenvalue"],
    null: Complex[np.ndarray, "sample null_eigenvalue"] | None = None,
    *,
    title: str,
    unit: str,
    radius: Literal["log", "linear"] = "log",
) -> go.Figure:
    """Eigenvalues in the complex plane: right of the centre tokens raise themselves, left of it lower.

    Args:
        null: eigenvalues of random circuits, drawn as a grey cloud behind.
        radius: "log" shows `DECADES` powers of ten below the largest size; what is smaller is at the centre.
    """
    cloud = np.zeros(0, complex) if null is None else _thinned(np.ravel(null))
    largest = _largest_size(values, cloud)
    figure = go.Figure(layout={"template": TEMPLATE, "title": {"text": html.escape(title)}})
    _rings(figure, largest, radius)
    if len(cloud):
        figure.add_trace(
            _points(cloud, largest, radius, unit)
            | {"name": "random circuits", "marker": {"color": NULL, "size": 4, "opacity": 0.28}}
        )
    for name, chosen, colour in (
        ("Re λ > 0", values.real > 0, POSITIVE),
        ("Re λ ≤ 0", values.real <= 0, NEGATIVE),
    ):
        marker = {"color": colour, "size": 8, "line": {"color": "white", "width": 0.7}}
        figure.add_trace(
            _points(values[chosen], largest, radius, unit)
            | {"name": f"{name} ({int(chosen.sum())})", "marker": marker}
        )
    reach = 1.12
    axis = {"range": [-reach, reach], "showgrid": False, "zeroline": True, "showticklabels": False}
    axis |= {"ticks": ""}
    figure.update_xaxes(title_text=f"Re λ ({html.escape(unit)})", **axis, constrain="domain")
    figure.update_yaxes(title_text=f"Im λ ({html.escape(unit)})", **axis, scaleanchor="x")
    figure.update_layout(legend={"y": -0.14, "yanchor": "top", "x": 0, "xanchor": "left"})
    return figure


def entries_map(
    values: Float[np.ndarray, "row column"],
    rows: Sequence[str],
    columns: Sequence[str],
    *,
    axes: tuple[str, str],
    title: str,
    unit: str,
) -> go.Figure:
    """Heat map of a block of a circuit, white at zero: colour shows the sign, depth the size.

    Args:
        rows: tokens, repeated ones too; whitespace is made visible.
        axes: the words of the rows and of the columns.
    """
    limit = symmetric_limit(values)
    names = [figure_text(token) for token in rows], [figure_text(token) for token in columns]
    spoken = np.empty((*values.shape, 2), object)
    spoken[..., 0], spoken[..., 1] = np.array(names[0])[:, None], np.array(names[1])[None, :]
    row_axis, column_axis = (html.escape(axis) for axis in axes)
    cells = go.Heatmap(
        z=np.asarray(values, np.float32),
        customdata=spoken,
        zmin=-limit,
        zmax=limit,
        colorscale=plotly_scale(DIVERGING),
        colorbar={"title": {"text": html.escape(unit), "side": "top"}, "thickness": 14},
        hovertemplate=f"{row_axis} <b>%{{customdata[0]}}</b><br>{column_axis} <b>%{{customdata[1]}}</b>"
        f"<br>%{{z:.3f}} {html.escape(unit)}<extra></extra>",
        xgap=1,
        ygap=1,
    )
    figure = go.Figure(cells, layout={"template": TEMPLATE, "title": {"text": html.escape(title)}})
    # Positions with texts, not categories: plotly would merge tokens that are spelled alike.
    figure.update_xaxes(title_text=column_axis, **_token_axis(names[1]), tickangle=-45)
    figure.update_yaxes(title_text=row_axis, **_token_axis(names[0]), autorange="reversed")
    return figure.update_layout(height=160 + 17 * min(len(rows), MAX_LABELS))


def offset_curves(
    offsets: Num[np.ndarray, " offset"],
    curves: Mapping[str, Float[np.ndarray, " offset"]],
    *,
    title: str,
    unit: str,
    chosen: int | None = None,
) -> go.Figure:
    """Score by offset query − key, one line for each named part; a dotted line marks the chosen offset."""
    figure = go.Figure(layout={"template": TEMPLATE, "title": {"text": html.escape(title)}})
    for (name, values), colour in zip(curves.items(), CATEGORICAL, strict=False):
        figure.add_scatter(
            x=np.asarray(offsets),
            y=np.asarray(values, np.float32),
            name=html.escape(name),
            mode="lines+markers" if len(offsets) <= 64 else "lines",
            marker={"size": 4},
            line={"color": colour, "width": 2},
            hovertemplate=f"offset %{{x}}<br>%{{y:.3f}} {html.escape(unit)}<extra>{html.escape(name)}</extra>",
        )
    if chosen is not None:
        figure.add_vline(x=chosen, line={"color": NULL, "dash": "dot", "width": 1.5})
    figure.update_xaxes(title_text="offset Δ = query − key (positions)")
    figure.update_yaxes(title_text=html.escape(unit), zeroline=True)
    return figure


def singular_bars(values: Float[np.ndarray, " direction"], *, title: str, unit: str) -> go.Figure:
    """Singular values, largest first: how fast they fall says how many directions a circuit really uses."""
    energy = np.cumsum(np.square(values)) / max(float(np.square(values).sum()), 1e-30)
    bars = go.Bar(
        x=np.arange(1, len(values) + 1),
        y=np.asarray(values, np.float32),
        customdata=energy,
        marker={"color": CATEGORICAL[0]},
        hovertemplate=f"direction %{{x}}<br>%{{y:.3f}} {html.escape(unit)}"
        "<br>%{customdata:.1%} of the squares up to here<extra></extra>",
    )
    figure = go.Figure(bars, layout={"template": TEMPLATE, "title": {"text": html.escape(title)}})
    figure.update_xaxes(title_text="singular direction", showgrid=False)
    figure.update_yaxes(title_text=html.escape(unit), rangemode="tozero")
    return figure


def _points(
    values: Complex[np.ndarray, " eigenvalue"], largest: float, radius: str, unit: str
) -> dict:
    sizes = np.abs(values)
    with np.errstate(invalid="ignore", divide="ignore"):
        turned = np.where(sizes > 0, values / sizes, 0)
    placed = turned * _radii(sizes, largest, radius)
    spoken = np.stack([values.real, values.imag, sizes], axis=-1).astype(np.float32)
    unit = html.escape(unit)
    return {
        "type": "scatter",
        "mode": "markers",
        "x": placed.real.astype(np.float32),
        "y": placed.imag.astype(np.float32),
        "customdata": spoken,
        "hovertemplate": "λ = %{customdata[0]:.3g} %{customdata[1]:+.3g} i"
        f"<br>|λ| = %{{customdata[2]:.3g}} {unit}<extra></extra>",
    }


def _radii(sizes: Float[np.ndarray, " eigenvalue"], largest: float, radius: str) -> np.ndarray:
    if radius == "linear":
        return sizes / largest
    with np.errstate(divide="ignore"):
        return np.clip(1 + np.log10(sizes / largest) / DECADES, 0, None)


def _rings(figure: go.Figure, largest: float, radius: str) -> None:
    """Circles of equal size, each with its value."""
    highest = np.floor(np.log10(largest))
    if radius == "linear":
        marks = largest * np.array([0.25, 0.5, 0.75, 1.0])
    else:
        marks = 10.0 ** np.arange(highest, np.log10(largest) - DECADES, -1)
    for mark, place in zip(marks, _radii(marks, largest, radius), strict=True):
        line = {"color": "rgba(128,128,128,0.35)", "width": 1}
        figure.add_shape(
            type="circle", x0=-place, x1=place, y0=-place, y1=place, line=line, layer="below"
        )
        figure.add_annotation(
            x=place * np.cos(0.9),
            y=place * np.sin(0.9),
            text=f"{mark:,.0f}" if mark >= 100 else f"{mark:.3g}",
            showarrow=False,
            font={"size": 10, "color": NULL},
            xanchor="left",
            yanchor="bottom",
        )


def _largest_size(*groups: np.ndarray) -> float:
    sizes = [float(np.abs(group).max(initial=0.0)) for group in groups]
    return max(sizes) or 1.0


def _thinned(values: np.ndarray) -> np.ndarray:
    # More points than this slow the browser down and show nothing new.
    return values[:: max(1, -(-len(values) // MAX_NULL_POINTS))]


def _token_axis(names: Sequence[str]) -> dict:
    every = max(1, -(-len(names) // MAX_LABELS))
    places = list(range(0, len(names), every))
    return {
        "tickmode": "array",
        "tickvals": places,
        "ticktext": [names[place] for place in places],
        "showgrid": False,
        "zeroline": False,
    }
