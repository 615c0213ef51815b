"""Every kernel of the set ``cuda`` against the definition: the cases of ``tests/kernels/test_sets.py``, few sizes each.

The sizes leave remainders everywhere and pass a tile, a block, and in one dimension 1,024 numbers.
"""

import zlib

import numpy as np
import pytest

pytest.importorskip("numba_cuda", reason="there are no CUDA kernels to test, for numba-cuda is not installed")

import kernels.cuda
from kernels import reference
from kernels.cuda.device import SIMULATED, cuda
from kernels.cuda.memory import to_device, to_host
from tests.kernels.test_sets import (
    CASES,
    PINNED,
    STEPS,
    Array,
    assert_close,
    assert_guarded,
    assert_moments,
    assert_pinned,
    both_dtypes,
    in_float64,
    kernel,
)

pytestmark = pytest.mark.skipif(
    not (SIMULATED or cuda.is_available()), reason="there is no GPU; the simulated run has these tests"
)
DIMS = "bdikmnorN"
FEW = dict(zip(DIMS, (3, 11, 9, 7, 10, 13, 6, 5, 5), strict=True))
LONG = 1027
# The dimensions that a case may have past 1,024 numbers, one at a time; products have theirs in test_cuda_products.py.
LONG_DIMS = "bdnoirN"
LONG_PARTNERS = dict(zip(DIMS, (2, 2, 3, 2, 2, 3, 2, 2, 2), strict=True))


def sizes_for(specs):
    """Dictionaries of sizes worth a run, for a case with these arguments."""
    used = "".join(dict.fromkeys(d for spec in specs if isinstance(spec, Array) for d in spec.dims if not d.isdigit()))
    yield {d: FEW[d] for d in used}
    yield dict.fromkeys(used, 1)
    yield {d: 1 if d == "N" else 0 for d in used}
    for empty in used:
        if empty != "N":
            yield {d: FEW[d] for d in used} | {empty: 0}
    if len(specs) == 2 and isinstance(specs[1], int):
        return  # random numbers: test_cuda_random.py has them long, against the reference in the same type
    if any(isinstance(spec, Array) and len(spec.dims) == 4 for spec in specs):
        pass  # images: their pixels go past the grid in FEW; convolutions have more sizes in test_cuda_conv.py
    elif "k" not in used and not ("i" in used and "r" in used):
        for long in used:
            yield {d: LONG_PARTNERS[d] for d in used} | {long: LONG}
    if not SIMULATED:
        yield {d: 3 if d in "bk" and "k" in used else 301 for d in used}


@both_dtypes
@pytest.mark.parametrize("case", CASES, ids=lambda case: "-".join(str(a) for a in case if not isinstance(a, Array)))
def test_kernel_agrees_with_the_definition(case, dtype):
    name, *specs = case
    rng = np.random.default_rng(zlib.crc32(name.encode()))
    for sizes in sizes_for(specs):
        for coarse in (False, True):
            drawn = [s.draw(rng, sizes, dtype, coarse) if isinstance(s, Array) else s for s in specs]
            before = [in_float64(np.copy(a)) if isinstance(a, np.ndarray) else a for a in drawn]
            expected = [np.copy(a) if isinstance(a, np.ndarray) else a for a in before]
            on_device = [to_device(a) if isinstance(a, np.ndarray) else a for a in drawn]

            kernel(kernels.cuda, name)(*on_device)
            kernel(reference, name)(*expected)

            for spec, was, array, wanted in zip(specs, before, on_device, expected, strict=True):
                if isinstance(spec, Array) and spec.role == "input":
                    np.testing.assert_array_equal(to_host(array), was, f"writes into an input, {sizes}")
                elif isinstance(spec, Array):
                    actual = to_host(array)
                    assert actual.dtype == array.dtype
                    assert_close(actual, wanted, dtype)
            if max(sizes.values()) == LONG:
                break


