"""What a worker does while it holds the lock: make the run, train it, and say how it went.

Whatever happens ends as a state with words for people: a full disk, a loss that is no number, a broken plan.
Some bytes are set aside at the start, so that even on a full disk there is room to say that it is full.
"""

import errno
import os
import re
import signal
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType

import torch

from workbench.errors import WorkbenchError
from workbench.processes import FAILED, FINISHED, STOPPED
from workbench.training.folders import is_trained
from workbench.training.journal import Progress
from workbench.training.loop import fit
from workbench.training.making import made
from workbench.training.run_folder import ENDED, PLAN_FILE, RunFolder, RunStatus, State
from workbench.training.state import STATE_FILE, read_counters
from workbench.training.stored import describe_network
from workbench.training.watching import Watched, default_probes

ASK_SECONDS, TELL_SECONDS = 0.25, 1.0
RESERVE_FILE, RESERVE_BYTES = ".reserve", 1 << 16
_FULL = {errno.ENOSPC: "the disk is full", errno.EDQUOT: "your quota is used up"}
_FULL |= {errno.EFBIG: "a file would be larger than is allowed here"}


class Gone(Exception):
    """The folder was deleted while its run was trained: nothing more must be written there."""


@dataclass
class Watch:
    """Asks, between two steps, whether to go on, and says how far the run is."""

    folder: RunFolder
    steps: int
    heard: Callable[[Progress], None]
    step: int = 0
    seconds: float = 0.0
    signalled: str = ""
    reason: str | None = None
    started: float = field(default_factory=time.time)
    _asked_at: float = -1e9
    _told_at: float = -1e9

    def goes_on(self, step: int, seconds: float) -> bool:
        """False once it was asked to stop, or a signal came."""
        self.step, self.seconds = step, seconds
        now = time.monotonic()
        if self.signalled:
            self.reason = "pause"
            return False
        if now - self._asked_at > ASK_SECONDS:
            self._asked_at = now
            self._check()
            self.reason = self.folder.asked()
        if now - self._told_at > TELL_SECONDS:
            self.tell("running")
        return self.reason is None

    def saw(self, progress: Progress) -> bool:
        """A validation is passed on; it never stops a run."""
        self.heard(progress)
        self._check()
        return True

    def _check(self) -> None:
        """Writing makes folders that are missing, and would bring back one that was deleted."""
        if not (self.folder.path / PLAN_FILE).is_file():
            raise Gone(self.folder.path)

    def tell(self, state: State, message: str = "") -> None:
        """Write where the run stands."""
        self._told_at = time.monotonic()
        status = RunStatus(
            state=state,
            step=self.step,
            steps=self.steps,
            seconds=round(self.seconds, 3),
            message=message,
            started=self.started,
            pid=os.getpid(),
        )
        self.folder.tell(status)


def work(folder: RunFolder, heard: Callable[[Progress], None] = lambda seen: None) -> int:
    """Train a run whose lock this process holds, or go on with it.

    Args:
        heard: told of every validation.

    Returns:
        0 finished, 1 failed, 4 paused or cancelled.

    Raises:
        CheckpointError: no plan, or a broken one.
    """
    watch = Watch(folder, folder.plan.steps, heard)
    watch.step, watch.seconds = _saved(folder.path)
    reserve = folder.path / RESERVE_FILE
    try:
        reserve.write_bytes(bytes(RESERVE_BYTES))
        with _signals(watch), _one_thread():
            return _work(folder, watch)
    except Gone:
        return FAILED
    except Exception as error:
        if not isinstance(error, WorkbenchError):
            traceback.print_exc()
        reserve.unlink(missing_ok=True)
        watch.step, watch.seconds = _saved(folder.path, watch)
        watch.tell("failed", explained(error, folder.path))
        return FAILED
    finally:
        reserve.unlink(missing_ok=True)


def _work(folder: RunFolder, watch: Watch) -> int:
    plan = folder.plan
    watch.tell("running")
    if not is_trained(folder.path):
        if watch.goes_on(watch.step, watch.seconds):
            parts = made(plan, folder.path)
            describe_network(folder.path, parts.model)
            task = Watched(parts.task, default_probes(plan, parts.model))
            fit(
                parts.model,
                task,
                parts.config,
                folder.path,
                penalties=parts.shaping,
                progress=watch,
            )
        if not is_trained(folder.path):
            _tell_stop(folder, watch)
            return STOPPED
    watch.step = plan.steps
    watch.tell("finished")
    return FINISHED


def _tell_stop(folder: RunFolder, watch: Watch) -> None:
    """Write that the run stopped, and with which step it will go on."""
    word = watch.reason or "pause"
    after = f" by the signal {watch.signalled}" if watch.signalled else ""
    state: State = "paused" if word == "pause" else "cancelled"
    assert state == ENDED[word]
    message, taken = f"{state}{after} after {watch.step:,} steps; its state is kept", watch.step
    watch.step, _ = _saved(folder.path)
    if watch.step != taken:
        # Weights whose loss is beyond the bound are not saved (divergence.py).
        message = (
            f"{state}{after} after {taken:,} steps; its loss was too high to be kept, and so it"
        )
        message += f" goes on from step {watch.step:,}"
    watch.tell(state, message)


def _saved(path: Path, watch: Watch | None = None) -> tuple[int, float]:
    """Steps and seconds that a resumption begins with."""
    with suppress(WorkbenchError, KeyError, TypeError, ValueError):
        if (path / STATE_FILE).is_file():
            counters = read_counters(path / STATE_FILE)
            return int(counters["step"]), float(counters["seconds"])
    return (0, 0.0) if watch is None else (0, watch.seconds)


def explained(error: BaseException, path: Path) -> str:
    """An error in words for people, and what is kept."""
    step, _ = _saved(path)
    kept = f"the state after {step:,} steps is kept" if step else "nothing was saved before"
    if what := _full(error):
        return (
            f"{what}: {path} could not be written to. All files there are whole, and {kept}: "
            "make room and start the run again"
        )
    if isinstance(error, WorkbenchError):
        return str(error)
    lines = str(error).strip().splitlines() or ["no reason given"]
    return f"{type(error).__name__}: {lines[0][:300]} ({kept}; the trace is in worker.log)"


def _full(error: BaseException | None) -> str:
    """What of the disk is used up; empty where it is another error."""
    while error is not None:
        number = error.errno if isinstance(error, OSError) else None
        if number is None and (found := re.search(r"os error ([0-9]+)", str(error))):
            number = int(found[1])
        if number in _FULL:
            return _FULL[number]
        error = error.__cause__ or error.__context__
    return ""


@contextmanager
def _signals(watch: Watch) -> Iterator[None]:
    """Being told to end is a pause, for the length of a `with` block."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def note(number: int, frame: FrameType | None) -> None:
        watch.signalled = signal.Signals(number).name

    kinds = (signal.SIGTERM, signal.SIGINT)
    before = {kind: signal.signal(kind, note) for kind in kinds}
    try:
        yield
    finally:
        for kind, handler in before.items():
            signal.signal(kind, handler)


@contextmanager
def _one_thread() -> Iterator[None]:
    """Threads that wait for one another cost such small matrices far more than they save."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
