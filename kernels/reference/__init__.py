"""The kernel set ``reference``: every kernel in NumPy, one line where possible. It defines what the others compute."""

from kernels.reference import (
    conv,
    dense,
    elementwise,
    losses,
    memory,
    normalization,
    optimizers,
    pooling,
    random,
    reductions,
)

__all__ = [
    "conv",
    "dense",
    "elementwise",
    "losses",
    "memory",
    "normalization",
    "optimizers",
    "pooling",
    "random",
    "reductions",
]
