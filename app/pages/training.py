"""The training page: start runs, watch them, look at their snapshots, compare two of them.

A run is a process of its own in a folder of its own, so neither a reload nor the end of this server touches it.
The page asks one cheap question a second, how the run stands; what follows from the answer is drawn anew only
where it changed.
"""

from typing import Any

from dash import ClientsideFunction, Dash, Input, Output, State, ctx, dcc, html, no_update

from app.components import alert, aria, notes
from app.fields import PageState
from app.page import register_panel
from app.pages import training_new
from app.session import Session
from app.training_state import read_run_state
from app.trainings import Row, Trainings
from app.views import training as views
from app.views import training_curves as curves
from app.views import training_panels as panels
from app.views import training_run as run_view
from app.views.wiring import register_pruning, register_wiring
from workbench.errors import WorkbenchError

TITLE, PATH = "Training", "/training"
STATE = "run-state"
SLOW_MS, FAST_MS = 4000, 1000


def layout(session: Session, query: dict[str, Any], unread: list[str]) -> html.Div:
    """The page for one address: a run, or the form of a new one."""
    runs = session.runs
    rows = runs.rows()
    name, complaints = _asked(rows, query)
    main: list[Any] = []
    if name:
        try:
            state, said = read_run_state(runs, {**query, "run": name})
            complaints += said
            main = run_view.layout(runs, rows, state)
        except (WorkbenchError, OSError) as error:
            complaints.append(str(error))
            main = [run_view.lost(name, str(error))]
    else:
        main, said = training_new.layout(session, str(query.get("new") or ""))
        complaints += said
    side = [
        html.A("New run", href=views.new_address(), className="run-link new-run"),
        html.Div(views.run_list(rows, name), id="runs-list", className="runs-list", **aria("Runs")),
        html.Div(_where(runs), className="hint"),
        html.Div(notes([*unread, *complaints])),
        dcc.Store(id="runs-shown", data=name),
        # Pressed by assets/a-network.js once a server that was gone answers again.
        html.Div(
            html.Button("Ask again", id="runs-retry", n_clicks=0, className="plain-button"),
            className="panel",
            hidden=True,
        ),
        dcc.Store(id="runs-stamp"),
        dcc.Interval(id="runs-tick", interval=2000, max_intervals=1),
    ]
    return html.Div(
        [
            html.Aside(side, className="controls", **aria("Runs")),
            html.Div(main, id="panels", className="panels"),
        ],
        className="attention-page work-page training-page",
    )


def _asked(rows: list[Row], query: dict[str, Any]) -> tuple[str, list[str]]:
    """The run that an address names; without one the newest that goes on, else the newest; "" for the form."""
    if query.get("run"):
        return str(query["run"])[:200], []
    if "new" in query or not rows:
        return "", []
    sound = [row for row in rows if row.state != "broken"]
    going = [row for row in sound if row.is_going]
    return (going or sound)[0].name if sound else "", []


def _where(runs: Trainings) -> str:
    return "" if runs.root is None else f"Runs are kept in {runs.root}."


def register(app: Dash, session: Session) -> None:
    """Connect the page."""
    runs = session.runs
    training_new.register(app, session)
    _register_list(app, runs)
    _register_live(app, session)
    _register_actions(app, runs)
    _register_drawing(app, runs)

    def read(given: Any) -> tuple[PageState, list[str]]:
        try:
            return read_run_state(runs, given)
        except WorkbenchError as error:
            return dict(panels.NOTHING), [str(error)]

    for panel in panels.ALL:
        register_panel(app, session.trained, panel, read, STATE)
    for function, outputs, inputs, states in run_view.CLIENTSIDE:
        app.clientside_callback(
            ClientsideFunction("training", function),
            *[Output(id, prop, allow_duplicate=True) for id, prop in outputs],
            *[Input(id, prop) for id, prop in inputs],
            *[State(id, prop) for id, prop in states],
            prevent_initial_call=True,
        )
    app.clientside_callback(
        ClientsideFunction("training", "address"),
        Output("run-sink", "title"),
        Input(STATE, "data"),
        # An input that no callback writes: else Dash leaves out the first call.
        Input("run-first", "data"),
    )
    register_wiring(app, run_view.WIRING)
    for id in panels.PAIR:
        register_wiring(app, id)
    register_pruning(app, panels.PRUNING, run_view.WIRING)


