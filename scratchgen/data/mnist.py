"""MNIST and Fashion-MNIST: how the four files of each are found, read, checked and downloaded.

MNIST: Y. LeCun, C. Cortes and C. Burges, "The MNIST database of handwritten digits",
http://yann.lecun.com/exdb/mnist/. Fashion-MNIST has files of the same names and shapes: H. Xiao, K. Rasul and
R. Vollgraf, "Fashion-MNIST: a novel image dataset for benchmarking machine learning algorithms", 2017.
"""

import hashlib
import os
import shlex
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from scratchgen.cache import cache_folder
from scratchgen.data.dataset import DIGITS, Arrays, Dataset, from_arrays
from scratchgen.data.idx import Unfinished, digest, read_idx
from scratchgen.errors import UserError


@dataclass(frozen=True)
class Published:
    """A data set of four IDX files.

    Attributes
    ----------
    name, title : str
        For ``--data``, and in sentences.
    sha256 : Mapping[str, str]
        Of each file, by its name without .gz: of the uncompressed bytes, header included, for gzip can compress the
        same bytes in many ways; or, if ``of_gz``, of the one .gz file that is published.
    mirrors : tuple of str
        Base URLs of the gzipped files.
    megabytes : int
        Size of the four together, gzipped.
    classes : tuple of str
        The names of the labels 0, 1, ...
    torchvision : str
        The folder below its own in which torchvision keeps the files.
    """

    name: str
    title: str
    sha256: Mapping[str, str]
    mirrors: tuple[str, ...]
    megabytes: int
    classes: tuple[str, ...]
    torchvision: str
    of_gz: bool = False


SHA256 = {
    "train-images-idx3-ubyte": "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
    "train-labels-idx1-ubyte": "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
    "t10k-images-idx3-ubyte": "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
    "t10k-labels-idx1-ubyte": "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
}
MNIST = Published(
    name="mnist",
    title="MNIST",
    sha256=SHA256,
    mirrors=(
        "https://ossci-datasets.s3.amazonaws.com/mnist/",
        "https://storage.googleapis.com/cvdf-datasets/mnist/",
        "http://yann.lecun.com/exdb/mnist/",
    ),
    megabytes=11,
    classes=DIGITS,
    torchvision="MNIST/raw",
)
FASHION_MNIST = Published(
    name="fashion-mnist",
    title="Fashion-MNIST",
    sha256={  # of the .gz files: those are what checksums are published of
        "train-images-idx3-ubyte": "3aede38d61863908ad78613f6a32ed271626dd12800ba2636569512369268a84",
        "train-labels-idx1-ubyte": "a04f17134ac03560a47e3764e11b92fc97de4d1bfaf8ba1a3aa29af54cc90845",
        "t10k-images-idx3-ubyte": "346e55b948d973a97e58d2351dde16a484bd415d4595297633bb08f03db6a073",
        "t10k-labels-idx1-ubyte": "67da17c76eaffca5446c3361aaab5c3cd6d1c2608764d35dfb1850b086bf8dd5",
    },
    mirrors=(
        "https://github.com/zalandoresearch/fashion-mnist/raw/master/data/fashion/",
        "https://storage.googleapis.com/tensorflow/tf-keras-datasets/",
        "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",
    ),
    megabytes=31,
    classes=(
        "T-shirt/top",
        "Trouser",
        "Pullover",
        "Dress",
        "Coat",
        "Sandal",
        "Shirt",
        "Sneaker",
        "Bag",
        "Ankle boot",
    ),
    torchvision="FashionMNIST/raw",
    of_gz=True,
)
PUBLISHED = {each.name: each for each in (MNIST, FASHION_MNIST)}
NAMES = tuple(SHA256)  # of the files: training images and labels, test images and labels

TIMEOUT_S = 10.0  # for connecting, and between two chunks of a response


def _read(path: Path, name: str, which: Published) -> np.ndarray:
    """Read one of the four files. UserError, or Unfinished, saying what to do, unless it is the published one."""
    try:
        array = read_idx(path)
        if not is_published(path, array, name, which):
            kind = "published .gz" if which.of_gz else "uncompressed"
            raise UserError(
                f"{str(path)!r}: not the {which.title} file, whose {kind} SHA-256 begins with {which.sha256[name][:8]}"
            )
    except Unfinished as error:
        fetch = f"scratchgen data fetch{_option(which)} --data-dir {shlex.quote(str(path.parent))}"
        raise Unfinished(f"{error}; replace it or run `{fetch}`") from error
    except UserError as error:  # it may be somebody's data, which a download must not replace
        raise UserError(f"{error}; move it away, or give another --data-dir") from error
    return array


def is_published(path: Path, array: np.ndarray, name: str, which: Published) -> bool:
    """Whether a file, of which ``array`` has been read, has the checksum of the file ``name``."""
    found = hashlib.sha256(path.read_bytes()).hexdigest() if which.of_gz else digest(array)
    return found == which.sha256[name]


def _option(which: Published) -> str:
    return "" if which is MNIST else f" --data {which.name}"


def _cache(which: Published) -> Path:
    """The data set's folder in the user's cache, whether it exists or not."""
    return cache_folder() / which.name


def locate(folder: Path, below: str = "") -> dict[str, Path]:
    """The paths of the four files in the folder, or in the one ``below`` it, by name; some may be missing."""
    found = {}
    for name in NAMES:
        dotted = name.replace("-idx", ".idx")
        # What fetch_mnist writes comes first: a download takes precedence over a damaged file.
        for place in (folder, folder / below):
            for spelling in (f"{name}.gz", name, f"{dotted}.gz", dotted):
                if name not in found and os.path.isfile(place / spelling):
                    found[name] = place / spelling
    return found


