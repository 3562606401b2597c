"""Lesions: the frozen prediction is the sum of the paths left, the true one the model run without them."""

import itertools
import math

import numpy as np
import pytest
import torch

from tests.paths.test_frozen import IDS, OURS, double
from tests.test_weights import PUBLIC, encoder, public
from workbench.errors import ConfigError, UnsupportedError
from workbench.paths.directions import logit_direction
from workbench.paths.frozen import freeze
from workbench.paths.lengths import gradient_by_length, length_gradients, loss_gradient, path_norms
from workbench.paths.lesioned import frozen_stream, head_constant, reordered, without
from workbench.paths.lesions import (
    Lesion,
    deletions,
    lesions,
    random_deletions,
    random_swaps,
    sublayers,
)
from workbench.paths.through import paths_through
from workbench.stream.parts import Part

SERIAL = [
    name
    for name in OURS
    if OURS[name].get("norm_position") != "post" and not OURS[name].get("parallel")
]
LINEAR = "no norm, shortformer"  # attention alone, no norm: frozen patterns are all that is frozen
TWO = [IDS, [5, 1, 1, 9, 4, 2, 2, 8]]


@pytest.mark.parametrize("name", OURS)
def test_deleting_everything_leaves_the_direct_path(build, name):
    frozen = freeze(double(build, name), IDS)
    model, removed = frozen.model, sublayers(frozen.model)
    stream = frozen_stream(frozen, removed)
    embedded = torch.stack(list(frozen.sources.values())).sum(0)
    if all(step.norm is None for step in frozen.steps):
        assert torch.equal(stream, embedded)
        with torch.no_grad():
            torch.testing.assert_close(without(frozen, [removed])[0], model.readout(embedded))


@pytest.mark.parametrize("name", OURS)
def test_deleting_nothing_changes_nothing(build, name):
    frozen = freeze(double(build, name), IDS)
    torch.testing.assert_close(frozen_stream(frozen), frozen.stream)
    assert torch.equal(without(frozen, [()])[0], frozen.run.logits[0])
    torch.testing.assert_close(without(frozen, [()], hold_norms=True)[0], frozen.run.logits[0])


@pytest.mark.parametrize("name", [name for name in OURS if OURS[name]["order"]])
def test_what_a_frozen_deletion_costs_is_what_went_through_the_part_and_its_constant(build, name):
    frozen = freeze(double(build, name), IDS)
    direction = logit_direction(frozen, 2, distractor=5)
    through = paths_through(frozen, direction)
    totals = dict(zip(through.components, through.through, strict=True))
    constants = dict(zip(through.sources, through.from_source, strict=True))
    whole = float((direction.vector * frozen.stream).sum())
    for step in frozen.steps:
        if step.norm is not None:
            continue  # the norm's own bias is in the constant's total, and stays
        layer = Part(f"{step.kind} {step.sublayer.layer}", step.kind, step.sublayer.layer)
        lost = whole - float((direction.vector * frozen_stream(frozen, [layer])).sum())
        expected = sum(totals[part] for part in step.components) + constants[step.bias]
        assert lost == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize(
    "name", ["LN, learned, biases", "RMS, rotary, grouped, gated", "post-norm"]
)
def test_heads_cut_one_by_one_leave_the_output_bias_alone(build, name):
    frozen = freeze(double(build, name), IDS)
    step = frozen.steps[0]
    constants = sum(head_constant(frozen, step, place) for place in range(len(step.components)))
    b_O = frozen.model.blocks[0].attn.b_O.detach().expand_as(constants)
    torch.testing.assert_close(constants + b_O, step.sublayer.constant)
    cut = without(frozen, [step.components])[0]
    with torch.no_grad(), frozen.model.hooks([("blocks.0.hook_attn_out", _only(b_O))]):
        torch.testing.assert_close(cut, frozen.model(torch.tensor([IDS]))[0])


def _only(value):
    return lambda activation, hook: value.expand_as(activation).clone()


def test_where_only_patterns_are_frozen_the_last_layer_is_predicted_exactly(build):
    """Nothing behind it has a pattern to recompute."""
    found = lesions(double(build, LINEAR), TWO)
    last = [index for index, one in enumerate(found.lesions) if one.removed[0].layer == 1]
    np.testing.assert_allclose(found.true[:, last], found.frozen[:, last], atol=1e-10)
    first = [index for index in range(len(found.lesions)) if index not in last]
    assert np.abs(found.true[:, first] - found.frozen[:, first]).max() > 1e-3
    assert found.residual < 1e-12


@pytest.mark.parametrize("name", ["LN, learned, biases", "RMSPre, parallel"])
def test_with_norms_held_the_last_sublayer_is_predicted_exactly(build, name):
    found = lesions(double(build, name), TWO, "layer", hold_norms=True)
    np.testing.assert_allclose(found.norms_held[:, -1], found.frozen[:, -1], atol=1e-10)
    assert np.abs(found.true[:, -1] - found.frozen[:, -1]).max() > 1e-3


