"""Convolutions against a definition of their own, window by window, and against each other as adjoints."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kernels import cpu, reference
from kernels.cpu import convolutions
from tests.kernels.test_sets import TOLERANCE, both_dtypes

SEEDS = st.integers(0, 2**32 - 1)
both_sets = pytest.mark.parametrize("kernel_set", [cpu, reference], ids=["cpu", "reference"])


FEW = st.integers(1, 4)


@st.composite
def problems(draw, channels=FEW):
    """Images, weights, stride and padding: every size up to 7, the window no larger than the padded images."""
    padding = draw(st.tuples(st.integers(0, 7), st.integers(0, 7)))
    sizes = [draw(st.integers(max(1, 1 - 2 * p), 7)) for p in padding]
    window = [draw(st.integers(1, min(7, size + 2 * p))) for size, p in zip(sizes, padding, strict=True)]
    stride = draw(st.tuples(st.integers(1, 7), st.integers(1, 7)))
    images, inputs, outputs = draw(st.integers(1, 3)), draw(channels), draw(channels)
    rng = np.random.default_rng(draw(SEEDS))
    x, w = rng.standard_normal((images, *sizes, inputs)), rng.standard_normal((*window, inputs, outputs))
    return x, w, stride, padding


def direct(x, w, stride, padding):
    """The convolution, one window after the other."""
    (b, h, width, i), (k, j, _, o) = x.shape, w.shape
    framed = np.zeros((b, h + 2 * padding[0], width + 2 * padding[1], i))
    framed[:, padding[0] : padding[0] + h, padding[1] : padding[1] + width] = x
    out = np.empty((b, (framed.shape[1] - k) // stride[0] + 1, (framed.shape[2] - j) // stride[1] + 1, o))
    for p, q in np.ndindex(out.shape[1:3]):
        window = framed[:, stride[0] * p : stride[0] * p + k, stride[1] * q : stride[1] * q + j]
        out[:, p, q] = np.tensordot(window, w, 3)
    return out


def assert_near(actual, expected, dtype=np.float64):
    """Sums of up to 7·7·4 or 3·7·7 products of normal numbers."""
    scale = max(1.0, np.abs(expected).max(initial=0))
    np.testing.assert_allclose(actual, expected, rtol=0, atol=10 * TOLERANCE[dtype] * scale)


def computed(kernel, shape, *arguments, dtype=np.float64):
    """What the kernel writes into an array of NaN."""
    out = np.full(shape, np.nan, dtype)
    kernel(out, *arguments)
    return out


@both_sets
@given(problem=problems())
def test_conv2d_is_a_sum_over_each_window(kernel_set, problem):
    expected = direct(*problem)
    assert_near(computed(kernel_set.conv.conv2d, expected.shape, *problem), expected)


@both_sets
@given(problem=problems(), seed=SEEDS)
def test_conv2d_input_and_weight_are_the_adjoints(kernel_set, problem, seed):
    """<conv(x, w), y> = <x, input(y, w)> = <w, weight(x, y)>, to 1e-10 of the sum of their sizes."""
    x, w, *window = problem
    y = np.random.default_rng(seed).standard_normal(direct(*problem).shape)
    product = direct(*problem) * y
    dx = computed(kernel_set.conv.conv2d_input, x.shape, y, w, *window)
    dw = computed(kernel_set.conv.conv2d_weight, w.shape, x, y, *window)
    scale = np.abs(product).sum() + np.abs(x * dx).sum() + np.abs(w * dw).sum()
    assert abs(np.sum(x * dx) - product.sum()) <= 1e-10 * scale
    assert abs(np.sum(w * dw) - product.sum()) <= 1e-10 * scale


@both_dtypes
@pytest.mark.parametrize("images", [1, 9, 35])
@pytest.mark.parametrize(("inputs", "outputs"), [(1, 33), (33, 1), (3, 70), (64, 32)])
def test_conv_on_the_cpu_equals_the_definition_past_a_panel_and_a_block_of_images(inputs, outputs, images, dtype):
    rng, window = np.random.default_rng(0), ((2, 1), (1, 2))
    x = rng.uniform(-1, 1, (images, 9, 7, inputs)).astype(dtype)
    w = rng.uniform(-1, 1, (4, 3, inputs, outputs)).astype(dtype)
    y = rng.uniform(-1, 1, (images, 4, 9, outputs)).astype(dtype)
    for name, shape, *arguments in (
        ("conv2d", y.shape, x, w),
        ("conv2d_input", x.shape, y, w),
        ("conv2d_weight", w.shape, x, y),
    ):
        actual = computed(getattr(cpu.conv, name), shape, *arguments, *window, dtype=dtype)
        doubled = [array.astype(np.float64) for array in arguments]
        assert_near(actual, computed(getattr(reference.conv, name), shape, *doubled, *window), dtype)


@pytest.mark.parametrize("stride", [(1, 1), (2, 1)])
@pytest.mark.parametrize("padding", [(0, 0), (1, 1), (3, 3)], ids=["less", "as much", "more than the window"])
def test_conv_to_one_channel_equals_the_definition(stride, padding):
    """Where the stride is 1 and padding below the window's size, products are computed side by side and folded."""
    rng = np.random.default_rng(0)
    x, w = rng.standard_normal((3, 6, 5, 8)), rng.standard_normal((3, 3, 8, 1))
    expected = direct(x, w, stride, padding)
    assert_near(computed(cpu.conv.conv2d, expected.shape, x, w, stride, padding), expected)


