"""The convolutional parts of networks, from images to features and from features to images; and images moved.

A convolution has windows of 4 by 4 pixels, a stride of 2 and a padding of 1: it halves the sides of images, and its
transpose doubles them; there is no pooling (Radford et al. 2015, section 3). Before and after these layers, images and
features are vectors (b, side · side · channels), as for dense networks: those are the case ``channels=()``.
"""

import math
from itertools import pairwise
from typing import Any

import numpy as np

from scratchgen.errors import require
from scratchgen.init import Initializer, he_normal
from scratchgen.nn import BatchNorm, Conv2d, ConvTranspose2d, Dense, Module, Reshape, Sequential


def check_sides(pixels: int, *networks: tuple[int, ...]) -> None:
    """ValueError unless images of so many pixels can be halved once for each of a network's ``channels``."""
    require({"channels >= 1": all(count >= 1 for channels in networks for count in channels)})
    side, most = math.isqrt(pixels), max(map(len, networks))
    if most and (side * side != pixels or side % 2**most):
        raise ValueError(
            f"images of {pixels} pixels cannot go through {most} convolutions, each of which halves their sides: they "
            f"must be square, with a side that is a multiple of {2**most}"
        )


def moves(n: int, image_shape: tuple[int, int], most: int, rng: np.random.Generator) -> np.ndarray:
    """Where the pixels of n images come from if each is moved by up to ``most`` pixels along both axes.

    Returns places (n · h · w,) among all pixels of the images, one after the other. What an image leaves is filled by
    its edge.
    """
    h, w = image_shape
    down, right = rng.integers(-most, most + 1, size=(2, n, 1))
    rows, columns = np.clip(np.arange(h) + down, 0, h - 1), np.clip(np.arange(w) + right, 0, w - 1)
    first = np.arange(n)[:, None, None] * h * w
    return (first + rows[:, :, None] * w + columns[:, None, :]).ravel()


def encoder_layers(
    pixels: int,
    channels: tuple[int, ...],
    rng: np.random.Generator,
    activation: str,
    initializer: Initializer | None = None,
    dtype: Any = np.float32,
    batch_norm: bool = False,
    pack: int = 1,
    classes: int = 0,
) -> tuple[list[Module], int]:
    """Layers from ``pack`` images, judged together, to features (b, n), and n.

    The input (b, pixels · pack) has the numbers of all images at the first pixel, then at the second, and so on.
    With ``classes``, each image has its class beside it: one-hot after its pixels (b, pack · (pixels + classes)); or,
    for convolutions, as that many more numbers of each pixel (b, pixels · pack · (1 + classes)).
    With ``batch_norm`` every convolution but the first, which sees the data itself, is batch-normalised.
    """
    if not channels:
        return [], pack * (pixels + classes)
    side, numbers = math.isqrt(pixels), pack * (1 + classes)
    layers: list[Module] = [Reshape(side, side, numbers)]
    for number, (i, o) in enumerate(pairwise((numbers, *channels))):
        layers += _normalized(Conv2d, i, o, rng, activation, initializer, dtype, batch_norm and number > 0)
    return [*layers, Reshape(-1)], (side >> len(channels)) ** 2 * channels[-1]


def decoder_layers(
    inputs: int,
    pixels: int,
    channels: tuple[int, ...],
    rng: np.random.Generator,
    activation: str,
    initializer: Initializer | None = None,
    dtype: Any = np.float32,
    batch_norm: bool = False,
) -> tuple[list[Module], int]:
    """Layers from a vector (b, inputs) to features (b, n), of which `decoder_output` makes the image, and n.

    The first, dense, makes the smallest images, with channels[0]; each further number of channels doubles their sides.
    """
    if not channels:
        return [], inputs
    side = math.isqrt(pixels) >> len(channels)
    weights = (initializer or he_normal) if batch_norm else initializer
    linear = Dense(
        inputs, side * side * channels[0], rng, "identity" if batch_norm else activation, weights, dtype, not batch_norm
    )
    layers: list[Module] = [linear, Reshape(side, side, channels[0])]
    if batch_norm:
        layers.append(BatchNorm(channels[0], activation, dtype=dtype))
    for i, o in pairwise(channels):
        layers += _normalized(ConvTranspose2d, i, o, rng, activation, initializer, dtype, batch_norm)
    return [*layers, Reshape(-1)], pixels // 4 * channels[-1]


def decoder_output(
    inputs: int,
    pixels: int,
    channels: tuple[int, ...],
    rng: np.random.Generator,
    activation: str = "identity",
    initializer: Initializer | None = None,
    dtype: Any = np.float32,
) -> Module:
    """The last layer, from features (b, inputs) to images (b, pixels)."""
    if not channels:
        return Dense(inputs, pixels, rng, activation, initializer, dtype)
    half = math.isqrt(pixels) // 2
    convolution = ConvTranspose2d(channels[-1], 1, 4, rng, activation, 2, 1, initializer=initializer, dtype=dtype)
    return Sequential(Reshape(half, half, channels[-1]), convolution, Reshape(-1))


def _normalized(kind, inputs, outputs, rng, activation, initializer, dtype, batch_norm):
    """A convolution with its activation, or with batch normalisation between the two."""
    window: dict[str, Any] = {"stride": 2, "padding": 1, "dtype": dtype}
    if not batch_norm:
        return [kind(inputs, outputs, 4, rng, activation, initializer=initializer, **window)]
    linear = kind(inputs, outputs, 4, rng, initializer=initializer or he_normal, bias=False, **window)
    return [linear, BatchNorm(outputs, activation, dtype=dtype)]
