"""The only door from pages to runs: found in one folder, started as processes, read as they go.

Whatever a folder holds may be half written, broken or gone a moment later: each run is read by itself, and one
that cannot be read is listed with the reason.
"""

import re
import threading
import time
from collections.abc import Hashable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from app.cache import ByteCache
from app.jobs import Report
from app.run_models import newest_weights, run_of, weights_info, why_not
from workbench.errors import UnknownModelError, UnsupportedError, WorkbenchError
from workbench.models import ModelInfo
from workbench.models.files import checkpoint_steps
from workbench.training.layouts import Layout
from workbench.training.loop import METRICS_FILE
from workbench.training.making import layout_of
from workbench.training.plan import Plan, make_run
from workbench.training.run_folder import RunFolder, create, list_runs
from workbench.training.tasks import Task
from workbench.training.wires import Network
from workbench.training.worker import start

NAME = re.compile(r"[A-Za-z0-9_][\w.-]{0,119}", re.ASCII)
LOSSES = ("test_loss", "loss")  # of held-out examples, by the name that tasks give it
GOING = ("queued", "running")
MAX_FRAMES = 60
LIST_SECONDS = 2.0  # pages ask for the models with every callback
RESUMABLE = ("paused", "cancelled", "interrupted", "failed")


@dataclass(frozen=True)
class Row:
    """One run in the list.

    Args:
        state: as of `RunStatus`, or "broken" for a folder that cannot be read; `message` says why.
        loss: of held-out examples, at the last validation.
    """

    name: str
    label: str
    state: str
    step: int = 0
    steps: int = 0
    seconds: float = 0.0
    message: str = ""
    task: str = ""
    kind: str = ""
    loss: float | None = None

    @property
    def is_going(self) -> bool:
        """Whether it will have moved on a second later."""
        return self.state in GOING


@dataclass(frozen=True, eq=False)
class Trained:
    """A network of a run at one step, with the task that it is trained on and the runs beside it."""

    name: str
    network: Network
    plan: Plan
    task: Task
    layout: Layout
    step: int | None
    runs: "Trainings"


