"""Cards of heads planted by hand: what weights say, what prompts show, and the flags where they part."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose

from tests.circuit_models import randomised
from tests.test_weights import public
from workbench.circuits.copying import copying_scores
from workbench.circuits.geometry import qk_geometry
from workbench.composition.scores import composition_scores
from workbench.errors import ConfigError, SiteError, UnsupportedError
from workbench.heads.behaviours import head_scores
from workbench.heads.cards import head_card
from workbench.heads.effects import direct_effects
from workbench.heads.measures import head_measures
from workbench.prompts import random_repeats
from workbench.runs import run
from workbench.sites import Head
from workbench.stream.parts import stream_parts
from workbench.weights import effective_weights

SHARP = 100.0
PREVIOUS, INDUCTION = Head(0, 1), Head(1, 0)


@pytest.fixture(scope="module")
def plant(build):
    """Builds a model of a previous-token head 0.1 and an induction head 1.0, which writes with `sign`."""

    def make(sign=1.0, has_attention=True, n_ctx=32, d_vocab=18):
        d_model = 2 * d_vocab + n_ctx
        shape = {"n_heads": 2, "d_head": n_ctx, "d_model": d_model, "n_ctx": n_ctx}
        model = build(order="ss", positions="shortformer", scale=0.5, **shape)
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
            for attn, head in ((first, 1), (second, 0)):
                for weight in (attn.W_Q, attn.W_K, attn.W_V, attn.W_O):
                    weight[head].zero_()
            first.W_Q[1, position] = SHARP * torch.roll(torch.eye(n_ctx), -1, dims=1)
            first.W_K[1, position] = torch.eye(n_ctx)
            first.W_V[1, token, :d_vocab] = eye
            first.W_O[1, :d_vocab, before] = eye
            second.W_Q[0, token, :d_vocab] = SHARP * eye if has_attention else 1e-3 * eye
            second.W_K[0, before, :d_vocab] = eye
            second.W_V[0, token, :d_vocab] = eye
            second.W_O[0, :d_vocab, token] = sign * 3 * eye
        return model

    return make


@pytest.fixture(scope="module")
def planted(plant):
    return plant()


@pytest.fixture(scope="module")
def planted_measures(planted):
    return head_measures(planted)


@pytest.fixture(scope="module")
def induction_card(planted, planted_measures):
    return head_card(planted, INDUCTION, measures=planted_measures)


@pytest.fixture(scope="module")
def even_card(plant):
    """Of the same head with its queries all but silenced."""
    return head_card(plant(has_attention=False), INDUCTION)


@pytest.fixture(scope="module")
def measures(model):
    return head_measures(model, seed=2)


def values(card):
    return card.table().set_index("measure")["value"]


def test_a_planted_induction_head_agrees_with_itself(induction_card):
    value = values(induction_card)
    assert [badge.behaviour for badge in induction_card.badges] == ["induction"]
    assert value["induction"] > 0.95
    assert value["copying"] > 0.6
    assert_allclose(value["OV copying"], 1, atol=1e-5)
    assert value["direct effect"] > 2.5
    assert value["K-composition in"] > 3
    assert induction_card.flags == ()


def test_the_partners_of_a_planted_pair_are_each_other(planted, planted_measures, induction_card):
    reads = induction_card.partners.set_index(["direction", "through"])
    assert reads.loc[("in", "K"), "partner"].iloc[0] == "0.1"
    assert_allclose(reads.loc[("in", "K"), "matching"].iloc[0], 1, atol=1e-5)
    writes = head_card(planted, PREVIOUS, measures=planted_measures).partners
    assert set(writes["direction"]) == {"out"}
    keys = writes[writes["through"] == "K"]
    assert keys["partner"].iloc[0] == "1.0"
    assert (keys["z"].diff().dropna() <= 0).all()


def test_the_kernel_shows_what_position_alone_scores(planted, planted_measures):
    kernel = head_card(planted, PREVIOUS, measures=planted_measures).kernel
    near = kernel[kernel["cells"] >= 8]
    assert near.loc[near["value"].idxmax(), "offset"] == 1
    assert near.loc[near["content_free"].idxmax(), "offset"] == 1


def test_an_induction_head_that_suppresses_is_flagged(plant):
    flags = " ".join(head_card(plant(sign=-1.0), INDUCTION).flags)
    assert "its weights suppress what it attends to" in flags
    assert "lowers its logit" in flags
    assert "copy" in flags
    assert "previous-token" not in flags


def test_composition_without_the_attention_is_flagged(even_card):
    assert not any(badge.behaviour == "induction" for badge in even_card.badges)
    (flag,) = [flag for flag in even_card.flags if "previous-token head 0.1 most of all" in flag]
    assert "no induction attention" in flag


def test_weights_that_copy_without_the_behaviour_are_flagged(even_card):
    """With even attention all tokens are attended alike, so none is raised above the others."""
    assert any(flag.startswith("Its weights copy (OV copying 1.00") for flag in even_card.flags)


def test_induction_without_a_previous_token_head_is_flagged(planted, planted_measures):
    alone = replace(planted_measures, badges={INDUCTION: planted_measures.badges[INDUCTION]})
    (flag,) = head_card(planted, INDUCTION, measures=alone).flags
    assert "none of the heads that its keys read most is a previous-token head" in flag


def test_raised_tokens_without_copying_weights_are_flagged(plant):
    model = plant()
    with torch.no_grad():
        # Only the tokens of the prompts are copied; every other is turned into its neighbour, and strongly.
        W_V = model.blocks[1].attn.W_V
        W_V[0, 2:18, :18] = torch.eye(18)[2:18]
        model.blocks[1].attn.W_O[0, :2, :2] = torch.tensor([[-99.0, 0.0], [0.0, -99.0]])
    card = head_card(model, INDUCTION)
    assert values(card)["OV copying"] < 0
    assert any(flag.startswith("It raises the tokens that it attends to") for flag in card.flags)


def test_direct_effects_equal_their_sums_spelled_out(model):
    """With LayerNorm, MLPs and biases, from the folded weights and the run alone."""
    tokens, weights = random_repeats(model, 2, 16, seed=3), effective_weights(model)
    table = direct_effects(model, tokens, (16, 16)).set_index(["layer", "head", "behaviour"])
    W_U = weights.W_U - weights.W_U.mean(1, keepdim=True)
    for head in (Head(0, 2), Head(1, 1)):
        copying, following = [], []
        for row in tokens:
            done = run(model, row[None], sites=["pattern", "ln1_scale", "resid_pre", "final_scale"])
            stream = done[f"resid_pre.{head.layer}"][0]
            stream = stream - stream.mean(-1, keepdim=True)
            W = weights.head(head)
            pattern = done.pattern(head.layer)[0, head.head]
            read = stream / done[f"ln1_scale.{head.layer}"][0]
            logits = pattern @ read @ W.W_V @ W.W_O @ W_U / done["final_scale"][0]
            attended = average = 0.0
            for query in range(1, 16):
                raised = [max(float(logits[query, row[key]]), 0) for key in range(query + 1)]
                attended += sum(float(pattern[query, k]) * r for k, r in enumerate(raised))
                average += np.mean(raised)
            copying.append((attended - average) / (attended + average))
            following.append(np.mean([float(logits[q, row[q + 1]]) for q in range(15)]))
        place = (head.layer, head.head)
        assert_allclose(table.loc[(*place, "copying"), "value"], np.mean(copying), rtol=1e-4)
        assert_allclose(
            table.loc[(*place, "direct effect"), "value"], np.mean(following), rtol=1e-4
        )


def test_direct_effects_of_all_heads_add_up_to_the_logits(build):
    """No norm, no MLP, no bias: direct effects and the embedding's own are the logit of the next token."""
    model = build(order="ss", scale=2.0)
    tokens, weights = random_repeats(model, 3, 16, seed=1), effective_weights(model)
    effects = direct_effects(model, tokens, (16,) * 3)
    heads = effects[effects["behaviour"] == "direct effect"]["value"].sum()
    W_U = weights.W_U - weights.W_U.mean(1, keepdim=True)
    logits = run(model, tokens).logits
    logits = logits - logits.mean(-1, keepdim=True)
    stream = weights.W_E[tokens] + weights.W_pos[:16]
    following = tokens[:, 1:, None]
    direct = (stream @ W_U)[:, :-1].gather(2, following).mean()
    assert_allclose(
        heads + float(direct), float(logits[:, :-1].gather(2, following).mean()), rtol=1e-4
    )


