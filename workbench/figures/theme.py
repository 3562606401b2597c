"""How figures look: one plotly template, colour-blind safe colours, and zero is white.

Conventions: signed values take a diverging scale with symmetric limits, so that colour shows the sign and
depth the size; axes carry the field's words (layer, head, query, key) and colour bars their unit.
"""

import html
from collections.abc import Sequence

import numpy as np
import plotly.graph_objects as go
from jaxtyping import Float

# The same anchors as in attention_view/viewer/colours.js: a head looks alike in every figure.
SEQUENTIAL = (
    "#ffffff", "#deebf7", "#c6dbef", "#9ecae1", "#6baed6", "#4292c6", "#2171b5", "#08519c", "#08306b",
)  # fmt: skip
DIVERGING = (
    "#7f3b08", "#b35806", "#e08214", "#fdb863", "#fee0b6", "#ffffff",
    "#d1e5f0", "#92c5de", "#4393c3", "#2166ac", "#053061",
)  # fmt: skip
# Okabe & Ito 2008, "Color Universal Design"; black and yellow left out, they vanish on dark or white paper.
CATEGORICAL = ("#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#d55e00", "#7f7f7f")

# For every dcc.Graph and export: no button that uploads the figure, no logo.
GRAPH_CONFIG = {"showSendToCloud": False, "displaylogo": False, "responsive": True}

_AXIS = {
    "showgrid": True,
    "gridcolor": "rgba(128,128,128,0.22)",
    "zerolinecolor": "rgba(128,128,128,0.55)",
    "ticks": "outside",
    "ticklen": 4,
    "automargin": True,
    "title": {"standoff": 8},
}

TEMPLATE = go.layout.Template(
    layout={
        "font": {"family": "system-ui, 'Segoe UI', Roboto, 'DejaVu Sans', sans-serif", "size": 13},
        # The page's own paper shows through, in light and dark.
        "paper_bgcolor": "rgba(0,0,0,0)",
        "plot_bgcolor": "rgba(0,0,0,0)",
        "colorway": list(CATEGORICAL),
        "colorscale": {"sequential": list(SEQUENTIAL), "diverging": list(DIVERGING)},
        "title": {"font": {"size": 15}, "x": 0, "xref": "paper", "xanchor": "left"},
        "margin": {"l": 56, "r": 24, "t": 48, "b": 48},
        "xaxis": _AXIS,
        "yaxis": _AXIS,
        "hoverlabel": {"align": "left"},
        "legend": {"orientation": "h", "y": 1.02, "yanchor": "bottom", "x": 1, "xanchor": "right"},
    }
)


def head_map(values: Float[np.ndarray, "layer head"], *, title: str, unit: str) -> go.Figure:
    """Layer-by-head heat map, white at zero: colour shows the sign, depth the size; NaN is left blank."""
    limit = symmetric_limit(values)
    cells = go.Heatmap(
        z=np.asarray(values, np.float32),
        zmin=-limit,
        zmax=limit,
        colorscale=plotly_scale(DIVERGING),
        colorbar={"title": {"text": html.escape(unit), "side": "right"}, "thickness": 14},
        hovertemplate=f"head %{{y}}.%{{x}}<br>%{{z:.3f}} {html.escape(unit)}<extra></extra>",
        hoverongaps=False,
        xgap=1,
        ygap=1,
    )
    figure = go.Figure(cells, layout={"template": TEMPLATE, "title": {"text": html.escape(title)}})
    figure.update_xaxes(
        title_text="head", showgrid=False, zeroline=False, **_whole(values.shape[1])
    )
    figure.update_yaxes(
        title_text="layer", showgrid=False, zeroline=False, **_whole(values.shape[0])
    )
    figure.update_yaxes(autorange="reversed")
    return figure


def symmetric_limit(values: np.ndarray) -> float:
    """The largest size among the finite values; 1 if there is none, so that a blank figure still draws."""
    sizes = np.abs(values[np.isfinite(values)])
    return float(sizes.max(initial=0.0)) or 1.0


def plotly_scale(anchors: Sequence[str]) -> list[list[float | str]]:
    """Evenly spaced anchors as plotly writes a colour scale."""
    return [[index / (len(anchors) - 1), colour] for index, colour in enumerate(anchors)]


def token_labels(tokens: Sequence[str]) -> list[str]:
    """One axis label per position: plotly would merge repeated tokens, and read `<b>` as markup."""
    return [f"{pos}·{html.escape(token, quote=False)}" for pos, token in enumerate(tokens)]


def _whole(count: int) -> dict[str, int]:
    # Layers and heads are counted: no ticks between them, at most about twenty of them.
    return {"tick0": 0, "dtick": max(1, -(-count // 20))}
