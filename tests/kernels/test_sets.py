"""The kernel sets agree: the same names and arguments, and the same numbers on drawn inputs, in float64 and float32."""

import inspect
import math
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import kernels
from kernels import cpu, reference

SIZES = st.integers(0, 19)  # 19 = two vectors of 8 float32 and a remainder
LONG = (67, 1030)  # past a tile and a chunk, and past any block
SCALES = st.sampled_from([1e-3, 1, 3])  # of real inputs: near the kinks at 0, and far out
NOT_KERNELS = {
    "__init__",
    "vector_math",
    "simd",
    "products",
    "convolutions",
    "vectors",
    "device",
    "functions",
    "array",
    "threads",
}  # of one set alone: helpers inside loops, a teaching ladder, and the device

# Every number is compared relative to the largest of its array, or to 1. In float64 only the order of sums and the last
# bit of exp and its like differ. A float32 kernel is held against the definition in float64, on the same inputs: a sum
# rounds 19 times by eps / 2 = 6e-8, exp and its like add 2e-7, and terms reach a few times the result.
TOLERANCE = {np.float64: 1e-13, np.float32: 4e-6}

both_dtypes = pytest.mark.parametrize("dtype", TOLERANCE, ids=lambda dtype: dtype.__name__)


# ---- every kernel, and how to call it ----


@dataclass(frozen=True)
class Array:
    """An argument: its dimensions, a letter each (a capital for a size above 0, a digit for itself), and its values."""

    dims: str
    low: float = -3.0
    high: float = 3.0
    role: str = "input"  # or "output", written only; or "state", updated
    labels_of: str = ""  # whole numbers below the size of this dimension
    double: bool = False  # float64, whatever the rest is

    def draw(self, rng, sizes, dtype, coarse, scale=1):
        shape = tuple(int(dim) if dim.isdigit() else sizes[dim] for dim in self.dims)
        if self.labels_of:
            return rng.integers(0, sizes[self.labels_of], shape)
        dtype = np.float64 if self.double else dtype
        if self.role == "output":  # an element that is never written stays NaN
            return np.full(shape, np.nan, dtype)
        values = rng.uniform(self.low, self.high, shape) * (scale if self.low < -1 else 1)
        return np.asarray(np.round(2 * values) / 2 if coarse else values, dtype)  # coarse: zeros, ties, the bounds


def out(dims):
    return Array(dims, role="output")


def positive(dims):
    return Array(dims, 0.5)


def unit(dims):
    return Array(dims, 0.0, 1.0)


OUT, X, POSITIVE, UNIT = out("n"), Array("n"), positive("n"), unit("n")
RATES, GUARD = unit("2"), Array("N", double=True)
OUT_B, OUT_BD, B, BD = out("b"), out("bd"), Array("b"), Array("bd")
OUT_RN, R, RN = out("rN"), Array("r"), Array("rN")
LABELS = Array("r", labels_of="N")
STATE, POSITIVE_STATE = Array("n", role="state"), Array("n", 0.5, role="state")
ACTIVATIONS = ("identity", "relu", "elu", "sigmoid", "tanh", "softplus")
# Shapes of images, weights and their convolution, with stride and padding: a remainder, steps past the window, ...
CONVOLUTIONS = (
    ("b54i", "23io", "b42o", (1, 1), (0, 0)),
    ("b54i", "33io", "b32o", (2, 2), (1, 1)),
    ("b34i", "32io", "b13o", (2, 3), (0, 2)),
    ("b23i", "11io", "b23o", (1, 1), (0, 0)),
)
POOLS = (("b54n", "b22n", (2, 3), (2, 1)), ("b44n", "b22n", (2, 2), (2, 2)), ("b35n", "b22n", (1, 2), (2, 3)))