@pytest.mark.parametrize("name", ["gemma2", "llama", "gpt-neox"])
def test_direct_effects_of_public_architectures_are_what_heads_add_to_the_stream(name):
    model = public(name)
    tokens, weights = torch.tensor([[3, 7, 9, 3, 7, 11, 9]]), effective_weights(model)
    table = direct_effects(model, tokens, (7,)).set_index(["layer", "head", "behaviour"])["value"]
    scale = run(model, tokens, sites=["final_scale"])["final_scale"][0]
    W_U = weights.W_U - weights.W_U.mean(1, keepdim=True)
    parts = stream_parts(model, tokens, by="head")
    for part, vector in zip(parts.parts, parts.vectors, strict=True):
        if part.kind == "head":
            logits = vector / scale @ W_U
            expected = logits[range(6), tokens[0, 1:]].mean()
            found = table[part.layer, part.head, "direct effect"]
            assert_allclose(found, expected.detach(), rtol=1e-4, atol=1e-5)


def test_repeats_score_only_what_was_to_be_expected(planted):
    """After 3 4 5 3 4 5 comes 3, but after that comes 9 for the first time."""
    tokens = torch.tensor([[0, 3, 4, 5, 3, 4, 5, 3, 9]])
    expected = direct_effects(planted, tokens, (9,), only_repeats=True)
    everywhere = direct_effects(planted, tokens, (9,))
    done = [t.set_index(["layer", "head", "behaviour"])["value"] for t in (expected, everywhere)]
    assert_allclose(done[0][1, 0, "direct effect"], 3 * (1 - 1 / 18), rtol=1e-3)
    assert done[1][1, 0, "direct effect"] < 2
    assert done[0][1, 0, "copying"] == done[1][1, 0, "copying"]


