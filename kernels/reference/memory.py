"""Where results are written."""

import numpy as np


def empty(shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
    """An array with whatever is in it."""
    return np.empty(shape, dtype)


def empty_like(x: np.ndarray) -> np.ndarray:
    """An array of the shape and type of x, with whatever is in it."""
    return np.empty(x.shape, x.dtype)
