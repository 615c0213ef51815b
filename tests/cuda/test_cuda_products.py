"""The ladder of matrix products on the GPU: every rung against NumPy in float64, at sizes that leave remainders."""

import numpy as np
import pytest

pytest.importorskip("numba_cuda", reason="there are no CUDA kernels to test, for numba-cuda is not installed")

from kernels.cuda import products
from kernels.cuda.device import SIMULATED, cuda
from kernels.cuda.functions import ACTIVATIONS
from kernels.cuda.memory import to_device, to_host

pytestmark = pytest.mark.skipif(
    not (SIMULATED or cuda.is_available()), reason="there is no GPU; the simulated run has these tests"
)
LARGE, SMALL, DEPTH = products.LARGE, products.SMALL, products.SMALL_DEPTH
FENCE = 3  # rows before and after every operand

every_rung = pytest.mark.parametrize("product", products.LADDER, ids=lambda rung: rung.__name__)
both_dtypes = pytest.mark.parametrize("dtype", [np.float32, np.float64])
every_product = pytest.mark.parametrize(
    ("product", "turn_a", "turn_b"),
    [(products.matmul, False, False), (products.matmul_tn, True, False), (products.matmul_nt, False, True)],
    ids=["matmul", "matmul_tn", "matmul_nt"],
)
# (m, k, n): inside a tile and past it in every direction, in whole fours and not.
SHAPES = [
    (1, 1, 1),
    (3, 2, 5),
    (LARGE, products.LARGE_DEPTH, LARGE),
    (LARGE + 1, products.LARGE_DEPTH + 1, LARGE + 2),
    (2 * LARGE + 3, 4 * DEPTH + 1, LARGE - 3),
    (LARGE - 4, 20, 2 * LARGE + 8),
    (SMALL - 1, 3 * products.FEWEST_TERMS + 3, SMALL + 1),
]
EMPTY = [(0, 3, 4), (4, 3, 0), (3, 0, 4)]


def fenced(values, post):
    """Values on the device, between rows of ``post``: all the rows, and the view. Rows of 4k + 2 begin anywhere."""
    field = np.full((len(values) + 2 * FENCE, *values.shape[1:]), post, values.dtype)
    field[FENCE : FENCE + len(values)] = values
    field = to_device(field)
    return field, field[FENCE : FENCE + len(values)]


def assert_product(out, a, b):
    """Compare with a b in float64: each of k products, and each sum of them, is off by an eps at most."""
    a64, b64 = a.astype(np.float64), b.astype(np.float64)
    bound = (a.shape[1] + 1) * np.finfo(a.dtype).eps * (np.abs(a64) @ np.abs(b64))
    np.testing.assert_array_less(np.abs(out - a64 @ b64), bound + np.finfo(a.dtype).tiny)  # fails on NaN


def check(product, a, b, turn_a=False, turn_b=False):
    """Check the result, and that the product reads and writes nothing outside its operands."""
    m, n = len(a), b.shape[1]
    _, device_a = fenced(np.ascontiguousarray(a.T) if turn_a else a, np.nan)  # a stray read makes the result NaN
    _, device_b = fenced(np.ascontiguousarray(b.T) if turn_b else b, np.nan)
    field, out = fenced(np.full((m, n), np.nan, a.dtype), 7.0)  # an entry left out stays NaN
    product(out, device_a, device_b)
    assert_product(to_host(out), a, b)
    field = to_host(field)
    assert (field[:FENCE] == 7.0).all(), "wrote before out"
    assert (field[FENCE + m :] == 7.0).all(), "wrote past out"


def normal(shape, dtype):
    m, k, n = shape
    rng = np.random.default_rng(0)
    return rng.standard_normal((m, k), dtype), rng.standard_normal((k, n), dtype)


@every_rung
@both_dtypes
@pytest.mark.parametrize("shape", [*SHAPES, *EMPTY], ids=str)
def test_ladder_products_match_numpy(product, dtype, shape):
    check(product, *normal(shape, dtype))


@every_product
@both_dtypes
@pytest.mark.parametrize("shape", [*SHAPES, *EMPTY], ids=str)
@pytest.mark.parametrize("count", [1, 10_000], ids=["large tiles", "small tiles and shares"])
def test_matmul_and_its_transposes_match_numpy(product, turn_a, turn_b, dtype, shape, count, monkeypatch):
    monkeypatch.setattr(products, "multiprocessors", lambda: count)
    check(product, *normal(shape, dtype), turn_a, turn_b)


@pytest.mark.parametrize("shape", [*SHAPES, *EMPTY], ids=str)
@pytest.mark.parametrize("count", [1, 10_000], ids=["large tiles", "small tiles and shares"])
def test_dense_adds_its_bias_and_applies_its_activation(shape, count, monkeypatch):
    monkeypatch.setattr(products, "multiprocessors", lambda: count)
    x, w = normal(shape, np.float32)
    b = np.linspace(-1, 1, w.shape[1], dtype=np.float32)
    (_, device_x), (_, device_w) = fenced(x / 9, np.nan), fenced(w / 9, np.nan)
    field, out = fenced(np.full((len(x), b.size), np.nan, np.float32), 7.0)
    products.dense(out, device_x, device_w, to_device(b), ACTIVATIONS.index("tanh"))
    np.testing.assert_allclose(to_host(out), np.tanh((x / 9) @ (w / 9) + b), rtol=0, atol=1e-5)
    assert (np.delete(to_host(field), np.s_[FENCE : FENCE + len(x)], axis=0) == 7.0).all()


