"""Work that outlasts a request: threads that report progress, one job for each key, and a way to stop it.

Threads, never processes: torch, once used, does not survive a fork. A thread cannot be killed, so a job ends
where it next reports: `Progress` raises `Cancelled` there if someone asked for that, or if nobody has asked
for the job for a while, as when its visitor left.
"""

import logging
import queue
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Hashable
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any

from workbench.errors import BudgetError

GRACE_SECONDS = 3.0
Report = Callable[[str], None]
log = logging.getLogger("workbench.app")


class Cancelled(Exception):
    """Raised inside a job that nobody wants any more."""


@dataclass
class Job:
    """One piece of work: what it does now, how much of it is done (if known), and since when.

    Args:
        patience: seconds without anyone asking, after which it stops; None for work that nobody waits for.
    """

    future: Future[Any] = field(default_factory=Future)
    patience: float | None = None
    message: str = "Waiting for another computation"
    fraction: float | None = None
    is_cancelled: bool = False
    since: float = field(default_factory=time.monotonic)
    asked: float = field(default_factory=time.monotonic)

    @property
    def seconds(self) -> float:
        """How long ago it was asked for first."""
        return time.monotonic() - self.since

    @property
    def is_unwanted(self) -> bool:
        """Whether it was cancelled, or everyone who waited for it has left."""
        left = self.patience is not None and time.monotonic() - self.asked > self.patience
        return self.is_cancelled or left


class Progress:
    """What a job reports through; every report is a place where it may be stopped."""

    def __init__(self, job: Job) -> None:
        self.job = job

    def __call__(self, message: str, fraction: float | None = None) -> None:
        """Say what happens now, and how much of the whole is done.

        Raises:
            Cancelled: nobody wants the result any more.
        """
        if self.job.is_unwanted:
            raise Cancelled
        self.job.message, self.job.fraction = message, fraction

    def counting(self, message: str) -> Callable[[int, int], None]:
        """The same as a function of (done, in all), as the library's analyses take it."""
        return lambda done, whole: self(message, done / max(1, whole))


class Jobs:
    """Runs work in a few threads; asking twice for one key joins the work under way.

    Args:
        workers: jobs that run at once.
        waiting: jobs that may wait; more are refused.
        patience: as of `Job`.
    """

    def __init__(
        self, name: str, *, workers: int = 2, waiting: int = 16, patience: float | None = None
    ) -> None:
        self._queue: queue.Queue[tuple[Hashable, Job, Callable[[Progress], Any]] | None]
        self._queue = queue.Queue()
        # Daemons, so that Ctrl-C does not wait for a model that is being converted.
        for index in range(workers):
            threading.Thread(target=self._work, name=f"{name}_{index}", daemon=True).start()
        self._jobs: OrderedDict[Hashable, Job] = OrderedDict()
        self._lock = threading.Lock()
        self._workers, self._most, self._patience = workers, workers + waiting, patience

    def start(
        self, key: Hashable, work: Callable[[Progress], Any], *, is_poll: bool = False
    ) -> Job:
        """The job of this key: the one under way, or a new one.

        Args:
            is_poll: whether someone asks again who waits for it; they hear of a failure, once it has failed,
                where anyone else would start it anew.

        Raises:
            BudgetError: too many are waiting already.
        """
        with self._lock:
            job = self._jobs.get(key)
            is_running = job is not None and not job.future.done() and not job.is_cancelled
            if job is not None and (is_running or is_poll):
                job.asked = time.monotonic()
                return job
            self._drop_unwanted()
            unfinished = [job for job in self._jobs.values() if not job.future.done()]
            if len(unfinished) >= self._most:
                raise BudgetError(
                    f"{len(unfinished)} computations are waiting already: try again when they are done"
                )
            job = Job(patience=self._patience)
            self._jobs[key] = job
            for old in [k for k, job in self._jobs.items() if job.future.done()][: -self._most]:
                del self._jobs[old]
        self._queue.put((key, job, work))
        return job

    def find(self, key: Hashable) -> Job | None:
        """The newest job of this key while it waits or runs, or if it failed lately."""
        with self._lock:
            return self._jobs.get(key)

    def cancel(self, key: Hashable) -> bool:
        """Stop the job of this key where it next reports; whether there was one to stop."""
        job = self.find(key)
        if job is None or job.future.done():
            return False
        job.is_cancelled = True
        job.future.cancel()
        return True

    def leave(self, key: Hashable) -> None:
        """One visitor waits no longer: the job ends soon, unless another asks for it meanwhile."""
        job = self.find(key)
        if job is not None and job.patience is not None:
            job.asked = min(job.asked, time.monotonic() - job.patience + GRACE_SECONDS)

    @property
    def is_idle(self) -> bool:
        """Whether nothing runs or waits."""
        with self._lock:
            return all(job.future.done() for job in self._jobs.values())

    def close(self) -> None:
        """Start nothing more; what runs is told to end, and may."""
        with self._lock:
            self._most = 0
            for job in self._jobs.values():
                job.is_cancelled = True
                job.future.cancel()
        for _ in range(self._workers):
            self._queue.put(None)

    def _drop_unwanted(self) -> None:
        """What waits for a thread and for nobody must not keep others from waiting."""
        for job in self._jobs.values():
            if job.is_unwanted:
                job.future.cancel()

    def _work(self) -> None:
        while (item := self._queue.get()) is not None:
            key, job, work = item
            if job.is_unwanted:
                job.future.cancel()
            if not job.future.set_running_or_notify_cancel():
                continue
            job.message = "Starting"
            try:
                result = work(Progress(job))
            except BaseException as error:
                if not isinstance(error, ValueError | Cancelled):
                    log.exception("a job failed", exc_info=error)
                job.future.set_exception(error)
            else:
                self._forget(key, job)
                job.future.set_result(result)
            # Nothing here may keep a result alive while the thread waits for more work.
            del item, job, work
            result = None

    def _forget(self, key: Hashable, job: Job) -> None:
        """Caches keep results, within their limits; what ended well is not remembered here as well."""
        with self._lock:
            if self._jobs.get(key) is job:
                del self._jobs[key]
