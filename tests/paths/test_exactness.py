"""Sums are the model's own numbers to rounding, in every architecture; what is not understood is refused."""

from dataclasses import replace

import pytest
import torch

from tests.models.tiny import TINY
from tests.paths.exactness import DTYPES, IDS, NAMES, TOLERANCE, errors, model_of
from tests.test_weights import public
from workbench.errors import UnsupportedError
from workbench.models.bridge import BridgeModel
from workbench.models.families import bridge_config, family_of
from workbench.paths.directions import logit_direction
from workbench.paths.frozen import freeze
from workbench.paths.orders import order_spectrum
from workbench.paths.scores import score_parts
from workbench.sites import Head


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", NAMES)
def test_every_number_of_every_architecture_is_the_sum_of_its_parts(name, dtype):
    for row in errors(name, dtype):
        assert row["error"] < TOLERANCE[dtype], row


def test_smollm2_is_the_sum_of_its_parts_to_double_precision():
    model = model_of("smollm2", "float64")
    frozen = freeze(model, "When Mary")
    orders = order_spectrum(frozen, logit_direction(frozen))
    assert abs(orders.residual) < 1e-10 * abs(orders.orders).max()
    score = score_parts(frozen, Head(29, 4), 1, 0)
    assert abs(score.residual) < 1e-10 * abs(score.values).max()


def tiny(name, **changes):
    """A public model with other fields in its config."""
    import transformers

    class_name, sizes = TINY[name]
    model_class = getattr(transformers, class_name)
    config = model_class.config_class(**{**sizes, **changes, "pad_token_id": None})
    with torch.random.fork_rng():
        torch.manual_seed(0)
        hf = model_class._from_config(config, attn_implementation="eager").eval()
        for weight in hf.parameters():
            weight.data.add_(torch.randn_like(weight) * 0.2)
    return BridgeModel(hf, bridge_config(hf.config), None, name=name)


@pytest.mark.parametrize(
    ("name", "changes"),
    [
        ("gpt2", {"scale_attn_by_inverse_layer_idx": True, "layer_norm_epsilon": 0.3}),
        ("gpt2", {"activation_function": "tanh", "tie_word_embeddings": False}),
        ("gpt2", {"activation_function": "relu2"}),
        ("llama", {"attention_bias": True, "mlp_bias": True, "head_dim": 12}),
        ("llama", {"hidden_act": "sigmoid", "rms_norm_eps": 0.5}),
        ("mistral", {"sliding_window": 4}),
        ("qwen3", {"attention_bias": True}),
        ("gemma2", {"query_pre_attn_scalar": 7, "sliding_window": 4}),
    ],
)
def test_what_a_config_may_change_stays_exact(name, changes):
    frozen = freeze(tiny(name, **changes), IDS)
    orders = order_spectrum(frozen, logit_direction(frozen, 2, distractor=5))
    assert abs(orders.residual) < TOLERANCE["float32"] * abs(orders.orders).max()


def test_an_activation_that_is_not_zero_at_zero_is_refused():
    with pytest.raises(UnsupportedError, match=r"'sigmoid', which is 0\.5 at zero"):
        freeze(tiny("gpt2", activation_function="sigmoid"), IDS)


def test_a_model_that_computes_something_else_than_its_config_says_is_refused():
    """Such as another activation, a scale on what a layer adds (Granite), or on the logits (Cohere)."""
    model = public.__wrapped__("llama")
    model.cfg = replace(model.cfg, act_fn="gelu")
    with pytest.raises(UnsupportedError, match="misses the model's own stream"):
        freeze(model, IDS)
    model = public.__wrapped__("llama")
    model._hf.model.layers[0].register_forward_hook(lambda _, given, out: given[0] + 0.5 * out)
    with pytest.raises(UnsupportedError, match="misses the model's own stream"):
        freeze(model, IDS)
    model = public.__wrapped__("gpt2")
    model._hf.lm_head.register_forward_hook(lambda _, given, out: 0.5 * out)
    with pytest.raises(UnsupportedError, match="misses the model's own logits"):
        logit_direction(freeze(model, IDS), 2)


def test_a_model_in_training_with_dropout_is_refused(build):
    model = build(order="sf", dropout=0.2).train()
    with pytest.raises(UnsupportedError, match=r"call \.eval\(\)"):
        freeze(model, IDS)


def test_half_width_numbers_are_refused(build):
    with pytest.raises(UnsupportedError, match="load it with dtype"):
        freeze(build(order="sf").bfloat16(), IDS)


@pytest.mark.parametrize(
    "model_type",
    ["gpt_oss", "mixtral", "qwen2_moe", "bloom", "cohere", "granite", "gemma3_text", "opt"],
)
def test_sinks_experts_slopes_and_multipliers_are_not_read_at_all(model_type):
    with pytest.raises(UnsupportedError, match=f"'{model_type}' are not read"):
        family_of(model_type)
