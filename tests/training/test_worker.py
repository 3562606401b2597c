"""Workers: killed at any moment, alone on a folder, stopped when asked, clear about what went wrong."""

import dataclasses
import errno
import importlib
import os
import random
import signal
import subprocess
import sys
import time

import pytest
import torch

from workbench.errors import ConfigError
from workbench.locks import Lock
from workbench.processes import CONTROL_FILE, LOCK_FILE, LOG_FILE
from workbench.training.loop import read_metrics
from workbench.training.plan import MLPShape, Plan, TransformerShape
from workbench.training.run_folder import PLAN_FILE, create
from workbench.training.state import STATE_FILE, read_counters
from workbench.training.worker import start
from workbench.training.working import RESERVE_FILE, explained, work

PLAN = Plan(
    name="tiny",
    task="two moons",
    network=MLPShape(hidden=(6, 6)),
    steps=800,
    wiring=1e-3,
    swaps="greedy",
    swap_every=50,
    snapshots=3,
)
SHORT = dataclasses.replace(PLAN, steps=40)
WIDE = dataclasses.replace(SHORT, steps=14, network=MLPShape(hidden=(100, 100)), batch_rows=20)


@pytest.fixture
def plain(monkeypatch):
    """Without probes, which are another module's affair and cost seconds."""
    monkeypatch.setattr("workbench.training.working.default_probes", lambda plan, model: {})


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    """The weights of both plans, trained without a pause."""
    found = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("workbench.training.working.default_probes", lambda plan, model: {})
        for plan in (SHORT, WIDE):
            folder = create(tmp_path_factory.mktemp("whole"), plan)
            assert work(folder) == 0
            found.append(weights(folder))
    return found


def weights(folder):
    return {name: tensor.clone() for name, tensor in folder.load().state_dict().items()}


def same(first, second):
    return all(torch.equal(first[name], second[name]) for name in first)


def wait_for(folder, condition, seconds=240):
    end = time.monotonic() + seconds
    while not condition(status := folder.status):
        log = (folder.path / LOG_FILE).read_text()
        assert time.monotonic() < end and status.state != "failed", (status, log)
        time.sleep(0.02)
    return status


def test_a_worker_killed_twice_ends_with_the_bits_of_one_that_was_not(tmp_path):
    plan = dataclasses.replace(PLAN, steps=4000)
    folder, whole = create(tmp_path, plan), create(tmp_path, plan)
    draw = random.Random()
    for least in (1, 200):
        start(folder)
        status = wait_for(
            folder,
            lambda now, least=least: (
                now.state == "finished" or (now.state == "running" and now.step >= least)
            ),
        )
        if status.state == "finished":
            break
        time.sleep(draw.random() / 10)
        os.kill(status.pid, signal.SIGKILL)
        wait_for(folder, lambda now: now.state != "running")
        if folder.status.state == "finished":
            break
        assert folder.status.state == "interrupted"
        assert not list(folder.path.glob(".saving-*.json"))
    if folder.status.state != "finished":
        start(folder)
        wait_for(folder, lambda now: now.state == "finished")
    assert work(whole) == 0
    assert same(weights(folder), weights(whole))
    measured = [
        [{k: v for k, v in line.items() if k != "seconds"} for line in read_metrics(run.path)]
        for run in (folder, whole)
    ]
    assert measured[0] == measured[1]
    assert folder.snapshots() == whole.snapshots() == (0, 2000, 4000)


def test_a_second_worker_of_a_run_is_refused_by_either_door(tmp_path):
    folder = create(tmp_path, PLAN)
    with Lock(folder.path / LOCK_FILE) as is_ours:
        assert is_ours
        with pytest.raises(ConfigError, match="being trained already"):
            start(folder)
        words = [sys.executable, "-m", "workbench.training.worker", str(folder.path)]
        second = subprocess.run(words, capture_output=True, text=True, check=False)
    assert second.returncode == 3
    assert "another process works on" in second.stderr


