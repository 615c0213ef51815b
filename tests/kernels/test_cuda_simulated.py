"""The set ``cuda`` where there is no GPU: its tests in the simulator, which needs a process of its own."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def test_cuda_kernels_in_the_simulator():
    pytest.importorskip("numba_cuda", reason="CUDA kernels are not simulated, for numba-cuda is not installed")
    pytest.importorskip("greenlet", reason="CUDA kernels are not simulated, for greenlet is not installed")
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-p",
        "tests.cuda.simulator",
        "tests/cuda",
        "-q",
        "-p",
        "no:cacheprovider",
    ]
    run = subprocess.run(
        command, cwd=ROOT, env=os.environ | {"NUMBA_ENABLE_CUDASIM": "1"}, capture_output=True, text=True
    )
    assert run.returncode == 0, "\n".join((run.stdout + run.stderr).splitlines()[-60:])
    assert " passed" in run.stdout