@pytest.mark.parametrize("name", PUBLIC)
def test_public_models_are_cut_too(name):
    model = public(name)
    found = lesions(model, [IDS], "component", of=(2, 5))
    assert found.residual < 1e-3
    frozen = freeze(model, IDS)
    bare = without(frozen, [sublayers(model)])[0]
    with torch.no_grad():
        torch.testing.assert_close(bare, model.readout(frozen.levels[0]), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("name", SERIAL)
def test_the_order_that_is_there_changes_nothing(build, name):
    frozen = freeze(double(build, name), IDS)
    same = range(len(frozen.steps))
    torch.testing.assert_close(reordered(frozen, same), frozen.run.logits[0])
    torch.testing.assert_close(reordered(frozen, same, hold_norms=True), frozen.run.logits[0])
    torch.testing.assert_close(frozen_stream(frozen, order=same), frozen.stream)


@pytest.mark.parametrize("name", [name for name in PUBLIC if name != "gpt-neox"])
def test_public_models_run_sublayer_by_sublayer(name):
    frozen = freeze(public(name), IDS)
    same = reordered(frozen, range(len(frozen.steps)))
    torch.testing.assert_close(same, frozen.run.logits[0], atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("name", [LINEAR, "LN, learned, biases", "half steps, gated, LN"])
def test_a_part_is_missed_as_much_in_its_place_as_when_called_by_hand(build, name):
    """Deleting and calling one by one agree, whichever part is left out."""
    frozen = freeze(double(build, name), IDS)
    same = range(len(frozen.steps))
    cuts = [one.removed for one in deletions(frozen.model)]
    together = without(frozen, cuts)
    for removed, expected in zip(cuts, together, strict=True):
        torch.testing.assert_close(reordered(frozen, same, removed), expected)


def test_layers_that_change_places_are_the_model_with_its_blocks_changed(build):
    model = double(build, LINEAR)
    frozen = freeze(model, IDS)
    swapped = reordered(frozen, (1, 0))
    first, second = model.blocks
    other = build(order="ss", positions="shortformer").double()
    other.load_state_dict(model.state_dict())
    other.blocks[0].load_state_dict(second.state_dict())
    other.blocks[1].load_state_dict(first.state_dict())
    with torch.no_grad():
        torch.testing.assert_close(swapped, other(torch.tensor([IDS]))[0])


def test_a_frozen_order_is_its_maps_applied_in_that_order(build):
    frozen = freeze(double(build, "LN, learned, biases"), IDS)
    x = frozen.levels[0]
    for index in (3, 1, 0, 2):
        maps = frozen.steps[index].sublayer
        x = x + maps.apply(x) + maps.constant
    torch.testing.assert_close(frozen_stream(frozen, order=(3, 1, 0, 2)), x)


def test_draws_have_the_counts_and_distances_that_they_say(build):
    model = build(order="sfsf", norm="LN")
    deleted = random_deletions(model, (0, 1, 3), 5, seed=1)
    assert [len(one.removed) for one in deleted] == [0] * 5 + [1] * 5 + [3] * 5
    swapped = random_swaps(model, (0, 1), 4, seed=1)
    assert all(one.kendall == 1 for one in swapped[:4])
    for one in swapped[4:]:
        pairs = itertools.combinations(one.order, 2)
        signs = [1 if a < b else -1 for a, b in pairs]
        assert one.kendall == pytest.approx(np.mean(signs)) and one.kendall < 1
    assert Lesion("reversed", order=(3, 2, 1, 0)).kendall == -1


def test_the_table_has_changes_against_the_intact_model(build):
    model = build(order="sfsf", norm="LN").double()
    told = []
    found = lesions(model, TWO, hold_norms=True, progress=lambda *done: told.append(done))
    table = found.table()
    assert told == [(1, 2), (2, 2)] and len(table) == 2 + 2 * 4 + 2
    assert list(table["lesion"][:3]) == ["attn 0", "0.0", "0.1"]
    np.testing.assert_allclose(table["true"], (found.true - found.intact[:, None]).mean(0))
    assert (table["true_low"] <= table["true"]).all()
    assert "norms_held" in table and "norms_held" not in lesions(model, IDS, "layer").table()
    of_logit = lesions(model, IDS, "layer", of=(2, 5))
    with torch.no_grad():
        logits = model(torch.tensor([IDS]))[0, -1]
    assert of_logit.intact[0] == pytest.approx(float(logits[2] - logits[5]))


def enumerated_norms(frozen, vector):
    """‖g‖ of every path, by length, each made by itself."""
    found = {}
    for taken in itertools.product([False, True], repeat=len(frozen.steps)):
        chosen = [index for index, is_taken in enumerate(taken) if is_taken]
        if any(frozen.steps[b].reads <= a for a, b in itertools.pairwise(chosen)):
            continue  # two of one parallel block
        direction = vector
        for index in reversed(range(len(frozen.steps))):
            step = frozen.steps[index]
            direction = direction if step.norm is None else step.norm.transpose(direction)
            direction = step.sublayer.transpose(direction) if taken[index] else direction
        found.setdefault(len(chosen), []).append(direction)
    return found


@pytest.mark.parametrize("name", [name for name in OURS if name != "bidirectional"])
def test_gradients_by_length_equal_all_paths_by_themselves(build, name):
    frozen = freeze(double(build, name), IDS)
    slow = enumerated_norms(frozen, loss_gradient(frozen))
    found = gradient_by_length(frozen)
    assert found.n_paths == tuple(map(len, slow.values()))
    for length, paths in slow.items():
        assert found.mean[length] == pytest.approx(np.mean([float(path.norm()) for path in paths]))
        assert found.whole[length] == pytest.approx(float(sum(paths).norm()))
    assert found.n_seen == found.n_paths and not found.error.any()
    assert found.effective.sum() == pytest.approx(1) and found.counted.sum() == pytest.approx(1)
    assert found.coherence.max() <= 1 + 1e-12
    assert found.coherence[0] == pytest.approx(1)


@pytest.mark.parametrize("name", ["LN, learned, biases", "RMSPre, parallel", "post-norm"])
def test_lengths_sum_to_the_gradient_that_autograd_finds(build, name):
    frozen = freeze(double(build, name), IDS)
    start = torch.stack(list(frozen.sources.values())).sum(0).requires_grad_()
    vector = loss_gradient(frozen)
    (frozen.forward(start) * vector).sum().backward()
    torch.testing.assert_close(length_gradients(frozen, vector).sum(0), start.grad)
    assert gradient_by_length(frozen).total == pytest.approx(float(start.grad.norm()))


def test_the_loss_gradient_is_that_of_the_readout(build):
    model = double(build, LINEAR)
    frozen = freeze(model, IDS)
    stream = frozen.stream.clone().requires_grad_()
    torch.nn.functional.cross_entropy(model.readout(stream)[:-1], torch.tensor(IDS[1:])).backward()
    torch.testing.assert_close(loss_gradient(frozen), stream.grad)


@pytest.mark.parametrize("parallel", [False, True])
def test_sampled_paths_estimate_the_mean_of_all(build, parallel):
    model = build(order="sfsfsf", norm="LNPre", positions="none", parallel=parallel).double()
    frozen = freeze(model, IDS)
    slow = enumerated_norms(frozen, loss_gradient(frozen))
    exact = {n: np.mean([float(path.norm()) for path in paths]) for n, paths in slow.items()}
    found = gradient_by_length(frozen, n_samples=5, seed=2)
    many = [gradient_by_length(frozen, n_samples=5, seed=seed).mean for seed in range(40)]
    for length, mean in enumerate(np.mean(many, axis=0)):
        spread = np.std(many, axis=0)[length] / math.sqrt(len(many))
        assert abs(mean - exact[length]) <= 4 * spread + 1e-9
    assert max(found.n_seen) == 5 and (found.error[1:-1] > 0).any()


def test_a_path_past_everything_is_the_direction_itself(build):
    frozen = freeze(double(build, "LN, learned, biases"), IDS)
    direction = logit_direction(frozen, 2)
    none = torch.zeros(1, len(frozen.steps), dtype=torch.bool)
    norm = path_norms(frozen, direction.vector, none)
    assert norm[0] == pytest.approx(float(direction.vector.norm()))
    found = gradient_by_length(frozen, direction)
    assert found.label == direction.label and found.whole[0] == pytest.approx(norm[0])


def test_smollm2_is_cut_and_its_norms_answer(smollm2):
    cut = [*deletions(smollm2, "layer")[-2:], *random_swaps(smollm2, [0], 1)]
    found = lesions(smollm2, "When Mary and John went to", cut)
    assert found.residual < 1e-3 and found.true.shape == (1, 3)
    assert found.true[0, 2] == pytest.approx(found.intact[0], abs=1e-3)
    # Behind the last MLP only the final norm is left to answer.
    assert found.frozen[0, 1] != pytest.approx(found.true[0, 1], abs=1e-3)


def test_what_cannot_be_cut_is_refused_by_name(build):
    model = build(order="s")
    with pytest.raises(ConfigError, match="layer, component"):
        lesions(model, IDS, "neuron")
    with pytest.raises(ConfigError, match=r"no 9\.9 to delete"):
        lesions(model, IDS, [Lesion("9.9", (Part("9.9", "head", 9, 9),))])
    with pytest.raises(ConfigError, match="no order of 1"):
        lesions(model, IDS, [Lesion("twice", order=(0, 0))])
    with pytest.raises(ConfigError, match="delete 0 to 1"):
        random_deletions(model, [2], 1)
    with pytest.raises(UnsupportedError, match="after every sum"):
        random_swaps(build(order="sf", norm="LN", norm_position="post"), [1], 1)
    with pytest.raises(UnsupportedError, match="side by side"):
        lesions(build(order="sf", norm="LN", parallel=True), IDS, [Lesion("", order=(1, 0))])
    with pytest.raises(UnsupportedError, match="no loss by order"):
        gradient_by_length(freeze(encoder(), IDS))
