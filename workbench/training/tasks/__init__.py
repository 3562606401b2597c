"""What a model is trained on: a task makes the batch of a numbered step and measures a model."""

from workbench.training.tasks.arithmetic import ModularAddition
from workbench.training.tasks.batches import (
    UNSCORED,
    Batch,
    Examples,
    Labelled,
    Numbers,
    Task,
    mean_loss,
    position_losses,
)
from workbench.training.tasks.text import Repeats, TextTask, repeated_tokens, text_rows

__all__ = [
    "UNSCORED",
    "Batch",
    "Examples",
    "Labelled",
    "ModularAddition",
    "Numbers",
    "Repeats",
    "Task",
    "TextTask",
    "mean_loss",
    "position_losses",
    "repeated_tokens",
    "text_rows",
]
