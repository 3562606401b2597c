"""Work that outlasts a request: threads that report progress, one job for each key.

Threads, never processes: torch, once used, does not survive a fork.
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

Report = Callable[[str], None]
log = logging.getLogger("workbench.app")


@dataclass
class Job:
    """One piece of work, its newest progress message and when it began."""

    future: Future[Any]
    messages: list[str] = field(default_factory=lambda: ["Waiting for another computation"])
    since: float = field(default_factory=time.monotonic)

    @property
    def message(self) -> str:
        """What is happening now."""
        return self.messages[-1]


class Jobs:
    """Runs work in a few threads; asking twice for one key joins the work under way.

    Args:
        workers: jobs that run at once.
        waiting: jobs that may wait; more are refused.
    """

    def __init__(self, name: str, *, workers: int = 2, waiting: int = 16) -> None:
        self._queue: queue.Queue[tuple[Job, Callable[[Report], Any]] | None] = queue.Queue()
        # Daemons, so that Ctrl-C does not wait for a model that is being converted.
        for index in range(workers):
            threading.Thread(target=self._work, name=f"{name}_{index}", daemon=True).start()
        self._jobs: OrderedDict[Hashable, Job] = OrderedDict()
        self._lock = threading.Lock()
        self._workers, self._most = workers, workers + waiting

    def start(self, key: Hashable, work: Callable[[Report], Any]) -> Job:
        """The job of this key: the one under way, or a new one.

        Raises:
            BudgetError: too many are waiting already.
        """
        with self._lock:
            if (job := self._jobs.get(key)) is not None and not job.future.done():
                return job
            unfinished = [job for job in self._jobs.values() if not job.future.done()]
            if len(unfinished) >= self._most:
                raise BudgetError(
                    f"{len(unfinished)} computations are waiting already: try again when they are done"
                )
            job = Job(Future())
            self._jobs[key] = job
            for old in [k for k, job in self._jobs.items() if job.future.done()][: -self._most]:
                del self._jobs[old]
        self._queue.put((job, work))
        return job

    def find(self, key: Hashable) -> Job | None:
        """The newest job of this key, if it is still remembered."""
        with self._lock:
            return self._jobs.get(key)

    @property
    def is_idle(self) -> bool:
        """Whether nothing runs or waits."""
        with self._lock:
            return all(job.future.done() for job in self._jobs.values())

    def close(self) -> None:
        """Start nothing more; what runs may end."""
        with self._lock:
            self._most = 0
            for job in self._jobs.values():
                job.future.cancel()
        for _ in range(self._workers):
            self._queue.put(None)

    def _work(self) -> None:
        while (item := self._queue.get()) is not None:
            job, work = item
            if not job.future.set_running_or_notify_cancel():
                continue
            job.messages.append("Starting")
            try:
                job.future.set_result(work(job.messages.append))
            except BaseException as error:
                if not isinstance(error, ValueError):
                    log.exception("a job failed", exc_info=error)
                job.future.set_exception(error)
