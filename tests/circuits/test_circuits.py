"""Circuits equal the dense matrices that they stand for, and add up to what the model itself computes."""

from types import SimpleNamespace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import linear_sum_assignment
from torch.testing import assert_close
from torch.utils._python_dispatch import TorchDispatchMode

from tests.circuit_models import (
    KINDS,
    NORM_FREE,
    dense_ov,
    dense_qk,
    own_scales,
    plain,
    randomised,
)
from tests.models.tiny import tiny_hf
from workbench.circuits.full import ov_circuit, qk_circuit, summed
from workbench.errors import ConfigError, PromptError, SiteError, UnsupportedError
from workbench.models.bridge import BridgeModel
from workbench.models.families import bridge_config
from workbench.runs import run
from workbench.sites import Head
from workbench.weights import effective_weights

TOKENS = torch.tensor([[3, 7, 7, 2, 11, 3, 7, 0, 5, 17]])


def public(name):
    hf = tiny_hf(name)
    return BridgeModel(hf, bridge_config(hf.config), None, name=name)


def assert_same_set(found, expected, atol=1e-8):
    """Two sets of complex numbers are equal, whatever their order."""
    distance = (found[:, None] - expected[None]).abs().numpy()
    ours, theirs = linear_sum_assignment(distance)
    assert distance[ours, theirs].max() < atol


def assert_equals_dense(circuit, dense):
    every = range(circuit.shape[0]), range(circuit.shape[1])
    assert circuit.shape == tuple(dense.shape)
    assert_close(circuit.block(*every), dense, atol=1e-10, rtol=1e-10)
    assert_close(circuit.row(3), dense[3], atol=1e-10, rtol=1e-10)
    assert_close(circuit.column(5), dense[:, 5], atol=1e-10, rtol=1e-10)
    assert_close(circuit.block([4, 1, 1], [0, 2]), dense[[4, 1, 1]][:, [0, 2]], atol=1e-10, rtol=0)
    if circuit.row_kind == circuit.column_kind:
        assert_close(circuit.diagonal(), dense.diagonal(), atol=1e-10, rtol=1e-10)
    if circuit.row_kind == circuit.column_kind == "token":
        dense_values = torch.linalg.eigvals(dense)
        rank = circuit.rank
        largest = dense_values[dense_values.abs().argsort(descending=True)]
        scale = float(largest[0].abs())
        if rank >= len(dense):
            largest = torch.cat([largest, largest.new_zeros(rank - len(dense))])
        assert_same_set(circuit.eigenvalues() / scale, largest[:rank] / scale)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("centre", [True, False])
def test_ov_circuits_equal_the_dense_product(build, kind, centre):
    model = randomised(build, kind)
    weights = effective_weights(model)
    for head in weights.heads:
        circuit = ov_circuit(weights, head, centre=centre)
        assert_equals_dense(circuit, dense_ov(model, head, centre=centre))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("centre", [True, False])
def test_qk_circuits_equal_the_dense_product(build, kind, centre):
    model = randomised(build, kind)
    weights = effective_weights(model)
    offsets = (0, 1, 17) if model.cfg.positions == "rotary" else (0,)
    for head in weights.heads:
        for offset in offsets:
            circuit = qk_circuit(weights, head, offset=offset, centre=centre)
            assert_equals_dense(circuit, dense_qk(model, head, offset, centre=centre))


@pytest.mark.parametrize("kind", [kind for kind in KINDS if "rotary" not in kind])
def test_blocks_of_positions_equal_the_dense_product(build, kind):
    model = randomised(build, {"norm": "LN"} | KINDS[kind])
    weights = effective_weights(model)
    for axes in (("position", "token"), ("token", "position"), ("position", "position")):
        circuit = qk_circuit(weights, Head(0, 1), query=axes[0], key=axes[1])
        assert (circuit.row_kind, circuit.column_kind) == axes
        assert_equals_dense(circuit, dense_qk(model, Head(0, 1), axes=axes))
    if kind != "shortformer":
        circuit = ov_circuit(weights, Head(0, 1), rows="position")
        assert_equals_dense(circuit, dense_ov(model, Head(0, 1), rows="position"))


