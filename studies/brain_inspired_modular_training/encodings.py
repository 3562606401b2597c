"""What the authors say of single units, as numbers: inputs that carry all of a task, and units that hold w.

    kept      the score with nothing but the inputs in use (both tokens' shares of an embedding channel are one)
    random    the same with as many inputs drawn at random, mean of some draws
    w         the largest R² of one unit, at the question, with the slope w that the sequence has

The knockout is that of the notebook on modular addition, which leaves seven embedding channels.
"""

import math
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool

from workbench.training.mlp import MLP
from workbench.training.tasks.in_context import InContextRegression, read_numbers
from workbench.training.wires import Network

COLUMNS = ("inputs_used", "score_inputs", "score_inputs_random", "w_r2", "w_r2_of_y")
PART = 0.1
N_DRAWS = 20
WHERE = ("mlp.hook_post", "hook_resid_post")


def used_inputs(model: MLP) -> Bool[np.ndarray, " input"]:
    """Which inputs have a weight beyond a tenth of the first matrix' largest; of two folds, in either."""
    size = model.layers[0].W.detach().abs()
    is_used = (size > PART * size.max()).any(dim=1)
    return is_used.reshape(model.cfg.in_fold, -1).any(dim=0).numpy()


def score_with(model: MLP, task: Any, kept: Bool[np.ndarray, " input"]) -> float:
    """The task's score with the weights of all other inputs cut."""
    W = model.layers[0].W
    whole = W.detach().clone()
    is_kept = torch.from_numpy(np.tile(kept, model.cfg.in_fold))
    try:
        with torch.no_grad():
            W[~is_kept] = 0
        found = task.measure(model)
    finally:
        with torch.no_grad():
            W.copy_(whole)
    return float(found["test_accuracy"])


def knockout(model: MLP, task: Any, seed: int = 0) -> tuple[float, float]:
    """The score with the inputs in use alone, and with as many at random."""
    used = used_inputs(model)
    rng = np.random.default_rng(seed)
    draws = [score_with(model, task, rng.permutation(used)) for _ in range(N_DRAWS)]
    return score_with(model, task, used), float(np.mean(draws))


@torch.no_grad()
def slope(model: Any, task: InContextRegression) -> tuple[float, float]:
    """The largest R² of w with one channel or neuron, where x₂ stands; and that of y₁ itself."""
    numbers = task.sequences.inputs[task.n_train :]
    # One number in each x: y₁ = w x₁.
    y = numbers[:, 1, 0].numpy()
    w = y / numbers[:, 0, 1].numpy()
    found: list[np.ndarray] = []

    def keep(activation: torch.Tensor, hook: object) -> None:
        found.append(activation[:, -1].double().numpy())

    names = [f"blocks.{layer}.{name}" for layer in range(model.cfg.n_layers) for name in WHERE]
    with model.hooks([(name, keep) for name in names]):
        read_numbers(model, numbers)
    units = np.concatenate(found, axis=1)
    units = units[:, units.std(0) > 0]
    shared = np.corrcoef(np.column_stack([units, y]).T, w)[-1, :-1] ** 2
    return float(shared[:-1].max()), float(shared[-1])


def encodings(model: Network, task: Any) -> dict[str, float]:
    """What applies to this network and task; the rest is NaN.

    Returns:
        inputs_used, score_inputs, score_inputs_random; w_r2, w_r2_of_y.
    """
    found = dict.fromkeys(COLUMNS, math.nan)
    if isinstance(model, MLP):
        found["inputs_used"] = float(used_inputs(model).sum())
        if model.cfg.embedding is not None:
            found["score_inputs"], found["score_inputs_random"] = knockout(model, task)
    elif isinstance(task, InContextRegression):
        found["w_r2"], found["w_r2_of_y"] = slope(model, task)
    return found
