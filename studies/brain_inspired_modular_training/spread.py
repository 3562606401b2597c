"""Means over seeds with 95 % intervals, by Student's t; of logarithms where a measure spans decades.

    interval      mean ± t s / √n                  where the mean of many seeds would be
    prediction    mean ± t s √(1 + 1/n)            where one more seed would be

A bootstrap of three to five numbers would give intervals that are too narrow.
"""

import math
from collections.abc import Callable, Iterable

import numpy as np
import pandas as pd
from scipy import stats

from studies.intervals import CONFIDENCE, Estimate

FEWEST = 3
LOGARITHMIC = ("test_loss", "test_loss_pruned", "mean_length", "mean_length_pruned", "wiring")


def interval(values: Iterable[float], *, log: bool = False) -> Estimate:
    """The mean and its interval; without one where there are fewer than three values."""
    return _spread(values, log, lambda n: math.sqrt(1 / n))


def prediction(values: Iterable[float], *, log: bool = False) -> Estimate:
    """The mean, and where one more value is to be expected."""
    return _spread(values, log, lambda n: math.sqrt(1 + 1 / n))


def summary(runs: pd.DataFrame, measures: Iterable[str]) -> pd.DataFrame:
    """One row for each experiment and variant: n, and of each measure its mean with _low and _high."""
    rows = []
    for (experiment, variant), group in runs.groupby(["experiment", "variant"], sort=False):
        row = {"experiment": experiment, "variant": variant, "n": len(group)}
        row["steps"] = int(group["steps"].iloc[0])
        for measure in measures:
            found = interval(group[measure], log=measure in LOGARITHMIC)
            row |= {
                measure: found.value,
                f"{measure}_low": found.low,
                f"{measure}_high": found.high,
            }
        rows.append(row)
    return pd.DataFrame(rows)


def contrasts(
    runs: pd.DataFrame, pairs: Iterable[tuple[str, str]], measures: Iterable[str]
) -> pd.DataFrame:
    """One variant less another, seed by seed (same initial weights); the ratio, of logarithmic measures."""
    rows = []
    for experiment, group in runs.groupby("experiment", sort=False):
        for one, other in pairs:
            both = [group[group["variant"] == name].set_index("seed") for name in (one, other)]
            seeds = both[0].index.intersection(both[1].index)
            for measure in measures if len(seeds) else ():
                is_log = measure in LOGARITHMIC
                a, b = (rows.loc[seeds, measure] for rows in both)
                found = interval(a / b if is_log else a - b, log=is_log)
                row = {"experiment": experiment, "variant": one, "against": other}
                row |= {"measure": measure, "kind": "ratio" if is_log else "difference"}
                row |= {"n": len(a), "value": found.value, "low": found.low, "high": found.high}
                rows.append(row)
    return pd.DataFrame(rows)


def _spread(values: Iterable[float], log: bool, width: Callable[[int], float]) -> Estimate:
    x = np.asarray(list(values), dtype=np.float64)
    x = np.log(x) if log else x
    mean = float(x.mean())
    if len(x) < FEWEST or not np.isfinite(x).all():
        found = (mean, float("nan"), float("nan"))
    else:
        t = float(stats.t.ppf((1 + CONFIDENCE) / 2, len(x) - 1))
        half = t * float(x.std(ddof=1)) * width(len(x))
        found = (mean, mean - half, mean + half)
    return Estimate(*(float(np.exp(end)) if log else end for end in found))
