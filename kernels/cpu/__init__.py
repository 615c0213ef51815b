"""The set ``cpu``: Numba loops that vectorise, and a matrix product that holds its tile in registers.

Compiled kernels are cached on disk. Numba's own cache looks only at the file a kernel stands in, not at the helpers
that it inlines, so an edit of ``vector_math.py`` would go unnoticed; here the cache's folder is named after the
contents of all files of the set. It lies in ``NUMBA_CACHE_DIR`` or, without one, in the user's cache.
"""

import atexit
import hashlib
import os
import shutil
import tempfile
from pathlib import Path

from numba import config


def _cache_folder() -> str:
    files = sorted(Path(__file__).parent.glob("*.py"))
    digest = hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()[:16]
    try:
        xdg = Path(os.environ.get("XDG_CACHE_HOME", ""))  # counts if absolute, says its specification
        home = (xdg if xdg.is_absolute() else Path.home() / ".cache") / "scratchgen"
        folder = Path(config.CACHE_DIR or home) / f"kernels-{digest}"
        folder.mkdir(parents=True, exist_ok=True)
        if os.access(folder, os.W_OK):
            return str(folder)
    except (OSError, RuntimeError):  # RuntimeError: there is no home
        pass
    scratch = tempfile.mkdtemp(prefix="scratchgen-kernels-")  # compiled anew each time; NUMBA_CACHE_DIR mends that
    atexit.register(shutil.rmtree, scratch, ignore_errors=True)
    return scratch


_before = config.CACHE_DIR
config.CACHE_DIR = _cache_folder()  # read when a function is decorated, so for this set alone
try:
    from kernels.cpu import dense, elementwise, losses, memory, normalization, optimizers, random, reductions
finally:
    config.CACHE_DIR = _before

__all__ = ["dense", "elementwise", "losses", "memory", "normalization", "optimizers", "random", "reductions"]
