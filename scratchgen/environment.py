"""What may be wrong with the environment that scratchgen is imported into, found before it fails deep inside Numba."""

import os
from importlib.util import find_spec
from pathlib import Path


def problem() -> str | None:
    """What keeps scratchgen from being imported, in a line that says what to do; None if nothing does."""
    # PyPI has another package called kernels. In the same environment it hides ours, or is written over it.
    file = getattr(find_spec("kernels"), "origin", None)
    if not file or "def active(" not in Path(file).read_text("utf-8"):
        return (
            f"scratchgen needs its own package kernels, but under that name Python finds {file or 'nothing'}; "
            "pip uninstall kernels and install scratchgen again, or use an environment of its own"
        )
    blamed = "NUMBA_NUM_THREADS"
    try:
        import numba

        if numba.config.DISABLE_JIT:
            return "the kernels cannot run with Numba's compiler disabled; unset NUMBA_DISABLE_JIT"
        for blamed in ("NUMBA_THREADING_LAYER", "NUMBA_THREADING_LAYER_PRIORITY"):
            if blamed in os.environ:
                numba.get_num_threads()  # loads the layer
    except ValueError as error:
        reason = str(error).splitlines()[0].rstrip(".")
        return f"Numba refuses {blamed}={os.environ.get(blamed)!r} ({reason}); unset {blamed}"
    return None
