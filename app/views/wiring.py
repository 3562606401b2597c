"""The wiring picture on a page, what a unit responds to, and pruning under a slider.

`wiring_panel` is drawn by assets/g-wiring.js. Beside the picture stand stores that a page reads and writes:

    <id>-data       the payload, {"src": address to fetch it from}, or None
    <id>-threshold  lines below this |weight| are not drawn; None = all
    <id>-frame      which snapshot of a series is shown
    <id>-dot        {"group", "index", "label", "frame", "step"} of the unit that was chosen last, or None

`register_wiring(app, id)` adds the callbacks that join them; `register_pruning` those of the slider.
"""

import math
from typing import Any

import dash_mantine_components as dmc
import pandas as pd
from dash import ClientsideFunction, Dash, Input, Output, State, dcc, html

from app.components import aria, graph
from app.tables import data_table
from workbench.figures.wiring.curves import pruning_figure, response_figure
from workbench.training.modularity.pruning_curve import PruningCurve
from workbench.training.responses import Responses, Wire


def wiring_panel(payload: dict[str, Any] | None, id: str, *, label: str = "Wiring") -> html.Div:
    """A place for a picture, and its stores.

    Args:
        payload: `workbench.figures.wiring.payload(…)`, or {"src": address}; it may be put in the store later.
        label: what screen readers call it.
    """
    return html.Div(
        [
            dcc.Store(id=f"{id}-data", data=payload),
            dcc.Store(id=f"{id}-threshold"),
            dcc.Store(id=f"{id}-frame"),
            dcc.Store(id=f"{id}-dot"),
            dcc.Store(id=f"{id}-drawn"),
            html.Div(id=id, className="wiring", role="group", **aria(label)),
        ],
        className="wiring-panel",
    )


def register_wiring(app: Dash, id: str) -> None:
    """The callbacks of one picture, in the browser alone."""
    app.clientside_callback(
        ClientsideFunction("wiring", "show"),
        Output(f"{id}-drawn", "data"),
        Input(f"{id}-data", "data"),
        Input(f"{id}-threshold", "data"),
        Input(f"{id}-frame", "data"),
        State(id, "id"),
    )


def responses_panel(responses: Responses) -> html.Div:
    """What a unit responds to, and its strongest wires."""
    parts: list[Any] = [html.P(_summary(responses), className="statement")]
    if responses.features:
        label = f"Mean {responses.what} of {_name(responses)} by what it reads"
        parts.append(graph(response_figure(responses), label=label, min_width=420))
        parts.append(_examples(responses))
    parts.append(
        html.Div(
            [
                _wires(responses.incoming, "Strongest wires in"),
                _wires(responses.outgoing, "Strongest wires out"),
            ],
            className="wiring-ends",
        )
    )
    return html.Div(parts, className="wiring-responses")


def pruning_panel(curve: PruningCurve, threshold: float | None, id: str) -> html.Div:
    """The loss at every measured threshold, and a slider over them.

    Args:
        threshold: where the slider stands at first; None = nothing is cut.
        id: of the slider; `<id>-curve` holds the numbers, `<id>-said` tells them.
    """
    chosen = 0 if threshold is None else curve.at(threshold)
    figure = graph(
        pruning_figure(curve, chosen), label="Loss by wires left", id=f"{id}-graph", min_width=320
    )
    slider = dmc.Slider(
        id=id,
        min=0,
        max=max(1, len(curve.threshold) - 1),
        step=1,
        value=chosen,
        label=None,
        thumbLabel="How many of the weak wires are cut",
        size="sm",
        className="wiring-slider",
    )
    columns = {name: column.tolist() for name, column in curve.table().items()}
    # JSON has no numbers that are not finite.
    for name in ("threshold", "loss"):
        columns[name] = [value if math.isfinite(value) else None for value in columns[name]]
    return html.Div(
        [
            dcc.Store(id=f"{id}-curve", data=columns),
            html.P(id=f"{id}-said", className="statement", role="status"),
            slider,
            figure,
        ],
        className="wiring-pruning",
    )


def register_pruning(app: Dash, id: str, picture: str) -> None:
    """The slider sets the threshold of a picture, and says what was measured there."""
    app.clientside_callback(
        ClientsideFunction("wiring", "prune"),
        Output(f"{id}-said", "children"),
        Output(f"{picture}-threshold", "data"),
        Output(f"{id}-graph", "figure"),
        Input(id, "value"),
        State(f"{id}-curve", "data"),
        State(f"{id}-graph", "figure"),
    )


def _name(found: Responses) -> str:
    return f"{found.group} · {found.index}"


def _summary(found: Responses) -> list[Any]:
    named = html.Strong(_name(found))
    if found.unread:
        return [named, f": not read, since {found.unread}."]
    said = f": {found.what} {found.mean:.3g} ± {found.std:.3g} over {found.n_examples:,} examples."
    return [named, said]


def _examples(found: Responses) -> html.Details:
    def rows(kind: str) -> pd.DataFrame:
        return pd.DataFrame(
            [(each.activation, each.text) for each in getattr(found, kind)],
            columns=["activation", "example"],
        )

    columns = [
        html.Div(
            [
                html.H3(title),
                data_table(rows(kind), label=title, headers={"activation": found.what}),
            ]
        )
        for kind, title in (("highest", "Highest"), ("lowest", "Lowest"))
    ]
    return html.Details(
        [
            html.Summary("Examples where it is highest and lowest"),
            html.Div(columns, className="wiring-ends"),
        ],
        open=found.group != "outputs",
    )


def _wires(found: tuple[Wire, ...], title: str) -> html.Div:
    if not found:
        return html.Div([html.H3(title), html.P("None.", className="hint")])
    frame = pd.DataFrame(
        [(f"{wire.group} · {wire.unit}", wire.weight, wire.block) for wire in found],
        columns=["unit", "weight", "block"],
    )
    return html.Div([html.H3(title), data_table(frame, label=title)])
