"""Where a run stands, as its worker last wrote it: read with distrust, because anybody may write files."""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from workbench.errors import CheckpointError
from workbench.models.files import read_json
from workbench.training.plan_fields import MAX_TEXT

State = Literal["queued", "running", "paused", "cancelled", "interrupted", "finished", "failed"]


@dataclass(frozen=True, kw_only=True)
class RunStatus:
    """Where a run stands.

    Args:
        seconds: of training, those before a resumption included.
        message: why it failed, was interrupted, or stopped; for people.
        started: when its newest worker began, in seconds since 1970; None = not yet.
        pid: of that worker.
    """

    state: State
    step: int = 0
    steps: int
    seconds: float | int = 0.0
    message: str = ""
    started: float | int | None = None
    pid: int | None = None


def read_status(path: Path, steps: int) -> RunStatus | None:
    """What was written last; None = nothing yet.

    Raises:
        CheckpointError: something that no worker writes.
    """
    if not path.is_file():
        return None
    told = read_json(path, limit=MAX_TEXT)
    found: dict[str, Any] = {
        name: told.get(name) for name in ("state", "step", "seconds", "message")
    }
    is_fine = (
        found["state"] in get_args(State)
        and _is_whole(found["step"])
        and _is_number(found["seconds"])
        and isinstance(found["message"], str)
        and (told.get("started") is None or _is_number(told["started"]))
        and (told.get("pid") is None or _is_whole(told["pid"]))
    )
    if not is_fine:
        raise CheckpointError(f"{path} is broken: delete it, and start the run again")
    return RunStatus(**found, steps=steps, started=told.get("started"), pid=told.get("pid"))


def _is_whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**63


def _is_number(value: Any) -> bool:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return is_number and math.isfinite(value) and value >= 0
