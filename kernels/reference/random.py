"""Random numbers by counting, defined in NumPy: any of them can be drawn alone, in any order, on any processor.

Philox4x32-10 (Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3") turns 128 bits of counter into 128
random bits under a key of 64. The key is the seed; the counter is the number of the step and the place in the array. So
every kernel set draws the same stream, whatever its threads; and a step is repeated by its number alone.

Element e has word e % 4 of the counter (e // 4, 0, step). Its 32 bits are enough for float32, which takes 24; float64
takes 53, the lower 21 of them from the counter (e // 4, 1, step). So the float32 numbers are the float64 ones, cut off.
"""

import numpy as np

_MULTIPLIERS = np.uint64(0xD2511F53), np.uint64(0xCD9E8D57)
_WEYL = np.uint64(0x9E3779B9), np.uint64(0xBB67AE85)  # what a round adds: golden ratio and sqrt(3), after the point
_LOW, _32 = np.uint64(0xFFFFFFFF), np.uint64(32)


def uniform(out, seed, step):
    """out (...) = uniform numbers in [0, 1), told by ``seed`` and ``step``: numbers below 2^63, or step (1)."""
    words = _words(out.size, seed, step, 0)
    if out.dtype == np.float32:
        values = (words >> np.uint64(8)) * 2.0**-24
    else:
        values = (words << np.uint64(21) | _words(out.size, seed, step, 1) >> np.uint64(11)) * 2.0**-53
    out[...] = values.reshape(out.shape)


def normal(out, seed, step):
    """out (...) = numbers from N(0, 1), two from each two uniform ones u and v: sqrt(-2 log(1 - u)) cos, sin(2 pi v).

    None is beyond 5.8 in float32, or 8.6 in float64, for 1 - u is 2^-24 or 2^-53 at least.
    """
    pairs = np.empty(((out.size + 1) // 2, 2), out.dtype)
    uniform(pairs, seed, step)
    radius, angle = np.sqrt(-2 * np.log1p(-pairs[:, 0])), 2 * np.pi * pairs[:, 1]
    pairs[:, 0], pairs[:, 1] = radius * np.cos(angle), radius * np.sin(angle)
    out[...] = pairs.ravel()[: out.size].reshape(out.shape)


def _words(count, seed, step, half):
    """The words of so many elements, as uint64."""
    seed, step = np.asarray(seed, np.uint64), np.asarray(step, np.uint64).reshape(())
    blocks = np.arange((count + 3) // 4, dtype=np.uint64)
    counter = blocks, np.full_like(blocks, half), np.full_like(blocks, step & _LOW), np.full_like(blocks, step >> _32)
    return np.stack(_philox(counter, (seed & _LOW, seed >> _32)), axis=-1).ravel()[:count]


def _philox(counter, key):
    """Four words from the four of the counter and the two of the key, all uint64: ten rounds of two products."""
    (c0, c1, c2, c3), (k0, k1) = counter, key
    for _ in range(10):
        p0, p1 = _MULTIPLIERS[0] * c0, _MULTIPLIERS[1] * c2
        c0, c1, c2, c3 = p1 >> _32 ^ c1 ^ k0, p1 & _LOW, p0 >> _32 ^ c3 ^ k1, p0 & _LOW
        k0, k1 = k0 + _WEYL[0] & _LOW, k1 + _WEYL[1] & _LOW
    return c0, c1, c2, c3
