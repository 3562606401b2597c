"""Plans: everything is checked by the name of its field, survives JSON, and makes the run that it says."""

import dataclasses
import json
import os
import subprocess
import sys

import pytest
import torch

from workbench.errors import ConfigError
from workbench.training.experiment_runs import train
from workbench.training.experiments import Request
from workbench.training.loop import fit
from workbench.training.making import made
from workbench.training.mlp import load_mlp
from workbench.training.plan import (
    MLPShape,
    Plan,
    PlanError,
    TransformerShape,
    changed,
    fields_for,
    make_run,
    presets,
    task_names,
)
from workbench.training.task_kinds import TASK_KINDS

MOONS = Plan(name="moons", task="two moons", network=MLPShape(hidden=(6,)), steps=20)
REPEATS = Plan(name="repeats", task="repeats", network=TransformerShape(n_ctx=16, d_model=8))
SHAPES = (MLPShape, TransformerShape)
PRESETS = presets()


def test_a_plan_is_known_without_loading_torch():
    code = (
        "import sys; from workbench.training.plan import presets; import workbench.training.run_folder; "
        "presets(); assert not {'torch', 'pandas', 'scipy'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize("kind", [Plan, *SHAPES])
def test_every_field_says_what_a_form_needs(kind):
    for each in dataclasses.fields(kind):
        about = each.metadata
        assert set(about) == {"kind", "unit", "hint", "low", "high", "choices", "optional"}
        assert about["hint"]
        if about["kind"] in ("number", "whole", "wholes", "text"):
            assert about["low"] < about["high"], each.name
        if about["kind"] == "choice":
            assert each.default is dataclasses.MISSING or each.default in about["choices"]


@pytest.mark.parametrize("name", PRESETS)
def test_a_plan_survives_json(name):
    assert Plan.from_json(PRESETS[name].to_json()) == PRESETS[name]


NAN, INFINITE = float("nan"), float("inf")


@pytest.mark.parametrize(
    ("plan", "field", "value", "message"),
    [
        (MOONS, "wiring", -1e-3, "a number from 0"),
        (MOONS, "wiring", NAN, "a number from 0 .* not nan"),
        (MOONS, "l1", INFINITE, "a number from 0"),
        (MOONS, "l1", True, "a number from 0"),
        (MOONS, "l1", "1", "a number from 0"),
        (MOONS, "task", "two suns", "one of independence, .*two moons"),
        (MOONS, "steps", 0, "from 1 to 10,000,000"),
        (MOONS, "steps", 10.0, "a whole number"),
        (MOONS, "lr", NAN, "a number"),
        (MOONS, "seed", -1, "a whole number from 0"),
        (MOONS, "name", "", "1 to 80 printable"),
        (MOONS, "name", "a\x1b[31m", "1 to 80 printable"),
        (MOONS, "snapshots", 1001, "from 0 to 1,000"),
        (MOONS, "swaps", "random", "one of none, assignment, greedy"),
        (MOONS, "top_k", 0, "a whole number from 1"),
        (MOONS, "clip", 0, "a number from 1e-09"),
        (MOONS, "network", None, "an MLPShape or a TransformerShape"),
        (MOONS, "network", TransformerShape(), "of kind mlp for the task 'two moons'"),
        (MOONS, "head_lasso", 0.1, "must be 0 here: a multilayer perceptron has no heads"),
        (MOONS, "decorrelation", 0.1, "has no heads"),
        (REPEATS, "clusterability", 0.1, "no feed-forward layer"),
        (REPEATS, "schedule", "published", "must be constant for the task 'repeats'"),
        (REPEATS, "warmup", 1.5, "a number from 0 to 1"),
        (REPEATS, "task", "text folder", "is missing: the task 'text folder' reads files"),
    ],
)
def test_what_cannot_be_meant_is_refused_by_the_name_of_its_field(plan, field, value, message):
    with pytest.raises(PlanError, match=message) as refusal:
        dataclasses.replace(plan, **{field: value})
    expected = "folder" if value == "text folder" else field
    assert refusal.value.field == expected
    assert str(refusal.value).startswith(expected)


@pytest.mark.parametrize(
    ("kind", "given", "field", "message"),
    [
        (MLPShape, {"hidden": (0,)}, "network.hidden", "whole numbers from 1"),
        (MLPShape, {"hidden": [4]}, "network.hidden", "whole numbers"),
        (MLPShape, {"hidden": (4,) * 65}, "network.hidden", "up to 64"),
        (MLPShape, {"bias": 1}, "network.bias", "true or false"),
        (TransformerShape, {"order": "sx"}, "network.order", "letters s and f"),
        (TransformerShape, {"d_model": 0}, "network.d_model", "from 1 to 4,096"),
        (TransformerShape, {"n_heads": 5}, "network.n_heads", "must divide d_model 64"),
        (TransformerShape, {"positions": "up"}, "network.positions", "one of none, learned"),
    ],
)
def test_a_shape_is_refused_by_the_name_of_its_field(kind, given, field, message):
    with pytest.raises(PlanError, match=message) as refusal:
        kind(**given)
    assert refusal.value.field == field


def written(**given):
    return json.dumps(json.loads(MOONS.to_json()) | given)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "not JSON"),
        ("[1]", "must be a JSON object, not list"),
        ("[" * 100_000, "characters long"),
        ("[" * 50_000, "not JSON"),
        ('{"steps": ' + "9" * 5000 + "}", "not JSON"),
        (written(format="workbench-plan-9"), "format must be 'workbench-plan-1'"),
        (written(colour="red"), "colour is unknown: there are name, task"),
        (written(network={"kind": "mlp", "depth": 3}), "network.depth is unknown"),
        (written(network={"kind": "tree"}), "network must be an object whose kind"),
        (written(network=7), "network must be an object"),
        (written(wiring=NAN), "wiring must be a number"),
        (written(name=["x"]), "name must be 1 to 80"),
        (MOONS.to_json().replace('"steps": 20', '"steps": 20, "steps": 30'), "steps stands more"),
        ('{"format": "workbench-plan-1", "network": {"kind": "mlp"}}', "name is missing"),
    ],
)
def test_a_hostile_file_is_refused_in_one_clear_line(text, message):
    with pytest.raises(ConfigError, match=message) as refusal:
        Plan.from_json(text)
    assert len(str(refusal.value)) < 1500


