"""The array of the kernel set ``cuda``, on the device, with the part of NumPy's interface that the engine needs."""

import math
from collections.abc import Callable
from numbers import Real
from typing import Any

import numpy as np
from numpy.lib.stride_tricks import as_strided

from kernels.cuda import elementwise, reductions
from kernels.cuda.device import Block, cuda, launch_over, refuse_in_graph, upload

DIMS = 6  # at most, of an array that is copied from one layout to another


class DeviceArray:
    """A C-contiguous array on the device: a shape and its memory. Views share the memory, as in NumPy.

    ``on_device`` is what kernels take. ``np.asarray`` waits for all launched kernels and copies to the host. Arithmetic
    is between arrays of one dtype and shape, or with a number. Basic indices and ``transpose`` give a view where the
    elements are contiguous, else a copy; index arrays always copy. NumPy functions are those in ``_FUNCTIONS``.
    """

    __array_ufunc__ = None  # NumPy scalars and arrays defer arithmetic to this class
    __slots__ = ("_block", "_numbers", "_shaped", "dtype", "shape", "size")

    def __init__(self, block: Block, numbers: Any, shape: tuple[int, ...]) -> None:
        self._block, self._numbers, self._shaped = block, numbers, None
        self.shape, self.size, self.dtype = shape, math.prod(shape), np.dtype(numbers.dtype)

    @classmethod
    def empty(cls, shape: tuple[int, ...], dtype: Any) -> "DeviceArray":
        """An uninitialized array."""
        block = Block(math.prod(shape), dtype)
        return cls(block, block.numbers, shape)

    @classmethod
    def from_host(cls, values: np.ndarray) -> "DeviceArray":
        """A copy on the device."""
        refuse_in_graph()
        array = cls.empty(values.shape, values.dtype)
        array.copy_to_device(values)
        return array

    @property
    def on_device(self) -> Any:
        """The Numba array of this shape; for a scalar, an array (1)."""
        if self._shaped is None:
            self._shaped = self._numbers.reshape(self.shape) if self.ndim > 1 else self._numbers
        return self._shaped

    @property
    def ndim(self) -> int:
        return len(self.shape)

    @property
    def nbytes(self) -> int:
        return self.size * self.dtype.itemsize

    def __len__(self) -> int:
        return self.shape[0]

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        refuse_in_graph()
        values = self._numbers.copy_to_host() if self.size else np.empty(0, self.dtype)
        return values.reshape(self.shape).astype(dtype or self.dtype, copy=False)

    def __repr__(self) -> str:
        return f"DeviceArray({np.asarray(self)!r})"

    def copy_to_device(self, other: "DeviceArray | np.ndarray") -> None:
        """Overwrite with another array of this size: on the host, or on the device and of this dtype."""
        refuse_in_graph()
        if self.size and isinstance(other, DeviceArray):
            self._numbers.copy_to_device(other._numbers)
        elif self.size:
            upload(self._numbers, np.ascontiguousarray(other, self.dtype).reshape(-1))

    def reshape(self, *shape: Any) -> "DeviceArray":
        """A view of another shape, given as integers or a tuple; one of them may be -1."""
        wanted = shape[0] if len(shape) == 1 and isinstance(shape[0], tuple | list) else shape
        known = math.prod(n for n in wanted if n != -1)
        if -1 in wanted:
            wanted = tuple(self.size // max(known, 1) if n == -1 else n for n in wanted)
        if math.prod(wanted) != self.size:
            raise ValueError(f"cannot reshape {self.size} numbers of shape {self.shape} into {tuple(shape)}")
        return DeviceArray(self._block, self._numbers, tuple(wanted))

    def copy(self) -> "DeviceArray":
        """A copy in its own memory."""
        result = DeviceArray.empty(self.shape, self.dtype)
        result.copy_to_device(self)
        return result

    def __deepcopy__(self, memo: dict) -> "DeviceArray":
        return self.copy()

    def item(self) -> float:
        """The element of an array of size 1."""
        return np.asarray(self).item()

    # ---- indexing and transposition ----

    def _layout(self) -> np.ndarray:
        """A NumPy array of this shape, one byte per element, for its shape and strides only; never read it."""
        strides = [math.prod(self.shape[axis + 1 :]) for axis in range(self.ndim)]
        return as_strided(_NOWHERE, self.shape, strides)

    def _taken(self, layout: np.ndarray) -> "DeviceArray":
        """The elements that a view of ``_layout`` selects: a view where they are contiguous, else a copy."""
        start = _start(layout)
        if layout.flags.c_contiguous:
            return DeviceArray(self._block, self._numbers[start : start + layout.size], layout.shape)
        result = DeviceArray.empty(layout.shape, self.dtype)
        copy_strided(result._numbers, result._layout(), self._numbers, layout)
        return result

    def __getitem__(self, index: Any) -> "DeviceArray":
        if is_basic(index):
            return self._taken(self._layout()[_full(index)])
        places = DeviceArray.from_host(np.arange(self.size).reshape(self.shape)[index])
        result = DeviceArray.empty(places.shape, self.dtype)
        launch_over(result.size, _take, result._numbers, self._numbers, places._numbers)
        return result

    def __setitem__(self, index: Any, value: Any) -> None:
        if not is_basic(index):
            raise IndexError("assignment to an array on the device takes slices and integers only")
        if not isinstance(value, DeviceArray):
            value = DeviceArray.from_host(np.asarray(value, self.dtype))
        elif value._block is self._block:
            value = value.copy()  # the same memory: threads would read what others have overwritten
        layout = self._layout()[_full(index)]
        copy_strided(self._numbers, layout, value._numbers, np.broadcast_to(value._layout(), layout.shape))

    def transpose(self, *axes: Any) -> "DeviceArray":
        """With its axes permuted, given as integers or a sequence; reversed by default."""
        return self._taken(self._layout().transpose(*axes))

    # ---- arithmetic ----

    def _with(self, kernel: Callable[..., None], other: Any, out: "DeviceArray | None" = None) -> "DeviceArray":
        """kernel(out, self, other), over flat arrays."""
        if not isinstance(other, DeviceArray):
            other = DeviceArray.from_host(np.full(self.shape, other, self.dtype))
        if (other.shape, other.dtype) != (self.shape, self.dtype):
            raise ValueError(f"shapes or dtypes differ: {self.shape} {self.dtype} and {other.shape} {other.dtype}")
        out = DeviceArray.empty(self.shape, self.dtype) if out is None else out
        kernel(out._numbers, self._numbers, other._numbers)
        return out

    def _scaled(self, factor: Any, out: "DeviceArray | None" = None) -> "DeviceArray":
        out = DeviceArray.empty(self.shape, self.dtype) if out is None else out
        elementwise.scale(out._numbers, self._numbers, factor)
        return out

    def __add__(self, other: Any) -> "DeviceArray":
        return self._with(elementwise.add, other)

    __radd__ = __add__

    def __iadd__(self, other: Any) -> "DeviceArray":
        return self._with(elementwise.add, other, self)

    def __sub__(self, other: Any) -> "DeviceArray":
        return self._with(elementwise.subtract, other)

    def __mul__(self, other: Any) -> "DeviceArray":
        return self._scaled(other) if isinstance(other, Real) else self._with(elementwise.multiply, other)

    __rmul__ = __mul__

    def __imul__(self, factor: Any) -> "DeviceArray":
        return self._scaled(factor, self)

    def __neg__(self) -> "DeviceArray":
        return self._scaled(-1.0)

    def sum(self, axis: tuple[int, ...], keepdims: bool = False) -> "DeviceArray":
        """The sum over these axes."""
        kept = [a for a in range(self.ndim) if a not in axis]
        outer, inner = (math.prod(self.shape[a] for a in axes) for axes in (kept, axis))
        result = DeviceArray.empty((outer, 1), self.dtype)
        reductions.sum_axis(result, self.transpose(*kept, *axis).reshape(outer, inner, 1))
        return result.reshape([1 if a in axis else n for a, n in enumerate(self.shape) if keepdims or a not in axis])

    def min(self) -> Any:
        """The minimum, computed on the host."""
        return np.asarray(self).min()

    def max(self) -> Any:
        """The maximum, computed on the host."""
        return np.asarray(self).max()

    def any(self) -> bool:
        """Whether any element is nonzero."""
        return bool(np.asarray(self).any())

    def tobytes(self) -> bytes:
        """The elements as bytes, on the host."""
        return np.asarray(self).tobytes()

    def __array_function__(self, function: Any, types: Any, arguments: Any, keywords: Any) -> Any:
        if function in _FUNCTIONS:
            return _FUNCTIONS[function](*arguments, **keywords)
        return NotImplemented


_NOWHERE = np.empty(1, np.int8)
_BASIC = slice, int, np.integer, type(None), type(...)


def _start(layout: np.ndarray) -> int:
    """The flat index of the first element of a view of a ``_layout``."""
    return layout.__array_interface__["data"][0] - _NOWHERE.__array_interface__["data"][0] if layout.size else 0


def is_basic(index: Any) -> bool:
    """Whether an index has only integers, slices, ``...`` and None, so that it selects no element twice."""
    parts = index if isinstance(index, tuple) else (index,)
    return all(type(part) is not bool and isinstance(part, _BASIC) for part in parts)  # True is a mask, not a 1


def _full(index: Any) -> tuple:
    """The index with ``...`` in it, so that NumPy returns a view even of a single element."""
    parts = index if isinstance(index, tuple) else (index,)
    return parts if any(part is ... for part in parts) else (*parts, ...)


# ---- NumPy functions of arrays on the device ----


def _zeros_like(array: DeviceArray) -> DeviceArray:
    return DeviceArray.from_host(np.zeros(array.shape, array.dtype))


def _shares_memory(a: Any, b: Any) -> bool:
    return isinstance(a, DeviceArray) and isinstance(b, DeviceArray) and a._block is b._block and a.size * b.size > 0


def _array_equal(a: Any, b: Any) -> bool:
    return np.array_equal(np.asarray(a), np.asarray(b))


_FUNCTIONS: dict[Any, Callable[..., Any]] = {
    np.zeros_like: _zeros_like,
    np.shares_memory: _shares_memory,
    np.array_equal: _array_equal,
}


# ---- kernels ----


def copy_strided(out: Any, out_layout: np.ndarray, x: Any, x_layout: np.ndarray) -> None:
    """Copy elements from x to out, both flat, at the positions given by two layouts of one shape."""
    if x_layout.shape != out_layout.shape:
        raise ValueError(f"an array of shape {x_layout.shape} does not fit into {out_layout.shape}")
    if out_layout.ndim > DIMS:
        raise ValueError(f"arrays on the device have at most {DIMS} dimensions here, not {out_layout.ndim}")
    shape, more = out_layout.shape, DIMS - out_layout.ndim
    places = ((_start(layout), (0,) * more + layout.strides) for layout in (out_layout, x_layout))
    (out_start, out_strides), (x_start, x_strides) = places
    sizes = (1,) * more + shape
    launch_over(out_layout.size, _copy, out, out_start, out_strides, x, x_start, x_strides, sizes, out_layout.size)


@cuda.jit
def _copy(out, out_start, out_strides, x, x_start, x_strides, sizes, count):
    for i in range(cuda.grid(1), count, cuda.gridsize(1)):
        rest, to, source = i, out_start, x_start
        for d in range(DIMS):
            axis = DIMS - 1 - d
            place = rest % sizes[axis]
            rest = rest // sizes[axis]
            to += place * out_strides[axis]
            source += place * x_strides[axis]
        out[to] = x[source]


@cuda.jit
def _take(out, x, places):
    for i in range(cuda.grid(1), out.size, cuda.gridsize(1)):
        out[i] = x[places[i]]
