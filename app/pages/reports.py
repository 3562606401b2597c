"""The reports page: start reports of many probes on many models, watch them, browse what they found.

A report is a process of its own in a folder of its own, so neither a reload nor the end of this server touches
it. Its numbers stay on the server: the grids ask for what a screen shows.
"""

from typing import Any

from dash import ClientsideFunction, Dash, Input, Output, State, ctx, dcc, html, no_update

from app.components import alert, aria, notes
from app.fields import PageState
from app.pages import reports_new, reports_results
from app.report_desk import ReportDesk, Row
from app.report_state import FIND, SHOWN, read_fields
from app.session import Session
from app.views import reports as views
from app.views import reports_heads as heads
from app.views import reports_tables as tables
from workbench.errors import WorkbenchError

TITLE, PATH = "Reports", "/reports"
STATE, DATA = reports_new.STATE, "report-data"
SLOW_MS, FAST_MS = 4000, 1000


def layout(session: Session, query: dict[str, Any], unread: list[str]) -> html.Div:
    """The page for one address: a report, or the form of a new one."""
    desk = session.reports
    found, complaints = read_fields(FIND, query)
    try:
        rows = desk.rows()
    except WorkbenchError as error:
        rows, said = [], str(error)
        complaints.append(said)
    name = _asked(rows, query)
    if name:
        main, state, said_of = _report(desk, name, query)
    else:
        main, state, said_of = reports_new.layout(session, query, is_first=not rows)
    complaints += said_of
    state |= found
    side = [
        html.A("New report", href="/reports?new=1", className="run-link new-run"),
        views.find_box(found["find"]),
        html.Div(
            views.report_list(rows, name, found["find"]),
            id="reports-list",
            className="runs-list",
            **aria("Reports"),
        ),
        html.Div("" if desk.root is None else f"Reports are kept in {desk.root}.", className="hint"),
        html.Div(notes([*unread, *complaints])),
        dcc.Store(id=STATE, data=state),
        dcc.Store(id="reports-first", data=name),
        dcc.Store(id="reports-stamp"),
        html.Span(id="reports-sink", hidden=True),
        dcc.Interval(id="reports-tick", interval=2500, max_intervals=1),
    ]  # fmt: skip
    return html.Div(
        [
            html.Aside(side, className="controls", **aria("Reports")),
            html.Div(main, id="panels", className="panels"),
        ],
        className="attention-page work-page reports-page",
    )


def _asked(rows: list[Row], query: dict[str, Any]) -> str:
    """The report of an address; without one the newest that goes on, else the newest; "" for the form."""
    if query.get("report"):
        return str(query["report"])[:200]
    if "new" in query or not rows:
        return ""
    sound = [row for row in rows if row.state != "broken"]
    going = [row for row in sound if row.is_going]
    return (going or sound)[0].name if sound else ""


def _report(
    desk: ReportDesk, name: str, query: dict[str, Any]
) -> tuple[list[Any], PageState, list[str]]:
    state, complaints = read_fields(SHOWN, query)
    state["report"] = name
    try:
        folder = desk.find(name)
    except WorkbenchError as error:
        return [views.lost(name, str(error))], state, complaints
    row = desk.row(folder)
    if row.state == "broken":
        return [views.lost(name, row.standing.message)], state, complaints
    main = [
        dcc.Store(id="report-stamp"),
        dcc.Store(id="report-did"),
        dcc.Store(id=DATA),
        dcc.Interval(id="report-tick", interval=1000, max_intervals=1, disabled=True),
        views.head(row, folder),
        html.Div(id="report-broken"),
        dcc.Store(id="report-auto"),
        html.Div([heads.pivot_section(state), tables.findings_section(state)], id="report-results"),
        reports_results.jobs_section(),
    ]
    return main, state, complaints


def register(app: Dash, session: Session) -> None:
    """Connect the page."""
    reports_new.register(app, session)
    reports_results.register(app, session)
    _register_list(app, session.reports)
    _register_live(app, session.reports)
    _register_actions(app, session.reports)
    clientside = (
        (
            "look",
            ("report-measure", "value"),
            ("report-of", "value"),
            ("report-whose", "value"),
            ("report-auto", "data"),
            (tables.GRID, "filterModel"),
            (tables.GRID, "getRowsRequest"),
        ),
        ("find", ("reports-find", "value")),
    )
    for function, *inputs in clientside:
        app.clientside_callback(
            ClientsideFunction("reports", str(function)),
            Output(STATE, "data", allow_duplicate=True),
            *[Input(id, prop) for id, prop in inputs],
            State(STATE, "data"),
            prevent_initial_call=True,
        )
    app.clientside_callback(
        ClientsideFunction("reports", "address"),
        Output("reports-sink", "title"),
        Input(STATE, "data"),
        # An input that no callback writes: else Dash leaves out the first call.
        Input("reports-first", "data"),
    )
    app.clientside_callback(
        ClientsideFunction("reports", "refresh"),
        Output("report-grid-said", "title"),
        Input(DATA, "data"),
        prevent_initial_call=True,
    )


