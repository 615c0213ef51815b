"""Labels as inputs of networks: one-hot, beside what the networks take anyway."""

from typing import Any

import numpy as np

import kernels
from scratchgen import ops
from scratchgen.data.dataset import UNLABELLED
from scratchgen.tensor import Tensor


def one_hot(labels: np.ndarray, classes: int, dtype: Any, unlabelled: bool = False) -> np.ndarray:
    """One-hot rows (n, classes) of labels (n,), zeros for ``UNLABELLED``; or that is one more class, the last."""
    rows = np.zeros((len(labels), classes + unlabelled), dtype)
    known = labels != UNLABELLED
    rows[np.flatnonzero(known), labels[known]] = 1
    if unlabelled:
        rows[~known, classes] = 1
    return rows


def require_classes(y: Tensor | None, conditional: bool) -> None:
    """ValueError unless a ``conditional`` model, and no other, is given classes y."""
    if conditional and y is None:
        raise ValueError("a conditional model takes the classes y (n, C), one-hot, too")
    if y is not None and not conditional:
        raise ValueError("classes y are given, but the model takes none: set conditional in its configuration")


def beside_classes(x: Tensor, y: Tensor | None, conditional: bool) -> Tensor:
    """x (..., n) of a ``conditional`` model beside its classes y (..., C): (..., n + C); of another, x as it is."""
    require_classes(y, conditional)
    return x if y is None else ops.concatenate([x, y], axis=-1)


def beside_planes(x: Tensor, y: Tensor | None, conditional: bool) -> Tensor:
    """Like `beside_classes`, of pictures x (n, D), the class beside each pixel: (n, D · (1 + C)), pixel by pixel."""
    require_classes(y, conditional)
    if y is None:
        return x
    (n, pixels), classes = x.shape, y.shape[1]
    planes = kernels.active().memory.empty((n, pixels, classes), x.dtype)
    kernels.active().memory.write(planes, y._data.reshape(n, 1, classes))
    return ops.concatenate([x.reshape(n, pixels, 1), Tensor.wrap(planes)], axis=2).reshape(n, -1)
