"""Pruning goes as far as the loss allows, no dead path stays, and components are counted on what lives."""

from dataclasses import replace
from itertools import pairwise

import networkx as nx
import numpy as np
import pytest
import torch
from torch.testing import assert_close

from tests.test_weights import OWN
from workbench.errors import ConfigError
from workbench.training.mlp import MLP, MLPConfig
from workbench.training.modularity import Options, masked, modularity, prune
from workbench.training.modularity.graph import Block, blocks_of
from workbench.training.modularity.null import rewired
from workbench.training.modularity.pruning import alive
from workbench.training.wires import Wires, groups, wires

SIZES = {"inputs": 4, "hidden 0": 12, "hidden 1": 12, "outputs": 2}


def random_wires(seed=0, zeros=0.0):
    generator = torch.Generator().manual_seed(seed)
    found = []
    for source, target in pairwise(SIZES):
        shape = SIZES[source], SIZES[target]
        weight = torch.randn(shape, generator=generator, dtype=torch.float64)
        weight[torch.rand(shape, generator=generator) < zeros] = 0
        found.append(Wires(source, source, target, weight))
    return found


def cut_mass(blocks):
    """A loss that rises with every wire that is cut: the sum of their sizes."""
    return lambda masks: float(
        sum((block.weight.abs() * ~masks[block.name]).sum() for block in blocks)
    )


def sizes_of(blocks):
    return np.sort(torch.cat([block.weight.abs().flatten() for block in blocks]).numpy())


@pytest.mark.parametrize("tolerance", [0.0, 1.0, 5.0, 40.0])
def test_a_rising_loss_is_pruned_to_the_last_weight(tolerance):
    blocks = random_wires()
    found = prune(blocks, SIZES, cut_mass(blocks), tolerance=tolerance)
    sizes = sizes_of(blocks)
    n_cut = int((np.cumsum(sizes) <= tolerance).sum())
    assert found.threshold == sizes[n_cut]
    assert sum(int(mask.sum()) for mask in found.kept.values()) == len(sizes) - n_cut
    assert found.base_loss == 0 and found.loss == pytest.approx(sizes[:n_cut].sum())
    assert found.live_loss >= found.loss


def test_the_largest_weight_goes_too_where_nothing_is_needed():
    blocks = random_wires()
    found = prune(blocks, SIZES, lambda masks: 1.0, tolerance=0.0)
    assert found.threshold == np.inf and not any(mask.any() for mask in found.masks.values())
    assert found.live.n_components == found.live.n_units == found.live.n_wires == 0


