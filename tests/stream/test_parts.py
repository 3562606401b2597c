"""The stream is the sum of its parts, and every logit the sum of what the parts wrote for it."""

import numpy as np
import pytest
import torch
from transformer_lens import ActivationCache

from tests.test_weights import OWN, encoder, public, randomised
from workbench.errors import ConfigError, PromptError, UnsupportedError
from workbench.stream.attribution import logit_attribution
from workbench.stream.parts import stream_parts
from workbench.stream.residual import stream_geometry

PUBLIC = ("gpt2", "gpt-neox", "llama", "qwen2", "qwen3", "gemma", "gemma2")
IDS = [3, 7, 7, 2, 11, 3, 7, 0]


def architectures(build):
    for name, fields in OWN.items():
        yield name, randomised(build, fields)
    for name in PUBLIC:
        yield name, public(name)


def test_parts_sum_to_the_stream_of_every_architecture(build):
    for name, model in architectures(build):
        for by in ("component", "head"):
            found = stream_parts(model, IDS, by=by)
            assert found.residual < 1e-5, (name, by)
            torch.testing.assert_close(found.vectors.sum(0), found.final, atol=1e-3, rtol=1e-4)


@pytest.mark.parametrize("distractor", [None, 5, "mean"])
def test_parts_and_biases_sum_to_the_models_own_logit(build, distractor):
    for name, model in architectures(build):
        with torch.no_grad():
            logits = model(torch.tensor([IDS]))[0, 4].double()
        truth = logits[2] - {None: 0.0, 5: logits[5], "mean": logits.mean()}[distractor]
        for by in ("component", "head", "source", "neuron"):
            if by == "neuron" and model.cfg.attn_only:
                continue
            found = logit_attribution(model, IDS, 2, distractor=distractor, pos=4, by=by)
            scale = max(1.0, float(np.abs(found.values).max()))
            assert found.total == pytest.approx(float(truth), abs=1e-5), name
            assert found.values.sum() == pytest.approx(float(truth), abs=1e-4 * scale), (name, by)
            assert found.residual == pytest.approx(found.values.sum() - found.total)


def test_finer_parts_sum_to_the_coarser_ones(build):
    model = randomised(build, OWN["LN, learned, biases"])
    heads = logit_attribution(model, IDS, 2, by="head").table()
    for by, kind in (("source", "source"), ("neuron", "neuron")):
        finer = logit_attribution(model, IDS, 2, by=by).table()
        key = "head" if by == "source" else "layer"
        coarse = heads[heads["kind"] == ("head" if by == "source" else "mlp")]
        for _, row in coarse.iterrows():
            mine = finer[(finer["layer"] == row["layer"]) & (finer["kind"].isin([kind, "bias"]))]
            if by == "source":
                mine = mine[(mine[key] == row[key]) & (mine["kind"] == kind)]
            else:
                mine = mine[(mine["kind"] == kind) | mine["part"].str.startswith("bias of mlp")]
            assert mine["value"].sum() == pytest.approx(row["value"], abs=1e-4)


def test_heads_agree_with_the_head_results_of_transformer_lens(attn_2l):
    tokens = attn_2l.to_tokens("x = [1, 2]; y = [1,")
    with torch.no_grad():
        _, cache = attn_2l.run_with_cache(tokens)
    assert isinstance(cache, ActivationCache)
    theirs = cache.stack_head_results(layer=-1)[:, 0, -1] @ attn_2l.W_U[:, 700]
    ours = logit_attribution(attn_2l, "x = [1, 2]; y = [1,", 700, by="head").table()
    ours = ours[ours["kind"] == "head"]["value"].to_numpy()
    np.testing.assert_allclose(ours, theirs[: len(ours)].detach().numpy(), atol=1e-4)


def test_a_token_as_text_is_the_token_as_id(attn_2l):
    by_text = logit_attribution(attn_2l, "x = [1, 2]; y = [1,", " 2", distractor=" 1")
    ids = attn_2l.tokenizer.encode(" 2", add_special_tokens=False)
    by_id = logit_attribution(attn_2l, "x = [1, 2]; y = [1,", ids[0], distractor=" 1")
    assert by_text.total == by_id.total and by_text.target == " 2" and by_text.distractor == " 1"


