"""Chains of heads: one path each, all of them together a whole order, and a pattern of their own."""

import itertools

import numpy as np
import pytest
import torch

from tests.paths.exactness import model_of
from tests.paths.test_frozen import IDS, OURS, double
from tests.test_weights import PUBLIC
from workbench.composition.virtual import virtual_pattern
from workbench.errors import ConfigError
from workbench.paths.chains import chain_pattern, head_chains
from workbench.paths.directions import logit_direction
from workbench.paths.frozen import freeze
from workbench.paths.orders import order_spectrum
from workbench.paths.search import Path, path_values
from workbench.sites import Head

WITH_HEADS = [name for name in OURS if "s" in OURS[name]["order"]]
EVERY = 10**6


def carried(frozen, x, chain):
    """A start carried forwards through the heads of a chain and the norms that it passes. Slow."""
    since = 0
    for part in chain:
        step, place = frozen.place(part)
        x = past(frozen, x, since, frozen.steps[step].reads)
        x, since = frozen.steps[step].sublayer.parts(x)[place], step
    return past(frozen, x, since, len(frozen.steps))


def past(frozen, x, start, stop):
    for step in frozen.steps[start:stop]:
        x = x if step.norm is None else step.norm.apply(x)
    return x


def all_chains(frozen, length):
    """Every choice of heads, each in a later step than the one before."""
    heads = [part for part in frozen.components if part.kind == "head"]
    chosen = itertools.combinations(heads, length)
    return [chain for chain in chosen if len({part.layer for part in chain}) == length]


@pytest.mark.parametrize("length", [1, 2])
@pytest.mark.parametrize("name", WITH_HEADS)
def test_every_chain_is_what_it_carries_forwards(build, name, length):
    frozen = freeze(double(build, name), IDS)
    direction = logit_direction(frozen, 2, distractor=5, pos=6)
    found = head_chains(frozen, direction, length=length, k=EVERY)
    assert set(found.chains) == set(all_chains(frozen, length))
    assert found.n_chains == len(found.chains) and abs(found.residual) < 1e-10
    assert found.whole == pytest.approx(found.values.sum() + found.constants.sum(), abs=1e-10)
    for chain, value, by_token in zip(found.chains, found.values, found.by_token, strict=True):
        slow = (direction.vector * carried(frozen, frozen.levels[0], chain)).sum()
        assert value == pytest.approx(float(slow), abs=1e-10)
        assert value == pytest.approx(by_token.sum(), abs=1e-10)


@pytest.mark.parametrize("name", PUBLIC)
def test_chains_of_public_models_sum_to_a_layer_by_layer_pass(name):
    frozen = freeze(model_of(name, "float64"), IDS)
    found = head_chains(frozen, logit_direction(frozen, 2), k=EVERY)
    assert found.n_chains == 16 and abs(found.residual) < 1e-10
    assert found.whole == pytest.approx(found.values.sum() + found.constants.sum(), abs=1e-10)


@pytest.mark.parametrize("name", ["LN, learned, biases", "post-norm", "RMSPre, parallel"])
def test_a_chain_is_the_path_of_every_source_through_it(build, name):
    frozen = freeze(double(build, name), IDS)
    direction = logit_direction(frozen, 2, pos=5)
    found = head_chains(frozen, direction, k=3)
    for chain, by_token, constant in zip(
        found.chains, found.by_token, found.constants, strict=True
    ):
        paths = [path_values(frozen, direction, Path(part, chain)) for part in frozen.sources]
        np.testing.assert_allclose(np.sum(paths, axis=0), by_token, atol=1e-10)
        step, _ = frozen.place(chain[0])
        earlier = [
            here.bias for here in frozen.steps[: frozen.steps[step].reads] if here.constant.any()
        ]
        from_biases = [path_values(frozen, direction, Path(part, chain)).sum() for part in earlier]
        assert constant == pytest.approx(sum(from_biases), abs=1e-10)


