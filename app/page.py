"""How a page of analyses works: one state in the address, panels that each ask one question of it.

The browser keeps the state in one store, gathered from every control (`assets/e-pages.js`), and writes it into
the address. Each panel reads from the state what it asks, shows progress until the answer is there, and draws
it. A page module declares its fields and panels; nothing here knows what is computed.
"""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from dash import ALL, ClientsideFunction, Dash, Input, Output, State, ctx, dcc, html

from app import controls
from app.analyses import Analyses, Answer, Compute, Question
from app.components import alert, aria, notes
from app.fields import Field, PageState, read_state
from app.panels import PanelFrame
from app.session import Session
from workbench.errors import WorkbenchError
from workbench.models import ModelInfo

STATE, KNOWN, SINK, PANELS = "page-state", "page-known", "page-sink", "panels"
REOPEN = "reopen"  # in the shell: the query with which a page is to be built anew
WAIT_SECONDS = 0.5
Controls = Callable[[Session, ModelInfo, PageState], Sequence[Any]]
Reader = Callable[[Any], tuple[PageState, list[str]]]


@dataclass(frozen=True)
class Panel:
    """One question, its answer drawn, the Python that reproduces it, and its table to download.

    Args:
        name: unique over all pages; also the name of the analysis unless `analysis` gives another.
        explains: one sentence: what is shown, in which unit.
        uses: fields of the state that the answer depends on, besides model and step.
        compute: `(model, arguments, report)` → result, in a job's thread; `arguments` are the fields of `uses`.
        draw: `(result, state)` → what stands in the panel.
        code: state → Python that a notebook runs.
        draws: further fields that change the drawing only.
        analysis: panels of one analysis share its answer; they must agree in `uses` and `compute`.
        needs: state → "" or what must be chosen first.
        asks: state → further arguments, where the answer depends on less than a whole field.
    """

    name: str
    title: str
    explains: str
    uses: tuple[str, ...]
    compute: Compute
    draw: Callable[[Any, PageState], Any]
    code: Callable[[PageState], str]
    draws: tuple[str, ...] = ()
    analysis: str = ""
    needs: Callable[[PageState], str] = field(default=lambda state: "")
    asks: Callable[[PageState], dict[str, Any]] = field(default=lambda state: {})

    def question(self, state: PageState) -> Question:
        """What this panel asks of a state."""
        arguments = {name: state[name] for name in self.uses} | self.asks(state)
        return Question(self.analysis or self.name, state["model"], state["step"], arguments)

    @property
    def frame(self) -> PanelFrame:
        """Its place on the page."""
        return PanelFrame(self.name, self.title, self.explains)


@dataclass(frozen=True)
class Page:
    """A page of panels.

    Args:
        fields: what its address says besides model and step.
        controls: `(session, info, state)` → what stands beside the panels, under the model's choice.
        connect: registers callbacks of its own, such as clicks into a figure.
    """

    title: str
    path: str
    fields: tuple[Field, ...]
    panels: tuple[Panel, ...]
    controls: Controls
    connect: Callable[[Dash], None] = field(default=lambda app: None)

    def layout(self, session: Session, query: dict[str, Any], unread: list[str]) -> html.Div:
        """The page for one address; what it says amiss is noted and replaced by a default."""
        state, info, complaints = read_state(session, self.fields, query)
        for panel in self.panels:
            if not panel.needs(state):  # the work starts while the browser still builds the page
                session.analyses.ask(panel.question(state), panel.compute)
        side = [
            *controls.model_controls(session, info, state),
            *self.controls(session, info, state),
            html.Div(notes([*unread, *complaints])),
        ]
        return html.Div(
            [
                dcc.Store(id=STATE, data=state),
                dcc.Store(id=KNOWN, data=self._known(session, info)),
                html.Span(id=SINK, hidden=True),
                html.Aside(side, className="controls", **aria("What to show")),
                html.Div(
                    [panel.frame.layout() for panel in self.panels], id=PANELS, className="panels"
                ),
            ],
            className="attention-page work-page",
        )

    def register(self, app: Dash, session: Session) -> None:
        """Connect the page; callbacks only carry values."""

        def read(given: Any) -> tuple[PageState, list[str]]:
            state, _, complaints = read_state(session, self.fields, given)
            return state, complaints

        for panel in self.panels:
            register_panel(app, session.analyses, panel, read)
        self.connect(app)

    def _known(self, session: Session, info: ModelInfo) -> dict[str, Any]:
        """What the browser must know of the page to read its controls and write its address."""
        return {
            "places": ["model", *(one.name for one in self.fields if one.is_place)],
            "defaults": {
                one.name: first
                for one in self.fields
                if not callable(one.default) and (first := one.first(session, info)) is not None
            },
            "lasts": {one.name: one.lasts for one in self.fields},
            "examples": list(controls.example_prompts(info)),
            "lookups": {"step": [*info.steps, None]},
        }


