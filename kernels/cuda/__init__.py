"""The kernel set ``cuda``: kernels for an NVIDIA GPU, in Python compiled by numba-cuda. Arrays are ``DeviceArray``."""

from kernels.cuda import (
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
