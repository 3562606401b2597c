"""Results on disk: written whole, read without torch, asked with SQL that can only read."""

import errno
import json
import subprocess
import sys

import pytest

from probes.contract import COLUMNS, findings_table
from probes.jobs import Job, Record
from probes.store import FINDINGS_COLUMNS, JOB_COLUMNS, Store, StoreError
from workbench.errors import WorkbenchError


def a_job(model="first", probe="size-of-weights", version=1):
    config = '{"digits": 6, "seed": 0}'
    return Job(
        model, model, None, model[::-1], probe, "m", version, "data", config, "d", "h", 1.5, 2e6
    )


def a_table(value):
    return findings_table([{"measure": "size", "value": value, "layer": 0, "item": 'it\'s a "b"'}])


@pytest.fixture
def store(tmp_path):
    """One job that went well, one that failed, one refused, one that waits; and one of an earlier plan."""
    store = Store(tmp_path / "store")
    jobs = [a_job(model) for model in ("first", "second", "third", "fourth")]
    store.write_plan(jobs)
    store.save(Record.of(jobs[0], "ok", taken=(0.25, 1000)), a_table(1.0))
    store.save(Record.of(jobs[1], "failed", error="ZeroDivisionError: none\udcff", trace="here"))
    store.save(Record.of(jobs[2], "refused", error="it has no heads"))
    store.save(Record.of(a_job("earlier"), "ok"), a_table(9.0))
    return store


def test_findings_say_of_whom_and_jobs_how_they_ended(store):
    findings = store.findings()
    assert tuple(findings.columns) == FINDINGS_COLUMNS
    assert list(findings["model"]) == ["first"] and list(findings["value"]) == [1.0]
    jobs = store.jobs()
    assert tuple(jobs.columns) == JOB_COLUMNS
    assert list(jobs["status"]) == ["ok", "failed", "refused", "waiting"]
    assert jobs["error"][1].startswith("ZeroDivisionError")
    assert list(store.tables("size-of-weights")) == ["first"]


def test_the_same_findings_are_the_same_bytes(store, tmp_path):
    other = Store(tmp_path / "other")
    other.save(Record.of(a_job("first"), "ok", taken=(99.0, 5)), a_table(1.0))
    key = a_job("first").key
    assert other.table_path(key).read_bytes() == store.table_path(key).read_bytes()


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"key": "x"}', "\0", '{"status": "ok"}'])
def test_a_broken_record_counts_as_none(store, text):
    key = a_job("first").key
    (store.folder / f"{key}.json").write_text(text)
    assert store.record(key) is None


def test_a_record_without_its_table_counts_as_none(store):
    key = a_job("first").key
    store.table_path(key).unlink()
    assert store.record(key) is None
    assert store.findings().empty and tuple(store.findings().columns) == FINDINGS_COLUMNS


@pytest.mark.parametrize("content", [b"", b"PAR1", b"PAR1PAR1"])
def test_a_broken_table_is_told_with_what_to_do(store, content):
    store.table_path(a_job("first").key).write_bytes(content)
    with pytest.raises(WorkbenchError, match=r"remove .* and run the report again"):
        store.findings()


def test_a_record_of_before_there_were_notes_is_read(store):
    path = store.folder / f"{a_job('first').key}.json"
    values = json.loads(path.read_text())
    del values["note"]
    path.write_text(json.dumps(values))
    assert store.record(a_job("first").key).note == "" and store.is_settled(a_job("first").key)


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"jobs": 3}', '{"jobs": [3]}', '{"jobs": [{}]}'])
def test_a_broken_plan_is_told(store, text):
    (store.folder / "plan.json").write_text(text)
    with pytest.raises(WorkbenchError, match=r"plan|JSON|job"):
        store.jobs()


def test_no_results_are_told(tmp_path):
    with pytest.raises(WorkbenchError, match=r"no results in .*: `workbench report"):
        Store(tmp_path).findings()


def test_a_full_disk_is_told_and_loses_nothing(store, monkeypatch):
    job, before = a_job("fifth"), store.findings()

    def full(descriptor):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr("workbench.writing.os.fsync", full)
        with pytest.raises(StoreError, match=r"No space left on device.*same command goes on"):
            store.save(Record.of(job, "ok"), a_table(2.0))
    assert store.record(job.key) is None
    assert not list(store.folder.glob(".saving-*"))
    assert store.findings().equals(before)
    store.save(Record.of(job, "ok"), a_table(2.0))
    assert store.record(job.key) is not None


def test_only_one_run_writes_at_a_time(store):
    with store.lock():
        other = Store(store.folder)
        with pytest.raises(WorkbenchError, match="another run is writing"), other.lock():
            pass
    with store.lock():
        pass


def test_reading_needs_no_torch(store):
    code = (
        "import sys; from probes.store import Store; s = Store(sys.argv[1]);"
        "s.findings(), s.jobs(), s.tables('size-of-weights');"
        "print(s.frame('select sum(value) as v from findings')['v'][0]);"
        "print([m for m in ('torch', 'transformers', 'plotly') if m in sys.modules])"
    )
    command = [sys.executable, "-c", code, str(store.folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.split("\n")[:2] == ["1.0", "[]"]


def test_sql_reads_both_tables(store):
    found = store.frame(
        "with good as (select * from jobs where status = 'ok') "
        "select model, value, seconds from findings join good using (model, probe)"
    )
    assert found.to_dict("list") == {"model": ["first"], "value": [1.0], "seconds": [0.25]}
    assert list(store.frame("from findings")) == list(FINDINGS_COLUMNS)
    assert set(COLUMNS) < set(FINDINGS_COLUMNS)


@pytest.mark.parametrize(
    "sql",
    [
        "drop table findings",
        "select 1; select 2",
        "insert into findings select * from findings",
        "copy findings to '{folder}/stolen.csv'",
        "copy (select 1) to '{folder}/stolen.csv'",
        "attach '{folder}/stolen.db'",
        "export database '{folder}/stolen'",
        "create table mine as select 1",
        "set enable_external_access = true",
        "set memory_limit = '1TB'",
        "install httpfs",
        "load httpfs",
        "pragma database_list",
        "select * from read_csv('{folder}/plan.json')",
        "select * from read_text('{folder}/plan.json')",
        "select * from '{folder}/plan.json'",
        "select * from glob('/*')",
        "select * from duckdb_secrets(); drop view findings",
        "select * from range(1000000000)",
        "select * from store",
        "select nothing from findings",
        "selec",
        "",
        "   ",
        "-- nothing",
        "select '\ud800'",
        "(" * 5000 + "select 1",
    ],
)
def test_sql_that_does_more_than_read_the_tables_is_refused(store, sql):
    before = {path.name for path in store.folder.iterdir()}
    with pytest.raises(WorkbenchError):
        store.frame(sql.replace("{folder}", str(store.folder)))
    assert {path.name for path in store.folder.iterdir()} == before


def test_a_plan_survives_its_file(store):
    jobs = [a_job(model) for model in ("first", "second", "third", "fourth")]
    assert list(store.plan()) == jobs
    assert json.loads((store.folder / "plan.json").read_text())["jobs"][0]["model"] == "first"
