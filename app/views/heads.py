"""What the heads page shows, from plain values: no callbacks, no models."""

from typing import Any

import pandas as pd
from dash import html

from app import controls
from app.components import alert, graph, page_link
from app.fields import PageState
from app.head_answers import MeasuresAnswer
from app.session import Session
from app.tables import data_table
from workbench.figures.head_scatter import LAYER, head_scatter
from workbench.heads.cards import HeadCard
from workbench.heads.measures import HeadMeasures
from workbench.models import ModelInfo

SCATTER, HEAD_ROWS = "heads-graph", "heads-rows"
# In the order of `HeadMeasures.names`; a model may lack some.
MEASURES = (
    "previous-token", "current-token", "duplicate-token", "induction", "first-token", "entropy", "distance",
    "copying", "direct effect", "OV copying", "QK matching", "Q-composition in", "Q-composition out",
    "K-composition in", "K-composition out", "V-composition in", "V-composition out", "QK symmetric share",
    "QK positive mass", "QK rank (participation)", "OV symmetric share", "OV positive mass",
    "OV rank (participation)",
)  # fmt: skip
CARD_COLUMNS = ["aspect", "measure", "value", "unit", "low", "high", "chance", "null_std"]
CARD_COLUMNS += ["null_percentile", "head_percentile"]
CARD_HEADERS = {
    "low": "95 % low",
    "high": "95 % high",
    "null_std": "± random",
    "null_percentile": "% random below",
    "head_percentile": "% heads below",
}


def side(session: Session, info: ModelInfo, state: PageState) -> list[Any]:
    """What stands beside the panels."""
    measures = [(name, name) for name in MEASURES]
    return [
        controls.choice_control("x", "Across", measures, state["x"]),
        controls.choice_control("y", "Up", measures, state["y"]),
        controls.choice_control("colour", "Colour", [(LAYER, LAYER), *measures], state["colour"]),
        controls.text_control(
            "head",
            "Head",
            state["head"],
            hint="As layer.head; a click on a point or a row fills it in.",
        ),
    ]


def scatter(found: MeasuresAnswer, state: PageState) -> Any:
    """All heads by two measures."""
    measures = found.measures
    axes, said = _known(measures, state)
    figure = head_scatter(measures.long(), **axes, chosen=state["head"])
    label = "Heads by two measures; the table of all heads says the same"
    return [*said, graph(figure, label=label, id=SCATTER), _absent(measures.absent)]


def rows(found: MeasuresAnswer, state: PageState) -> Any:
    """All measures of all heads; a row chooses its head."""
    wide = found.measures.table()
    wide.insert(0, "name", [f"{row.layer}.{row.head}" for row in wide.itertuples()])
    return data_table(
        wide[["name", *found.measures.names]],
        id=HEAD_ROWS,
        label="All measures of all heads",
        headers={"name": "head"},
    )


def card(found: HeadCard, state: PageState) -> Any:
    """One head: its links, what disagrees, its measures, and the heads it composes with."""
    head = str(found.head)
    shared = {"model": state["model"], "step": state["step"], "head": head}
    links = html.Div(
        [
            page_link(f"Attention of {head}", "/", **shared, locked=1),
            page_link(f"Circuits of {head}", "/circuits", **shared),
        ],
        className="links",
    )
    return [
        html.Div([html.Strong(f"Head {head}"), *_badges(found), links], className="card-head"),
        *_flags(found),
        data_table(
            found.frame[CARD_COLUMNS],
            label=f"Measures of head {head}",
            headers=CARD_HEADERS,
            formats={"null_percentile": ".0f", "head_percentile": ".0f"},
        ),
        *_partners(found),
        _absent(found.absent),
    ]


def scatter_code(state: PageState) -> str:
    """Python of the scatter."""
    axes = ", ".join(f"{axis}={state[axis]!r}" for axis in ("x", "y", "colour"))
    return _code(
        state,
        "from workbench.figures.head_scatter import head_scatter",
        "from workbench.heads.measures import head_measures",
        body=[
            "measures = head_measures(model)",
            f"head_scatter(measures.long(), {axes}, chosen={state['head']!r})",
        ],
    )


def rows_code(state: PageState) -> str:
    """Python of the table."""
    return _code(
        state,
        "from workbench.heads.measures import head_measures",
        body=["head_measures(model).table()"],
    )


def card_code(state: PageState) -> str:
    """Python of the card."""
    head = f"workbench.Head({state['head'].replace('.', ', ')})"
    return _code(
        state,
        "from workbench.heads.cards import head_card",
        body=[
            f"card = head_card(model, {head})",
            'print("\\n".join(card.flags))',
            "card.table()",
        ],
    )


def _code(state: PageState, *imports: str, body: list[str]) -> str:
    step = "" if state["step"] is None else f", step={state['step']}"
    load = f"model = workbench.load({state['model']!r}{step})"
    return "\n".join(["import workbench", *imports, "", load, *body])


def _known(measures: HeadMeasures, state: PageState) -> tuple[dict[str, str], list[Any]]:
    """The measures to draw; one that the model lacks gives way to one that it has, and that is said."""
    names, said = measures.names, []
    axes = {axis: state[axis] for axis in ("x", "y", "colour")}
    spare = iter(name for name in names if name not in axes.values())
    for axis, name in axes.items():
        if name in names or name == LAYER:
            continue
        axes[axis] = LAYER if axis == "colour" else next(spare)
        lacks = f"{measures.model_name} has no {name}: this shows {axes[axis]} instead"
        said.append(html.Div(lacks, className="alert note", role="status"))
    return axes, said


def _badges(found: HeadCard) -> list[Any]:
    return [
        html.Span(
            f"{badge.behaviour} {badge.value:.2f}",
            className="badge",
            title=f"chance {badge.chance:.2f}",
        )
        for badge in found.badges
    ]


def _flags(found: HeadCard) -> list[Any]:
    if not found.flags:
        said = "Behaviour on prompts and weights agree, as far as both are measured."
        return [html.P(said, className="statement")]
    return [alert(flag) for flag in found.flags]


def _partners(found: HeadCard) -> list[Any]:
    if found.partners.empty:
        return []
    words = {"in": "it reads", "out": "it is read by"}
    frame: pd.DataFrame = found.partners.assign(direction=found.partners["direction"].map(words))
    headers = {"direction": "", "z": "z over chance", "matching_std": "± (random)"}
    return [
        html.H3("Heads that it composes with most"),
        data_table(frame, label="Composition partners", headers=headers),
    ]


def _absent(reasons: tuple[str, ...]) -> html.Div:
    lines = [html.Div(f"Not measured: {reason}.") for reason in reasons]
    return html.Div(lines, className="hint", hidden=not lines)
