"""Gradient by path length: how much of a gradient comes through paths of n sublayers.

With Λ[n] what n sublayers of the frozen network have made of the direction that is asked at the end
(`workbench.paths.orders`), and g[p] the same for one path p alone,

    Λ[n] = Σ g[p]                  all paths of length n: together they are the gradient of the input, exactly
    mean[n] = mean ‖g[p]‖          of single paths: all of them if there are few, else drawn at random
    count[n] * mean[n]             their effective share, if they never cancelled
    ‖Λ[n]‖ / (count[n] * mean[n])  1 if they all agree, ~ 1/√count if they point anywhere

A path here is a choice of sublayers: the heads of one act together.
(Veit, Wilber, Belongie 2016, "Residual Networks Behave Like Ensembles of Relatively Shallow Networks", §5.)
"""

import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from workbench.paths.ablation import check_predicts
from workbench.paths.directions import Direction
from workbench.paths.network import FrozenNetwork
from workbench.paths.orders import added

Progress = Callable[[int, int], None]
ROWS = 256


@dataclass(frozen=True, eq=False)
class LengthGradients:
    """Gradients of one number by path length, at the embeddings, over all positions at once.

    Args:
        n_paths: how many paths have each length.
        whole: ‖Λ[n]‖, of all paths of a length together.
        mean: ‖g‖ of a single one; `error` its standard error, 0 where every path was looked at.
        n_seen: how many single ones were.
        total: the norm of the whole gradient.
    """

    label: str
    model_name: str
    n_paths: tuple[int, ...]
    whole: Float[np.ndarray, " length"]
    mean: Float[np.ndarray, " length"]
    error: Float[np.ndarray, " length"]
    n_seen: tuple[int, ...]
    total: float

    @property
    def counted(self) -> Float[np.ndarray, " length"]:
        """Each length's share of the number of paths: binomial."""
        counts = np.array(self.n_paths, dtype=float)
        return counts / counts.sum()

    @property
    def effective(self) -> Float[np.ndarray, " length"]:
        """Each length's share of count × mean norm: where gradient comes from if nothing cancels."""
        products = np.array(self.n_paths, dtype=float) * self.mean
        return products / max(products.sum(), 1e-300)

    @property
    def coherence(self) -> Float[np.ndarray, " length"]:
        """How far the paths of a length agree: 1 all alike, near 0 they cancel."""
        products = np.array(self.n_paths, dtype=float) * self.mean
        return self.whole / np.maximum(products, 1e-300)

    def table(self) -> pd.DataFrame:
        """Tidy, one row per length: length n_paths counted mean error n_seen effective whole coherence."""
        return pd.DataFrame(
            {
                "length": np.arange(len(self.n_paths)),
                "n_paths": np.array(self.n_paths, dtype=float),
                "counted": self.counted,
                "mean": self.mean,
                "error": self.error,
                "n_seen": self.n_seen,
                "effective": self.effective,
                "whole": self.whole,
                "coherence": self.coherence,
            }
        )


def gradient_by_length(
    frozen: FrozenNetwork,
    direction: Direction | None = None,
    *,
    n_samples: int = 64,
    seed: int = 0,
    progress: Progress | None = None,
) -> LengthGradients:
    """Gradients through paths of every length.

    Args:
        direction: what is asked; default the loss of the prompt's next tokens.
        n_samples: single paths of each length; all of them where there are no more.
        progress: told after every batch of single paths how many of how many are done.

    Raises:
        UnsupportedError: no direction, and a model that predicts no next token.
    """
    if direction is None:
        vector, label = loss_gradient(frozen), "loss"
    else:
        frozen, vector = frozen.up_to(direction.n_steps), direction.vector
        label = direction.label
    exact = length_gradients(frozen, vector)
    groups = _groups(frozen)
    n_paths = _counts(groups)
    rng = np.random.default_rng(seed)
    chosen = [_paths(groups, n_paths, length, n_samples, rng) for length in range(len(n_paths))]
    taken = torch.zeros(sum(map(len, chosen)), len(frozen.steps), dtype=torch.bool)
    for row, path in enumerate(itertools.chain.from_iterable(chosen)):
        taken[row, list(path)] = True
    norms = []
    for start in range(0, len(taken), ROWS):
        norms.append(path_norms(frozen, vector, taken[start : start + ROWS]))
        if progress is not None:
            progress(min(start + ROWS, len(taken)), len(taken))
    single = np.split(np.concatenate(norms), np.cumsum([len(paths) for paths in chosen])[:-1])
    whole = np.zeros(len(n_paths))
    whole[: len(exact)] = exact.flatten(1).double().norm(dim=1).cpu().numpy()
    return LengthGradients(
        label=label,
        model_name=frozen.model.name,
        n_paths=n_paths,
        whole=whole,
        mean=np.array([float(values.mean()) for values in single]),
        error=np.array(
            [_error(values, count) for values, count in zip(single, n_paths, strict=True)]
        ),
        n_seen=tuple(map(len, single)),
        total=float(exact.sum(0).double().norm()),
    )


