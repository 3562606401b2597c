"""Wiring length and input-output cross-talk: what the graph's modules do not say.

    wiring      total Σ |w| d,  mean Σ |w| d / Σ |w|       over the wires that have a length
    cross-talk  C = |W_1| |W_2| … |W_L|;  Σ C_io [module of i ≠ module of o] / Σ C_io       0 … 1
                or, where inputs and outputs fall into no modules, Σ C_io [o does not depend on i] / Σ C_io

|W_1| … |W_L| is the sum of |products of weights| over all paths from input i to output o. In a transformer the
stream keeps what was written, so paths past a layer count too; a path through a head goes by its value.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int

from workbench.errors import ConfigError
from workbench.training.modularity.graph import Block, Sizes, read_back

Labels = Mapping[str, Int[np.ndarray, " _"]]
Lengths = Mapping[str, Float[np.ndarray, "_ _"]]
Pairs = Mapping[tuple[str, str], Bool[np.ndarray, "_ _"]]
"""(group of inputs, group of outputs) → which of their units should not be joined, [input, output]."""


@dataclass(frozen=True)
class Wiring:
    """Total wiring and mean wire length.

    Args:
        share: part of all weight whose wires have a length.
    """

    total: float
    mean: float
    share: float


def wiring(blocks: Sequence[Block], lengths: Lengths) -> Wiring:
    """How much wire a network needs; blocks that `lengths` does not name are left out."""
    measured = [block for block in blocks if block.name in lengths]
    size = math.fsum(float(block.size.sum()) for block in measured)
    total = math.fsum(float((block.size * lengths[block.name]).sum()) for block in measured)
    everything = math.fsum(float(block.size.sum()) for block in blocks)
    return Wiring(total, total / size if size else float("nan"), size / everything)


def check_sides(blocks: Sequence[Block], groups: Sizes, sides: Labels) -> None:
    """Refuse a partition of inputs and outputs that is none.

    Raises:
        ConfigError: unknown groups, another number of labels than units, or no inputs or no outputs.
    """
    sizes = dict(groups)
    if (back := read_back(blocks)) is not None:
        sizes["logits"] = back.size.shape[1]
    for name, labels in sides.items():
        if name not in sizes:
            raise ConfigError(f"no group {name!r} to label; there are {', '.join(sizes)}")
        if len(labels) != sizes[name]:
            raise ConfigError(f"{len(labels)} labels for the {sizes[name]} units of {name!r}")
    inputs, outputs = _ends(blocks, sides)
    if not inputs or not outputs:
        raise ConfigError(
            f"cross-talk runs from labelled inputs to labelled outputs: {sorted(sides)} are "
            f"{'inputs' if inputs else 'outputs'} only"
        )


def cross_talk(blocks: Sequence[Block], sides: Labels) -> float:
    """Share of the mass of all paths that joins inputs of one module to outputs of another.

    Args:
        sides: the module of each unit of the input and output groups; -1 = in none, and not counted.
    """
    inputs, outputs = _ends(blocks, sides)
    modules = np.unique(np.concatenate(list(sides.values())))
    modules = modules[modules >= 0]
    mass = {name: (modules[:, None] == sides[name]).astype(np.float64) for name in inputs}
    _spread(blocks, mass)
    joined = np.zeros((len(modules), len(modules)))
    for name in outputs:
        if name in mass:
            joined += mass[name] @ (sides[name][:, None] == modules).astype(np.float64)
    whole = joined.sum()
    return float(1 - np.trace(joined) / whole) if whole else float("nan")


def check_pairs(
    blocks: Sequence[Block], groups: Sizes, apart: Mapping[tuple[str, str], np.ndarray]
) -> None:
    """Refuse a mask of inputs and outputs that is none.

    Raises:
        ConfigError: unknown groups, a mask of another shape or type, or groups that paths do not run between.
    """
    sizes = dict(groups)
    if (back := read_back(blocks)) is not None:
        sizes["logits"] = back.size.shape[1]
    targets = {block.target for block in _flow(blocks)}
    for pair, mask in apart.items():
        if unknown := [name for name in pair if name not in sizes]:
            raise ConfigError(f"no group {unknown[0]!r} to part; there are {', '.join(sizes)}")
        expected = tuple(sizes[name] for name in pair)
        if mask.dtype != bool or mask.shape != expected:
            raise ConfigError(
                f"the mask of {pair[0]!r} and {pair[1]!r} must be true or false of {expected} units, "
                f"not {mask.dtype} of {mask.shape}"
            )
        if pair[0] in targets or pair[1] not in targets:
            raise ConfigError(
                f"paths run from inputs to outputs, not from {pair[0]!r} to {pair[1]!r}"
            )


def cross_talk_of_pairs(blocks: Sequence[Block], apart: Pairs) -> float:
    """Share of the mass of all paths between inputs and outputs that should not be joined; NaN without mass.

    Where the pairs are those of unlike modules, it is `cross_talk` of these modules.
    """
    wrong = whole = 0.0
    for (source, target), mask in apart.items():
        mass: dict[str, Float[np.ndarray, "input _"]] = {source: np.eye(mask.shape[0])}
        _spread(blocks, mass)
        if target in mass:
            wrong += float(mass[target][mask].sum())
            whole += float(mass[target].sum())
    return wrong / whole if whole else float("nan")


def _ends(blocks: Sequence[Block], sides: Labels) -> tuple[list[str], list[str]]:
    targets = {block.target for block in _flow(blocks)}
    return [name for name in sides if name not in targets], [n for n in sides if n in targets]


def _spread(blocks: Sequence[Block], mass: dict[str, Float[np.ndarray, "row _"]]) -> None:
    """Carry mass from the groups that have some to all that paths lead to."""
    for block in _flow(blocks):
        if block.source in mass:
            reached = mass[block.source] @ block.size
            mass[block.target] = mass.get(block.target, 0.0) + reached


def _flow(blocks: Sequence[Block]) -> list[Block]:
    """The blocks from the inputs up; a tied unembedding comes last, its readers named `logits`."""
    back = read_back(blocks)
    last = [] if back is None else [Block(back.name, back.source, "logits", back.size)]
    return [*blocks, *last]
