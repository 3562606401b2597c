"""Every regularizer: its gradient by finite differences, its scale and invariances, planted cases, refusals."""

import functools

import pytest
import torch
from torch.testing import assert_close

from tests.test_weights import OWN, randomised
from workbench.errors import ConfigError, UnsupportedError
from workbench.models.config import TransformerConfig
from workbench.models.transformer import Transformer
from workbench.training.config import TrainingConfig
from workbench.training.layouts import line_layout
from workbench.training.loop import fit
from workbench.training.mlp import MLP, MLPConfig
from workbench.training.regularizers.clusterability import (
    Clusterability,
    even_blocks,
    share_inside,
    spectral_clusters,
)
from workbench.training.regularizers.decay import WeightDecay, distance_rates
from workbench.training.regularizers.decorrelation import HeadDecorrelation, head_likeness
from workbench.training.regularizers.exchange import movable, permute
from workbench.training.regularizers.group_lasso import HeadLasso, UnitLasso
from workbench.training.regularizers.l1 import L1
from workbench.training.regularizers.ordering import ChannelCost, NestedDropout, first_channels
from workbench.training.regularizers.strength import Piecewise
from workbench.training.regularizers.wiring import WiringLength
from workbench.training.tasks import Repeats, mean_loss
from workbench.training.wires import as_parameter, biases, wires

NETS = {
    "mlp": MLPConfig(widths=(4, 6, 5, 3)),
    "mlp of tokens": MLPConfig(widths=(8, 6, 5), embedding=7, in_fold=2),
}
SHAPES = ("RMS, rotary, grouped, gated", "unequal heads", "LN, learned, biases")
SMALL = {"d_model": 8, "n_heads": 4, "d_mlp": 6}


def network(build, name):
    if name in NETS:
        return MLP(NETS[name]).double()
    sizes = {"d_model": 8, "head_sizes": ((2, 3, 4), (2, 2))} if name == "unequal heads" else SMALL
    return randomised(build, OWN[name] | sizes).double()


def tokens(step):
    return torch.randint(0, 18, (3, 6), generator=torch.Generator().manual_seed(step))


def task_loss(model, step):
    if isinstance(model, Transformer):
        ids = tokens(step)
        return torch.nn.functional.cross_entropy(
            model(ids)[:, :-1].flatten(0, 1), ids[:, 1:].flatten()
        )
    if model.cfg.embedding:
        return model(tokens(step)[:, : model.cfg.in_fold] % model.cfg.embedding).pow(2).mean()
    x = torch.randn(5, 4, generator=torch.Generator().manual_seed(step), dtype=torch.float64)
    return model(x).pow(2).mean()


def every(model):
    """Each regularizer that this network admits."""
    found = {
        "wiring, sum": WiringLength(strength=0.3, layout=line_layout(model)),
        "wiring, mean": WiringLength(strength=0.3, layout=line_layout(model), reduction="mean"),
        "L1": L1(strength=0.3, bias=True),
        "L1, mean": L1(strength=0.3, reduction="mean"),
        "unit lasso": UnitLasso(strength=0.3),
        "channel cost": ChannelCost(strength=0.3, power=1.5),
        "nested dropout": NestedDropout(strength=0.3, loss=task_loss),
        "decay": WeightDecay(
            strength=0.3, rates=distance_rates(model, line_layout(model)) | {"*": 0.5}
        ),
    }
    if isinstance(model, Transformer):
        found["head lasso"] = HeadLasso(strength=0.3)
        found["decorrelation"] = HeadDecorrelation(strength=0.3, tokens=tokens)
    if isinstance(model, MLP) or "f" in model.cfg.order:
        found["clusterability"] = Clusterability(strength=0.3, clusters=2)
    return found


