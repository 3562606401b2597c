"""Wiring length is the published cost: slow oracle, gap, reductions, schedules, and layouts by hand."""

import math

import pytest
import torch
from torch.testing import assert_close

from tests.test_weights import OWN
from workbench.errors import ConfigError
from workbench.training.layouts import Layout, folded, grid, grid_layout, line, line_layout, ring
from workbench.training.mlp import MLP, MLPConfig
from workbench.training.regularizers.l1 import L1
from workbench.training.regularizers.strength import Piecewise
from workbench.training.regularizers.wiring import WiringLength, mean_wire_length, wiring_length
from workbench.training.wires import biases, wires

SHAPE = MLPConfig(widths=(4, 7, 5, 2), seed=1)
TOKENS = MLPConfig(widths=(12, 6, 9), embedding=11, in_fold=2)


def on_lines(model, **options):
    return WiringLength(strength=1.0, layout=line_layout(model), **options)


@pytest.mark.parametrize("reduction", ["sum", "mean"])
@pytest.mark.parametrize("last_distance", [True, False])
def test_it_is_the_published_cost_of_an_mlp(reduction, last_distance):
    """Unit by unit, as the formula reads."""
    model = MLP(SHAPE).double()
    total = 0.0
    for index, layer in enumerate(model.layers):
        n_in, n_out = layer.W.shape
        cost = 0.0
        for j in range(n_in):
            for k in range(n_out):
                d = abs((j + 0.5) / n_in - (k + 0.5) / n_out)
                d = d if last_distance or index < 2 else 0.0
                cost += abs(layer.W[j, k].item()) * (2.0 * d + 0.5)
        total += cost if reduction == "sum" else cost / (n_in * n_out)
        of_biases = layer.b.abs().sum().item() * 0.5
        total += of_biases if reduction == "sum" else of_biases / n_out
    options = {"reduction": reduction, "last_distance": last_distance}
    found = on_lines(model, per_distance=2.0, gap=0.5, **options).value(model)
    assert found.item() == pytest.approx(total, rel=1e-12)


def test_tokens_share_places_and_their_table_costs_the_gap_alone():
    model = MLP(TOKENS).double()
    model.in_perm.copy_(model.in_perm.flip(0))
    layout = line_layout(model)
    assert_close(layout.places["inputs"][:6], layout.places["inputs"][6:])
    whole = on_lines(model, gap=0.3, bias=0).value(model)
    without = on_lines(model, gap=0.3, bias=0, embedding=False).value(model)
    assert_close(whole - without, 0.3 * model.embed.W_E.abs().sum())


@pytest.mark.parametrize("name", OWN)
def test_of_a_transformer_every_parameter_counts_once(build, name):
    """Without distances the sum is the gap times all weights and biases."""
    model = build(**OWN[name]).double()
    counted = {block.name for block in wires(model)} | set(biases(model))
    sizes = [p.abs().sum() for key, p in model.named_parameters() if key in counted]
    found = on_lines(model, per_distance=0, gap=0.5).value(model)
    assert_close(found, 0.5 * torch.stack(sizes).sum())


def test_the_gap_is_an_l1_part_that_no_placement_removes():
    """Units that face each other: without a gap they are free, with one they cost their size."""
    model = MLP(MLPConfig(widths=(5, 5), bias=False)).double()
    with torch.no_grad():
        model.layers[0].W.copy_(torch.eye(5) * 3)
    assert on_lines(model, gap=0.0).value(model).item() == 0
    found = on_lines(model, gap=0.1).value(model)
    assert found.item() == pytest.approx(0.1 * 15)
    (gradient,) = torch.autograd.grad(found, model.layers[0].W)
    assert_close(gradient.diagonal(), torch.full((5,), 0.1).double())


def test_sum_and_mean_differ_by_the_number_of_weights():
    model = MLP(MLPConfig(widths=(6, 8), bias=False)).double()
    of_sum = on_lines(model, reduction="sum").value(model)
    assert_close(of_sum, 48 * on_lines(model, reduction="mean").value(model))


def test_shared_keys_count_once_at_the_mean_distance_of_their_copies(build):
    model = build(**OWN["RMS, rotary, grouped, gated"]).double()
    block = next(block for block in wires(model) if block.name == "blocks.0.attn.W_K")
    layout = line_layout(model)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(0)
        model.blocks[0].attn.W_K[1, 3, 2] = 1.0
    distances = layout.distances(block)
    expected = (distances[3, 2 * 8 + 2] + distances[3, 3 * 8 + 2]) / 2
    assert wiring_length(model, layout) == pytest.approx(float(expected))


@pytest.mark.parametrize("make", [on_lines, lambda model: L1(strength=1.0, bias=True)])
def test_prices_are_made_anew_for_another_network_or_other_parameters(make):
    """Prices are kept from step to step; a cast, a new parameter or a second network must not meet old ones."""
    model, other = MLP(SHAPE), MLP(MLPConfig(widths=(4, 3, 2)))
    penalty = make(model)
    seen = penalty.value(model)
    model.double()
    assert_close(penalty.value(model), make(model).value(model))
    assert penalty.value(model).dtype == torch.float64 and seen.dtype == torch.float32
    model.layers[0].W = torch.nn.Parameter(2 * model.layers[0].W.detach())
    assert_close(penalty.value(model), make(model).value(model))
    penalty.value(model).backward()
    assert model.layers[0].W.grad is not None
    if isinstance(penalty, L1):
        assert_close(penalty.value(other), make(other).value(other))
    with torch.no_grad():
        model.layers[1].W.mul_(3)
    assert_close(penalty.value(model), make(model).value(model))


