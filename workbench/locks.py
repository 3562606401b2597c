"""A lock that the system itself takes away when its holder dies: flock on a file that stays.

No process number is ever trusted: numbers are used again, a lock is not.
"""

import fcntl
import time
from pathlib import Path
from types import TracebackType

from workbench.errors import WorkbenchError

_PAUSE = 0.02


class Lock:
    """`with Lock(path) as is_ours:` holds the lock if nobody else does.

    Args:
        patience: seconds for which to try; others may hold it for an instant to see whether it is held.
    """

    def __init__(self, path: Path, patience: float | int = 0.2) -> None:
        self.path, self.patience = path, patience

    def __enter__(self) -> bool:
        try:
            self._file = self.path.open("ab")
        except OSError as error:
            raise WorkbenchError(f"cannot lock {self.path}: {error.strerror}") from error
        end = time.monotonic() + self.patience
        while not _taken(self._file.fileno(), fcntl.LOCK_EX):
            if time.monotonic() > end:
                return False
            time.sleep(_PAUSE)
        return True

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._file.close()


def is_held(path: Path) -> bool:
    """Whether somebody holds the lock; no file, no holder."""
    try:
        with path.open("rb") as file:
            return not _taken(file.fileno(), fcntl.LOCK_SH)
    except OSError:
        return False


def _taken(handle: int, how: int) -> bool:
    try:
        fcntl.flock(handle, how | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
