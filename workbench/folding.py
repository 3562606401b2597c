"""Folded weights of heads and MLPs, and what one norm does to the weights around it.

`workbench.weights` puts these together.
"""

from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from workbench.errors import UnsupportedError
from workbench.models.protocol import Model


@dataclass(frozen=True, eq=False)
class HeadWeights:
    """One head, folded: `score = (x̂ W_Q + b_Q) R(Δ) (x̂ W_K + b_K)ᵀ / scale`, written `x̂ W_V W_O`.

    Args:
        label: `1.4`, or `1.4∘0.3` for a virtual head.
        pos_Q: the weight that a position embedding meets on the query side; None where there is none.
        scale: what scores are divided by.
        rates: radians per position of each pair of dimensions; None without rotary positions.
    """

    label: str
    W_Q: Float[Tensor, "d_model d_qk"]
    W_K: Float[Tensor, "d_model d_qk"]
    W_V: Float[Tensor, "d_model d_head"]
    W_O: Float[Tensor, "d_head d_model"]
    b_Q: Float[Tensor, " d_qk"]
    b_K: Float[Tensor, " d_qk"]
    scale: float
    pos_Q: Float[Tensor, "d_model d_qk"] | None = None
    pos_K: Float[Tensor, "d_model d_qk"] | None = None
    rates: Float[Tensor, " pair"] | None = None


@dataclass(frozen=True, eq=False)
class AttentionWeights:
    """The heads of one layer, folded, key/value heads repeated for every query head that they serve.

    `b_O` holds everything the layer writes whatever it attends to, the biases `b_V` of its values included.
    """

    W_Q: Float[Tensor, "head d_model d_head"]
    W_K: Float[Tensor, "head d_model d_head"]
    W_V: Float[Tensor, "head d_model d_head"]
    W_O: Float[Tensor, "head d_head d_model"]
    b_Q: Float[Tensor, "head d_head"]
    b_K: Float[Tensor, "head d_head"]
    b_V: Float[Tensor, "head d_head"]
    b_O: Float[Tensor, " d_model"]
    scales: tuple[float, ...]


@dataclass(frozen=True, eq=False)
class MLPWeights:
    """One MLP, folded; a gated one writes `(act(x̂ W_gate + b_gate) ⊙ (x̂ W_in + b_in)) W_out + b_out`."""

    W_in: Float[Tensor, "d_model d_mlp"]
    b_in: Float[Tensor, " d_mlp"]
    W_gate: Float[Tensor, "d_model d_mlp"] | None
    b_gate: Float[Tensor, " d_mlp"] | None
    W_out: Float[Tensor, "d_mlp d_model"]
    b_out: Float[Tensor, " d_model"]


def norm_kind(model: Model) -> str:
    """`none`, `LN`, `LNPre`, `RMS`, `RMSPre` or `Ada`; the "Pre" kinds have no gain or bias."""
    return str(model.cfg.norm)


def check(model: Model, *, centre_writers: bool) -> None:
    """Refuse what cannot be folded exactly.

    Raises:
        UnsupportedError: as of `workbench.weights.effective_weights`.
    """
    kind, position = norm_kind(model), model.cfg.norm_position
    if kind == "Ada":
        raise UnsupportedError(
            f"{model.name} has AdaNorm, whose multiplier depends on the input at every coordinate: no "
            "weight can absorb it. Read its activations instead (attention, logit lens)"
        )
    if centre_writers and not (kind.startswith("LN") and position == "pre"):
        reason = "its norm is an RMSNorm" if kind.startswith("RMS") else f"its norm is {kind!r}"
        reason = "it normalises after the sum" if position == "post" else reason
        raise UnsupportedError(
            f"cannot centre what {model.name} writes: {reason}, so the mean is not removed when read and "
            "taking it away would change the model; leave centre_writers out"
        )
    if model.cfg.positions == "rotary":
        _ = model.rotary_rates  # type: ignore[attr-defined]  # refuses what is not a plain turn


def own_scales(model: Model, tokens: Tensor) -> Tensor:
    """What a norm would divide each embedding by, `[d_vocab 1]`, if it alone were the stream."""
    kind = norm_kind(model)
    square = (
        tokens.square().mean(-1, keepdim=True)
        if kind.startswith("RMS")
        else tokens.var(-1, correction=0, keepdim=True)
    )
    return (square + model.cfg.eps).sqrt()


def read_through(kind: str, norm: Any, weight: Tensor) -> Tensor:
    """`C diag(w) W`: the weight `[..., d_model, d_out]` for a stream that is only divided by its scale."""
    if norm is None or kind == "none":
        return weight
    if kind in ("LN", "RMS"):
        weight = norm.w.detach().to(weight)[:, None] * weight
    return weight - weight.mean(-2, keepdim=True) if kind.startswith("LN") else weight


def bias_of(kind: str, norm: Any, like: Tensor) -> Tensor:
    """The bias that a norm adds, `[d_model]`; zeros where it has none."""
    if norm is None or kind != "LN":
        return like.new_zeros(like.shape[-1])
    bias: Tensor = norm.b.detach().to(like)
    return bias


def gain_after(block: Any, name: str, like: Tensor) -> Tensor:
    """The gain of a norm on a sublayer's own output; ones where there is none."""
    norm = getattr(block, name, None)
    gain: Tensor = torch.ones_like(like) if norm is None else norm.w
    return gain.detach()


def query_key_gains(cfg: Any, attn: Any) -> tuple[Tensor, Tensor]:
    """The gains of norms on queries and keys, `[d_head]` each; ones where there are none."""
    if getattr(cfg, "has_qk_norm", False):
        return attn.q_gain, attn.k_gain
    ones = torch.ones_like(attn.W_Q[0, 0])
    return ones, ones


def score_scales(model: Model, layer: int) -> tuple[float, ...]:
    """What each head of a layer divides its scores by."""
    if hasattr(model.cfg, "attn_scale"):
        return (float(model.cfg.attn_scale),) * model.n_heads_in(layer)
    return tuple(float(size) ** 0.5 for size in model.cfg.blocks[layer].head_sizes)


def unfolded(model: Model) -> tuple[str, ...]:
    """The multipliers of each position that stay outside the weights, in words."""
    cfg, found = model.cfg, []
    if norm_kind(model) != "none":
        found.append(
            "the scale 1/σ of each norm before a sublayer and before the unembedding"
            if cfg.norm_position == "pre"
            else "the norms after each sum, with gain, bias and centring"
        )
    if getattr(cfg, "has_post_norms", False):
        found.append("the scale 1/σ of the norm on each sublayer's output")
    if getattr(cfg, "has_qk_norm", False):
        found.append("the scales 1/σ of queries and keys")
    if getattr(cfg, "attn_soft_cap", None):
        found.append("the soft cap of attention scores")
    if getattr(cfg, "logit_soft_cap", None):
        found.append("the soft cap of logits")
    return tuple(found)
