"""Wires are the parameters themselves: all of them, each once, with gradients, and back again."""

import pytest
import torch
from torch.testing import assert_close

from tests.test_weights import OWN
from workbench.errors import SiteError
from workbench.training.mlp import MLP, MLPConfig
from workbench.training.wires import as_parameter, biases, groups, wires

NETS = {
    "mlp": MLPConfig(widths=(4, 7, 5, 2)),
    "mlp of tokens": MLPConfig(widths=(12, 6, 9), embedding=11, in_fold=2),
}


def network(build, name):
    return MLP(NETS[name]) if name in NETS else build(**OWN[name])


def test_an_mlp_is_a_chain(build):
    model = network(build, "mlp")
    assert [(block.name, block.source, block.target) for block in wires(model)] == [
        ("layers.0.W", "inputs", "hidden 0"),
        ("layers.1.W", "hidden 0", "hidden 1"),
        ("layers.2.W", "hidden 1", "outputs"),
    ]
    assert groups(model) == {"inputs": 4, "hidden 0": 7, "hidden 1": 5, "outputs": 2}
    assert list(biases(model)) == ["layers.0.b", "layers.1.b", "layers.2.b"]


def test_a_transformer_reads_and_writes_one_stream(build):
    model = network(build, "RMS, rotary, grouped, gated")
    found = {block.name: (block.source, block.target) for block in wires(model)}
    assert found["blocks.1.attn.W_K"] == ("stream", "blocks.1.qk")
    assert found["blocks.1.attn.W_O"] == ("blocks.1.vo", "stream")
    assert found["blocks.0.mlp.W_gate"] == ("stream", "blocks.0.mlp")
    assert found["unembed.W_U"] == ("stream", "logits")
    assert groups(model)["stream"] == 32 and groups(model)["blocks.0.qk"] == 32


def test_the_matrix_is_the_one_that_the_head_multiplies_by(build):
    model = network(build, "unequal heads")
    attn = model.blocks[0].attn
    by_name = {block.name: block.weight for block in wires(model)}
    assert groups(model)["blocks.0.vo"] == 4 + 8 + 20
    assert_close(by_name["blocks.0.attn.W_V"][:, 4:12], attn.W_V[1, :, :8])
    assert_close(by_name["blocks.0.attn.W_O"][12:], attn.W_O[2])


def test_shared_keys_are_wired_to_every_head_that_they_serve(build):
    model = network(build, "RMS, rotary, grouped, gated")
    attn = model.blocks[0].attn
    block = next(block for block in wires(model) if block.name == "blocks.0.attn.W_K")
    assert block.copies == 2
    for head in range(4):
        assert_close(block.weight[:, 8 * head : 8 * head + 8], attn.W_K[head // 2])


@pytest.mark.parametrize("name", [*OWN, *NETS])
def test_every_weight_stands_in_the_wires_as_often_as_they_say(build, name):
    """The gradient of the sum of all wires is the number of copies; 0 only for biases, gains and padding."""
    model = network(build, name)
    copies = {block.name: block.copies for block in wires(model)}
    sum(block.weight.sum() for block in wires(model)).backward()
    for key, parameter in model.named_parameters():
        if key in copies:
            assert set(parameter.grad.unique().tolist()) <= {0.0, float(copies[key])}
            real = parameter.grad != 0
            assert real.all() or (name == "unequal heads" and not parameter[~real].any())
        else:
            assert parameter.grad is None and (key in biases(model) or ".ln" in f".{key}")


@pytest.mark.parametrize("name", [*OWN, *NETS])
def test_a_matrix_over_wires_goes_back_into_the_parameter(build, name):
    model = network(build, name)
    if isinstance(model, MLP):
        model.in_perm.copy_(model.in_perm.roll(2))
    parameters = dict(model.named_parameters())
    for block in wires(model):
        assert_close(as_parameter(model, block.name, block.weight), parameters[block.name])


def test_wires_that_do_not_exist_are_refused(build):
    model = network(build, "tied")
    assert "unembed.W_U" not in {block.name for block in wires(model)}
    with pytest.raises(SiteError, match=r"no wires 'unembed\.W_U'; it has blocks"):
        as_parameter(model, "unembed.W_U", torch.zeros(32, 18))
