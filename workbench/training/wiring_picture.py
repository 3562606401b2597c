"""A network as a picture: units as dots at their places, wires as lines, the thickest kept when there are many.

    MLP           (tokens) · inputs · hidden 0 · … · outputs                  one row each, inputs at the bottom
    Transformer   tokens, positions · stream · heads · stream · mlp · stream · … · logits

The stream's channels are the same units at every depth; they are drawn once at each, between what writes and
what reads them, so that a line always goes up. A head has a slot of its row, its query and key neurons at the
left of it, its value and output neurons at the right. A wire that is zero is never drawn. (After the figures of
Liu, Gan, Tegmark 2023, "Seeing is Believing".)
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
import pandas as pd
from jaxtyping import Float, Float32, Int

from workbench.errors import ConfigError
from workbench.training.layouts import Layout
from workbench.training.mlp import MLP
from workbench.training.wires import Network, Wires
from workbench.training.wiring_places import Stage, Stages, stages_of

Scale = Literal["network", "block"]
MAX_LINES = 200_000
LIMIT = 20_000


@dataclass(frozen=True, eq=False)
class Dots:
    """Units as they are drawn; a channel of the stream is one dot at each depth.

    Args:
        groups: the names that `group` counts.
        index: of the unit within its group, as in the rows and columns of the wires.
        x: from 0 to 1.
        y: in rows, from 0 up.
        labels: what is written at a dot; empty = nothing.
    """

    groups: tuple[str, ...]
    group: Int[np.ndarray, " dot"]
    index: Int[np.ndarray, " dot"]
    x: Float[np.ndarray, " dot"]
    y: Float[np.ndarray, " dot"]
    labels: tuple[str, ...]


@dataclass(frozen=True, eq=False)
class Lines:
    """Wires as they are drawn, by the numbers of their dots; the thickest first."""

    source: Int[np.ndarray, " line"]
    target: Int[np.ndarray, " line"]
    weight: Float32[np.ndarray, " line"]
    block: Int[np.ndarray, " line"]


@dataclass(frozen=True)
class BlockShown:
    """How much of one block of wires is drawn.

    Args:
        n_lines: wires that are not zero.
        largest: |weight|.
        size: the sum of |weight|, and of those that are drawn.
    """

    name: str
    n_lines: int
    shown: int
    largest: float
    size: float
    size_shown: float


@dataclass(frozen=True, eq=False)
class WiringPicture:
    """What is drawn of a network, and what is left out.

    Args:
        rows: the name and height of each row.
        boxes: heads and positions: their name, left end, right end and row.
        scale: whether a line is as thick as its weight among all, or among those of its block.
    """

    model_name: str
    dots: Dots
    lines: Lines
    blocks: tuple[BlockShown, ...]
    rows: tuple[tuple[str, float], ...]
    boxes: tuple[tuple[str, float, float, float], ...]
    scale: Scale

    @property
    def n_lines(self) -> int:
        """Wires that are not zero."""
        return sum(block.n_lines for block in self.blocks)

    @property
    def shown(self) -> int:
        """Wires that are drawn."""
        return len(self.lines.weight)

    @property
    def left_out(self) -> int:
        """Wires that are not drawn though they are not zero."""
        return self.n_lines - self.shown

    @property
    def left_out_share(self) -> float:
        """Their part of the sum of all |weight|."""
        size = sum(block.size for block in self.blocks)
        return 1 - sum(block.size_shown for block in self.blocks) / size if self.left_out else 0.0

    @property
    def largest(self) -> float:
        """The largest |weight|."""
        return max(block.largest for block in self.blocks)

    def limits(self) -> dict[str, float]:
        """The |weight| of each block that is drawn thickest."""
        return {b.name: b.largest if self.scale == "block" else self.largest for b in self.blocks}

    def table(self) -> pd.DataFrame:
        """One row for each block: block wires shown largest share_shown (of the block's Σ|weight|)."""
        rows = [
            (b.name, b.n_lines, b.shown, b.largest, b.size_shown / b.size if b.size else 1.0)
            for b in self.blocks
        ]
        return pd.DataFrame(rows, columns=["block", "wires", "shown", "largest", "share_shown"])


def wiring_picture(
    model: Network,
    layout: Layout | None = None,
    *,
    limit: int = LIMIT,
    scale: Scale | None = None,
    labels: Mapping[str, Sequence[str]] | None = None,
) -> WiringPicture:
    """The picture of a network.

    Args:
        layout: where units stand; None = every group on a line. Heads keep their slots.
        limit: lines at most. By "network" the largest of all are drawn, by "block" as many of each block.
        scale: None = "network" for an MLP, "block" for a transformer, whose embeddings outweigh all else.
        labels: names of a group's units, in their own order, whatever their places.

    Raises:
        ConfigError: a limit or scale that cannot be meant, weights that are not finite, labels that do not fit.
    """
    if not isinstance(limit, int) or not 1 <= limit <= MAX_LINES:
        raise ConfigError(f"a picture has 1 to {MAX_LINES:,} lines, not {limit!r:.40}")
    if scale is not None and scale not in get_args(Scale):
        raise ConfigError(f"scale is one of {', '.join(get_args(Scale))}, not {scale!r:.40}")
    scale = scale or ("network" if isinstance(model, MLP) else "block")
    drawn = stages_of(model, layout, labels or {})
    weights = [_weights(ends.wires) for ends in drawn.blocks]
    chosen = _chosen(weights, limit, scale)
    blocks = tuple(
        _shown(ends.wires.name, weight, kept)
        for ends, weight, kept in zip(drawn.blocks, weights, chosen, strict=True)
    )
    return WiringPicture(
        model_name=model.name,
        dots=_dots(drawn.stages),
        lines=_lines(drawn, weights, chosen, blocks, scale),
        blocks=blocks,
        rows=drawn.rows,
        boxes=drawn.boxes,
        scale=scale,
    )


def _weights(wires: Wires) -> Float32[np.ndarray, "source target"]:
    weight = wires.weight.detach().float().cpu().numpy()
    if bad := int((~np.isfinite(weight)).sum()):
        raise ConfigError(f"{bad} of the {weight.size} weights of {wires.name} are not finite")
    return weight


def _chosen(weights: Sequence[np.ndarray], limit: int, scale: Scale) -> list[Int[np.ndarray, " _"]]:
    """The flat places of the lines of each block, thickest first."""
    best = [_largest(weight, limit) for weight in weights]
    if scale == "block":
        return [
            at[:n] for at, n in zip(best, _shares([len(at) for at in best], limit), strict=True)
        ]
    sizes = [np.abs(weight.ravel()[at]) for weight, at in zip(weights, best, strict=True)]
    block = np.repeat(np.arange(len(best)), [len(at) for at in best])
    kept = np.argsort(-np.concatenate(sizes), kind="stable")[:limit]
    counts = np.bincount(block[kept], minlength=len(best))
    return [at[:n] for at, n in zip(best, counts, strict=True)]


def _largest(weight: np.ndarray, limit: int) -> Int[np.ndarray, " line"]:
    size = np.abs(weight.ravel())
    at = np.flatnonzero(size)
    if len(at) > limit:
        at = at[np.sort(np.argpartition(-size[at], limit - 1)[:limit])]
    return at[np.argsort(-size[at], kind="stable")]


def _shares(counts: Sequence[int], limit: int) -> list[int]:
    """The same for every block, what a small one does not need going to the others."""
    shares, left = [0] * len(counts), limit
    order = sorted(range(len(counts)), key=lambda block: counts[block])
    for done, block in enumerate(order):
        shares[block] = min(counts[block], left // (len(counts) - done))
        left -= shares[block]
    return shares


def _shown(name: str, weight: np.ndarray, kept: Int[np.ndarray, " line"]) -> BlockShown:
    size = np.abs(weight.ravel())
    return BlockShown(
        name=name,
        n_lines=int(np.count_nonzero(size)),
        shown=len(kept),
        largest=float(size.max(initial=0)),
        size=float(size.sum(dtype=np.float64)),
        size_shown=float(size[kept].sum(dtype=np.float64)),
    )


def _dots(stages: Sequence[Stage]) -> Dots:
    groups = tuple(dict.fromkeys(stage.group for stage in stages))
    return Dots(
        groups=groups,
        group=np.concatenate([np.full(len(s.x), groups.index(s.group)) for s in stages]),
        index=np.concatenate([np.arange(len(s.x)) for s in stages]),
        x=np.concatenate([s.x for s in stages]),
        y=np.concatenate([s.y for s in stages]),
        labels=tuple(label for s in stages for label in s.labels),
    )


def _lines(
    drawn: Stages,
    weights: Sequence[np.ndarray],
    chosen: Sequence[Int[np.ndarray, " _"]],
    blocks: Sequence[BlockShown],
    scale: Scale,
) -> Lines:
    first = np.cumsum([0, *(len(stage.x) for stage in drawn.stages)])
    source, target, weight, block = [], [], [], []
    for number, (ends, matrix, at) in enumerate(zip(drawn.blocks, weights, chosen, strict=True)):
        row, column = np.divmod(at, matrix.shape[1])
        source.append(row + first[ends.source])
        target.append(column + first[ends.target])
        weight.append(matrix.ravel()[at])
        block.append(np.full(len(at), number))
    found = Lines(*(np.concatenate(part) for part in (source, target, weight, block)))
    size = np.abs(found.weight).astype(np.float64)
    if scale == "block":
        size /= np.array([each.largest or 1 for each in blocks])[found.block]
    order = np.argsort(-size, kind="stable")
    return Lines(found.source[order], found.target[order], found.weight[order], found.block[order])
