"""Recipes: known by name without loading torch, and trained by one call that can be repeated."""

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


def test_a_short_run_ends_with_a_measured_card(tmp_path):
    seen = []
    out = train("induction-2l", tmp_path / "run", max_steps=3, seed=5, progress=seen.append)
    assert [progress.step for progress in seen] == [3]
    assert load_checkpoint(out).cfg.n_layers == 2
    assert (out / "card.json").is_file()
    stamp = (out / "model.safetensors").stat().st_mtime_ns
    train("induction-2l", out)
    assert (out / "model.safetensors").stat().st_mtime_ns == stamp
    with pytest.raises(ConfigError, match="already holds a run"):
        train("induction-2l", out, resume=False)
