"""What the training page shows of runs, from plain values: the list, how one stands, its sections."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import dash_mantine_components as dmc
from dash import dcc, html

from app.components import alert, aria, attributes, graph, page_link
from app.run_models import why_not
from app.trainings import GOING, RESUMABLE, Row
from workbench.models.files import step_of
from workbench.training.plan import Plan

SAID = {
    "queued": "starting",
    "running": "running",
    "paused": "paused",
    "cancelled": "cancelled",
    "interrupted": "interrupted",
    "finished": "finished",
    "failed": "failed",
    "broken": "cannot be read",
}
EXPLAINED = {
    "interrupted": "Its process ended without saying so, by a crash or a restart. What was saved is kept: "
    "resume it.",
    "cancelled": "It was stopped. What was saved is kept: it can still be resumed.",
    "paused": "It waits to be resumed.",
}
OTHER_PAGES = (
    ("Attention", "/"),
    ("Residual", "/residual"),
    ("Circuits", "/circuits"),
    ("Composition", "/composition"),
    ("Heads", "/heads"),
    ("Paths", "/paths"),
)


def run_list(rows: Sequence[Row], current: str) -> list[Any]:
    """Links to every run, newest first."""
    if not rows:
        return [html.Div("No runs yet: press Start.", className="hint")]
    return [_entry(row, row.name == current) for row in rows]


def _entry(row: Row, is_current: bool) -> html.A:
    numbers = f"{row.step:,} / {row.steps:,}" if row.state != "finished" else f"{row.steps:,} steps"
    loss = "" if row.loss is None else f"loss {row.loss:.3g}"
    return html.A(
        [
            html.Span(row.name, className="run-name", title=row.label),
            html.Span(
                [html.Span(className=f"run-dot {row.state}"), SAID.get(row.state, row.state)],
                className="run-state",
            ),
            html.Span(numbers if row.steps else "", className="run-numbers"),
            html.Span(loss, className="run-numbers run-loss"),
        ],
        href=run_address(row.name),
        className="run-link" + (" chosen" if is_current else ""),
        **(attributes("aria-current", "true") if is_current else {}),
    )


def run_address(name: str, **more: Any) -> str:
    """The address of a run."""
    return "/training?" + urlencode({"run": name} | more)


def new_address(preset: str = "") -> str:
    """The address of the form."""
    return f"/training?{urlencode({'new': preset or 'bimt-independence'})}"


def standing(row: Row) -> list[Any]:
    """How a run stands: its progress in words and as a bar, and what went wrong."""
    share = row.step / row.steps if row.steps else 0.0
    parts = [f"step {row.step:,} of {row.steps:,}", spell_time(row.seconds)]
    if row.state == "running" and row.step and share < 1:
        parts.append(f"about {spell_time(row.seconds * (1 - share) / share)} left")
    if row.loss is not None:
        parts.append(f"validation loss {row.loss:.4g}")
    # A process that has just begun still loads what it needs.
    word = "starting" if row.state == "running" and not row.step else SAID.get(row.state, row.state)
    said: list[Any] = [
        html.Div(
            [
                html.Span(
                    [html.Span(className=f"run-dot {row.state}"), word],
                    className="run-badge",
                    id="run-state-word",
                ),
                html.Span("  ·  ".join(parts), className="fact", id="run-numbers"),
            ],
            className="run-standing",
        ),
        html.Progress(
            value=f"{share:.4f}", max="1", className="run-bar", **aria("How far the run is")
        ),
    ]
    if row.state in ("failed", "broken"):
        said.append(
            alert(row.message or "it failed without saying why: see worker.log in its folder")
        )
    elif row.state in EXPLAINED:
        said.append(html.Div(EXPLAINED[row.state], className="hint"))
    return said


def links(row: Row, model: str | None) -> list[Any]:
    """Where else a run can be looked at, or why not."""
    if model is not None:
        opened = [page_link(title, path, model=model) for title, path in OTHER_PAGES]
        step = step_of(Path(model).name)
        said = "Open in" if step is None else f"Open at step {step:,} in"
        return [html.Span(said, className="fact"), *opened]
    later = "the other pages open it from its first snapshot on, or once it has finished"
    reason = why_not(row.kind, row.task) or later
    return [html.Span(f"Other pages: {reason}.", className="fact", id="run-no-link")]


def plan_details(plan: Plan, folder: str) -> html.Details:
    """What the run was started with, and how to start it again from a shell."""
    command = f"workbench train --plan {folder}/plan.json --out runs/again"
    return html.Details(
        [
            html.Summary("Plan", className="plain-button"),
            html.Div(
                [html.Pre(f"{command}\n\n{plan.to_json()}", tabIndex="0")], className="code-panel"
            ),
        ],
        className="code-of-panel",
    )


def buttons() -> list[html.Button]:
    """What can be done to a run; which of them, says `which_buttons`."""
    return [
        html.Button(
            word.capitalize(), id=f"run-{word}", n_clicks=0, className="plain-button", hidden=True
        )
        for word in ("pause", "cancel", "resume")
    ]


def which_buttons(state: str) -> tuple[bool, bool, bool]:
    """Whether pause, cancel and resume are hidden."""
    can_stop = state in GOING
    return not can_stop, not (can_stop or state == "paused"), state not in RESUMABLE


def section(name: str, title: str, explains: str, *content: Any, actions: Any = ()) -> html.Section:
    """A part of the page under its title."""
    head = [html.H2(title, id=f"{name}-title"), html.Div(actions, className="panel-actions")]
    return html.Section(
        [
            html.Header(head),
            html.P(explains, className="explains") if explains else None,
            *content,
        ],
        id=name,
        className="panel",
        **attributes("aria-labelledby", f"{name}-title"),
    )


def slider(id: str, label: str, *, value: float, limits: tuple[float, float, float]) -> html.Div:
    """A slider that acts while it is dragged; its value stands beside the label, in `<id>-value`."""
    low, high, step = limits
    shown = html.Span(id=f"{id}-value", className="value")
    control = dmc.Slider(
        id=id,
        value=value,
        min=low,
        max=max(high, low + step),
        step=step,
        label=None,
        thumbLabel=label,
        updatemode="drag",
        size="sm",
    )
    return html.Div(
        [html.Div([label, shown], className="field-label"), control], className="field run-slider"
    )


def empty_graph(id: str, label: str, height: int) -> html.Div:
    """A figure that a callback fills."""
    import plotly.graph_objects as go

    figure = go.Figure(layout={"height": height, "paper_bgcolor": "rgba(0,0,0,0)"})
    return graph(figure, id=id, label=label)


def state_store(state: dict[str, Any]) -> dcc.Store:
    """What the browser holds of the address."""
    return dcc.Store(id="run-state", data=state)


def spell_time(seconds: float) -> str:
    """`8 s`, `3 min`, `2.1 h`."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
