"""Effective weights: every norm's gain, bias and centring folded into the weights that read the stream.

A pre-norm sublayer reads `x̂ = norm(x)` and multiplies it by W. With LayerNorm `x̂ = (x C / σ) ⊙ w + b`, where C
takes the mean away, so

    x̂ W + b_W = (x / σ) @ [C diag(w) W] + [b_W + b W]            RMSNorm: no C, no b

and the brackets are the effective weight and bias. Patterns sum to 1, so `b_V` passes every head as a constant:
`b_O + Σ_h b_V[h] W_O[h]`. A norm on a sublayer's own output (Gemma 2) gives its gain to what that
sublayer writes.
(Elhage et al. 2021, "A Mathematical Framework for Transformer Circuits", "Handling Layer Normalization".)

What no weight can absorb is the scale 1/σ of each position: `EffectiveWeights.unfolded` names it. Weight-only
analyses are exact up to these scales.
"""

from collections.abc import Iterator, Sequence
from functools import cached_property
from typing import Any

import torch
from einops import einsum
from jaxtyping import Float
from torch import Tensor

from workbench import folding
from workbench.errors import ConfigError, SiteError
from workbench.folding import AttentionWeights, HeadWeights, MLPWeights
from workbench.models.protocol import Model
from workbench.sites import Head

DTYPES = {"float32": torch.float32, "float64": torch.float64}


