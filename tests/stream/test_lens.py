"""The logit lens against the model's own logits and against TransformerLens."""

import numpy as np
import pytest
import torch

from tests.stream.test_parts import IDS, architectures
from tests.test_weights import encoder, public
from workbench.errors import ConfigError, PromptError, UnsupportedError
from workbench.stream.lens import logit_lens


def test_the_last_row_is_the_models_own_prediction_on_every_architecture(build):
    for name, model in architectures(build):
        with torch.no_grad():
            probs = model(torch.tensor([IDS]))[0].softmax(-1)
        lens = logit_lens(model, IDS, top=3, tokens=[2])
        np.testing.assert_allclose(
            lens.top_probs[-1], probs.topk(3).values, atol=1e-5, err_msg=name
        )
        np.testing.assert_allclose(lens.kl[-1], 0, atol=1e-5)
        np.testing.assert_allclose(lens.probs[-1, :, 0], probs[:, 2], atol=1e-5)
        ranks = (probs > probs[:, [2]]).sum(-1)
        np.testing.assert_array_equal(lens.ranks[-1, :, 0], ranks)


def test_every_row_reads_the_stream_as_the_final_layer_would(model):
    with torch.no_grad():
        _, cache = model.run_with_cache(torch.tensor([IDS]))
    lens = logit_lens(model, IDS, top=18)
    for layer, name in enumerate(["blocks.0.hook_resid_pre", "blocks.0.hook_resid_post"]):
        x = cache[name][0].double()
        x = x - x.mean(-1, keepdim=True)
        x = (
            x / (x.pow(2).mean(-1, keepdim=True) + 1e-5).sqrt() * model.ln_final.w
            + model.ln_final.b
        )
        slow = (x @ model.W_U.double() + model.b_U).softmax(-1).detach()
        ours = np.zeros((len(IDS), 18))
        np.put_along_axis(ours, lens.top_tokens[layer], lens.top_probs[layer], axis=-1)
        np.testing.assert_allclose(ours, slow, atol=1e-5)
        final = cache["blocks.1.hook_resid_post"][0]
        target = model.readout(final).double().log_softmax(-1).detach()
        kl = (target.exp() * (target - slow.log())).sum(-1)
        np.testing.assert_allclose(lens.kl[layer], kl, atol=1e-4)
        np.testing.assert_allclose(lens.entropy[layer], -(slow * slow.log()).sum(-1), atol=1e-4)


def test_it_agrees_with_the_lens_of_transformer_lens(attn_2l):
    from transformer_lens.tools import analysis

    tokens = attn_2l.to_tokens("x = [1, 2]; y = [1,")
    with torch.no_grad():
        theirs = analysis.logit_lens(attn_2l, tokens, targets=[5, 300], positions=None).values[:, 0]
    ours = logit_lens(attn_2l, tokens, tokens=[5, 300])
    # A difference of logits is one of log-probabilities.
    mine = np.log(ours.probs[..., 0].astype(float)) - np.log(ours.probs[..., 1].astype(float))
    np.testing.assert_allclose(mine, theirs[..., 0] - theirs[..., 1], atol=1e-3)


def test_tables_have_a_row_for_every_cell(model):
    lens = logit_lens(model, "abcab", tokens=["a", "b"], top=4)
    table = lens.table()
    assert len(table) == 3 * 6 * 4 and list(table["label"].unique()) == [
        "embedding",
        "layer 0",
        "layer 1",
    ]
    first = table[(table["layer"] == 2) & (table["pos"] == 5)]
    assert first["prob"].is_monotonic_decreasing and first["token"].eq("b").all()
    chosen = lens.chosen_table()
    assert len(chosen) == 3 * 6 * 2 and set(chosen["followed"]) == {"a", "b"}


def test_progress_is_told_and_may_stop_the_work(model):
    told = []
    logit_lens(model, "abc", progress=lambda done, total: told.append((done, total)))
    assert told == [(1, 3), (2, 3), (3, 3)]

    def stop(done, total):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        logit_lens(model, "abc", progress=stop)


def test_what_has_no_next_token_is_refused_by_name(model, build):
    with pytest.raises(UnsupportedError, match="no unembedding"):
        logit_lens(encoder(), IDS)
    with pytest.raises(UnsupportedError, match="several layers"):
        logit_lens(public("bert"), IDS)
    with pytest.raises(ConfigError, match="top 0"):
        logit_lens(model, "abc", top=0)
    with pytest.raises(PromptError, match="2 prompts"):
        logit_lens(model, ["abc", "abd"])
    with pytest.raises(PromptError, match="never predicts token 17"):
        logit_lens(build(d_vocab_out=10), IDS, tokens=[17])
