"""The lift of every head's list beside lists with exchanged outs; each trigram's rate against chance."""

from html import escape

import plotly.graph_objects as go

from probes.pictures.panels import GREY, Tables, blank, compared, measure, split_series
from workbench.figures.theme import CATEGORICAL


def figures(tables: Tables) -> list[go.Figure]:
    """Lifts of all models, then one scatter of all trigrams that text has."""
    return [
        *compared(tables, [measure("lift")], "Lift of skip-trigrams"),
        _rates(split_series(tables)[0]),
    ]


def _rates(tables: Tables) -> go.Figure:
    figure = blank("Skip-trigrams in text: rate with the source before, and without condition", 440)
    for index, (label, table) in enumerate(tables.items()):
        rows = table[(table["measure"] == "rate") & (table["n"] > 0)]
        texts = [
            escape(f"{layer}.{head}  {item}", quote=False)
            for layer, head, item in zip(rows["layer"], rows["head"], rows["item"], strict=True)
        ]
        figure.add_scatter(
            x=rows["null_mean"],
            y=rows["value"],
            mode="markers",
            name=escape(label, quote=False),
            text=texts,
            customdata=rows["n"],
            marker={"size": 7, "opacity": 0.6, "color": CATEGORICAL[index % len(CATEGORICAL)]},
            hovertemplate="%{text}<br>rate %{y:.3f}, chance %{x:.3f}, %{customdata} places<extra></extra>",
        )
    figure.add_scatter(
        x=[0, 1],
        y=[0, 1],
        mode="lines",
        line={"color": GREY, "dash": "dot", "width": 1},
        hoverinfo="skip",
        showlegend=False,
    )
    figure.update_xaxes(title_text="how often out follows destination", range=[-0.02, 1.02])
    return figure.update_yaxes(title_text="… with the source before", range=[-0.02, 1.02])
