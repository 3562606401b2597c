"""Swaps: units trade places where that shortens the wiring; what the network computes stays the same.

Units of one group are not wired to each other, so that with all others held, item j at place k costs

    C[j, k] = Σ_m |W_in[m, j]| d(m, k) + Σ_m |W_out[j, m]| d(k, m)            of all blocks that touch it

alone. A swap gains C[j,k] + C[k,j] − C[j,j] − C[k,k]; the best placement is a linear assignment.

    greedy        for the `top_k` items with most weight: the best partner of all (Liu, Gan, Tegmark 2023)
    assignment    the exact optimum of every group in turn, the others held: together they may be stuck, as
                  a crossing that one group can only hand on to the next costs the same on either side

Distances alone decide, so the penalty's A and gap do not matter. The published code leaves Adam's moments
where they were; here they move with their weights unless `moments` is false.
"""

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Literal

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float, Int
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from workbench.errors import ConfigError
from workbench.training.layouts import Layout
from workbench.training.regularizers.exchange import Movable, immovable, movables, permute
from workbench.training.regularizers.wiring import Reduction, share_of_each, wiring_length
from workbench.training.wires import Network, Wires, wires

Method = Literal["assignment", "greedy"]
# Gains below this share of the cost are rounding.
_ROUNDING = 1e-12


@dataclass(frozen=True, eq=False)
class Relocation:
    """What one round of swaps did, item by item of `movables`.

    Args:
        gains: by how much the wiring became shorter.
        moved: how many items stand elsewhere.
        left: what had to stay or was told to, and why.
    """

    model_name: str
    names: tuple[str, ...]
    orders: tuple[Int[Tensor, " _"], ...]
    gains: Float[np.ndarray, " group"]
    before: float
    after: float
    left: dict[str, str]

    @property
    def moved(self) -> Int[np.ndarray, " group"]:
        """How many items of each group stand elsewhere."""
        return np.array([int((order != torch.arange(len(order))).sum()) for order in self.orders])

    @property
    def residual(self) -> float:
        """The measured wiring less what the gains leave of it."""
        return self.after - (self.before - float(self.gains.sum()))

    def table(self) -> pd.DataFrame:
        """One row for each group of items."""
        columns = {"group": self.names, "moved": self.moved, "gain": self.gains}
        return pd.DataFrame(columns | {"items": [len(order) for order in self.orders]})


@dataclass(frozen=True, kw_only=True, eq=False)
class Swaps:
    """When and how units trade places during training.

    Args:
        every: steps between two rounds.
        top_k: items that the greedy method tries to place in each group; None = all.
        reduction: that of the penalty, which weighs the blocks against one another.
        fixed: names or patterns of items that stay ("inputs" for images, "blocks.* head * qk").
        moments: whether the optimisers' moments move with their weights.

    Raises:
        ConfigError: an interval or a number of items below 1.
    """

    layout: Layout
    every: int = 200
    method: Method = "assignment"
    top_k: int | None = 30
    reduction: Reduction = "sum"
    fixed: tuple[str, ...] = ()
    moments: bool = True

    def __post_init__(self) -> None:
        if self.every < 1 or (self.top_k is not None and self.top_k < 1):
            raise ConfigError(
                f"every and top_k are whole numbers from 1 up, not {self.every} and {self.top_k}"
            )

    def due(self, step: int) -> bool:
        """Whether a round comes after this many steps."""
        return step > 0 and step % self.every == 0

    def __call__(
        self, model: Network, optimizers: Iterable[torch.optim.Optimizer] = ()
    ) -> Relocation:
        """One round over all groups; the wiring never becomes longer.

        Raises:
            ConfigError: a pattern in `fixed` that fits nothing, or a layout of another network.
        """
        board, movable = Board(model, self), movables(model)
        before = board.length()
        optimizers = tuple(optimizers) if self.moments else ()
        orders, gains, names = [], [], []
        for items in movable:
            if any(fnmatchcase(items.name, pattern) for pattern in self.fixed):
                continue
            order, gain = board.place(items)
            if gain > 0:
                permute(model, items, order, optimizers)
            names.append(items.name)
            orders.append(order)
            gains.append(gain)
        after = wiring_length(model, self.layout, self.reduction)
        left = self._left(model, [items.name for items in movable])
        return Relocation(
            model.name,
            tuple(names),
            tuple(orders),
            np.array(gains, dtype=float),
            before,
            after,
            left,
        )

    def _left(self, model: Network, names: list[str]) -> dict[str, str]:
        left = immovable(model)
        for pattern in self.fixed:
            fits = [name for name in names if fnmatchcase(name, pattern)]
            if not fits and not any(fnmatchcase(name, pattern) for name in left):
                known = ", ".join(names)
                raise ConfigError(f"nothing of {model.name} is called {pattern!r}: it has {known}")
            left |= dict.fromkeys(fits, "told to stay")
        return left


