"""The public architectures that the workbench reads, and how each one's config is put in our words.

A family is here once the laws of `tests/models/test_bridge.py` hold for it: its residual parts sum to the
whole, its weights reproduce its activations, and an edit at any of its sites reaches the logits.
"""

from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

from workbench.errors import UnsupportedError


class Family(NamedTuple):
    """One architecture of the transformers library."""

    model_class: str
    norm: Literal["LN", "RMS"]
    positions: Literal["learned", "rotary"]
    is_gated: bool = False
    norm_position: Literal["pre", "post"] = "pre"
    # Gemma multiplies by 1 + weight in its norms, and its embedding by sqrt(d_model).
    has_shifted_gain: bool = False
    has_post_norms: bool = False
    has_qk_norm: bool = False


FAMILIES = {
    "bert": Family("BertForMaskedLM", "LN", "learned", norm_position="post"),
    "gemma": Family("GemmaForCausalLM", "RMS", "rotary", is_gated=True, has_shifted_gain=True),
    "gemma2": Family(
        "Gemma2ForCausalLM",
        "RMS",
        "rotary",
        is_gated=True,
        has_shifted_gain=True,
        has_post_norms=True,
    ),
    "gpt2": Family("GPT2LMHeadModel", "LN", "learned"),
    "gpt_neox": Family("GPTNeoXForCausalLM", "LN", "rotary"),
    "llama": Family("LlamaForCausalLM", "RMS", "rotary", is_gated=True),
    "mistral": Family("MistralForCausalLM", "RMS", "rotary", is_gated=True),
    "qwen2": Family("Qwen2ForCausalLM", "RMS", "rotary", is_gated=True),
    "qwen3": Family("Qwen3ForCausalLM", "RMS", "rotary", is_gated=True, has_qk_norm=True),
}


@dataclass(frozen=True, kw_only=True)
class BridgeConfig:
    """The shape and kind of a public model, in the words of `protocol.Config`.

    Args:
        act_fn: the MLP's nonlinearity as transformers names it; the gate's, if `is_gated`.
        rotary_dim: how many dimensions of a head turn; the rest stay (GPT-NeoX).
        attn_scale: what scores are divided by.
        attn_soft_cap: scores become `cap * tanh(scores / cap)`; likewise `logit_soft_cap`.
        has_post_norms: a norm also follows each sublayer, before it is added (Gemma 2).
        has_qk_norm: queries and keys are normalised per head, after `hook_q` and `hook_k` (Qwen 3).
        has_unembed: False for an encoder without a trained head; its logits are `[batch pos 0]`.
        window: how far back any layer sees, where that is less than `n_ctx`.
        embed_scale: factor between the embedding table of the file and `W_E`.
    """

    model_type: str
    n_layers: int
    n_heads: int
    n_kv_heads: int | None
    d_model: int
    d_head: int
    d_mlp: int
    d_vocab: int
    n_ctx: int
    act_fn: str
    is_gated: bool
    norm: Literal["LN", "RMS"]
    norm_position: Literal["pre", "post"]
    positions: Literal["learned", "rotary"]
    eps: float
    causal: bool
    parallel: bool
    attn_scale: float
    rotary_base: float | None
    rotary_dim: int | None
    attn_soft_cap: float | None
    logit_soft_cap: float | None
    has_post_norms: bool
    has_qk_norm: bool
    has_unembed: bool
    embed_scale: float
    window: int | None = None
    attn_only: bool = False

    @property
    def d_out(self) -> int:
        """Number of tokens that can be predicted."""
        return self.d_vocab if self.has_unembed else 0

    @property
    def normalization_type(self) -> str:
        """The norm, as TransformerLens names it."""
        return self.norm

    @property
    def final_rms(self) -> bool:
        """Whether the final norm is an RMSNorm."""
        return self.norm == "RMS"

    @property
    def n_key_value_heads(self) -> int | None:
        """Key/value heads, or None where every head has its own."""
        return self.n_kv_heads


def family_of(model_type: object) -> Family:
    """What is known of an architecture.

    Raises:
        UnsupportedError: one that is not in the table.
    """
    if not isinstance(model_type, str) or model_type not in FAMILIES:
        raise UnsupportedError(
            f"models of type {str(model_type)[:40]!r} are not read: there are {', '.join(FAMILIES)}"
        )
    return FAMILIES[model_type]


def bridge_config(hf_config: Any, *, has_unembed: bool = True) -> BridgeConfig:
    """Our description of a transformers config."""
    family = family_of(hf_config.model_type)
    n_heads, d_model = hf_config.num_attention_heads, hf_config.hidden_size
    n_kv_heads = getattr(hf_config, "num_key_value_heads", None) or n_heads
    d_head = getattr(hf_config, "head_dim", None) or d_model // n_heads
    rope = getattr(hf_config, "rope_parameters", None) or {}
    scalar = getattr(hf_config, "query_pre_attn_scalar", None) or d_head
    return BridgeConfig(
        model_type=hf_config.model_type,
        n_layers=hf_config.num_hidden_layers,
        n_heads=n_heads,
        n_kv_heads=n_kv_heads if n_kv_heads != n_heads else None,
        d_model=d_model,
        d_head=d_head,
        d_mlp=getattr(hf_config, "intermediate_size", None)
        or getattr(hf_config, "n_inner", None)
        or 4 * d_model,
        d_vocab=hf_config.vocab_size,
        n_ctx=hf_config.max_position_embeddings,
        act_fn=_first(hf_config, "hidden_activation", "hidden_act", "activation_function"),
        is_gated=family.is_gated,
        norm=family.norm,
        norm_position=family.norm_position,
        positions=family.positions,
        eps=_first(hf_config, "rms_norm_eps", "layer_norm_eps", "layer_norm_epsilon"),
        causal=hf_config.model_type != "bert",
        parallel=bool(getattr(hf_config, "use_parallel_residual", False)),
        attn_scale=float(scalar) ** 0.5,
        rotary_base=rope.get("rope_theta"),
        rotary_dim=int(d_head * rope.get("partial_rotary_factor", 1.0)) if rope else None,
        attn_soft_cap=getattr(hf_config, "attn_logit_softcapping", None),
        logit_soft_cap=getattr(hf_config, "final_logit_softcapping", None),
        has_post_norms=family.has_post_norms,
        has_qk_norm=family.has_qk_norm,
        has_unembed=has_unembed,
        embed_scale=d_model**0.5 if family.has_shifted_gain else 1.0,
        window=_window(hf_config),
    )


def _window(hf_config: Any) -> int | None:
    window = getattr(hf_config, "sliding_window", None)
    is_used = getattr(hf_config, "use_sliding_window", True)
    return (
        int(window) if window and is_used and window < hf_config.max_position_embeddings else None
    )


def _first(hf_config: Any, *names: str) -> Any:
    values = (getattr(hf_config, name, None) for name in names)
    return next(value for value in values if value is not None)