CASES: list[tuple[Any, ...]] = [
    *((f"elementwise.{name}", OUT, X, X) for name in ("add", "subtract", "multiply")),
    ("elementwise.divide", OUT, X, POSITIVE),
    *(("elementwise.scale", OUT, X, factor) for factor in (-1.7, 0.3)),
    ("elementwise.sqrt", OUT, POSITIVE),
    ("elementwise.sqrt_backward", OUT, X, POSITIVE),
    *(("elementwise.power", OUT, POSITIVE, exponent) for exponent in (1.7, 0.4, -1.3)),
    ("elementwise.power", OUT, X, 2),
    *(("elementwise.power_backward", OUT, X, POSITIVE, exponent) for exponent in (1.7, 0.4, -1.3)),
    *(("elementwise.power_backward", OUT, X, X, exponent) for exponent in (0, 1, 2)),
    ("elementwise.log", OUT, POSITIVE),
    *((f"elementwise.{name}", OUT, X) for name in ("exp", "square", "relu", "elu", "sigmoid", "tanh", "softplus")),
    ("elementwise.gelu", OUT, X),
    *(("elementwise.leaky_relu", OUT, X, slope) for slope in (0.2, 1.5)),
    *((f"elementwise.{name}_backward", OUT, X, X) for name in ("square", "relu", "elu", "gelu")),
    *((f"elementwise.{name}_backward", OUT, X, UNIT) for name in ("sigmoid", "tanh", "softplus")),
    *(("elementwise.leaky_relu_backward", OUT, X, X, slope) for slope in (0.2, 1.5)),
    ("elementwise.where", OUT, X, X, X),
    ("elementwise.where_backward", OUT, OUT, X, X),
    ("elementwise.maximum", OUT, X, X),
    ("elementwise.maximum_backward", OUT, OUT, X, X, X),
    ("elementwise.clip", OUT, X, -1.0, 2.0),
    ("elementwise.clip_backward", OUT, X, X, -1.0, 2.0),
    ("elementwise.reparameterize", OUT, X, X, X),
    ("elementwise.reparameterize_backward", OUT, OUT, X, X, X),
    *(("elementwise.dropout_mask", OUT, UNIT, rate) for rate in (0.5, 0.2)),
    ("elementwise.bernoulli", OUT, UNIT, UNIT),
    ("reductions.sum_axis", out("oi"), Array("oni")),
    ("reductions.sum_axis", out("o1"), Array("on1")),  # a loop of its own
    ("reductions.sum_squares", out("1"), X),
    ("reductions.sum_squares", Array("1", role="output", double=True), X),  # as gradients are clipped
    ("reductions.logsumexp", out("r"), RN),
    ("reductions.logsumexp_backward", OUT_RN, R, RN),
    ("reductions.softmax", OUT_RN, RN),
    ("reductions.softmax_backward", OUT_RN, RN, unit("rN")),
    ("reductions.max", out("r"), RN),
    ("reductions.max_backward", OUT_RN, R, RN),
    ("dense.matmul", out("mn"), Array("mk"), Array("kn")),
    ("dense.matmul", out("bmn"), Array("bmk"), Array("bkn")),
    ("dense.matmul_tn", out("mn"), Array("km"), Array("kn")),
    ("dense.matmul_tn", out("bmn"), Array("bkm"), Array("bkn")),
    ("dense.matmul_nt", out("mn"), Array("mk"), Array("nk")),
    ("dense.matmul_nt", out("bmn"), Array("bmk"), Array("bnk")),
    *(("dense.dense_forward", out("ro"), Array("ri"), Array("io"), Array("o"), name) for name in ACTIVATIONS),
    *(
        ("dense.dense_activation_backward", out("ro"), out("o"), Array("ro"), Array("ro", -1.0, 1.0), name)
        for name in ACTIVATIONS
    ),
    *(("dense.bias_activation", Array("ro", role="state"), Array("o"), name) for name in ACTIVATIONS),
    *(("conv.conv2d", out(y), Array(x), Array(w), *window) for x, w, y, *window in CONVOLUTIONS),
    *(("conv.conv2d_input", out(x), Array(y), Array(w), *window) for x, w, y, *window in CONVOLUTIONS),
    *(("conv.conv2d_weight", out(w), Array(x), Array(y), *window) for x, w, y, *window in CONVOLUTIONS),
    *(("pooling.sum_pool2d", out(y), Array(x), *window, 0.3) for x, y, *window in POOLS),
    *(("pooling.sum_pool2d_backward", out(x), Array(y), *window, 0.3) for x, y, *window in POOLS),
    *(("pooling.max_pool2d", out(y), Array(x), *window) for x, y, *window in POOLS),
    *(("pooling.max_pool2d_backward", out(x), Array(y), Array(x), *window) for x, y, *window in POOLS),
    ("normalization.batch_moments", out("n"), out("n"), Array("Nn")),
    ("normalization.batch_norm", out("bn"), out("bn"), Array("bn"), X, POSITIVE, X, X, 0.1),
    ("normalization.batch_norm_backward", out("Nn"), OUT, OUT, Array("Nn"), Array("Nn"), POSITIVE, X, 0.1),
    ("losses.bce_with_logits", OUT_B, BD, unit("bd")),
    ("losses.bce_with_logits_backward", OUT_BD, B, BD, unit("bd")),
    ("losses.gaussian_nll", OUT_B, BD, BD, BD),
    ("losses.gaussian_nll_backward", OUT_BD, OUT_BD, OUT_BD, B, BD, BD, BD),
    *(("losses.gaussian_nll_fixed", OUT_B, BD, BD, sigma) for sigma in (0.7, 2.5)),
    *(("losses.gaussian_nll_fixed_backward", OUT_BD, B, BD, BD, sigma) for sigma in (0.7, 2.5)),
    ("losses.squared_error", OUT_B, BD, BD),
    ("losses.squared_error_backward", OUT_BD, B, BD, BD),
    ("losses.softmax_cross_entropy", out("r"), RN, LABELS),
    ("losses.softmax_cross_entropy_backward", OUT_RN, R, RN, LABELS),
    ("losses.kl_standard_normal", OUT_B, BD, BD),
    ("losses.kl_standard_normal_backward", OUT_BD, OUT_BD, B, BD, BD),
    ("optimizers.sgd_step", STATE, STATE, X, RATES, GUARD, False),
    ("optimizers.sgd_step", STATE, STATE, X, RATES, GUARD, True),
    ("optimizers.rmsprop_step", STATE, POSITIVE_STATE, X, RATES, GUARD, 0.9, 1e-8),
    ("optimizers.adagrad_step", STATE, POSITIVE_STATE, X, RATES, GUARD, 1e-8),
    ("optimizers.adam_step", STATE, STATE, POSITIVE_STATE, X, RATES, GUARD, 0.9, 0.999, 1e-8),
    ("optimizers.average_step", STATE, X, unit("1")),
    ("random.uniform", OUT, 2**62 + 2**40 + 3),
    ("random.normal", OUT, 2**62 + 2**40 + 3),
    ("random.binary_units", out("ro"), out("ro"), Array("ro"), Array("o"), 2**62 + 2**40 + 3),
]