@pytest.mark.parametrize("kind", NORM_FREE)
@pytest.mark.parametrize("centre", [True, False])
def test_the_four_blocks_add_up_to_the_models_own_scores(build, kind, centre):
    """Exactly without centring, and up to one constant for each query with it."""
    model = randomised(build, kind)
    weights, ids = effective_weights(model), TOKENS[0]
    _, cache = model.run_with_cache(TOKENS)
    where, seen = torch.arange(len(ids)), torch.ones(len(ids), len(ids)).tril().bool()
    for number in range(4):
        total = 0
        for query in ("token", "position"):
            for key in ("token", "position"):
                circuit = qk_circuit(weights, Head(0, number), query=query, key=key, centre=centre)
                rows = ids if query == "token" else where
                columns = ids if key == "token" else where
                total = total + circuit.block(rows, columns)
        theirs = cache["attn_scores", 0][0, number].detach()
        difference = torch.where(seen, total - theirs, torch.nan)
        constant = difference.nanmean(1, keepdim=True)
        assert (difference - constant)[seen].abs().max() < 1e-10
        assert (constant.abs().max() > 0.1) if centre else (constant.abs().max() < 1e-10)


@pytest.mark.parametrize("name", ["llama", "qwen2", "gemma", "mistral", "gpt-neox"])
def test_scores_of_a_rotary_first_layer_are_the_circuits_at_each_offset(name):
    """There the stream holds one token, so the scale that stays outside is known; it divides both sides."""
    model = public(name)
    ids = TOKENS[0]
    weights = effective_weights(model, dtype="float64")
    _, cache = model.run_with_cache(TOKENS)
    scales = own_scales(model.cfg, weights.W_E)
    typical = scales.square().mean().sqrt()
    head = weights.head(Head(0, 3))
    for query, key in ((5, 5), (5, 2), (9, 1)):
        i, j = ids[query], ids[key]
        circuit = qk_circuit(weights, Head(0, 3), offset=query - key, centre=False)
        # The bias stands at the typical scale; here each token's own is known.
        at_i, at_j = (scales[t] / typical for t in (i, j))
        q = circuit.left[i] + (at_i - 1) * typical * turned(head.b_Q, head, query - key)
        k = circuit.right[j] + (at_j - 1) * typical * head.b_K / head.scale
        ours = q @ k / (scales[i] * scales[j])
        theirs = cache["blocks.0.attn.hook_attn_scores"][0, 3, query, key].double()
        assert_close(ours, theirs, atol=2e-5, rtol=2e-5)
        if not head.b_Q.any():
            assert_close(circuit.row(int(i))[j] / (scales[i] * scales[j]), ours)


def turned(bias, head, offset):
    from workbench.rotary import rotate

    return rotate(bias, head.rates, offset)


def test_a_bias_stands_at_the_scale_of_the_embedding(build):
    """With embeddings of one scale the first layer's scores are the circuit over σ², biases included."""
    model = randomised(build, {"order": "s", "norm": "LN", "attn_bias": True, "positions": "none"})
    with torch.no_grad():
        E = model.embed.W_E
        E.copy_((E - E.mean(1, keepdim=True)) / E.std(1, keepdim=True, correction=0) * 3 + 0.7)
    weights, ids = effective_weights(model), TOKENS[0]
    _, cache = model.run_with_cache(TOKENS)
    circuit = qk_circuit(weights, Head(0, 2), centre=False)
    seen = torch.ones(len(ids), len(ids)).tril().bool()
    ours = circuit.block(ids, ids) / (9 + model.cfg.eps)
    assert_close(ours[seen], cache["attn_scores", 0][0, 2].detach()[seen], atol=1e-10, rtol=1e-10)


