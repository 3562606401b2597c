"""Two factors of one matrix, rewritten so that the norms of their rows bound its entries closely.

    (A T)(B T⁻ᵀ)ᵀ = A Bᵀ         for any invertible T

With L_A, L_B the Cholesky factors of AᵀA and BᵀB, and L_Aᵀ L_B = U S Vᵀ, the choice T = L_A⁻ᵀ U √S gives both
sides the energy S in their coordinates, the largest first: what QR and SVD of the product would give.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Float32, Float64, Int
from torch import Tensor

from workbench.errors import UnsupportedError

Indices = Int[np.ndarray, "_"]
Numbers = Float64[np.ndarray, "_"]

# Rows held in float64 at once: few enough for a processor's second-level cache.
N_CONVERTED = 1024
# Rows that T is fitted to. Every T is right, and more rows make none better.
N_FITTED = 16384

UNIT_32, UNIT_64 = 2.0**-24, 2.0**-53
# What one operation may lose where numbers below the normal float32 are flushed to zero.
FLUSH_32 = 2.0**-126


def pick(rows: Tensor, chosen: Indices, out: Tensor | None = None) -> Tensor:
    """Rows by index: ten times faster than `rows[chosen]`."""
    return torch.index_select(rows, 0, torch.from_numpy(chosen), out=out)


@dataclass(frozen=True)
class Factor:
    """A factor as given, read in float64 times sign · 2^exponent, which brings its numbers to about 1."""

    given: Float[Tensor, "row width"]
    exponent: int
    sign: float = 1.0

    @property
    def scale(self) -> float:
        """What every number is multiplied by."""
        return self.sign * 2.0**self.exponent

    def rows(self, chosen: Indices) -> Float64[Tensor, "some width"]:
        """Some rows, exact unless their numbers are below the normal float64."""
        return pick(self.given, chosen).double().mul_(self.scale)

    def chunks(self, step: int = 1) -> Iterator[tuple[slice, Float64[Tensor, "some width"]]]:
        """All rows, or every `step`-th, a few at a time, and where they are."""
        rows = self.given[::step]
        for start in range(0, len(rows), N_CONVERTED):
            chunk = slice(start, start + N_CONVERTED)
            yield chunk, rows[chunk].to(torch.float64, copy=True).mul_(self.scale)

    def cholesky(self) -> Float64[Tensor, "width width"]:
        """Lower factor of AᵀA, with enough of the identity added for it to exist whatever the rank."""
        width = self.given.shape[1]
        gram = torch.zeros(width, width, dtype=torch.float64)
        for _, rows in self.chunks(step=-(-len(self.given) // N_FITTED)):
            gram.addmm_(rows.T, rows)
        gram.diagonal().add_(1e-10 * max(1.0, float(gram.trace())))
        return torch.linalg.cholesky(gram)


def scaled(given: Tensor, name: str, sign: float = 1.0) -> Factor:
    """The factor (or with sign -1 its negative) with its power of two.

    Raises:
        UnsupportedError: NaN, infinity, or numbers of another type than float32 and float64.
    """
    if given.dtype not in (torch.float32, torch.float64):
        raise UnsupportedError(f"{name} is {given.dtype}: give float32 or float64")
    given = given.detach().cpu()
    ends = torch.stack(given.aminmax())
    if not ends.isfinite().all():
        row = int((~given.isfinite()).any(dim=1).nonzero()[0])
        raise UnsupportedError(f"{name} holds NaN or infinity, first in row {row}")
    largest = int(np.frexp(float(ends.abs().max()))[1])
    return Factor(given, -max(-1000, min(1000, largest)), sign)


@dataclass(frozen=True)
class Side:
    """Some rows of a balanced factor, with what bounds their products: see `Balanced`.

    `index` names the rows among all. `first` is a row's first coordinate, `rest` the norm of the others,
    `size` about the norm of all.
    """

    all_rows: Float32[Tensor, "any_row width"]
    index: Indices
    size: Numbers
    first: Numbers
    rest: Numbers

    def __len__(self) -> int:
        return len(self.index)

    def take(self, chosen: Indices | slice) -> "Side":
        """These of the rows, in this order."""
        kept = (values[chosen] for values in (self.index, self.size, self.first, self.rest))
        return Side(self.all_rows, *kept)

    def heaviest(self) -> "Side":
        """The same rows, the largest first."""
        return self.take(np.argsort(-self.size))

    def at_least(self, size: float) -> "Side":
        """The rows of at least this size."""
        return self.take(np.flatnonzero(self.size >= size))

    def rows(self) -> Float32[Tensor, "row width"]:
        """The balanced rows themselves."""
        return pick(self.all_rows, self.index)


@dataclass(frozen=True)
class Balanced:
    """Both sides of A Bᵀ. For rows a, b and their numbers as given,

    |a · b in float32 - entry in float64| ≤ rounding · size(a) · size(b) + flushed
    |a · b| ≤ |first(a) first(b)| + rest(a) rest(b) ≤ size(a) size(b)
    """

    left: Side
    right: Side
    rounding: float
    flushed: float

    def error(self, size_left: float, size_right: float) -> float:
        """How far a float32 product of rows of these sizes may be from its entry."""
        return self.rounding * size_left * size_right + self.flushed

    def least_size(self, entry: float, other: float) -> float:
        """The size that a row needs for an entry this large, with one of size `other`."""
        needed = (entry - self.flushed) / (1 + self.rounding)
        if needed <= 0:
            return 0.0
        return needed / other if other else np.inf


def balanced(left: Factor, right: Factor) -> Balanced:
    """Both factors in the coordinates in which they have the same energy."""
    width = left.given.shape[1]
    lower_left, lower_right = left.cholesky(), right.cholesky()
    U, S, _ = torch.linalg.svd(lower_left.T @ lower_right)
    S = S.clamp(min=1e-13 * float(lower_left.norm() * lower_right.norm()))
    T = torch.linalg.solve_triangular(lower_left.T, U * S.sqrt(), upper=True)
    inverse = torch.linalg.inv(T)
    # A sum of `width` products rounds by as many units of ‖a‖ ‖b‖, and either side's rounding by one more.
    rounding = 1.01 * (width + 4) * UNIT_32
    if torch.backends.mkldnn.matmul.fp32_precision not in ("none", "ieee"):  # type: ignore[attr-defined]
        rounding += 2.0**-6
    # In float64 T by its inverse is not quite 1, and the products with both, and the entry itself, are
    # rounded: by units of the norms as given, not as balanced. `size` has them in it.
    off = float((T @ inverse - torch.eye(width, dtype=torch.float64)).norm())
    off += 8 * width * UNIT_64 * (1 + float(T.norm() * inverse.norm()))
    share = (off / rounding) ** 0.5
    sides = _side(left, T, share), _side(right, inverse.T, share)
    largest = 1 + sum(float(side.size.max()) for side in sides)
    return Balanced(*sides, rounding, 8 * width * FLUSH_32 * largest)


def _side(factor: Factor, T: Float64[Tensor, "width width"], share: float) -> Side:
    n_rows, width = factor.given.shape
    rows = torch.empty(n_rows, width, dtype=torch.float32)
    rest, given = (torch.empty(n_rows, dtype=torch.float64) for _ in range(2))
    for chunk, exact in factor.chunks():
        moved = exact @ T
        rows[chunk] = moved
        torch.linalg.vector_norm(moved[:, 1:], dim=1, out=rest[chunk])
        torch.linalg.vector_norm(exact, dim=1, out=given[chunk])
    first = rows[:, 0].double().numpy()
    # These are norms of float64 rows, and `rows` are rounded to float32.
    rest_up = rest.numpy() * (1 + 1e-6)
    size = np.hypot(first, rest_up) * (1 + 1e-6) + share * given.numpy()
    return Side(rows, np.arange(n_rows), size, first, rest_up)
