"""Small files of a model folder, read with the distrust that a downloaded folder deserves."""

import json
import os
import re
import tempfile
from pathlib import Path
from typing import Any

from workbench.errors import CheckpointError

MAX_CONFIG_BYTES = 1 << 20


def write_atomically(path: Path, text: str) -> None:
    """Write a text file so that a reader sees the old one or the new one, never a part."""
    handle, scratch = tempfile.mkstemp(dir=path.parent, prefix=".saving-")
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        Path(scratch).chmod(0o644)
        Path(scratch).replace(path)
    except BaseException:
        Path(scratch).unlink(missing_ok=True)
        raise


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


def checkpoint_steps(folder: str | Path) -> list[int]:
    """The training steps whose weights a folder keeps, in order."""
    found = (re.fullmatch(r"step-(\d{6})", p.stem) for p in Path(folder).glob("checkpoints/step-*"))
    return sorted(int(match[1]) for match in found if match)


def first_line(error: Exception) -> str:
    """An error of another library, short enough to be quoted in ours."""
    return (
        f"{type(error).__name__}: {(str(error).strip() or 'no reason given').splitlines()[0][:300]}"
    )
