"""The kernel set ``reference``: every kernel in NumPy, one line where possible. It defines what the others compute."""

from kernels.reference import dense, elementwise, losses, memory, normalization, optimizers, random, reductions

__all__ = ["dense", "elementwise", "losses", "memory", "normalization", "optimizers", "random", "reductions"]
