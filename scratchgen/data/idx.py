"""The IDX format, in which MNIST and its relatives are published.

Source: Y. LeCun, C. Cortes and C. Burges, "The MNIST database of handwritten digits",
http://yann.lecun.com/exdb/mnist/.
"""

import gzip
import hashlib
import math
import struct
import zlib
from pathlib import Path
from typing import IO

import numpy as np

from scratchgen.errors import UserError

MAX_BYTES = 2**30  # MNIST's largest file has 47 MB; a header that claims more than this is damaged
CHUNK_BYTES = 2**20


class Unfinished(UserError):
    """An IDX file ends early or is damaged: a download may replace it, since it is of no use to anybody."""


def read_idx(path: Path) -> np.ndarray:
    """Read an IDX file of unsigned bytes, gzipped or not, regardless of its name.

    Returns
    -------
    np.ndarray
        uint8, with one to three dimensions, as in the header.

    Raises
    ------
    UserError
        The file cannot be read, or is not exactly one such array.
    Unfinished
        The UserError of a file that ends early or whose checksum in gzip is wrong.
    """
    place = repr(str(path))  # repr keeps any file name on one line
    try:
        with path.open("rb") as file:
            zipped = file.read(2) == b"\x1f\x8b"
            file.seek(0)
            return _parse(gzip.GzipFile(fileobj=file) if zipped else file)
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise Unfinished(f"{place}: {error}") from error
    except (OSError, ValueError) as error:
        raise UserError(f"{place}: {getattr(error, 'strerror', None) or error}") from error


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


def digest(array: np.ndarray) -> str:
    """SHA-256 of the array as an uncompressed IDX file, whose header follows from the shape."""
    header = struct.pack(f">2x2B{array.ndim}I", 0x08, array.ndim, *array.shape)
    return hashlib.sha256(header + array.tobytes()).hexdigest()