@pytest.mark.parametrize("kind", KINDS)
def test_a_heads_logits_are_its_pattern_times_rows_of_ov(build, kind):
    model = randomised(build, kind)
    weights, ids = effective_weights(model), TOKENS[0]
    _, cache = model.run_with_cache(TOKENS)
    attn, number = model.blocks[0].attn, 1
    stream = model.W_E[ids]
    if model.cfg.positions in ("learned", "sinusoidal"):
        stream = stream + model.W_pos[: len(ids)]
    rows = ov_circuit(weights, Head(0, number)).block(ids, range(18))
    if model.cfg.positions in ("learned", "sinusoidal"):
        where = range(len(ids))
        rows = rows + ov_circuit(weights, Head(0, number), rows="position").block(where, range(18))
    rows = rows / own_scales(model.cfg, stream)[:, None]
    moved = cache["pattern", 0][0, number] @ rows
    value_bias = attn.b_V[number // attn.group]
    if model.cfg.norm == "LN":
        value_bias = value_bias + model.blocks[0].ln1.b @ attn.W_V[number // attn.group]
    logits = (cache["z", 0][0, :, number] - value_bias) @ attn.W_O[number] @ weights.W_U
    assert_close(moved, logits - logits.mean(1, keepdim=True), atol=1e-9, rtol=1e-9)


def test_softmax_does_not_see_what_centring_takes_away(build):
    weights = effective_weights(randomised(build, "no norm, learned positions, biases"))
    for make in (ov_circuit, qk_circuit):
        raw, centred = (make(weights, Head(1, 2), centre=centre) for centre in (False, True))
        assert centred.is_centred and not raw.is_centred
        assert raw.row(4).mean().abs() > 1e-3
        assert centred.row(4).mean().abs() < 1e-12
        assert_close(centred.row(4).softmax(0), raw.row(4).softmax(0))


def test_attn_2l_equals_a_dense_computation(attn_2l):
    """Eigenvalues and singular values too, on a real vocabulary."""
    weights = effective_weights(attn_2l, dtype="float64")
    head = Head(1, 1)
    W_E, W_U = attn_2l.W_E.detach().double(), attn_2l.W_U.detach().double()
    attn = attn_2l.blocks[1].attn
    W_Q, W_K, W_V, W_O = (getattr(attn, f"W_{x}")[1].detach().double() for x in "QKVO")
    ov = W_E @ W_V @ W_O @ W_U
    qk = W_E @ W_Q @ W_K.T @ W_E.T / W_Q.shape[1] ** 0.5
    for dense, circuit in ((ov, ov_circuit(weights, head)), (qk, qk_circuit(weights, head))):
        dense = dense - dense.mean(1, keepdim=True)
        scale = dense.abs().max()
        every = range(len(dense))
        assert (circuit.block(every, every) - dense).abs().max() < 1e-12 * scale
        values = torch.linalg.eigvals(dense)
        largest = values[values.abs().argsort(descending=True)][: circuit.rank]
        size = float(largest[0].abs())
        assert_same_set(circuit.eigenvalues() / size, largest / size)
        singular = torch.linalg.svdvals(dense)[:10]
        assert_close(circuit.singular(10).values, singular, atol=1e-9, rtol=1e-9)


@settings(max_examples=40, deadline=None)
@given(n=st.integers(1, 12), rank=st.integers(1, 6), seed=st.integers(0, 9999), zero=st.booleans())
def test_eigenvalues_are_those_of_the_dense_matrix(n, rank, seed, zero):
    generator = torch.Generator().manual_seed(seed)
    left, right = torch.randn(2, n, rank, generator=generator, dtype=torch.float64)
    left = left * 0 if zero else left
    found = plain(left, right).eigenvalues()
    dense = torch.linalg.eigvals(left @ right.T)
    count = max(n, rank)
    found, dense = (torch.cat([x, x.new_zeros(count - len(x))]) for x in (found, dense))
    assert_same_set(found, dense, atol=1e-6)


def test_eigenvalues_come_largest_first():
    left = torch.diag(torch.tensor([1.0, -5.0, 3.0]))
    values = plain(left, torch.eye(3)).eigenvalues()
    assert values.real.tolist() == [-5.0, 3.0, 1.0]


def test_singular_directions_rebuild_the_circuit(build):
    weights = effective_weights(randomised(build, "LayerNorm, learned positions, biases"))
    circuit = ov_circuit(weights, Head(1, 0))
    found = circuit.singular(8)
    rebuilt = found.left_vectors.T @ torch.diag(found.values) @ found.right_vectors
    assert_close(rebuilt, circuit.block(range(18), range(18)), atol=1e-10, rtol=1e-10)
    eye = torch.eye(8, dtype=torch.float64)
    assert_close(found.left_vectors @ found.left_vectors.T, eye)
    assert_close(found.right_vectors @ found.right_vectors.T, eye)
    assert (found.values.diff() <= 0).all()
    for vector in found.left_vectors:
        assert vector[vector.abs().argmax()] > 0


def test_singular_directions_are_spelled_in_tokens(build):
    """A head that turns a into b and c into minus d says so at both ends."""
    model = build()
    left = torch.zeros(18, 2)
    right = torch.zeros(18, 2)
    a, b, c, d = (model.to_tokens(letter)[0, 1].item() for letter in "abcd")
    left[a, 0], right[b, 0] = 3.0, 1.0
    left[c, 1], right[d, 1] = 2.0, -1.0
    table = plain(left, right).singular(2).table(model, top=1)
    ends = table[(table["weight"].abs() > 0.5)].set_index(["direction", "side"])["text"]
    assert ends.to_dict() == {
        (0, "source"): "a",
        (0, "out"): "b",
        (1, "source"): "c",
        (1, "out"): "d",
    }
    signs = table[(table["weight"].abs() > 0.5)].set_index(["direction", "side"])["sign"]
    assert signs[1, "source"] == 1 and signs[1, "out"] == -1
    assert table.groupby("direction")["value"].first().tolist() == [3.0, 2.0]
    assert set(plain(left, right).singular(1).table(top=18)["text"]) == set(map(str, range(18)))


@pytest.mark.parametrize("by", ["largest", "smallest", "size"])
def test_top_entries_are_those_of_the_dense_matrix(attn_2l, by):
    circuit = ov_circuit(effective_weights(attn_2l, dtype="float64"), Head(1, 1))
    every = range(1024)
    dense = circuit.block(every, every)
    ranked = {"largest": dense, "smallest": -dense, "size": dense.abs()}[by].flatten().topk(50)
    told = []
    found = circuit.top(50, by, progress=lambda *counts: told.append(counts))
    assert told[-1][0] == told[-1][1] > 0
    assert_close(torch.tensor(found.values), dense.flatten()[ranked.indices], atol=1e-9, rtol=1e-9)
    assert found.rows.tolist() == (ranked.indices // 1024).tolist()
    assert found.columns.tolist() == (ranked.indices % 1024).tolist()


def test_a_sum_of_circuits_is_the_sum_of_their_matrices(build):
    model = randomised(build, "unequal heads")
    weights = effective_weights(model)
    heads = [Head(0, 0), Head(0, 2), Head(1, 1)]
    total = summed([ov_circuit(weights, head) for head in heads])
    assert total.label == "sum of 3 heads"
    assert_equals_dense(total, sum(dense_ov(model, head) for head in heads))
    alone = summed([ov_circuit(weights, heads[0])])
    assert alone.label == "0.0"


def test_sums_of_what_does_not_fit_are_refused(build):
    weights = effective_weights(randomised(build, "RMSNorm, rotary, grouped, tied"))
    ov, qk = ov_circuit(weights, Head(0, 0)), qk_circuit(weights, Head(0, 0))
    with pytest.raises(ConfigError, match="kind is 'OV' and 'QK'"):
        summed([ov, qk])
    with pytest.raises(ConfigError, match="offset is 0 and 3"):
        summed([qk, qk_circuit(weights, Head(0, 1), offset=3)])
    with pytest.raises(ConfigError, match="at least one"):
        summed([])


@pytest.mark.parametrize(
    ("kind", "ov", "qk"),
    [
        ("shortformer", "logits", "score"),
        ("LayerNorm, rotary, biases", "logits × σ²", "score × σ²"),
    ],
)
def test_units_name_the_scales_that_stay_outside(build, kind, ov, qk):
    weights = effective_weights(randomised(build, kind))
    assert ov_circuit(weights, Head(0, 0)).unit == ov
    assert qk_circuit(weights, Head(0, 0)).unit == qk


def test_units_count_every_norm_on_the_way(build):
    assert ov_circuit(effective_weights(public("gemma2")), Head(0, 0)).unit == "logits × σ³"
    weights = effective_weights(build(norm="LN", positions="shortformer"))
    assert qk_circuit(weights, Head(0, 0), key="position").unit == "score × σ"
    assert qk_circuit(weights, Head(0, 0), query="position", key="position").unit == "score"


def test_a_virtual_head_has_circuits_like_any_other(build):
    """Its weights come as `HeadWeights`, not as the number of a head."""
    from dataclasses import replace

    weights = effective_weights(randomised(build, "shortformer"))
    first, second = weights.head(Head(0, 1)), weights.head(Head(1, 2))
    through = first.W_V @ first.W_O @ second.W_V
    circuit = ov_circuit(weights, replace(second, label="1.2∘0.1", W_V=through, pos_Q=None))
    dense = weights.W_E @ first.W_V @ first.W_O @ second.W_V @ second.W_O @ weights.W_U
    assert circuit.label == "1.2∘0.1"
    assert_equals_dense(circuit, dense - dense.mean(1, keepdim=True))
    with pytest.raises(UnsupportedError, match=r"1\.2∘0\.1 has no weights for positions"):
        qk_circuit(weights, replace(second, label="1.2∘0.1", pos_Q=None), query="position")


class Largest(TorchDispatchMode):
    """Notes the largest tensor that any operation makes."""

    numel = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        for tensor in out if isinstance(out, (tuple, list)) else (out,):
            if isinstance(tensor, torch.Tensor):
                self.numel = max(self.numel, tensor.numel())
        return out


def test_nothing_as_large_as_vocabulary_squared_is_made(build):
    weights = effective_weights(build(d_vocab=3000, positions="rotary", norm="RMS"))
    with Largest() as largest:
        for circuit in (ov_circuit(weights, Head(1, 1)), qk_circuit(weights, Head(1, 1), offset=2)):
            circuit.row(7), circuit.column(7), circuit.diagonal()
            circuit.eigenvalues(), circuit.singular(4)
    assert 0 < largest.numel <= 3000 * 32


def test_smollm2s_circuits_are_its_first_layers_scores(smollm2):
    weights, ids = effective_weights(smollm2), smollm2.to_tokens("When Mary and John went")[0]
    with torch.no_grad():
        _, cache = smollm2.run_with_cache(ids[None], "blocks.0.attn.hook_attn_scores")
    scales = own_scales(smollm2.cfg, weights.W_E[ids])
    for query, key in ((4, 4), (4, 1)):
        circuit = qk_circuit(weights, Head(0, 5), offset=query - key, centre=False)
        ours = circuit.block(ids[[query]], ids[[key]])[0, 0] / (scales[query] * scales[key])
        theirs = cache["blocks.0.attn.hook_attn_scores"][0, 5, query, key]
        assert_close(ours, theirs, atol=1e-3, rtol=1e-4)


def test_post_norm_models_are_refused_by_name(build):
    for model in (public("bert"), build(norm="LN", norm_position="post")):
        weights = effective_weights(model)
        for make in (ov_circuit, qk_circuit):
            with pytest.raises(UnsupportedError, match=r"post-norm.*geometry"):
                make(weights, Head(0, 0))


def test_models_that_predict_nothing_or_little_say_what_they_lack(build):
    weights = effective_weights(build(d_vocab_out=7))
    circuit = ov_circuit(weights, Head(0, 0))
    assert circuit.shape == (18, 7) and circuit.row(3).shape == (7,)
    for ask in (circuit.eigenvalues, circuit.diagonal):
        with pytest.raises(UnsupportedError, match="18 token rows and 7 token columns"):
            ask()
    weights.cfg = SimpleNamespace(norm_position="pre", d_out=0)
    with pytest.raises(UnsupportedError, match="no unembedding"):
        ov_circuit(weights, Head(0, 0))


def test_offsets_that_cannot_occur_are_refused(build):
    rotary = effective_weights(build(positions="rotary"))
    for offset in (-1, 32):
        with pytest.raises(ConfigError, match="runs from 0 to 31"):
            qk_circuit(rotary, Head(0, 0), offset=offset)
    both_ways = effective_weights(build(positions="rotary", causal=False))
    assert qk_circuit(both_ways, Head(0, 0), offset=-31).offset == -31
    with pytest.raises(ConfigError, match="runs from -31 to 31"):
        qk_circuit(both_ways, Head(0, 0), offset=-32)
    with pytest.raises(ConfigError, match="only matters with rotary"):
        qk_circuit(effective_weights(build()), Head(0, 0), offset=1)


def test_positions_that_no_circuit_holds_are_refused_by_name(build):
    weights = effective_weights(build())
    weights.cfg = SimpleNamespace(norm_position="pre", positions="alibi")
    with pytest.raises(UnsupportedError, match="'alibi'"):
        qk_circuit(weights, Head(0, 0))
    with pytest.raises(UnsupportedError, match="queries and keys only"):
        ov_circuit(effective_weights(build(positions="shortformer")), Head(0, 0), rows="position")
    for positions, hint in (("rotary", "give an offset"), ("none", "no table")):
        weights = effective_weights(build(positions=positions))
        with pytest.raises(UnsupportedError, match=hint):
            qk_circuit(weights, Head(0, 0), key="position")
        with pytest.raises(UnsupportedError, match=hint):
            ov_circuit(weights, Head(0, 0), rows="position")


def test_eigenvalues_between_positions_are_refused(build):
    circuit = qk_circuit(effective_weights(build()), Head(0, 0), query="position", key="position")
    assert circuit.diagonal().shape == (32,)
    with pytest.raises(UnsupportedError, match="between tokens"):
        circuit.eigenvalues()


def test_wrong_tokens_positions_heads_and_counts_are_refused(build):
    weights = effective_weights(build())
    circuit = qk_circuit(weights, Head(0, 0), key="position")
    for wrong in (-1, 18):
        with pytest.raises(PromptError, match=f"no token {wrong}: .*0 to 17"):
            circuit.row(wrong)
    with pytest.raises(PromptError, match=r"no position 32: .*0 to 31"):
        circuit.block([0], [3, 32])
    for wrong in (0, 9):
        with pytest.raises(ConfigError, match=f"no {wrong} singular directions.*1 to 8"):
            circuit.singular(wrong)
    with pytest.raises(SiteError, match=r"no head 0\.9"):
        ov_circuit(weights, Head(0, 9))


def test_normalised_tokens_give_the_first_layers_scores_exactly(build):
    """With rotary positions the first layer reads embeddings alone, so no scale is left outside."""
    model = build(order="s", norm="RMS", positions="rotary", n_kv_heads=2, scale=3.0)
    tokens = torch.tensor([3, 7, 11, 2, 9])
    scores = run(model, tokens[None].tolist(), sites=["scores"])["scores.0"][0]
    weights = effective_weights(model, normalise_tokens=True)
    for head in range(4):
        for offset in range(3):
            circuit = qk_circuit(weights, Head(0, head), offset=offset, centre=False)
            assert circuit.unit == "score"
            block = circuit.block(tokens, tokens).detach()
            torch.testing.assert_close(block.diagonal(-offset), scores[head].diagonal(-offset))
    assert ov_circuit(weights, Head(0, 0)).unit == "logits × σ"


def test_normalising_tokens_changes_nothing_without_a_norm(build):
    model = build()
    weights = effective_weights(model, normalise_tokens=True)
    torch.testing.assert_close(weights.W_E, model.W_E.detach(), rtol=0, atol=0)
    assert qk_circuit(weights, Head(0, 0)).unit == "score"
