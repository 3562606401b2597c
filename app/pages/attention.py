"""The attention page: every head of a model on a prompt, and what changes it.

The browser keeps what is asked for in one store, `REQUEST`; `show` answers it, at once or bit by bit; the
viewer reads the numbers themselves by key. The address bar follows the request and the chosen head.
"""

from typing import Any

from dash import ALL, ClientsideFunction, Dash, Input, Output, State, ctx, no_update, set_props

from app.components import alert, notes
from app.pages import attention_layout as parts
from app.pages.attention_layout import (
    ALERT,
    BEFORE,
    BEFORE_BLOCK,
    BEFORE_LABEL,
    CERTIFICATE,
    CHOSEN,
    CODE,
    CODE_BUTTON,
    CODE_COPY,
    CODE_PANEL,
    DOWNLOAD,
    EXAMPLE,
    EXAMPLES,
    FACTS,
    HEAD,
    KIND,
    KIND_HINT,
    MODEL,
    MODEL_HINT,
    NOTE,
    OTHER,
    OTHER_BLOCK,
    PROGRESS,
    PROMPT,
    REQUEST,
    RUN,
    SHOWN,
    STAGE,
    STEP,
    STEP_LABEL,
    STEPS_BLOCK,
    TICK,
    URL_SINK,
    WHY,
)
from app.prompts import first_prompt, matched_pair
from app.session import Session, Shown, Status
from app.state import KINDS, Selection, View, read_view
from app.views import attention as views

TITLE, PATH = "Attention", "/"
WAIT_SECONDS = 0.8
layout = parts.layout


def register(app: Dash, session: Session) -> None:
    """Connect the page; callbacks only carry values."""
    _register_choice(app, session)
    _register_writing(app)
    _register_show(app, session)
    _register_browser(app)


def _register_choice(app: Dash, session: Session) -> None:
    @app.callback(
        Output(CHOSEN, "data"),
        Output(PROMPT, "value"),
        Output(EXAMPLES, "children"),
        Output(MODEL_HINT, "children"),
        Output(KIND, "data"),
        Output(KIND, "value"),
        Output(STEPS_BLOCK, "children"),
        Output(OTHER, "value"),
        Input(MODEL, "value"),
        State(CHOSEN, "data"),
        State(PROMPT, "value"),
        State(KIND, "value"),
        State(OTHER, "value"),
        prevent_initial_call=True,
    )
    def choose(
        name: str, before: dict[str, Any], prompt: str, kind: str, other: str
    ) -> tuple[Any, ...]:
        info = session.info(name)
        if KINDS[kind].needs_steps and not info.steps:
            kind = "pattern"
        # The visitor's own words stay; an example of the model before gives way to one of this.
        if not prompt or prompt in (*before["examples"], before["mean"]):
            prompt = first_prompt(info, kind)
        if not other or other in before["others"]:
            other = matched_pair(prompt)
        view = View(model=name, kind=kind, before=info.steps[0] if info.steps else None)
        return (
            parts.chosen(session, info),
            prompt,
            parts.examples(info),
            views.summary(info),
            views.kind_options(bool(info.steps)),
            kind,
            parts.sliders(info, view),
            other,
        )


def _register_writing(app: Dash) -> None:
    app.clientside_callback(
        ClientsideFunction("attention", "example"),
        Output(PROMPT, "value", allow_duplicate=True),
        Output(OTHER, "value", allow_duplicate=True),
        Input({"type": EXAMPLE, "index": ALL}, "n_clicks"),
        State(CHOSEN, "data"),
        State(OTHER, "value"),
        prevent_initial_call=True,
    )
    app.clientside_callback(
        ClientsideFunction("attention", "shape"),
        Output(PROMPT, "value", allow_duplicate=True),
        Input(KIND, "value"),
        State(PROMPT, "value"),
        State(CHOSEN, "data"),
        prevent_initial_call=True,
    )
    app.clientside_callback(
        ClientsideFunction("attention", "request"),
        Output(REQUEST, "data"),
        Output(OTHER_BLOCK, "hidden"),
        Output(BEFORE_BLOCK, "hidden"),
        Output(KIND_HINT, "children"),
        Output(STEP_LABEL, "children"),
        Output(BEFORE_LABEL, "children"),
        Input(RUN, "n_clicks"),
        Input(CHOSEN, "data"),
        Input(PROMPT, "value"),
        Input(OTHER, "value"),
        Input(KIND, "value"),
        Input(STEP, "value"),
        Input(BEFORE, "value"),
        State(REQUEST, "data"),
        prevent_initial_call=True,
    )


