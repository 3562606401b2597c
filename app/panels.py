"""The frame around one analysis on a page: title, sentence, code, downloads, progress with cancel, content."""

from dataclasses import dataclass
from typing import Any

from dash import Output, dcc, html, no_update

from app.analyses import Answer
from app.components import aria, attributes

TICK_MS = 450


@dataclass(frozen=True)
class PanelFrame:
    """A panel's place on the page, and the outputs that a callback returns for each state it may be in."""

    name: str
    title: str
    explains: str

    @property
    def body(self) -> str:
        """The id of the content."""
        return f"{self.name}-body"

    @property
    def tick(self) -> str:
        """The id of the clock that asks again while something is computed."""
        return f"{self.name}-tick"

    @property
    def cancel(self) -> str:
        """The id of the button that stops the computation."""
        return f"{self.name}-cancel"

    @property
    def retry(self) -> str:
        """The id of the button that starts a cancelled computation again."""
        return f"{self.name}-retry"

    @property
    def drawn(self) -> str:
        """The id of the store that says what is drawn."""
        return f"{self.name}-drawn"

    @property
    def asked(self) -> str:
        """The id of the store that says which question was asked last."""
        return f"{self.name}-asked"

    def layout(self) -> html.Section:
        """The empty panel."""
        return html.Section(
            [
                dcc.Store(id=self.drawn),
                dcc.Store(id=self.asked),
                # One tick, then the next only after its answer: Dash drops the answer to a call that was
                # followed by another, so a clock that does not wait would starve a slow page.
                dcc.Interval(id=self.tick, interval=TICK_MS, max_intervals=1, disabled=True),
                html.Header(
                    [
                        html.H2(self.title, id=f"{self.name}-title"),
                        html.Div(id=f"{self.name}-actions", className="panel-actions"),
                    ],
                ),
                html.P(self.explains, className="explains"),
                html.Div(id=f"{self.name}-said", role="status"),
                self._working(),
                html.Button(
                    "Compute again",
                    id=self.retry,
                    n_clicks=0,
                    hidden=True,
                    className="plain-button",
                ),
                html.Div(id=self.body, className="panel-body empty"),
            ],
            id=self.name,
            className="panel",
            **attributes("aria-labelledby", f"{self.name}-title"),
        )

    def outputs(self) -> tuple[Output, ...]:
        """What the functions below fill, in this order."""
        name = self.name
        return (
            Output(self.body, "children"),
            Output(self.body, "className"),
            Output(f"{name}-said", "children"),
            Output(f"{name}-working", "hidden"),
            Output(f"{name}-message", "children"),
            Output(f"{name}-bar", "value"),
            Output(self.tick, "disabled"),
            Output(self.tick, "n_intervals"),
            Output(self.retry, "hidden"),
            Output(self.drawn, "data"),
            Output(self.asked, "data"),
            Output(f"{name}-actions", "children"),
        )

    def working(self, answer: Answer) -> tuple[Any, ...]:
        """What was there stays, dimmed, under the progress of what comes."""
        message = f"{answer.message} … {answer.seconds:.0f} s"
        # Who leaves the page tells the server by this key that nobody waits here any more.
        told = html.Span(message, **attributes("data-key", answer.key))
        # Without a value the browser's bar moves to and fro: how much is left is not known.
        value = None if answer.fraction is None else f"{answer.fraction:.3f}"
        old = (no_update, "panel-body stale")
        return (*old, None, False, told, value, False, 0, True, no_update, answer.key, no_update)

    def stopped(self, said: Any, *, can_retry: bool = True) -> tuple[Any, ...]:
        """Something is said in place of the content, which stays dimmed where there was one."""
        old = (no_update, "panel-body stale")
        return (*old, said, True, "", None, True, 0, not can_retry, None, None, None)

    def hint(self, said: str) -> tuple[Any, ...]:
        """Nothing is shown, and why."""
        empty = (html.Div(said, className="hint"), "panel-body")
        return (*empty, None, True, "", None, True, 0, True, None, None, None)

    def unchanged(self) -> tuple[Any, ...]:
        """What is drawn is what is wanted (again)."""
        return (
            no_update,
            "panel-body",
            None,
            True,
            "",
            None,
            True,
            0,
            True,
            no_update,
            None,
            no_update,
        )

    def done(self, content: Any, wanted: str, answer: Answer, code: str) -> tuple[Any, ...]:
        """The answer, drawn."""
        assert answer.kept is not None
        actions = panel_actions(self.title, answer, code)
        return (content, "panel-body", None, True, "", None, True, 0, True, wanted, None, actions)

    def _working(self) -> html.Div:
        return html.Div(
            [
                html.Progress(id=f"{self.name}-bar", max="1", **aria(f"Progress of {self.title}")),
                html.Span(id=f"{self.name}-message", role="status"),
                html.Button("Cancel", id=self.cancel, n_clicks=0, className="plain-button"),
            ],
            id=f"{self.name}-working",
            className="working",
            hidden=True,
        )


def panel_actions(title: str, answer: Answer, code: str) -> list[Any]:
    """Code and downloads of an answer; the code opens and is copied in the browser alone."""
    assert answer.kept is not None
    took = answer.kept.seconds
    spelled = f"{took * 1000:.0f} ms" if took < 1 else f"{took:.1f} s"
    links = [
        html.A(
            kind,
            href=f"/api/table/{answer.key}.{ending}",
            download="",
            title=f"Download the table of this panel as {kind}",
            className="plain-button",
            **aria(f"Download {title} as {kind}"),
        )
        for kind, ending in (("Parquet", "parquet"), ("CSV", "csv"))
    ]
    return [
        html.Span(spelled, className="fact", title="time to compute"),
        *links,
        html.Details(
            [
                html.Summary("Code", className="plain-button", **aria(f"Python of {title}")),
                html.Div(
                    [
                        html.Pre(code, tabIndex="0"),
                        html.Button("Copy code", className="plain-button copy-code", n_clicks=0),
                    ],
                    className="code-panel",
                ),
            ],
            className="code-of-panel",
        ),
    ]