def kernel(kernel_set, name):
    module, function = name.split(".")
    return getattr(getattr(kernel_set, module), function)


def assert_close(actual, expected, dtype, longest=19):
    """Compare within ``TOLERANCE``, for sums of up to ``longest`` products of numbers up to 3; NaN is a difference."""
    assert np.isfinite(expected).all()
    scale = np.abs(expected).max(initial=1.0)
    np.testing.assert_allclose(actual, expected, rtol=0, atol=TOLERANCE[dtype] * scale * longest / 19)


def in_float64(value):
    return value.astype(np.float64) if isinstance(value, np.ndarray) and value.dtype == np.float32 else value


@both_dtypes
@pytest.mark.parametrize("case", CASES, ids=lambda case: "-".join(str(a) for a in case if not isinstance(a, Array)))
@given(sizes=st.fixed_dictionaries(dict.fromkeys("bdikmnor", SIZES)), size=st.integers(1, 19), data=st.data())
def test_kernels_agree_between_cpu_and_reference(case, dtype, sizes, size, data):
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32 - 1)))
    coarse, scale = data.draw(st.booleans()), data.draw(SCALES)
    assert_sets_agree(case, dtype, sizes | {"N": size}, rng, coarse, scale)


@both_dtypes
@pytest.mark.parametrize("case", CASES, ids=lambda case: "-".join(str(a) for a in case if not isinstance(a, Array)))
def test_kernels_agree_along_a_long_dimension(case, dtype):
    rng = np.random.default_rng(0)
    dims = {dim for spec in case if isinstance(spec, Array) for dim in spec.dims if not dim.isdigit()}
    for long, size in product(sorted(dims), LONG):
        assert_sets_agree(case, dtype, dict.fromkeys(dims, 3) | {long: size}, rng)


def assert_sets_agree(case, dtype, sizes, rng, coarse=False, scale=1):
    """A kernel of ``cpu`` computes what its definition in float64 does, and neither writes into an input."""
    name, *specs = case
    drawn = [s.draw(rng, sizes, dtype, coarse, scale) if isinstance(s, Array) else s for s in specs]
    before = [in_float64(np.copy(a)) if isinstance(a, np.ndarray) else a for a in drawn]
    expected = [np.copy(a) if isinstance(a, np.ndarray) else a for a in before]

    kernel(cpu, name)(*drawn)
    kernel(reference, name)(*expected)

    for spec, was, actual, wanted in zip(specs, before, drawn, expected, strict=True):
        if isinstance(spec, Array) and spec.role == "input":
            np.testing.assert_array_equal(actual, was, "cpu writes into an input")
            np.testing.assert_array_equal(wanted, was, "reference writes into an input")
        elif isinstance(spec, Array):
            assert_close(actual, wanted, dtype, max([19, *sizes.values()]) * max(1, scale) ** 2)


