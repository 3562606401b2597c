"""Chance levels of composition: what heads would score that know nothing of each other.

    gaussian: heads of the same shapes whose four factors are drawn from a normal distribution
    singular: the heads themselves, one turned against the other by a random rotation. With Q of random
              orientation, ‖A Q B‖² = Σ_ij a_i² b_j² Q_ij² over the singular values a and b.

Both have mean square 1/d_model, so a mean close to 1/√d_model; they differ in spread. Heads of few strong
directions scatter more, which only the second knows.
"""

from collections.abc import Sequence
from functools import lru_cache
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
    writer_sizes: Sequence[int], reader_sizes: Sequence[int], d_model: int, n_null: int, seed: int
) -> Null:
    """Scores of random Gaussian heads, drawn once for each pair of sizes; NaN for heads of size 0."""
    shape = (len(writer_sizes), len(reader_sizes))
    mean, std = np.full(shape, np.nan), np.full(shape, np.nan)
    for writer in set(writer_sizes) - {0}:
        for reader in set(reader_sizes) - {0}:
            drawn = gaussian_scores(d_model, writer, reader, n_null, seed)
            cells = np.ix_(np.equal(writer_sizes, writer), np.equal(reader_sizes, reader))
            mean[cells], std[cells] = drawn.mean(), drawn.std(ddof=1)
    return Null(mean, std)


@lru_cache(maxsize=16)
def gaussian_scores(
    d_model: int, writer: int, reader: int, n_null: int, seed: int
) -> Float[np.ndarray, " draw"]:
    """Composition scores of `n_null` pairs of random heads of the given sizes."""
    generator = torch.Generator().manual_seed(seed)
    squares = []
    for start in range(0, n_null, _CHUNK):
        n = min(_CHUNK, n_null - start)
        W_V, W_O, enter, leave = (
            torch.randn(n, d_model, size, generator=generator)
            for size in (writer, writer, reader, reader)
        )
        # ‖V M L.T‖² for M = O.T E; likewise the norms of V O.T and E L.T.
        gram_V, gram_leave, between = W_V.mT @ W_V, leave.mT @ leave, W_O.mT @ enter
        product = (gram_V @ between @ gram_leave * between).sum((1, 2))
        written = (gram_V * (W_O.mT @ W_O)).sum((1, 2))
        read = (gram_leave * (enter.mT @ enter)).sum((1, 2))
        squares.append(product / (written * read))
    return torch.cat(squares).double().sqrt().numpy()


def rotated_null(
    written: Float[Tensor, "writer rank"],
    read: Float[Tensor, "reader rank_read"],
    d_model: int,
    n_null: int,
    seed: int,
) -> Null:
    """Scores of heads with these singular values, turned at random; all pairs share the rotations."""
    generator = torch.Generator().manual_seed(seed)
    writers, readers = (
        values.double().cpu().square() / values.double().cpu().square().sum(1, keepdim=True)
        for values in (written, read)
    )
    total = torch.zeros(len(writers), len(readers), dtype=torch.float64)
    squares = torch.zeros_like(total)
    for _ in range(n_null):
        gaussian = torch.randn(d_model, writers.shape[1], generator=generator, dtype=torch.float64)
        # QR leaves the signs of the columns of Q uneven; squared, its entries are those of a random rotation.
        turn = torch.linalg.qr(gaussian).Q[: readers.shape[1]]
        square = writers @ turn.square().mT @ readers.mT
        squares += square
        total += square.sqrt()
    mean = total / n_null
    std = ((squares - n_null * mean.square()) / (n_null - 1)).clamp(min=0).sqrt()
    return Null(mean.numpy(), std.numpy())
