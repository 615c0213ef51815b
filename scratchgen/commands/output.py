"""How commands write the files that they were asked for."""

import io
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from scratchgen.errors import UserError


def require_suffix(path: Path, *suffixes: str) -> None:
    """UserError unless the file's name ends in one of these, such as ".png"."""
    if path.suffix not in suffixes:
        raise UserError(f"{path}: give a name that ends in {' or '.join(suffixes)}")


def write(path: Path, save: Any, suffixes: tuple[str, ...] = (".png",)) -> None:
    """Have ``save`` write a file of that name, and print the name. UserError if it cannot be written."""
    require_suffix(path, *suffixes)
    try:
        save()
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: cannot be written ({getattr(error, 'strerror', None) or error})") from None
    print(path)


def npy(shape: tuple[int, ...], parts: Iterable[np.ndarray]) -> Iterator[bytes]:
    """The contents of a .npy file of a float32 array, whose rows come in parts."""
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": "<f4", "fortran_order": False, "shape": shape})
    yield header.getvalue()
    for part in parts:
        yield part.astype("<f4", copy=False).tobytes()
