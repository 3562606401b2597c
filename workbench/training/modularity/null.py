"""The null that a modularity is held against: the same network with the weights of every block shuffled.

A layered network with random weights is not at Q = 0, and a sparse one far from it. So each measure comes with
its distribution over networks that have the same weights in every block, at random places: either any places,
or only those where a weight is not zero, which keeps who is wired to whom and shuffles the strengths.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Float

from workbench.training.modularity.graph import Block


def shuffled(
    blocks: Sequence[Block], rng: np.random.Generator, *, nonzero_only: bool = False
) -> tuple[Block, ...]:
    """The same weights in every block, at random places of it."""
    return tuple(replace(block, size=_shuffled(block.size, rng, nonzero_only)) for block in blocks)


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
