"""The process that works on a report folder: it outlives whoever started it, and can be killed at any time.

    start(folder)                          begins or goes on, in a session of its own
    python -m app.report_worker FOLDER     the same here and now

Exit codes: 0 finished, 1 failed, 2 the folder is no report, 3 another process works on it, 4 cancelled.
Jobs run in processes of the engine's own, which end with this one; their results are kept as they come. When
it is cancelled, the report is written of what there is.
"""

import os
import sys
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from app.report_folder import GOING, STORE, ReportFolder, Standing, State
from workbench.errors import ConfigError, WorkbenchError
from workbench.processes import (
    CONTROL_FILE,
    FAILED,
    FINISHED,
    STOPPED,
    alone,
    main_over,
    start_detached,
)

if TYPE_CHECKING:
    from probes.engine import Status
    from probes.plan import Plan

MODULE = "app.report_worker"
TELL_SECONDS = 0.4


class Stopped(Exception):
    """The report was cancelled."""


def start(folder: ReportFolder) -> None:
    """Work on a report, or go on with it, in a process of its own that outlives this one.

    Raises:
        CheckpointError: no request, or a broken one.
        ConfigError: a process works on it already, or it is finished.
        WorkbenchError: the folder cannot be written to.
    """
    _ = folder.wanted
    with alone(folder.path, f"{folder.name} is being worked on already"):
        now = folder.standing
        # While we hold the lock, "running" is what a process said that is gone.
        if not (now.can_resume or now.state in GOING):
            raise ConfigError(f"{folder.name} is {now.state}: there is nothing to start")
        (folder.path / CONTROL_FILE).unlink(missing_ok=True)
        folder.tell(replace(now, state="queued", message="", running=()))
    start_detached(MODULE, folder.path)


@dataclass
class _Teller:
    """Writes how far the jobs are, and ends them where nobody wants them any more."""

    folder: ReportFolder
    first: Standing
    last: float = 0.0

    def __call__(self, status: "Status") -> None:
        if self.folder.is_unwanted:
            self.folder.tell(self.standing(status))
            raise Stopped
        now = time.monotonic()
        is_end = status.n_done == status.n_jobs
        if now - self.last < TELL_SECONDS and not is_end:
            return
        self.last = now
        self.folder.tell(self.standing(status))

    def standing(self, status: "Status") -> Standing:
        """Of all jobs, those that an earlier process had ended among them."""
        first = self.first
        return replace(
            first,
            state="running",
            done=first.done + status.n_done,
            failed=status.n_failed,
            refused=first.refused + status.n_refused,
            share=status.share,
            remaining=status.remaining,
            running=tuple(line[:200] for line in status.running),
        )


def work(folder: ReportFolder) -> int:
    """Run what has no result yet and write the report; the exit code. For whoever holds the lock."""
    begun = Standing(state="running", pid=os.getpid(), started=time.time(), message="loading")
    told = _Teller(folder, begun)
    try:
        folder.tell(begun)
        plan, store = _plan(folder)
        told.first = _before(plan, begun)
        folder.tell(told.first)
        return _ended(folder, plan, store, told)
    except WorkbenchError as error:
        _tell_end(folder, "failed", str(error)[:2000])
        return FAILED
    except Exception as error:
        _tell_end(folder, "failed", f"internal error: {type(error).__name__}: {str(error)[:500]}")
        raise


def _ended(folder: ReportFolder, plan: "Plan", store: Any, told: _Teller) -> int:
    """Run the jobs and write the report, of what there is where they are cancelled; the exit code."""
    state: State = "finished"
    try:
        last = replace(_run(plan, store, told), share=1.0)
    except Stopped:
        state, last = "cancelled", folder.standing
    last = replace(last, remaining=0.0, running=(), message="")
    if state == "finished" or any(status == "ok" for _, status, _ in folder.ended()):
        from probes.report import write_report

        # From here on nobody looks whether it is unwanted: writing takes seconds, and comes to a whole report.
        folder.tell(replace(last, state="writing"))
        write_report(store.folder, folder.path)
    folder.tell(replace(last, state=state))
    return FINISHED if state == "finished" else STOPPED


def _plan(folder: ReportFolder) -> tuple["Plan", Any]:
    from probes.plan import make_plan
    from probes.requests import Request
    from probes.store import Store

    wanted, store = folder.wanted, Store(folder.path / STORE)
    request = Request(models=wanted.models, probes=",".join(wanted.probes), data=wanted.data)
    return make_plan(request.asked(), store), store


def _before(plan: "Plan", begun: Standing) -> Standing:
    """What had ended before; refusals are settled again at no cost."""
    jobs = {job.key: job for job in plan.jobs}
    ended = [job for key, job in jobs.items() if key not in plan.waiting]
    n_refused = sum(bool(job.refusal) for job in ended)
    return replace(begun, jobs=len(jobs), done=len(ended), refused=n_refused, message="")


def _run(plan: "Plan", store: Any, told: _Teller) -> Standing:
    from probes.engine import Limits, run_plan

    return told.standing(run_plan(plan, store, Limits(), told))


def _tell_end(folder: ReportFolder, state: Any, message: str) -> None:
    folder.tell(replace(folder.standing, state=state, message=message, running=()))


def main(words: list[str]) -> int:
    """Work on the report folder that is named; the exit code says how it ended."""
    return main_over(words, MODULE, _opened, work)


def _opened(path: Path) -> ReportFolder:
    folder = ReportFolder(path)
    _ = folder.wanted
    return folder


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
