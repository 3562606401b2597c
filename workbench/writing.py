"""Files that appear whole or not at all: the one way in which the workbench writes."""

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from workbench.errors import WorkbenchError


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """A scratch file beside `path` to write to; it takes its place at the end of the `with`, unless that fails.

    A reader sees the old file or the new one, never a part, even after a loss of power. The folder is made
    if it is missing.

    Raises:
        WorkbenchError: the folder cannot be written to.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=".saving-", suffix=path.suffix)
    except OSError as error:
        raise WorkbenchError(f"cannot write to {path.parent}: {error.strerror}") from error
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
