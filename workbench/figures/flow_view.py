"""A number's flow drawn: columns are positions, rows are levels of the stream, the embedding below.

A slanted line is a head that carries something from a key to a query; a bent upright one is an MLP, a
straight one goes past a sublayer. Thickness is the size, blue adds, brown takes away. Lines are joined into
few traces by kind, sign and thickness: one for each would take seconds to draw.
"""

import html
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from jaxtyping import Float

from workbench.figures.path_view import DOWN, UP
from workbench.figures.theme import TEMPLATE
from workbench.figures.tokens import figure_text
from workbench.paths.flow import PathFlow

WIDTHS = (0.8, 1.6, 2.8, 4.4, 6.5)
MOST_EDGES = 1500
CURVE = np.linspace(0.0, 1.0, 9)
LEVEL, COLUMN = 74, 17
TALLEST = 960
NODE = "#868e96"


@dataclass(frozen=True)
class Drawn:
    """A figure, how many edges of heads it shows, and from which size on."""

    figure: go.Figure
    n_shown: int
    smallest: float


def flow_figure(flow: PathFlow, *, threshold: float, most: int = MOST_EDGES) -> Drawn:
    """The flow's edges of at least `threshold` times the largest edge of a head.

    The dot in an edge's middle has `customdata` (kind, head, query, key, value).
    """
    table = flow.table().query("kind not in ('constant', 'source')")
    heads = table["kind"] == "head"
    largest = float(table.loc[heads, "value"].abs().max()) if heads.any() else 0.0
    # Without heads, what goes straight up sets the scale.
    largest = largest or float(table["value"].abs().max() if len(table) else 1.0) or 1.0
    shown = table[(table["value"].abs() >= threshold * largest) & (table["value"] != 0)]
    shown = pd.concat(
        [shown[shown["kind"] == "head"].head(most), shown[shown["kind"] != "head"]]
    ).reset_index(drop=True)
    curves = _curves(flow, shown)
    figure = go.Figure(layout={"template": TEMPLATE})
    for kind in ("skip", "mlp", "head"):
        _add_lines(figure, shown, curves, kind, largest)
    _add_nodes(figure, flow)
    _add_middles(figure, flow, shown, curves)
    _lay_out(figure, flow)
    return Drawn(figure, int((shown["kind"] == "head").sum()), threshold * largest)


def flow_width(flow: PathFlow) -> int:
    """Pixels below which the tokens would run into each other."""
    return 110 + COLUMN * len(flow.str_tokens)


def level_names(flow: PathFlow) -> list[str]:
    """What the stream holds at each level."""
    return ["embedding", *(f"after {name}" for name in flow.steps)]


def _curves(flow: PathFlow, edges: pd.DataFrame) -> list[Float[np.ndarray, "point 2"]]:
    """Each edge as points. Heads bow apart by their number; an MLP swings out to the right."""
    n_heads = 1 + max((head.head or 0 for head in flow.heads), default=0)
    found = []
    for row in edges.to_dict("records"):
        step = int(row["step"])
        level = step if row["kind"] == "skip" else flow.reads[step]
        start = np.array([float(row["key"]), float(level)])
        end = np.array([float(row["query"]), step + 1.0])
        bow = 0.0
        if row["kind"] == "mlp":
            bow = 0.34
        elif row["kind"] == "head":
            place = (int(row["head"]) + 0.5) / n_heads
            # A head that stays at its position swings to the left, away from the MLPs.
            bow = -0.16 - 0.3 * place if row["query"] == row["key"] else 0.3 * (place - 0.5)
        middle = (start + end) / 2 + np.array([2 * bow, 0.0])
        t = CURVE[:, None]
        found.append((1 - t) ** 2 * start + 2 * t * (1 - t) * middle + t**2 * end)
    return found


def _add_lines(
    figure: go.Figure,
    edges: pd.DataFrame,
    curves: Sequence[Float[np.ndarray, "point 2"]],
    kind: str,
    largest: float,
) -> None:
    sizes = edges["value"].abs().to_numpy(float) / largest
    bins = np.clip((np.sqrt(np.clip(sizes, 0, 1)) * len(WIDTHS)).astype(int), 0, len(WIDTHS) - 1)
    is_kind = (edges["kind"] == kind).to_numpy()
    for is_up, colour in ((True, UP), (False, DOWN)):
        of_sign = is_kind & ((edges["value"] > 0).to_numpy() == is_up)
        for index, width in enumerate(WIDTHS):
            chosen = np.flatnonzero(of_sign & (bins == index))
            if not len(chosen):
                continue
            gap = np.full((1, 2), np.nan)
            points = np.concatenate(
                [part for row in chosen.tolist() for part in (curves[row], gap)]
            )
            figure.add_scatter(
                x=points[:, 0].astype(np.float32),
                y=points[:, 1].astype(np.float32),
                mode="lines",
                line={"color": colour, "width": width},
                opacity=0.35 if kind == "skip" else 0.8,
                hoverinfo="skip",
                showlegend=False,
            )


