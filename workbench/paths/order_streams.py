"""The stream by order, from the sources up: what has passed through exactly n components.

    X[n + 1] ← X[n + 1] + F X[n]        for every layer F, the heads of a layer acting side by side

X[0] starts as the embeddings and takes every constant as it comes; the sum over n is the model's own stream.
It is the recursion of `workbench.paths.orders` seen from the other end: there one number is taken apart, here
the whole stream, at all positions. (Elhage et al. 2021, "A Mathematical Framework for Transformer Circuits",
"Path Expansion Trick".)
"""

from collections.abc import Collection, Iterator

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from workbench.paths.network import FrozenNetwork, Step
from workbench.paths.orders import added, counted_parts
from workbench.stream.parts import Part


def path_counts(frozen: FrozenNetwork, counted: str | Collection[Part] = "all") -> tuple[int, ...]:
    """How many paths of each order a source has: choices of counted components in rising order."""
    chosen = counted_parts(frozen, counted)
    side_by_side: dict[int, int] = {}
    for step in frozen.steps:
        n_counted = sum(part in chosen for part in step.components)
        side_by_side[step.reads] = side_by_side.get(step.reads, 0) + n_counted
    counts = [1]
    for width in side_by_side.values():
        if width:
            longer = [width * count for count in counts]
            counts = [a + b for a, b in zip([*counts, 0], [0, *longer], strict=True)]
    return tuple(counts)


def order_streams(
    frozen: FrozenNetwork, counted: str | Collection[Part] = "all"
) -> Float[Tensor, "order pos d_model"]:
    """The final stream by order: what has passed through exactly n counted components. They sum to it."""
    chosen = counted_parts(frozen, counted)
    streams = torch.stack(list(frozen.sources.values())).sum(0)[None]
    levels: dict[int, Tensor] = {}
    for index, step in enumerate(frozen.steps):
        levels[index] = streams
        streams = added(streams, _written(step, levels[step.reads], chosen))
        streams = streams if step.norm is None else step.norm.apply(streams)
        streams = added(streams, step.constant[None])
        levels = _still_read(frozen, index, levels)
    return streams


def first_order(
    frozen: FrozenNetwork, counted: str | Collection[Part] = "all"
) -> Iterator[tuple[Step, tuple[Part, ...], Float[Tensor, "part pos d_model"]]]:
    """Step by step the order-1 term of each counted component, as it arrives in the final stream."""
    chosen = counted_parts(frozen, counted)
    levels = [torch.stack(list(frozen.sources.values())).sum(0)]
    for index, step in enumerate(frozen.steps):
        read, kept = levels[step.reads], _is_counted(step, chosen)
        if kept.any():
            parts = tuple(part for part in step.components if part in chosen)
            terms = step.sublayer.parts(read)[kept]
            yield step, parts, _carried(frozen, terms, index, chosen)
        x = levels[-1] if kept.all() else levels[-1] + step.sublayer.only(~kept).apply(read)
        x = x if step.norm is None else step.norm.apply(x)
        levels.append(x + step.constant)


def _is_counted(step: Step, chosen: set[Part]) -> Bool[Tensor, " part"]:
    return torch.tensor([part in chosen for part in step.components])


def _written(
    step: Step, read: Float[Tensor, "order pos d_model"], chosen: set[Part]
) -> Float[Tensor, "written pos d_model"]:
    """What a sublayer writes, one order higher where its components are counted."""
    counted = _is_counted(step, chosen)
    none = torch.zeros_like(read[:1])
    if counted.all():
        return torch.cat([none, step.sublayer.apply(read)])
    if not counted.any():
        return step.sublayer.apply(read)
    shifted = torch.cat([none, step.sublayer.only(counted).apply(read)])
    return added(shifted, step.sublayer.only(~counted).apply(read))


def _carried(
    frozen: FrozenNetwork, terms: Float[Tensor, "part pos d_model"], index: int, chosen: set[Part]
) -> Float[Tensor, "part pos d_model"]:
    """Terms written by a step, at the end: past counted components, through the others and all norms."""
    norm = frozen.steps[index].norm
    levels = {index + 1: terms if norm is None else norm.apply(terms)}
    for later in range(index + 1, len(frozen.steps)):
        step, x = frozen.steps[later], levels[later]
        others = ~_is_counted(step, chosen)
        if (
            others.any() and step.reads in levels
        ):  # the MLP of a parallel block does not read its attention
            x = x + step.sublayer.only(others).apply(levels[step.reads])
        levels[later + 1] = x if step.norm is None else step.norm.apply(x)
        levels = _still_read(frozen, later, levels)
    return levels[len(frozen.steps)]


def _still_read(frozen: FrozenNetwork, index: int, levels: dict[int, Tensor]) -> dict[int, Tensor]:
    """The levels that later steps read: each may be as large as all orders together."""
    first = min((later.reads for later in frozen.steps[index + 1 :]), default=index + 1)
    return {level: kept for level, kept in levels.items() if level >= first}
