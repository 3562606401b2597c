"""The two sides of one head's scores, as linear maps of the stream with their multipliers held fixed.

    query[i] = R(i) [ (N(x)[i] + p[i]) W_Q + b_Q ] ⊙ m_Q[i]          key[j] likewise with W_K, b_K, m_K
    score[i, j] = c[i, j] ⟨query[i], key[j]⟩ / scale

N is the norm before the attention, p a position that only queries and keys see ("shortformer"), R the turn of
rotary positions, m the gain and scale of a norm on queries and keys, c what a soft cap leaves: capped over
uncapped. Each side is a sum over what was written to the stream below, so a score is one over pairs of parts.
(Elhage et al. 2021, "A Mathematical Framework for Transformer Circuits", "Path Expansion of Attention Scores
QK Circuit".)
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from workbench.circuits.factors import KNOWN_POSITIONS
from workbench.errors import SiteError, UnsupportedError
from workbench.folding import query_key_gains, score_scales
from workbench.paths.frozen import check_exact
from workbench.paths.maps import FrozenNorm
from workbench.paths.network import FrozenNetwork
from workbench.runs import run
from workbench.sites import Head, Site
from workbench.stream.parts import Part

# Masked cells hold the most negative number of their type, or minus infinity.
LOWEST_SCORE = -1e30
_EPS = 1e-12


@dataclass(frozen=True, eq=False)
class SideMap:
    """One side, `[pos d_model]` to `[pos d_head]`, every position on its own.

    Args:
        norm: before the attention; None without one.
        bias: b_Q or b_K, and what the norm's bias becomes.
        positions: what only queries and keys see; None without.
        multiplier: of a norm on queries or keys; None without one.
        angles: how far each pair of dimensions is turned; None without rotary positions.
    """

    norm: FrozenNorm | None
    W: Float[Tensor, "d_model d_head"]
    bias: Float[Tensor, " d_head"]
    positions: Float[Tensor, "pos d_model"] | None
    multiplier: Float[Tensor, "pos d_head"] | None
    angles: Float[Tensor, "pos pair"] | None

    def apply(self, x: Float[Tensor, "*batch pos d_model"]) -> Float[Tensor, "*batch pos d_head"]:
        """What parts of the stream become, constants left out."""
        x = x if self.norm is None else self.norm.apply(x)
        return self.finished(x.double() @ self.W)

    def finished(
        self, x: Float[Tensor, "*batch #pos d_head"]
    ) -> Float[Tensor, "*batch pos d_head"]:
        """Behind the weights: multiplied and turned."""
        x = x if self.multiplier is None else x * self.multiplier
        return x if self.angles is None else _turned(x, self.angles)

    def transpose(self, direction: Float[Tensor, "pos d_head"]) -> Float[Tensor, "pos d_model"]:
        """The direction of the stream that a direction of the side is."""
        if self.angles is not None:
            direction = _turned(direction, -self.angles)
        if self.multiplier is not None:
            direction = direction * self.multiplier
        direction = direction @ self.W.mT
        return direction if self.norm is None else self.norm.transpose(direction)

    def constants(self, n_pos: int) -> dict[str, Float[Tensor, "pos d_head"]]:
        """What is there whatever the stream is: "bias", and "pos" where positions are seen here alone."""
        found = {"bias": self.finished(self.bias.expand(n_pos, -1))}
        if self.positions is not None:
            found["pos"] = self.finished(self.positions @ self.W)
        return found


@dataclass(frozen=True, eq=False)
class QueryKey:
    """A head of one frozen pass, ready to be asked for its scores. Made by `query_key`.

    Args:
        level: of the stream that the head reads.
        kept: what an inner product of query and key is multiplied by: 1 / scale, and what a soft cap leaves.
        scores: the model's own.
        is_visible: which key each query may see.
    """

    frozen: FrozenNetwork
    head: Head
    level: int
    query: SideMap
    key: SideMap
    kept: Float[Tensor, "query key"]
    scores: Float[Tensor, "query key"]
    is_visible: Bool[Tensor, "query key"]

    @cached_property
    def queries(self) -> tuple[tuple[Part, ...], Float[Tensor, "part pos d_head"]]:
        """Every part of the query side, with what it becomes as a query at each position."""
        return self._parts(self.query, "b_Q", "pos (query)")

    @cached_property
    def keys(self) -> tuple[tuple[Part, ...], Float[Tensor, "part pos d_head"]]:
        """Every part of the key side, with what it becomes as a key at each position."""
        return self._parts(self.key, "b_K", "pos (key)")

    def _parts(
        self, side: SideMap, bias: str, pos: str
    ) -> tuple[tuple[Part, ...], Float[Tensor, "part pos d_head"]]:
        parts: list[Part] = []
        vectors: list[Tensor] = []
        for entering, written in arriving(self.frozen, self.level):
            parts += entering
            vectors.append(side.apply(written))
        names = {
            "bias": Part(bias, "bias", self.head.layer, self.head.head),
            "pos": Part(pos, "pos_embed"),
        }
        for name, vector in side.constants(len(self.scores)).items():
            if vector.any():
                parts.append(names[name])
                vectors.append(vector[None])
        return tuple(parts), torch.cat(vectors)


def arriving(
    frozen: FrozenNetwork, level: int
) -> Iterator[tuple[tuple[Part, ...], Float[Tensor, "part pos d_model"]]]:
    """Everything that the stream at a level is the sum of; what is zero everywhere is left out.

    In post-norm models a part has gone through the norms of the sums since.
    """
    for part, vector in frozen.sources.items():
        yield (part,), frozen.past(vector[None], 0, level)
    for index, step in enumerate(frozen.steps[:level]):
        yield step.components, frozen.past(frozen.written[index], index, level)
        if step.constant.any():
            yield (step.bias,), frozen.past(step.constant[None], index + 1, level)


def query_key(frozen: FrozenNetwork, head: Head) -> QueryKey:
    """One head's query and key maps in a frozen pass; runs the model once more for its scores.

    Raises:
        SiteError: no such head.
        UnsupportedError: positions that act on scores in another way than those understood here.
    """
    model = frozen.model
    counts = [model.n_heads_in(layer) for layer in range(model.cfg.n_layers)]
    if head.layer >= len(counts) or head.head >= counts[head.layer]:
        raise SiteError(f"{model.name} has no head {head}: its layers have {counts}")
    _check_positions(model)
    site = Site("scores", head.layer)
    one = run(model, frozen.run.tokens, sites=[site], budget="8GB")
    scores = one[site][0, head.head].double()
    step = next(
        step for step in frozen.steps if step.kind == "attn" and step.sublayer.layer == head.layer
    )
    stream, norm = frozen.levels[step.reads], step.sublayer.reads
    query, key = (_side_map(frozen, head, norm, side) for side in "QK")
    queries, keys = _whole(query, stream), _whole(key, stream)
    if getattr(model.cfg, "has_qk_norm", False):
        q_gain, k_gain = query_key_gains(model.cfg, model.blocks[head.layer].attn)
        query = _normalised(query, queries, q_gain, model.cfg.eps)
        key = _normalised(key, keys, k_gain, model.cfg.eps)
        queries, keys = _whole(query, stream), _whole(key, stream)
    inverse = 1 / score_scales(model, head.layer)[head.head]
    raw = queries @ keys.mT * inverse
    kept = inverse * _cap_kept(raw, getattr(model.cfg, "attn_soft_cap", None))
    visible = scores > LOWEST_SCORE
    found = QueryKey(frozen, head, step.reads, query, key, kept, scores, visible)
    _check_scores(found, queries, keys)
    return found


def _side_map(frozen: FrozenNetwork, head: Head, norm: FrozenNorm | None, side: str) -> SideMap:
    model: Any = frozen.model
    attn = model.blocks[head.layer].attn
    W, b = getattr(attn, f"W_{side}").detach(), getattr(attn, f"b_{side}").detach()
    place = head.head // (len(attn.W_Q) // len(W))
    weight = W[place].double()
    bias = b[place].double() + (0 if norm is None else norm.bias.double() @ weight)
    n_pos, positions, angles = len(frozen.stream), None, None
    if model.cfg.positions == "shortformer":
        positions = model.W_pos.detach()[:n_pos].double()
    if model.cfg.positions == "rotary":
        # In the precision of the model's own angles, which far from the start are rounded coarsely.
        rates = model.rotary_rates.detach()
        angles = torch.arange(n_pos, device=rates.device).to(rates)[:, None] * rates
    return SideMap(norm, weight, bias, positions, None, angles)


def _whole(side: SideMap, stream: Float[Tensor, "pos d_model"]) -> Float[Tensor, "pos d_head"]:
    return side.apply(stream) + torch.stack([*side.constants(len(stream)).values()]).sum(0)


def _normalised(
    side: SideMap, whole: Float[Tensor, "pos d_head"], gain: Tensor, eps: float
) -> SideMap:
    """A side behind an RMSNorm of its own; a turn before it changes no length."""
    scale = (whole.square().mean(-1, keepdim=True) + eps).sqrt()
    return replace(side, multiplier=gain.detach().double() / scale)


def _cap_kept(raw: Float[Tensor, "query key"], cap: float | None) -> Float[Tensor, "query key"]:
    """Capped / uncapped; 1 without a cap and at zero."""
    if not cap:
        return torch.ones_like(raw)
    tiny = raw.abs() < _EPS
    return torch.where(tiny, 1.0, cap * torch.tanh(raw / cap) / torch.where(tiny, 1.0, raw))


def _turned(
    x: Float[Tensor, "*batch pos d_head"], angles: Float[Tensor, "pos pair"]
) -> Float[Tensor, "*batch pos d_head"]:
    """Every position turned by its own angles, as `workbench.rotary.rotate` pairs the dimensions."""
    cos, sin, n_pairs = angles.cos().to(x), angles.sin().to(x), angles.shape[-1]
    first, second = x[..., :n_pairs], x[..., n_pairs : 2 * n_pairs]
    turned = [first * cos - second * sin, second * cos + first * sin]
    return torch.cat([*turned, x[..., 2 * n_pairs :]], dim=-1)


def _check_positions(model: Any) -> None:
    kind = model.cfg.positions
    if kind not in KNOWN_POSITIONS:
        raise UnsupportedError(
            f"{model.name} has positions of kind {str(kind)[:40]!r}, for which scores are no exact sum here: "
            f"understood are {', '.join(KNOWN_POSITIONS)}"
        )


def _check_scores(
    found: QueryKey, queries: Float[Tensor, "pos d_head"], keys: Float[Tensor, "pos d_head"]
) -> None:
    """Refuse a head whose scores are not what these maps give, such as one with a bias by distance."""
    missed = (queries @ keys.mT * found.kept - found.scores)[found.is_visible].abs().max()
    sizes = queries.norm(dim=-1)[:, None] * keys.norm(dim=-1) * found.kept
    largest = sizes[found.is_visible].max().clamp(min=1e-30)
    dtype = found.frozen.stream.dtype
    check_exact(found.frozen.model, "scores", float(missed / largest), dtype)
