"""What the address of the training page says: a run, the step looked at, a second run, how curves look.

run  at  other  level  threshold  log  dot          new = the preset that the form of a new run starts from
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from app.fields import Field, PageState, choice, number, text, whole
from app.trainings import RESUMABLE, Trainings
from workbench.errors import ConfigError, WorkbenchError

MAX_STEP = 10**9


def _dot(given: Any) -> str:
    if given and not re.fullmatch(r"[\w. -]{1,60}/\d{1,6}", str(given), re.ASCII):
        raise ConfigError(f"dot {str(given)[:40]!r} is no unit: write for example 'hidden 0/3'")
    return str(given or "")


def _level(given: Any) -> float:
    return float(number("level", 0.0, low=0.0, high=1e9).parse(given))


FIELDS = (
    whole("at", high=MAX_STEP),
    text("other", limit=120),
    Field("level", _level),
    number("threshold", 0.0, low=0.0, high=1e9),
    choice("log", ("on", "off")),
    Field("dot", _dot, ""),
)


def read_run_state(runs: Trainings, given: Any) -> tuple[PageState, list[str]]:
    """What a mapping of plain values means: every field, `run`, and what panels ask of.

    Beside the address's fields there are `model`, the run's name; `step`, the snapshot that is shown, None
    where there is none; and `stamp`, which tells its weights from those of another folder of that name.

    Raises:
        WorkbenchError: no such run.
    """
    if not isinstance(given, Mapping):
        raise ConfigError("the address could not be read")
    folder = runs.find(str(given.get("run") or ""))
    state: PageState = {"run": folder.path.name, "model": folder.path.name}
    complaints: list[str] = []
    for field in FIELDS:
        value = given.get(field.name)
        state[field.name] = field.default
        if value is None or (value == "" and field.default != ""):
            continue
        try:
            state[field.name] = field.parse(value)
        except WorkbenchError as error:
            complaints.append(str(error))
    complaints += _check_other(runs, state)
    complaints += _choose_step(runs.frames(folder), state, given.get("step"))
    state["stamp"] = runs.weights_stamp(folder, state["step"])
    return state, complaints


def _check_other(runs: Trainings, state: PageState) -> list[str]:
    if not state["other"]:
        return []
    try:
        runs.find(state["other"])
    except WorkbenchError as error:
        state["other"] = ""
        return [str(error)]
    return []


def _choose_step(steps: Sequence[int], state: PageState, seen: Any) -> list[str]:
    """The snapshot of the step that is asked for, or the newest.

    Args:
        seen: the newest when the browser last looked: what is asked of it is not to change with every snapshot.
    """
    newest = steps[-1] if steps else None
    if state["at"] is None or state["at"] in steps:
        newest = seen if type(seen) is int and seen in steps else newest
        state["step"] = newest if state["at"] is None else state["at"]
        return []
    asked, state["at"] = state["at"], None
    state["step"] = newest
    if not steps:
        return [f"there is no snapshot of step {asked:,} yet"]
    nearest = min(steps, key=lambda step: abs(step - asked))
    state["at"] = state["step"] = nearest
    return [f"there is no snapshot of step {asked:,}: this is the nearest, of step {nearest:,}"]


def is_at_rest(state: str) -> bool:
    """Whether a run will not move on by itself."""
    return state == "finished" or state in RESUMABLE
