"""Loss up to each order, and what each order adds to the right token's logit; a line for each model."""

from html import escape

import plotly.graph_objects as go

from probes.pictures.panels import Tables, blank, interval
from workbench.figures.theme import CATEGORICAL

TITLES = {
    "loss": "Loss with the terms up to an order",
    "logit": "What each order adds to the right token's logit",
}


def figures(tables: Tables) -> list[go.Figure]:
    """Loss, then logit."""
    return [_lines(tables, measure) for measure in TITLES]


def _lines(tables: Tables, measure: str) -> go.Figure:
    figure = blank(TITLES[measure])
    for at, (label, table) in enumerate(tables.items()):
        rows = table[table["measure"] == measure].sort_values("item")
        figure.add_scatter(
            x=[int(item.removeprefix("order ")) for item in rows["item"]],
            y=rows["value"],
            mode="lines+markers",
            name=escape(label, quote=False),
            line={"color": CATEGORICAL[at % len(CATEGORICAL)]},
            error_y=interval(rows),
            hovertemplate="order %{x}: %{y:.3f}<extra></extra>",
        )
    figure.update_yaxes(title_text="nats" if measure == "loss" else "logits")
    return figure.update_xaxes(title_text="order: components on the way")
