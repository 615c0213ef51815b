"""The GPU: the one file that imports ``numba.cuda``. The others take ``cuda`` from here and launch their kernels by it.

With ``NUMBA_ENABLE_CUDASIM=1`` in the environment before Numba is imported, a simulator takes the GPU's place: every
thread runs as Python, one after the other.
"""

from collections import defaultdict
from functools import cache
from typing import Any, ClassVar

import numpy as np
from numba import cuda

SIMULATED = bool(cuda.config.ENABLE_CUDASIM)
THREADS = 8 if SIMULATED else 256  # of a block, at most, where nothing else is said; a power of 2
WARP = 4 if SIMULATED else 32  # threads that run together
BLOCKS_EACH = 2 if SIMULATED else 16  # enough for a multiprocessor; beyond that, a thread does several numbers
FEWEST = 4  # numbers for a thread, or a sum is not worth another block


@cache
def multiprocessors() -> int:
    """How many the GPU has: so many blocks at least should be at work."""
    return 3 if SIMULATED else cuda.get_current_device().MULTIPROCESSOR_COUNT


def launch(kernel: Any, grid: int | tuple[int, ...], threads: int, *arguments: Any) -> None:
    """Run a kernel with ``grid`` blocks of ``threads`` threads, after all that was launched before it."""
    kernel[grid, threads](*[getattr(argument, "on_device", argument) for argument in arguments])


def launch_over(count: int, kernel: Any, *arguments: Any) -> None:
    """Run a kernel whose threads share out ``count`` numbers: a thread takes every so-manieth."""
    if count:
        launch(kernel, min(-(-count // THREADS), BLOCKS_EACH * multiprocessors()), THREADS, *arguments)


def launch_rows(shape: tuple[int, int], kernel: Any, *arguments: Any) -> None:
    """Run a kernel with a block for each of so many rows, and no more threads in it than the row has work for."""
    rows, size = shape
    if rows:
        launch(kernel, rows, min(THREADS, max(WARP, 1 << (size - 1).bit_length())), *arguments)


def shares(blocks: int, size: int, threads: int) -> int:
    """Into how many parts to cut each of so many sums of ``size`` numbers, if a block takes ``threads`` at once."""
    return max(1, min(BLOCKS_EACH * multiprocessors() // max(1, blocks), size // (FEWEST * threads)))


class Block:
    """Memory of the GPU for ``size`` numbers: once nobody holds it, the next of its size and type takes it over.

    To ask the driver takes longer than a small kernel. What was launched with the memory before runs before what is
    launched with it next, for there is one queue.
    """

    __slots__ = ("key", "numbers")
    free: ClassVar[defaultdict[tuple[int, str], list[Any]]] = defaultdict(list)

    def __init__(self, size: int, dtype: Any) -> None:
        self.key = size, np.dtype(dtype).str
        waiting = self.free[self.key]
        self.numbers = waiting.pop() if waiting else cuda.device_array(size, dtype)

    def __del__(self) -> None:
        if hasattr(self, "numbers"):  # else there was no memory left for it
            self.free[self.key].append(self.numbers)

    def shaped(self, *shape: int) -> Any:
        """As an array for a kernel."""
        return self.numbers.reshape(shape)
