"""What a task is: it makes the batch of a numbered step, says what its loss is, and measures a model.

    Batch       cross-entropy of the next token over positions        Transformer
    Labelled    cross-entropy of one class for each row               MLP
    Numbers     mean squared error over rows and outputs              MLP

A batch depends on (seed, step) alone, so a resumed run sees what an uninterrupted one would have seen.
"""

from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int, Shaped
from torch import Tensor

from workbench.models.transformer import Transformer

UNSCORED = -100
"""Target at positions that the loss leaves out."""


@runtime_checkable
class Examples(Protocol):
    """What the training loop asks of a batch."""

    @property
    def inputs(self) -> Tensor:
        """What the model reads."""
        ...

    def outputs(self, model: Any) -> Tensor:
        """What the model makes of the inputs."""
        ...

    def loss(self, outputs: Tensor) -> Tensor:
        """How far that is from the targets; a scalar."""
        ...


@dataclass(frozen=True)
class Batch:
    """Inputs and what should follow each position; `UNSCORED` where the loss does not look."""

    tokens: Int[Tensor, "batch pos"]
    targets: Int[Tensor, "batch pos"]

    @property
    def inputs(self) -> Int[Tensor, "batch pos"]:
        """The tokens."""
        return self.tokens

    def outputs(self, model: Any) -> Float[Tensor, "batch pos d_vocab_out"]:
        """The logits."""
        return model(self.tokens)

    def loss(self, outputs: Float[Tensor, "batch pos d_vocab_out"]) -> Float[Tensor, ""]:
        """Mean cross-entropy in nats over the scored positions."""
        return mean_loss(outputs, self.targets)


@dataclass(frozen=True)
class Labelled:
    """Rows of numbers or tokens, and the class of each."""

    inputs: Shaped[Tensor, "batch input"]
    labels: Int[Tensor, " batch"]

    def outputs(self, model: Any) -> Float[Tensor, "batch label"]:
        """The logits."""
        return model(self.inputs)

    def loss(self, outputs: Float[Tensor, "batch label"]) -> Float[Tensor, ""]:
        """Mean cross-entropy in nats."""
        return F.cross_entropy(outputs, self.labels)

    def rows(self, chosen: Int[Tensor, " row"]) -> "Labelled":
        """Some of the rows."""
        return Labelled(self.inputs[chosen], self.labels[chosen])

    def scores(self, outputs: Float[Tensor, "batch label"]) -> dict[str, float]:
        """Accuracy: the share of the rows whose class has the largest logit."""
        return {"accuracy": float((outputs.argmax(-1) == self.labels).double().mean())}


@dataclass(frozen=True)
class Numbers:
    """Rows of numbers, and the numbers that they should become."""

    inputs: Float[Tensor, "batch input"]
    targets: Float[Tensor, "batch output"]

    def outputs(self, model: Any) -> Float[Tensor, "batch output"]:
        """What the model answers."""
        return model(self.inputs)

    def loss(self, outputs: Float[Tensor, "batch output"]) -> Float[Tensor, ""]:
        """Mean squared error over rows and outputs."""
        return F.mse_loss(outputs, self.targets.to(outputs.dtype))

    def rows(self, chosen: Int[Tensor, " row"]) -> "Numbers":
        """Some of the rows."""
        return Numbers(self.inputs[chosen], self.targets[chosen])

    def scores(self, outputs: Float[Tensor, "batch output"]) -> dict[str, float]:
        """1 = exact, 0 = no better than the mean of each output."""
        spread = (self.targets - self.targets.mean(0)).square().mean()
        return {"R2": 1 - float(self.loss(outputs) / spread)}


@runtime_checkable
class Task(Protocol):
    """What the trainer asks of its data."""

    def batch(self, seed: int, step: int) -> Examples:
        """The training batch of one step."""
        ...

    def measure(self, model: Any) -> dict[str, float]:
        """Held-out numbers of a model, by name."""
        ...


def mean_loss(
    logits: Float[Tensor, "batch pos d_vocab_out"], targets: Int[Tensor, "batch pos"]
) -> Float[Tensor, ""]:
    """Mean cross-entropy in nats over the scored positions."""
    return F.cross_entropy(logits.flatten(0, 1), targets.flatten(), ignore_index=UNSCORED)


@torch.no_grad()
def position_losses(model: Transformer, batch: Batch) -> Float[Tensor, "batch pos"]:
    """Cross-entropy in nats at every position; NaN where nothing is scored."""
    logits = model(batch.tokens)
    losses = F.cross_entropy(logits.mT, batch.targets, ignore_index=UNSCORED, reduction="none")
    return losses.masked_fill(batch.targets == UNSCORED, torch.nan)
