"""A number beside what it would be if there were nothing to find, and how sure it is.

    p = (1 + #{|null_i - mean| ≥ |value - mean|}) / (1 + n)        mean of the n draws and of the value

The value counts among its own null, so p is never 0 (Phipson & Smyth 2010, "Permutation p-values should
never be zero"), and in the mean: that of the draws alone lies nearer to them than to the value, and makes p too
small. Where value and draws are exchangeable, P(p ≤ k / (1 + n)) is k / (1 + n), less where there are ties.
"""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float


def beside_null(value: int | float, null: Sequence[float] | np.ndarray) -> dict[str, float]:
    """`value`, `null_mean`, `null_std` and `p` of a finding, from draws of the null."""
    draws = np.asarray(null, dtype=np.float64)
    if draws.size == 0:
        return {"value": float(value), "null_mean": np.nan, "null_std": np.nan, "p": np.nan}
    middle = (float(draws.sum()) + value) / (1 + draws.size)
    # Numbers that differ by rounding alone are as far out as each other.
    slack = 1e-12 * max(1.0, abs(middle), abs(value))
    as_far = int((np.abs(draws - middle) >= abs(value - middle) - slack).sum())
    return {
        "value": float(value),
        "null_mean": float(draws.mean()),
        "null_std": float(draws.std(ddof=1)) if draws.size > 1 else np.nan,
        "p": (1 + as_far) / (1 + draws.size),
    }


def bootstrap(
    values: Float[np.ndarray, " n"], *, seed: int, n_draws: int = 1000, share: float = 0.95
) -> dict[str, float]:
    """`low` and `high` of the mean of independent observations, by drawing them again (Efron 1979)."""
    kept = np.asarray(values, dtype=np.float64)
    kept = kept[np.isfinite(kept)]
    if kept.size < 2:
        return {"low": np.nan, "high": np.nan}
    rng = np.random.default_rng(seed)
    means = kept[rng.integers(kept.size, size=(n_draws, kept.size))].mean(axis=1)
    low, high = np.quantile(means, [(1 - share) / 2, (1 + share) / 2])
    return {"low": float(low), "high": float(high)}
