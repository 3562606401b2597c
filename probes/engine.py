"""Running a plan on this machine: processes of our own, as many at once as memory allows.

A worker keeps the model that it has loaded and is given that model's jobs first. A job that does not fit
beside the others waits until it does; one that does not fit at all fails by name. A worker that dies takes
nothing with it but the job in its hands, which is given once more, alone.
"""

import selectors
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from probes.jobs import Job, Record
from probes.plan import Plan
from probes.schedule import next_job
from probes.store import Store, StoreError
from probes.workers import Worker, available_bytes, default_workers
from workbench.budget import parse_bytes, spell_bytes
from workbench.errors import ConfigError, WorkbenchError

TRIES = 2
MAX_STARTS_THAT_FAIL = 3
MAX_WORKERS = 256


@dataclass(frozen=True)
class Status:
    """How far a batch is.

    Args:
        share: of the expected time.
        remaining: seconds, by the pace so far.
        running: what is being asked now.
    """

    n_jobs: int
    n_ok: int
    n_failed: int
    n_refused: int
    share: float
    remaining: float
    running: tuple[str, ...]

    @property
    def n_done(self) -> int:
        """Jobs that have ended, however."""
        return self.n_ok + self.n_failed + self.n_refused


Told = Callable[[Status], None]


@dataclass(frozen=True)
class Limits:
    """What a batch may take.

    Args:
        workers: processes; None for one a core.
        memory: bytes or "4GB", of all processes together; None for what is free now.

    Raises:
        ConfigError: no worker at all.
        BudgetError: no size.
    """

    workers: int | None = None
    memory: str | int | None = None

    def __post_init__(self) -> None:
        if self.workers is not None and not 1 <= self.workers <= MAX_WORKERS:
            raise ConfigError(f"workers must be 1 to {MAX_WORKERS}, not {self.workers}")
        if self.memory is not None:
            parse_bytes(self.memory)

    @property
    def n_workers(self) -> int:
        """How many processes."""
        return default_workers() if self.workers is None else self.workers

    @property
    def nbytes(self) -> int:
        """How much memory."""
        return available_bytes() if self.memory is None else parse_bytes(self.memory)


@dataclass
class Tally:
    """How jobs have ended so far, and at what pace."""

    jobs: tuple[Job, ...]
    by_status: Counter[str] = field(default_factory=Counter)
    expected: float = 0.0
    taken: float = 0.0

    def add(self, job: Job, record: Record) -> None:
        """Count one."""
        self.by_status[record.status] += 1
        if record.status == "ok":
            self.expected += job.seconds
            self.taken += record.seconds

    def status(self, waiting: float, running: dict[str, tuple[Job, float]], n: int) -> Status:
        """What there is to tell; `waiting` are the expected seconds of jobs not begun."""
        left = waiting + sum(job.seconds * (1 - share) for job, share in running.values())
        whole = sum(job.seconds for job in self.jobs) or 1.0
        # The first jobs alone say little of the pace: the plan counts as ten seconds of them.
        pace = (self.taken + 10.0) / (self.expected + 10.0)
        return Status(
            n_jobs=len(self.jobs),
            n_ok=self.by_status["ok"],
            n_failed=self.by_status["failed"],
            n_refused=self.by_status["refused"],
            share=min(1.0, max(0.0, 1 - left / whole)),
            remaining=pace * left / n,
            running=tuple(running),
        )


def run_plan(plan: Plan, store: Store, limits: Limits, told: Told | None = None) -> Status:
    """Run what has no result yet; a probe that fails is recorded in its place, and the others go on.

    Raises:
        StoreError: the disk is full; the same call goes on from there.
        WorkbenchError: another run writes to the same store, or no worker can be started.
    """
    with store.lock():
        store.clear_scratch()
        store.write_plan(plan.jobs)
        batch = _Batch(plan, store, limits, told or (lambda status: None))
        try:
            return batch.run()
        finally:
            batch.close()


