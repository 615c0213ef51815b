"""Counter-based random numbers, as ``kernels/reference/random.py`` defines them: four numbers per counter."""

import math

import numpy as np
from numba import njit, prange

from kernels.cpu.vector_math import JIT, cast

COUNTERS = 256  # per chunk; their words fit in an L1 cache
ZERO, LOW, BITS = np.uint64(0), np.uint64(0xFFFFFFFF), np.uint64(32)
MULTIPLIER_0, MULTIPLIER_1 = np.uint64(0xD2511F53), np.uint64(0xCD9E8D57)
WEYL_0, WEYL_1 = np.uint64(0x9E3779B9), np.uint64(0xBB67AE85)


def uniform(out, key):
    """out (...) = uniform numbers in [0, 1); the key is an integer below 2^63, or an array (1) holding it."""
    fill = _fill32 if out.dtype == np.float32 else _fill64
    fill(out.reshape(-1), np.uint64(np.reshape(key, ())))


def normal(out, key):
    """out (...) = samples of N(0, 1), by the Box-Muller transform of pairs of uniform numbers."""
    pairs = np.empty((out.size + 1) // 2 * 2, out.dtype)
    uniform(pairs, key)
    _box_muller(out.reshape(-1), pairs)


@njit(**JIT)
def _count(words, first, half):
    """words (4, n) = the counters (first + i, half, 0, 0), as uint64 words whose upper half is not used."""
    for i in range(words.shape[1]):
        words[0, i], words[1, i], words[2, i], words[3, i] = np.uint64(first + i), np.uint64(half), ZERO, ZERO


@njit(**JIT)
def _philox(words, key):
    """Replace n counters, words (4, n), by their random bits, in place.

    Each round runs over all counters before the next one starts, so that it vectorises over the counters.
    """
    w0, w1, w2, w3 = words[0], words[1], words[2], words[3]
    k0, k1 = key & LOW, key >> BITS
    for _ in range(10):
        for i in range(w0.size):
            p0, p1 = MULTIPLIER_0 * (w0[i] & LOW), MULTIPLIER_1 * (w2[i] & LOW)
            w0[i], w2[i] = (p1 >> BITS) ^ w1[i] ^ k0, (p0 >> BITS) ^ w3[i] ^ k1
            w1[i], w3[i] = p1 & LOW, p0 & LOW
        k0, k1 = (k0 + WEYL_0) & LOW, (k1 + WEYL_1) & LOW


@njit(parallel=True, **JIT)
def _fill32(out, key):
    size = 4 * COUNTERS
    for chunk in prange((out.size + size - 1) // size):
        words, here = np.empty((4, COUNTERS), np.uint64), out[size * chunk : size * (chunk + 1)]
        _count(words, COUNTERS * chunk, 0)
        _philox(words, key)
        whole = here.size == size  # else fewer numbers are needed than a chunk has
        numbers = here.reshape(COUNTERS, 4) if whole else np.empty((COUNTERS, 4), np.float32)
        for i in range(COUNTERS):
            for w in range(4):  # via int32: a vector instruction converts it to float
                numbers[i, w] = np.float32(np.int32(words[w, i] >> np.uint64(8))) * np.float32(2.0**-24)
        if not whole:
            here[:] = numbers.reshape(size)[: here.size]


@njit(parallel=True, **JIT)
def _fill64(out, key):
    size = 4 * COUNTERS
    for chunk in prange((out.size + size - 1) // size):
        upper, lower = np.empty((4, COUNTERS), np.uint64), np.empty((4, COUNTERS), np.uint64)
        _count(upper, COUNTERS * chunk, 0)
        _count(lower, COUNTERS * chunk, 1)
        _philox(upper, key)
        _philox(lower, key)
        for e in range(size * chunk, min(size * (chunk + 1), out.size)):
            i, w = e // 4 - COUNTERS * chunk, e % 4
            out[e] = np.float64(upper[w, i] << np.uint64(21) | lower[w, i] >> np.uint64(11)) * 2.0**-53


@njit(**JIT)
def _box_muller(out, pairs):
    for i in range(0, out.size, 2):
        radius = math.sqrt(cast(-2.0, pairs[i]) * math.log1p(-pairs[i]))
        angle = cast(2 * math.pi, pairs[i]) * pairs[i + 1]
        out[i] = radius * math.cos(angle)
        if i + 1 < out.size:
            out[i + 1] = radius * math.sin(angle)
