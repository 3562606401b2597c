"""What studies run models on: rows of held-out code for the bundled ones, sentences for a public one."""

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor

from workbench.models.protocol import Model
from workbench.trigrams.contexts import contexts

SENTENCES = (
    "When Mary and John went to the store, John gave a drink to Mary.",
    "The capital of France is Paris, and the capital of Italy is Rome.",
    "She opened the old wooden box and found a letter inside.",
    "def area(width, height):\n    return width * height\n",
    "Water freezes at zero degrees and boils at one hundred degrees.",
    "One, two, three, four, five, six, seven, eight, nine, ten.",
)


def held_out_rows(model: Model, n_rows: int) -> Int[Tensor, "row pos"]:
    """Contexts of 256 tokens of the bundled held-out text, evenly spaced."""
    whole = contexts(model)[:-1]
    return torch.from_numpy(whole[np.linspace(0, len(whole) - 1, n_rows).astype(int)])
