"""Two runs at equal loss: of each, the snapshot whose validation loss is nearest to a common value.

Without a wish the common value is the lowest that both have reached at a snapshot: max(min a, min b).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from app.trainings import loss_name
from workbench.errors import UnsupportedError


@dataclass(frozen=True)
class Match:
    """A snapshot and the validation loss that was measured nearest to it, `measured_at` that step."""

    step: int
    loss: float
    measured_at: int


@dataclass(frozen=True)
class Pair:
    """One snapshot of each run.

    Args:
        level: the loss that both are nearest to.
        lowest, highest: between which values of it both runs can be compared.
    """

    level: float
    lowest: float
    highest: float
    first: Match
    second: Match


def equal_loss(
    first: tuple[pd.DataFrame, Sequence[int]],
    second: tuple[pd.DataFrame, Sequence[int]],
    level: float | None = None,
) -> Pair:
    """The snapshots of two runs that are nearest to one loss.

    Args:
        first, second: measurements and the steps of snapshots.

    Raises:
        UnsupportedError: a run without a snapshot whose loss was measured.
    """
    ours, theirs = snapshot_losses(*first), snapshot_losses(*second)
    for name, found in (("this run", ours), ("the other run", theirs)):
        if not found:
            raise UnsupportedError(f"{name} has no snapshot yet whose validation loss is known")
    lowest = max(min(match.loss for match in found) for found in (ours, theirs))
    highest = min(max(match.loss for match in found) for found in (ours, theirs))
    wanted = lowest if level is None else level
    return Pair(
        wanted, lowest, max(lowest, highest), _nearest(ours, wanted), _nearest(theirs, wanted)
    )


def snapshot_losses(table: pd.DataFrame, steps: Sequence[int]) -> list[Match]:
    """Every snapshot with the validation loss measured nearest to it in steps; none before the first."""
    name = loss_name(table)
    if name is None:
        return []
    known = table[["step", name]].dropna()
    if known.empty:
        return []
    at, loss = known["step"].to_numpy(), known[name].to_numpy(float)
    found = []
    for step in steps:
        place = int(np.abs(at - step).argmin())
        if step >= at[0] / 2:  # the untrained network's loss is not that of the first validation
            found.append(Match(int(step), float(loss[place]), int(at[place])))
    return found


def _nearest(found: Sequence[Match], level: float) -> Match:
    # Of equals the earliest: what came after it is not needed for that loss.
    return min(found, key=lambda match: (abs(match.loss - level), match.step))