def test_uniform_attention_copies_at_chance_exactly(plant):
    model = plant()
    with torch.no_grad():
        for block in model.blocks:
            block.attn.W_Q.zero_()
    table = direct_effects(model, random_repeats(model, 3, 24, seed=0), (24,) * 3)
    assert_allclose(table[table["behaviour"] == "copying"]["value"], 0, atol=1e-5)


def test_measures_are_those_of_their_own_modules(model, measures):
    long = measures.long().set_index(["measure", "layer", "head"])
    weights = effective_weights(model)
    tokens = random_repeats(model, 8, 32, seed=2)
    scores = head_scores(model, prompts=tokens, seed=2)
    copying = copying_scores(weights, n_null=100, n_tokens=0, seed=2)
    composition = composition_scores(weights, n_null=100, seed=2)
    geometry = qk_geometry(weights, n_null=100, seed=2).table()
    geometry = geometry.set_index(["circuit", "measure", "layer", "head"])
    for layer, head in ((0, 1), (1, 3)):
        found = long["value"].xs((layer, head), level=("layer", "head"))
        assert_allclose(found["induction"], scores.value(Head(layer, head), "induction"))
        assert_allclose(found["OV copying"], copying.value(Head(layer, head)))
        assert_allclose(
            found["QK symmetric share"],
            geometry.loc[("QK", "symmetric share", layer, head), "value"],
        )
        index, z = composition.heads.index(Head(layer, head)), composition.z["V"]
        expected = z[:4, index].max() if layer else np.nan
        assert_allclose(found["V-composition in"], expected)
        assert_allclose(found["V-composition out"], np.nan if layer else z[index, 4:].max())


