import inspect

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose

import workbench.composition.scores as composition
from tests.circuit_models import KINDS, randomised, reading
from workbench.circuits.copying import copying_score
from workbench.circuits.full import ov_circuit, qk_circuit
from workbench.composition.matching import Matching, check, matching_scores
from workbench.composition.null import gaussian_scores, rotated_null
from workbench.composition.scores import INPUTS, composition_scores
from workbench.composition.virtual import virtual_head
from workbench.errors import ConfigError, SiteError, UnsupportedError
from workbench.sites import Head
from workbench.weights import effective_weights

TWO_LAYERS = [kind for kind in KINDS if kind != "sinusoidal"]
SHARP = 100.0
PREVIOUS, INDUCTION = Head(0, 1), Head(1, 2)


def dense_scores(model, offset=0):
    """Every pair from dense circuits of the raw weights: {through: {(writer, reader): score}}."""
    cfg, found = model.cfg, {through: {} for through in INPUTS}
    circuits = {}
    for layer, block in enumerate(model.blocks):
        into = reading(cfg, block.ln1) if cfg.norm != "none" else torch.eye(cfg.d_model).double()
        for number in range(model.n_heads_in(layer)):
            attn, kv_head = block.attn, number // block.attn.group
            q = (into @ attn.W_Q[number]).detach()
            if cfg.positions == "rotary":
                turned = attn._rotate(q[:, None, None].expand(-1, cfg.n_ctx, -1, -1))
                q = turned[:, offset, 0]
            W_OV = (into @ attn.W_V[kv_head] @ attn.W_O[number]).detach()
            W_QK = q @ (into @ attn.W_K[kv_head]).detach().T
            circuits[Head(layer, number)] = (W_OV, W_QK)
    for writer, (W_OV, _) in circuits.items():
        for reader, (reader_OV, W_QK) in circuits.items():
            if writer.layer >= reader.layer:
                continue
            for through, read in (("Q", W_QK), ("K", W_QK.T), ("V", reader_OV)):
                score = (W_OV @ read).norm() / (W_OV.norm() * read.norm())
                found[through][writer, reader] = float(score)
    return found


def assert_scores(scores, expected, **tolerance):
    for through in INPUTS:
        for writer, row in zip(scores.heads, scores.scores[through], strict=True):
            for reader, score in zip(scores.heads, row, strict=True):
                if writer.layer >= reader.layer:
                    assert np.isnan(score)
                else:
                    assert_allclose(score, expected[through][writer, reader], **tolerance)


@pytest.fixture(scope="module")
def planted(build):
    """0.1 copies the token before into its own directions; 1.2 looks there for its query's token."""
    n_ctx, d_vocab = 32, 18
    d_model = 2 * d_vocab + n_ctx
    shape = {"n_heads": 3, "d_head": n_ctx, "d_model": d_model, "n_ctx": n_ctx}
    model = build(order="ss", positions="shortformer", **shape)
    token, before = slice(0, d_vocab), slice(d_vocab, 2 * d_vocab)
    position, eye = slice(2 * d_vocab, d_model), torch.eye(d_vocab)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if "attn" not in name:
                weight.zero_()
        model.embed.W_E[:, token] = eye
        model.unembed.W_U[token] = eye
        model.pos_embed.W_pos[:, position] = torch.eye(n_ctx)
        first, second = (block.attn for block in model.blocks)
        for attn, head in ((first, 1), (second, 2)):
            for weight in (attn.W_Q, attn.W_K, attn.W_V, attn.W_O):
                weight[head].zero_()
        first.W_Q[1, position] = SHARP * torch.roll(torch.eye(n_ctx), -1, dims=1)
        first.W_K[1, position] = torch.eye(n_ctx)
        first.W_V[1, token, :d_vocab] = eye
        first.W_O[1, :d_vocab, before] = eye
        second.W_Q[2, token, :d_vocab] = SHARP * eye
        second.W_K[2, before, :d_vocab] = eye
        second.W_V[2, token, :d_vocab] = eye
        second.W_O[2, :d_vocab, token] = eye
    return model


