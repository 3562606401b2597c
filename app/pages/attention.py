"""The attention page: every head of a model on a prompt, and what changes it.

The browser keeps what is asked for in one store, `REQUEST`; `show` answers it, at once or bit by bit; the
viewer reads the numbers themselves by key. The address bar follows the request and the chosen head.
"""

from typing import Any

from dash import ALL, ClientsideFunction, Dash, Input, Output, State, no_update

from app.components import alert
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
    OTHER,
    OTHER_BLOCK,
    PROGRESS,
    PROMPT,
    REQUEST,
    RUN,
    SHOWN,
    STEP,
    STEP_LABEL,
    STEPS_BLOCK,
    TICK,
    URL_SINK,
)
from app.session import Session, Status
from app.state import KINDS, View, read_view
from app.views import attention as views

TITLE, PATH = "Attention", "/"
WAIT_SECONDS = 0.8
layout = parts.layout


def register(app: Dash, session: Session) -> None:
    """Connect the page; callbacks only carry values."""
    _register_controls(app, session)
    _register_show(app, session)
    _register_browser(app)


def _register_controls(app: Dash, session: Session) -> None:
    @app.callback(
        Output(CHOSEN, "data"),
        Output(PROMPT, "value"),
        Output(EXAMPLES, "children"),
        Output(MODEL_HINT, "children"),
        Output(KIND, "data"),
        Output(KIND, "value"),
        Output(STEPS_BLOCK, "children"),
        Input(MODEL, "value"),
        State(CHOSEN, "data"),
        State(PROMPT, "value"),
        State(KIND, "value"),
        prevent_initial_call=True,
    )
    def choose(name: str, before: dict[str, Any], prompt: str, kind: str) -> tuple[Any, ...]:
        info = session.info(name)
        # The visitor's own words stay; an example of the model before gives way to one of this.
        if (not prompt or prompt in before["examples"]) and info.example_prompts:
            prompt = info.example_prompts[0]
        if KINDS[kind].needs_steps and not info.steps:
            kind = "pattern"
        return (
            parts.chosen(info),
            prompt,
            parts.examples(info),
            views.summary(info),
            views.kind_options(bool(info.steps)),
            kind,
            parts.sliders(info, View(model=name, kind=kind)),
        )

    app.clientside_callback(
        ClientsideFunction("attention", "example"),
        Output(PROMPT, "value", allow_duplicate=True),
        Input({"type": EXAMPLE, "index": ALL}, "n_clicks"),
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
        Input(REQUEST, "data"),
        Input(TICK, "n_intervals"),
        State(SHOWN, "data"),
        State(ALERT, "children"),
    )
    def show(request: Any, _ticks: int, shown: Any, alerts: Any) -> tuple[Any, ...]:
        view, complaints = read_view(request, View())
        if complaints:
            return _failed("; ".join(complaints))
        status = session.request(view, wait=WAIT_SECONDS)
        if status.error:
            return _failed(status.error)
        if status.shown is None:
            return (no_update, no_update, views.progress(status), False, *[no_update] * 4)
        # Notes about the address (a list) stay through the first success; errors go with any.
        return _shown(status, alerts if shown is None and isinstance(alerts, list) else None)


def _failed(message: str) -> tuple[Any, ...]:
    """An error beside the prompt; the last good view stays."""
    return (no_update, alert(message), None, True, *[no_update] * 4)


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
    )


def _register_browser(app: Dash) -> None:
    app.clientside_callback(
        ClientsideFunction("attention", "mount"),
        Output(URL_SINK, "children"),
        Input(SHOWN, "data"),
        State(HEAD, "data"),
        State(REQUEST, "data"),
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