# name: how many moments there are, the rates of a step, whether a guard follows, the scalars
STEPS = {
    "sgd_step": (1, lambda step: [0.1, 0.9], True, (True,)),
    "rmsprop_step": (1, lambda step: [0.01], True, (0.9, 1e-8)),
    "adagrad_step": (1, lambda step: [0.1], True, (1e-8,)),
    "average_step": (0, lambda step: [0.9], False, ()),
    "adam_step": (2, lambda step: [0.01 / (1 - 0.9**step), 1 / (1 - 0.999**step)], True, (0.9, 0.999, 1e-8)),
}


@both_dtypes
@pytest.mark.parametrize("name", STEPS)
def test_optimizers_agree_over_many_steps(name, dtype):
    rng = np.random.default_rng(0)
    moments, rates_of, guarded, scalars = STEPS[name]
    states = [np.asarray(rng.normal(size=37), dtype), *(np.zeros(37, dtype) for _ in range(moments))]
    expected = [state.astype(np.float64) for state in states]
    for step in range(1, 31):
        grad = np.asarray(rng.normal(size=37), dtype)
        grad[0] = 0  # a parameter that no example touches
        rates = np.array(rates_of(step), dtype)
        inputs = [grad, rates, np.zeros(1)][: 2 + guarded]
        getattr(cpu.optimizers, name)(*states, *inputs, *scalars)
        getattr(reference.optimizers, name)(*expected, *(x.astype(np.float64) for x in inputs), *scalars)
    for actual, wanted in zip(states, expected, strict=True):
        assert_close(actual, wanted, dtype)


@pytest.mark.parametrize("kernel_set", [cpu, reference], ids=["cpu", "reference"])
@pytest.mark.parametrize("name", [name for name, (_, _, guarded, _) in STEPS.items() if guarded])
def test_optimizers_update_nothing_where_the_guard_is_not_finite(name, kernel_set):
    assert_guarded(kernel_set, name)


def assert_guarded(kernel_set, name, size=37):
    """A step of the parameters changes all of them, or with NaN or infinity anywhere in the guard, nothing."""
    rng, (moments, rates, _, scalars) = np.random.default_rng(0), STEPS[name]
    to_device, to_host = kernel_set.memory.to_device, kernel_set.memory.to_host
    begin = [rng.random(size, np.float32) for _ in range(1 + moments)]
    for guard in ([1, 2], [np.nan, 1], [1, np.inf], [1, -np.inf]):
        states = [to_device(state.copy()) for state in begin]
        inputs = rng.random(size, np.float32), np.array(rates(1), np.float32), np.array(guard, np.float64)
        getattr(kernel_set.optimizers, name)(*states, *map(to_device, inputs), *scalars)
        for state, was in zip(states, begin, strict=True):
            assert (to_host(state) != was).all() == (to_host(state) != was).any() == np.isfinite(guard).all()


LONG_SUMS = ["reductions.sum_axis", "dense.dense_activation_backward", "normalization.batch_norm_backward"]


@pytest.mark.parametrize("kernel_set", [cpu, reference], ids=["cpu", "reference"])
@pytest.mark.parametrize("name", LONG_SUMS)
def test_long_sums_do_not_add_up_their_rounding(name, kernel_set):
    """Down a first axis of 300,000 rows, in float32, to 1e-6: one after the other they would round to 1e-5."""
    rng, rows = np.random.default_rng(0), 300_000
    x, y = rng.random((2, rows, 3), np.float32)
    sums, others, dx, ones = np.empty(3, np.float32), np.empty(3, np.float32), np.empty_like(x), np.ones(3, np.float32)
    compute, found = kernel(kernel_set, name), [(sums, x)]
    if name == "reductions.sum_axis":
        compute(sums.reshape(1, 3), x.reshape(1, rows, 3))
        end_to_end = np.empty((1, 1), np.float32)
        compute(end_to_end, x.reshape(1, 3 * rows, 1))
        found.append((end_to_end[0, 0], x.reshape(-1)))
    elif name == "dense.dense_activation_backward":
        compute(dx, sums, x, y, "relu")
        column, its_sum = x[:, :1].copy(), np.empty(1, np.float32)
        compute(np.empty_like(column), its_sum, column, column, "relu")
        found.append((its_sum, column))
    else:
        compute(dx, others, sums, x, y, ones, ones, 1e-5)
        found.append((others, x * y))
    for actual, terms in found:
        np.testing.assert_allclose(actual, terms.sum(0, dtype=np.float64), rtol=2e-6)


