"""The flow of a number, its tokens, and a check by intervention, as the paths page shows them."""

from typing import Any

import numpy as np
from dash import html

from app.components import graph
from app.fields import PageState
from app.path_answers import TokenShares
from app.views.paths_pieces import number, shade, signed, statement, unit_of
from workbench.figures.flow_view import flow_figure, flow_width
from workbench.figures.tokens import visible
from workbench.paths.flow import PathFlow
from workbench.paths.verify import Check

FLOW_GRAPH = "paths-flow-graph"


def flow(found: PathFlow, state: PageState) -> list[Any]:
    """The flow over positions and levels."""
    drawn = flow_figure(found, threshold=state["threshold"])
    n_kept = len(found.values)
    rest = (
        f"; those beyond the {n_kept:,} largest sum to {found.left_out.sum():+.3g}"
        if n_kept < found.n_edges
        else ""
    )
    said = (
        f"{drawn.n_shown:,} of {found.n_edges:,} edges of heads are drawn, from {drawn.smallest:.3g} "
        f"{found.unit} on{rest}. Residual {found.residual:.1e}."
    )
    return [
        html.Div(said, className="hint"),
        graph(
            drawn.figure,
            id=FLOW_GRAPH,
            label="Flow of the number over positions and layers; a click on an edge opens its head",
            min_width=flow_width(found),
        ),
        html.Div(
            "Slanted lines are heads: point at the dot in a line's middle for its value, click it for the "
            "head's attention. Upright lines are MLPs (bent) and what passes by (pale). Blue adds, brown takes "
            "away.",
            className="hint",
        ),
    ]


def tokens(found: TokenShares, state: PageState) -> list[Any]:
    """The prompt, each token in the colour of what starts there."""
    values = found.values
    limit = float(np.abs(values).max(initial=0.0)) or 1.0
    chips = [
        html.Span(
            [
                html.Span(visible(text), className="text"),
                html.Span(f"{value:+.2f}" if abs(value) >= 0.005 else "0", className="amount"),
            ],
            className="path-token",
            title=f"{pos} {visible(text)}: {value:+.4f} {found.unit}{_share(value, found.total)}",
            style={"background": shade(value / limit)},
        )
        for pos, (text, value) in enumerate(zip(found.str_tokens, values, strict=True))
    ]
    return [
        html.Div(chips, className="path-tokens"),
        statement(
            "Tokens ", number(float(values.sum())), " + constants inside the network ",
            number(found.constant), " + bias ", number(found.bias), " = the model's ",
            number(found.total), "; residual ",
            html.Span(f"{found.residual:.1e}", className="number"), ".",
        ),
    ]  # fmt: skip


def check(found: Check, state: PageState) -> list[Any]:
    """Both numbers of an intervention, side by side."""
    gap = found.unfrozen - found.frozen
    size = max(abs(found.frozen), abs(found.unfrozen), 1e-12)
    if abs(gap) <= 0.1 * size:
        verdict = "The frozen number is what the model does, within a tenth."
    elif abs(found.frozen) < 0.1 * size:
        verdict = "Held fixed, next to nothing is lost; the model's patterns, scales or gates change with it."
    elif found.frozen * found.unfrozen < 0:
        verdict = "The model does the opposite: patterns, scales and gates that follow turn the effect round."
    elif abs(found.unfrozen) < abs(found.frozen):
        verdict = "The model loses less: what follows makes up for a part of it."
    else:
        verdict = "The model loses more: patterns, scales and gates that follow change with it."
    numbers = [
        ("all held fixed", found.frozen, "patterns, norm scales and gates of this run"),
        ("recomputed", found.unfrozen, "the model runs on without it"),
    ]
    cards = [
        html.Div(
            [
                html.Div(name, className="name"),
                html.Div(signed(value), className="value"),
                html.Div([unit_of(found.unit), html.Br(), what], className="hint"),
            ],
            className="path-card",
            style={"borderTopColor": shade(np.sign(value))},
        )
        for name, value, what in numbers
    ]
    return [
        statement("What is lost without ", html.Span(found.label, className="token"), ":"),
        html.Div(cards, className="path-cards"),
        statement(
            verdict, " The sum of paths says ", number(found.contribution),
            "; the frozen network run without it differs from that by ",
            html.Span(f"{found.error:.1e}", className="number"), ".",
        ),
    ]  # fmt: skip


def _share(value: float, total: float) -> str:
    return f", {100 * value / total:+.1f} % of all" if total else ""
