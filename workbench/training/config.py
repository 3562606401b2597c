"""How one training run goes: a frozen value, validated, that can be written beside the weights.

rate(step) = lr · warm-up · decay        linear up, constant, linear down to zero at the last step
"""

import json
from dataclasses import asdict, dataclass
from typing import Any, Literal, get_args

from workbench.errors import ConfigError

MAX_STEPS = 10_000_000
OptimizerName = Literal["adamw", "sgd"]
_FREE = ("seconds", "validate_every", "validate_early", "save_every", "save_seconds", "keep")
"""What no weight depends on."""
_LATER = ("optimizer", "momentum")
"""Not in the fingerprint of AdamW, whose states were saved before these existed."""


@dataclass(frozen=True, kw_only=True)
class TrainingConfig:
    """Length, optimiser and schedule of one training run; the data is the task's own affair.

    Args:
        steps: optimiser steps in all.
        optimizer: "adamw", or "sgd": plain gradients with momentum.
        momentum: of SGD; 0 = none.
        lr: peak learning rate of the optimizer.
        muon_lr: peak rate of Muon for the matrices inside a transformer's layers; None = none is Muon's.
        betas: of AdamW.
        weight_decay: of AdamW and Muon alike, decoupled; of SGD a part of the gradient (L2), as in torch.
        warmup: share of the steps in which the rate rises.
        decay: share of the steps, at the end, in which it falls to zero.
        clip: largest norm of the whole gradient, penalties included; None = gradients are left as they are.
        double_loss: cross-entropy in float64, for losses below 1e-6.
        validate_every: steps between two validations.
        validate_early: after steps 1, 2, 4, 8 … too, until the first of those: a long run soon has a curve.
        save_every: steps between two saves of the state from which a run can be resumed.
        save_seconds: save it too whenever so many seconds have passed; None = by steps alone.
        keep: steps whose weights are kept for good (0 = before the first step).
        seconds: wall-clock limit; the run then stops as if cancelled, and can be resumed.
        bf16: matrix products in bfloat16; None = where the processor has AMX, without which they are slower.

    Raises:
        ConfigError: a value that cannot be meant.
    """

    steps: int
    seed: int = 0
    optimizer: OptimizerName = "adamw"
    momentum: float = 0.9
    lr: float = 3e-3
    muon_lr: float | None = 0.02
    betas: tuple[float, float] = (0.9, 0.98)
    weight_decay: float = 0.0
    warmup: float = 0.02
    decay: float = 0.3
    clip: float | None = 1.0
    double_loss: bool = False
    validate_every: int = 250
    validate_early: bool = False
    save_every: int = 250
    save_seconds: float | None = None
    keep: tuple[int, ...] = ()
    seconds: float | None = None
    bf16: bool | None = None

    def __post_init__(self) -> None:
        _check_number("steps", self.steps, 1, MAX_STEPS, whole=True)
        _check_number("seed", self.seed, 0, 2**31 - 1, whole=True)
        if self.optimizer not in get_args(OptimizerName):
            known = " or ".join(get_args(OptimizerName))
            raise ConfigError(f"optimizer must be {known}, not {self.optimizer!r:.60}")
        _check_number("momentum", self.momentum, 0, 0.999999)
        _check_number("lr", self.lr, 0, 100)
        if self.muon_lr is not None:
            _check_number("muon_lr", self.muon_lr, 0, 100)
        for name in ("seconds", "save_seconds"):
            if getattr(self, name) is not None:
                _check_number(name, getattr(self, name), 0, 1e9)
        _check_number("weight_decay", self.weight_decay, 0, 100)
        _check_number("warmup", self.warmup, 0, 1)
        _check_number("decay", self.decay, 0, 1 - self.warmup)
        if self.clip is not None:
            _check_number("clip", self.clip, 1e-9, 1e9)
        for name in ("validate_every", "save_every"):
            _check_number(name, getattr(self, name), 1, MAX_STEPS, whole=True)
        if len(self.betas) != 2 or not all(0 <= beta < 1 for beta in self.betas):
            raise ConfigError(f"betas must be two numbers from 0 to below 1, not {self.betas}")
        if any(not 0 <= step <= self.steps for step in self.keep):
            raise ConfigError(f"keep holds steps outside 0 … {self.steps}: {self.keep}")

    def rate(self, step: int) -> float:
        """The share of the peak rate with which step number `step` (from 0) is taken, 0 to 1."""
        up = (step + 1) / max(1.0, self.warmup * self.steps)
        down = (self.steps - step) / max(1.0, self.decay * self.steps)
        return min(1.0, up, down)

    def is_validated(self, step: int) -> bool:
        """Whether the model is measured after so many steps, from 1 up; always after the last."""
        if step == self.steps or step % self.validate_every == 0:
            return True
        return self.validate_early and step < self.validate_every and step & (step - 1) == 0

    @property
    def n_validations(self) -> int:
        """How many steps `is_validated`."""
        n_early = (min(self.validate_every, self.steps) - 1).bit_length()
        return -(-self.steps // self.validate_every) + self.validate_early * n_early

    def fingerprint(self) -> str:
        """What must agree between a stopped run and the one that resumes it."""
        values = {name: value for name, value in asdict(self).items() if name not in _FREE}
        if self.optimizer == "adamw":
            values = {name: value for name, value in values.items() if name not in _LATER}
        return json.dumps(values, sort_keys=True)


def _check_number(
    name: str, value: Any, low: int | float, high: int | float, *, whole: bool = False
) -> None:
    kinds = int if whole else (int, float)
    is_number = isinstance(value, kinds) and not isinstance(value, bool)
    # Comparisons with NaN are false.
    if not is_number or not low <= value <= high:
        kind = "whole number" if whole else "number"
        raise ConfigError(f"{name} must be a {kind} from {low:g} to {high:g}, not {value!r:.60}")
