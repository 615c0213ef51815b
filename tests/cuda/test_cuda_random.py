"""Random numbers on the GPU are the reference's: the published words, and the same numbers under a key."""

import numpy as np
import pytest

pytest.importorskip("numba_cuda", reason="there are no CUDA kernels to test, for numba-cuda is not installed")

from kernels import reference
from kernels.cuda import random
from kernels.cuda.device import SIMULATED, cuda
from kernels.cuda.memory import to_device, to_host

pytestmark = pytest.mark.skipif(
    not (SIMULATED or cuda.is_available()), reason="there is no GPU; the simulated run has these tests"
)
KEY = 2**62 + 2**40 + 5  # it does not fit in a word
SHAPES = [0, 1, 4, 5, 1027, (3, 5, 7)] + ([] if SIMULATED else [1_000_003])


def drawn(draw, shape, dtype, key=KEY):
    out = to_device(np.full(shape, np.nan, dtype))
    getattr(random, draw)(out, key)
    return to_host(out)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_uniform_has_the_references_bits(dtype, shape):
    expected = np.empty(shape, dtype)
    reference.random.uniform(expected, KEY)
    np.testing.assert_array_equal(drawn("uniform", shape, dtype), expected)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_normal_matches_the_reference(dtype, shape):
    expected = np.empty(shape, dtype)
    reference.random.normal(expected, KEY)
    np.testing.assert_allclose(drawn("normal", shape, dtype), expected, rtol=0, atol=12 * np.finfo(dtype).eps)


def test_uniform_begins_with_the_published_words():
    """Philox4x32-10 with counter and key of zeros, from kat_vectors of the Random123 library."""
    words = 0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8
    np.testing.assert_array_equal(drawn("uniform", 4, np.float32, 0), [(w >> 8) / 2.0**24 for w in words])


@pytest.mark.parametrize("draw", ["uniform", "normal"])
def test_uniform_and_normal_take_a_key_on_the_device(draw):
    key = to_device(np.array([KEY]))
    np.testing.assert_array_equal(drawn(draw, 9, np.float32, key), drawn(draw, 9, np.float32))
