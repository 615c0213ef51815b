"""Centring: what MNIST's makers did, checked against their images and against other ways to compute it."""

import os

import numpy as np
import pytest

from scratchgen.data.mnist import load_mnist
from scratchgen.data.pictures import centred
from scratchgen.data.strokes import draw_strokes


def box(image):
    """The first row and column with ink, and those after the last."""
    rows, columns = np.flatnonzero(image.any(axis=1)), np.flatnonzero(image.any(axis=0))
    return rows[0], columns[0], rows[-1] + 1, columns[-1] + 1


def digits(n):
    return draw_strokes(n, rng=0).images.reshape(n, 28, 28)


@pytest.mark.skipif(not os.environ.get("SCRATCHGEN_DATA"), reason="SCRATCHGEN_DATA names no folder with MNIST")
def test_centred_leaves_mnist_as_it_is():
    images = load_mnist().test.images.reshape(-1, 28, 28)
    moved = [i for i, image in enumerate(images) if not np.array_equal(centred(image), image)]
    assert len(moved) <= 4  # three of those do not fill the box


@pytest.mark.parametrize(("height", "width", "fitted"), [(60, 30, (20, 10)), (7, 50, (3, 20)), (90, 1, (20, 1))])
def test_centred_fits_the_box_and_keeps_proportions(height, width, fitted):
    picture = np.zeros((100, 130))
    picture[4 : 4 + height, 60 : 60 + width] = 0.75
    image = centred(picture)
    assert (image.shape, image.dtype) == ((28, 28), np.float32)
    top, left, bottom, right = box(image)
    assert (bottom - top, right - left) == fitted
    np.testing.assert_allclose(image[top:bottom, left:right], 0.75, rtol=1e-6)


def test_centred_depends_on_neither_place_nor_scale():
    for digit in digits(20):
        expected = centred(digit)
        moved = np.pad(digit, ((0, 31), (17, 5)))
        np.testing.assert_array_equal(centred(moved), expected)
        np.testing.assert_allclose(centred(np.kron(digit, np.ones((3, 3)))), expected, atol=1e-6)


def test_centred_takes_the_mean_of_the_area_of_each_pixel():
    for digit in digits(20):
        image, (top, left, bottom, right) = centred(digit), box(digit)
        up, down, *_ = box(image)
        height, width = (max(1, int(20 * side / max(bottom - top, right - left) + 0.5))
                         for side in (bottom - top, right - left))  # fmt: skip
        fine = np.kron(digit[top:bottom, left:right], np.ones((height, width)))  # each pixel divided, so that all fit
        means = fine.reshape(height, bottom - top, width, right - left).mean(axis=(1, 3))
        np.testing.assert_allclose(image[up : up + height, down : down + width], means, atol=1e-6)


def test_centred_puts_the_centre_of_mass_in_the_middle():
    for digit in digits(50):
        image = centred(np.kron(digit, np.ones((5, 5)))).astype(float)
        centre = [(image.sum(axis=axis) @ np.arange(28)) / image.sum() for axis in (1, 0)]
        assert np.abs(np.array(centre) - 14).max() <= 0.5 + 1e-4


def test_centred_keeps_a_lopsided_digit_inside():
    picture = np.full((40, 2), 0.01)
    picture[:2] = 1  # nearly all of the mass at the top, which belongs at row 14
    top, _, bottom, _ = box(centred(picture))
    assert (top, bottom) == (8, 28)


def test_centred_rounds_ties_up_despite_rounding_errors():
    picture = np.zeros((20, 19))
    picture[::2] = 0.1  # its centre of mass is at column 9, up to rounding
    picture[1] = 0.3
    assert box(centred(picture))[1] == 5
    narrow = np.full((20, 18), 1 / 3)  # at column 8.5: 5.5 from the edge
    assert box(centred(narrow))[1] == 6


def test_centred_leaves_an_empty_picture_empty():
    assert not centred(np.zeros((5, 9))).any()


def test_centred_takes_bytes():
    digit = (255 * digits(1)[0]).astype(np.uint8)
    np.testing.assert_allclose(centred(digit), centred(digit.astype(float)), rtol=1e-6)
