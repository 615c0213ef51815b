"""MNIST: how its four files are found, read, checked and downloaded.

The data and the IDX format: Y. LeCun, C. Cortes and C. Burges, "The MNIST database of handwritten digits",
http://yann.lecun.com/exdb/mnist/.
"""

import gzip
import hashlib
import math
import os
import shlex
import struct
import sys
import tempfile
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import IO

import numpy as np

from scratchgen.cache import cache_folder
from scratchgen.data.dataset import Dataset, Split
from scratchgen.errors import UserError

# Of the uncompressed bytes, header included: gzip can compress the same bytes in many ways.
SHA256 = {
    "train-images-idx3-ubyte": "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
    "train-labels-idx1-ubyte": "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
    "t10k-images-idx3-ubyte": "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
    "t10k-labels-idx1-ubyte": "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
}
MIRRORS = (
    "https://ossci-datasets.s3.amazonaws.com/mnist/",
    "https://storage.googleapis.com/cvdf-datasets/mnist/",
    "http://yann.lecun.com/exdb/mnist/",
)
TIMEOUT_S = 10.0  # for connecting, and between two chunks of a response
MAX_BYTES = 2**30  # the largest file has 47 MB; a header that claims more than this is damaged
CHUNK_BYTES = 2**20


class Unfinished(UserError):
    """An IDX file ends early or is damaged: a download may replace it, since it is of no use to anybody."""


def read_idx(path: Path, sha256: str | None = None) -> np.ndarray:
    """Read an IDX file of unsigned bytes, gzipped or not, regardless of its name.

    Parameters
    ----------
    path : Path
        The file.
    sha256 : str, optional
        Hexadecimal digest that its uncompressed bytes must have.

    Returns
    -------
    np.ndarray
        uint8, with one to three dimensions, as in the header.

    Raises
    ------
    UserError
        The file cannot be read, is not exactly one such array, or has a different digest.
    Unfinished
        The UserError of a file that ends early or whose checksum in gzip is wrong.
    """
    place = repr(str(path))  # repr keeps any file name on one line
    try:
        with path.open("rb") as file:
            zipped = file.read(2) == b"\x1f\x8b"
            file.seek(0)
            array = _parse(gzip.GzipFile(fileobj=file) if zipped else file)
        if sha256 is not None and _digest(array) != sha256:
            raise ValueError(f"not the MNIST file, whose uncompressed SHA-256 begins with {sha256[:8]}")
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        fetch = f"scratchgen data fetch --data-dir {shlex.quote(str(path.parent))}"
        raise Unfinished(f"{place}: {error}; replace it or run `{fetch}`") from error
    except (OSError, ValueError) as error:  # it may be somebody's data, which a download must not replace
        reason = getattr(error, "strerror", None) or error
        raise UserError(f"{place}: {reason}; move it away, or give another --data-dir") from error
    return array


def _parse(stream: IO[bytes] | gzip.GzipFile) -> np.ndarray:
    """Read one array up to the end of the stream, where gzip verifies its checksum."""
    magic = stream.read(4)
    if magic[:3] != b"\0\0\x08" or magic[3:] not in (b"\1", b"\2", b"\3"):
        begun = len(magic) < 4 and b"\0\0\x08".startswith(magic)
        reason = f"not IDX of unsigned bytes in 1 to 3 dimensions (it begins with '{magic.hex()}')"
        raise EOFError(reason) if begun else ValueError(reason)
    lengths = stream.read(4 * magic[3])
    if len(lengths) < 4 * magic[3]:
        raise EOFError("its header is truncated")
    shape = struct.unpack(f">{magic[3]}I", lengths)
    # max: a length of 0 must not hide huge ones, since NumPy rejects the shape (0, 2**32 - 1, 2**32 - 1).
    if math.prod(max(length, 1) for length in shape) > MAX_BYTES:
        raise ValueError(f"its header claims the implausible shape {shape}")
    size = math.prod(shape)
    data = bytearray()  # grows with the data: the size in the header is not trusted
    while len(data) <= size and (chunk := stream.read(CHUNK_BYTES)):
        data += chunk
    if len(data) < size:
        raise EOFError(f"its header claims {size} bytes of data, but it holds only {len(data)}")
    if len(data) > size:
        raise ValueError(f"its header claims {size} bytes of data, but it holds more")
    return np.frombuffer(data, np.uint8).reshape(shape)


def _digest(array: np.ndarray) -> str:
    """SHA-256 of the array as an uncompressed IDX file, whose header follows from the shape."""
    header = struct.pack(f">2x2B{array.ndim}I", 0x08, array.ndim, *array.shape)
    return hashlib.sha256(header + array.tobytes()).hexdigest()


def _cache() -> Path:
    """MNIST's folder in the user's cache, whether it exists or not."""
    return cache_folder() / "mnist"


