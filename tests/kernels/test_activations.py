"""The activations at their edges, alone and in a dense layer, against the definition."""

import numpy as np
import pytest

from kernels import cpu, reference
from tests.kernels.test_sets import ACTIVATIONS, kernel

EDGES = [np.nan, np.inf, -np.inf, 0.0, -0.0, 1e-30, -1e-30, 80.0, -80.0, 1e30, -1e30, 0.3, -0.3, 2.0, -2.0]

every_activation = pytest.mark.parametrize("name", ACTIVATIONS)
both_dtypes = pytest.mark.parametrize("dtype", [np.float32, np.float64])


def assert_same(name, shapes, *arguments):
    """The first result of a kernel: NaN and infinities in the same places, finite numbers within a few roundings."""
    results = []
    for kernel_set in (cpu, reference):
        outputs = [np.full(shape, np.nan, arguments[0].dtype) for shape in shapes]
        with np.errstate(all="ignore"):
            kernel(kernel_set, name)(*outputs, *arguments)
        results.append(outputs[0])
    np.testing.assert_allclose(*results, rtol=4e-7, atol=1e-37)


@every_activation
@both_dtypes
def test_activations_forward_match_the_reference_at_edges(name, dtype):
    x, weight, bias = np.array(EDGES, dtype), np.ones((1, 19), dtype), np.zeros(19, dtype)
    assert_same("dense.dense_forward", [(x.size, 19)], x[:, None], weight, bias, name)
    if name != "identity":
        assert_same(f"elementwise.{name}", [x.size], x)


@every_activation
@both_dtypes
def test_activations_backward_match_the_reference_at_edges(name, dtype):
    dout, out = (np.array(grid, dtype) for grid in np.meshgrid(EDGES, EDGES))
    assert_same("dense.dense_activation_backward", [out.shape, out.shape[1]], dout, out, name)
    if name != "identity":
        assert_same(f"elementwise.{name}_backward", [out.size], dout.ravel(), out.ravel())
