"""Means with 95 % bootstrap intervals over whatever was drawn: rows of text, tokens."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float

CONFIDENCE, N_RESAMPLES = 0.95, 2000


class Estimate(NamedTuple):
    """A value and its interval."""

    value: float
    low: float
    high: float


def draws(n: int, seed: int) -> Float[np.ndarray, "resample unit"]:
    """How often each of n units is in each bootstrap sample."""
    rng = np.random.default_rng(seed)
    return rng.multinomial(n, np.full(n, 1 / n), size=N_RESAMPLES).astype(float)


def ends(resampled: Float[np.ndarray, " resample"]) -> tuple[float, float]:
    """The percentile interval."""
    tail = (1 - CONFIDENCE) / 2
    low, high = np.quantile(resampled, [tail, 1 - tail])
    return float(low), float(high)


def pooled_mean(
    sums: Float[np.ndarray, " unit"], counts: Float[np.ndarray, " unit"], seed: int
) -> Estimate:
    """`Σ sums / Σ counts`; its interval resamples units, which are drawn whole with all they hold."""
    taken = draws(len(sums), seed)
    return Estimate(float(sums.sum() / counts.sum()), *ends((taken @ sums) / (taken @ counts)))
