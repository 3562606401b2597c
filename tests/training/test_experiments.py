"""Experiments in modular training: the published settings, five variants, folders that can be gone on with."""

import json
import math
import subprocess
import sys
from dataclasses import replace
from functools import partial

import pytest
import torch
from idx_files import write_digits

from workbench.errors import ConfigError, UnknownModelError
from workbench.models.transformer import Transformer
from workbench.results import read_table
from workbench.training.experiment_runs import (
    make_config,
    make_model,
    make_shaping,
    make_task,
    train,
)
from workbench.training.experiments import PREFIX, VARIANTS, Request, experiment, experiment_names
from workbench.training.layouts import line_layout
from workbench.training.loop import fit, read_metrics
from workbench.training.mlp import load_mlp
from workbench.training.regularizers.wiring import mean_wire_length, wiring_length
from workbench.training.reports import REPORT_FILE, layout_of, load_network
from workbench.training.state import STATE_FILE
from workbench.training.tasks import InContextRegression
from workbench.training.wires import groups

NAMES = experiment_names()
SHORT = Request(name="bimt-independence", steps=40)


@pytest.fixture(scope="module", autouse=True)
def few_shuffles():
    """The null is another module's affair, and costs seconds."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("workbench.training.reports.N_SHUFFLES", 2)
        yield


def shaping(request):
    return make_shaping(request, line_layout(make_model(request)))


def test_names_are_known_without_loading_torch():
    code = (
        "import sys; from workbench.training.experiments import experiment_names; "
        "assert 'bimt-s4' in experiment_names(); assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize("name", NAMES)
def test_every_network_fits_its_data(name):
    assert name.startswith(PREFIX)
    assert experiment(name).summary.endswith(".")
    request = Request(name=name)
    measured = make_task(request.experiment).measure(make_model(request))
    assert all(math.isfinite(value) for value in measured.values())
    config = make_config(request)
    # The published rate is constant, from the first step to the last.
    assert {config.rate(step) for step in range(0, config.steps, 97)} == {1.0}
    assert config.rate(config.steps - 1) == 1.0
    assert config.clip is None and config.muon_lr is None and config.weight_decay == 0


@pytest.mark.parametrize("name", NAMES)
def test_variants_have_the_parts_that_their_names_say(name):
    for variant in VARIANTS:
        found = shaping(Request(name=name, variant=variant))
        assert bool(found.penalties) == (variant != "none")
        assert (found.swaps is not None) == (variant in ("swap", "bimt"))
        for penalty in found.penalties.values():
            assert (penalty.per_distance > 0) == (variant in ("local", "bimt"))
            # Without a gap, wires between units that face each other would be free.
            assert penalty.gap > 0


@pytest.mark.parametrize("steps", [100, 20_000])
def test_strengths_jump_at_the_published_shares(steps):
    found = shaping(Request(name="bimt-independence", steps=steps)).penalties["wiring"]
    at = [found.now(found.strength, step) for step in (0, steps // 4, steps * 3 // 4, steps - 1)]
    assert at == [1e-3, 1e-2, 1e-3, 1e-3]
    assert found.now(found.strength, steps // 4 - 1) == 1e-3
    bias = [found.now(found.bias, step) for step in (0, steps * 3 // 4 - 1, steps * 3 // 4)]
    assert bias == [0, 0, 1]


def test_images_stand_on_squares_whose_digits_are_a_ring_and_inputs_stay():
    request = Request(name="bimt-digits")
    model = make_model(request)
    places = layout_of(request.experiment, model).places
    assert {name: len(where) for name, where in places.items()} == groups(model)
    assert {where.shape[1] for where in places.values()} == {2}
    assert torch.allclose((places["outputs"] - 0.5).norm(dim=1), torch.tensor(0.25).double())
    found = make_shaping(request, layout_of(request.experiment, model))
    assert found.swaps.fixed == ("inputs",) and not found.penalties["wiring"].last_distance


def test_mnist_asks_for_its_files():
    assert "bimt-mnist" not in NAMES and "bimt-mnist" in experiment_names(from_files=True)
    with pytest.raises(ConfigError, match="give the folder"):
        make_task(experiment("bimt-mnist"))
    with pytest.raises(ConfigError, match="reads no files"):
        Request(name="bimt-s4", folder="somewhere")
    assert "folder" not in Request(name="bimt-mnist", folder="somewhere").record()


def test_mnist_files_fit_the_published_network(tmp_path):
    request = Request(name="bimt-mnist", folder=str(write_digits(tmp_path)))
    model, task = make_model(request), make_task(request.experiment, request.folder)
    config = replace(make_config(request), steps=2, validate_every=2)
    shaping = make_shaping(request, layout_of(request.experiment, model))
    assert fit(model, task, config, tmp_path / "out", penalties=shaping)
    assert read_metrics(tmp_path / "out")[-1]["step"] == 2


def test_a_transformer_is_trained_and_measured_like_the_rest(tmp_path, monkeypatch):
    few = partial(InContextRegression, n_sequences=100)
    monkeypatch.setattr("workbench.training.experiment_runs.InContextRegression", few)
    request = Request(name="bimt-in-context", steps=3)
    report = train(request, tmp_path)
    assert isinstance(load_network(tmp_path), Transformer)
    assert next(make_model(request).parameters()).dtype == torch.float64
    values = set(report.table()["measure"])
    assert {"task loss", "test_R2", "test_R2, pruned", "Newman Q, pruned", "live wires"} <= values


def test_pruning_stays_within_the_stated_loss(finished):
    report = finished[1]
    pruning, task = report.modularity.pruning, make_task(SHORT.experiment)
    assert pruning.tolerance == pytest.approx(0.01 * float(task.train.targets.var(0, False).mean()))
    assert pruning.loss <= pruning.base_loss + pruning.tolerance
    assert report.pruned["train_loss"] == pytest.approx(pruning.loss)


def test_the_moons_strength_jumps_at_step_5000():
    found = shaping(Request(name="bimt-two-moons")).penalties["wiring"]
    assert [found.now(found.strength, step) for step in (4999, 5000)] == [1e-3, 1e-2]


def test_another_seed_changes_the_weights_and_not_the_data():
    first, second = Request(name="bimt-s4"), Request(name="bimt-s4", seed=7)
    assert first.record()["seed"] == 1 and second.record()["seed"] == 7
    assert not torch.equal(make_model(first).layers[0].W, make_model(second).layers[0].W)
    assert torch.equal(
        make_task(first.experiment).train.inputs, make_task(second.experiment).train.inputs
    )


@pytest.mark.parametrize(
    ("given", "error", "message"),
    [
        ({"name": "bimt-nonsense"}, UnknownModelError, "there are bimt-independence"),
        (
            {"name": "bimt-s4", "variant": "l2"},
            ConfigError,
            "there are none, l1, local, swap, bimt",
        ),
        ({"name": "bimt-s4", "steps": 0}, ConfigError, "steps"),
        ({"name": "bimt-s4", "seed": -1}, ConfigError, "seed"),
    ],
)
def test_what_cannot_be_meant_is_refused(given, error, message):
    with pytest.raises(error, match=message):
        Request(**given)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    out = tmp_path_factory.mktemp("experiments") / "run"
    return out, train(SHORT, out)


def test_a_report_holds_loss_wiring_and_modularity_together(finished):
    out, report = finished
    table, made_by = read_table(out / REPORT_FILE)
    values = dict(zip(table["measure"], table["value"], strict=True))
    model = load_mlp(out)
    layout = line_layout(model)
    task = make_task(SHORT.experiment)
    assert values["task loss"] == pytest.approx(task.measure(model)["test_loss"])
    assert values["wiring length"] == pytest.approx(wiring_length(model, layout))
    assert values["mean wire length"] == pytest.approx(mean_wire_length(model, layout))
    assert {"Newman Q", "normalised cut", "cross-talk", "test_R2"} <= set(values)
    assert SHORT.record().items() <= made_by.items()
    assert list(report.table()["measure"]) == list(table["measure"])


def test_a_finished_folder_is_measured_again_and_left_as_it_is(finished):
    out, report = finished
    before = (out / "model.safetensors").stat().st_mtime_ns
    again = train(SHORT, out)
    assert again.measured == report.measured
    assert again.seconds == report.seconds
    assert (out / "model.safetensors").stat().st_mtime_ns == before


@pytest.mark.parametrize(
    "other",
    [
        Request(name="bimt-independence", variant="l1", steps=40),
        Request(name="bimt-independence", steps=41),
        Request(name="bimt-independence", steps=40, seed=3),
        Request(name="bimt-feature-sharing", steps=40),
    ],
)
def test_a_folder_does_not_pass_for_another_run(finished, other):
    with pytest.raises(ConfigError, match="choose another folder"):
        train(other, finished[0])


def test_a_model_of_unknown_origin_is_left_alone(finished, tmp_path):
    (tmp_path / "model.safetensors").write_bytes((finished[0] / "model.safetensors").read_bytes())
    with pytest.raises(ConfigError, match="without a record"):
        train(SHORT, tmp_path)


@pytest.mark.parametrize("name", ["bimt-independence", "bimt-modular-addition"])
def test_a_stopped_experiment_ends_like_an_uninterrupted_one(tmp_path, name):
    """In float32, long enough for a round of swaps after the stop; and in float64."""
    request = Request(name=name, steps=204 if name == "bimt-independence" else 20)
    assert train(request, tmp_path / "whole") is not None
    assert train(request, tmp_path / "cut", progress=lambda seen: seen.step < 10) is None
    assert (tmp_path / "cut" / STATE_FILE).is_file()
    threads = torch.get_num_threads()
    assert train(request, tmp_path / "cut") is not None
    assert torch.get_num_threads() == threads
    whole, cut = (load_mlp(tmp_path / part).state_dict() for part in ("whole", "cut"))
    assert all(torch.equal(whole[name], cut[name]) for name in whole)
    if name == "bimt-independence":
        unswapped = Request(name=name, variant="local", steps=request.steps)
        train(unswapped, tmp_path / "local")
        assert not torch.equal(load_mlp(tmp_path / "local").layers[0].W, whole["layers.0.W"])


# --- The command -------------------------------------------------------------------------------------


def test_the_command_trains_and_prints_all_three(workbench, tmp_path):
    words = (
        "train",
        "bimt-two-moons",
        "--variant",
        "l1",
        "--max-steps",
        "8",
        "--out",
        tmp_path / "x",
    )
    done = workbench(*words)
    assert done.returncode == 0, done.stderr
    assert "step 8/8" in done.stdout
    for measure in ("task loss", "wiring length", "Newman Q", "test_accuracy"):
        assert measure in done.stdout
    assert json.loads((tmp_path / "x/run.json").read_text())["variant"] == "l1"


def test_ctrl_c_says_where_the_same_command_goes_on(workbench, tmp_path, monkeypatch):
    words = ("train", "bimt-independence", "--max-steps", "80", "--out", tmp_path / "x")

    def interrupt(line):
        if line.step == 10:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("app.training._echo", interrupt)
        done = workbench(*words)
    assert done.returncode == 130
    assert "goes on after step 8" in done.stderr
    done = workbench(*words)
    assert done.returncode == 0, done.stderr
    assert [line["step"] for line in read_metrics(tmp_path / "x")] == [1, *range(2, 81, 2)]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("bimt-nonsense",), "no experiment 'bimt-nonsense'"),
        (("bimt-s4", "--variant", "l2"), "no variant 'l2'"),
        (("induction-2l", "--variant", "l1"), "has no variants"),
        (("bimt-s4", "--seed", "-1"), "seed must be"),
    ],
)
def test_a_mistake_is_one_clear_line_and_exit_code_two(workbench, words, message):
    done = workbench("train", *words)
    assert done.returncode == 2
    assert message in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
