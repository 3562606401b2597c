"""Small files of a model folder, read with the distrust that a downloaded folder deserves."""

import json
import re
from pathlib import Path
from typing import Any

from workbench.errors import CheckpointError

MAX_CONFIG_BYTES = 1 << 20


def read_json(path: Path, *, limit: int = MAX_CONFIG_BYTES) -> dict[str, Any]:
    """A JSON object from a file.

    Raises:
        CheckpointError: missing, too large, not UTF-8, or not a JSON object.
    """
    if not path.is_file():
        raise CheckpointError(f"no {path.name} in {path.parent}")
    if path.stat().st_size > limit:
        raise CheckpointError(f"{path} is over {limit >> 10} KiB: no {path.name} is that large")
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    # ValueError covers broken UTF-8, broken JSON and whole numbers of thousands of digits.
    except (ValueError, RecursionError, OSError) as error:
        raise CheckpointError(f"{path} is not JSON: {error}") from error
    if not isinstance(value, dict):
        raise CheckpointError(f"{path} must hold a JSON object, not {type(value).__name__}")
    return value


def step_name(step: int) -> str:
    """The name of the file that keeps the weights of a training step."""
    return f"step-{step:06d}.safetensors"


def step_of(name: str) -> int | None:
    """The training step whose weights a file of this name keeps, or None."""
    match = re.fullmatch(r"step-([0-9]{6,8})\.safetensors", name)
    return int(match[1]) if match and step_name(int(match[1])) == name else None


def checkpoint_steps(folder: str | Path) -> list[int]:
    """The training steps whose weights a folder keeps, in order."""
    found = (step_of(path.name) for path in Path(folder).glob("checkpoints/step-*"))
    return sorted(step for step in found if step is not None)


def first_line(error: Exception) -> str:
    """An error of another library, short enough to be quoted in ours."""
    return (
        f"{type(error).__name__}: {(str(error).strip() or 'no reason given').splitlines()[0][:300]}"
    )
