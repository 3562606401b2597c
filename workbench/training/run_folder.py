"""One training run as a folder: what was asked for, how far it is, what was measured, its weights.

<run>/plan.json       the plan, written before all else
      status.json     where the run stands, as its worker last wrote it
      lock            held (flock) by the worker that trains it: a lock that nobody holds means that none lives
      control         what the worker is asked to do: pause or cancel
      worker.log      what the worker printed
      …               all that the loop writes: metrics, snapshots, state, the finished model (loop.py)

Reading never fails because a file is broken or half there: the status says so instead.
"""

import json
import os
import re
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from workbench.errors import CheckpointError, ConfigError, WorkbenchError
from workbench.locks import Lock, is_held
from workbench.models.files import checkpoint_steps
from workbench.processes import CONTROL_FILE, LOCK_FILE, LOG_FILE
from workbench.training.plan import Plan
from workbench.training.plan_fields import MAX_TEXT
from workbench.training.run_status import RunStatus, State, read_status
from workbench.writing import write_atomically

if TYPE_CHECKING:
    import pandas as pd

    from workbench.training.wires import Network

__all__ = [
    "RunFolder",
    "RunStatus",
    "State",
    "adopt",
    "create",
    "folder_name",
    "list_runs",
]

PLAN_FILE, STATUS_FILE = "plan.json", "status.json"
PATIENCE = 120.0
"""Seconds within which a process that was started takes the lock, even on a busy machine."""
ENDED: dict[str, State] = {"pause": "paused", "cancel": "cancelled"}


@dataclass(frozen=True)
class RunFolder:
    """A run by its folder; nothing is kept in memory, so every question reads what is there now."""

    path: Path

    @property
    def name(self) -> str:
        """The name of the folder."""
        return self.path.name

    @property
    def plan(self) -> Plan:
        """What is trained.

        Raises:
            CheckpointError: no plan, or a broken one.
        """
        path = self.path / PLAN_FILE
        try:
            if path.stat().st_size > MAX_TEXT:
                raise CheckpointError(f"{path} is over {MAX_TEXT >> 10} KiB: no plan is that large")
            return Plan.from_json(path.read_text(encoding="utf-8"))
        except OSError as error:
            raise CheckpointError(f"no plan in {self.path}: {error.strerror}") from error
        except (ConfigError, UnicodeDecodeError) as error:
            raise CheckpointError(f"{path} is broken: {error}") from error

    @property
    def is_alive(self) -> bool:
        """Whether a worker trains it now."""
        return is_held(self.path / LOCK_FILE)

    @property
    def status(self) -> RunStatus:
        """Where the run stands; a worker that is gone without having said so was interrupted."""
        try:
            return self._status(self.plan.steps)
        except CheckpointError as error:
            return RunStatus(state="failed", steps=0, message=str(error))

    def _status(self, steps: int) -> RunStatus:
        told = read_status(self.path / STATUS_FILE, steps)
        if told is None:
            done = self._is_trained()
            state: State = "finished" if done else "queued"
            return RunStatus(state=state, step=steps if done else 0, steps=steps)
        if told.state == "queued" and self._waits_in_vain() and not self.is_alive:
            message = f"its process never began to work: {LOG_FILE} may say why; start it again"
            return replace(told, state="interrupted", message=message)
        if told.state != "running" or self.is_alive:
            return told
        # It may have ended properly, or another have begun, between the two looks.
        again = read_status(self.path / STATUS_FILE, steps) or told
        if again.state != "running" or again.started != told.started:
            return again
        message = f"its process ended without a word, last seen at step {told.step}: start it again"
        return replace(told, state="interrupted", message=message)

    def _waits_in_vain(self) -> bool:
        """Whether a process should have begun long ago."""
        try:
            return time.time() - (self.path / STATUS_FILE).stat().st_mtime > PATIENCE
        except OSError:
            return False

    def tell(self, status: RunStatus) -> None:
        """Write where the run stands; for whoever holds the lock."""
        write_atomically(self.path / STATUS_FILE, json.dumps(asdict(status)))

    def metrics(self) -> "pd.DataFrame":
        """One row for each validation so far: step seconds train_loss, then what was measured, by name."""
        import pandas as pd

        from workbench.training.loop import read_metrics

        first = ["step", "seconds", "train_loss"]
        table = pd.DataFrame(read_metrics(self.path))
        for name in first:
            if name not in table:
                table[name] = pd.Series(dtype=float)
        others = [name for name in table if name not in (*first, "tokens")]
        return table[first + others]

    def snapshots(self) -> tuple[int, ...]:
        """The steps whose weights are kept."""
        folders = (self.path / "checkpoints").glob("step-*/config.json")
        of_mlp = (re.fullmatch(r"step-([0-9]{6,8})", path.parent.name) for path in folders)
        return tuple(sorted({int(m[1]) for m in of_mlp if m} | set(checkpoint_steps(self.path))))

    def load(self, step: int | None = None) -> "Network":
        """The network at a snapshot; None = finished, or else the newest weights that there are.

        Raises:
            CheckpointError: no such snapshot, no weights yet, or broken ones.
        """
        from workbench.training.stored import load_weights

        return load_weights(self.path, step, self.snapshots())

    def ask(self, what: str) -> None:
        """Have the worker stop soon, its state saved; start() goes on. Where none lives, the status changes.

        Raises:
            ConfigError: another word, or a run that has ended already.
        """
        if what not in ENDED:
            raise ConfigError(f"a run can be asked to {' or '.join(ENDED)}, not to {what!r:.40}")
        if (state := self.status.state) in ("finished", "failed"):
            raise ConfigError(f"{self.name} is {state}: there is nothing to {what}")
        write_atomically(self.path / CONTROL_FILE, what)
        with Lock(self.path / LOCK_FILE) as is_ours:
            if is_ours and (now := self.status).state not in ("finished", "failed"):
                state = ENDED[what]
                self.tell(
                    replace(now, state=state, message=f"{state} while no process was at work")
                )

    def asked(self) -> str | None:
        """What the worker is asked to do."""
        try:
            with (self.path / CONTROL_FILE).open(encoding="utf-8") as file:
                word = file.read(20).strip()
        except (OSError, UnicodeDecodeError):
            return None
        return word if word in ENDED else None

    def _is_trained(self) -> bool:
        from workbench.training.folders import is_trained

        return is_trained(self.path)


