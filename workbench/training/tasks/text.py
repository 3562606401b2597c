"""Tokens that follow one another: random ones that repeat, and crops of a text."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from jaxtyping import Int

from workbench.errors import ConfigError
from workbench.models.transformer import Transformer
from workbench.training.tasks.batches import UNSCORED, Batch, mean_loss, position_losses

_HELD_OUT_STREAM = 1 << 40


def repeated_tokens(
    rng: np.random.Generator, n_rows: int, n_pos: int, periods: tuple[int, int], ids: range
) -> tuple[Int[np.ndarray, "row pos"], Int[np.ndarray, " row"]]:
    """Rows of random tokens that repeat, and how many tokens of each come before its first repetition.

    Period and phase are random: a repetition of constant period is predicted from position alone, by a
    head that attends a fixed distance back, without any composition.
    """
    period = rng.integers(periods[0], periods[1], n_rows, endpoint=True)
    # A stretch without repetition moves where the period starts.
    lead = rng.integers(0, np.minimum(period, np.maximum(1, n_pos - 2 * period)))
    fresh = rng.integers(ids.start, ids.stop, (n_rows, n_pos))
    position = np.arange(n_pos)
    turn = (position - lead[:, None]) % period[:, None] + lead[:, None]
    source = np.where(position < lead[:, None], position, turn)
    return np.take_along_axis(fresh, source, axis=1), lead + period


@dataclass(frozen=True)
class Repeats:
    """Random tokens that repeat with random period and phase, after BOS.

    Args:
        d_vocab: all tokens; those from `first` on are drawn.
        periods: shortest and longest period.
    """

    d_vocab: int
    n_ctx: int
    n_rows: int
    periods: tuple[int, int]
    bos: int = 0
    first: int = 1

    def __post_init__(self) -> None:
        low, high = self.periods
        if not 2 <= low <= high < self.n_ctx - 1:
            raise ConfigError(
                f"periods must run from at least 2 to below n_ctx - 1 = {self.n_ctx - 1}, "
                f"not {self.periods}"
            )

    def batch(self, seed: int, step: int) -> Batch:
        """Rows of which only the repetitions are scored."""
        return self._rows(np.random.default_rng((seed, step)), self.n_rows)

    def _rows(self, rng: np.random.Generator, n_rows: int) -> Batch:
        drawn = range(self.first, self.d_vocab)
        rows, before = repeated_tokens(rng, n_rows, self.n_ctx, self.periods, drawn)
        tokens = np.concatenate([np.full((n_rows, 1), self.bos), rows[:, :-1]], axis=1)
        targets = np.where(np.arange(self.n_ctx) < before[:, None], UNSCORED, rows)
        return Batch(torch.from_numpy(tokens), torch.from_numpy(targets))

    def measure(self, model: Transformer) -> dict[str, float]:
        """Loss in nats and accuracy on 64 fixed rows that no training step draws."""
        batch = self._rows(np.random.default_rng((0, _HELD_OUT_STREAM)), 64)
        with torch.no_grad():
            logits = model(batch.tokens)
        scored = batch.targets != UNSCORED
        right = (logits.argmax(-1) == batch.targets)[scored].float().mean()
        return {"loss": float(mean_loss(logits, batch.targets)), "accuracy": float(right)}


@dataclass(frozen=True)
class TextTask:
    """Random crops of a text, each after BOS; some rows may be random tokens that repeat.

    Args:
        train: the encoded training text.
        held_out: the encoded text for validation.
        n_repeats: rows of each batch that hold repeated random tokens, period n_ctx/8 to n_ctx/2.
    """

    train: np.ndarray
    held_out: np.ndarray
    d_vocab: int
    n_ctx: int
    n_rows: int
    n_repeats: int = 0
    bos: int = 0

    def __post_init__(self) -> None:
        shortest = min(len(self.train), len(self.held_out))
        if shortest <= self.n_ctx:
            raise ConfigError(f"{shortest} tokens of text are fewer than one row of {self.n_ctx}")
        if not 0 <= self.n_repeats <= self.n_rows:
            raise ConfigError(f"n_repeats must be 0 to n_rows = {self.n_rows}")

    def batch(self, seed: int, step: int) -> Batch:
        """Crops that start anywhere."""
        rng = np.random.default_rng((seed, step))
        starts = rng.integers(0, len(self.train) - self.n_ctx, self.n_rows - self.n_repeats)
        crops = text_rows(self.train, starts, self.n_ctx, self.bos)
        if not self.n_repeats:
            return crops
        repeats = self._repeats._rows(rng, self.n_repeats)
        return Batch(
            torch.cat([crops.tokens, repeats.tokens]), torch.cat([crops.targets, repeats.targets])
        )

    @cached_property
    def _repeats(self) -> Repeats:
        periods = (self.n_ctx // 8, self.n_ctx // 2)
        return Repeats(self.d_vocab, self.n_ctx, self.n_repeats or 1, periods, self.bos)

    def measure(self, model: Transformer) -> dict[str, float]:
        """Held-out nats per token on 32 fixed rows, and loss and accuracy on repeated random tokens."""
        starts = np.linspace(0, len(self.held_out) - self.n_ctx - 1, 32).astype(int)
        losses = position_losses(model, text_rows(self.held_out, starts, self.n_ctx, self.bos))
        repeats = self._repeats.measure(model)
        return {"loss": float(losses.mean())} | {f"repeats_{k}": v for k, v in repeats.items()}


def text_rows(text: np.ndarray, starts: np.ndarray, n_ctx: int, bos: int) -> Batch:
    """Rows of a text: BOS and n_ctx - 1 tokens; the targets are n_ctx tokens from each start."""
    window = text[starts[:, None] + np.arange(n_ctx)].astype(np.int64)
    tokens = np.concatenate([np.full((len(window), 1), bos), window[:, :-1]], axis=1)
    return Batch(torch.from_numpy(tokens), torch.from_numpy(window))
