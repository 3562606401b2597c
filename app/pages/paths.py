"""The paths page: one number of a prompt as an exact sum over paths, and what the sum leaves open."""

from collections.abc import Callable
from typing import Any

from dash import ClientsideFunction, Dash, Input, Output, State

from app import path_answers as answers
from app import path_questions as questions
from app.analyses import Compute
from app.controls import control_id
from app.fields import PROMPT, Field, PageState, choice, head, number, text, whole
from app.page import KNOWN, STATE, Page, Panel
from app.views import paths as views
from app.views import paths_code as code
from app.views import paths_places as places
from app.views import paths_tree as tree_views

MAX_CHAINS, MAX_LABEL, MAX_PATHS, MAX_ROWS = 2000, 400, 500, 60


def _other_key(given: Any) -> str:
    """A key's position, "mean" or nothing."""
    if given in ("", "mean"):
        return str(given)
    return str(whole("than", high=100_000).parse(given))


FIELDS = (
    choice("what", ("logit", "score"), is_place=True),
    PROMPT,
    whole("pos", high=100_000, lasts="prompt"),
    text("target", lasts="prompt"),
    text("versus", lasts="prompt"),
    head(),
    whole("query", high=100_000, lasts="prompt"),
    whole("key", high=100_000, lasts="prompt"),
    Field("than", _other_key, "mean", lasts="prompt"),
    choice("side", ("key", "query")),
    text("through", limit=MAX_CHAINS, lasts="model"),
    choice("counted", tuple(views.COUNTED)),
    choice("scale", ("linear", "log")),
    whole("k", 20, low=1, high=MAX_PATHS),
    choice("sort", ("size", "value", "layer")),
    whole("rows", 8, low=1, high=MAX_ROWS),
    number("threshold", 0.05, low=0, high=1),
    text("check", limit=MAX_LABEL, lasts="model"),
)
ASKED = ("what", "prompt")


def _panel(
    name: str,
    title: str,
    explains: str,
    compute: Compute,
    draw: Callable[[Any, PageState], Any],
    code: Callable[[PageState], str],
    **options: Any,
) -> Panel:
    """A panel whose answer depends on the question, and on the fields of `uses`."""
    uses = (*ASKED, *options.pop("uses", ()))
    return Panel(
        name=name,
        title=title,
        explains=explains,
        uses=uses,
        compute=compute,
        draw=draw,
        code=code,
        **{"asks": questions.asks} | options,
    )


def _score_only(state: PageState) -> str:
    return "" if state["what"] == "score" else "Choose “attention score” at the left."


def _chosen(state: PageState) -> str:
    return "" if state["check"] else "Click a path in the table, or “check” in the tree."


PANELS = (
    _panel(
        "paths-score",
        "Why this head looks here",
        "The score before softmax is a part of the query times a part of the key, summed over all pairs.",
        answers.score,
        tree_views.score,
        code.score,
        needs=_score_only,
        asks=lambda state: {name: state[name] for name in questions.SCORE},
    ),
    _panel(
        "paths-meter",
        "How much of the number is listed",
        "With patterns, norm scales and gates held as they are here, the number is an exact sum over paths; "
        "what the listed ones leave open is known exactly.",
        answers.top,
        views.meter,
        code.meter,
        uses=("k",),
        analysis="paths-top",
    ),
    _panel(
        "paths-orders",
        "By length",
        "Order n: the sum of all paths that pass through exactly n components. Order 0 is the direct path.",
        answers.spectrum,
        views.spectrum,
        code.spectrum,
        uses=("counted",),
        draws=("scale",),
    ),
    _panel(
        "paths-tree",
        "What feeds what",
        "Each row is the exact sum of all paths that arrive that way; open a component for what feeds it. "
        "A source's row is one path.",
        answers.tree,
        tree_views.tree,
        code.tree,
        uses=("through",),
        draws=("sort", "rows"),
    ),
    _panel(
        "paths-top",
        "Largest paths",
        "A source, then every component that it passes; what it adds with everything held, "
        "and the tokens where it starts.",
        answers.top,
        views.top,
        code.top,
        uses=("k",),
        analysis="paths-top",
    ),
    _panel(
        "paths-check",
        "Held fixed or recomputed",
        "What the number loses without a component or path: in the frozen network, and in the model itself, "
        "whose patterns, scales and gates follow.",
        answers.check,
        places.check,
        code.check,
        uses=("check",),
        needs=_chosen,
    ),
    _panel(
        "paths-flow",
        "Flow between positions",
        "Where the number comes from: each line is the exact sum of all paths that go along it. "
        "At every place what arrives is what leaves.",
        answers.flow,
        places.flow,
        code.flow,
        draws=("threshold",),
    ),
    _panel(
        "paths-tokens",
        "By token",
        "The exact sum of all paths that start at each token.",
        answers.tokens,
        places.tokens,
        code.tokens,
    ),
)


def connect(app: Dash) -> None:
    """Clicks into the table and the flow; what only one kind of question needs is hidden for the other."""
    app.clientside_callback(
        ClientsideFunction("paths", "kind"),
        Output(views.LOGIT_BLOCK, "hidden"),
        Output(views.SCORE_BLOCK, "hidden"),
        Output("paths-score", "hidden"),
        Input(STATE, "data"),
        Input(KNOWN, "data"),  # no callback writes it: else the first call would be left out
    )
    app.clientside_callback(
        ClientsideFunction("paths", "row"),
        Output(control_id("check"), "value", allow_duplicate=True),
        Input(views.TOP_TABLE, "selectedRows"),
        prevent_initial_call=True,
    )
    app.clientside_callback(
        ClientsideFunction("paths", "edge"),
        Output("paths-flow-body", "title"),
        Input(places.FLOW_GRAPH, "clickData"),
        State(STATE, "data"),
        prevent_initial_call=True,
    )
    app.clientside_callback(
        ClientsideFunction("paths", "flowing"),
        Output("paths-flow-body", "lang"),
        Input("paths-flow-body", "children"),
        State(STATE, "data"),
    )
    app.clientside_callback(
        ClientsideFunction("paths", "opened"),
        Output("paths-tree-body", "title"),
        Input("paths-tree-body", "children"),
    )


PAGE = Page(
    title="Paths",
    path="/paths",
    fields=FIELDS,
    panels=PANELS,
    controls=views.side,
    connect=connect,
)
TITLE, PATH, layout, register = PAGE.title, PAGE.path, PAGE.layout, PAGE.register
