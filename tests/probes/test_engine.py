"""Running a plan in processes of our own: what fails stays in its place, what dies is asked once more."""

import itertools
import os
import time
from typing import ClassVar

import pytest

from probes.contract import silent
from probes.data import ProbeData
from probes.engine import Limits, run_plan
from probes.jobs import Job, Record
from probes.plan import Asked, make_plan
from probes.registry import get_probe
from probes.running import LoadedModel, run_job
from probes.sources import read_sources
from probes.store import Store, StoreError
from probes.workers import CGROUPS, Worker, available_bytes
from tests.probes.planted import deadly, failing, letters_seen, size_of_weights
from workbench.errors import BudgetError, ConfigError, WorkbenchError

GOOD = (size_of_weights.PROBE, letters_seen.PROBE)


def planned(store, folders, data, models, probes):
    sources = read_sources([str(folders / name) for name in models])
    return make_plan(Asked(sources, probes, data, {}), store)


@pytest.fixture(scope="module")
def mixed(model_folders, letter_data, tmp_path_factory):
    """Good and failing probes of three models, and one that dies every time; what was told on the way."""
    store, told = Store(tmp_path_factory.mktemp("mixed")), []
    probes = (*GOOD, failing.PROBE)
    jobs = planned(store, model_folders, letter_data, ("first", "encoder", "mlp"), probes)
    dies = planned(store, model_folders, letter_data, ("first",), (deadly.PROBE,))
    plan = type(jobs)(jobs.jobs + dies.jobs, jobs.waiting | dies.waiting, letter_data)
    status = run_plan(plan, store, Limits(workers=1, memory="8GB"), told.append)
    return store, plan, status, told


def ends(store):
    return {(job.model, job.probe): record for job, record in store.records()}


def test_every_job_ends_in_its_place(mixed):
    store, plan, status, told = mixed
    found = {place: record.status for place, record in ends(store).items()}
    assert found == {
        ("first", "size-of-weights"): "ok",
        ("first", "letters-seen"): "ok",
        ("first", "failing"): "failed",
        ("first", "deadly"): "failed",
        ("encoder", "size-of-weights"): "refused",
        ("encoder", "letters-seen"): "refused",
        ("encoder", "failing"): "refused",
        ("mlp", "size-of-weights"): "ok",
        ("mlp", "letters-seen"): "refused",
        ("mlp", "failing"): "failed",
    }
    assert (status.n_ok, status.n_failed, status.n_refused) == (3, 3, 4)
    assert status.n_done == status.n_jobs == len(plan.to_run)
    shares = [one.share for one in told]
    assert shares[-1] == 1.0 and told[-1].remaining == 0.0


def test_an_error_is_kept_with_its_reason_and_its_place_in_the_program(mixed):
    record = ends(mixed[0])[("first", "failing")]
    assert record.error == "ZeroDivisionError: planted: nothing to divide by"
    assert "planted/failing.py" in record.trace
    refused = ends(mixed[0])[("mlp", "letters-seen")]
    assert refused.error == "mlp reads no text: it has no tokenizer"


def test_what_kills_its_process_twice_has_failed_and_takes_nothing_with_it(mixed):
    record = ends(mixed[0])[("first", "deadly")]
    assert "was killed, most likely because memory ran out, 2 times" in record.error


def test_the_numbers_are_those_of_the_probe_run_here(mixed, letter_data):
    store, plan = mixed[:2]
    for job in plan.jobs:
        record = store.record(job.key)
        if record.status == "ok":
            again, table = run_job(job, letter_data, LoadedModel(), silent)
            assert again.status == "ok" and table.equals(store.table(job.key))
            assert record.seconds > 0 and (record.peak_bytes is None or record.peak_bytes >= 0)


def test_a_second_run_asks_only_what_failed(mixed, model_folders, letter_data):
    store = mixed[0]
    again = planned(store, model_folders, letter_data, ("first", "encoder", "mlp"), GOOD)
    assert again.to_run == ()
    begun = time.monotonic()
    assert run_plan(again, store, Limits(workers=1)).n_jobs == 0
    assert time.monotonic() - begun < 2  # no process was started
    failed = planned(store, model_folders, letter_data, ("first", "mlp"), (failing.PROBE,))
    assert len(failed.to_run) == 2


def test_a_cut_off_table_is_healed_by_the_next_run(model_folders, letter_data, tmp_path):
    store = Store(tmp_path)
    asked = (model_folders, letter_data, ("first",), GOOD)
    run_plan(planned(store, *asked), store, Limits(workers=1, memory="8GB"))
    before = {path.name: path.read_bytes() for path in tmp_path.glob("*.parquet")}
    lost, kept = (store.table_path(job.key) for job in planned(store, *asked).jobs)
    lost.write_bytes(before[lost.name][:-20])
    written = kept.stat().st_mtime_ns
    again = planned(store, *asked)
    status = run_plan(again, store, Limits(workers=1, memory="8GB"))
    assert (status.n_jobs, status.n_ok) == (1, 1) and kept.stat().st_mtime_ns == written
    assert {path.name: path.read_bytes() for path in tmp_path.glob("*.parquet")} == before


