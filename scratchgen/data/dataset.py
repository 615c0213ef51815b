"""What every data source gives back."""

from dataclasses import dataclass

import numpy as np

from scratchgen.errors import UserError


@dataclass(frozen=True)
class Split:
    """Images (n, d), float32, row-major pixels in [0, 1]; labels (n,), int64. UserError if a pixel is not finite."""

    images: np.ndarray
    labels: np.ndarray

    def __post_init__(self) -> None:
        if len(self.images) != len(self.labels):
            raise UserError(f"there are {len(self.images)} images and {len(self.labels)} labels; they go in pairs")
        if self.images.size and not np.isfinite([self.images.min(), self.images.max()]).all():
            where = np.flatnonzero(~np.isfinite(self.images).all(axis=1))
            raise UserError(
                f"{len(where)} images hold NaN or infinite pixels, the first is image {where[0]}; mend the data"
            )

    def __len__(self) -> int:
        return len(self.images)


@dataclass(frozen=True)
class Dataset:
    """A named pair of splits; ``image_shape`` is (height, width)."""

    name: str
    train: Split
    test: Split
    image_shape: tuple[int, int] = (28, 28)
