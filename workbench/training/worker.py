"""The process that trains a run folder: it outlives whoever started it, and can be killed at any time.

    start(folder)                                    begins or goes on, in a session of its own
    python -m workbench.training.worker FOLDER       the same here and now

Exit codes: 0 finished, 1 failed, 2 the folder is no run, 3 another worker trains it, 4 paused or cancelled.
"""

import os
import sys
import time
from dataclasses import replace
from pathlib import Path

from workbench.errors import CheckpointError, ConfigError
from workbench.processes import CONTROL_FILE, alone, main_over, start_detached
from workbench.training.run_folder import RunFolder

MODULE = "workbench.training.worker"


def start(folder: RunFolder) -> None:
    """Train a run, or go on with it, in a process of its own that outlives this one.

    Raises:
        CheckpointError: no plan, or a broken one.
        ConfigError: it is trained already, or finished.
        WorkbenchError: the folder cannot be written to.
    """
    _ = folder.plan
    with alone(folder.path, f"{folder.name} is being trained already"):
        now = folder.status
        if now.state == "finished":
            raise ConfigError(f"{folder.name} is finished: train a new run")
        if now.steps == 0:
            raise CheckpointError(now.message)
        (folder.path / CONTROL_FILE).unlink(missing_ok=True)
        folder.tell(replace(now, state="queued", message=""))
    start_detached(MODULE, folder.path)


def main(words: list[str]) -> int:
    """Train the run folder that is named; the exit code says how it ended."""
    return main_over(words, MODULE, _opened, _train)


def _opened(path: Path) -> RunFolder:
    folder = RunFolder(path)
    _ = folder.plan
    return folder


def _train(folder: RunFolder) -> int:
    now = replace(folder.status, state="running", message="loading")
    folder.tell(replace(now, started=time.time(), pid=os.getpid()))
    # Only now: what is heavy must not keep the lock waiting.
    from workbench.training.working import work

    return work(folder)


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
