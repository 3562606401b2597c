"""Who reads whom: the strongest pairs of every model, all pairs above chance, checkpoints over steps."""

from html import escape

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from probes.pictures.panels import Panel, Tables, measure, over_steps, split_series, strips
from workbench.figures.theme import DIVERGING, TEMPLATE, plotly_scale, symmetric_limit

INPUTS = ("Q", "K", "V")
MOST_HEADS, MOST_PAIRS = 40, 60


def figures(tables: Tables) -> list[go.Figure]:
    """The strongest pairs side by side, maps of every model, series over their steps."""
    side_by_side, series = split_series(tables)
    panels = [_strongest(f"{through}-composition") for through in INPUTS]
    panels += [measure(f"{through}-matching") for through in INPUTS]
    shown = [panel for panel in panels if any(len(panel.pick(t)) for t in side_by_side.values())]
    found = [
        strips(side_by_side, shown, f"Composition, the {MOST_PAIRS} strongest pairs of each input")
    ]
    found += [_maps(label, table) for label, table in side_by_side.items()]
    every = [measure(f"{through}-composition") for through in INPUTS]
    return found + [
        over_steps(of, every, f"Composition: {name} over training") for name, of in series.items()
    ]


def _strongest(name: str) -> Panel:
    whole = measure(name)

    def pick(table: pd.DataFrame) -> pd.DataFrame:
        return whole.pick(table).nlargest(MOST_PAIRS, "value")

    return Panel(name, pick)


def _maps(label: str, table: pd.DataFrame) -> go.Figure:
    grids = [_excess(table, f"{through}-composition") for through in INPUTS]
    limit = max(symmetric_limit(grid.to_numpy(dtype=float)) for grid in grids)
    figure = make_subplots(cols=3, subplot_titles=[f"{through} of reader" for through in INPUTS])
    for column, grid in enumerate(grids, start=1):
        cells = go.Heatmap(
            z=grid.to_numpy(dtype=np.float32),
            x=grid.columns,
            y=grid.index,
            zmin=-limit,
            zmax=limit,
            colorscale=plotly_scale(DIVERGING),
            colorbar={"title": {"text": "above chance", "side": "right"}, "thickness": 14},
            showscale=column == 3,
            hovertemplate="%{y} read by %{x}: %{z:.3f}<extra></extra>",
            hoverongaps=False,
        )
        figure.add_trace(cells, row=1, col=column)
    what = (
        "heads"
        if len(grids[0]) and "." in str(grids[0].index[0])
        else "layers, their strongest pair"
    )
    title = escape(f"{label}: composition above chance, by {what}", quote=False)
    figure.update_layout(template=TEMPLATE, title_text=title, height=400, margin={"t": 84})
    figure.update_xaxes(title_text="reader", type="category", showgrid=False)
    return figure.update_yaxes(type="category", autorange="reversed", showgrid=False)


def _excess(table: pd.DataFrame, name: str) -> pd.DataFrame:
    """Score above chance, writers by readers; by layers where heads are many."""
    rows = measure(name).pick(table)
    excess = rows["value"] - rows["null_mean"]
    writers, readers = rows["item"], rows["layer"].astype(str) + "." + rows["head"].astype(str)
    if writers.nunique() > MOST_HEADS:
        writers, readers = (names.str.partition(".")[0] for names in (writers, readers))
    frame = pd.DataFrame({"writer": writers, "reader": readers, "excess": excess})
    grid = frame.pivot_table(index="writer", columns="reader", values="excess", aggfunc="max")
    return grid.reindex(
        index=sorted(grid.index, key=_place), columns=sorted(grid.columns, key=_place)
    )


def _place(label: str) -> tuple[int, ...]:
    return tuple(int(part) for part in str(label).split("."))
