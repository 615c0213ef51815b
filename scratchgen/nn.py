"""Layers."""

import math
from collections.abc import Callable, Sequence
from functools import partial
from itertools import pairwise
from typing import Any

import numpy as np

import kernels
from scratchgen import init, ops
from scratchgen.module import Buffer, FlatParameters, Module, Parameter, evaluating, flatten, frozen
from scratchgen.ops.reductions import rows
from scratchgen.random import RandomStream
from scratchgen.signature import pair
from scratchgen.tensor import Tensor

__all__ = [
    "ACTIVATIONS", "AvgPool2d", "BatchNorm", "Buffer", "Conv2d", "ConvTranspose2d", "Dense", "Dropout",
    "FlatParameters", "GaussianNoise", "MaxPool2d", "Maxout", "Module", "Parameter", "Reshape", "Sequential",
    "Upsample2d", "dense_layers", "evaluating", "flatten", "frozen", "mlp",
]  # fmt: skip

ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "relu": ops.relu,
    "leaky_relu": partial(ops.leaky_relu, slope=0.2),  # of Radford et al. 2015, for discriminators
    "elu": ops.elu,
    "sigmoid": ops.sigmoid,
    "tanh": ops.tanh,
    "softplus": ops.softplus,
    "gelu": ops.gelu,
}


class Dense(Module):
    """activation(x weight + bias): (..., inputs) -> (..., outputs).

    Parameters
    ----------
    activation : str
        "identity" or a name in ``ACTIVATIONS``.
    initializer : callable, optional
        Draws the weights (see ``init``); by default He for relu-like activations, else Glorot. Biases start at 0.
    bias : bool
        Whether there is one; a layer before batch normalisation needs none.
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        rng: np.random.Generator,
        activation: str = "identity",
        initializer: init.Initializer | None = None,
        dtype: Any = np.float32,
        bias: bool = True,
    ) -> None:
        self.activation, initializer = _known(activation), initializer or _default(activation)
        self.weight = Parameter(initializer(rng, inputs, outputs), dtype)
        self.bias = Parameter(np.zeros(outputs), dtype) if bias else None

    def forward(self, x: Tensor) -> Tensor:
        if self.bias is None:
            return _activated(x @ self.weight, self.activation)
        if self.activation in ops.FUSED_ACTIVATIONS:
            return ops.dense(x, self.weight, self.bias, self.activation)
        return _activated(ops.dense(x, self.weight, self.bias), self.activation)


def _known(activation: str) -> str:
    if activation != "identity" and activation not in ACTIVATIONS:
        raise ValueError(f"activation {activation!r} is not one of identity, {', '.join(ACTIVATIONS)}")
    return activation


def _default(activation: str) -> init.Initializer:
    """The initializer of the weights before this activation."""
    return init.he_normal if activation in ("relu", "leaky_relu", "elu", "gelu") else init.glorot_uniform


def _activated(x: Tensor, activation: str) -> Tensor:
    return x if activation == "identity" else ACTIVATIONS[activation](x)


class Conv2d(Module):
    """activation(convolution of x + bias), for images: (b, h, w, inputs) -> (b, p, q, outputs); see ``ops.conv2d``.

    Parameters
    ----------
    size, stride, padding : int or pair of int
        Of the window, its steps, and the zeros on either side: rows and columns.
    activation, initializer, bias
        As in ``Dense``. The initializer's fan-in is the numbers in a window.
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        size: int | tuple[int, int],
        rng: np.random.Generator,
        activation: str = "identity",
        stride: int | tuple[int, int] = 1,
        padding: int | tuple[int, int] = 0,
        initializer: init.Initializer | None = None,
        dtype: Any = np.float32,
        bias: bool = True,
    ) -> None:
        self.activation, initializer = _known(activation), initializer or _default(activation)
        self.stride, self.padding = pair("stride", stride, 1), pair("padding", padding, 0)
        k, j = pair("size", size, 1)
        self.weight = Parameter(initializer(rng, k * j * inputs, k * j * outputs, (k, j, inputs, outputs)), dtype)
        self.bias = Parameter(np.zeros(outputs), dtype) if bias else None

    def forward(self, x: Tensor) -> Tensor:
        fused = _fused(self.activation, self.bias)
        out = ops.conv2d(x, self.weight, self.bias, fused, self.stride, self.padding)
        return out if fused == self.activation else _activated(out, self.activation)


