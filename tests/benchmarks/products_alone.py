"""The floor: nothing of a step but its matrix products, in NumPy's BLAS, into arrays that are there already.

No product is computed that the algorithm does not need, and none is split: D sees both of its batches in one product.
"""

from itertools import pairwise

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
    return {"vae": _vae, "gan": _gan, "aae": _aae}[workload.model](workload)


def multiply_adds(every: list[Product]) -> int:
    """How many multiplications with their additions."""
    return sum(a.size * b.shape[1] for a, b, _ in every)


def _array(rows: int, columns: int) -> np.ndarray:
    return np.random.default_rng(0).standard_normal((rows, columns), np.float32) / np.float32(np.sqrt(rows))


class Network:
    """The weights w of dense layers, and their gradients dw."""

    def __init__(self, *sizes: int) -> None:
        self.sizes = sizes
        self.w = [_array(*size) for size in pairwise(sizes)]
        self.dw = [np.zeros_like(w) for w in self.w]


class Pass:
    """``rows`` examples on their way through a network: activations x before and after each layer, and d(loss)/dx."""

    def __init__(self, network: Network, rows: int) -> None:
        self.network = network
        self.x, self.dx = ([_array(rows, size) for size in network.sizes] for _ in range(2))

    def forward(self) -> list[Product]:
        return list(zip(self.x[:-1], self.network.w, self.x[1:], strict=True))

    def backward(self, weights: bool = True, inputs: bool = False) -> list[Product]:
        """With ``inputs`` the gradient reaches the input of the first layer too."""
        every: list[Product] = []
        for i, w in reversed(list(enumerate(self.network.w))):
            if weights:
                every.append((self.x[i].T, self.dx[i + 1], self.network.dw[i]))
            if i > 0 or inputs:
                every.append((self.dx[i + 1], w.T, self.dx[i]))
        return every


def _vae(workload: Workload) -> list[Product]:
    network, b = workload.network, workload.batch
    encoder = Pass(Network(network.input_dim, *network.encoder_hidden), b)
    mu, logvar = (Pass(Network(network.encoder_hidden[-1], network.latent_dim), b) for _ in range(2))
    decoder = Pass(Network(network.latent_dim, *network.decoder_hidden, network.input_dim), b)
    forward = encoder.forward() + mu.forward() + logvar.forward() + decoder.forward()
    heads = mu.backward(inputs=True) + logvar.backward(inputs=True)
    return forward + decoder.backward(inputs=True) + heads + encoder.backward()


def _gan(workload: Workload) -> list[Product]:
    network, packs = workload.network, workload.batch // workload.network.pack
    generator = Pass(Network(network.latent_dim, *network.generator_hidden, network.input_dim), workload.batch)
    discriminator = Network(network.pack * network.input_dim, *network.discriminator_hidden, 1)
    both, fake = Pass(discriminator, 2 * packs), Pass(discriminator, packs)
    d_step = both.forward() + both.backward()
    g_step = fake.forward() + fake.backward(weights=False, inputs=True) + generator.backward()
    return generator.forward() + d_step + g_step


def _aae(workload: Workload) -> list[Product]:
    network, b = workload.network, workload.batch
    encoder = Pass(Network(network.input_dim, *network.encoder_hidden, network.latent_dim), b)
    decoder = Pass(Network(network.latent_dim, *network.decoder_hidden, network.input_dim), b)
    discriminator = Network(network.latent_dim, *network.discriminator_hidden, 1)
    both, codes = Pass(discriminator, 2 * b), Pass(discriminator, b)
    reconstruction = encoder.forward() + decoder.forward() + decoder.backward(inputs=True) + encoder.backward()
    discrimination = encoder.forward() + both.forward() + both.backward()
    return (
        reconstruction
        + discrimination
        + codes.forward()
        + codes.backward(weights=False, inputs=True)
        + encoder.backward()
    )
