"""One report as a folder: what was asked, how far it is, its results and the report written from them.

<report>/request.json    models, probes and data, written before all else by the dashboard
         status.json     where it stands, as its process last wrote it
         lock            held by the process that works: one that nobody holds means that none lives
         control         "cancel", for that process
         worker.log      what it printed
         store/…         results, as `probes.store` keeps them
         report.html     and report.md, findings.parquet: written when all jobs have ended, or were cancelled

A folder of `workbench report` has no request; it is known by its store and can be read, not resumed.
"""

import json
import math
from collections import Counter
from dataclasses import asdict, dataclass, fields, replace
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

from workbench.errors import CheckpointError, ConfigError, WorkbenchError
from workbench.locks import Lock, is_held
from workbench.models.files import read_json
from workbench.processes import CONTROL_FILE, LOCK_FILE, LOG_FILE
from workbench.writing import write_atomically

if TYPE_CHECKING:
    from probes.jobs import Job, Record

State = Literal["queued", "running", "writing", "cancelled", "interrupted", "finished", "failed"]
REQUEST_FILE, STATUS_FILE, STORE = "request.json", "status.json", "store"
PRODUCTS = ("report.html", "report.md", "findings.parquet")
GOING = ("queued", "running", "writing")
RESUMABLE = ("cancelled", "interrupted", "failed")
MAX_BYTES, MAX_CHARS, MAX_LISTED = 1 << 20, 4096, 1000
PATIENCE = 120.0
Stamp = tuple[int, ...]


@dataclass(frozen=True)
class Wanted:
    """What a report is to hold.

    Args:
        models: as `probes.sources` reads them.
        title: what it is called in the list.

    Raises:
        ConfigError: a value that cannot be meant.
    """

    models: tuple[str, ...]
    probes: tuple[str, ...]
    data: str = "stdlib"
    title: str = ""

    def __post_init__(self) -> None:
        for name, given in (("models", self.models), ("probes", self.probes)):
            if not given:
                raise ConfigError(f"no {name} are chosen: choose at least one")
            if len(given) > MAX_LISTED or not all(map(_is_text, given)):
                raise ConfigError(f"{name} must be up to {MAX_LISTED:,} names")
        if not _is_text(self.data) or not isinstance(self.title, str) or len(self.title) > 120:
            raise ConfigError("data and title must be short text")


@dataclass(frozen=True, kw_only=True)
class Standing:
    """How far a report is.

    Args:
        done: jobs that have ended, `failed` and `refused` among them.
        remaining: seconds, by the pace so far.
        running: what is being asked now.
        message: why it failed or stopped; for people.
    """

    state: State
    jobs: int = 0
    done: int = 0
    failed: int = 0
    refused: int = 0
    share: float | int = 0.0
    remaining: float | int = 0.0
    running: tuple[str, ...] = ()
    message: str = ""
    pid: int | None = None
    started: float | int | None = None

    @property
    def asked(self) -> tuple[int, int]:
        """Jobs that have ended and all of them, without those that do not apply."""
        return max(0, self.done - self.refused), max(0, self.jobs - self.refused)

    @property
    def can_resume(self) -> bool:
        """Whether there is something left to do: jobs that failed are asked again."""
        return self.state in RESUMABLE or (self.state == "finished" and self.failed > 0)