class ConvTranspose2d(Module):
    """activation(transposed convolution of x + bias): (b, h, w, inputs) -> (b, p, q, outputs).

    Parameters as in ``Conv2d``, and ``output_padding`` as in ``ops.conv_transpose2d``. A pixel of the result is a sum
    of size / stride windows' numbers along each axis, so the initializer's fan-in is that many times ``inputs``.
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        size: int | tuple[int, int],
        rng: np.random.Generator,
        activation: str = "identity",
        stride: int | tuple[int, int] = 1,
        padding: int | tuple[int, int] = 0,
        output_padding: int | tuple[int, int] = 0,
        initializer: init.Initializer | None = None,
        dtype: Any = np.float32,
        bias: bool = True,
    ) -> None:
        self.activation, initializer = _known(activation), initializer or _default(activation)
        self.stride, self.padding = pair("stride", stride, 1), pair("padding", padding, 0)
        k, j = pair("size", size, 1)
        self.output_padding = pair("output_padding", output_padding, 0)
        met = -(-k // self.stride[0]) * -(-j // self.stride[1])  # windows that a pixel of the result is in
        self.weight = Parameter(initializer(rng, met * inputs, met * outputs, (k, j, outputs, inputs)), dtype)
        self.bias = Parameter(np.zeros(outputs), dtype) if bias else None

    def forward(self, x: Tensor) -> Tensor:
        fused, steps = _fused(self.activation, self.bias), (self.stride, self.padding, self.output_padding)
        out = ops.conv_transpose2d(x, self.weight, self.bias, fused, *steps)
        return out if fused == self.activation else _activated(out, self.activation)


def _fused(activation: str, bias: Parameter | None) -> str:
    """The activation, where the operation that adds the bias can apply it."""
    return activation if bias is not None and activation in ops.FUSED_ACTIVATIONS else "identity"


class AvgPool2d(Module):
    """The mean of each window: (b, h, w, c) -> (b, p, q, c); see ``ops.avg_pool2d``."""

    def __init__(self, size: int | tuple[int, int], stride: int | tuple[int, int] | None = None) -> None:
        self.size, self.stride = size, stride

    def forward(self, x: Tensor) -> Tensor:
        return ops.avg_pool2d(x, self.size, self.stride)


class MaxPool2d(Module):
    """The maximum of each window: (b, h, w, c) -> (b, p, q, c); see ``ops.max_pool2d``."""

    def __init__(self, size: int | tuple[int, int], stride: int | tuple[int, int] | None = None) -> None:
        self.size, self.stride = size, stride

    def forward(self, x: Tensor) -> Tensor:
        return ops.max_pool2d(x, self.size, self.stride)


class Upsample2d(Module):
    """Each pixel as a block of ``factor`` pixels: (b, h, w, c) -> (b, factor h, factor w, c)."""

    def __init__(self, factor: int | tuple[int, int]) -> None:
        self.factor = factor

    def forward(self, x: Tensor) -> Tensor:
        return ops.upsample2d(x, self.factor)


class Reshape(Module):
    """Each example in another shape: (b, ...) -> (b, *shape). ``Reshape(-1)`` flattens images to vectors."""

    def __init__(self, *shape: int) -> None:
        self.shape = shape

    def forward(self, x: Tensor) -> Tensor:
        shape = self.shape if self.shape != (-1,) else (math.prod(x.shape[1:]),)  # -1 is unknown where b is 0
        return x.reshape(len(x), *shape)


class Maxout(Module):
    """max over j of x weight_j + bias_j, j = 1..pieces: (..., inputs) -> (..., outputs) (Goodfellow et al. 2013)."""

    def __init__(
        self,
        inputs: int,
        outputs: int,
        pieces: int,
        rng: np.random.Generator,
        initializer: init.Initializer | None = None,
        dtype: Any = np.float32,
    ) -> None:
        self.linear = Dense(inputs, outputs * pieces, rng, "identity", initializer, dtype)
        self.outputs, self.pieces = outputs, pieces

    def forward(self, x: Tensor) -> Tensor:
        return ops.max(self.linear(x).reshape(*x.shape[:-1], self.outputs, self.pieces), axis=-1)


class BatchNorm(Module):
    """activation(gamma (x - mean) / sqrt(variance + epsilon) + beta): (..., features) -> (..., features).

    For images (b, h, w, features) the features are channels. In training, mean and variance are those of the batch;
    evaluation uses moving averages of them, with the decay ``momentum``. A batch of one number per feature is a
    ValueError. The layer before needs no bias, since subtracting the mean would cancel it. Source: Ioffe & Szegedy
    2015.
    """

    def __init__(
        self,
        features: int,
        activation: str = "identity",
        momentum: float = 0.9,
        epsilon: float = 1e-5,
        dtype: Any = np.float32,
    ) -> None:
        self.activation = _known(activation)
        self.momentum, self.epsilon = momentum, epsilon
        self.gamma, self.beta = Parameter(np.ones(features), dtype), Parameter(np.zeros(features), dtype)
        self.mean, self.variance = Buffer(np.zeros(features), dtype=dtype), Buffer(np.ones(features), dtype=dtype)

    def forward(self, x: Tensor) -> Tensor:
        if self.training:
            out = ops.batch_norm(x, self.gamma, self.beta, self.epsilon)
            self._average(x)
        else:
            out = (x - self.mean) * (self.gamma / ops.sqrt(self.variance + self.epsilon)) + self.beta
        return _activated(out, self.activation)

    def _average(self, x: Tensor) -> None:
        active = kernels.active()
        now = active.memory.empty_like(self.mean._data), active.memory.empty_like(self.mean._data)
        active.normalization.batch_moments(*now, rows(x._data))
        decay = active.memory.empty((1,), x.dtype)
        active.memory.write(decay, self.momentum)
        for running, moment in zip((self.mean, self.variance), now, strict=True):
            active.optimizers.average_step(running._data, moment, decay)
            running.version += 1


class Dropout(Module):
    """In training, zeroes each element with probability ``rate`` and scales the others by 1 / (1 - rate).

    It draws from ``random``, which ``Module.set_random`` sets; RuntimeError in training without one.
    """

    def __init__(self, rate: float) -> None:
        if not 0 <= rate < 1:
            raise ValueError(f"the dropout rate must be in [0, 1), not {rate}")
        self.rate = rate
        self.random: RandomStream | None = None

    def forward(self, x: Tensor) -> Tensor:
        if not self.training or self.rate == 0:
            return x
        random = _required(self.random, "dropout")
        return ops.dropout(x, random.dropout_mask(x.shape, x.dtype, self.rate))


class GaussianNoise(Module):
    """In training, adds noise from N(0, sd^2) to each element, drawn from ``random`` as in ``Dropout``."""

    def __init__(self, sd: float) -> None:
        if sd < 0:
            raise ValueError(f"the standard deviation of noise must be at least 0, not {sd}")
        self.sd = sd
        self.random: RandomStream | None = None

    def forward(self, x: Tensor) -> Tensor:
        if not self.training or self.sd == 0:
            return x
        return x + self.sd * _required(self.random, "noise").normal(x.shape, x.dtype)


def _required(random: RandomStream | None, what: str) -> RandomStream:
    """The random stream of a layer; RuntimeError if it has none."""
    if random is None:
        raise RuntimeError(f"{what} in training needs a random stream: call model.set_random(RandomStream(seed)) first")
    return random


class Sequential(Module):
    """Layers applied in order."""

    def __init__(self, *layers: Module) -> None:
        self.layers = list(layers)

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers:
            x = layer(x)
        return x


def mlp(
    sizes: Sequence[int],
    activation: str,
    rng: np.random.Generator,
    dtype: Any = np.float32,
    initializer: init.Initializer | None = None,
) -> Sequential:
    """Dense layers of the given sizes, every one followed by ``activation``."""
    return Sequential(*(Dense(i, o, rng, activation, initializer, dtype) for i, o in pairwise(sizes)))


def dense_layers(
    inputs: int,
    outputs: int,
    rng: np.random.Generator,
    activation: str,
    initializer: init.Initializer | None = None,
    dtype: Any = np.float32,
    batch_norm: bool = False,
) -> list[Module]:
    """A dense layer with its activation, or with batch normalisation between the two."""
    if not batch_norm:
        return [Dense(inputs, outputs, rng, activation, initializer, dtype)]
    linear = Dense(inputs, outputs, rng, "identity", initializer or init.he_normal, dtype, bias=False)
    return [linear, BatchNorm(outputs, activation, dtype=dtype)]
