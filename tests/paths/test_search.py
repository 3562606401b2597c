"""The search lists the largest paths, counts all, and its books always add up to the number."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.paths.test_frozen import IDS, OURS, double
from tests.test_weights import PUBLIC, public
from workbench.errors import ConfigError, PromptError
from workbench.paths import frontier
from workbench.paths.directions import logit_direction
from workbench.paths.frozen import freeze
from workbench.paths.orders import order_spectrum
from workbench.paths.search import Path, feeds, path_values, top_paths
from workbench.paths.through import paths_through
from workbench.stream.parts import Part

EVERYTHING = {"k": 10**6, "limit": 10**6}


def asked(frozen):
    return logit_direction(frozen, 2, distractor=5, pos=4)


def carried(frozen, x, start, stop):
    """A vector past the components of some steps, through the norms of their sums."""
    for step in frozen.steps[start:stop]:
        x = x if step.norm is None else step.norm.apply(x)
    return x


def brute_force(frozen, direction):
    """Every path's value, each made forwards by applying one map after the other."""
    found = {}
    n_steps = len(frozen.steps)

    def go_on(x, since, level, source, components):
        """`x` is what the last part wrote: it waits before the norm of step `since`, and enters `level`."""
        end = carried(frozen, x, since, n_steps)
        found[Path(source, components)] = float((end * direction.vector).sum())
        for index, step in enumerate(frozen.steps):
            if step.reads >= level:
                read = carried(frozen, x, since, step.reads)
                for part, written in zip(step.components, step.sublayer.parts(read), strict=True):
                    go_on(written, index, index + 1, source, (*components, part))

    for part, vector in frozen.sources.items():
        go_on(vector, 0, 0, part, ())
    for index, step in enumerate(frozen.steps):
        if step.constant.any():
            go_on(step.constant, index + 1, index + 1, step.bias, ())
    return found


@pytest.mark.parametrize("name", OURS)
def test_the_search_finds_every_path_at_its_value(build, name):
    frozen = freeze(double(build, name), IDS)
    direction = asked(frozen)
    slow = brute_force(frozen, direction)
    found = top_paths(frozen, direction, **EVERYTHING)
    assert found.is_complete and found.n_paths == len(slow) == len(found.paths)
    np.testing.assert_allclose(found.values, [slow[path] for path in found.paths], atol=1e-10)
    assert (np.diff(np.abs(found.values)) <= 1e-12).all()
    assert abs(found.residual) < 1e-10 and abs(found.remainder) < 1e-10
    few = top_paths(frozen, direction, k=5)
    np.testing.assert_allclose(few.values, found.values[:5], atol=1e-12)


