"""What the attention page shows, from plain values: no callbacks, no models."""

import re
from typing import Any

from dash import html

from app.session import Shown, Status
from app.state import KINDS, View
from workbench.models import ModelInfo

_MAKERS = {
    "pattern": ("pattern_maps", ""),
    "value-weighted": ("value_weighted_maps", ', sites=("pattern", "v")'),
    "scores": ("score_maps", ', sites=("scores",)'),
    "mean": ("mean_maps", ""),
}


def model_options(infos: list[ModelInfo]) -> list[dict[str, Any]]:
    """The model selector's groups; what is not installed is there, disabled."""
    groups = []
    titles = {"own": "Your own", "bundled": "Trained here", "package": "Public models"}
    for kind, title in titles.items():
        items = [
            {
                "value": info.name,
                "label": info.name if info.available else f"{info.name} (not installed)",
                "disabled": not info.available,
            }
            for info in infos
            if info.kind == kind
        ]
        if items:
            groups.append({"group": title, "items": items})
    return groups


def missing_models(infos: list[ModelInfo]) -> list[html.Div]:
    """One line for each model that cannot be chosen, with what would change that."""
    return [
        html.Div([html.Strong(info.name), " ", info.summary])
        for info in infos
        if not info.available
    ]


def kind_options(has_steps: bool) -> list[dict[str, Any]]:
    """The view selector's options; checkpoints can be compared only where there are some."""
    return [
        {"value": name, "label": kind.label, "disabled": kind.needs_steps and not has_steps}
        for name, kind in KINDS.items()
    ]


def summary(info: ModelInfo) -> str:
    """A model in a line, before it is loaded."""
    size = "" if info.n_params is None else f" {spell_count(info.n_params)} parameters."
    return f"{info.summary.rstrip('.')}.{size}"


def spell_count(count: int) -> str:
    """`134.5 M`, `820 k`."""
    if count >= 1_000_000:
        return f"{count / 1e6:.1f} M"
    return f"{count / 1e3:.0f} k" if count >= 1000 else str(count)


def facts(shown: Shown) -> list[Any]:
    """The line above the maps: what is shown, how much of the context it fills, how it was checked."""
    view = shown.view
    step = f", step {view.step:,}" if view.step is not None and view.kind != "training" else ""
    return [
        html.Strong(f"{shown.maps.title}{step}", className="fact-name"),
        # The titles of differences say what they are.
        *([] if shown.maps.kind == "difference" else [_kind_label(view)]),
        html.Span(_token_count(shown), id="token-count", className="fact"),
        html.Span(
            spell_seconds(shown.seconds), className="fact fact-time", title="time to compute"
        ),
    ]


def still_showing(title: str) -> list[Any]:
    """The line above maps that are no longer what is asked for."""
    return [html.Span(f"still showing {title} …", className="fact-name fact")]


def title(shown: Shown) -> str:
    """Model, step and kind, for a page that stands on its own."""
    view = shown.view
    step = f", step {view.step:,}" if view.step is not None and view.kind != "training" else ""
    kind = "" if shown.maps.kind == "difference" else f", {KINDS[view.kind].label.lower()}"
    return f"{shown.maps.title}{step}{kind}"


def file_name(view: View) -> str:
    """The name of a downloaded view, without its ending."""
    parts = ["attention", view.model, *([] if view.step is None else [f"step-{view.step}"])]
    if view.kind == "training":
        parts.append("minus-finished" if view.before is None else f"minus-step-{view.before}")
    return re.sub(r"[^\w.-]+", "-", "-".join([*parts, view.kind]))


def _token_count(shown: Shown) -> str:
    if shown.n_tokens < shown.n_prompt:
        return f"{shown.n_tokens} of {shown.n_prompt} tokens"
    return f"{shown.n_tokens} / {shown.n_ctx} tokens"


def _kind_label(view: View) -> html.Span:
    return html.Span(KINDS[view.kind].label, className="fact fact-kind")


def certificate(shown: Shown) -> list[Any]:
    """How far the model's logits are from their source, and its shape."""
    lines = [html.Div(shown.shape)]
    if shown.certificate:
        lines.append(html.Div(shown.certificate, className="certificate"))
    return lines


def spell_seconds(seconds: float) -> str:
    """`38 ms`, `2.4 s`."""
    return f"{seconds * 1000:.0f} ms" if seconds < 1 else f"{seconds:.1f} s"


def spell_step(step: int | None) -> str:
    """`500`, or `finished` for the end of training."""
    return "finished" if step is None else f"{step:,}"


def progress(status: Status) -> str:
    """What a slow computation does now, and since when."""
    return f"{status.message} … {status.seconds:.0f} s"


def code(view: View) -> str:
    """Python that computes the same maps."""
    model = _load(view.model, view.step)
    if view.kind == "difference":
        lines = [
            f"model = {model}",
            f"after = workbench.pattern_maps(workbench.run(model, {view.prompt!r}))",
            f"before = workbench.pattern_maps(workbench.run(model, {view.other!r}))",
            "maps = workbench.difference_maps(after, before)",
        ]
    elif view.kind == "training":
        lines = [
            f"prompt = {view.prompt!r}",
            f"after = workbench.pattern_maps(workbench.run({model}, prompt))",
            f"before = workbench.pattern_maps(workbench.run({_load(view.model, view.before)}, prompt))",
            "maps = workbench.difference_maps(after, before)",
        ]
    else:
        maker, sites = _MAKERS[view.kind]
        prompt = view.prompts if view.kind == "mean" else view.prompt
        lines = [
            f"model = {model}",
            f"maps = workbench.{maker}(workbench.run(model, {prompt!r}{sites}))",
        ]
    return "\n".join(["import workbench", "", *lines, "workbench.attention_view(maps)"])


def _load(name: str, step: int | None) -> str:
    return f"workbench.load({name!r}" + (")" if step is None else f", step={step})")


def shown_store(shown: Shown) -> dict[str, Any]:
    """What the browser must know to read a view."""
    return {"key": shown.view.key, "model": shown.view.model, "title": title(shown)}
