"""The same jobs on a Ray cluster: each a task that may run on any of its machines, results kept by us.

Machines of a cluster must find the models under the same names or paths: a file whose bytes differ there
fails by name. Without an address a cluster of this machine alone is started, and ended with the run.
"""

import os
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pandas as pd

from probes.data import ProbeData
from probes.engine import Limits, Status, Tally, Told
from probes.jobs import Job, Record
from probes.plan import Plan
from probes.store import Store
from workbench.budget import spell_bytes
from workbench.errors import WorkbenchError
from workbench.processes import module_path

# Ray gives a task whose process or machine has died to another, so often.
RETRIES = 2
DEATHS = ("WorkerCrashedError", "OutOfMemoryError", "NodeDiedError", "LocalRayletDiedError")
MISSING = (
    "--engine ray needs the package ray: pip install 'interp-workbench[ray]', "
    "or leave --engine out to run on this machine"
)
_loaded: Any = None


def run_plan_on_ray(
    plan: Plan,
    store: Store,
    limits: Limits,
    told: Told | None = None,
    *,
    address: str | None = None,
) -> Status:
    """Run what has no result yet on a cluster.

    Raises:
        WorkbenchError: Ray is not installed, or there is no cluster at the address.
        StoreError: the disk is full; the same call goes on from there.
    """
    ray = _ray()
    with store.lock():
        store.clear_scratch()
        store.write_plan(plan.jobs)
        with _cluster(ray, limits, address):
            return _Tasks(ray, plan, store, told or (lambda status: None)).run()


def _ray() -> Any:
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    # A task takes no accelerator, so Ray need not hide any from it.
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    try:
        import ray
    except ImportError as error:
        raise WorkbenchError(MISSING) from error
    return ray


@contextmanager
def _cluster(ray: Any, limits: Limits, address: str | None) -> Iterator[None]:
    settings = {"PYTHONPATH": module_path(), "PYTHONHASHSEED": "0", "OMP_NUM_THREADS": "1"}
    kind: dict[str, Any] = {"runtime_env": {"env_vars": settings}, "log_to_driver": False}
    if address is None:
        # A part of the memory is set apart for data in flight, of which there is little here.
        kind |= {"num_cpus": limits.n_workers, "include_dashboard": False}
        kind |= {"object_store_memory": 100 << 20, "_memory": limits.nbytes}
    else:
        kind |= {"address": address}
    try:
        ray.init(**kind)
    except (ConnectionError, ValueError, RuntimeError) as error:
        where = f"at {address}" if address else "on this machine"
        raise WorkbenchError(f"no Ray cluster {where}: {error}") from error
    try:
        yield
    finally:
        ray.shutdown()


class _Tasks:
    """The tasks of one run."""

    def __init__(self, ray: Any, plan: Plan, store: Store, told: Told) -> None:
        self.ray, self.store, self.told = ray, store, told
        self.tally = Tally(plan.to_run)
        self.n_cores = max(1, int(ray.cluster_resources().get("CPU", 1)))
        largest = max((node["Resources"].get("memory", 0) for node in ray.nodes()), default=0)
        data = ray.put(plan.data.as_dict())
        task = ray.remote(answer)
        self.pending: dict[Any, Job] = {}
        # Tasks of one model one after another: a process then often has it loaded.
        for job in plan.to_run:
            if job.refusal:
                self._keep(job, Record.of_refusal(job))
            elif job.nbytes > largest:
                needed, most = spell_bytes(int(job.nbytes)), spell_bytes(int(largest))
                error = (
                    f"needs about {needed} of memory, and no machine of the cluster has over {most}"
                )
                self._keep(job, Record.of(job, "failed", error=error))
            else:
                asked = task.options(num_cpus=1, memory=int(job.nbytes), max_retries=RETRIES)
                self.pending[asked.remote(job.as_dict(), data)] = job

    def run(self) -> Status:
        """Until every task has ended; each result is kept as it comes."""
        while self.pending:
            ready, _ = self.ray.wait(list(self.pending), num_returns=1, timeout=0.5)
            for task in ready:
                self._hear(task, self.pending.pop(task))
            self.told(self._status())
        status = self._status()
        self.told(status)
        return status

    def _hear(self, task: Any, job: Job) -> None:
        try:
            given, table = self.ray.get(task)
        except self.ray.exceptions.RayError as error:
            self._keep(job, Record.of(job, "failed", error=reason(error), trace=str(error)))
            return
        self._keep(job, Record(**given), table)

    def _keep(self, job: Job, record: Record, table: pd.DataFrame | None = None) -> None:
        self.store.save(record, table)
        self.tally.add(job, record)

    def _status(self) -> Status:
        waiting = sum(job.seconds for job in self.pending.values())
        models = Counter(job.model for job in self.pending.values())
        running = {f"{len(self.pending)} tasks of {len(models)} models on the cluster": None}
        status = self.tally.status(waiting, {}, self.n_cores)
        return Status(**{**vars(status), "running": tuple(running) if self.pending else ()})


def reason(error: Any) -> str:
    """Why a task has no answer, in one line.

    What a probe raises is a record and comes as an answer. An error of the task itself is one of the machine
    that it ran on, such as a package that is missing there; the first line of others says what befell it.
    """
    cause = getattr(error, "cause", None)
    if cause is not None:
        # A function that cannot be loaded says why in the last of many lines.
        lines = [line.strip() for line in str(cause).splitlines() if line.strip()] or [""]
        said = f"{type(cause).__name__}: {lines[0][:300]}" if len(lines) == 1 else lines[-1][:300]
        return f"a machine of the cluster cannot run it: {said}"
    said = (str(error).strip().splitlines() or ["no reason given"])[0][:300]
    if type(error).__name__ in DEATHS:
        return f"its process died {RETRIES + 1} times on the cluster: {said}"
    return f"the cluster could not run it: {type(error).__name__}: {said}"


def answer(given: dict[str, Any], data: dict[str, Any]) -> tuple[dict[str, Any], Any]:
    """One job, wherever this process is; the model stays loaded for the next."""
    global _loaded
    import torch

    from probes.contract import silent
    from probes.running import LoadedModel, run_job

    torch.set_num_threads(1)
    _loaded = _loaded or LoadedModel()
    documents = ProbeData(tuple(data["documents"]), data["name"], data["is_prompts"])
    record, table = run_job(Job.from_dict(given), documents, _loaded, silent)
    return record.as_dict(), table
