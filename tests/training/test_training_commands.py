"""The commands: train by name or plan, list runs, say how modular a network is."""

import dataclasses
import json
import shutil

import pytest
import torch
from idx_files import write_digits

from workbench.errors import UnsupportedError
from workbench.models.checkpoints import save_checkpoint
from workbench.results import read_table
from workbench.training.measuring import frequency_loss, measured, subject
from workbench.training.mlp import MLP, MLPConfig, save_mlp
from workbench.training.plan import MLPShape, Plan
from workbench.training.run_folder import PLAN_FILE, STATUS_FILE, RunFolder, create
from workbench.training.tasks import Batch
from workbench.training.working import work

PLAN = Plan(
    name="My run", task="independence", network=MLPShape(hidden=(6,)), steps=30, snapshots=3
)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder = create(tmp_path_factory.mktemp("runs"), PLAN)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("workbench.training.working.default_probes", lambda plan, model: {})
        assert work(folder) == 0
    return folder


@pytest.mark.parametrize("words", [("induction-2l",), ("--recipe", "induction-2l")])
def test_a_recipe_is_named_either_way(workbench, tmp_path, words):
    done = workbench("train", *words, "--max-steps", "1", "--out", tmp_path / "x")
    assert done.returncode == 0, done.stderr
    assert "step 1/1" in done.stdout
    assert (tmp_path / "x/card.json").is_file()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ((), "not none"),
        (("attn-1l", "--recipe", "attn-2l"), "not more than one"),
        (("attn-1l", "--plan", "x.json"), "not more than one"),
        (("--plan", "absent.json"), "no plan 'absent.json': give a JSON file, or one of"),
        (("--plan", "broken.json"), "wiring must be a number from 0"),
        (("--plan", "binary.json"), "cannot be read"),
        (("--plan", "induction-2l", "--variant", "l1"), "a plan has no variants"),
        (("induction-2l", "--data", "x"), "reads no files of yours"),
        (("bimt-s4", "--data", "x"), "reads no files of yours"),
        (("--plan", "induction-2l", "--data", "x"), "the task 'repeats' reads no files of yours"),
        (("bimt-mnist",), "name their folder with --data"),
        (("--plan", "bimt-mnist/bimt"), "folder is missing: the task 'MNIST' reads files of yours"),
        (("bimt-mnist", "--data", "x"), "x has no train-images-idx3-ubyte (or train-images"),
        (("--plan", "bimt-mnist/l1", "--data", "."), "has no train-images-idx3-ubyte (or train-"),
        (("--plan", "bimt-mnist/l1", "--data", "x"), "x: --data is that of your files"),
        (("--plan", "bimt-mnist/l3", "--data", "."), "no plan 'bimt-mnist/l3'"),
    ],
)
def test_a_mistake_is_one_clear_line(workbench, tmp_path, words, message):
    (tmp_path / "broken.json").write_text(
        json.dumps(json.loads(PLAN.to_json()) | {"wiring": -1}), encoding="utf-8"
    )
    (tmp_path / "binary.json").write_bytes(b"\xff\xfe\x00")
    done = workbench("train", *words)
    assert done.returncode == 2
    assert message in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1


def test_a_plan_is_trained_listed_and_measured(workbench, tmp_path, monkeypatch):
    monkeypatch.setattr("workbench.training.working.default_probes", lambda plan, model: {})
    (tmp_path / "plan.json").write_text(PLAN.to_json())
    words = ("train", "--plan", "plan.json", "--max-steps", "10")
    done = workbench(*words)
    assert done.returncode == 0, done.stderr
    assert "step 10/10" in done.stdout and "workbench modularity runs/my-run" in done.stdout
    assert RunFolder(tmp_path / "runs/my-run").plan == dataclasses.replace(PLAN, steps=10)
    assert workbench(*words).returncode == 0  # finished already
    other = workbench("train", "--plan", "plan.json")
    assert other.returncode == 2 and "another plan" in other.stderr
    broken = create(tmp_path / "runs", PLAN)
    (broken.path / PLAN_FILE).write_text("{}")
    waiting = create(tmp_path / "runs", PLAN)
    (waiting.path / STATUS_FILE).write_text("hello")
    listed = workbench("runs")
    assert listed.returncode == 0, listed.stderr
    rows = {line.split()[0]: line for line in listed.stdout.splitlines() if line.startswith("my-")}
    assert "finished" in rows["my-run"] and "10/10" in rows["my-run"]
    assert "failed" in rows["my-run-2"] and "format must be" in listed.stdout
    assert "failed" in rows["my-run-3"]
    assert "no runs in nowhere" in workbench("runs", "nowhere").stdout


