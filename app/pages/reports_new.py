"""The form of a new report: what to ask of which models, what that will take, and Start."""

from typing import Any

from dash import ALL, ClientsideFunction, Dash, Input, Output, State, dcc, html, no_update

from app import report_plans as plans
from app.components import alert
from app.fields import PageState
from app.page import REOPEN
from app.report_folder import Wanted
from app.report_state import ASKED, names, read_fields
from app.session import Session
from app.views import reports as views
from app.views import reports_form as form
from app.views.training import section
from workbench.errors import ConfigError, WorkbenchError

STATE = "reports-state"
CHECKED, WHY = ({"type": kind, "probe": ALL} for kind in (form.PROBE, form.WHY))
MAX_FORM = 200
INVITATION = (
    "Ask many questions of one or many models at once: where heads look, what they copy, how they compose, "
    "what each layer would predict. Every number comes with its null. The choice below takes seconds: press "
    "Start, and the numbers appear here as they come."
)
EXPLAINS = (
    "A report asks each chosen probe of each chosen model in processes of its own: it goes on when this page "
    "is closed, and where it was stopped."
)


def layout(
    session: Session, query: dict[str, Any], *, is_first: bool
) -> tuple[list[Any], PageState, list[str]]:
    """The form, filled in from an address, the state that it means, and what could not be meant."""
    state, complaints = read_fields(ASKED, query)
    choices, probes = plans.choices(session), plans.all_probes()
    quick = plans.quick_probes()
    models, said = _models(choices, state["models"])
    chosen, said_too = _probes([probe.name for probe in probes], quick, state["probes"])
    filled = state | {"models": models, "probes": chosen}
    state |= {"new": "1", "models": ",".join(models), "quick": list(quick)}
    content = [
        html.Div(
            [
                html.Button("Start", id="report-start", n_clicks=0, className="start-button"),
                html.Div(
                    "Working out what it will take …",
                    id="report-estimate",
                    className="plan-estimate",
                    role="status",
                ),
            ],
            className="plan-go report-start",
        ),
        dcc.Store(id="report-go"),
        html.Div(id="report-form-said"),
        *form.form(choices, probes, filled, reads_files=session.reports.reads_files),
        dcc.Store(id="report-form-first", data=True),
    ]
    title = "Your first report" if is_first else "New report"
    explains = INVITATION if is_first else EXPLAINS
    shown = section("report-form", title, explains, *content)
    return [shown], state, [*complaints, *said, *said_too]


def _models(choices: list[plans.Choice], listed: str) -> tuple[list[str], list[str]]:
    offered = [choice.spec for choice in choices]
    wanted = names(listed)
    found = [name for name in wanted if name in offered]
    said = [f"no model {name[:60]!r} to ask" for name in wanted if name not in offered][:3]
    if not found and offered:
        found = [plans.FIRST if plans.FIRST in offered else offered[0]]
    return found, said


def _probes(
    known: list[str], quick: tuple[str, ...], listed: str
) -> tuple[tuple[str, ...], list[str]]:
    if listed in ("", "all", "none"):
        return {"": quick, "all": tuple(known), "none": ()}[listed], []
    wanted = names(listed)
    said = [f"no probe {name[:60]!r}" for name in wanted if name not in known][:3]
    found = tuple(name for name in known if name in wanted)
    return found or quick, said


def register(app: Dash, session: Session) -> None:
    """Connect the form."""
    planner = plans.Planner()
    _register_clientside(app)
    _register_estimate(app, session, planner)

    @app.callback(
        Output("report-form-said", "children"),
        Output(REOPEN, "data", allow_duplicate=True),
        Input("report-go", "data"),
        State("report-models", "value"),
        State("report-steps", "value"),
        State("report-data", "value"),
        State("report-title", "value"),
        State(CHECKED, "checked"),
        State(CHECKED, "id"),
        prevent_initial_call=True,
    )
    def start(clicks: int, *given: Any) -> tuple[Any, Any]:
        if not clicks:
            return no_update, no_update
        try:
            wanted = _wanted(session, *given)
            asked = plans.applicable(wanted, planner.estimate(wanted))
            name = session.reports.start(asked)
        except (WorkbenchError, OSError) as error:
            return alert(f"The report was not started: {error}"), no_update
        return None, "?" + views.report_address(name).split("?", 1)[1]


def _register_clientside(app: Dash) -> None:
    # What was typed last comes a moment later: Start waits for it.
    app.clientside_callback(
        ClientsideFunction("reports", "settled"),
        Output("report-go", "data"),
        Input("report-start", "n_clicks"),
        prevent_initial_call=True,
    )
    app.clientside_callback(
        ClientsideFunction("reports", "choose"),
        Output(CHECKED, "checked"),
        *[Input(f"report-choose-{word}", "n_clicks") for word in ("quick", "all", "none")],
        State(CHECKED, "id"),
        State(STATE, "data"),
        prevent_initial_call=True,
    )
    app.clientside_callback(
        ClientsideFunction("reports", "fill"),
        Output(STATE, "data", allow_duplicate=True),
        Input("report-models", "value"),
        Input("report-steps", "value"),
        Input("report-data", "value"),
        Input("report-title", "value"),
        Input(CHECKED, "checked"),
        State(CHECKED, "id"),
        State(STATE, "data"),
        prevent_initial_call=True,
    )


def _register_estimate(app: Dash, session: Session, planner: plans.Planner) -> None:
    @app.callback(
        Output("report-estimate", "children"),
        Output(WHY, "children"),
        Output(CHECKED, "disabled"),
        Output("report-start", "disabled"),
        Input("report-models", "value"),
        Input("report-steps", "value"),
        Input("report-data", "value"),
        Input(CHECKED, "checked"),
        State(CHECKED, "id"),
        Input("report-form-first", "data"),
    )
    def consider(models: Any, steps: Any, data: Any, checked: Any, ids: Any, _f: Any) -> Any:
        count = len(ids)
        try:
            # What is not chosen is asked too whether it applies: a form without any probe tells as much.
            everything = _wanted(session, models, steps, data, "", [True] * count, ids)
            known = planner.estimate(everything)
            refusals = [known.refusals.get(each["probe"], ()) for each in ids]
            why = [form.why(said, known.n_models) for said in refusals]
            nowhere = [len(said) == known.n_models for said in refusals]
            chosen = [bool(on) and not no for on, no in zip(checked, nowhere, strict=True)]
            if not any(chosen):
                said = html.Span("Choose at least one probe.", className="plan-error")
                return said, why, nowhere, True
            found = planner.estimate(_wanted(session, models, steps, data, "", chosen, ids))
        except (WorkbenchError, OSError) as error:
            said = html.Span(str(error), className="plan-error")
            return said, [None] * count, [False] * count, True
        return form.estimate(found), why, nowhere, False


def _wanted(session: Session, *given: Any) -> Wanted:
    """What the form says.

    Raises:
        WorkbenchError: something that cannot be meant.
    """
    models, steps, data, title, checked, ids = given
    lists = (models, checked, ids)
    if not all(isinstance(each, list) and len(each) <= MAX_FORM for each in lists):
        raise ConfigError("the form could not be read: open the page again")
    every = {choice.spec for choice in plans.choices(session) if choice.n_steps and steps == "all"}
    specs = [f"{name}{plans.ALL_STEPS}" if name in every else str(name) for name in models]
    probes = [str(each["probe"]) for each, on in zip(ids, checked, strict=False) if on]
    words = str(data or "").strip() or "stdlib"
    title = " ".join(str(title or "").split())
    return plans.checked(session, Wanted(tuple(specs), tuple(probes), words, title))
