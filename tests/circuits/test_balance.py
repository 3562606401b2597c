import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose

from workbench.circuits.balance import balanced, scaled


def normal(*shape, seed):
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def factors(kind):
    """Pairs whose columns, rows or ranks make balancing easy to get wrong."""
    A, B = normal(300, 24, seed=1), normal(200, 24, seed=2)
    if kind == "uneven columns":
        A, B = A * torch.logspace(-6, 3, 24), B * torch.logspace(2, -5, 24)
    elif kind == "uneven rows":
        A, B = A * torch.logspace(-12, 12, 300)[:, None], B * torch.logspace(5, -9, 200)[:, None]
    elif kind == "low rank":
        A = A[:, :3] @ normal(3, 24, seed=3)
    elif kind == "nothing in common":
        A, B = A * (torch.arange(24) < 9), B * (torch.arange(24) >= 9)
    elif kind == "zero":
        A = torch.zeros_like(A)
    return A, B


KINDS = ("plain", "uneven columns", "uneven rows", "low rank", "nothing in common", "zero")


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("kind", KINDS)
def test_products_and_bounds_hold_what_they_promise(kind, dtype):
    A, B = (factor.to(dtype) for factor in factors(kind))
    left, right = scaled(A, "A"), scaled(B, "B", sign=-1.0)
    pair = balanced(left, right)
    a, b = pair.left, pair.right
    exact = -np.ldexp((A.double() @ B.double().T).numpy(), left.exponent + right.exponent)
    products = (a.rows() @ b.rows().T).double().numpy()
    sizes = np.outer(a.size, b.size)
    assert (np.abs(products - exact) <= pair.rounding * sizes + pair.flushed).all()
    bound = np.abs(np.outer(a.first, b.first)) + np.outer(a.rest, b.rest)
    assert (np.abs(products) <= bound * (1 + 1e-6) + pair.flushed).all()
    assert (bound <= sizes).all()
    row, column = np.unravel_index(np.abs(exact).argmax(), exact.shape)
    needed = pair.least_size(abs(exact[row, column]), float(b.size[column]))
    assert a.size[row] >= needed


def test_both_sides_have_the_same_energy_in_every_coordinate():
    A, B = factors("plain")
    pair = balanced(scaled(A * torch.logspace(-2, 1, 24), "A"), scaled(B, "B"))
    energies = [side.rows().double().square().sum(dim=0) for side in (pair.left, pair.right)]
    # The identity that is added for factors of lower rank shows in the faintest coordinates.
    assert_allclose(energies[0], energies[1], rtol=1e-5, atol=1e-6 * float(energies[0][0]))
    assert (energies[0].diff() <= 0).all()
    singular = torch.linalg.svdvals((A * torch.logspace(-2, 1, 24)) @ B.T)[:24]
    assert_allclose(energies[0] / energies[0][0], singular / singular[0], rtol=1e-3)


def test_balancing_brings_norms_nearer_to_the_entries():
    """Columns that are large in one factor and small in the other mislead norms until they are balanced."""
    A, B = factors("uneven columns")
    pair = balanced(scaled(A, "A"), scaled(B, "B"))
    entries = (A @ B.T).abs()
    given = entries / torch.outer(A.norm(dim=1), B.norm(dim=1))
    exponents = scaled(A, "A").exponent + scaled(B, "B").exponent
    after = np.ldexp(entries.numpy(), exponents) / np.outer(pair.left.size, pair.right.size)
    assert np.median(after) > 10 * given.median()
