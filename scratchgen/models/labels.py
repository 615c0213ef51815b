"""Labels as inputs of networks: one-hot, beside what the networks take anyway."""

from typing import Any

import numpy as np

import kernels
from scratchgen import ops
from scratchgen.data.dataset import CLASSES, UNLABELLED
from scratchgen.tensor import Tensor


def one_hot(labels: np.ndarray, classes: int, dtype: Any) -> np.ndarray:
    """One-hot rows (n, classes) of labels (n,); ``UNLABELLED`` is the last class if there are more than ten."""
    rows = np.zeros((len(labels), classes), dtype)
    known = labels != UNLABELLED
    rows[np.flatnonzero(known), labels[known]] = 1
    if classes > CLASSES:
        rows[~known, CLASSES] = 1
    return rows


def require_classes(y: Tensor | None, conditional: bool) -> None:
    """ValueError unless a ``conditional`` model, and no other, is given classes y."""
    if conditional and y is None:
        raise ValueError(f"a conditional model takes the classes y (n, {CLASSES}), one-hot, too")
    if y is not None and not conditional:
        raise ValueError("classes y are given, but the model takes none: set conditional in its configuration")


def beside_classes(x: Tensor, y: Tensor | None, conditional: bool) -> Tensor:
    """x (..., n) of a ``conditional`` model beside its classes y (..., 10): (..., n + 10); of another, x as it is."""
    require_classes(y, conditional)
    return x if y is None else ops.concatenate([x, y], axis=-1)


def beside_planes(x: Tensor, y: Tensor | None, conditional: bool) -> Tensor:
    """Like `beside_classes`, of pictures x (n, D), with the class beside each pixel: (n, D · 11), pixel by pixel."""
    require_classes(y, conditional)
    if y is None:
        return x
    n, pixels = x.shape
    planes = kernels.active().memory.empty((n, pixels, CLASSES), x.dtype)
    kernels.active().memory.write(planes, y._data.reshape(n, 1, CLASSES))
    return ops.concatenate([x.reshape(n, pixels, 1), Tensor.wrap(planes)], axis=2).reshape(n, -1)
