"""Each behaviour in a panel: heads of all models beside chance, checkpoints over steps; then who is what."""

import numpy as np
import plotly.graph_objects as go

from probes.pictures.panels import Tables, blank, compared, labelled, measure, split_series
from workbench.figures.theme import SEQUENTIAL, plotly_scale

BEHAVIOURS = ("previous-token", "current-token", "duplicate-token", "induction", "first-token")
SUMMARIES = ("entropy", "distance")
MOST_HEADS = 40


def figures(tables: Tables) -> list[go.Figure]:
    """Panels of all measures, then a map of heads by behaviours for each model."""
    found = compared(
        tables, [measure(name) for name in (*BEHAVIOURS, *SUMMARIES)], "Attention of heads"
    )
    return found + [_map(label, table) for label, table in split_series(tables)[0].items()]


def _map(label: str, table: object) -> go.Figure:
    columns = {name: labelled(measure(name).pick(table))["value"] for name in BEHAVIOURS}  # type: ignore[arg-type]
    heads = list(next(iter(columns.values())).index)
    values = np.array([columns[name].reindex(heads).to_numpy() for name in BEHAVIOURS])
    # Of many heads those that do something; in the model's order.
    far = np.sort(np.argsort(-np.nan_to_num(values).max(0), kind="stable")[:MOST_HEADS])
    chosen = [heads[index] for index in far]
    shown = (
        "" if len(chosen) == len(heads) else f", the {len(chosen)} strongest of {len(heads)} heads"
    )
    figure = blank(f"{label}: heads by behaviour{shown}", 280)
    figure.add_heatmap(
        z=values[:, far].astype(np.float32),
        x=chosen,
        y=list(BEHAVIOURS),
        zmin=0,
        zmax=1,
        colorscale=plotly_scale(SEQUENTIAL),
        colorbar={"title": {"text": "attention", "side": "right"}, "thickness": 14},
        hovertemplate="head %{x}, %{y}: %{z:.3f}<extra></extra>",
        xgap=1,
        ygap=1,
    )
    figure.update_yaxes(autorange="reversed", showgrid=False)
    return figure.update_xaxes(title_text="head", type="category", showgrid=False)