def _register_show(app: Dash, session: Session) -> None:
    @app.callback(
        Output(SHOWN, "data"),
        Output(ALERT, "children"),
        Output(PROGRESS, "children"),
        Output(TICK, "disabled"),
        Output(FACTS, "children"),
        Output(CERTIFICATE, "children"),
        Output(CODE, "children"),
        Output(DOWNLOAD, "href"),
        Output(NOTE, "children"),
        Output(STAGE, "className"),
        Input(REQUEST, "data"),
        Input(TICK, "n_intervals"),
        State(SHOWN, "data"),
        State(ALERT, "children"),
        State(HEAD, "data"),
    )
    def show(request: Any, _ticks: int, shown: Any, alerts: Any, head: Any) -> tuple[Any, ...]:
        view, complaints = read_view(request, View())
        if complaints:
            return _failed(shown, view, alert("; ".join(complaints)))
        # Dash drops the answer to a call that another follows, so a tick must not outlast the clock.
        is_poll = ctx.triggered_id == TICK
        status = session.request(view, wait=0.0 if is_poll else WAIT_SECONDS, is_poll=is_poll)
        if status.error:
            return _failed(shown, view, _example_instead(session, view, shown, status))
        if status.shown is None:
            return (no_update, no_update, views.progress(status), False, *_old(shown, view))
        # Notes (a list) stay through the first success; errors go with any.
        if shown is not None:
            return _shown(status, None)
        said = alerts if isinstance(alerts, list) else []
        return _shown(status, said + notes(_fit_head(session, status.shown, head)))


def _example_instead(session: Session, view: View, shown: Any, status: Status) -> Any:
    """What is said of an error; a newly chosen model that cannot read the prompt gets its own example."""
    is_new = shown is not None and shown["model"] != view.model
    if not (status.is_prompt_error and is_new):
        return alert(status.error)
    info = session.info(view.model)
    prompt = first_prompt(info, view.kind)
    if view.prompt == prompt:
        return alert(status.error)
    set_props(PROMPT, {"value": prompt})
    set_props(OTHER, {"value": matched_pair(prompt)})
    set_props(HEAD, {"data": Selection(session.first_head(view.model)).as_viewer_state()})
    return notes([f"{status.error}. This is an example of {view.model} instead."])


def _fit_head(session: Session, shown: Shown, head: Any) -> list[str]:
    """Complaints about a head or token that the model or prompt lacks; the page falls back."""
    counts = [0 if layer is None else len(layer) for layer in shown.maps.layers]
    state, complaints = dict(head), []
    layer, index = state["layer"], state["head"]
    if layer is not None and not (layer < len(counts) and index < counts[layer]):
        complaints.append(
            f"{shown.view.model} has no head {layer}.{index}: its layers have {counts}"
        )
        first = session.first_head(shown.view.model)
        state = Selection(first, False, state["pos"]).as_viewer_state()
    if state["pos"] is not None and state["pos"] >= shown.n_tokens:
        complaints.append(
            f"no token {state['pos']}: they are counted from 0 to {shown.n_tokens - 1}"
        )
        state["pos"] = None
    if complaints:
        set_props(HEAD, {"data": state})
    return complaints


def _failed(shown: Any, view: View, said: Any) -> tuple[Any, ...]:
    """An error beside the prompt; the last good view stays, and says that it is the last one."""
    # A list is a note that the next success must not clear: to it, nothing has been shown before.
    marks = None if isinstance(said, list) else no_update
    stale = _old(shown, view) if shown is None else _stale(shown, view)
    return (marks, said, None, True, *stale)


def _old(shown: Any, view: View) -> tuple[Any, ...]:
    """The stage while something else is asked for; a change of model is said at once."""
    if shown is None or shown["model"] == view.model:
        return (no_update,) * 6
    return _stale(shown, view)


def _stale(shown: Any, view: View) -> tuple[Any, ...]:
    certificate = no_update if shown["model"] == view.model else None
    facts = views.still_showing(shown["title"])
    return (facts, certificate, "", no_update, None, "stage stale")


def _shown(status: Status, alerts: Any) -> tuple[Any, ...]:
    shown = status.shown
    assert shown is not None
    return (
        views.shown_store(shown),
        alerts,
        None,
        True,
        views.facts(shown),
        views.certificate(shown),
        views.code(shown.view),
        f"/api/attention/{status.key}/page.html",
        shown.note,
        "stage",
    )


def _register_browser(app: Dash) -> None:
    app.clientside_callback(
        ClientsideFunction("attention", "mount"),
        Output(URL_SINK, "children"),
        Input(SHOWN, "data"),
        State(HEAD, "data"),
        State(REQUEST, "data"),
        State(CHOSEN, "data"),
    )
    app.clientside_callback(
        ClientsideFunction("attention", "training"),
        Output(URL_SINK, "lang"),
        Input(REQUEST, "data"),
        Input(SHOWN, "data"),
        State(CHOSEN, "data"),
    )
    app.clientside_callback(
        ClientsideFunction("attention", "address"),
        Output(URL_SINK, "title"),
        Input(REQUEST, "data"),
        Input(HEAD, "data"),
        prevent_initial_call=True,
    )
    app.clientside_callback(
        ClientsideFunction("attention", "why"),
        Output(WHY, "href"),
        Output(WHY, "hidden"),
        Input(SHOWN, "data"),
        Input(HEAD, "data"),
        State(REQUEST, "data"),
    )
    app.clientside_callback(
        ClientsideFunction("attention", "code"),
        Output(CODE_PANEL, "hidden"),
        Input(CODE_BUTTON, "n_clicks"),
        State(CODE_PANEL, "hidden"),
        prevent_initial_call=True,
    )
    app.clientside_callback(
        ClientsideFunction("attention", "copy"),
        Output(CODE_COPY, "children"),
        Input(CODE_COPY, "n_clicks"),
        State(CODE, "children"),
        prevent_initial_call=True,
    )