class Board:
    """The sizes of all wires that have a length, kept up to date while items are placed."""

    def __init__(self, model: Network, swaps: Swaps) -> None:
        self.swaps = swaps
        placed = [(block, swaps.layout.distances(block)) for block in wires(model)]
        self.lengths = {block.name: found for block, found in placed if found is not None}
        self.blocks: list[tuple[Wires, Tensor]] = [
            (block, block.weight.detach().double().abs().cpu())
            for block, _ in placed
            if block.name in self.lengths
        ]

    def length(self) -> float:
        """Σ |w|·d over all these wires: what `wiring_length` measures."""
        return sum(
            float((size * self.lengths[block.name]).sum())
            * share_of_each(block, self.swaps.reduction)
            for block, size in self.blocks
        )

    def costs(self, items: Movable) -> Float[Tensor, "item place"]:
        """What each item costs at each place, all else held."""
        total = torch.zeros(items.n_items, items.n_items, dtype=torch.float64)
        for group, units in items.units:
            for block, size in self.blocks:
                distances = self.lengths[block.name]
                share = share_of_each(block, self.swaps.reduction)
                for column in units.T:
                    if block.source == group:
                        total += share * (size[column] @ distances[column].T)
                    if block.target == group:
                        total += share * (size[:, column].T @ distances[:, column])
        return total

    def weight_of(self, items: Movable) -> Float[Tensor, " item"]:
        """Σ |w| over all wires of an item: who is placed first."""
        total = torch.zeros(items.n_items, dtype=torch.float64)
        for group, units in items.units:
            for block, size in self.blocks:
                if block.source == group:
                    total += size.sum(1)[units].sum(1)
                if block.target == group:
                    total += size.sum(0)[units].sum(1)
        return total

    def place(self, items: Movable) -> tuple[Int[Tensor, " item"], float]:
        """Which item comes to which place, and how much wiring that saves; items stay if it saves none."""
        costs = self.costs(items)
        if self.swaps.method == "greedy":
            tried = self.weight_of(items).argsort(descending=True)[: self.swaps.top_k]
            order = greedy_order(costs, tried.tolist())
        else:
            order = best_order(costs)
        stays = torch.arange(items.n_items)
        before = float(costs.trace())
        gain = before - float(costs[order, stays].sum())
        if gain <= _ROUNDING * before:
            return stays, 0.0
        self._move(items, order)
        return order, gain

    def _move(self, items: Movable, order: Tensor) -> None:
        for group, units in items.units:
            for index, (block, size) in enumerate(self.blocks):
                moved = size.clone()
                if block.source == group:
                    moved[units] = size[units[order]]
                if block.target == group:
                    moved[:, units] = size[:, units[order]]
                self.blocks[index] = block, moved


def best_order(costs: Float[Tensor, "item place"]) -> Int[Tensor, " place"]:
    """For each place, the item that stands there in the cheapest placement of all."""
    item, place = linear_sum_assignment(costs.numpy())
    order = torch.empty(len(costs), dtype=torch.int64)
    order[torch.from_numpy(place)] = torch.from_numpy(item)
    return order


def greedy_order(
    costs: Float[Tensor, "item place"], tried: Collection[int]
) -> Int[Tensor, " place"]:
    """For each place, the item that stands there after each of `tried` took its best partner in turn."""
    costs, order = costs.clone(), torch.arange(len(costs))
    for place in tried:
        stay = costs.diagonal()
        gains = stay[place] + stay - costs[place] - costs[:, place]
        partner = int(gains.argmax())
        if gains[partner] > _ROUNDING * stay[place]:
            costs[[place, partner]] = costs[[partner, place]]
            order[[place, partner]] = order[[partner, place]]
    return order
