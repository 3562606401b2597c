"""The graph that modularity is measured on: all units of all groups, joined by the sizes of their wires.

    A_ij = A_ji = Σ over blocks |w_ij|        units that nothing joins are left out

No measure of this graph may depend on how units are numbered, but a search that starts from numbered units
does, a little. So units are numbered by the sum of their wires within each group before anything is searched
or shuffled: a network and the same one with its units permuted then give the same numbers, to the last digit.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import scipy.sparse as sp
from jaxtyping import Float, Int, Shaped

from workbench.errors import BudgetError, ConfigError
from workbench.training.wires import Wires

Sizes = Mapping[str, int]
MAX_EDGES = 5_000_000
"""Wires that are not zero, at most: the search for modules takes a few microseconds for each."""


@dataclass(frozen=True, eq=False)
class Block:
    """The sizes |w| of one block of wires, in double precision; `name`, `source`, `target` are the wires'."""

    name: str
    source: str
    target: str
    size: Float[np.ndarray, "source target"]


@dataclass(frozen=True, eq=False)
class UnitGraph:
    """Units that are joined to something, and the weight between each two.

    Args:
        weight: symmetric sparse matrix [unit, unit].
        units: the number of each unit among all units, groups one after the other.
        n_units: how many units there are with those that nothing joins.
    """

    weight: sp.csr_array
    units: Int[np.ndarray, " unit"]
    n_units: int

    @property
    def degree(self) -> Float[np.ndarray, " unit"]:
        """Each unit's weight to all others."""
        return np.asarray(self.weight.sum(axis=1)).ravel()

    def spread(self, labels: Shaped[np.ndarray, " unit"]) -> Int[np.ndarray, " every_unit"]:
        """Labels of all units; -1 for those that nothing joins."""
        everywhere = np.full(self.n_units, -1)
        everywhere[self.units] = labels
        return everywhere


def blocks_of(wires: Sequence[Wires], groups: Sizes) -> tuple[Block, ...]:
    """The sizes of all wires.

    Raises:
        ConfigError: no wires, groups that do not fit them, or weights that are not finite or all zero.
        BudgetError: more wires than a search for modules is fit for.
    """
    if not wires:
        raise ConfigError("a network without wires has no modularity: give at least one block")
    blocks = tuple(_block(block, groups) for block in wires)
    if not any(block.size.any() for block in blocks):
        raise ConfigError("every weight is zero: a graph without edges has no modularity")
    if (n_edges := sum(int(np.count_nonzero(block.size)) for block in blocks)) > MAX_EDGES:
        raise BudgetError(
            f"{n_edges:,} wires are more than the {MAX_EDGES:,} that modules are sought in: "
            "prune the network, or leave blocks out"
        )
    return blocks


def _block(wires: Wires, groups: Sizes) -> Block:
    shape = tuple(wires.weight.shape)
    if shape != (expected := (groups.get(wires.source), groups.get(wires.target))):
        raise ConfigError(
            f"{wires.name} joins {shape[0]} units of {wires.source!r} to {shape[1]} of {wires.target!r}, "
            f"but the groups given have {expected[0]} and {expected[1]}"
        )
    size = wires.weight.detach().abs().double().cpu().numpy()
    if bad := int((~np.isfinite(size)).sum()):
        raise ConfigError(f"{bad} of the {size.size} weights of {wires.name} are not finite")
    return Block(wires.name, wires.source, wires.target, size)


def starts(groups: Sizes) -> dict[str, int]:
    """The number of each group's first unit, groups one after the other."""
    ends = np.cumsum([0, *groups.values()])
    return {name: int(end) for name, end in zip(groups, ends, strict=False)}


def directed(blocks: Sequence[Block], groups: Sizes) -> sp.csr_array:
    """Weight from each unit to each that reads it, over all units; zeros are no entries."""
    first, n_units = starts(groups), sum(groups.values())
    rows, columns, sizes = [], [], []
    for block in blocks:
        source, target = block.size.nonzero()
        rows.append(source + first[block.source])
        columns.append(target + first[block.target])
        sizes.append(block.size[source, target])
    where = (np.concatenate(rows), np.concatenate(columns))
    return sp.csr_array(sp.coo_array((np.concatenate(sizes), where), shape=(n_units, n_units)))


def unit_graph(blocks: Sequence[Block], groups: Sizes) -> UnitGraph:
    """The undirected graph of absolute weights."""
    one_way = directed(blocks, groups)
    both = sp.csr_array(one_way + one_way.T)
    units = np.flatnonzero(np.asarray(both.sum(axis=1)).ravel() > 0)
    return UnitGraph(both[units][:, units], units, both.shape[0])


def canonical(blocks: Sequence[Block], groups: Sizes) -> dict[str, Int[np.ndarray, " unit"]]:
    """The units of each group from the least to the most wired: an order that numbering does not change."""
    order = {}
    for name, n in groups.items():
        # Sorted first, because a sum of floats depends on the order of its terms.
        ends = [block.size for block in blocks if block.source == name]
        ends += [block.size.T for block in blocks if block.target == name]
        incident = np.concatenate([np.zeros((n, 1)), *ends], axis=1)
        order[name] = np.argsort(np.sort(incident, axis=1).sum(axis=1), kind="stable")
    return order


def reordered(
    blocks: Sequence[Block], order: Mapping[str, Int[np.ndarray, " unit"]]
) -> tuple[Block, ...]:
    """The same blocks with the units of each group in another order."""
    return tuple(
        replace(block, size=block.size[np.ix_(order[block.source], order[block.target])])
        for block in blocks
    )


def read_back(blocks: Sequence[Block]) -> Block | None:
    """The embedding as the unembedding that reads it backwards, where the two are tied."""
    if {"outputs", "logits"} & {block.target for block in blocks}:
        return None
    tied = (block for block in blocks if (block.source, block.target) == ("tokens", "stream"))
    return next((Block(b.name, b.target, b.source, b.size.T) for b in tied), None)


def by_group(
    labels: Shaped[np.ndarray, " every_unit"],
    groups: Sizes,
    order: Mapping[str, Int[np.ndarray, " unit"]],
) -> dict[str, Int[np.ndarray, " _"]]:
    """Labels of all units, in canonical order, as labels of each group's units in their own order."""
    found = {}
    for name, first in starts(groups).items():
        found[name] = np.empty(groups[name], dtype=np.int64)
        found[name][order[name]] = labels[first : first + groups[name]]
    return found
