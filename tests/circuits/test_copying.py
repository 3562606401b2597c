"""Copying scores equal those of the dense matrices, find planted copying, and scatter around zero by chance."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.testing import assert_close

from tests.circuit_models import KINDS, dense_ov, dense_qk, plain, randomised
from workbench.circuits.copying import (
    copying_score,
    copying_scores,
    diagonal_test,
    eigen_cloud,
    in_own_top,
    null_eigenvalues,
    vocabulary_core,
)
from workbench.circuits.full import ov_circuit, qk_circuit, summed
from workbench.errors import ConfigError, SiteError, UnsupportedError
from workbench.sites import Head
from workbench.weights import effective_weights

DENSE = {"OV": dense_ov, "QK": dense_qk}
ALL_TOKENS = torch.arange(18)


def dense_score(dense):
    values = torch.linalg.eigvals(dense)
    return float(values.real.sum() / values.abs().sum())


def planted(build, sign=1.0, **fields):
    """One head whose OV and QK circuits are ± the identity over the vocabulary."""
    model = build(order="s", n_heads=1, d_head=32, positions="none", **fields).double()
    with torch.no_grad():
        attn, eye = model.blocks[0].attn, torch.eye(32, dtype=torch.float64)
        model.embed.W_E.copy_(eye[:18])
        model.unembed.W_U.copy_(eye[:18].T)
        attn.W_V.copy_(eye[None])
        attn.W_O.copy_(sign * eye[None])
        attn.W_Q.copy_(eye[None])
        attn.W_K.copy_(sign * eye[None])
    return model


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("circuit", ["OV", "QK"])
def test_scores_equal_those_of_the_dense_matrices(build, kind, circuit):
    model = randomised(build, kind)
    scores = copying_scores(effective_weights(model), kind=circuit, n_null=2)
    table = scores.table()
    assert len(table) == len(effective_weights(model).heads)
    for row in table.itertuples():
        head = Head(row.layer, row.head)
        dense = DENSE[circuit](model, head)
        assert abs(row.score - dense_score(dense)) < 1e-8
        assert scores.value(head) == row.score
        own = dense.diagonal()[:, None]
        assert row.diagonal_top == float(((dense >= own).sum(1) <= 5).double().mean())


def test_scores_of_attn_2l_equal_those_of_the_dense_matrix(attn_2l):
    """Trace and Σ|λ| of the full 1024 x 1024 matrix, in float64."""
    weights = effective_weights(attn_2l, dtype="float64")
    W_E, W_U = attn_2l.W_E.detach().double(), attn_2l.W_U.detach().double()
    scores = copying_scores(weights, n_null=2, n_tokens=1024)
    for head in (Head(0, 3), Head(1, 1)):
        attn = attn_2l.blocks[head.layer].attn
        W_V, W_O = (getattr(attn, name)[head.head].detach().double() for name in ("W_V", "W_O"))
        dense = W_E @ W_V @ W_O @ W_U
        dense = dense - dense.mean(1, keepdim=True)
        assert abs(scores.value(head) - dense_score(dense)) < 1e-8
        table = scores.table().set_index(["layer", "head"]).loc[head.layer, head.head]
        own = dense.diagonal()[:, None]
        assert table["diagonal_top"] == float(((dense >= own).sum(1) <= 5).double().mean())
        assert table["low"] == table["high"] == table["diagonal_top"]


@pytest.mark.parametrize("sign", [1.0, -1.0])
@pytest.mark.parametrize("kind", ["OV", "QK"])
def test_a_head_built_to_copy_scores_one_and_one_built_to_avoid_scores_minus_one(build, sign, kind):
    weights = effective_weights(planted(build, sign))
    row = copying_scores(weights, kind=kind).table().iloc[0]
    assert abs(row["score"] - sign) < 1e-12
    assert row["percentile"] == (100.0 if sign > 0 else 0.0)
    assert row["z"] * sign > 5
    assert row["diagonal_top"] == (1.0 if sign > 0 else 0.0)
    assert row["chance"] == 5 / 18


def test_copying_heads_stand_out_of_the_bundled_model(attn_2l):
    table = copying_scores(effective_weights(attn_2l)).table()
    best = table.loc[table["score"].idxmax()]
    assert best["layer"] == 1 and best["score"] > 0.99 and best["diagonal_top"] > 0.95
    assert best["z"] > 10 and best["percentile"] == 100.0


@pytest.mark.parametrize("d_head", [16, 32, 64])
def test_random_heads_scatter_by_one_and_a_half_over_d_head(d_head):
    """A trace of deviation √d over d eigenvalues of mean size ⅔ √d (circular law), in wide models."""
    generator = torch.Generator().manual_seed(3)
    W_E, W_U = torch.randn(2, 1500, 512, generator=generator, dtype=torch.float64)
    core = (W_U - W_U.mean(0)).T @ W_E
    draws = null_eigenvalues(core, d_head, 400, seed=0)
    scores = np.array([copying_score(draw) for draw in draws])
    assert 1.4 < scores.std() * d_head < 1.8
    assert abs(scores.mean()) < 4 * scores.std() / 20
    assert abs(float((draws.real > 0).double().mean()) - 0.5) < 0.03


def test_a_models_random_heads_lie_inside_their_own_null(build):
    """Percentiles of untrained heads are spread evenly: none of 64 is beyond what chance allows."""
    model = build(order="s" * 8, n_heads=8, d_head=8, d_model=64, positions="none")
    table = copying_scores(effective_weights(model), n_null=400, n_tokens=0).table()
    assert table["z"].abs().max() < 4.5
    assert 0.6 < table["z"].std() < 1.5
    assert 30 < table["percentile"].mean() < 70


def test_the_null_is_drawn_once_for_each_width_and_by_the_seed(build):
    weights = effective_weights(randomised(build, "unequal heads"))
    table = copying_scores(weights, n_null=50, seed=1).table()
    # Heads of 4, 8 and 20 dimensions in layer 0, two of 16 in layer 1.
    assert table["null_std"].nunique() == 4
    spread = table.set_index(["layer", "head"])["null_std"]
    assert spread[0, 0] > spread[0, 1] > spread[0, 2]
    assert spread[1, 0] == spread[1, 1]
    again = copying_scores(weights, n_null=50, seed=1).table()
    assert table.equals(again)
    other = copying_scores(weights, n_null=50, seed=2).table()
    assert (other["null_std"] != table["null_std"]).all()
    assert (other["score"] == table["score"]).all()


def test_null_draws_do_not_depend_on_how_many_are_asked_for(build):
    core = vocabulary_core(effective_weights(build()), "OV")
    assert_close(null_eigenvalues(core, 8, 7, 0)[:3], null_eigenvalues(core, 8, 3, 0))


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 9999), n=st.integers(2, 30), top=st.integers(1, 6), ties=st.booleans())
def test_the_diagonal_test_equals_counting_by_hand(seed, n, top, ties):
    generator = torch.Generator().manual_seed(seed)
    left, right = torch.randn(2, n, 3, generator=generator, dtype=torch.float64)
    if ties:
        left, right = left.round(), right.round()
    found = in_own_top(plain(left, right), torch.arange(n), top)
    for token, row in enumerate(left @ right.T):
        others = [row[j] for j in range(n) if j != token]
        assert bool(found[token]) == (sum(other >= row[token] for other in others) < top)


def test_the_diagonal_test_crosses_blocks_and_carries_an_interval():
    left = torch.eye(300, dtype=torch.float64)
    left[::3] *= -1
    circuit = plain(left, torch.eye(300, dtype=torch.float64))
    everything = diagonal_test(circuit, torch.arange(300), top=1)
    assert everything["diagonal_top"] == everything["low"] == everything["high"] == 2 / 3
    drawn = diagonal_test(circuit, torch.arange(150), top=1)
    assert drawn["low"] < 2 / 3 < drawn["high"]
    assert drawn["high"] - drawn["low"] == pytest.approx(2 * 1.96 * (2 / 9 / 150) ** 0.5, rel=0.05)
    assert drawn["n_tokens"] == 150 and drawn["chance"] == 1 / 300


def test_a_circuit_of_zeros_copies_nothing(build):
    model = planted(build)
    with torch.no_grad():
        model.blocks[0].attn.W_O.zero_()
    row = copying_scores(effective_weights(model)).table().iloc[0]
    assert row["score"] == 0.0 and row["diagonal_top"] == 0.0


def test_leaving_the_diagonal_out_leaves_its_columns_out(build):
    weights = effective_weights(build())
    told = []
    table = copying_scores(weights, n_tokens=0, progress=lambda *n: told.append(n)).table()
    assert "diagonal_top" not in table and "score" in table
    assert told == [(done, 8) for done in range(1, 9)]
    full = copying_scores(weights).table()
    tidy = ["layer", "head", "kind", "score", "null_mean", "null_std", "z", "percentile", "n_null"]
    tidy += ["diagonal_top", "low", "high", "chance", "top", "n_tokens", "seed"]
    assert list(full) == tidy


def test_a_cloud_holds_the_circuits_eigenvalues_and_random_ones_of_its_size(build):
    weights = effective_weights(randomised(build, "LayerNorm, learned positions, biases"))
    circuit = ov_circuit(weights, Head(1, 2))
    cloud = eigen_cloud(circuit, weights, n_null=7, seed=3)
    assert_close(cloud.values, circuit.eigenvalues())
    assert cloud.null.shape == (7, 8)
    assert_close(cloud.null.abs().sum(1), cloud.values.abs().sum().expand(7))
    scores = copying_scores(weights, n_null=7, seed=3)
    assert cloud.score == pytest.approx(scores.value(Head(1, 2)), abs=1e-12)
    assert cloud.null_scores.mean() == pytest.approx(scores.table()["null_mean"][0], abs=1e-12)
    table = cloud.table()
    assert list(table) == ["of", "draw", "rank", "re", "im", "size"]
    assert table.groupby("of").size().to_dict() == {"head": 8, "null": 56}


@pytest.mark.parametrize("centre", [True, False])
@pytest.mark.parametrize("kind", ["OV", "QK"])
def test_the_shared_core_gives_each_circuits_own_eigenvalues(build, kind, centre):
    """Raw circuits differ from centred ones, and so do their cores."""
    weights = effective_weights(randomised(build, "RMSNorm, rotary, grouped, tied"))
    make = ov_circuit if kind == "OV" else qk_circuit
    core, head = vocabulary_core(weights, kind, centre=centre), weights.head(Head(1, 3))
    small = head.W_O @ core @ head.W_V if kind == "OV" else head.W_K.T @ core @ head.W_Q
    found = torch.linalg.eigvals(small if kind == "OV" else small / head.scale)
    ours = make(weights, Head(1, 3), centre=centre).eigenvalues()
    assert_close(found.abs().sort(descending=True).values, ours.abs(), atol=1e-9, rtol=1e-9)


def test_a_cloud_of_a_sum_of_heads_has_its_rank(build):
    weights = effective_weights(randomised(build, "unequal heads"))
    total = summed([ov_circuit(weights, Head(0, 1)), ov_circuit(weights, Head(1, 0))])
    assert eigen_cloud(total, weights, n_null=2).null.shape == (2, 8 + 16)


def test_what_has_no_copying_score_is_refused_by_name(build):
    with pytest.raises(UnsupportedError, match="18 tokens and predicts 7"):
        copying_scores(effective_weights(build(d_vocab_out=7)))
    few = copying_scores(effective_weights(build(d_vocab_out=7)), kind="QK", n_null=2)
    assert len(few.table()) == 8
    with pytest.raises(UnsupportedError, match="post-norm"):
        copying_scores(effective_weights(build(norm="LN", norm_position="post")))
    with pytest.raises(UnsupportedError, match="no attention"):
        copying_scores(effective_weights(build(order="ff")))
    weights = effective_weights(build())
    for counts in ({"n_null": 1}, {"n_tokens": -1}):
        with pytest.raises(ConfigError, match="n_null must be at least 2"):
            copying_scores(weights, **counts)
    with pytest.raises(SiteError, match=r"no head 5\.0"):
        copying_scores(weights, n_null=2, n_tokens=0).value(Head(5, 0))
    circuit = ov_circuit(weights, Head(0, 0))
    with pytest.raises(ConfigError, match="at least 1"):
        eigen_cloud(circuit, weights, n_null=0)
    other = effective_weights(build())
    other.model_name = "another"
    with pytest.raises(ConfigError, match="another"):
        eigen_cloud(circuit, other)
    between = qk_circuit(weights, Head(0, 0), key="position")
    with pytest.raises(UnsupportedError, match="not square"):
        diagonal_test(between, ALL_TOKENS)
