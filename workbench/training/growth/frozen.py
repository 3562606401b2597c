"""What training leaves as it is, to the bit: whole weights, or the corner of a weight that has grown.

In training   a gradient is zero where the mask is true, before the gradient's norm is taken and clipped;
              weights that are frozen whole get none at all;
              after every step the frozen numbers are put back, which undoes weight decay and shrinkage.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase

import torch
from torch import Tensor
from torch.optim import Optimizer

from workbench.errors import ConfigError, UnsupportedError
from workbench.training.shaping import Penalty, Shaping, as_shaping
from workbench.training.wires import Network


@dataclass(frozen=True, eq=False)
class Frozen:
    """Numbers of a network and where they stand; called after every step, it puts them back.

    Args:
        masks: by parameter, true where it is frozen.
        values: of the same parameters, as they were when they were frozen.
    """

    masks: Mapping[str, Tensor]
    values: Mapping[str, Tensor]

    @classmethod
    def of(
        cls, model: Network, masks: Mapping[str, Tensor], *, free: Sequence[str] = ()
    ) -> "Frozen":
        """Freeze a network's present numbers.

        Args:
            masks: by parameter, true where it shall stay; parameters not named are trained.
            free: patterns of parameters that are trained whatever the masks say, `unembed.*` for example.

        Raises:
            ConfigError: a parameter or pattern that the model does not have, a mask of another shape, or
                nothing left to train.
        """
        parameters = dict(model.named_parameters())
        for name, mask in masks.items():
            if name not in parameters:
                raise ConfigError(f"{model.name} has no parameter {name[:60]!r} to freeze")
            if mask.dtype != torch.bool or mask.shape != parameters[name].shape:
                raise ConfigError(
                    f"the mask of {name} must be true or false for each of {list(parameters[name].shape)}, "
                    f"not {mask.dtype} {list(mask.shape)}"
                )
        for pattern in free:
            if not any(fnmatchcase(name, pattern) for name in parameters):
                raise ConfigError(
                    f"no parameter of {model.name} is called {pattern[:60]!r}: it has {', '.join(parameters)}"
                )
        kept = {
            name: mask.clone()
            for name, mask in masks.items()
            if mask.any() and not any(fnmatchcase(name, pattern) for pattern in free)
        }
        if all(name in kept and bool(kept[name].all()) for name in parameters):
            raise ConfigError(f"every number of {model.name} is frozen: leave something to train")
        return cls(kept, {name: parameters[name].detach().clone() for name in kept})

    @property
    def n_frozen(self) -> int:
        """How many numbers stay."""
        return sum(int(mask.sum()) for mask in self.masks.values())

    @contextmanager
    def held(self, model: Network) -> Iterator[None]:
        """Keep gradients away from the frozen numbers for the length of a `with` block."""
        parameters = dict(model.named_parameters())
        handles, stopped = [], []
        try:
            for name, mask in self.masks.items():
                weight = parameters[name]
                if mask.all():
                    weight.requires_grad_(False)
                    stopped.append(weight)
                else:
                    handles.append(weight.register_hook(_Masked(mask)))
            yield
        finally:
            for handle in handles:
                handle.remove()
            for weight in stopped:
                weight.requires_grad_(True)

    @torch.no_grad()
    def __call__(
        self, model: Network, optimizers: Mapping[str, Optimizer], step: int, lr: float
    ) -> None:
        """Put the frozen numbers back: what a training loop calls after every step."""
        parameters = dict(model.named_parameters())
        for name, mask in self.masks.items():
            parameters[name][mask] = self.values[name][mask]

    def added_to(self, given: Sequence[Penalty] | Shaping) -> Shaping:
        """All else that shapes the weights, with the frozen numbers put back last.

        Raises:
            UnsupportedError: swaps, which would move the frozen numbers to other places.
        """
        shaping = as_shaping(given)
        if shaping.swaps is not None:
            raise UnsupportedError(
                "swaps move units, and with them frozen numbers: train frozen without swaps"
            )
        return replace(shaping, after_step=(*shaping.after_step, self))


@dataclass(frozen=True, eq=False)
class _Masked:
    """A gradient without the entries that are frozen, infinite or undefined ones included."""

    mask: Tensor

    def __call__(self, gradient: Tensor) -> Tensor:
        return gradient.masked_fill(self.mask, 0)
