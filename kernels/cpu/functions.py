"""The activations as functions of one number, each written once for ``dense`` and ``elementwise``, and what each makes
of a gradient dy on its way back, from the output y. ``sigmoid``, ``tanh`` and ``softplus`` are in ``vector_math``."""

from numba import njit

from kernels.cpu import vector_math as vm
from kernels.cpu.vector_math import JIT, cast


@njit(**JIT)
def identity(x):
    """x."""
    return x


@njit(**JIT)
def relu(x):
    """max(x, 0)."""
    zero = cast(0.0, x)
    return zero if x < zero else x  # this way round NaN stays NaN


@njit(**JIT)
def elu(x):
    """x where x > 0, else e^x - 1."""
    return x if x > cast(0.0, x) else vm.expm1(x)


@njit(**JIT)
def identity_backward(y, dy):
    """dy."""
    return dy


@njit(**JIT)
def relu_backward(y, dy):
    """dy where y > 0, else 0."""
    zero = cast(0.0, y)
    return dy if y > zero else zero


@njit(**JIT)
def elu_backward(y, dy):
    """dy where y > 0, else e^x dy = (y + 1) dy."""
    return dy if y > cast(0.0, y) else (y + cast(1.0, y)) * dy


@njit(**JIT)
def sigmoid_backward(y, dy):
    """y (1 - y) dy."""
    return y * (cast(1.0, y) - y) * dy


@njit(**JIT)
def tanh_backward(y, dy):
    """(1 - y^2) dy."""
    return (cast(1.0, y) - y * y) * dy


@njit(**JIT)
def softplus_backward(y, dy):
    """sigmoid(x) dy = (1 - e^-y) dy."""
    return -vm.expm1(-y) * dy
