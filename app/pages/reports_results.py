"""What a report has found, on its page: the table of heads, all findings block by block, and how jobs ended."""

from pathlib import Path
from typing import Any

from dash import Dash, Input, Output, State, html, no_update

from app.components import alert
from app.report_desk import NothingYetError, ReportDesk
from app.report_filters import read_request
from app.report_findings import LARGEST, MEAN, Findings, Measure
from app.session import Session
from app.tables import data_table
from app.views import reports_heads as heads
from app.views import reports_tables as tables
from app.views.reports import visible_text
from app.views.training import section
from workbench.errors import UnsupportedError, WorkbenchError

STATE, DATA = "reports-state", "report-data"
# What of several measures is shown first, where a report has it.
FIRST = "head-behaviours/induction"


def register(app: Dash, session: Session) -> None:
    """Connect the tables."""
    _register_rows(app, session)
    _register_pivot(app, session)
    _register_jobs(app, session.reports)


def jobs_section() -> html.Section:
    """How each job ended; a callback fills it."""
    return section(
        "report-jobs",
        "Jobs",
        "Each probe of each model: how it ended, and why some have no result.",
        html.Div(id="report-jobs-table"),
    )


def known_models(session: Session) -> dict[str, tuple[str, tuple[int, ...]]]:
    """What other pages call a model and which checkpoints they show, by its name and by its path."""
    known: dict[str, tuple[str, tuple[int, ...]]] = {}
    for info in session.models():
        known[info.name] = (info.name, info.steps)
        if info.kind == "own":
            known.setdefault(str(Path(info.name).resolve()), (info.name, info.steps))
    return known


def _register_rows(app: Dash, session: Session) -> None:
    desk = session.reports

    @app.callback(
        Output(tables.GRID, "getRowsResponse"),
        Output("report-grid-said", "children"),
        Input(tables.GRID, "getRowsRequest"),
        State("reports-first", "data"),
        prevent_initial_call=True,
    )
    def rows(asked: Any, name: Any) -> tuple[Any, Any]:
        if asked is None:
            return no_update, no_update
        try:
            findings = desk.findings(name)
            found, total = findings.block(read_request(asked))
        except NothingYetError:
            return {"rowData": [], "rowCount": 0}, None
        except WorkbenchError as error:
            return {"rowData": [], "rowCount": 0}, alert(str(error))
        opens = tables.opener(findings, known_models(session))
        said = f"{total:,} of {findings.n_rows:,} rows" if total != findings.n_rows else ""
        shown = html.Div(said or f"{total:,} rows", className="hint", role="status")
        return {"rowData": tables.rows_of(found, opens), "rowCount": total}, shown


def _register_pivot(app: Dash, session: Session) -> None:
    @app.callback(
        Output("report-pivot", "children"),
        Output("report-whose", "data"),
        Output("report-measure", "data"),
        Output("report-measure", "value"),
        Output("report-auto", "data"),
        Output("report-of", "data"),
        Output("report-of-field", "hidden"),
        Output("report-measure-field", "hidden"),
        Output("report-results", "hidden"),
        Output("report-broken", "children"),
        Input(DATA, "data"),
        Input("report-measure", "value"),
        Input("report-of", "value"),
        Input("report-whose", "value"),
        State("report-auto", "data"),
        State("reports-first", "data"),
        State(STATE, "data"),
        prevent_initial_call=True,
    )
    def pivot(data: Any, chosen: Any, *given: Any) -> tuple[Any, ...]:
        if data is None:  # the first look at how the report stands has not come back yet
            return (no_update,) * 10
        of, whose, auto, name, state = given
        asked = state or {}
        # A list drops what it does not hold: the address still says what was meant.
        whose = asked.get("whose") if whose is None else whose
        return _look(session, name, (chosen, auto, asked.get("measure")), (of, whose))