def _register_list(app: Dash, desk: ReportDesk) -> None:
    @app.callback(
        Output("reports-list", "children"),
        Output("reports-stamp", "data"),
        Output("reports-tick", "disabled"),
        Output("reports-tick", "n_intervals"),
        Input("reports-tick", "n_intervals"),
        Input("reports-find", "value"),
        State("reports-first", "data"),
        State("reports-stamp", "data"),
        prevent_initial_call=True,
    )
    def refresh(_ticks: int, words: Any, shown: Any, stamp: Any) -> tuple[Any, ...]:
        find = str(words or "")[:120]
        try:
            rows = desk.rows()
        except WorkbenchError as error:
            return alert(str(error)), None, False, 0
        found = repr((rows, find))
        if found == stamp:
            return no_update, no_update, False, 0
        return views.report_list(rows, str(shown or ""), find), found, False, 0


def _register_live(app: Dash, desk: ReportDesk) -> None:
    @app.callback(
        Output("report-standing", "children"),
        Output("report-files", "children"),
        Output("report-cancel", "hidden"),
        Output("report-resume", "hidden"),
        Output(DATA, "data"),
        Output("report-said", "children", allow_duplicate=True),
        Output("report-stamp", "data"),
        Output("report-tick", "disabled"),
        Output("report-tick", "n_intervals"),
        Output("report-tick", "interval"),
        Input("report-tick", "n_intervals"),
        Input("report-retry", "n_clicks"),
        Input("report-did", "data"),
        State("reports-first", "data"),
        State("report-stamp", "data"),
        State(DATA, "data"),
        prevent_initial_call="initial_duplicate",
    )
    def live(_t: int, _again: int, _did: Any, name: Any, stamp: Any, data: Any) -> tuple[Any, ...]:
        try:
            folder = desk.find(name)
        except WorkbenchError as error:
            # Nothing more will come of a folder that is gone: the clock stops.
            return (alert(str(error)), [], True, True, *[no_update] * 3, True, 0, SLOW_MS)
        row = desk.row(folder)
        files = [folder.product(name) for name in ("report.html", "findings.parquet")]
        found = repr((row, files))
        pace = (False, 0, FAST_MS if row.is_going else SLOW_MS)
        if found == stamp and ctx.triggered_id == "report-tick":
            return (*[no_update] * 7, *pace)
        # What was said of a button holds until the next look.
        is_tick = ctx.triggered_id == "report-tick"
        version = _version(row, folder.stamp)
        return (
            views.standing(row),
            views.files(folder),
            *views.which_buttons(row),
            no_update if version == data else version,
            None if is_tick else no_update,
            found if is_tick else None,
            *pace,
        )


def _version(row: Row, stamp: tuple[int, ...]) -> str:
    """Changes when the tables are to be read anew: while a report goes on, each time results have doubled."""
    if row.is_going:
        return f"going {row.standing.asked[0].bit_length()} {any(stamp[3:])}"
    return f"{row.state} {stamp}"


def _register_actions(app: Dash, desk: ReportDesk) -> None:
    words = ("cancel", "resume")

    @app.callback(
        Output("report-said", "children"),
        Output("report-did", "data"),
        *[Input(f"report-{word}", "n_clicks") for word in words],
        State("reports-first", "data"),
        prevent_initial_call=True,
    )
    def act(*given: Any) -> tuple[Any, Any]:
        word = str(ctx.triggered_id or "").removeprefix("report-")
        if word not in words or not given[words.index(word)]:
            return no_update, no_update
        try:
            desk.ask(given[-1], word)
        except (WorkbenchError, OSError) as error:
            return alert(str(error)), list(given[:-1])
        told = {"cancel": "Cancelling …", "resume": "Resuming …"}[word]
        return html.Div(told, className="hint", role="status"), list(given[:-1])
