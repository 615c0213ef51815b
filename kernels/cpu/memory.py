"""Where results are written. Arrays of some size come from the system anew each time, page by page, and a training step
would spend a tenth of its time on that. Every step asks for the same sizes, so an array that nobody holds any more
serves again."""

import math
import sys
import threading

import numpy as np
from numba import njit, prange

from kernels.cpu.vector_math import JIT
from kernels.reference.memory import (  # the same for both
    add_at,
    captured,
    concatenate,
    copied,
    rows,
    take,
    to_device,
    to_host,
    write,
)

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

SMALLEST, LARGEST = 1 << 14, 1 << 24  # in bytes: below, there is nothing to gain; above, too much to hold
MOST = 1 << 28  # bytes held in all, and
LOOKED_AT = 64  # buffers of a size, beyond which it takes less time to ask the system
LINE = 64  # bytes: a vector that does not cross from one cache line into the next is read at once


class _Buffers(threading.local):
    """All buffers of a thread, by size, and where in each the first cache line begins."""

    def __init__(self) -> None:
        self.by_size: dict[int, list[tuple[np.ndarray, int]]] = {}
        self.held = 0

    def free(self, nbytes: int) -> tuple[np.ndarray, int]:
        """A buffer that nothing refers to but this list: every view of it, however made, counts as a reference."""
        held = self.by_size.setdefault(nbytes, [])
        for buffer, start in held:
            if sys.getrefcount(buffer) == _REFERENCES:
                return buffer, start
        buffer = np.empty(nbytes + LINE, np.uint8)
        found = buffer, -buffer.__array_interface__["data"][0] % LINE
        if len(held) < LOOKED_AT:
            if self.held + nbytes > MOST:  # sizes that nobody asks for any more: begin anew
                self.by_size, self.held = {}, 0
            self.by_size.setdefault(nbytes, []).append(found)
            self.held += nbytes
        return found


def _references() -> int:
    """What ``getrefcount`` says in ``free`` of a buffer that is free."""
    held = [(np.empty(0, np.uint8), 0)]
    for buffer, _ in held:
        return sys.getrefcount(buffer)
    raise AssertionError


_REFERENCES = _references()
_buffers = _Buffers()


def empty(shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
    """An array with whatever is in it."""
    nbytes = math.prod(shape) * dtype.itemsize
    if not SMALLEST <= nbytes <= LARGEST:
        return np.empty(shape, dtype)
    return np.ndarray(shape, dtype, *_buffers.free(nbytes))


def empty_like(x: np.ndarray) -> np.ndarray:
    """An array of the shape and type of x, with whatever is in it."""
    return empty(x.shape, x.dtype)


def add_to(out: np.ndarray, values: np.ndarray) -> None:
    """out += values."""
    if out.flags.c_contiguous and out.shape == values.shape:
        _add_to(out.reshape(-1), values.reshape(-1))
    else:
        out += values


@njit(parallel=True, **JIT)
def _add_to(out, values):
    for i in prange(out.size):
        out[i] += values[i]
