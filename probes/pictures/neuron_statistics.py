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
        rows = table[table["measure"] == "participation"].sort_values("layer")
        sparse.add_scatter(
            x=rows["layer"].astype(int),
            y=rows["value"],
            mode="lines+markers",
            name=name,
            line={"color": colour},
            error_y=interval(rows),
            hovertemplate="layer %{x}: %{y:.3f}<extra></extra>",
        )
        sparse.add_scatter(
            x=rows["layer"].astype(int),
            y=rows["null_mean"],
            mode="lines+markers",
            name=f"{name}, turned",
            line={"color": colour, "dash": "dot"},
            customdata=rows["null_std"],
            hovertemplate="layer %{x}: %{y:.3f} ± %{customdata:.2g}<extra></extra>",
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
