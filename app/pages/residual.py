"""The residual page: what each layer would predict, what the final prediction is the sum of, and the stream."""

from dash import ClientsideFunction, Dash, Input, Output, State

from app import residual_answers as answers
from app.controls import control_id
from app.fields import PROMPT, choice, text, whole
from app.page import STATE, Page, Panel
from app.views import residual as views

COLOUR = choice("colour", tuple(views.COLOURS))
BY = choice("by", tuple(views.PARTS))
POS = whole("pos", high=100_000, lasts="prompt")
TARGET = text("target", lasts="prompt")
DISTRACTOR = text("distractor", lasts="prompt")

PANELS = (
    Panel(
        name="lens",
        title="Logit lens",
        explains="In every cell the token that would be predicted if the network ended after that layer; "
        "the top row is the model's own prediction.",
        uses=("prompt",),
        draws=("colour",),
        asks=lambda state: {"ranks": state["colour"] == "rank"},
        compute=answers.read_lens,
        draw=views.lens,
        code=views.lens_code,
    ),
    Panel(
        name="attribution",
        title="Direct logit attribution",
        explains="What each part wrote for the predicted token's logit, with the final norm's scale held at "
        "its value here: an exact sum. Effects through later layers are not in it.",
        uses=("prompt", "pos", "by", "target", "distractor"),
        compute=answers.attribute,
        draw=views.attribution,
        code=views.attribution_code,
    ),
    Panel(
        name="norms",
        title="Length of what each part writes",
        explains="Euclidean length of each part's vector at every position, on a logarithmic scale.",
        analysis="stream",
        uses=("prompt",),
        compute=answers.stream,
        draw=views.norms,
        code=views.stream_code("norms"),
    ),
    Panel(
        name="survival",
        title="Survival to the end",
        explains="1: later layers write nothing along the part; 0: they erase it; below 0: they turn it round; "
        "above 1: they write more of the same.",
        analysis="stream",
        uses=("prompt",),
        compute=answers.stream,
        draw=views.survival,
        code=views.stream_code("survival"),
    ),
    Panel(
        name="cosines",
        title="Cosines between parts",
        explains="Whether parts write into the same direction, averaged over all positions but the first.",
        uses=("prompt",),
        compute=answers.cosines,
        draw=views.cosines,
        code=views.stream_code("cosines"),
    ),
)


def connect(app: Dash) -> None:
    """A click into the lens chooses what is attributed; the chosen position is framed."""
    app.clientside_callback(
        ClientsideFunction("residual", "cell"),
        Output(control_id("pos"), "value", allow_duplicate=True),
        Output(control_id("target"), "value", allow_duplicate=True),
        Input(views.LENS_GRAPH, "clickData"),
        State(views.LENS_CELLS, "data"),
        prevent_initial_call=True,
    )
    app.clientside_callback(
        ClientsideFunction("residual", "show"),
        Output("lens-body", "title"),
        Input(views.LENS_CELLS, "data"),
        State(STATE, "data"),
    )
    app.clientside_callback(
        ClientsideFunction("residual", "frame"),
        Output(views.LENS_GRAPH, "figure"),
        Input(STATE, "data"),
        State(views.LENS_CELLS, "data"),
        State(views.LENS_GRAPH, "figure"),
        prevent_initial_call=True,
    )


PAGE = Page(
    title="Residual",
    path="/residual",
    fields=(PROMPT, COLOUR, BY, POS, TARGET, DISTRACTOR),
    panels=PANELS,
    controls=views.side,
    connect=connect,
)
TITLE, PATH, layout, register = PAGE.title, PAGE.path, PAGE.layout, PAGE.register
