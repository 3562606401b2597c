"""Loss by order: streams of all orders are those of enumerated paths; the last loss is the model's own."""

import itertools
import math

import numpy as np
import pytest
import torch

from tests.paths.test_frozen import IDS, OURS, double
from tests.test_weights import PUBLIC, encoder, public
from workbench.errors import ConfigError, PromptError, UnsupportedError
from workbench.paths.ablation import frozen_logits, order_ablation
from workbench.paths.directions import logit_direction
from workbench.paths.frozen import freeze
from workbench.paths.order_streams import first_order, order_streams, path_counts
from workbench.paths.orders import order_spectrum
from workbench.stream.parts import Part

COUNTED = ["all", "heads", "mlps"]
CAUSAL = [name for name in OURS if name != "bidirectional"]
TWO = [IDS, [5, 1, 1, 9, 4, 2, 2, 8]]


def enumerated(frozen, counted):
    """Every source through every choice of components by itself, by how many of them count. Slow."""
    kinds = {"all": ("attn", "mlp"), "heads": ("attn",), "mlps": ("mlp",)}[counted]
    steps = frozen.steps
    starts = [(0, vector) for vector in frozen.sources.values()]
    starts += [
        (index + 1, step.sublayer.constant.expand_as(frozen.stream))
        for index, step in enumerate(steps)
    ]
    n_orders = 1 + sum(step.kind in kinds for step in steps)
    found = torch.zeros(n_orders, *frozen.stream.shape, dtype=frozen.stream.dtype)
    for first, vector in starts:
        for chosen in itertools.product([False, True], repeat=len(steps) - first):
            taken = [first + place for place, taken in enumerate(chosen) if taken]
            x = vector
            for index in taken:
                x = steps[index].sublayer.apply(x)
            order = sum(steps[index].kind in kinds for index in taken)
            found[order] += x
    return found


@pytest.mark.parametrize(
    "name", ["no norm, shortformer", "RMS, rotary, grouped, gated", "half steps, gated, LN", "relu"]
)
@pytest.mark.parametrize("counted", COUNTED)
def test_streams_by_order_equal_enumerated_paths(build, name, counted):
    frozen = freeze(double(build, name), IDS)
    torch.testing.assert_close(order_streams(frozen, counted), enumerated(frozen, counted))


@pytest.mark.parametrize("name", OURS)
@pytest.mark.parametrize("counted", [*COUNTED, "chosen"])
def test_streams_by_order_sum_to_the_stream_and_are_the_orders_of_every_direction(
    build, name, counted
):
    frozen = freeze(double(build, name), IDS)
    if counted == "chosen":
        counted = frozen.components[1::2]
    streams = order_streams(frozen, counted)
    torch.testing.assert_close(streams.sum(0), frozen.stream)
    direction = logit_direction(frozen, 2, distractor=5, pos=4)
    orders = order_spectrum(frozen, direction, counted=counted).orders
    asked = (streams * direction.vector).flatten(1).sum(1).numpy()
    size = max(len(orders), len(asked))
    orders, asked = (np.pad(values, (0, size - len(values))) for values in (orders, asked))
    np.testing.assert_allclose(asked, orders, atol=1e-9)


@pytest.mark.parametrize("name", OURS)
@pytest.mark.parametrize("counted", ["all", "heads"])
def test_first_order_terms_sum_to_order_one(build, name, counted):
    frozen = freeze(double(build, name), IDS)
    terms = [term for _, _, found in first_order(frozen, counted) for term in found]
    parts = [part for _, found, _ in first_order(frozen, counted) for part in found]
    counted_kinds = {"all": "head mlp", "heads": "head", "mlps": "mlp"}[counted]
    assert parts == [part for part in frozen.components if part.kind in counted_kinds]
    streams = order_streams(frozen, counted)
    order_one = streams[1] if len(streams) > 1 else torch.zeros_like(frozen.stream)
    torch.testing.assert_close(sum(terms, torch.zeros_like(frozen.stream)), order_one)


@pytest.mark.parametrize("name", CAUSAL)
@pytest.mark.parametrize("counted", ["all", "heads"])
def test_the_loss_of_the_last_order_is_the_model_s_own(build, name, counted):
    model = double(build, name)
    found = order_ablation(model, TWO, counted=counted, detail="none")
    with torch.no_grad():
        logits = model(torch.tensor(TWO))[:, :-1]
    own = [
        float(torch.nn.functional.cross_entropy(row, torch.tensor(ids[1:])))
        for row, ids in zip(logits, TWO, strict=True)
    ]
    np.testing.assert_allclose(found.model_loss, own, atol=1e-12)
    assert found.residual < 1e-10
    np.testing.assert_allclose(found.uniform + found.marginal.sum(1), own, atol=1e-10)


@pytest.mark.parametrize("name", PUBLIC)
def test_public_models_end_at_their_own_loss(name):
    found = order_ablation(public(name), [IDS], detail="layer")
    assert found.residual < 1e-4 * found.loss.max()