def _look(
    session: Session, name: Any, measures_named: tuple[Any, Any, Any], shown: tuple[Any, Any]
) -> tuple[Any, ...]:
    """What the callback above returns.

    Args:
        measures_named: chosen in the list; chosen there by nobody; asked for by the address.
        shown: which of several numbers of a head; whose heads, all models' or one's.
    """
    chosen, auto, in_address = measures_named
    of, whose = shown
    none = (no_update, no_update, no_update, no_update, no_update, True, no_update)
    try:
        findings = session.reports.findings(name)
        if not findings.n_rows and not findings.broken:
            raise NothingYetError("There are no results yet.")
        broken = [alert(visible_text(reason)) for reason in findings.broken[:5]]
        measures = findings.measures()
        if not measures:
            hint = html.Div("Nothing was measured of heads so far.", className="hint")
            return hint, *none, False, broken
        # What nobody chose gives way as soon as there is something better to begin with.
        wanted = in_address if chosen in (None, auto) else chosen
        measure, said = _measure(measures, wanted)
        models = findings.models()
        if whose and whose not in models:
            lacks = f"no heads of {str(whose)[:80]!r} in this report: this shows all models"
            said, whose = [*said, _note(lacks)], heads.EVERY
        content = _drawn(session, findings, measure, (of, whose))
    except NothingYetError as error:
        return no_update, *none, True, html.Div(str(error), className="hint report-none")
    except WorkbenchError as error:
        return no_update, *none, False, alert(str(error))
    places = () if whose else measure.places
    return (
        [*said, *content],
        heads.whose_options(models),
        heads.measure_options(measures),
        measure.key,
        _first(measures).key,
        heads.of_options(places),
        len(places) == 1,
        bool(whose),
        False,
        broken,
    )


def _drawn(
    session: Session, findings: Findings, measure: Measure, shown: tuple[Any, Any]
) -> list[Any]:
    of, whose = shown
    opens = tables.opener(findings, known_models(session))
    if whose:
        made = of if of in (LARGEST, MEAN) else LARGEST
        return heads.profile_grid(findings.profile(str(whose), made), made, opens)
    found = findings.pivot(measure, _place(measure, of))
    if not found.heads:
        raise UnsupportedError(f"{measure.name} has no number for any head")
    return heads.pivot_grid(found, measure, opens)


def _note(text: str) -> html.Div:
    return html.Div(visible_text(text), className="alert note", role="status")


def _measure(measures: list[Measure], wanted: Any) -> tuple[Measure, list[Any]]:
    """The measure that is asked for; else one that there is, and that is said."""
    by_key, wanted = {one.key: one for one in measures}, str(wanted or "")
    if wanted in by_key:
        return by_key[wanted], []
    said = []
    if wanted:
        lacks = f"no measure {wanted[:80]!r} of heads in this report: this shows another"
        said = [_note(lacks)]
    return _first(measures), said


def _first(measures: list[Measure]) -> Measure:
    return next((one for one in measures if one.key == FIRST), measures[0])


def _place(measure: Measure, of: Any) -> str:
    """One number of each head: the place that is asked for if the measure has it, else the largest of all."""
    if len(measure.places) == 1:
        return measure.places[0]
    return str(of) if of in (*measure.places, LARGEST, MEAN) else LARGEST


def _register_jobs(app: Dash, desk: ReportDesk) -> None:
    @app.callback(
        Output("report-jobs-table", "children"),
        Input(DATA, "data"),
        State("reports-first", "data"),
        prevent_initial_call=True,
    )
    def jobs(data: Any, name: Any) -> Any:
        if data is None:
            return no_update
        try:
            frame = desk.jobs(name)
        except NothingYetError:
            return html.Div("No jobs yet.", className="hint")
        except WorkbenchError as error:
            return alert(str(error))
        if frame.empty:
            return html.Div("No jobs yet.", className="hint")
        for column in ("model", "probe", "why"):
            frame[column] = [visible_text(text) for text in frame[column]]
        return data_table(frame, label="Jobs", formats={"seconds": ".2~f"})
