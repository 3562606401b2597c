"""The flow of a number is conserved at every place, and its edges add up to what goes through each head."""

import numpy as np
import pytest

from tests.paths.test_frozen import IDS, OURS, double
from tests.test_weights import PUBLIC, public
from workbench.errors import ConfigError
from workbench.paths.directions import logit_direction
from workbench.paths.flow import path_flow
from workbench.paths.frozen import freeze
from workbench.paths.through import paths_through

WHOLE = 10**6


def flow_of(model, **options):
    frozen = freeze(model, IDS)
    direction = logit_direction(frozen, 2, distractor=5, pos=6)
    return frozen, direction, path_flow(frozen, direction, **options)


def by_place(flow, column):
    """The sum of all edges of heads by step and by query or key."""
    table = flow.table().query("kind == 'head'")
    found = np.zeros(flow.skip.shape)
    np.add.at(found, (table["step"].to_numpy(int), table[column].to_numpy(int)), table["value"])
    return found


@pytest.mark.parametrize("name", OURS)
def test_edges_sum_to_what_goes_through_each_head(build, name):
    frozen, direction, flow = flow_of(double(build, name), most=WHOLE)
    through = paths_through(frozen, direction)
    known = dict(zip(through.components, through.through, strict=True))
    np.testing.assert_allclose(flow.through, [known[head] for head in flow.heads], atol=1e-10)
    np.testing.assert_allclose(flow.left_out, 0, atol=1e-10)
    assert abs(flow.residual) < 1e-10 and len(flow.values) == flow.n_edges
    for step, part in enumerate(step.components[0] for step in frozen.steps):
        if part.kind == "mlp":
            assert flow.mlp[step].sum() == pytest.approx(known[part], abs=1e-10)


@pytest.mark.parametrize("name", OURS)
def test_what_arrives_at_a_place_and_what_leaves_it_is_what_passes_through(build, name):
    _, _, flow = flow_of(double(build, name), most=WHOLE)
    mlp = np.nan_to_num(flow.mlp)
    arriving = flow.skip + by_place(flow, "query") + mlp + flow.constant
    np.testing.assert_allclose(arriving, flow.nodes[1:], atol=1e-10)
    leaving = flow.skip.copy()
    for step, level in enumerate(flow.reads):
        leaving[level] += by_place(flow, "key")[step] + mlp[step]
    np.testing.assert_allclose(leaving, flow.nodes[:-1], atol=1e-10)


@pytest.mark.parametrize("name", OURS)
def test_every_level_carries_the_whole_number_but_for_later_constants(build, name):
    _, direction, flow = flow_of(double(build, name))
    carried = flow.nodes.sum(1) + direction.bias
    for step, level in enumerate(flow.reads):
        carried[: step + 1] += flow.constant[step].sum()
        carried[level + 1 : step + 1] += np.nansum(flow.mlp[step])  # jumps over, in parallel blocks
    np.testing.assert_allclose(carried, direction.total, atol=1e-10)


@pytest.mark.parametrize("name", PUBLIC)
def test_flows_of_public_models_add_up(name):
    frozen, direction, flow = flow_of(public(name), most=WHOLE)
    through = paths_through(frozen, direction)
    known = dict(zip(through.components, through.through, strict=True))
    size = np.abs(flow.skip).max()
    np.testing.assert_allclose(flow.through, [known[head] for head in flow.heads], atol=1e-4 * size)
    assert abs(flow.residual) < 1e-4 * size


@pytest.mark.parametrize("name", ["RMS, rotary, grouped, gated", "post-norm", "bidirectional"])
def test_an_edge_is_lost_with_its_cell_of_the_pattern(build, name):
    """Prediction = intervention: one cell of one frozen pattern set to zero."""
    frozen, direction, flow = flow_of(double(build, name), most=40)
    for (step, head, query, key), value in list(zip(flow.places, flow.values, strict=True))[::8]:
        pattern = frozen.steps[step].sublayer.pattern
        kept = float(pattern[head, query, key])
        pattern[head, query, key] = 0
        without = path_flow(freeze_levels(frozen), direction)
        pattern[head, query, key] = kept
        lost = direction.total - (without.nodes[-1].sum() + direction.bias)
        assert lost == pytest.approx(value, abs=1e-10)


def freeze_levels(frozen):
    """The same network, its levels computed anew."""
    return type(frozen)(**{name: getattr(frozen, name) for name in frozen.__dataclass_fields__})


def test_the_largest_edges_are_listed_and_what_is_left_out_is_said(build):
    model = double(build, "LN, learned, biases")
    _, _, whole = flow_of(model, most=WHOLE)
    _, _, some = flow_of(model, most=7)
    assert np.abs(whole.values).tolist() == sorted(np.abs(whole.values), reverse=True)
    np.testing.assert_array_equal(some.places, whole.places[:7])
    np.testing.assert_allclose(some.left_out.sum() + some.values.sum(), whole.through.sum())
    assert some.n_edges == whole.n_edges


def test_steps_are_told_and_nonsense_is_refused(build):
    told = []
    flow_of(double(build, "relu"), progress=lambda done, of: told.append((done, of)))
    assert told == [(1, 2), (2, 2)]
    with pytest.raises(ConfigError, match="cannot list -1"):
        flow_of(double(build, "relu"), most=-1)
