"""A process that works on a folder alone: it outlives whoever started it, and can be killed at any time.

    with alone(folder, "…"):  …      what is to be checked and told before it is started
    start_detached(module, folder)   python -m MODULE FOLDER, in a session of its own, its words in worker.log
    main_over(words, module, …)      what that module's main does: the lock, the work, an exit code

Exit codes: 0 finished, 1 failed, 2 nothing in the folder to work on, 3 another works on it, 4 stopped.
Only one process works on a folder: it holds the lock for as long as it lives.
"""

import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

from workbench.errors import ConfigError, WorkbenchError
from workbench.locks import Lock

Opened = TypeVar("Opened")
LOCK_FILE, CONTROL_FILE, LOG_FILE = "lock", "control", "worker.log"
FINISHED, FAILED, NOTHING, IN_USE, STOPPED = range(5)
PATIENCE = 3.0
"""Seconds: others hold the lock for an instant to see whether it is held."""
_SETTINGS = {
    "OMP_NUM_THREADS": "1",
    "TOKENIZERS_PARALLELISM": "false",
    "HF_HUB_OFFLINE": "1",
}


def module_path() -> str:
    """PYTHONPATH for a process that is to find the modules that this one finds, from whatever folder.

    The current folder is left out: a file in it may be called as a library is. Our own is there instead.
    """
    places = [entry for entry in sys.path if entry]
    ours = str(Path(__file__).parents[1])
    return os.pathsep.join(places if ours in places else [*places, ours])


def environment() -> dict[str, str]:
    """Of a process that works beside this one: a thread of its own, no hub, the modules that are found here."""
    return {**os.environ, **_SETTINGS, "PYTHONPATH": module_path()}


@contextmanager
def alone(folder: Path, taken: str) -> Iterator[None]:
    """Hold a folder's lock for the length of a `with` block.

    Args:
        taken: what is said where another process holds it.

    Raises:
        ConfigError: one does.
        WorkbenchError: the folder cannot be written to.
    """
    with Lock(folder / LOCK_FILE) as is_ours:
        if not is_ours:
            raise ConfigError(taken)
        yield


def start_detached(module: str, folder: Path) -> None:
    """Run a module's main over a folder in a process of its own that outlives this one.

    Raises:
        WorkbenchError: the process cannot be started, or the folder not be written to.
    """
    # Relative names of files stay relative to this folder.
    try:
        with (folder / LOG_FILE).open("ab") as log:
            process = subprocess.Popen(
                [sys.executable, "-P", "-m", module, str(folder.resolve())],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                env=environment(),
            )
    except OSError as error:
        raise WorkbenchError(f"cannot start work on {folder}: {error.strerror}") from error
    # Somebody must wait for it, or the system would keep it as a zombie.
    threading.Thread(target=process.wait, daemon=True).start()


def main_over(
    words: list[str],
    module: str,
    opened: Callable[[Path], Opened],
    work: Callable[[Opened], int],
) -> int:
    """Work here and now on the folder that is named; the exit code says how it ended.

    Args:
        opened: the folder as what is worked on; raises WorkbenchError where there is nothing of the kind.
        work: does it, while the lock is held; returns the exit code.
    """
    if len(words) != 1:
        return _refused(f"usage: python -m {module} FOLDER", NOTHING)
    folder = Path(words[0])
    try:
        found = opened(folder)
        with Lock(folder / LOCK_FILE, PATIENCE) as is_ours:
            if not is_ours:
                return _refused(f"another process works on {folder}", IN_USE)
            return work(found)
    except WorkbenchError as error:
        return _refused(f"error: {error}", NOTHING)


def _refused(why: str, code: int) -> int:
    print(why, file=sys.stderr)  # noqa: T201
    return code
