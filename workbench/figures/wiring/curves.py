"""Figures beside the wiring picture: the loss as wires are cut, and what a unit responds to."""

import html

import numpy as np
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from workbench.figures.theme import CATEGORICAL, TEMPLATE
from workbench.figures.tokens import figure_text
from workbench.training.modularity.pruning_curve import PruningCurve
from workbench.training.responses import Feature, Responses

MAX_FEATURES = 6
MAX_NAMES = 14


def pruning_figure(curve: PruningCurve, chosen: int = 0) -> go.Figure:
    """The measured loss at each threshold, one step of the slider apart; a line marks the chosen one."""
    table = curve.table()
    steps = np.arange(len(table))
    hover = [
        f"|w| ≥ {row.threshold:.3g}<br>{row.wires:,} wires, {row.live_units:,} live units, "
        f"{row.components:,} components<br>loss {row.loss:.4g}<extra></extra>"
        for row in table.itertuples()
    ]
    loss = go.Scatter(
        x=steps,
        y=table["loss"],
        mode="lines+markers",
        line={"color": CATEGORICAL[0], "width": 2},
        hovertemplate=hover,
    )
    finite = table["loss"][np.isfinite(table["loss"])]
    figure = go.Figure(loss, layout={"template": TEMPLATE, "height": 240, "showlegend": False})
    shown = steps[:: max(1, len(steps) // 12)]
    figure.update_xaxes(
        title_text="wires left",
        tickvals=shown,
        ticktext=[f"{table['wires'][step]:,}" for step in shown],
        range=[-0.5, len(steps) - 0.5],
        showgrid=False,
        zeroline=False,
    )
    is_positive = len(finite) > 0 and bool((finite > 0).all())
    figure.update_yaxes(
        title_text="loss, measured",
        type="log" if is_positive else "linear",
        minorloglabels="complete",
    )
    # The page moves this line under the slider.
    figure.add_shape(
        type="line",
        x0=chosen,
        x1=chosen,
        y0=0,
        y1=1,
        yref="paper",
        line={"color": CATEGORICAL[5], "width": 1.5, "dash": "dot"},
    )
    figure.update_layout(margin={"l": 64, "r": 16, "t": 12, "b": 48})
    return figure


def response_figure(found: Responses) -> go.Figure:
    """The unit's mean activation by each of the features that explain most, on one scale.

    A feature of numbers is a curve; of tokens, the mean activation of those it is highest for.
    """
    features = found.features[:MAX_FEATURES]
    columns = max(1, min(3, len(features)))
    rows = max(1, -(-len(features) // columns))
    titles = [
        f"{html.escape(feature.name)}  (ε² = {max(0.0, feature.explained):.2f})"
        for feature in features
    ]
    figure = make_subplots(
        rows=rows,
        cols=columns,
        shared_yaxes="all",
        subplot_titles=titles,
        horizontal_spacing=0.09,
        vertical_spacing=0.3 / rows,
    )
    for number, feature in enumerate(features):
        row, column = divmod(number, columns)
        figure.add_trace(_of_feature(feature), row=row + 1, col=column + 1)
        if feature.names:
            figure.update_xaxes(tickangle=-50, type="category", row=row + 1, col=column + 1)
    figure.update_layout(
        template=TEMPLATE,
        height=90 + 190 * rows,
        showlegend=False,
        margin={"l": 56, "r": 16, "t": 36, "b": 56},
    )
    figure.update_yaxes(title_text=f"mean {found.what}", col=1)
    figure.update_annotations(font_size=12.5)
    return figure


def _of_feature(feature: Feature) -> go.Scatter | go.Bar:
    if feature.names:
        names = feature.names[:MAX_NAMES]
        # Two tokens may be spelled alike, which plotly would take for one.
        spelled = [figure_text(name) + "\u200b" * i for i, name in enumerate(names)]
        return go.Bar(
            x=spelled,
            y=feature.mean[: len(names)],
            marker_color=CATEGORICAL[0],
            hovertemplate="%{x}: %{y:.3g}<extra></extra>",
        )
    return go.Scatter(
        x=feature.values,
        y=feature.mean,
        mode="lines+markers",
        line={"color": CATEGORICAL[0], "width": 1.8},
        marker={"size": 4},
        hovertemplate=f"{html.escape(feature.name)} = %{{x:.3g}}: %{{y:.3g}}<extra></extra>",
    )
