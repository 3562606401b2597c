"""Every search is checked against the whole matrix: formed in float64, sorted, cut after k."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal

from workbench.circuits.top_entries import top_entries
from workbench.errors import ConfigError, UnsupportedError

ORDERS = ("largest", "smallest", "size")
RANK = {"largest": lambda values: -values, "smallest": lambda values: values}
RANK["size"] = lambda values: -np.abs(values)


def by_hand(A, B, k, by="largest"):
    """Row, column and value of the first k of all entries."""
    products = (A.double() @ B.double().T).numpy()
    ranks = RANK[by](products)
    rows, columns = np.nonzero(ranks <= np.partition(ranks.ravel(), k - 1)[k - 1])
    order = np.lexsort((columns, rows, ranks[rows, columns]))[:k]
    rows, columns = rows[order], columns[order]
    return rows, columns, products[rows, columns]


def check(A, B, k, by="largest", rtol=1e-12):
    """The same entries; where several are equal but for rounding, as many of them."""
    found = top_entries(A, B, k, by=by)
    _, _, values = by_hand(A, B, k, by)
    scale = float(A.double().norm(dim=1).max() * B.double().norm(dim=1).max())
    assert_allclose(found.values, values, rtol=rtol, atol=1e-14 * scale)
    own = (A.double()[found.rows] * B.double()[found.columns]).sum(dim=1)
    assert_allclose(found.values, own, rtol=rtol, atol=1e-14 * scale)
    assert len(set(zip(found.rows.tolist(), found.columns.tolist(), strict=True))) == k
    assert found.n_total == len(A) * len(B)
    return found


def check_exactly(A, B, k, by="largest"):
    """For whole numbers, whose products have no rounding: every entry, in order."""
    found = top_entries(A, B, k, by=by)
    for mine, theirs in zip(
        (found.rows, found.columns, found.values), by_hand(A, B, k, by), strict=True
    ):
        assert_array_equal(mine, theirs)
    return found


def normal(*shape, seed=0, dtype=torch.float32):
    return torch.randn(*shape, dtype=dtype, generator=torch.Generator().manual_seed(seed))


def whole(*shape, high=2, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(-high, high + 1, shape, generator=generator).float()


@pytest.mark.parametrize("by", ORDERS)
@pytest.mark.parametrize("k", [1, 7, 100, 5000])
def test_ties_come_by_row_then_column(by, k):
    check_exactly(whole(300, 5, seed=1), whole(400, 5, seed=2), k, by)


@pytest.mark.parametrize("by", ORDERS)
def test_ties_between_rows_that_differ_are_all_found(by):
    """Signs in sixteen columns: all norms are equal, hardly any rows are, and the best are tied."""
    A, B = (2 * whole(1500, 16, high=1, seed=seed).clamp(0, 1) - 1 for seed in (1, 2))
    for k in (10, 100, 1000):
        check_exactly(A, B, k, by)


@pytest.mark.parametrize("by", ORDERS)
def test_zero_rows_tie_at_zero(by):
    A, B = whole(200, 8, seed=1), whole(150, 8, seed=2)
    A[20:], B[::3] = 0, 0
    for k in (100, 2000, 200 * 150):
        check_exactly(A, B, k, by)
    check_exactly(A, torch.zeros_like(B), 100, by)
    check_exactly(torch.zeros_like(A), B, 1000, by)


@pytest.mark.parametrize("by", ORDERS)
def test_no_common_coordinate_ties_everywhere(by):
    A, B = whole(90, 6, seed=1), whole(70, 6, seed=2)
    A[:, 3:], B[:, :3] = 0, 0
    check_exactly(A, B, 500, by)


def test_equal_rows_are_searched_once():
    found = check_exactly(torch.ones(3000, 8), torch.ones(2500, 8), 2600)
    assert found.n_screened == 1
    assert_array_equal(found.rows, [0] * 2500 + [1] * 100)


@pytest.mark.parametrize("by", ORDERS)
def test_all_norms_equal_leaves_nothing_to_prune(by):
    A, B = (torch.nn.functional.normalize(normal(1200, 48, seed=seed)) for seed in (1, 2))
    found = check(A, B, 50, by)
    assert found.n_screened > 0.9 * found.n_total


@pytest.mark.parametrize("by", ORDERS)
def test_one_huge_row_takes_what_it_should(by):
    A, B = normal(700, 16, seed=1), normal(500, 16, seed=2)
    A[123] *= 1e4
    assert set(check(A, B, 100, by).rows) == {123}
    check(A, B, 600, by)


@pytest.mark.parametrize("by", ORDERS)
@pytest.mark.parametrize("factor", [1e30, 1e-30])
def test_rows_scaled_beyond_what_float32_squares(by, factor):
    A, B = normal(300, 16, seed=1), normal(200, 16, seed=2)
    A[7] *= factor
    check(A, B, 150, by)
    check(A, B, 450, by)
    A[8], B[5] = A[8] * factor, B[5] * factor
    check(A, B, 700, by)


def test_a_whole_factor_of_tiny_or_huge_numbers():
    A, B = normal(200, 8, seed=1, dtype=torch.float64), normal(150, 8, seed=2, dtype=torch.float64)
    plain = top_entries(A, B, 50)
    for scale, back in ((2.0**-900, 2.0**900), (2.0**-500, 2.0**-500), (2.0**1000, 1.0)):
        scaled = top_entries(A * scale, B * back, 50)
        assert_array_equal(scaled.rows, plain.rows)
        assert_array_equal(scaled.values, plain.values * scale * back)


def test_entries_beyond_float64_are_refused():
    A = normal(20, 4, dtype=torch.float64) * 2.0**1000
    with pytest.raises(UnsupportedError, match="beyond float64"):
        top_entries(A, A, 5)


@pytest.mark.parametrize("by", ORDERS)
def test_factors_of_lower_rank(by):
    A, B = normal(400, 3, seed=1) @ normal(3, 32, seed=2), normal(300, 32, seed=3)
    check(A, B, 100, by)
    check(B, A, 100, by)
    check(A[:, :1] @ torch.ones(1, 32), B, 100, by)


@pytest.mark.parametrize("by", ORDERS)
def test_strong_common_direction_is_no_way_to_the_top(by):
    """Nearly all products are very negative, so that norms say nothing: the first coordinate's sign does."""
    A, B = normal(3000, 24, seed=1), normal(2500, 24, seed=2)
    A[:, 5] += 12
    B[:, 5] -= 12
    found = check(A, B, 100, by)
    if by == "largest":
        norms = torch.outer(A.norm(dim=1), B.norm(dim=1))
        assert (norms >= float(found.values[-1])).all()
        assert found.n_screened < 0.4 * found.n_total


