"""Loss by position, one line for each model; the score of each beside its null."""

from html import escape

import plotly.graph_objects as go

from probes.pictures.panels import Tables, blank, interval
from workbench.figures.theme import CATEGORICAL


def figures(tables: Tables) -> list[go.Figure]:
    """The curve, then the scores."""
    return [_curve(tables), _scores(tables)]


def _curve(tables: Tables) -> go.Figure:
    figure = blank("Loss by position in the context")
    for at, (label, table) in enumerate(tables.items()):
        rows = table[table["measure"] == "loss"].sort_values("item")
        figure.add_scatter(
            x=rows["item"].astype(int),
            y=rows["value"],
            mode="lines+markers",
            name=escape(label, quote=False),
            line={"color": CATEGORICAL[at % len(CATEGORICAL)]},
            error_y=interval(rows),
            hovertemplate="from position %{x}: %{y:.3f} nats<extra></extra>",
        )
    figure.update_yaxes(title_text="loss, nats")
    return figure.update_xaxes(title_text="position from which the bin begins")


def _scores(tables: Tables) -> go.Figure:
    figure = blank("In-context learning: loss late minus early (below 0, context helps)", 300)
    for at, (label, table) in enumerate(tables.items()):
        rows = table[table["measure"] == "score"]
        name = escape(label, quote=False)
        figure.add_scatter(
            x=[name],
            y=rows["value"],
            mode="markers",
            marker={"size": 10, "color": CATEGORICAL[at % len(CATEGORICAL)]},
            error_y=interval(rows),
            showlegend=False,
            hovertemplate="%{x}: %{y:.3f} nats<extra></extra>",
        )
    figure.add_hline(y=0, line_width=1, line_dash="dot")
    return figure.update_yaxes(title_text="nats")
