"""Swaps: the function stays, the wiring never grows, the assignment is the optimum, moments come along."""

import copy
import itertools

import numpy as np
import pytest
import torch
from torch.testing import assert_close

from tests.test_weights import OWN, randomised
from workbench.errors import ConfigError, UnsupportedError
from workbench.training.config import TrainingConfig
from workbench.training.layouts import grid_layout, line_layout
from workbench.training.mlp import MLP, MLPConfig
from workbench.training.optimizers import optimizers_for
from workbench.training.regularizers.exchange import immovable, movable, movables, permute
from workbench.training.regularizers.swaps import Board, Swaps, best_order, greedy_order
from workbench.training.regularizers.wiring import wiring_length
from workbench.training.wires import wires

MLPS = {
    "chain": MLPConfig(widths=(4, 9, 6, 3)),
    "no biases": MLPConfig(widths=(5, 8, 5), bias=False),
    "tokens": MLPConfig(widths=(12, 7, 9), embedding=11, in_fold=2),
    "one layer": MLPConfig(widths=(6, 4)),
}
MORE = {
    "post-norm": {"order": "sfsf", "norm": "LN", "norm_position": "post", "mlp_bias": True},
    "grouped, free positions": {"order": "s", "n_kv_heads": 2, "attn_bias": True},
    "like heads of two sizes": {"order": "s", "head_sizes": ((4, 8, 4, 8),), "attn_bias": True},
    "AdaNorm": {"order": "sf", "norm": "Ada"},
}
TRANSFORMERS = OWN | MORE
ALL = [*MLPS, *TRANSFORMERS]


def network(build, name):
    if name in MLPS:
        return MLP(MLPS[name])
    return randomised(build, TRANSFORMERS[name])


def outputs(model):
    generator = torch.Generator().manual_seed(7)
    with torch.no_grad():
        if not isinstance(model, MLP):
            return model(torch.randint(0, 18, (3, 8), generator=generator))
        if model.cfg.embedding:
            return model(torch.randint(0, 11, (6, model.cfg.in_fold), generator=generator))
        x = torch.randn(6, model.cfg.widths[0], generator=generator, dtype=torch.float64)
        return model(x.to(model.layers[0].W))


@pytest.mark.parametrize("method", ["assignment", "greedy"])
@pytest.mark.parametrize("name", ALL)
def test_the_function_stays_and_the_wiring_shortens(build, name, method):
    model = network(build, name).double()
    before, swaps = outputs(model), Swaps(layout=line_layout(model), method=method)
    done = swaps(model)
    assert_close(outputs(model), before, atol=1e-10, rtol=1e-10)
    assert done.after < done.before and abs(done.residual) < 1e-9 * done.before
    assert (done.gains >= 0).all() and ((done.gains > 0) == (done.moved > 0)).all()
    again = swaps(model)
    assert again.after <= again.before
    assert list(done.table()["group"]) == [items.name for items in movables(model)]


@pytest.mark.parametrize("name", ["tokens", "unequal heads", "RMS, rotary, grouped, gated"])
def test_in_float32_too(build, name):
    model = network(build, name)
    before = outputs(model)
    Swaps(layout=line_layout(model), reduction="mean")(model)
    scale = float(before.abs().max())
    assert_close(outputs(model), before, atol=1e-6 * max(scale, 1.0), rtol=0)


@pytest.mark.parametrize("name", ALL)
def test_any_order_of_any_items_leaves_the_function_and_the_wires_alone(build, name):
    """The graph only has its units renumbered: sorted sizes of every block stay."""
    model = network(build, name).double()
    before, sizes = outputs(model), [block.weight.flatten().sort().values for block in wires(model)]
    generator = torch.Generator().manual_seed(2)
    for items in movables(model):
        permute(model, items, torch.randperm(items.n_items, generator=generator))
        assert_close(outputs(model), before, atol=1e-10, rtol=1e-10)
    for block, size in zip(wires(model), sizes, strict=True):
        assert_close(block.weight.flatten().sort().values, size)


