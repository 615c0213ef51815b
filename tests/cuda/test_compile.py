"""Every kernel of the set ``cuda`` compiles for three generations of GPUs, without one: what the simulator cannot see.

The simulator runs kernels as Python. Whether their types fit shows when Numba compiles them, and whether their numbers
fit into registers when ``ptxas`` does. Kernels are found by walking the modules. What they are called with is recorded:
every public function is called on arrays of the host, and a launch notes the types and does nothing.
"""

import importlib
import pkgutil
import re
import subprocess
import sysconfig
import warnings
from collections import defaultdict
from functools import cache
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

pytest.importorskip("numba_cuda", reason="kernels are not compiled, for numba-cuda is not installed")

from numba import cuda

if cuda.config.ENABLE_CUDASIM:
    pytest.skip("the simulator compiles nothing", allow_module_level=True)

from numba.cuda import dispatcher as numba_dispatcher
from numba.cuda.compiler import _compile_pyfunc_with_fixup
from numba.cuda.dispatcher import CUDADispatcher

import kernels.cuda
from kernels.cuda import array, products
from tests.kernels.test_sets import CASES, Array

TARGETS = [(7, 5), (8, 0), (9, 0)]
SIZES = dict.fromkeys("bdikmnorN", 5)
PTXAS = next(Path(sysconfig.get_paths()["purelib"]).glob("nvidia/*/bin/ptxas"), None)
MODULES = {
    module.name: importlib.import_module(f"kernels.cuda.{module.name}")
    for module in pkgutil.iter_modules(kernels.cuda.__path__)
}
KERNELS = {
    f"{name}.{value.py_func.__name__}": value
    for name, module in MODULES.items()
    for value in vars(module).values()
    if isinstance(value, CUDADispatcher)
    and not value.targetoptions["device"]
    and value.py_func.__module__ == module.__name__
}


@pytest.fixture(scope="module", autouse=True)
def no_gpu():
    """Compile for a GPU that is not there."""
    try:
        cuda.cudadrv.nvvm.NVVM()
    except Exception as error:
        pytest.skip(
            f"kernels are not compiled, for there is no NVVM (pip install nvidia-nvvm nvidia-cuda-nvrtc): {error}"
        )
    absent = SimpleNamespace(compute_capability=TARGETS[0], id=0, name=b"none")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(numba_dispatcher, "get_current_device", lambda: absent)
        yield


@pytest.fixture(scope="module")
def recorded(no_gpu):
    """The types of arguments that a kernel is launched with, by its dispatcher and the float type of the call."""
    found: dict[tuple[CUDADispatcher, type], set] = defaultdict(set)

    def configure(dispatcher, *_):
        def launch(*arguments):
            assert not any(argument is None for argument in arguments)  # Numba types it, and can launch nothing with it
            found[dispatcher, dtype].add(tuple(map(dispatcher.typeof_pyval, arguments)))

        return launch

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(CUDADispatcher, "configure", configure)
        stand_in(patch)
        for dtype in (np.float32, np.float64):
            call_everything(dtype)
    return found


def stand_in(patch):
    """Let arrays of the host stand for those of a device."""
    names = {
        "empty": np.empty,
        "empty_like": np.empty_like,
        "to_device": lambda array: array,
        "multiprocessors": lambda: 132,
        "Block": lambda size, dtype: SimpleNamespace(shaped=lambda *shape: np.empty(shape, dtype)),
    }
    for module in MODULES.values():
        for name, value in names.items():
            if hasattr(module, name):
                patch.setattr(module, name, value)


