"""Models applied to more rows than fit through them at once."""

from collections.abc import Callable
from typing import Any

import numpy as np

from scratchgen.tensor import Tensor, no_grad


def in_batches(
    function: Callable[..., tuple[Tensor, ...]], *arrays: np.ndarray, size: int, dtype: Any = np.float32
) -> tuple[np.ndarray, ...]:
    """``function`` of tensors of at most ``size`` rows of each array at a time, without a graph.

    Parameters
    ----------
    function
        Returns a tuple of tensors, with a row for each row that it is given.
    arrays
        (n, ...) each, n the same.

    Returns
    -------
    tuple
        The results as arrays (n, ...).
    """
    if len({len(array) for array in arrays}) != 1:
        raise ValueError(f"in_batches: arrays of {', '.join(str(len(array)) for array in arrays)} rows")
    found = []
    with no_grad():
        for start in range(0, max(1, len(arrays[0])), size):  # of no rows the results have none, too
            results = function(*[Tensor(array[start : start + size], dtype=dtype) for array in arrays])
            found.append([result.data for result in results])
    return tuple(np.concatenate(parts) for parts in zip(*found, strict=True))