@pytest.mark.parametrize("name", ["chain", "tokens", "unequal heads", "grouped, free positions"])
def test_the_cost_of_a_placement_is_the_wiring_it_leads_to(build, name):
    """Slow oracle: the units are really moved, and all wires measured."""
    generator = torch.Generator().manual_seed(3)
    for reduction in ("sum", "mean"):
        model = network(build, name).double()
        swaps = Swaps(layout=line_layout(model), reduction=reduction)
        for items in movables(model):
            costs = Board(model, swaps).costs(items)
            order = torch.randperm(items.n_items, generator=generator)
            before = wiring_length(model, swaps.layout, reduction)
            permute(model, items, order)
            grown = wiring_length(model, swaps.layout, reduction) - before
            predicted = costs[order, torch.arange(items.n_items)].sum() - costs.trace()
            assert grown == pytest.approx(float(predicted), abs=1e-9 * before)


@pytest.mark.parametrize("seed", range(3))
def test_the_assignment_is_the_best_of_all_permutations(seed):
    model = MLP(MLPConfig(widths=(4, 6, 5), seed=seed)).double()
    layout = line_layout(model)
    for name in ("inputs", "hidden 0", "outputs"):
        items = movable(model, name)
        lengths = []
        for order in itertools.permutations(range(items.n_items)):
            tried = copy.deepcopy(model)
            permute(tried, items, torch.tensor(order))
            lengths.append(wiring_length(tried, layout))
        others = tuple(n for n in ("inputs", "hidden 0", "outputs") if n != name)
        done = Swaps(layout=layout, fixed=others)(model)
        assert done.after == pytest.approx(min(lengths), rel=1e-12)


@pytest.mark.parametrize("name", ALL)
def test_the_assignment_is_no_longer_than_the_greedy_placement(build, name):
    model = network(build, name).double()
    board = Board(model, Swaps(layout=line_layout(model)))
    for items in movables(model):
        costs, stays = board.costs(items), torch.arange(items.n_items)
        greedy, best = greedy_order(costs, range(items.n_items)), best_order(costs)
        lengths = [float(costs[order, stays].sum()) for order in (best, greedy, stays)]
        assert lengths[0] <= lengths[1] * (1 + 1e-12) and lengths[1] <= lengths[2] * (1 + 1e-12)


def published(model, layout, items, top_k):
    """The published loop: every swap is made, measured and taken back; the best is kept."""
    scores = Board(model, Swaps(layout=layout)).weight_of(items)
    for place in scores.argsort(descending=True)[:top_k].tolist():
        lengths = []
        for partner in range(items.n_items):
            order = torch.arange(items.n_items)
            order[[place, partner]] = order[[partner, place]]
            permute(model, items, order)
            lengths.append(wiring_length(model, layout))
            permute(model, items, order)
        order = torch.arange(items.n_items)
        partner = int(np.argmin(lengths))
        order[[place, partner]] = order[[partner, place]]
        permute(model, items, order)


@pytest.mark.parametrize("top_k", [3, None])
def test_greedy_swaps_are_the_published_ones(top_k):
    fast = MLP(MLPConfig(widths=(6, 7, 6, 4), in_fold=2, seed=1)).double()
    slow, layout = copy.deepcopy(fast), line_layout(fast)
    for items in movables(slow):
        published(slow, layout, items, top_k)
    Swaps(layout=layout, method="greedy", top_k=top_k)(fast)
    assert_close(fast.state_dict(), slow.state_dict())


def crossed(*turned):
    """Wires that run straight, or from each unit to the one that faces the far end."""
    model = MLP(MLPConfig(widths=(5,) * (len(turned) + 1), bias=False)).double()
    with torch.no_grad():
        for layer, is_turned in zip(model.layers, turned, strict=True):
            layer.W.copy_(torch.eye(5).flip(0) if is_turned else torch.eye(5))
    return model


