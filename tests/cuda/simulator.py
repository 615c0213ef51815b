"""A pytest plugin: Numba's CUDA simulator, made strict, quick and the same each time. ``-p tests.cuda.simulator``.

Numba's simulator gives every thread of a block a thread of the system. Here they are greenlets: one runs until it waits
at ``syncthreads``, then the next does. When none can run, either all wait at one barrier, and it opens; or some wait
elsewhere, or have left the kernel, for which a GPU has no answer: an error.

A thread that reads what another has yet to write always does so too early, for no other runs meanwhile: and as shared
memory begins as NaN, it shows. So does memory that ``empty`` gives.
"""

import sys
from contextlib import contextmanager
from functools import cache

import greenlet
import numpy as np
from numba.cuda.simulator import kernel as numba_kernel
from numba.cuda.simulator import kernelapi

from kernels.cuda import device

if not device.SIMULATED:
    raise RuntimeError("set NUMBA_ENABLE_CUDASIM=1 before Numba is imported")


class Thread(greenlet.greenlet):
    """A thread of a block: ``waits_at`` is the line of the barrier that it stands before."""

    waits_at: tuple | None = None

    def syncthreads(self) -> None:
        frame = sys._getframe(2)  # the kernel's, behind numba's own function
        self.waits_at = frame.f_code, frame.f_lineno
        self.parent.switch()


class Barrier(RuntimeError):
    """A barrier that not all threads of a block come to."""


def run_block(manager, place, *arguments) -> None:
    """What ``BlockManager.run`` does: all threads of the block at ``place``, in turn, from barrier to barrier."""
    size = kernelapi.Dim3(*manager._block_dim)
    threads = []
    for z, y, x in np.ndindex(size.z, size.y, size.x):
        thread = Thread(manager._f)
        thread.blockIdx, thread.threadIdx = kernelapi.Dim3(*place), kernelapi.Dim3(x, y, z)
        thread.thread_id = x + size.x * (y + size.y * z)
        thread.waits_at = None
        thread._manager = manager
        threads.append(thread)
    alive, given = threads, arguments
    while alive:
        for thread in alive:
            thread.waits_at = None
            thread.switch(*given)
        given = ()
        waiting = [thread for thread in alive if not thread.dead]
        if waiting and (len(waiting) < len(alive) or len({thread.waits_at for thread in waiting}) > 1):
            raise Barrier(f"block {tuple(place)}: not all threads come to the same syncthreads; a GPU would hang")
        alive = waiting


class _Current:
    """Stands for the module ``threading`` in the simulator, which asks it who runs."""

    current_thread = staticmethod(greenlet.getcurrent)

    class Lock:
        """Nobody else runs: nothing to lock."""

        def __enter__(self):
            return self

        def __exit__(self, *_):
            return False


def _poisoned(array: np.ndarray) -> np.ndarray:
    array.view(np.uint8).fill(0xFF)  # NaN in every float type
    return array


def shared_array(self, shape, dtype, alignment=None):
    """Memory of the block, the same for all its threads that ask on this line."""
    if isinstance(dtype, kernelapi.types.Type):
        dtype = kernelapi.numpy_support.as_dtype(dtype)
    frame = sys._getframe(1)
    key = frame.f_code, frame.f_lineno
    if key not in self._allocations:
        self._allocations[key] = _poisoned(np.empty(shape, dtype))
    return self._allocations[key]


def local_array(self, shape, dtype, alignment=None):
    """Memory of a thread."""
    if isinstance(dtype, kernelapi.types.Type):
        dtype = kernelapi.numpy_support.as_dtype(dtype)
    return _poisoned(np.empty(shape, dtype))


def _poisoned_block(self, size, dtype):
    """A ``Block`` of NaN, so that a number that no kernel has written shows; memory that serves again, too."""
    _plain_block(self, size, dtype)
    self.numbers.copy_to_device(_poisoned(np.empty(size, dtype)))


@cache
def _files_of_the_set(modules: int):
    """Those that use ``cuda``, looked for anew once more modules are loaded: the look takes as long as a launch."""
    files = [module for name, module in sys.modules.items() if name.startswith("kernels.cuda.")]
    return [file for file in files if getattr(file, "cuda", None) is device_cuda]


_depth = 0


@contextmanager
def swapped(function, fake):
    """Let ``cuda`` mean the simulator's while a kernel runs, in all files of the set: functions that kernels call lie
    in others, and are entered by one thread while another is in them."""
    global _depth
    files = [] if _depth else _files_of_the_set(len(sys.modules))
    _depth += 1
    for file in files:
        file.cuda = fake
    try:
        yield
    finally:
        _depth -= 1
        for file in files:
            file.cuda = device_cuda


def refused(array):
    """Numba would copy an array of the host to the device and back, at every launch."""
    raise TypeError(f"a kernel was given an array of the host, {array.shape}")


device_cuda = device.cuda
numba_kernel.InOut = refused
numba_kernel.swapped_cuda_module = swapped
numba_kernel.BlockManager.run = run_block
kernelapi.threading = _Current
kernelapi.FakeCUDAShared.array = shared_array
kernelapi.FakeCUDALocal.array = local_array
_plain_block, device.Block.__init__ = device.Block.__init__, _poisoned_block
