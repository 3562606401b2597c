"""What every regularizer is: a number of the model, times a strength that may change as training goes on.

    penalty(model, step) = λ(step / steps) · value(model, step)

Penalties are added to the loss, and so to one another.
"""

from abc import ABC, abstractmethod
from bisect import bisect_right
from dataclasses import dataclass
from itertools import pairwise
from math import isfinite

import torch
from torch import Tensor

from workbench.errors import ConfigError
from workbench.training.wires import Network


@dataclass(frozen=True)
class Piecewise:
    """A value that jumps: each point is the share of the steps from which on it holds.

    `Piecewise(((0, 1e-3), (0.25, 1e-2), (0.75, 1e-3)))` is ten times as strong in the middle half.

    Raises:
        ConfigError: shares that do not rise from 0 to below 1, or a negative or non-finite value.
    """

    points: tuple[tuple[float | int, float | int], ...]

    def __post_init__(self) -> None:
        shares = [share for share, _ in self.points]
        in_range = bool(shares) and shares[0] == 0 and all(0 <= share < 1 for share in shares)
        if not in_range or any(b <= a for a, b in pairwise(shares)):
            raise ConfigError(
                f"the shares of a piecewise strength rise from 0 to below 1, not {shares}: "
                "for example ((0, 1e-3), (0.25, 1e-2))"
            )
        for share, value in self.points:
            check_amount(f"the strength from {share:g} on", value)

    def at(self, share: float | int) -> float:
        """The value when this share of the steps has been taken."""
        return float(self.points[bisect_right([start for start, _ in self.points], share) - 1][1])


Strength = float | int | Piecewise


def check_amount(name: str, value: float | int) -> None:
    """Refuse what is negative, infinite or not a number.

    Raises:
        ConfigError: says which.
    """
    if not isfinite(value) or value < 0:
        raise ConfigError(f"{name} must be a finite number from 0 up, not {value!r}")


@dataclass(frozen=True, kw_only=True, eq=False)
class Regularizer(ABC):
    """A penalty that the training loop can call.

    Args:
        strength: λ, constant or by share of the steps.
        steps: of the whole run; needed where something is piecewise.

    Raises:
        ConfigError: a negative or non-finite strength, or a piecewise one without `steps`.
    """

    strength: Strength
    steps: int | None = None

    def __post_init__(self) -> None:
        self._check_strength("strength", self.strength)
        if self.steps is not None and self.steps < 1:
            raise ConfigError(f"steps must be a whole number from 1 up, not {self.steps}")

    def __call__(self, model: Network, step: int) -> Tensor:
        """λ times the value; where λ is 0 the value is not computed."""
        strength = self.now(self.strength, step)
        if strength == 0:
            return torch.zeros((), device=next(model.parameters()).device)
        return self._scaled(model, step, strength)

    def _scaled(self, model: Network, step: int, strength: float) -> Tensor:
        return strength * self.value(model, step)

    @abstractmethod
    def value(self, model: Network, step: int = 0) -> Tensor:
        """The number that is kept small."""

    def now(self, strength: Strength, step: int) -> float:
        """A strength at a step of the run."""
        if isinstance(strength, Piecewise):
            return strength.at(step / (self.steps or 1))
        return float(strength)

    def _check_strength(self, name: str, strength: Strength) -> None:
        if not isinstance(strength, Piecewise):
            check_amount(name, strength)
        elif self.steps is None:
            raise ConfigError(
                f"{name} changes with the share of the steps: say how many steps there are"
            )
