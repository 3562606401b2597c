"""Batches that are run and timed, each in a fresh store.

plan      models are listed, their shapes read, costs estimated: in one process
run       jobs, by the engine; `in_probes` is what the probes themselves took, over all workers
report    the findings are read back, corrected together, and written as HTML, Markdown and Parquet
"""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from probes.data import ProbeData
from probes.engine import Limits, run_plan
from probes.plan import Asked, Plan, make_plan
from probes.ray_engine import run_plan_on_ray
from probes.registry import named_probes
from probes.report import write_report
from probes.sources import read_sources
from probes.store import Store
from workbench.errors import WorkbenchError

MEMORY = "12GB"


@dataclass(frozen=True)
class Batch:
    """What is asked of which models; `probes` with commas between them."""

    models: Sequence[str]
    probes: str
    data: ProbeData
    settings: Mapping[str, Mapping[str, Any]]

    def plan(self, store: Store) -> Plan:
        """The jobs that have no result in a store."""
        asked = Asked(
            read_sources(self.models), named_probes(self.probes), self.data, self.settings
        )
        return make_plan(asked, store)


def timed(batch: Batch, engine: str, workers: int, folder: Path | None = None) -> dict[str, Any]:
    """One run, start to end, as a row: engine workers models jobs findings plan run in_probes report megabytes.

    Args:
        folder: an empty one, where results stay; None: nowhere.

    Raises:
        WorkbenchError: a job has failed: its time would mean nothing.
    """
    if folder is None:
        with TemporaryDirectory() as scratch:
            return timed(batch, engine, workers, Path(scratch))
    store, clock = Store(folder / "store"), _Clock()
    plan = batch.plan(store)
    planned = clock.lap()
    limits = Limits(workers=workers, memory=MEMORY)
    status = (run_plan_on_ray if engine == "ray" else run_plan)(plan, store, limits)
    if status.n_failed:
        raise WorkbenchError(f"{status.n_failed} jobs have failed: see {store.folder}")
    ran = clock.lap()
    page = write_report(store.folder, folder)
    reported = clock.lap()
    records = [record for _, record in store.records() if record and record.status == "ok"]
    return {
        "engine": engine,
        "workers": workers,
        "models": len({record.model for record in records}),
        "jobs": len(records),
        "findings": len(store.findings()),
        "plan": planned,
        "run": ran,
        "in_probes": sum(record.seconds for record in records),
        "report": reported,
        "megabytes": page.stat().st_size / 1e6,
    }


def probe_seconds(batch: Batch, workers: int, folder: Path) -> list[dict[str, Any]]:
    """What each probe took of each model, from the records of a run; rows model probe seconds findings.

    Args:
        folder: where results stay; those that are there already are not computed again.
    """
    store = Store(folder / "store")
    run_plan(batch.plan(store), store, Limits(workers=workers, memory=MEMORY))
    ended = [(job, record) for job, record in store.records() if record and record.status == "ok"]
    return [
        {
            "model": job.model,
            "probe": job.probe,
            "seconds": record.seconds,
            "findings": len(store.table(job.key)),
        }
        for job, record in ended
    ]


def report_seconds(folder: Path) -> float:
    """Writing the report of what was found there, once it has been written before."""
    write_report(folder / "store", folder)
    clock = _Clock()
    write_report(folder / "store", folder)
    return clock.lap()


def keeping_seconds(store: Store, scratch: Store) -> float:
    """Writing a job's result to disk, mean over those of a store; `scratch` is where they are written again."""
    ended = [record for _, record in store.records() if record and record.status == "ok"]
    tables = [store.table(record.key) for record in ended]
    clock = _Clock()
    for record, table in zip(ended, tables, strict=True):
        scratch.save(record, table)
    return clock.lap() / len(ended)


def loading_seconds(name: str, times: int = 3) -> float:
    """The fastest of some loadings of a model, in this process."""
    (source,) = read_sources([name])
    taken = []
    for _ in range(times):
        clock = _Clock()
        source.load()
        taken.append(clock.lap())
    return min(taken)


class _Clock:
    """Seconds since it was last asked."""

    def __init__(self) -> None:
        self._last = time.perf_counter()

    def lap(self) -> float:
        now = time.perf_counter()
        lap, self._last = now - self._last, now
        return lap