def test_fields_that_do_not_apply_say_why():
    why = fields_for(MOONS)
    assert set(why) == {f.name for f in dataclasses.fields(Plan)} | {
        f"network.{f.name}" for f in dataclasses.fields(MLPShape)
    }
    assert why["steps"] == "" and why["l1"] == ""
    assert "no heads" in why["head_lasso"]
    assert "reads no files" in why["folder"]
    assert "numbers" in why["network.embedding"]
    assert fields_for(dataclasses.replace(MOONS, swaps="greedy"))["swap_every"] == ""
    alone = changed(REPEATS, network_n_heads=1)
    assert "no other" in fields_for(alone)["decorrelation"]
    assert fields_for(REPEATS)["decorrelation"] == ""


def test_snapshots_are_spread_from_the_first_step_to_the_last():
    assert dataclasses.replace(MOONS, snapshots=5).kept_steps == (0, 5, 10, 15, 20)
    assert dataclasses.replace(MOONS, snapshots=0).kept_steps == ()
    assert dataclasses.replace(MOONS, snapshots=1).kept_steps == (20,)
    assert dataclasses.replace(MOONS, steps=3, snapshots=100).kept_steps == (0, 1, 2, 3)


@pytest.mark.parametrize("name", [n for n in PRESETS if PRESETS[n].task != "python text"])
def test_every_preset_fits_its_data(name):
    parts = make_run(PRESETS[name])
    batch = parts.task.batch(0, 0)
    loss = batch.loss(batch.outputs(parts.model))
    for penalty in parts.shaping.penalties.values():
        loss = loss + penalty(parts.model, 0)
    assert torch.isfinite(loss)
    assert bool(parts.shaping.penalties) == (not name.endswith(("/none", "induction-2l")))


def test_every_task_has_a_preset_or_reads_files():
    planned = {plan.task for plan in PRESETS.values()}
    assert {name for name in task_names() if not TASK_KINDS[name].reads_files} == planned


@pytest.mark.parametrize("name", ["bimt-independence", "bimt-in-context"])
def test_a_preset_gives_the_weights_of_the_experiment(tmp_path, name):
    steps = 202 if name == "bimt-independence" else 6
    plan = dataclasses.replace(PRESETS[f"{name}/bimt"], steps=steps, snapshots=0)
    parts = made(plan)
    threads = torch.get_num_threads()
    fit(parts.model, parts.task, parts.config, tmp_path / "a", penalties=parts.shaping)
    assert torch.get_num_threads() == threads
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("workbench.training.experiment_runs.report", lambda *given: None)
        train(Request(name=name, steps=steps), tmp_path / "b")
    if name == "bimt-independence":
        expected = load_mlp(tmp_path / "b").state_dict()
        found = parts.model.state_dict()
        assert all(torch.equal(found[key], expected[key]) for key in expected)
    else:
        both = [(tmp_path / part / "model.safetensors").read_bytes() for part in "ab"]
        assert both[0] == both[1]


EVERYTHING = {
    "wiring": 1e-3,
    "l1": 1e-4,
    "unit_lasso": 1e-4,
    "channel_cost": 1e-4,
    "nested_dropout": 0.1,
}


