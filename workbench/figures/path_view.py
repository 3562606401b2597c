"""Paths drawn: what the listed ones come to, the orders' sums, and the parts that make up one attention score.

Blue adds, brown takes away, zero is white or nothing. Orders may be a hundred times their sum: on the
logarithmic scale (asinh, so that it passes through zero) small ones are seen beside large ones.
"""

import html
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import plotly.graph_objects as go
from jaxtyping import Float

from workbench.figures.theme import DIVERGING, TEMPLATE, plotly_scale, symmetric_limit

# Middle blue and brown of the diverging scale: seen on white and on dark paper.
UP, DOWN, SUM = DIVERGING[8], "#c46a10", "#868e96"
SCALES = ("linear", "log")
NEGLIGIBLE, MANY_BARS, LINEAR_SHARE = 1e-4, 16, 0.004
METER_ROW = 30


@dataclass(frozen=True)
class SumBar:
    """One step towards a total."""

    name: str
    value: float


def meter_bars(bars: Sequence[SumBar], *, total: float, name: str, unit: str) -> go.Figure:
    """A waterfall of few rows that ends in the model's own number.

    Args:
        total: the model's own number; the last bar's end must reach its line.
        name: what it is.
    """
    values = np.array([bar.value for bar in bars])
    names = [_text(bar.name) for bar in bars]
    figure = go.Figure(
        go.Waterfall(
            orientation="h",
            y=[*names, _text(name)],
            x=[*values, total],
            measure=["relative"] * len(bars) + ["total"],
            text=[*(f"{value:+.4g}" for value in values), f"{total:.4g}"],
            textposition="outside",
            cliponaxis=False,
            increasing={"marker": {"color": UP}},
            decreasing={"marker": {"color": DOWN}},
            totals={"marker": {"color": SUM}},
            connector={"line": {"width": 1, "color": "rgba(128,128,128,0.5)"}},
            hovertemplate=f"%{{y}}<br>%{{delta:+.5f}}, in sum %{{x:.5f}} {_text(unit)}<extra></extra>",
        ),
        layout={
            "template": TEMPLATE,
            "height": METER_ROW * (len(bars) + 1) + 62,
            "margin": {"l": 90, "r": 70, "t": 10, "b": 44},
            "bargap": 0.3,
            "showlegend": False,
        },
    )
    figure.add_vline(x=total, line={"dash": "dot", "width": 1.5, "color": SUM})
    reached = np.concatenate([[0.0], np.cumsum(values), [total]])
    pad = 0.16 * (float(np.ptp(reached)) or 1.0)
    figure.update_xaxes(title_text=_text(unit), range=[reached.min() - pad, reached.max() + pad])
    return figure.update_yaxes(type="category", autorange="reversed", showgrid=False)


def order_bars(
    values: Float[np.ndarray, " order"],
    *,
    bias: float,
    total: float,
    unit: str,
    scale: str = "linear",
    counted: str = "components",
) -> go.Figure:
    """The sum of all paths of each order, and what all up to this one come to, the bias before them.

    Args:
        total: the model's own number, where the line ends.
        scale: "linear", or "log" for sizes that differ by powers of ten.
        counted: what an order counts.
    """
    n_shown = shown_orders(values)
    shown, running = values[:n_shown], bias + np.cumsum(values)[:n_shown]
    limit = symmetric_limit(np.concatenate([values, running]))
    width = limit * LINEAR_SHARE

    def place(x: Float[np.ndarray, " at"]) -> Float[np.ndarray, " at"]:
        return np.arcsinh(x / width) if scale == "log" else np.asarray(x, float)

    orders = np.arange(n_shown)
    few = n_shown <= MANY_BARS
    figure = go.Figure(layout={"template": TEMPLATE, "height": 340})
    figure.add_bar(
        x=orders,
        y=place(shown),
        showlegend=False,
        marker={"color": [UP if value >= 0 else DOWN for value in shown]},
        text=[f"{value:+.3g}" for value in shown] if few else None,
        textposition="auto",
        insidetextanchor="middle",
        insidetextfont={"color": "white"},
        cliponaxis=False,
        customdata=shown,
        hovertemplate=f"order %{{x}}<br>%{{customdata:+.4f}} {_text(unit)}<extra></extra>",
    )
    figure.add_scatter(
        x=orders,
        y=place(running),
        name="bias and all orders up to it",
        mode="lines+markers",
        line={"color": SUM, "width": 1.5},
        marker={"size": 5},
        customdata=running,
        hovertemplate=f"up to order %{{x}}<br>%{{customdata:.4f}} {_text(unit)}<extra></extra>",
    )
    figure.add_hline(y=float(place(np.array([total]))[0]), line={"dash": "dot", "color": SUM})
    figure.update_layout(margin={"t": 34, "r": 16, "b": 46}, bargap=0.25)
    drawn = np.concatenate([[0.0], place(shown), place(running), place(np.array([total]))])
    pad = 0.08 * (float(np.ptp(drawn)) or 1.0)
    figure.update_yaxes(range=[drawn.min() - pad, drawn.max() + pad])
    step = max(1, -(-n_shown // 24))
    figure.update_xaxes(title_text=_text(f"{counted} passed"), tick0=0, dtick=step, showgrid=False)
    if scale == "log":
        ticks = _ticks(limit, width)
        figure.update_yaxes(tickvals=place(ticks).tolist(), ticktext=[f"{x:g}" for x in ticks])
    return figure.update_yaxes(title_text=_text(unit))


def shown_orders(values: Float[np.ndarray, " order"]) -> int:
    """How many orders are drawn: those behind add less than a ten thousandth of the largest."""
    small = NEGLIGIBLE * float(np.abs(values).max(initial=0.0))
    return 1 + int(np.flatnonzero(np.abs(values) >= small)[-1]) if small else len(values)


def score_map(
    values: Float[np.ndarray, "query_part key_part"],
    rows: Sequence[str],
    columns: Sequence[str],
    *,
    unit: str,
) -> go.Figure:
    """What each pair of a query's part and a key's part adds to one attention score."""
    limit = symmetric_limit(values)
    cells = go.Heatmap(
        z=np.asarray(values, np.float32),
        x=[_text(name) for name in columns],
        y=[_text(name) for name in rows],
        zmin=-limit,
        zmax=limit,
        colorscale=plotly_scale(DIVERGING),
        colorbar={"title": {"text": _text(unit), "side": "right"}, "thickness": 12},
        hovertemplate=f"query: %{{y}}<br>key: %{{x}}<br>%{{z:+.4f}} {_text(unit)}<extra></extra>",
        xgap=1,
        ygap=1,
    )
    figure = go.Figure(cells, layout={"template": TEMPLATE, "height": 150 + 22 * len(rows)})
    figure.update_layout(margin={"l": 90, "r": 10, "t": 12, "b": 90})
    figure.update_xaxes(
        type="category", title_text="part of the key", showgrid=False, tickangle=-45
    )
    return figure.update_yaxes(
        type="category", title_text="part of the query", showgrid=False, autorange="reversed"
    )


def _ticks(limit: float, width: float) -> Float[np.ndarray, " tick"]:
    """Powers of ten of both signs, and zero."""
    low, high = int(np.ceil(np.log10(2 * width))), int(np.floor(np.log10(limit)))
    sizes = np.array([base * 10.0**power for power in range(low, high + 1) for base in (1, 3)])
    sizes = sizes[sizes <= limit]
    return np.concatenate([-sizes[::-1], [0.0], sizes])


def _text(text: str) -> str:
    return html.escape(text, quote=False)