@pytest.mark.parametrize("name", ["LN, learned, biases", "RMSPre, parallel", "post-norm"])
def test_a_term_alone_and_on_top_is_the_loss_with_and_without_it(build, name):
    """Against streams put together by hand."""
    frozen = freeze(double(build, name), IDS)
    found = order_ablation(frozen.model, [IDS])
    streams = order_streams(frozen)

    def loss(stream):
        logits = frozen_logits(frozen, stream, is_whole=True)[:-1]
        return float(torch.nn.functional.cross_entropy(logits, torch.tensor(IDS[1:])))

    np.testing.assert_allclose(
        found.loss[0], [loss(stream) for stream in streams.cumsum(0)], atol=1e-10
    )
    direct, both = streams[0], streams[0] + streams[1]
    for step, parts, terms in first_order(frozen):
        layer = Part(f"{step.kind} {step.sublayer.layer}", step.kind, step.sublayer.layer)
        single = zip(parts, terms, strict=True) if step.kind == "attn" else []
        for part, term in [(layer, terms.sum(0)), *single]:
            place = found.parts.index(part)
            alone, on_top = loss(direct + term) - loss(direct), loss(both) - loss(both - term)
            assert found.alone[0, place] == pytest.approx(alone, abs=1e-9)
            assert found.on_top[0, place] == pytest.approx(on_top, abs=1e-9)


def test_with_one_layer_of_heads_alone_and_on_top_are_the_whole_of_order_one(build):
    found = order_ablation(build(order="s", seed=3).double(), TWO)
    assert found.parts[0].label == "attn 0"
    np.testing.assert_allclose(found.alone[:, 0], found.marginal[:, 1], atol=1e-10)
    np.testing.assert_allclose(found.on_top[:, 0], found.marginal[:, 1], atol=1e-10)


def test_without_embeddings_that_differ_nothing_is_learnt_from_order_zero(build):
    """A planted case: the unembedding reads nothing, so every order guesses."""
    model = build(order="ss").double()
    with torch.no_grad():
        model.unembed.W_U.zero_()
    found = order_ablation(model, [IDS])
    np.testing.assert_allclose(found.loss, math.log(18), atol=1e-12)
    np.testing.assert_allclose(found.marginal, 0, atol=1e-12)


@pytest.mark.parametrize(
    ("fields", "counts"),
    [
        ({"order": "ss"}, {"all": (1, 8, 16), "heads": (1, 8, 16), "mlps": (1,)}),
        ({"order": "sfsf", "norm": "LN"}, {"all": (1, 10, 33, 40, 16), "mlps": (1, 2, 1)}),
        # Attention and MLP of a parallel block act side by side.
        ({"order": "sfsf", "norm": "LN", "parallel": True}, {"all": (1, 10, 25)}),
    ],
)
def test_paths_of_each_order_are_counted(build, fields, counts):
    frozen = freeze(build(**fields), IDS)
    for counted, expected in counts.items():
        assert path_counts(frozen, counted) == expected
    found = {}
    for length in range(3):
        for chosen in itertools.combinations(range(len(frozen.steps)), length):
            follows = all(frozen.steps[b].reads > a for a, b in itertools.pairwise(chosen))
            widths = [frozen.steps[index].sublayer.n_parts for index in chosen]
            found[length] = found.get(length, 0) + follows * math.prod(widths)
    assert tuple(found.values()) == path_counts(frozen)[:3]


def test_means_weigh_tokens_and_intervals_resample_prompts(build):
    model = build(order="ss").double()
    texts = ["abcab", "abcdefghijk", "aabbccdd"]
    found = order_ablation(model, texts)
    single = [order_ablation(model, text) for text in texts]
    weights = np.array([int(one.n_tokens[0]) for one in single])
    losses = np.stack([one.loss[0] for one in single])
    np.testing.assert_allclose(found.loss, losses, atol=1e-12)
    table = found.table()
    np.testing.assert_allclose(table["loss"], (losses * weights[:, None]).sum(0) / weights.sum())
    assert (table["loss_low"] <= table["loss"]).all() and (
        table["loss"] <= table["loss_high"]
    ).all()
    assert table["loss_low"].min() >= losses.min() and table["loss_high"].max() <= losses.max()
    assert np.isnan(single[0].table()["loss_low"]).all()  # one prompt has no interval
    parts = found.part_table()
    assert list(parts["part"][:2]) == ["attn 0", "0.0"] and len(parts) == 2 * 5


def test_progress_is_told_prompt_by_prompt(build):
    told = []
    order_ablation(build(order="s"), TWO, progress=lambda *done: told.append(done))
    assert told == [(1, 2), (2, 2)]


def test_in_smollm2_short_paths_alone_are_worse_than_guessing(smollm2):
    text = "When Mary and John went to the store,"
    found = order_ablation(smollm2, text, detail="none")
    assert found.loss.shape == (1, 61) and found.residual < 1e-3
    assert found.loss[0].max() > 2 * found.uniform > found.model_loss[0]


def test_what_cannot_be_asked_is_refused_by_name(build):
    model = build(order="s")
    with pytest.raises(ConfigError, match="none, layer, component"):
        order_ablation(model, [IDS], detail="heads")
    with pytest.raises(ConfigError, match="all, heads, mlps"):
        order_ablation(model, [IDS], counted="layers")
    with pytest.raises(PromptError, match="one token"):
        order_ablation(model, [[3]])
    with pytest.raises(UnsupportedError, match="looks ahead"):
        order_ablation(build(order="s", causal=False), [IDS])
    with pytest.raises(UnsupportedError, match="no loss by order"):
        order_ablation(encoder(), [IDS])
