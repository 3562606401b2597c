"""The nulls that a modularity is held against: the weights of every block of the same network, elsewhere.

    anywhere   the weights of a block at any places of it                     for networks as they are
    rewired    wires exchange their ends, keeping how many each unit has      for pruned networks

A layered network with random weights is not at Q = 0, and a sparse one far from it: hence a null at all. Which
one matters as soon as most weights are near zero. A block of 20 wires and 380 near-zeros, shuffled anywhere,
leaves units with one wire or none and falls into fragments, each a module of its own: its Q is higher than that
of most networks that compute something, and z is below zero however modular the network is. The rewired null
has as many wires in every block, at the same units, as many at each; so every hidden unit still reads and is
read, no part is cut off from inputs or outputs, and what is left to chance is which units are wired to each
other: the question. (It is the network form of Newman's own expectation k_i k_j / 2m.) On a block without
zeros both nulls are the same. Rewiring is by random trades between two rows (Strona et al. 2014, "curveball"),
which come to all such networks equally often (Carstens 2015). Where few are possible, z means little.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Bool, Float

from workbench.training.modularity.graph import Block

TRADES = 10
"""Trades for each row of a block; five suffice for the margins of most matrices (Strona et al. 2014)."""


def shuffled(
    blocks: Sequence[Block], rng: np.random.Generator, *, nonzero_only: bool = False
) -> tuple[Block, ...]:
    """The same weights in every block, at random places of it."""
    return tuple(replace(block, size=_shuffled(block.size, rng, nonzero_only)) for block in blocks)


def rewired(blocks: Sequence[Block], rng: np.random.Generator) -> tuple[Block, ...]:
    """As many wires at every unit in every block, between other units, with the block's weights dealt anew."""
    return tuple(replace(block, size=_rewired(block.size, rng)) for block in blocks)


def _rewired(
    size: Float[np.ndarray, "source target"], rng: np.random.Generator
) -> Float[np.ndarray, "source target"]:
    is_wired = size > 0
    # Trades are between the rows of the side with fewer units: there are fewer of them, and larger.
    is_wide = size.shape[0] <= size.shape[1]
    traded = _traded(is_wired if is_wide else is_wired.T, rng)
    dealt = np.zeros_like(size)
    dealt[traded if is_wide else traded.T] = rng.permutation(size[is_wired])
    return dealt


def _traded(
    rows: Bool[np.ndarray, "row column"], rng: np.random.Generator
) -> Bool[np.ndarray, "row column"]:
    """A random matrix with the same number of entries in every row and in every column."""
    rows, wired = rows.copy(), np.flatnonzero(rows.any(axis=1))
    if len(wired) < 2 or rows[wired].all():
        return rows
    n_rows, n_trades = len(wired), TRADES * len(wired)
    first = rng.integers(n_rows, size=n_trades)
    second = (first + 1 + rng.integers(n_rows - 1, size=n_trades)) % n_rows
    for one, other in zip(wired[first], wired[second], strict=True):
        own = rows[one] & ~rows[other]
        pool = np.flatnonzero(rows[one] ^ rows[other])
        if 0 < (n_own := int(own.sum())) < len(pool):
            drawn = rng.permutation(pool)
            rows[one, pool] = rows[other, pool] = False
            rows[one, drawn[:n_own]] = rows[other, drawn[n_own:]] = True
    return rows


def _shuffled(
    size: Float[np.ndarray, "source target"], rng: np.random.Generator, nonzero_only: bool
) -> Float[np.ndarray, "source target"]:
    flat = size.ravel().copy()
    movable = np.flatnonzero(flat) if nonzero_only else np.arange(flat.size)
    flat[movable] = rng.permutation(flat[movable])
    return flat.reshape(size.shape)


@dataclass(frozen=True, eq=False)
class Score:
    """One measure and what it is in the shuffled networks.

    The percentile holds whatever the null's shape. z asks for a bell: that of Q, of the cut and of wiring is
    one, the cross-talk of a few outputs is skewed, and chance takes it beyond |z| = 4.

    Args:
        null: the same measure of every shuffled network; empty where a shuffle has no such number.
    """

    measure: str
    value: float
    unit: str
    null: Float[np.ndarray, " shuffle"]

    @property
    def mean(self) -> float:
        """Mean over the shuffled networks."""
        return float(self.null.mean()) if len(self.null) else float("nan")

    @property
    def std(self) -> float:
        """Standard deviation over the shuffled networks, n − 1 in the denominator."""
        return float(self.null.std(ddof=1)) if len(self.null) > 1 else float("nan")

    @property
    def z(self) -> float:
        """Standard deviations above the shuffled mean; NaN where the shuffled networks are all alike."""
        spread = self.std
        return (self.value - self.mean) / spread if spread > self._rounding else float("nan")

    @property
    def percentile(self) -> float:
        """Percent of shuffled networks below this one, ties counted half."""
        if not len(self.null) or np.isnan(self.value):
            return float("nan")
        ties = np.abs(self.null - self.value) <= self._rounding
        below = (self.null < self.value) & ~ties
        return 100 * float((below + 0.5 * ties).mean())

    @property
    def _rounding(self) -> float:
        """How far two equal numbers may stand apart."""
        return 1e-12 * float(np.abs([self.value, *self.null]).max())
