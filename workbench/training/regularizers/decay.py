"""Weight decay with a rate of its own for every parameter, or for every number in it.

    value = ½ Σ_p Σ r_p w²                 penalty: its gradient r·w passes through Adam's moments (L2)
    shrink: w ← (1 − lr·λ·r_p) w           decoupled, after the optimiser's step (Loshchilov and Hutter 2019)

Use one of the two: the first is called by the loop like every other penalty, the second by whoever steps the
optimiser. Under Adam they differ, since the first is divided by the root of the second moment; under plain
SGD they agree. Scale: of squared weights. Invariances: rotations inside a parameter of one rate; rates that
differ number by number, such as the length of a wire, admit none.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase

import torch
from torch import Tensor

from workbench.errors import ConfigError
from workbench.training.layouts import Layout
from workbench.training.regularizers.strength import Regularizer, check_amount
from workbench.training.wires import Network, as_parameter, wires


@dataclass(frozen=True, kw_only=True, eq=False)
class WeightDecay(Regularizer):
    """Half the squared weights, each at its own rate.

    Args:
        rates: names or patterns of parameters → rate, or one rate for every number; the first that fits
            counts, and what fits none does not decay.

    Raises:
        ConfigError: a rate that is negative or not finite.
    """

    rates: Mapping[str, float | int | Tensor]

    def __post_init__(self) -> None:
        super().__post_init__()
        for name, rate in self.rates.items():
            lowest = float(rate.min()) if isinstance(rate, Tensor) else rate
            highest = float(rate.max()) if isinstance(rate, Tensor) else rate
            check_amount(f"the rate of {name!r}", lowest)
            check_amount(f"the rate of {name!r}", highest)

    def value(self, model: Network, step: int = 0) -> Tensor:
        """½ Σ r w²; the penalty form.

        Raises:
            ConfigError: a pattern that fits no parameter, or rates of another shape.
        """
        found = self._rated(model)
        return torch.stack([(rate * weight.pow(2)).sum() / 2 for weight, rate in found]).sum()

    @torch.no_grad()
    def shrink(self, model: Network, step: int, lr: float | int) -> None:
        """Multiply every weight by 1 − lr·λ·r; the decoupled form, after the optimiser's step.

        Raises:
            ConfigError: a pattern that fits no parameter, or rates of another shape.
        """
        strength = self.now(self.strength, step)
        for weight, rate in self._rated(model):
            weight.mul_(1 - lr * strength * rate)

    def _rated(self, model: Network) -> list[tuple[Tensor, float | int | Tensor]]:
        parameters = dict(model.named_parameters())
        found: list[tuple[Tensor, float | int | Tensor]] = []
        for pattern in self.rates:
            if not any(fnmatchcase(name, pattern) for name in parameters):
                known = ", ".join(parameters)
                raise ConfigError(f"no parameter of {model.name} fits {pattern!r}: it has {known}")
        for name, weight in parameters.items():
            fits = [rate for pattern, rate in self.rates.items() if fnmatchcase(name, pattern)]
            if fits:
                found.append((weight, _fitted(name, weight, fits[0])))
        return found


def _fitted(name: str, weight: Tensor, rate: float | int | Tensor) -> float | int | Tensor:
    if not isinstance(rate, Tensor):
        return rate
    if rate.shape != weight.shape:
        raise ConfigError(f"{name} is {list(weight.shape)}, its rates are {list(rate.shape)}")
    return rate.to(weight)


def distance_rates(model: Network, layout: Layout) -> dict[str, Tensor]:
    """For every parameter whose wires have a length: that length, divided by its mean over the parameter."""
    found = {}
    for block in wires(model):
        distances = layout.distances(block)
        if distances is not None:
            rates = as_parameter(model, block.name, distances)
            found[block.name] = rates / distances.mean()
    return found
