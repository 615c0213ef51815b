"""Counter-based random numbers, defined in NumPy: each element can be computed alone, in any order, on any device.

Philox4x32-10 (Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3") maps a 128-bit counter to 128 random
bits under a 64-bit key. Each draw has its own key, and the counter is the position in the array. So every kernel set
draws the same numbers with any number of threads, and a draw is reproduced from its key alone.

Element e is made from word e % 4 of the bits for counter (e // 4, 0, 0, 0). float32 uses 24 of its 32 bits; float64
needs 53, and takes the lower 21 from counter (e // 4, 1, 0, 0). So the float32 numbers are the float64 ones, truncated.
"""

import numpy as np

from kernels.reference import elementwise

_MULTIPLIERS = np.uint64(0xD2511F53), np.uint64(0xCD9E8D57)
_WEYL = np.uint64(0x9E3779B9), np.uint64(0xBB67AE85)  # key increments: fractions of golden ratio and sqrt(3)
_LOW, _32 = np.uint64(0xFFFFFFFF), np.uint64(32)


def uniform(out, key):
    """out (...) = uniform numbers in [0, 1); the key is an integer below 2^63, or an array (1) holding it."""
    words = _words(out.size, key, 0)
    if out.dtype == np.float32:
        values = (words >> np.uint64(8)) * 2.0**-24
    else:
        values = (words << np.uint64(21) | _words(out.size, key, 1) >> np.uint64(11)) * 2.0**-53
    out[...] = values.reshape(out.shape)


def normal(out, key):
    """out (...) = samples of N(0, 1), by the Box-Muller transform of pairs of uniform numbers.

    A pair u, v gives sqrt(-2 log(1 - u)) cos(2 pi v) and sqrt(-2 log(1 - u)) sin(2 pi v). Their absolute values are
    below 5.8 in float32 and 8.6 in float64, because 1 - u is at least 2^-24 or 2^-53.
    """
    pairs = np.empty(((out.size + 1) // 2, 2), out.dtype)
    uniform(pairs, key)
    radius, angle = np.sqrt(-2 * np.log1p(-pairs[:, 0])), 2 * np.pi * pairs[:, 1]
    pairs[:, 0], pairs[:, 1] = radius * np.cos(angle), radius * np.sin(angle)
    out[...] = pairs.ravel()[: out.size].reshape(out.shape)


def binary_units(states, probabilities, x, b, key):
    """probabilities (r,o) = sigmoid(x + b), with x (r,o), b (o); states (r,o) = ``uniform`` < probabilities, 1 or 0."""
    elementwise.sigmoid(probabilities, x + b)
    uniform(states, key)
    states[...] = states < probabilities


def _words(count, key, half):
    """The random words of the first ``count`` elements, as uint64."""
    key = np.asarray(key, np.uint64).reshape(())
    blocks = np.arange((count + 3) // 4, dtype=np.uint64)
    zero = np.zeros_like(blocks)
    words = _philox((blocks, np.full_like(blocks, half), zero, zero), (key & _LOW, key >> _32))
    return np.stack(words, axis=-1).ravel()[:count]


def _philox(counter, key):
    """Four random words from four counter words and two key words, all uint64: ten rounds of two multiplications."""
    (c0, c1, c2, c3), (k0, k1) = counter, key
    for _ in range(10):
        p0, p1 = _MULTIPLIERS[0] * c0, _MULTIPLIERS[1] * c2
        c0, c1, c2, c3 = p1 >> _32 ^ c1 ^ k0, p1 & _LOW, p0 >> _32 ^ c3 ^ k1, p0 & _LOW
        k0, k1 = k0 + _WEYL[0] & _LOW, k1 + _WEYL[1] & _LOW
    return c0, c1, c2, c3