def create(root: str | Path, plan: Plan) -> RunFolder:
    """A new folder for a run, named after its plan, a number behind it where the name is taken.

    Raises:
        WorkbenchError: the folder cannot be made.
    """
    root, name = Path(root), folder_name(plan.name)
    for number in range(1, 10_000):
        path = root / (name if number == 1 else f"{name}-{number}")
        try:
            path.mkdir(parents=True)
        except FileExistsError:
            if not root.is_dir():
                raise WorkbenchError(f"cannot make runs in {root}: it is no folder") from None
            continue
        except OSError as error:
            raise WorkbenchError(f"cannot make {path}: {error.strerror}") from error
        write_atomically(path / PLAN_FILE, plan.to_json())
        return RunFolder(path)
    raise WorkbenchError(f"{root} holds too many runs called {name!r}: choose another name")


def adopt(path: str | Path, plan: Plan) -> RunFolder:
    """A folder as the run of this plan: a new or empty one, or one that holds the same plan already.

    Raises:
        ConfigError: it holds another plan, or something else.
        WorkbenchError: it cannot be made.
    """
    folder = RunFolder(Path(path))
    if (folder.path / PLAN_FILE).is_file():
        if folder.plan != plan:
            raise ConfigError(
                f"{path} holds the run of another plan: choose another folder (--out)"
            )
        return folder
    try:
        folder.path.mkdir(parents=True, exist_ok=True)
        if any(folder.path.iterdir()):
            raise ConfigError(
                f"{path} holds something else than a run: choose another folder (--out)"
            )
    except OSError as error:
        raise WorkbenchError(f"cannot make {path}: {error.strerror}") from error
    write_atomically(folder.path / PLAN_FILE, plan.to_json())
    return folder


def folder_name(name: str) -> str:
    """What of a name can stand in a path on any system: letters, digits and hyphens."""
    plain = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")[:60].strip("-")
    return plain or "run"


def list_runs(root: str | Path) -> list[RunFolder]:
    """The runs in a folder, the newest first; what holds no plan is left out.

    Raises:
        WorkbenchError: the folder cannot be read.
    """
    root = Path(root)
    if not root.exists():
        return []
    try:
        folders = [Path(entry.path) for entry in os.scandir(root) if _is_folder(entry)]
    except OSError as error:
        raise WorkbenchError(f"cannot read the runs in {root}: {error.strerror}") from error
    made = [(_made_at(path), path) for path in folders]
    found = sorted(((at, path) for at, path in made if at is not None), reverse=True)
    return [RunFolder(path) for _, path in found]


def _is_folder(entry: "os.DirEntry[str]") -> bool:
    return entry.is_dir(follow_symlinks=False)


def _made_at(path: Path) -> float | None:
    try:
        return (path / PLAN_FILE).stat().st_mtime
    except OSError:
        return None
