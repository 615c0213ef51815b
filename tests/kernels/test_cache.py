"""The kernels import, compile and run wherever they may cache, or may not."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from kernels import cpu
from tests.kernels.test_sets import CASES

PROGRAM = "import numpy as np; from scratchgen import Tensor, ops; print(ops.exp(Tensor([0.0])).item())"


def run(home: Path | None, program: str = PROGRAM, **variables: str) -> subprocess.CompletedProcess:
    kept = {name: value for name, value in os.environ.items() if name not in ("XDG_CACHE_HOME", "NUMBA_CACHE_DIR")}
    environment = kept | ({"HOME": str(home)} if home else {}) | variables
    return subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, env=environment)


def test_kernel_cache_lies_in_the_cache_folder_of_the_user(tmp_path):
    assert run(tmp_path).stdout == "1.0\n"
    (folder,) = (tmp_path / ".cache" / "scratchgen").iterdir()
    assert list(folder.rglob("elementwise.exp*.nbc"))


def test_kernel_cache_obeys_numba_cache_dir(tmp_path):
    assert run(tmp_path / "home", NUMBA_CACHE_DIR=str(tmp_path / "there")).stdout == "1.0\n"
    assert list((tmp_path / "there").rglob("*.nbc"))
    assert not (tmp_path / "home").exists()


@pytest.mark.parametrize("kind", ["a file", "a folder below a file"])
def test_kernels_run_without_a_writable_home(tmp_path, kind):
    (tmp_path / "file").write_text("")
    home = tmp_path / "file" if kind == "a file" else tmp_path / "file" / "home"
    done = run(home, TMPDIR=str(tmp_path))
    assert (done.stdout, done.stderr) == ("1.0\n", "")
    assert not list(tmp_path.glob("scratchgen-kernels-*"))  # it cleans up behind itself


PARALLEL = {  # files with kernels whose loops threads share
    file.stem for file in Path(cpu.__file__).parent.glob("*.py") if re.search("prange|product_tiled", file.read_text())
}
PARALLEL_KERNELS = f"""
import numpy as np
from kernels import cpu
from tests.kernels.test_sets import CASES, Array, kernel

for name, *specs in CASES:
    if name.partition(".")[0] not in {PARALLEL}:
        continue
    rng = np.random.default_rng(0)
    sizes = dict(zip("bdikmnorN", rng.integers(100, 200, 9)))
    arguments = [s.draw(rng, sizes, np.float32, False) if isinstance(s, Array) else s for s in specs]
    kernel(cpu, name)(*arguments)
    written = [a for a, s in zip(arguments, specs) if isinstance(s, Array) and s.role != "input"]
    print(name, *map(hash, map(bytes, written)))
"""


@pytest.mark.slow  # it compiles every kernel that has threads
def test_kernel_cache_gives_the_bits_of_a_fresh_compilation(tmp_path):
    """Numba compiles the body of a ``prange`` again for the cache: sums in any order would come out in another one."""
    variables = {"NUMBA_CACHE_DIR": str(tmp_path), "PYTHONHASHSEED": "0"}
    compiled = run(None, PARALLEL_KERNELS, **variables).stdout.splitlines()
    kept = set(tmp_path.rglob("*.nbc"))
    cached = run(None, PARALLEL_KERNELS, **variables).stdout.splitlines()
    assert len(compiled) == sum(name.partition(".")[0] in PARALLEL for name, *_ in CASES) > 20
    assert kept == set(tmp_path.rglob("*.nbc")) != set()  # the second run compiled nothing
    assert compiled == cached


PRODUCT_OR_LADDER = """
import numpy as np
from kernels.cpu.convolutions import LADDER
from kernels.cpu.products import product_tiled
x, w = np.ones((1, 4, 4, 1), np.float32), np.ones((2, 2, 1, 3), np.float32)
if WHAT == "product":
    product_tiled(np.empty((9, 3), np.float32), np.ones((9, 4), np.float32), w.reshape(4, 3))
else:
    for rung in LADDER:
        rung(out := np.empty((1, 3, 3, 3), np.float32), x, w, (1, 1), (0, 0))
        print(out.sum())
"""


@pytest.mark.slow  # it compiles the ladder
def test_kernel_cache_holds_the_ladder_of_convolutions_when_its_product_came_from_there(tmp_path):
    """A compiled function that calls one with threads, loaded from the cache, would crash when it is loaded itself."""
    for what in ("product", "ladder", "ladder"):
        done = run(None, f"WHAT = {what!r}{PRODUCT_OR_LADDER}", NUMBA_CACHE_DIR=str(tmp_path))
        assert done.returncode == 0, done.stderr
    assert done.stdout == 4 * "108.0\n"
