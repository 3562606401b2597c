"""The frozen network is the model's own pass; orders, components, edges and sources add up to its numbers."""

import itertools

import numpy as np
import pytest
import torch

from tests.test_weights import OWN, PUBLIC, encoder, public, randomised
from workbench.errors import ConfigError, PromptError, UnsupportedError
from workbench.paths.directions import logit_direction
from workbench.paths.frozen import freeze
from workbench.paths.orders import order_spectrum
from workbench.paths.through import paths_through
from workbench.stream.parts import Part

IDS = [3, 7, 7, 2, 11, 3, 7, 0]
OURS = OWN | {
    "AdaNorm": {"order": "sfsf", "norm": "Ada"},
    "post-norm": {
        "order": "sfsf",
        "norm": "LN",
        "norm_position": "post",
        "attn_bias": True,
        "mlp_bias": True,
    },
    "bidirectional": {"order": "sf", "norm": "LN", "causal": False},
    "relu": {"order": "sf", "norm": "LN", "mlp": "relu", "mlp_bias": True},
    "no layers": {"order": "", "positions": "none"},
    "no layers, learned": {"order": ""},
}


def double(build, name):
    return randomised(build, OURS[name]).double()


def enumerated(frozen, direction):
    """Every path by itself: what it adds, by order. Slow; for few steps."""
    found = {}
    starts = [(0, vector) for vector in frozen.sources.values()]
    for source, vector in starts:
        for length in range(len(frozen.steps) + 1):
            for chosen in itertools.combinations(range(len(frozen.steps)), length):
                x = vector
                for index in chosen:
                    x = frozen.steps[index].sublayer.apply(x)
                found[source, chosen] = found.get((source, chosen), 0.0) + float(
                    (x * direction.vector).sum()
                )
    by_order = np.zeros(len(frozen.steps) + 1)
    for (_, chosen), value in found.items():
        by_order[len(chosen)] += value
    return by_order


@pytest.mark.parametrize("name", OURS)
def test_freezing_gives_back_the_stream_of_our_models(build, name):
    assert freeze(double(build, name), IDS).residual < 1e-12
    assert freeze(randomised(build, OURS[name]), IDS).residual < 1e-5


@pytest.mark.parametrize("name", [*PUBLIC, "bert"])
def test_freezing_gives_back_the_stream_of_public_models(name):
    assert freeze(public(name), IDS).residual < 1e-5


@pytest.mark.parametrize("name", OURS)
@pytest.mark.parametrize("distractor", [None, 5, "mean"])
def test_orders_sources_and_edges_sum_to_the_logit(build, name, distractor):
    model = double(build, name)
    frozen = freeze(model, IDS)
    direction = logit_direction(frozen, 2, distractor=distractor, pos=4)
    with torch.no_grad():
        logits = model(torch.tensor([IDS]))[0, 4]
    less = {None: 0.0, 5: logits[5], "mean": logits.mean()}[distractor]
    assert direction.total == pytest.approx(float(logits[2] - less), abs=1e-12)
    orders, through = order_spectrum(frozen, direction), paths_through(frozen, direction)
    assert abs(orders.residual) < 1e-10 and abs(through.residual) < 1e-10
    np.testing.assert_allclose(through.from_source, _by_source(orders, through), atol=1e-10)
    np.testing.assert_allclose(orders.by_token.sum(0), through.by_token, atol=1e-10)
    n_sources, n_components = len(through.sources), len(through.components)
    leaving = np.nansum(through.edges[n_sources:], axis=1)
    entering = np.nansum(through.edges[:, :n_components], axis=0)
    np.testing.assert_allclose(leaving, through.through, atol=1e-10)
    np.testing.assert_allclose(entering, through.through, atol=1e-10)


def _by_source(orders, through):
    sums = dict(zip(orders.sources, orders.values.sum(0), strict=True))
    return [sums[part] for part in through.sources]


@pytest.mark.parametrize("name", PUBLIC)
def test_orders_of_public_models_sum_to_the_logit_difference(name):
    frozen = freeze(public(name), IDS)
    direction = logit_direction(frozen, 2, distractor=5, pos=4)
    orders, through = order_spectrum(frozen, direction), paths_through(frozen, direction)
    size = np.abs(orders.orders).max()
    assert abs(orders.residual) < 1e-4 * size and abs(through.residual) < 1e-4 * size


