"""The largest entries of a matrix known only by its factors, exactly, without ever forming it.

    entry[row, column] = A[row] · B[column]          |a · b| ≤ ‖a‖ ‖b‖

A full QK or OV circuit over a vocabulary of 49,152 has 2.4 · 10⁹ entries, and nearly all of them are ruled
out by a bound that costs nothing:

1. Balance the factors (`balance`), so that norms bound the entries closely.
2. Bound. Rows are visited in blocks of like norm and like first coordinate. Over a block,
   a · b ≤ max(a₀ b₀) + max‖a₁…‖ ‖b₁…‖: about ‖a‖ ‖b‖ at most, and far less where a₀ b₀ < 0. Columns that
   cannot reach the k-th best entry known so far are skipped.
3. Screen. The others are multiplied in float32, and entries below the k-th best by more than the rounding
   error are dropped. (bfloat16 could be certified in the same way, but processors without units for it
   multiply it three to four times slower than float32.)
4. Recompute. What is left is multiplied again in float64, from the factors as given, and ranked.

Every bound includes the rounding of all four steps, so no entry is dropped that could be among the k best.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float, Float64, Int
from torch import Tensor

from workbench.circuits.balance import (
    N_CONVERTED,
    Factor,
    Indices,
    Numbers,
    Side,
    balanced,
    pick,
    scaled,
)
from workbench.errors import ConfigError, UnsupportedError

# A block of rows by a tile of columns fits into a processor's second-level cache. Low blocks leave more
# columns out; where hardly any can be, high ones multiply faster.
N_BLOCK, N_TILE = 128, 1024
N_DENSE_BLOCK = 512
# Among this many rows of like norm, blocks are cut by the first coordinate: for circuits of real models the
# best compromise between blocks narrow in the one and blocks narrow in the other.
N_LIKE = 1024
# Rows so light that few columns are left for them are taken together, but no more than this many.
N_LIGHT = 8192
# So many of the heaviest rows by so many columns give a first k-th best: more for a large k.
N_SEED, N_SEED_MOST = 512, 4096


@dataclass(frozen=True)
class TopEntries:
    """The k best entries of A @ B.T, best first; equal ones by row, then column.

    Values are products in float64. Of `n_total` entries, `n_screened` had to be multiplied out; the others
    were ruled out by their bound.
    """

    rows: Int[np.ndarray, " entry"]
    columns: Int[np.ndarray, " entry"]
    values: Float64[np.ndarray, " entry"]
    n_screened: int
    n_total: int

    def table(self) -> pd.DataFrame:
        """Tidy: row, column, value."""
        return pd.DataFrame({"row": self.rows, "column": self.columns, "value": self.values})


def top_entries(
    A: Float[Tensor, "row d_head"],
    B: Float[Tensor, "column width"],
    k: int = 100,
    *,
    by: Literal["largest", "smallest", "size"] = "largest",
    progress: Callable[[int, int], None] | None = None,
) -> TopEntries:
    """The k largest (or smallest, or largest by size) entries of A @ B.T: all of them, and no others.

    Args:
        A: float32 or float64, as B.
        progress: told after every block how many rows are done, of those that were not ruled out at the
            start. To cancel, raise from it: any exception passes through.

    Raises:
        ConfigError: factors that do not belong together, or a k or `by` that cannot be meant.
        UnsupportedError: NaN, infinity or another type of number in a factor; entries beyond float64.
    """
    _check(A, B, k, by)
    sign = -1.0 if by == "smallest" else 1.0
    left, right = scaled(A, "A", sign), scaled(B, "B")
    search = _Search(left, right, _Best(k, by_size=by == "size"))
    rows, columns, values = search.run(progress or (lambda done, total: None)).ranked()
    with np.errstate(over="ignore"):
        values = np.ldexp(sign * values, -left.exponent - right.exponent)
    if not np.isfinite(values).all():
        raise UnsupportedError("the largest entries are beyond float64: scale A or B down")
    return TopEntries(rows, columns, values, search.n_screened, len(A) * len(B))


def _check(A: Tensor, B: Tensor, k: int, by: str) -> None:
    if A.ndim != 2 or B.ndim != 2 or A.shape[1] != B.shape[1] or not A.numel() or not B.numel():
        raise ConfigError(
            f"A is {list(A.shape)} and B {list(B.shape)}: they must be [row width] and [column width], "
            "of one width and not empty"
        )
    n_total = len(A) * len(B)
    if isinstance(k, bool) or not isinstance(k, int) or not 1 <= k <= n_total:
        raise ConfigError(
            f"k must be a whole number from 1 to {n_total} (rows x columns), not {k!r}"
        )
    if by not in ("largest", "smallest", "size"):
        raise ConfigError(f"no order {by!r}: there are 'largest', 'smallest' and 'size'")


class _Best:
    """The k best entries met so far; `floor` is what another must reach."""

    def __init__(self, k: int, *, by_size: bool) -> None:
        self.k, self.by_size, self.floor = k, by_size, -np.inf
        self._kept = (np.empty(0, np.int64), np.empty(0, np.int64), np.empty(0))
        self._waiting: list[tuple[Indices, Indices, Numbers]] = []
        self._n_waiting = 0

    def add(self, rows: Indices, columns: Indices, values: Numbers) -> None:
        self._waiting.append((rows, columns, values))
        self._n_waiting += len(rows)
        # Ranking costs k log k: where k is large, not for every handful.
        if 8 * self._n_waiting >= self.k:
            self.ranked()

    def ranked(self) -> tuple[Indices, Indices, Numbers]:
        """Rows, columns and values, best first; equal ones by row, then column."""
        rows, columns, values = map(np.concatenate, zip(self._kept, *self._waiting, strict=True))
        ranks = np.abs(values) if self.by_size else values
        order = np.lexsort((columns, rows, -ranks))[: self.k]
        self._kept = (rows[order], columns[order], values[order])
        self._waiting, self._n_waiting = [], 0
        if len(order) == self.k:
            self.floor = max(self.floor, float(ranks[order[-1]]))
        return self._kept


class _Search:
    """One search. Of equal rows only the first is searched; the others are put in at the end."""

    def __init__(self, left: Factor, right: Factor, best: _Best) -> None:
        self.left, self.right, self.best = left, right, best
        self.by_size, self.n_screened = best.by_size, 0
        self.equal_rows, self.equal_columns = _first_equal(left.given), _first_equal(right.given)
        self.pair = balanced(left, right)
        self._tile = torch.empty(N_TILE, left.given.shape[1], dtype=torch.float32)
        self.n_high = N_BLOCK
        self._products = torch.empty(N_BLOCK * N_TILE, dtype=torch.float32)
        self._choose_columns()

    def _choose_columns(self) -> None:
        """Set a first floor, and keep the rows and columns that may reach it with any of the others."""
        a = self.pair.left.take(np.unique(self.equal_rows)).heaviest()
        b = self.pair.right.take(np.unique(self.equal_columns)).heaviest()
        few = slice(0, min(N_SEED_MOST, max(N_SEED, 2 * math.isqrt(self.best.k))))
        ranks = self._ranks(a.take(few).rows() @ b.take(few).rows().T)
        heaviest_a, heaviest_b = float(a.size[0]), float(b.size[0])
        if ranks.numel() >= self.best.k:
            kth = float(ranks.flatten().topk(self.best.k).values[-1])
            self.best.floor = kth - self.pair.error(heaviest_a, heaviest_b)
        self.a = a.at_least(self.pair.least_size(self.best.floor, heaviest_b))
        self.b = b.at_least(self.pair.least_size(self.best.floor, heaviest_a))
        self.b_rows, self._lightness = self.b.rows(), -self.b.size

    def run(self, progress: Callable[[int, int], None]) -> _Best:
        """The best entries of the whole matrix."""
        done = 0
        while done < len(self.a):
            for block in self._next_blocks(done):
                self._block(block)
                done += len(block)
                progress(done, len(self.a))
        return self._with_equals()

    def _next_blocks(self, done: int) -> list[Side]:
        """The next rows by size, cut by first coordinate; or more at once where few columns are left."""
        n_at_once = N_BLOCK * N_TILE // max(1, self._reach(float(self.a.size[done])))
        if n_at_once >= N_LIKE:
            return [self.a.take(slice(done, done + min(n_at_once, N_LIGHT)))]
        like = self.a.take(slice(done, done + N_LIKE))
        order = np.argsort(like.first)
        starts = range(0, len(order), self.n_high)
        return [like.take(order[start : start + self.n_high]) for start in starts]

    def _reach(self, size: float) -> int:
        """How many columns, heaviest first, may reach the floor with a row of this size."""
        least = self.pair.least_size(self.best.floor, size)
        return int(np.searchsorted(self._lightness, -least, side="right"))

    def _ranks(self, products: Tensor) -> Tensor:
        return products.abs_() if self.by_size else products

    def _block(self, a: Side) -> None:
        """Multiply a block of rows by the columns that may reach the floor with any of them."""
        size = float(a.size.max())
        b = self.b.take(slice(0, self._reach(size)))
        ends = a.first.min() * b.first, a.first.max() * b.first
        bound = np.maximum(*map(np.abs, ends)) if self.by_size else np.maximum(*ends)
        bound += a.rest.max() * b.rest
        # Sizes fall, so the first column's error is the largest.
        bound += self.pair.error(size, float(self.b.size[0]))
        chosen = np.flatnonzero(bound >= self.best.floor)
        self.n_high = N_DENSE_BLOCK if len(chosen) > 0.9 * len(self.b) else N_BLOCK
        a_rows, n_wide = a.rows(), N_BLOCK * N_TILE // max(N_BLOCK, len(a))
        for start in range(0, len(chosen), n_wide):
            tile = chosen[start : start + n_wide]
            error = self.pair.error(size, float(b.size[tile[0]]))
            rows, columns = self._screen(a_rows, tile, error)
            self._recompute(a.index[rows], b.index[columns])

    def _screen(self, a_rows: Tensor, tile: Indices, error: float) -> tuple[Indices, Indices]:
        """Which entries may be among the k best, from products that may be wrong by `error`."""
        n_rows, n_columns = len(a_rows), len(tile)
        if tile[-1] - tile[0] == n_columns - 1:
            b_rows = self.b_rows[tile[0] : tile[-1] + 1]
        else:
            b_rows = pick(self.b_rows, tile, out=self._tile[:n_columns])
        products = self._products[: n_rows * n_columns].view(n_rows, n_columns)
        ranks = self._ranks(torch.mm(a_rows, b_rows.T, out=products))
        self.n_screened += n_rows * n_columns
        least = self.best.floor - error
        if float(ranks.amax()) < least:
            return np.empty(0, np.int64), np.empty(0, np.int64)
        over = ranks >= _float32_below(least)
        if int(over.sum()) > 4 * self.best.k:
            # The k largest of these put the others out of reach.
            kth = float(ranks[over].topk(self.best.k).values[-1])
            over &= ranks >= _float32_below(kth - 2 * error)
        rows, columns = (where.numpy() for where in over.nonzero(as_tuple=True))
        return rows, tile[columns]

    def _recompute(self, rows: Indices, columns: Indices) -> None:
        for start in range(0, len(rows), N_CONVERTED):
            part = slice(start, start + N_CONVERTED)
            products = self.left.rows(rows[part]).mul_(self.right.rows(columns[part]))
            self.best.add(rows[part], columns[part], products.sum(dim=1).numpy())

    def _with_equals(self) -> _Best:
        """The best entries, each repeated for the rows and columns that equal its own."""
        k, whole = self.best.k, _Best(self.best.k, by_size=self.by_size)
        rows, columns, values = self.best.ranked()
        n_equal = np.bincount(self.equal_rows)[rows] * np.bincount(self.equal_columns)[columns]
        alone = n_equal == 1
        whole.add(rows[alone], columns[alone], values[alone])
        for row, column, value in zip(rows[~alone], columns[~alone], values[~alone], strict=True):
            if (abs(value) if self.by_size else value) < whole.floor:
                break
            same_columns = np.flatnonzero(self.equal_columns == column)[:k]
            same_rows = np.flatnonzero(self.equal_rows == row)[: -(-k // len(same_columns))]
            grid = np.meshgrid(same_rows, same_columns, indexing="ij")
            first, second = (axis.ravel()[:k] for axis in grid)
            whole.add(first, second, np.full(len(first), value))
        return whole


def _float32_below(value: float) -> float:
    """A float32 that is certainly not above this: a comparison would round it to the nearest one."""
    return float(np.nextafter(np.float32(value), np.float32(-np.inf)))


def _first_equal(rows: Float[Tensor, "row width"]) -> Indices:
    """For every row the first row that equals it; two that differ in a random projection do not."""
    generator = torch.Generator().manual_seed(0)
    probe = torch.randn(rows.shape[1], dtype=rows.dtype, generator=generator)
    projected = (rows @ probe).numpy()
    first_equal = np.arange(len(rows))
    ordered = np.sort(projected)
    repeated = ordered[1:][ordered[1:] == ordered[:-1]]
    suspects = np.flatnonzero(np.isin(projected, repeated))
    _, first, group = np.unique(projected[suspects], return_index=True, return_inverse=True)
    claimed = suspects[first[group]]
    proven = (pick(rows, suspects) == pick(rows, claimed)).all(dim=1).numpy()
    first_equal[suspects[proven]] = claimed[proven]
    return first_equal
