"""Fixtures; Hypothesis profiles: ``fixed`` tries the same few examples every time, ``explore`` looks for new ones."""

import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
from hypothesis import settings

import kernels

settings.register_profile("fixed", derandomize=True, deadline=None, max_examples=25)
settings.register_profile("explore", deadline=None, max_examples=300, print_blob=True)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "fixed"))


@pytest.fixture
def rng():
    return np.random.default_rng(0)


@pytest.fixture(params=kernels.SETS)
def kernel_set(request):
    """Runs a test on each kernel set; yields its modules."""
    with kernels.use(request.param):
        yield kernels.SETS[request.param]


def pytest_collection_modifyitems(items):
    """The simulated run of the CUDA kernels is asked for its outcome at the end: it takes a core for two minutes."""
    items.sort(key=lambda item: "simulated_run" in getattr(item, "fixturenames", ()))


@pytest.fixture(scope="session", autouse=True)
def _simulation(request):
    """The simulated run, under way beside the other tests, if it is asked for."""
    asked = any("simulated_run" in getattr(item, "fixturenames", ()) for item in request.session.items)
    if not (asked and find_spec("numba_cuda") and find_spec("greenlet")):
        yield None
        return
    command = [sys.executable, "-m", "pytest", "-p", "tests.cuda.simulator", "-q", "-p", "no:cacheprovider"]
    environment = os.environ | {"NUMBA_ENABLE_CUDASIM": "1", "NUMBA_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    with subprocess.Popen(
        [*command, "tests/cuda"],
        cwd=Path(__file__).parents[1],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as run:
        yield run
        run.kill()


@pytest.fixture
def simulated_run(_simulation):
    """A process that runs the tests of the set ``cuda`` in the simulator; its output is what pytest says."""
    pytest.importorskip("numba_cuda", reason="CUDA kernels are not simulated, for numba-cuda is not installed")
    pytest.importorskip("greenlet", reason="CUDA kernels are not simulated, for greenlet is not installed")
    return _simulation
