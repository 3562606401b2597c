"""What the composition page shows, from answers: no callbacks, no models."""

from typing import Any, get_args

import numpy as np
import pandas as pd
from dash import html

from app.components import graph, page_link
from app.composition_answers import Pattern
from app.fields import PageState
from app.tables import data_table
from app.views.circuits import facts
from workbench.composition.matching import Input
from workbench.composition.scores import CompositionScores
from workbench.figures.composition_view import composition_maps, head_graph, pattern_map

MAPS, ZOOM, GRAPH, PAIRS = (
    "composition-maps-graph",
    "composition-zoom-graph",
    "composition-graph",
    "composition-pairs-table",
)
INPUTS: tuple[Input, ...] = get_args(Input)
VALUES = {
    "excess": ("over chance", "score − chance"),
    "z": ("std over chance", "std of random pairs"),
    "score": ("score", "score"),
    "matching": ("matching", "matching, −1 to 1"),
}
# More heads than this are first shown layer by layer.
MANY_HEADS, MAX_EDGES, MAX_ROWS = 48, 80, 500


def maps(found: CompositionScores, state: PageState) -> list[Any]:
    """The three matrices, of heads or, where there are many, of layers with the strongest pair of each."""
    labels = [str(head) for head in found.heads]
    if len(labels) <= MANY_HEADS:
        figure = composition_maps(_values(found, state), labels, title="", **_scale(found, state))
        figure.update_layout(height=170 + 26 * len(labels), margin={"t": 50})
        said = "Composition of every pair of heads; a click chooses a pair"
        return [graph(figure, id=MAPS, label=said, min_width=760)]
    layers = sorted({head.layer for head in found.heads})
    figure = composition_maps(
        _by_layer(found, state),
        list(map(str, layers)),
        title="",
        axis="layer",
        **_scale(found, state),
    )
    figure.update_layout(height=170 + 12 * len(layers), margin={"t": 50})
    said = "The highest value among the heads of each two layers; a click shows these heads"
    return [
        html.P(f"{said}.", className="statement"),
        graph(figure, id=MAPS, label=said, min_width=760),
        *_zoom(found, state),
    ]


def _zoom(found: CompositionScores, state: PageState) -> list[Any]:
    """The heads of two chosen layers."""
    if not state["zoom"]:
        return []
    layers = [int(part) for part in state["zoom"].split("-")]
    places = [[i for i, h in enumerate(found.heads) if h.layer == layer] for layer in layers]
    if not all(places) or layers[0] >= layers[1]:
        return [
            html.Div(f"No heads of layer {layers[0]} write to layer {layers[1]}.", className="hint")
        ]
    chosen = [*places[0], *places[1]]
    values = {name: m[np.ix_(chosen, chosen)] for name, m in _values(found, state).items()}
    labels = [str(found.heads[place]) for place in chosen]
    figure = composition_maps(values, labels, title="", **_scale(found, state))
    figure.update_layout(height=170 + 24 * len(places[0]), margin={"t": 50})
    said = f"Heads of layer {layers[0]} that write to heads of layer {layers[1]}"
    return [
        html.H3(said),
        graph(figure, id=ZOOM, label=f"{said}; a click chooses a pair", min_width=760),
    ]


def _values(found: CompositionScores, state: PageState) -> dict[str, np.ndarray]:
    return {str(name): getattr(found, field_of(state))[name] for name in INPUTS}


def field_of(state: PageState) -> str:
    """The attribute of the scores that is shown."""
    return "scores" if state["value"] == "score" else str(state["value"])


def _scale(found: CompositionScores, state: PageState) -> dict[str, Any]:
    chance = [np.nanmean(found.null[name].mean) for name in INPUTS]
    white = float(np.mean(chance)) if state["value"] == "score" else 0.0
    return {"unit": VALUES[state["value"]][1], "white": white}


def _by_layer(found: CompositionScores, state: PageState) -> dict[str, np.ndarray]:
    """The highest value of each two layers; NaN where nothing is known."""
    layers = np.array([head.layer for head in found.heads])
    starts = np.flatnonzero(np.diff(layers, prepend=-1))
    grids = {}
    for name, values in _values(found, state).items():
        known = np.where(np.isfinite(values), values, -np.inf)
        blocks = np.maximum.reduceat(np.maximum.reduceat(known, starts, axis=0), starts, axis=1)
        grids[name] = np.where(np.isfinite(blocks), blocks, np.nan)
    return grids


