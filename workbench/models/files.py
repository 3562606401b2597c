"""Small files of a model folder, read with the distrust that a downloaded folder deserves."""

import json
import os
import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from workbench.errors import CheckpointError

MAX_CONFIG_BYTES = 1 << 20


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """A scratch file beside `path` to write to; it takes its place at the end of the `with`, unless that fails.

    A reader sees the old file or the new one, never a part, even after a loss of power.
    """
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=".saving-")
    os.close(handle)
    scratch = Path(name)
    try:
        yield scratch
        with scratch.open("rb+") as file:
            os.fsync(file.fileno())
        # Scratch files are made for their owner alone; a model may be read by whoever may enter its folder.
        scratch.chmod(0o644)
        scratch.replace(path)
    finally:
        scratch.unlink(missing_ok=True)


def write_atomically(path: Path, text: str) -> None:
    """Write a text file so that a reader sees the old one or the new one, never a part."""
    with whole_file(path) as scratch:
        scratch.write_text(text, encoding="utf-8")


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