def test_what_was_read_of_prompts_is_on_record(model_folders, letter_data, tmp_path):
    data = ProbeData(("abcdefgh", "ponmlkji", "ab", "abcdefghij"), "list", is_prompts=True)
    plan = planned(Store(tmp_path), model_folders, data, ("first",), GOOD)
    found = {job.probe: run_job(job, data, LoadedModel(), silent) for job in plan.jobs}
    ends = {probe: record for probe, (record, _) in found.items()}
    assert (
        ends["letters-seen"].note == "list: 3 of 4 prompts read at 8 tokens; 1 left out as shorter"
    )
    assert ends["size-of-weights"].note == ""
    store = Store(tmp_path / "kept")
    store.write_plan(plan.jobs)
    store.save(*found["letters-seen"])
    assert list(store.jobs()["note"]) == ["", ends["letters-seen"].note]


def test_what_would_not_fit_fails_by_name_and_starts_nothing(
    model_folders, letter_data, tmp_path, monkeypatch
):
    monkeypatch.setattr("probes.engine.Worker", lambda *given: pytest.fail("a process"))
    store = Store(tmp_path)
    plan = planned(store, model_folders, letter_data, ("first",), GOOD)
    status = run_plan(plan, store, Limits(workers=2, memory="1MB"))
    assert status.n_failed == 2
    assert "needs about 421" in ends(store)[("first", "letters-seen")].error
    assert "1.00 MB may be used" in ends(store)[("first", "letters-seen")].error


class FakeWorker:
    """Answers at once, and remembers how much was in the hands of all at the same time."""

    held: ClassVar[dict] = {}
    models: ClassVar[list] = []
    most = 0.0

    def __init__(self, store, data):
        self.store, self.job, self.spec, self.is_ready = Store(store), None, "", True
        self.share, self.doing = 0.0, ""
        self.ends = os.pipe()

    def give(self, job):
        if self.spec != job.spec:
            FakeWorker.models.append(job.spec)
        self.job, self.spec = job, job.spec
        FakeWorker.held[id(self)] = job.nbytes
        FakeWorker.most = max(FakeWorker.most, sum(FakeWorker.held.values()))
        os.write(self.ends[1], b".")

    def fileno(self):
        return self.ends[0]

    def messages(self):
        os.read(self.ends[0], 1)
        del FakeWorker.held[id(self)]
        record = Record.of(self.job, "ok")
        return [{"share": 0.5, "doing": "x"}, {"record": record.as_dict()}]

    def close(self):
        for end in self.ends:
            os.close(end)


@pytest.mark.parametrize("workers", [1, 3])
def test_memory_is_kept_and_each_model_loaded_once_a_worker(
    letter_data, tmp_path, monkeypatch, workers
):
    monkeypatch.setattr("probes.engine.Worker", FakeWorker)
    FakeWorker.held, FakeWorker.most, FakeWorker.models = {}, 0.0, []
    sizes = itertools.cycle([3e8, 5e8, 9e8])
    jobs = tuple(
        Job(model, model, None, model, f"p{n}", "m", 1, "weights", "{}", "", "", 1.0, next(sizes))
        for n in range(6)
        for model in "abcd"
    )
    from probes.plan import Plan

    plan = Plan(jobs, frozenset(job.key for job in jobs), letter_data)
    status = run_plan(plan, Store(tmp_path), Limits(workers=workers, memory=int(1e9)))
    assert status.n_ok == len(jobs) and FakeWorker.most <= 1e9
    if workers == 1:
        assert sorted(FakeWorker.models) == ["a", "b", "c", "d"]


def test_a_full_disk_stops_the_run_with_its_reason(letter_data, tmp_path, monkeypatch):
    class Full(FakeWorker):
        def messages(self):
            return [{"disk": "cannot write results: No space left on device"}]

    monkeypatch.setattr("probes.engine.Worker", Full)
    job = Job("a", "a", None, "a", "p", "m", 1, "weights", "{}", "", "", 1.0, 1e6)
    from probes.plan import Plan

    with pytest.raises(StoreError, match="No space left on device"):
        run_plan(
            Plan((job,), frozenset([job.key]), letter_data), Store(tmp_path), Limits(memory="1GB")
        )


def test_workers_that_cannot_start_are_told(letter_data, tmp_path, monkeypatch):
    monkeypatch.setattr("probes.workers.sys.executable", "/bin/false")
    job = Job("a", "a", None, "a", "p", "m", 1, "weights", "{}", "", "", 1.0, 1e6)
    from probes.plan import Plan

    plan = Plan((job,), frozenset([job.key]), letter_data)
    with pytest.raises(
        WorkbenchError, match="no worker can be started: its process ended with code 1"
    ):
        run_plan(plan, Store(tmp_path), Limits(workers=1, memory="1GB"))