def pair_graph(found: CompositionScores, state: PageState) -> list[Any]:
    """Heads by layer, with an edge for each pair above the threshold."""
    table = _shown_pairs(found, state)
    above = table[table["score"] >= state["threshold"] * table["chance"]]
    edges = above.nlargest(MAX_EDGES, "excess")
    heads = [(head.layer, head.head) for head in found.heads]
    figure = head_graph(edges, heads, value="excess", title="", unit="score − chance")
    figure.update_layout(margin={"t": 40})
    said = f"{len(above):,} of {len(table):,} pairs score at least {state['threshold']:g} × chance"
    said += f"; the {MAX_EDGES} strongest are drawn." if len(above) > MAX_EDGES else "."
    return [
        html.P(said, className="statement", id="composition-edges"),
        graph(figure, id=GRAPH, label="Heads by layer and what composes", min_width=420),
    ]


def pairs(found: CompositionScores, state: PageState) -> list[Any]:
    """The strongest pairs."""
    table = _shown_pairs(found, state).nlargest(MAX_ROWS, state["value"])
    columns = ["through", "writer", "reader", "score", "chance", "excess", "z", "matching"]
    shown = table[columns]
    form = {name: ".3f" for name in ("score", "chance", "excess", "matching")} | {"z": ".1f"}
    return [
        data_table(
            shown,
            id=PAIRS,
            label="Pairs of heads; a click chooses one",
            formats=form,
            headers={"excess": "over chance"},
        ),
        html.Div(f"The first {len(shown)} are shown; the files hold all pairs.", className="hint"),
    ]


def _shown_pairs(found: CompositionScores, state: PageState) -> pd.DataFrame:
    table = found.table()
    return table if state["inputs"] == "all" else table[table["through"] == state["inputs"]]


def chosen_pair(found: CompositionScores, state: PageState) -> list[Any]:
    """The scores of the chosen pair, and links to the virtual head."""
    table = found.table()
    rows = table[(table["writer"] == state["earlier"]) & (table["reader"] == state["head"])]
    if rows.empty:
        said = f"{state['earlier']} is not in an earlier layer than {state['head']}."
        return [html.Div(said, className="hint")]
    blocks = []
    for row in rows.sort_values("through", key=lambda c: c.map({"K": 0, "Q": 1, "V": 2})).to_dict(
        "records"
    ):
        through = row["through"]
        matching = "not measured" if np.isnan(row["matching"]) else f"{row['matching']:+.3f}"
        circuit = "OV" if through == "V" else "QK"
        link = page_link(
            f"Circuits of {row['reader']}∘{row['writer']} ({through})",
            "/circuits",
            model=state["model"],
            step=state["step"],
            head=row["reader"],
            earlier=row["writer"],
            through=through,
            circuit=circuit,
        )
        listed = facts(
            (f"{through}-composition", html.Strong(f"{row['score']:.3f}")),
            ("chance", f"{row['chance']:.3f}"),
            ("z", f"{row['z']:+.1f}"),
            ("matching", matching),
        )
        is_chosen = " chosen" if through == state["through"] else ""
        blocks.append(html.Div([listed, link], className=f"pair-input{is_chosen}"))
    attention = page_link(
        f"Attention of {state['head']}", "/", model=state["model"], head=state["head"], locked=1
    )
    return [
        html.Div(blocks, className="side-by-side"),
        html.Div(attention, className="pair-links"),
    ]


def pattern(found: Pattern, state: PageState) -> list[Any]:
    """Where the pair looks as one head."""
    figure = pattern_map(found.values, found.tokens, title="")
    figure.update_layout(margin={"t": 40})
    return [graph(figure, label=f"Pattern of {state['head']}∘{state['earlier']}", min_width=420)]


def no_pair(state: PageState) -> str:
    """What must be chosen before a pair can be shown."""
    if state["earlier"]:
        return ""
    return "Choose a pair: click a cell of a matrix, the dot on an edge, or a row of the table."
