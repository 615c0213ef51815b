"""Random numbers for training, drawn where kernels compute.

Each draw takes a key of 63 bits for a counter-based generator (``kernels.random``): the key tells which numbers, and
they are the same on every kernel set, up to rounding. The keys come from a NumPy generator on the host, one after the
other, and its state is all that a checkpoint has to keep: the trainer saves and restores it, so a resumed run draws the
same numbers. A replayed step takes new keys. Small draws of other kinds, of priors say, are made by that generator
itself, inside ``from_host``.
"""

from typing import Any

import numpy as np

import kernels
from scratchgen.capture import from_host
from scratchgen.signature import Shape
from scratchgen.tensor import Tensor

REVISION = 5  # incremented when a seed comes to give other numbers: older checkpoints cannot be resumed


# What each random stream of a run is for; a stream is seeded by the run's seed and its place in this list.
STREAMS = ("parameters", "shuffle", "noise", "evaluation", "pixels", "samples", "labels", "final evaluation")


def stream(seed: int, purpose: str, *more: int) -> np.random.Generator:
    """The run's random generator for one purpose; ``more`` (an epoch, say) gives further independent ones."""
    # with len(more), because NumPy takes [seed, purpose] and [seed, purpose, 0] for the same seed
    return np.random.default_rng([seed, STREAMS.index(purpose), len(more), *more])


class RandomStream:
    """Draws tensors of random numbers, each with the next key of ``generator``.

    Parameters
    ----------
    source : int or np.random.Generator
        A seed, or the generator itself.
    """

    def __init__(self, source: "int | np.random.Generator") -> None:
        self.generator = np.random.default_rng(source)

    def uniform(self, shape: Shape, dtype: Any = np.float32) -> Tensor:
        """Uniform numbers in [0, 1)."""
        return Tensor.wrap(self._draw("uniform", shape, dtype))

    def normal(self, shape: Shape, dtype: Any = np.float32) -> Tensor:
        """Numbers from N(0, 1)."""
        return Tensor.wrap(self._draw("normal", shape, dtype))

    def bernoulli(self, probability: Tensor) -> Tensor:
        """1 with each element's probability, else 0: how grey levels are binarised (Salakhutdinov & Murray 2008)."""
        numbers = self._draw("uniform", (probability.size,), probability.dtype)
        out = kernels.active().memory.empty_like(numbers)
        kernels.active().elementwise.bernoulli(out, probability._data.reshape(-1), numbers)
        return Tensor.wrap(out.reshape(probability.shape))

    def binary_units(self, x: Tensor, bias: Tensor) -> tuple[Tensor, Tensor]:
        """States (r, o) of units with inputs x (r, o) and biases (o,), 1 with probability sigmoid(x + bias), else 0.

        And these probabilities, outside the graph.
        """
        active = kernels.active()
        states, probabilities = active.memory.empty_like(x._data), active.memory.empty_like(x._data)
        active.random.binary_units(states, probabilities, x._data, bias._data, self._key())
        return Tensor.wrap(states), Tensor.wrap(probabilities)

    def dropout_mask(self, shape: Shape, dtype: Any, rate: float) -> Tensor:
        """0 with probability ``rate``, else 1 / (1 - rate)."""
        numbers = self._draw("uniform", shape, dtype)
        out = kernels.active().memory.empty_like(numbers)
        kernels.active().elementwise.dropout_mask(out.reshape(-1), numbers.reshape(-1), rate)
        return Tensor.wrap(out)

    def _draw(self, kernel: str, shape: Shape, dtype: Any) -> Any:
        out = kernels.active().memory.empty(shape, np.dtype(dtype))
        getattr(kernels.active().random, kernel)(out, self._key())
        return out

    def _key(self) -> Any:
        return from_host(lambda: self.generator.integers(2**63, size=1), np.int64)
