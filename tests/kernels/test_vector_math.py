"""The functions inside the loops of ``cpu``: how exact they are, their edges, and that the loops vectorise."""

import re

import numpy as np
import pytest
from llvmlite.binding import get_host_cpu_features
from numba import njit, typeof

from kernels.cpu import dense, elementwise, losses, optimizers, reductions
from kernels.cpu import vector_math as vm

# Compiled anew each time: Numba's cache would not see an edit of vector_math, and shows no assembly of what it loads.
JIT = {**vm.JIT, "cache": False}
TINY = np.finfo(np.float32).tiny  # 1.2e-38, the smallest number that is not denormal
LOWEST, HIGHEST = -87.3, 88.3  # beyond, exp is 0 (not denormal) and inf (from 88.4, where the true one is 2.4e38)
HUGE = np.finfo(np.float32).max


@njit(**JIT)
def exp(out, x):
    for i in range(x.size):
        out[i] = vm.exp(x[i])


@njit(**JIT)
def log(out, x):
    for i in range(x.size):
        out[i] = vm.log(x[i])


@njit(**JIT)
def log1p_unit(out, x):
    for i in range(x.size):
        out[i] = vm.log1p_unit(x[i])


@njit(**JIT)
def expm1(out, x):
    for i in range(x.size):
        out[i] = vm.expm1(x[i])


@njit(**JIT)
def tanh(out, x):
    for i in range(x.size):
        out[i] = vm.tanh(x[i])


@njit(**JIT)
def sigmoid(out, x):
    for i in range(x.size):
        out[i] = vm.sigmoid(x[i])


@njit(**JIT)
def softplus(out, x):
    for i in range(x.size):
        out[i] = vm.softplus(x[i])


# loop: (NumPy's function, lower and upper end of the domain on which it is exact)
FUNCTIONS = {
    exp: (np.exp, LOWEST, HIGHEST),
    log: (np.log, TINY, HUGE),
    log1p_unit: (np.log1p, 0.0, 1.0),
    expm1: (np.expm1, -HUGE, HIGHEST),
    tanh: (np.tanh, -HUGE, HUGE),
    sigmoid: (lambda x: 1 / (1 + np.exp(-x)), LOWEST, HUGE),
    softplus: (lambda x: np.logaddexp(0, x), LOWEST, HUGE),
}
every_function = pytest.mark.parametrize("function", FUNCTIONS, ids=lambda loop: loop.__name__)


def grid(low, high, step):
    """Every ``step``-th float32 from low to high and both ends, denormals aside: as dense near 0 as the floats are."""
    magnitudes = np.arange(TINY.view(np.int32), np.float32(HUGE).view(np.int32), step, np.int32).view(np.float32)
    ends = np.array([low, 0, high], np.float32)
    x = np.unique(np.concatenate([-magnitudes, magnitudes, ends]))
    return x[(x >= np.float32(low)) & (x <= np.float32(high))]


def values(function, x):
    out = np.full_like(x, 7)
    function(out, x)
    return out


@every_function
def test_vector_math_in_float32_is_exact_to_a_few_roundings(function):
    exact, low, high = FUNCTIONS[function]
    rtol = {exp: 1e-7, log: 1.2e-7}.get(function, 2.5e-7)  # a rounding is 6e-8
    x = grid(low, high, 8009)
    with np.errstate(over="ignore"):  # sigmoid's e^-x, harmless
        expected = exact(x.astype(np.float64))
    actual = values(function, x)
    assert x.size > 1e5
    np.testing.assert_allclose(actual, expected, rtol=rtol, atol=0)


@every_function
def test_vector_math_in_float64_is_exact(function):
    exact, low, high = FUNCTIONS[function]
    x = grid(low, high, 20011).astype(np.float64)
    with np.errstate(over="ignore"):
        np.testing.assert_allclose(values(function, x), exact(x), rtol=1e-15, atol=0)


@every_function
def test_vector_math_is_monotone(function):
    """Nothing falls by more than one rounding, not where the pieces of a function meet either."""
    _, low, high = FUNCTIONS[function]
    y = values(function, grid(low, high, 4001))
    assert (np.diff(y) >= -np.finfo(np.float32).eps * np.abs(y[1:])).all()


EDGES = np.array([np.nan, np.inf, -np.inf, 0.0, -0.0, 1e-45, -1e-45, 1e-39, -1e-39, HUGE, -HUGE], np.float32)


