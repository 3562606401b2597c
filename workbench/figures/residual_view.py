"""The residual stream drawn: bars that add up to a logit, and maps of what each part wrote where.

Signed values are blue above and brown below zero; lengths are shown by their logarithm.
"""

import html
from collections.abc import Sequence

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from jaxtyping import Float

from workbench.figures.theme import DIVERGING, SEQUENTIAL, TEMPLATE, plotly_scale

BAR_HEIGHT, ROW_HEIGHT = 22, 15
UP, DOWN, SUM = "#2166ac", "#b35806", "#7f7f7f"


def attribution_bars(table: pd.DataFrame, *, total: float, name: str) -> go.Figure:
    """A waterfall of `part` and `value`: each bar starts where the last one ended, the lowest is the sum.

    Args:
        total: the model's own number, drawn as a line that the sum must reach.
        name: what the line is: "logit of ·the".
    """
    parts = [html.escape(str(part)[:60], quote=False) for part in table["part"]]
    values = table["value"].to_numpy(float)
    whole = float(values.sum())
    figure = go.Figure(
        go.Waterfall(
            orientation="h",
            y=[*parts, "sum of all parts"],
            x=[*values, whole],
            measure=["relative"] * len(parts) + ["total"],
            text=[*(f"{value:+.3f}" for value in values), f"{whole:.3f}"],
            textposition="outside",
            cliponaxis=False,
            increasing={"marker": {"color": UP}},
            decreasing={"marker": {"color": DOWN}},
            totals={"marker": {"color": SUM}},
            connector={"line": {"width": 1, "color": "rgba(128,128,128,0.5)"}},
            hovertemplate="%{y}<br>adds %{delta:+.4f} logits, in sum %{x:.4f}<extra></extra>",
        ),
        layout={
            "template": TEMPLATE,
            "height": (len(parts) + 1) * BAR_HEIGHT + 84,
            "margin": {"l": 90, "r": 56, "t": 30, "b": 48},
            "showlegend": False,
            "bargap": 0.25,
        },
    )
    figure.add_vline(
        x=total,
        line={"dash": "dot", "width": 1.5, "color": SUM},
        annotation={"text": f"{html.escape(name, quote=False)} {total:.3f}", "yshift": 2},
        annotation_position="top",
    )
    steps = np.concatenate([[0.0], np.cumsum(values), [total]])
    pad = 0.14 * (np.ptp(steps) or 1.0)
    figure.update_xaxes(
        title={"text": "logits", "font": {"size": 12}}, range=[steps.min() - pad, steps.max() + pad]
    )
    figure.update_yaxes(type="category", autorange="reversed", showgrid=False)
    return figure


def norm_map(
    norms: Float[np.ndarray, "part pos"], parts: Sequence[str], positions: Sequence[str]
) -> go.Figure:
    """Length of what each part wrote at every position, by its logarithm; blank where nothing was written."""
    logs = np.log10(np.where(norms > 0, norms, np.nan))
    seen = logs[np.isfinite(logs)]
    low, high = (float(seen.min()), float(seen.max())) if seen.size else (0.0, 1.0)
    powers = np.arange(np.floor(low), np.ceil(high) + 1)
    bar = {"tickvals": powers.tolist(), "ticktext": [f"{10.0**power:g}" for power in powers]}
    return _map(
        logs,
        parts,
        positions,
        shown=norms,
        hover="length %{customdata:.4g}",
        colorscale=plotly_scale(SEQUENTIAL),
        zmin=low,
        zmax=high,
        colorbar={"title": {"text": "length", "side": "right"}, **bar},
    )


def survival_map(
    survival: Float[np.ndarray, "part pos"], parts: Sequence[str], positions: Sequence[str]
) -> go.Figure:
    """How much of each part the end still holds: white 1 (untouched), brown less, blue more; cut at 0 and 2."""
    return _map(
        np.clip(survival, 0, 2),
        parts,
        positions,
        shown=survival,
        hover="survival %{customdata:.3f}",
        colorscale=plotly_scale(DIVERGING),
        zmin=0,
        zmax=2,
        colorbar={"title": {"text": "survival", "side": "right"}},
    )


def cosine_map(cosines: Float[np.ndarray, "part other"], parts: Sequence[str]) -> go.Figure:
    """Cosines between what parts write: white unrelated, blue alike, brown opposed."""
    figure = _map(
        cosines,
        parts,
        parts,
        shown=cosines,
        hover="cosine %{customdata:+.3f}",
        colorscale=plotly_scale(DIVERGING),
        zmin=-1,
        zmax=1,
        colorbar={"title": {"text": "cosine", "side": "right"}},
    )
    figure.update_layout(height=max(260, len(parts) * ROW_HEIGHT) + 110)
    figure.update_xaxes(constrain="domain", constraintoward="left")
    return figure.update_yaxes(scaleanchor="x", constrain="domain", constraintoward="top")


def _map(
    values: Float[np.ndarray, "row column"],
    rows: Sequence[str],
    columns: Sequence[str],
    *,
    shown: Float[np.ndarray, "row column"],
    hover: str,
    **scale: object,
) -> go.Figure:
    cells = go.Heatmap(
        z=values.astype(np.float32),
        x=list(columns),
        y=list(rows),
        customdata=shown.astype(np.float32),
        hovertemplate="%{y}, %{x}<br>" + hover + "<extra></extra>",
        hoverongaps=False,
        xgap=1,
        ygap=1,
        **scale,
    )
    cells.colorbar.update(thickness=12, lenmode="pixels", len=min(220, 60 + len(rows) * ROW_HEIGHT))
    height = max(120, len(rows) * ROW_HEIGHT) + 100
    figure = go.Figure(cells, layout={"template": TEMPLATE, "height": height})
    figure.update_layout(margin={"l": 90, "r": 10, "t": 12, "b": 80})
    # A head's label, 1.4, is no number. Deeper layers are higher up, as in the lens.
    figure.update_xaxes(type="category", showgrid=False, tickangle=-55, tickfont={"size": 10.5})
    figure.update_yaxes(type="category", showgrid=False, tickfont={"size": 10.5}, dtick=1)
    return figure