@pytest.mark.parametrize("name", [*NETS, *SHAPES])
def test_gradients_are_those_of_finite_differences(build, name):
    """Along one random direction in all parameters at once."""
    model = network(build, name)
    generator = torch.Generator().manual_seed(5)
    parameters = list(model.parameters())
    direction = [
        torch.randn(p.shape, generator=generator, dtype=p.dtype) * (p.detach() != 0)
        for p in parameters
    ]
    h = 1e-6
    for label, penalty in every(model).items():
        gradients = torch.autograd.grad(penalty(model, 4), parameters, allow_unused=True)
        pairs = zip(gradients, direction, strict=True)
        exact = sum(float((g * d).sum()) for g, d in pairs if g is not None)
        values = []
        for shift in (h, -2 * h, h):
            with torch.no_grad():
                for parameter, d in zip(parameters, direction, strict=True):
                    parameter.add_(d, alpha=shift)
                values.append(float(penalty(model, 4)))
        slope = (values[0] - values[1]) / (2 * h)
        assert exact == pytest.approx(slope, rel=1e-5, abs=1e-8), label
        assert abs(exact) > 1e-6, label


@pytest.mark.parametrize("name", [*NETS, *SHAPES])
def test_penalties_are_strength_times_value_and_add_up(build, name):
    model = network(build, name)
    penalties = every(model)
    total = functools.reduce(torch.add, [penalty(model, 2) for penalty in penalties.values()])
    values = torch.stack([penalty.value(model, 2) for penalty in penalties.values()])
    assert_close(total, 0.3 * values.sum())
    assert (values >= 0).all()


@pytest.mark.parametrize("wrong", [-0.1, float("nan"), float("inf")])
def test_strengths_that_cannot_be_meant_are_refused(build, wrong):
    for penalty in every(network(build, "LN, learned, biases")).values():
        fields = {n: getattr(penalty, n) for n in penalty.__dataclass_fields__ if n[0] != "_"}
        with pytest.raises(ConfigError, match="strength must be a finite number"):
            type(penalty)(**fields | {"strength": wrong})


def test_the_loop_takes_them_all(tmp_path):
    task = Repeats(d_vocab=20, n_ctx=16, n_rows=4, periods=(3, 6))
    cfg = TransformerConfig(order="sf", d_model=16, n_heads=2, d_vocab=20, n_ctx=16)
    model = Transformer(cfg)
    config = TrainingConfig(steps=4, bf16=False)

    def loss(model, step):
        batch = task.batch(config.seed, step)
        return mean_loss(model(batch.tokens), batch.targets)

    late = Piecewise(((0, 0), (0.5, 0.01)))
    penalties = [
        WiringLength(strength=late, steps=4, layout=line_layout(model), reduction="mean"),
        HeadDecorrelation(strength=0.1, tokens=lambda step: task.batch(config.seed, step).tokens),
        NestedDropout(strength=1.0, loss=loss),
        Clusterability(strength=1.0),
    ]
    before = model.blocks[0].mlp.W_in.detach().clone()
    assert fit(model, task, config, tmp_path, penalties=penalties)
    assert (model.blocks[0].mlp.W_in - before).abs().max() > 1e-4


# --- L1 ----------------------------------------------------------------------------------------------


def test_l1_is_wiring_without_distances(build):
    for name in (*NETS, *SHAPES):
        model = network(build, name)
        for reduction in ("sum", "mean"):
            options = {"strength": 1.0, "reduction": reduction}
            free = WiringLength(layout=line_layout(model), per_distance=0, gap=1.0, **options)
            assert_close(L1(bias=True, **options).value(model), free.value(model))


# --- group lasso -------------------------------------------------------------------------------------


def test_the_norm_of_a_head_counts_all_its_weights(build):
    model = network(build, "unequal heads")
    expected = 0.0
    for block in model.blocks:
        for head, size in enumerate(block.attn.head_sizes):
            leaves = ("W_Q", "W_K", "W_V", "W_O")
            flat = torch.cat([getattr(block.attn, leaf)[head].flatten() for leaf in leaves])
            expected += (4 * 8 * size) ** 0.5 * float(flat.detach().norm())
    assert HeadLasso(strength=1.0).value(model).item() == pytest.approx(expected)


def test_the_norm_of_a_channel_reaches_over_every_layer(build):
    model = network(build, "LN, learned, biases")
    rows = [b.weight if b.source == "stream" else b.weight.T for b in wires(model)]
    whole = torch.cat(rows, dim=1)
    expected = whole.norm(dim=1).sum() * whole.shape[1] ** 0.5
    assert_close(UnitLasso(strength=1.0, groups=("stream",)).value(model), expected)


