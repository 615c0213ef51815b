"""One's own data: four IDX files, an archive of NumPy, or a folder of pictures.

    FOLDER/train-images-idx3-ubyte, ...     the files of MNIST's relatives, under MNIST's names, .gz or not: images of
                                            any size, with labels of any values
    FILE.npz                                x_train, y_train, x_test, y_test, as Keras stores data sets: images
                                            (n, h, w) or (n, h, w, 1); without any y, they have no labels
    FOLDER/train/CLASS/*.png, test/...      pictures, PNG or JPEG, all of one size; colours become grey
    FOLDER/CLASS/*.png                      the same, some of which are held out as test images
    FOLDER/*.png, or train/*.png, test/...  pictures without labels

The classes are the distinct training labels, sorted, and keep their names. Anything else in a folder is left alone.
"""

import struct
import zipfile
import zlib
from pathlib import Path

import numpy as np

from scratchgen.data.dataset import Arrays, Dataset, from_arrays
from scratchgen.data.idx import read_idx
from scratchgen.data.mnist import NAMES, PUBLISHED, is_published, locate
from scratchgen.data.pictures import PICTURES, read_grey
from scratchgen.errors import UserError

# One picture in seven is a test image, as in MNIST: the 7th, 14th, ... of each class, by name. So every class has the
# same share, small ones too, which hashes of the names would not give; and of a film it is frames all along it.
HELD_OUT = 7
LEAST_TRAINING, LEAST_TEST = 10, 2  # fewer codes cannot be compared with a prior, nor pictures be judged in pairs


def load_own(path: Path) -> Dataset:
    """Read the data at a path. Its name is the path's last part, or that of the published data set that it holds.

    UserError, in one line, for anything that cannot be read or does not fit together.
    """
    name = path.absolute().name.removesuffix(".npz")
    if name in ("auto", "strokes", *PUBLISHED, ""):
        name = f"own {name}".strip()
    if path.is_file():
        data = _read_npz(path, name)
    elif not path.is_dir():
        raise UserError(f"{str(path)!r} is neither a folder nor a file; give the path of your data")
    elif files := locate(path):
        data = _read_idx_files(path, files, name)
    else:
        data = _read_pictures(path, name)
    if len(data.train) < LEAST_TRAINING or len(data.test) < LEAST_TEST:
        raise UserError(
            f"{str(path)!r} has {len(data.train)} training and {len(data.test)} test images; at least {LEAST_TRAINING} "
            f"and {LEAST_TEST} are needed"
        )
    return data


# ---- IDX files ----


def _read_idx_files(folder: Path, files: dict[str, Path], name: str) -> Dataset:
    if missing := ", ".join(each for each in NAMES if each not in files):
        raise UserError(f"{str(folder)!r} lacks {missing}; put them there (.gz or not)")
    arrays = {each: read_idx(files[each]) for each in NAMES}
    train, test = (Arrays(repr(str(files[x])), arrays[x], arrays[y]) for x, y in (NAMES[:2], NAMES[2:]))
    for which in PUBLISHED.values():
        if all(is_published(files[each], arrays[each], each, which) for each in NAMES):
            return from_arrays(which.name, train, test, which.classes)
    return from_arrays(name, train, test)


# ---- an archive of NumPy ----


