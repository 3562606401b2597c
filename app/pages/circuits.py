"""The circuits page: what one head's weights do to tokens, whatever the prompt."""

from typing import Any

from dash import ClientsideFunction, Dash, Input, Output, html

from app import circuit_answers as answers
from app import trigram_answers as trigrams
from app.controls import (
    choice_control,
    control_id,
    number_control,
    prompt_controls,
    slider_control,
    switch_control,
    text_control,
)
from app.fields import PROMPT, Field, PageState, choice, head, text, whole
from app.page import Page, Panel
from app.session import Session
from app.views import circuit_code as code
from app.views import circuits as views
from app.views import trigrams as trigram_views
from workbench.models import ModelInfo
from workbench.sites import Head

OFFSET_BLOCK = "circuit-offset-block"
MAX_ENTRIES, MAX_OFFSET, SLIDER_REACH = 1000, 100_000, 63


def _earlier(given: Any) -> str:
    return str(Head.parse(str(given))) if given else ""


EARLIER = Field("earlier", _earlier, "", lasts="model", is_place=True)
FIELDS = (
    head(),
    EARLIER,
    choice("through", ("V", "K", "Q")),
    choice("circuit", ("OV", "QK"), is_place=True),
    choice("embedding", ("normalised", "raw")),
    whole("offset", 0, low=0, high=MAX_OFFSET, lasts="model"),
    choice("by", ("largest", "smallest", "size")),
    whole("k", 50, low=1, high=MAX_ENTRIES),
    text("token", lasts="model"),
    choice("side", ("row", "column")),
    *(text(place, lasts="model") for place in trigrams.PLACES),
    choice("count", ("off", "on")),
    PROMPT,
)
PANELS = (
    Panel(
        name="circuit-heads",
        title="Every head",
        explains="The copying score (OV) or matching score (QK) of each head: 1 if every token raises itself, "
        "−1 if it lowers itself, 0 by chance. Click a head to choose it.",
        uses=("circuit", "embedding"),
        draws=("head", "earlier"),
        compute=answers.copying,
        draw=views.copying,
        code=code.copying,
    ),
    Panel(
        name="circuit-eigenvalues",
        title="Eigenvalues",
        explains="Of the whole circuit between tokens, beside those of random heads (grey, scaled to the same "
        "sum of sizes). To the right tokens raise themselves; the distance from the centre is on a log scale.",
        uses=answers.CIRCUIT,
        compute=answers.eigenvalues,
        draw=views.eigenvalues,
        code=code.eigenvalues,
    ),
    Panel(
        name="circuit-entries",
        title="Top entries",
        explains="The extreme entries among all pairs of tokens, found exactly. OV: what attending to a source "
        "adds to an output, above the mean output. QK: how much a query prefers a key to the mean key.",
        uses=(*answers.CIRCUIT, "by", "k"),
        compute=answers.entries,
        draw=views.entries,
        code=code.entries,
    ),
    Panel(
        name="circuit-token",
        title="One token",
        explains="What one token raises and lowers most (its row), or what raises and lowers it (its column). "
        "Without a token: the last one of the text.",
        uses=(*answers.CIRCUIT, "token", "side", "prompt"),
        compute=answers.line,
        draw=views.line,
        code=code.line,
    ),
    Panel(
        name="circuit-block",
        title="Between the tokens of a text",
        explains="The same circuit between the distinct tokens of the text; every row is relative to the mean "
        "over the whole vocabulary.",
        uses=(*answers.CIRCUIT, "prompt"),
        compute=answers.block,
        draw=views.block,
        code=code.block,
    ),
    Panel(
        name="circuit-offsets",
        title="Score by distance",
        explains="The head's score before softmax by distance between query and key: what every pair of tokens "
        "gets (content-free), what a token's own copy gets, and how far tokens spread around that.",
        uses=answers.HEAD,
        draws=("offset",),
        compute=answers.offsets,
        draw=views.offsets,
        code=code.offsets,
    ),
    Panel(
        name="circuit-trigrams",
        title="Skip-trigrams",
        explains="[source] … [destination] → [out]: how much the destination attends to the source, and what "
        "that adds to the output. The score is the product of both. Listed ones imply others, perhaps bugs.",
        uses=(*answers.HEAD, "offset", *trigrams.PLACES),
        compute=trigrams.trigrams,
        draw=trigram_views.trigrams,
        code=code.trigrams,
    ),
    Panel(
        name="circuit-counted",
        title="The same skip-trigrams in text",
        explains="How often each occurs in held-out text, whether its output follows more often than without "
        "the source, and what attending to the source does to the log-probability of the output, in nats.",
        uses=(*answers.HEAD, "offset", *trigrams.PLACES),
        compute=trigrams.counted,
        draw=trigram_views.counted,
        code=code.counted,
        needs=trigram_views.not_counted,
    ),
    Panel(
        name="circuit-directions",
        title="Singular directions",
        explains="How strongly each direction passes through the circuit, and the tokens at its two ends: "
        "those on the left of a row raise those on the right.",
        uses=answers.CIRCUIT,
        compute=answers.directions,
        draw=views.directions,
        code=code.directions,
    ),
    Panel(
        name="circuit-geometry",
        title="Geometry",
        explains="Symmetry and rank of the head's matrix in the residual stream, beside all other heads and "
        "random ones (grey band: mean ± 2 std).",
        uses=("offset",),
        draws=("head", "circuit"),
        compute=answers.geometry,
        draw=views.geometry,
        code=code.geometry,
    ),
)