def test_groups_are_invariant_to_rotations_inside(build):
    model = network(build, "LN, learned, biases")
    before = HeadLasso(strength=1.0).value(model).detach()
    q, _ = torch.linalg.qr(torch.randn(2, 2, generator=torch.Generator().manual_seed(0)).double())
    with torch.no_grad():
        attn = model.blocks[0].attn
        attn.W_V.copy_(attn.W_V @ q)
        attn.W_O.copy_(q.T @ attn.W_O)
    assert_close(HeadLasso(strength=1.0).value(model).detach(), before)


def test_a_dead_group_has_no_gradient(build):
    model = network(build, "LN, learned, biases")
    with torch.no_grad():
        for leaf in ("W_Q", "W_K", "W_V", "W_O"):
            getattr(model.blocks[0].attn, leaf)[1] = 0
    HeadLasso(strength=1.0).value(model).backward()
    assert not model.blocks[0].attn.W_Q.grad[1].any()
    assert model.blocks[0].attn.W_Q.grad.isfinite().all()


def test_what_has_no_heads_is_refused(build):
    for model in (MLP(NETS["mlp"]), build(order="f")):
        with pytest.raises(UnsupportedError, match="no attention heads"):
            HeadLasso(strength=1.0).value(model)
        with pytest.raises(UnsupportedError, match="two heads"):
            HeadDecorrelation(strength=1.0, tokens=tokens).value(model)
    with pytest.raises(ConfigError, match="it has inputs, hidden 0"):
        UnitLasso(strength=1.0, groups=("stream",)).value(MLP(NETS["mlp"]))


# --- clusterability ----------------------------------------------------------------------------------


def planted(seed=0, n=12, k=3):
    """A matrix of k blocks in a random order of rows and columns, with the labels of both."""
    generator = torch.Generator().manual_seed(seed)
    source, target = (torch.arange(n)[torch.randperm(n, generator=generator)] % k for _ in range(2))
    inside = source[:, None] == target[None]
    weight = torch.randn(n, n, generator=generator).double()
    return torch.where(inside, weight + 3 * weight.sign(), 0.05 * weight), source, target


def test_blocks_have_all_or_a_kth_of_the_weight_inside():
    block = torch.block_diag(*[torch.ones(3, 4)] * 4)
    assert share_inside(block, even_blocks(12, 4), even_blocks(16, 4)).item() == 1
    assert share_inside(torch.ones(12, 16), even_blocks(12, 4), even_blocks(16, 4)).item() == 0.25
    assert even_blocks(10, 4).bincount().tolist() == [3, 2, 3, 2]


@pytest.mark.parametrize("seed", range(4))
def test_spectral_clusters_find_planted_ones(seed):
    weight, source, target = planted(seed)
    found = spectral_clusters(weight, 3)
    assert_close(share_inside(weight, *found), share_inside(weight, source, target))
    assert share_inside(weight, *found) > 0.99


def test_units_without_wires_do_no_harm():
    weight, _, _ = planted()
    weight[3], weight[:, 5] = 0, 0
    assert share_inside(weight, *spectral_clusters(weight, 3)) > 0.99


def test_clusterability_does_not_see_the_scale(build):
    model = network(build, "LN, learned, biases")
    penalty = Clusterability(strength=1.0)
    before = penalty.value(model).detach()
    with torch.no_grad():
        model.blocks[1].mlp.W_in.mul_(7)
    assert_close(penalty.value(model).detach(), before)


