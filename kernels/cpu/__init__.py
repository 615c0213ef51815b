"""The kernel set ``cpu``: vectorised Numba loops, and a matrix product that keeps its tile of the output in registers.

Compiled kernels are cached on disk. Numba's own cache checks only the file that defines a kernel, not the helpers
inlined into it, so it would miss an edit of ``vector_math.py``. Therefore the cache folder is named after a hash of all
files of the kernel set. It lies in ``NUMBA_CACHE_DIR`` or, without one, in the user's cache folder.
"""

import atexit
import hashlib
import os
import shutil
import tempfile
from pathlib import Path

from numba import config

from kernels.user_cache import user_cache_folder


def _cache_folder() -> str:
    files = sorted(Path(__file__).parent.glob("*.py"))
    digest = hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()[:16]
    try:
        home = user_cache_folder()
        folder = Path(config.CACHE_DIR or home) / f"kernels-{digest}"
        folder.mkdir(parents=True, exist_ok=True)
        if os.access(folder, os.W_OK):
            return str(folder)
    except (OSError, RuntimeError):  # RuntimeError: there is no home folder
        pass
    scratch = tempfile.mkdtemp(prefix="scratchgen-kernels-")  # recompiled in each process unless NUMBA_CACHE_DIR is set
    atexit.register(shutil.rmtree, scratch, ignore_errors=True)
    return scratch


_before = config.CACHE_DIR
config.CACHE_DIR = _cache_folder()  # read when a function is decorated, so it holds for this kernel set alone
try:
    from kernels.cpu import (
        conv,
        dense,
        elementwise,
        losses,
        memory,
        normalization,
        optimizers,
        pooling,
        random,
        reductions,
    )
finally:
    config.CACHE_DIR = _before

__all__ = [
    "conv",
    "dense",
    "elementwise",
    "losses",
    "memory",
    "normalization",
    "optimizers",
    "pooling",
    "random",
    "reductions",
]