def test_scores_of_the_bundled_model_equal_dense_products(attn_2l):
    scores = composition_scores(effective_weights(attn_2l, dtype="float64"))
    expected = dense_scores(attn_2l.double())
    attn_2l.float()
    assert_scores(scores, expected, atol=1e-8, rtol=1e-8)


@pytest.mark.parametrize("kind", TWO_LAYERS)
def test_scores_of_every_architecture_equal_dense_products(build, kind):
    model = randomised(build, kind)
    offset = 3 if model.cfg.positions == "rotary" else 0
    scores = composition_scores(effective_weights(model), offset=offset)
    assert_scores(scores, dense_scores(model, offset), rtol=1e-8)


def test_single_precision_and_small_memory_change_nothing(build, monkeypatch):
    model = randomised(build, {"order": "ssss"})
    weights = effective_weights(model)
    whole = composition_scores(weights)
    assert_scores(
        composition_scores(effective_weights(model, dtype="float32")),
        dense_scores(model),
        rtol=1e-4,
    )
    monkeypatch.setattr(composition, "TRIANGLE_BYTES", 1)
    assert len(list(composition._blocks(weights))) == 4
    told = []
    parts = composition_scores(weights, progress=lambda *step: told.append(step))
    for through in INPUTS:
        assert_allclose(parts.scores[through], whole.scores[through], rtol=1e-10)
    assert told == sorted(told)
    assert told[-1] == (16 * 6, 16 * 6)


def test_a_planted_pair_is_singled_out_through_its_keys(planted):
    scores = composition_scores(effective_weights(planted))
    table = scores.table()
    best = table.loc[table["z"].idxmax()]
    assert (best["through"], best["writer"], best["reader"]) == ("K", "0.1", "1.2")
    # Two circuits of rank 18 that fit exactly.
    assert_allclose(best["score"], 18**-0.5, rtol=1e-5)
    assert_allclose(best["matching"], 1, rtol=1e-5)
    others = table.drop(best.name)
    assert (others["z"] < best["z"] / 2).all()
    pair = (scores.heads.index(PREVIOUS), scores.heads.index(INDUCTION))
    assert_allclose([scores.scores["Q"][pair], scores.scores["V"][pair]], 0, atol=1e-3)


def test_a_written_token_with_the_wrong_sign_matches_minus_one(planted):
    attn = planted.blocks[0].attn
    with torch.no_grad():
        attn.W_O[1] *= -1
        found = matching_scores(effective_weights(planted), [(PREVIOUS, INDUCTION)], "K")
        attn.W_O[1] *= -1
    assert_allclose(found, -1, rtol=1e-5)


@pytest.mark.parametrize("kind", ["no norm, learned positions, biases", "unequal heads"])
def test_scores_do_not_depend_on_how_a_circuit_is_factored(build, kind):
    model = randomised(build, kind)
    before = composition_scores(effective_weights(model))
    turn = torch.randn(4, 4, generator=torch.Generator().manual_seed(2)).double()
    with torch.no_grad():
        for attn in (block.attn for block in model.blocks):
            attn.W_Q[0, :, :4] = attn.W_Q[0, :, :4] @ turn
            attn.W_K[0, :, :4] = attn.W_K[0, :, :4] @ torch.linalg.inv(turn).T
            attn.W_V[0, :, :4] = attn.W_V[0, :, :4] @ turn
            attn.W_O[0, :4] = torch.linalg.inv(turn) @ attn.W_O[0, :4]
    after = composition_scores(effective_weights(model))
    for through in INPUTS:
        assert_allclose(after.scores[through], before.scores[through], rtol=1e-8)
        assert_allclose(after.matching[through], before.matching[through], atol=1e-8)


