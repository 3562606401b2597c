"""The process that trains a run folder: it outlives whoever started it, and can be killed at any time.

    start(folder)                                    begins or goes on, in a session of its own
    python -m workbench.training.worker FOLDER       the same here and now

Exit codes: 0 finished, 1 failed, 2 the folder is no run, 3 another worker trains it, 4 paused or cancelled.
Only one worker trains a folder: it holds the lock for as long as it lives.
"""

import os
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path

from workbench.errors import CheckpointError, ConfigError, WorkbenchError
from workbench.training.locks import Lock
from workbench.training.run_folder import CONTROL_FILE, LOCK_FILE, LOG_FILE, RunFolder

FINISHED, FAILED, NO_RUN, IN_USE, STOPPED = range(5)
PATIENCE = 3.0
_THREADS = {"OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false", "HF_HUB_OFFLINE": "1"}


def start(folder: RunFolder) -> None:
    """Train a run, or go on with it, in a process of its own that outlives this one.

    Raises:
        CheckpointError: no plan, or a broken one.
        ConfigError: it is trained already, or finished.
        WorkbenchError: the folder cannot be written to.
    """
    _ = folder.plan
    with Lock(folder.path / LOCK_FILE) as is_ours:
        if not is_ours:
            raise ConfigError(f"{folder.name} is being trained already")
        now = folder.status
        if now.state == "finished":
            raise ConfigError(f"{folder.name} is finished: train a new run")
        if now.steps == 0:
            raise CheckpointError(now.message)
        (folder.path / CONTROL_FILE).unlink(missing_ok=True)
        folder.tell(replace(now, state="queued", message=""))
    try:
        with (folder.path / LOG_FILE).open("ab") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", "workbench.training.worker", str(folder.path.resolve())],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                env=os.environ | _THREADS,
                cwd=Path(__file__).parents[2],
            )
    except OSError as error:
        raise WorkbenchError(f"cannot start training {folder.path}: {error.strerror}") from error
    # Somebody must wait for it, or the system would keep it as a zombie.
    threading.Thread(target=process.wait, daemon=True).start()


def main(words: list[str]) -> int:
    """Train the run folder that is named; the exit code says how it ended."""
    if len(words) != 1:
        print("usage: python -m workbench.training.worker FOLDER", file=sys.stderr)  # noqa: T201
        return NO_RUN
    folder = RunFolder(Path(words[0]))
    try:
        _ = folder.plan
        with Lock(folder.path / LOCK_FILE, PATIENCE) as is_ours:
            if not is_ours:
                print(f"another worker trains {folder.path}", file=sys.stderr)  # noqa: T201
                return IN_USE
            now = replace(folder.status, state="running", message="loading")
            folder.tell(replace(now, started=time.time(), pid=os.getpid()))
            # Only now: what is heavy must not keep the lock waiting.
            from workbench.training.working import work

            return work(folder)
    except WorkbenchError as error:
        print(f"error: {error}", file=sys.stderr)  # noqa: T201
        return NO_RUN


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
