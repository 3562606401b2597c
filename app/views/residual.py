"""What the residual page shows, from plain values: no callbacks, no models."""

from typing import Any

import numpy as np
from dash import dcc, html

from app import controls
from app.components import graph, page_link
from app.fields import PageState
from app.residual_answers import CosineAnswer, LensAnswer, token_of
from app.session import Session
from app.tables import data_table
from workbench.figures import lens_view, residual_view
from workbench.figures.tokens import figure_text, visible
from workbench.models import ModelInfo
from workbench.stream.attribution import LogitAttribution
from workbench.stream.residual import StreamGeometry

LENS_GRAPH, LENS_CELLS = "lens-graph", "lens-cells"
COLOURS = {"prob": "probability", "kl": "KL", "rank": "rank"}
PARTS = {"component": "layers", "head": "heads", "neuron": "neurons", "source": "source tokens"}
MAX_POSITIONS, TOP_PARTS, TABLE_ROWS = 128, 16, 500


def side(session: Session, info: ModelInfo, state: PageState) -> list[Any]:
    """What stands beside the panels."""
    return [
        *controls.prompt_controls(info, state),
        controls.choice_control(
            "colour", "Colour of the lens", list(COLOURS.items()), state["colour"]
        ),
        html.H3("Attribution", className="side-title"),
        controls.choice_control("by", "To the model's", list(PARTS.items()), state["by"]),
        controls.number_control(
            "pos", "Position", state["pos"], (0, 100_000, 1), "Where it predicts; empty: the last."
        ),
        controls.text_control(
            "target",
            "Predicted token",
            state["target"],
            placeholder="the likeliest",
            hint="Text (a leading space counts) or #id; a click into the lens fills it in.",
        ),
        controls.text_control(
            "distractor",
            "minus token",
            state["distractor"],
            placeholder="none",
            hint="Attributes the difference of two logits; “mean” subtracts the mean logit.",
        ),
    ]


def lens(found: LensAnswer, state: PageState) -> Any:
    """The grid; positions far back are left out where there are too many to be drawn."""
    table = found.table()
    n_pos = len(found.lens.str_tokens)
    start = max(0, n_pos - MAX_POSITIONS)
    shown = table[table["pos"] >= start]
    pos = n_pos - 1 if state["pos"] is None else state["pos"]
    figure = lens_view.lens_grid(
        shown,
        colour=state["colour"],
        ranks=None if found.ranks is None else found.ranks[:, start:],
        pos=pos - start,
    )
    label = "Logit lens: likeliest token after every layer at every position"
    cells = {"start": start, "n_pos": n_pos, "labels": found.lens.labels, "spelled": found.spelled}
    note = f"The last {MAX_POSITIONS} of {n_pos} positions are shown." if start else ""
    return [
        html.Div(note, className="hint", hidden=not note),
        dcc.Store(id=LENS_CELLS, data=cells),
        graph(figure, label=label, id=LENS_GRAPH, min_width=lens_view.lens_width(shown)),
        html.Div(
            "Click a cell to attribute the model's logit of its token at that position.",
            className="hint",
        ),
    ]


def attribution(found: LogitAttribution, state: PageState) -> Any:
    """The sum in words, the bars that make it, and every part in a table."""
    table = found.top(TOP_PARTS)
    table["part"] = [_part(row, found) for row in table.to_dict("records")]
    whole = found.table()
    order = np.argsort(-np.abs(found.values), kind="stable")[:TABLE_ROWS]
    rows = whole.iloc[order].drop(columns=["unit"]).dropna(axis=1, how="all")
    bars = residual_view.attribution_bars(table, total=found.total, name=_sum_name(found))
    n_left = len(whole) - len(rows)
    left = f"the {len(rows)} largest of {len(whole):,}" if n_left else f"all {len(whole)}"
    return [
        _statement(found),
        graph(bars, label="Contributions of parts, adding up to the logit", id="attribution-graph"),
        _paths_link(found, state),
        html.H3(f"Parts: {left}"),
        data_table(
            rows,
            label="Contributions of parts",
            tokens=("part",) if state["by"] == "source" else (),
            formats={"value": "+.4f"},
        ),
    ]


def _paths_link(found: LogitAttribution, state: PageState) -> html.Div:
    """To the same logit with its effects through later layers."""
    shared = {name: state[name] for name in ("model", "step", "prompt")}
    asked = {"target": state["target"] or None, "versus": state["distractor"] or None}
    link = page_link("Take this logit apart into paths", "/paths", **shared, pos=found.pos, **asked)
    return html.Div(link, className="pair-links")


def norms(found: StreamGeometry, state: PageState) -> Any:
    """Length of each part at every position."""
    figure = residual_view.norm_map(found.norms, _labels(found), _positions(found))
    return graph(figure, label="Lengths of parts", min_width=_map_width(found))


