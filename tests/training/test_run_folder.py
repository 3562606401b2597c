"""Run folders: made under any name, listed, and read without a crash whatever stands in them."""

import json
import os
import time

import pytest
import torch

from workbench.errors import CheckpointError, ConfigError, WorkbenchError
from workbench.locks import Lock, is_held
from workbench.processes import CONTROL_FILE, LOCK_FILE
from workbench.training.journal import METRICS_FILE
from workbench.training.plan import MLPShape, Plan
from workbench.training.run_folder import (
    PLAN_FILE,
    STATUS_FILE,
    RunFolder,
    RunStatus,
    adopt,
    create,
    folder_name,
    list_runs,
)
from workbench.training.state import STATE_FILE
from workbench.training.worker import start
from workbench.training.working import work

PLAN = Plan(name="Moons", task="two moons", network=MLPShape(hidden=(4,)), steps=8, snapshots=3)


@pytest.fixture
def folder(tmp_path):
    return create(tmp_path, PLAN)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder = create(tmp_path_factory.mktemp("runs"), PLAN)
    assert work(folder) == 0
    return folder


def test_a_new_run_is_queued_and_holds_its_plan(folder):
    assert folder.plan == PLAN
    assert folder.status == RunStatus(state="queued", steps=8)
    assert not folder.is_alive
    assert folder.snapshots() == ()
    assert list(folder.metrics().columns) == ["step", "seconds", "train_loss"]
    with pytest.raises(CheckpointError, match="no weights yet"):
        folder.load()


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("My run #3", "my-run-3"),
        ("../../etc/passwd", "etc-passwd"),
        ("bimt-s4/bimt", "bimt-s4-bimt"),
        ("λ = 0.1", "0-1"),
        ("…", "run"),
        ("CON", "con"),
        ("x" * 80, "x" * 60),
        ("-rf", "rf"),
    ],
)
def test_a_hostile_name_becomes_a_plain_folder_inside_the_root(tmp_path, name, expected):
    assert folder_name(name) == expected
    plan = Plan(name=name, task="two moons", network=MLPShape())
    made = [create(tmp_path / "runs", plan) for _ in range(3)]
    assert [run.name for run in made] == [expected, f"{expected}-2", f"{expected}-3"]
    assert {run.path.parent for run in made} == {tmp_path / "runs"}
    assert [path.name for path in tmp_path.iterdir()] == ["runs"]


def test_runs_are_listed_the_newest_first_and_nothing_else_is(tmp_path):
    made = [create(tmp_path, PLAN) for _ in range(3)]
    for age, run in zip((30, 10, 20), made, strict=True):
        os.utime(run.path / PLAN_FILE, (1e9 - age, 1e9 - age))
    (tmp_path / "recipe").mkdir()
    (tmp_path / "file").write_text("x")
    (tmp_path / "link").symlink_to(made[0].path)
    assert [run.name for run in list_runs(tmp_path)] == ["moons-2", "moons-3", "moons"]
    assert list_runs(tmp_path / "absent") == []
    with pytest.raises(WorkbenchError, match="cannot read"):
        list_runs(tmp_path / "file")