@pytest.mark.parametrize("by", ORDERS)
def test_narrow_wide_and_single_factors(by):
    check(torch.tensor([[3.0]]), torch.tensor([[-2.0]]), 1, by)
    check(normal(1, 5, seed=1), normal(2000, 5, seed=2), 40, by)
    check(normal(2000, 1, seed=1), normal(3, 1, seed=2), 40, by)
    check(normal(10, 200, seed=1), normal(12, 200, seed=2), 40, by)
    check(normal(40, 6, seed=1), normal(30, 6, seed=2), 1200, by)


@pytest.mark.parametrize("by", ORDERS)
def test_float64_is_exact_to_float64(by):
    A, B = (
        normal(900, 20, seed=1, dtype=torch.float64),
        normal(800, 20, seed=2, dtype=torch.float64),
    )
    # Entries that float32 cannot tell apart.
    A[1], A[2] = A[0] * (1 + 1e-11), A[0] * (1 - 1e-11)
    A[:3] *= 3
    found = check(A, B, 60, by)
    assert_array_equal(found.rows, by_hand(A, B, 60, by)[0])


def test_screening_skips_what_cannot_reach_the_top():
    """Norms and coordinates that fall off, as those of real circuits do."""
    A = normal(2500, 32, seed=1) * torch.linspace(2, 0.2, 32).square()
    A *= (0.4 * normal(2500, 1, seed=3)).exp()
    B = normal(3000, 32, seed=2) * torch.linspace(3, 0.1, 32)
    found = check(A, B, 100)
    assert 0 < found.n_screened < 0.15 * found.n_total


