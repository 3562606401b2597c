"""The effect of every head beside the null, and how far predictions move without it."""

import plotly.graph_objects as go

from probes.pictures.panels import Tables, compared, measure


def figures(tables: Tables) -> list[go.Figure]:
    """A panel for the loss and one for the divergence."""
    return compared(tables, [measure("effect"), measure("kl")], "Without each head")