@pytest.mark.parametrize(("word", "state"), [("pause", "paused"), ("cancel", "cancelled")])
def test_a_worker_stops_when_asked_and_can_go_on(tmp_path, plain, undisturbed, word, state):
    folder = create(tmp_path, SHORT)

    def heard(seen):
        if seen.step == 10:
            folder.ask(word)
            time.sleep(0.3)

    assert work(folder, heard) == 4
    status = folder.status
    assert status.state == state
    assert 10 <= status.step <= 12
    assert read_counters(folder.path / STATE_FILE)["step"] == status.step
    assert f"after {status.step} steps" in status.message
    (folder.path / CONTROL_FILE).unlink()
    assert work(folder) == 0
    assert folder.status.state == "finished"
    assert same(weights(folder), undisturbed[0])


def test_a_run_that_was_asked_before_it_began_does_not_begin(tmp_path, plain):
    folder = create(tmp_path, SHORT)
    folder.ask("cancel")
    assert work(folder) == 4
    assert folder.status.state == "cancelled"
    assert not (folder.path / STATE_FILE).exists()


def test_being_told_to_end_is_a_pause(tmp_path, plain):
    folder = create(tmp_path, SHORT)
    before = signal.getsignal(signal.SIGTERM)
    stop = work(
        folder, lambda seen: os.kill(os.getpid(), signal.SIGTERM) if seen.step == 5 else None
    )
    assert stop == 4
    assert folder.status.state == "paused"
    assert "SIGTERM" in folder.status.message
    assert folder.status.step in (5, 6)
    assert signal.getsignal(signal.SIGTERM) == before


def test_a_transformer_can_be_looked_at_while_it_is_trained(tmp_path):
    shape = TransformerShape(n_ctx=16, d_model=8, n_heads=2)
    plan = Plan(name="t", task="repeats", network=shape, steps=4, snapshots=3, batch_rows=4)
    folder, seen = create(tmp_path, plan), []

    def heard(progress):
        if progress.step == 3:
            seen.append((folder.snapshots(), folder.load(2).tokenizer, folder.status.state))

    assert work(folder, heard) == 0
    snapshots, tokenizer, _ = seen[0]
    assert snapshots == (0, 2)
    assert tokenizer is not None
    table = folder.metrics()
    assert {"induction score", "K-composition excess", "Q", "mean wire length"} <= set(table)
    assert folder.load().cfg.order == "ss"


# --- What goes wrong ---------------------------------------------------------------------------------


def paused(tmp_path, plan):
    """A run that stopped after some steps."""
    folder = create(tmp_path, plan)

    def heard(seen):
        if seen.step == 10:
            folder.ask("pause")
            time.sleep(0.3)  # longer than the worker goes without looking

    work(folder, heard)
    assert folder.status.state == "paused"
    (folder.path / CONTROL_FILE).unlink()
    return folder


def test_a_file_limit_fails_clearly_and_leaves_the_last_state_whole(tmp_path, plain, undisturbed):
    folder = paused(tmp_path, WIDE)
    before = (folder.path / STATE_FILE).read_bytes()
    assert len(before) > 110_000
    code = (
        "import resource, sys; resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000)); "
        "from workbench.training.worker import main; sys.exit(main(sys.argv[1:]))"
    )
    words = [sys.executable, "-c", code, str(folder.path)]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 1, done.stderr
    status = folder.status
    assert status.state == "failed"
    assert "a file would be larger than is allowed" in status.message
    step = read_counters(folder.path / STATE_FILE)["step"]
    assert f"the state after {step} steps is kept" in status.message
    assert status.step == step
    assert (folder.path / STATE_FILE).read_bytes() == before
    assert not list(folder.path.glob(".saving-*"))
    assert work(folder) == 0
    assert same(weights(folder), undisturbed[1])


