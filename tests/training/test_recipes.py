"""Recipes: known by name without loading torch, and trained by one call that can be repeated."""

import json
import subprocess
import sys

import pytest

from workbench.errors import ConfigError, UnknownModelError
from workbench.models.checkpoints import load_checkpoint
from workbench.training.recipes import recipe, recipe_names, train


def test_names_are_known_without_loading_torch():
    code = (
        "import sys; from workbench.training.recipes import recipe_names; "
        "assert 'attn-2l' in recipe_names(); assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_an_unknown_recipe_is_refused():
    with pytest.raises(UnknownModelError, match=r"no recipe 'attn-3l'.*attn-2l"):
        recipe("attn-3l")


@pytest.mark.parametrize("name", recipe_names())
def test_every_recipe_describes_itself(name):
    known = recipe(name)
    assert 3 <= len(known.example_prompts) <= 4
    assert known.summary.endswith(".")
    assert known.data_note
    assert known.licence


SHORT = {"max_steps": 3, "seed": 5}


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    seen = []
    out = tmp_path_factory.mktemp("recipes") / "run"
    assert train("induction-2l", out, **SHORT, progress=seen.append) == out
    assert [progress.step for progress in seen] == [3]
    return out


def stamps(folder):
    return {path.name: path.stat().st_mtime_ns for path in folder.iterdir()}


def test_a_short_run_ends_with_a_measured_card(finished):
    assert load_checkpoint(finished).cfg.n_layers == 2
    assert (finished / "card.json").is_file()
    before = stamps(finished)
    assert train("induction-2l", finished, **SHORT) == finished
    assert stamps(finished) == before
    with pytest.raises(ConfigError, match="already holds a run"):
        train("induction-2l", finished, **SHORT, resume=False)


@pytest.mark.parametrize(
    ("name", "wanted", "differs"),
    [
        ("modular-addition", SHORT, "recipe 'modular-addition', seed 5, steps 3"),
        ("induction-2l", {"max_steps": 3}, "seed 0, steps 3"),
        ("induction-2l", {"max_steps": 4, "seed": 5}, "seed 5, steps 4"),
        ("induction-2l", {}, "seed 0, steps 1500"),
    ],
)
def test_a_finished_folder_does_not_pass_for_another_model(finished, name, wanted, differs):
    before = stamps(finished)
    with pytest.raises(ConfigError, match="finished model of recipe 'induction-2l'") as error:
        train(name, finished, **wanted)
    assert differs in str(error.value)
    assert "choose another folder (--out)" in str(error.value)
    assert stamps(finished) == before


def test_a_run_killed_before_its_card_is_finished_by_the_next_call(finished, tmp_path, monkeypatch):
    def killed(*args):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("workbench.training.folders.finish", killed)
        with pytest.raises(KeyboardInterrupt):
            train("induction-2l", tmp_path, **SHORT)
    assert (tmp_path / "model.safetensors").is_file()
    assert not (tmp_path / "card.json").exists()
    with pytest.raises(ConfigError, match="holds a run of recipe 'induction-2l', seed 5"):
        train("induction-2l", tmp_path, max_steps=3, seed=6)
    train("induction-2l", tmp_path, **SHORT)
    found, whole = (
        json.loads((folder / "card.json").read_text()) for folder in (tmp_path, finished)
    )
    assert (found["metrics"], found["heads"]) == (whole["metrics"], whole["heads"])
    weights = [(folder / "model.safetensors").read_bytes() for folder in (tmp_path, finished)]
    assert weights[0] == weights[1]


def test_a_run_killed_while_its_weights_were_saved_is_trained_again(finished, tmp_path):
    for name in ("run.json", "model.safetensors"):
        (tmp_path / name).write_bytes((finished / name).read_bytes())
    train("induction-2l", tmp_path, **SHORT)
    assert (tmp_path / "card.json").is_file()
    assert (tmp_path / "model.safetensors").read_bytes() == (
        finished / "model.safetensors"
    ).read_bytes()


def test_a_stopped_run_goes_on_only_as_what_it_was(tmp_path):
    train("modular-addition", tmp_path, max_steps=60, progress=lambda seen: False)
    with pytest.raises(ConfigError, match="holds a run of recipe 'modular-addition'"):
        train("modular-addition", tmp_path, max_steps=61)
    assert not (tmp_path / "model.safetensors").exists()


def test_weights_of_unknown_origin_are_left_alone(finished, tmp_path):
    for name in ("config.json", "model.safetensors"):
        (tmp_path / name).write_bytes((finished / name).read_bytes())
    before = stamps(tmp_path)
    with pytest.raises(ConfigError, match="without a record of the recipe"):
        train("induction-2l", tmp_path, **SHORT)
    assert stamps(tmp_path) == before
