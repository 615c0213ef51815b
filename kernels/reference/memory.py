"""Allocation, copies and indexed writes, in NumPy."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np


def empty(shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
    """An uninitialized array."""
    return np.empty(shape, dtype)


def empty_like(x: np.ndarray) -> np.ndarray:
    """An uninitialized array of the shape and dtype of x."""
    return np.empty(x.shape, x.dtype)


def captured(run: Callable[[], None]) -> Callable[[], None]:
    """A function that repeats the kernel calls of ``run``, which are on existing arrays: here ``run`` itself."""
    return run


def to_device(x: np.ndarray) -> np.ndarray:
    """The array in the memory that kernels use: here x itself."""
    return x


def to_host(x: np.ndarray) -> np.ndarray:
    """The array as one of NumPy: here x itself."""
    return x


def copied(x: np.ndarray) -> np.ndarray:
    """A C-contiguous copy."""
    return np.array(x, order="C")


def write(out: np.ndarray, values: Any) -> None:
    """out = values, broadcast to the shape of ``out``."""
    out[...] = values


def add_to(out: np.ndarray, values: np.ndarray) -> None:
    """out += values."""
    out += values


def add_at(out: np.ndarray, index: Any, values: np.ndarray) -> None:
    """out[index] += values, accumulated where the index repeats an element."""
    part = out[index]
    if isinstance(part, np.ndarray) and np.may_share_memory(part, out):  # a view, as of a slice: no element twice
        part += values
    else:
        np.add.at(out, index, values)


def concatenate(out: np.ndarray, parts: Sequence[np.ndarray], axis: int) -> None:
    """out = the parts, concatenated along ``axis``."""
    np.concatenate(parts, axis, out=out)


def rows(out: np.ndarray, x: np.ndarray, chosen: np.ndarray) -> None:
    """out (b, ...) = the rows of x (n, ...) at the indices ``chosen`` (b,), which lie in 0..n-1."""
    x.take(chosen, axis=0, out=out, mode="clip")  # mode "raise" would write through a buffer


def take(out: np.ndarray, x: np.ndarray, index: Any) -> None:
    """out = x[index]."""
    out[...] = x[index]
