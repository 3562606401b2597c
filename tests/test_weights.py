"""Folding leaves the log-probabilities of every architecture alone; what cannot be folded is refused."""

from functools import cache

import pytest
import torch

from tests.folded_forward import folded_logits
from tests.models.tiny import TINY, tiny_hf
from workbench.errors import ConfigError, SiteError, UnsupportedError
from workbench.models.bridge import BridgeModel
from workbench.models.families import bridge_config
from workbench.sites import Head
from workbench.weights import effective_weights

OWN = {
    "no norm, shortformer": {"order": "ss", "positions": "shortformer"},
    "shortformer behind a norm": {"order": "ss", "positions": "shortformer", "norm": "LN"},
    "LN, learned, biases": {
        "order": "sfsf",
        "norm": "LN",
        "attn_bias": True,
        "mlp_bias": True,
        "unembed_bias": True,
    },
    "LNPre, sinusoidal": {"order": "sf", "norm": "LNPre", "positions": "sinusoidal"},
    "RMS, rotary, grouped, gated": {
        "order": "sfsf",
        "norm": "RMS",
        "positions": "rotary",
        "n_kv_heads": 2,
        "mlp": "swiglu",
    },
    "RMSPre, parallel": {"order": "sfsf", "norm": "RMSPre", "parallel": True, "attn_bias": True},
    "half steps, gated, LN": {"order": "fsf", "norm": "LN", "mlp": "geglu", "half_step_mlp": True},
    "unequal heads": {"order": "ss", "norm": "LN", "head_sizes": ((4, 8, 20), (16, 16))},
    "tied": {"order": "s", "norm": "RMS", "tied_unembedding": True, "positions": "none"},
}
PUBLIC = [name for name in TINY if not name.startswith("bert")]
TOKENS = torch.tensor([3, 7, 7, 2, 11, 3, 7, 0])


def randomised(build, fields):
    """A model of ours whose gains and biases are random too, so that none can be forgotten."""
    model = build(scale=2.0, **fields)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if weight.ndim == 1 or ".b_" in name:
                weight.copy_(torch.randn(weight.shape, generator=generator) * 0.5 + 0.3)
    return model


@cache
def public(name):
    """A tiny public model; shared, so leave it as it is."""
    hf = tiny_hf(name)
    return BridgeModel(hf, bridge_config(hf.config), None, name=name)


def encoder():
    """An encoder without a trained unembedding."""
    hf = tiny_hf("bert")
    return BridgeModel(hf, bridge_config(hf.config, has_unembed=False), None, name="encoder")


def log_probs(model, tokens):
    with torch.no_grad():
        return model(tokens[None])[0].double().log_softmax(-1)


@pytest.mark.parametrize("name", OWN)
@pytest.mark.parametrize(("dtype", "tolerance"), [("float64", 1e-10), ("float32", 2e-4)])
def test_folding_leaves_our_models_log_probabilities(build, name, dtype, tolerance):
    model = randomised(build, OWN[name])
    model = model.double() if dtype == "float64" else model
    folded = folded_logits(model, effective_weights(model), TOKENS).double().log_softmax(-1)
    torch.testing.assert_close(folded, log_probs(model, TOKENS), atol=tolerance, rtol=0)


@pytest.mark.parametrize("name", PUBLIC)
def test_folding_leaves_public_models_log_probabilities(name):
    model = public(name)
    weights = effective_weights(model, dtype="float64")
    folded = folded_logits(model, weights, TOKENS).log_softmax(-1)
    torch.testing.assert_close(folded, log_probs(model, TOKENS), atol=2e-5, rtol=0)


@pytest.mark.parametrize("name", ["gpt2", "gpt-neox"])
def test_centred_writers_leave_the_log_probabilities_of_layernorm_models(name):
    model = public(name)
    weights = effective_weights(model, dtype="float64", centre_writers=True)
    assert weights.W_E.mean(-1).abs().max() < 1e-12
    assert weights.attention(0).W_O.mean(-1).abs().max() < 1e-12
    folded = folded_logits(model, weights, TOKENS).log_softmax(-1)
    torch.testing.assert_close(folded, log_probs(model, TOKENS), atol=2e-5, rtol=0)


def test_smollm2_keeps_its_log_probabilities(smollm2):
    tokens = smollm2.to_tokens("When Mary and John went")[0]
    folded = folded_logits(smollm2, effective_weights(smollm2), tokens).log_softmax(-1)
    torch.testing.assert_close(folded.double(), log_probs(smollm2, tokens), atol=1e-3, rtol=0)


def test_biases_of_values_become_what_a_bert_layer_writes_anyway():
    model = public("bert")
    tokens, layer = TOKENS[None], effective_weights(model).attention(0)
    with torch.no_grad():
        _, cache = model.run_with_cache(tokens)
    block = model.blocks[0].attn
    z = cache["blocks.0.attn.hook_z"][0] - block.b_V
    written = torch.einsum("phd,hdm->pm", z, layer.W_O) + layer.b_O
    torch.testing.assert_close(written, cache["blocks.0.hook_attn_out"][0], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("name", ["llama", "gemma2", "qwen3"])
def test_rmsnorm_models_refuse_centring(name):
    with pytest.raises(UnsupportedError, match="RMSNorm"):
        effective_weights(public(name), centre_writers=True)


def test_models_that_cannot_be_centred_say_why(build):
    with pytest.raises(UnsupportedError, match="'none'"):
        effective_weights(build(), centre_writers=True)
    with pytest.raises(UnsupportedError, match="after the sum"):
        effective_weights(build(norm="LN", norm_position="post"), centre_writers=True)


def test_adanorm_is_refused_by_name(build):
    with pytest.raises(UnsupportedError, match="AdaNorm"):
        effective_weights(build(norm="Ada"))


def test_rotary_positions_that_depend_on_length_are_refused_by_name():
    model = public.__wrapped__("llama")
    model._hf.base_model.rotary_emb.rope_type = "dynamic"
    with pytest.raises(UnsupportedError, match="'dynamic'"):
        effective_weights(model)


def test_unfolded_scales_are_named(build):
    assert effective_weights(build()).unfolded == ()
    assert "1/σ" in effective_weights(build(norm="LN")).unfolded[0]
    assert len(effective_weights(public("gemma2")).unfolded) == 4


def test_wrong_heads_layers_and_dtypes_are_refused(build):
    weights = effective_weights(build())
    with pytest.raises(SiteError, match=r"no head 0\.4"):
        weights.head(Head(0, 4))
    with pytest.raises(SiteError, match="no layer 2"):
        weights.attention(2)
    with pytest.raises(ConfigError, match="float16"):
        effective_weights(build(), dtype="float16")
