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

from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType

from kernels import cpu, reference

SETS: dict[str, ModuleType] = {"cpu": cpu, "reference": reference}
_active = cpu


def active() -> ModuleType:
    """The set in use; ``cpu`` unless told otherwise."""
    return _active


@contextmanager
def use(kernel_set: str | ModuleType) -> Iterator[None]:
    """Compute with a set, by name or itself, inside the ``with`` block. ValueError if there is none of that name."""
    global _active
    if isinstance(kernel_set, str):
        if kernel_set not in SETS:
            raise ValueError(f"there is no kernel set {kernel_set!r}; choose from {', '.join(SETS)}")
        kernel_set = SETS[kernel_set]
    before, _active = _active, kernel_set
    try:
        yield
    finally:
        _active = before
