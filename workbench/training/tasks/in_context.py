"""Linear regression in context: each sequence has weights of its own, to be inferred from its examples.

    (0, x_1), (y_1, 0), (0, x_2), (y_2, 0), …, (0, x_T)           y_t = w·x_t,  asked for at every x_t, t ≥ 2

The channels of a pair are read as a mixture of tokens, `pair @ W_E`, so an ordinary Transformer of d + 1 tokens
and one output learns it and can be looked at like any other. (The sequences of Liu,
Gan, Tegmark 2023, "Seeing is Believing"; the first answer, which nothing foretells, is not asked for.)
"""

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from workbench.errors import ConfigError, PromptError
from workbench.models.transformer import Transformer


def read_numbers(
    model: Transformer, numbers: Float[Tensor, "batch pos channel"]
) -> Float[Tensor, "batch pos d_vocab_out"]:
    """The outputs of a transformer that reads numbers: each channel is so much of one token's embedding.

    Raises:
        PromptError: more or fewer channels than the model has tokens, or more positions than fit.
    """
    n_rows, n_pos, n_channels = numbers.shape
    if n_channels != model.cfg.d_vocab or n_pos > model.cfg.n_ctx:
        raise PromptError(
            f"{model.name} reads {model.cfg.d_vocab} channels at up to {model.cfg.n_ctx} positions, "
            f"not {n_channels} at {n_pos}"
        )
    weight = model.embed.W_E
    embedded = numbers.to(weight) @ weight
    tokens = torch.zeros(n_rows, n_pos, dtype=torch.int64, device=weight.device)
    with model.hooks([("hook_embed", lambda activation, hook: embedded)]):
        return model(tokens)


@dataclass(frozen=True)
class Sequences:
    """Pairs of channels, and the answer at every second position."""

    inputs: Float[Tensor, "batch pos channel"]
    targets: Float[Tensor, "batch answer"]

    def outputs(self, model: Any) -> Float[Tensor, "batch answer"]:
        """The answers at the second x and all that follow."""
        return read_numbers(model, self.inputs)[:, 2::2, 0]

    def loss(self, outputs: Float[Tensor, "batch answer"]) -> Float[Tensor, ""]:
        """Mean squared error over rows and answers."""
        return torch.nn.functional.mse_loss(outputs, self.targets.to(outputs.dtype))


@dataclass(frozen=True)
class InContextRegression:
    """Sequences of a fixed number, some of which are held out.

    Args:
        n_points: T, examples in a sequence, the last of which is asked for.
        d: numbers in each x.
        share: of the sequences that is trained on.

    Raises:
        ConfigError: numbers that cannot be meant.
    """

    n_points: int = 2
    d: int = 1
    n_sequences: int = 10_000
    share: float = 0.8
    n_rows: int = 64
    data_seed: int = 0

    def __post_init__(self) -> None:
        if not 2 <= self.n_points <= 1000 or not 1 <= self.d <= 1000:
            raise ConfigError(
                f"n_points must be 2 to 1000 and d 1 to 1000, not {self.n_points} and {self.d}"
            )
        if not 2 <= self.n_sequences <= 1_000_000:
            raise ConfigError(f"n_sequences must be 2 to 1,000,000, not {self.n_sequences}")
        if not 0 < self.n_train < self.n_sequences or not 1 <= self.n_rows <= self.n_train:
            raise ConfigError(
                f"share must leave some of {self.n_sequences} sequences on both sides, and a batch have 1 to "
                f"{self.n_train} rows, not {self.share} and {self.n_rows}"
            )

    @property
    def n_train(self) -> int:
        """How many sequences are trained on."""
        return round(self.share * self.n_sequences)

    @property
    def shape(self) -> dict[str, int]:
        """What a transformer's config needs to fit."""
        return {"d_vocab": self.d + 1, "d_vocab_out": 1, "n_ctx": 2 * self.n_points - 1}

    @cached_property
    def sequences(self) -> Sequences:
        """All, the training ones first; w uniform over [-1, 1], x over [1, 3]."""
        rng = np.random.default_rng(self.data_seed)
        w = rng.uniform(-1, 1, (self.n_sequences, 1, self.d))
        x = rng.uniform(1, 3, (self.n_sequences, self.n_points, self.d))
        y = (w * x).sum(-1)
        pairs = np.zeros((self.n_sequences, 2 * self.n_points - 1, self.d + 1))
        pairs[:, ::2, 1:] = x
        pairs[:, 1::2, 0] = y[:, :-1]
        return Sequences(torch.from_numpy(pairs), torch.from_numpy(y[:, 1:]))

    def batch(self, seed: int, step: int) -> Sequences:
        """Training sequences, drawn without repetition."""
        rng = np.random.default_rng((seed, step))
        drawn = torch.from_numpy(rng.choice(self.n_train, self.n_rows, replace=False))
        return Sequences(self.sequences.inputs[drawn], self.sequences.targets[drawn])

    @property
    def train(self) -> Sequences:
        """All sequences that are trained on."""
        return Sequences(
            self.sequences.inputs[: self.n_train], self.sequences.targets[: self.n_train]
        )

    @torch.no_grad()
    def measure(self, model: Any) -> dict[str, float]:
        """Mean squared error on the held-out sequences, and R²: 0 = no better than their mean."""
        held_out = Sequences(
            self.sequences.inputs[self.n_train :], self.sequences.targets[self.n_train :]
        )
        loss = float(held_out.loss(held_out.outputs(model)))
        spread = float(held_out.targets.var(unbiased=False))
        return {"test_loss": loss, "test_R2": 1 - loss / spread}
