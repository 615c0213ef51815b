"""Fixtures; Hypothesis profiles: ``fixed`` tries the same few examples every time, ``explore`` looks for new ones."""

import os

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


# Lessons that `make test` runs from end to end; of the others it tests the functions, and `make test-all` runs them.
SHORT_LESSONS = ("test_04", "test_12", "test_14", "test_engine_one_operation")


def pytest_collection_modifyitems(items):
    """The simulated run of the CUDA kernels comes first: it takes a core for minutes, and the others the rest.

    Tests of what a lesson prints, by the fixtures ``table`` or ``run``, are slow but for a few short lessons.
    """
    items.sort(key=lambda item: item.path.name != "test_cuda_simulated.py")
    for item in items:
        of_a_lesson = item.path.parent.name == "demos" and {"table", "run"} & set(item.fixturenames)
        if of_a_lesson and item.path.stem not in SHORT_LESSONS:
            item.add_marker(pytest.mark.slow)
