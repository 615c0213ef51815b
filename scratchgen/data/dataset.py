"""What every data source gives back."""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Split:
    """Images (n, d), float32 in [0, 1], row-major pixels; labels (n,), int64."""

    images: np.ndarray
    labels: np.ndarray

    def __len__(self) -> int:
        return len(self.images)


@dataclass(frozen=True)
class Dataset:
    """A named pair of splits; ``image_shape`` is (height, width)."""

    name: str
    train: Split
    test: Split
    image_shape: tuple[int, int] = (28, 28)