def _add_nodes(figure: go.Figure, flow: PathFlow) -> None:
    level, pos = (axis.ravel() for axis in np.indices(flow.nodes.shape))
    names = level_names(flow)
    tokens = [figure_text(token) for token in flow.str_tokens]
    figure.add_scatter(
        x=pos,
        y=level,
        mode="markers",
        marker={"size": 4 if len(names) > 20 else 6, "color": NODE},
        customdata=[
            [names[i], tokens[j], value]
            for i, j, value in zip(level.tolist(), pos.tolist(), flow.nodes.ravel(), strict=True)
        ],
        hovertemplate="%{x} %{customdata[1]}, %{customdata[0]}<br>%{customdata[2]:+.4f} "
        f"{html.escape(flow.unit)} pass through here<extra></extra>",
        showlegend=False,
    )


def _add_middles(
    figure: go.Figure,
    flow: PathFlow,
    edges: pd.DataFrame,
    curves: Sequence[Float[np.ndarray, "point 2"]],
) -> None:
    """A dot in the middle of heads' and MLPs' edges: lines themselves cannot be pointed at."""
    is_passing = (edges["kind"] == "skip").to_numpy()
    edges = edges[~is_passing]
    if not len(edges):
        return
    kept = np.flatnonzero(~is_passing).tolist()
    middles = np.array([curves[row][len(CURVE) // 2] for row in kept])
    tokens = [figure_text(token) for token in flow.str_tokens]
    named = [_said(row, tokens) for row in edges.to_dict("records")]
    figure.add_scatter(
        x=middles[:, 0].astype(np.float32),
        y=middles[:, 1].astype(np.float32),
        mode="markers",
        marker={
            "size": 7,
            "color": [UP if value > 0 else DOWN for value in edges["value"]],
            "opacity": 0.9,
        },
        customdata=named,
        hovertemplate=f"%{{customdata[5]}}<br>%{{customdata[4]:+.4f}} {html.escape(flow.unit)}"
        "<extra>%{customdata[6]}</extra>",
        name="edges",
        showlegend=False,
    )


def _said(row: dict[str, Any], tokens: Sequence[str]) -> list[Any]:
    query, key, is_head = int(row["query"]), int(row["key"]), row["kind"] == "head"
    head = f"{row['layer']}.{row['head']}" if is_head else ""
    if is_head:
        said = f"head {head}<br>from {key} {tokens[key]} to {query} {tokens[query]}"
    else:
        said = f"MLP {row['layer']} at {query} {tokens[query]}"
    hint = "click: its attention" if is_head else ""
    return [row["kind"], head, query, key, float(row["value"]), said, hint]


def _lay_out(figure: go.Figure, flow: PathFlow) -> None:
    n_levels, n_pos = flow.nodes.shape
    names = [f"{pos} {figure_text(token, 10)}" for pos, token in enumerate(flow.str_tokens)]
    figure.update_xaxes(
        tickvals=list(range(n_pos)),
        ticktext=names,
        tickangle=-55,
        range=[-0.7, n_pos - 0.3],
        showgrid=False,
        zeroline=False,
        tickfont={"size": 10.5},
    )
    # Where sublayers stand close, only whole layers are named.
    shown = [level for level in range(n_levels) if n_levels <= 16 or level % 4 == 0]
    every = level_names(flow)
    figure.update_yaxes(
        tickvals=shown,
        ticktext=[every[level].removeprefix("after ") for level in shown],
        range=[-0.4, n_levels - 0.6],
        showgrid=False,
        zeroline=False,
        tickfont={"size": 11},
    )
    height = min(TALLEST, 110 + max(LEVEL if n_levels < 12 else 22, 1) * n_levels)
    figure.update_layout(
        height=max(300, height),
        margin={"l": 80, "r": 12, "t": 10, "b": 84},
        hovermode="closest",
        hoverdistance=16,
    )