def controls(session: Session, info: ModelInfo, state: PageState) -> list[Any]:
    """What stands beside the panels."""
    offset = slider_control(
        "offset", "Offset Δ = query − key", value=state["offset"], limits=(0, SLIDER_REACH, 1)
    )
    return [
        text_control("head", "Head", state["head"], hint="layer.head"),
        text_control(
            "earlier",
            "Reads through an earlier head",
            state["earlier"],
            placeholder="none",
            hint="together a virtual head; the composition page shows which heads read which",
        ),
        choice_control(
            "through", "… with its", [(x, f"{x}") for x in ("V", "K", "Q")], state["through"]
        ),
        choice_control(
            "circuit", "Circuit", [("OV", "OV"), ("QK", "QK")], state["circuit"],
            hint="OV: what attending to a token does. QK: which tokens attend to which.",
        ),
        choice_control(
            "embedding", "Embeddings", [("normalised", "over own norm"), ("raw", "raw")],
            state["embedding"],
            hint="Without a norm in the model nothing changes.",
        ),
        html.Div(offset, id=OFFSET_BLOCK, hidden=not state["offset"]),
        choice_control("by", "Top entries", [(x, x) for x in ("largest", "smallest", "size")], state["by"]),
        number_control("k", "How many", state["k"], (1, MAX_ENTRIES, 10)),
        text_control(
            "token", "Token", state["token"], placeholder="part of a token",
            hint="· is a space, ↵ a new line; #17 is the token of that id",
        ),
        choice_control("side", "Show its", [("row", "row"), ("column", "column")], state["side"]),
        html.Div("Skip-trigrams", className="field-label"),
        *(
            text_control(place, place, state[place], placeholder="any token")
            for place in trigrams.PLACES
        ),
        switch_control("count", "Count them in text", state["count"]),
        *prompt_controls(info, state),
    ]  # fmt: skip


def connect(app: Dash) -> None:
    """Clicks into figures, and the offset where it matters."""
    app.clientside_callback(
        ClientsideFunction("circuits", "head"),
        Output(control_id("head"), "value", allow_duplicate=True),
        Output(control_id("earlier"), "value", allow_duplicate=True),
        Input(views.HEADS_MAP, "clickData"),
        prevent_initial_call=True,
    )
    app.clientside_callback(
        ClientsideFunction("circuits", "offset"),
        Output(control_id("offset"), "value", allow_duplicate=True),
        Input(views.OFFSET_GRAPH, "clickData"),
        prevent_initial_call=True,
    )
    app.clientside_callback(
        ClientsideFunction("circuits", "offsets"),
        Output(OFFSET_BLOCK, "hidden"),
        Input(views.OFFSET_MARK, "children"),
        prevent_initial_call=True,
    )


PAGE = Page(
    title="Circuits",
    path="/circuits",
    fields=FIELDS,
    panels=PANELS,
    controls=controls,
    connect=connect,
)
TITLE, PATH, layout, register = PAGE.title, PAGE.path, PAGE.layout, PAGE.register
