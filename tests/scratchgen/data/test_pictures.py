"""Centring: what MNIST's makers did, checked against their images and against other ways to compute it."""

import os

import numpy as np
import pytest
from PIL import Image

from scratchgen.data.mnist import load_mnist
from scratchgen.data.pictures import are_centred, centred, digit_of, ink, read_grey
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


# ---- ink on a background ----


def on_paper(digit, background, dark, margin=((40, 60), (50, 30))):
    """A picture in which each pixel of a digit is a square of five, in grey levels 0 to 255."""
    levels = np.pad(np.kron(digit / digit.max(), np.ones((5, 5))), margin)
    return background + (-1 if dark else 1) * 100 * levels


@pytest.mark.parametrize("dark", [True, False])
def test_ink_finds_the_digit_on_light_and_on_dark(dark):
    for digit in digits(20):
        levels, background = ink(on_paper(digit, 120.0, dark))
        assert background == ("light" if dark else "dark")
        top, left, bottom, right = box(np.kron(digit / digit.max(), np.ones((5, 5))) > 0.125)
        expected = np.kron(digit / digit.max(), np.ones((5, 5)))[top:bottom, left:right]
        assert levels.shape == expected.shape
        np.testing.assert_allclose(levels, expected, atol=0.01)


def test_ink_is_found_by_the_background_if_that_is_given():
    picture = np.full((50, 60), 100.0)
    picture[10:30, 10:20] = 180
    picture[20:24, 40:44] = 20
    assert ink(picture)[1] == "dark"  # most is lighter
    levels, background = ink(picture, "light")
    assert (levels.shape, background) == ((4, 4), "light")
    assert ink(picture, "dark")[0].shape == (20, 10)


def test_ink_survives_noise_and_light_from_one_side(rng):
    for digit in digits(20):
        picture = on_paper(digit, 200.0, True, ((200, 300), (400, 250)))
        picture += 60 * np.linspace(-1, 1, picture.shape[1]) + 20 * np.linspace(1, 0, len(picture))[:, None]
        picture = np.clip(picture + rng.normal(0, 8, picture.shape), 0, 255).astype(np.uint8)
        levels, background = ink(picture)
        assert background == "light"
        found, expected = centred(levels), centred(digit)
        assert np.corrcoef(found.ravel(), expected.ravel())[0, 1] > 0.8


@pytest.mark.parametrize("shape", [(30, 40), (1, 1), (2, 5), (700, 900)])
def test_ink_of_an_empty_picture_is_empty(shape):
    for grey in (0, 93, 255):
        assert ink(np.full(shape, grey, np.uint8))[0].size == 0
    assert not digit_of(np.full(shape, 7, np.uint8))[0].any()


def test_digit_of_leaves_images_of_mnists_size_as_they_are():
    for digit in digits(10):
        picture = np.rint(255 * np.roll(digit, (3, -2), (0, 1))).astype(np.uint8)
        for given, background in ((picture, "dark"), (255 - picture, "light")):
            image, found = digit_of(given)
            np.testing.assert_allclose(image, picture / 255, atol=1e-6)
            assert (image.dtype, found) == (np.float32, background)
        np.testing.assert_allclose(digit_of(picture, "light")[0], 1 - picture / 255, atol=1e-6)


def test_digit_of_scales_and_centres_other_sizes():
    for digit in digits(10):
        picture = on_paper(digit, 255.0, True).astype(np.uint8)
        image, background = digit_of(picture)
        assert (image.shape, image.dtype, background) == ((28, 28), np.float32, "light")
        np.testing.assert_array_equal(image, centred(ink(picture)[0]))


def test_read_grey_turns_pictures_as_the_camera_was_held(tmp_path):
    picture = Image.fromarray(np.arange(6, dtype=np.uint8).reshape(2, 3) * 40)
    exif = Image.Exif()
    exif[0x0112] = 6  # turned by a quarter, clockwise
    picture.save(tmp_path / "a.png", exif=exif)
    np.testing.assert_array_equal(read_grey(tmp_path / "a.png"), np.rot90(np.asarray(picture), -1))


def test_are_centred_is_about_size_box_and_middle():
    images = digits(50)
    assert are_centred(images)
    assert are_centred(np.concatenate([images, np.zeros((30, 28, 28))]))  # empty ones say nothing
    assert not are_centred(np.zeros((5, 28, 28)))
    assert not are_centred(images[:, 2:-2, 2:-2])
    assert not are_centred(np.roll(images, 3, axis=2))
    assert not are_centred(1 - images)
    assert not are_centred(np.stack([np.pad(centred(image)[7:-7, 7:-7], 7) for image in images]))  # 14 by 14 at most
