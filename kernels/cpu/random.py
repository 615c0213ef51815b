"""Random numbers by counting: the stream that ``kernels/reference/random.py`` defines, four numbers a counter."""

import math

import numpy as np
from numba import njit, prange

from kernels.cpu.vector_math import JIT, cast

COUNTERS = 256  # at a time, whose words a near cache holds
LOW, BITS = np.uint64(0xFFFFFFFF), np.uint64(32)
MULTIPLIER_0, MULTIPLIER_1 = np.uint64(0xD2511F53), np.uint64(0xCD9E8D57)
WEYL_0, WEYL_1 = np.uint64(0x9E3779B9), np.uint64(0xBB67AE85)


def uniform(out, seed, step):
    """out (...) = uniform numbers in [0, 1), told by ``seed`` and ``step``: numbers below 2^63, or step (1)."""
    fill = _fill32 if out.dtype == np.float32 else _fill64
    fill(out.reshape(-1), np.uint64(seed), np.uint64(np.reshape(step, ())))


def normal(out, seed, step):
    """out (...) = numbers from N(0, 1), two from every two uniform ones, by Box and Muller."""
    pairs = np.empty((out.size + 1) // 2 * 2, out.dtype)
    uniform(pairs, seed, step)
    _box_muller(out.reshape(-1), pairs)


@njit(**JIT)
def _philox(words, first, half, seed, step):
    """words (4, n) = those of n counters from ``first`` on: uint64, of which the lower half counts.

    A round of all counters before the next round of any: the counters are what a vector can hold.
    """
    w0, w1, w2, w3 = words[0], words[1], words[2], words[3]
    for i in range(w0.size):
        w0[i], w1[i], w2[i], w3[i] = np.uint64(first + i), np.uint64(half), step & LOW, step >> BITS
    k0, k1 = seed & LOW, seed >> BITS
    for _ in range(10):
        for i in range(w0.size):
            p0, p1 = MULTIPLIER_0 * (w0[i] & LOW), MULTIPLIER_1 * (w2[i] & LOW)
            w0[i], w2[i] = (p1 >> BITS) ^ w1[i] ^ k0, (p0 >> BITS) ^ w3[i] ^ k1
            w1[i], w3[i] = p1 & LOW, p0 & LOW
        k0, k1 = (k0 + WEYL_0) & LOW, (k1 + WEYL_1) & LOW


@njit(parallel=True, **JIT)
def _fill32(out, seed, step):
    size = 4 * COUNTERS
    for chunk in prange((out.size + size - 1) // size):
        words, here = np.empty((4, COUNTERS), np.uint64), out[size * chunk : size * (chunk + 1)]
        _philox(words, COUNTERS * chunk, 0, seed, step)
        whole = here.size == size  # else the last numbers are too many
        numbers = here.reshape(COUNTERS, 4) if whole else np.empty((COUNTERS, 4), np.float32)
        for i in range(COUNTERS):
            for w in range(4):  # by way of an int32, which a vector instruction turns into a float
                numbers[i, w] = np.float32(np.int32(words[w, i] >> np.uint64(8))) * np.float32(2.0**-24)
        if not whole:
            here[:] = numbers.reshape(size)[: here.size]


@njit(parallel=True, **JIT)
def _fill64(out, seed, step):
    size = 4 * COUNTERS
    for chunk in prange((out.size + size - 1) // size):
        upper, lower = np.empty((4, COUNTERS), np.uint64), np.empty((4, COUNTERS), np.uint64)
        _philox(upper, COUNTERS * chunk, 0, seed, step)
        _philox(lower, COUNTERS * chunk, 1, seed, step)
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
