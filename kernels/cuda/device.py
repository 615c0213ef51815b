"""Access to the GPU: the kernel modules import ``cuda`` from here and launch their kernels by the functions below.

With ``NUMBA_ENABLE_CUDASIM=1`` set before Numba is imported, a simulator replaces the GPU: threads run as Python, one
after the other.
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
THREADS = 8 if SIMULATED else 256  # per block, at most, by default; a power of 2
WARP = 4 if SIMULATED else 32  # threads that execute together
BLOCKS_EACH = 2 if SIMULATED else 16  # per multiprocessor, at most; beyond that, a thread does several elements
FEWEST = 4  # elements per thread that make another block worthwhile for a sum
_queue: Any = 0  # where kernels are launched: the default stream, or the graph being captured
_in_graph = False  # whether a graph is being captured, or the warm-up run before it is under way
cuda.config.CUDA_LOW_OCCUPANCY_WARNINGS = 0  # about grids below 128 blocks: a layer of a small model needs no more


@cache
def multiprocessors() -> int:
    """The number of multiprocessors of the GPU: at least as many blocks should be running."""
    return 3 if SIMULATED else cuda.get_current_device().MULTIPROCESSOR_COUNT


def launch(kernel: Any, grid: int | tuple[int, ...], threads: int, *arguments: Any) -> None:
    """Run a kernel with ``grid`` blocks of ``threads`` threads, after all kernels launched before it."""
    kernel[grid, threads, _queue](*[getattr(argument, "on_device", argument) for argument in arguments])


def launch_over(count: int, kernel: Any, *arguments: Any) -> None:
    """Run a kernel that loops over ``count`` elements with a stride of the whole grid."""
    if count:
        launch(kernel, min(-(-count // THREADS), BLOCKS_EACH * multiprocessors()), THREADS, *arguments)


def launch_rows(shape: tuple[int, int], kernel: Any, *arguments: Any) -> None:
    """Run a kernel with one block per row; short rows get blocks of fewer threads."""
    rows, size = shape
    if rows:
        launch(kernel, rows, min(THREADS, max(WARP, 1 << (size - 1).bit_length())), *arguments)


def shares(blocks: int, size: int, threads: int) -> int:
    """Into how many parts to split ``blocks`` sums of ``size`` elements each, if a block adds ``threads`` at once."""
    return max(1, min(BLOCKS_EACH * multiprocessors() // max(1, blocks), size // (FEWEST * threads)))


def upload(numbers: Any, values: np.ndarray) -> None:
    """Copy a flat host array, in pageable memory, to an array on the device, in stream order.

    Kernels launched next read the new values. The driver has read ``values`` when it returns. Up to 64 KB it does so in
    practice without waiting for the kernels launched before, as a copy without a stream would.
    """
    numbers.copy_to_device(values, stream=cuda.legacy_default_stream())


class Block:
    """GPU memory for ``size`` numbers. Unreferenced memory is pooled by size and dtype, and reused.

    An allocation by the driver takes longer than a small kernel. Reuse is safe, because kernels run in the order of
    their launches, in one stream. When the driver is out of memory, the pool is given back to it.
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
        except Exception:  # an error of the driver, whose class the simulator lacks
            if _queue or not any(cls.free.values()):  # in a capture, the pool belongs to the graph
                raise
            cls.free.clear()
        return cuda.device_array(size, dtype)

    def __del__(self) -> None:
        if hasattr(self, "numbers"):  # else the allocation failed
            self.free[self.key].append(self.numbers)

    def shaped(self, *shape: int) -> Any:
        """The memory as an array of this shape, for a kernel."""
        return self.numbers.reshape(shape)


def captured(run: Callable[[], None]) -> Callable[[], None]:
    """A function that repeats the kernel launches of ``run`` as one launch of a CUDA graph, captured here.

    ``run`` must only launch kernels, on existing arrays: nothing is copied to or from the host. Temporary memory that
    its kernels allocate is kept for the graph alone. If no graph can be captured, warns and returns ``run``.
    """
    global _queue, _in_graph
    if SIMULATED:
        return run
    shared, own = Block.free, defaultdict[tuple[int, str], list[Any]](list)
    Block.free, _in_graph = own, True
    try:
        run()  # warm-up: compiles its kernels, and allocates their temporary memory
        _queue, stream = _new_graph()
        with closing(_queue) as builder:
            try:
                run()
            finally:
                _queue = 0
                builder.end_building()
            graph = builder.complete()
    except Exception as error:  # of any library: without the graph, all still works, only slower
        warnings.warn(f"no CUDA graph, so kernels are launched one by one: {error}", RuntimeWarning, stacklevel=2)
        return run
    finally:
        Block.free, _in_graph = shared, False

    def launch(held: Any = (run, own)) -> None:  # keeps their arrays alive as long as the graph
        graph.launch(stream)

    return launch


def _new_graph() -> tuple[Any, Any]:
    """A builder that captures launches as a graph, and the default stream to launch the graph in."""
    from cuda.core import LEGACY_DEFAULT_STREAM, Device

    device = Device()
    device.set_current()
    return device.create_graph_builder().begin_building(), LEGACY_DEFAULT_STREAM


def in_graph() -> bool:
    """Whether a graph is being captured, or the warm-up run before it is under way."""
    return _in_graph


def refuse_in_graph() -> None:
    """RuntimeError during a capture: a copy would happen now, and not again when the graph is replayed."""
    if in_graph():
        raise RuntimeError("a captured graph cannot contain a copy to or from the host")
