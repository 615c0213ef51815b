"""The array of the set ``cuda``: numbers on the device, with as much of NumPy's array as the engine asks for."""

import math
from typing import Any

import numpy as np

from kernels.cuda.device import Block


class DeviceArray:
    """C-contiguous numbers on the device: a shape, and where they lie. Views share the memory, as in NumPy.

    ``on_device`` is what a kernel is given. ``np.asarray`` copies to the host, and waits for all that was launched.
    """

    __slots__ = ("_block", "_numbers", "_shaped", "dtype", "shape", "size")

    def __init__(self, block: Block, numbers: Any, shape: tuple[int, ...]) -> None:
        self._block, self._numbers, self._shaped = block, numbers, None
        self.shape, self.size, self.dtype = shape, math.prod(shape), np.dtype(numbers.dtype)

    @classmethod
    def empty(cls, shape: tuple[int, ...], dtype: Any) -> "DeviceArray":
        """With whatever is in the memory."""
        block = Block(math.prod(shape), dtype)
        return cls(block, block.numbers, shape)

    @classmethod
    def from_host(cls, values: np.ndarray) -> "DeviceArray":
        """A copy on the device."""
        array = cls.empty(values.shape, values.dtype)
        if array.size:
            array._numbers.copy_to_device(np.ascontiguousarray(values).reshape(-1))
        return array

    @property
    def on_device(self) -> Any:
        """Numba's array of the shape; a number alone is an array of one."""
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
        values = self._numbers.copy_to_host() if self.size else np.empty(0, self.dtype)
        return values.reshape(self.shape).astype(dtype or self.dtype, copy=False)

    def __repr__(self) -> str:
        return f"DeviceArray({np.asarray(self)!r})"

    def copy_to_device(self, other: "DeviceArray") -> None:
        """Write the numbers of another array of this size and type here."""
        if self.size:
            self._numbers.copy_to_device(other._numbers)

    def reshape(self, *shape: Any) -> "DeviceArray":
        """A view in another shape, given as numbers or a tuple; one size may be -1."""
        wanted = shape[0] if len(shape) == 1 and isinstance(shape[0], tuple | list) else shape
        known = math.prod(n for n in wanted if n != -1)
        if -1 in wanted:
            wanted = tuple(self.size // max(known, 1) if n == -1 else n for n in wanted)
        if math.prod(wanted) != self.size:
            raise ValueError(f"cannot reshape {self.size} numbers of shape {self.shape} into {tuple(shape)}")
        return DeviceArray(self._block, self._numbers, tuple(wanted))

    def __getitem__(self, index: Any) -> "DeviceArray":
        """A view of rows: by numbers, and a slice of step 1 after them."""
        start, shape = 0, self.shape
        for i in index if isinstance(index, tuple) else (index,):
            inner = math.prod(shape[1:])
            if isinstance(i, slice):
                first, last, step = i.indices(shape[0])
                if step != 1:
                    raise IndexError("a view on the device has a step of 1")
                return self._view(start + first * inner, (max(0, last - first), *shape[1:]))
            if not -shape[0] <= i < shape[0]:
                raise IndexError(f"index {i} is out of bounds for an axis of size {shape[0]}")
            start, shape = start + i % shape[0] * inner, shape[1:]
        return self._view(start, shape)

    def _view(self, start: int, shape: tuple[int, ...]) -> "DeviceArray":
        size = math.prod(shape)
        return DeviceArray(self._block, self._numbers[start : start + size], shape)