def test_the_table_has_one_row_per_head_and_chance_beside_each_measure(measures):
    table = measures.table()
    assert len(table) == 8
    assert len(set(measures.names)) == len(measures.names)
    for name in measures.names:
        assert {name, f"{name} chance"} <= set(table.columns)
    long = measures.long()
    assert len(long) == 8 * len(measures.names)
    behaviour = long[long["aspect"] != "weights"]
    assert (behaviour["low"] <= behaviour["value"]).all()
    assert (behaviour["value"] <= behaviour["high"]).all()
    weights = long[(long["aspect"] == "weights") & long["value"].notna()]
    assert weights["null_percentile"].between(0, 100).all()
    ranks = long[long["measure"] == "entropy"].sort_values("value")["head_percentile"]
    assert_allclose(ranks, 100 * np.arange(8) / 7)


def test_random_heads_compose_as_the_strongest_of_as_many_random_ones(build):
    long = head_measures(build(order="ss", n_heads=8, d_model=128, d_head=8), n_prompts=2).long()
    rows = long[long["measure"].str.contains("-composition") & long["value"].notna()]
    assert len(rows) == 3 * 16
    assert 25 < rows["null_percentile"].mean() < 75
    assert abs((rows["value"] - rows["chance"]).median()) < 0.5


@pytest.mark.parametrize("kind", ["unequal heads", "LayerNorm, rotary, biases", "sinusoidal"])
def test_every_kind_of_positions_and_heads_has_cards(build, kind):
    model = randomised(build, kind)
    card = head_card(model, Head(0, 1), measures=head_measures(model, n_prompts=2))
    assert card.table()["value"].notna().any()
    assert (card.partners["direction"] == "out").all()
    assert bool(len(card.partners)) == (model.cfg.n_layers > 1)


def test_an_encoder_has_a_card_that_says_what_is_absent(build):
    model = build(norm="LN", norm_position="post", causal=False)
    card = head_card(model, Head(1, 2), measures=head_measures(model, n_prompts=2))
    assert {"entropy", "QK symmetric share"} <= set(card.table()["measure"])
    assert "OV copying" not in set(card.table()["measure"])
    assert len(card.absent) == 2
    assert all("normalises after each sum" in reason for reason in card.absent)
    assert card.partners.empty
    with pytest.raises(UnsupportedError, match="no direct effects of heads"):
        direct_effects(model, torch.tensor([[0, 3, 4]]), (3,))


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"order": "s"}, "heads in one layer only"),
        ({"d_vocab_out": 7}, "reads 18 tokens and writes 7"),
        ({"causal": False}, "looks ahead"),
    ],
)
def test_what_a_model_has_no_measure_of_is_said(build, fields, reason):
    measures = head_measures(build(**{"order": "ss"} | fields), n_prompts=2)
    assert any(reason in said for said in measures.absent)
    assert measures.table()["entropy"].notna().all()


def test_given_prompts_are_run_as_they_are(model):
    prompts = ["abcabc", "ababab", "cdcdcdcd"]
    given = head_measures(model, prompts=prompts, seed=1)
    scores = head_scores(model, prompts=prompts, seed=1)
    found = given.of(Head(1, 0)).set_index("measure")["value"]
    assert_allclose(found["duplicate-token"], scores.value(Head(1, 0), "duplicate-token"))


def test_progress_counts_to_a_hundred(model):
    told = []
    head_measures(model, n_prompts=2, progress=lambda *step: told.append(step))
    assert told == sorted(told)
    assert told[-1] == (100, 100)


def test_wrong_heads_and_measures_are_refused(build, model, measures):
    with pytest.raises(SiteError, match=r"no head 0\.9"):
        head_card(model, Head(0, 9), measures=measures)
    with pytest.raises(SiteError, match=r"no head 5\.0"):
        measures.of(Head(5, 0))
    with pytest.raises(ConfigError, match="measures of elsewhere, the model is letters"):
        head_card(model, Head(0, 0), measures=replace(measures, model_name="elsewhere"))
    with pytest.raises(UnsupportedError, match="no attention"):
        head_measures(build(order="ff"))
