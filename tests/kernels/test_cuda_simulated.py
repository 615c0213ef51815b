"""The set ``cuda`` where there is no GPU: its tests in the simulator, which needs a process of its own."""

import os
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.parametrize("chosen", ["not slow", pytest.param("slow", marks=pytest.mark.slow)])
def test_cuda_kernels_pass_their_tests_in_the_simulator(chosen):
    pytest.importorskip("numba_cuda", reason="CUDA kernels are not simulated, for numba-cuda is not installed")
    pytest.importorskip("greenlet", reason="CUDA kernels are not simulated, for greenlet is not installed")
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-p",
        "tests.cuda.simulator",
        "-q",
        "-p",
        "no:cacheprovider",
        "-m",
        chosen,
        "tests/cuda",
    ]
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    environment = inherited | {"NUMBA_ENABLE_CUDASIM": "1", "NUMBA_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    run = subprocess.run(command, cwd=Path(__file__).parents[2], env=environment, capture_output=True, text=True)
    assert run.returncode == 0, "\n".join(run.stdout.splitlines()[-60:])
    assert " passed" in run.stdout
