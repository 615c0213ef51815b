"""Random numbers for training, drawn where kernels compute, on a device too.

One whole number of the run's generator, a *turn*, tells a kernel which numbers of the counted stream are meant, and
``draw`` tells those of one turn apart (``kernels.random`` knows them as ``step`` and ``seed``). So a step draws the
same on every kernel set, up to rounding, a replayed one draws anew, and a checkpoint need know no more than the
generator's state.
"""

from typing import Any

import numpy as np

import kernels
from scratchgen.signature import Shape

PIXELS, MASKS = 1, 2  # draws for the noise of pixels, and from there on for masks of dropout, where codes take 0
REVISION = 3  # counted up when a seed comes to mean other numbers: a run begun before cannot go on the same


def turns(rng: np.random.Generator, count: int = 1) -> np.ndarray:
    """The next turns (count,) of a generator."""
    return rng.integers(2**63, size=count)


def uniform(shape: Shape, dtype: np.dtype, turn: Any, draw: int = 0) -> Any:
    """An array of the set in use, of numbers in [0, 1); ``turn`` (1,)."""
    return _drawn("uniform", shape, dtype, turn, draw)


def normal(shape: Shape, dtype: np.dtype, turn: Any, draw: int = 0) -> Any:
    """An array of the set in use, of numbers from N(0, 1); ``turn`` (1,)."""
    return _drawn("normal", shape, dtype, turn, draw)


class Masks:
    """The masks of dropout in a turn (1,), one after the other."""

    def __init__(self, turn: Any) -> None:
        self.turn, self.next = turn, MASKS

    def __call__(self, shape: Shape, dtype: np.dtype, rate: float) -> Any:
        """An array of the set in use: 0 with probability ``rate``, else 1 / (1 - rate)."""
        numbers = uniform(shape, dtype, self.turn, self.next)
        self.next += 1
        out = kernels.active().memory.empty_like(numbers)
        kernels.active().elementwise.dropout_mask(out.reshape(-1), numbers.reshape(-1), rate)
        return out


def _drawn(kernel: str, shape: Shape, dtype: np.dtype, turn: Any, draw: int) -> Any:
    active = kernels.active()
    out = active.memory.empty(shape, dtype)
    getattr(active.random, kernel)(out, draw, active.memory.to_device(turn))
    return out