@both_dtypes
@pytest.mark.parametrize("name", STEPS)
def test_optimizers_agree_over_many_steps(name, dtype):
    rng = np.random.default_rng(0)
    moments, rates_of, guarded, scalars = STEPS[name]
    states = [np.asarray(rng.normal(size=37), dtype), *(np.zeros(37, dtype) for _ in range(moments))]
    expected = [state.astype(np.float64) for state in states]
    states = [to_device(state) for state in states]
    for step in range(1, 31):
        grad = np.asarray(rng.normal(size=37), dtype)
        grad[0] = 0
        inputs = [grad, np.array(rates_of(step), dtype), np.zeros(1)][: 2 + guarded]
        getattr(kernels.cuda.optimizers, name)(*states, *map(to_device, inputs), *scalars)
        getattr(reference.optimizers, name)(*expected, *(x.astype(np.float64) for x in inputs), *scalars)
    for actual, wanted in zip(states, expected, strict=True):
        assert_close(to_host(actual), wanted, dtype)


@pytest.mark.parametrize("name", [name for name, (_, _, guarded, _) in STEPS.items() if guarded])
def test_optimizers_update_nothing_where_the_guard_is_not_finite(name):
    assert_guarded(kernels.cuda, name, LONG)  # more than the grid has threads


@pytest.mark.parametrize(("rows", "offset"), [(128, 0), (128, 1e4), (LONG, 1e4)])
def test_batch_moments_of_many_rows_and_far_from_zero(rows, offset):
    assert_moments(kernels.cuda, rows, offset)


@both_dtypes
@pytest.mark.parametrize("case", PINNED, ids=lambda case: case[0])
def test_kernel_keeps_the_conventions(case, dtype):
    assert_pinned(kernels.cuda, *case, dtype=dtype)


@pytest.mark.parametrize("name", ["reductions.sum_axis", "reductions.sum_squares", "dense.dense_activation_backward"])
def test_kernels_give_the_same_bits_each_time(name):
    """Where several blocks share a sum."""
    rng = np.random.default_rng(0)
    shapes = {
        "reductions.sum_axis": [(2, 3), (2, LONG, 3)],
        "reductions.sum_squares": [(1,), (LONG,)],
        "dense.dense_activation_backward": [(LONG, 3), (3,), (LONG, 3), (LONG, 3)],
    }[name]
    arrays = [to_device(rng.standard_normal(shape).astype(np.float32)) for shape in shapes]
    extra = ["sigmoid"] if name.startswith("dense") else []
    found = []
    for _ in range(3):
        kernel(kernels.cuda, name)(*arrays, *extra)
        found.append([to_host(array) for array in arrays])
    for again in found[1:]:
        for first, other in zip(found[0], again, strict=True):
            np.testing.assert_array_equal(first, other)


@pytest.mark.parametrize("name", ["sigmoid", "tanh", "softplus", "elu", "gelu"])
def test_activations_do_not_overflow(name):
    x = np.array([-800.0, -90.0, 0.0, 90.0, 800.0])
    out, expected = to_device(np.full(5, np.nan)), np.empty(5)
    kernel(kernels.cuda, f"elementwise.{name}")(out, to_device(x))
    kernel(reference, f"elementwise.{name}")(expected, x)
    np.testing.assert_allclose(to_host(out), expected, rtol=1e-13, atol=1e-300)


@pytest.mark.parametrize("name", ["logsumexp", "softmax"])
def test_logsumexp_and_softmax_take_large_numbers(name):
    x = np.array([[1000.0, 999.0, -1000.0], [-1000.0, -1001.0, -999.5]])
    shape = (2,) if name == "logsumexp" else (2, 3)
    out, expected = to_device(np.full(shape, np.nan)), np.empty(shape)
    kernel(kernels.cuda, f"reductions.{name}")(out, to_device(x))
    kernel(reference, f"reductions.{name}")(expected, x)
    np.testing.assert_allclose(to_host(out), expected, rtol=1e-13)


@pytest.mark.parametrize("name", ["relu", "sigmoid", "tanh", "softplus", "elu", "gelu", "exp", "log", "sqrt", "square"])
def test_elementwise_kernels_keep_nan(name):
    out = to_device(np.zeros(1))
    kernel(kernels.cuda, f"elementwise.{name}")(out, to_device(np.array([np.nan])))
    assert np.isnan(to_host(out)).all()
