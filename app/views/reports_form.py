"""The form of a new report: models, probes with their questions, data, and what it will take."""

from collections.abc import Sequence
from typing import Any

import dash_mantine_components as dmc
from dash import html

from app.components import aria, field
from app.report_plans import Choice, Estimate
from app.views.training import spell_time
from workbench.budget import spell_bytes

PROBE, WHY = "report-probe", "report-why"
KIND = {"weights": "weights alone", "data": "reads text"}


def form(
    choices: Sequence[Choice], probes: Sequence[Any], state: dict[str, Any], *, reads_files: bool
) -> list[Any]:
    """All controls, filled in.

    Args:
        state: models and probes as tuples of names; steps, data, title.
    """
    return [
        html.Div(
            [
                html.Div(
                    field("Models", _models(choices, state["models"])), className="report-models"
                ),
                field("Weights", _steps(state["steps"])),
                _data(state["data"], reads_files),
                field("Title", _title(state["title"])),
            ],
            className="report-what",
        ),
        html.Div(
            [
                html.Span("Probes", className="field-label"),
                *[
                    html.Button(
                        word.capitalize(),
                        id=f"report-choose-{word}",
                        n_clicks=0,
                        className="plain-button",
                        **aria(f"Choose {word} of the probes"),
                    )
                    for word in ("quick", "all", "none")
                ],
            ],
            className="report-choose",
        ),
        html.Div([_probe(probe, probe.name in state["probes"]) for probe in probes], id="report-probes"),
    ]  # fmt: skip


def _models(choices: Sequence[Choice], chosen: Sequence[str]) -> dmc.MultiSelect:
    return dmc.MultiSelect(
        id="report-models",
        data=[{"value": choice.spec, "label": choice.label} for choice in choices],
        value=list(chosen),
        searchable=True,
        hidePickedOptions=True,
        size="xs",
        attributes={"inputField": {"aria-label": "Models"}},
    )


def _steps(value: str) -> dmc.SegmentedControl:
    return dmc.SegmentedControl(
        id="report-steps",
        data=[{"value": "final", "label": "final"}, {"value": "all", "label": "all checkpoints"}],
        value=value,
        size="xs",
        attributes={"root": {"aria-label": "Weights"}},
    )


def _data(value: str, reads_files: bool) -> html.Div:
    hint = (
        "stdlib: Python source that no bundled model was trained on; or a folder or .jsonl, .parquet, .txt file"
        if reads_files
        else "This dashboard can be reached from other machines: it reads no files of this one."
    )
    box = dmc.TextInput(
        id="report-data",
        value=value if reads_files else "stdlib",
        disabled=not reads_files,
        debounce=500,
        size="xs",
        spellCheck=False,
        attributes={"input": {"aria-label": "Data", "maxLength": 1000}},
    )
    return field("Data", box, hint)


def _title(value: str) -> dmc.TextInput:
    return dmc.TextInput(
        id="report-title",
        value=value,
        placeholder="made from the models",
        debounce=400,
        size="xs",
        attributes={"input": {"aria-label": "Title", "maxLength": 120}},
    )


def _probe(probe: Any, is_chosen: bool) -> html.Div:
    return html.Div(
        [
            dmc.Checkbox(
                id={"type": PROBE, "probe": probe.name},
                checked=is_chosen,
                label=probe.title,
                description=probe.question,
                size="xs",
            ),
            html.Div(
                id={"type": WHY, "probe": probe.name}, className="report-why", title=KIND[probe.kind]
            ),
        ],
        className="report-probe",
    )  # fmt: skip


def why(refused: Sequence[str], n_models: int) -> Any:
    """Why a probe cannot be asked of all or some of the models; nothing where it can."""
    if not refused:
        return None
    shown = [html.Div(reason) for reason in refused[:3]]
    more = len(refused) - len(shown)
    if len(refused) < n_models:
        shown.insert(0, html.Div(f"Not asked of {len(refused)} of {n_models} models:"))
    return [*shown, *([html.Div(f"and {more:,} more")] if more else [])]


def estimate(found: Estimate) -> list[Any]:
    """What a report will take, in words."""
    if not found.n_jobs:
        return [html.Span("None of the chosen probes can be asked.", className="plan-error")]
    models = "1 model" if found.n_models == 1 else f"{found.n_models:,} models"
    jobs = "1 job" if found.n_jobs == 1 else f"{found.n_jobs:,} jobs"
    refused = f", {found.n_refused:,} do not apply" if found.n_refused else ""
    said: list[Any] = [
        html.Strong(f"about {spell_time(found.seconds)}"),
        html.Span(
            f"{models}, {jobs}{refused}; up to {spell_bytes(found.nbytes)} of memory for one job",
            className="fact",
        ),
    ]
    if found.nbytes > found.limit:
        said.append(
            html.Span(
                f"Some jobs need more than the {spell_bytes(found.limit)} that are free: those will fail.",
                className="plan-error",
            )
        )
    return said
