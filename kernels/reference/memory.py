"""Where results are written."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np


def empty(shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
    """An array with whatever is in it."""
    return np.empty(shape, dtype)


def empty_like(x: np.ndarray) -> np.ndarray:
    """An array of the shape and type of x, with whatever is in it."""
    return np.empty(x.shape, x.dtype)


def captured(run: Callable[[], None]) -> Callable[[], None]:
    """What does the same as ``run``, which calls kernels on arrays that are there, in one go: here, itself."""
    return run


def to_device(x: np.ndarray) -> np.ndarray:
    """The array where kernels find it: here, itself."""
    return x


def to_host(x: np.ndarray) -> np.ndarray:
    """The array where NumPy finds it: itself."""
    return x


def copied(x: np.ndarray) -> np.ndarray:
    """A copy of its own, C-contiguous."""
    return np.array(x, order="C")


def write(out: np.ndarray, values: Any) -> None:
    """out = values, repeated along the axes that ``out`` has more of."""
    out[...] = values


def add_to(out: np.ndarray, values: np.ndarray) -> None:
    """out += values."""
    out += values


def add_at(out: np.ndarray, index: Any, values: np.ndarray) -> None:
    """out[index] += values, as often as the index names an element."""
    np.add.at(out, index, values)


def concatenate(out: np.ndarray, parts: Sequence[np.ndarray], axis: int) -> None:
    """out = the parts, one after the other along ``axis``."""
    np.concatenate(parts, axis, out=out)


def rows(x: np.ndarray, chosen: np.ndarray) -> np.ndarray:
    """Those rows of x (n, ...), in an array of their own."""
    return x.take(chosen, axis=0)


def take(out: np.ndarray, x: np.ndarray, index: Any) -> None:
    """out = x[index]."""
    out[...] = x[index]