@dataclass(frozen=True)
class ReportFolder:
    """A report by its folder; nothing is kept in memory, so every question reads what is there now."""

    path: Path

    @property
    def name(self) -> str:
        """The name of the folder."""
        return self.path.name

    @property
    def has_request(self) -> bool:
        """Whether the dashboard made it, and can go on with it."""
        return (self.path / REQUEST_FILE).is_file()

    @property
    def wanted(self) -> Wanted:
        """What was asked.

        Raises:
            CheckpointError: there is no request, or a broken one.
        """
        path = self.path / REQUEST_FILE
        told = read_json(path, limit=MAX_BYTES)
        if set(told) != {field.name for field in fields(Wanted)}:
            raise CheckpointError(f"{path} is no request of a report")
        lists = {name: told[name] for name in ("models", "probes")}
        if not all(isinstance(value, list) for value in lists.values()):
            raise CheckpointError(f"{path} is broken: models and probes must be lists")
        try:
            return Wanted(**{**told, **{name: tuple(value) for name, value in lists.items()}})
        except ConfigError as error:
            raise CheckpointError(f"{path} is broken: {error}") from error

    @property
    def is_alive(self) -> bool:
        """Whether a process works on it now."""
        lock = self.path / LOCK_FILE if self.has_request else self.path / STORE / ".lock"
        return is_held(lock)

    @property
    def standing(self) -> Standing:
        """How far it is; a process that is gone without having said so was interrupted.

        Raises:
            CheckpointError: a file that is broken.
        """
        if not self.has_request:
            return self._counted("running" if self.is_alive else None)
        told = read_standing(self.path / STATUS_FILE)
        if told is None:
            return Standing(state="interrupted", message="it was never started: resume it")
        if told.state == "queued" and self._waits_in_vain() and not self.is_alive:
            message = f"its process never began to work: {LOG_FILE} may say why; resume it"
            return replace(told, state="interrupted", message=message)
        if told.state not in ("running", "writing") or self.is_alive:
            return told
        # It may have ended properly between the two looks.
        again = read_standing(self.path / STATUS_FILE) or told
        if again.state not in ("running", "writing") or again.started != told.started:
            return again
        message = "its process ended without a word; what it had found is kept: resume it"
        return replace(again, state="interrupted", message=message, running=())

    def _waits_in_vain(self) -> bool:
        import time

        return time.time() - _times(self.path / STATUS_FILE)[1] / 1e9 > PATIENCE

    def _counted(self, state: State | None) -> Standing:
        ended = self.ended()
        counts = Counter(status for _, status, _ in ended)
        n_waiting = counts["waiting"]
        rest: State = "interrupted" if n_waiting else "finished"
        return Standing(
            state=state or rest,
            jobs=len(ended),
            done=len(ended) - n_waiting,
            failed=counts["failed"],
            refused=counts["refused"],
            share=1 - n_waiting / len(ended) if ended else 1.0,
            message="the command that began it goes on from there" if n_waiting else "",
        )

    def tell(self, standing: Standing) -> None:
        """Write how far it is; for whoever holds the lock."""
        write_atomically(self.path / STATUS_FILE, json.dumps(asdict(standing)))

    def cancel(self) -> None:
        """Have its process stop soon; where none lives, the state changes.

        Raises:
            ConfigError: it has ended already.
        """
        if (state := self.standing.state) not in GOING:
            raise ConfigError(f"{self.name} is {state}: there is nothing to cancel")
        write_atomically(self.path / CONTROL_FILE, "cancel")
        with Lock(self.path / LOCK_FILE) as is_ours:
            if is_ours and (now := self.standing).state in GOING:
                self.tell(replace(now, state="cancelled", running=(), message=""))

    @property
    def is_unwanted(self) -> bool:
        """Whether its process is asked to stop."""
        return (self.path / CONTROL_FILE).is_file()

    @property
    def stamp(self) -> Stamp:
        """Changes with every result, and when another plan is asked."""
        store = self.path / STORE
        return (*_times(store), *_times(store / "plan.json"))

    def ended(self) -> tuple[tuple["Job", str, "Record | None"], ...]:
        """Every job of the plan, how it ended ("waiting" where it has not), and its record.

        Raises:
            CheckpointError: the plan is broken.
        """
        return _ended(self.path / STORE, self.stamp)

    def product(self, name: str) -> Path | None:
        """The file of this name that the report consists of; None if there is none, or only a link to one."""
        path = self.path / name
        is_ours = name in PRODUCTS and not path.is_symlink() and path.is_file()
        return path if is_ours else None


@lru_cache(maxsize=64)
def _ended(store: Path, stamp: Stamp) -> tuple[tuple["Job", str, "Record | None"], ...]:
    from probes.store import Store

    found = []
    try:
        for job, record in Store(store).records():
            texts = (job.model, job.spec, job.model_hash, job.probe, job.data, job.config)
            whole = record is None or (isinstance(record.error, str) and _is_number(record.seconds))
            if not all(isinstance(text, str) for text in texts) or not whole:
                raise CheckpointError(f"{store} is broken: a job's names are no text")
            found.append((job, "waiting" if record is None else record.status, record))
    except CheckpointError:
        raise
    except (WorkbenchError, OSError, TypeError, AttributeError) as error:
        raise CheckpointError(f"{store} cannot be read: {str(error)[:400]}") from error
    return tuple(found)


def read_standing(path: Path) -> Standing | None:
    """What was written last; None = nothing yet.

    Raises:
        CheckpointError: something that no process of ours writes.
    """
    if not path.is_file():
        return None
    told: dict[str, Any] = read_json(path, limit=MAX_BYTES)
    whole = ("jobs", "done", "failed", "refused")
    is_fine = (
        set(told) == {field.name for field in fields(Standing)}
        and told["state"] in get_args(State)
        and all(_is_number(told[name]) and isinstance(told[name], int) for name in whole)
        and all(_is_number(told[name]) for name in ("share", "remaining"))
        and isinstance(told["running"], list)
        and all(isinstance(line, str) for line in [*told["running"], told["message"]])
        and all(told[name] is None or _is_number(told[name]) for name in ("pid", "started"))
    )
    if not is_fine:
        raise CheckpointError(f"{path} is broken: delete it, and resume the report")
    return Standing(**{**told, "running": tuple(told["running"])})


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and 0 < len(value) <= MAX_CHARS and value.isprintable()


def _is_number(value: Any) -> bool:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return is_number and math.isfinite(value) and 0 <= value < 2**63


def _times(path: Path) -> Stamp:
    try:
        found = path.stat()
    except OSError:
        return (0, 0, 0)
    return (found.st_ino, found.st_mtime_ns, found.st_size)
