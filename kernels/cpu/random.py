"""Counter-based random numbers, as ``kernels/reference/random.py`` defines them: four numbers per counter."""

import math

import numpy as np
from numba import njit, prange

from kernels.cpu import vector_math as vm
from kernels.cpu.vector_math import JIT, cast

COUNTERS = 256  # per chunk; their words fit in an L1 cache
CHUNK, PAIRS = 4 * COUNTERS, 2 * COUNTERS  # numbers, and pairs of them
ZERO, LOW, BITS = np.uint64(0), np.uint64(0xFFFFFFFF), np.uint64(32)
MULTIPLIER_0, MULTIPLIER_1 = np.uint64(0xD2511F53), np.uint64(0xCD9E8D57)
WEYL_0, WEYL_1 = np.uint64(0x9E3779B9), np.uint64(0xBB67AE85)


def uniform(out, key):
    """out (...) = uniform numbers in [0, 1); the key is an integer below 2^63, or an array (1) holding it."""
    fill = _fill32 if out.dtype == np.float32 else _fill64
    fill(out.reshape(-1), np.uint64(np.reshape(key, ())))


def normal(out, key):
    """out (...) = samples of N(0, 1), by the Box-Muller transform of pairs of uniform numbers."""
    draw = _normal32 if out.dtype == np.float32 else _normal64
    draw(out.reshape(-1), np.uint64(np.reshape(key, ())))


def binary_units(states, probabilities, x, b, key):
    """probabilities (r,o) = sigmoid(x + b), with x (r,o), b (o); states (r,o) = ``uniform`` < probabilities, 1 or 0."""
    draw = _units32 if states.dtype == np.float32 else _units64
    draw(states.reshape(-1), probabilities.reshape(-1), x.reshape(-1), b, np.uint64(np.reshape(key, ())))


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


@njit(**JIT)
def _numbers32(numbers, chunk, key):
    """numbers (COUNTERS, 4) = the uniform numbers of a chunk."""
    words = np.empty((4, COUNTERS), np.uint64)
    _count(words, COUNTERS * chunk, 0)
    _philox(words, key)
    for i in range(COUNTERS):
        for w in range(4):  # via int32: a vector instruction converts it to float
            numbers[i, w] = np.float32(np.int32(words[w, i] >> np.uint64(8))) * np.float32(2.0**-24)


@njit(**JIT)
def _numbers64(numbers, chunk, key):
    upper, lower = np.empty((4, COUNTERS), np.uint64), np.empty((4, COUNTERS), np.uint64)
    _count(upper, COUNTERS * chunk, 0)
    _count(lower, COUNTERS * chunk, 1)
    _philox(upper, key)
    _philox(lower, key)
    for i in range(COUNTERS):
        for w in range(4):
            numbers[i, w] = np.float64(upper[w, i] << np.uint64(21) | lower[w, i] >> np.uint64(11)) * 2.0**-53


# Numba inlines these three, with the numbers of either type.


@njit(inline="always", **JIT)
def _fill(out, chunk, key, uniform_numbers):
    here = out[CHUNK * chunk : CHUNK * (chunk + 1)]
    if here.size == CHUNK:
        uniform_numbers(here.reshape(COUNTERS, 4), chunk, key)
    else:  # fewer are needed than a chunk has
        numbers = np.empty((COUNTERS, 4), out.dtype)
        uniform_numbers(numbers, chunk, key)
        here[:] = numbers.reshape(CHUNK)[: here.size]


@njit(inline="always", **JIT)
def _normals(out, chunk, key, uniform_numbers):
    numbers = np.empty((COUNTERS, 4), out.dtype)
    uniform_numbers(numbers, chunk, key)
    pairs, u, v = numbers.reshape(PAIRS, 2), np.empty(PAIRS, out.dtype), np.empty(PAIRS, out.dtype)
    for i in range(PAIRS):
        u[i], v[i] = pairs[i, 0], pairs[i, 1]
    for i in range(PAIRS):  # with u and v in arrays of their own, this loop vectorises
        radius = math.sqrt(cast(-2.0, u[i]) * vm.log(cast(1.0, u[i]) - u[i]))  # 1 - u is exact
        sine, cosine = vm.sin_cos_of_turns(v[i])
        u[i], v[i] = radius * cosine, radius * sine
    for i in range(PAIRS):
        pairs[i, 0], pairs[i, 1] = u[i], v[i]
    here = out[CHUNK * chunk : CHUNK * (chunk + 1)]
    here[:] = numbers.reshape(CHUNK)[: here.size]


@njit(inline="always", **JIT)
def _units(states, probabilities, x, b, chunk, key, uniform_numbers):
    numbers = np.empty((COUNTERS, 4), states.dtype)
    uniform_numbers(numbers, chunk, key)
    numbers_of, first, last = numbers.reshape(CHUNK), CHUNK * chunk, min(CHUNK * (chunk + 1), states.size)
    start = first
    while start < last:  # a row's share of the chunk
        column = start % b.size
        end = min(last, start + b.size - column)
        bias, number = b[column:], numbers_of[start - first :]
        p, s, inputs = probabilities[start:end], states[start:end], x[start:end]
        for i in range(p.size):
            p[i] = vm.sigmoid(inputs[i] + bias[i])
            s[i] = cast(1.0, p[i]) if number[i] < p[i] else cast(0.0, p[i])
        start = end


@njit(parallel=True, **JIT)
def _fill32(out, key):
    for chunk in prange((out.size + CHUNK - 1) // CHUNK):
        _fill(out, chunk, key, _numbers32)


@njit(parallel=True, **JIT)
def _fill64(out, key):
    for chunk in prange((out.size + CHUNK - 1) // CHUNK):
        _fill(out, chunk, key, _numbers64)


@njit(parallel=True, **JIT)
def _normal32(out, key):
    for chunk in prange((out.size + CHUNK - 1) // CHUNK):
        _normals(out, chunk, key, _numbers32)


@njit(parallel=True, **JIT)
def _normal64(out, key):
    for chunk in prange((out.size + CHUNK - 1) // CHUNK):
        _normals(out, chunk, key, _numbers64)


@njit(parallel=True, **JIT)
def _units32(states, probabilities, x, b, key):
    for chunk in prange((states.size + CHUNK - 1) // CHUNK):
        _units(states, probabilities, x, b, chunk, key, _numbers32)


@njit(parallel=True, **JIT)
def _units64(states, probabilities, x, b, key):
    for chunk in prange((states.size + CHUNK - 1) // CHUNK):
        _units(states, probabilities, x, b, chunk, key, _numbers64)
