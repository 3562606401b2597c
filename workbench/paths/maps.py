"""The linear maps of one forward pass: norms, attention layers and MLPs with their multipliers held fixed.

Each has `apply` (of parts of the stream, the constant left out) and `transpose` (of directions), both over any
batch of `[pos d_model]`; `⟨u, apply(x)⟩ = ⟨transpose(u), x⟩`. What a map writes when it reads nothing is its
`constant`.
"""

from dataclasses import dataclass, replace
from functools import cached_property

import torch
from einops import rearrange
from jaxtyping import Bool, Float
from torch import Tensor

Stream = Float[Tensor, "*batch pos d_model"]


@dataclass(frozen=True, eq=False)
class FrozenNorm:
    """`x → (x - mean) ⊙ gain + bias`, the scale 1/σ of this run inside the gain; the mean stays for RMSNorm."""

    gain: Float[Tensor, "pos d_model"]
    bias: Float[Tensor, " d_model"]
    is_centred: bool

    def apply(self, x: Stream) -> Stream:
        """The norm without its bias."""
        return (x - x.mean(-1, keepdim=True) if self.is_centred else x) * self.gain

    def transpose(self, direction: Stream) -> Stream:
        """What a direction behind the norm is before it."""
        direction = direction * self.gain
        if self.is_centred:
            return direction - direction.mean(-1, keepdim=True)
        return direction


@dataclass(frozen=True, eq=False)
class FrozenAttention:
    """The heads of one layer with their patterns: `x → Σ_h A[h] norm(x) W_V[h] W_O[h]`.

    Args:
        reads: the norm before; None without one.
        after: the norm on the output before it is added (Gemma 2).
    """

    layer: int
    reads: FrozenNorm | None
    pattern: Float[Tensor, "head query key"]
    W_V: Float[Tensor, "kv_head d_model d_head"]
    W_O: Float[Tensor, "head d_head d_model"]
    after: FrozenNorm | None
    constant: Float[Tensor, "pos d_model"]

    @property
    def n_parts(self) -> int:
        """Components that act side by side: the heads."""
        return len(self.W_O)

    @cached_property
    def _read_in(self) -> Float[Tensor, "d_model columns"]:
        """All W_V side by side."""
        return rearrange(self.W_V, "kv_head d_model d_head -> d_model (kv_head d_head)")

    @cached_property
    def _write_out(self) -> Float[Tensor, "rows d_model"]:
        """All W_O one below the other."""
        return rearrange(self.W_O, "head d_head d_model -> (head d_head) d_model")

    @cached_property
    def _grouped(self) -> Float[Tensor, "kv_head rows key"]:
        """The patterns of the heads that read the same values, one below the other."""
        kv_head = len(self.W_V)
        return rearrange(
            self.pattern, "(kv_head i) query key -> kv_head (i query) key", kv_head=kv_head
        )

    def apply(self, x: Stream) -> Stream:
        """What all heads write together."""
        z = rearrange(self._mixed(x), "... head query d_head -> ... query (head d_head)")
        written = z @ self._write_out
        return written if self.after is None else self.after.apply(written)

    def parts(self, x: Float[Tensor, "pos d_model"]) -> Float[Tensor, "head pos d_model"]:
        """What each head writes."""
        written = self._mixed(x) @ self.W_O
        return written if self.after is None else self.after.apply(written)

    def transpose(self, direction: Stream) -> Stream:
        """The direction that the heads read for it, all together."""
        asked = rearrange(
            self._asked(direction),
            "... query (kv_head i d_head) -> ... kv_head (i query) d_head",
            kv_head=len(self.W_V),
            d_head=self.W_V.shape[-1],
        )
        # Heads that read the same values are summed by the product itself.
        pulled = rearrange(
            self._grouped.mT @ asked, "... kv_head key d_head -> ... key (kv_head d_head)"
        )
        return self._unread(pulled @ self._read_in.mT)

    def transposed_parts(
        self, direction: Float[Tensor, "*batch pos d_model"]
    ) -> Float[Tensor, "*batch head pos d_model"]:
        """The direction that each head reads for it."""
        asked = rearrange(
            self._asked(direction),
            "... query (head d_head) -> ... head query d_head",
            d_head=self.W_V.shape[-1],
        )
        group = len(self.W_O) // len(self.W_V)
        return self._unread(self.pattern.mT @ asked @ self.W_V.mT.repeat_interleave(group, dim=0))

    def only(self, kept: Bool[Tensor, " head"]) -> "FrozenAttention":
        """The same layer with nothing written by the other heads; constants stay."""
        return replace(self, W_O=self.W_O * kept.to(self.W_O)[:, None, None])

    def _mixed(self, x: Stream) -> Float[Tensor, "*batch head query d_head"]:
        x = x if self.reads is None else self.reads.apply(x)
        v = rearrange(
            x @ self._read_in,
            "... key (kv_head d_head) -> ... kv_head key d_head",
            kv_head=len(self.W_V),
        )
        return rearrange(
            self._grouped @ v,
            "... kv_head (i query) d_head -> ... (kv_head i) query d_head",
            query=self.pattern.shape[1],
        )

    def _asked(self, direction: Stream) -> Float[Tensor, "*batch query columns"]:
        direction = direction if self.after is None else self.after.transpose(direction)
        return direction @ self._write_out.mT

    def _unread(self, direction: Tensor) -> Tensor:
        return direction if self.reads is None else self.reads.transpose(direction)