def _locate(folder: Path) -> dict[str, Path]:
    """The paths of the MNIST files in the folder, or below it where torchvision puts them, by name."""
    found = {}
    for name in SHA256:
        dotted = name.replace("-idx", ".idx")
        # What fetch_mnist writes comes first: a download takes precedence over a damaged file.
        for place in (folder, folder / "MNIST" / "raw"):
            for spelling in (f"{name}.gz", name, f"{dotted}.gz", dotted):
                if name not in found and os.path.isfile(place / spelling):
                    found[name] = place / spelling
    return found


def missing_files(folder: Path) -> list[str]:
    """The names of the MNIST files that are not in the folder."""
    found = _locate(folder)
    return [name for name in SHA256 if name not in found]


def find_mnist(data_dir: Path | None = None) -> Path | None:
    """Find the folder of the four files: ``data_dir``, else $SCRATCHGEN_DATA, else the user's cache.

    Returns
    -------
    Path or None
        The folder; None if none was requested and the cache is incomplete.

    Raises
    ------
    UserError
        The folder requested by argument or environment variable lacks files.
    """
    variable = os.environ.get("SCRATCHGEN_DATA")
    if data_dir is not None:
        folder, wish = data_dir, "--data-dir"
    elif variable:
        folder, wish = Path(variable), "SCRATCHGEN_DATA"
    else:
        cache = _cache()
        return None if missing_files(cache) else cache
    if not os.path.isdir(folder):
        raise UserError(
            f"{wish} {str(folder)!r} is not a folder; give one with MNIST's four files, or leave {wish} out"
        )
    if missing := ", ".join(missing_files(folder)):
        raise UserError(f"{wish} {str(folder)!r} lacks {missing}; put them there (.gz or not) or leave {wish} out")
    return folder


def load_mnist(data_dir: Path | None = None, download: bool = True) -> Dataset:
    """Load MNIST, 60000 training and 10000 test images of 784 pixels, from files with the expected SHA-256.

    Parameters
    ----------
    data_dir : Path, optional
        Folder of the files; the default is to search as `find_mnist` does.
    download : bool
        Whether to download MNIST into the user's cache if it is not found.

    Raises
    ------
    UserError
        A file is missing, damaged or not MNIST's, or the download failed.
    """
    folder = find_mnist(data_dir)
    if folder is None and not download:
        raise UserError(
            "MNIST not found; run `scratchgen data fetch`, give its folder by --data-dir or SCRATCHGEN_DATA, "
            "or do without: `--data strokes`"
        )
    if folder is None:
        print("MNIST not found: downloading 11 MB into your cache", file=sys.stderr)
        folder = fetch_mnist()
    paths = _locate(folder)
    # The digest covers the header, and so the shape.
    train_images, train_labels, test_images, test_labels = (read_idx(paths[n], SHA256[n]) for n in SHA256)
    return Dataset("mnist", _split(train_images, train_labels), _split(test_images, test_labels))


def _split(images: np.ndarray, labels: np.ndarray) -> Split:
    pixels = np.divide(images, 255, dtype=np.float32)  # in one pass, without a float64 copy
    return Split(pixels.reshape(len(images), -1), labels.astype(np.int64))


def fetch_mnist(target: Path | None = None, mirrors: Sequence[str] = MIRRORS) -> Path:
    """Download the files that a folder lacks or holds unfinished; after a failure, another call continues.

    Any other file under MNIST's names is left alone, and nothing is downloaded.

    Parameters
    ----------
    target : Path, optional
        The folder, created if needed; the default is the user's cache.
    mirrors : sequence of str
        Base URLs of the gzipped files, tried in order for each file.

    Returns
    -------
    Path
        The folder, with four valid files.

    Raises
    ------
    UserError
        A file could not be downloaded from any mirror, the folder cannot be written to, or it holds other data
        under MNIST's names.
    """
    folder = _cache() if target is None else target
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name in [name for name in SHA256 if _is_needed(folder, name)]:
            _download(folder, name, mirrors)
    except OSError as error:
        raise UserError(f"cannot write to {str(folder)!r} ({error.strerror}); choose another folder") from error
    return folder


def _is_needed(folder: Path, name: str) -> bool:
    """Whether a file is missing or unfinished. UserError if there is another one in its place."""
    try:
        if path := _locate(folder).get(name):
            read_idx(path, SHA256[name])
        return path is None
    except Unfinished:
        return True


def _download(folder: Path, name: str, mirrors: Sequence[str]) -> None:
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
                read_idx(part, SHA256[name])
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
        f"no mirror delivered {part.name} ({'; '.join(failures)}); try again later, put the MNIST files into "
        f"{str(folder)!r} by hand, or do without: `--data strokes`"
    )
