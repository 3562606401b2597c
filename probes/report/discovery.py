"""What of all that was found is more than chance: one false discovery rate over every p of a report.

    effect     = |value - null_mean| / null_std
    prominence = |value - null_mean| / √(null_std² + mean of (value - null_mean)²)
    q          = the smallest rate of false discoveries at which a finding passes

(Benjamini and Hochberg 1995, "Controlling the False Discovery Rate"; for any dependence whatever Benjamini and
Yekutieli 2001, which is counted beside it.) Two names of one model are one test.

A null that hardly varies makes every effect huge, so effects of different measures do not compare. Prominences
do: the mean is over all rows of the measure in the model, so that 1 is as far from chance as its kind usually
is there, the root of their number the most that one row can have, and where the null is wide it is small with
the effect. (Something added to a spread that may be near zero: Tusher, Tibshirani and Chu 2001, "Significance
analysis of microarrays applied to the ionizing radiation response".)
"""

from dataclasses import dataclass

import numpy as np
import pandas as pd

LEVEL = 0.05
METHOD, STRICT = "fdr_bh", "fdr_by"


@dataclass(frozen=True)
class Discovery:
    """How many numbers there are, were tested, and passed; each once, whatever its model is called.

    Args:
        n_strict: those that pass whatever the dependence between tests is.
        factor: how much smaller p must be for that.
    """

    n_findings: int
    n_tested: int
    n_passing: int
    n_strict: int
    factor: float


def discovered(findings: pd.DataFrame) -> tuple[pd.DataFrame, Discovery]:
    """The findings with `effect`, `prominence` and `q` (NaN where there is no p), and how many pass."""
    from statsmodels.stats.multitest import multipletests

    names = _names(findings)
    is_first = ~names.duplicated()
    tested = findings["p"].notna() & is_first
    p = findings.loc[tested, "p"].to_numpy()
    q = pd.Series(np.nan, index=findings.index)
    n_strict = 0
    if len(p):
        found = pd.Series(multipletests(p, LEVEL, method=METHOD)[1], index=names[tested])
        q = pd.Series(names.map(found).to_numpy(dtype=float), index=findings.index)
        n_strict = int((multipletests(p, LEVEL, method=STRICT)[1] <= LEVEL).sum())
    std = findings["null_std"].where(findings["null_std"] > 0)
    effect = (findings["value"] - findings["null_mean"]).abs() / std
    told = Discovery(
        n_findings=int(is_first.sum()),
        n_tested=len(p),
        n_passing=int((q[tested] <= LEVEL).sum()),
        n_strict=n_strict,
        factor=float((1 / np.arange(1, len(p) + 1)).sum()),
    )
    return findings.assign(effect=effect, prominence=prominence(findings), q=q), told


def _names(findings: pd.DataFrame) -> pd.Series:
    """The same key under another label has the same rows in the same order: they get the same names."""
    place = findings.groupby(["model", "key"]).cumcount()
    return findings["key"].astype(str) + ":" + place.astype(str)


def once(findings: pd.DataFrame) -> pd.DataFrame:
    """Each finding under the first label of its model alone; needs `key`."""
    return findings[~_names(findings).duplicated()]


def prominence(findings: pd.DataFrame) -> pd.Series:
    """How far each finding stands out from chance and from its kind; NaN where there is no null."""
    off = findings["value"] - findings["null_mean"]
    kind = [findings[name] for name in ("model", "probe", "measure")]
    usual = off.pow(2).groupby(kind, sort=False).transform("mean")
    spread = (findings["null_std"].pow(2) + usual).pow(0.5)
    return off.abs() / spread.where(spread > 0)


def passing(findings: pd.DataFrame) -> pd.DataFrame:
    """Those that pass."""
    return findings[findings["q"] <= LEVEL]


def ranked(findings: pd.DataFrame, by: tuple[str, ...] = ("q", "effect")) -> pd.DataFrame:
    """Small q and large effects first; what has none comes last; ties stay in order."""
    ways = [name == "q" for name in by]
    return findings.sort_values(list(by), ascending=ways, kind="stable", na_position="last")


def at_most(findings: pd.DataFrame, most: int, per: tuple[str, ...]) -> pd.DataFrame:
    """The first `most` rows of each group, in the order that they have."""
    return findings[findings.groupby(list(per), sort=False, dropna=False).cumcount() < most]
