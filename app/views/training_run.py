"""One run on the training page: how it stands, its curves, its wiring, and what is asked of it."""

from collections.abc import Sequence
from typing import Any

import dash_mantine_components as dmc
from dash import dcc, html

from app.components import alert, attributes, field
from app.fields import PageState
from app.trainings import Row, Trainings
from app.views import training as views
from app.views import training_panels as panels
from app.views.wiring import wiring_panel
from workbench.training.run_folder import RunFolder

WIRING = "run-wiring"
STATE = ("run-state", "data")
# (function in assets/h-runs.js, outputs, inputs, states)
CLIENTSIDE: tuple[tuple[str, list[Any], list[Any], list[Any]], ...] = (
    (
        "scrub",
        [(f"{WIRING}-frame", "data"), ("run-scrub-value", "children")],
        [("run-scrub", "value")],
        [("run-steps", "data"), STATE],
    ),
    (
        "follow",
        [
            ("run-scrub", "max"),
            ("run-scrub", "value"),
            (f"{WIRING}-data", "data"),
            (f"{WIRING}-frame", "data"),
            ("run-scrub-value", "children"),
            STATE,
        ],
        [("run-steps", "data"), ("run-rest", "data")],
        [("run-scrub", "value"), (f"{WIRING}-data", "data"), STATE],
    ),
    (
        "gather",
        [STATE],
        [
            ("run-log", "value"),
            ("run-other", "value"),
            ("run-level", "value"),
            (f"{WIRING}-dot", "data"),
            (f"{WIRING}-threshold", "data"),
        ],
        [STATE],
    ),
)


def layout(runs: Trainings, rows: Sequence[Row], state: PageState) -> list[Any]:
    """The parts of one run."""
    folder = runs.find(state["run"])
    row = runs.row(folder)
    if row.state == "broken":
        return [lost(row.name, row.message)]
    return [
        *_stores(state),
        _standing(row, folder),
        _curves(state),
        _wiring(runs.frames(folder), state),
        *_frames(panels.PRUNING_PANEL, panels.UNIT_PANEL),
        _measures(),
        *_frames(panels.PANELS[0]),
        _compare(rows, state),
        *_frames(*panels.PANELS[1:]),
    ]


def lost(name: str, why: str) -> html.Section:
    """A run that cannot be shown, and why."""
    return views.section("run-lost", f"Run {name[:80]}", "", alert(why))


def _stores(state: PageState) -> list[Any]:
    return [
        dcc.Store(id="run-state", data=state),
        dcc.Store(id="run-first", data=state["run"]),
        dcc.Store(id="run-steps"),
        dcc.Store(id="run-stamp"),
        dcc.Store(id="run-rest"),
        dcc.Store(id="run-did"),
        html.Span(id="run-sink", hidden=True),
        # One tick, then the next only after its answer, as in panels.
        dcc.Interval(id="run-tick", interval=1000, max_intervals=1, disabled=True),
    ]


def _standing(row: Row, folder: RunFolder) -> html.Section:
    return html.Section(
        [
            html.Header(
                [
                    html.H2(row.label, id="run-head-title", title=f"folder {folder.path}"),
                    html.Div(
                        [*views.buttons(), views.plan_details(folder.plan, str(folder.path))],
                        className="panel-actions",
                    ),
                ]
            ),
            html.Div(views.standing(row), id="run-standing", role="status"),
            html.Div(id="run-said"),
            html.Div(id="run-links", className="run-links"),
            # Pressed by assets/a-network.js once a server that was gone answers again.
            html.Button(
                "Ask again", id="run-retry", n_clicks=0, hidden=True, className="plain-button"
            ),
        ],
        id="run-head",
        className="panel",
        **attributes("aria-labelledby", "run-head-title"),
    )


def _curves(state: PageState) -> html.Section:
    scale = dmc.SegmentedControl(
        id="run-log",
        data=[{"value": "on", "label": "log"}, {"value": "off", "label": "linear"}],
        value=state["log"],
        size="xs",
        attributes={"root": {"aria-label": "Scale of the loss"}},
    )
    return views.section(
        "run-curves",
        "Loss",
        "Of the training batches, of held-out examples, and what each penalty adds.",
        html.Div(
            "The first numbers come after the first step.", id="run-nothing", className="hint"
        ),
        views.empty_graph("run-losses", "Loss and penalties over steps", 400),
        actions=[scale],
    )


def _measures() -> html.Section:
    return views.section(
        "run-on-the-way",
        "On the way",
        "What else was measured during training: modularity beside that of shuffled weights, wiring, and "
        "what heads do.",
        views.empty_graph("run-measures", "What was measured of the network over steps", 250),
    )


def _wiring(steps: Sequence[int], state: PageState) -> html.Section:
    at = len(steps) - 1 if state["at"] is None else steps.index(state["at"])
    scrub = views.slider(
        "run-scrub", "Step", value=max(at, 0), limits=(0, max(len(steps) - 1, 0), 1)
    )
    return views.section(
        "run-wiring-part",
        "Wiring",
        "Each wire as thick as its weight. Drag the step to see it come about; click a dot to learn what "
        "it does.",
        html.Div(scrub, className="run-scrub"),
        wiring_panel(None, WIRING, label="Wiring of the network at the chosen step"),
    )


def _compare(rows: Sequence[Row], state: PageState) -> html.Section:
    others = [row for row in rows if row.name != state["run"] and row.state != "broken"]
    chosen = dmc.Select(
        id="run-other",
        data=[{"value": row.name, "label": _option(row)} for row in others],
        value=state["other"] or None,
        placeholder="another run" if others else "there is no other run",
        clearable=True,
        searchable=len(others) > 8,
        size="xs",
        attributes={"input": {"aria-label": "Second run"}},
    )
    level = dmc.TextInput(
        id="run-level",
        value="" if state["level"] is None else f"{state['level']:g}",
        placeholder="the lowest that both reached",
        debounce=400,
        size="xs",
        attributes={"input": {"aria-label": "Common loss", "maxLength": 24}},
    )
    return views.section(
        "run-compare",
        "Compare",
        "",
        html.Div(
            [field("Second run", chosen), field("At a validation loss of", level)],
            className="run-compare-controls",
        ),
    )


def _option(row: Row) -> str:
    return f"{row.label} ({row.name})" if row.label != row.name else row.name


def _frames(*shown: Any) -> list[Any]:
    return [panel.frame.layout() for panel in shown]