@pytest.mark.parametrize("activation", ["identity", "sigmoid"])
def test_one_long_column_agrees_with_the_reference(activation):
    x, dout = np.random.default_rng(0).standard_normal((2, 3000, 1), np.float32)
    sets, found = (cpu, reference), []
    for kernel_set, dtype in zip(sets, (np.float32, np.float64), strict=True):
        out, dpre, db = x.astype(dtype), np.empty_like(x, dtype), np.empty(1, dtype)
        kernel_set.dense.bias_activation(out, np.full(1, 0.3, dtype), activation)
        kernel_set.dense.dense_activation_backward(dpre, db, dout.astype(dtype), out, activation)
        found.append((out, dpre, db))
    for actual, wanted in zip(*found, strict=True):
        assert_close(actual, wanted, np.float32)


@pytest.mark.parametrize("kernel_set", [cpu, reference], ids=["cpu", "reference"])
@pytest.mark.parametrize("size", [0, 1, 2**15, 100_001])
def test_sum_squares_leaves_nothing_out(kernel_set, size):
    x, out = np.random.default_rng(0).standard_normal(size, np.float32), np.empty(1)
    kernel_set.reductions.sum_squares(out, x)
    assert out[0] == pytest.approx(math.fsum(x.astype(float) ** 2), rel=1e-12)


@pytest.mark.parametrize("kernel_set", [cpu, reference], ids=["cpu", "reference"])
def test_gaussian_nll_adds_its_constant_once(kernel_set):
    """Of 50,000 features: a constant rounds the same way every time that it is added."""
    mean, logvar, x = np.random.default_rng(0).random((3, 2, 50_000), np.float32)
    out, expected = np.empty(2, np.float32), np.empty(2)
    kernel_set.losses.gaussian_nll(out, mean, logvar, x)
    reference.losses.gaussian_nll(expected, *map(in_float64, (mean, logvar, x)))
    np.testing.assert_allclose(out, expected, rtol=2e-6)


def assert_moments(kernel_set, rows, offset):
    """Mean and variance in float32 are exact, but for the digits that the offset takes from the mean."""
    x = (offset + np.random.default_rng(0).standard_normal((rows, 3))).astype(np.float32)
    mean, variance = (kernel_set.memory.to_device(np.empty(3, np.float32)) for _ in range(2))
    kernel_set.normalization.batch_moments(mean, variance, kernel_set.memory.to_device(x))
    exact = x.astype(np.float64)
    np.testing.assert_allclose(kernel_set.memory.to_host(mean), exact.mean(0), rtol=1e-7, atol=1e-6)
    np.testing.assert_allclose(kernel_set.memory.to_host(variance), exact.var(0), rtol=3e-6)


@pytest.mark.parametrize("kernel_set", [cpu, reference], ids=["cpu", "reference"])
@pytest.mark.parametrize(("rows", "offset"), [(128, 0), (128, 1e4), (300_000, 0), (300_000, 1e4)])
def test_batch_moments_of_many_rows_and_far_from_zero(rows, offset, kernel_set):
    assert_moments(kernel_set, rows, offset)


@pytest.mark.parametrize("kernel_set", [cpu, reference], ids=["cpu", "reference"])
@pytest.mark.parametrize("rows", [2, 3, 129, 2000])
def test_batch_moments_of_a_constant(rows, kernel_set):
    mean, variance = np.empty((2, 2), np.float32)
    kernel_set.normalization.batch_moments(mean, variance, np.full((rows, 2), (0.1, 12345.67), np.float32))
    np.testing.assert_array_equal(mean, np.array([0.1, 12345.67], np.float32))
    np.testing.assert_array_less(variance, 1e-12)
    assert (variance >= 0).all()


