"""Where results are written: arrays on the device, whose memory serves again once nobody holds them."""

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
    """An array with whatever is in it."""
    return DeviceArray.empty(shape, dtype)


def empty_like(x: DeviceArray) -> DeviceArray:
    """An array of the shape and type of x, with whatever is in it."""
    return DeviceArray.empty(x.shape, x.dtype)


def to_device(x: np.ndarray | DeviceArray) -> DeviceArray:
    """A copy on the device of an array of the host; one that is on the device already, itself."""
    return x if isinstance(x, DeviceArray) else DeviceArray.from_host(x)


def to_host(x: DeviceArray) -> np.ndarray:
    """A copy on the host, after all that was launched before."""
    return np.asarray(x)


def copied(x: DeviceArray) -> DeviceArray:
    """A copy of its own, C-contiguous."""
    return x.copy()


def write(out: DeviceArray, values: Any) -> None:
    """out = values, repeated along the axes that ``out`` has more of; they may lie on the host."""
    if isinstance(values, Real):
        launch_over(out.size, _fill, out.reshape(-1), out.dtype.type(values))
    elif not in_graph() and _alike(out, values):
        out.copy_to_device(values)
    else:
        out[...] = values


def _alike(out: DeviceArray, values: Any) -> bool:
    """Whether the numbers can be copied as they are: the same shape, from the host or of the same type elsewhere."""
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
    """out[index] += values, as often as the index names an element; in its order, so an index array takes the host."""
    if is_basic(index):
        out[index] = out[index] + values
    else:
        whole = to_host(out)
        np.add.at(whole, index, to_host(values))
        out[...] = whole


def concatenate(out: DeviceArray, parts: Sequence[DeviceArray], axis: int) -> None:
    """out = the parts, one after the other along ``axis``."""
    start = 0
    for part in parts:
        end = start + part.shape[axis]
        out[(*(slice(None),) * (axis % out.ndim), slice(start, end))] = part
        start = end


def rows(x: DeviceArray, chosen: DeviceArray) -> DeviceArray:
    """Those rows of x (n, ...), in an array of their own; ``chosen`` lies on the device too."""
    out = empty((*chosen.shape, *x.shape[1:]), x.dtype)
    launch_over(out.size, _rows, out.reshape(-1), x.reshape(-1), chosen, math.prod(x.shape[1:]))
    return out


@cuda.jit
def _rows(out, x, chosen, width):
    for i in range(cuda.grid(1), out.size, cuda.gridsize(1)):
        out[i] = x[chosen[i // width] * width + i % width]