@settings(max_examples=60, deadline=None)
@given(
    n_rows=st.integers(1, 400),
    n_columns=st.integers(1, 400),
    width=st.integers(1, 40),
    seed=st.integers(0, 10_000),
    by=st.sampled_from(ORDERS),
    data=st.data(),
)
def test_any_shape_equals_the_whole_matrix(n_rows, n_columns, width, seed, by, data):
    k = data.draw(st.integers(1, n_rows * n_columns))
    spread = data.draw(st.floats(0, 3))
    A = normal(n_rows, width, seed=seed) * (spread * normal(n_rows, 1, seed=seed + 1)).exp()
    check(A, normal(n_columns, width, seed=seed + 2) + spread, k, by, rtol=1e-9)
    check_exactly(whole(n_rows, width, seed=seed), whole(n_columns, width, seed=seed + 1), k, by)


def test_smallest_is_largest_of_the_negative():
    A, B = normal(500, 12, seed=1), normal(400, 12, seed=2)
    smallest, largest = top_entries(A, B, 80, by="smallest"), top_entries(-A, B, 80)
    assert_array_equal(smallest.rows, largest.rows)
    assert_array_equal(smallest.values, -largest.values)


def test_less_exact_matrix_products_change_no_result():
    A, B = normal(600, 24, seed=1), normal(500, 24, seed=2)
    plain = top_entries(A, B, 70)
    matmul = torch.backends.mkldnn.matmul
    before = matmul.fp32_precision
    try:
        matmul.fp32_precision = "bf16"
        loose = top_entries(A, B, 70)
    finally:
        matmul.fp32_precision = before
    assert_array_equal(loose.rows, plain.rows)
    assert_array_equal(loose.columns, plain.columns)
    assert_array_equal(loose.values, plain.values)


def test_factors_may_be_parameters_and_views():
    A = torch.nn.Parameter(normal(12, 300, seed=1))
    found = top_entries(A.T, normal(200, 24, seed=2)[:, ::2], 30)
    assert_array_equal(found.rows, by_hand(A.detach().T, normal(200, 24, seed=2)[:, ::2], 30)[0])
    assert list(found.table().columns) == ["row", "column", "value"]
    assert len(found.table()) == 30


def test_progress_is_told_and_can_cancel():
    A = torch.nn.functional.normalize(normal(1000, 16, seed=1))
    told = []
    top_entries(A, A, 10, progress=lambda done, total: told.append((done, total)))
    assert [done for done, _ in told] == sorted({done for done, _ in told})
    assert {total for _, total in told} == {1000}
    assert told[-1] == (1000, 1000)
    assert len(told) > 3

    class Cancelled(Exception):
        pass

    def cancel(done, total):
        told.append((done, total))
        raise Cancelled

    told.clear()
    with pytest.raises(Cancelled):
        top_entries(A, A, 10, progress=cancel)
    assert len(told) == 1


@pytest.mark.parametrize("bad", [torch.nan, torch.inf, -torch.inf])
def test_factors_that_are_not_finite_are_refused_by_name_and_row(bad):
    A, B = normal(30, 4, seed=1), normal(20, 4, seed=2)
    B[17, 2] = bad
    with pytest.raises(UnsupportedError, match=r"B holds NaN or infinity, first in row 17"):
        top_entries(A, B, 5)
    with pytest.raises(UnsupportedError, match=r"A holds NaN or infinity, first in row 17"):
        top_entries(B, A, 5)


def test_what_cannot_be_meant_is_refused():
    A, B = normal(30, 4, seed=1), normal(20, 4, seed=2)
    for k in (0, -1, 601):
        with pytest.raises(ConfigError, match=rf"from 1 to 600 .*not {k}"):
            top_entries(A, B, k)
    with pytest.raises(ConfigError, match=r"A is \[30, 4\] and B \[20, 3\]"):
        top_entries(A, B[:, :3], 5)
    for empty in (B[:0], B[:, :0]):
        with pytest.raises(ConfigError, match="not empty"):
            top_entries(A[:, : empty.shape[1]], empty, 5)
    with pytest.raises(UnsupportedError, match=r"B is torch\.bfloat16: give float32 or float64"):
        top_entries(A, B.bfloat16(), 5)


def test_the_factors_are_left_as_they_were():
    for dtype in (torch.float32, torch.float64):
        A, B = normal(30, 4, seed=1, dtype=dtype) * 9, normal(20, 4, seed=2, dtype=dtype) * 9
        before = A.clone(), B.clone()
        top_entries(A, B, 5, by="smallest")
        assert torch.equal(A, before[0])
        assert torch.equal(B, before[1])