@every_function
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_vector_math_handles_edges_as_numpy_does(function, dtype):
    """NaN, infinities, zeros, denormals and the largest numbers come out as in NumPy."""
    x = EDGES.astype(dtype)
    if function is log1p_unit:
        x = x[np.isnan(x) | ((x >= 0) & (x <= 1))]  # nobody asks beyond
    with np.errstate(all="ignore"):
        expected = FUNCTIONS[function][0](x)
    np.testing.assert_allclose(values(function, x), expected, rtol=2.5e-7, atol=0)


@every_function
def test_vector_math_keeps_nan_in_every_lane(function):
    for position in range(37):
        x = np.full(37, 0.5, np.float32)
        x[position] = np.nan
        np.testing.assert_array_equal(np.isnan(values(function, x)), np.isnan(x))


def test_exp_is_zero_instead_of_denormal_and_infinite_a_little_early():
    x = np.array([-87.34, -90, -103, -1e4, 88.4, 88.72, 88.8, 1e4], np.float32)
    np.testing.assert_array_equal(values(exp, x), [0, 0, 0, 0, *[np.inf] * 4])


def test_log_of_a_negative_number_is_nan():
    x = np.array([-1e-39, -1, -HUGE, -np.inf], np.float32)
    assert np.isnan(values(log, x)).all()


def test_sigmoid_and_tanh_stay_within_their_bounds():
    x = grid(-HUGE, HUGE, 8009)
    assert 0 <= values(sigmoid, x).min() < values(sigmoid, x).max() <= 1
    assert -1 <= values(tanh, x).min() < values(tanh, x).max() <= 1


@njit(**JIT)
def sin_cos_of_turns(sine, cosine, v):
    for i in range(v.size):
        sine[i], cosine[i] = vm.sin_cos_of_turns(v[i])


@pytest.mark.parametrize(("dtype", "error"), [(np.float32, 1.5e-7), (np.float64, 1e-15)])
def test_sine_and_cosine_of_turns_are_exact_to_a_rounding_or_two(dtype, error):
    """At the numbers that a uniform draw can give, every 61st and those beside an eighth, quarter, ... of a turn."""
    eighths = np.arange(9) * 2**21
    v = np.unique(np.concatenate([np.arange(0, 2**24, 61), eighths, eighths[:-1] + 1, eighths[1:] - 1])) * 2.0**-24
    sine, cosine = np.full((2, v.size), 7, dtype)
    sin_cos_of_turns(sine, cosine, v.astype(dtype))
    np.testing.assert_allclose(sine, np.sin(2 * np.pi * v), rtol=0, atol=error)
    np.testing.assert_allclose(cosine, np.cos(2 * np.pi * v), rtol=0, atol=error)


# ---- vectorisation ----

PACKED = re.compile(r"\bv(add|sub|mul|sqrt|max|f\w+)ps\s.*%[yz]mm")  # arithmetic on 8 or 16 float32 at once
CALL = re.compile(r"\$\w*?(exp|expm1|log|log1p|tanh|sin|cos)f?,")  # the address of a function of one number
LOOPS = {  # kernel: the dimensions of its float32 arrays
    **dict.fromkeys(FUNCTIONS, (1, 1)),
    sin_cos_of_turns: (1, 1, 1),
    elementwise.multiply: (1, 1, 1),
    elementwise.sqrt: (1, 1),
    elementwise.relu: (1, 1),
    elementwise.reparameterize: (1, 1, 1, 1),
    reductions.softmax: (2, 2),
    dense._bias_elu: (2, 1),
    dense._back_softplus: (2, 1, 2, 2),
    losses.bce_with_logits: (1, 2, 2),
    losses.gaussian_nll: (1, 2, 2, 2),
    losses.kl_standard_normal_backward: (2, 2, 1, 2, 2),
    optimizers.adam_step: (1, 1, 1, 1, 1, 1),
}


@pytest.mark.skipif(not get_host_cpu_features().get("avx"), reason="knows the instructions of AVX alone")
@pytest.mark.parametrize("loop", LOOPS, ids=lambda loop: loop.__name__)
def test_kernel_loops_vectorise(loop):
    fresh = loop if loop in FUNCTIONS else njit(**JIT)(loop.py_func)
    scalars = (0.9, 0.999, 1e-8) if loop is optimizers.adam_step else ()
    arrays = [np.ones((9,) * ndim, np.float32) for ndim in LOOPS[loop]]
    if loop is optimizers.adam_step:
        arrays[-1] = np.ones(9)  # a guard
    arguments = (*arrays, *scalars)
    fresh(*arguments)
    assembly = fresh.inspect_asm(tuple(map(typeof, arguments)))
    assert PACKED.search(assembly), "one number at a time"
    assert not CALL.search(assembly), "a call in the loop"
    assert "vcvtps2pd" not in assembly, "float32 becomes float64 in the loop"
