"""Chance levels of composition: what heads would score that know nothing of each other.

    gaussian: heads of the same shapes whose four factors are drawn from a normal distribution
    singular: the heads themselves, one turned against the other by a random rotation. With Q of random
              orientation, ‖A Q B‖² = Σ_ij a_i² b_j² Q_ij² over the singular values a and b.

Both have mean square 1/d_model, so a mean close to 1/√d_model; they differ in spread. Heads of few strong
directions scatter more, which only the second knows.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

# Draws made at once: bounds the memory at wide models.
_CHUNK = 16


class Null(NamedTuple):
    """Mean and standard deviation of random scores, for every pair."""

    mean: Float[np.ndarray, "writer reader"]
    std: Float[np.ndarray, "writer reader"]


def gaussian_null(
    d_model: int, writer_sizes: Sequence[int], reader_sizes: Sequence[int], n_null: int, seed: int
) -> Null:
    """Scores of random Gaussian heads, drawn once for each pair of sizes."""
    shape = (len(writer_sizes), len(reader_sizes))
    mean, std = np.full(shape, np.nan), np.full(shape, np.nan)
    for writer in set(writer_sizes) - {0}:
        for reader in set(reader_sizes) - {0}:
            drawn = gaussian_scores(d_model, writer, reader, n_null, seed)
            cells = np.ix_(np.equal(writer_sizes, writer), np.equal(reader_sizes, reader))
            mean[cells], std[cells] = drawn.mean(), drawn.std(ddof=1)
    return Null(mean, std)


def gaussian_scores(
    d_model: int, writer: int, reader: int, n_null: int, seed: int
) -> Float[np.ndarray, " draw"]:
    """Composition scores of `n_null` pairs of random heads of the given sizes."""
    generator = torch.Generator().manual_seed(seed)
    drawn = []
    for start in range(0, n_null, _CHUNK):
        n = min(_CHUNK, n_null - start)
        W_V, W_O, enter, leave = (
            torch.randn(n, d_model, size, generator=generator)
            for size in (writer, writer, reader, reader)
        )
        before = torch.linalg.qr(W_V, mode="r").R @ W_O.mT
        after = enter @ torch.linalg.qr(leave, mode="r").R.mT
        drawn.append(_size(before @ after) / (_size(before) * _size(after)))
    return torch.cat(drawn).double().numpy()


def rotated_null(
    writer_values: Float[Tensor, "writer rank"],
    reader_values: Float[Tensor, "reader rank_read"],
    d_model: int,
    n_null: int,
    seed: int,
) -> Null:
    """Scores of the heads with these singular values, turned at random; all pairs share the rotations."""
    generator = torch.Generator().manual_seed(seed)
    writers, readers = (
        values.double().cpu().square() / values.double().cpu().square().sum(1, keepdim=True)
        for values in (writer_values, reader_values)
    )
    total = torch.zeros(len(writers), len(readers), dtype=torch.float64)
    squares = torch.zeros_like(total)
    for _ in range(n_null):
        gaussian = torch.randn(d_model, writers.shape[1], generator=generator, dtype=torch.float64)
        # Without the signs of R the columns of Q would not be uniformly distributed; squared they are.
        turn = torch.linalg.qr(gaussian).Q[: readers.shape[1]]
        square = writers @ turn.square().mT @ readers.mT
        squares += square
        total += square.sqrt()
    mean = total / n_null
    std = ((squares - n_null * mean.square()) / (n_null - 1)).clamp(min=0).sqrt()
    return Null(mean.numpy(), std.numpy())


def _size(matrix: Float[Tensor, "*batch row column"]) -> Float[Tensor, "*batch"]:
    return torch.linalg.matrix_norm(matrix)