def _register_list(app: Dash, runs: Trainings) -> None:
    @app.callback(
        Output("runs-list", "children"),
        Output("runs-stamp", "data"),
        Output("runs-tick", "disabled"),
        Output("runs-tick", "n_intervals"),
        Input("runs-tick", "n_intervals"),
        Input("runs-retry", "n_clicks"),
        State("runs-shown", "data"),
        State("runs-stamp", "data"),
        prevent_initial_call=True,
    )
    def refresh(_ticks: int, _again: int, shown: Any, stamp: Any) -> tuple[Any, ...]:
        rows = runs.rows()
        found = repr(rows)
        if found == stamp:
            return no_update, no_update, False, 0
        return views.run_list(rows, str(shown or "")), found, False, 0


def _register_live(app: Dash, session: Session) -> None:
    runs = session.runs

    @app.callback(
        Output("run-standing", "children"),
        Output("run-links", "children"),
        Output("run-pause", "hidden"),
        Output("run-cancel", "hidden"),
        Output("run-resume", "hidden"),
        Output("run-steps", "data"),
        Output("run-rest", "data"),
        Output("run-said", "children", allow_duplicate=True),
        Output("run-stamp", "data"),
        Output("run-tick", "disabled"),
        Output("run-tick", "n_intervals"),
        Output("run-tick", "interval"),
        Input("run-tick", "n_intervals"),
        Input("run-retry", "n_clicks"),
        Input("run-did", "data"),
        State(STATE, "data"),
        State("run-stamp", "data"),
        prevent_initial_call="initial_duplicate",
    )
    def live(_ticks: int, _again: int, _did: Any, given: Any, stamp: Any) -> tuple[Any, ...]:
        name = str((given or {}).get("run") or "")
        try:
            folder = runs.find(name)
        except WorkbenchError as error:
            # Nothing more will come of a folder that is gone: the clock stops.
            gone: tuple[Any, ...] = (alert(str(error)), [], True, True, True)
            return (*gone, *[no_update] * 4, True, 0, SLOW_MS)
        row = runs.row(folder)
        steps = list(runs.frames(folder))
        found = repr((row, steps, runs.stamp(folder)))
        pace = (False, 0, FAST_MS if row.is_going else SLOW_MS)
        if found == stamp and ctx.triggered_id == "run-tick":
            return (*[no_update] * 9, *pace)
        standing = [views.standing(row), views.links(row, runs.model_name(row))]
        rest = "" if row.is_going else f"{row.state} {row.step}"
        # What was said of a button holds until the run has changed.
        said = None if ctx.triggered_id == "run-tick" else no_update
        return (*standing, *views.which_buttons(row.state), steps, rest, said, found, *pace)


def _register_actions(app: Dash, runs: Trainings) -> None:
    words = ("pause", "cancel", "resume")

    @app.callback(
        Output("run-said", "children"),
        Output("run-did", "data"),
        *[Input(f"run-{word}", "n_clicks") for word in words],
        State(STATE, "data"),
        prevent_initial_call=True,
    )
    def act(*given: Any) -> tuple[Any, Any]:
        word = str(ctx.triggered_id or "").removeprefix("run-")
        if word not in words or not given[words.index(word)]:
            return no_update, no_update
        try:
            runs.ask(str((given[-1] or {}).get("run") or ""), word)
        except (WorkbenchError, OSError) as error:
            return alert(str(error)), list(given[:-1])
        told = {"pause": "Pausing …", "cancel": "Cancelling …", "resume": "Resuming …"}[word]
        return html.Div(told, className="hint", role="status"), list(given[:-1])


def _register_drawing(app: Dash, runs: Trainings) -> None:
    @app.callback(
        Output("run-losses", "figure"),
        Output("run-measures", "figure"),
        Output("run-measures", "style"),
        Output("run-nothing", "hidden"),
        Input("run-stamp", "data"),
        Input(STATE, "data"),
        prevent_initial_call=True,
    )
    def draw(_stamp: Any, given: Any) -> tuple[Any, ...]:
        try:
            state, _ = read_run_state(runs, given)
            table = runs.metrics(runs.find(state["run"]))
            other = _other(runs, state)
        except WorkbenchError:
            return (no_update,) * 4  # the standing says it
        losses = curves.losses(table, is_log=state["log"] == "on", at=state["at"], other=other)
        measures = curves.measures(table, at=state["at"])
        measures = measures or curves.blank("Nothing yet.")
        style = {"height": f"{measures.layout.height}px"}
        return losses, measures, style, bool(len(table))


def _other(runs: Trainings, state: PageState) -> Any:
    if not state["other"]:
        return None
    folder = runs.find(state["other"])
    return folder.name, runs.metrics(folder)
