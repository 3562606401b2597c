"""Controls of a page of analyses: each has the id `{"type": "control", "field": name}` and fills that field."""

from collections.abc import Sequence
from typing import Any

import dash_mantine_components as dmc
from dash import dcc, html

from app.components import aria, attributes, field
from app.fields import PageState
from app.prompts import examples as example_prompts
from app.session import Session
from app.state import MAX_PROMPT_CHARS
from app.views import attention as views
from workbench.models import ModelInfo

CONTROL = "control"
__all__ = [
    "choice_control", "control_id", "example_prompts", "hidden_control", "model_controls",
    "number_control", "prompt_controls", "slider_control", "switch_control", "text_control",
]  # fmt: skip


def control_id(name: str) -> dict[str, str]:
    """The id of the control of a field; callbacks may write its `value` (`allow_duplicate=True`)."""
    return {"type": CONTROL, "field": name}


def model_controls(session: Session, info: ModelInfo, state: PageState) -> list[Any]:
    """The choice of model and, where it kept checkpoints, of training step."""
    infos = session.models(info)
    steps: list[int | None] = [*info.steps, None]
    model = dmc.Select(
        id=control_id("model"),
        data=views.model_options(infos),
        value=info.name,
        allowDeselect=False,
        attributes={"input": {"aria-label": "Model"}},
    )
    controls = [field("Model", model, views.summary(info))]
    if info.steps:
        last = len(steps) - 1
        controls.append(
            slider_control(
                "step",
                "Training step",
                value=steps.index(state["step"]),
                limits=(0, last, 1),
                shows=views.spell_step(state["step"]),
            )
        )
    return controls


def prompt_controls(info: ModelInfo, state: PageState) -> list[Any]:
    """The prompt and the model's examples."""
    texts = example_prompts(info)
    examples = [html.Button(text, className="example page-example", title=text) for text in texts]
    box = dmc.Textarea(
        id=control_id("prompt"),
        value=state["prompt"],
        autosize=True,
        minRows=2,
        maxRows=7,
        debounce=500,
        spellCheck=False,
        classNames={"input": "prompt-box"},
        attributes={"input": {"aria-label": "Prompt", "maxLength": MAX_PROMPT_CHARS + 1}},
    )
    hint = html.Kbd("/", title="press / to write here")
    return [
        html.Div(
            [
                html.Div(["Prompt", hint], className="field-label"),
                box,
                html.Div(examples, className="examples", **aria("Examples")),
            ],
            className="field",
        )
    ]


def choice_control(
    name: str, label: str, options: Sequence[tuple[str, str]], value: str, hint: Any = None
) -> html.Div:
    """One of a few (value, label): a row of buttons for short labels, else a list.

    Arrow keys move between the options.
    """
    data = [{"value": option, "label": text} for option, text in options]
    if sum(len(text) for _, text in options) <= 26:
        control = dmc.SegmentedControl(
            id=control_id(name),
            data=data,
            value=value,
            size="xs",
            fullWidth=True,
            attributes={"root": {"aria-label": label}},
        )
    else:
        control = dmc.Select(
            id=control_id(name),
            data=data,
            value=value,
            size="xs",
            allowDeselect=False,
            searchable=len(options) > 8,
            attributes={"input": {"aria-label": label}},
        )
    return field(label, control, hint)


def text_control(
    name: str, label: str, value: str, *, placeholder: str = "", hint: Any = None
) -> html.Div:
    """A line of text; what is written counts half a second after the last key."""
    box = dmc.TextInput(
        id=control_id(name),
        value=value,
        placeholder=placeholder,
        size="xs",
        debounce=500,
        spellCheck=False,
        classNames={"input": "prompt-box"},
        attributes={"input": {"aria-label": label, "maxLength": 201}},
    )
    return field(label, box, hint)


def number_control(
    name: str, label: str, value: float | None, limits: tuple[float, float, float], hint: Any = None
) -> html.Div:
    """A number between (low, high, step)."""
    low, high, step = limits
    box = dmc.NumberInput(
        id=control_id(name),
        value="" if value is None else value,
        min=low,
        max=high,
        step=step,
        size="xs",
        debounce=400,
        attributes={"input": {"aria-label": label}},
    )
    return field(label, box, hint)


def slider_control(
    name: str,
    label: str,
    *,
    value: float,
    limits: tuple[float, float, float],
    shows: str | None = None,
) -> html.Div:
    """A slider between (low, high, step); its value stands beside the label and counts when let go."""
    low, high, step = limits
    shown = html.Span(
        f"{value:g}" if shows is None else shows,
        **attributes("data-shows", name),
        className="value",
    )
    slider = dmc.Slider(
        id=control_id(name),
        value=value,
        min=low,
        max=max(high, low + step),
        step=step,
        label=None,
        thumbLabel=label,
        updatemode="mouseup",
        size="sm",
        className="step-slider",
    )
    return html.Div([html.Div([label, shown], className="field-label"), slider], className="field")


def switch_control(name: str, label: str, value: str, hint: Any = None) -> html.Div:
    """Yes or no, as the words `on` and `off`."""
    return choice_control(name, label, [("on", "on"), ("off", "off")], value, hint)


def hidden_control(name: str, value: Any) -> dcc.Input:
    """A field that only clicks into figures and tables change."""
    return dcc.Input(id=control_id(name), type="hidden", value="" if value is None else value)