@pytest.mark.parametrize(
    "name", ["no norm, shortformer", "LNPre, sinusoidal", "RMS, rotary, grouped, gated"]
)
def test_the_recursion_equals_enumerating_every_path(build, name):
    frozen = freeze(double(build, name), IDS)
    direction = logit_direction(frozen, 2, pos=5)
    orders = order_spectrum(frozen, direction)
    of_embeddings = [part in frozen.sources for part in orders.sources]
    slow = enumerated(frozen, direction)
    np.testing.assert_allclose(orders.values[:, of_embeddings].sum(1), slow, atol=1e-10)


@pytest.mark.parametrize("name", [name for name in OURS if OURS[name]["order"]])
def test_transposed_maps_are_the_transposes(build, name):
    frozen = freeze(double(build, name), IDS)
    generator = torch.Generator().manual_seed(0)
    shape = frozen.stream.shape
    x, u = (torch.randn(shape, generator=generator, dtype=torch.float64) for _ in range(2))
    for step in frozen.steps:
        there, back = step.sublayer.apply(x), step.sublayer.transpose(u)
        assert float((u * there).sum()) == pytest.approx(float((back * x).sum()), rel=1e-10)
        torch.testing.assert_close(step.sublayer.parts(x).sum(0), there)
        torch.testing.assert_close(step.sublayer.transposed_parts(u).sum(0), back)


def test_counting_heads_or_mlps_or_chosen_ones_keeps_the_sum(build):
    frozen = freeze(double(build, "LN, learned, biases"), IDS)
    direction = logit_direction(frozen, 2, pos=6)
    whole = order_spectrum(frozen, direction)
    assert len(whole.orders) == 5
    chosen = [Part("0.1", "head", 0, 1), Part("mlp 1", "mlp", 1)]
    for counted, most in (("heads", 3), ("mlps", 3), (chosen, 3), ([], 1)):
        found = order_spectrum(frozen, direction, counted=counted)
        assert len(found.orders) == most and abs(found.residual) < 1e-10
    # Counting one component, order 1 is what goes through it.
    one = order_spectrum(frozen, direction, counted=[chosen[0]])
    through = paths_through(frozen, direction)
    place = through.components.index(chosen[0])
    assert one.orders[1] == pytest.approx(through.through[place], abs=1e-10)


def test_a_component_that_is_cut_out_takes_its_total_with_it(build):
    """Prediction = intervention: with everything else frozen, what is lost is what went through it."""
    frozen = freeze(double(build, "RMS, rotary, grouped, gated"), IDS)
    direction = logit_direction(frozen, 2, distractor=5)
    through = paths_through(frozen, direction)
    for place, part in enumerate(through.components):
        x = torch.stack(list(frozen.sources.values())).sum(0)
        for step in frozen.steps:
            written = step.sublayer.parts(x)
            if part in step.components:
                written[step.components.index(part)] = 0
            x = x + written.sum(0) + step.sublayer.constant
        left = float((direction.vector * x).sum()) + direction.bias
        assert direction.total - left == pytest.approx(through.through[place], abs=1e-10)


def test_smollm2_adds_up_with_its_cancellation_in_sight(smollm2):
    prompt = "When Mary and John went to the store, John gave a drink to"
    frozen = freeze(smollm2, prompt)
    direction = logit_direction(frozen, " Mary", distractor=" John")
    orders = order_spectrum(frozen, direction)
    assert len(orders.orders) == 61 and frozen.residual < 1e-4
    assert direction.total == pytest.approx(6.12, abs=0.01)
    assert abs(orders.residual) < 1e-5 * np.abs(orders.orders).sum()
    assert orders.cancellation > 5


def test_what_cannot_be_asked_is_refused_by_name(build):
    frozen = freeze(double(build, "relu"), IDS)
    with pytest.raises(PromptError, match="no position 8"):
        logit_direction(frozen, 2, pos=8)
    with pytest.raises(PromptError, match="no token 99"):
        logit_direction(frozen, 99)
    with pytest.raises(ConfigError, match="heads, mlps"):
        order_spectrum(frozen, logit_direction(frozen, 2), counted="layers")
    with pytest.raises(ConfigError, match=r"no component 9\.9"):
        order_spectrum(frozen, logit_direction(frozen, 2), counted=[Part("9.9", "head", 9, 9)])
    with pytest.raises(UnsupportedError, match="no unembedding"):
        logit_direction(freeze(encoder(), IDS))
    with pytest.raises(PromptError, match="2 prompts"):
        freeze(frozen.model, [IDS, IDS])
