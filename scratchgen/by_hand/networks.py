"""Networks, layer after layer, forward and backward, by hand.

A layer computes a from h by an equation of ``layers`` or ``convolution``, and its activation makes the h of the next:

    h⁺ = φ(a):        backward, from the last layer to the first,   δ = ḣ⁺ ⊙ φ'(a),   and ḣ from δ.                (1)

As in the models, a convolution halves the sides of images and its transpose doubles them: a window of 4 by 4, a stride
of 2, a padding of 1. Batch normalisation stands between a linear layer and its activation:

    a = h W,   o = batch norm of a,   h⁺ = φ(o):      ȯ = ḣ⁺ ⊙ φ'(o),   δ from ȯ,   Ẇ and ḣ from δ.                (2)
"""

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple

import numpy as np

from scratchgen.by_hand.convolution import conv2d, conv2d_backward, conv_transpose2d, conv_transpose2d_backward
from scratchgen.by_hand.layers import (
    ACTIVATIONS,
    Arrays,
    Mask,
    batch_moments,
    batch_norm,
    batch_norm_backward,
    dense,
    dense_backward,
    maxout,
    maxout_backward,
    running_average,
)


class Layer(NamedTuple):
    """``forward(p, name, h)`` is a; ``backward(p, grad, name, h, δ)`` stores gradients in ``grad`` and returns ḣ.

    ``name`` is that of the layer's parameters in ``p`` and ``grad``. For a frozen network ``grad`` is None.
    """

    forward: Callable[[Arrays, str, np.ndarray], np.ndarray]
    backward: Callable[[Arrays, Arrays | None, str, np.ndarray, np.ndarray], np.ndarray]
    activation: str = "identity"


class Pass(NamedTuple):
    """What a backward pass needs of a forward one: every h, from the input to the network's output, and every a."""

    h: list[np.ndarray]
    a: list[np.ndarray]


def forward(p: Arrays, network: str, layers: Sequence[Layer], h: np.ndarray) -> Pass:
    """The layers in order, of h (b, ...)."""
    passed = Pass([h], [])
    for number, layer in enumerate(layers):
        passed.a.append(layer.forward(p, f"{network}.layers.{number}", passed.h[-1]))
        phi, _ = ACTIVATIONS[layer.activation]
        passed.h.append(phi(passed.a[-1]))  # h⁺ = φ(a)
    return passed


def backward(
    p: Arrays, grad: Arrays | None, network: str, layers: Sequence[Layer], passed: Pass, h_dot: np.ndarray
) -> np.ndarray:
    """(1), from the ḣ of the network's output to that of its input; stores the layers' gradients in ``grad``."""
    for number, layer in reversed(list(enumerate(layers))):
        _, phi_prime = ACTIVATIONS[layer.activation]
        delta = h_dot * phi_prime(passed.a[number])  # δ = ḣ⁺ ⊙ φ'(a)
        h_dot = layer.backward(p, grad, f"{network}.layers.{number}", passed.h[number], delta)
    return h_dot


def heads_backward(p: Arrays, grad: Arrays | None, head: Layer, h: np.ndarray, deltas: Arrays) -> np.ndarray:
    """Backward through all heads, by name, that take the same h: returns the sum of their ḣ."""
    return np.sum([head.backward(p, grad, name, h, delta) for name, delta in deltas.items()], axis=0)


def moving_averages(p: Arrays, network: str, layers: Sequence[Layer], passed: Pass) -> Arrays:
    """Batch normalisation's moving averages after a pass, by name."""
    averages = {}
    for number, (layer, a) in enumerate(zip(layers, passed.h[:-1], strict=True)):
        if layer.forward is BATCH_NORM.forward:
            for kind, now in zip(("mean", "variance"), batch_moments(a), strict=True):
                name = f"{network}.layers.{number}.{kind}"
                averages[name] = running_average(p[name], now)
    return averages


# ---- layers ----

