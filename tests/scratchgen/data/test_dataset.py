"""What a split of images must be, and the words for what a model sees of it."""

import numpy as np
import pytest

from scratchgen.data.dataset import Split
from scratchgen.data.pixels import BINARIZE, describe
from scratchgen.errors import UserError
from scratchgen.models.vae import LIKELIHOODS


def images(dtype=np.float32):
    return np.linspace(0, 1, 12, dtype=dtype).reshape(4, 3)


def test_split_takes_pixels_from_0_to_1_and_may_be_empty():
    assert len(Split(images(), np.arange(4))) == 4
    assert len(Split(images()[:0], np.arange(0))) == 0


@pytest.mark.parametrize("pixel", [np.nan, np.inf, -np.inf, -1e-6, 1 + 1e-6, 255])
def test_split_names_the_image_with_an_impossible_pixel(pixel):
    wrong = images()
    wrong[2, 1] = wrong[3, 0] = pixel
    with pytest.raises(UserError, match=r"^2 images hold .* the first is image 2; fix the data$"):
        Split(wrong, np.arange(4))


@pytest.mark.parametrize("dtype", [np.float64, np.uint8, bool])
def test_split_refuses_images_that_are_not_float32(dtype):
    with pytest.raises(UserError, match=f"the images are {np.dtype(dtype)}; make them float32"):
        Split(images().astype(dtype), np.arange(4))


def test_split_refuses_images_without_labels():
    with pytest.raises(UserError, match="4 images but 3 labels"):
        Split(images(), np.arange(3))


def test_describe_says_how_the_likelihood_takes_pixels():
    assert describe("none", "bernoulli") == "grey levels in [0, 1] as soft targets"
    assert describe("none", "gaussian") == "grey levels in [0, 1], as real values (nats of a density)"
    assert len({describe(binarize, likelihood) for binarize in BINARIZE for likelihood in LIKELIHOODS[:2]}) == 6
