"""Graph scores equal their dense definitions, find planted modules, and ignore how units are numbered."""

from dataclasses import replace
from itertools import pairwise, product

import networkx as nx
import numpy as np
import pytest
import torch

from workbench.errors import BudgetError, ConfigError
from workbench.training.layouts import Layout, line
from workbench.training.mlp import MLP, MLPConfig
from workbench.training.modularity import Options, modularity
from workbench.training.modularity import graph as graphs
from workbench.training.modularity import partitions as searched
from workbench.training.modularity.graph import blocks_of, unit_graph
from workbench.training.modularity.measures import cross_talk, wiring
from workbench.training.modularity.null import Score, shuffled
from workbench.training.modularity.partitions import (
    best_cut,
    best_q,
    newman_q,
    normalised_cut,
)
from workbench.training.wires import Wires, groups, wires

WIDTHS = {"inputs": 4, "hidden 0": 12, "hidden 1": 12, "outputs": 2}
SIDES = {"inputs": [0, 0, 1, 1], "outputs": [0, 1]}
QUICK = Options(n_clusters=2, n_shuffles=12, sides=SIDES)


def network(seed=0, between=1.0, widths=WIDTHS):
    """Random weights; those between the first and the second half of each layer scaled by `between`."""
    generator = torch.Generator().manual_seed(seed)
    names = list(widths)
    for source, target in pairwise(names):
        weight = torch.randn(widths[source], widths[target], generator=generator)
        half = [torch.arange(widths[name]) * 2 // widths[name] for name in (source, target)]
        weight[half[0][:, None] != half[1]] *= between
        yield Wires(source, source, target, weight.double())


def halves(widths=WIDTHS):
    return np.concatenate([np.arange(n) * 2 // n for n in widths.values()])


def graph_of(blocks, sizes=WIDTHS):
    return unit_graph(blocks_of(blocks, sizes), sizes)


def networkx_of(graph):
    return nx.from_scipy_sparse_array(graph.weight)


def sets(labels):
    return [set(np.flatnonzero(labels == label).tolist()) for label in np.unique(labels)]


def permuted(blocks, seed=0):
    """The same network with the units of every group renumbered, and who stands where."""
    rng = np.random.default_rng(seed)
    order = {name: rng.permutation(n) for name, n in WIDTHS.items()}
    moved = [
        replace(block, weight=block.weight[order[block.source]][:, order[block.target]])
        for block in blocks
    ]
    return moved, order


@pytest.mark.parametrize("seed", range(3))
def test_q_is_newmans(seed):
    graph = graph_of([*network(seed)])
    labels = np.random.default_rng(seed).integers(0, 3, len(graph.units))
    dense, degree = graph.weight.toarray(), graph.degree
    same = labels[:, None] == labels
    expected = ((dense - np.outer(degree, degree) / degree.sum()) * same).sum() / degree.sum()
    assert newman_q(graph, labels) == pytest.approx(expected, abs=1e-14)
    theirs = nx.community.modularity(networkx_of(graph), sets(labels))
    assert newman_q(graph, labels) == pytest.approx(theirs, abs=1e-14)


@pytest.mark.parametrize("seed", range(3))
def test_the_normalised_cut_is_cut_over_volume(seed):
    graph = graph_of([*network(seed)])
    labels = np.random.default_rng(seed).integers(0, 3, len(graph.units))
    theirs = networkx_of(graph)
    parts = sets(labels)
    expected = sum(
        nx.cut_size(theirs, part, weight="weight") / nx.volume(theirs, part, weight="weight")
        for part in parts
    )
    assert normalised_cut(graph, labels) == pytest.approx(expected, abs=1e-12)
    two = np.minimum(labels, 1)
    assert normalised_cut(graph, two) == pytest.approx(
        nx.normalized_cut_size(theirs, sets(two)[0], weight="weight"), abs=1e-12
    )


def test_blocks_between_the_same_groups_add_up(build):
    """Queries and keys read the same stream: their wires lie side by side."""
    model = build(order="sf", attn_bias=True)
    sizes = groups(model)
    graph = graph_of(wires(model), sizes)
    first = list(sizes).index("stream")
    offset = dict(zip(sizes, np.cumsum([0, *sizes.values()]), strict=False))
    by_name = {block.name: block.weight.detach().abs().double() for block in wires(model)}
    reads = by_name["blocks.0.attn.W_Q"] + by_name["blocks.0.attn.W_K"]
    dense = graph.weight.toarray()
    assert first == 1 and graph.n_units == sum(sizes.values()) == len(graph.units)
    at = offset["stream"], offset["blocks.0.qk"]
    np.testing.assert_allclose(dense[at[0] :, at[1] :][:32, :32], reads.numpy())
    np.testing.assert_allclose(dense, dense.T)


def test_units_that_nothing_joins_are_left_out():
    blocks = [*network()]
    blocks[0].weight[:, 3] = 0
    blocks[1].weight[3] = 0
    graph = graph_of(blocks)
    assert len(graph.units) == graph.n_units - 1 and WIDTHS["inputs"] + 3 not in graph.units
    found = modularity(blocks, WIDTHS, loss=0.0, options=replace(QUICK, n_shuffles=2))
    assert found.modules["hidden 0"][3] == found.clusters["hidden 0"][3] == -1
    assert (np.delete(found.modules["hidden 0"], 3) >= 0).all()


@pytest.mark.parametrize("seed", range(4))
def test_the_search_for_q_is_no_worse_than_networkxs(seed):
    graph = graph_of([*network(seed)])
    theirs = nx.community.louvain_communities(networkx_of(graph), seed=seed)
    q = nx.community.modularity(networkx_of(graph), theirs)
    assert best_q(graph, trials=5, seed=seed).value >= q - 1e-9


@pytest.mark.parametrize("seed", range(3))
def test_both_searches_come_close_to_the_best_of_all_bipartitions(seed):
    sizes = {"inputs": 3, "hidden 0": 5, "outputs": 3}
    graph = graph_of([*network(seed, between=0.2, widths=sizes)], sizes)
    every = [np.array((0, *rest)) for rest in product((0, 1), repeat=len(graph.units) - 1)][1:]
    best = min(normalised_cut(graph, labels) for labels in every)
    assert best_cut(graph, 2, seed=0).value == pytest.approx(best, rel=0.02)
    assert best_q(graph, trials=5, seed=0).value >= max(newman_q(graph, e) for e in every) - 1e-9


def test_planted_modules_are_found_and_their_shuffle_has_none():
    found = modularity([*network(between=0.02)], WIDTHS, loss=0.5, options=QUICK)
    for labels in (found.modules, found.clusters):
        whole = np.concatenate(list(labels.values()))
        assert sorted(sets(whole), key=min) == sets(halves())
    assert found["Newman Q"].value > 0.45 and found["Newman Q"].z > 10
    assert found["normalised cut"].value < 0.1 and found["normalised cut"].z < -10
    # A path of three wires crosses once in about three ways.
    assert found["cross-talk"].value < 2 * 3 * 0.02 and found["cross-talk"].z < -3
    assert found["Newman Q"].percentile == 100 and found["cross-talk"].percentile == 0
    assert found["Newman Q"].mean < 0.7 * found["Newman Q"].value
    assert found["normalised cut"].mean > 5 * found["normalised cut"].value


def test_separate_components_are_cut_for_nothing():
    blocks = [*network(between=0.0)]
    graph = graph_of(blocks)
    assert best_cut(graph, 2, seed=0).value == 0
    assert newman_q(graph, best_q(graph, trials=3, seed=0).labels) > 0.49
    assert cross_talk(blocks_of(blocks, WIDTHS), arrays(SIDES)) == 0
    finer = best_cut(graph, 4, seed=0)
    assert finer.n_modules == 4 and finer.value > 0


def test_lanczos_finds_what_the_dense_decomposition_finds(monkeypatch):
    graph = graph_of([*network(between=0.1)])
    dense = best_cut(graph, 3, seed=0)
    monkeypatch.setattr(searched, "LARGEST_DENSE", 0)
    quick = best_cut(graph, 3, seed=0)
    assert quick.value == pytest.approx(dense.value, abs=1e-6)
    assert sorted(sets(quick.labels), key=min) == sorted(sets(dense.labels), key=min)


def test_the_numbering_of_units_changes_nothing_but_wiring():
    blocks = [*network(between=0.3)]
    moved, order = permuted(blocks)
    layout = Layout({name: line(n) for name, n in WIDTHS.items()})
    sides = {name: np.array(SIDES[name])[order[name]].tolist() for name in SIDES}
    before = modularity(blocks, WIDTHS, loss=0.0, layout=layout, options=QUICK)
    after = modularity(moved, WIDTHS, loss=0.0, layout=layout, options=replace(QUICK, sides=sides))
    for one, other in zip(before.scores, after.scores, strict=True):
        if "wir" in one.measure:
            assert one.value != pytest.approx(other.value, rel=1e-3)
        else:
            assert one.value == pytest.approx(other.value, abs=1e-12)
            np.testing.assert_allclose(one.null, other.null, rtol=1e-12)
    for name, places in order.items():
        np.testing.assert_array_equal(before.modules[name][places], after.modules[name])


@pytest.mark.parametrize("scale", [1e-6, 3.7, 1e6])
def test_a_common_scale_changes_neither_q_nor_cut(scale):
    blocks = [*network(between=0.3)]
    scaled = [replace(block, weight=block.weight * scale) for block in blocks]
    before, after = (modularity(each, WIDTHS, loss=0.0, options=QUICK) for each in (blocks, scaled))
    for name in ("Newman Q", "normalised cut", "cross-talk"):
        assert after[name].value == pytest.approx(before[name].value, rel=1e-9)
        np.testing.assert_allclose(after[name].null, before[name].null, rtol=1e-9)


def test_the_same_seed_gives_the_same_table_and_another_one_another_null():
    blocks = [*network()]
    first, again = (modularity(blocks, WIDTHS, loss=0.0, options=QUICK) for _ in range(2))
    assert first.table().equals(again.table())
    other = modularity(blocks, WIDTHS, loss=0.0, options=replace(QUICK, seed=1))
    assert not np.array_equal(first["Newman Q"].null, other["Newman Q"].null)


def test_a_random_network_stands_out_as_often_as_its_shuffles_do():
    """Its weights are exchangeable, so its rank among the shuffles is uniform."""
    layout = Layout({name: line(n) for name, n in WIDTHS.items()})
    found = [
        modularity([*network(seed)], WIDTHS, loss=0.0, layout=layout, options=QUICK)
        for seed in range(16)
    ]
    for name in ("Newman Q", "normalised cut", "cross-talk", "wiring length", "mean wire length"):
        ranks = np.array([each[name].percentile for each in found])
        z = np.array([each[name].z for each in found])
        # Four standard errors of the mean of 16 uniform ranks; a normal |z| has the median 0.67.
        assert abs(ranks.mean() - 50) < 4 * 100 / np.sqrt(12 * 16)
        assert np.median(np.abs(z)) < 1.5


def test_a_shuffle_keeps_the_weights_of_every_block():
    blocks = blocks_of([*network(between=0.0)], WIDTHS)
    rng = np.random.default_rng(0)
    for old, new in zip(blocks, shuffled(blocks, rng), strict=True):
        np.testing.assert_array_equal(np.sort(old.size, axis=None), np.sort(new.size, axis=None))
        assert not np.array_equal(old.size, new.size)
    for old, new in zip(blocks, shuffled(blocks, rng, nonzero_only=True), strict=True):
        np.testing.assert_array_equal(np.sort(old.size, axis=None), np.sort(new.size, axis=None))
        np.testing.assert_array_equal(old.size > 0, new.size > 0)
        assert not np.array_equal(old.size, new.size)


def test_wiring_is_the_sum_of_length_times_weight():
    blocks = [*network()]
    layout = Layout({name: line(n) for name, n in WIDTHS.items() if name != "outputs"})
    found = modularity(blocks, WIDTHS, loss=0.0, layout=layout, options=QUICK)
    total = weight = 0.0
    for block in blocks[:2]:
        for i, j in product(*map(range, block.weight.shape)):
            place = (i + 0.5) / WIDTHS[block.source], (j + 0.5) / WIDTHS[block.target]
            total += abs(float(block.weight[i, j])) * abs(place[0] - place[1])
            weight += abs(float(block.weight[i, j]))
    everything = sum(float(block.weight.abs().sum()) for block in blocks)
    assert found["wiring length"].value == pytest.approx(total)
    assert found["mean wire length"].value == pytest.approx(total / weight)
    assert found.wired_share == pytest.approx(weight / everything)


def test_the_shuffles_wiring_is_that_of_uniform_weights():
    blocks = blocks_of([*network()], WIDTHS)
    layout = Layout({name: line(n) for name, n in WIDTHS.items()})
    lengths = {block.name: layout.distances(block).numpy() for block in network()}
    rng = np.random.default_rng(0)
    null = [wiring(shuffled(blocks, rng), lengths).total for _ in range(400)]
    expected = sum(block.size.mean() * lengths[block.name].sum() for block in blocks)
    assert np.mean(null) == pytest.approx(expected, abs=4 * np.std(null) / 20)


def arrays(sides):
    return {name: np.asarray(labels) for name, labels in sides.items()}


def test_cross_talk_is_the_mass_of_the_product_outside_the_modules():
    blocks = [*network(between=0.3)]
    product_ = torch.linalg.multi_dot([block.weight.abs() for block in blocks]).numpy()
    wrong = np.array(SIDES["inputs"])[:, None] != np.array(SIDES["outputs"])
    found = cross_talk(blocks_of(blocks, WIDTHS), arrays(SIDES))
    assert found == pytest.approx(product_[wrong].sum() / product_.sum())
    some = {"inputs": [0, -1, 1, 1], "outputs": [0, 1]}
    product_, wrong = np.delete(product_, 1, axis=0), np.delete(wrong, 1, axis=0)
    found = cross_talk(blocks_of(blocks, WIDTHS), arrays(some))
    assert found == pytest.approx(product_[wrong].sum() / product_.sum())


@pytest.mark.parametrize("tied", [False, True])
def test_cross_talk_of_a_transformer_follows_the_stream(build, tied):
    model = build(order="sf", tied_unembedding=tied)
    with torch.no_grad():
        size = {block.name: block.weight.abs().double() for block in wires(model)}
        stream = size["embed.W_E"]
        stream = stream + stream @ size["blocks.0.attn.W_V"] @ size["blocks.0.attn.W_O"]
        stream = stream + stream @ size["blocks.0.mlp.W_in"] @ size["blocks.0.mlp.W_out"]
        mass = (stream @ (size["embed.W_E"].T if tied else size["unembed.W_U"])).numpy()
    labels = np.arange(18) % 2
    found = cross_talk(
        blocks_of(wires(model), groups(model)), {"tokens": labels, "logits": 1 - labels}
    )
    assert found == pytest.approx(mass[labels[:, None] == labels].sum() / mass.sum())
    whole = modularity(
        wires(model),
        groups(model),
        loss=0.0,
        options=Options(n_shuffles=2, trials=1, sides={"tokens": labels, "logits": 1 - labels}),
    )
    assert whole["cross-talk"].value == pytest.approx(found)


def test_the_table_opens_with_the_loss_and_holds_the_wiring_even_unmeasured():
    table = modularity([*network()], WIDTHS, loss=0.25, options=QUICK).table()
    assert list(table.columns) == [
        *("measure", "value", "null_mean", "null_std", "z"),
        *("percentile", "n_null", "seed", "unit"),
    ]
    assert table["measure"][0] == "task loss" and table["value"][0] == 0.25
    rows = table.set_index("measure")
    assert np.isnan(rows["value"]["wiring length"]) and rows["n_null"]["wiring length"] == 0
    assert rows["n_null"]["Newman Q"] == QUICK.n_shuffles
    assert rows["unit"]["normalised cut"] == "sum over 2 clusters"


def test_a_score_is_placed_within_its_null():
    score = Score("Q", 2.0, "Q", np.array([1.0, 2.0, 3.0, 0.0]))
    assert score.mean == 1.5 and score.std == pytest.approx(np.std([0, 1, 2, 3], ddof=1))
    assert score.z == pytest.approx(0.5 / score.std)
    assert score.percentile == 100 * (2 + 0.5) / 4
    same = Score("Q", 0.3, "Q", np.array([0.1 + 0.2, 0.3]))
    assert np.isnan(same.z) and same.percentile == 50


def test_the_loss_must_be_given():
    with pytest.raises(TypeError, match="loss"):
        modularity([*network()], WIDTHS)


def first_weight(value):
    blocks = [*network()]
    blocks[0].weight[0, 0] = value
    return blocks


@pytest.mark.parametrize(
    ("blocks", "options", "message"),
    [
        ([], QUICK, "at least one block"),
        (first_weight(torch.nan), QUICK, "1 of the 48 weights of inputs are not finite"),
        (first_weight(torch.inf), QUICK, "not finite"),
        ([replace(b, weight=b.weight * 0) for b in network()], QUICK, "every weight is zero"),
        ([*network()], replace(QUICK, n_clusters=31), "30 wired units make 2 to 30"),
        ([*network(widths=WIDTHS | {"outputs": 3})], QUICK, "the groups given have 12 and 2"),
        ([*network()], replace(QUICK, sides={"inputs": [0, 1]}), "2 labels for the 4 units"),
        ([*network()], replace(QUICK, sides={"in": [0]}), "no group 'in' to label"),
        ([*network()], replace(QUICK, sides={"inputs": [0] * 4}), "are inputs only"),
    ],
)
def test_what_is_no_network_is_refused(blocks, options, message):
    with pytest.raises(ConfigError, match=message):
        modularity(blocks, WIDTHS, loss=0.0, options=options)


def test_more_wires_than_can_be_searched_are_refused(monkeypatch):
    monkeypatch.setattr(graphs, "MAX_EDGES", 215)
    with pytest.raises(BudgetError, match="216 wires are more than the 215"):
        modularity([*network()], WIDTHS, loss=0.0, options=QUICK)


@pytest.mark.parametrize(
    "fields", [{"n_clusters": 1}, {"n_shuffles": 1}, {"trials": 0}, {"seed": -1}]
)
def test_options_that_cannot_be_meant_are_refused(fields):
    with pytest.raises(ConfigError, match=f"{next(iter(fields))} must be at least"):
        Options(**fields)


def test_labels_and_names_that_do_not_fit_are_refused():
    graph = graph_of([*network()])
    with pytest.raises(ConfigError, match="3 labels for the 30 units"):
        newman_q(graph, np.zeros(3, dtype=int))
    found = modularity([*network()], WIDTHS, loss=0.0, options=replace(QUICK, n_shuffles=2))
    with pytest.raises(ConfigError, match="no measure 'q'; there are task loss, Newman Q"):
        found["q"]


def test_an_mlp_of_tokens_and_a_transformer_are_measured_alike(build):
    for model in (MLP(MLPConfig(widths=(12, 6, 9), embedding=11, in_fold=2)), build(order="ss")):
        found = modularity(
            wires(model), groups(model), loss=1.0, options=Options(n_shuffles=3, trials=1)
        )
        assert 0 < found["Newman Q"].value < 1 and 0 < found["normalised cut"].value < 4
        assert {name: len(units) for name, units in found.modules.items()} == groups(model)