DENSE = Layer(dense, dense_backward)
BATCH_NORM = Layer(batch_norm, batch_norm_backward)
CONVOLUTION = Layer(partial(conv2d, stride=2, padding=1), partial(conv2d_backward, stride=2, padding=1))
TRANSPOSE = Layer(
    partial(conv_transpose2d, stride=2, padding=1), partial(conv_transpose2d_backward, stride=2, padding=1)
)


def reshape(*shape: int) -> Layer:
    """(b, ...) -> (b, *shape); ḣ is δ in the shape of h."""
    return Layer(
        lambda p, name, h: h.reshape(len(h), *shape),
        lambda p, grad, name, h, delta: delta.reshape(h.shape),
    )


def dropout(mask: Mask) -> Layer:
    """layers (4)."""
    return Layer(lambda p, name, h: h * mask, lambda p, grad, name, h, delta: delta * mask)


def maxout_layer(pieces: int) -> Layer:
    """A dense layer and the maximum over the pieces of each unit: layers (1), (3)."""

    def linear(p: Arrays, name: str, h: np.ndarray) -> np.ndarray:
        return dense(p, f"{name}.linear", h).reshape(len(h), -1, pieces)

    def maxout_linear_backward(
        p: Arrays, grad: Arrays | None, name: str, h: np.ndarray, h_dot: np.ndarray
    ) -> np.ndarray:
        delta = maxout_backward(linear(p, name, h), h_dot).reshape(len(h), -1)
        return dense_backward(p, grad, f"{name}.linear", h, delta)

    return Layer(lambda p, name, h: maxout(linear(p, name, h)), maxout_linear_backward)


def normalized(linear: Layer, activation: str, batch_norm: bool) -> list[Layer]:
    """A linear layer with its activation, or with batch normalisation between the two: (2)."""
    if batch_norm:
        return [linear, BATCH_NORM._replace(activation=activation)]
    return [linear._replace(activation=activation)]


# ---- the convolutional parts, layer by layer as in ``models.images`` ----


def encoder_layers(
    pixels: int, channels: tuple[int, ...], activation: str, batch_norm: bool = False, images: int = 1
) -> list[Layer]:
    """From ``images`` images (b, pixels · images) to features (b, n); none without channels."""
    if not channels:
        return []
    side = math.isqrt(pixels)
    layers = [reshape(side, side, images), CONVOLUTION._replace(activation=activation)]
    for _ in channels[1:]:
        layers += normalized(CONVOLUTION, activation, batch_norm)
    return [*layers, reshape(-1)]


def decoder_layers(pixels: int, channels: tuple[int, ...], activation: str, batch_norm: bool = False) -> list[Layer]:
    """From a vector (b, ·) to features (b, n), of which ``decoder_output`` makes the image; none without channels."""
    if not channels:
        return []
    side = math.isqrt(pixels) >> len(channels)
    linear, *norm = normalized(DENSE, activation, batch_norm)
    layers = [linear, reshape(side, side, channels[0]), *norm]
    for _ in channels[1:]:
        layers += normalized(TRANSPOSE, activation, batch_norm)
    return [*layers, reshape(-1)]


def decoder_output(pixels: int, channels: tuple[int, ...], activation: str = "identity") -> Layer:
    """From features (b, n) to images (b, pixels), by a transposed convolution, which has two reshapes around it."""
    if not channels:
        return DENSE._replace(activation=activation)
    side = math.isqrt(pixels)

    def output(p: Arrays, name: str, h: np.ndarray) -> np.ndarray:
        return TRANSPOSE.forward(p, f"{name}.layers.1", _images(h, side // 2)).reshape(len(h), -1)

    def output_backward(p: Arrays, grad: Arrays | None, name: str, h: np.ndarray, delta: np.ndarray) -> np.ndarray:
        images, delta = _images(h, side // 2), _images(delta, side)
        return TRANSPOSE.backward(p, grad, f"{name}.layers.1", images, delta).reshape(h.shape)

    return Layer(output, output_backward, activation)


def _images(rows: np.ndarray, side: int) -> np.ndarray:
    """(b, side, side, ·) of rows (b, ·)."""
    return rows.reshape(len(rows), side, side, -1)
