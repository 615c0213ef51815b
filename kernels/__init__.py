"""The kernels: plain functions over arrays, and the one place that picks a set of them.

A set is a package with the files ``elementwise``, ``reductions``, ``dense``, ``normalization``, ``losses``,
``optimizers``, ``random`` and ``memory`` (where results are written), and every set has the same functions with the
same arguments:

``reference``
    NumPy, one line where possible. It defines what a kernel computes.
``cpu``
    Numba loops that vectorise, matrix products as fast as a BLAS. It trains.

``cuda``
    Kernels for an NVIDIA GPU, on arrays that lie there. It needs numba-cuda, and is imported when it is asked for.

Kernels know nothing of gradients or models. Outputs come first and are written in place, then inputs, then scalars;
``dx`` stands for d(loss)/dx and ``dout`` for the incoming gradient d(loss)/d(out). Arrays are C-contiguous and of one
float type; outputs never overlap inputs.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from types import ModuleType
from typing import Any

from kernels import cpu, reference

SETS: dict[str, ModuleType] = {"cpu": cpu, "reference": reference}
NAMES = ("cpu", "reference", "cuda")  # those that can be asked for; ``SETS`` holds those that have been found
# The functions of ``memory`` that are kernels too: they write into an array.
WRITES = ("write", "add_to", "add_at", "concatenate", "take")
_active = cpu


class Unavailable(ImportError):
    """A kernel set that cannot work here; the message says what is missing."""


def active() -> ModuleType:
    """The set in use; ``cpu`` unless told otherwise."""
    return _active


def find(name: str) -> ModuleType:
    """The set of that name. ValueError if there is none, ``Unavailable`` if it cannot work here."""
    if name not in NAMES:
        raise ValueError(f"there is no kernel set {name!r}; choose from {', '.join(NAMES)}")
    if name not in SETS:  # cuda, whose import takes a while, and what it needs is not everywhere
        if find_spec("numba_cuda") is None:
            raise Unavailable("the kernels for cuda need numba-cuda: pip install 'scratchgen[cuda]'")
        from kernels.cuda import device

        if not device.SIMULATED and not device.cuda.is_available():
            raise Unavailable("the kernels for cuda need an NVIDIA GPU and its driver; there is none that CUDA can use")
        from kernels import cuda

        SETS[name] = cuda
    return SETS[name]


def wrapped(kernel_set: ModuleType, wrap: Callable[[str, Callable[..., None]], Any]) -> ModuleType:
    """The same set with ``wrap(name, kernel)`` in the place of each kernel, under a name such as ``dense.matmul``."""
    result = ModuleType("wrapped")
    vars(result)["__all__"] = kernel_set.__all__
    for file in kernel_set.__all__:
        module = getattr(kernel_set, file)
        copy = ModuleType(module.__name__)
        for name, value in vars(module).items():
            is_kernel = name in WRITES or (file != "memory" and getattr(value, "__module__", "") == module.__name__)
            if is_kernel:
                value = wrap(f"{file}.{name}", value)
                value.__module__ = module.__name__  # for it may be wrapped again
            setattr(copy, name, value)
        setattr(result, file, copy)
    return result


@contextmanager
def use(kernel_set: str | ModuleType) -> Iterator[None]:
    """Compute with a set, by name (see ``find``) or itself, inside the ``with`` block."""
    global _active
    if isinstance(kernel_set, str):
        kernel_set = find(kernel_set)
    before, _active = _active, kernel_set
    try:
        yield
    finally:
        _active = before
