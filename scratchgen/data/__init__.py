"""Data sets: MNIST, and ``strokes``, digits drawn by a program."""

import sys
from pathlib import Path

from scratchgen.data.dataset import Dataset, Split
from scratchgen.data.mnist import find_mnist, load_mnist
from scratchgen.data.strokes import load_strokes
from scratchgen.errors import UserError

SOURCES = ("auto", "mnist", "strokes")

__all__ = ["SOURCES", "Dataset", "Split", "load_dataset"]


def load_dataset(source: str = "auto", data_dir: Path | None = None) -> Dataset:
    """MNIST or strokes; "auto" is MNIST if it is found or can be downloaded, else strokes, with a notice on stderr.

    Even then, a folder given by ``data_dir`` or ``SCRATCHGEN_DATA`` that does not hold MNIST is an error.
    """
    if source == "strokes":
        return load_strokes()
    if source == "mnist" or find_mnist(data_dir) is not None:
        return load_mnist(data_dir)
    try:
        return load_mnist()
    except UserError as error:
        print(f"using strokes, digits drawn by a program, instead of MNIST: {error}", file=sys.stderr)
        return load_strokes()
