"""Pixels binarised: their means, their independence, the ends of the grey scale."""

import numpy as np
import pytest

import kernels
from scratchgen.data import pixels
from scratchgen.data.pixels import binarized
from scratchgen.noise import turns

both_dtypes = pytest.mark.parametrize("dtype", [np.float32, np.float64], ids=["float32", "float64"])


@pytest.mark.usefixtures("kernel_set")
@both_dtypes
@pytest.mark.parametrize("order", ["C", "F"])
def test_binarized_pixels_have_their_grey_level_as_mean(rng, dtype, order):
    n, levels = 20_000, np.array([0.0, 0.01, 0.25, 0.5, 0.9, 1.0])
    images = np.array(np.tile(levels, (n, 1)), dtype, order=order)
    drawn = binarized(images, turns(rng))
    assert drawn.shape == images.shape
    assert drawn.dtype == dtype
    assert set(np.unique(drawn)) == {0, 1}
    assert (drawn[:, 0] == 0).all()
    assert (drawn[:, -1] == 1).all()
    error = 4 * np.sqrt(levels * (1 - levels) / n)
    np.testing.assert_array_less(np.abs(drawn.mean(axis=0, dtype=float) - levels), error + 1e-12)
    np.testing.assert_array_equal(images, np.tile(levels.astype(dtype), (n, 1)))


def test_a_black_pixel_stays_black_at_the_lowest_draw_and_a_white_one_white_at_the_highest(rng, monkeypatch):
    rigged = np.repeat(np.array([0, 1 - 2**-24], np.float32), 3)
    monkeypatch.setattr(pixels, "uniform", lambda shape, dtype, turn, draw: rigged)
    images = np.tile(np.array([0, 2**-25, 1], np.float32), (2, 1))
    for name in kernels.SETS:
        with kernels.use(name):
            np.testing.assert_array_equal(binarized(images, turns(rng)), [[0, 1, 1], [0, 0, 1]])


def test_binarized_draws_pixels_independently_and_repeats_from_its_seed():
    images = np.full((10_000, 4), 0.5, np.float32)
    drawn = binarized(images, turns(np.random.default_rng(0)))
    np.testing.assert_array_equal(drawn, binarized(images, turns(np.random.default_rng(0))))
    assert np.abs(np.corrcoef(drawn.T) - np.eye(4)).max() < 0.04
