"""The ranking equals brute force over all triples; a planted head's trigrams and bugs are found."""

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.testing import assert_close

from tests.circuit_models import KINDS, dense_ov, dense_qk, randomised
from tests.conftest import letters
from tests.trigram_models import planted, slow_best, slow_scores
from workbench import load
from workbench.errors import ConfigError, PromptError, SiteError, UnsupportedError
from workbench.sites import Head
from workbench.trigrams.listing import bugs, skip_trigrams
from workbench.trigrams.ranking import Side, best_triples
from workbench.weights import effective_weights

PLACES = ("source", "destination", "out")
HEAD = Head(0, 0)


def spelled(trigrams):
    columns = (trigrams.source, trigrams.destination, trigrams.out)
    return [
        "".join(trigrams.texts[int(token)] for token in triple)
        for triple in zip(*columns, strict=True)
    ]


def offset_of(model):
    return 1 if model.cfg.positions == "rotary" else 0


def given_sets():
    """Every choice of places that may be given."""
    sizes = range(len(PLACES) + 1)
    return [chosen for size in sizes for chosen in itertools.combinations(PLACES, size)]


@pytest.fixture(scope="module")
def keeper():
    """a … b → c, the paper's `keep … in → mind` and `keep … at → bay` in letters: k, i, m, a, b."""
    return planted(letters(), [("a", "b", "c"), ("k", "id", "mb")])


def test_a_planted_head_has_the_planted_trigrams_and_no_others(keeper):
    found = skip_trigrams(effective_weights(keeper), HEAD, per_source=9)
    assert sorted(spelled(found)) == sorted(["abc", "kib", "kim", "kdb", "kdm"])
    assert len(skip_trigrams(effective_weights(keeper), Head(0, 1))) == 0


def test_attention_and_output_are_measured_from_the_mean(keeper):
    found = skip_trigrams(effective_weights(keeper), HEAD, source="a")
    # 16 / sqrt(4) at one key of 18, and 8 at one output of 18, each less its mean.
    assert_close(found.attention, np.array([8 * 17 / 18], np.float32))
    assert_close(found.output, np.array([8 * 17 / 18], np.float32))
    assert_close(found.score, found.attention * found.output)


def test_bugs_are_the_crossed_trigrams_of_pairs_with_one_source(keeper):
    weights = effective_weights(keeper)
    whole = skip_trigrams(weights, HEAD, source="k")
    keep = [index for index, text in enumerate(spelled(whole)) if text in ("kim", "kdb")]
    listed = type(whole)(**{**vars(whole), **{f: vars(whole)[f][keep] for f in FIELDS}})
    found = bugs(listed)
    assert sorted(spelled(found)) == ["kdm", "kib"]
    kib = spelled(found).index("kib")
    assert found.because[kib] == ("k … i … m", "k … d … b")
    scores = dict(zip(spelled(whole), whole.score.tolist(), strict=True))
    assert_close(found.score.tolist(), [scores[text] for text in spelled(found)])
    assert list(found.table().columns[-2:]) == ["destination_from", "out_from"]


FIELDS = ("source", "destination", "out", "attention", "output")


def test_a_list_that_holds_all_crossings_implies_no_bugs(keeper):
    found = bugs(skip_trigrams(effective_weights(keeper), HEAD, per_source=9))
    assert len(found) == 0 and found.table().empty


def test_bugs_of_a_real_list_have_the_scores_of_the_circuits(build):
    model = randomised(build, "shortformer")
    listed = skip_trigrams(effective_weights(model), HEAD, k=30, per_source=4)
    found = bugs(listed)
    dense = slow_scores(dense_qk(model, HEAD), dense_ov(model, HEAD))
    assert len(found) > 0 and not set(found.triples) & set(listed.triples)
    expected = [float(dense[triple]) for triple in found.triples]
    assert_close(found.score.tolist(), expected)
    assert expected == sorted(expected, reverse=True)
    pairs = itertools.combinations(listed.triples, 2)
    crossed = {t for a, b in pairs if a[0] == b[0] for t in ((*a[:2], b[2]), (*b[:2], a[2]))}
    assert set(found.triples) == crossed - set(listed.triples)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("chosen", given_sets(), ids=lambda places: "+".join(places) or "none")
