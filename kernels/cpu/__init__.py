"""The set ``cpu``: Numba loops that vectorise, around the matrix products of NumPy's BLAS.

Compiled kernels are cached on disk. Numba's own cache looks only at the file a kernel stands in, not at the helpers
that it inlines, so an edit of ``vector_math.py`` would go unnoticed; here the cache's folder is named after the
contents of all files of the set. ``NUMBA_CACHE_DIR`` overrides it.
"""

import hashlib
import os
import tempfile
from pathlib import Path

from numba import config


def _cache_folder() -> str:
    files = sorted(Path(__file__).parent.glob("*.py"))
    digest = hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()[:16]
    home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "scratchgen"
    try:
        (home / f"kernels-{digest}").mkdir(parents=True, exist_ok=True)
    except OSError:  # no home that can be written to: compile once a boot instead
        home = Path(tempfile.gettempdir()) / f"scratchgen-{os.getuid() if hasattr(os, 'getuid') else 'kernels'}"
    return str(home / f"kernels-{digest}")


_before = config.CACHE_DIR
config.CACHE_DIR = _before or _cache_folder()  # read when a function is decorated, so for this set alone
try:
    from kernels.cpu import dense, elementwise, losses, optimizers, reductions
finally:
    config.CACHE_DIR = _before

__all__ = ["dense", "elementwise", "losses", "optimizers", "reductions"]
