"""What a run will cost, told by taking a few of its steps and one of its validations.

seconds = steps · (step + swap / swap_every) + validations · measure
"""

import time
from dataclasses import dataclass, field, replace
from pathlib import Path
from tempfile import TemporaryDirectory

import torch

from workbench.training.folders import STATE_FILE
from workbench.training.journal import Progress
from workbench.training.loop import fit
from workbench.training.making import Made, made
from workbench.training.plan import Plan
from workbench.training.watching import Watched, default_probes

N_STEPS, N_UNTIMED = 12, 2
LIMIT_SECONDS = 4.0
_JOURNAL_BYTES = 1000


@dataclass(frozen=True)
class Estimate:
    """What a run will cost on this machine, as busy as it is now.

    Args:
        bytes_on_disk: at the most at one time, scratch files included.
    """

    seconds: float
    bytes_on_disk: int
    seconds_per_step: float
    n_parameters: int


@dataclass
class _Clock:
    """Notes when each step ended, and stops after a few."""

    n_steps: int
    at: list[float] = field(default_factory=list)

    def goes_on(self, step: int, seconds: float) -> bool:
        """Until enough steps, or seconds, were taken."""
        self.at.append(time.perf_counter())
        is_slow = len(self.at) > N_UNTIMED and self.at[-1] - self.at[0] > LIMIT_SECONDS
        return len(self.at) < self.n_steps and not is_slow

    def saw(self, progress: Progress) -> bool:
        """Never stops."""
        return True

    @property
    def seconds_per_step(self) -> float:
        """The median time between two steps; the first ones, which set things up, count only if alone."""
        gaps = [b - a for a, b in zip(self.at, self.at[1:], strict=False)]
        timed = sorted(gaps[N_UNTIMED - 1 :] or gaps)
        return timed[len(timed) // 2] if timed else 0.0


def estimate(plan: Plan) -> Estimate:
    """Take a few steps of a run in a scratch folder; a few seconds, and nothing is left of them.

    Raises:
        PlanError: the folder of files is missing, empty or broken, or the parts do not fit together.
        DivergedError: the loss is no longer finite within those steps.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with TemporaryDirectory(prefix="workbench-estimate-") as folder:
            return _estimate(plan, Path(folder))
    finally:
        torch.set_num_threads(threads)


def _estimate(plan: Plan, folder: Path) -> Estimate:
    parts = made(plan)
    many = N_STEPS + 1
    config = replace(
        parts.config,
        steps=max(many, plan.steps),
        keep=(),
        validate_every=many,
        validate_early=False,
        save_every=many,
    )
    clock = _Clock(N_STEPS)
    begun = time.perf_counter()
    fit(parts.model, parts.task, config, folder, penalties=parts.shaping, progress=clock)
    clock.at.insert(0, begun)
    per_step = clock.seconds_per_step + _swap_seconds(parts) / plan.swap_every
    seconds = plan.steps * per_step + parts.config.n_validations * _measure_seconds(plan, parts)
    return Estimate(
        seconds=seconds,
        bytes_on_disk=_bytes(plan, parts, folder / STATE_FILE),
        seconds_per_step=per_step,
        n_parameters=sum(weight.numel() for weight in parts.model.parameters()),
    )


def _swap_seconds(parts: Made) -> float:
    if parts.shaping.swaps is None:
        return 0.0
    begun = time.perf_counter()
    parts.shaping.swaps(parts.model)
    return time.perf_counter() - begun


def _measure_seconds(plan: Plan, parts: Made) -> float:
    watched = Watched(parts.task, default_probes(plan, parts.model))
    begun = time.perf_counter()
    watched.measure(parts.model.eval())
    return time.perf_counter() - begun


def _bytes(plan: Plan, parts: Made, saved: Path) -> int:
    weights = list(parts.model.parameters())
    n, size = sum(weight.numel() for weight in weights), weights[0].element_size()
    # Nothing is saved of a run that begins with a loss beyond its bound; AdamW has two moments a weight.
    state = saved.stat().st_size if saved.is_file() else 3 * n * size
    journal = 2 * parts.config.n_validations * _JOURNAL_BYTES
    return 2 * state + n * size + len(plan.kept_steps) * n * size + journal
