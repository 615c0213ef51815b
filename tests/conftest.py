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
