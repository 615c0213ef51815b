"""Pixels binarised: their means, their independence, the ends of the grey scale."""

import numpy as np
import pytest

from scratchgen.random import RandomStream
from scratchgen.tensor import Tensor

both_dtypes = pytest.mark.parametrize("dtype", [np.float32, np.float64], ids=["float32", "float64"])


@pytest.mark.usefixtures("kernel_set")
@both_dtypes
@pytest.mark.parametrize("order", ["C", "F"])
def test_bernoulli_pixels_have_their_grey_level_as_mean(rng, dtype, order):
    n, levels = 20_000, np.array([0.0, 0.01, 0.25, 0.5, 0.9, 1.0])
    images = Tensor(np.array(np.tile(levels, (n, 1)), dtype, order=order))
    drawn = RandomStream(rng).bernoulli(images)
    assert drawn.shape == images.shape
    assert drawn.dtype == dtype
    assert set(np.unique(drawn.data)) == {0, 1}
    assert (drawn.data[:, 0] == 0).all()
    assert (drawn.data[:, -1] == 1).all()
    error = 4 * np.sqrt(levels * (1 - levels) / n)
    np.testing.assert_array_less(np.abs(drawn.data.mean(axis=0, dtype=float) - levels), error + 1e-12)
    np.testing.assert_array_equal(images.data, np.tile(levels.astype(dtype), (n, 1)))


@pytest.mark.usefixtures("kernel_set")
def test_bernoulli_keeps_black_at_the_lowest_draw_and_white_at_the_highest(rng, monkeypatch):
    rigged = np.repeat(np.array([0, 1 - 2**-24], np.float32), 3)
    monkeypatch.setattr(RandomStream, "_draw", lambda self, kernel, shape, dtype: rigged)
    images = np.tile(np.array([0, 2**-25, 1], np.float32), (2, 1))
    np.testing.assert_array_equal(RandomStream(rng).bernoulli(Tensor(images)).data, [[0, 1, 1], [0, 0, 1]])


def test_bernoulli_draws_pixels_independently_and_repeats_from_its_seed():
    images = Tensor(np.full((10_000, 4), 0.5, np.float32))
    drawn = RandomStream(0).bernoulli(images).data
    np.testing.assert_array_equal(drawn, RandomStream(0).bernoulli(images).data)
    assert np.abs(np.corrcoef(drawn.T) - np.eye(4)).max() < 0.04
