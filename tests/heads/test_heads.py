import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose

from workbench.errors import SiteError, UnsupportedError
from workbench.heads.behaviours import (
    BEHAVIOURS,
    badges,
    duplicate_token,
    head_scores,
    induction,
    previous_token,
)
from workbench.heads.kernels import positional_kernel
from workbench.prompts import random_repeats, random_tokens
from workbench.runs import run
from workbench.sites import Head

SHARP = 100.0


@pytest.fixture(scope="module")
def planted(build):
    """A previous-token head (0.0) that writes what it reads where an induction head (1.0) looks for it."""
    n_ctx, d_vocab = 32, 18
    d_model = 2 * d_vocab + n_ctx
    model = build(
        order="ss", n_heads=1, d_head=n_ctx, d_model=d_model, n_ctx=n_ctx, positions="shortformer"
    )
    token, before, position = (
        slice(0, d_vocab),
        slice(d_vocab, 2 * d_vocab),
        slice(2 * d_vocab, d_model),
    )
    eye = torch.eye(n_ctx)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
        model.embed.W_E[:, token] = torch.eye(d_vocab)
        model.pos_embed.W_pos[:, position] = eye
        first, second = (block.attn for block in model.blocks)
        first.W_Q[0, position] = SHARP * torch.roll(eye, -1, dims=1)  # position i asks for i - 1
        first.W_K[0, position] = eye
        first.W_V[0, token, :d_vocab] = torch.eye(d_vocab)
        first.W_O[0, :d_vocab, before] = torch.eye(d_vocab)
        second.W_Q[0, token, :d_vocab] = SHARP * torch.eye(d_vocab)
        second.W_K[0, before, :d_vocab] = torch.eye(d_vocab)
    return model


@pytest.fixture(scope="module")
def uniform(build):
    model = build(order="ss")
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
    return model


def test_planted_heads_are_found_and_nothing_else(planted):
    scores = head_scores(planted, n_prompts=8)
    assert scores.best("previous-token") == Head(0, 0)
    assert scores.best("induction") == Head(1, 0)
    assert scores.value(Head(0, 0), "previous-token") > 0.99
    assert scores.value(Head(1, 0), "induction") > 0.99
    assert scores.value(Head(0, 0), "induction") < 0.15
    assert scores.value(Head(1, 0), "previous-token") < 0.5
    labels = badges(scores)
    assert labels[Head(0, 0)][0].behaviour == "previous-token"
    assert labels[Head(1, 0)][0].behaviour == "induction"


def test_uniform_attention_scores_chance_exactly(uniform):
    table = head_scores(uniform, n_prompts=6).table()
    assert_allclose(table["value"], table["chance"], rtol=1e-5)
    assert badges(head_scores(uniform, n_prompts=6)) == {}


@pytest.mark.parametrize("name", BEHAVIOURS)
def test_targets_match_their_definition_spelled_out(name):
    tokens = torch.tensor([[0, 3, 4, 5, 3, 4, 5, 3]])
    row = tokens[0].tolist()
    meant = {
        "previous-token": lambda q, k: k == q - 1,
        "current-token": lambda q, k: k == q,
        "duplicate-token": lambda q, k: k < q and row[k] == row[q],
        "induction": lambda q, k: 0 < k < q and row[k - 1] == row[q],
        "first-token": lambda q, k: k == 0 and q > 0,
    }[name]
    expected = [[meant(q, k) for k in range(8)] for q in range(8)]
    assert BEHAVIOURS[name](tokens)[0].tolist() == expected


def test_induction_sums_over_all_earlier_copies():
    tokens = torch.tensor([[1, 2, 1, 2, 1]])
    assert induction(tokens)[0, 4].tolist() == [False, True, False, True, False]
    assert duplicate_token(tokens)[0, 4].tolist() == [True, False, True, False, False]
    assert not previous_token(tokens)[0, 0].any()


def test_the_interval_holds_the_mean_and_narrows_with_prompts(model):
    few, many = (head_scores(model, n_prompts=n).table() for n in (4, 32))
    for table in (few, many):
        assert ((table["low"] <= table["value"]) & (table["value"] <= table["high"])).all()
    assert (many["high"] - many["low"]).mean() < (few["high"] - few["low"]).mean()


def test_scores_depend_on_the_seed_alone(model):
    first, again, other = (head_scores(model, n_prompts=4, seed=s).table() for s in (1, 1, 2))
    assert first.equals(again)
    assert not np.allclose(first["value"], other["value"])


def test_random_repeats_differ_in_period_and_phase(model):
    rows = random_repeats(model, 32, 32, seed=0)
    assert (rows[:, 0] == 0).all(), "the special token stands first"
    assert (rows[:, 1:] >= 2).all(), "special tokens are not drawn"
    offsets = set()
    for row in rows:
        copies = [int(q - k) for q, k in duplicate_token(row[None])[0].nonzero()]
        offsets.add((min(copies), int(duplicate_token(row[None])[0].any(-1).nonzero()[0])))
    assert len({period for period, _ in offsets}) > 3
    assert len(offsets) > 10


def test_the_kernel_of_a_previous_token_head_is_one_step(planted):
    kernel = positional_kernel(planted, n_prompts=4).set_index(["layer", "head", "offset"])
    assert kernel.loc[(0, 0, 1), "value"] > 0.99
    assert kernel.loc[(0, 0, 2), "value"] < 0.01


