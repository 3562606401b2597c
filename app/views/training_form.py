"""The form of a new run: a control for each field of a plan, made from the field's own type, unit and limits.

What is written comes back as text. Reading it never fails: each field that cannot be meant has its error.
"""

import math
from collections.abc import Mapping
from dataclasses import Field, dataclass, fields, replace
from typing import Any

import dash_mantine_components as dmc
from dash import html

from app.components import attributes
from workbench.errors import ConfigError, WorkbenchError
from workbench.training.plan import Plan, PlanError, Shape, fields_for
from workbench.training.shapes import KINDS
from workbench.training.task_kinds import TASK_KINDS

CONTROL, ERROR, REASON = "plan", "plan-error", "plan-reason"
NETWORK, KIND = "network.", "kind"
MAX_CHARS = 200
Errors = dict[str, str]
# Field names in the order of the form, by section; what is not named here comes under "More".
SECTIONS: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("Task", ("name", "task", "folder", "modulus", "data_seed", "batch_rows", "repeat_rows")),
    ("Network", (KIND,)),
    (
        "Training",
        (
            *("steps", "snapshots", "seed", "lr", "muon_lr", "weight_decay"),
            *("beta2", "warmup", "decay", "clip", "precision"),
        ),
    ),
    (
        "Wiring length",
        ("wiring", "schedule", "per_distance", "gap", "reduction", "last_distance", "places"),
    ),
    ("Swaps", ("swaps", "swap_every", "top_k", "swap_inputs")),
    (
        "Other penalties",
        (
            *("l1", "head_lasso", "unit_lasso", "clusterability", "clusters"),
            *("decorrelation", "channel_cost", "nested_dropout"),
        ),
    ),
)
LABELS = {
    "kind": "Kind", "lr": "Learning rate", "muon_lr": "Learning rate of Muon", "beta2": "β₂ of AdamW",
    "data_seed": "Seed of the data", "batch_rows": "Batch", "repeat_rows": "Repeats in a batch",
    "wiring": "Wiring length", "per_distance": "Cost of distance, A", "gap": "Gap between layers, y₀",
    "last_distance": "Distance to outputs", "l1": "L1", "head_lasso": "Group lasso over heads",
    "unit_lasso": "Group lasso over units", "channel_cost": "Cost of late channels", "top_k": "Units a round",
    "swap_every": "Swap every", "swap_inputs": "Inputs too", "hidden": "Hidden layers",
    "d_model": "d_model", "d_head": "d_head", "d_mlp": "d_mlp", "n_heads": "Heads", "n_ctx": "Context",
    "d_vocab": "Vocabulary", "mlp": "Activation", "bias": "Biases", "order": "Sublayers",
}  # fmt: skip


@dataclass(frozen=True)
class Entry:
    """One field as the form shows it.

    Args:
        path: its name; of a field of the network, after `network.`.
        kind: as of `workbench.training.plan_fields`.
        options: the words that it may be, where these are few.
        is_optional: whether it may be left empty.
    """

    path: str
    kind: str
    value: Any
    hint: str = ""
    unit: str = ""
    options: tuple[str, ...] = ()
    is_optional: bool = False

    @property
    def name(self) -> str:
        """Without the network's prefix."""
        return self.path.removeprefix(NETWORK)

    @property
    def label(self) -> str:
        """What the form calls it."""
        return LABELS.get(self.name, self.name.replace("_", " ").capitalize())

    @property
    def text(self) -> str:
        """Its value as one would write it."""
        if self.value is None:
            return ""
        if isinstance(self.value, bool):
            return "yes" if self.value else "no"
        if isinstance(self.value, float):
            return f"{self.value:g}"
        return ", ".join(map(str, self.value)) if isinstance(self.value, tuple) else str(self.value)

    def read(self, given: Any) -> Any:
        """The value that is meant; its limits are the plan's own affair.

        Raises:
            ConfigError: none.
        """
        text = "" if given is None else str(given).strip()
        if len(text) > MAX_CHARS:
            raise ConfigError(f"{len(text):,} characters; at most {MAX_CHARS} can be meant")
        if not text and self.is_optional:
            return None
        if self.kind == "flag":
            return text == "yes"
        if self.kind == "wholes":
            return tuple(_number(part, True) for part in text.replace(",", " ").split())
        return _number(text, self.kind == "whole") if self.kind in ("number", "whole") else text


def entries(plan: Plan, shape: Shape) -> dict[str, Entry]:
    """Every field of a plan by its path, in the order of the form.

    Args:
        shape: of the network, where the form shows another than the plan's.
    """
    kind_name = next(name for name, kind in KINDS.items() if isinstance(shape, kind))
    chosen = Entry(
        KIND,
        "choice",
        kind_name,
        hint="what learns the task",
        options=TASK_KINDS[plan.task].networks,
    )
    known = {one.name: _entry(one, plan, "") for one in fields(plan) if one.name != "network"}
    known[KIND] = chosen
    network = {NETWORK + one.name: _entry(one, shape, NETWORK) for one in fields(shape)}
    listed: dict[str, Entry] = {}
    for title, names in SECTIONS:
        listed |= {name: known.pop(name) for name in names}
        listed |= network if title == "Network" else {}
    return listed | known