def test_the_ranking_equals_brute_force_over_all_triples(build, kind, chosen):
    model = randomised(build, kind)
    weights = effective_weights(model)
    for head, per_source in ((weights.heads[0], 2), (weights.heads[-1], 50)):
        attention = dense_qk(model, head, offset_of(model))
        dense = slow_scores(attention, dense_ov(model, head))
        tokens = {place: 3 + PLACES.index(place) for place in chosen}
        among = [slice(None)] * 3
        for place, token in tokens.items():
            among[PLACES.index(place)] = slice(token, token + 1)
        found = skip_trigrams(weights, head, k=20, per_source=per_source, **tokens)
        each = 20 if "source" in chosen else per_source
        expected = slow_best(dense[tuple(among)], 20, each)
        assert_close(torch.from_numpy(found.score), expected, atol=1e-9, rtol=1e-9)
        for triple, attended, raised in zip(
            found.triples, found.attention, found.output, strict=True
        ):
            source, destination, _ = triple
            assert attended == pytest.approx(float(attention[destination, source]), abs=1e-9)
            assert attended * raised == pytest.approx(float(dense[triple]), abs=1e-9)
            assert all(triple[PLACES.index(place)] == token for place, token in tokens.items())
        assert len(set(found.triples)) == len(found)
        counts = np.bincount(found.source) if len(found) else np.zeros(1)
        assert counts.max() <= each


def test_attn_1l_equals_an_independent_dense_computation():
    model = load("attn-1l")
    weights, W_E = effective_weights(model), model.W_E.detach().double()
    for head in (0, 4):
        W_Q, W_K, W_V, W_O = (
            getattr(model.blocks[0].attn, f"W_{x}")[head].detach().double() for x in "QKVO"
        )
        attention = W_E @ W_Q @ W_K.T @ W_E.T / W_Q.shape[1] ** 0.5
        attention = attention - attention.mean(1, keepdim=True)
        output = W_E @ W_V @ W_O @ model.W_U.detach().double()
        output = output - output.mean(1, keepdim=True)
        worth = attention.amax(0) * output.amax(1)
        found = skip_trigrams(weights, Head(0, head), k=100, per_source=1)
        assert_close(
            torch.from_numpy(found.score).double(), worth.topk(100).values, rtol=1e-4, atol=0
        )
        best = worth.topk(100).indices
        assert set(found.source.tolist()) == set(best.tolist())
        one = skip_trigrams(weights, Head(0, head), k=30, source=" for")
        token = int(one.source[0])
        products = attention[:, token].clamp(min=0)[:, None] * output[token].clamp(min=0)
        expected = products.flatten().topk(30)
        assert_close(torch.from_numpy(one.score).double(), expected.values, rtol=1e-4, atol=0)
        places = {divmod(index, len(W_E)) for index in expected.indices.tolist()}
        assert {(b, c) for _, b, c in one.triples} == places


def hostile_sides():
    generator = torch.Generator().manual_seed(0)

    def noise(*shape):
        return torch.randn(shape, generator=generator, dtype=torch.float64)

    flat = torch.nn.functional.normalize(noise(40, 5), dim=1)
    huge = noise(40, 5)
    huge[7] *= 1e6
    return {
        "ties": (torch.ones(40, 5).double(), torch.ones(30, 5).double()),
        "zero rows": (noise(40, 5) * (torch.arange(40) % 3 == 0)[:, None], noise(30, 5)),
        "equal norms": (flat, flat[:30]),
        "one huge row": (huge, noise(30, 5)),
        "one huge column": (noise(40, 5), huge[:30]),
        "rank one": (noise(40, 1) @ noise(1, 5), noise(30, 5)),
        "all zero": (torch.zeros(40, 5).double(), torch.zeros(30, 5).double()),
        "nothing raised": (torch.ones(40, 5).double(), -torch.ones(30, 5).double()),
        "fewer columns than the rank": (noise(40, 5), noise(2, 5)),
    }


@pytest.mark.parametrize("first", hostile_sides())
@pytest.mark.parametrize("second", hostile_sides())
def test_ranking_is_exact_where_nothing_or_everything_can_be_dropped(first, second):
    sides = hostile_sides()
    attention, output = Side(*sides[first]), Side(*sides[second])
    dense = slow_scores(attention.columns @ attention.rows.T, output.rows @ output.columns.T)
    for k, each in ((7, 1), (7, 7), (100, 3)):
        found = best_triples(attention, output, k, each)
        expected = slow_best(dense, k, each)
        scale = max(1.0, float(expected.max())) if len(expected) else 1.0
        assert_close(found.attention * found.output, expected, atol=1e-10 * scale, rtol=1e-10)


@given(
    seed=st.integers(0, 10_000),
    shape=st.tuples(st.integers(1, 40), st.integers(1, 25), st.integers(1, 25), st.integers(1, 6)),
    k=st.integers(1, 60),
    each=st.integers(1, 60),
    spread=st.floats(0, 3),
)
@settings(max_examples=60, deadline=None)
def test_ranking_is_exact_for_any_shape(seed, shape, k, each, spread):
    generator = torch.Generator().manual_seed(seed)
    n, n_destinations, n_outs, rank = shape

    def factor(rows):
        size = torch.randn(rows, 1, generator=generator, dtype=torch.float64) * spread
        return torch.randn(rows, rank, generator=generator, dtype=torch.float64) * size.exp()

    attention, output = Side(factor(n), factor(n_destinations)), Side(factor(n), factor(n_outs))
    dense = slow_scores(attention.columns @ attention.rows.T, output.rows @ output.columns.T)
    found = best_triples(attention, output, k, each)
    assert_close(found.attention * found.output, slow_best(dense, k, min(each, k)))