def test_kernel_equals_the_mean_of_each_diagonal(model):
    prompt = random_tokens(model, 1, 12, seed=0)
    pattern = run(model, prompt).pattern(1)[0, 2]
    kernel = positional_kernel(model, n_prompts=1, n_pos=12).set_index(["layer", "head", "offset"])
    expected = np.mean([float(pattern[q, q - 3]) for q in range(3, 12)])
    assert_allclose(kernel.loc[(1, 2, 3), "value"], expected, rtol=1e-5)


def test_entropy_and_distance_match_their_sums(model):
    prompt = "abcdabcd"
    table = head_scores(model, prompts=[prompt]).table().set_index(["layer", "head", "behaviour"])
    pattern = run(model, prompt).pattern(0)[0, 1].double()
    rows = range(1, len(pattern))
    entropy = np.mean([sum(-float(p * p.log()) for p in pattern[q] if p > 0) for q in rows])
    distance = np.mean([sum(float(pattern[q, k]) * (q - k) for k in range(q + 1)) for q in rows])
    assert_allclose(table.loc[(0, 1, "entropy"), "value"], entropy, rtol=1e-5)
    assert_allclose(table.loc[(0, 1, "distance"), "value"], distance, rtol=1e-5)


def test_prompts_without_a_repeat_have_no_induction_score(model):
    table = head_scores(model, prompts=["abcd", "efgh"]).table()
    assert "induction" not in set(table["behaviour"])
    assert "previous-token" in set(table["behaviour"])


def test_a_context_too_short_for_repeats_is_refused_by_name(build):
    with pytest.raises(UnsupportedError, match="letters reads 3"):
        head_scores(build(n_ctx=3))


def test_layers_of_unequal_heads_each_get_their_own(build):
    table = head_scores(build(head_sizes=((16, 4), (8, 8, 2))), n_prompts=2).table()
    heads = {(int(r.layer), int(r.head)) for r in table.itertuples()}
    assert heads == {(0, 0), (0, 1), (1, 0), (1, 1), (1, 2)}


def test_a_kernel_sees_no_content(planted, model):
    """The planted induction head matches tokens: on tokens that never repeat it has nothing to go by."""
    for row in random_tokens(model, 8, 16, seed=0):
        assert len(set(row.tolist())) == 16
    kernel = positional_kernel(planted, n_prompts=8, n_pos=16)
    induction_head = kernel[(kernel["layer"] == 1) & (kernel["cells"] > 4)]
    assert_allclose(induction_head["value"], induction_head["chance"], atol=0.02)


def test_a_bidirectional_kernel_looks_ahead_too(build):
    model = build(causal=False)
    table = positional_kernel(model, n_prompts=1, n_pos=12).set_index(["layer", "head", "offset"])
    pattern = run(model, random_tokens(model, 1, 12, seed=0)).pattern(0)[0, 1]
    ahead = np.mean([float(pattern[q, q + 2]) for q in range(10)])
    assert_allclose(table.loc[(0, 1, -2), "value"], ahead, rtol=1e-5)
    assert table.loc[(0, 1, -2), "cells"] == 10
    sums = (table["value"] * table["cells"]).groupby(["layer", "head"]).sum()
    assert_allclose(sums, 12, rtol=1e-5)


def test_scores_do_not_depend_on_how_prompts_are_batched(model):
    prompts = ["abcabc", "abab", "cdcdcd", "abcdabcd"]
    together = head_scores(model, prompts=prompts).table()
    alone = [head_scores(model, prompts=prompt).table() for prompt in prompts]
    for behaviour in ("previous-token", "induction", "entropy"):
        means = [t[t["behaviour"] == behaviour]["value"].to_numpy() for t in alone]
        both = together[together["behaviour"] == behaviour]["value"]
        assert_allclose(both, np.mean(means, axis=0), rtol=1e-5)


def test_progress_is_told_as_it_comes(model):
    told = []
    head_scores(model, n_prompts=10, progress=lambda done, of: told.append((done, of)))
    assert told == [(8, 10), (10, 10)]


def test_chance_beyond_a_sliding_window_is_refused(model, monkeypatch):
    monkeypatch.setattr(type(model.cfg), "window", 8)
    assert len(random_repeats(model, 1, 8, seed=0)[0]) == 8
    with pytest.raises(UnsupportedError, match="sees 8 tokens at once"):
        head_scores(model, prompts=["abcabcabcabc"])


def test_one_prompt_has_scores_but_no_badges(model):
    scores = head_scores(model, prompts="abcabc")
    assert scores.table()["low"].isna().all()
    with pytest.raises(UnsupportedError, match="score two or more"):
        badges(scores)


@pytest.mark.parametrize("settings", [{"n_prompts": 0}, {"n_pos": 0}, {"seed": -1}])
def test_settings_that_cannot_be_meant_are_refused(model, settings):
    (name,) = settings
    with pytest.raises(UnsupportedError, match=f"{name} must be a whole number"):
        head_scores(model, **settings)


def test_a_model_without_attention_has_no_scores(build):
    with pytest.raises(UnsupportedError, match="no attention"):
        head_scores(build(order="ff"))


def test_unknown_heads_and_behaviours_are_named(model):
    scores = head_scores(model, n_prompts=2)
    with pytest.raises(SiteError, match=r"no scores of 'inductions'.*induction"):
        scores.best("inductions")
    with pytest.raises(SiteError, match=r"no head 0\.9"):
        scores.value(Head(0, 9), "induction")
    with pytest.raises(SiteError, match="layer 7"):
        scores.best("induction", layer=7)
