"""Weight initialisation. Each function draws a float64 array of ``shape``, by default (fan_in, fan_out).

``fan_in`` is how many numbers a layer adds up for each output, ``fan_out`` how many outputs an input goes into.
"""

import math
from collections.abc import Callable

import numpy as np

Shape = tuple[int, ...]
Initializer = Callable[..., np.ndarray]  # (rng, fan_in, fan_out, shape=None)


def glorot_uniform(rng: np.random.Generator, fan_in: int, fan_out: int, shape: Shape | None = None) -> np.ndarray:
    """Uniform in +-sqrt(6 / (fan_in + fan_out)): keeps the variance of signals through tanh (Glorot & Bengio 2010)."""
    return uniform(rng, fan_in, fan_out, shape, math.sqrt(6 / max(fan_in + fan_out, 1)))


def glorot_normal(rng: np.random.Generator, fan_in: int, fan_out: int, shape: Shape | None = None) -> np.ndarray:
    """Normal with variance 2 / (fan_in + fan_out) (Glorot & Bengio 2010)."""
    return normal(rng, fan_in, fan_out, shape, math.sqrt(2 / max(fan_in + fan_out, 1)))


def he_uniform(rng: np.random.Generator, fan_in: int, fan_out: int, shape: Shape | None = None) -> np.ndarray:
    """Uniform in +-sqrt(6 / fan_in): keeps the variance of signals through relu (He et al. 2015)."""
    return uniform(rng, fan_in, fan_out, shape, math.sqrt(6 / max(fan_in, 1)))


def he_normal(rng: np.random.Generator, fan_in: int, fan_out: int, shape: Shape | None = None) -> np.ndarray:
    """Normal with variance 2 / fan_in (He et al. 2015)."""
    return normal(rng, fan_in, fan_out, shape, math.sqrt(2 / max(fan_in, 1)))


def fan_in_uniform(rng: np.random.Generator, fan_in: int, fan_out: int, shape: Shape | None = None) -> np.ndarray:
    """Uniform in +-1 / sqrt(fan_in), a sixth of he_uniform's variance: the default of PyTorch's linear layers."""
    return uniform(rng, fan_in, fan_out, shape, 1 / math.sqrt(max(fan_in, 1)))


def normal(
    rng: np.random.Generator, fan_in: int, fan_out: int, shape: Shape | None = None, std: float = 0.02
) -> np.ndarray:
    """Normal with standard deviation ``std``; 0.02 is the choice of Radford et al. 2015 for GANs."""
    return std * rng.standard_normal(shape or (fan_in, fan_out))


def uniform(
    rng: np.random.Generator, fan_in: int, fan_out: int, shape: Shape | None = None, limit: float = 0.05
) -> np.ndarray:
    """Uniform in [-limit, limit)."""
    return rng.uniform(-limit, limit, shape or (fan_in, fan_out))


INITIALIZERS: dict[str, Initializer] = {
    "glorot_uniform": glorot_uniform,
    "glorot_normal": glorot_normal,
    "he_uniform": he_uniform,
    "he_normal": he_normal,
    "fan_in_uniform": fan_in_uniform,
    "normal": normal,
    "uniform": uniform,
    "small_uniform": lambda rng, fan_in, fan_out, shape=None: uniform(rng, fan_in, fan_out, shape, 0.005),
}