@pytest.mark.parametrize(
    "plan",
    [
        dataclasses.replace(MOONS, **EVERYTHING, clusterability=0.1, swaps="assignment"),
        dataclasses.replace(REPEATS, **EVERYTHING, head_lasso=1e-4, decorrelation=0.1),
        changed(REPEATS, network_order="sfs", clusterability=0.1, places="squares", swaps="greedy"),
    ],
)
def test_every_regularizer_acts_by_its_strength(plan):
    parts = make_run(plan)
    n_strengths = sum(
        bool(getattr(plan, each.name))
        for each in dataclasses.fields(plan)
        if each.metadata["unit"] == "λ"
    )
    assert len(parts.shaping.penalties) == n_strengths
    for name, penalty in parts.shaping.penalties.items():
        assert penalty(parts.model, 0) > 0, name
    field = "l1" if plan.l1 else "clusterability"
    doubled = make_run(dataclasses.replace(plan, **{field: 2 * getattr(plan, field)}))
    before, after = (
        p.shaping.penalties[field](p.model, 0).detach().item() for p in (parts, doubled)
    )
    assert after == pytest.approx(2 * before)


@pytest.mark.parametrize(
    ("plan", "values", "field"),
    [
        (MOONS, {"batch_rows": 100_000}, "batch_rows"),
        (REPEATS, {"network_n_ctx": 4}, "network"),
        (MOONS, {"network_hidden": (10_000, 10_000, 10_000)}, "network"),
    ],
)
def test_parts_that_do_not_fit_are_blamed_on_a_field(plan, values, field):
    with pytest.raises(PlanError) as refusal:
        make_run(changed(plan, **values))
    assert refusal.value.field == field


# --- Text of the user's own --------------------------------------------------------------------------


@pytest.fixture
def texts(tmp_path):
    folder = tmp_path / "texts"
    folder.mkdir()
    words = [f"word{number} and {number * 7919 % 1009}" for number in range(4000)]
    (folder / "a.txt").write_text("\n".join(words[:2000]))
    (folder / "b.txt").write_text("\n".join(words[2000:]))
    return folder


def of_text(folder):
    shape = TransformerShape(n_ctx=8, d_model=8, d_vocab=300)
    return Plan(name="own", task="text folder", network=shape, folder=str(folder), steps=4)


def test_a_folder_of_text_is_kept_as_it_was_when_the_run_began(texts, tmp_path):
    (texts / ".hidden").write_text("secret " * 1000)
    (texts / "link.txt").symlink_to("/etc/passwd")
    (texts / "picture.png").write_bytes(b"\x89PNG\0\0\1" * 99)
    os.mkfifo(texts / "pipe")
    first = make_run(of_text(texts), tmp_path / "run")
    read = first.model.tokenizer.backend.decode(first.task.train.tolist())
    assert "word10 and" in read and "secret" not in read and "root:" not in read
    (texts / "a.txt").write_text("something else\n" * 5000)
    again = make_run(of_text(texts), tmp_path / "run")
    assert (again.task.train == first.task.train).all()
    held_out = first.model.tokenizer.backend.decode(first.task.held_out.tolist())
    assert "word1999 and" in held_out and "word1999 and" not in read


@pytest.mark.parametrize(
    ("fill", "message"),
    [
        (lambda folder: folder.rmdir(), "no folder"),
        (lambda folder: None, "holds no text"),
        (lambda folder: (folder / "empty.txt").write_text(" \n"), "holds no text"),
        (lambda folder: (folder / "x.bin").write_bytes(bytes(9999)), "holds no text"),
        (lambda folder: (folder / "short.txt").write_text("hello"), "distinct pieces"),
    ],
)
def test_a_folder_without_enough_text_is_refused_by_its_field(tmp_path, fill, message):
    folder = tmp_path / "empty"
    folder.mkdir()
    fill(folder)
    with pytest.raises(PlanError, match=message) as refusal:
        make_run(of_text(folder), tmp_path / "run")
    assert refusal.value.field == "folder"


def test_too_much_text_is_refused_before_it_is_read(texts, monkeypatch, tmp_path):
    monkeypatch.setattr("workbench.training.own_text.MAX_BYTES", 50_000)
    with pytest.raises(PlanError, match="give a smaller folder"):
        make_run(of_text(texts), tmp_path / "run")


def test_a_sequence_of_repeats_repeats():
    """The task's periods leave room for a repetition at every length that a plan admits."""
    for n_ctx in (8, 16, 64, 200):
        task = make_run(changed(REPEATS, network_n_ctx=n_ctx)).task
        assert (task.batch(0, 0).targets >= 0).any()
