"""The attention page's ids and its layout, filled in from the address."""

from dataclasses import replace
from typing import Any

import dash_mantine_components as dmc
from dash import dcc, html

from app.components import aria, field, icon_button, notes
from app.initial import initial_view
from app.prompts import examples as example_prompts
from app.prompts import matched_pair, mean_prompts
from app.session import Session
from app.state import KINDS, MAX_PROMPT_CHARS, Selection, View, read_selection
from app.views import attention as views
from workbench.models import ModelInfo

MODEL, MODEL_HINT = "model", "model-hint"
KIND, KIND_HINT = "kind", "kind-hint"
PROMPT, OTHER, OTHER_BLOCK, RUN = "prompt", "other-prompt", "other-block", "run"
EXAMPLE, EXAMPLES = "example", "examples"
STEP, STEP_LABEL, STEPS_BLOCK = "step", "step-label", "steps-block"
BEFORE, BEFORE_LABEL, BEFORE_BLOCK = "before", "before-label", "before-block"
TRAINING = "training"
CHOSEN, REQUEST, SHOWN, HEAD, TICK = "chosen", "request", "shown", "head", "tick"
ALERT, PROGRESS = "alert", "progress"
FACTS, NOTE, CERTIFICATE = "facts", "note", "certificate"
WHY = "why"
CODE, CODE_BUTTON, CODE_PANEL, CODE_COPY = "code", "code-button", "code-panel", "code-copy"
DOWNLOAD, STAGE, VIEWER, URL_SINK = "download", "stage", "viewer", "url-sink"
TICK_MS = 400


def layout(session: Session, query: dict[str, Any], unread: list[str]) -> html.Div:
    """The page for one address; what it says amiss is noted and replaced by a default.

    Args:
        unread: what of the address could not be read at all.
    """
    view, info, complaints = initial_view(session, query)
    selection, more = read_selection(query)
    if selection.head is None:
        selection = replace(selection, head=session.first_head(view.model))
    session.request(view)  # the work starts while the browser still builds the page
    return html.Div(
        [
            _stores(view, chosen(session, info), selection.as_viewer_state()),
            html.Aside(
                _controls(session, view, info, [*unread, *complaints, *more]),
                className="controls",
                **aria("What to show"),
            ),
            html.Section(_stage(), id=STAGE, className="stage empty", **aria("Attention heads")),
        ],
        className="attention-page",
    )


def chosen(session: Session, info: ModelInfo) -> dict[str, Any]:
    """What the browser must know of the chosen model."""
    first = Selection(session.first_head(info.name))
    texts = example_prompts(info)
    return {
        "model": info.name,
        "steps": [*info.steps, None] if info.steps else [],
        "examples": list(texts),
        "others": [matched_pair(text) for text in texts],
        "mean": mean_prompts(info),
        "first": first.as_viewer_state(),
        "limit": MAX_PROMPT_CHARS,
        "hints": {name: kind.explains for name, kind in KINDS.items()},
    }


def examples(info: ModelInfo) -> list[html.Button]:
    """A button for each example prompt."""
    return [
        html.Button(
            text, id={"type": EXAMPLE, "index": index}, className="example", title=text, n_clicks=0
        )
        for index, text in enumerate(info.example_prompts)
    ]


def sliders(info: ModelInfo, view: View) -> list[Any]:
    """One slider for the step that is shown, one for the step that a difference subtracts."""
    steps: list[int | None] = [*info.steps, None]
    last = len(steps) - 1
    before = steps.index(view.before)
    return [
        html.Div(
            [
                _step_label("Training step", STEP_LABEL, view.step),
                # Drawn by d-training.js: the behaviours' curves, aligned with the slider below them.
                html.Div(id=TRAINING, className="training"),
                _slider(STEP, steps.index(view.step), last, "Training step"),
            ],
            hidden=not info.steps,
            className="field",
        ),
        html.Div(
            [
                _step_label("minus step", BEFORE_LABEL, steps[before]),
                _slider(BEFORE, before, last, "Step to subtract"),
            ],
            id=BEFORE_BLOCK,
            hidden=view.kind != "training",
            className="field",
        ),
    ]


def _step_label(text: str, name: str, step: int | None) -> html.Div:
    value = html.Span(views.spell_step(step), id=name, className="value")
    return html.Div([text, value], className="field-label")