@pytest.mark.parametrize(
    "name", ["no norm, shortformer", "shortformer behind a norm", "unequal heads"]
)
def test_in_attention_only_models_everything_is_direct_a_head_or_a_chain(build, name):
    frozen = freeze(double(build, name), IDS)
    direction = logit_direction(frozen, 2, distractor=5)
    starts = [*frozen.sources.values(), *frozen.constants.values()]
    direct = float((direction.vector * torch.stack(starts).sum(0)).sum())
    chains = [head_chains(frozen, direction, length=length) for length in (1, 2)]
    whole = direct + sum(found.whole for found in chains) + direction.bias
    assert whole == pytest.approx(direction.total, abs=1e-10)
    orders = order_spectrum(frozen, direction).orders
    assert [found.whole for found in chains] == pytest.approx(orders[1:], abs=1e-10)


@pytest.mark.parametrize("norm", ["LN", "none"])
def test_chains_of_three_heads(build, norm):
    frozen = freeze(build(order="ssfs", norm=norm, n_heads=2, mlp_bias=True).double(), IDS)
    direction = logit_direction(frozen, 2)
    told = []
    found = head_chains(
        frozen,
        direction,
        length=3,
        k=EVERY,
        progress=lambda done, whole: told.append((done, whole)),
    )
    assert found.n_chains == 8 and abs(found.residual) < 1e-10 and told[-1] == (6, 6)
    for chain, value in zip(found.chains, found.values, strict=True):
        slow = (direction.vector * carried(frozen, frozen.levels[0], chain)).sum()
        assert value == pytest.approx(float(slow), abs=1e-10)


def test_the_largest_come_first_and_the_table_names_them(build):
    frozen = freeze(double(build, "RMS, rotary, grouped, gated"), IDS)
    direction = logit_direction(frozen, 2)
    every, few = (head_chains(frozen, direction, k=k) for k in (EVERY, 4))
    assert few.chains == every.chains[:4] and few.n_chains == every.n_chains == 16
    assert (np.diff(np.abs(every.values)) <= 0).all() and few.whole == every.whole
    first, last = few.chains[0]
    assert few.table()["chain"][0] == f"{first.label} → {last.label}"


def test_a_chain_looks_where_its_patterns_lead(build):
    frozen = freeze(double(build, "no norm, shortformer"), IDS)
    found = chain_pattern(frozen, [Head(0, 1), Head(1, 2)])
    first, last = (frozen.run.pattern(layer)[0, head] for layer, head in ((0, 1), (1, 2)))
    for query, key in itertools.product(range(len(IDS)), repeat=2):
        slow = sum(last[query, between] * first[between, key] for between in range(len(IDS)))
        assert found[query, key] == pytest.approx(float(slow), abs=1e-12)
    torch.testing.assert_close(found.sum(-1), torch.ones(len(IDS), dtype=torch.float64))
    parts = [part for part in frozen.components if part.label in ("0.1", "1.2")]
    assert torch.equal(found, chain_pattern(frozen, parts))
    assert torch.equal(found, virtual_pattern(frozen.run, Head(1, 2), Head(0, 1)))


def test_where_one_head_a_layer_writes_there_is_one_chain(build):
    model = build(order="ss", n_heads=2, d_head=16, positions="none", attn_bias=True).double()
    with torch.no_grad():
        for block in model.blocks:
            block.attn.W_O[1] = 0
    frozen = freeze(model, IDS)
    found = head_chains(frozen, logit_direction(frozen, 2), k=EVERY)
    values = dict(zip([tuple(p.label for p in c) for c in found.chains], found.values, strict=True))
    assert [chain for chain, value in values.items() if value] == [("0.0", "1.0")]
    assert abs(found.residual) < 1e-10


def test_what_is_no_chain_is_refused_by_name(build):
    frozen = freeze(double(build, "LN, learned, biases"), IDS)
    direction = logit_direction(frozen, 2)
    with pytest.raises(ConfigError, match=r"no component 9\.1"):
        chain_pattern(frozen, [Head(9, 1)])
    for heads in ([Head(1, 0), Head(0, 0)], [Head(1, 0), Head(1, 1)], []):
        with pytest.raises(ConfigError, match="each in a later layer"):
            chain_pattern(frozen, heads)
    for wrong in ({"length": 0}, {"length": 4}, {"k": 0}):
        with pytest.raises(ConfigError, match="lengths are 1 to 3"):
            head_chains(frozen, direction, **wrong)
    flat = freeze(double(build, "no layers"), IDS)
    none = head_chains(flat, logit_direction(flat, 2))
    assert none.chains == () and none.whole == none.residual == 0 and none.table().empty
