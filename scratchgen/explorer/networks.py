"""Networks as data: a list of layers, and their weights in one text, from which ``networks.js`` computes them again."""

import math
import zlib
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np

from scratchgen.errors import UserError
from scratchgen.models.aae import ClusterHeads
from scratchgen.nn import BatchNorm, Conv2d, ConvTranspose2d, Dense, Dropout, GaussianNoise, Module, Reshape, Sequential
from scratchgen.tensor import Tensor


class Weights:
    """Arrays, one after the other."""

    def __init__(self) -> None:
        self.arrays, self.size = list[np.ndarray](), 0

    def add(self, tensor: Tensor | None) -> list[int] | None:
        """Append a tensor; returns where its numbers begin and end, or None for no tensor.

        UserError if a number is NaN or infinite.
        """
        if tensor is None:
            return None
        if not np.isfinite(tensor.data).all():
            raise UserError("the model has parameters that are NaN or infinite, so it has nothing to show; train again")
        self.arrays.append(tensor.data)
        self.size += tensor.size
        return [self.size - tensor.size, self.size]

    def text(self, bits: int | None = None) -> str:
        """All of them, float32, as ``packed`` text; with ``bits``, matrices and filters ``rounded`` to so many.

        The lowest bytes of all numbers come first, then the next ones; the last ones, with the exponents, are alike. So
        an eighth is saved, by Huffman codes alone: weights do not repeat.
        """
        arrays = [array if bits is None or array.ndim < 2 else rounded(array, bits) for array in self.arrays]
        numbers = np.concatenate([np.zeros(0), *(array.ravel() for array in arrays)]).astype("<f4")
        return packed(numbers.view(np.uint8).reshape(-1, 4).T, zlib.Z_HUFFMAN_ONLY)


def rounded(array: np.ndarray, bits: int) -> np.ndarray:
    """An array as multiples of a power of two, the one by which its largest number takes so many bits with its sign.

    With 25 bits its largest numbers are as exact as in float32. Smaller ones lose their last bits, which a sum with the
    larger ones would lose as well; bits that are 0 take little space.
    """
    largest = np.abs(array).max(initial=0)
    step = math.ldexp(1, math.frexp(largest)[1] + 1 - bits)
    return np.rint(array / step) * step


def packed(numbers: np.ndarray, strategy: int = zlib.Z_DEFAULT_STRATEGY) -> str:
    """Bytes, uint8, compressed by zlib, seven bits a character, the highest first: a sixth shorter than base64.

    The characters are U+0000 to U+007F, of one byte each in UTF-8. Three of them a page cannot hold as they are: NUL, a
    carriage return and "<". They are written as U+0080, U+008D and U+00BC, which differ in the eighth bit alone.
    """
    compressor = zlib.compressobj(9, strategy=strategy)
    data = compressor.compress(numbers.tobytes()) + compressor.flush()
    bits = np.unpackbits(np.frombuffer(data, np.uint8))
    sevens = np.pad(bits, (0, -len(bits) % 7)).reshape(-1, 7)
    characters = np.packbits(sevens, axis=1)[:, 0] >> 1
    characters[np.isin(characters, [ord(character) for character in "\0\r<"])] |= 128
    return characters.tobytes().decode("latin-1")


def described(network: Module, weights: Weights) -> list[dict[str, Any]]:
    """The layers of a network in evaluation mode, in the order in which they are applied to one example.

    Each has its ``kind`` and its settings, and where its parameters lie in ``weights``, to which they are appended.
    Images are flat there, row by row, channels last, as the engine has them in memory; so a reshape is no layer.
    UserError for a layer of another kind.
    """
    layers, image = list[dict[str, Any]](), list[int]()
    for layer in _one_by_one([network]):
        if isinstance(layer, Reshape):
            image = list(layer.shape[:2])
        elif isinstance(layer, Dense | ClusterHeads):
            layers.append(_linear("dense", layer, weights))
        elif isinstance(layer, Conv2d | ConvTranspose2d):
            layers.append(_convolution(layer, image, weights))
            image = layers[-1]["after"]
        elif isinstance(layer, BatchNorm):
            parts = {name: weights.add(getattr(layer, name)) for name in ("gamma", "beta", "mean", "variance")}
            layers.append({"kind": "batch norm", "activation": layer.activation, "epsilon": layer.epsilon, **parts})
        elif not isinstance(layer, Dropout | GaussianNoise):  # which evaluation leaves out
            raise UserError(f"the explorer cannot compute a layer of the kind {type(layer).__name__}")
    return layers


def _one_by_one(layers: Iterable[Module]) -> Iterator[Module]:
    for layer in layers:
        if isinstance(layer, Sequential):
            yield from _one_by_one(layer.layers)
        else:
            yield layer


def _convolution(layer: Conv2d | ConvTranspose2d, before: list[int], weights: Weights) -> dict[str, Any]:
    """A convolution of images with ``before`` rows and columns, and how many they have ``after`` it."""
    window, stride, padding = layer.weight.shape[:2], layer.stride, layer.padding
    if isinstance(layer, Conv2d):
        kind, after = "convolution", [(before[i] + 2 * padding[i] - window[i]) // stride[i] + 1 for i in (0, 1)]
    else:
        kind, more = "transposed convolution", layer.output_padding
        after = [(before[i] - 1) * stride[i] + window[i] - 2 * padding[i] + more[i] for i in (0, 1)]
    shape = {"window": window, "stride": stride, "padding": padding, "before": before, "after": after}
    return _linear(kind, layer, weights) | shape


def _linear(kind: str, layer: Dense | ClusterHeads | Conv2d | ConvTranspose2d, weights: Weights) -> dict[str, Any]:
    inputs, outputs = layer.weight.shape[-2:]
    if isinstance(layer, ConvTranspose2d):
        inputs, outputs = outputs, inputs
    parts = {"weight": weights.add(layer.weight), "bias": weights.add(layer.bias)}
    return {"kind": kind, "activation": layer.activation, "inputs": inputs, "outputs": outputs, **parts}
