"""What passes through neurons sums to what passes through their MLP, and is lost when they are silenced."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from tests.paths.exactness import model_of
from tests.paths.test_frozen import IDS, OURS, double
from tests.test_weights import PUBLIC
from workbench.errors import ConfigError
from workbench.paths.directions import logit_direction
from workbench.paths.frozen import freeze
from workbench.paths.neurons import through_neurons
from workbench.paths.through import paths_through
from workbench.stream.parts import Part

WITH_MLP = [name for name in OURS if "f" in OURS[name]["order"]]


def mlps_of(frozen):
    return [step.sublayer.layer for step in frozen.steps if step.kind == "mlp"]


def check_sums(frozen, tolerance):
    """Neurons against the totals of the MLP as a component and as a source."""
    direction = logit_direction(frozen, 2, distractor=5, pos=4)
    totals = paths_through(frozen, direction)
    through = dict(zip(totals.components, totals.through, strict=True))
    sources = dict(zip(totals.sources, totals.from_source, strict=True))
    for layer in mlps_of(frozen):
        found = through_neurons(frozen, direction, layer)
        size = tolerance * max(1.0, np.abs(found.values).max(), np.abs(found.constants).max())
        assert abs(found.residual) < size
        assert abs(found.values.sum() - through[Part(f"mlp {layer}", "mlp", layer)]) < size
        constant = found.constants.sum() + found.output_bias
        assert abs(constant - sources[Part(f"bias mlp {layer}", "bias", layer)]) < size


@pytest.mark.parametrize("name", WITH_MLP)
def test_neurons_sum_to_the_mlp_and_its_constant_in_our_models(build, name):
    check_sums(freeze(double(build, name), IDS), 1e-10)


@pytest.mark.parametrize("name", PUBLIC)
def test_neurons_sum_to_the_mlp_and_its_constant_in_public_models(name):
    check_sums(freeze(model_of(name, "float64"), IDS), 1e-10)


@pytest.mark.parametrize("name", ["LN, learned, biases", "post-norm", "RMSPre, parallel"])
def test_a_silenced_neuron_takes_its_total_with_it(build, name):
    """The slow way: the frozen network runs forward without the neuron's linear part."""
    frozen = freeze(double(build, name), IDS)
    direction = logit_direction(frozen, 2)
    index = next(n for n, step in enumerate(frozen.steps) if step.kind == "mlp")
    step = frozen.steps[index]
    found = through_neurons(frozen, direction, step.sublayer.layer)
    for neuron in (0, 3, 17):
        W_out = step.sublayer.W_out.clone()
        W_out[neuron] = 0
        silent = replace(step, sublayer=replace(step.sublayer, W_out=W_out))
        steps = (*frozen.steps[:index], silent, *frozen.steps[index + 1 :])
        # The constant stays: it is held apart from the weights.
        without = replace(frozen, steps=steps).levels[-1]
        lost = (direction.vector * (frozen.levels[-1] - without)).sum()
        assert found.values[neuron] == pytest.approx(float(lost), abs=1e-10)


def test_a_neuron_that_alone_writes_the_answer_has_the_whole_total(build):
    model = double(build, "relu")
    mlp = model.blocks[0].mlp
    chosen = int(freeze(model, IDS).run["mlp_post.0"][0, -1].argmax())
    with torch.no_grad():
        mlp.W_out[:chosen], mlp.W_out[chosen + 1 :] = 0, 0
    frozen = freeze(model, IDS)
    found = through_neurons(frozen, logit_direction(frozen, 2), 0)
    assert np.flatnonzero(found.values).tolist() == [chosen]
    assert found.values[chosen] == pytest.approx(found.through, abs=1e-12)


def test_the_table_keeps_the_sum_and_knows_the_axes(build):
    frozen = freeze(double(build, "RMS, rotary, grouped, gated"), IDS)
    found = through_neurons(frozen, logit_direction(frozen, 2), 1)
    assert found.by_token.shape == (len(found.neurons), len(IDS))
    top = found.top(3)
    assert len(top) == 4 and top["value"].sum() == pytest.approx(found.through, abs=1e-10)
    sizes = found.table()["value"].abs()
    assert top["value"].abs().iloc[0] == sizes.max()
    assert set(top["kind"]) == {"neuron", "rest"} and len(found.top(10**6)) == len(sizes)


def test_a_layer_without_an_mlp_is_refused_by_name(build):
    frozen = freeze(double(build, "tied"), IDS)
    with pytest.raises(ConfigError, match=r"no MLP in layer 0 .*none"):
        through_neurons(frozen, logit_direction(frozen, 2), 0)
    frozen = freeze(double(build, "relu"), IDS)
    with pytest.raises(ConfigError, match=r"layer 7 .* with one are 0"):
        through_neurons(frozen, logit_direction(frozen, 2), 7)
