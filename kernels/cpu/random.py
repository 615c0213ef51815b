"""Random numbers by counting: the stream that ``kernels/reference/random.py`` defines, four numbers a counter."""

import math

import numpy as np
from numba import njit

from kernels.cpu.vector_math import JIT, cast

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
def _philox(c0, c1, c2, c3, k0, k1):
    """Four words from four of the counter and two of the key: uint64, of which the lower half counts."""
    for _ in range(10):
        p0, p1 = MULTIPLIER_0 * c0, MULTIPLIER_1 * c2
        c0, c1, c2, c3 = (p1 >> BITS) ^ c1 ^ k0, p1 & LOW, (p0 >> BITS) ^ c3 ^ k1, p0 & LOW
        k0, k1 = (k0 + WEYL_0) & LOW, (k1 + WEYL_1) & LOW
    return c0, c1, c2, c3


@njit(**JIT)
def _fill32(out, seed, step):
    for block in range((out.size + 3) // 4):
        words = _philox(np.uint64(block), np.uint64(0), step & LOW, step >> BITS, seed & LOW, seed >> BITS)
        for i in range(min(4, out.size - 4 * block)):
            out[4 * block + i] = np.float32(words[i] >> np.uint64(8)) * np.float32(2.0**-24)


@njit(**JIT)
def _fill64(out, seed, step):
    for block in range((out.size + 3) // 4):
        upper = _philox(np.uint64(block), np.uint64(0), step & LOW, step >> BITS, seed & LOW, seed >> BITS)
        lower = _philox(np.uint64(block), np.uint64(1), step & LOW, step >> BITS, seed & LOW, seed >> BITS)
        for i in range(min(4, out.size - 4 * block)):
            out[4 * block + i] = np.float64(upper[i] << np.uint64(21) | lower[i] >> np.uint64(11)) * 2.0**-53


@njit(**JIT)
def _box_muller(out, pairs):
    for i in range(0, out.size, 2):
        radius = math.sqrt(cast(-2.0, pairs[i]) * math.log1p(-pairs[i]))
        angle = cast(2 * math.pi, pairs[i]) * pairs[i + 1]
        out[i] = radius * math.cos(angle)
        if i + 1 < out.size:
            out[i + 1] = radius * math.sin(angle)
