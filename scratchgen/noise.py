"""Random numbers for training, drawn where kernels compute, on a device too.

One whole number of the run's generator tells a kernel which numbers of the counted stream (``kernels.random``) are
meant. So a step draws the same on every kernel set, up to rounding, and a checkpoint need know no more than the
generator's state.
"""

from typing import Any

import numpy as np

import kernels
from scratchgen.signature import Shape


def uniform(shape: Shape, dtype: np.dtype, rng: np.random.Generator) -> Any:
    """An array of the set in use, of numbers in [0, 1)."""
    out = kernels.active().memory.empty(shape, dtype)
    kernels.active().random.uniform(out, 0, _turn(rng))
    return out


def normal(shape: Shape, dtype: np.dtype, rng: np.random.Generator) -> Any:
    """An array of the set in use, of numbers from N(0, 1)."""
    out = kernels.active().memory.empty(shape, dtype)
    kernels.active().random.normal(out, 0, _turn(rng))
    return out


def _turn(rng: np.random.Generator) -> int:
    return int(rng.integers(2**63))