@pytest.mark.parametrize("seed", range(4))
def test_a_loss_that_falls_again_is_searched_from_above(seed):
    """What is reported passes, the next larger weight fails, and so does every larger one that was tried."""
    blocks, rng = random_wires(seed), np.random.default_rng(seed)
    sizes = sizes_of(blocks)
    bad = {int(n) for n in rng.permutation(len(sizes))[: len(sizes) // 2]}

    def loss_of(masks):
        n_kept = sum(int(mask.sum()) for mask in masks.values())
        return float(n_kept in bad or n_kept == 0)

    found = prune(blocks, SIZES, loss_of, tolerance=0.5)
    at = int(np.searchsorted(sizes, found.threshold))
    assert found.loss <= 0.5
    assert len(sizes) - at - 1 in bad or at + 1 == len(sizes)
    above = [loss for threshold, loss in found.tried if threshold > found.threshold]
    assert above and min(above) > 0.5


def test_equal_weights_are_cut_together():
    blocks = random_wires()
    for block in blocks:
        block.weight.copy_(block.weight.sign() * (1 + (block.weight.abs() > 1)))
    found = prune(blocks, SIZES, cut_mass(blocks), tolerance=1.5)
    assert found.threshold == 1.0
    assert found.loss == 0


@pytest.mark.parametrize("seed", range(5))
def test_what_lives_is_on_a_path_from_an_input_to_an_output(seed):
    blocks = blocks_of(random_wires(seed, zeros=0.85), SIZES)
    graph, names = nx.DiGraph(), {}
    for name, n in SIZES.items():
        for unit in range(n):
            names[name, unit] = len(names)
            graph.add_node(names[name, unit])
    for block in blocks:
        for i, j in zip(*block.size.nonzero(), strict=True):
            graph.add_edge(names[block.source, int(i)], names[block.target, int(j)])
    ends = [{names[name, unit] for unit in range(SIZES[name])} for name in ("inputs", "outputs")]
    paths = [path for i in ends[0] for path in nx.all_simple_paths(graph, i, ends[1])]
    lives = {unit for path in paths for unit in path}
    used = {edge for path in paths for edge in pairwise(path)}
    found = alive(blocks, SIZES)
    assert set(np.flatnonzero(found.component >= 0).tolist()) == lives
    assert found.n_wires == len(used) and found.n_units == len(lives)
    theirs = nx.Graph(list(used))
    assert found.n_components == nx.number_connected_components(theirs)
    for part in nx.connected_components(theirs):
        assert len({int(found.component[unit]) for unit in part}) == 1


def test_planted_components_are_counted_and_their_shuffle_has_one():
    blocks = random_wires()
    half = {name: np.arange(n) * 2 // n for name, n in SIZES.items()}
    for block in blocks:
        across = torch.from_numpy(half[block.source][:, None] != half[block.target])
        block.weight.copy_(torch.where(across, 0.01 * block.weight, block.weight.sign() * 2))
    weak = sum(float(block.weight.abs()[block.weight.abs() < 1].sum()) for block in blocks)
    options = Options(n_clusters=2, n_shuffles=20, tolerance=weak)
    found = modularity(blocks, SIZES, loss=0.0, loss_of=cut_mass(blocks), options=options)
    assert found.pruning.threshold == 2 and found["components"].value == 2
    assert found["live wires"].value == 2 * (2 * 6 + 6 * 6 + 6)
    assert found["live units"].value == sum(SIZES.values())
    assert found["components"].mean < 1.2 and found["components"].percentile > 90
    table = found.table().set_index("measure")["value"]
    assert table["pruning threshold"] == 2 and table["loss rise allowed"] == weak
    assert table["loss after pruning"] == pytest.approx(weak)


def test_shuffling_strengths_alone_leaves_the_pruned_wires_where_they_are():
    blocks = random_wires(zeros=0.6)
    options = Options(n_clusters=2, n_shuffles=5, trials=1, tolerance=30.0, nonzero_only=True)
    found = modularity(blocks, SIZES, loss=0.0, loss_of=cut_mass(blocks), options=options)
    assert (found["components"].null == found["components"].value).all()
    assert np.isnan(found["components"].z) and found["components"].percentile == 50
    assert found["Newman Q"].std > 0


def test_numbering_does_not_change_what_is_pruned():
    blocks, rng = random_wires(zeros=0.6), np.random.default_rng(0)
    order = {name: rng.permutation(n) for name, n in SIZES.items()}
    moved = [
        Wires(b.name, b.source, b.target, b.weight[order[b.source]][:, order[b.target]])
        for b in blocks
    ]
    options = Options(n_clusters=2, n_shuffles=5, trials=1, tolerance=30.0)
    first, second = (
        modularity(each, SIZES, loss=0.0, loss_of=cut_mass(each), options=options)
        for each in (blocks, moved)
    )
    for name in ("components", "live units", "live wires"):
        assert first[name].value == second[name].value
        np.testing.assert_array_equal(first[name].null, second[name].null)
    for block in blocks:
        mask = first.pruning.masks[block.name][order[block.source]][:, order[block.target]]
        assert_close(mask, second.pruning.masks[block.name])


def test_an_mlp_is_pruned_by_its_own_loss():
    """Half of the inputs do not matter; the pruned model's loss is what was promised."""
    torch.manual_seed(0)
    model = MLP(MLPConfig(widths=(4, 8, 1), bias=True))
    with torch.no_grad():
        model.layers[0].W[2:] *= 1e-3
    x = torch.randn(64, 4)
    with torch.no_grad():
        y = model(x)

    def loss_of(masks):
        with masked(model, masks), torch.no_grad():
            return float((model(x) - y).square().mean())

    before = {name: value.clone() for name, value in model.state_dict().items()}
    found = prune(wires(model), groups(model), loss_of, tolerance=1e-4)
    assert not found.kept["layers.0.W"][2:].any() and found.live.component[2] == -1
    assert found.loss <= 1e-4 and loss_of(found.kept) == found.loss
    for name, value in model.state_dict().items():
        assert_close(value, before[name])
    thinned = found.wires(wires(model))
    assert int((thinned[0].weight != 0).sum()) == int(found.masks["layers.0.W"].sum())


def test_what_a_dead_unit_added_is_in_the_loss_without_dead_paths():
    """A unit that reads nothing still sends its bias on."""
    model = MLP(MLPConfig(widths=(1, 2, 1), activation="relu"))
    with torch.no_grad():
        model.layers[0].W.copy_(torch.tensor([[1.0, 0.0]]))
        model.layers[0].b.copy_(torch.tensor([0.0, 1.0]))
        model.layers[1].W.copy_(torch.tensor([[1.0], [2.0]]))
        model.layers[1].b.zero_()

    def loss_of(masks):
        with masked(model, masks), torch.no_grad():
            return abs(float(model(torch.ones(1, 1))) - 3)

    found = prune(wires(model), groups(model), loss_of, tolerance=0.1)
    assert found.loss == 0 and found.live_loss == 2
    assert found.live.component.tolist() == [0, 0, -1, 0] and found.live.n_wires == 2


@pytest.mark.parametrize("name", OWN)
def test_a_whole_transformer_is_alive_and_its_masks_change_nothing(build, name):
    model = build(**OWN[name])
    live = alive(blocks_of(wires(model), groups(model)), groups(model))
    assert live.n_components == 1 and live.n_units == sum(groups(model).values())
    masks = {b.name: torch.ones_like(b.weight, dtype=torch.bool) for b in wires(model)}
    before = model(torch.arange(8)[None])
    with masked(model, masks):
        assert_close(model(torch.arange(8)[None]), before)


@pytest.mark.parametrize("name", OWN)
def test_a_mask_takes_wires_out_of_the_parameter(build, name):
    """A parameter that several heads share stays until the last of them lets go of it."""
    model = build(**OWN[name])
    generator = torch.Generator().manual_seed(0)
    masks = {b.name: torch.rand(b.weight.shape, generator=generator) < 0.5 for b in wires(model)}
    whole = {b.name: b.weight.detach().clone() for b in wires(model)}
    with masked(model, masks):
        for block in wires(model):
            kept = masks[block.name]
            assert_close(block.weight[kept], whole[block.name][kept])
            if block.copies == 1:
                assert not block.weight[~kept].any()
    for block in wires(model):
        assert_close(block.weight.detach(), whole[block.name])


def test_a_tied_token_lives_by_being_read_or_by_being_written(build):
    model = build(order="s", tied_unembedding=True)
    with torch.no_grad():
        model.embed.W_E[3] = 0
    live = alive(blocks_of(wires(model), groups(model)), groups(model))
    assert live.component[3] == -1 and live.n_units == sum(groups(model).values()) - 1


def test_a_model_is_whole_again_after_an_error(build):
    model = build(order="s")
    before = model.embed.W_E.detach().clone()
    masks = {b.name: torch.zeros_like(b.weight, dtype=torch.bool) for b in wires(model)}
    with pytest.raises(RuntimeError, match="stop"), masked(model, masks):
        assert not model.embed.W_E.any()
        raise RuntimeError("stop")
    assert_close(model.embed.W_E.detach(), before)


@pytest.mark.parametrize("tolerance", [-0.1, float("nan"), float("inf")])
def test_a_rise_that_is_none_is_refused(tolerance):
    with pytest.raises(ConfigError, match="the loss may rise by a number from 0 on"):
        prune(random_wires(), SIZES, lambda masks: 0.0, tolerance=tolerance)


def test_a_loss_that_is_no_number_is_refused():
    with pytest.raises(ConfigError, match="the loss of the unpruned network is nan"):
        prune(random_wires(), SIZES, lambda masks: float("nan"), tolerance=0.1)


def test_pruning_without_a_tolerance_is_refused():
    with pytest.raises(ConfigError, match="pruning needs a tolerance"):
        modularity(random_wires(), SIZES, loss=0.0, loss_of=lambda masks: 0.0)


def test_a_ring_of_groups_has_no_inputs():
    ring = [Wires("a", "a", "b", torch.eye(2)), Wires("b", "b", "a", torch.eye(2))]
    with pytest.raises(ConfigError, match="a group that reads no other"):
        prune(ring, {"a": 2, "b": 2}, lambda masks: 0.0, tolerance=0.0)


# --- Networks that are nearly sparse, as an L1 penalty leaves them ------------------------------------------

WIDE = {"inputs": 16, "hidden 0": 60, "hidden 1": 60, "outputs": 16}
LIVE = dict.fromkeys(WIDE, 16)


def nearly_sparse(seed, *, planted, each=3):
    """A few units of each layer read three others, of their own half if planted; other weights are near 0."""
    rng, found = np.random.default_rng(seed), []
    for source, target in pairwise(WIDE):
        n, m = LIVE[source], LIVE[target]
        weight = 1e-4 * rng.standard_normal((WIDE[source], WIDE[target]))
        for unit in range(m):
            half = np.arange(n // 2) + (n // 2) * (2 * unit // m)
            read = rng.choice(half if planted else n, each, replace=False)
            weight[read, unit] = rng.uniform(0.5, 1.5, each) * rng.choice([-1, 1], each)
        found.append(Wires(source, source, target, torch.from_numpy(weight)))
    return found


def measured(blocks):
    weak = sum(float(b.weight.abs()[b.weight.abs() < 0.1].sum()) for b in blocks)
    options = Options(n_clusters=2, n_shuffles=12, trials=1, tolerance=weak)
    return modularity(blocks, WIDE, loss=0.0, loss_of=cut_mass(blocks), options=options)


def test_modules_of_a_nearly_sparse_network_are_found_once_it_is_pruned():
    found = measured(nearly_sparse(0, planted=True))
    pruned, whole = found["Newman Q, pruned"], found["Newman Q"]
    assert pruned.z > 4 and pruned.percentile == 100
    assert found["normalised cut, pruned"].value == pytest.approx(0, abs=1e-12)
    assert found["normalised cut, pruned"].z < -4
    assert found["components"].value == 2 and found["components"].mean < 1.5
    # The shuffle of what is not pruned is fragments of Q near 0.8: z says "not modular" of the same wires.
    assert (
        whole.value == pytest.approx(pruned.value, abs=0.05) and whole.mean > 0.7 and whole.z < -4
    )


def test_random_wires_as_sparse_are_no_more_modular_than_their_rewirings():
    found = [measured(nearly_sparse(seed, planted=False)) for seed in range(3)]
    z = np.array([each["Newman Q, pruned"].z for each in found])
    assert np.abs(z).max() < 3.5 and abs(z.mean()) < 2
    assert all(each["Newman Q"].z < -4 for each in found)


def test_the_rewiring_of_a_planted_network_has_no_modules():
    blocks = nearly_sparse(0, planted=True)
    for block in blocks:
        block.weight[block.weight.abs() < 0.1] = 0
    moved = rewired(blocks_of(blocks, WIDE), np.random.default_rng(0))
    again = [
        replace(block, weight=torch.from_numpy(new.size))
        for block, new in zip(blocks, moved, strict=True)
    ]
    assert abs(measured(again)["Newman Q, pruned"].z) < 3


@pytest.mark.parametrize("zeros", [0.0, 0.5, 0.8])
def test_a_rewiring_keeps_the_weights_and_every_unit_s_number_of_wires(zeros):
    blocks = blocks_of(random_wires(zeros=zeros), SIZES)
    moved = rewired(blocks, np.random.default_rng(0))
    for old, new in zip(blocks, moved, strict=True):
        np.testing.assert_array_equal(np.sort(old.size, axis=None), np.sort(new.size, axis=None))
        for axis in (0, 1):
            np.testing.assert_array_equal((old.size > 0).sum(axis), (new.size > 0).sum(axis))
        assert not np.array_equal(old.size, new.size)
    same = [
        np.array_equal(old.size > 0, new.size > 0) for old, new in zip(blocks, moved, strict=True)
    ]
    assert all(same) == (zeros == 0)


def test_a_pruned_network_s_rewirings_are_as_alive_as_it_is():
    blocks = random_wires(3, zeros=0.8)
    options = Options(n_clusters=2, n_shuffles=2, tolerance=0.0)
    left = modularity(blocks, SIZES, loss=0.0, loss_of=cut_mass(blocks), options=options).pruning
    thinned = blocks_of(left.wires(blocks), SIZES)
    for seed in range(5):
        live = alive(rewired(thinned, np.random.default_rng(seed)), SIZES)
        assert (live.n_units, live.n_wires) == (left.live.n_units, left.live.n_wires)


def test_rewirings_come_to_every_network_of_the_same_margins_equally_often():
    """A permutation matrix of three: six of them."""
    block = Block("W", "inputs", "outputs", np.diag([1.0, 1.0, 1.0]))
    seen = [rewired([block], np.random.default_rng(seed))[0].size for seed in range(1200)]
    counts = np.unique([each.argmax(0) @ [9, 3, 1] for each in seen], return_counts=True)[1]
    assert len(counts) == 6 and np.abs(counts - 200).max() < 4 * np.sqrt(200)