def missing_files(folder: Path, which: Published = MNIST) -> list[str]:
    """The names of the data set's files that are not in the folder."""
    found = locate(folder, which.torchvision)
    return [name for name in NAMES if name not in found]


def find_mnist(data_dir: Path | None = None, which: Published = MNIST) -> Path | None:
    """Find the folder of the four files: ``data_dir``, else for MNIST $SCRATCHGEN_DATA, else the user's cache.

    Returns
    -------
    Path or None
        The folder; None if none was requested and the cache is incomplete.

    Raises
    ------
    UserError
        The folder requested by argument or environment variable lacks files.
    """
    variable = os.environ.get("SCRATCHGEN_DATA") if which is MNIST else None
    if data_dir is not None:
        folder, wish = data_dir, "--data-dir"
    elif variable:
        folder, wish = Path(variable), "SCRATCHGEN_DATA"
    else:
        cache = _cache(which)
        return None if missing_files(cache, which) else cache
    if not os.path.isdir(folder):
        raise UserError(
            f"{wish} {str(folder)!r} is not a folder; give one with {which.title}'s four files, or leave {wish} out"
        )
    if missing := ", ".join(missing_files(folder, which)):
        raise UserError(f"{wish} {str(folder)!r} lacks {missing}; put them there (.gz or not) or leave {wish} out")
    return folder


def load_mnist(data_dir: Path | None = None, download: bool = True, which: Published = MNIST) -> Dataset:
    """Load 60000 training and 10000 test images of 784 pixels, from files with the expected SHA-256.

    Parameters
    ----------
    data_dir : Path, optional
        Folder of the files; the default is to search as `find_mnist` does.
    download : bool
        Whether to download the files into the user's cache if they are not found.
    which : Published
        MNIST or Fashion-MNIST.

    Raises
    ------
    UserError
        A file is missing, damaged or not the published one, or the download failed.
    """
    folder = find_mnist(data_dir, which)
    if folder is None and not download:
        raise UserError(
            f"{which.title} not found; run `scratchgen data fetch{_option(which)}`, give its folder by --data-dir"
            f"{' or SCRATCHGEN_DATA' if which is MNIST else ''}, or do without: `--data strokes`"
        )
    if folder is None:
        print(f"{which.title} not found: downloading {which.megabytes} MB into your cache", file=sys.stderr)
        folder = fetch_mnist(which=which)
    paths = locate(folder, which.torchvision)
    # The digest covers the header, and so the shape.
    train_images, train_labels, test_images, test_labels = (_read(paths[name], name, which) for name in NAMES)
    splits = Arrays("training", train_images, train_labels), Arrays("test", test_images, test_labels)
    return from_arrays(which.name, *splits, classes=which.classes)


def fetch_mnist(target: Path | None = None, mirrors: Sequence[str] | None = None, which: Published = MNIST) -> Path:
    """Download the files that a folder lacks or holds unfinished; after a failure, another call continues.

    Any other file under the same names is left alone, and nothing is downloaded.

    Parameters
    ----------
    target : Path, optional
        The folder, created if needed; the default is the user's cache.
    mirrors : sequence of str, optional
        Base URLs of the gzipped files, tried in order for each file; by default, those of ``which``.
    which : Published
        MNIST or Fashion-MNIST.

    Returns
    -------
    Path
        The folder, with four valid files.

    Raises
    ------
    UserError
        A file could not be downloaded from any mirror, the folder cannot be written to, or it holds other data
        under the same names.
    """
    folder = _cache(which) if target is None else target
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name in [name for name in NAMES if _is_needed(folder, name, which)]:
            _download(folder, name, which.mirrors if mirrors is None else mirrors, which)
    except OSError as error:
        raise UserError(f"cannot write to {str(folder)!r} ({error.strerror}); choose another folder") from error
    return folder


def _is_needed(folder: Path, name: str, which: Published) -> bool:
    """Whether a file is missing or unfinished. UserError if there is another one in its place."""
    try:
        if path := locate(folder, which.torchvision).get(name):
            _read(path, name, which)
        return path is None
    except Unfinished:
        return True


def _download(folder: Path, name: str, mirrors: Sequence[str], which: Published) -> None:
    """Save the first valid copy of a file that a mirror sends."""
    # Imported here because only a download needs them, and they load slowly.
    from pooch import HTTPDownloader
    from requests.exceptions import ChunkedEncodingError, RequestException

    # A progress bar only in a terminal.
    fetch = HTTPDownloader(progressbar=sys.stderr.isatty(), timeout=TIMEOUT_S)
    failures = []
    # Inside the folder, so that os.replace is atomic.
    with tempfile.TemporaryDirectory(prefix=".fetch-", dir=folder) as scratch:
        part = Path(scratch, f"{name}.gz")
        for mirror in mirrors:
            try:
                fetch(f"{mirror.rstrip('/')}/{part.name}", part, None)
                _read(part, name, which)
                os.replace(part, folder / part.name)
                return
            except RequestException as error:  # also an OSError, but unlike a full disk not the folder's fault
                if error.response is not None:
                    reason = f"HTTP {error.response.status_code}"
                elif isinstance(error, ChunkedEncodingError) or part.stat().st_size:
                    reason = "stopped midway"
                else:
                    reason = "unreachable"
            except (UserError, ValueError):  # ValueError: pooch, for a Content-Length that is not a number
                reason = "sent a wrong file"
            failures.append(f"{mirror} {reason}")
    raise UserError(
        f"no mirror delivered {part.name} ({'; '.join(failures)}); try again later, put the {which.title} files into "
        f"{str(folder)!r} by hand, or do without: `--data strokes`"
    )