@pytest.mark.parametrize("d_model", [256, 512])
@pytest.mark.parametrize("size", [16, 64])
def test_chance_is_one_over_the_square_root_of_the_width(d_model, size):
    expected = d_model**-0.5
    assert abs(gaussian_scores(d_model, size, size, 200, 0).mean() / expected - 1) < 0.02
    spectrum = torch.rand(3, size, generator=torch.Generator().manual_seed(1))
    null = rotated_null(spectrum, spectrum, d_model, 200, 0)
    assert np.abs(null.mean / expected - 1).max() < 0.02


def test_a_random_model_scores_at_chance_and_scatters_as_chance_does(build):
    model = build(order="ss", n_heads=8, d_model=256, d_head=16)
    for baseline in ("gaussian", "singular"):
        scores = composition_scores(effective_weights(model), baseline=baseline)
        z = np.concatenate([values[np.isfinite(values)] for values in scores.z.values()])
        assert len(z) == 3 * 64
        assert abs(z.mean()) < 0.25
        assert 0.8 < z.std() < 1.25


def test_the_singular_baseline_is_that_of_heads_turned_at_random(build):
    """Spelled out: turn what one head writes by a random rotation and score it anew."""
    model = randomised(build, {"order": "ss", "n_heads": 1, "d_model": 24, "d_head": 6})
    with torch.no_grad():
        # A head of almost one direction scatters far more than its shape says.
        model.blocks[0].attn.W_V[0, :, 1:] *= 0.1
    weights = effective_weights(model)
    writer, reader = weights.head(Head(0, 0)), weights.head(Head(1, 0))
    W_OV, read = writer.W_V @ writer.W_O, reader.W_K @ reader.W_Q.T
    generator, drawn = torch.Generator().manual_seed(7), []
    for _ in range(3000):
        gaussian = torch.randn(24, 24, generator=generator, dtype=torch.float64)
        turned = W_OV @ torch.linalg.qr(gaussian).Q @ read
        drawn.append(float(turned.norm() / (W_OV.norm() * read.norm())))
    null = composition_scores(weights, baseline="singular", n_null=3000).null["K"]
    assert_allclose(null.mean[0, 1], np.mean(drawn), rtol=0.02)
    assert_allclose(null.std[0, 1], np.std(drawn), rtol=0.06)
    plain = composition_scores(weights, baseline="gaussian", n_null=3000).null["K"]
    assert null.std[0, 1] > 1.2 * plain.std[0, 1]


def test_unequal_heads_each_have_the_chance_level_of_their_own_sizes(build):
    scores = composition_scores(effective_weights(build(**KINDS["unequal heads"])))
    drawn = gaussian_scores(32, 4, 16, 200, 0)
    assert_allclose(scores.null["V"].mean[0, 3], drawn.mean())
    assert_allclose(scores.null["V"].std[0, 3], drawn.std(ddof=1))
    assert scores.null["V"].std[0, 3] > scores.null["V"].std[2, 3]


@pytest.mark.parametrize("kind", TWO_LAYERS)
def test_matching_is_that_of_the_virtual_heads_own_circuit(build, kind):
    model = randomised(build, kind)
    with torch.no_grad():
        # Of a bias only the part that does not depend on what was read would join the circuit.
        for name, weight in model.named_parameters():
            if ".b_" in name or name.endswith("ln1.b"):
                weight.zero_()
    weights, offset = effective_weights(model), 2 if model.cfg.positions == "rotary" else 0
    earlier, later = Head(0, 1), Head(1, 0)
    for through in INPUTS:
        virtual = virtual_head(weights, later, earlier, through=through)
        if through == "V":
            circuit = ov_circuit(weights, virtual)
        else:
            circuit = qk_circuit(weights, virtual, offset=offset)
        dense = torch.linalg.eigvals(circuit.left @ circuit.right.T)
        found = matching_scores(weights, [(earlier, later)], through, offset=offset)
        assert_allclose(found[0], copying_score(dense), atol=1e-6)
        assert_allclose(found[0], copying_score(circuit.eigenvalues()), atol=1e-8)


