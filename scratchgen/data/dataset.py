"""The types that every data source returns."""

from dataclasses import dataclass

import numpy as np

from scratchgen.errors import UserError


@dataclass(frozen=True)
class Split:
    """Images (n, d), float32, row-major pixels in [0, 1], and labels (n,), int64. UserError for other images."""

    images: np.ndarray
    labels: np.ndarray

    def __post_init__(self) -> None:
        if len(self.images) != len(self.labels):
            raise UserError(f"there are {len(self.images)} images but {len(self.labels)} labels")
        if self.images.dtype != np.float32:
            raise UserError(f"the images are {self.images.dtype}; make them float32, with pixels in [0, 1]")
        if self.images.size and not (self.images.min() >= 0 and self.images.max() <= 1):  # a NaN fails both
            where = np.flatnonzero(~((self.images >= 0) & (self.images <= 1)).all(axis=1))
            raise UserError(
                f"{len(where)} images hold pixels that are NaN or not in [0, 1]; the first is image {where[0]}; "
                "fix the data"
            )

    def __len__(self) -> int:
        return len(self.images)


CLASSES, UNLABELLED = 10, -1


def keep_labels(split: Split, count: int, rng: np.random.Generator) -> Split:
    """The split with ``count`` labels kept, drawn at random and balanced over the classes; the rest ``UNLABELLED``."""
    rank = np.empty(len(split), np.int64)  # of each image within its class, in random order
    for label in np.unique(split.labels):
        places = np.flatnonzero(split.labels == label)
        rank[places] = rng.permutation(len(places))
    labels = np.full_like(split.labels, UNLABELLED)
    kept = np.lexsort((rng.permutation(len(split)), rank))[:count]
    labels[kept] = split.labels[kept]
    return Split(split.images, labels)


@dataclass(frozen=True)
class Dataset:
    """A named pair of splits; ``image_shape`` is (height, width)."""

    name: str
    train: Split
    test: Split
    image_shape: tuple[int, int] = (28, 28)