def _read_npz(path: Path, name: str) -> Dataset:
    place = repr(str(path))
    try:
        if not zipfile.is_zipfile(path):  # NumPy would take it for a pickle
            raise ValueError("it is not an archive; data are an .npz, or a folder of pictures or of four IDX files")
        with np.load(path) as archive:
            arrays = {each: archive[each] for each in ("x_train", "y_train", "x_test", "y_test") if each in archive}
    except (OSError, ValueError, EOFError, RuntimeError, zipfile.BadZipFile, zlib.error, struct.error) as error:
        reason = getattr(error, "strerror", None) or str(error)
        if "allow_pickle" in reason:
            reason = "an array holds Python objects, not numbers"
        raise UserError(f"{place}: cannot be read as .npz ({reason})") from None
    if missing := [each for each in ("x_train", "x_test") if each not in arrays]:
        raise UserError(f"{place} has no {' and no '.join(missing)}; store x_train, y_train, x_test and y_test there")
    for each, array in arrays.items():
        if each[0] == "x" and array.ndim == 4 and array.shape[3] == 1:
            arrays[each] = array[..., 0]
        if each[0] == "y" and array.dtype.kind not in "iuU":
            raise UserError(f"{place}: {each} holds {array.dtype}; labels are integers or text")
    train, test = (
        Arrays(f"{place}, x_{each}", arrays[f"x_{each}"], arrays.get(f"y_{each}")) for each in ("train", "test")
    )
    return from_arrays(name, train, test)


# ---- pictures ----


def _read_pictures(folder: Path, name: str) -> Dataset:
    if all((folder / split).is_dir() for split in ("train", "test")):
        train, test = _by_class(folder / "train"), _by_class(folder / "test")
    else:
        found = _by_class(folder)
        train = {each: [path for i, path in enumerate(paths, 1) if i % HELD_OUT] for each, paths in found.items()}
        test = {each: paths[HELD_OUT - 1 :: HELD_OUT] for each, paths in found.items()}
        if not any(test.values()):
            raise UserError(
                f"{str(folder)!r}: of each class every {HELD_OUT}th picture is a test image, and none has so many; add "
                "pictures, or make two folders, train and test"
            )
    first = next(path for paths in train.values() for path in paths)
    shape = read_grey(first).shape
    return from_arrays(name, _pictures("train", train, first, shape), _pictures("test", test, first, shape))


def _by_class(folder: Path) -> dict[str | None, list[Path]]:
    """The pictures below a folder, sorted by name, for each sub-folder; or for None, if there are no sub-folders."""
    found: dict[str | None, list[Path]] = {each.name: _pictures_in(each) for each in _listed(folder) if each.is_dir()}
    beside = _pictures_in(folder)
    if not found and not beside:
        raise UserError(f"{str(folder)!r} holds neither MNIST's four files nor pictures, .png or .jpg")
    if found and beside:
        raise UserError(f"{str(beside[0])!r} lies beside the folders of the classes; move it into one of them")
    if empty := [each for each, paths in found.items() if not paths]:
        raise UserError(f"{str(folder)!r}: the folder of the class {empty[0]!r} holds no pictures, .png or .jpg")
    return found or {None: beside}


def _pictures_in(folder: Path) -> list[Path]:
    return [each for each in _listed(folder) if each.suffix.lower() in PICTURES and each.is_file()]


def _listed(folder: Path) -> list[Path]:
    """What is in a folder, sorted by name, but for hidden files."""
    try:
        return sorted(each for each in folder.iterdir() if not each.name.startswith("."))
    except OSError as error:
        raise UserError(f"{str(folder)!r}: cannot be read ({error.strerror})") from None


def _pictures(name: str, found: dict[str | None, list[Path]], first: Path, shape: tuple[int, ...]) -> Arrays:
    """A split, all pictures of which have the ``shape`` of the ``first``, its classes mixed."""
    pictures = [(each, path) for each, paths in found.items() for path in paths]
    # Mixed, always in the same way, since the first ones are drawn, and measured by ``evaluate --limit``.
    pictures = [pictures[i] for i in np.random.default_rng(0).permutation(len(pictures))]
    images = np.empty((len(pictures), *shape), np.uint8)
    for i, (_, path) in enumerate(pictures):
        grey = read_grey(path)
        if grey.shape != shape:
            sizes = [f"{height} by {width}" for height, width in (grey.shape, shape)]
            raise UserError(
                f"{str(path)!r} has {sizes[0]} pixels and {str(first)!r} {sizes[1]}; make them all one size"
            )
        images[i] = grey
    labels = None if None in found else np.array([each for each, _ in pictures])
    return Arrays(f"the folder {name}", images, labels)