def register_state(app: Dash) -> None:
    """Connect controls, state and address: once for all pages."""
    app.clientside_callback(
        ClientsideFunction("pages", "gather"),
        Output(STATE, "data"),
        Output(REOPEN, "data"),
        Input({"type": controls.CONTROL, "field": ALL}, "value"),
        State(STATE, "data"),
        State(KNOWN, "data"),
        prevent_initial_call=True,
    )
    app.clientside_callback(
        ClientsideFunction("pages", "address"),
        Output(SINK, "title"),
        Input(STATE, "data"),
        # An input that no callback writes: else Dash leaves out the first call, as `gather` has none.
        Input(KNOWN, "data"),
    )


def register_panel(
    app: Dash, analyses: Analyses, panel: Panel, read: Reader, state_id: str = STATE
) -> None:
    """Connect one panel.

    Args:
        read: from what the browser holds as its state to the state that is meant, and complaints.
        state_id: the store of that state.
    """
    frame = panel.frame

    @app.callback(
        *frame.outputs(),
        Input(state_id, "data"),
        Input(frame.tick, "n_intervals"),
        Input(frame.retry, "n_clicks"),
        State(frame.drawn, "data"),
        State(frame.asked, "data"),
    )
    def show(given: Any, _ticks: int, _again: int, drawn: Any, asked: Any) -> tuple[Any, ...]:
        state, complaints = read(given)
        if isinstance(asked, str) and asked != panel.question(state).key:
            analyses.leave(asked)
        wanted = _wanted(panel, state)
        hint = "; ".join(complaints) or panel.needs(state)
        if hint:
            return frame.hint(hint)
        if drawn == wanted:
            return frame.unchanged()
        is_poll = ctx.triggered_id == frame.tick and asked == panel.question(state).key
        wait = 0.0 if is_poll else WAIT_SECONDS
        answer = analyses.ask(panel.question(state), panel.compute, wait=wait, is_poll=is_poll)
        return _shown(panel, state, answer, wanted)

    @app.callback(
        Output(frame.cancel, "disabled"),
        Input(frame.cancel, "n_clicks"),
        State(state_id, "data"),
        prevent_initial_call=True,
    )
    def cancel(clicks: int, given: Any) -> bool:
        if clicks:
            state, _ = read(given)
            analyses.cancel(panel.question(state).key)
        return False


def _wanted(panel: Panel, state: PageState) -> str:
    """What the panel shows when it is up to date: question and drawing."""
    return json.dumps([panel.question(state).key, [state[name] for name in panel.draws]])


def _shown(panel: Panel, state: PageState, answer: Answer, wanted: str) -> tuple[Any, ...]:
    frame = panel.frame
    if answer.is_working:
        return frame.working(answer)
    if answer.is_cancelled:
        return frame.stopped(html.Div("Cancelled.", className="hint", role="status"))
    if answer.kept is None:
        return frame.stopped(alert(answer.error), can_retry=False)
    try:
        content = panel.draw(answer.kept.result, state)
    except WorkbenchError as error:
        return frame.stopped(alert(str(error)), can_retry=False)
    return frame.done(content, wanted, answer, panel.code(state))