class Trainings:
    """The runs of one folder.

    Args:
        root: made when the first run is started; None refuses to start any.
        reads_files: whether runs may read a folder of this machine that a visitor names.
    """

    def __init__(self, root: Path | None, *, reads_files: bool = True) -> None:
        self.root, self.reads_files = root, reads_files
        self._tables: ByteCache[pd.DataFrame] = ByteCache(64 << 20, _frame_bytes, keep=1)
        self._tasks: ByteCache[Any] = ByteCache(64, lambda task: 8)
        self._listed: tuple[float, list[ModelInfo]] = (-LIST_SECONDS, [])
        self._lock = threading.Lock()

    def rows(self) -> list[Row]:
        """Every run, newest first; what cannot be read is there too."""
        if self.root is None or not self.root.is_dir():
            return []
        return [self.row(folder) for folder in list_runs(self.root)]

    def row(self, folder: RunFolder) -> Row:
        """How one run stands."""
        name = folder.path.name
        try:
            plan, status = folder.plan, folder.status
            return Row(
                name=name,
                label=plan.name or name,
                state=status.state,
                step=status.step,
                steps=status.steps,
                seconds=status.seconds,
                message=status.message,
                task=plan.task,
                kind=plan.network_kind,
                loss=self._last_loss(folder),
            )
        except (WorkbenchError, OSError) as error:
            return Row(name, name, "broken", message=str(error))

    def find(self, name: str) -> RunFolder:
        """The run of a name.

        Raises:
            UnknownModelError: none; a path is never one.
        """
        if self.root is not None and isinstance(name, str) and NAME.fullmatch(name):
            path = self.root / name
            inside = path.is_dir() and path.resolve().parent == self.root.resolve()
            if inside and (path / "plan.json").is_file():
                return RunFolder(path)
        raise UnknownModelError(f"no run {str(name)[:60]!r}: it was removed, or never was")

    def start(self, plan: Plan) -> str:
        """Start a new run; its name.

        Raises:
            WorkbenchError: no folder for runs, or it cannot be written to.
        """
        if self.root is None:
            raise UnsupportedError(
                "this dashboard has no folder for runs: start it with --runs DIR"
            )
        self.check(plan)
        folder = create(self.root, plan)
        start(folder)
        return folder.path.name

    def check(self, plan: Plan) -> None:
        """Refuse what a visitor from elsewhere may not ask for.

        Raises:
            UnsupportedError: files of this machine.
        """
        if plan.folder is not None and not self.reads_files:
            raise UnsupportedError(
                "folder: this dashboard can be reached from other machines, so it reads no folders of this "
                "one"
            )

    def ask(self, name: str, what: str) -> None:
        """Have a run paused, cancelled or resumed.

        Raises:
            WorkbenchError: no such run, or none of this state.
        """
        folder = self.find(name)
        with self._lock:
            state = folder.status.state
            if what == "resume":
                if state not in RESUMABLE:
                    raise UnsupportedError(f"{name} is {state}: there is nothing to resume")
                start(folder)
            elif what in ("pause", "cancel"):
                if state not in GOING and not (what == "cancel" and state in RESUMABLE):
                    raise UnsupportedError(f"{name} is {state}: there is nothing to {what}")
                folder.ask("pause" if what == "pause" else "cancel")
            else:
                raise UnsupportedError(f"no action {what[:40]!r}: there are pause, cancel, resume")

    def metrics(self, folder: RunFolder) -> pd.DataFrame:
        """What was measured so far, read once for each state of the file."""
        stamp = self.stamp(folder)
        table = self._tables.get(stamp)
        if table is None:
            table = _numbers(folder.metrics())
            self._tables.put(stamp, table)
        return table

    def stamp(self, folder: RunFolder) -> Hashable:
        """Changes when more was measured, or the folder is another run's."""
        return (
            folder.path.name,
            *_times(folder.path / METRICS_FILE),
            *_times(folder.path / "plan.json"),
        )

    def weights_stamp(self, folder: RunFolder, step: int | None) -> str:
        """Tells the weights of a snapshot from those of another folder of the same name."""
        made = _times(folder.path / "plan.json")
        return f"{made[0]:x}-{made[1]:x}-{step}"

    def load(self, name: str, step: int | None, report: Report | None = None) -> Trained:
        """A run's network at a snapshot; None is the newest.

        Raises:
            WorkbenchError: no such run or snapshot, or a broken one.
        """
        if report is not None:
            report(f"Loading {name}")
        folder = self.find(name)
        plan, network = folder.plan, folder.load(step)
        key = (name, _times(folder.path / "plan.json"))
        task = self._tasks.get(key)
        if task is None:
            task = make_run(plan, folder.path).task
            self._tasks.put(key, task)
        return Trained(name, network, plan, task, layout_of(plan, network), step, self)

    def network(self, name: str, step: int | None) -> Network:
        """A run's network at a snapshot, without its task.

        Raises:
            WorkbenchError: no such run or snapshot, or a broken one.
        """
        return self.find(name).load(step)

    def layout(self, name: str, network: Network) -> Layout:
        """Where the units of a run's network stand.

        Raises:
            WorkbenchError: no such run.
        """
        return layout_of(self.find(name).plan, network)

    def frames(self, folder: RunFolder) -> tuple[int, ...]:
        """The snapshots that the page scrubs through: all, or some spread over the run, the last among them."""
        steps = folder.snapshots()
        if len(steps) <= MAX_FRAMES:
            return steps
        return tuple(steps[i * (len(steps) - 1) // (MAX_FRAMES - 1)] for i in range(MAX_FRAMES))

    def models(self) -> list[ModelInfo]:
        """The finished runs that other pages can open, named by their paths, as `workbench.load` takes them."""
        with self._lock:
            if time.monotonic() - self._listed[0] < LIST_SECONDS:
                return self._listed[1]
        found = []
        for row in self.rows():
            if row.state == "finished" and (name := self.model_name(row)) is not None:
                summary = f"{row.label}: trained here on {row.task}, {row.steps:,} steps"
                steps = tuple(checkpoint_steps(name))
                found.append(ModelInfo(name, "own", True, None, summary, steps))
        with self._lock:
            self._listed = (time.monotonic(), found)
        return found

    def model_name(self, row: Row) -> str | None:
        """What other pages call a run's model, or its newest weights; None where they cannot show it."""
        if self.root is None or why_not(row.kind, row.task):
            return None
        path = self.root / row.name
        return str(path) if row.state == "finished" else newest_weights(path)

    def weights(self, name: str) -> ModelInfo | None:
        """The weights of a run at one step, as a model of that name; None where there are none.

        Raises:
            WorkbenchError: the run is gone, or its plan is broken.
        """
        run = run_of(name)
        return None if run is None else weights_info(self.find(run), name)

    def _last_loss(self, folder: RunFolder) -> float | None:
        table = self.metrics(folder)
        name = loss_name(table)
        if name is None or not (known := table[name].dropna().tolist()):
            return None
        return float(known[-1])


def loss_name(table: pd.DataFrame) -> str | None:
    """The column that holds the loss of held-out examples."""
    return next((name for name in LOSSES if name in table), None)


def _numbers(table: pd.DataFrame) -> pd.DataFrame:
    """What a file says of steps and numbers; anything else in it is none."""
    found = table.apply(pd.to_numeric, errors="coerce")
    return found[found["step"].notna()].reset_index(drop=True)


def _times(path: Path) -> tuple[int, int, int]:
    try:
        found = path.stat()
    except OSError:
        return (0, 0, 0)
    return (found.st_ino, found.st_mtime_ns, found.st_size)


def _frame_bytes(table: pd.DataFrame) -> int:
    return int(table.memory_usage(deep=True).sum())
