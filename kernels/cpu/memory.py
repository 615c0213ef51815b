"""Where results are written. Arrays of some size come from the system anew each time, page by page, and a training step
would spend a tenth of its time on that. Every step asks for the same sizes, so an array that nobody holds any more
serves again."""

import math
import sys
import threading

import numpy as np

SMALLEST, LARGEST = 1 << 14, 1 << 24  # in bytes: below, there is nothing to gain; above, too much to hold


class _Buffers(threading.local):
    """All buffers of a thread, by size."""

    def __init__(self) -> None:
        self.by_size: dict[int, list[np.ndarray]] = {}

    def free(self, nbytes: int) -> np.ndarray:
        """A buffer that nothing refers to but this list: every view of it, however made, counts as a reference."""
        held = self.by_size.setdefault(nbytes, [])
        for buffer in held:
            if sys.getrefcount(buffer) == _REFERENCES:
                return buffer
        held.append(np.empty(nbytes, np.uint8))
        return held[-1]


def _references() -> int:
    """What ``getrefcount`` says in ``free`` of a buffer that is free."""
    held = [np.empty(0, np.uint8)]
    for buffer in held:
        return sys.getrefcount(buffer)
    raise AssertionError


_REFERENCES = _references()
_buffers = _Buffers()


def empty(shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
    """An array with whatever is in it."""
    nbytes = math.prod(shape) * dtype.itemsize
    if not SMALLEST <= nbytes <= LARGEST:
        return np.empty(shape, dtype)
    return np.ndarray(shape, dtype, _buffers.free(nbytes))


def empty_like(x: np.ndarray) -> np.ndarray:
    """An array of the shape and type of x, with whatever is in it."""
    return empty(x.shape, x.dtype)