def test_crossed_wires_are_uncrossed():
    model = crossed(True, True)
    done = Swaps(layout=line_layout(model), fixed=("inputs", "outputs"))(model)
    assert done.before > 0 and done.after == 0
    model = crossed(False, True)
    done = Swaps(layout=line_layout(model), fixed=("inputs",))(model)
    assert done.after == 0 and model.out_perm.tolist() == [4, 3, 2, 1, 0]


def test_one_group_at_a_time_may_be_stuck():
    """A crossing that a group can only hand on to the next one costs the same on either side of it."""
    model = crossed(True, False)
    done = Swaps(layout=line_layout(model), fixed=("inputs",))(model)
    assert done.after == done.before and not done.moved.any()
    assert Swaps(layout=line_layout(model))(model).after == 0


def test_on_grids_too():
    model = MLP(MLPConfig(widths=(12, 9, 4))).double()
    layout = grid_layout(model, {"inputs": (3, 4)}, rings=("outputs",))
    before = outputs(model)
    done = Swaps(layout=layout, fixed=("inputs",))(model)
    assert_close(outputs(model), before)
    assert done.after < done.before
    assert model.in_perm.tolist() == list(range(12)) and done.left["inputs"] == "told to stay"


# --- moments -----------------------------------------------------------------------------------------


def with_gradients(model, seed):
    generator = torch.Generator().manual_seed(seed)
    for parameter in model.parameters():
        noise = torch.randn(parameter.shape, generator=generator, dtype=parameter.dtype)
        # The padding of unequal heads has weight 0 and never a gradient.
        parameter.grad = noise * (parameter.detach() != 0)


def both_ways(model, optimizers_of, tolerance):
    """Swap then step, against step then swap: the same parameters and moments."""
    runs = []
    items_of = movables(model)
    orders = [
        torch.randperm(items.n_items, generator=torch.Generator().manual_seed(4))
        for items in items_of
    ]
    for swap_first in (True, False):
        tried = copy.deepcopy(model)
        optimizers = optimizers_of(tried)
        for seed in range(3):
            with_gradients(tried, seed)
            for optimizer in optimizers:
                optimizer.step()
        with_gradients(tried, 9)
        for step in (swap_first, not swap_first):
            if step:
                for items, order in zip(movables(tried), orders, strict=True):
                    permute(tried, items, order, optimizers)
            else:
                for optimizer in optimizers:
                    optimizer.step()
        state = [optimizer.state[p] for optimizer in optimizers for p in optimizer.state]
        runs.append((tried.state_dict(), state))
    assert_close(runs[0], runs[1], atol=tolerance, rtol=tolerance)


@pytest.mark.parametrize("name", ["chain", "tokens", "LN, learned, biases", "unequal heads"])
@pytest.mark.parametrize(
    "make",
    [
        lambda p: torch.optim.AdamW(p, lr=0.01, weight_decay=0.1),
        lambda p: torch.optim.SGD(p, lr=0.01, momentum=0.9),
        lambda p: torch.optim.SGD(p, lr=0.01),
    ],
)
def test_a_step_after_a_swap_is_a_swap_after_the_step(build, name, make):
    model = network(build, name).double()
    both_ways(model, lambda tried: [make(tried.parameters())], 1e-12)


@pytest.mark.parametrize(
    "name", ["LN, learned, biases", "RMS, rotary, grouped, gated", "unequal heads"]
)
def test_muons_momentum_moves_with_its_matrices(build, name):
    config = TrainingConfig(steps=10)
    model = network(build, name).double()
    both_ways(model, lambda tried: list(optimizers_for(tried, config).values()), 1e-7)


def test_moments_that_stay_behind_change_the_next_step():
    """As in the published code: what `moments=False` is for, and why it is not the default."""
    found = []
    for moments in (True, False):
        model = MLP(MLPS["chain"]).double()
        adamw = torch.optim.AdamW(model.parameters(), lr=0.01)
        with_gradients(model, 0)
        adamw.step()
        Swaps(layout=line_layout(model), moments=moments)(model, [adamw])
        x = outputs(model)
        model.zero_grad()
        with_gradients(model, 1)
        adamw.step()
        found.append((x, model.layers[1].W.detach().clone()))
    assert_close(found[0][0], found[1][0])
    assert (found[0][1] - found[1][1]).abs().max() > 1e-4


