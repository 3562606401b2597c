"""For each model, features by depth: how selectively each is read."""

from html import escape

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from probes.pictures.panels import Tables, blank, split_series
from probes.token_features import OF_PLACE, OF_TOKEN
from workbench.figures.theme import CATEGORICAL, SEQUENTIAL, plotly_scale

# More would not be legible in a cell each.
MOST_NUMBERS = 16


def figures(tables: Tables) -> list[go.Figure]:
    """A map of accuracy for each model, and selectivity over steps for each series."""
    side_by_side, series = split_series(tables)
    found = [_map(label, table) for label, table in side_by_side.items()]
    return found + [_steps(name, of) for name, of in series.items()]


def _map(label: str, table: pd.DataFrame) -> go.Figure:
    rows = table[table["measure"] == "accuracy"]
    shown = rows.assign(place=_places(rows)).pivot_table(
        index="item", columns="place", values=["value", "null_mean"], sort=False
    )
    names = [name for name in (*OF_TOKEN, *OF_PLACE) if name in shown.index]
    wide, chance = (shown[column].reindex(names) for column in ("value", "null_mean"))
    figure = blank(f"{label}: what the stream tells, balanced accuracy on held-out documents", 330)
    figure.add_heatmap(
        z=wide.to_numpy(np.float32),
        x=list(wide.columns),
        y=names,
        customdata=chance.to_numpy(np.float32),
        zmin=0,
        zmax=1,
        texttemplate="%{z:.2f}" if wide.shape[1] <= MOST_NUMBERS else None,
        colorscale=plotly_scale(SEQUENTIAL),
        colorbar={"title": {"text": "accuracy", "side": "right"}, "thickness": 14},
        hovertemplate="%{y}, depth %{x}: %{z:.3f}; control %{customdata:.3f}<extra></extra>",
        xgap=1,
        ygap=1,
    )
    figure.update_yaxes(autorange="reversed", showgrid=False)
    return figure.update_xaxes(title_text="depth", type="category", showgrid=False)


def _places(rows: pd.DataFrame) -> list[str]:
    """A layer's middle stands before its end."""
    return [
        f"{depth - 1}½" if site == "resid_mid" else f"{depth}"
        for depth, site in zip(rows["layer"], rows["site"], strict=True)
    ]


def _steps(name: str, series: dict[int, pd.DataFrame]) -> go.Figure:
    figure = blank(f"{name} over training: selectivity at the deepest stream")
    for at, feature in enumerate((*OF_TOKEN, *OF_PLACE)):
        picked = {}
        for step, table in series.items():
            rows = table[(table["measure"] == "selectivity") & (table["item"] == feature)]
            rows = rows[rows["site"] != "resid_mid"]
            if len(rows):
                picked[step] = float(rows.sort_values("layer")["value"].iloc[-1])
        figure.add_scatter(
            x=[str(step) for step in picked],
            y=list(picked.values()),
            mode="lines+markers",
            name=escape(feature),
            line={"color": CATEGORICAL[at % len(CATEGORICAL)]},
        )
    figure.update_xaxes(title_text="training step", type="category")
    return figure.update_yaxes(title_text="accuracy - control")
