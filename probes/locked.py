"""A lock between processes that ends with the process that holds it, however it ends."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from workbench.errors import WorkbenchError


@contextmanager
def locked(path: Path, taken: str) -> Iterator[None]:
    """Hold the lock at `path`.

    Raises:
        WorkbenchError: `taken`, where another process holds it; or the folder cannot be written to.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        file = path.open("a+b")
    except OSError as error:
        raise WorkbenchError(f"cannot write to {path.parent}: {error.strerror}") from error
    with file:
        if not _take(file):
            raise WorkbenchError(f"{taken}: wait for it, or choose another folder")
        yield


def _take(file: IO[Any]) -> bool:
    """Whether the lock is ours now; the system takes it back when the file is closed."""
    try:
        if sys.platform == "win32":
            import msvcrt

            msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
        else:
            import fcntl

            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True
