"""The error that a user can fix, and checks of values.

The command line prints a UserError as one line and exits with status 2."""

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np


class UserError(Exception):
    """Something outside the program is wrong: a file, an option, a download. The message says what to do."""


def require_one_of(name: str, value: str, choices: Iterable[str]) -> None:
    """ValueError, naming the choices, unless ``value`` is one of them."""
    if value not in choices:
        raise ValueError(f"{name} {value!r} is not one of {', '.join(choices)}")


def require(needs: Mapping[str, bool]) -> None:
    """ValueError naming the first condition that is false; write each so that it is false for NaN."""
    for need, met in needs.items():
        if not met:
            raise ValueError(f"{need} is needed")


def checked_labels(labels: Any, n: int, classes: int) -> np.ndarray:
    """Labels (n,) in 0..classes-1 as int64. ValueError for other ones."""
    labels = np.asarray(labels)
    if labels.shape != (n,) or not np.issubdtype(labels.dtype, np.integer):
        raise ValueError(f"labels must be integers of shape ({n},), got {labels.dtype} {labels.shape}")
    if n and not (labels.min() >= 0 and labels.max() < classes):
        outside = labels.min() if labels.min() < 0 else labels.max()
        raise ValueError(f"labels must be 0 to {classes - 1}, got {outside}")
    return labels.astype(np.int64)
