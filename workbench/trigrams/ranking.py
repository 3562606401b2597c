"""The highest products of an entry of one circuit and an entry of another in the same row, exactly.

    score(source, destination, out) = max(N[source, destination], 0) · max(M[source, out], 0)

No table of vocabulary by vocabulary is formed. A source is worth the product of its largest two entries.
Columns are visited in falling order of norm: the largest entries seen of a source bound its worth from below,
and Cauchy-Schwarz with the largest norm still to come from above. Sources that cannot reach the k-th best lower
bound are dropped on the way. Both circuits are balanced first (`workbench.circuits.singular`): that makes norms
comparable and the bounds tight.
"""

import math
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from workbench.circuits.singular import singular_directions
from workbench.scoring import Progress

# Shares of the columns, largest norms first, after which sources are dropped.
_VISITS = (0.005, 0.02, 0.06, 0.15, 0.35, 0.7, 1.0)
# Bounds are computed in float32: what misses by less than this share is kept and measured.
_SLACK = 1e-3
_CELLS = 1 << 24


class Side(NamedTuple):
    """One circuit seen from its sources: entry `rows[source] @ columns[token]`."""

    rows: Float[Tensor, "source rank"]
    columns: Float[Tensor, "token rank"]


class Found(NamedTuple):
    """Triples by row and column index, with both entries, in no order."""

    source: Int[Tensor, " triple"]
    destination: Int[Tensor, " triple"]
    out: Int[Tensor, " triple"]
    attention: Float[Tensor, " triple"]
    output: Float[Tensor, " triple"]


def best_triples(
    attention: Side, output: Side, k: int, each: int, progress: Progress | None = None
) -> Found:
    """The k triples of highest positive score, at most `each` of one source; ties at the end as they come.

    Raises:
        Whatever `progress` raises, which cancels.
    """
    sources = _best_sources((attention, output), k, progress)
    chunk = max(1, _CELLS // max(len(attention.columns), len(output.columns)))
    parts = [_of_sources(rows, attention, output, each) for rows in sources.split(chunk)]
    found = Found(*(torch.cat(column) for column in zip(*parts, strict=True)))
    order = (found.attention * found.output).sort(descending=True, stable=True).indices[:k]
    return Found(*(column[order] for column in found))


def _of_sources(sources: Int[Tensor, " source"], attention: Side, output: Side, each: int) -> Found:
    """The best triples of every source: pairs of its largest entries."""
    near, out = (_largest(side, sources, each) for side in (attention, output))
    # The i-th largest times the j-th comes after i · j others, so few pairs can be among the first.
    ranks = torch.cartesian_prod(torch.arange(near[0].shape[1]), torch.arange(out[0].shape[1]))
    ranks = ranks[(ranks + 1).prod(1) <= each].to(sources.device)
    scores = near[0][:, ranks[:, 0]] * out[0][:, ranks[:, 1]]
    best = scores.topk(min(each, len(ranks)), dim=1)
    is_raised = best.values > 0
    chosen = ranks[best.indices]
    columns = (
        sources[:, None].expand_as(best.indices),
        near[1].gather(1, chosen[..., 0]),
        out[1].gather(1, chosen[..., 1]),
        near[0].gather(1, chosen[..., 0]),
        out[0].gather(1, chosen[..., 1]),
    )
    return Found(*(column[is_raised] for column in columns))


def _largest(side: Side, sources: Tensor, n: int) -> tuple[Tensor, Tensor]:
    entries = side.rows[sources] @ side.columns.T
    best = entries.topk(min(n, entries.shape[1]), dim=1)
    return best.values.clamp(min=0), best.indices


def _best_sources(
    sides: tuple[Side, Side], k: int, progress: Progress | None
) -> Int[Tensor, " source"]:
    """The rows that hold the k best triples, and few others."""
    live = torch.arange(len(sides[0].rows), device=sides[0].rows.device)
    if len(live) == 1:
        return live
    first, second = (_Bounds(side) for side in sides)
    for step, share in enumerate(_VISITS):
        for bounds in (first, second):
            bounds.visit(share, live)
        low = first.low[live] * second.low[live]
        high = first.high(live) * second.high(live)
        least = low.topk(k).values[-1] if len(low) > k else low.new_zeros(())
        live = live[(high > 0) & (high >= least * (1 - _SLACK))]
        if progress is not None:
            progress(step + 1, len(_VISITS))
    return live


class _Bounds:
    """Of every source, the largest entry among the columns visited, and what no other exceeds."""

    def __init__(self, side: Side) -> None:
        rank = min(*side.rows.shape, len(side.columns))
        left, values, right = singular_directions(side.rows, side.columns, rank)
        root = values.sqrt()
        self.rows, columns = left.T * root, right.T * root
        norms, order = columns.norm(dim=1).sort(descending=True)
        self.columns, self.norms = columns[order], norms
        self.row_norms = self.rows.norm(dim=1)
        self.low = torch.zeros_like(self.row_norms)
        self.n_visited = 0

    def visit(self, share: float, live: Int[Tensor, " live"]) -> None:
        """See the columns up to a share of them, for the sources that are still of interest."""
        stop = math.ceil(share * len(self.columns))
        new = self.columns[self.n_visited : stop]
        for rows in live.split(max(1, _CELLS // max(1, len(new)))) if len(new) else ():
            self.low[rows] = torch.maximum(self.low[rows], (self.rows[rows] @ new.T).amax(1))
        self.n_visited = stop

    def high(self, live: Int[Tensor, " live"]) -> Float[Tensor, " live"]:
        """What no entry of a source exceeds."""
        rest = float(self.norms[self.n_visited]) if self.n_visited < len(self.norms) else 0.0
        return torch.maximum(self.low[live], self.row_norms[live] * rest)
