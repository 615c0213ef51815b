"""The machine that is timed, in words; and what would hold a library back on it, forgotten."""

import os
import platform
from datetime import date
from pathlib import Path

# Variables that give a library other kernels than those which it would choose for this processor. With OpenBLAS forced
# to those of an older one, matrix products take twice as long.
FORCED = (
    *("OPENBLAS_CORETYPE", "OPENBLAS_L2_SIZE", "NPY_DISABLE_CPU_FEATURES", "NPY_ENABLE_CPU_FEATURES"),
    *("NUMBA_CPU_NAME", "NUMBA_CPU_FEATURES", "MKL_ENABLE_INSTRUCTIONS", "MKL_CBWR", "ONEDNN_MAX_CPU_ISA"),
    *("DNNL_MAX_CPU_ISA", "ATEN_CPU_CAPABILITY"),
)


def let_libraries_choose() -> None:
    """Forget the variables in ``FORCED``; to be called before NumPy and the others are imported, which read them."""
    for name in FORCED:
        os.environ.pop(name, None)


def machine() -> str:
    """The processor, its vectors and cores, the versions, the BLAS and its kernels, and the date, on one line."""
    import numba  # here, for this module is imported before ``let_libraries_choose`` is called
    import numpy as np

    model = platform.processor() or platform.machine()
    if (cpuinfo := Path("/proc/cpuinfo")).exists():
        lines = [line for line in cpuinfo.read_text().splitlines() if line.startswith("model name")]
        model = lines[0].partition(": ")[2] if lines else model
    versions = f"Python {platform.python_version()}, NumPy {np.__version__}, Numba {numba.__version__}"
    return f"{model}, {vector_width()}, {os.cpu_count()} cores; {versions}, {blas()}; {date.today()}"


def vector_width() -> str:
    """Of the kernels that Numba compiles, in words."""
    from llvmlite.binding import get_host_cpu_features

    has = get_host_cpu_features()
    return f"{512 if has.get('avx512f') else 256 if has.get('avx2') else 128}-bit vectors"


def blas() -> str:
    """NumPy's BLAS, with the processor whose kernels it uses if threadpoolctl is there to say so."""
    import numpy as np

    library = np.show_config(mode="dicts")["Build Dependencies"]["blas"]
    try:
        from threadpoolctl import threadpool_info
    except ImportError:
        kinds = ["unknown, for threadpoolctl is not installed"]
    else:
        kinds = sorted(
            {each.get("architecture", "unknown") for each in threadpool_info() if each["user_api"] == "blas"}
        )
    return f"{library['name']} {library['version']} (kernels: {', '.join(kinds)})"