def test_given_labels_are_used_and_checked(build):
    model = MLP(MLPConfig(widths=(12, 12), bias=False)).double()
    weight, source, target = planted()
    with torch.no_grad():
        model.layers[0].W.copy_(weight)
    given = {"layers.0.W": (source, target)}
    assert Clusterability(strength=1.0, labels=given).value(model).item() < 0.01
    assert Clusterability(strength=1.0, clusters=3).value(model).item() > 0.3
    with pytest.raises(ConfigError, match="there are labels for 11 and 12"):
        wrong = {"layers.0.W": (source[1:], target)}
        Clusterability(strength=1.0, labels=wrong).value(model)
    with pytest.raises(ConfigError, match="from 1 up"):
        Clusterability(strength=1.0, clusters=0)
    with pytest.raises(ConfigError, match="from 1 to 12, not 13"):
        spectral_clusters(weight, 13)
    with pytest.raises(ConfigError, match="fits"):
        Clusterability(strength=1.0).value(build(order="s"))


# --- decorrelation -----------------------------------------------------------------------------------


def test_likeness_is_cka_of_the_written_outputs(build):
    model = network(build, "LN, learned, biases")
    attn = model.blocks[1].attn
    z = torch.randn(3, 5, 4, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    found = head_likeness(z, attn)
    x = torch.stack([z[:, :, h].flatten(0, 1) @ attn.W_O[h] for h in range(4)])
    x = x - x.mean(1, keepdim=True)
    for i in range(4):
        for j in range(4):
            cross = (x[i].T @ x[j]).norm() ** 2
            expected = cross / ((x[i].T @ x[i]).norm() * (x[j].T @ x[j]).norm())
            assert_close(found[i, j], expected)


def test_like_heads_are_alike_whatever_their_size(build):
    model = network(build, "LN, learned, biases")
    with torch.no_grad():
        for block in model.blocks:
            for leaf in ("W_Q", "W_K", "W_V", "W_O", "b_Q", "b_K", "b_V"):
                getattr(block.attn, leaf)[:] = getattr(block.attn, leaf)[:1].clone()
            block.attn.W_O[2] *= 3
    value = HeadDecorrelation(strength=1.0, tokens=tokens).value(model)
    assert value.item() == pytest.approx(1.0)


def test_comparing_heads_draws_nothing_from_the_runs_dropout(build):
    model = build(order="s", dropout=0.5).train()
    penalty = HeadDecorrelation(strength=1.0, tokens=tokens)
    state = torch.random.get_rng_state()
    assert torch.equal(penalty.value(model), penalty.value(model))
    assert torch.equal(torch.random.get_rng_state(), state) and model.training


# --- ordered channels --------------------------------------------------------------------------------


def test_equal_costs_are_a_plain_sum_of_squares(build):
    model = network(build, "LN, learned, biases")
    plain = torch.stack([block.weight.pow(2).sum() for block in wires(model)]).sum()
    assert_close(ChannelCost(strength=1.0, power=0).value(model), plain)


def test_large_channels_are_cheapest_in_front(build):
    model = network(build, "LN, learned, biases")
    channels = movable(model, "stream")
    sizes = torch.stack(
        [(b.weight if b.source == "stream" else b.weight.T).pow(2).sum(1) for b in wires(model)]
    ).sum(0)
    order = sizes.argsort(descending=True)
    costs = []
    for step in (order, torch.arange(8).flip(0)):
        permute(model, channels, step)
        costs.append(ChannelCost(strength=1.0, power=2).value(model).item())
    assert costs[0] < costs[1]


@pytest.mark.parametrize("name", [*OWN, "post-norm"])
def test_channels_that_are_cut_carry_nothing(build, name):
    """Wires that write or read only the channels left out may be anything."""
    post = {"order": "sf", "norm": "LN", "norm_position": "post"}
    model = randomised(build, (OWN | {"post-norm": post})[name]).double()
    ids, parameters = tokens(0), dict(model.named_parameters())
    with torch.no_grad():
        whole = model(ids)
        with first_channels(model, {"stream": 32}):
            assert_close(model(ids), whole)
        with first_channels(model, {"stream": 9}):
            before = model(ids)
            assert not torch.allclose(before, whole)
            for block in wires(model):
                matrix = block.weight.detach().clone()
                channels = matrix if block.source == "stream" else matrix.T
                channels[9:] += 1.0
                changed = as_parameter(model, block.name, matrix)
                parameters[block.name].copy_(changed)
            assert_close(model(ids), before)
    assert not any(module._forward_hooks for module in model.modules())


def test_hidden_neurons_of_an_mlp_are_cut(build):
    model = network(build, "mlp")
    x = torch.randn(5, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    with first_channels(model, {"hidden 0": 2, "hidden 1": 5}):
        found = model.activations(x)
    assert not found["hidden 0"][:, 2:].any() and found["hidden 0"][:, :2].all()
    assert model.activations(x)["hidden 0"].all()


@pytest.mark.parametrize(("rate", "mean"), [(None, 4.5), (0.0, 1.0), (0.5, 2.0)])
def test_k_is_drawn_anew_in_each_step_and_the_same_again(rate, mean):
    nested = NestedDropout(strength=1.0, loss=task_loss, rate=rate)
    drawn = [nested.kept(8, step) for step in range(2000)]
    assert drawn == [nested.kept(8, step) for step in range(2000)]
    assert min(drawn) >= 1 and max(drawn) <= 8
    # Of the geometric one, what lies beyond 8 is redistributed: 1.97 in place of 2.
    assert sum(drawn) / 2000 == pytest.approx(mean, abs=0.15)


def test_ordering_refuses_what_it_cannot_do(build):
    model = network(build, "mlp")
    with pytest.raises(ConfigError, match="rate must be"):
        NestedDropout(strength=1.0, loss=task_loss, rate=1.0)
    with pytest.raises(ConfigError, match="power must be"):
        ChannelCost(strength=1.0, power=-1)
    with (
        pytest.raises(ConfigError, match="no channels of 'outputs'"),
        first_channels(model, {"outputs": 1}),
    ):
        pass
    with (
        pytest.raises(ConfigError, match="has 6 channels; 7"),
        first_channels(model, {"hidden 0": 7}),
    ):
        pass


# --- decay -------------------------------------------------------------------------------------------


def test_under_plain_sgd_penalty_and_shrinking_agree():
    """One step from the penalty's gradient alone is the decoupled shrinking."""
    decay = WeightDecay(strength=0.2, rates={"layers.0.W": 3.0, "*.W": 0.5})
    by_penalty, by_shrinking = (MLP(NETS["mlp"]).double() for _ in range(2))
    start = by_penalty.layers[1].b.detach().clone()
    decay(by_penalty, 0).backward()
    torch.optim.SGD([p for p in by_penalty.parameters() if p.grad is not None], lr=0.1).step()
    decay.shrink(by_shrinking, 0, lr=0.1)
    assert_close(by_penalty.state_dict(), by_shrinking.state_dict())
    assert_close(by_shrinking.layers[1].b.data, start)
    scale = by_shrinking.layers[0].W / MLP(NETS["mlp"]).double().layers[0].W
    assert_close(scale, torch.full_like(scale, 1 - 0.1 * 0.2 * 3.0))


def test_rates_may_be_the_lengths_of_wires(build):
    model = network(build, "unequal heads")
    rates = distance_rates(model, line_layout(model))
    assert "embed.W_E" not in rates
    assert set(rates) < {block.name for block in wires(model)} and not set(rates) & set(
        biases(model)
    )
    mlp = MLP(NETS["mlp"])
    assert_close(
        distance_rates(mlp, line_layout(mlp))["layers.0.W"].mean(), torch.tensor(1.0).double()
    )


def test_decay_refuses_what_it_cannot_do():
    model = MLP(NETS["mlp"])
    with pytest.raises(ConfigError, match=r"the rate of '\*'"):
        WeightDecay(strength=1.0, rates={"*": -1.0})
    with pytest.raises(ConfigError, match="the rate of"):
        WeightDecay(strength=1.0, rates={"layers.0.W": torch.tensor([1.0, torch.nan])})
    with pytest.raises(ConfigError, match="no parameter of mlp fits 'W_Q'"):
        WeightDecay(strength=1.0, rates={"W_Q": 1.0}).value(model)
    with pytest.raises(ConfigError, match=r"is \[4, 6\], its rates are \[6, 4\]"):
        WeightDecay(strength=1.0, rates={"layers.0.W": torch.ones(6, 4)}).value(model)
