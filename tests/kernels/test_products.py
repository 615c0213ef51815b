"""The ladder of matrix products: every rung against NumPy in float64, at sizes that leave remainders."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kernels.cpu import products

BOUNDED = settings(derandomize=True, deadline=None, max_examples=50)
SIZES = st.integers(0, 40)
FENCE = 8  # rows before and after every operand; more than an unrolled loop takes at a time

every_rung = pytest.mark.parametrize("product", products.LADDER, ids=lambda rung: rung.__name__)
both_dtypes = pytest.mark.parametrize("dtype", [np.float32, np.float64])


def fenced(values, post):
    """Copy ``values`` between rows of ``post``. Return all the rows and, as a view, the copy; both contiguous."""
    field = np.full((len(values) + 2 * FENCE, values.shape[1]), post, values.dtype)
    view = field[FENCE:-FENCE]
    view[...] = values
    return field, view


def assert_product(out, a, b):
    """Compare ``out`` with a b in float64, entry by entry.

    A sum of k products, each rounded, in any order, is off by at most k u Σ|a||b| (u the unit roundoff;
    Higham, Accuracy and Stability of Numerical Algorithms, §3.1). NumPy's eps is 2 u: the rung may be that
    far off, and so may the reference when it is no more precise.
    """
    a64, b64 = a.astype(np.float64), b.astype(np.float64)
    error = np.abs(out - a64 @ b64)
    bound = a.shape[1] * np.finfo(a.dtype).eps * (np.abs(a64) @ np.abs(b64))
    np.testing.assert_array_less(error, bound + np.finfo(a.dtype).tiny)  # fails on NaN; tiny is for 0 < 0


def check(product, a, b):
    """Check the result of ``product``, and that it reads and writes nothing outside its operands."""
    (_, a), (_, b) = fenced(a, np.nan), fenced(b, np.nan)  # a stray read makes the result NaN
    a_before, b_before = a.copy(), b.copy()
    field, out = fenced(np.full((len(a), b.shape[1]), np.nan, a.dtype), 7.0)  # an entry left out stays NaN

    product(out, a, b)

    assert_product(out, a, b)
    np.testing.assert_array_equal(a, a_before)
    np.testing.assert_array_equal(b, b_before)
    assert (field[:FENCE] == 7.0).all(), "wrote before out"
    assert (field[-FENCE:] == 7.0).all(), "wrote past out"


def normal(seed, m, k, n, dtype):
    rng = np.random.default_rng(seed)
    return rng.standard_normal((m, k), dtype), rng.standard_normal((k, n), dtype)


@every_rung
@both_dtypes
@given(m=SIZES, k=SIZES, n=SIZES, seed=st.integers(0, 2**32 - 1))
@BOUNDED
def test_products_of_small_sizes_match_numpy(product, dtype, m, k, n, seed):
    check(product, *normal(seed, m, k, n, dtype))


@every_rung
@both_dtypes
@pytest.mark.parametrize(
    ("m", "k", "n"),
    [
        (67, 2 * products.BLOCK + 3, 101),  # two blocks and a remainder that is no multiple of 4
        (5, products.BLOCK, 257),
        (1, products.BLOCK + 1, 1),
        (130, 3 * products.BLOCK - 2, 31),
    ],
)
def test_products_past_one_block_match_numpy(product, dtype, m, k, n):
    check(product, *normal(0, m, k, n, dtype))


@every_rung
@both_dtypes
@pytest.mark.parametrize("bad", [np.nan, np.inf])
@pytest.mark.parametrize("p", [2, 8])  # within the unrolled terms, and after them
@pytest.mark.parametrize("i", [1, 5])  # the same for the rows
def test_products_pass_nan_and_infinity_through_a_factor_of_zero(product, dtype, bad, p, i):
    m, k, n = 6, 9, 7
    zeros_a, zeros_b, out = np.zeros((m, k), dtype), np.zeros((k, n), dtype), np.empty((m, n), dtype)
    a, b = zeros_a.copy(), zeros_b.copy()
    a[i, p] = b[p, i] = bad

    product(out, a, zeros_b)
    np.testing.assert_array_equal(out, np.where(np.arange(m)[:, None] == i, np.nan, np.zeros((m, n))))
    product(out, zeros_a, b)
    np.testing.assert_array_equal(out, np.where(np.arange(n) == i, np.nan, np.zeros((m, n))))


@every_rung
def test_products_take_transposed_operands(product):
    """The products of a backward pass: the operands are views with their strides swapped."""
    a, b = map(np.asfortranarray, normal(0, 9, 14, 11, np.float32))
    out = np.empty((9, 11), np.float32)
    product(out, a, b)
    assert_product(out, a, b)


@every_rung
@pytest.mark.parametrize(
    "shapes",
    [((3, 4), (3, 5), (6, 4)), ((2, 4), (3, 5), (5, 4)), ((3, 6), (3, 5), (5, 4))],
    ids=["k", "m", "n"],
)
def test_products_refuse_shapes_that_do_not_fit(product, shapes):
    out, a, b = (np.ones(shape, np.float32) for shape in shapes)
    with pytest.raises(ValueError, match="a product needs out"):
        product(out, a, b)


def arranged(values, order, post=np.nan):
    """Copy ``values`` between numbers ``post``; the view is contiguous along its rows, its columns, or neither."""
    if order == "rows":
        return fenced(values, post)[1]
    if order == "columns":
        return fenced(values.T.copy(), post)[1].T
    field = np.full((2 * len(values), 2 * values.shape[1]), post, values.dtype)
    view = field[::2, ::2]
    view[...] = values
    return view


ORDERS = [("rows", "rows"), ("columns", "rows"), ("rows", "columns"), ("neither", "neither")]  # of a and b


@both_dtypes
@given(
    m=SIZES,
    k=SIZES,
    n=st.integers(0, 300),  # several panels in one block
    zeros=st.sampled_from([0, 0.5, 0.9, 1]),
    orders=st.sampled_from(ORDERS),
    skip_zeros=st.booleans(),
    seed=st.integers(0, 2**32 - 1),
)
@settings(BOUNDED, max_examples=200)
def test_product_tiled_takes_zeros_in_any_memory_order(dtype, m, k, n, zeros, orders, skip_zeros, seed):
    rng = np.random.default_rng(seed)
    a, b = normal(seed, m, k, n, dtype)
    a[rng.random(a.shape) < zeros] = 0
    a[:, rng.random(k) < zeros] = 0  # whole terms, that a tile can leave out
    field, out = fenced(np.full((m, n), np.nan, dtype), 7.0)
    products.product_tiled(out, arranged(a, orders[0]), arranged(b, orders[1]), skip_zeros)
    assert_product(out, a, b)
    assert (field[:FENCE] == 7.0).all()
    assert (field[-FENCE:] == 7.0).all()


@both_dtypes
@pytest.mark.parametrize("orders", [ORDERS[0], ORDERS[1], ORDERS[3]])
@pytest.mark.parametrize("value", [1e-40, -1.0, np.nan, np.inf])
def test_product_tiled_skips_terms_only_where_six_rows_are_zero(dtype, orders, value):
    a, b = np.ones((12, 20), dtype), np.ones((20, 40), dtype)
    b[7, 3] = np.nan
    for row in (None, *range(12)):
        a[:, 5:10] = 0
        if row is not None:
            a[row, 7] = value
        out = np.empty((12, 40), dtype)
        products.product_tiled(out, arranged(a, orders[0]), arranged(b, orders[1]), True)
        tile = () if row is None else range(row - row % 6, row - row % 6 + 6)
        np.testing.assert_array_equal(np.isnan(out[:, 3]), np.isin(np.arange(12), tile))
    products.product_tiled(out, arranged(a, orders[0]), arranged(b, orders[1]))
    assert np.isnan(out[:, 3]).all()


@pytest.mark.parametrize("m", [1, 5, 6, 7, 12, 13, 40])
@pytest.mark.parametrize(("zeros", "looked_for"), [(1, False), (2, False), (3, True), (20, True)])
def test_product_tiled_looks_for_zeros_from_one_eighth_on(m, zeros, looked_for):
    a, b, out = np.ones((m, 20), np.float32), np.ones((20, 16), np.float32), np.empty((m, 16), np.float32)
    a[:, :zeros] = 0
    b[0] = np.nan
    products.product_tiled(out, a, b, True)
    assert np.isnan(out).all() != looked_for


@every_rung
def test_products_refuse_mixed_float_types(product):
    a, b = normal(0, 60, 60, 60, np.float32)
    for out, left, right in (
        (np.float64, a, b),
        (np.float32, a.astype(np.float64), b),
        (np.float32, a, b.astype("f8")),
    ):
        with pytest.raises((ValueError, TypeError)):  # the latter by the compiler
            product(np.empty((60, 60), out), left, right)


def test_product_tiled_takes_rows_of_unaligned_stride():
    """A field of packed records: the stride is no multiple of a number's size."""
    for swap in (False, True):
        record = np.zeros(20, [("x", "f4", (20,)), ("y", "V2")])["x"]
        record[...] = np.random.default_rng(0).standard_normal((20, 20))
        odd = record.T if swap else record
        other, out = np.ascontiguousarray(odd), np.empty((20, 20), np.float32)
        products.product_tiled(out, odd, other)
        assert_product(out, other, other)
        products.product_tiled(out, other, odd)
        assert_product(out, other, other)


def test_ladder_holds_every_product():
    assert {rung.__name__ for rung in products.LADDER} == {n for n in dir(products) if n.startswith("product_")}