def _slider(name: str, value: int, last: int, label: str) -> dmc.Slider:
    return dmc.Slider(
        id=name,
        value=value,
        min=0,
        max=max(1, last),
        step=1,
        marks=[{"value": index} for index in range(last + 1)],
        label=None,
        thumbLabel=label,
        updatemode="drag",
        size="sm",
        className="step-slider",
    )


def _stores(view: View, known: dict[str, Any], state: dict[str, Any]) -> html.Div:
    request = {name: getattr(view, name) for name in view.__dataclass_fields__}
    return html.Div(
        [
            dcc.Store(id=CHOSEN, data=known),
            dcc.Store(id=REQUEST, data=request),
            dcc.Store(id=SHOWN),
            dcc.Store(id=HEAD, data=state),
            dcc.Interval(id=TICK, interval=TICK_MS, disabled=True),
            html.Span(id=URL_SINK),
        ],
        hidden=True,
    )


def _controls(session: Session, view: View, info: ModelInfo, complaints: list[str]) -> list[Any]:
    infos = session.models(info)
    missing = views.missing_models(infos)
    model = dmc.Select(
        id=MODEL,
        data=views.model_options(infos),
        value=view.model,
        allowDeselect=False,
        attributes={"input": {"aria-label": "Model"}},
    )
    kind = dmc.Select(
        id=KIND,
        data=views.kind_options(bool(info.steps)),
        value=view.kind,
        allowDeselect=False,
        attributes={"input": {"aria-label": "View"}},
    )
    return [
        field(
            "Model",
            [model, html.Div(id=CERTIFICATE, className="hint")],
            html.Div(views.summary(info), id=MODEL_HINT),
        ),
        html.Details(
            [html.Summary(f"{len(missing)} not installed"), *missing],
            className="hint missing",
            hidden=not missing,
        ),
        _prompt_field(view, info, complaints),
        field("View", kind, html.Div(KINDS[view.kind].explains, id=KIND_HINT)),
        html.Div(sliders(info, view), id=STEPS_BLOCK),
    ]


def _prompt_field(view: View, info: ModelInfo, complaints: list[str]) -> html.Div:
    return html.Div(
        [
            html.Label(
                ["Prompt", html.Kbd("/", title="press / to write here")],
                htmlFor=PROMPT,
                className="field-label",
            ),
            _textarea(PROMPT, view.prompt, "Prompt"),
            html.Div(
                [
                    html.Label("minus prompt", htmlFor=OTHER, className="field-label"),
                    _textarea(OTHER, view.other, "Prompt to subtract"),
                ],
                id=OTHER_BLOCK,
                hidden=not KINDS[view.kind].needs_other,
            ),
            html.Div(notes(complaints), id=ALERT),
            html.Div(
                [
                    dmc.Button("Run", id=RUN, size="xs"),
                    html.Div(id=PROGRESS, className="progress", role="status"),
                ],
                className="run-row",
            ),
            html.Div(examples(info), id=EXAMPLES, className="examples", **aria("Examples")),
        ],
        className="field",
    )


def _textarea(name: str, value: str, label: str) -> dmc.Textarea:
    return dmc.Textarea(
        id=name,
        value=value,
        autosize=True,
        minRows=2,
        maxRows=7,
        debounce=500,
        spellCheck=False,
        # One more than is taken: who pastes too much is told, and the page need not hold it.
        attributes={"input": {"aria-label": label, "maxLength": MAX_PROMPT_CHARS + 1}},
    )


def _stage() -> list[Any]:
    return [
        html.Div(
            [
                html.Div(id=FACTS, className="facts"),
                html.A(
                    "Why here?",
                    id=WHY,
                    href="/paths",
                    hidden=True,
                    className="plain-button",
                    title="Take this head's score apart into what wrote the query and the key",
                ),
                html.Div(
                    [
                        icon_button("code", "Show the Python of this view", id=CODE_BUTTON),
                        html.A(
                            html.Span(className="icon icon-download"),
                            id=DOWNLOAD,
                            className="icon-link",
                            download="",
                            title="Download this view as one HTML file",
                            **aria("Download this view as one HTML file"),
                        ),
                    ],
                    className="actions",
                ),
            ],
            className="bar",
        ),
        html.Div(
            [
                html.Pre(id=CODE, tabIndex="0"),
                dmc.Button("Copy", id=CODE_COPY, size="compact-xs", variant="default"),
            ],
            id=CODE_PANEL,
            className="code-panel",
            hidden=True,
        ),
        html.Div(id=NOTE, className="stage-note"),
        html.Div(id=VIEWER, className="viewer"),
    ]