# What ties, infinities and NaN give is a convention, the same in every set: a kernel, what it writes, its arguments.
NAN, INF = np.nan, np.inf
PAIRS = [1, 3, INF, -INF, NAN, 1, NAN], [2, 3, INF, -INF, 1, NAN, NAN]
EDGES = [-INF, -2, -1, 0, 2, 3, INF, NAN]
TIED = [[1, 3, 3], [NAN, 5, 1], [5, NAN, NAN], [-INF, -INF, -INF]]
UNBOUNDED = [[-INF, -INF], [0, INF], [-INF, 3], [0, NAN]]
CLOSE = [[1e4, 1e4 - 1, 1e4 - 9]]
# An image (1,2,8,1) of four windows, and the gradients of their maxima.
IMAGE = [[[[n] for n in row] for row in ([1, 3, NAN, 5, -INF, -INF, 5, NAN], [3, 2, 5, NAN, -INF, -INF, NAN, 1])]]
FIRST = [[[[n] for n in row] for row in ([0, 4, 5, 0, 6, 0, 0, 7], [0, 0, 0, 0, 0, 0, 0, 0])]]
PINNED: list[tuple[Any, ...]] = [
    ("elementwise.where", [[5, INF, 7]], [1, 0, 1], [5, NAN, 7], [NAN, INF, -INF]),
    ("elementwise.where_backward", [[INF, 0, 2], [0, NAN, 0]], [INF, NAN, 2], [1, 0, 1]),
    ("elementwise.maximum", [[2, 3, INF, -INF, NAN, NAN, NAN]], *PAIRS),
    ("elementwise.maximum_backward", [[0, 2, 2, 2, 4, 4, 4], [4, 2, 2, 2, 4, 4, 4]], [4] * 7, *PAIRS),
    ("elementwise.clip", [[-1, -1, -1, 0, 2, 2, 2, NAN]], EDGES, -1.0, 2.0),
    ("elementwise.clip_backward", [[0, 0, 4, 4, 4, 0, 0, 0]], [4] * 8, EDGES, -1.0, 2.0),
    ("elementwise.relu_backward", [[0, 0, 0, 0, 4, 4, 4, 0]], [4] * 8, EDGES),
    ("reductions.max", [[3, NAN, NAN, -INF]], TIED),
    ("reductions.max_backward", [[[0, 4, 0], [5, 0, 0], [0, 6, 0], [7, 0, 0]]], [4, 5, 6, 7], TIED),
    ("pooling.max_pool2d", [[[[[3], [NAN], [-INF], [NAN]]]]], IMAGE, (2, 2), (2, 2)),
    ("pooling.max_pool2d_backward", [FIRST], [[[[4], [5], [6], [7]]]], IMAGE, (2, 2), (2, 2)),
    ("reductions.logsumexp", [[-INF, INF, 3, NAN]], UNBOUNDED),
    ("reductions.logsumexp_backward", [[[0, 0], [0, NAN], [0, 4], [NAN, NAN]]], [4] * 4, UNBOUNDED),
    ("reductions.logsumexp_backward", [[[0.730992629, 0.268917160, 9.02116571e-5]]], [1], CLOSE),
    ("reductions.softmax", [[[NAN, NAN], [NAN, NAN], [0, 1], [NAN, NAN]]], UNBOUNDED),
    ("losses.softmax_cross_entropy", [[1.3133519032]], CLOSE, np.array([1])),
    ("losses.bce_with_logits", [[4.539889922e-5, 10.000045399, 0]], [[10], [10], [1e4]], [[1], [0], [1]]),
    ("elementwise.gelu", [[-7.619853024e-23, 0, 1e4]], [-10, 0, 1e4]),
]


def assert_pinned(kernel_set, name, expected, *arguments, dtype):
    """The kernel writes what is expected; a few last bits aside, where it is no whole number."""
    to_device, to_host = kernel_set.memory.to_device, kernel_set.memory.to_host
    given = [to_device(np.array(a, dtype)) if isinstance(a, list) else a for a in arguments]
    given = [to_device(a) if isinstance(a, np.ndarray) else a for a in given]
    written = [to_device(np.full(np.shape(value), 7, dtype)) for value in expected]
    with np.errstate(all="ignore"):
        kernel(kernel_set, name)(*written, *given)
    for actual, value in zip(written, expected, strict=True):
        np.testing.assert_allclose(to_host(actual), value, rtol=1e-6)


@both_dtypes
@pytest.mark.parametrize("kernel_set", [cpu, reference], ids=["cpu", "reference"])
@pytest.mark.parametrize("case", PINNED, ids=lambda case: case[0])
def test_kernel_keeps_the_conventions(case, kernel_set, dtype):
    assert_pinned(kernel_set, *case, dtype=dtype)


