"""What feeds a partial path: every part that enters it, with the exact sum of all paths that go on that way.

A partial path is the components next to the end, `c1, …, ck`. It has one covector, made from the end backwards,

    λ(c1, …, ck) = F_c1.T N.T λ(c2, …, ck)      λ() = the direction asked for, N the norms of sums passed by

and for each part that enters c1, `⟨λ, what the part writes here⟩` is the sum of all paths through it and on
through c1, …, ck: for a source that is one path, for a component all that reach it. Together they are the
subtotal of the partial path itself.
(Elhage et al. 2021, "A Mathematical Framework for Transformer Circuits", "Path Expansion Trick".)
"""

from collections import OrderedDict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from workbench.errors import ConfigError
from workbench.paths.directions import Direction
from workbench.paths.maps import FrozenAttention, Sublayer
from workbench.paths.network import FrozenNetwork
from workbench.stream.parts import Part, as_numpy, part_columns

# A component as its step and its place among the step's components; a partial path as its components in order.
Place = tuple[int, int]
Suffix = tuple[Place, ...]
KEPT_BYTES = 2**28


@dataclass(frozen=True, eq=False)
class Feeds:
    """What enters a partial path.

    Args:
        through: the components next to the end, first to last; () is the end itself.
        parts: sources that are not zero, then components; `values` sum to `subtotal`.
        subtotal: of all paths that go on through `through`; the bias is no path.
        residual: the sum of the values minus the subtotal, which is computed without them.
    """

    label: str
    model_name: str
    through: tuple[Part, ...]
    parts: tuple[Part, ...]
    values: Float[np.ndarray, " part"]
    unit: str
    subtotal: float
    residual: float

    def table(self) -> pd.DataFrame:
        """Tidy: part kind layer head neuron source value unit."""
        return part_columns(self.parts).assign(value=self.values, unit=self.unit)


def feeds(frozen: FrozenNetwork, direction: Direction, through: Sequence[Part]) -> Feeds:
    """Every part that enters the first component of `through`, with its exact subtotal.

    Args:
        through: the components next to the end, first to last; [] is the end itself.

    Raises:
        ConfigError: a component that the model does not have, or one that does not feed the next.
    """
    suffixes = Suffixes(frozen, direction)
    suffix = suffixes.checked(through)
    values = suffixes.entering([suffix])[0]
    entering = suffixes.enters(suffix)
    subtotal = suffixes.subtotal(suffix)
    return Feeds(
        label=" → ".join([*(part.label for part in through), direction.label]),
        model_name=frozen.model.name,
        through=tuple(through),
        parts=tuple(suffixes.writers[index] for index in np.flatnonzero(entering)),
        values=values[entering],
        unit=direction.unit,
        subtotal=subtotal,
        residual=float(values[entering].sum()) - subtotal,
    )


def component_named(frozen: FrozenNetwork, label: str) -> Part:
    """The head or MLP of this label, as `1.1` or `mlp 3`.

    Raises:
        ConfigError: there is none.
    """
    named = {part.label: part for part in frozen.components}
    if label not in named:
        frozen.place(Part(label[:40], "component"))
    return named[label]


