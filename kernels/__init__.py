"""The kernels: plain functions over arrays, and the choice of the kernel set in use.

A kernel set is a package with the modules ``elementwise``, ``reductions``, ``dense``, ``conv``, ``pooling``,
``normalization``, ``losses``, ``optimizers``, ``random`` and ``memory`` (allocation and copies). All kernel sets have
the same functions with the same arguments:

``reference``
    NumPy, one line where possible. It defines what a kernel computes.
``cpu``
    Vectorised Numba loops, and matrix products as fast as a BLAS. The default for training.

``cuda``
    Kernels for an NVIDIA GPU, on arrays in its memory. It needs numba-cuda, and is imported only when asked for.

Kernels know nothing of autodiff or models. Outputs come first and are written in place, then inputs, then scalars;
``dx`` stands for d(loss)/dx and ``dout`` for the incoming gradient d(loss)/d(out). Arrays are C-contiguous and of one
float type; outputs never overlap inputs.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from importlib.util import find_spec
from types import ModuleType
from typing import Any

from kernels import cpu, reference

SETS: dict[str, ModuleType] = {"cpu": cpu, "reference": reference}
NAMES = ("cpu", "reference", "cuda")  # all kernel sets; ``SETS`` holds those already imported
# The functions of ``memory`` that count as kernels: they write into an array.
WRITES = ("write", "add_to", "add_at", "concatenate", "take", "rows")
_active: ContextVar[ModuleType] = ContextVar("active", default=cpu)  # of this thread or asynchronous task alone


class Unavailable(ImportError):
    """A kernel set that cannot run on this machine; the message says what is missing."""


def active() -> ModuleType:
    """The kernel set in use; ``cpu`` by default."""
    return _active.get()


def find(name: str) -> ModuleType:
    """The kernel set of that name. ValueError if there is none, ``Unavailable`` if it cannot run on this machine."""
    if name not in NAMES:
        raise ValueError(f"there is no kernel set {name!r}; choose from {', '.join(NAMES)}")
    if name not in SETS:  # cuda: slow to import, with optional dependencies
        if find_spec("numba_cuda") is None:
            raise Unavailable("the kernel set cuda needs numba-cuda: pip install 'scratchgen[cuda]'")
        from kernels.cuda import device

        if not device.SIMULATED and not device.cuda.is_available():
            raise Unavailable("the kernel set cuda needs an NVIDIA GPU and its driver; CUDA finds none")
        from kernels import cuda

        SETS[name] = cuda
    return SETS[name]


def wrapped(kernel_set: ModuleType, wrap: Callable[[str, Callable[..., None]], Any]) -> ModuleType:
    """A copy of the kernel set that has ``wrap(name, kernel)`` for each kernel; names are like ``dense.matmul``."""
    result = ModuleType("wrapped")
    vars(result)["__all__"] = kernel_set.__all__
    for file in kernel_set.__all__:
        module = getattr(kernel_set, file)
        copy = ModuleType(module.__name__)
        for name, value in vars(module).items():
            is_kernel = name in WRITES or (file != "memory" and getattr(value, "__module__", "") == module.__name__)
            if is_kernel:
                value = wrap(f"{file}.{name}", value)
                value.__module__ = module.__name__  # so that it can be wrapped again
            setattr(copy, name, value)
        setattr(result, file, copy)
    return result


@contextmanager
def use(kernel_set: str | ModuleType) -> Iterator[None]:
    """Use a kernel set, given by name (see ``find``) or as a module, inside the ``with`` block."""
    if isinstance(kernel_set, str):
        kernel_set = find(kernel_set)
    before = _active.get()
    _active.set(kernel_set)
    try:
        yield
    finally:
        _active.set(before)
