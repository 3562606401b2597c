"""What the paths page shows of a question's sums, from answers: no callbacks, no models."""

from typing import Any

import numpy as np
import pandas as pd
from dash import html

from app import controls
from app.components import graph
from app.fields import PageState
from app.session import Session
from app.tables import data_table
from app.views.circuits import facts
from app.views.paths_pieces import named, number, spell_count, spell_ratio, statement, warned
from workbench.figures.path_view import SumBar, meter_bars, order_bars, shown_orders
from workbench.figures.tokens import visible
from workbench.models import ModelInfo
from workbench.paths.orders import OrderSpectrum
from workbench.paths.search import PathList

TOP_TABLE = "paths-top-table"
LOGIT_BLOCK, SCORE_BLOCK = "paths-logit-block", "paths-score-block"
WHAT = [("logit", "logit"), ("score", "attention score")]
COUNTED = {"all": "components", "heads": "heads", "mlps": "MLPs"}
ENDED = {
    "all": "Every path was looked at.",
    "count": "The search ended when no group of paths left open was half as large as the last one listed.",
    "limit": "The search ended at its limit of groups of paths.",
}
TOP_TOKENS = 3


def side(session: Session, info: ModelInfo, state: PageState) -> list[Any]:
    """What stands beside the panels."""
    is_score = state["what"] == "score"
    limits = (0, 100_000, 1)
    logit = [
        controls.number_control(
            "pos", "Position", state["pos"], limits, "Where it predicts; empty: the last."
        ),
        controls.text_control(
            "target", "Predicted token", state["target"], placeholder="the likeliest",
            hint="Text (a leading space counts) or #id.",
        ),
        controls.text_control(
            "versus", "minus token", state["versus"], placeholder="none",
            hint="Takes the difference of two logits apart; “mean” subtracts the mean logit.",
        ),
    ]  # fmt: skip
    score = [
        controls.text_control("head", "Head", state["head"], hint="layer.head"),
        controls.number_control("query", "Query position", state["query"], limits, "Empty: the last."),
        controls.number_control(
            "key", "Key position", state["key"], limits, "Empty: the one that it attends to most."
        ),
        controls.text_control(
            "than", "rather than key", state["than"], placeholder="none",
            hint="A position; “mean”: the other keys on average, as softmax sees only differences.",
        ),
        controls.choice_control(
            "side", "Paths to the", [("key", "key"), ("query", "query")], state["side"],
            "The other side of the product is held as it is.",
        ),
    ]  # fmt: skip
    return [
        *controls.prompt_controls(info, state),
        controls.choice_control("what", "Take apart", WHAT, state["what"]),
        html.Div(logit, id=LOGIT_BLOCK, className="path-block", hidden=is_score),
        html.Div(score, id=SCORE_BLOCK, className="path-block", hidden=not is_score),
        html.H3("Drawing", className="side-title"),
        controls.choice_control(
            "counted", "Orders count", [(x, x.replace("mlps", "MLPs")) for x in COUNTED], state["counted"]
        ),
        controls.choice_control(
            "scale", "Scale of orders", [("linear", "linear"), ("log", "log")], state["scale"]
        ),
        controls.number_control("k", "Paths in the table", state["k"], (1, 500, 10)),
        controls.choice_control(
            "sort", "Order of the tree", [(x, x) for x in ("size", "value", "layer")], state["sort"]
        ),
        controls.number_control("rows", "Rows for each level of it", state["rows"], (1, 60, 4)),
        controls.slider_control(
            "threshold", "Flow from … of the largest", value=state["threshold"], limits=(0, 1, 0.01)
        ),
        controls.hidden_control("through", state["through"]),
        controls.hidden_control("check", state["check"]),
    ]  # fmt: skip


def meter(found: PathList, state: PageState) -> list[Any]:
    """How much of the number the listed paths are."""
    bars = [
        SumBar("paths listed", found.listed),
        SumBar("all other paths", found.remainder),
        SumBar("bias", found.bias),
    ]
    if len(found.paths) == found.n_paths:
        del bars[1]  # there are none
    figure = meter_bars(bars, total=found.total, name="the model", unit=found.unit)
    return [
        statement("The model's ", named(found.label), " is ", number(found.total), "."),
        facts(
            ("paths listed", f"{len(found.paths):,} of {spell_count(found.n_paths)}"),
            ("their sum", number(found.listed)),
            ("all others, exactly", number(found.remainder)),
            ("rounding", html.Span(f"{found.residual:.1e}", className="number")),
            ("sum of their sizes", number(found.absolute)),
            ("sizes over sum", html.Span(spell_ratio(found.cancellation), className="number")),
        ),
        warned(found.warning),
        graph(figure, label="Listed paths, all others and bias add up to the model's number"),
    ]


def spectrum(found: OrderSpectrum, state: PageState) -> list[Any]:
    """The sum of the paths of each order."""
    what = COUNTED[state["counted"]]
    figure = order_bars(
        found.orders,
        bias=found.bias,
        total=found.total,
        unit=found.unit,
        scale=state["scale"],
        counted=what,
    )
    n_left = len(found.orders) - shown_orders(found.orders)
    left = f"{n_left} higher orders, all negligible, are not drawn." if n_left else ""
    sizes = float(np.abs(found.orders).sum())
    said = f"The orders come to {sizes:.4g} in size and to {found.orders.sum():.4g} in sum"
    if found.cancellation > 3:
        said += f", a ratio of {spell_ratio(found.cancellation)}: they cancel, and none is an effect by itself"
    return [
        statement(said, "; residual ", html.Span(f"{found.residual:.1e}", className="number"), "."),
        graph(figure, label="Sum of all paths of each order, and what they come to", min_width=420),
        html.Div(left, className="hint", hidden=not left),
    ]


def top(found: PathList, state: PageState) -> list[Any]:
    """The largest paths; a click checks one."""
    table = found.table()
    shown = pd.DataFrame(
        {
            "path": table["path"],
            "value": table["value"],
            "share": 100 * table["share"],
            "order": table["order"],
            "starts mostly at": [_top_tokens(found, row) for row in range(len(table))],
        }
    )
    grid = data_table(
        shown,
        id=TOP_TABLE,
        label="The largest paths; a click on one checks it",
        formats={"value": "+.4f", "share": "+.1f"},
        headers={"value": found.unit, "share": "% of all"},
    )
    ended = ENDED.get(found.ended_by, "")
    return [grid, html.Div([ended, " Click a path to check it."], className="hint")]


def _top_tokens(found: PathList, row: int) -> str:
    values = found.by_token[row]
    order = np.argsort(-np.abs(values), kind="stable")[:TOP_TOKENS]
    kept = [pos for pos in order if abs(values[pos]) >= 0.02 * np.abs(values).sum() > 0]
    return "  ".join(f"{visible(found.str_tokens[pos])}@{pos} {values[pos]:+.3g}" for pos in kept)
