"""Participation by layer, along neurons and turned, and the share that is dead; a line for each model."""

from html import escape

import plotly.graph_objects as go

from probes.pictures.panels import Tables, blank, interval
from workbench.figures.theme import CATEGORICAL


def figures(tables: Tables) -> list[go.Figure]:
    """Sparsity, then dead neurons."""
    sparse = blank("Participation of neurons (full), and of turned ones (dotted)")
    dead = blank("Dead neurons on this text", 280)
    for at, (label, table) in enumerate(tables.items()):
        colour, name = CATEGORICAL[at % len(CATEGORICAL)], escape(label, quote=False)
        for measure, dash in (("participation", "solid"), ("turned", "dot")):
            rows = table[table["measure"] == measure].sort_values("layer")
            sparse.add_scatter(
                x=rows["layer"].astype(int),
                y=rows["value"],
                mode="lines+markers",
                name=name if dash == "solid" else f"{name}, turned",
                line={"color": colour, "dash": dash},
                error_y=interval(rows),
                hovertemplate="layer %{x}: %{y:.3f}<extra></extra>",
            )
        rows = table[table["measure"] == "dead"].sort_values("layer")
        dead.add_scatter(
            x=rows["layer"].astype(int),
            y=rows["value"],
            mode="lines+markers",
            name=name,
            line={"color": colour},
            hovertemplate="layer %{x}: %{y:.1%}<extra></extra>",
        )
    sparse.update_yaxes(title_text="share of places", rangemode="tozero")
    dead.update_yaxes(title_text="share", tickformat=".0%", rangemode="tozero")
    for figure in (sparse, dead):
        figure.update_xaxes(title_text="layer", dtick=1)
    return [sparse, dead]