def survival(found: StreamGeometry, state: PageState) -> Any:
    """How much of each part the end still holds."""
    figure = residual_view.survival_map(found.survival, _labels(found), _positions(found))
    spread = float(np.nanmedian(found.spread))
    said = html.P(
        ["Unrelated later writing would scatter it around 1 by ", _number(spread), " (median)."],
        className="statement",
    )
    return [said, graph(figure, label="Survival of parts", min_width=_map_width(found))]


def cosines(found: CosineAnswer, state: PageState) -> Any:
    """Cosines between parts, beside what unrelated vectors have."""
    stream = found.stream
    figure = residual_view.cosine_map(stream.cosines, _labels(stream))
    said = html.P(
        [
            "Unrelated directions have cosines around 0 by ",
            _number(stream.cosine_spread),
            " (1/√d_model).",
        ],
        className="statement",
    )
    width = 240 + 15 * len(stream.parts)
    return [said, graph(figure, label="Cosines between parts", min_width=width)]


def lens_code(state: PageState) -> str:
    """Python of the lens."""
    colour = state["colour"] if state["colour"] != "rank" else "prob"
    return _code(
        state,
        "from workbench.figures.lens_view import lens_grid",
        "from workbench.stream.lens import logit_lens",
        body=[
            f"lens = logit_lens(model, {state['prompt']!r})",
            f"lens_grid(lens.table(), colour={colour!r})",
        ],
    )


def attribution_code(state: PageState) -> str:
    """Python of the attribution."""
    target, distractor = token_of(state["target"]), token_of(state["distractor"])
    options = [f", pos={state['pos']}" if state["pos"] is not None else ""]
    options += [f", distractor={distractor!r}" if distractor is not None else ""]
    call = f"model, {state['prompt']!r}" + (f", {target!r}" if target is not None else "")
    return _code(
        state,
        "from workbench.figures.residual_view import attribution_bars",
        "from workbench.stream.attribution import logit_attribution",
        body=[
            f"found = logit_attribution({call}, by={state['by']!r}{''.join(options)})",
            "print(found.total, found.values.sum(), found.residual)",
            f"attribution_bars(found.top({TOP_PARTS}), total=found.total, name=found.target)",
        ],
    )


def stream_code(drawing: str) -> Any:
    """A function of the state: Python of one of the maps of the stream."""
    calls = {
        "norms": "norm_map(found.norms, labels, positions)",
        "survival": "survival_map(found.survival, labels, positions)",
        "cosines": "cosine_map(found.cosines, labels)",
    }

    def code(state: PageState) -> str:
        name = calls[drawing].partition("(")[0]
        positions = 'positions = [f"{i} {token}" for i, token in enumerate(found.str_tokens)]'
        return _code(
            state,
            f"from workbench.figures.residual_view import {name}",
            "from workbench.stream.residual import stream_geometry",
            body=[
                f"found = stream_geometry(model, {state['prompt']!r})",
                "labels = [part.label for part in found.parts]",
                *([positions] if drawing != "cosines" else []),
                calls[drawing],
            ],
        )

    return code


def _code(state: PageState, *imports: str, body: list[str]) -> str:
    step = "" if state["step"] is None else f", step={state['step']}"
    load = f"model = workbench.load({state['model']!r}{step})"
    return "\n".join(["import workbench", *imports, "", load, *body])


def _statement(found: LogitAttribution) -> html.P:
    """The sum, the model's own number, and how far they are apart."""
    target = html.Span(visible(found.target), className="token")
    what: list[Any] = ["logit of ", target]
    if found.distractor == "mean":
        what += [" minus the mean logit"]
    elif found.distractor is not None:
        what += [" minus that of ", html.Span(visible(found.distractor), className="token")]
    place = f" at position {found.pos}, after "
    read = html.Span(visible(found.str_tokens[found.pos]), className="token")
    return html.P(
        [
            *("The model's ", *what, place, read, " is ", _number(found.total)),
            f". The {len(found.values):,} parts sum to ",
            _number(float(found.values.sum())),
            "; residual ",
            html.Span(f"{found.residual:.1e}", className="number"),
            ".",
        ],
        className="statement",
    )


def _sum_name(found: LogitAttribution) -> str:
    against = "" if found.distractor is None else " − " + visible(found.distractor)
    return f"the model’s {visible(found.target)}{against}"


def _part(row: dict[str, Any], found: LogitAttribution) -> str:
    """A bar's label; a source token is shown with its whitespace visible."""
    if row["kind"] != "source":
        return str(row["part"])
    key = int(row["source"])
    return f"{row['layer']}.{row['head']} ← {key} {visible(found.str_tokens[key])}"


def _labels(found: StreamGeometry) -> list[str]:
    return [part.label for part in found.parts]


def _positions(found: StreamGeometry) -> list[str]:
    return [f"{pos} {figure_text(token, 12)}" for pos, token in enumerate(found.str_tokens)]


def _map_width(found: StreamGeometry) -> int:
    return 200 + 16 * len(found.str_tokens)


def _number(value: float) -> html.Span:
    return html.Span(f"{value:.4f}", className="number")
