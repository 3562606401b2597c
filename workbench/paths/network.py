"""The affine network of one forward pass: sources, then sublayers whose multipliers are held fixed.

    stream ← stream + F(stream) + constant          for every sublayer, F linear
    stream ← N(stream + F(stream) + constant)       in post-norm models, N linear plus a bias

Level i of the stream stands before step i, so a network of n steps has levels 0 to n. Sources are the
embeddings and every constant; components are the heads and the MLPs.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property

import torch
from jaxtyping import Float
from torch import Tensor

from workbench.errors import ConfigError
from workbench.models.protocol import Model
from workbench.paths.maps import FrozenAttention, FrozenNorm, Sublayer
from workbench.runs import Run
from workbench.stream.parts import Part


@dataclass(frozen=True, eq=False)
class Step:
    """One sublayer in its place.

    Args:
        reads: the level of the stream that it reads: the one before it, except that the MLP of a parallel
            block reads what the block's attention reads.
        norm: the norm of the sum behind it, in post-norm models.
    """

    sublayer: Sublayer
    reads: int
    norm: FrozenNorm | None

    @property
    def kind(self) -> str:
        """`attn` or `mlp`."""
        return "attn" if isinstance(self.sublayer, FrozenAttention) else "mlp"

    @property
    def components(self) -> tuple[Part, ...]:
        """The heads, or the MLP."""
        layer = self.sublayer.layer
        if self.kind == "mlp":
            return (Part(f"mlp {layer}", "mlp", layer),)
        heads = range(self.sublayer.n_parts)
        return tuple(Part(f"{layer}.{head}", "head", layer, head) for head in heads)

    @property
    def bias(self) -> Part:
        """The source that its constant is."""
        layer = self.sublayer.layer
        return Part(f"bias {self.kind} {layer}", "bias", layer)

    @property
    def constant(self) -> Float[Tensor, "pos d_model"]:
        """What it adds to the stream whatever it reads, behind the norm of the sum where there is one."""
        constant = self.sublayer.constant
        return constant if self.norm is None else self.norm.apply(constant) + self.norm.bias


@dataclass(frozen=True, eq=False)
class FrozenNetwork:
    """The affine network of one run. Made by `freeze`.

    Args:
        sources: what the stream starts with, by part.
        steps: the sublayers, from the embedding up.
        final_norm: before the unembedding; None without one.
        stream: the model's own stream behind the last step.
    """

    model: Model
    run: Run
    sources: dict[Part, Float[Tensor, "pos d_model"]]
    steps: tuple[Step, ...]
    final_norm: FrozenNorm | None
    stream: Float[Tensor, "pos d_model"]

    @property
    def str_tokens(self) -> tuple[str, ...]:
        """The prompt's tokens."""
        return self.run.str_tokens[0]

    @property
    def components(self) -> tuple[Part, ...]:
        """All heads and MLPs, from the first step up."""
        return tuple(part for step in self.steps for part in step.components)

    @property
    def constants(self) -> dict[Part, Float[Tensor, "pos d_model"]]:
        """What each sublayer, and each norm of a sum, writes whatever it reads."""
        return {step.bias: step.constant for step in self.steps}

    @cached_property
    def levels(self) -> tuple[Float[Tensor, "pos d_model"], ...]:
        """The whole stream before each step, and behind the last."""
        levels = [torch.stack(list(self.sources.values())).sum(0)]
        for step in self.steps:
            x = levels[-1] + step.sublayer.apply(levels[step.reads]) + step.sublayer.constant
            levels.append(x if step.norm is None else step.norm.apply(x) + step.norm.bias)
        return tuple(levels)

    @cached_property
    def residual(self) -> float:
        """How far the last level is from the model's own, relative to the largest entry at each position."""
        sizes = self.stream.abs().amax(-1).clamp(min=1e-30)
        return float(((self.levels[-1] - self.stream).abs().amax(-1) / sizes).max())

    @cached_property
    def written(self) -> tuple[Float[Tensor, "part pos d_model"], ...]:
        """What every component of each step writes here, constants left out, before any norm of the sum."""
        return tuple(step.sublayer.parts(self.levels[step.reads]) for step in self.steps)

    def place(self, component: Part) -> tuple[int, int]:
        """Where a component is: its step, and its place among the step's components.

        Raises:
            ConfigError: the network has no such component.
        """
        for index, step in enumerate(self.steps):
            if component in step.components:
                return index, step.components.index(component)
        last = f" (they run from {self.components[0].label} to {self.components[-1].label})"
        raise ConfigError(
            f"{self.model.name} has no component {component.label}{last if self.steps else ''}"
        )

    def up_to(self, n_steps: int | None) -> "FrozenNetwork":
        """The network of the first steps alone, whose last level is where one of its sublayers reads."""
        if n_steps is None or n_steps == len(self.steps):
            return self
        return replace(
            self, steps=self.steps[:n_steps], final_norm=None, stream=self.levels[n_steps]
        )

    def forward(
        self, x: Float[Tensor, "*batch pos d_model"]
    ) -> Float[Tensor, "*batch pos d_model"]:
        """The last level that a start leads to, constants left out: linear in `x`."""
        levels = [x]
        for step in self.steps:
            x = x + step.sublayer.apply(levels[step.reads])
            x = x if step.norm is None else step.norm.apply(x)
            levels.append(x)
        return x

    def skipped(
        self, direction: Float[Tensor, "*batch pos d_model"], level: int
    ) -> Iterator[tuple[int, Float[Tensor, "*batch pos d_model"]]]:
        """A direction at a level, seen past all components: each step, downwards, with that of what it adds."""
        for index in reversed(range(level)):
            norm = self.steps[index].norm
            direction = direction if norm is None else norm.transpose(direction)
            yield index, direction

    def behind(
        self, direction: Float[Tensor, "pos d_model"], step: int
    ) -> Float[Tensor, "pos d_model"]:
        """What everything behind a step makes of a direction at the last level: λ of what the step leaves."""
        held: dict[int, Tensor] = {}
        for index in reversed(range(step + 1, len(self.steps))):
            here = self.steps[index]
            direction = direction if here.norm is None else here.norm.transpose(direction)
            held[here.reads] = held.get(here.reads, 0) + here.sublayer.transpose(direction)
            direction = direction + held.pop(index, 0)
        return direction

    def past(
        self, x: Float[Tensor, "*batch pos d_model"], start: int, stop: int
    ) -> Float[Tensor, "*batch pos d_model"]:
        """What was written before the norm of step `start`, seen at level `stop` past all components."""
        for step in self.steps[start:stop]:
            x = x if step.norm is None else step.norm.apply(x)
        return x
