"""The MLP is the plain matrix products; who stands where changes nothing; its files are read with distrust."""

import json

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch.testing import assert_close

from workbench.errors import CheckpointError, ConfigError, PromptError
from workbench.training.mlp import MLP, MLPConfig, load_mlp, save_mlp

SHAPES = {
    "numbers": MLPConfig(widths=(4, 7, 5, 2), seed=3),
    "one layer": MLPConfig(widths=(3, 2), bias=False),
    "tokens": MLPConfig(widths=(12, 6, 9), embedding=11, in_fold=2, activation="relu"),
    "folded numbers": MLPConfig(widths=(6, 5, 3), in_fold=3, activation="tanh"),
}


def inputs(model, n=5, seed=0):
    generator = torch.Generator().manual_seed(seed)
    if model.cfg.embedding:
        shape = (n, model.cfg.in_fold)
        return torch.randint(0, model.cfg.embedding, shape, generator=generator)
    dtype = next(model.parameters()).dtype
    return torch.randn(n, model.cfg.widths[0], generator=generator, dtype=dtype)


def test_it_is_the_products_written_out():
    model = MLP(SHAPES["numbers"]).double()
    x = inputs(model)
    first, second, third = model.layers
    silu = torch.nn.functional.silu
    expected = silu(silu(x @ first.W + first.b) @ second.W + second.b) @ third.W + third.b
    assert_close(model(x), expected)
    found = model.activations(x)
    assert list(found) == ["inputs", "hidden 0", "hidden 1", "outputs"]
    assert_close(found["hidden 0"], silu(x @ first.W + first.b))


def test_embedded_tokens_are_read_side_by_side():
    model = MLP(SHAPES["tokens"])
    x = inputs(model)
    side_by_side = torch.cat([model.embed.W_E[x[:, 0]], model.embed.W_E[x[:, 1]]], dim=1)
    assert_close(model.activations(x)["inputs"], side_by_side)


@pytest.mark.parametrize("name", SHAPES)
def test_inputs_and_outputs_may_stand_anywhere(name):
    model = MLP(SHAPES[name]).double()
    x = inputs(model)
    before = model(x)
    generator = torch.Generator().manual_seed(1)
    places = torch.randperm(model.cfg.d_fold, generator=generator)
    ends = torch.randperm(model.cfg.widths[-1], generator=generator)
    first, last = model.layers[0], model.layers[-1]
    with torch.no_grad():
        rows = first.W.unflatten(0, (model.cfg.in_fold, -1))
        first.W.copy_(rows[:, places].flatten(0, 1))
        model.in_perm.copy_(model.in_perm[places])
        last.W.copy_(last.W[:, ends])
        model.out_perm.copy_(model.out_perm[ends])
        if last.b is not None:
            last.b.copy_(last.b[ends])
    assert_close(model(x), before, atol=1e-12, rtol=0)
    assert_close(model.activations(x)["outputs"], before[:, model.out_perm], atol=1e-12, rtol=0)


def test_the_seed_alone_draws_the_weights():
    torch.manual_seed(5)
    one, state = MLP(SHAPES["tokens"]), torch.random.get_rng_state()
    torch.manual_seed(6)
    other = MLP(SHAPES["tokens"])
    assert_close(one.state_dict(), other.state_dict())
    torch.manual_seed(5)
    assert torch.equal(torch.random.get_rng_state(), state)
    assert not torch.equal(one.layers[0].W, MLP(MLPConfig(widths=(12, 6, 9), seed=1)).layers[0].W)


@pytest.mark.parametrize("name", SHAPES)
def test_places_are_no_parameters_and_the_count_is_right(name):
    model = MLP(SHAPES[name])
    assert not any("perm" in key for key, _ in model.named_parameters())
    assert sum(p.numel() for p in model.parameters()) == model.cfg.n_params
    assert model.in_perm.dtype == torch.int64


@pytest.mark.parametrize("name", SHAPES)
def test_saving_and_loading_gives_the_same_model(name, tmp_path):
    model = MLP(SHAPES[name]).double()
    model.in_perm.copy_(model.in_perm.flip(0))
    loaded = load_mlp(save_mlp(model, tmp_path))
    assert loaded.cfg == model.cfg and loaded.layers[0].W.requires_grad
    assert torch.equal(loaded(inputs(model)), model(inputs(model)))
    assert MLPConfig.from_dict(json.loads(model.cfg.to_json())) == model.cfg


def _break(folder, name, tensor):
    state = load_file(folder / "model.safetensors")
    if tensor is None:
        del state[name]
    else:
        state[name] = tensor
    save_file(state, folder / "model.safetensors")


@pytest.mark.parametrize(
    ("name", "tensor", "said"),
    [
        ("in_perm", torch.tensor([0, 1, 2, 2]), "no permutation"),
        ("in_perm", torch.tensor([0, 1, 2, -1]), "no permutation"),
        ("in_perm", torch.arange(4.0), "no permutation|mixes"),
        ("layers.0.W", torch.full((4, 7), torch.nan), "not finite"),
        ("layers.0.W", torch.zeros(4, 8), r"asks for \[4, 7\]"),
        ("layers.0.W", torch.zeros(4, 7).double(), "mixes precisions"),
        ("layers.0.b", None, "lacks layers.0.b"),
        ("extra", torch.zeros(1), "unexpected extra"),
    ],
)
def test_a_state_that_is_not_the_configs_is_refused(tmp_path, name, tensor, said):
    save_mlp(MLP(SHAPES["numbers"]), tmp_path)
    _break(tmp_path, name, tensor)
    with pytest.raises(CheckpointError, match=said):
        load_mlp(tmp_path)


def test_a_broken_folder_is_refused(tmp_path):
    save_mlp(MLP(SHAPES["numbers"]), tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    for wrong, said in (
        ({"format": "other"}, "format"),
        ({"activation": "elu"}, "silu, relu, tanh, gelu"),
        ({"depth": 3}, "unknown config fields: depth"),
    ):
        (tmp_path / "config.json").write_text(json.dumps(config | wrong))
        with pytest.raises(CheckpointError, match=said):
            load_mlp(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps(config))
    (tmp_path / "model.safetensors").write_bytes(b"no tensors")
    with pytest.raises(CheckpointError, match="not a whole safetensors"):
        load_mlp(tmp_path)


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"widths": (4,)}, "2 to 65 numbers"),
        ({"widths": [4, 2]}, "must be a tuple"),
        ({"widths": (4, 0)}, "every one of widths"),
        ({"widths": (4, True)}, "every one of widths"),
        ({"widths": (4, 2), "activation": "elu"}, "silu, relu, tanh, gelu"),
        ({"widths": (4, 2), "bias": 1}, "true or false"),
        ({"widths": (4, 2), "seed": -1}, "seed"),
        ({"widths": (4, 2), "embedding": 0}, "embedding"),
        ({"widths": (4, 2), "in_fold": 3}, "does not divide"),
        ({"widths": (100_000, 100_000)}, "the limit is"),
    ],
)
def test_a_value_that_cannot_be_meant_is_refused(wrong, said):
    with pytest.raises(ConfigError, match=said):
        MLPConfig(**wrong)


def test_an_input_that_cannot_be_read_is_refused():
    with pytest.raises(PromptError, match="reads 4 inputs, not 3"):
        MLP(SHAPES["numbers"])(torch.zeros(1, 3))
    with pytest.raises(PromptError, match="token ids"):
        MLP(SHAPES["tokens"])(torch.zeros(1, 2))
    with pytest.raises(PromptError, match="floats"):
        MLP(SHAPES["numbers"])(torch.zeros(1, 4, dtype=torch.int64))