@pytest.mark.parametrize("product", [*products.LADDER, products.matmul], ids=lambda product: product.__name__)
@both_dtypes
def test_products_take_matrices_that_are_not_aligned(product, dtype):
    """As a parameter does in the flat buffer of all: rows of whole fours, but none at a multiple of 16 bytes."""

    def shifted(values):
        flat = to_device(np.concatenate([[np.nan], values.ravel(), [np.nan]]).astype(dtype))
        return flat, flat[1:-1].reshape(values.shape)

    a, b = normal((LARGE, 8, SMALL + 4), dtype)
    (_, device_a), (_, device_b) = shifted(a), shifted(b)
    flat, out = shifted(np.full((LARGE, SMALL + 4), np.nan))
    product(out, device_a, device_b)
    assert_product(to_host(flat)[1:-1].reshape(LARGE, SMALL + 4), a, b)
    assert np.isnan(to_host(flat)[[0, -1]]).all()


@every_product
def test_products_give_the_same_bits_when_terms_are_shared(product, turn_a, turn_b, monkeypatch):
    monkeypatch.setattr(products, "multiprocessors", lambda: 10_000)
    m, k, n = SMALL + 1, 5 * products.FEWEST_TERMS, SMALL
    assert products._terms_a_share(m, n, k) < k
    a, b = normal((m, k, n), np.float32)
    a, b = (to_device(np.ascontiguousarray(x.T) if turn else x) for x, turn in ((a, turn_a), (b, turn_b)))
    found = []
    for _ in range(3):
        out = to_device(np.full((m, n), np.nan, np.float32))
        product(out, a, b)
        found.append(to_host(out))
    np.testing.assert_array_equal(found[0], found[1])
    np.testing.assert_array_equal(found[0], found[2])


@pytest.mark.parametrize("count", [1, 3, 132])
@pytest.mark.parametrize("shape", [*SHAPES, *EMPTY, (128, 784, 400), (128, 400, 20), (784, 128, 400)], ids=str)
def test_terms_a_share_are_whole_tiles_and_cover_all(shape, count, monkeypatch):
    monkeypatch.setattr(products, "multiprocessors", lambda: count)
    m, k, n = shape
    terms = products._terms_a_share(m, n, k)
    assert terms > 0
    assert terms % DEPTH == 0
    shares = -(-k // terms)
    assert (shares - 1) * terms < max(k, 1) <= max(shares, 1) * terms
    assert shares <= max(1, k // products.FEWEST_TERMS)


@pytest.mark.parametrize("product", [*products.LADDER, products.matmul], ids=lambda product: product.__name__)
@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_products_pass_nan_and_infinity_through_a_factor_of_zero(product, bad):
    m, k, n, i, p = 6, 9, 7, 5, 8
    zeros_a, zeros_b = np.zeros((m, k), np.float32), np.zeros((k, n), np.float32)
    a, b, out = zeros_a.copy(), zeros_b.copy(), to_device(np.empty((m, n), np.float32))
    a[i, p] = b[p, i] = bad
    product(out, to_device(a), to_device(zeros_b))
    np.testing.assert_array_equal(to_host(out), np.where(np.arange(m)[:, None] == i, np.nan, np.zeros((m, n))))
    product(out, to_device(zeros_a), to_device(b))
    np.testing.assert_array_equal(to_host(out), np.where(np.arange(n) == i, np.nan, np.zeros((m, n))))


@pytest.mark.parametrize("product", [*products.LADDER, products.matmul], ids=lambda product: product.__name__)
@pytest.mark.parametrize(
    "shapes",
    [((3, 4), (3, 5), (6, 4)), ((2, 4), (3, 5), (5, 4)), ((3, 6), (3, 5), (5, 4))],
    ids=["k", "m", "n"],
)
def test_products_refuse_shapes_that_do_not_fit(product, shapes):
    out, a, b = (to_device(np.ones(shape, np.float32)) for shape in shapes)
    with pytest.raises(ValueError, match="a product needs out"):
        product(out, a, b)


def test_ladder_holds_every_product():
    assert {rung.__name__ for rung in products.LADDER} == {n for n in dir(products) if n.startswith("product_")}


@pytest.mark.skipif(SIMULATED, reason="the simulator would take days")
@every_product
@pytest.mark.parametrize(
    "shape", [(128, 784, 400), (400, 128, 784), (128, 400, 20), (1024, 1024, 1024), (2050, 2051, 2049)], ids=str
)
def test_products_match_numpy_at_sizes_of_training(product, turn_a, turn_b, shape):
    check(product, *normal(shape, np.float32), turn_a, turn_b)
