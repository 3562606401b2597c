"""The one training loop: schedule, clipping, validation, checkpoints, and a state that survives a kill.

loss = task's own + Σ penalties(model, step);   after each step: decay, swaps, hooks (shaping.py)

<out>/config.json model.safetensors tokenizer.json    the model, once the run is finished
      checkpoints/step-000500.safetensors             weights kept on the way, in the run's precision
                                                      (of an MLP: folder step-000500)
      metrics.jsonl metrics.parquet                   one line per validation (journal.py)
      training-state.safetensors                      where to go on; removed at the end

On one machine, in one precision, a run that was killed and resumed ends with the bits of one that was not.
"""

import contextlib
import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor

from workbench.errors import CheckpointError, DivergedError
from workbench.models.checkpoints import save_checkpoint, save_weights
from workbench.models.files import step_name
from workbench.models.transformer import Transformer
from workbench.training.config import TrainingConfig
from workbench.training.divergence import N_LOSSES, Bound
from workbench.training.journal import (
    METRICS_FILE,
    Journal,
    Overseer,
    Progress,
    ProgressFn,
    as_overseer,
    read_metrics,
)
from workbench.training.machine import has_amx, keep_freed_memory
from workbench.training.mlp import MLP, save_mlp
from workbench.training.optimizers import optimizers_for
from workbench.training.shaping import Penalty, Shaping, as_shaping
from workbench.training.state import STATE_FILE, read_counters, restore_state, save_state
from workbench.training.tasks.batches import Examples, Task
from workbench.training.wires import Network

__all__ = ["METRICS_FILE", "Progress", "ProgressFn", "fit", "keep_freed_memory", "read_metrics"]


