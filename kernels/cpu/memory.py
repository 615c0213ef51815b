"""Allocation and copies. Unreferenced buffers are pooled and reused. A large array from the system has new pages, and
their page faults would take a tenth of a training step, while every step needs the same sizes. A buffer is free when
its reference count says that only the pool holds it; every view of it counts as a reference. What such a count is
differs between versions of Python, so it is found by trying; where it says nothing, no buffer is reused."""

import math
import sys
import threading
from collections.abc import Callable
from typing import Any

import numpy as np
from numba import njit, prange

from kernels.cpu.threads import repeated
from kernels.cpu.vector_math import JIT
from kernels.reference.memory import (  # as in the kernel set reference
    add_at,
    concatenate,
    copied,
    rows,
    take,
    to_device,
    to_host,
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

SMALLEST, LARGEST = 1 << 14, 1 << 24  # bytes: below, pooling gains nothing; above, it would hold too much memory
MOST = 1 << 28  # bytes in a pool
LOOKED_AT = 64  # buffers of one size in a pool: searching more takes longer than a new allocation
LARGE = 1 << 16  # numbers in an array: copying or adding fewer takes less time than starting threads
LINE = 64  # bytes of a cache line, to which buffers are aligned: loading a vector that crosses two lines is slower


class _Buffers(threading.local):
    """The pool of a thread: its buffers by size, each with the offset of its first cache line."""

    def __init__(self) -> None:
        self.by_size: dict[int, list[tuple[np.ndarray, int]]] = {}
        self.held = 0

    def free(self, nbytes: int) -> tuple[np.ndarray, int]:
        """A buffer that nothing refers to but the pool: every view of it, however made, counts as a reference."""
        held = self.by_size.setdefault(nbytes, [])
        if _REFERENCES and (unused := _unused(held, _REFERENCES)):
            return unused
        buffer = np.empty(nbytes + LINE, np.uint8)
        found = buffer, -buffer.__array_interface__["data"][0] % LINE
        if len(held) < LOOKED_AT:
            if self.held + nbytes > MOST:  # full, of sizes that may no longer be needed: empty it
                self.by_size, self.held = {}, 0
            self.by_size.setdefault(nbytes, []).append(found)
            self.held += nbytes
        return found


def _unused(held: list[tuple[np.ndarray, int]], references: int) -> tuple[np.ndarray, int] | None:
    """The first of these buffers, with its offset, to which there are so many references; None if there is none."""
    for buffer, start in held:
        if sys.getrefcount(buffer) == references:
            return buffer, start
    return None


def _references() -> int:
    """How many references ``_unused`` counts to a buffer that nobody uses; 0 if they do not tell it from others."""
    for count in range(1, 20):
        free, viewed = ([(np.empty(1, np.uint8), 0)] for _ in range(2))
        view = viewed[0][0][:]
        if _unused(free, count) and not _unused(viewed, count) and view.base is not None:
            return count
    return 0


_REFERENCES = _references()
_buffers = _Buffers()


def empty(shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
    """An uninitialized array."""
    nbytes = math.prod(shape) * dtype.itemsize
    if not SMALLEST <= nbytes <= LARGEST:
        return np.empty(shape, dtype)
    return np.ndarray(shape, dtype, *_buffers.free(nbytes))


def empty_like(x: np.ndarray) -> np.ndarray:
    """An uninitialized array of the shape and dtype of x."""
    return empty(x.shape, x.dtype)


def captured(run: Callable[[], None]) -> Callable[[], None]:
    """A function that repeats the kernel calls of ``run``, which are on existing arrays, on as many threads as pay."""
    return repeated(run)


def write(out: np.ndarray, values: Any) -> None:
    """out = values, broadcast to the shape of ``out``."""
    if isinstance(values, np.ndarray) and _shareable(out, values):
        _write(out.reshape(-1), values.reshape(-1))
    else:
        out[...] = values


@njit(parallel=True, **JIT)
def _write(out, values):
    for i in prange(out.size):
        out[i] = values[i]


def _shareable(out: np.ndarray, values: np.ndarray) -> bool:
    """Whether threads may share the loop, and pay: two large arrays, alike and in C order, that do not overlap."""
    return (
        out.size >= LARGE
        and out.shape == values.shape
        and out.dtype == values.dtype
        and out.flags.c_contiguous
        and values.flags.c_contiguous
        and not np.may_share_memory(out, values)
    )


def add_to(out: np.ndarray, values: np.ndarray) -> None:
    """out += values."""
    if _shareable(out, values):
        _add_to(out.reshape(-1), values.reshape(-1))
    else:
        out += values


@njit(parallel=True, **JIT)
def _add_to(out, values):
    for i in prange(out.size):
        out[i] += values[i]
