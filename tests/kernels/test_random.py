"""Counter-based random numbers: the published words, the same in every set, and distributed as they should be."""

import numpy as np
import pytest

from kernels import cpu, reference

both_sets = pytest.mark.parametrize("kernel_set", [reference, cpu], ids=["reference", "cpu"])
both_dtypes = pytest.mark.parametrize("dtype", [np.float32, np.float64])
draws = pytest.mark.parametrize("draw", ["uniform", "normal"])

# Counter, key and words of philox4x32 with ten rounds, from kat_vectors of the Random123 library.
PUBLISHED = [
    ((0,) * 4, (0,) * 2, (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)),
    ((0xFFFFFFFF,) * 4, (0xFFFFFFFF,) * 2, (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD)),
    (
        (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344),
        (0xA4093822, 0x299F31D0),
        (0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1),
    ),
]
KEY = 2**62 + 2**40 + 5  # it does not fit in a word


def drawn(kernel_set, draw, shape, dtype, key=KEY):
    out = np.full(shape, np.nan, dtype)
    getattr(kernel_set.random, draw)(out, key)
    return out


@pytest.mark.parametrize(("counter", "key", "words"), PUBLISHED)
def test_philox_gives_the_published_words(counter, key, words):
    counter, key = ([np.uint64(word) for word in group] for group in (counter, key))
    assert tuple(map(int, reference.random._philox(counter, key))) == words
    four = np.array(counter).reshape(4, 1)
    cpu.random._philox(four, key[0] | key[1] << np.uint64(32))
    assert tuple(map(int, four[:, 0])) == words


@both_sets
def test_uniform_has_each_element_at_its_counter(kernel_set):
    """The first four elements of key 0 are the published words; the others are at their own counters."""
    first = drawn(kernel_set, "uniform", 4, np.float32, 0)
    np.testing.assert_array_equal(first, [(word >> 8) * 2.0**-24 for word in PUBLISHED[0][2]])
    for dtype, halves in ((np.float32, 1), (np.float64, 2)):
        out = drawn(kernel_set, "uniform", 11, dtype)
        for element in range(11):
            counters = [(element // 4, half, 0, 0) for half in range(halves)]
            key = [np.uint64(KEY % 2**32), np.uint64(KEY >> 32)]
            words = [int(reference.random._philox(np.array(c, np.uint64), key)[element % 4]) for c in counters]
            bits = (words[0] >> 8, 24) if halves == 1 else ((words[0] << 21) + (words[1] >> 11), 53)
            assert out[element] == bits[0] / 2.0 ** bits[1]


@draws
@both_dtypes
@pytest.mark.parametrize("shape", [0, 1, 2, 3, 4, 5, 1027, (3, 5, 7), ()])
def test_uniform_and_normal_are_the_same_in_both_sets(draw, dtype, shape):
    expected, found = (drawn(kernel_set, draw, shape, dtype) for kernel_set in (reference, cpu))
    if draw == "uniform":
        np.testing.assert_array_equal(found, expected)
    else:  # log, the root and the cosine round a few times each, and a float32 angle of up to 2 pi by 2.4e-7
        np.testing.assert_allclose(found, expected, rtol=0, atol=12 * np.finfo(dtype).eps)


@both_sets
@draws
@both_dtypes
def test_uniform_and_normal_depend_on_place_and_key_alone(kernel_set, draw, dtype):
    out = drawn(kernel_set, draw, 1001, dtype)
    np.testing.assert_array_equal(out[:101], drawn(kernel_set, draw, 101, dtype))
    np.testing.assert_array_equal(out, drawn(kernel_set, draw, (7, 11, 13), dtype).ravel())
    np.testing.assert_array_equal(out, drawn(kernel_set, draw, 1001, dtype, np.array([KEY])))
    for other in (KEY + 1, KEY + 2**32, KEY - 2**62):
        assert abs(np.corrcoef(out, drawn(kernel_set, draw, 1001, dtype, other))[0, 1]) < 0.1


@both_sets
def test_uniform_in_float32_is_float64_truncated(kernel_set):
    single, double = (drawn(kernel_set, "uniform", 1000, dtype) for dtype in (np.float32, np.float64))
    np.testing.assert_array_equal(single, np.floor(double * 2**24) / 2**24)


@both_sets
@both_dtypes
def test_uniform_has_the_moments_of_its_distribution(kernel_set, dtype):
    """Mean, variance and neighbours' correlation within four standard errors, and every twentieth filled alike."""
    n = 200_000
    u = drawn(kernel_set, "uniform", n, dtype).astype(np.float64)
    assert 0 <= u.min() < 1e-4
    assert 1 - 1e-4 < u.max() < 1
    assert abs(u.mean() - 1 / 2) < 4 * np.sqrt(1 / 12 / n)
    assert abs(u.var() - 1 / 12) < 4 * np.sqrt(1 / 180 / n)
    for lag in (1, 2, 3, 4):
        assert abs(np.mean((u[lag:] - 0.5) * (u[:-lag] - 0.5))) < 4 / 12 / np.sqrt(n)
    counts = np.bincount((20 * u).astype(int), minlength=20)
    assert ((counts - n / 20) ** 2 / (n / 20)).sum() < 43.8  # chi squared, 19 degrees of freedom: 0.1 % are beyond


@both_sets
@both_dtypes
def test_normal_has_the_moments_of_its_distribution(kernel_set, dtype):
    """Moments 1 to 4 and neighbours' correlation within four standard errors, and the share beyond 1, 2 and 3."""
    n = 200_000
    z = drawn(kernel_set, "normal", n, dtype).astype(np.float64)
    for power, moment, variance in ((1, 0, 1), (2, 1, 2), (3, 0, 15), (4, 3, 96)):
        assert abs(np.mean(z**power) - moment) < 4 * np.sqrt(variance / n)
    for lag in (1, 2, 3, 4):
        assert abs(np.mean(z[lag:] * z[:-lag])) < 4 / np.sqrt(n)
    assert abs(np.mean(z[::2] ** 2 * z[1::2] ** 2) - 1) < 4 * np.sqrt(8 / (n / 2))  # a pair shares its radius
    for limit, share in ((1, 0.317311), (2, 0.045500), (3, 0.002700)):
        assert abs(np.mean(np.abs(z) > limit) - share) < 4 * np.sqrt(share / n)
    assert np.abs(z).max() < (5.8 if dtype == np.float32 else 8.6)