def loss_gradient(frozen: FrozenNetwork) -> Float[Tensor, "pos d_model"]:
    """Gradient of the prompt's mean loss with respect to the final stream, the final norm's scale held.

    Raises:
        UnsupportedError: a model that predicts no next token.
    """
    check_predicts(frozen.model)
    tokens, logits = frozen.run.tokens[0], frozen.run.logits[0]
    error = logits[:-1].softmax(-1)
    error[torch.arange(len(error)), tokens[1:]] -= 1
    if cap := getattr(frozen.model.cfg, "logit_soft_cap", None):
        error = error * (1 - (logits[:-1] / cap).pow(2))
    vector = torch.zeros_like(frozen.stream)
    vector[:-1] = error @ frozen.model.W_U.detach().mT / len(error)
    return vector if frozen.final_norm is None else frozen.final_norm.transpose(vector)


def length_gradients(
    frozen: FrozenNetwork, vector: Float[Tensor, "pos d_model"]
) -> Float[Tensor, "length pos d_model"]:
    """Λ[n] at the embeddings: all paths of n sublayers together, for every n; they sum to the gradient."""
    lambdas = vector[None]
    held: dict[int, Tensor] = {}
    for index in reversed(range(len(frozen.steps))):
        step = frozen.steps[index]
        lambdas = lambdas if step.norm is None else step.norm.transpose(lambdas)
        read = torch.cat([torch.zeros_like(lambdas[:1]), step.sublayer.transpose(lambdas)])
        held[step.reads] = added(read, held.get(step.reads))
        if index in held:
            lambdas = added(lambdas, held.pop(index))
    return lambdas


def path_norms(
    frozen: FrozenNetwork,
    vector: Float[Tensor, "pos d_model"],
    taken: Bool[Tensor, "path step"],
) -> Float[np.ndarray, " path"]:
    """‖g‖ of single paths, each through the sublayers that it takes and past all others."""
    directions = vector.expand(len(taken), *vector.shape).clone()
    for index in reversed(range(len(frozen.steps))):
        step, rows = frozen.steps[index], taken[:, index].to(vector.device)
        if step.norm is not None:
            directions = step.norm.transpose(directions)
        if rows.any():
            directions[rows] = step.sublayer.transpose(directions[rows])
    return directions.flatten(1).double().norm(dim=1).cpu().numpy()


def _groups(frozen: FrozenNetwork) -> list[list[int]]:
    """Steps from the first up; those of a parallel block, of which a path takes one, together."""
    groups: dict[int, list[int]] = {}
    for index, step in enumerate(frozen.steps):
        groups.setdefault(step.reads, []).append(index)
    return list(groups.values())


def _counts(groups: list[list[int]]) -> tuple[int, ...]:
    counts = [1]
    for group in groups:
        longer = [0, *(len(group) * count for count in counts)]
        counts = [a + b for a, b in zip([*counts, 0], longer, strict=True)]
    return tuple(counts)


def _paths(
    groups: list[list[int]],
    n_paths: tuple[int, ...],
    length: int,
    n_samples: int,
    rng: np.random.Generator,
) -> list[tuple[int, ...]]:
    """All paths of a length where there are few enough, else uniform draws of them."""
    if n_paths[length] <= n_samples:
        chosen = itertools.combinations(groups, length)
        return list(itertools.chain.from_iterable(itertools.product(*some) for some in chosen))
    return [_drawn(groups, length, rng) for _ in range(n_samples)]


def _drawn(groups: list[list[int]], length: int, rng: np.random.Generator) -> tuple[int, ...]:
    """One path, every one of its length equally likely: group by group, by how many go on from there."""
    path: list[int] = []
    for place, group in enumerate(groups):
        left = length - len(path)
        if left == 0:
            break
        behind = _counts(groups[place + 1 :])
        with_it = len(group) * behind[left - 1]
        without_it = behind[left] if left < len(behind) else 0
        if rng.random() < with_it / (with_it + without_it):
            path.append(group[int(rng.integers(len(group)))])
    return tuple(path)


def _error(values: Float[np.ndarray, " path"], count: int) -> float:
    if len(values) == count:
        return 0.0
    return float(values.std(ddof=1) / math.sqrt(len(values)))