@pytest.mark.parametrize("name", ["losses.bce_with_logits", "losses.softmax_cross_entropy"])
def test_losses_in_float32_of_large_logits_are_those_of_float64(name):
    rng = np.random.default_rng(0)
    logits = rng.uniform(-1e4, 1e4, (5, 40)).astype(np.float32)
    targets = rng.integers(0, 2, logits.shape) if "bce" in name else rng.integers(0, 40, 5)
    single = targets.astype(np.float32) if "bce" in name else targets
    dout = rng.standard_normal(5).astype(np.float32)
    for suffix, shape, extra in (("", 5, ()), ("_backward", (5, 40), (dout,))):
        actual, expected = np.full(shape, np.nan, np.float32), np.full(shape, np.nan)
        kernel(cpu, name + suffix)(actual, *extra, logits, single)
        kernel(reference, name + suffix)(expected, *map(in_float64, extra), in_float64(logits), targets)
        assert_close(actual, expected, np.float32)


@both_dtypes
@pytest.mark.parametrize("size", [67, 1030])
def test_softmax_kernels_find_the_largest_element_anywhere_in_a_row(dtype, size):
    """Elsewhere e^(x - largest) would overflow."""
    x = np.zeros((2, size), dtype)
    x[0, -1] = x[1, size // 2] = 1e4
    labels, dout = np.array([size - 1, 0]), np.ones(2, dtype)
    for name, output, *arguments in (
        ("reductions.logsumexp", (2,), x),
        ("reductions.softmax", x.shape, x),
        ("losses.softmax_cross_entropy", (2,), x, labels),
        ("losses.softmax_cross_entropy_backward", x.shape, dout, x, labels),
    ):
        actual, expected = np.full(output, np.nan, dtype), np.full(output, np.nan)
        kernel(cpu, name)(actual, *arguments)
        kernel(reference, name)(expected, *map(in_float64, arguments))
        assert_close(actual, expected, dtype)


@both_dtypes
def test_batch_moments_of_data_far_from_zero(dtype):
    """An offset of a thousand standard deviations costs at most three digits of the variance."""
    x = (1000 + np.random.default_rng(0).standard_normal((50, 7))).astype(dtype)
    for kernel_set in (cpu, reference):
        mean, variance = np.empty((2, 7), dtype)
        kernel_set.normalization.batch_moments(mean, variance, x)
        np.testing.assert_allclose(variance, in_float64(x).var(0), rtol=2000 * np.finfo(dtype).eps)


@pytest.mark.parametrize("kernel_set", [cpu, reference], ids=["cpu", "reference"])
@both_dtypes
def test_max_gives_the_gradient_to_the_first_of_equal_maxima(kernel_set, dtype):
    x = np.array([[1, 3, 3, 2], [0, 0, 0, 0], [-1, -2, -2, -1], [5, 4, 4, 5]], dtype)
    dx, dout = np.full(x.shape, np.nan, dtype), np.array([1, -2, 3, 4], dtype)
    kernel_set.reductions.max_backward(dx, dout, x)
    np.testing.assert_array_equal(dx, [[0, 1, 0, 0], [-2, 0, 0, 0], [3, 0, 0, 0], [4, 0, 0, 0]])


@pytest.mark.parametrize("kernel_set", [cpu, reference], ids=["cpu", "reference"])
@both_dtypes
def test_dropout_keeps_and_bernoulli_drops_a_number_on_the_boundary(kernel_set, dtype):
    mask, draw = np.empty((2, 3), dtype)
    kernel_set.elementwise.dropout_mask(mask, np.array([0.1, 0.25, 0.3], dtype), 0.25)
    np.testing.assert_allclose(mask, [0, 4 / 3, 4 / 3], rtol=1e-6)
    kernel_set.elementwise.bernoulli(draw, np.array([0, 0.25, 1], dtype), np.array([0, 0.25, 0.9], dtype))
    np.testing.assert_array_equal(draw, [0, 0, 1])


# ---- the two packages ----


def public_kernels(kernel_set):
    """The functions that the files of a set define, by their dotted names."""
    return {
        f"{module}.{name}": getattr(function, "py_func", function)
        for module in kernel_set.__all__
        if module != "memory"  # no kernels: where they write
        for name, function in vars(getattr(kernel_set, module)).items()
        if not name.startswith("_") and getattr(function, "__module__", "") == f"{kernel_set.__name__}.{module}"
    }


def test_kernel_sets_hold_the_same_files():
    for name, kernel_set in kernels.SETS.items():
        files = {file.stem for file in Path(kernel_set.__file__).parent.glob("*.py")}
        assert set(kernel_set.__all__) == set(reference.__all__) == files - NOT_KERNELS, name


def test_kernel_sets_hold_the_same_functions_and_arguments():
    wanted = {name: list(inspect.signature(f).parameters) for name, f in public_kernels(reference).items()}
    for kernel_set in kernels.SETS.values():
        found = {name: list(inspect.signature(f).parameters) for name, f in public_kernels(kernel_set).items()}
        assert found == wanted, kernel_set.__name__


def test_cases_include_every_kernel():
    assert {name for name, *_ in CASES} == set(public_kernels(reference))
    assert {f"optimizers.{name}" for name in STEPS} == {n for n in public_kernels(reference) if "optimizers" in n}


def test_cases_give_every_argument_with_outputs_first():
    for name, *specs in CASES:
        assert len(specs) == len(inspect.signature(kernel(reference, name)).parameters), name
        written = [isinstance(spec, Array) and spec.role != "input" for spec in specs]
        assert any(written), name
        assert written == sorted(written, reverse=True), name


# ---- the choice ----


def test_active_is_cpu_by_default():
    assert kernels.active() is cpu


def test_use_nests_and_restores():
    with kernels.use("reference"):
        assert kernels.active() is reference
        with kernels.use("cpu"):
            assert kernels.active() is cpu
        assert kernels.active() is reference
    assert kernels.active() is cpu


def test_use_takes_a_set_itself():
    other = ModuleType("other")
    with kernels.use(other):
        assert kernels.active() is other
    assert kernels.active() is cpu


def test_use_restores_after_an_exception():
    with pytest.raises(ZeroDivisionError), kernels.use("reference"):
        1 / 0  # noqa: B018
    assert kernels.active() is cpu


def test_use_refuses_a_set_that_is_not_there():
    with pytest.raises(ValueError, match="no kernel set 'gpu'; choose from cpu, reference, cuda"), kernels.use("gpu"):
        pass
    assert kernels.active() is cpu


def test_find_says_what_cuda_is_missing(monkeypatch):
    monkeypatch.delitem(kernels.SETS, "cuda", raising=False)
    monkeypatch.setattr(kernels, "find_spec", lambda name: None)
    with pytest.raises(kernels.Unavailable, match=r"^the kernel set cuda needs numba-cuda: pip install .*$"):
        kernels.find("cuda")
    assert "cuda" not in kernels.SETS


def test_memory_of_cpu_and_reference_works_on_numpy_arrays():
    for kernel_set in (cpu, reference):
        x = np.arange(6.0).reshape(2, 3)
        memory = kernel_set.memory
        assert memory.to_device(x) is x
        assert memory.to_host(x) is x
        copied = memory.copied(x.T)
        assert copied.flags.c_contiguous
        assert not np.shares_memory(copied, x)
        np.testing.assert_array_equal(copied, x.T)
        out = np.full((3, 3), np.nan)
        memory.rows(out, x, np.array([1, 0, 1]))
        np.testing.assert_array_equal(out, x[[1, 0, 1]])
        memory.add_at(x, np.array([0, 0]), np.ones((2, 3)))
        np.testing.assert_array_equal(x, [[2, 3, 4], [3, 4, 5]])


@pytest.mark.parametrize("kernel_set", [cpu, reference], ids=["cpu", "reference"])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_softmax_cross_entropy_is_nan_for_labels_out_of_range(kernel_set, dtype):
    """A replayed step does not look at its labels before: they must do no harm."""
    labels, logits = np.array([-1, 1, 3, 10**6, -(10**6)]), np.ones((5, 3), dtype)
    out, fenced = np.zeros(5, dtype), np.full((7, 3), 7, dtype)
    kernel_set.losses.softmax_cross_entropy(out, logits, labels)
    np.testing.assert_array_equal(np.isnan(out), [True, False, True, True, True])
    assert out[1] == pytest.approx(np.log(3), rel=1e-6)
    kernel_set.losses.softmax_cross_entropy_backward(fenced[1:6], np.ones(5, dtype), logits, labels)
    np.testing.assert_allclose(fenced[[1, 3, 4, 5]], 1 / 3, rtol=1e-6)
    np.testing.assert_allclose(fenced[2], [1 / 3, -2 / 3, 1 / 3], rtol=1e-6)
    assert (fenced[[0, 6]] == 7).all()
