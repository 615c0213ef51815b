"""The convolutions and pooling on the GPU, at sizes past a tile and a block, and with windows of every kind."""

from types import SimpleNamespace

import numpy as np
import pytest

pytest.importorskip("numba_cuda", reason="there are no CUDA kernels to test, for numba-cuda is not installed")

from kernels import reference
from kernels.cuda import conv, pooling, products
from kernels.cuda.device import SIMULATED, cuda
from kernels.cuda.memory import to_device, to_host
from tests.cuda.test_cuda_products import FENCE, both_dtypes, fenced

pytestmark = pytest.mark.skipif(
    not (SIMULATED or cuda.is_available()), reason="there is no GPU; the simulated run has these tests"
)
SMALL, FEW = products.SMALL, products.FEWEST_TERMS
# Images, window, output channels, stride, padding: in whole fours and not, with remainders and without.
CASES = {
    "one number": ((1, 1, 1, 1), (1, 1), 1, (1, 1), (0, 0)),
    "past a tile": ((3, 4, 5, SMALL + 1), (2, 1), SMALL + 3, (1, 1), (0, 0)),
    "whole fours": ((2, 6, 5, SMALL), (3, 2), SMALL + 4, (2, 1), (1, 1)),
    "a window of everything": ((3, 3, 4, 2), (3, 4), 2 * SMALL + 1, (1, 1), (0, 0)),
    "many terms": ((2, 4, 5, FEW // 2), (3, 3), 4, (1, 1), (1, 1)),
    "many pixels": ((FEW // 2, 5, 3, 3), (2, 3), 5, (1, 2), (0, 1)),
    "stride past the window": ((2, 7, 8, 3), (2, 2), 5, (3, 4), (0, 0)),
    "stride past the images": ((2, 3, 2, 4), (2, 1), 4, (5, 4), (1, 1)),
    "padding past the window": ((2, 3, 2, 4), (2, 3), 6, (1, 2), (3, 4)),
    "padding past everything": ((1, 2, 3, 1), (1, 2), 3, (2, 3), (5, 5)),
    "more steps one way": ((2, 7, 5, 4), (4, 3), 8, (2, 3), (2, 0)),
    "no images": ((0, 3, 3, 2), (2, 2), 3, (1, 1), (0, 0)),
    "no channels": ((2, 3, 3, 0), (2, 2), 3, (2, 1), (1, 0)),
    "no output channels": ((2, 3, 3, 2), (2, 2), 0, (2, 1), (1, 0)),
}
every_convolution = pytest.mark.parametrize("name", ["conv2d", "conv2d_input", "conv2d_weight"])
counts = pytest.mark.parametrize("count", [1, 10_000], ids=["whole sums", "shares"])


def drawn(images, window, channels, stride, padding, dtype=np.float64):
    """x, w and dout of a convolution."""
    rng, (b, h, w, i) = np.random.default_rng(0), images
    p, q = ((n + 2 * d - k) // s + 1 for n, d, k, s in zip((h, w), padding, window, stride, strict=True))
    return [rng.standard_normal(shape).astype(dtype) for shape in (images, (*window, i, channels), (b, p, q, channels))]


def operands(name, x, w, dout):
    """The shape of what a kernel writes, and its inputs."""
    return {"conv2d": (dout.shape, x, w), "conv2d_input": (x.shape, dout, w), "conv2d_weight": (w.shape, x, dout)}[name]


def check(name, dtype, *case):
    """Each product, and each sum of them, is off by an eps at most; nothing outside the arrays is read or written."""
    (shape, *inputs), window = operands(name, *drawn(*case, dtype)), case[3:]
    expected, size, terms = np.empty(shape), np.empty(shape), np.empty(shape)
    exact = [array.astype(np.float64) for array in inputs]
    getattr(reference.conv, name)(expected, *exact, *window)
    getattr(reference.conv, name)(size, *map(np.abs, exact), *window)
    getattr(reference.conv, name)(terms, *map(np.ones_like, exact), *window)
    field, out = fenced(np.full(shape, np.nan, dtype), 7.0)
    getattr(conv, name)(out, *(fenced(array, np.nan)[1] for array in inputs), *window)
    bound = (terms + 1) * np.finfo(dtype).eps * size + np.finfo(dtype).tiny
    np.testing.assert_array_less(np.abs(to_host(out) - expected), bound)  # fails on NaN
    rest = np.delete(to_host(field), np.s_[FENCE : FENCE + len(expected)], axis=0)
    assert (rest == 7.0).all(), "wrote before out, or past it"


@every_convolution
@both_dtypes
@counts
@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_convolutions_match_the_definition(name, dtype, count, case, monkeypatch):
    monkeypatch.setattr(products, "multiprocessors", lambda: count)
    check(name, dtype, *case)


@every_convolution
def test_convolutions_give_the_same_bits_when_terms_are_shared(name, monkeypatch):
    monkeypatch.setattr(products, "multiprocessors", lambda: 10_000)
    allocated, empty = [], products.memory.empty
    monkeypatch.setattr(products.memory, "empty", lambda *a: allocated.append(a) or empty(*a))
    case = (FEW, 2, 3, FEW // 4), (3, 3), FEW, (2, 2), (1, 1)
    shape, *inputs = operands(name, *drawn(*case, np.float32))
    out, found = to_device(np.empty(shape, np.float32)), []
    for _ in range(2):
        getattr(conv, name)(out, *map(to_device, inputs), *case[3:])
        found.append(to_host(out))
    assert len(allocated) == 2, "nothing was shared"
    np.testing.assert_array_equal(*found)


@every_convolution
@pytest.mark.parametrize("pixel", [(0, 0, 0), (0, 2, 1), (1, 3, 2)], ids=str)
def test_convolutions_pass_nan_to_what_meets_it_alone(name, pixel):
    """And not by way of terms past the last, whose factor is zero."""
    case = (2, 6, 4, 1), (3, 2), 3, (1, 1), (0, 0)
    shape, images, other = operands(name, *drawn(*case, np.float32))
    images[pixel] = np.nan
    out, expected = to_device(np.zeros(shape, np.float32)), np.empty(shape)
    getattr(conv, name)(out, to_device(images), to_device(other), *case[3:])
    getattr(reference.conv, name)(expected, images, other, *case[3:])
    np.testing.assert_array_equal(np.isnan(to_host(out)), np.isnan(expected))


@every_convolution
def test_convolutions_take_weights_and_images_that_are_not_aligned(name):
    """As a parameter does in the flat buffer of all: whole fours of channels, but none at a multiple of 16 bytes."""
    case = (2, 4, 3, 4), (2, 2), 8, (2, 1), (1, 0)
    shape, *inputs = operands(name, *drawn(*case, np.float32))
    shifted = [to_device(np.append(np.float32(np.nan), array))[1:].reshape(array.shape) for array in inputs]
    flat, expected = to_device(np.full(1 + np.prod(shape), np.nan, np.float32)), np.empty(shape)
    getattr(conv, name)(flat[1:].reshape(shape), *shifted, *case[3:])
    getattr(reference.conv, name)(expected, *inputs, *case[3:])
    np.testing.assert_allclose(to_host(flat)[1:].reshape(shape), expected, rtol=0, atol=2e-5)
    assert np.isnan(to_host(flat)[0])


def test_divisor_divides_all_numbers_exactly():
    limit = conv.MOST
    for by in (*range(1, 200), 783, 784, 785, 2**16 - 1, 2**16, 2**16 + 1, 2**30, 2**30 + 1, limit - 1, limit):
        _, factor, shift = conv._divisor(by)
        assert limit * factor < 2**63  # the product fits
        for near in (0, 1, limit // by // 2, limit // by):  # quotients just change at multiples
            for number in range(max(0, near * by - 2), min(limit, near * by + 2) + 1):
                assert number * factor >> shift == number // by


def test_convolutions_refuse_more_pixels_than_they_can_count():
    images = SimpleNamespace(shape=(2**20, 2**6, 2**5, 1))
    with pytest.raises(ValueError, match="at most 2147483647 pixels, not images of shape"):
        conv._rows(images)


@pytest.mark.skipif(SIMULATED, reason="the simulator would take days")
@every_convolution
@pytest.mark.parametrize(
    "case",
    [
        ((128, 28, 28, 1), (4, 4), 64, (2, 2), (1, 1)),
        ((128, 14, 14, 64), (4, 4), 128, (2, 2), (1, 1)),
        ((128, 7, 7, 128), (3, 3), 256, (1, 1), (1, 1)),
        ((64, 33, 31, 3), (5, 5), 30, (2, 3), (2, 1)),
    ],
    ids=str,
)
def test_convolutions_match_the_definition_at_sizes_of_training(name, case):
    check(name, np.float32, *case)


# ---- pooling ----

POOLS = {
    "side by side": ((3, 4, 6, 5), (2, 3), (2, 3)),
    "overlapping": ((2, 5, 7, 3), (3, 4), (1, 2)),
    "apart, with a rest": ((2, 7, 8, 4), (2, 1), (3, 4)),
    "one window": ((2, 3, 4, 3), (3, 4), (5, 6)),
    "one number": ((1, 1, 1, 1), (1, 1), (1, 1)),
    "no images": ((0, 4, 4, 2), (2, 2), (2, 2)),
    "no channels": ((2, 4, 4, 0), (2, 2), (2, 2)),
}


@pytest.mark.parametrize("name", ["sum_pool2d", "sum_pool2d_backward", "max_pool2d", "max_pool2d_backward"])
@both_dtypes
@pytest.mark.parametrize("case", POOLS.values(), ids=POOLS)
def test_pooling_matches_the_definition(name, dtype, case):
    """Of whole numbers, many of them equal: maxima are tied, and sums exact."""
    (b, h, w, c), size, stride = case
    rng, pooled = np.random.default_rng(0), (b, (h - size[0]) // stride[0] + 1, (w - size[1]) // stride[1] + 1, c)
    x, dout = (rng.integers(-3, 4, shape).astype(dtype) for shape in (case[0], pooled))
    backward, scale = name.endswith("_backward"), (0.5,) if name.startswith("sum") else ()
    inputs = ([dout] if backward else []) + ([] if backward and scale else [x])
    expected = np.empty(case[0] if backward else pooled)
    getattr(reference.pooling, name)(expected, *inputs, size, stride, *scale)
    field, out = fenced(np.full(expected.shape, np.nan, dtype), 7.0)
    getattr(pooling, name)(out, *(fenced(array, np.nan)[1] for array in inputs), size, stride, *scale)
    np.testing.assert_array_equal(to_host(out), expected)
    rest = np.delete(to_host(field), np.s_[FENCE : FENCE + b], axis=0)
    assert (rest == 7.0).all(), "wrote before out, or past it"
