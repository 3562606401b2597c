"""Where a null is too coarse: nothing that a probe finds could pass, however far from chance it is.

A p that ranks among n draws is at least sides / (n + 1), whatever was found. Benjamini and Hochberg's procedure
passes a p of m tests if and only if for some t ≥ p

    #{tests of p ≤ t} ≥ t m / LEVEL

The best that k tests of a probe can do is to lie all at their smallest p: that raises the count at every t that
matters, and lowers none. With the tests of the other probes as they came out they then pass up to

    limit(k) = LEVEL (k + j) / m     for the largest j where the j-th smallest p of the others is no larger

so that a null is too coarse if its smallest p is above limit(k); without help from others that is LEVEL k / m,
and LEVEL / m for a finding that is alone.
"""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Float

from probes.report.discovery import LEVEL, once
from probes.report.tables import number


@dataclass(frozen=True)
class Coarse:
    """A probe of whose findings none could pass.

    Args:
        field: of its config, to be raised: among how many draws p ranks; `n_draws` as it was.
        needed: draws with which its findings pass if all of them lie beyond their null.
        alone: draws with which one of them passes that does so alone.
        allowed: whether the config takes as many as are needed.
    """

    probe: str
    field: str
    n_draws: int
    smallest_p: float
    n_own: int
    n_tests: int
    needed: int
    alone: int
    allowed: bool

    @property
    def said(self) -> str:
        """In words, with the option that mends it."""
        all_own = "its one test" if self.n_own == 1 else f"all {self.n_own:,} of its tests"
        told = (
            f"This null is too coarse for anything to pass: {self.field} is {self.n_draws:,}, so that no p is "
            f"below {number(self.smallest_p, 2)}, and among the {self.n_tests:,} tests of this report that is "
            f"not enough, even if {all_own} came out so. "
        )
        if not self.allowed:
            return told + (
                f"{self.needed:,} draws would do, more than {self.field} may be: ask fewer models or probes "
                "in one report."
            )
        more = f", and to {self.alone:,} for one finding alone" if self.alone > self.needed else ""
        return f"{told}Raise it to {self.needed:,}{more}: --config {self.probe}.{self.field}={self.needed}"


def limit(n_own: int, others: Float[np.ndarray, " test"], n_tests: int) -> float:
    """The largest p at which `n_own` tests pass together, beside others of these p; see the module."""
    up_to = np.concatenate([[0.0], np.sort(others)])
    lines = LEVEL * (n_own + np.arange(len(up_to))) / n_tests
    return float(lines[lines >= up_to].max())


def coarse(probe: Any, config: dict[str, Any], findings: pd.DataFrame) -> Coarse | None:
    """What is to be said of a probe's null; None where a finding could pass, or where p is no rank.

    Args:
        config: the probe's, as it is stored.
        findings: of the whole report, with `key`.
    """
    n_draws = config.get(probe.draws)
    if not isinstance(n_draws, int) or n_draws < 1:
        return None
    tests = once(findings)
    tests = tests[tests["p"].notna()]
    is_own = tests["probe"] == probe.name
    n_own, smallest_p = int(is_own.sum()), probe.sides / (1 + n_draws)
    others = tests.loc[~is_own, "p"].to_numpy(dtype=float)
    if not n_own or smallest_p <= (together := limit(n_own, others, len(tests))):
        return None
    needed = _draws(probe.sides, together)
    return Coarse(
        probe=probe.name,
        field=probe.draws,
        n_draws=n_draws,
        smallest_p=smallest_p,
        n_own=n_own,
        n_tests=len(tests),
        needed=needed,
        alone=_draws(probe.sides, limit(1, others, len(tests))),
        allowed=_is_allowed(probe, config | {probe.draws: needed}),
    )


def _draws(sides: int, p: float) -> int:
    """The fewest draws with which the smallest p is no larger than this."""
    n = max(1, math.ceil(sides / p) - 2)
    while sides / (1 + n) > p:  # at most twice: the quotient above is rounded
        n += 1
    return n


def _is_allowed(probe: Any, config: dict[str, Any]) -> bool:
    from probes.configs import make_config
    from workbench.errors import ConfigError

    try:
        make_config(probe, config)
    except ConfigError:
        return False
    return True
