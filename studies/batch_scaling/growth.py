"""How the cost of one job grows: CPU seconds ~ prompts^a · tokens^b, by least squares of logarithms.

Seconds of this process alone: other programs do not count. The smallest sizes have a share that does not grow
(the forward pass' own overhead, a null that is drawn once), so exponents below 1 are to be expected.
"""

import time
from collections.abc import Iterable
from typing import Any

import numpy as np
import pandas as pd
from scipy import stats

from probes.configs import make_config
from probes.data import ProbeData
from probes.registry import get_probe
from studies.intervals import CONFIDENCE


def costs(
    model: Any,
    data: ProbeData,
    probes: Iterable[str],
    prompts: Iterable[int],
    tokens: Iterable[int],
) -> pd.DataFrame:
    """Tidy: probe prompts tokens seconds."""
    rows = []
    sizes = [(n, length) for n in prompts for length in tokens]
    for name in probes:
        probe = get_probe(name)
        for n, length in [sizes[0], *sizes]:  # the first once more: what is done once is done then
            config = make_config(probe, {"n_prompts": n, "n_tokens": length})
            begun = time.process_time()
            probe.run(model, data, config)
            row = {"probe": name, "prompts": n, "tokens": length}
            rows.append(row | {"seconds": time.process_time() - begun})
        rows.pop(-len(sizes) - 1)
    return pd.DataFrame(rows)


def exponents(found: pd.DataFrame) -> pd.DataFrame:
    """Per probe and size ("prompts", "tokens"): the exponent with its interval, and R² of the fit."""
    rows = []
    for probe, own in found.groupby("probe", sort=False):
        sizes = ("prompts", "tokens")
        x = np.column_stack([np.ones(len(own)), *(np.log(own[size]) for size in sizes)])
        y = np.log(own["seconds"].to_numpy())
        fitted, *_ = np.linalg.lstsq(x, y, rcond=None)
        left = y - x @ fitted
        free = len(y) - x.shape[1]
        error = np.sqrt(left @ left / free * np.diag(np.linalg.inv(x.T @ x)))
        half = stats.t.ppf((1 + CONFIDENCE) / 2, free) * error
        share = 1 - left @ left / ((y - y.mean()) @ (y - y.mean()))
        for place, size in enumerate(sizes, start=1):
            row = {"probe": probe, "size": size, "exponent": fitted[place]}
            row |= {"low": fitted[place] - half[place], "high": fitted[place] + half[place]}
            rows.append(row | {"r2": share})
    return pd.DataFrame(rows)
