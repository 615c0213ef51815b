"""Data sets: MNIST and Fashion-MNIST; ``strokes``, digits drawn by a program; and one's own."""

import sys
from pathlib import Path

from scratchgen.data.dataset import Dataset, Split
from scratchgen.data.mnist import PUBLISHED, find_mnist, load_mnist
from scratchgen.data.own import load_own
from scratchgen.data.strokes import load_strokes
from scratchgen.errors import UserError

SOURCES = ("auto", *PUBLISHED, "strokes")

__all__ = ["SOURCES", "Dataset", "Split", "load_dataset"]


def load_dataset(source: str = "auto", data_dir: Path | None = None) -> Dataset:
    """The data set of that name, one of ``SOURCES``, or the one at that path (see ``data.own``).

    "auto" is MNIST if it is found or can be downloaded, else strokes, with a notice on stderr. Even then, a folder
    given by ``data_dir`` or ``SCRATCHGEN_DATA`` that does not hold MNIST is an error.
    """
    if source not in SOURCES:
        if data_dir is not None:
            raise UserError(f"the data are at {source!r} already; leave --data-dir out")
        return load_own(Path(source))
    if source == "strokes":
        return load_strokes()
    if source in PUBLISHED:
        return load_mnist(data_dir, which=PUBLISHED[source])
    if find_mnist(data_dir) is not None:
        return load_mnist(data_dir)
    try:
        return load_mnist()
    except UserError as error:
        print(f"using strokes, digits drawn by a program, instead of MNIST: {error}", file=sys.stderr)
        return load_strokes()
