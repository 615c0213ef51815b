"""The kernel set ``cuda``: kernels for an NVIDIA GPU, in Python compiled by numba-cuda. Arrays are ``DeviceArray``."""

from kernels.cuda import dense, elementwise, losses, memory, normalization, optimizers, random, reductions

__all__ = ["dense", "elementwise", "losses", "memory", "normalization", "optimizers", "random", "reductions"]
