"""The heads page: every head by any two measures, and one head's card."""

from dash import ClientsideFunction, Dash, Input, Output

from app import head_answers as answers
from app.controls import control_id
from app.fields import choice, head
from app.page import Page, Panel
from app.views import heads as views
from workbench.figures.head_scatter import LAYER

PANELS = (
    Panel(
        name="heads",
        title="All heads",
        explains="Each point is a head. Behaviour is measured on random repeats, with 95 % intervals; weights "
        "are exact. Dotted lines are chance: uniform attention, or random weights of the same shape.",
        analysis=answers.MEASURES,
        uses=(),
        draws=("x", "y", "colour", "head"),
        compute=answers.measures,
        draw=views.scatter,
        code=views.scatter_code,
    ),
    Panel(
        name="card",
        title="Head card",
        explains="What one head does on prompts, what its weights say, what it adds to the logits, and where "
        "these disagree.",
        uses=("head",),
        compute=answers.card,
        draw=views.card,
        code=views.card_code,
    ),
    Panel(
        name="head-rows",
        title="Table of all heads",
        explains="Every measure of every head; a click on a row, or Space, shows its card.",
        analysis=answers.MEASURES,
        uses=(),
        compute=answers.measures,
        draw=views.rows,
        code=views.rows_code,
    ),
)


def connect(app: Dash) -> None:
    """A click on a point or a row chooses a head."""
    for source, prop in ((views.SCATTER, "clickData"), (views.HEAD_ROWS, "selectedRows")):
        app.clientside_callback(
            ClientsideFunction("heads", prop),
            Output(control_id("head"), "value", allow_duplicate=True),
            Input(source, prop),
            prevent_initial_call=True,
        )


PAGE = Page(
    title="Heads",
    path="/heads",
    fields=(
        choice("x", views.MEASURES, default="OV copying"),
        choice("y", views.MEASURES, default="induction"),
        choice("colour", (LAYER, *views.MEASURES), default="K-composition in"),
        head(),
    ),
    panels=PANELS,
    controls=views.side,
    connect=connect,
)
TITLE, PATH, layout, register = PAGE.title, PAGE.path, PAGE.layout, PAGE.register
