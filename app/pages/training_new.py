"""The form of a new run: a preset to start from, its fields, what it will cost, and Start."""

from typing import Any

import dash_mantine_components as dmc
from dash import ALL, ClientsideFunction, Dash, Input, Output, State, dcc, html, no_update

from app.components import alert, field
from app.page import REOPEN
from app.session import Session
from app.views import training as views
from app.views import training_form as form
from workbench.errors import WorkbenchError
from workbench.training.plan import Plan, presets

FIRST = "bimt-independence"
INPUTS, ERRORS, REASONS = (
    {"type": kind, "field": ALL} for kind in (form.CONTROL, form.ERROR, form.REASON)
)
MAX_FORM = 64


def layout(session: Session, preset: str) -> tuple[list[Any], list[str]]:
    """The form, begun with a preset, and what could not be meant."""
    known = presets()
    complaints = []
    chosen = preset or FIRST
    if chosen not in known:
        near = [name for name in known if name.split("/")[0] == chosen]
        if not near and preset:
            complaints.append(f"no preset {preset[:40]!r}: the form starts from {FIRST}")
        chosen = (
            near[-1] if near else next((n for n in known if n.startswith(FIRST)), next(iter(known)))
        )
    select = dmc.Select(
        id="plan-preset",
        data=_options(list(known)),
        value=chosen,
        allowDeselect=False,
        searchable=True,
        attributes={"input": {"aria-label": "Start from"}},
    )
    content = [
        dcc.Store(id="plan-ready"),
        dcc.Store(id="plan-go"),
        html.Div(
            [
                html.Div(field("Start from", select), className="plan-preset"),
                html.Div(
                    [
                        html.Button("Start", id="plan-start", n_clicks=0, className="start-button"),
                        html.Div(
                            "Timing a few steps …",
                            id="plan-estimate",
                            className="plan-estimate",
                            role="status",
                        ),
                    ],
                    className="plan-go",
                ),
            ],
            className="plan-head",
        ),
        html.Div(id="plan-said"),
        html.Div(form.form(known[chosen]), id="plan-fields", className="plan-fields"),
    ]
    explains = (
        "A small network is trained in a process of its own: it goes on when this page is closed. Choose "
        "what to start from, change what you like, and press Start; loss, wiring and modularity are drawn "
        "as they come."
    )
    return [views.section("plan", "New run", explains, *content)], complaints


def _options(names: list[str]) -> list[dict[str, Any]]:
    groups: dict[str, list[dict[str, str]]] = {}
    for name in names:
        groups.setdefault(name.split("/")[0] if "/" in name else "others", []).append(
            {"value": name, "label": name}
        )
    return [{"group": group, "items": items} for group, items in groups.items()]


def register(app: Dash, session: Session) -> None:
    """Connect the form."""
    _register_fields(app)
    _register_estimate(app, session)
    # What was typed last comes a moment later: Start waits for it.
    app.clientside_callback(
        ClientsideFunction("training", "settled"),
        Output("plan-go", "data"),
        Input("plan-start", "n_clicks"),
        prevent_initial_call=True,
    )

    @app.callback(
        Output("plan-said", "children"),
        Output(REOPEN, "data", allow_duplicate=True),
        Input("plan-go", "data"),
        State(INPUTS, "value"),
        State(INPUTS, "id"),
        State("plan-preset", "value"),
        prevent_initial_call=True,
    )
    def start(clicks: int, values: Any, ids: Any, preset: Any) -> tuple[Any, Any]:
        if not clicks:
            return no_update, no_update
        plan, errors = _read(values, ids, preset)
        if plan is None:
            return alert(
                errors.get("") or "Some fields cannot be meant: see beside them."
            ), no_update
        try:
            name = session.runs.start(plan)
        except (WorkbenchError, OSError) as error:
            return alert(f"The run was not started: {error}"), no_update
        return None, "?" + views.run_address(name).split("?", 1)[1]


def _register_fields(app: Dash) -> None:
    @app.callback(
        Output("plan-fields", "children"), Input("plan-preset", "value"), prevent_initial_call=True
    )
    def restart(preset: Any) -> Any:
        known = presets()
        return form.form(known[preset]) if preset in known else no_update

    @app.callback(
        Output("plan-fields", "children", allow_duplicate=True),
        Input({"type": form.CONTROL, "field": "task"}, "value"),
        Input({"type": form.CONTROL, "field": form.KIND}, "value"),
        State(INPUTS, "value"),
        State(INPUTS, "id"),
        State("plan-preset", "value"),
        prevent_initial_call=True,
    )
    def another(_task: Any, _kind: Any, values: Any, ids: Any, preset: Any) -> Any:
        known = presets()
        if preset not in known:
            return no_update
        found = form.refit(_given(values, ids), known[preset], known)
        return no_update if found is None else form.form(found)

    @app.callback(
        Output(ERRORS, "children"),
        Output(REASONS, "children"),
        Output(INPUTS, "disabled"),
        Output("plan-ready", "data"),
        Output("plan-start", "disabled"),
        Input(INPUTS, "value"),
        State(INPUTS, "id"),
        State("plan-preset", "value"),
        State(REASONS, "data-hint"),
    )
    def check(values: Any, ids: Any, preset: Any, hints: Any) -> tuple[Any, ...]:
        names = [str(each["field"]) for each in ids]
        plan, errors = _read(values, ids, preset)
        said = [errors.get(name, "") for name in names]
        if plan is None:
            same = [no_update] * len(names)
            return said, same, same, {"error": errors.get("", "")}, True
        reasons = form.reasons_of(plan)
        shown = [reasons.get(name) or hint for name, hint in zip(names, hints, strict=True)]
        return said, shown, [name in reasons for name in names], {"plan": plan.to_json()}, False


def _register_estimate(app: Dash, session: Session) -> None:
    @app.callback(Output("plan-estimate", "children"), Input("plan-ready", "data"))
    def cost(ready: Any) -> Any:
        if not isinstance(ready, dict) or not isinstance(ready.get("plan"), str):
            said = (ready or {}).get("error") if isinstance(ready, dict) else ""
            return html.Span(
                said or "No estimate: a field cannot be meant.", className="plan-error"
            )
        try:
            # It comes from a browser: what may not be run is not tried out either.
            session.runs.check(Plan.from_json(ready["plan"]))
            found = session.estimator(ready["plan"])
        except WorkbenchError as error:
            return html.Span(str(error), className="plan-error")
        return _spelled(found)


def _spelled(found: Any) -> list[Any]:
    size = found.bytes_on_disk / 1e6
    return [
        html.Strong(f"about {views.spell_time(found.seconds)}"),
        html.Span(
            f"{found.n_parameters:,} parameters, {found.seconds_per_step * 1000:.3g} ms a step, "
            f"{size:.2g} MB on disk",
            className="fact",
        ),
    ]


def _read(values: Any, ids: Any, preset: Any) -> tuple[Plan | None, form.Errors]:
    known = presets()
    if preset not in known or not isinstance(values, list) or len(values) > MAX_FORM:
        return None, {"": "the form could not be read: open the page again"}
    return form.read_form(_given(values, ids), known[preset])


def _given(values: Any, ids: Any) -> dict[str, Any]:
    return {str(each["field"]): value for each, value in zip(ids, values, strict=False)}
