"""Muon: the published update, head by head; and a schedule that rises, holds and falls."""

import pytest
import torch
from torch.testing import assert_close

from workbench.errors import ConfigError
from workbench.models.config import TransformerConfig
from workbench.models.transformer import Transformer
from workbench.training.config import TrainingConfig
from workbench.training.optimizers import Muon, optimizers_for, orthogonalised


def _random(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def test_singular_values_are_driven_to_about_one():
    values = torch.linalg.svdvals(orthogonalised(_random(3, 16, 64)))
    assert values.min() > 0.6
    assert values.max() < 1.3


def test_singular_directions_are_kept():
    matrix = _random(1, 8, 32)
    left, _, right = torch.linalg.svd(matrix, full_matrices=False)
    inner = left.mT @ orthogonalised(matrix) @ right.mT
    assert (inner - torch.diag_embed(inner.diagonal(dim1=1, dim2=2))).abs().max() < 1e-4


@pytest.mark.parametrize("shape", [(24, 24), (16, 48), (48, 16)])
def test_a_single_matrix_moves_as_in_torch(shape):
    ours, theirs = (torch.nn.Parameter(_random(*shape, seed=1)) for _ in range(2))
    gain = max(1.0, shape[1] / shape[0]) ** 0.5
    # torch reads a matrix as [out in], ours is [in out]: its own factor is that of the transpose.
    peer = torch.optim.Muon(
        [theirs], lr=0.1 * gain / max(1.0, shape[0] / shape[1]) ** 0.5, weight_decay=0.0
    )
    muon = Muon([ours], lr=0.1)
    for step in range(3):
        ours.grad = theirs.grad = _random(*shape, seed=2 + step)
        muon.step()
        peer.step()
    # torch iterates in bfloat16.
    assert_close(ours, theirs, rtol=0, atol=0.012)


def test_a_stack_of_heads_moves_head_by_head():
    stack = torch.nn.Parameter(_random(3, 24, 8))
    alone = [torch.nn.Parameter(stack[head : head + 1].detach().clone()) for head in range(3)]
    gradient = _random(3, 24, 8, seed=1)
    stack.grad = gradient
    for head, weight in enumerate(alone):
        weight.grad = gradient[head : head + 1]
    Muon([stack], lr=0.1).step()
    Muon(alone, lr=0.1).step()
    assert_close(stack, torch.cat(alone))


def test_every_parameter_has_one_optimiser():
    cfg = TransformerConfig(
        order="sfs", d_model=8, n_heads=2, d_vocab=11, n_ctx=6, norm="LN", attn_bias=True, mlp="glu"
    )
    model = Transformer(cfg)
    optimizers = optimizers_for(model, TrainingConfig(steps=1))
    held = [p for o in optimizers.values() for group in o.param_groups for p in group["params"]]
    assert len(held) == len(set(held))
    assert set(held) == set(model.parameters())
    muon = {p for group in optimizers["muon"].param_groups for p in group["params"]}
    assert muon == {p for n, p in model.named_parameters() if ".attn.W" in n or ".mlp.W" in n}


def test_the_rate_rises_holds_and_falls_to_zero():
    config = TrainingConfig(steps=100, warmup=0.1, decay=0.3)
    rates = [config.rate(step) for step in range(100)]
    assert rates[0] == pytest.approx(0.1)
    assert rates[9:71] == [1.0] * 62
    assert rates[99] == pytest.approx(1 / 30)
    assert config.rate(100) == 0
    assert rates[:10] == sorted(rates[:10])
    assert rates[70:] == sorted(rates[70:], reverse=True)


@pytest.mark.parametrize(
    "wrong",
    [
        {"steps": 0},
        {"steps": 10, "lr": float("nan")},
        {"steps": 10, "warmup": 0.8, "decay": 0.3},
        {"steps": 10, "keep": (11,)},
        {"steps": 10, "clip": 0.0},
        {"steps": 10, "seed": -1},
        {"steps": 10, "betas": (0.9, 1.0)},
    ],
)
def test_a_value_that_cannot_be_meant_is_refused(wrong):
    with pytest.raises(ConfigError):
        TrainingConfig(**wrong)
