"""What a model is trained on: a task makes the batch of a numbered step and measures a model."""

from workbench.training.tasks.arithmetic import ModularAddition, modular_addition, permutations
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
from workbench.training.tasks.digits import OneHot, digits, mnist
from workbench.training.tasks.fixed import FixedTask, two_moons
from workbench.training.tasks.formulas import FORMULAS, Formula, formula_task
from workbench.training.tasks.in_context import InContextRegression, Sequences, read_numbers
from workbench.training.tasks.text import Repeats, TextTask, repeated_tokens, text_rows

__all__ = [
    "FORMULAS",
    "UNSCORED",
    "Batch",
    "Examples",
    "FixedTask",
    "Formula",
    "InContextRegression",
    "Labelled",
    "ModularAddition",
    "Numbers",
    "OneHot",
    "Repeats",
    "Sequences",
    "Task",
    "TextTask",
    "digits",
    "formula_task",
    "mean_loss",
    "mnist",
    "modular_addition",
    "permutations",
    "position_losses",
    "read_numbers",
    "repeated_tokens",
    "text_rows",
    "two_moons",
]
