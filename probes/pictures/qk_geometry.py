"""Symmetry, positive mass and ranks of all heads' circuits beside random ones."""

import plotly.graph_objects as go

from probes.pictures.panels import Tables, compared, measure

MEASURES = ("symmetric share", "positive mass", "rank (participation)", "rank (entropy)")


def figures(tables: Tables) -> list[go.Figure]:
    """A panel for each measure and circuit; QK on the left, OV on the right."""
    panels = [measure(name, site) for name in MEASURES for site in ("QK", "OV")]
    return compared(tables, panels, "Geometry of circuits")
