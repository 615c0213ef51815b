"""Networks as data: a list of layers, and their weights in one text, from which ``networks.js`` computes them again."""

import base64
import zlib
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np

from scratchgen.errors import UserError
from scratchgen.nn import BatchNorm, Conv2d, ConvTranspose2d, Dense, Dropout, Module, Reshape, Sequential
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
        self.arrays.append(tensor.data.ravel())
        self.size += tensor.size
        return [self.size - tensor.size, self.size]

    def text(self) -> str:
        """All of them, float32, compressed by zlib, in base64.

        The lowest bytes of all numbers come first, then the next ones; the last ones, with the exponents, are alike. So
        an eighth is saved, by Huffman codes alone: weights do not repeat.
        """
        numbers = np.concatenate([np.zeros(0, "<f4"), *self.arrays]).astype("<f4")
        return packed(numbers.view(np.uint8).reshape(-1, 4).T, zlib.Z_HUFFMAN_ONLY)


def packed(numbers: np.ndarray, strategy: int = zlib.Z_DEFAULT_STRATEGY) -> str:
    """Bytes, uint8, compressed by zlib, in base64."""
    compressor = zlib.compressobj(9, strategy=strategy)
    return base64.b64encode(compressor.compress(numbers.tobytes()) + compressor.flush()).decode()


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
        elif isinstance(layer, Dense):
            layers.append(_linear("dense", layer, weights))
        elif isinstance(layer, Conv2d | ConvTranspose2d):
            layers.append(_convolution(layer, image, weights))
            image = layers[-1]["after"]
        elif isinstance(layer, BatchNorm):
            parts = {name: weights.add(getattr(layer, name)) for name in ("gamma", "beta", "mean", "variance")}
            layers.append({"kind": "batch norm", "activation": layer.activation, "epsilon": layer.epsilon, **parts})
        elif not isinstance(layer, Dropout):  # which evaluation leaves out
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


def _linear(kind: str, layer: Dense | Conv2d | ConvTranspose2d, weights: Weights) -> dict[str, Any]:
    inputs, outputs = layer.weight.shape[-2:]
    if isinstance(layer, ConvTranspose2d):
        inputs, outputs = outputs, inputs
    parts = {"weight": weights.add(layer.weight), "bias": weights.add(layer.bias)}
    return {"kind": kind, "activation": layer.activation, "inputs": inputs, "outputs": outputs, **parts}
