"""What acts on the weights beside the task's loss: penalties in every step, and what comes after it.

    loss = task + Σ penalties(model, step);   optimisers;   decay.shrink;   swaps, when due;   after_step

A run is resumed only with the shaping that it began with, so that this can be told, it is described in words.
"""

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields, is_dataclass
from functools import partial
from types import FunctionType, MethodType
from typing import Any

import numpy as np
from torch import Tensor
from torch.optim import Optimizer

from workbench.errors import ConfigError
from workbench.training.regularizers.decay import WeightDecay
from workbench.training.regularizers.swaps import Swaps
from workbench.training.wires import Network

Penalty = Callable[[Any, int], Tensor]
"""(model, step) → a scalar that is added to the loss."""

AfterStep = Callable[[Any, Mapping[str, Optimizer], int, float], None]
"""(model, optimisers, step, rate of learning): called after the optimisers' step number `step`, from 0."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Shaping:
    """Penalties by name, decoupled weight decay, swaps of units, and hooks of one's own.

    Args:
        decay: its `shrink` is called after every step; as a penalty it stands among those.
        after_step: called last, in their order.

    Raises:
        ConfigError: a penalty without a name.
    """

    penalties: Mapping[str, Penalty] = field(default_factory=dict)
    decay: WeightDecay | None = None
    swaps: Swaps | None = None
    after_step: tuple[AfterStep, ...] = ()

    def __post_init__(self) -> None:
        if not all(isinstance(name, str) and name for name in self.penalties):
            raise ConfigError(f"every penalty has a name: they are {list(self.penalties)}")

    def after(
        self, model: Network, optimizers: Mapping[str, Optimizer], step: int, lr: float
    ) -> None:
        """All that follows the optimisers' step number `step`."""
        if self.decay is not None:
            self.decay.shrink(model, step, lr)
        if self.swaps is not None and self.swaps.due(step + 1):
            self.swaps(model, optimizers.values())
        for hook in self.after_step:
            hook(model, optimizers, step, lr)

    def fingerprint(self) -> str:
        """What must agree between a stopped run and the one that resumes it; empty where nothing acts."""
        if not (self.penalties or self.decay or self.swaps or self.after_step):
            return ""
        return json.dumps(described(self), sort_keys=True)


def as_shaping(given: Sequence[Penalty] | Shaping) -> Shaping:
    """Penalties named after their class or function, numbered where names would repeat."""
    if isinstance(given, Shaping):
        return given
    named: dict[str, Penalty] = {}
    for penalty in given:
        own = getattr(penalty, "__name__", type(penalty).__name__)
        own = "penalty" if own == "<lambda>" else own
        same = sum(name.split(" ")[0] == own for name in named)
        named[own if not same else f"{own} {same + 1}"] = penalty
    return Shaping(penalties=named)


def described(value: object) -> Any:
    """A value as JSON: numbers, and what holds them, in full; an object that may change by its kind alone."""
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, Tensor | np.ndarray):
        return _digest(value)
    if isinstance(value, Mapping):
        return {str(key): described(held) for key, held in value.items()}
    if isinstance(value, list | tuple):
        return [described(held) for held in value]
    if is_dataclass(value) and not isinstance(value, type):
        held = {
            each.name: described(getattr(value, each.name)) for each in fields(value) if each.init
        }
        return {"kind": _kind(type(value)), **held}
    if isinstance(value, partial):
        return {"partial": described(value.func), "given": described([value.args, value.keywords])}
    if isinstance(value, MethodType):
        return {"kind": _kind(value.__func__), "of": described(value.__self__)}
    return _of_function(value) if isinstance(value, FunctionType) else {"kind": _kind(type(value))}


def _of_function(function: FunctionType) -> dict[str, Any]:
    """Its name and the constants that it was written and made with; what it changes itself is left out."""
    cells = [cell.cell_contents for cell in function.__closure__ or ()]
    constants = [*function.__code__.co_consts, *cells, *(function.__defaults__ or ())]
    return {
        "kind": _kind(function),
        "constants": [described(each) for each in constants if _is_constant(each)],
    }


def _is_constant(value: object) -> bool:
    if isinstance(value, tuple):
        return all(_is_constant(each) for each in value)
    return isinstance(value, bool | int | float | str | Tensor) or (
        is_dataclass(value)
        and not isinstance(value, type)
        and type(value).__dataclass_params__.frozen  # type: ignore[attr-defined]
    )


def _kind(value: type | FunctionType | Callable[..., Any]) -> str:
    return f"{value.__module__}.{value.__qualname__}"


def _digest(value: Tensor | np.ndarray) -> dict[str, Any]:
    array = value.detach().cpu().numpy() if isinstance(value, Tensor) else value
    digest = hashlib.sha256(np.ascontiguousarray(array).tobytes()).hexdigest()
    return {"shape": list(array.shape), "dtype": str(array.dtype), "sha256": digest}
