"""The same jobs on a real Ray cluster of this machine, and what is said where Ray is not installed."""

import os
import signal
import sys
import threading
from pathlib import Path

import pytest

from probes.engine import Limits, run_plan
from probes.plan import Asked, make_plan
from probes.ray_engine import reason, run_plan_on_ray
from probes.registry import get_probe
from probes.sources import read_sources
from probes.store import Store
from tests.probes.planted import (
    deadly,
    failing,
    lacking,
    letters_seen,
    size_of_weights,
    waiting,
)
from workbench.errors import WorkbenchError

PLANTED = tuple(
    one.PROBE for one in (size_of_weights, letters_seen, failing, deadly, waiting, lacking)
)
REAL = (get_probe("residual-norms"), get_probe("copying-eigenvalues"))
SETTINGS = {"residual-norms": {"n_prompts": 4, "n_tokens": 16, "n_draws": 9}}
of_ray = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
]


def planned(store, folder, data, probes, models=("first", "encoder"), settings=None):
    sources = read_sources([str(folder / name) for name in models])
    return make_plan(Asked(sources, probes, data, settings or {}), store)


def kill_from_outside(told, killed, ended):
    """SIGKILL to the process that told its number, as soon as it has; nothing if the run ends before."""
    while not told.exists():
        if ended.wait(0.05):
            return
    pid = int(told.read_text())
    killed.append(Path(f"/proc/{pid}/cmdline").read_bytes())
    os.kill(pid, signal.SIGKILL)


class Clustered:
    """One run on a cluster: planted probes of one model, real ones of two."""

    def __init__(self, folders, data, root):
        self.store, self.told, self.killed = Store(root / "ray"), [], []
        self.died, pid_file = root / "died", root / "pid"
        planted = planned(self.store, folders, data, PLANTED)
        real = planned(self.store, folders, data, REAL, ("first", "second"), SETTINGS)
        self.plan = type(real)(planted.jobs + real.jobs, planted.waiting | real.waiting, data)
        ended = threading.Event()
        killer = threading.Thread(target=kill_from_outside, args=(pid_file, self.killed, ended))
        with pytest.MonkeyPatch.context() as patched:
            patched.setenv("PLANTED_DEATH", str(self.died))
            patched.setenv("PLANTED_WAIT", str(pid_file))
            patched.setattr("probes.ray_engine.answer", lacking.answer)
            killer.start()
            limits = Limits(workers=2, memory="6GB")
            try:
                self.status = run_plan_on_ray(self.plan, self.store, limits, self.told.append)
            finally:
                ended.set()
                killer.join()
        self.ends = {
            (job.model, job.probe): record for job, record in self.store.records() if record
        }


@pytest.fixture(scope="module")
def clustered(model_folders, letter_data, tmp_path_factory):
    pytest.importorskip("ray")
    return Clustered(model_folders, letter_data, tmp_path_factory.mktemp("ray"))


class TestCluster:
    pytestmark = of_ray

    def test_every_job_ends_in_its_place(self, clustered):
        found = {
            probe: record.status
            for (model, probe), record in clustered.ends.items()
            if model == "first"
        }
        assert found == {
            "size-of-weights": "ok",
            "letters-seen": "ok",
            "failing": "failed",
            "deadly": "ok",
            "waiting": "ok",
            "lacking": "failed",
            "residual-norms": "ok",
            "copying-eigenvalues": "ok",
        }
        assert "ZeroDivisionError" in clustered.ends["first", "failing"].error
        assert (clustered.status.n_done, clustered.status.n_refused) == (16, 6)
        assert clustered.told[-1].share == 1.0

    def test_a_process_that_dies_or_is_killed_from_outside_is_survived(self, clustered):
        assert clustered.died.exists()
        # It was a process of Ray's, with our task in hand; the job was then done once more.
        assert len(clustered.killed) == 1 and clustered.killed[0].startswith(b"ray::")
        table = clustered.store.table(clustered.ends["first", "waiting"].key)
        assert table.equals(clustered.store.table(clustered.ends["first", "size-of-weights"].key))

    def test_an_error_of_a_machine_is_told_as_what_it_is(self, clustered):
        error = clustered.ends["first", "lacking"].error
        assert error == (
            "a machine of the cluster cannot run it: ImportError: No module named 'probes'"
        )
        assert "lacking.py" in clustered.ends["first", "lacking"].trace

    def test_the_tables_are_the_local_engine_s_byte_for_byte(
        self, clustered, model_folders, letter_data, tmp_path
    ):
        probes = (*PLANTED[:2], *REAL)
        plan = planned(
            Store(tmp_path), model_folders, letter_data, probes, ("first", "second"), SETTINGS
        )
        run_plan(plan, Store(tmp_path), Limits(workers=1, memory="6GB"))
        ours = {path.name: path.read_bytes() for path in tmp_path.glob("*.parquet")}
        theirs = {
            path.name: path.read_bytes()
            for path in clustered.store.folder.glob("*.parquet")
            if path.name in ours
        }
        assert len(ours) == 8
        # On the cluster the planted ones were asked of one of the two models.
        assert len(theirs) == 6 and theirs == {name: ours[name] for name in theirs}

    def test_what_is_there_is_not_asked_again_by_whichever_engine(
        self, clustered, model_folders, letter_data
    ):
        again = planned(clustered.store, model_folders, letter_data, PLANTED[:2])
        assert again.to_run == ()
        assert run_plan(again, clustered.store, Limits(workers=1)).n_jobs == 0


def test_what_befell_a_task_is_told_in_one_line():
    """Ray's own errors; the first is what it says where our package is missing, its paths shortened."""
    errors = pytest.importorskip("ray").exceptions
    lacks = RuntimeError(
        "The remote function failed to import on the worker, it is not in "
        f"{'/some/path' * 99}:\n\nTraceback (most recent call last):\n  File …\n"
        "ModuleNotFoundError: No module named 'probes'\n"
    )
    told = {
        "a machine of the cluster cannot run it: ModuleNotFoundError: No module named 'probes'": (
            errors.RayTaskError("answer", "trace", lacks)
        ),
        "a machine of the cluster cannot run it: OSError: [Errno 28] No space": (
            errors.RayTaskError("answer", "trace", OSError(28, "No space"))
        ),
        "its process died 3 times on the cluster: The worker died unexpectedly": (
            errors.WorkerCrashedError()
        ),
        "the cluster could not run it: RuntimeEnvSetupError: Failed to set up runtime environment": (
            errors.RuntimeEnvSetupError("no disk")
        ),
    }
    for said, error in told.items():
        assert reason(error).startswith(said) and "\n" not in reason(error)


def test_without_ray_its_extra_is_named(model_folders, letter_data, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    store = Store(tmp_path)
    plan = planned(store, model_folders, letter_data, (size_of_weights.PROBE,))
    with pytest.raises(WorkbenchError, match=r"pip install 'interp-workbench\[ray\]'"):
        run_plan_on_ray(plan, store, Limits())
    assert not (store.folder / "plan.json").exists()
