"""What the circuits page shows, from answers: no callbacks, no models."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from dash import html

from app.circuit_answers import Block, Directions, Eigenvalues, Line, Offsets
from app.components import aria, attributes, graph, page_link
from app.fields import PageState
from app.tables import data_table
from workbench.circuits.copying import CopyingScores
from workbench.circuits.geometry import Geometry
from workbench.figures.circuit_view import (
    eigenvalue_plane,
    entries_map,
    offset_curves,
    singular_bars,
)
from workbench.figures.null_view import against_null
from workbench.figures.theme import CATEGORICAL, head_map
from workbench.figures.tokens import visible

HEADS_MAP, OFFSET_GRAPH, OFFSET_MARK = (
    "circuit-heads-map",
    "circuit-offset-graph",
    "circuit-offset-mark",
)
SCORES = {"OV": "copying score", "QK": "matching score"}
CURVES = {
    "content_free": "content-free",
    "diagonal": "own copy",
    "query_std": "query part (std)",
    "key_std": "key part (std)",
    "pair_std": "pair part (std)",
}


def label(state: PageState) -> str:
    """`1.4`, or `1.4∘0.3 (K)`."""
    if not state["earlier"]:
        return str(state["head"])
    return f"{state['head']}∘{state['earlier']} ({state['through']})"


def facts(*pairs: tuple[str, Any]) -> html.Dl:
    """Names and values in a row."""
    return html.Dl(
        [html.Div([html.Dt(name), html.Dd(value)]) for name, value in pairs], className="facts-row"
    )


def token(text: str) -> html.Span:
    """A token with its whitespace visible."""
    return html.Span(visible(text), className="token")


def eigenvalues(found: Eigenvalues, state: PageState) -> list[Any]:
    """The copying score beside chance, and the eigenvalues in the complex plane."""
    cloud = found.cloud
    null = cloud.null_scores
    figure = eigenvalue_plane(
        cloud.values.cpu().numpy(),
        cloud.null.cpu().numpy(),
        title=f"{cloud.kind} of {cloud.label}: {len(cloud.values)} eigenvalues",
        unit=found.unit,
    )
    figure.update_layout(height=480)
    return [
        facts(
            (SCORES[cloud.kind], html.Strong(f"{cloud.score:+.3f}", id="circuit-score")),
            ("random heads", f"{null.mean():+.3f} ± {null.std(ddof=1):.3f}"),
            ("above", f"{int(np.sum(null < cloud.score))} of {len(null)} random heads"),
        ),
        graph(figure, label=f"Eigenvalues of {cloud.label} in the complex plane", min_width=340),
        _links(state),
    ]


def copying(found: CopyingScores, state: PageState) -> list[Any]:
    """The score of every head; a click chooses one."""
    table = found.table()
    grid = table.pivot(index="layer", columns="head", values="score").to_numpy(float)
    figure = head_map(grid, title="", unit=SCORES[found.kind])
    percentile = table.pivot(index="layer", columns="head", values="percentile").to_numpy(float)
    figure.data[0].update(
        zmin=-1,
        zmax=1,
        customdata=percentile,
        hovertemplate="head %{y}.%{x}<br>score %{z:.3f}"
        "<br>above %{customdata:.0f} % of random heads<extra>click to choose</extra>",
    )
    _mark(figure, state)
    figure.update_layout(height=130 + max(22, 44 - len(grid)) * len(grid), margin={"t": 16})
    return [graph(figure, id=HEADS_MAP, label="Score of every head; a click chooses a head")]


def _mark(figure: go.Figure, state: PageState) -> None:
    """A frame around the chosen heads."""
    for name, colour in (("head", CATEGORICAL[5]), ("earlier", CATEGORICAL[2])):
        if state[name]:
            layer, head = map(int, state[name].split("."))
            corners = {"x0": head - 0.5, "x1": head + 0.5, "y0": layer - 0.5, "y1": layer + 0.5}
            figure.add_shape(type="rect", **corners, line={"color": colour, "width": 2.5})


def geometry(found: Geometry, state: PageState) -> list[Any]:
    """The chosen head's measures beside all heads and chance."""
    table = found.table()
    table = table[table["circuit"] == state["circuit"]]
    labels = [f"{layer}.{head}" for layer, head in zip(table["layer"], table["head"], strict=True)]
    table = table.assign(label=labels)
    measures, null = {}, {}
    for name, rows in table.groupby("measure", sort=False):
        title = f"{name} of {state['circuit']} ({rows['unit'].iloc[0]})"
        measures[title] = rows["value"].to_numpy(float)
        own = rows[rows["label"] == state["head"]]
        if len(own):
            null[title] = (float(own["null_mean"].iloc[0]), float(own["null_std"].iloc[0]))
    heads = list(dict.fromkeys(labels))
    if state["head"] not in heads:
        return [html.Div(f"{found.model_name} has no head {state['head']}", className="hint")]
    figure = against_null(measures, null, heads, state["head"], title="")
    return [graph(figure, label=f"Geometry of {state['head']} beside all heads and chance")]


