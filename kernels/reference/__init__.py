"""The set ``reference``: every kernel in NumPy, one line where possible. The definition of the others."""

from kernels.reference import dense, elementwise, losses, memory, normalization, optimizers, random, reductions

__all__ = ["dense", "elementwise", "losses", "memory", "normalization", "optimizers", "random", "reductions"]
