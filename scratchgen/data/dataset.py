"""The types that every data source returns."""

import hashlib
from dataclasses import dataclass
from typing import NamedTuple

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


UNLABELLED = -1


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


DIGITS = tuple("0123456789")  # the classes of MNIST and of strokes
MOST_CLASSES = 256  # more are hardly classes: numbers of the images, perhaps


@dataclass(frozen=True)
class Dataset:
    """A named pair of splits.

    Attributes
    ----------
    image_shape : tuple of int
        (height, width), pixels.
    classes : tuple of str
        The names of the labels 0..C-1. Without any, all labels are ``UNLABELLED``.
    digest : str
        A hash of all that files say of the data: pixels, labels and names. Empty for data that a program draws.
    """

    name: str
    train: Split
    test: Split
    image_shape: tuple[int, int] = (28, 28)
    classes: tuple[str, ...] = DIGITS
    digest: str = ""


class Arrays(NamedTuple):
    """A split as files hold it: ``images`` (n, h, w), bytes 0..255 or floats 0..1, and ``labels`` (n,) of any values.

    ``name`` is for messages; labels are None where there are none.
    """

    name: str
    images: np.ndarray
    labels: np.ndarray | None


def from_arrays(name: str, train: Arrays, test: Arrays, classes: tuple[str, ...] | None = None) -> Dataset:
    """The data set of two splits, checked.

    Parameters
    ----------
    classes : tuple of str, optional
        The names of labels that are 0, 1, ... already. By default the distinct training labels, sorted, are the
        classes, and their values the names.

    Raises
    ------
    UserError
        Images of no pixels or of different sizes, pixels outside the range, labels without images or images without
        labels, or a test label that never occurs in training.
    """
    for split in (train, test):
        if split.images.ndim != 3 or split.images.size == 0:
            raise UserError(f"{split.name}: images need the shape (n, height, width), got {split.images.shape}")
        if split.labels is not None and split.labels.shape != (len(split.images),):
            raise UserError(
                f"{split.name}: labels need the shape ({len(split.images)},), one an image, got {split.labels.shape}"
            )
    (height, width), other = train.images.shape[1:], test.images.shape[1:]
    if other != (height, width):
        raise UserError(
            f"the training images have {height} by {width} pixels and the test images {other[0]} by {other[1]}; "
            "make them all one size"
        )
    if (train.labels is None) != (test.labels is None):
        with_, without = (train, test) if test.labels is None else (test, train)
        raise UserError(f"{with_.name} has labels and {without.name} has none; give both or neither")
    if classes is not None:
        values = np.arange(len(classes))
    else:
        values = np.unique([] if train.labels is None else train.labels)
        classes = tuple(map(str, values))
    if len(values) > MOST_CLASSES:
        raise UserError(f"there are {len(values):,} different labels, and at most {MOST_CLASSES} classes are possible")
    first, second = (_split(each, values) for each in (train, test))
    digest = _digest([train.images, test.images], [first.labels, second.labels], classes)
    return Dataset(name, first, second, (height, width), classes, digest)


def _split(arrays: Arrays, values: np.ndarray) -> Split:
    try:
        return Split(_pixels(arrays), _numbers(arrays, values))
    except UserError as error:
        raise UserError(f"{arrays.name}: {error}") from None


def _pixels(split: Arrays) -> np.ndarray:
    """The images (n, D) as float32 in [0, 1]; Split checks the range of floats."""
    if split.images.dtype == np.uint8:
        pixels = np.divide(split.images, 255, dtype=np.float32)  # in one pass, without a float64 copy
    elif np.issubdtype(split.images.dtype, np.floating):
        pixels = split.images.astype(np.float32)
    else:
        raise UserError(f"the pixels are {split.images.dtype}; make them uint8, 0 to 255, or floats, 0 to 1")
    return pixels.reshape(len(pixels), -1)


def _numbers(split: Arrays, values: np.ndarray) -> np.ndarray:
    """The labels (n,) as their places among the sorted ``values``, or all ``UNLABELLED``."""
    if split.labels is None:
        return np.full(len(split.images), UNLABELLED)
    if unknown := sorted(set(split.labels.tolist()) - set(values.tolist())):
        raise UserError(f"the label {str(unknown[0])!r} never occurs in training; leave its images out")
    return np.searchsorted(values, split.labels).astype(np.int64)


def _digest(images: list[np.ndarray], labels: list[np.ndarray], classes: tuple[str, ...]) -> str:
    """A hash of the data, the same for the same arrays in whatever files."""
    found = hashlib.sha256(repr(classes).encode())
    for array in (*images, *labels):
        found.update(f"{array.dtype} {array.shape}".encode())
        found.update(np.ascontiguousarray(array).data)
    return found.hexdigest()
