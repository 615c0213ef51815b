"""The GPU: the one file that imports ``numba.cuda``. The others take ``cuda`` from here and launch their kernels by it.

With ``NUMBA_ENABLE_CUDASIM=1`` in the environment before Numba is imported, a simulator takes the GPU's place: every
thread runs as Python, one after the other.
"""

import warnings
from collections import defaultdict
from collections.abc import Callable
from contextlib import closing
from functools import cache
from typing import Any, ClassVar

import numpy as np
from numba import cuda

SIMULATED = bool(cuda.config.ENABLE_CUDASIM)
THREADS = 8 if SIMULATED else 256  # of a block, at most, where nothing else is said; a power of 2
WARP = 4 if SIMULATED else 32  # threads that run together
BLOCKS_EACH = 2 if SIMULATED else 16  # enough for a multiprocessor; beyond that, a thread does several numbers
FEWEST = 4  # numbers for a thread, or a sum is not worth another block
_queue: Any = 0  # what kernels are launched into: the default stream, or a graph in the making
_in_graph = False  # whether what is launched is to be a graph, or is run through once before that
cuda.config.CUDA_LOW_OCCUPANCY_WARNINGS = 0  # of grids below 128 blocks: a layer of a small model needs no more


@cache
def multiprocessors() -> int:
    """How many the GPU has: so many blocks at least should be at work."""
    return 3 if SIMULATED else cuda.get_current_device().MULTIPROCESSOR_COUNT


def launch(kernel: Any, grid: int | tuple[int, ...], threads: int, *arguments: Any) -> None:
    """Run a kernel with ``grid`` blocks of ``threads`` threads, after all that was launched before it."""
    kernel[grid, threads, _queue](*[getattr(argument, "on_device", argument) for argument in arguments])


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


def upload(numbers: Any, values: np.ndarray) -> None:
    """Copy flat numbers of the host, which are not in pinned memory, into an array on the device.

    What is launched next finds them there. The driver takes the values over before it returns; a few, up to 64 KB, in
    practice without waiting for what was launched before, as a copy without a stream would.
    """
    numbers.copy_to_device(values, stream=cuda.legacy_default_stream())


class Block:
    """Memory of the GPU for ``size`` numbers: once nobody holds it, the next of its size and type takes it over.

    To ask the driver takes longer than a small kernel. What was launched with the memory before runs before what is
    launched with it next, for there is one queue. Where the driver has none left, it gets back all that nobody holds.
    """

    __slots__ = ("key", "numbers")
    free: ClassVar[defaultdict[tuple[int, str], list[Any]]] = defaultdict(list)

    def __init__(self, size: int, dtype: Any) -> None:
        self.key = size, np.dtype(dtype).str
        waiting = self.free[self.key]
        self.numbers = waiting.pop() if waiting else self._new(size, dtype)

    @classmethod
    def _new(cls, size: int, dtype: Any) -> Any:
        try:
            return cuda.device_array(size, dtype)
        except Exception:  # the driver's, which the simulator does not have
            if _queue or not any(cls.free.values()):  # of a graph in the making, what is free is to be its own
                raise
            cls.free.clear()
        return cuda.device_array(size, dtype)

    def __del__(self) -> None:
        if hasattr(self, "numbers"):  # else there was no memory left for it
            self.free[self.key].append(self.numbers)

    def shaped(self, *shape: int) -> Any:
        """As an array for a kernel."""
        return self.numbers.reshape(shape)


def captured(run: Callable[[], None]) -> Callable[[], None]:
    """``run``, whose launches are made one graph, which reaches the device in a single one.

    It launches kernels on arrays that are there, and nothing else: nothing is copied to or from the host. Memory that
    kernels ask for in passing is the graph's own from then on. Where no graph can be made, a warning, and ``run``.
    """
    global _queue, _in_graph
    if SIMULATED:
        return run
    shared, own = Block.free, defaultdict[tuple[int, str], list[Any]](list)
    Block.free, _in_graph = own, True
    try:
        run()  # now its kernels are compiled, and what memory they ask for is there
        _queue, stream = _new_graph()
        with closing(_queue) as builder:
            try:
                run()
            finally:
                _queue = 0
                builder.end_building()
            graph = builder.complete()
    except Exception as error:  # of whichever library: what it was to speed up still works
        warnings.warn(f"without a CUDA graph, kernels are launched one by one: {error}", RuntimeWarning, stacklevel=2)
        return run
    finally:
        Block.free, _in_graph = shared, False

    def launch(held: Any = (run, own)) -> None:  # its arrays stay as long as the graph does
        graph.launch(stream)

    return launch


def _new_graph() -> tuple[Any, Any]:
    """A graph that takes in what is launched, and the default stream to launch it into."""
    from cuda.core import LEGACY_DEFAULT_STREAM, Device

    device = Device()
    device.set_current()
    return device.create_graph_builder().begin_building(), LEGACY_DEFAULT_STREAM


def in_graph() -> bool:
    """Whether a graph is in the making, or about to be."""
    return _in_graph


def refuse_in_graph() -> None:
    """RuntimeError while a graph is made: a copy would happen now, and not again when the graph is launched."""
    if in_graph():
        raise RuntimeError("a graph of kernels alone can hold no copy to or from the host")
