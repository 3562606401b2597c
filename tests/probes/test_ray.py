"""The same jobs on a real Ray cluster of this machine, and what is said where Ray is not installed."""

import sys

import pytest

from probes.engine import Limits, run_plan
from probes.plan import Asked, make_plan
from probes.ray_engine import run_plan_on_ray
from probes.sources import read_sources
from probes.store import Store
from tests.probes.planted import deadly, failing, letters_seen, size_of_weights
from workbench.errors import WorkbenchError


def planned(store, folder, data, probes):
    sources = read_sources([str(folder / "first"), str(folder / "encoder")])
    return make_plan(Asked(sources, probes, data, {}), store)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::ResourceWarning")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_a_cluster_gives_the_same_tables_and_survives_a_process_that_dies(
    model_folders, letter_data, tmp_path, monkeypatch
):
    pytest.importorskip("ray")
    monkeypatch.setenv("PLANTED_DEATH", str(tmp_path / "died"))
    store = Store(tmp_path / "ray")
    probes = (size_of_weights.PROBE, letters_seen.PROBE, failing.PROBE, deadly.PROBE)
    plan = planned(store, model_folders, letter_data, probes)
    told = []
    status = run_plan_on_ray(plan, store, Limits(workers=2, memory="6GB"), told.append)
    ends = {job.probe: record for job, record in store.records() if job.model == "first"}
    assert {name: record.status for name, record in ends.items()} == {
        "size-of-weights": "ok",
        "letters-seen": "ok",
        "failing": "failed",
        "deadly": "ok",
    }
    assert (tmp_path / "died").exists()
    assert "ZeroDivisionError" in ends["failing"].error
    assert (status.n_done, status.n_refused) == (8, 4) and told[-1].share == 1.0
    from probes.contract import silent
    from probes.running import LoadedModel, run_job

    for job in plan.jobs[:2]:
        _, table = run_job(job, letter_data, LoadedModel(), silent)
        assert table.equals(store.table(job.key))
    # What is there is not asked again, by whichever engine.
    again = planned(store, model_folders, letter_data, probes[:2])
    assert again.to_run == () and run_plan(again, store, Limits(workers=1)).n_jobs == 0


def test_without_ray_its_extra_is_named(model_folders, letter_data, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    store = Store(tmp_path)
    plan = planned(store, model_folders, letter_data, (size_of_weights.PROBE,))
    with pytest.raises(WorkbenchError, match=r"pip install 'interp-workbench\[ray\]'"):
        run_plan_on_ray(plan, store, Limits())
    assert not (store.folder / "plan.json").exists()
