"""The stream's length and growth by depth, one line for each model."""

from collections.abc import Mapping
from html import escape

import pandas as pd
import plotly.graph_objects as go

from workbench.figures.theme import CATEGORICAL, TEMPLATE


def figures(tables: Mapping[str, pd.DataFrame]) -> list[go.Figure]:
    """Length after each part, then growth beside its null."""
    return [_lines(tables, "norm", "length"), _lines(tables, "growth", "‖x + out‖ / ‖x‖")]


def _lines(tables: Mapping[str, pd.DataFrame], measure: str, title: str) -> go.Figure:
    figure = go.Figure(layout={"template": TEMPLATE, "height": 320})
    for index, (label, table) in enumerate(tables.items()):
        rows = table[table["measure"] == measure].reset_index(drop=True)
        colour = CATEGORICAL[index % len(CATEGORICAL)]
        places = [
            f"{kind.removesuffix('_out')} {layer}"
            for kind, layer in zip(rows["site"], rows["layer"], strict=True)
        ]
        figure.add_scatter(
            x=places,
            y=rows["value"],
            mode="lines+markers",
            name=escape(label, quote=False),
            line={"color": colour},
            error_y={
                "type": "data",
                "symmetric": False,
                "array": rows["high"] - rows["value"],
                "arrayminus": rows["value"] - rows["low"],
                "thickness": 1,
            },
            hovertemplate="%{x}: %{y:.3f}<extra></extra>",
        )
        if rows["null_mean"].notna().any():
            figure.add_scatter(
                x=places,
                y=rows["null_mean"],
                mode="lines",
                name=f"{escape(label, quote=False)}, null",
                line={"color": colour, "dash": "dot", "width": 1},
                hovertemplate="null %{x}: %{y:.3f}<extra></extra>",
            )
    figure.update_xaxes(title_text="written by", type="category")
    return figure.update_yaxes(title_text=title)