class EffectiveWeights:
    """A model's weights, folded when asked for. Made by `effective_weights`.

    Args:
        unfolded: the scales that stay outside, in words; empty if the weights say everything.
    """

    def __init__(
        self,
        model: Model,
        dtype: torch.dtype | None = None,
        *,
        centre_writers: bool = False,
        normalise_tokens: bool = False,
    ) -> None:
        self.model, self._dtype, self._centre_writers = model, dtype, centre_writers
        self.has_normalised_tokens = normalise_tokens
        self.cfg: Any = model.cfg
        self.model_name = model.name
        self._newest: tuple[int, AttentionWeights] | None = None
        self.unfolded = folding.unfolded(model)
        # What is read through a norm; in post-norm models the stream itself is.
        self._norm = folding.norm_kind(model) if self.cfg.norm_position == "pre" else "none"

    @cached_property
    def W_E(self) -> Float[Tensor, "d_vocab d_model"]:
        """Token embedding, each row over its own scale σ if that was asked for.

        In post-norm models the norm behind it is not part of it.
        """
        weight = self._written(self.model.W_E)
        return (
            weight / folding.own_scales(self.model, weight)
            if self.has_normalised_tokens
            else weight
        )

    @cached_property
    def W_pos(self) -> Float[Tensor, "n_ctx d_model"] | None:
        """Position embedding; None without one. In "shortformer" models only queries and keys see it."""
        if self.cfg.positions not in ("learned", "sinusoidal", "shortformer"):
            return None
        weight: Tensor = self.model.W_pos  # type: ignore[attr-defined]  # where positions are a table
        is_written = self.cfg.positions != "shortformer"
        return self._written(weight) if is_written else self._cast(weight)

    @cached_property
    def W_U(self) -> Float[Tensor, "d_model d_vocab_out"]:
        """Unembedding, with the final norm folded in."""
        return self._read(self._cast(self.model.W_U), self._final_norm)

    @cached_property
    def b_U(self) -> Float[Tensor, " d_vocab_out"]:
        """Logits that are there whatever was read."""
        bias: Tensor = self._cast(self.model.b_U)  # type: ignore[attr-defined]  # both kinds have it
        return bias + self._shift(self._final_norm) @ self._cast(self.model.W_U)

    def unembedding(
        self, tokens: Sequence[int]
    ) -> tuple[Float[Tensor, "d_model token"], Float[Tensor, " token"]]:
        """Columns of `W_U` and entries of `b_U`, without folding the rest of the vocabulary."""
        raw = self._cast(self.model.W_U[:, list(tokens)])
        bias = self._cast(self.model.b_U[list(tokens)])  # type: ignore[attr-defined]
        return self._read(raw, self._final_norm), bias + self._shift(self._final_norm) @ raw

    @property
    def heads(self) -> tuple[Head, ...]:
        """Every head of the model."""
        counts = [self.model.n_heads_in(layer) for layer in range(self.cfg.n_layers)]
        return tuple(Head(layer, head) for layer, n in enumerate(counts) for head in range(n))

    def has_mlp(self, layer: int) -> bool:
        """Whether a layer has an MLP, without folding it.

        Raises:
            SiteError: no such layer.
        """
        return bool(self._block(layer).has_mlp)

    def attention(self, layer: int) -> AttentionWeights | None:
        """The heads of a layer; None where it has no attention.

        Raises:
            SiteError: no such layer.
        """
        block = self._block(layer)
        if not block.has_attn:
            return None
        # Heads are asked for one after the other, so the newest layer is kept; all would double the model.
        newest = self._newest
        if newest is None or newest[0] != layer:
            newest = self._newest = (layer, self._fold_attention(layer, block))
        return newest[1]

    def _fold_attention(self, layer: int, block: Any) -> AttentionWeights:
        attn, norm = block.attn, block.ln1
        W_Q, W_K, W_V, W_O = (self._cast(getattr(attn, f"W_{x}")) for x in "QKVO")
        b_Q, b_K, b_V, b_O = (self._cast(getattr(attn, f"b_{x}")) for x in "QKVO")
        shift = self._shift(norm)
        b_Q, b_K, b_V = b_Q + shift @ W_Q, b_K + shift @ W_K, b_V + shift @ W_V
        W_Q, W_K, W_V = (self._read(W, norm) for W in (W_Q, W_K, W_V))
        q_gain, k_gain = (self._cast(gain) for gain in folding.query_key_gains(self.cfg, attn))
        W_Q, b_Q, W_K, b_K = W_Q * q_gain, b_Q * q_gain, W_K * k_gain, b_K * k_gain
        group = len(W_Q) // len(W_K)
        W_K, W_V, b_K, b_V = (t.repeat_interleave(group, dim=0) for t in (W_K, W_V, b_K, b_V))
        constant = b_O + einsum(b_V, W_O, "head d_head, head d_head d_model -> d_model")
        gain = self.post_gain(layer, "ln1_post")
        return AttentionWeights(
            W_Q=W_Q,
            W_K=W_K,
            W_V=W_V,
            W_O=self._written(W_O * gain),
            b_Q=b_Q,
            b_K=b_K,
            b_V=b_V,
            b_O=self._written(constant * gain),
            scales=folding.score_scales(self.model, layer),
        )

    def mlp(self, layer: int) -> MLPWeights | None:
        """The MLP of a layer; None where it has none.

        Raises:
            SiteError: no such layer.
        """
        block = self._block(layer)
        if not block.has_mlp:
            return None
        mlp, norm = block.mlp, block.ln2
        shift, step = self._shift(norm), getattr(mlp, "step", 1.0)
        W_in, W_out = self._cast(mlp.W_in), self._cast(mlp.W_out)
        W_gate = self._cast(mlp.W_gate) if mlp.is_gated else None
        gain = step * self.post_gain(layer, "ln2_post")
        return MLPWeights(
            W_in=self._read(W_in, norm),
            b_in=self._cast(mlp.b_in) + shift @ W_in,
            W_gate=None if W_gate is None else self._read(W_gate, norm),
            b_gate=None if W_gate is None else shift @ W_gate,
            W_out=self._written(W_out * gain),
            b_out=self._written(self._cast(mlp.b_out) * gain),
        )

    def post_gain(self, layer: int, name: str) -> Float[Tensor, " d_model"]:
        """The gain of a norm on a sublayer's output (`ln1_post`, `ln2_post`); ones where there is none."""
        return self._cast(folding.gain_after(self._block(layer), name, self.W_E[0]))

    def head(self, head: Head) -> HeadWeights:
        """One head.

        Raises:
            SiteError: no such head.
        """
        if head not in self.heads:
            counts = [self.model.n_heads_in(layer) for layer in range(self.cfg.n_layers)]
            raise SiteError(f"{self.model_name} has no head {head}: its layers have {counts}")
        layer = self.attention(head.layer)
        assert layer is not None
        return self._one(layer, head)

    def each_head(self) -> Iterator[tuple[Head, HeadWeights]]:
        """Every head with its weights; a layer at a time is folded."""
        for index in range(self.cfg.n_layers):
            layer = self.attention(index)
            for number in range(0 if layer is None else len(layer.W_Q)):
                assert layer is not None
                yield Head(index, number), self._one(layer, Head(index, number))

    def _one(self, layer: AttentionWeights, head: Head) -> HeadWeights:
        index = head.head
        W_Q, W_K = layer.W_Q[index], layer.W_K[index]
        pos_Q, pos_K = (None, None) if self.W_pos is None else (W_Q, W_K)
        if self.cfg.positions == "shortformer":
            # Positions join behind the norm, so its gain does not reach them.
            attn = self._block(head.layer).attn
            kv_head = index // (len(layer.W_Q) // attn.W_K.shape[0])
            pos_Q, pos_K = self._cast(attn.W_Q[index]), self._cast(attn.W_K[kv_head])
        rates = self.model.rotary_rates if self.cfg.positions == "rotary" else None  # type: ignore[attr-defined]
        return HeadWeights(
            label=str(head),
            W_Q=W_Q,
            W_K=W_K,
            W_V=layer.W_V[index],
            W_O=layer.W_O[index],
            b_Q=layer.b_Q[index],
            b_K=layer.b_K[index],
            scale=layer.scales[index],
            pos_Q=pos_Q,
            pos_K=pos_K,
            rates=rates,
        )

    @property
    def _final_norm(self) -> Any:
        return getattr(self.model, "ln_final", None)

    def _read(self, weight: Tensor, norm: Any) -> Tensor:
        return folding.read_through(self._norm, norm, weight)

    def _shift(self, norm: Any) -> Tensor:
        return folding.bias_of(self._norm, norm, self.W_E)

    def _block(self, layer: int) -> Any:
        if not 0 <= layer < self.cfg.n_layers:
            raise SiteError(
                f"{self.model_name} has no layer {layer}: they run from 0 to {self.cfg.n_layers - 1}"
            )
        return self.model.blocks[layer]

    def _cast(self, weight: Tensor) -> Tensor:
        weight = weight.detach()
        return weight if self._dtype is None else weight.to(self._dtype)

    def _written(self, weight: Tensor) -> Tensor:
        weight = self._cast(weight)
        return weight - weight.mean(-1, keepdim=True) if self._centre_writers else weight


