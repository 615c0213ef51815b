"""Random numbers by counting: the stream that ``kernels/reference/random.py`` defines, four numbers a thread."""

import math

import numpy as np

from kernels.cuda.device import cuda, launch
from kernels.cuda.memory import to_device

THREADS = 256
LOW, BITS = np.uint64(0xFFFFFFFF), np.uint64(32)
MULTIPLIER_0, MULTIPLIER_1 = np.uint64(0xD2511F53), np.uint64(0xCD9E8D57)
WEYL_0, WEYL_1 = np.uint64(0x9E3779B9), np.uint64(0xBB67AE85)


def uniform(out, seed, step):
    """out (...) = uniform numbers in [0, 1), told by ``seed`` and ``step``: numbers below 2^63, or step (1)."""
    _draw(_uniform32 if out.dtype == np.float32 else _uniform64, out, seed, step)


def normal(out, seed, step):
    """out (...) = numbers from N(0, 1), two from every two uniform ones, by Box and Muller."""
    _draw(_normal32 if out.dtype == np.float32 else _normal64, out, seed, step)


def _draw(kernel, out, seed, step):
    if isinstance(step, int):  # from the host; an array is on the device, where a captured step can count it
        step = to_device(np.array([step]))
    if out.size:
        launch(kernel, -(-out.size // (4 * THREADS)), THREADS, out.reshape(out.size), np.uint64(seed), step)


@cuda.jit(device=True)
def _philox(c0, c1, c2, c3, k0, k1):
    """Four words from four of the counter and two of the key, all uint32, so that a product is one instruction."""
    for _ in range(10):
        p0, p1 = MULTIPLIER_0 * np.uint64(c0), MULTIPLIER_1 * np.uint64(c2)
        c0, c1 = np.uint32((p1 >> BITS) ^ c1 ^ k0), np.uint32(p1 & LOW)
        c2, c3 = np.uint32((p0 >> BITS) ^ c3 ^ k1), np.uint32(p0 & LOW)
        k0, k1 = np.uint32((k0 + WEYL_0) & LOW), np.uint32((k1 + WEYL_1) & LOW)
    return c0, c1, c2, c3


@cuda.jit(device=True)
def _words(block, half, seed, step):
    """The words of four elements."""
    step0, step1 = np.uint32(np.uint64(step[0]) & LOW), np.uint32(np.uint64(step[0]) >> BITS)
    return _philox(np.uint32(block), np.uint32(half), step0, step1, np.uint32(seed & LOW), np.uint32(seed >> BITS))


@cuda.jit(device=True)
def _uniforms32(block, seed, step):
    words, scale = _words(block, 0, seed, step), np.float32(2.0**-24)
    return (
        np.float32(words[0] >> np.uint32(8)) * scale,
        np.float32(words[1] >> np.uint32(8)) * scale,
        np.float32(words[2] >> np.uint32(8)) * scale,
        np.float32(words[3] >> np.uint32(8)) * scale,
    )


@cuda.jit(device=True)
def _join(upper, lower):
    """53 bits as a number."""
    return np.float64(np.uint64(upper) << np.uint64(21) | np.uint64(lower) >> np.uint64(11))


@cuda.jit(device=True)
def _uniforms64(block, seed, step):
    upper, lower, scale = _words(block, 0, seed, step), _words(block, 1, seed, step), np.float64(2.0**-53)
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
def _uniform32(out, seed, step):
    block = cuda.grid(1)
    n0, n1, n2, n3 = _uniforms32(block, seed, step)
    _write(out, block, n0, n1, n2, n3)


@cuda.jit
def _uniform64(out, seed, step):
    block = cuda.grid(1)
    n0, n1, n2, n3 = _uniforms64(block, seed, step)
    _write(out, block, n0, n1, n2, n3)


@cuda.jit
def _normal32(out, seed, step):
    block = cuda.grid(1)
    u0, u1, u2, u3 = _uniforms32(block, seed, step)
    (n0, n1), (n2, n3) = _box_muller(u0, u1), _box_muller(u2, u3)
    _write(out, block, n0, n1, n2, n3)


@cuda.jit
def _normal64(out, seed, step):
    block = cuda.grid(1)
    u0, u1, u2, u3 = _uniforms64(block, seed, step)
    (n0, n1), (n2, n3) = _box_muller(u0, u1), _box_muller(u2, u3)
    _write(out, block, n0, n1, n2, n3)