def test_files_of_mnist_are_trained_on_by_name_and_as_a_plan(workbench, tmp_path, monkeypatch):
    monkeypatch.setattr("workbench.training.reports.N_SHUFFLES", 2)
    monkeypatch.setattr("workbench.training.working.default_probes", lambda plan, model: {})
    write_digits(tmp_path / "mnist")
    more = ("--data", "mnist", "--max-steps", "2")
    done = workbench("train", "--recipe", "bimt-mnist", "--variant", "none", *more)
    assert done.returncode == 0, done.stderr
    assert "step 2/2" in done.stdout and "task loss" in done.stdout
    planned = workbench("train", "--plan", "bimt-mnist/none", "--out", "planned", *more)
    assert planned.returncode == 0, planned.stderr
    folder = RunFolder(tmp_path / "planned")
    assert folder.plan.folder == str(tmp_path / "mnist")
    named = RunFolder(tmp_path / "runs/bimt-mnist-none").load().state_dict()
    assert all(torch.equal(named[key], w) for key, w in folder.load().state_dict().items())


def test_ctrl_c_pauses_a_plan_and_the_same_command_goes_on(workbench, tmp_path, monkeypatch):
    import os
    import signal

    monkeypatch.setattr("workbench.training.working.default_probes", lambda plan, model: {})
    (tmp_path / "plan.json").write_text(PLAN.to_json())
    words = ("train", "--plan", "plan.json", "--out", "x")
    with monkeypatch.context() as patch:
        patch.setattr(
            "app.training._echo",
            lambda seen: os.kill(os.getpid(), signal.SIGINT) if seen.step == 10 else None,
        )
        done = workbench(*words)
    assert done.returncode == 130
    assert "goes on after step 1" in done.stderr
    assert workbench(*words).returncode == 0


def test_modularity_prints_loss_modules_wiring_and_pruning(workbench, finished, tmp_path):
    words = ("modularity", finished.path, "--shuffles", "2", "--out", tmp_path / "m.parquet")
    done = workbench(*words)
    assert done.returncode == 0, done.stderr
    for measure in ("task loss", "Newman Q", "normalised cut", "wiring length", "cross-talk"):
        assert measure in done.stdout
    assert "components" in done.stdout and "my-run" in done.stdout
    table, made_by = read_table(tmp_path / "m.parquet")
    assert made_by["command"] == "modularity"
    chosen = subject(str(finished.path))
    loss = table.set_index("measure")["value"]["task loss"]
    assert loss == pytest.approx(chosen.task.measure(chosen.model)["test_loss"])
    first = workbench("modularity", finished.path, "--step", "0", "--shuffles", "2")
    assert first.returncode == 0 and first.stdout != done.stdout
    absent = workbench("modularity", finished.path, "--step", "7")
    assert absent.returncode == 2 and "there are 0, 15, 30" in absent.stderr


def test_a_bare_perceptron_is_measured_without_a_loss(workbench, tmp_path):
    save_mlp(MLP(MLPConfig(widths=(3, 5, 2))), tmp_path / "bare")
    done = workbench("modularity", tmp_path / "bare", "--shuffles", "2")
    assert done.returncode == 0, done.stderr
    assert "no loss, and so no pruning" in done.stdout and "Newman Q" in done.stdout
    refused = workbench("modularity", tmp_path / "bare", "--tolerance", "0.1")
    assert refused.returncode == 2 and "cannot be pruned" in refused.stderr


def test_an_experiments_folder_is_measured_by_its_own_task(finished, tmp_path):
    for name in ("config.json", "model.safetensors"):
        shutil.copy(finished.path / name, tmp_path)
    record = {"recipe": "bimt-independence", "variant": "l1", "seed": 0, "steps": 30}
    (tmp_path / "run.json").write_text(json.dumps(record))
    found, expected = subject(str(tmp_path)), subject(str(finished.path))
    assert found.loss() == expected.loss()
    assert found.data == "independence"


def test_a_transformer_is_measured_whatever_is_known_of_it(tmp_path, build):
    letters = build(order="s", d_model=8, n_heads=2, n_ctx=8)
    save_checkpoint(letters, tmp_path / "t")
    chosen = subject(str(tmp_path / "t"))
    found = measured(chosen, shuffles=2)
    assert found["task loss"].value == pytest.approx(chosen.loss())
    assert found.pruning is not None
    assert found.pruning.tolerance == pytest.approx(0.01 * frequency_loss(chosen.examples))


def test_a_model_of_another_kind_is_refused(monkeypatch):
    monkeypatch.setattr("workbench.models.load", lambda name, step=None: object())
    with pytest.raises(UnsupportedError, match="trained here only"):
        subject("gpt2")


def test_the_frequency_loss_is_the_entropy_of_the_answers():
    targets = torch.tensor([[-100, 1, 1, 2, 2]])
    assert frequency_loss(Batch(targets, targets)) == pytest.approx(float(torch.tensor(2.0).log()))


def test_help_loads_nothing_heavy(workbench):
    shown = workbench("train", "--help")
    assert "--plan" in shown.stdout and "--recipe" in shown.stdout
