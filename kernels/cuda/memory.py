"""Allocation, copies and indexed writes on the device. Unreferenced memory is pooled and reused (see ``Block``)."""

import math
from collections.abc import Sequence
from numbers import Real
from typing import Any

import numpy as np

from kernels.cuda.array import DeviceArray, is_basic
from kernels.cuda.device import captured, cuda, in_graph, launch_over

__all__ = [
    "add_at",
    "add_to",
    "captured",
    "concatenate",
    "copied",
    "empty",
    "empty_like",
    "rows",
    "take",
    "to_device",
    "to_host",
    "write",
]


def empty(shape: tuple[int, ...], dtype: Any) -> DeviceArray:
    """An uninitialized array."""
    return DeviceArray.empty(shape, dtype)


def empty_like(x: DeviceArray) -> DeviceArray:
    """An uninitialized array of the shape and dtype of x."""
    return DeviceArray.empty(x.shape, x.dtype)


def to_device(x: np.ndarray | DeviceArray) -> DeviceArray:
    """A copy on the device of a host array; a device array itself."""
    return x if isinstance(x, DeviceArray) else DeviceArray.from_host(x)


def to_host(x: DeviceArray) -> np.ndarray:
    """A copy on the host, after waiting for all kernels launched before."""
    return np.asarray(x)


def copied(x: DeviceArray) -> DeviceArray:
    """A C-contiguous copy."""
    return x.copy()


def write(out: DeviceArray, values: Any) -> None:
    """out = values, broadcast to the shape of ``out``.

    The values may be on the host.
    """
    if isinstance(values, Real):
        launch_over(out.size, _fill, out.reshape(-1), out.dtype.type(values))
    elif not in_graph() and _alike(out, values):
        out.copy_to_device(values)
    else:
        out[...] = values


def _alike(out: DeviceArray, values: Any) -> bool:
    """Whether a plain copy will do: the same shape, and on the host or of the same dtype in other memory."""
    if isinstance(values, DeviceArray):
        return (values.shape, values.dtype) == (out.shape, out.dtype) and values._block is not out._block
    return np.shape(values) == out.shape


@cuda.jit
def _fill(out, value):
    for i in range(cuda.grid(1), out.size, cuda.gridsize(1)):
        out[i] = value


def take(out: DeviceArray, x: DeviceArray, index: Any) -> None:
    """out = x[index]."""
    out[...] = x[index]


def add_to(out: DeviceArray, values: DeviceArray) -> None:
    """out += values."""
    out += values


def add_at(out: DeviceArray, index: Any, values: DeviceArray) -> None:
    """out[index] += values, accumulated where the index repeats an element.

    Index arrays go by way of the host, which adds in their order.
    """
    if is_basic(index):
        out[index] = out[index] + values
    else:
        whole = to_host(out)
        np.add.at(whole, index, to_host(values))
        out[...] = whole


def concatenate(out: DeviceArray, parts: Sequence[DeviceArray], axis: int) -> None:
    """out = the parts, concatenated along ``axis``."""
    start = 0
    for part in parts:
        end = start + part.shape[axis]
        out[(*(slice(None),) * (axis % out.ndim), slice(start, end))] = part
        start = end


def rows(out: DeviceArray, x: DeviceArray, chosen: DeviceArray) -> None:
    """out (b, ...) = the rows of x (n, ...) at the indices ``chosen`` (b,), which lie in 0..n-1."""
    launch_over(out.size, _rows, out.reshape(-1), x.reshape(-1), chosen, math.prod(x.shape[1:]))


@cuda.jit
def _rows(out, x, chosen, width):
    for i in range(cuda.grid(1), out.size, cuda.gridsize(1)):
        out[i] = x[chosen[i // width] * width + i % width]