@dataclass(frozen=True, eq=False)
class FrozenMLP:
    """One MLP with its gates: `x → (norm(x) W_in ⊙ gate) W_out`; a step of ½ (Macaron) is in `W_out`.

    Args:
        gate: of plain MLPs `act(z) / z`, of gated ones the activated gate.
    """

    layer: int
    reads: FrozenNorm | None
    W_in: Float[Tensor, "d_model neuron"]
    W_out: Float[Tensor, "neuron d_model"]
    gate: Float[Tensor, "pos neuron"]
    after: FrozenNorm | None
    constant: Float[Tensor, "pos d_model"]

    @property
    def n_parts(self) -> int:
        """Components that act side by side: the MLP itself."""
        return 1

    def apply(self, x: Stream) -> Stream:
        """What the MLP writes."""
        x = x if self.reads is None else self.reads.apply(x)
        written = (x @ self.W_in * self.gate) @ self.W_out
        return written if self.after is None else self.after.apply(written)

    def parts(self, x: Float[Tensor, "pos d_model"]) -> Float[Tensor, "one pos d_model"]:
        """The same, with the axis of parts that attention has."""
        return self.apply(x)[None]

    def transpose(self, direction: Stream) -> Stream:
        """The direction that the MLP reads for it."""
        direction = direction if self.after is None else self.after.transpose(direction)
        read = (direction @ self.W_out.mT * self.gate) @ self.W_in.mT
        return read if self.reads is None else self.reads.transpose(read)

    def transposed_parts(
        self, direction: Float[Tensor, "*batch pos d_model"]
    ) -> Float[Tensor, "*batch one pos d_model"]:
        """The same, with the axis of parts that attention has."""
        return self.transpose(direction).unsqueeze(-3)

    def only(self, kept: Bool[Tensor, " one"]) -> "FrozenMLP":
        """The MLP, or one that writes its constant alone."""
        return self if kept.all() else replace(self, W_out=torch.zeros_like(self.W_out))


Sublayer = FrozenAttention | FrozenMLP


def gate_of(
    pre: Float[Tensor, "pos neuron"], post: Float[Tensor, "pos neuron"], slope: float
) -> Float[Tensor, "pos neuron"]:
    """`act(z) / z`; at z = 0, where it has no value and nothing passes, the activation's slope there."""
    small = pre.abs() < torch.finfo(pre.dtype).tiny * 1e4
    return torch.where(small, slope, post / torch.where(small, torch.ones_like(pre), pre))
