"""Random numbers for training, drawn where kernels compute, on a device too.

One whole number of the run's generator, a *turn*, tells a kernel which numbers of the counted stream
(``kernels.random``, whose ``step`` it is) are meant; ``draw`` tells those of one turn apart. So a step draws the same
on every kernel set, up to rounding, a replayed one draws anew, and a checkpoint need know no more than the generator's
state.
"""

from typing import Any

import numpy as np

import kernels
from scratchgen.signature import Shape

REVISION = 2  # counted up when a seed comes to mean other numbers: a run begun before cannot go on the same


def turns(rng: np.random.Generator, count: int = 1) -> np.ndarray:
    """The next turns (count,) of a generator."""
    return rng.integers(2**63, size=count)


def uniform(shape: Shape, dtype: np.dtype, turn: Any, draw: int = 0) -> Any:
    """An array of the set in use, of numbers in [0, 1); ``turn`` (1,)."""
    return _drawn("uniform", shape, dtype, turn, draw)


def normal(shape: Shape, dtype: np.dtype, turn: Any, draw: int = 0) -> Any:
    """An array of the set in use, of numbers from N(0, 1); ``turn`` (1,)."""
    return _drawn("normal", shape, dtype, turn, draw)


def _drawn(kernel: str, shape: Shape, dtype: np.dtype, turn: Any, draw: int) -> Any:
    active = kernels.active()
    out = active.memory.empty(shape, dtype)
    getattr(active.random, kernel)(out, draw, active.memory.to_device(turn))
    return out