def form(plan: Plan) -> list[Any]:
    """The controls of a plan, by section."""
    reasons, known = reasons_of(plan), entries(plan, plan.network)
    sections = []
    for title, names in (*SECTIONS, ("More", ())):
        paths = [path for path in known if path in names or _is_of(path, title)]
        here = [known.pop(path) for path in (paths if title != "More" else list(known))]
        if here:
            cells = [_cell(entry, reasons.get(entry.path, "")) for entry in here]
            heading = html.Legend(title)
            sections.append(html.Fieldset([heading, html.Div(cells, className="plan-cells")]))
    return sections


def _is_of(path: str, title: str) -> bool:
    return title == "Network" and path.startswith(NETWORK)


def read_form(given: Mapping[str, Any], start: Plan) -> tuple[Plan | None, Errors]:
    """The plan that a filled form means, or what cannot be meant, by field; "" is what concerns no single one.

    Args:
        start: the plan that the form was made of; fields that are not given keep its values.
    """
    values: dict[str, Any] = {}
    errors: Errors = {}
    known = entries(start, _shape_of(given, start))
    for path, entry in known.items():
        try:
            values[path] = entry.read(given[path]) if path in given else entry.value
        except ConfigError as error:
            errors[path] = str(error)
    if errors:
        return None, errors
    values.pop(KIND)
    network = {p.removeprefix(NETWORK): x for p, x in values.items() if p.startswith(NETWORK)}
    own = {path: x for path, x in values.items() if not path.startswith(NETWORK)}
    try:
        return Plan(**own, network=type(_shape_of(given, start))(**network)), {}
    except PlanError as error:
        blamed = KIND if error.field == "network" else error.field
        return None, {blamed if blamed in known else "": str(error)}
    except WorkbenchError as error:
        return None, {"": str(error)}


def _shape_of(given: Mapping[str, Any], start: Plan) -> Shape:
    """The start's shape, or the default one of the kind whose fields are given."""
    for kind in KINDS.values():
        if any(NETWORK + one.name in given for one in fields(kind)):
            names = {NETWORK + one.name for one in fields(kind)}
            if names >= {path for path in given if path.startswith(NETWORK)}:
                return start.network if isinstance(start.network, kind) else kind()
    return start.network


def refit(given: Mapping[str, Any], start: Plan, known: Mapping[str, Plan]) -> Plan | None:
    """The plan of a form anew where its task or kind asks for another network; None where it fits.

    Args:
        known: plans to take over, by preference in this order, where one has that task and kind.
    """
    shown = next(name for name, kind in KINDS.items() if isinstance(_shape_of(given, start), kind))
    task = str(given.get("task"))
    if task not in TASK_KINDS:
        return None
    possible = TASK_KINDS[task].networks
    asked = str(given.get(KIND))
    wanted = asked if asked in possible and asked != shown else shown
    wanted = wanted if wanted in possible else possible[0]
    if wanted == shown:
        return None
    near = [plan for plan in known.values() if plan.task == task and plan.network_kind == wanted]
    if near:
        return near[0]
    plain = Plan(name=f"{task}, {wanted}"[:80], task="two moons", network=KINDS["mlp"]())
    try:
        return replace(plain, task=task, network=KINDS[wanted]())
    except PlanError:
        return None


def reasons_of(plan: Plan) -> Errors:
    """Why fields do not apply to a plan, by field."""
    return {name: reason for name, reason in fields_for(plan).items() if reason}


def _entry(one: "Field[Any]", source: Any, prefix: str) -> Entry:
    about = one.metadata
    is_flag = about["kind"] == "flag"
    return Entry(
        path=prefix + one.name,
        kind=about["kind"],
        value=getattr(source, one.name),
        hint=about["hint"],
        unit=about["unit"],
        options=("yes", "no") if is_flag else about["choices"] or (),
        is_optional=about["optional"],
    )


def _number(text: str, is_whole: bool) -> int | float:
    try:
        value = float(text.replace(",", "") if is_whole else text)
    except ValueError:
        raise ConfigError(f"{text[:40]!r} is no number" if text else "give a number") from None
    if not math.isfinite(value) or (is_whole and value != int(value)):
        raise ConfigError(f"{text[:40]!r} is no {'whole' if is_whole else 'finite'} number")
    return int(value) if is_whole else value


def _cell(entry: Entry, reason: str) -> html.Div:
    identity = {"type": CONTROL, "field": entry.path}
    named = {"input": {"aria-label": entry.label, "maxLength": MAX_CHARS + 1}}
    if entry.options:
        control: Any = dmc.Select(
            id=identity,
            data=list(entry.options),
            value=entry.text,
            size="xs",
            allowDeselect=False,
            searchable=len(entry.options) > 8,
            disabled=bool(reason),
            attributes=named,
        )
    else:
        control = dmc.TextInput(
            id=identity,
            value=entry.text,
            size="xs",
            debounce=350,
            spellCheck=False,
            disabled=bool(reason),
            classNames={"input": "plan-input"},
            placeholder="empty" if entry.is_optional else "",
            attributes=named,
        )
    unit = html.Span(entry.unit, className="unit")
    return html.Div(
        [
            html.Div([entry.label, unit], className="field-label"),
            control,
            html.Div(id={"type": ERROR, "field": entry.path}, className="plan-error", role="alert"),
            html.Div(
                reason or entry.hint,
                id={"type": REASON, "field": entry.path},
                className="hint",
                **attributes("data-hint", entry.hint),
            ),
        ],
        className="field plan-cell",
    )
