"""What others report, and what one run of each says about agreement.

notebooks    titles of the authors' notebooks (github.com/KindXiaoming/BIMT), one seeded run each
earlier      an implementation of ours before this library, from the same notebooks, one run (seed 0) of each;
             its Q is of the whole network, by greedy search

A reported number is one run, so the question is whether one more run of ours would come there: agreement means
inside the 95 % prediction interval of our seeds (of logarithms, for losses and lengths). With three to five
seeds such an interval is wide: agreement says little, disagreement much.
"""

from dataclasses import dataclass

import numpy as np
import pandas as pd

from studies.brain_inspired_modular_training.spread import LOGARITHMIC, prediction

VARIANTS = ("none", "l1", "local", "swap", "bimt")
NOTEBOOKS = {
    ("bimt-independence", "test_loss"): 7.4e-3,
    ("bimt-feature-sharing", "test_loss"): 8.5e-5,
    ("bimt-compositionality", "test_loss"): 1.3e-3,
    ("bimt-modular-addition", "inputs_used"): 7.0,
    ("bimt-s4", "inputs_used"): 9.0,
}
"""Of brain-inspired modular training itself, by experiment and measure."""
EARLIER = {
    ("bimt-independence", "test_loss"): (1.6e-3, 2.4e-3, 4.4e-3, 2.5e-3, 2.2e-3),
    ("bimt-independence", "mean_length"): (0.356, 0.440, 0.179, 0.051, 0.038),
    ("bimt-independence", "q"): (0.18, 0.52, 0.54, 0.52, 0.53),
    ("bimt-independence", "cross_talk"): (0.452, 0.0094, 0.0060, 0.0100, 0.0018),
    ("bimt-feature-sharing", "test_loss"): (4.8e-6, 1.5e-4, 1.3e-4, 3.1e-5, 5.0e-5),
    ("bimt-feature-sharing", "mean_length"): (0.320, 0.295, 0.103, 0.065, 0.060),
    ("bimt-feature-sharing", "q"): (0.14, 0.54, 0.61, 0.55, 0.59),
    ("bimt-compositionality", "test_loss"): (2.2e-4, 8.7e-4, 3.2e-3, 8.8e-4, 1.5e-3),
    ("bimt-compositionality", "mean_length"): (0.324, 0.325, 0.095, 0.077, 0.052),
    ("bimt-compositionality", "q"): (0.21, 0.41, 0.41, 0.41, 0.47),
}
"""By variant, in the order of `VARIANTS`."""


@dataclass(frozen=True)
class Reported:
    """One number of someone else's."""

    source: str
    experiment: str
    variant: str
    measure: str
    reported: float


def reported() -> list[Reported]:
    """All of them."""
    found = [
        Reported("notebooks", experiment, "bimt", measure, value)
        for (experiment, measure), value in NOTEBOOKS.items()
    ]
    for (experiment, measure), values in EARLIER.items():
        for variant, value in zip(VARIANTS, values, strict=True):
            found.append(Reported("earlier", experiment, variant, measure, value))
    return found


def beside(runs: pd.DataFrame) -> pd.DataFrame:
    """Every reported number beside ours: source experiment variant measure reported n mean low high agrees."""
    rows = []
    for each in reported():
        ours = runs.query("experiment == @each.experiment and variant == @each.variant")
        if not len(ours):
            continue
        mean, low, high = prediction(ours[each.measure], log=each.measure in LOGARITHMIC)
        agrees = "yes" if low <= each.reported <= high else "no"
        agrees = "too few seeds" if np.isnan(low) else agrees
        row = {"source": each.source, "experiment": each.experiment, "variant": each.variant}
        row |= {"measure": each.measure, "reported": each.reported, "n": len(ours)}
        rows.append(row | {"mean": mean, "low": low, "high": high, "agrees": agrees})
    return pd.DataFrame(rows)
