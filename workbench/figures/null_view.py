"""Measures of one head beside all heads of the model and beside chance."""

import html
from collections.abc import Mapping

import plotly.graph_objects as go
from jaxtyping import Float
from numpy import ndarray
from plotly.subplots import make_subplots

from workbench.figures.theme import CATEGORICAL, TEMPLATE

ROW_HEIGHT = 74
CHANCE, OTHERS, CHOSEN = "rgba(128,128,128,0.28)", "#8d8d8d", CATEGORICAL[0]


def against_null(
    measures: Mapping[str, Float[ndarray, " head"]],
    null: Mapping[str, tuple[float, float]],
    labels: list[str],
    chosen: str,
    *,
    title: str,
) -> go.Figure:
    """A row for each measure: the chosen head as a dot, all heads as ticks, chance ± 2 std as a grey band.

    Args:
        measures: by name, one value for each head of `labels`.
        null: by name, mean and standard deviation of random heads of the same shapes.
    """
    names = list(measures)
    figure = make_subplots(
        rows=len(names),
        vertical_spacing=0.62 / len(names) if len(names) > 1 else 0,
        subplot_titles=[html.escape(name) for name in names],
    )
    figure.update_layout(
        template=TEMPLATE, title_text=html.escape(title), height=90 + ROW_HEIGHT * len(names)
    )
    place = labels.index(chosen)
    for row, name in enumerate(names, start=1):
        for trace in _marks(measures[name], labels, place, is_first=row == 1):
            figure.add_trace(trace, row=row, col=1)
        if name in null:
            (mean, std), at = null[name], {"row": row, "col": 1, "layer": "below"}
            figure.add_vrect(mean - 2 * std, mean + 2 * std, fillcolor=CHANCE, line_width=0, **at)
            figure.add_vline(mean, line={"color": OTHERS, "width": 1, "dash": "dot"}, **at)
    figure.update_annotations(x=0, xanchor="left", font={"size": 12})
    figure.update_xaxes(showgrid=False, zeroline=False, showline=True, linecolor=OTHERS)
    figure.update_yaxes(visible=False, range=[-1, 1], fixedrange=True)
    figure.update_layout(legend={"y": 1.0, "yanchor": "bottom"}, margin={"t": 60})
    return figure


def _marks(
    values: Float[ndarray, " head"], labels: list[str], place: int, *, is_first: bool
) -> list[go.Scatter]:
    ticks = go.Scatter(
        x=values,
        y=[0.0] * len(values),
        text=labels,
        mode="markers",
        name="all heads",
        marker={"symbol": "line-ns-open", "size": 14, "color": OTHERS, "opacity": 0.75},
        hovertemplate="head %{text}: %{x:.3f}<extra></extra>",
        showlegend=is_first,
        legendgroup="all",
    )
    chosen = go.Scatter(
        x=values[place : place + 1],
        y=[0.0],
        mode="markers",
        name=f"head {labels[place]}",
        marker={"size": 12, "color": CHOSEN, "line": {"color": "white", "width": 1}},
        hovertemplate=f"head {labels[place]}: %{{x:.3f}}<extra></extra>",
        showlegend=is_first,
        legendgroup="chosen",
    )
    return [ticks, chosen]
