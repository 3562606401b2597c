"""Weights of a bridged block under the names and shapes of our own: zeros where a bias is missing."""

from typing import Any

import torch.nn.functional as F
from torch import Tensor

from workbench.models.families import FAMILIES, BridgeConfig


class BridgeAttention:
    """`W_Q [head d_model d_head]`, `W_K W_V [kv_head d_model d_head]`, `W_O [head d_head d_model]`, `b_*`."""

    def __init__(self, source: Any, cfg: BridgeConfig) -> None:
        self._source, self._cfg = source, cfg
        self.group = cfg.n_heads // (cfg.n_kv_heads or cfg.n_heads)

    def __getattr__(self, name: str) -> Tensor:
        """One weight or bias, live."""
        if name in ("W_Q", "W_K", "W_V", "W_O"):
            return getattr(self._source, name)
        if name not in ("b_Q", "b_K", "b_V", "b_O"):
            raise AttributeError(f"attention has no {name}")
        linear = getattr(self._source, name[-1].lower(), None)
        if getattr(linear, "bias", None) is not None:
            return getattr(self._source, name)
        if name == "b_O":
            return self.W_O.new_zeros(self._cfg.d_model)
        heads = self.W_Q if name == "b_Q" else self.W_K
        return heads.new_zeros(heads.shape[0], heads.shape[2])

    @property
    def q_gain(self) -> Tensor:
        """The gain of the norm on queries, `[d_head]`; only in models with `has_qk_norm`."""
        gain: Tensor = self._source.q_norm.weight
        return gain

    @property
    def k_gain(self) -> Tensor:
        """The gain of the norm on keys, as `q_gain`."""
        gain: Tensor = self._source.k_norm.weight
        return gain


class BridgeMLP:
    """`W_in W_gate [d_model d_mlp]`, `W_out [d_mlp d_model]`, `b_in`, `b_out`."""

    def __init__(self, source: Any, cfg: BridgeConfig) -> None:
        self._source, self.is_gated = source, cfg.is_gated

    def __getattr__(self, name: str) -> Tensor:
        """One weight or bias, live."""
        if name in ("W_in", "W_out") or (name == "W_gate" and self.is_gated):
            return getattr(self._source, name)
        if name not in ("b_in", "b_out"):
            raise AttributeError(f"this MLP has no {name}")
        bias = getattr(self._source, name)
        return (
            bias if bias is not None else getattr(self, "W" + name[1:]).new_zeros(self._width(name))
        )

    def _width(self, bias: str) -> int:
        return (self.W_in if bias == "b_in" else self.W_out).shape[1]


class BridgeNorm:
    """One norm: `kind` "LN" or "RMS", its divisor's `eps`, gain `w`, and bias `b` (LN only)."""

    def __init__(self, source: Any, cfg: BridgeConfig) -> None:
        self._source, self.kind, self.eps = source, cfg.norm, cfg.eps
        self._is_shifted = FAMILIES[cfg.model_type].has_shifted_gain

    @property
    def w(self) -> Tensor:
        """The gain that is multiplied in (Gemma stores it minus one)."""
        weight = self._source.weight
        return 1 + weight if self._is_shifted else weight

    def __call__(self, x: Tensor) -> Tensor:
        """Normalise every position on its own."""
        if self.kind == "LN":
            return F.layer_norm(x, x.shape[-1:], self.w, self.b, self.eps)
        return F.rms_norm(x, x.shape[-1:], self.w, self.eps)

    @property
    def b(self) -> Tensor:
        """The bias of a LayerNorm.

        Raises:
            AttributeError: an RMSNorm has none.
        """
        if self.kind != "LN":
            raise AttributeError("an RMSNorm has no bias")
        return self._source.bias


class BridgeBlock:
    """One block: `ln1`, `attn`, `ln2`, `mlp`, and Gemma 2's `ln1_post`, `ln2_post` (else None)."""

    has_attn = has_mlp = True

    def __init__(self, source: Any, cfg: BridgeConfig) -> None:
        self.attn, self.mlp = BridgeAttention(source.attn, cfg), BridgeMLP(source.mlp, cfg)
        self.ln1, self.ln2 = BridgeNorm(source.ln1, cfg), BridgeNorm(source.ln2, cfg)
        self.ln1_post = BridgeNorm(source.ln1_post, cfg) if cfg.has_post_norms else None
        self.ln2_post = BridgeNorm(source.ln2_post, cfg) if cfg.has_post_norms else None
