"""The attention page's ids and its layout, filled in from the address."""

from dataclasses import replace
from typing import Any

import dash_mantine_components as dmc
from dash import dcc, html

from app.components import aria, field, icon_button, notes
from app.session import Session
from app.state import DEFAULT_MODEL, KINDS, View, read_selection, read_view
from app.views import attention as views
from workbench.errors import WorkbenchError
from workbench.models import ModelInfo

MODEL, MODEL_HINT = "model", "model-hint"
KIND, KIND_HINT = "kind", "kind-hint"
PROMPT, OTHER, OTHER_BLOCK, RUN = "prompt", "other-prompt", "other-block", "run"
EXAMPLE, EXAMPLES = "example", "examples"
STEP, STEP_LABEL, STEPS_BLOCK = "step", "step-label", "steps-block"
BEFORE, BEFORE_LABEL, BEFORE_BLOCK = "before", "before-label", "before-block"
TRAINING = "training"
CHOSEN, REQUEST, SHOWN, HEAD, TICK = "chosen", "request", "shown", "head", "tick"
ALERT, PROGRESS, FACTS, CERTIFICATE = "alert", "progress", "facts", "certificate"
CODE, CODE_BUTTON, CODE_PANEL, CODE_COPY = "code", "code-button", "code-panel", "code-copy"
DOWNLOAD, VIEWER, URL_SINK = "download", "viewer", "url-sink"
TICK_MS = 400
FALLBACK_PROMPT = "the cat sat on the mat and the cat sat on the"


def layout(session: Session, **query: Any) -> html.Div:
    """The page for one address; what it says amiss is noted and replaced by a default."""
    view, info, complaints = initial_view(session, query)
    selection, more = read_selection(query)
    if selection.head is None:
        selection = replace(selection, head=session.first_head(view.model))
    session.request(view)  # the work starts while the browser still builds the page
    return html.Div(
        [
            _stores(view, info, selection.as_viewer_state()),
            html.Aside(
                _controls(session, view, info, complaints + more),
                className="controls",
                **aria("What to show"),
            ),
            html.Section(_stage(), className="stage", **aria("Attention heads")),
        ],
        className="attention-page",
    )


def initial_view(session: Session, query: dict[str, Any]) -> tuple[View, ModelInfo, list[str]]:
    """The view that an address asks for, its model, and what could not be meant."""
    view, complaints = read_view(query, View())
    values = {name: getattr(view, name) for name in view.__dataclass_fields__}
    try:
        info = session.info(view.model) if "model" in query else _first_model(session)
        values["model"] = info.name
        if not info.available:
            complaints.append(f"{info.name} is not available here: {info.summary}")
    except WorkbenchError as error:
        complaints.append(str(error))
        info = None
    if info is None or not info.available:
        info = _first_model(session)
        values |= {"model": info.name}
    for name in ("step", "before"):
        if values[name] is not None and values[name] not in info.steps:
            kept = ", ".join(map(str, info.steps)) or "none"
            complaints.append(
                f"{info.name} has no checkpoint of step {values[name]}: it keeps {kept}"
            )
            values[name] = None
    if KINDS[values["kind"]].needs_steps and not info.steps:
        complaints.append(f"{info.name} keeps no checkpoints to compare")
        values["kind"] = "pattern"
    examples = info.example_prompts or (FALLBACK_PROMPT,)
    values["prompt"] = values["prompt"] if "prompt" in query else examples[0]
    if "other" not in query:
        values["other"] = examples[1 % len(examples)]
    if values["before"] is None and info.steps:
        values["before"] = info.steps[0]
    return View(**values), info, complaints


def _first_model(session: Session) -> ModelInfo:
    infos = [info for info in session.models() if info.available]
    if not infos:
        raise WorkbenchError("no model is available: run `workbench train` or install one")
    if infos[0].kind == "own":
        return infos[0]  # who brought a model wants to see it
    return next((info for info in infos if info.name == DEFAULT_MODEL), infos[0])


def chosen(info: ModelInfo) -> dict[str, Any]:
    """What the browser must know of the chosen model."""
    return {
        "model": info.name,
        "steps": [*info.steps, None] if info.steps else [],
        "examples": list(info.example_prompts),
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
    before = info.steps.index(view.before) if view.before in info.steps else 0
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


def _stores(view: View, info: ModelInfo, state: dict[str, Any]) -> html.Div:
    request = {name: getattr(view, name) for name in view.__dataclass_fields__}
    return html.Div(
        [
            dcc.Store(id=CHOSEN, data=chosen(info)),
            dcc.Store(id=REQUEST, data=request),
            dcc.Store(id=SHOWN),
            dcc.Store(id=HEAD, data=state),
            dcc.Interval(id=TICK, interval=TICK_MS, disabled=True),
            html.Span(id=URL_SINK),
        ],
        hidden=True,
    )


def _controls(session: Session, view: View, info: ModelInfo, complaints: list[str]) -> list[Any]:
    infos = session.models()
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
        attributes={"input": {"aria-label": label}},
    )


def _stage() -> list[Any]:
    return [
        html.Div(
            [
                html.Div(id=FACTS, className="facts"),
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
        html.Div(id=VIEWER, className="viewer"),
    ]