class Suffixes:
    """The partial paths of one question, with their covectors; those made last are kept.

    `writers` are what may enter one: sources that are not zero, then all components.
    """

    def __init__(self, frozen: FrozenNetwork, direction: Direction) -> None:
        self.frozen, self.direction = frozen.up_to(direction.n_steps), direction
        steps = self.frozen.steps
        constants = [(step.bias, index + 1) for index, step in enumerate(steps)]
        vectors = {**self.frozen.sources, **self.frozen.constants}
        levels = [*((part, 0) for part in self.frozen.sources), *constants]
        # A constant that is zero starts no path.
        self.sources = {part: level for part, level in levels if vectors[part].any()}
        self.vectors = {part: vectors[part] for part in self.sources}
        self.components = {
            part: (index, place)
            for index, step in enumerate(steps)
            for place, part in enumerate(step.components)
        }
        self.places = list(self.components.values())
        self.writers = (*self.sources, *self.components)
        self.levels = np.array([*self.sources.values(), *(step + 1 for step, _ in self.places)])
        self._kept: OrderedDict[Suffix, Tensor] = OrderedDict({(): direction.vector})
        nbytes = direction.vector.numel() * direction.vector.element_size()
        self._most = max(64, KEPT_BYTES // max(1, nbytes))

    def level(self, suffix: Suffix) -> int:
        """The level of the stream that a partial path reads."""
        return self.frozen.steps[suffix[0][0]].reads if suffix else len(self.frozen.steps)

    def enters(self, suffix: Suffix) -> Bool[np.ndarray, " writer"]:
        """Which writers a partial path can read."""
        return self.levels <= self.level(suffix)

    def parts(self, suffix: Suffix) -> tuple[Part, ...]:
        """The components of a partial path."""
        return tuple(self.frozen.steps[step].components[place] for step, place in suffix)

    def checked(self, through: Sequence[Part]) -> Suffix:
        """The partial path through these components.

        Raises:
            ConfigError: a component that the network does not have, or one that does not feed the next.
        """
        suffix: Suffix = ()
        for part in reversed(through):
            if part not in self.components:
                self.frozen.place(part)
            place = self.components[part]
            if place[0] >= self.level(suffix):
                raise ConfigError(
                    f"{part.label} does not feed {self.parts(suffix)[0].label}: a path goes through "
                    "components in rising order, of which no two act side by side"
                )
            suffix = (place, *suffix)
        return suffix

    def entered(self, source: Part, suffix: Suffix) -> Part:
        """The source, if it enters this partial path.

        Raises:
            ConfigError: it does not, or there is no such source.
        """
        if source not in self.sources:
            known = ", ".join(part.label for part in self.sources)
            raise ConfigError(
                f"no path starts at {source.label}: sources that are not 0 are {known}"
            )
        if self.sources[source] > self.level(suffix):
            raise ConfigError(f"{source.label} enters behind {self.parts(suffix)[0].label}")
        return source

    def covector(self, suffix: Suffix) -> Float[Tensor, "pos d_model"]:
        """λ of a partial path, at the level that it reads."""
        if suffix in self._kept:
            self._kept.move_to_end(suffix)
            return self._kept[suffix]
        step, place = suffix[0]
        direction = self._seen_from(suffix[1:], step)
        found = one_part(self.frozen.steps[step].sublayer, place).transpose(direction)
        self._kept[suffix] = found
        if len(self._kept) > self._most:
            self._kept.popitem(last=False)
        return found

    def subtotal(self, suffix: Suffix) -> float:
        """The sum of all paths that go on through a partial path, from what its first component writes."""
        if not suffix:
            return self.direction.total - self.direction.bias
        (step, place), rest = suffix[0], suffix[1:]
        written = self.frozen.written[step][place].double()
        return float((self._seen_from(rest, step).double() * written).sum())

    def entering(self, suffixes: Sequence[Suffix]) -> Float[np.ndarray, "suffix writer"]:
        """What enters each partial path, by writer; 0 for writers that it cannot read."""
        found = np.zeros((len(suffixes), len(self.writers)))
        order = sorted(range(len(suffixes)), key=lambda row: -self.level(suffixes[row]))
        column = len(self.writers)
        columns = {part: index for index, part in enumerate(self.sources)}
        for index, before, behind in self._passes([suffixes[row] for row in order]):
            rows = order[: len(behind)]
            if index < 0:
                for part in self.frozen.sources:
                    if part in columns:
                        found[rows, columns[part]] = _dot(behind, self.vectors[part][None])[:, 0]
                continue
            step, written = self.frozen.steps[index], self.frozen.written[index]
            if step.bias in columns:
                found[rows, columns[step.bias]] = _dot(behind, self.vectors[step.bias][None])[:, 0]
            column -= len(written)
            found[rows, column : column + len(written)] = _dot(before, written)
        return found

    def by_token(self, source: Part, suffix: Suffix) -> Float[np.ndarray, " pos"]:
        """One path, by the position where its source enters."""
        direction = self.covector(suffix)
        for index in reversed(range(self.sources[source], self.level(suffix))):
            norm = self.frozen.steps[index].norm
            direction = direction if norm is None else norm.transpose(direction)
        return as_numpy((direction.double() * self.vectors[source].double()).sum(-1))

    def _seen_from(self, suffix: Suffix, step: int) -> Float[Tensor, "pos d_model"]:
        """λ of a partial path where a step writes, seen past everything between."""
        seen = self.frozen.skipped(self.covector(suffix), self.level(suffix))
        return next(direction for index, direction in seen if index == step)

    def _passes(self, suffixes: Sequence[Suffix]) -> Iterator[tuple[int, Tensor, Tensor]]:
        """Each step downwards with the covectors that see it, before and behind the norm of its sum.

        Those that read the highest levels come first; step -1 is where the stream starts.
        """
        levels = np.array([self.level(suffix) for suffix in suffixes])
        stack = torch.stack([self.covector(suffix) for suffix in suffixes])
        for index in reversed(range(-1, len(self.frozen.steps))):
            n_seeing = int((levels > index).sum())
            behind = stack[:n_seeing]
            norm = None if index < 0 else self.frozen.steps[index].norm
            if norm is not None and n_seeing:
                stack = torch.cat([norm.transpose(behind), stack[n_seeing:]])
            yield index, stack[:n_seeing], behind


def one_part(sublayer: Sublayer, place: int) -> Sublayer:
    """One head of an attention layer as a map of its own; an MLP is one already."""
    if not isinstance(sublayer, FrozenAttention):
        return sublayer
    kv_head = place // (len(sublayer.W_O) // len(sublayer.W_V))
    return replace(
        sublayer,
        pattern=sublayer.pattern[place : place + 1],
        W_V=sublayer.W_V[kv_head : kv_head + 1],
        W_O=sublayer.W_O[place : place + 1],
    )


def _dot(
    stack: Float[Tensor, "suffix pos d_model"], x: Float[Tensor, "part pos d_model"]
) -> Float[np.ndarray, "suffix part"]:
    return as_numpy((stack.flatten(1) @ x.flatten(1).mT).double())