def effective_weights(
    model: Model,
    *,
    dtype: str | None = None,
    centre_writers: bool = False,
    normalise_tokens: bool = False,
) -> EffectiveWeights:
    """A model's folded weights: its log-probabilities, with norms that only scale.

    Args:
        dtype: "float32" or "float64"; default the model's own.
        centre_writers: also take from everything written to the stream its mean over d_model, which
            LayerNorm would remove anyway.
        normalise_tokens: divide each token's embedding by the scale that a norm would take from it alone:
            exact for the first layer without positions in the stream, and else nearer than no scale at all,
            under which tokens with short embeddings count too little. For circuits over the vocabulary; such
            weights no longer make the model's stream. Nothing changes without a norm.

    Raises:
        ConfigError: another dtype.
        UnsupportedError: AdaNorm, whose multiplier differs for every coordinate; rotary positions that are
            rescaled with length; centring where nothing removes the mean.
    """
    if dtype is not None and dtype not in DTYPES:
        raise ConfigError(f"no dtype {dtype!r} of weights: there are {', '.join(DTYPES)}")
    folding.check(model, centre_writers=centre_writers)
    return EffectiveWeights(
        model,
        DTYPES.get(dtype or ""),
        centre_writers=centre_writers,
        normalise_tokens=normalise_tokens and model.cfg.norm != "none",
    )