GIB = 1 << 30


@pytest.mark.parametrize(
    ("files", "left"),
    [
        ({}, 64 * GIB),
        ({"memory.max": "max", "memory.current": f"{GIB}"}, 64 * GIB),
        ({"memory.max": f"{4 * GIB}"}, 4 * GIB),
        ({"memory.max": f"{4 * GIB}", "memory.current": f"{3 * GIB}"}, GIB),
        (
            {
                "memory.max": f"{4 * GIB}",
                "memory.current": f"{3 * GIB}",
                "memory.stat": f"anon {GIB}\ninactive_file {2 * GIB}\n",
            },
            3 * GIB,
        ),
        ({"memory.max": f"{GIB}", "memory.current": f"{2 * GIB}"}, 0),
        ({"memory/memory.limit_in_bytes": f"{2 * GIB}"}, 2 * GIB),
        (
            {
                "memory/memory.limit_in_bytes": f"{2 * GIB}",
                "memory/memory.usage_in_bytes": f"{GIB}",
                "memory/memory.stat": f"total_inactive_file {GIB // 2}\ninactive_file 0",
            },
            3 * GIB // 2,
        ),
    ],
)
def test_what_a_container_holds_already_cannot_be_had(tmp_path, monkeypatch, files, left):
    """Beside 64 GiB that are free on the machine itself."""
    meminfo = tmp_path / "meminfo"
    meminfo.write_text(f"MemTotal: 1 kB\nMemAvailable: {64 * GIB >> 10} kB\n")
    (tmp_path / "memory").mkdir()
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    monkeypatch.setattr("probes.workers.MEMINFO", meminfo)
    groups = tuple(
        (tmp_path / folder.relative_to("/sys/fs/cgroup"), limit, used)
        for folder, limit, used in CGROUPS
    )
    monkeypatch.setattr("probes.workers.CGROUPS", groups)
    assert available_bytes() == int(0.9 * left)


def test_a_worker_ends_when_nobody_holds_its_input(letter_data, tmp_path):
    worker = Worker(tmp_path, letter_data)
    worker.process.stdin.close()
    assert worker.process.wait(timeout=60) == 0
    worker.close()


@pytest.mark.parametrize(
    "wrong", [{"workers": 0}, {"workers": 1000}, {"memory": "much"}, {"memory": 0}]
)
def test_limits_of_no_meaning_are_refused(wrong):
    with pytest.raises((ConfigError, BudgetError)):
        Limits(**wrong)


def test_files_that_changed_since_the_plan_are_told(model_folders, letter_data, tmp_path):
    plan = planned(Store(tmp_path), model_folders, letter_data, ("first",), GOOD)
    from dataclasses import replace

    record, table = run_job(
        replace(plan.jobs[0], model_hash="other"), letter_data, LoadedModel(), silent
    )
    assert table is None and record.status == "failed"
    assert "the files of first have changed" in record.error
    record, _ = run_job(replace(plan.jobs[0], version=7), letter_data, LoadedModel(), silent)
    assert record.status == "failed" and "version 1 here, 7 in the plan" in record.error


def test_residual_norms_reads_what_the_model_adds(model, letter_data):
    """Against a loop: the stream after each part is the one before plus what was written."""
    import numpy as np

    from workbench.runs import run

    probe = get_probe("residual-norms")
    config = probe.Config(n_prompts=3, n_tokens=9, n_draws=5)
    found = probe.run(model, letter_data, config)
    tokens = letter_data.tokens(model, 3, 9, 0)
    one = run(model, tokens, sites=("resid_pre", "resid_mid", "resid_post"))
    for layer in range(2):
        steps = {"attn_out": ("resid_pre", "resid_mid"), "mlp_out": ("resid_mid", "resid_post")}
        for site, (before, after) in steps.items():
            x, y = (
                one[f"{name}.{layer}"][:, 1:].double().norm(dim=-1).numpy()
                for name in (before, after)
            )
            rows = found[(found["layer"] == layer) & (found["site"] == site)].set_index("measure")
            np.testing.assert_allclose(rows.loc["norm", "value"], y.mean(), rtol=1e-5)
            np.testing.assert_allclose(rows.loc["growth", "value"], (y / x).mean(), rtol=1e-5)


def test_files_of_the_current_folder_do_not_stand_in_for_libraries(
    model_folders, letter_data, tmp_path, monkeypatch
):
    """As in a notebook beside a numbers.py of one's own."""
    (tmp_path / "numbers.py").write_text("raise SystemExit('not the library')")
    store = Store(tmp_path / "store")
    plan = planned(store, model_folders, letter_data, ("first",), (size_of_weights.PROBE,))
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend("")
    assert run_plan(plan, store, Limits(workers=1)).n_ok == 1
