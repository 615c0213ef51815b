"""Small data sets of one's own, of every kind, written into a folder."""

import numpy as np
from idx_helpers import idx
from PIL import Image

from scratchgen.data.mnist import NAMES

SHAPE = (6, 4)  # height and width


def drawn(n, classes, seed, shape=SHAPE):
    """Bytes (n, h, w), and labels (n,) in 0..classes-1 in turn: class k has a bright row or column of its own."""
    rng = np.random.default_rng(seed)
    labels = np.arange(n) % classes
    images = rng.integers(0, 60, (n, *shape), np.uint8)
    for image, label in zip(images, labels, strict=True):
        row = label % shape[0]
        image[row] = 200 + label
    return images, labels


def arrays(classes=5, first=0, shape=SHAPE, train=60, test=20):
    """Training and test images and labels, which begin at ``first``, in the order of the four files."""
    found = [*drawn(train, classes, 0, shape), *drawn(test, classes, 1, shape)]
    return [array if array.ndim == 3 else (array + first).astype(np.uint8) for array in found]


def write_idx(folder, contents):
    """Four IDX files of these arrays."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, array in zip(NAMES, contents, strict=True):
        (folder / name).write_bytes(idx(array))
    return folder


def write_npz(path, contents, **others):
    """An archive of the arrays that are not None, and of others."""
    named = dict(zip(("x_train", "y_train", "x_test", "y_test"), contents, strict=True)) | others
    np.savez(path, **{name: array for name, array in named.items() if array is not None})
    return path


def write_pictures(folder, names=("cat", "dog", "owl"), each=14, shape=SHAPE, suffix="png"):
    """Pictures 00, 01, ... for each name, in a sub-folder of that name; a name "" stands for the folder itself."""
    for k, name in enumerate(names):
        (folder / name).mkdir(parents=True, exist_ok=True)
        for i in range(each):
            pixels = drawn(1, 1, 100 * k + i, shape)[0][0]
            pixels[k % shape[0]] = 255
            Image.fromarray(pixels).save(folder / name / f"{i:02}.{suffix}")
    return folder
