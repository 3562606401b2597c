import time
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose

from workbench.attention import (
    aligned,
    difference_maps,
    mean_maps,
    pattern_maps,
    score_maps,
    value_weighted_maps,
)
from workbench.errors import PromptError, SiteError
from workbench.runs import run
from workbench.sites import Head

SITES = ("pattern", "scores", "v")


def test_pattern_maps_are_the_pattern(model):
    kept = run(model, "abcab")
    maps = pattern_maps(kept)
    assert_allclose(maps.head(Head(1, 2)), kept.pattern(1)[0, 2])
    assert maps.query_tokens == ("^", "a", "b", "c", "a", "b")
    assert maps.limit == 1.0 and not maps.is_signed


@pytest.mark.parametrize("n_kv_heads", [None, 2])
def test_value_weighting_is_attention_times_the_length_of_the_value(build, n_kv_heads):
    model = build(n_kv_heads=n_kv_heads)
    kept = run(model, "abcab", sites=SITES)
    maps = value_weighted_maps(kept)
    group = 4 // (n_kv_heads or 4)
    for head in range(4):
        lengths = kept["v.1"][0, :, head // group].norm(dim=-1)
        assert_allclose(maps.layers[1][head], kept.pattern(1)[0, head] * lengths, rtol=1e-5)


def test_softmax_of_centred_scores_is_the_pattern(model):
    kept = run(model, "abcab", sites=SITES)
    centred = torch.tensor(score_maps(kept).layers[0])
    future = torch.ones_like(centred[0], dtype=torch.bool).triu(1)
    assert (centred[:, future] == 0).all()
    pattern = centred.masked_fill(future, -torch.inf).softmax(-1)
    assert_allclose(pattern, kept.pattern(0)[0], rtol=1e-4, atol=1e-6)
    assert_allclose(centred.sum(-1), 0, atol=1e-4)


def test_the_mean_over_prompts_reaches_as_far_as_the_shortest(model):
    kept = run(model, ["abcab", "abd"])
    maps = mean_maps(kept)
    expected = (kept.row(0).pattern(1)[0, :, :4, :4] + kept.row(1).pattern(1)[0]) / 2
    assert_allclose(maps.layers[1], expected, rtol=1e-5)
    assert maps.query_tokens == ("^", "a", "b", "position 3")


def test_a_run_differs_from_itself_by_nothing(model):
    maps = pattern_maps(run(model, "abcab"))
    for layer in difference_maps(maps, maps).layers:
        assert (layer == 0).all()


def test_a_replaced_token_is_aligned_with_its_replacement(model):
    before, after = (pattern_maps(run(model, prompt)) for prompt in ("abcab", "abdab"))
    maps = difference_maps(after, before)
    assert maps.key_tokens == ("^", "a", "b", "c→d", "a", "b")
    assert maps.is_signed
    assert_allclose(maps.layers[0], after.layers[0] - before.layers[0])


def test_an_inserted_token_is_left_out_and_said_so(model):
    before, after = (pattern_maps(run(model, prompt)) for prompt in ("abab", "abcab"))
    maps = difference_maps(after, before)
    assert maps.key_tokens == ("^", "a", "b", "a", "b")
    assert "1 unaligned" in maps.title
    assert_allclose(maps.layers[0][0, 4, 3], after.layers[0][0, 5, 4] - before.layers[0][0, 4, 3])


def test_alignment_pairs_equal_stretches_and_one_for_one_replacements():
    assert aligned("abc", "abc") == [(0, 0), (1, 1), (2, 2)]
    assert aligned("abcd", "abXXd") == [(0, 0), (1, 1), (3, 4)]
    assert aligned("abc", "xyz") == [(0, 0), (1, 1), (2, 2)]


def test_differences_need_one_kind_of_map_and_name_their_unit(model):
    kept = run(model, "abc", sites=SITES)
    with pytest.raises(PromptError, match="'scores' and 'pattern'"):
        difference_maps(score_maps(kept), pattern_maps(kept))
    assert difference_maps(score_maps(kept), score_maps(kept)).unit == "Δ score − row mean"
    assert difference_maps(pattern_maps(kept), pattern_maps(kept)).unit == "Δ attention"


def test_unequal_prompts_of_a_bidirectional_model_have_no_mean(build):
    model = build(causal=False)
    with pytest.raises(PromptError, match="4, 3 tokens"):
        mean_maps(run(model, ["abc", "ab"]))
    rows = mean_maps(run(model, ["abc", "cab"])).layers[0].sum(-1)
    assert_allclose(rows, 1, rtol=1e-5)


@settings(max_examples=50, deadline=None)
@given(before=st.text("abc", max_size=8), after=st.text("abc", max_size=8))
def test_an_alignment_is_ordered_and_keeps_all_that_is_equal(before, after):
    pairs = aligned(before, after)
    assert all(i < k and j < m for (i, j), (k, m) in pairwise(pairs))
    equal = sum(before[i] == after[j] for i, j in pairs)
    assert equal >= longest_common(before, after)


def longest_common(before, after):
    """The textbook recursion, slow and obvious."""
    if not before or not after:
        return 0
    if before[0] == after[0]:
        return 1 + longest_common(before[1:], after[1:])
    return max(longest_common(before[1:], after), longest_common(before, after[1:]))


def test_long_repetitive_prompts_are_aligned_at_once():
    start = time.perf_counter()
    aligned(["a"] * 3000, ["a", "b"] * 1500)
    assert time.perf_counter() - start < 5


def test_differences_need_the_same_heads(model, build):
    other = pattern_maps(run(build(order="s"), "abc"))
    with pytest.raises(PromptError, match="same heads"):
        difference_maps(other, pattern_maps(run(model, "abc")))


def test_the_table_has_one_row_for_every_cell_that_exists(model):
    table = pattern_maps(run(model, "abc")).table()
    assert len(table) == 2 * 4 * (4 * 5 // 2)
    assert (table["query"] >= table["key"]).all()
    sums = table.groupby(["layer", "head", "query"])["value"].sum()
    assert_allclose(sums, 1, rtol=1e-5)


def test_bidirectional_tables_have_every_cell(build):
    model = build(causal=False)
    assert len(pattern_maps(run(model, "abc")).table()) == 2 * 4 * 16


def test_a_layer_without_attention_is_none(build):
    maps = pattern_maps(run(build(order="fs"), "abc"))
    assert maps.layers[0] is None and np.ndim(maps.layers[1]) == 3


def test_a_missing_head_or_site_is_named(model):
    maps = pattern_maps(run(model, "abc"))
    with pytest.raises(SiteError, match=r"no head 1\.9"):
        maps.head(Head(1, 9))
    with pytest.raises(SiteError, match="did not keep scores"):
        score_maps(run(model, "abc"))