def test_a_root_that_is_a_file_is_refused(tmp_path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(WorkbenchError, match="cannot make"):
        create(tmp_path / "file", PLAN)


GOOD = {"state": "paused", "step": 3, "seconds": 1.5, "message": "", "started": 1.0, "pid": 4}


@pytest.mark.parametrize(
    ("status", "state"),
    [
        (json.dumps(GOOD), "paused"),
        ("", "failed"),
        ("{", "failed"),
        ("[]", "failed"),
        ("\xff\xfe", "failed"),
        ("[" * 50_000, "failed"),
        (json.dumps(GOOD | {"state": "asleep"}), "failed"),
        (json.dumps(GOOD | {"state": ["paused"]}), "failed"),
        (json.dumps(GOOD | {"step": -1}), "failed"),
        (json.dumps(GOOD | {"step": True}), "failed"),
        (json.dumps(GOOD | {"seconds": float("nan")}), "failed"),
        (json.dumps(GOOD | {"message": None}), "failed"),
        (json.dumps(GOOD | {"pid": "init"}), "failed"),
        (json.dumps(GOOD | {"extra": 1}), "paused"),
    ],
)
def test_a_broken_status_is_told_and_never_raised(folder, status, state):
    (folder.path / STATUS_FILE).write_text(status, encoding="latin-1")
    found = folder.status
    assert found.state == state
    assert bool(found.message) == (state == "failed")


@pytest.mark.parametrize("plan", ["", "{}", "\xff", "x" * 100_000, None])
def test_a_broken_plan_is_told_by_the_status_and_refused_by_a_start(folder, plan):
    path = folder.path / PLAN_FILE
    path.unlink() if plan is None else path.write_text(plan, encoding="latin-1")
    assert folder.status.state == "failed"
    assert "plan" in folder.status.message
    with pytest.raises(CheckpointError, match="plan"):
        start(folder)
    assert folder.metrics().empty


def test_running_without_a_worker_is_interrupted(folder):
    folder.tell(RunStatus(state="running", step=5, steps=8, started=1.0, pid=1))
    assert folder.status.state == "interrupted"
    assert "step 5" in folder.status.message
    with Lock(folder.path / LOCK_FILE) as is_ours:
        assert is_ours
        assert folder.is_alive
        assert folder.status.state == "running"
    assert folder.status.state == "interrupted"


def test_a_process_that_never_began_is_told_after_a_while(folder):
    folder.tell(RunStatus(state="queued", steps=8))
    assert folder.status.state == "queued"
    os.utime(folder.path / STATUS_FILE, (1e9, 1e9))
    assert folder.status.state == "interrupted"
    assert "worker.log" in folder.status.message
    with Lock(folder.path / LOCK_FILE):
        assert folder.status.state == "queued"


def test_only_one_holds_a_lock_and_looking_does_not_take_it(tmp_path):
    path = tmp_path / LOCK_FILE
    assert not is_held(path)
    with Lock(path) as first:
        assert first and is_held(path)
        with Lock(path, patience=0.05) as second:
            assert not second
        assert is_held(path)
    assert not is_held(path)
    with Lock(path) as again:
        assert again


def test_asking_where_nobody_works_changes_the_status_at_once(folder):
    for word, state in (("pause", "paused"), ("cancel", "cancelled")):
        folder.ask(word)
        assert folder.status.state == state
    assert folder.asked() == "cancel"
    with pytest.raises(ConfigError, match="pause or cancel, not to 'explode'"):
        folder.ask("explode")


def test_asking_a_worker_leaves_it_to_the_worker(folder):
    with Lock(folder.path / LOCK_FILE):
        folder.tell(RunStatus(state="running", step=5, steps=8, started=1.0, pid=1))
        folder.ask("pause")
        assert folder.status.state == "running"
        assert folder.asked() == "pause"


def test_words_that_nobody_asks_are_not_heard(folder):
    for word in (b"", b"\xff\xfe", b"stop", b"pause" * 1000):
        (folder.path / CONTROL_FILE).write_bytes(word)
        assert folder.asked() is None


def test_a_finished_run_has_weights_metrics_and_snapshots(finished):
    assert finished.status.state == "finished"
    assert finished.status.step == finished.status.steps == 8
    assert finished.snapshots() == (0, 4, 8)
    first, last, whole = finished.load(0), finished.load(8), finished.load()
    assert torch.equal(last.layers[0].W, whole.layers[0].W)
    assert not torch.equal(first.layers[0].W, whole.layers[0].W)
    assert first.name == whole.name == "moons"
    table = finished.metrics()
    assert list(table.columns[:3]) == ["step", "seconds", "train_loss"]
    assert {"test_loss", "Q", "Q shuffled mean", "Q z", "wiring length"} <= set(table.columns)
    assert list(table["step"]) == list(range(1, 9))
    with pytest.raises(CheckpointError, match="no snapshot of step 5: there are 0, 4, 8"):
        finished.load(5)
    with pytest.raises(ConfigError, match="finished: train a new run"):
        start(finished)
    with pytest.raises(ConfigError, match="nothing to pause"):
        finished.ask("pause")


def test_a_finished_run_whose_status_was_lost_is_finished(finished, tmp_path):
    for name in (PLAN_FILE, "config.json", "model.safetensors"):
        (tmp_path / name).write_bytes((finished.path / name).read_bytes())
    assert RunFolder(tmp_path).status == RunStatus(state="finished", step=8, steps=8)


def test_the_newest_weights_of_an_unfinished_run_are_those_of_its_state(finished, tmp_path):
    run = create(tmp_path, PLAN)

    def heard(seen):
        if seen.step == 5:
            run.ask("pause")
            time.sleep(0.3)  # longer than the worker goes without looking

    work(run, heard)
    assert run.status.state == "paused"
    half = run.load()
    assert not torch.equal(half.layers[0].W, finished.load(4).layers[0].W)
    assert not torch.equal(half.layers[0].W, finished.load(8).layers[0].W)
    (run.path / STATE_FILE).write_bytes(b"broken")
    with pytest.raises(CheckpointError, match="not a whole safetensors file"):
        run.load()
    (run.path / STATE_FILE).unlink()
    assert torch.equal(run.load().layers[0].W, finished.load(4).layers[0].W)


def test_a_journal_that_holds_anything_is_read_as_far_as_it_can_be(folder):
    lines = ['{"step": 1, "train_loss": 0.5, "seconds": 1}', "[]", '{"step": "x"}', "{", "\xff"]
    lines += ['{"step": 2, "train_loss": NaN, "seconds": 2}', '{"step": 3, "Q": [1]}', "[" * 9999]
    (folder.path / METRICS_FILE).write_text("\n".join(lines), encoding="latin-1")
    assert list(folder.metrics()["step"]) == [1, 2]


def test_a_folder_is_adopted_only_if_it_is_empty_or_the_same_run(folder, tmp_path):
    assert adopt(folder.path, PLAN) == folder
    assert adopt(tmp_path / "new", PLAN).plan == PLAN
    other = Plan(name="other", task="two moons", network=MLPShape())
    with pytest.raises(ConfigError, match="another plan"):
        adopt(folder.path, other)
    (tmp_path / "full").mkdir()
    (tmp_path / "full/thesis.txt").write_text("x")
    with pytest.raises(ConfigError, match="something else"):
        adopt(tmp_path / "full", PLAN)
