"""Models applied in batches."""

import numpy as np
import pytest

from scratchgen.inference import in_batches
from scratchgen.tensor import Tensor


@pytest.mark.parametrize("n", [0, 1, 3, 7, 8])
@pytest.mark.parametrize("size", [1, 3, 100])
def test_in_batches_is_the_function_of_all_rows(rng, n, size):
    x, y, sizes = rng.random((n, 2)), rng.random((n, 2)), []

    def function(a, b):
        sizes.append(len(a))
        assert a.dtype == np.float64
        return (a + b).sum(axis=1), a * 2.0

    total, double = in_batches(function, x, y, size=size, dtype=np.float64)
    np.testing.assert_array_equal(total, (x + y).sum(axis=1))
    np.testing.assert_array_equal(double, 2 * x)
    assert max(sizes) <= size


def test_in_batches_builds_no_graph(rng):
    weight, seen = Tensor([1.0, 1.0], requires_grad=True), []
    in_batches(lambda x: (seen.append((x * weight).requires_grad) or x,), rng.random((3, 2), np.float32), size=2)
    assert seen == [False, False]


def test_in_batches_refuses_arrays_of_different_lengths(rng):
    with pytest.raises(ValueError, match="in_batches: arrays of 3, 6 rows"):
        in_batches(lambda x, y: (x,), np.ones((3, 1)), np.ones((6, 1)), size=3)
