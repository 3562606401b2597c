"""The view that an address asks for; what cannot be meant gives way to a default and leaves a complaint."""

from typing import Any

from app.prompts import first_prompt, matched_pair
from app.session import Session
from app.state import DEFAULT_MODEL, KINDS, MAX_PROMPT_CHARS, View, read_view
from workbench.errors import WorkbenchError
from workbench.models import ModelInfo


def initial_view(session: Session, query: dict[str, Any]) -> tuple[View, ModelInfo, list[str]]:
    """The view that an address asks for, its model, and what could not be meant."""
    view, complaints = read_view(query, View())
    values = {name: getattr(view, name) for name in view.__dataclass_fields__}
    info, said = model_of(session, view.model if "model" in query else None)
    complaints += said
    values["model"] = info.name
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
    too_long = [name for name in ("prompt", "other") if len(values[name]) > MAX_PROMPT_CHARS]
    complaints += [
        f"{name} has {len(values[name]):,} characters; the dashboard takes {MAX_PROMPT_CHARS:,}"
        for name in too_long
    ]
    if "prompt" not in query or "prompt" in too_long:
        values["prompt"] = first_prompt(info, values["kind"])
    if "other" not in query or "other" in too_long:
        values["other"] = matched_pair(values["prompt"])
    # No step stands for the end of training, which only an address that says so subtracts.
    if values["before"] is None and query.get("before") != "final" and info.steps:
        values["before"] = info.steps[0]
    return View(**values), info, complaints


def model_of(session: Session, name: Any) -> tuple[ModelInfo, list[str]]:
    """The model of a name, or one that can be shown and what is to be said; None names none.

    Raises:
        WorkbenchError: there is no model at all.
    """
    if name is None:
        return _first_model(session), []
    try:
        info = session.info(str(name))
    except WorkbenchError as error:
        return _first_model(session), [str(error)]
    if info.available:
        return info, []
    return _first_model(session), [f"{info.name} is not available here: {info.summary}"]


def _first_model(session: Session) -> ModelInfo:
    infos = [info for info in session.models() if info.available]
    if not infos:
        raise WorkbenchError("no model is available: run `workbench train` or install one")
    if infos[0].kind == "own":
        return infos[0]  # who brought a model wants to see it
    return next((info for info in infos if info.name == DEFAULT_MODEL), infos[0])