def trained(model, swaps, make, steps=20):
    x, y = torch.randn(2, 32, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    optimizer, rounds = make(model.parameters()), 0
    for step in range(1, steps + 1):
        optimizer.zero_grad()
        (model(x)[:, :3] - y[:, :3]).pow(2).mean().backward()
        optimizer.step()
        if swaps is not None and swaps.due(step):
            rounds += swaps(model, [optimizer]).moved.sum() > 0
    return model, rounds


@pytest.mark.parametrize(
    "make",
    [lambda p: torch.optim.SGD(p, lr=0.1), lambda p: torch.optim.AdamW(p, lr=0.01)],
)
def test_without_a_penalty_swaps_change_a_run_by_a_permutation_only(make):
    plain, _ = trained(MLP(MLPS["chain"]).double(), None, make)
    model = MLP(MLPS["chain"]).double()
    swapped, rounds = trained(model, Swaps(layout=line_layout(model), every=5), make)
    assert rounds >= 1 and not torch.equal(plain.layers[1].W, swapped.layers[1].W)
    assert_close(outputs(swapped), outputs(plain), atol=1e-10, rtol=0)
    for one, other in zip(wires(plain), wires(swapped), strict=True):
        assert_close(
            one.weight.flatten().sort().values,
            other.weight.flatten().sort().values,
            atol=1e-10,
            rtol=0,
        )


# --- what cannot move --------------------------------------------------------------------------------


def test_heads_of_unlike_size_do_not_change_places(build):
    model = network(build, "like heads of two sizes")
    names = [items.name for items in movables(model)]
    assert names[1:3] == ["blocks.0 heads of size 4", "blocks.0 heads of size 8"]
    sizes = model.blocks[0].attn.W_V.abs().sum(1) > 0
    Swaps(layout=line_layout(model))(model)
    assert torch.equal(model.blocks[0].attn.W_V.abs().sum(1) > 0, sizes)
    alone = [items.name for items in movables(network(build, "unequal heads"))]
    assert not any("blocks.0 heads" in name for name in alone) and "blocks.1 heads" in alone


def test_what_must_stay_is_named_with_its_reason(build):
    rotary, waves = (
        network(build, name) for name in ("RMS, rotary, grouped, gated", "LNPre, sinusoidal")
    )
    with pytest.raises(UnsupportedError, match=r"blocks\.1 head 0-1 qk .*rotary"):
        movable(rotary, "blocks.1 head 0-1 qk")
    with pytest.raises(UnsupportedError, match=r"stream .*sinusoidal"):
        movable(waves, "stream")
    with pytest.raises(UnsupportedError, match="vocabulary"):
        movable(waves, "logits")
    with pytest.raises(ConfigError, match=r"no 'hidden 7' .* inputs, hidden 0"):
        movable(MLP(MLPS["chain"]), "hidden 7")
    assert set(immovable(rotary)) == {"logits", "blocks.0 qk", "blocks.1 qk"}
    assert "stream" in Swaps(layout=line_layout(waves))(waves).left


def test_settings_that_cannot_be_meant_are_refused(build):
    model = MLP(MLPS["chain"])
    layout = line_layout(model)
    with pytest.raises(ConfigError, match="every and top_k"):
        Swaps(layout=layout, every=0)
    with pytest.raises(ConfigError, match="every and top_k"):
        Swaps(layout=layout, top_k=0)
    with pytest.raises(ConfigError, match="nothing of mlp is called 'input'"):
        Swaps(layout=layout, fixed=("input",))(model)
    with pytest.raises(ConfigError, match="has places for"):
        Swaps(layout=line_layout(MLP(MLPConfig(widths=(4, 8, 6, 3)))))(model)
    assert [Swaps(layout=layout, every=3).due(step) for step in range(5)] == [0, 0, 0, 1, 0]