def test_matching_of_random_heads_scatters_around_zero(attn_2l):
    drawn = Matching(effective_weights(attn_2l)).null("K", 64, 200, 0)
    assert abs(drawn.mean()) < 3 * drawn.std() / 200**0.5
    assert 1 / 64 < drawn.std() < 4 / 64


def test_matching_keeps_the_order_of_the_pairs_asked_for(attn_2l):
    weights = effective_weights(attn_2l)
    pairs = [(Head(0, 3), Head(1, 1)), (Head(0, 1), Head(1, 1)), (Head(0, 1), Head(1, 0))]
    scores = composition_scores(weights)
    known = [scores.matching["K"][scores.heads.index(w), scores.heads.index(r)] for w, r in pairs]
    assert_allclose(matching_scores(weights, pairs, "K"), known, atol=1e-9)


def test_only_the_strongest_pairs_of_many_are_matched(build, monkeypatch):
    monkeypatch.setattr(composition, "N_MATCHED", 5)
    scores = composition_scores(effective_weights(build(order="ss")))
    for through in INPUTS:
        matched = np.isfinite(scores.matching[through])
        assert matched.sum() == 5
        others = ~matched & np.isfinite(scores.scores[through])
        assert scores.scores[through][matched].min() > scores.scores[through][others].max()


def test_the_table_holds_every_pair_once_for_each_input(build):
    scores = composition_scores(effective_weights(build(order="sfsf", n_heads=3, d_head=8)), seed=3)
    table = scores.table()
    assert len(table) == 3 * 9
    row = table.set_index(["through", "writer", "reader"]).loc[("Q", "0.2", "1.1")]
    assert (row["writer_layer"], row["writer_head"]) == (0, 2)
    assert (row["reader_layer"], row["reader_head"]) == (1, 1)
    assert_allclose(row["score"], scores.scores["Q"][2, 4])
    assert_allclose(row["excess"], row["score"] - row["chance"])
    assert_allclose(row["z"], row["excess"] / scores.null["Q"].std[2, 4])
    again = composition_scores(
        effective_weights(build(order="sfsf", n_heads=3, d_head=8)), seed=3
    ).table()
    assert table.equals(again)


def test_a_head_without_weights_has_no_score(build):
    model = build(order="ss")
    with torch.no_grad():
        model.blocks[0].attn.W_O[2] = 0
    scores = composition_scores(effective_weights(model))
    assert np.isnan(scores.scores["K"][2]).all()
    assert np.isfinite(scores.scores["K"][1, 4:]).all()
    assert np.isnan(scores.matching["K"][2]).all()


def test_a_model_that_writes_other_tokens_has_no_matching_of_values(build):
    weights = effective_weights(build(order="ss", d_vocab_out=7))
    scores = composition_scores(weights)
    assert np.isnan(scores.matching["V"]).all()
    assert np.isfinite(scores.matching["K"]).any()
    with pytest.raises(UnsupportedError, match="reads 18 tokens and writes 7"):
        matching_scores(weights, [(Head(0, 0), Head(1, 0))], "V")


def test_what_cannot_compose_is_refused_by_name(build):
    with pytest.raises(UnsupportedError, match="normalises after each sum"):
        composition_scores(effective_weights(build(norm="LN", norm_position="post")))
    with pytest.raises(UnsupportedError, match="no head in a later layer"):
        composition_scores(effective_weights(build(order="sf")))
    weights = effective_weights(build())
    with pytest.raises(ConfigError, match="no baseline 'uniform': there are gaussian and singular"):
        inspect.unwrap(composition_scores)(weights, baseline="uniform")
    with pytest.raises(ConfigError, match="2 draws or more, not 1"):
        composition_scores(weights, n_null=1)
    with pytest.raises(ConfigError, match="no input 'q'"):
        check(weights, "q")
    with pytest.raises(SiteError, match=r"no head 1\.9"):
        matching_scores(weights, [(Head(0, 0), Head(1, 9))], "K")