def test_without_a_target_the_likeliest_token_is_explained(attn_2l):
    found = logit_attribution(attn_2l, "x = [1, 2]; y = [1,")
    assert found.target == " 2" and found.pos == 13


def test_the_longest_list_keeps_the_sum(attn_2l):
    found = logit_attribution(attn_2l, "x = [1, 2]; y = [1,", by="source")
    top = found.top(5)
    assert len(top) == 7 and top["value"].sum() == pytest.approx(found.values.sum())
    assert list(top["value"][:5].abs()) == sorted(top["value"][:5].abs(), reverse=True)


def test_what_cannot_be_attributed_is_refused_by_name(build, attn_2l):
    with pytest.raises(UnsupportedError, match="normalises after every sum"):
        stream_parts(build(norm="LN", norm_position="post"), IDS)
    with pytest.raises(UnsupportedError, match="no MLP"):
        logit_attribution(attn_2l, "x = 1", by="neuron")
    with pytest.raises(PromptError, match="is 4 tokens"):
        logit_attribution(attn_2l, "x = 1", "zqxv")
    with pytest.raises(PromptError, match="no position 9"):
        logit_attribution(build(), IDS, 1, pos=9)
    with pytest.raises(PromptError, match="no token 99"):
        logit_attribution(build(), IDS, 99)
    with pytest.raises(PromptError, match="2 prompts"):
        logit_attribution(build(), [IDS, IDS], 1)
    with pytest.raises(ConfigError, match="layer"):
        logit_attribution(build(), IDS, 1, by="layer")
    with pytest.raises(ConfigError, match="neuron"):
        stream_geometry(build(), IDS, by="neuron")
    with pytest.raises(UnsupportedError, match="no unembedding"):
        logit_attribution(encoder(), IDS, 1)


def test_norms_cosines_and_survival_equal_slow_ones(build):
    model = randomised(build, OWN["LN, learned, biases"])
    found, parts = stream_geometry(model, IDS), stream_parts(model, IDS)
    x = parts.vectors.double().numpy()
    labels = [part.label for part in found.parts]
    assert labels == ["embed", "pos_embed", "attn 0", "mlp 0", "attn 1", "mlp 1"]
    later = x[labels.index("attn 1") :, 3].sum(0)
    mine = x[labels.index("mlp 0"), 3]
    assert found.survival[3, 3] == pytest.approx(mine @ (mine + later) / (mine @ mine), abs=1e-6)
    assert found.norms[2, 5] == pytest.approx(np.sqrt((x[2, 5] ** 2).sum()), rel=1e-6)
    slow = [
        a @ b / np.linalg.norm(a) / np.linalg.norm(b)
        for a, b in zip(x[0, 1:], x[3, 1:], strict=True)
    ]
    assert found.cosines[0, 3] == pytest.approx(np.mean(slow), abs=1e-6)
    assert found.table()["norm"].sum() == pytest.approx(found.norms.sum())
    assert len(found.cosine_table()) == 36


def test_a_layer_that_erases_the_embedding_leaves_nothing_of_it(build):
    model = build(order="s", n_heads=1, d_head=32, positions="none")
    with torch.no_grad():
        attn = model.blocks[0].attn
        attn.W_Q.zero_()
        attn.W_V[0], attn.W_O[0] = torch.eye(32), -torch.eye(32)
    # One token repeated: attention averages copies of it, and writes the negative back.
    found = stream_geometry(model, [4, 4, 4])
    np.testing.assert_allclose(found.survival[0], 0, atol=1e-5)
    np.testing.assert_allclose(found.stream_norm, 0, atol=1e-4)


def test_unrelated_later_writing_scatters_survival_as_much_as_stated(build):
    model = build(order="s" * 6, d_model=64, positions="none", scale=3.0)
    found = stream_geometry(model, [2, 3, 4, 5, 6, 7, 8, 9])
    early = (found.survival[0] - 1) / found.spread[0]
    assert np.isfinite(early).all() and np.abs(early).mean() < 4


def test_smollm2_adds_up(smollm2):
    prompt = "When Mary and John went to the store, John gave a drink to"
    found = logit_attribution(smollm2, prompt, " Mary", distractor=" John", by="head")
    assert abs(found.residual) < 1e-4 and found.total == pytest.approx(6.12, abs=0.01)
    assert found.top(1)["part"][0] == "23.3"
