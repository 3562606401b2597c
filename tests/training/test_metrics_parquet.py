"""The journal and the table beside it say the same, and what an estimate foretells comes about."""

import dataclasses

import pandas as pd
import pytest

from workbench.results import read_table
from workbench.training.estimate import estimate
from workbench.training.journal import TABLE_FILE, Journal, Progress, as_overseer, read_metrics
from workbench.training.loop import fit
from workbench.training.making import made
from workbench.training.plan import MLPShape, Plan, PlanError, TransformerShape
from workbench.training.run_folder import create
from workbench.training.working import work

PLAN = Plan(name="m", task="two moons", network=MLPShape(hidden=(6,)), steps=20, snapshots=3)


def progress(step):
    return Progress(step, 9, 10 * step, 0.5 * step, 1 / (step + 1), {"test_loss": 0.1 * step})


def test_the_table_is_replaced_at_most_every_few_seconds(tmp_path, monkeypatch):
    clock = [100.0]
    monkeypatch.setattr("workbench.training.journal.time.monotonic", lambda: clock[0])
    journal, seen = Journal(tmp_path), []
    for step, now in enumerate((100.0, 101.0, 102.9, 103.1, 104.0)):
        clock[0] = now
        journal.add(progress(step))
        seen.append(len(read_table(tmp_path / TABLE_FILE)[0]))
    assert seen == [1, 1, 1, 4, 4]
    journal.write_table()
    table, made_by = read_table(tmp_path / TABLE_FILE)
    pd.testing.assert_frame_equal(table, pd.DataFrame(read_metrics(tmp_path)))
    assert made_by["run"] == tmp_path.name


def test_the_table_of_a_run_holds_every_validation_finished_or_not(tmp_path):
    for name, told in (("whole", lambda seen: None), ("cut", lambda seen: seen.step < 7)):
        parts, out = made(PLAN), tmp_path / name
        fit(parts.model, parts.task, parts.config, out, penalties=parts.shaping, progress=told)
        table, _ = read_table(out / TABLE_FILE)
        assert list(table["step"]) == list(range(1, 21 if name == "whole" else 8))
        assert {"tokens", "seconds", "train_loss", "test_loss"} <= set(table)


def test_a_state_is_saved_by_the_clock_too(tmp_path, monkeypatch):
    parts, saved = made(PLAN), []
    monkeypatch.setattr(
        "workbench.training.loop.save_state", lambda path, model, opt, counters: saved.append(1)
    )
    config = dataclasses.replace(parts.config, save_every=1000, save_seconds=0.0)
    fit(parts.model, parts.task, config, tmp_path)
    assert len(saved) == 19  # after the last step there is nothing to go on with


def test_a_function_and_nothing_are_overseers_too():
    assert as_overseer(None).saw(progress(1)) and as_overseer(None).goes_on(1, 0.0)
    assert not as_overseer(lambda seen: False).saw(progress(1))
    assert as_overseer([].append).saw(progress(1))


@pytest.mark.parametrize(
    "plan",
    [
        dataclasses.replace(PLAN, swaps="greedy", swap_every=5, wiring=1e-3),
        Plan(
            name="t",
            task="modular addition",
            network=TransformerShape(order="f", d_model=8),
            modulus=5,
            steps=15,
            snapshots=2,
            batch_rows=4,
        ),
        dataclasses.replace(PLAN, steps=1),
    ],
)
def test_an_estimate_foretells_size_and_leaves_nothing(tmp_path, plan, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    found = estimate(plan)
    assert list(tmp_path.iterdir()) == []
    assert found.seconds > 0 and found.seconds_per_step > 0
    parts = made(plan)
    assert found.n_parameters == sum(weight.numel() for weight in parts.model.parameters())
    folder = create(tmp_path, plan)
    assert work(folder) == 0
    kept = [p for p in folder.path.rglob("*.safetensors")]
    used = sum(path.stat().st_size for path in kept)
    assert 0.2 * used < found.bytes_on_disk < 5 * used + 200_000


def test_an_estimate_refuses_what_a_run_would(tmp_path):
    shape = TransformerShape(n_ctx=8, d_model=8, d_vocab=300)
    plan = Plan(name="x", task="text folder", network=shape, folder=str(tmp_path))
    with pytest.raises(PlanError, match="holds no text"):
        estimate(plan)
