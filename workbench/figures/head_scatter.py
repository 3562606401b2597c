"""Every head as a point: two measures across and up, a third as colour, chance as dotted lines.

Plain SVG points: a model has hundreds of heads, not millions, and WebGL would need a page that allows eval.
"""

import html
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from jaxtyping import Bool

from workbench.figures.theme import (
    DIVERGING,
    SEQUENTIAL,
    TEMPLATE,
    plotly_scale,
    symmetric_limit,
)

LAYER = "layer"
COLUMNS = ["value", "low", "high", "chance"]
MOST_LABELS = 32
CHANCE_LINE = {"dash": "dot", "width": 1.5, "color": "#7f7f7f"}
# White, where the scale begins, would vanish on white paper.
_VISIBLE = SEQUENTIAL[2:]


class _Axis(NamedTuple):
    """One measure of every head; `low`, `high` and `chance` may be NaN."""

    name: str
    unit: str
    frame: pd.DataFrame

    @property
    def title(self) -> str:
        """Name and unit."""
        return html.escape(f"{self.name}, {self.unit}" if self.unit else self.name)


def head_scatter(
    table: pd.DataFrame, *, x: str, y: str, colour: str = LAYER, chosen: str | None = None
) -> go.Figure:
    """Heads by two measures; dotted lines are chance, thin bars intervals, a ring the chosen head.

    Args:
        table: one row for each layer, head and measure, with value, low, high, chance and unit.
        colour: a third measure, or "layer".
        chosen: a head's label, as `1.4`.
    """
    across, up = _axis(table, x), _axis(table, y)
    labels = across.frame.index.union(up.frame.index)
    across, up = (_Axis(a.name, a.unit, a.frame.reindex(labels)) for a in (across, up))
    shade, marker = _colours(table, colour, labels)
    texts = np.array([f"{layer}.{head}" for layer, head in labels])
    said = np.column_stack([_spelled(across), _spelled(up), _spelled(shade)])
    figure = go.Figure(layout={"template": TEMPLATE, "height": 520, "showlegend": False})
    # Heads without the third measure are hollow, so that no colour is read into them.
    known = np.isfinite(marker["color"])
    hollow = {"color": "rgba(0,0,0,0)", "line": {"width": 1.5, "color": "#8d8d8d"}}
    for here, style in ((known, {**marker, "color": marker["color"][known]}), (~known, hollow)):
        if not here.any():
            continue
        figure.add_scatter(
            x=across.frame["value"][here].astype(float),
            y=up.frame["value"][here].astype(float),
            mode="markers+text" if len(labels) <= MOST_LABELS else "markers",
            text=texts[here],
            textposition="top center",
            textfont={"size": 11},
            customdata=said[here],
            error_x=_bars(across, here),
            error_y=_bars(up, here),
            marker={"size": 10, "line": {"width": 1.3, "color": "#8d8d8d"}, **style},
            hovertemplate=f"head <b>%{{text}}</b><br>{across.title}: %{{customdata[0]}}"
            f"<br>{up.title}: %{{customdata[1]}}<br>{shade.title}: %{{customdata[2]}}<extra></extra>",
        )
    if chosen in texts:
        _ring(figure, across, up, texts.tolist().index(chosen))
    _chance(figure, across, up)
    figure.update_xaxes(title={"text": across.title, "font": {"size": 13}}, zeroline=False)
    figure.update_yaxes(title={"text": up.title, "font": {"size": 13}}, zeroline=False)
    return figure.update_layout(margin={"l": 64, "r": 16, "t": 28, "b": 56})


def _axis(table: pd.DataFrame, measure: str) -> _Axis:
    rows = table[table["measure"] == measure]
    unit = str(rows["unit"].iloc[0]) if len(rows) and "unit" in rows else ""
    frame = rows.set_index(["layer", "head"]).reindex(columns=COLUMNS)
    return _Axis(measure, unit, frame)


def _colours(table: pd.DataFrame, colour: str, labels: pd.Index) -> tuple[_Axis, dict[str, Any]]:
    """The measure that colours, and how markers show it: signed values diverge from white at zero."""
    ticks: dict[str, int] = {}
    if colour == LAYER:
        ticks = {"tick0": 0, "dtick": 1 + max(labels.get_level_values(0), default=0) // 12}
        frame = pd.DataFrame({"value": labels.get_level_values(0)}, labels)
        shade = _Axis(LAYER, "", frame.reindex(columns=COLUMNS))
    else:
        found = _axis(table, colour)
        shade = _Axis(found.name, found.unit, found.frame.reindex(labels))
    values = shade.frame["value"].to_numpy(float)
    bar = {"title": {"text": shade.title, "side": "right", "font": {"size": 12}}, "thickness": 12}
    bar |= ticks
    if np.nanmin(values, initial=0.0) < 0:
        limit = symmetric_limit(values)
        scale, low, high = plotly_scale(DIVERGING), -limit, limit
    else:
        low, high = 0.0, float(np.nanmax(values, initial=0.0)) or 1.0
        scale = plotly_scale(_VISIBLE)
    marker = {"color": values, "colorscale": scale, "cmin": low, "cmax": high, "colorbar": bar}
    return shade, marker


def _bars(axis: _Axis, here: Bool[np.ndarray, " head"]) -> dict[str, object]:
    """Intervals as thin bars; none where a measure has none."""
    value, low, high = (axis.frame[name].to_numpy(float)[here] for name in ("value", "low", "high"))
    above, below = high - value, value - low
    if not np.isfinite(above).any():
        return {"visible": False}
    return {
        "type": "data",
        "array": np.nan_to_num(above).clip(min=0),
        "arrayminus": np.nan_to_num(below).clip(min=0),
        "thickness": 0.8,
        "width": 0,
        "color": "rgba(128,128,128,0.55)",
    }


def _spelled(axis: _Axis) -> list[str]:
    """Value, interval and chance of every head, as hovering says them."""
    spelled = []
    for row in axis.frame.itertuples():
        text = f"{row.value:.3g}" if np.isfinite(row.value) else "none"
        text += f" [{row.low:.3g}, {row.high:.3g}]" if np.isfinite(row.low) else ""
        text += f", chance {row.chance:.3g}" if np.isfinite(row.chance) else ""
        spelled.append(text)
    return spelled


def _ring(figure: go.Figure, across: _Axis, up: _Axis, index: int) -> None:
    figure.add_scatter(
        x=[float(across.frame["value"].iloc[index])],
        y=[float(up.frame["value"].iloc[index])],
        mode="markers",
        marker={
            "size": 20,
            "color": "rgba(0,0,0,0)",
            "line": {"width": 2.5, "color": "#e8590c"},
        },
        hoverinfo="skip",
        name="chosen",
    )


def _chance(figure: go.Figure, across: _Axis, up: _Axis) -> None:
    """One line for each axis at its median chance; where chance differs between heads, hovering says each."""
    for axis, add in ((across, figure.add_vline), (up, figure.add_hline)):
        chances = axis.frame["chance"].to_numpy(float)
        if np.isfinite(chances).any():
            add(float(np.nanmedian(chances)), line=CHANCE_LINE)