@pytest.mark.parametrize("rung", convolutions.LADDER)
@pytest.mark.parametrize(
    "dtype", [np.float32, pytest.param(np.float64, marks=pytest.mark.slow)], ids=["float32", "float64"]
)
@given(problem=problems(st.sampled_from([1, 2, 17, 33])))
def test_every_rung_is_a_sum_over_each_window(rung, problem, dtype):
    x, w, *window = problem
    x, w = x.astype(dtype), w.astype(dtype)
    expected = direct(x.astype(np.float64), w.astype(np.float64), *window)
    assert_near(computed(rung, expected.shape, x, w, *window, dtype=dtype), expected, dtype)


@pytest.mark.parametrize("where", [(0, 0, 0, 0), (2, 4, 3, 1)])
def test_nan_in_an_image_spreads_to_the_windows_that_hold_it_alone(where):
    x, w = np.ones((3, 5, 4, 2)), np.ones((3, 2, 2, 20))
    x[where] = np.nan
    for kernel_set in (cpu, reference):
        out = computed(kernel_set.conv.conv2d, (3, 5, 3, 20), x, w, (1, 1), (1, 0))
        np.testing.assert_array_equal(np.isnan(out), np.isnan(direct(x, w, (1, 1), (1, 0))))


# ---- pooling ----


@both_sets
@given(size=st.tuples(st.integers(1, 4), st.integers(1, 4)), stride=st.tuples(st.integers(1, 5), st.integers(1, 5)))
def test_pooling_takes_each_window(kernel_set, size, stride):
    x = np.random.default_rng(0).standard_normal((2, 6, 5, 3))
    shape = 2, (6 - size[0]) // stride[0] + 1, (5 - size[1]) // stride[1] + 1, 3
    means = computed(kernel_set.pooling.sum_pool2d, shape, x, size, stride, 0.25)
    largest = computed(kernel_set.pooling.max_pool2d, shape, x, size, stride)
    for p, q in np.ndindex(shape[1:3]):
        window = x[:, stride[0] * p : stride[0] * p + size[0], stride[1] * q : stride[1] * q + size[1]]
        np.testing.assert_allclose(means[:, p, q], 0.25 * window.sum((1, 2)), rtol=1e-12, atol=1e-12)
        np.testing.assert_array_equal(largest[:, p, q], window.max((1, 2)))
