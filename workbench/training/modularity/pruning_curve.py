"""The loss as more and more of the weak wires are cut, and what stays connected: measured, not interpolated.

    threshold t:   wires with |w| < t cut   →   wires left, live units, components, the task's loss

By default the thresholds leave all, and then numbers of wires in even steps of their logarithm down to none:
more steps in a network of up to ten thousand wires, whose loss takes no time.
A live unit stands on a path from an input to an end, as in `pruning`. The loss is that with the weak wires cut,
dead paths still in place.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Float, Int

from workbench.errors import ConfigError
from workbench.training.modularity.graph import Block, blocks_of
from workbench.training.modularity.pruning import LossOf, Masks, alive, cut, kept_at, masked
from workbench.training.wires import Network, groups, wires

N_THRESHOLDS, N_IF_SMALL, SMALL = 24, 44, 10_000
MAX_THRESHOLDS = 1000
Progress = Callable[[int, int], None]


@dataclass(frozen=True, eq=False)
class PruningCurve:
    """What is left at each threshold, from the lowest up.

    Args:
        n_wires: wires at or above the threshold.
        n_live: those of them between live units.
        loss: with the others cut.
    """

    threshold: Float[np.ndarray, " threshold"]
    n_wires: Int[np.ndarray, " threshold"]
    n_live: Int[np.ndarray, " threshold"]
    n_units: Int[np.ndarray, " threshold"]
    n_components: Int[np.ndarray, " threshold"]
    loss: Float[np.ndarray, " threshold"]

    def table(self) -> pd.DataFrame:
        """Tidy: threshold wires live_wires live_units components loss."""
        return pd.DataFrame(
            {
                "threshold": self.threshold,
                "wires": self.n_wires,
                "live_wires": self.n_live,
                "live_units": self.n_units,
                "components": self.n_components,
                "loss": self.loss,
            }
        )

    def at(self, threshold: float | int) -> int:
        """The number of the last threshold that cuts no more than this one does."""
        return max(0, int(np.searchsorted(self.threshold, threshold, side="right")) - 1)


def pruning_curve(
    model: Network,
    loss_of: LossOf,
    thresholds: Sequence[float | int] | None = None,
    *,
    progress: Progress | None = None,
) -> PruningCurve:
    """Cut the weak wires of a network at one threshold after the other.

    Args:
        loss_of: the loss with only the wires of some masks, as `task_loss` makes it.
        thresholds: sizes from 0 up; None = a choice from nothing cut to everything.
        progress: told how many of all are measured; may raise to end it.

    Raises:
        ConfigError: thresholds that are no sizes, or too many of them.
        BudgetError: more wires than paths are sought in.
    """
    blocks_in, sizes = wires(model), groups(model)
    blocks = blocks_of(blocks_in, sizes)
    chosen = _default(blocks) if thresholds is None else _checked(thresholds)
    rows = []
    for done, threshold in enumerate(chosen):
        masks = kept_at(blocks_in, blocks, threshold)
        left = cut(blocks, masks)
        live = alive(left, sizes)
        kept = sum(int(np.count_nonzero(block.size)) for block in left)
        loss = float(loss_of(masks))
        rows.append((threshold, kept, live.n_wires, live.n_units, live.n_components, loss))
        if progress is not None:
            progress(done + 1, len(chosen))
    at, n_wires, n_live, n_units, parts, losses = (np.array(c) for c in zip(*rows, strict=True))
    return PruningCurve(at.astype(float), n_wires, n_live, n_units, parts, losses.astype(float))


def task_loss(model: Network, task: Any) -> LossOf:
    """The held-out loss of a task with only the wires of some masks.

    Raises:
        ConfigError: a task that measures no loss.
    """

    def loss_of(masks: Masks) -> float:
        with masked(model, masks):
            measured = task.measure(model)
        for name in ("test_loss", "loss"):
            if name in measured:
                return float(measured[name])
        raise ConfigError(f"the task measures {', '.join(measured)}, and no loss")

    return loss_of


def _default(blocks: Sequence[Block]) -> list[float]:
    """Nothing cut; then the sizes that leave so many wires; then everything cut."""
    sizes = np.sort(np.concatenate([block.size[block.size > 0] for block in blocks]))
    n = (N_IF_SMALL if len(sizes) <= SMALL else N_THRESHOLDS) - 2
    steps = np.unique(np.geomspace(1, len(sizes), n).round().astype(int))
    found = sizes[len(sizes) - steps]
    return [0.0, *np.unique(found).tolist(), float(np.nextafter(sizes[-1], math.inf))]


def _checked(thresholds: Sequence[float | int]) -> list[float]:
    if not 1 <= len(thresholds) <= MAX_THRESHOLDS:
        raise ConfigError(f"there can be 1 to {MAX_THRESHOLDS} thresholds, not {len(thresholds)}")
    if bad := [value for value in thresholds if not value >= 0]:
        raise ConfigError(f"a threshold is a size from 0 up, not {bad[0]!r:.40}")
    return sorted({float(value) for value in thresholds})