class _Batch:
    """The workers of one run and the jobs that they have not been given yet."""

    def __init__(self, plan: Plan, store: Store, limits: Limits, told: Told) -> None:
        self.plan, self.store, self.told = plan, store, told
        self.limit, self.n_workers = limits.nbytes, limits.n_workers
        self.tally = Tally(plan.to_run)
        self.waiting = self._admitted(plan.to_run)
        self.deaths: Counter[str] = Counter()
        self.failed_starts = 0
        self.workers: list[Worker] = []
        self.selector = selectors.DefaultSelector()

    def _admitted(self, jobs: tuple[Job, ...]) -> list[Job]:
        """Those that can be run at all; the others are recorded at once."""
        admitted = []
        for job in jobs:
            if job.refusal:
                self._keep(job, Record.of_refusal(job))
            elif job.nbytes > self.limit:
                needed, limit = spell_bytes(int(job.nbytes)), spell_bytes(self.limit)
                error = f"needs about {needed} of memory, and {limit} may be used (--memory)"
                self._keep(job, Record.of(job, "failed", error=error))
            else:
                admitted.append(job)
        return admitted

    def run(self) -> Status:
        """Until every job has ended."""
        last = 0.0
        while self.waiting or any(worker.job for worker in self.workers):
            self._give()
            for key, _ in self.selector.select(timeout=0.5):
                self._hear(key.fileobj)
            if time.monotonic() - last > 0.2:
                last = time.monotonic()
                self.told(self._status())
        status = self._status()
        self.told(status)
        return status

    def close(self) -> None:
        """End every worker."""
        for worker in list(self.workers):
            self._dismiss(worker)
        self.selector.close()

    def _give(self) -> None:
        """Give waiting jobs to workers as far as memory allows; start and dismiss workers as needed."""
        while self.waiting:
            idle = [worker for worker in self.workers if worker.job is None]
            running = [worker.job for worker in self.workers if worker.job is not None]
            if not idle and len(self.workers) >= self.n_workers:
                return
            best = max(idle, key=lambda worker: self._left(worker.spec), default=None)
            job = self._next(best.spec if best else "", running)
            if job is None:
                # What they hold could be what others wait for.
                for worker in idle:
                    self._dismiss(worker)
                return
            self.waiting.remove(job)
            (best or self._hire()).give(job)

    def _next(self, spec: str, running: list[Job]) -> Job | None:
        """What comes next beside what runs; a job that has killed a worker before comes last, and alone."""
        if any(self.deaths[job.key] for job in running):
            return None
        free = self.limit - sum(job.nbytes for job in running)
        harmless = [job for job in self.waiting if not self.deaths[job.key]]
        if not harmless and running:
            return None
        return next_job(harmless or self.waiting, spec, {job.spec for job in running}, free)

    def _left(self, spec: str) -> float:
        return sum(job.seconds for job in self.waiting if job.spec == spec)

    def _hire(self) -> Worker:
        worker = Worker(self.store.folder, self.plan.data)
        self.workers.append(worker)
        self.selector.register(worker, selectors.EVENT_READ)
        return worker

    def _dismiss(self, worker: Worker) -> None:
        self.workers.remove(worker)
        self.selector.unregister(worker)
        worker.close()

    def _hear(self, worker: Any) -> None:
        told = worker.messages()
        if told is None:
            self._bury(worker)
            return
        for message in told:
            if "ready" in message:
                worker.is_ready, self.failed_starts = True, 0
            elif "share" in message:
                worker.share, worker.doing = message["share"], message["doing"]
            elif "disk" in message:
                raise StoreError(message["disk"])
            elif "record" in message:
                self.tally.add(worker.job, Record(**message["record"]))
                worker.job = None

    def _bury(self, worker: Worker) -> None:
        """What is done about a dead worker: its job is given once more, and then has failed."""
        how, job = worker.death(), worker.job
        self._dismiss(worker)
        if not worker.is_ready:
            self.failed_starts += 1
            if self.failed_starts >= MAX_STARTS_THAT_FAIL:
                raise WorkbenchError(f"no worker can be started: {how}")
            self.waiting += [job] if job is not None else []
            return
        if job is None:
            return
        self.deaths[job.key] += 1
        if self.deaths[job.key] < TRIES:
            # Last, and alone: whatever killed it, the others come first.
            self.waiting.append(job)
        else:
            needed = spell_bytes(int(job.nbytes))
            error = f"{how}, {TRIES} times; about {needed} of memory were expected"
            self._keep(job, Record.of(job, "failed", error=error))

    def _keep(self, job: Job, record: Record) -> None:
        self.store.save(record)
        self.tally.add(job, record)

    def _status(self) -> Status:
        running = {
            f"{worker.job.label}: {worker.doing}": (worker.job, worker.share)
            for worker in self.workers
            if worker.job is not None
        }
        return self.tally.status(sum(job.seconds for job in self.waiting), running, self.n_workers)
