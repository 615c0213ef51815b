"""The set ``cuda`` where there is no GPU: its tests in the simulator, which needs processes of its own."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PROOFS = ["tests/cuda/test_cuda_by_hand.py", "tests/cuda/test_cuda_mutants.py"]
PARTS = {"proofs": PROOFS, "the rest": ["tests/cuda", *[f"--ignore={file}" for file in PROOFS]]}  # of about one length


@pytest.fixture(scope="module")
def runs():
    """Both parts, under way side by side: each takes one core, for a minute."""
    pytest.importorskip("numba_cuda", reason="CUDA kernels are not simulated, for numba-cuda is not installed")
    pytest.importorskip("greenlet", reason="CUDA kernels are not simulated, for greenlet is not installed")
    command = [sys.executable, "-m", "pytest", "-p", "tests.cuda.simulator", "-q", "-p", "no:cacheprovider"]
    environment = os.environ | {"NUMBA_ENABLE_CUDASIM": "1", "NUMBA_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    under_way = {
        part: subprocess.Popen(
            [*command, *tests],
            cwd=ROOT,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for part, tests in PARTS.items()
    }
    yield under_way
    for run in under_way.values():
        run.kill()
        run.wait()


@pytest.mark.parametrize("part", PARTS)
def test_cuda_kernels_in_the_simulator(runs, part):
    output, _ = runs[part].communicate()
    assert runs[part].returncode == 0, "\n".join(output.splitlines()[-60:])
    assert " passed" in output