def call_everything(dtype):
    """Call every public function of the set, and the matrix products at sizes of every kind."""
    rng = np.random.default_rng(0)
    for name, *specs in CASES:
        module, function = name.split(".")
        arguments = [s.draw(rng, SIZES, dtype, False) if isinstance(s, Array) else s for s in specs]
        getattr(MODULES[module], function)(*arguments)
    flat, layout = np.zeros(12, dtype), np.zeros((3, 4), np.int8)
    array.copy_strided(flat, layout, flat, layout)
    array.launch_over(3, array._take, flat, flat, np.arange(3))
    MODULES["memory"].write(np.zeros((3, 4), dtype), 0)
    MODULES["memory"].rows(np.zeros((2, 4), dtype), np.zeros((3, 4), dtype), np.arange(2))
    for m, k, n in [(4096, 1, 4096), (64, 640, 64), (64, 1, 64)]:
        arrays = (np.empty(shape, dtype) for shape in ((m, n), (m, k), (k, n), (n,)))
        products.dense(*arrays, 1)
    for product, (m, k, n) in [(products.matmul, size) for size in ((4096, 1, 4096), (64, 640, 64), (64, 1, 64))] + [
        (rung, (64, 1, 64)) for rung in products.LADDER
    ]:
        product(np.empty((m, n), dtype), np.empty((m, k), dtype), np.empty((k, n), dtype))


@cache
def assembly(name, types):
    """The PTX of a kernel for every target, typed and lowered once: what ``cuda.compile_ptx`` does for one."""
    dispatcher = KERNELS[name]
    options = {option: dispatcher.targetoptions.get(option) for option in ("fastmath", "launch_bounds")}
    library, _ = _compile_pyfunc_with_fixup(
        dispatcher.py_func, types, device=False, abi="numba", cc=TARGETS[0], **options
    )
    return {target: library.get_asm_str(cc=target) for target in TARGETS}


def test_kernels_are_all_launched_by_public_functions(recorded):
    assert KERNELS
    launched = {dispatcher for dispatcher, _ in recorded}
    assert {name for name, dispatcher in KERNELS.items() if dispatcher not in launched} == set()


def test_kernel_with_a_small_grid_warns_of_nothing():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert KERNELS["elementwise._add"][1, 32]


float32_and_slowly_float64 = pytest.mark.parametrize(
    "dtype", [np.float32, pytest.param(np.float64, marks=pytest.mark.slow)], ids=["float32", "float64"]
)


@float32_and_slowly_float64
@pytest.mark.parametrize("name", KERNELS)
def test_kernel_compiles(name, dtype, recorded):
    for types in recorded[KERNELS[name], dtype]:
        with warnings.catch_warnings():
            warnings.simplefilter("error")  # whoever trains would see them
            compiled = assembly(name, types)
        for (major, minor), ptx in compiled.items():
            assert re.search(rf"^\.target sm_{major}{minor}", ptx, re.MULTILINE)
            assert ".visible .entry" in ptx


@pytest.mark.skipif(PTXAS is None, reason="registers are not counted, for there is no ptxas (nvidia-cuda-nvcc)")
@float32_and_slowly_float64
@pytest.mark.parametrize("name", [name for name in KERNELS if name.startswith(("products.", "conv."))])
def test_products_fit_into_registers(name, dtype, recorded, tmp_path):
    """None that trains keeps its sums in local memory. What ptxas says of each is printed (pytest -rP shows it)."""
    for types in recorded[KERNELS[name], dtype]:
        for (major, minor), ptx in assembly(name, types).items():
            target = f"sm_{major}{minor}" + "a" * (major >= 9)
            (tmp_path / "kernel.ptx").write_text(ptx)
            command = [PTXAS, "-v", f"-arch={target}", "kernel.ptx", "-o", "kernel.cubin"]
            said = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True).stderr
            registers, local = (int(re.search(p, said)[1]) for p in (r"Used (\d+) registers", r"(\d+) bytes stack"))
            print(f"{name} {types[0].dtype} {target}: {registers} registers, {local} bytes of local memory")
            # 64 sums in float64 are all that two blocks leave to a thread. A rung; float64 trains on small tiles.
            assert local == 0 or (name == "products._ahead" and types[0].dtype.bitwidth == 64)