def test_progress_counts_up_and_can_cancel():
    weights = effective_weights(load("attn-1l"))
    steps = []
    skip_trigrams(weights, HEAD, progress=lambda done, total: steps.append((done, total)))
    assert steps == [(step, steps[-1][1]) for step in range(1, steps[-1][1] + 1)]

    class Cancelled(Exception):
        pass

    def cancel(done, total):
        raise Cancelled

    with pytest.raises(Cancelled):
        skip_trigrams(weights, HEAD, progress=cancel)


def test_text_and_ids_name_the_same_tokens(keeper):
    weights = effective_weights(keeper)
    by_text = skip_trigrams(weights, HEAD, source="k", destination="i", out=None)
    assert by_text.triples == skip_trigrams(weights, HEAD, source=12, destination=10).triples
    assert set(by_text.table()["destination"]) == {"i"}


def test_the_table_is_tidy_and_says_its_unit(build):
    weights = effective_weights(build(norm="LN"))
    table = skip_trigrams(weights, weights.heads[0]).table()
    assert list(table.columns) == [
        *("source", "destination", "out", "attention", "output", "score", "unit"),
        *("source_id", "destination_id", "out_id"),
    ]
    assert set(table["unit"]) == {"score × σ² · logits × σ²"}
    assert table["score"].is_monotonic_decreasing
    np.testing.assert_allclose(table["score"], table["attention"] * table["output"])


def test_a_head_can_be_given_by_its_weights(build):
    weights = effective_weights(build(order="ss"))
    named, given_weights = (skip_trigrams(weights, head) for head in (HEAD, weights.head(HEAD)))
    assert named.triples == given_weights.triples and given_weights.label == "0.0"


def test_offsets_count_with_rotary_positions_only(build):
    weights = effective_weights(build(order="s", positions="rotary"))
    default = skip_trigrams(weights, HEAD)
    assert default.offset == 1
    assert default.triples == skip_trigrams(weights, HEAD, offset=1).triples
    assert default.triples != skip_trigrams(weights, HEAD, offset=9).triples
    plain = effective_weights(build(order="s"))
    assert skip_trigrams(plain, HEAD).offset is None
    with pytest.raises(ConfigError, match="offset 3"):
        skip_trigrams(plain, HEAD, offset=3)


def test_models_without_a_tokenizer_are_ranked_by_id(build):
    model = build(order="s")
    model.tokenizer = None
    found = skip_trigrams(effective_weights(model), HEAD, source=3)
    assert set(found.table()["source"]) == {"3"}
    with pytest.raises(PromptError, match="no tokenizer"):
        skip_trigrams(effective_weights(model), HEAD, source="a")


def test_fewer_predicted_tokens_than_read_ones(build):
    weights = effective_weights(build(order="s", d_vocab_out=5))
    assert set(skip_trigrams(weights, HEAD).out.tolist()) <= set(range(5))
    with pytest.raises(PromptError, match="no out 7"):
        skip_trigrams(weights, HEAD, out=7)


@pytest.mark.parametrize(
    ("fields", "error", "words"),
    [
        ({"k": 0}, ConfigError, "k must be a whole number from 1"),
        ({"k": 10**9}, ConfigError, "k must"),
        ({"per_source": 0}, ConfigError, "per_source"),
        ({"source": 18}, PromptError, "no token 18"),
        ({"source": "zz"}, PromptError, "'zz' is not one token"),
        ({"destination": ""}, PromptError, "at least one character"),
        ({"out": True}, PromptError, "bool"),
        ({"sauce": 3}, ConfigError, "'sauce'"),
    ],
)
def test_what_cannot_be_meant_is_refused(build, fields, error, words):
    with pytest.raises(error, match=words):
        skip_trigrams(effective_weights(build(order="s")), HEAD, **fields)


def test_models_without_skip_trigrams_are_refused_by_name(build):
    with pytest.raises(UnsupportedError, match="letters normalises after each sum"):
        skip_trigrams(effective_weights(build(norm="LN", norm_position="post")), HEAD)
    with pytest.raises(SiteError, match=r"attn-0l has no head 0\.0"):
        skip_trigrams(effective_weights(load("attn-0l")), HEAD)
    broken = build(order="s")
    with torch.no_grad():
        broken.blocks[0].attn.W_V[0, 0, 0] = torch.nan
    with pytest.raises(UnsupportedError, match=r"OV weights of 0\.0 are not all finite"):
        skip_trigrams(effective_weights(broken), HEAD)
