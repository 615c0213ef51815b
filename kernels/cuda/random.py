"""Counter-based random numbers, as ``kernels/reference/random.py`` defines them: four numbers per thread."""

import math

import numpy as np

from kernels.cuda.device import cuda, launch
from kernels.cuda.functions import sigmoid
from kernels.cuda.memory import to_device

THREADS = 256
LOW, BITS = np.uint64(0xFFFFFFFF), np.uint64(32)
MULTIPLIER_0, MULTIPLIER_1 = np.uint64(0xD2511F53), np.uint64(0xCD9E8D57)
WEYL_0, WEYL_1 = np.uint64(0x9E3779B9), np.uint64(0xBB67AE85)


def uniform(out, key):
    """out (...) = uniform numbers in [0, 1); the key is an integer below 2^63, or an array (1) holding it."""
    _draw(_uniform32 if out.dtype == np.float32 else _uniform64, out, key)


def normal(out, key):
    """out (...) = samples of N(0, 1), by the Box-Muller transform of pairs of uniform numbers."""
    _draw(_normal32 if out.dtype == np.float32 else _normal64, out, key)


def binary_units(states, probabilities, x, b, key):
    """probabilities (r,o) = sigmoid(x + b), with x (r,o), b (o); states (r,o) = ``uniform`` < probabilities, 1 or 0."""
    flat = [array.reshape(array.size) for array in (probabilities, x)]
    _draw(_units32 if states.dtype == np.float32 else _units64, states, *flat, b, key)


def _draw(kernel, out, *others):
    *inputs, key = others
    if isinstance(key, int):  # an array is on the device, where the host writes the key before each replay
        key = to_device(np.array([key]))
    if out.size:
        launch(kernel, -(-out.size // (4 * THREADS)), THREADS, out.reshape(out.size), *inputs, key)


@cuda.jit(device=True)
def _philox(c0, c1, c2, c3, k0, k1):
    """Four random words from four counter words and two key words, all uint32: a product is then one instruction."""
    for _ in range(10):
        p0, p1 = MULTIPLIER_0 * np.uint64(c0), MULTIPLIER_1 * np.uint64(c2)
        c0, c1 = np.uint32((p1 >> BITS) ^ c1 ^ k0), np.uint32(p1 & LOW)
        c2, c3 = np.uint32((p0 >> BITS) ^ c3 ^ k1), np.uint32(p0 & LOW)
        k0, k1 = np.uint32((k0 + WEYL_0) & LOW), np.uint32((k1 + WEYL_1) & LOW)
    return c0, c1, c2, c3


@cuda.jit(device=True)
def _words(block, half, key):
    """The random words of four elements."""
    key0, key1 = np.uint32(np.uint64(key[0]) & LOW), np.uint32(np.uint64(key[0]) >> BITS)
    return _philox(np.uint32(block), np.uint32(half), np.uint32(0), np.uint32(0), key0, key1)


@cuda.jit(device=True)
def _uniforms32(block, key):
    words, scale = _words(block, 0, key), np.float32(2.0**-24)
    return (
        np.float32(words[0] >> np.uint32(8)) * scale,
        np.float32(words[1] >> np.uint32(8)) * scale,
        np.float32(words[2] >> np.uint32(8)) * scale,
        np.float32(words[3] >> np.uint32(8)) * scale,
    )


@cuda.jit(device=True)
def _join(upper, lower):
    """The 53 bits of two words, as a float64."""
    return np.float64(np.uint64(upper) << np.uint64(21) | np.uint64(lower) >> np.uint64(11))


@cuda.jit(device=True)
def _uniforms64(block, key):
    upper, lower, scale = _words(block, 0, key), _words(block, 1, key), np.float64(2.0**-53)
    return (
        _join(upper[0], lower[0]) * scale,
        _join(upper[1], lower[1]) * scale,
        _join(upper[2], lower[2]) * scale,
        _join(upper[3], lower[3]) * scale,
    )


@cuda.jit(device=True)
def _box_muller(u, v):
    radius = math.sqrt(type(u)(-2.0) * math.log1p(-u))
    angle = type(u)(2 * math.pi) * v
    return radius * math.cos(angle), radius * math.sin(angle)


@cuda.jit(device=True)
def _write(out, block, n0, n1, n2, n3):
    first = 4 * block
    if first < out.size:
        out[first] = n0
    if first + 1 < out.size:
        out[first + 1] = n1
    if first + 2 < out.size:
        out[first + 2] = n2
    if first + 3 < out.size:
        out[first + 3] = n3


@cuda.jit
def _uniform32(out, key):
    block = cuda.grid(1)
    n0, n1, n2, n3 = _uniforms32(block, key)
    _write(out, block, n0, n1, n2, n3)


@cuda.jit
def _uniform64(out, key):
    block = cuda.grid(1)
    n0, n1, n2, n3 = _uniforms64(block, key)
    _write(out, block, n0, n1, n2, n3)


@cuda.jit
def _normal32(out, key):
    block = cuda.grid(1)
    u0, u1, u2, u3 = _uniforms32(block, key)
    (n0, n1), (n2, n3) = _box_muller(u0, u1), _box_muller(u2, u3)
    _write(out, block, n0, n1, n2, n3)


@cuda.jit
def _normal64(out, key):
    block = cuda.grid(1)
    u0, u1, u2, u3 = _uniforms64(block, key)
    (n0, n1), (n2, n3) = _box_muller(u0, u1), _box_muller(u2, u3)
    _write(out, block, n0, n1, n2, n3)


@cuda.jit(device=True)
def _unit(states, probabilities, x, b, e, number):
    if e < states.size:
        p = sigmoid(x[e] + b[e % b.size])
        probabilities[e] = p
        states[e] = number < p


@cuda.jit
def _units32(states, probabilities, x, b, key):
    block = cuda.grid(1)
    n0, n1, n2, n3 = _uniforms32(block, key)
    _unit(states, probabilities, x, b, 4 * block, n0)
    _unit(states, probabilities, x, b, 4 * block + 1, n1)
    _unit(states, probabilities, x, b, 4 * block + 2, n2)
    _unit(states, probabilities, x, b, 4 * block + 3, n3)


@cuda.jit
def _units64(states, probabilities, x, b, key):
    block = cuda.grid(1)
    n0, n1, n2, n3 = _uniforms64(block, key)
    _unit(states, probabilities, x, b, 4 * block, n0)
    _unit(states, probabilities, x, b, 4 * block + 1, n1)
    _unit(states, probabilities, x, b, 4 * block + 2, n2)
    _unit(states, probabilities, x, b, 4 * block + 3, n3)
