"""Scores taken apart by distance equal means and variances over all pairs of tokens, with planted kernels."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch.testing import assert_close

from tests.circuit_models import KINDS, dense_qk, randomised
from workbench.circuits.copying import copying_score
from workbench.circuits.full import qk_circuit
from workbench.circuits.positions import score_by_offset
from workbench.errors import ConfigError, SiteError, UnsupportedError
from workbench.rotary import rotate
from workbench.sites import Head
from workbench.weights import effective_weights

ROTARY = [kind for kind in KINDS if "rotary" in kind]
TABLES = [kind for kind in KINDS if "rotary" not in kind and "LayerNorm" not in kind]


def parts_by_hand(scores):
    """Mean, and deviations of the row part, the column part and the rest, of one matrix of scores."""
    mean = scores.mean()
    rows, columns = scores.mean(1) - mean, scores.mean(0) - mean
    rest = scores - mean - rows[:, None] - columns[None]
    return [
        float(x) for x in (mean, *(part.square().mean().sqrt() for part in (rows, columns, rest)))
    ]


@pytest.mark.parametrize("kind", ROTARY)
def test_rotary_parts_are_means_and_deviations_over_all_pairs_of_tokens(build, kind):
    model = randomised(build, kind)
    weights = effective_weights(model)
    for head in (Head(0, 1), Head(1, 3)):
        table = score_by_offset(weights, head, [0, 1, 5, 31]).table()
        for row in table.itertuples():
            dense = dense_qk(model, head, row.offset, centre=False)
            found = [row.content_free, row.query_std, row.key_std, row.pair_std]
            assert_close(found, parts_by_hand(dense), atol=1e-10, rtol=1e-10)
            variances = row.query_std**2 + row.key_std**2 + row.pair_std**2
            assert variances == pytest.approx(float(dense.var(correction=0)), rel=1e-10)
            centred = dense - dense.mean(1, keepdim=True)
            assert row.diagonal == pytest.approx(float(centred.diagonal().mean()), abs=1e-10)
            circuit = qk_circuit(weights, head, offset=row.offset)
            assert row.matching == pytest.approx(copying_score(circuit.eigenvalues()), abs=1e-9)
            assert row.spread == 0.0 and row.n_positions == 1 and row.label == str(head)


@pytest.mark.parametrize("kind", TABLES)
def test_parts_with_a_table_are_averages_over_positions_of_what_pairs_of_tokens_do(build, kind):
    """By brute force: the scores of all pairs of tokens at every pair of positions."""
    model = randomised(build, {**KINDS[kind], "n_ctx": 6})
    weights, head = effective_weights(model), Head(0, 1)
    blocks = {
        (a, b): dense_qk(model, head, axes=(a, b), centre=False)
        for a in ("token", "position")
        for b in ("token", "position")
    }
    n = 6
    # [query token, key token, query, key]
    scores = (
        blocks["token", "token"][:, :, None, None]
        + blocks["token", "position"][:, None, None, :]
        + blocks["position", "token"].T[None, :, :, None]
        + blocks["position", "position"][None, None]
    )
    for row in score_by_offset(weights, head, range(n)).table().itertuples():
        parts = []
        for query in range(row.offset, n):
            at = scores[:, :, query, query - row.offset]
            # The constant of each query: the same query token's mean over key tokens and the keys it sees.
            gauge = scores[:, :, query, : query + 1].mean((1, 2))
            parts.append(parts_by_hand(at - gauge[:, None]))
        means, queries, keys, pairs = (np.array(values) for values in zip(*parts, strict=True))
        assert row.content_free == pytest.approx(means.mean(), abs=1e-9)
        assert row.spread == pytest.approx(means.std(), abs=1e-9)
        for found, values in ((row.query_std, queries), (row.key_std, keys), (row.pair_std, pairs)):
            assert found == pytest.approx((values**2).mean() ** 0.5, abs=1e-9)
        assert row.n_positions == n - row.offset


def test_the_kernel_of_a_planted_previous_token_head_peaks_one_token_back(build):
    """Its positions are one-hot, and each query position looks for the one before."""
    for positions in ("learned", "shortformer"):
        model = build(order="s", n_heads=1, d_head=32, positions=positions)
        with torch.no_grad():
            model.pos_embed.W_pos.copy_(torch.eye(32))
            model.embed.W_E.mul_(0.01)
            model.blocks[0].attn.W_Q.copy_(torch.eye(32).roll(-1, 1)[None])
            model.blocks[0].attn.W_K.copy_(20 * torch.eye(32)[None])
        table = score_by_offset(effective_weights(model), Head(0, 0), range(8)).table()
        assert table["content_free"].idxmax() == 1
        others = table["content_free"].drop(1)
        assert table["content_free"][1] > 3 and others.abs().max() < 0.6


def test_a_planted_rotary_kernel_peaks_where_its_biases_meet(build):
    """b_Q is b_K turned three positions back, so that queries meet the keys three tokens away."""
    model = build(order="s", positions="rotary", attn_bias=True)
    with torch.no_grad():
        attn = model.blocks[0].attn
        attn.b_K[1] = torch.tensor([4.0, 1.0, 2.0, 1.0, 0, 0, 0, 0])
        attn.b_Q[1] = rotate(attn.b_K[1], model.rotary_rates, -3)
        model.embed.W_E.mul_(0.01)
    weights = effective_weights(model)
    table = score_by_offset(weights, Head(0, 1)).table()
    assert len(table) == 32
    assert table["offset"][table["content_free"].idxmax()] == 3
    assert table["content_free"].max() == pytest.approx(22 / 8**0.5, abs=0.2)
    assert table["pair_std"].max() < 0.1


def test_real_scores_scatter_around_the_content_free_part(build):
    """The first layer's own scores on random tokens average to the kernel, up to each query's constant."""
    model = randomised(build, "no norm, learned positions, biases")
    with torch.no_grad():
        model.pos_embed.W_pos.mul_(4)
    tokens = torch.randint(18, (600, 32), generator=torch.Generator().manual_seed(5))
    with torch.no_grad():
        _, cache = model.run_with_cache(tokens, names_filter="blocks.0.attn.hook_attn_scores")
    scores = cache["attn_scores", 0][:, 2].mean(0)
    seen = torch.ones(32, 32).tril().bool()
    scores = scores - torch.where(seen, scores, torch.nan).nanmean(1, keepdim=True)
    table = score_by_offset(effective_weights(model), Head(0, 2), range(1, 16)).table()
    measured = [float(scores.diagonal(-offset).mean()) for offset in range(1, 16)]
    error = table["pair_std"].max() + table["key_std"].max()
    assert np.abs(table["content_free"] - measured).max() < 4 * error / 600**0.5
    assert table["content_free"].std() > 4 * error / 600**0.5


def test_positions_that_join_behind_a_norm_meet_tokens_at_their_typical_scale(build):
    """Larger embeddings change nothing, since the norm takes the size away."""
    model = randomised(build, {"order": "s", "norm": "LN", "positions": "shortformer"})
    small = score_by_offset(effective_weights(model), Head(0, 0), range(4)).table()
    with torch.no_grad():
        model.embed.W_E.mul_(1000)
        model.cfg = SimpleNamespace(
            **{n: getattr(model.cfg, n) for n in dir(model.cfg) if n[0] != "_"}
        )
        model.cfg.eps *= 1e6
    large = score_by_offset(effective_weights(model), Head(0, 0), range(4)).table()
    assert set(small["unit"]) == {"score"}
    numbers = small.columns.drop(["label", "unit"])
    assert_close(
        torch.tensor(small[numbers].to_numpy(float)), torch.tensor(large[numbers].to_numpy(float))
    )


def test_bidirectional_models_have_offsets_to_both_sides(build):
    for positions in ("learned", "rotary"):
        weights = effective_weights(build(positions=positions, causal=False))
        table = score_by_offset(weights, Head(0, 0), range(-31, 32)).table()
        assert table["offset"].tolist() == list(range(-31, 32))
        if positions == "learned":
            assert table["n_positions"].tolist() == [32 - abs(offset) for offset in range(-31, 32)]


def test_what_cannot_be_taken_apart_by_distance_is_refused_by_name(build):
    with pytest.raises(UnsupportedError, match="no positions"):
        score_by_offset(effective_weights(build(positions="none")), Head(0, 0))
    with pytest.raises(UnsupportedError, match="post-norm"):
        score_by_offset(effective_weights(build(norm="LN", norm_position="post")), Head(0, 0))
    weights = effective_weights(build())
    with pytest.raises(ConfigError, match=r"no offset 32: .* 0 to 31"):
        score_by_offset(weights, Head(0, 0), [0, 32])
    with pytest.raises(ConfigError, match="no offset -1"):
        score_by_offset(weights, Head(0, 0), [-1])
    with pytest.raises(ConfigError, match="at least one"):
        score_by_offset(weights, Head(0, 0), [])
    with pytest.raises(SiteError, match=r"no head 3\.0"):
        score_by_offset(weights, Head(3, 0))
    weights.cfg = SimpleNamespace(norm_position="pre", positions="alibi")
    with pytest.raises(UnsupportedError, match="'alibi'"):
        score_by_offset(weights, Head(0, 0))