@pytest.mark.parametrize("name", OURS)
def test_transposed_equals_forward_for_one_path(build, name):
    frozen = freeze(double(build, name), IDS)
    direction = asked(frozen)
    slow = brute_force(frozen, direction)
    for path in list(slow)[:: max(1, len(slow) // 7)]:
        values = path_values(frozen, direction, path)
        assert values.shape == (len(IDS),)
        assert values.sum() == pytest.approx(slow[path], abs=1e-10)


def test_by_token_is_what_the_path_makes_of_each_token_alone(build):
    frozen = freeze(double(build, "LNPre, sinusoidal"), IDS)
    direction = asked(frozen)
    found = top_paths(frozen, direction, **EVERYTHING)
    for path, values in zip(found.paths, found.by_token, strict=True):
        if path.source not in frozen.sources:
            continue
        for pos in range(len(IDS)):
            x = torch.zeros_like(frozen.stream)
            x[pos] = frozen.sources[path.source][pos]
            for component in path.components:
                step, place = frozen.place(component)
                x = frozen.steps[step].sublayer.parts(x)[place]
            assert values[pos] == pytest.approx(float((x * direction.vector).sum()), abs=1e-10)


@pytest.mark.parametrize("name", OURS)
def test_paths_by_order_are_the_order_spectrum(build, name):
    frozen = freeze(double(build, name), IDS)
    direction = asked(frozen)
    found = top_paths(frozen, direction, **EVERYTHING)
    spectrum = order_spectrum(frozen, direction).orders
    orders = np.array([path.order for path in found.paths])
    sums = [found.values[orders == order].sum() for order in range(len(spectrum))]
    np.testing.assert_allclose(sums, spectrum, atol=1e-10)


@pytest.mark.parametrize("name", [name for name in OURS if OURS[name]["order"]])
def test_feeds_sum_to_the_subtotal(build, name):
    frozen = freeze(double(build, name), IDS)
    direction = asked(frozen)
    through = paths_through(frozen, direction)
    at_end = feeds(frozen, direction, [])
    assert at_end.subtotal == direction.total - direction.bias
    assert abs(at_end.residual) < 1e-10
    for component in frozen.components:
        row, column = through.writers.index(component), len(through.components)
        found = feeds(frozen, direction, [component])
        assert abs(found.residual) < 1e-10
        # All that leaves the component straight for the end, of all that leaves it.
        assert found.subtotal == pytest.approx(through.edges[row, column], abs=1e-10)
    first, last = frozen.components[0], frozen.components[-1]
    if len(frozen.steps) > 2:
        both = feeds(frozen, direction, [first, last])
        alone = feeds(frozen, direction, [last])
        assert both.subtotal == pytest.approx(alone.values[alone.parts.index(first)], abs=1e-10)
        assert abs(both.residual) < 1e-10
        assert both.table()["value"].sum() == pytest.approx(both.subtotal, abs=1e-10)


SHAPES = [
    {"order": "s"},
    {"order": "sss", "norm": "RMS"},
    {"order": "fsf", "norm": "LN", "attn_bias": True},
    {"order": "sfsf", "norm": "RMS", "parallel": True},
    {"order": "sfsf", "norm": "LN", "norm_position": "post"},
]


@settings(max_examples=12, deadline=None)
@given(
    seed=st.integers(0, 1000),
    shape=st.sampled_from(SHAPES),
    limit=st.integers(1, 40),
    k=st.integers(1, 12),
)
def test_listed_and_open_are_always_the_total(build, seed, shape, limit, k):
    frozen = freeze(build(seed=seed, scale=2.0, **shape).double(), IDS)
    direction = asked(frozen)
    found = top_paths(frozen, direction, k=k, limit=limit)
    assert abs(found.residual) < 1e-10 * max(1.0, found.absolute, abs(found.total))
    assert found.listed + found.remainder + found.bias == pytest.approx(found.total)
    assert len(found.paths) <= k and found.n_expanded <= limit
    slow = brute_force(frozen, direction)
    assert found.n_paths == len(slow)
    np.testing.assert_allclose(found.values, [slow[path] for path in found.paths], atol=1e-9)


def test_no_sublayers_leave_the_embeddings_alone(build):
    frozen = freeze(double(build, "no layers"), IDS)
    found = top_paths(frozen, asked(frozen))
    assert [path.label for path in found.paths] == ["embed"] and found.n_paths == 1
    assert found.listed == pytest.approx(found.total - found.bias)
    assert found.cancellation == 1 and found.warning == ""


def test_parts_that_act_side_by_side_are_not_in_one_path(build):
    frozen = freeze(double(build, "RMSPre, parallel"), IDS)
    direction = asked(frozen)
    # Four heads and the MLP of each of two blocks; the first block's bias enters the second.
    embeddings = [path for path in brute_force(frozen, direction) if path.source.kind != "bias"]
    assert len(embeddings) == len(frozen.sources) * 6 * 6
    with pytest.raises(ConfigError, match=r"0\.1 does not feed mlp 0"):
        feeds(frozen, direction, [Part("0.1", "head", 0, 1), Part("mlp 0", "mlp", 0)])


@pytest.mark.parametrize("name", PUBLIC)
def test_the_books_of_public_models_are_kept(name):
    frozen = freeze(public(name), IDS)
    found = top_paths(frozen, asked(frozen), k=5, limit=30)
    assert abs(found.residual) < 1e-4 * max(found.absolute, abs(found.total))


def test_each_reason_to_stop_is_kept_to(build):
    # Weights so small that what the embedding writes for itself is most of the logit.
    model = build(scale=0.5, order="sfsf", norm="LN", attn_bias=True).double()
    frozen = freeze(model, IDS)
    direction = asked(frozen)
    whole = top_paths(frozen, direction, **EVERYTHING)
    size = np.abs(whole.values)
    short = {"limit": whole.n_expanded - 1}
    assert top_paths(frozen, direction, k=10**6, limit=3).ended_by == "limit"
    few = top_paths(frozen, direction, k=3, **short)
    assert few.ended_by == "count" and few.n_expanded < whole.n_expanded - 1
    assert frontier.MARGIN * few.largest_open <= abs(few.values[-1])
    above = top_paths(frozen, direction, k=10**6, threshold=float(size[6]), **short)
    assert above.ended_by == "threshold" and above.largest_open < size[6]
    assert (np.abs(above.values) >= size[6]).all()
    covered = top_paths(frozen, direction, k=10**6, coverage=0.9, **short)
    assert covered.ended_by == "coverage" and len(covered.paths) < whole.n_paths
    assert abs(covered.remainder) <= 0.1 * abs(covered.total - covered.bias)
    enough = top_paths(frozen, direction, coverage=0.9, **EVERYTHING)
    assert enough.is_complete
    assert size[len(enough.paths) :].sum() <= 0.1 * abs(enough.total - enough.bias) + 1e-12


def test_a_search_can_be_ended_from_outside(build):
    frozen = freeze(double(build, "LN, learned, biases"), IDS)
    told = []

    def stop(done, whole):
        told.append((done, whole))
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        top_paths(frozen, asked(frozen), progress=stop)
    assert len(told) == 1 and told[0][0] <= told[0][1]


def test_tables_hold_every_path_and_every_token(build):
    frozen = freeze(double(build, "LN, learned, biases"), IDS)
    found = top_paths(frozen, asked(frozen), k=7)
    table, tokens = found.table(), found.token_table()
    assert table["value"].sum() == pytest.approx(found.listed)
    assert table["share"].sum() == pytest.approx(found.listed / found.total)
    assert len(tokens) == 7 * len(IDS)
    assert tokens["value"].sum() == pytest.approx(found.listed)
    assert tokens["token"].tolist()[: len(IDS)] == list(found.str_tokens)


def test_cancelling_paths_carry_a_warning(build):
    frozen = freeze(double(build, "no norm, shortformer"), IDS)
    direction = asked(frozen)
    plain = top_paths(frozen, direction)
    assert bool(plain.warning) == (plain.cancellation > 3)
    # A token against itself: the number is 0 and every path too.
    nothing = top_paths(frozen, logit_direction(frozen, 2, distractor=2))
    assert nothing.total == 0 and not nothing.values.any() and nothing.warning == ""
    assert nothing.table()["share"].isna().all()


def test_smollm2_has_1e39_paths_and_its_largest_are_found_quickly(smollm2):
    frozen = freeze(smollm2, "When Mary and John went to the store, John gave a drink to")
    direction = logit_direction(frozen, " Mary", distractor=" John")
    found = top_paths(frozen, direction)
    assert found.n_paths == 20**30 and not found.is_complete
    assert len(found.paths) == 20 and found.ended_by == "count"
    assert abs(found.residual) < 1e-4 * found.absolute
    for path, value in zip(found.paths[:3], found.values, strict=False):
        assert path_values(frozen, direction, path).sum() == pytest.approx(value, rel=1e-6)


def test_what_cannot_be_asked_is_refused_by_name(build):
    frozen = freeze(double(build, "RMS, rotary, grouped, gated"), IDS)
    direction = asked(frozen)
    for wrong, match in (
        ({"k": 0}, "k is 0"),
        ({"limit": 0}, "limit is 0"),
        ({"threshold": -1.0}, "threshold is -1"),
        ({"coverage": 1.5}, r"coverage is 1\.5"),
    ):
        with pytest.raises(ConfigError, match=match):
            top_paths(frozen, direction, **wrong)
    embed, mlp, head = Part("embed", "embed"), Part("mlp 0", "mlp", 0), Part("0.1", "head", 0, 1)
    with pytest.raises(ConfigError, match=r"mlp 0 does not feed 0\.1"):
        path_values(frozen, direction, Path(embed, (mlp, head)))
    with pytest.raises(ConfigError, match=r"no component 9\.9"):
        feeds(frozen, direction, [Part("9.9", "head", 9, 9)])
    with pytest.raises(ConfigError, match="no path starts at bias mlp 1"):
        path_values(frozen, direction, Path(Part("bias mlp 1", "bias", 1)))
    with pytest.raises(PromptError):
        logit_direction(frozen, 2, pos=99)
    biased = freeze(double(build, "LN, learned, biases"), IDS)
    with pytest.raises(ConfigError, match=r"bias mlp 1 enters behind 0\.1"):
        path_values(biased, asked(biased), Path(Part("bias mlp 1", "bias", 1), (head,)))