@dataclass
class _Run:
    """What one call of `fit` carries from step to step."""

    model: Network
    task: Task
    config: TrainingConfig
    out: Path
    shaping: Shaping
    step: int = 0
    tokens: int = 0
    seconds: float = 0.0
    recent: list[float] = field(default_factory=list)
    bound: Bound = field(default_factory=Bound)
    penalties: dict[str, Tensor] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.optimizers = optimizers_for(self.model, self.config)
        self.started = self.saved = time.perf_counter()
        self.journal = Journal(self.out)
        self.dropout = self.model.cfg.dropout if isinstance(self.model, Transformer) else 0.0
        self.settings = self._settings()
        bf16 = has_amx() if self.config.bf16 is None else self.config.bf16
        self.autocast = torch.autocast("cpu", torch.bfloat16) if bf16 else contextlib.nullcontext()

    @property
    def elapsed(self) -> float:
        """Seconds of training, those before a resumption included."""
        return self.seconds + time.perf_counter() - self.started

    def resume(self) -> None:
        """Take up a saved state, if there is one.

        Raises:
            CheckpointError: a broken state, or one of a run with other settings.
        """
        path = self.out / STATE_FILE
        if path.is_file():
            self._restore(path)
        if not self.bound.scale:
            batch = self.task.batch(self.config.seed, 0)
            with torch.no_grad():
                outputs = self._outputs(batch)
                answers = (outputs, torch.zeros_like(outputs))
                self.bound.scale = max(float(batch.loss(answer)) for answer in answers)

    def _restore(self, path: Path) -> None:
        counters = read_counters(path)
        if counters.get("settings") != self.settings:
            raise CheckpointError(
                f"{path} belongs to a run with other settings: give another folder, or resume=False"
            )
        restore_state(path, self.model, self.optimizers)
        self.step, self.tokens = int(counters["step"]), int(counters["tokens"])
        self.seconds = float(counters["seconds"])
        self.recent = [float(loss) for loss in counters.get("recent", ())]
        self.bound.restore(float(counters.get("scale", 0.0)), counters.get("losses", ()))

    def save(self) -> None:
        """Write the state from which the run can go on, unless its loss is beyond the bound."""
        self._check_weights()
        self.saved = time.perf_counter()
        if not self.bound.admits(self._loss_now()):
            return
        counters = {
            "step": self.step,
            "tokens": self.tokens,
            "seconds": self.elapsed,
            "settings": self.settings,
            "recent": self.recent,
            "scale": self.bound.scale,
            "losses": list(self.bound.losses),
        }
        save_state(self.out / STATE_FILE, self.model, self.optimizers, counters)

    @property
    def is_due(self) -> bool:
        """Whether the state is to be saved after this step."""
        limit = self.config.save_seconds
        is_old = limit is not None and time.perf_counter() - self.saved > limit
        return is_old or self.step % self.config.save_every == 0

    def _settings(self) -> str:
        found = [self.config.fingerprint(), self.model.cfg.to_json(), self.shaping.fingerprint()]
        if (precision := next(self.model.parameters()).dtype) != torch.float32:
            found.append(str(precision))
        return " ".join(part for part in found if part)

    def advance(self) -> None:
        """One optimiser step."""
        rate = self.config.rate(self.step)
        for optimizer in self.optimizers.values():
            optimizer.zero_grad()
            for group in optimizer.param_groups:
                group["lr"] = group["peak_lr"] * rate
        batch = self.task.batch(self.config.seed, self.step)
        loss = batch.loss(self._outputs(batch))
        own = float(loss.detach())
        for name, penalty in self.shaping.penalties.items():
            added = penalty(self.model, self.step)
            self.penalties[name] = added.detach()
            loss = loss + added
        total = float(loss.detach())
        if not math.isfinite(total):
            raise self._diverged(f"the loss is {total}")
        if (stays := self.bound.add(own)) is not None:
            raise self._diverged(
                f"the median of the last {N_LOSSES} losses is {stays:.3g}, beyond {self.bound.limit:.3g}"
            )
        loss.backward()
        self._clip()
        for optimizer in self.optimizers.values():
            optimizer.step()
        self.shaping.after(self.model, self.optimizers, self.step, self.config.lr * rate)
        self.recent.append(total)
        self.step += 1
        self.tokens += batch.inputs.numel()

    def _outputs(self, batch: Examples) -> Tensor:
        with torch.random.fork_rng(devices=[], enabled=self.dropout > 0):
            if self.dropout > 0:
                torch.manual_seed(self.config.seed * 1_000_003 + self.step)
            with self.autocast:
                outputs = batch.outputs(self.model)
        is_double = self.config.double_loss or outputs.dtype == torch.float64
        return outputs.double() if is_double else outputs.float()

    @torch.no_grad()
    def _loss_now(self) -> float:
        """Of these weights, on the examples of the next step."""
        batch = self.task.batch(self.config.seed, self.step)
        return float(batch.loss(self._outputs(batch)))

    def _clip(self) -> None:
        weights = [weight for weight in self.model.parameters() if weight.grad is not None]
        norm = torch.nn.utils.get_total_norm(
            [weight.grad for weight in weights if weight.grad is not None]
        )
        if not math.isfinite(float(norm)):
            raise self._diverged(f"the gradient's norm is {float(norm)}")
        if self.config.clip is not None:
            torch.nn.utils.clip_grads_with_norm_(weights, self.config.clip, norm)

    def _check_weights(self) -> None:
        for name, weight in self.model.named_parameters():
            if not bool(weight.isfinite().all()):
                raise self._diverged(f"{name} holds numbers that are not finite")

    def _diverged(self, what: str) -> DivergedError:
        path = self.out / STATE_FILE
        kept = "Nothing was saved before"
        if path.is_file():
            kept = f"The state after {read_counters(path)['step']} steps is kept in {path}"
        found = "".join(f", {name} {value:.3g}" for name, value in self._penalties().items())
        return DivergedError(
            f"{self.out}, step {self.step}: {what}{found}. {kept}. Train into another folder, "
            "with a lower rate of learning, weaker penalties or a clip"
        )

    def _penalties(self) -> dict[str, float]:
        """What each added to the loss of the last step."""
        return {f"penalty {name}": float(value) for name, value in self.penalties.items()}

    def validate(self) -> Progress:
        """Measure the model and append a line to the metrics."""
        self.model.eval()
        measured = self.task.measure(self.model) | self._penalties()
        self.model.train()
        train_loss = sum(self.recent) / max(1, len(self.recent))
        self.recent.clear()
        progress = Progress(
            self.step, self.config.steps, self.tokens, self.elapsed, train_loss, measured
        )
        self.journal.add(progress)
        return progress

    def keep_weights(self) -> None:
        """Keep this step's weights if the config asks for them."""
        if self.step not in self.config.keep:
            return
        path = self.out / "checkpoints" / step_name(self.step)
        if isinstance(self.model, MLP):
            save_mlp(self.model, path.with_suffix(""))
        else:
            save_weights(self.model, path, dtype=next(self.model.parameters()).dtype)

    def finish(self) -> None:
        """Write the trained model and remove the state."""
        self._check_weights()
        if not self.bound.admits(loss := self._loss_now()):
            raise self._diverged(
                f"the loss at the end is {loss:.3g}, beyond {self.bound.limit:.3g}"
            )
        if isinstance(self.model, MLP):
            save_mlp(self.model.eval(), self.out)
        else:
            save_checkpoint(self.model.eval(), self.out)
        (self.out / STATE_FILE).unlink(missing_ok=True)


def fit(
    model: Network,
    task: Task,
    config: TrainingConfig,
    out: Path,
    *,
    penalties: Sequence[Penalty] | Shaping = (),
    progress: ProgressFn | Overseer | None = None,
) -> bool:
    """Train a model into a folder; False if it was stopped early and can be resumed by the same call.

    Args:
        penalties: added to the loss; or all that shapes the weights, decay and swaps included.
        progress: told of every validation; an overseer is asked after every step whether to go on.

    Raises:
        CheckpointError: the folder holds the state of a run with other settings.
        DivergedError: loss, gradient or weights are no longer finite, or the loss stays beyond all bounds
            (divergence.py); the last state saved before is kept.
    """
    out.mkdir(parents=True, exist_ok=True)
    keep_freed_memory()
    run = _Run(model.train(), task, config, out, as_shaping(penalties))
    overseer = as_overseer(progress)
    run.resume()
    run.journal.cut(run.step)
    if run.step == 0:
        run.keep_weights()
    while run.step < config.steps:
        run.advance()
        run.keep_weights()
        is_last = run.step == config.steps
        goes_on = overseer.goes_on(run.step, run.elapsed)
        goes_on = goes_on and (config.seconds is None or run.elapsed < config.seconds)
        if config.is_validated(run.step):
            goes_on = overseer.saw(run.validate()) and goes_on
        if not is_last and (run.is_due or not goes_on):
            run.save()
        if not is_last and not goes_on:
            run.journal.write_table()
            return False
    run.journal.write_table()
    run.finish()
    return True