def offsets(found: Offsets, state: PageState) -> list[Any]:
    """Score by distance, by what it is due to."""
    table = found.table()
    # The page shows the offset's slider where this mark is.
    mark = [html.Span("rotary", id=OFFSET_MARK, hidden=True)] if found.is_rotary else []
    figure = offset_curves(
        table["offset"].to_numpy(),
        {name: table[column].to_numpy(float) for column, name in CURVES.items()},
        title="",
        unit=str(table["unit"].iloc[0]),
        chosen=state["offset"] if found.is_rotary else None,
    )
    figure.update_layout(height=380, margin={"t": 30})
    best = table.loc[table["content_free"].idxmax()]
    return [
        facts(
            ("highest content-free score", f"offset {int(best['offset'])}"),
            ("matching at offset 0", f"{table['matching'].iloc[0]:+.3f}"),
        ),
        graph(figure, id=OFFSET_GRAPH, label=f"Score of {label(state)} by offset", min_width=360),
        *mark,
    ]


def entries(found: pd.DataFrame, state: PageState) -> list[Any]:
    """The extreme entries of the whole circuit."""
    axes = _axes(state)
    unit = str(found["unit"].iloc[0])
    table = data_table(
        found.drop(columns="unit"),
        id="circuit-entries-table",
        label=f"Entries of the {state['circuit']} circuit of {label(state)}",
        tokens=axes,
        headers={"value": unit, **{f"{axis}_id": f"{axis} id" for axis in axes}},
    )
    return [table]


def line(found: Line, state: PageState) -> list[Any]:
    """What one token raises and lowers."""
    sides = []
    for side, frame in found.ends.groupby("side", sort=False):
        shown = frame[["rank", "token", "value", "id"]].rename(columns={"token": found.other_axis})
        table = data_table(
            shown,
            label=f"{side} entries of {found.token}",
            tokens=[found.other_axis],
            headers={"value": found.unit},
        )
        sides.append(html.Div([html.H3(f"{side} {found.other_axis}"), table]))
    own = [] if found.own is None else [("with itself", f"{found.own:+.3g} {found.unit}")]
    return [
        facts((found.axis, token(found.token)), ("id", str(found.id)), *own),
        _chips(found.matches),
        html.Div(sides, className="side-by-side"),
    ]


def _chips(texts: Sequence[str]) -> html.Div:
    """Other tokens that contain what was typed; a click asks for one."""
    buttons = [
        html.Button(
            visible(text), className="token-chip", title=text, **attributes("data-field", "token")
        )
        for text in texts
    ]
    return html.Div(buttons, className="chips", hidden=not texts, **aria("Other tokens"))


def block(found: Block, state: PageState) -> list[Any]:
    """The circuit between the tokens of the prompt."""
    figure = entries_map(
        found.values,
        found.tokens,
        found.tokens,
        axes=found.axes,
        title="",
        unit=found.unit,
    )
    figure.update_layout(margin={"t": 24})
    left_out = f"{found.n_left_out} more distinct tokens are left out." if found.n_left_out else ""
    return [
        graph(figure, label="Entries between the tokens of the text", min_width=420),
        html.Div(left_out, className="hint", hidden=not left_out),
    ]


def directions(found: Directions, state: PageState) -> list[Any]:
    """Singular values, and the tokens at both ends of the strongest directions."""
    figure = singular_bars(found.values, title="", unit=found.unit)
    figure.update_layout(height=240, margin={"t": 16})
    return [
        graph(figure, label="Singular values"),
        data_table(
            _read(found.ends, _axes(state)),
            label="What the strongest directions read and write",
            tokens=(),
            headers={"value": found.unit},
        ),
    ]


def _read(ends: pd.DataFrame, axes: Sequence[str]) -> pd.DataFrame:
    """One row for each direction and sign: its tokens on both sides."""
    rows = []
    for (direction, sign), group in ends.groupby(["direction", "sign"], sort=False):
        row = {"direction": f"{direction + 1}{'+' if sign > 0 else '−'}"}
        row["value"] = group["value"].iloc[0]
        for axis in axes:
            texts = group.loc[group["side"] == axis, "text"]
            row[f"{axis} tokens"] = "  ".join(visible(text) for text in texts)
        rows.append(row)
    return pd.DataFrame(rows)


def _axes(state: PageState) -> tuple[str, str]:
    return ("source", "out") if state["circuit"] == "OV" else ("query", "key")


def _links(state: PageState) -> html.Div:
    """To the other pages, at the same head."""
    shared = {"model": state["model"], "step": state["step"], "head": state["head"]}
    pair = {"earlier": state["earlier"], "through": state["through"]} if state["earlier"] else {}
    links = [
        page_link(f"Attention of {state['head']}", "/", **shared, locked=1),
        page_link(f"Composition with {state['head']}", "/composition", **shared, **pair),
    ]
    return html.Div(links, className="pair-links")