@pytest.mark.parametrize(
    ("writer", "fails_at"),
    [
        ("workbench.training.state.save_file", 5),
        ("workbench.training.mlp.save_file", 1),
        ("workbench.training.mlp.save_file", 2),
        ("workbench.results.save_table", 1),
    ],
)
def test_a_full_disk_fails_clearly_and_the_run_goes_on_when_there_is_room(
    tmp_path, monkeypatch, plain, undisturbed, writer, fails_at
):
    """From one write on nothing more can be written, until what was set aside is given up."""
    folder, calls = paused(tmp_path, SHORT), []
    reserve = folder.path / RESERVE_FILE
    owner, _, name = writer.rpartition(".")
    real = getattr(importlib.import_module(owner), name)

    def refuse():
        if len(calls) >= fails_at and reserve.exists():
            raise OSError(errno.ENOSPC, "No space left on device")

    def write(*given, **named):
        calls.append(given)
        refuse()
        return real(*given, **named)

    with monkeypatch.context() as disk:
        disk.setattr(writer, write)
        disk.setattr("os.fsync", lambda handle: refuse())
        assert work(folder) == 1
    assert len(calls) >= fails_at
    status = folder.status
    assert status.state == "failed"
    assert "the disk is full" in status.message and "make room" in status.message
    assert read_counters(folder.path / STATE_FILE)["step"] == status.step >= 10
    assert not reserve.exists()
    assert work(folder) == 0
    assert same(weights(folder), undisturbed[0])
    assert folder.snapshots() == (0, 20, 40)


@pytest.mark.parametrize("widths", [(20, 20), (20,) * 8])
def test_a_loss_that_is_no_use_is_a_failure_with_advice(tmp_path, plain, widths):
    plan = dataclasses.replace(SHORT, task="independence", lr=100.0, name="wild")
    folder = create(tmp_path, dataclasses.replace(plan, network=MLPShape(hidden=widths)))
    assert work(folder) == 1
    assert folder.status.state == "failed"
    assert "lower rate of learning" in folder.status.message


def test_an_error_of_ours_is_told_as_it_is(tmp_path):
    shape = TransformerShape(n_ctx=16, d_model=8, d_vocab=300)
    plan = Plan(name="x", task="text folder", network=shape, folder=str(tmp_path / "absent"))
    folder = create(tmp_path, plan)
    assert work(folder) == 1
    assert folder.status.message.startswith("folder does not work out: no folder")


def test_a_changed_plan_does_not_pass_for_the_run_that_began(tmp_path, plain):
    folder = paused(tmp_path, SHORT)
    other = dataclasses.replace(SHORT, lr=1e-4)
    (folder.path / PLAN_FILE).write_text(other.to_json())
    assert work(folder) == 1
    assert "other settings" in folder.status.message


def test_a_folder_that_is_deleted_stays_deleted(tmp_path, monkeypatch, plain):
    monkeypatch.setattr("workbench.training.working.ASK_SECONDS", 0)
    folder = create(tmp_path, SHORT)

    def delete(seen):
        if seen.step == 10:
            for path in sorted(folder.path.rglob("*"), reverse=True):
                path.rmdir() if path.is_dir() else path.unlink()
            folder.path.rmdir()

    assert work(folder, delete) == 1
    assert not folder.path.exists()


def test_an_unforeseen_error_names_itself_and_the_log(tmp_path, capsys, plain):
    folder = create(tmp_path, SHORT)

    def heard(seen):
        raise RuntimeError("boom\nmore")

    assert work(folder, heard) == 1
    assert folder.status.message == (
        "RuntimeError: boom (nothing was saved before; the trace is in worker.log)"
    )
    assert "Traceback" in capsys.readouterr().err


def test_a_library_that_hides_the_errno_is_understood(tmp_path):
    error = RuntimeError("I/O error: No space left on device (os error 28)")
    assert explained(error, tmp_path).startswith("the disk is full")


@pytest.mark.parametrize("words", [[], ["a", "b"], ["/nowhere"]])
def test_a_worker_without_a_run_says_so(words, capsys):
    from workbench.training.worker import main

    assert main(words) == 2
    assert capsys.readouterr().err.startswith(("usage", "error: no plan in /nowhere"))


def test_a_lock_held_elsewhere_is_respected(tmp_path, capsys, monkeypatch):
    from workbench.training.worker import main

    monkeypatch.setattr("workbench.processes.PATIENCE", 0.05)
    folder = create(tmp_path, SHORT)
    with Lock(folder.path / LOCK_FILE):
        assert main([str(folder.path)]) == 3
    assert "another process works on" in capsys.readouterr().err
