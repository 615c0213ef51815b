"""The floor: nothing of a step but its matrix products, in NumPy's BLAS, into arrays that are there already.

No product is computed that the algorithm does not need, and none is split: D sees both of its batches in one product.
A convolution is the product of its windows (pixels, k l i), as if they were there already, and its weights (k l i, o).
A transposed one is that of its images (pixels, i) and its weights (i, k l o), as if adding up windows took no time.
"""

from itertools import pairwise
from typing import NamedTuple

import numpy as np

from tests.benchmarks.workloads import Contestant, Shared, Workload

Product = tuple[np.ndarray, np.ndarray, np.ndarray]  # a, b, and where a @ b goes


def contestant(name: str, workload: Workload, shared: Shared, images: np.ndarray) -> Contestant:
    """A step multiplies; there is nothing to check."""
    every = products(workload)

    def step() -> None:
        for a, b, out in every:
            np.matmul(a, b, out=out)

    return Contestant(step, lambda: {})


def products(workload: Workload) -> list[Product]:
    """Every product of a step, in its order."""
    return {"vae": _vae, "gan": _gan, "aae": _aae, "rbm": _rbm}[workload.model](workload)


def multiply_adds(every: list[Product]) -> int:
    """How many multiplications with their additions."""
    return sum(a.size * b.shape[1] for a, b, _ in every)


def _array(rows: int, columns: int) -> np.ndarray:
    return np.random.default_rng(0).standard_normal((rows, columns), np.float32) / np.float32(np.sqrt(rows))


class Layer(NamedTuple):
    """``rows`` of each example, ``inputs`` numbers in a row, and ``outputs``."""

    rows: int
    inputs: int
    outputs: int


def dense(*sizes: int) -> list[Layer]:
    """Dense layers of these sizes."""
    return [Layer(1, *size) for size in pairwise(sizes)]


def encoder(pixels: int, channels: tuple[int, ...], *sizes: int) -> list[Layer]:
    """Convolutions that halve the sides of images of one channel, then dense layers; windows are 4 by 4."""
    images = enumerate(pairwise((1, *channels)), start=1)
    features = (pixels >> 2 * len(channels)) * (1, *channels)[-1]
    return [Layer(pixels >> 2 * halved, 16 * i, o) for halved, (i, o) in images] + dense(features, *sizes)


def decoder(*sizes: int, channels: tuple[int, ...], pixels: int) -> list[Layer]:
    """Dense layers, then transposed convolutions that double the sides, up to images of one channel."""
    features = (pixels >> 2 * len(channels)) * (*channels, 1)[0]
    images = zip(range(len(channels), 0, -1), pairwise((*channels, 1)), strict=True)
    return dense(*sizes, features) + [Layer(pixels >> 2 * halved, i, 16 * o) for halved, (i, o) in images]


class Network:
    """The weights w of layers, and their gradients dw."""

    def __init__(self, layers: list[Layer]) -> None:
        self.layers = layers
        self.w = [_array(layer.inputs, layer.outputs) for layer in layers]
        self.dw = [np.zeros_like(w) for w in self.w]


class Pass:
    """``examples`` on their way through a network: inputs x and outputs y of each layer, and d(loss) of both."""

    def __init__(self, network: Network, examples: int) -> None:
        self.network = network
        (self.x, self.y), (self.dx, self.dy) = (_activations(network.layers, examples) for _ in range(2))

    def forward(self) -> list[Product]:
        return list(zip(self.x, self.network.w, self.y, strict=True))

    def backward(self, weights: bool = True, inputs: bool = False) -> list[Product]:
        """With ``inputs`` the gradient reaches the input of the first layer too."""
        every: list[Product] = []
        for i, w in reversed(list(enumerate(self.network.w))):
            if weights:
                every.append((self.x[i].T, self.dy[i], self.network.dw[i]))
            if i > 0 or inputs:
                every.append((self.dy[i], w.T, self.dx[i]))
        return every


def _activations(layers: list[Layer], examples: int) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Inputs and outputs; what a layer puts out is what the next one takes, where that is no windows of it."""
    x, y = list[np.ndarray](), list[np.ndarray]()
    for rows, inputs, outputs in layers:
        shape = examples * rows, inputs
        same = bool(y) and y[-1].size == shape[0] * inputs
        x.append(y[-1].reshape(shape) if same else _array(*shape))
        y.append(_array(shape[0], outputs))
    return x, y


def _vae(workload: Workload) -> list[Product]:
    network, b = workload.network, workload.batch
    body = Pass(Network(encoder(network.input_dim, network.encoder_channels, *network.encoder_hidden)), b)
    mu, logvar = (Pass(Network(dense(network.encoder_hidden[-1], network.latent_dim)), b) for _ in range(2))
    sizes, channels = (network.latent_dim, *network.decoder_hidden), network.decoder_channels
    reconstruction = Pass(Network(decoder(*sizes, channels=channels, pixels=network.input_dim)), b)
    forward = body.forward() + mu.forward() + logvar.forward() + reconstruction.forward()
    heads = mu.backward(inputs=True) + logvar.backward(inputs=True)
    return forward + reconstruction.backward(inputs=True) + heads + body.backward()


def _gan(workload: Workload) -> list[Product]:
    network, packs = workload.network, workload.batch // workload.network.pack
    sizes, channels = (network.latent_dim, *network.generator_hidden), network.generator_channels
    generator = Pass(Network(decoder(*sizes, channels=channels, pixels=network.input_dim)), workload.batch)
    pixels, channels = network.pack * network.input_dim, network.discriminator_channels
    discriminator = Network(encoder(pixels, channels, *network.discriminator_hidden, 1))
    both, fake = Pass(discriminator, 2 * packs), Pass(discriminator, packs)
    d_step = both.forward() + both.backward()
    g_step = fake.forward() + fake.backward(weights=False, inputs=True) + generator.backward()
    return generator.forward() + d_step + g_step


def _aae(workload: Workload) -> list[Product]:
    network, b = workload.network, workload.batch
    coding = Pass(Network(dense(network.input_dim, *network.encoder_hidden, network.latent_dim)), b)
    decoding = Pass(Network(dense(network.latent_dim, *network.decoder_hidden, network.input_dim)), b)
    discriminator = Network(dense(network.latent_dim, *network.discriminator_hidden, 1))
    both, codes = Pass(discriminator, 2 * b), Pass(discriminator, b)
    reconstruction = coding.forward() + decoding.forward() + decoding.backward(inputs=True) + coding.backward()
    discrimination = coding.forward() + both.forward() + both.backward()
    return (
        reconstruction
        + discrimination
        + codes.forward()
        + codes.backward(weights=False, inputs=True)
        + coding.backward()
    )


def _rbm(workload: Workload) -> list[Product]:
    """Hidden units of the data, the visible ones of a chain, its hidden ones, and two products for the gradient."""
    network, b, steps = workload.network, workload.batch, workload.training.gibbs_steps
    w = _array(network.input_dim, network.hidden)
    (v, model_v), (h, model_h) = ([_array(b, size) for _ in range(2)] for size in (network.input_dim, network.hidden))
    dw, model_dw = np.zeros_like(w), np.zeros_like(w)
    chain = [(h, w.T, model_v), (model_v, w, model_h)] * steps
    return [(v, w, h), *chain, (v.T, h, dw), (model_v.T, model_h, model_dw)]
