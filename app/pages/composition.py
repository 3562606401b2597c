"""The composition page: which heads read what earlier heads wrote."""

import re
from dataclasses import replace
from typing import Any

from dash import ClientsideFunction, Dash, Input, Output

from app import composition_answers as answers
from app.controls import (
    choice_control,
    control_id,
    hidden_control,
    number_control,
    prompt_controls,
    slider_control,
    text_control,
)
from app.fields import PROMPT, Field, PageState, choice, head, number, whole
from app.page import Page, Panel
from app.pages.circuits import EARLIER, MAX_OFFSET
from app.session import Session
from app.views import composition as views
from app.views import composition_code as code
from workbench.errors import ConfigError
from workbench.models import ModelInfo


def _zoom(given: Any) -> str:
    if given and not re.fullmatch(r"\d{1,4}-\d{1,4}", str(given), re.ASCII):
        raise ConfigError(f"zoom {str(given)[:40]!r} is not two layers: write for example '3-7'")
    return str(given or "")


FIELDS = (
    choice("value", tuple(views.VALUES)),
    choice("inputs", ("all", "K", "Q", "V")),
    number("threshold", 1.25, low=1.0, high=10.0),
    whole("offset", 0, low=0, high=MAX_OFFSET, lasts="model"),
    choice("baseline", answers.BASELINES),
    Field("zoom", _zoom, "", lasts="model"),
    replace(head(), is_place=True),
    EARLIER,
    choice("through", ("K", "Q", "V")),
    PROMPT,
)
PANELS = (
    Panel(
        name="composition-maps",
        title="Composition over chance",
        explains="How much of what the writer (row) writes the reader (column) takes in through its queries, "
        "keys or values. White is what random heads of the same shapes score.",
        draws=("value", "zoom"),
        draw=views.maps,
        code=code.maps_code,
        uses=("offset", "baseline"),
        compute=answers.composition,
        analysis="composition",
    ),
    Panel(
        name="composition-pair",
        title="The chosen pair",
        explains="Its scores through each input. Matching says whether what is passed on is the token: 1 if "
        "the reader's circuit, taken through the writer, prefers every token's own copy.",
        draws=("head", "earlier", "through"),
        draw=views.chosen_pair,
        code=code.pair_code,
        needs=views.no_pair,
        uses=("offset", "baseline"),
        compute=answers.composition,
        analysis="composition",
    ),
    Panel(
        name="composition-heads",
        title="Head graph",
        explains="An edge from writer to reader is thicker the further it is over chance. A click on the dot "
        "at its middle chooses the pair.",
        draws=("inputs", "threshold"),
        draw=views.pair_graph,
        code=code.graph_code,
        uses=("offset", "baseline"),
        compute=answers.composition,
        analysis="composition",
    ),
    Panel(
        name="composition-pairs",
        title="Strongest pairs",
        explains="Sorted by what the matrices show. A large score says that something is passed on; matching "
        "near 1, that it is the token. Matching is measured for the 300 highest scores of each input.",
        draws=("inputs", "value"),
        draw=views.pairs,
        code=code.pairs_code,
        uses=("offset", "baseline"),
        compute=answers.composition,
        analysis="composition",
    ),
    Panel(
        name="composition-pattern",
        title="Where the pair looks",
        explains="The pattern of the virtual head on the prompt: from each query through the reader's "
        "attention, then the writer's, to the token that is really read.",
        uses=("head", "earlier", "prompt"),
        compute=answers.pattern,
        draw=views.pattern,
        code=code.pattern_code,
        needs=views.no_pair,
    ),
)


def controls(session: Session, info: ModelInfo, state: PageState) -> list[Any]:
    """What stands beside the panels."""
    return [
        choice_control(
            "value", "Show", [(x, text) for x, (text, _) in views.VALUES.items()], state["value"]
        ),
        choice_control(
            "inputs", "Graph and table", [(x, x) for x in ("all", "K", "Q", "V")], state["inputs"]
        ),
        slider_control(
            "threshold", "Edges from × chance", value=state["threshold"], limits=(1.0, 4.0, 0.05)
        ),
        text_control("head", "Reader", state["head"], hint="layer.head; a click fills both"),
        text_control("earlier", "Writer", state["earlier"], placeholder="an earlier head"),
        choice_control("through", "Through its", [(x, x) for x in ("K", "Q", "V")], state["through"]),
        choice_control(
            "baseline",
            "Chance",
            [("gaussian", "random heads"), ("singular", "same singular values")],
            state["baseline"],
        ),
        number_control(
            "offset", "Offset Δ = query − key", state["offset"], (0, MAX_OFFSET, 1),
            hint="matters with rotary positions only",
        ),
        hidden_control("zoom", state["zoom"]),
        *prompt_controls(info, state),
    ]  # fmt: skip


def connect(app: Dash) -> None:
    """Clicks into figures and the table choose a pair, or two layers."""
    pair = [
        Output(control_id(name), "value", allow_duplicate=True)
        for name in ("head", "earlier", "through", "zoom")
    ]
    for function, source, value in (
        ("cell", views.MAPS, "clickData"),
        ("cell", views.ZOOM, "clickData"),
        ("edge", views.GRAPH, "clickData"),
        ("rows", views.PAIRS, "selectedRows"),
    ):
        app.clientside_callback(
            ClientsideFunction("composition", function),
            *pair,
            Input(source, value),
            prevent_initial_call=True,
        )


PAGE = Page(
    title="Composition",
    path="/composition",
    fields=FIELDS,
    panels=PANELS,
    controls=controls,
    connect=connect,
)
TITLE, PATH, layout, register = PAGE.title, PAGE.path, PAGE.layout, PAGE.register