def test_tokens_with_places_are_priced_where_their_inputs_stand_now():
    model = MLP(TOKENS).double()
    places = line_layout(model).places | {"tokens": line(11)}
    penalty = WiringLength(strength=1.0, layout=Layout(places), bias=0)
    before = penalty.value(model)
    model.in_perm.copy_(model.in_perm.flip(0))
    fresh = WiringLength(strength=1.0, layout=Layout(places), bias=0)
    assert_close(penalty.value(model), fresh.value(model))
    assert not torch.isclose(penalty.value(model), before)


def test_the_length_of_random_wires_is_a_third():
    model = MLP(MLPConfig(widths=(200, 200), bias=False))
    assert mean_wire_length(model, line_layout(model)) == pytest.approx(1 / 3, abs=0.01)


def test_strengths_jump_at_shares_of_the_steps():
    strength = Piecewise(((0, 1e-3), (0.25, 1e-2), (0.75, 1e-3)))
    assert [strength.at(share) for share in (0, 0.24, 0.25, 0.7, 0.75, 1.0)] == [
        1e-3,
        1e-3,
        1e-2,
        1e-2,
        1e-3,
        1e-3,
    ]
    model = MLP(SHAPE)
    late = Piecewise(((0, 0), (0.75, 1)))
    penalty = WiringLength(strength=strength, steps=100, layout=line_layout(model), bias=late)
    plain = on_lines(model, bias=0).value(model)
    with_biases = on_lines(model).value(model)
    for step, expected in (
        (0, 1e-3 * plain),
        (25, 1e-2 * plain),
        (74, 1e-2 * plain),
        (75, 1e-3 * with_biases),
    ):
        assert_close(penalty(model, step), expected)


def test_of_strength_zero_nothing_is_left():
    model = MLP(SHAPE)
    assert float(WiringLength(strength=0.0, layout=line_layout(model))(model, 3)) == 0


# --- layouts -----------------------------------------------------------------------------------------


def test_places_by_hand():
    assert_close(line(4)[:, 0], torch.tensor([0.125, 0.375, 0.625, 0.875]).double())
    assert_close(grid(2, 1), torch.tensor([[0.5, 0.25], [0.5, 0.75]]).double())
    assert_close(grid(1, 2), torch.tensor([[0.25, 0.5], [0.75, 0.5]]).double())
    assert_close((ring(10) - 0.5).norm(dim=1), torch.full((10,), 0.25).double())
    assert_close(folded(line(2), 3)[:, 0], torch.tensor([0.25, 0.75] * 3).double())


@pytest.mark.parametrize("metric", ["manhattan", "euclidean"])
def test_distances_on_grids(metric):
    model = MLP(MLPConfig(widths=(12, 9, 10)))
    layout = grid_layout(model, {"inputs": (3, 4)}, rings=("outputs",), metric=metric)
    first, last = (layout.distances(block) for block in wires(model))
    cell, other = layout.places["inputs"][7], layout.places["hidden 0"][2]
    dx, dy = (cell - other).abs().tolist()
    expected = dx + dy if metric == "manhattan" else math.hypot(dx, dy)
    assert float(first[7, 2]) == pytest.approx(expected, rel=1e-12)
    # The middle of the square is equally far from every place of the ring, by the straight line.
    middle = last[4]
    assert metric == "manhattan" or (middle - 0.25).abs().max() < 1e-12


def test_layouts_that_do_not_fit_are_refused():
    model = MLP(MLPConfig(widths=(12, 9, 10)))
    with pytest.raises(ConfigError, match=r"'inputs' has 12 units, a grid of 3 × 3"):
        grid_layout(model)
    with pytest.raises(ConfigError, match=r"no group 'hidden 3'; it has inputs"):
        grid_layout(model, {"hidden 3": (3, 3)})
    with pytest.raises(ConfigError, match="as many coordinates"):
        Layout({"inputs": line(12), "hidden 0": grid(3, 3)})
    with pytest.raises(ConfigError, match="not all finite"):
        Layout({"inputs": line(3) * torch.nan})
    with pytest.raises(ConfigError, match=r"has places for \[4, 9\]"):
        on_lines(MLP(MLPConfig(widths=(4, 9, 10)))).value(model)


@pytest.mark.parametrize("wrong", [-1.0, float("nan"), float("inf")])
@pytest.mark.parametrize("field", ["strength", "per_distance", "gap", "bias"])
def test_numbers_that_cannot_be_meant_are_refused(field, wrong):
    layout = line_layout(MLP(SHAPE))
    with pytest.raises(ConfigError, match=field):
        WiringLength(**{"strength": 1.0, "layout": layout} | {field: wrong})


@pytest.mark.parametrize(
    ("points", "said"),
    [
        ((), "rise from 0"),
        (((0.1, 1.0),), "rise from 0"),
        (((0, 1.0), (0.5, 2.0), (0.5, 3.0)), "rise from 0"),
        (((0, 1.0), (1.0, 2.0)), "below 1"),
        (((0, 1.0), (float("nan"), 2.0)), "rise from 0"),
        (((0, -1.0),), "from 0 on"),
        (((0, 1.0), (0.5, float("nan"))), "from 0.5 on"),
    ],
)
def test_schedules_that_cannot_be_meant_are_refused(points, said):
    with pytest.raises(ConfigError, match=said):
        Piecewise(points)


def test_a_schedule_needs_the_number_of_steps():
    layout, jumps = line_layout(MLP(SHAPE)), Piecewise(((0, 1.0), (0.5, 2.0)))
    with pytest.raises(ConfigError, match="strength changes"):
        WiringLength(strength=jumps, layout=layout)
    with pytest.raises(ConfigError, match="bias changes"):
        WiringLength(strength=1.0, bias=jumps, layout=layout)
    with pytest.raises(ConfigError, match="steps must be"):
        WiringLength(strength=1.0, steps=0, layout=layout)
