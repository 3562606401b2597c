"""Snapshots hold the very weights of the run; only recipes, whose models are bundled, store fewer digits."""

import dataclasses

import pytest
import torch
from safetensors import safe_open

from workbench.models.checkpoints import load_checkpoint
from workbench.models.files import step_name
from workbench.training import recipes
from workbench.training.estimate import estimate
from workbench.training.loop import fit
from workbench.training.making import made
from workbench.training.plan import Plan, TransformerShape
from workbench.training.shaping import Shaping

PLAN = Plan(
    name="r",
    task="repeats",
    network=TransformerShape(n_ctx=16, d_model=8, n_heads=2),
    steps=4,
    batch_rows=4,
    snapshots=3,
)
TINY = 1e-9
"""Below the least number of float16, 6e-8, as the weights that wiring length leaves are."""


def stored_types(path):
    with safe_open(path, framework="pt") as file:
        return {file.get_slice(name).get_dtype() for name in file.keys()}  # noqa: SIM118


def thin(model, optimizers, step, lr):
    """What a strong penalty leaves, at once."""
    with torch.no_grad():
        model.blocks[0].attn.W_V.mul_(TINY / model.blocks[0].attn.W_V.abs().max())


@pytest.mark.parametrize(("precision", "stored"), [("float32", "F32"), ("float64", "F64")])
def test_a_snapshot_has_the_weights_of_its_step_and_not_rounded_ones(tmp_path, precision, stored):
    parts = made(dataclasses.replace(PLAN, precision=precision))
    shaping = Shaping(after_step=(thin,))
    assert fit(parts.model, parts.task, parts.config, tmp_path, penalties=shaping)
    path = tmp_path / "checkpoints" / step_name(4)
    assert stored_types(path) == {stored}
    with safe_open(path, framework="pt") as file:
        for name, weight in parts.model.state_dict().items():
            assert torch.equal(file.get_tensor(name), weight), name
    snapshot = load_checkpoint(tmp_path, step=4)
    thinned = snapshot.blocks[0].attn.W_V
    assert (thinned != 0).all() and thinned.abs().max() <= 1.01 * TINY
    final = load_checkpoint(tmp_path)
    for one, other in zip(snapshot.parameters(), final.parameters(), strict=True):
        assert torch.equal(one, other)
    measured = [parts.task.measure(model)["loss"] for model in (snapshot, final)]
    assert measured[0] == measured[1]


@pytest.mark.parametrize("precision", ["float32", "float64"])
def test_the_estimate_counts_what_a_snapshot_takes(tmp_path, precision):
    plan = dataclasses.replace(PLAN, precision=precision)
    more = dataclasses.replace(plan, snapshots=5)
    each = (estimate(more).bytes_on_disk - estimate(plan).bytes_on_disk) / 2
    parts = made(plan)
    fit(parts.model, parts.task, parts.config, tmp_path, penalties=parts.shaping)
    real = (tmp_path / "checkpoints" / step_name(4)).stat().st_size
    assert 0.7 * real < each <= real


def test_a_recipe_stores_all_its_weights_as_the_bundled_models_have_them(tmp_path, monkeypatch):
    chosen = recipes.shortened(recipes.recipe("induction-2l"), None, 2)
    chosen = dataclasses.replace(chosen, training=dataclasses.replace(chosen.training, keep=(0, 2)))
    monkeypatch.setattr(recipes, "recipe", lambda name: chosen)
    monkeypatch.setattr("workbench.training.card.write_card", lambda out, chosen: None)
    recipes.train("induction-2l", tmp_path)
    files = [tmp_path / "model.safetensors", *sorted((tmp_path / "checkpoints").iterdir())]
    assert len(files) == 3
    assert all(stored_types(path) == {"F16"} for path in files)
