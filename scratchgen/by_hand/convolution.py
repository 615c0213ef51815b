"""Convolutions of images and their transposes, forward and backward, by hand; the notation is that of ``layers``.

h (b, y, x, i) are images, W (k, l, i, o) weights, S the stride and P the padding: h is 0 outside the images. With
y = S p + k − P and x = S q + l − P for short, a convolution is

    a[b,p,q] = Σ_kl h[b,y,x] W[k,l] + c,                                                                       (1)

a sum of k · l dense layers, each of which takes other pixels. Every product passes its gradient to both factors:

    Ẇ[k,l] = Σ_bpq h[b,y,x]ᵀ δ[b,p,q],      ċ = Σ_bpq δ[b,p,q],                                                (2)
    ḣ[b,y,x] = Σ δ[b,p,q] W[k,l]ᵀ,  over all p, q, k, l with S p + k − P = y and S q + l − P = x.              (3)

(3) is the transpose of the linear map (1). A transposed convolution has it as its forward pass, from h (b, p, q, i) by
W (k, l, o, i) to

    a[b,y,x] = Σ h[b,p,q] W[k,l]ᵀ + c,  over the same p, q, k, l.                                              (4)

Then its backward pass is the transpose of that, which is (1), and a product has the same two factors as before:

    ḣ[b,p,q] = Σ_kl δ[b,y,x] W[k,l],        Ẇ[k,l] = Σ_bpq δ[b,y,x]ᵀ h[b,p,q].                                 (5)
"""

from collections.abc import Iterator

import numpy as np

from scratchgen.by_hand.layers import Arrays

Shape = tuple[int, ...]


def _framed(images: np.ndarray, padding: int) -> np.ndarray:
    """The images (b, y, x, i) in a frame of P zeros."""
    sides = (padding, padding)
    return np.pad(images, ((0, 0), sides, sides, (0, 0)))


def _shares(framed: np.ndarray, weight: np.ndarray, size: Shape, stride: int) -> Iterator[tuple]:
    """For every k, l: its weight W[k,l], where Ẇ[k,l] goes, and the pixels (b, p, q, i) that it meets, as a view."""
    p, q = size
    for k, j in np.ndindex(weight.shape[:2]):
        rows, columns = slice(k, k + stride * (p - 1) + 1, stride), slice(j, j + stride * (q - 1) + 1, stride)
        yield weight[k, j], (k, j), framed[:, rows, columns]


def _convolution(h: np.ndarray, weight: np.ndarray, size: Shape, stride: int, padding: int) -> np.ndarray:
    """(1) without c, of size (p, q): (b, p, q, o)."""
    shares = _shares(_framed(h, padding), weight, size, stride)
    return np.sum([pixels @ w for w, _, pixels in shares], axis=0)


def _transpose(delta: np.ndarray, weight: np.ndarray, shape: tuple[int, ...], stride: int, padding: int) -> np.ndarray:
    """(3): images of this shape (b, y, x, i)."""
    images = np.zeros(shape, delta.dtype)
    framed = _framed(images, padding)
    for w, _, pixels in _shares(framed, weight, delta.shape[1:3], stride):
        pixels += delta @ w.T
    return framed[:, padding : padding + shape[1], padding : padding + shape[2]]


def _weight_gradient(h: np.ndarray, delta: np.ndarray, weight: np.ndarray, stride: int, padding: int) -> np.ndarray:
    """(2): Ẇ (k, l, i, o)."""
    found = np.empty_like(weight)
    for _, where, pixels in _shares(_framed(h, padding), weight, delta.shape[1:3], stride):
        found[where] = np.tensordot(pixels, delta, ([0, 1, 2], [0, 1, 2]))  # Σ_bpq h[b,y,x]ᵀ δ[b,p,q]
    return found


def conv2d(p: Arrays, name: str, h: np.ndarray, stride: int, padding: int) -> np.ndarray:
    """a (b, p, q, o) of h (b, y, x, i): (1)."""
    weight = p[f"{name}.weight"]
    fit = tuple((h.shape[1 + axis] + 2 * padding - weight.shape[axis]) // stride + 1 for axis in (0, 1))
    a = _convolution(h, weight, fit, stride, padding)
    return a + p[f"{name}.bias"] if f"{name}.bias" in p else a


def conv2d_backward(
    p: Arrays, grad: Arrays | None, name: str, h: np.ndarray, delta: np.ndarray, stride: int, padding: int
) -> np.ndarray:
    """(2), (3), of h (b, y, x, i) and δ (b, p, q, o): stores the layer's gradients in ``grad``, returns ḣ."""
    weight = p[f"{name}.weight"]
    if grad is not None:
        grad[f"{name}.weight"] = _weight_gradient(h, delta, weight, stride, padding)
        if f"{name}.bias" in p:
            grad[f"{name}.bias"] = delta.sum((0, 1, 2))  # ċ = Σ_bpq δ
    return _transpose(delta, weight, h.shape, stride, padding)


def conv_transpose2d(p: Arrays, name: str, h: np.ndarray, stride: int, padding: int) -> np.ndarray:
    """a (b, y, x, o) of h (b, p, q, i), with y = S (p − 1) + k − 2 P: (4)."""
    weight = p[f"{name}.weight"]
    sides = [stride * (h.shape[1 + axis] - 1) + weight.shape[axis] - 2 * padding for axis in (0, 1)]
    a = _transpose(h, weight, (len(h), *sides, weight.shape[2]), stride, padding)
    return a + p[f"{name}.bias"] if f"{name}.bias" in p else a


def conv_transpose2d_backward(
    p: Arrays, grad: Arrays | None, name: str, h: np.ndarray, delta: np.ndarray, stride: int, padding: int
) -> np.ndarray:
    """(5), of h (b, p, q, i) and δ (b, y, x, o): stores the layer's gradients in ``grad``, returns ḣ."""
    weight = p[f"{name}.weight"]
    if grad is not None:
        grad[f"{name}.weight"] = _weight_gradient(delta, h, weight, stride, padding)
        if f"{name}.bias" in p:
            grad[f"{name}.bias"] = delta.sum((0, 1, 2))
    return _convolution(delta, weight, h.shape[1:3], stride, padding)
