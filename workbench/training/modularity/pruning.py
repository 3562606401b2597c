"""What is left of a network when its weak wires are cut, as long as it still does its task.

The threshold is the largest |w| of the network such that, with all wires below it cut, the loss is at most the
unpruned loss + tolerance. The loss need not rise with the threshold, so it is sought from above: numbers of
wires kept, 0, 1, … in even steps of their logarithm, until one passes; then by halving between that and the
last that failed. So what is reported passes, the next larger weight fails, and so does every larger one
tried; between those tried, a larger one could pass.

Then dead paths go: a unit lives if inputs reach it and it reaches an end along live wires. Ends are outputs and
the query and key neurons, which set patterns. The stream is one group at every depth, so a path may pass from a
later layer to an earlier one, and a unit is called live too often rather than dead too often. A dead unit may
have sent its bias on: `live_loss` is measured without it.
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace

import numpy as np
import scipy.sparse as sp
import torch
from jaxtyping import Bool, Int
from scipy.sparse.csgraph import breadth_first_order, connected_components
from torch import Tensor

from workbench.errors import ConfigError
from workbench.training.modularity.graph import (
    Block,
    Sizes,
    blocks_of,
    directed,
    read_back,
    starts,
)
from workbench.training.wires import Network, Wires, as_parameter

Masks = dict[str, Bool[Tensor, "source target"]]
LossOf = Callable[[Masks], float]
_STEPS = 24
_KEEP_ALL = -math.inf


@dataclass(frozen=True, eq=False)
class Live:
    """What stays connected from inputs to ends.

    Args:
        component: of each unit, groups one after the other; -1 for dead ones.
    """

    component: Int[np.ndarray, " every_unit"]
    n_wires: int

    @property
    def n_units(self) -> int:
        """Number of live units."""
        return int((self.component >= 0).sum())

    @property
    def n_components(self) -> int:
        """Number of parts that no wire joins."""
        return int(self.component.max()) + 1


@dataclass(frozen=True, eq=False)
class Pruning:
    """A network pruned as far as its loss allows.

    Args:
        threshold: wires below it are cut; infinite if none is needed.
        base_loss: with all wires.
        loss: with the wires below the threshold cut.
        live_loss: with dead paths cut as well.
        kept: wires at or above the threshold.
        masks: wires that are kept and alive.
        tried: every (threshold, loss) that was measured, in order.
    """

    threshold: float
    tolerance: float
    base_loss: float
    loss: float
    live_loss: float
    live: Live
    kept: Masks
    masks: Masks
    tried: tuple[tuple[float, float], ...]

    def wires(self, wires: Sequence[Wires]) -> tuple[Wires, ...]:
        """The same wires with those that were cut or dead at zero."""
        return tuple(
            replace(block, weight=block.weight * self.masks[block.name]) for block in wires
        )


def prune(wires: Sequence[Wires], groups: Sizes, loss_of: LossOf, *, tolerance: float) -> Pruning:
    """Cut as many weak wires as the loss allows, then dead paths.

    Args:
        loss_of: the loss with only the wires of these masks; `masked` makes them act on a model.
        tolerance: by how much the loss may rise.

    Raises:
        ConfigError: a tolerance below zero, or a loss that is not finite with all wires.
    """
    if not (math.isfinite(tolerance) and tolerance >= 0):
        raise ConfigError(f"the loss may rise by a number from 0 on, not {tolerance}")
    blocks = blocks_of(wires, groups)
    tried: list[tuple[float, float]] = []

    def loss_at(threshold: float) -> float:
        tried.append((threshold, float(loss_of(kept_at(wires, blocks, threshold)))))
        return tried[-1][1]

    if not math.isfinite(base := loss_at(_KEEP_ALL)):
        raise ConfigError(
            f"the loss of the unpruned network is {base}: there is nothing to keep to"
        )
    sizes = np.unique(np.concatenate([block.size[block.size > 0] for block in blocks]))
    threshold = _largest([*sizes.tolist(), math.inf], lambda at: loss_at(at) <= base + tolerance)
    kept = kept_at(wires, blocks, threshold)
    live = alive(cut(blocks, kept), groups)
    masks = _alive_masks(blocks, kept, live, groups)
    loss = {at: value for at, value in tried}.get(threshold, base)
    return Pruning(
        threshold=threshold,
        tolerance=tolerance,
        base_loss=base,
        loss=loss,
        live_loss=float(loss_of(masks)),
        live=live,
        kept=kept,
        masks=masks,
        tried=tuple(tried),
    )


def alive(blocks: Sequence[Block], groups: Sizes) -> Live:
    """Units on a path from an input to an end, and the components they fall into.

    Raises:
        ConfigError: a network of which every group is read into or read from: it has no input or no end.
    """
    forward = directed(blocks, groups)
    inputs, ends = _ends(blocks)
    if not inputs or not ends:
        raise ConfigError(
            "a path needs a group that reads no other and one that no other reads; "
            f"in {', '.join(groups)} there is none"
        )
    first = starts(groups)
    marked = [
        np.concatenate([np.arange(first[name], first[name] + groups[name]) for name in names])
        for names in (inputs, ends)
    ]
    if (back := read_back(blocks)) is not None:
        forward = forward + directed([back], groups)
    lives = _reached(forward, marked[0]) & _reached(sp.csr_array(forward.T), marked[1])
    both = sp.csr_array(directed(blocks, groups)) * lives[:, None] * lives[None, :]
    both = sp.csr_array(both)
    both.eliminate_zeros()
    lives &= np.asarray((both + both.T).sum(axis=1)).ravel() > 0
    component = np.full(len(lives), -1)
    if lives.any():
        component[lives] = connected_components(both[lives][:, lives], directed=False)[1]
    return Live(component, _n_wires(blocks, lives, groups))


@contextmanager
def masked(model: Network, masks: Mapping[str, Bool[Tensor, "source target"]]) -> Iterator[None]:
    """The model with only the wires of the masks, for the length of a `with` block.

    A parameter that stands for several wires stays as long as one of them does.
    """
    parameters = dict(model.named_parameters())
    saved = {name: parameters[name].detach().clone() for name in masks}
    try:
        with torch.no_grad():
            for name, mask in masks.items():
                weight = parameters[name]
                weight.mul_(as_parameter(model, name, mask.to(weight)) > 0)
        yield
    finally:
        with torch.no_grad():
            for name, before in saved.items():
                parameters[name].copy_(before)


def _largest(thresholds: Sequence[float], passes: Callable[[float], bool]) -> float:
    """The largest that passes of those tried, from above; the smallest cuts nothing, and so passes."""
    n = len(thresholds) - 1
    steps = np.unique(np.geomspace(1, n, _STEPS).round().astype(int)) if n > 1 else np.array([1])
    failed = n + 1
    for kept in [0, *steps.tolist()]:
        if kept == n or passes(thresholds[n - kept]):
            found = n - kept
            break
        failed = n - kept
    while failed - found > 1:
        middle = (found + failed) // 2
        if passes(thresholds[middle]):
            found = middle
        else:
            failed = middle
    return thresholds[found]


def kept_at(wires: Sequence[Wires], blocks: Sequence[Block], threshold: float) -> Masks:
    """The wires whose size is at least the threshold."""
    return {
        block.name: torch.from_numpy(block.size >= threshold).to(wire.weight.device)
        for wire, block in zip(wires, blocks, strict=True)
    }


def cut(blocks: Sequence[Block], masks: Masks) -> list[Block]:
    """The sizes with those of all other wires at zero."""
    return [replace(block, size=block.size * masks[block.name].cpu().numpy()) for block in blocks]


def _alive_masks(blocks: Sequence[Block], kept: Masks, live: Live, groups: Sizes) -> Masks:
    lives, first = live.component >= 0, starts(groups)
    found = {}
    for block in blocks:
        ends = [
            lives[first[end] : first[end] + groups[end]] for end in (block.source, block.target)
        ]
        both = torch.from_numpy(ends[0][:, None] & ends[1][None, :])
        weighs = torch.from_numpy(block.size > 0)
        found[block.name] = kept[block.name] & (both & weighs).to(kept[block.name].device)
    return found


def _n_wires(blocks: Sequence[Block], lives: Bool[np.ndarray, " every_unit"], groups: Sizes) -> int:
    first, total = starts(groups), 0
    for block in blocks:
        source, target = block.size.nonzero()
        total += int(
            (lives[source + first[block.source]] & lives[target + first[block.target]]).sum()
        )
    return total


def _ends(blocks: Sequence[Block]) -> tuple[list[str], list[str]]:
    sources = dict.fromkeys(block.source for block in blocks)
    targets = dict.fromkeys(block.target for block in blocks)
    ends = [name for name in targets if name not in sources]
    if (back := read_back(blocks)) is not None:
        ends.append(back.target)
    return [name for name in sources if name not in targets], ends


def _reached(
    forward: sp.csr_array, begin: Int[np.ndarray, " begin"]
) -> Bool[np.ndarray, " every_unit"]:
    """Units that a walk along the arrows comes to, the beginning included."""
    n_units = forward.shape[0]
    door = sp.csr_array(
        (np.ones(len(begin)), (np.zeros(len(begin), dtype=int), begin)), shape=(1, n_units)
    )
    whole = sp.csr_array(sp.block_array([[forward, None], [door, sp.csr_array((1, 1))]]))
    reached = np.zeros(n_units + 1, dtype=bool)
    reached[breadth_first_order(whole, n_units, return_predecessors=False)] = True
    return reached[:n_units]
