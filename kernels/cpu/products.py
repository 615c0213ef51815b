"""How a matrix product gets fast: a ladder of five, each one idea above the last.

Training does not run these: it takes its products from NumPy's BLAS. They are here to be read in order, and
to be timed by ``python -m tests.benchmarks.products``. All do the same m·n·k multiply-adds; what changes is
the traffic between memory and registers, counted below in accesses (loads and stores) for sixteen
multiply-adds:

    product_naive         2·16 = 32   one number each, half of them in cache lines used for nothing else
    product_reordered     3·16 = 48   but a whole vector each
    product_blocked       3·16 = 48   from a nearer cache
    product_unrolled_k    4·6  = 24
    product_unrolled             12

BLAS stands above the last rung because it holds a tile of ``out`` in registers over many terms and copies
both operands into the order in which it reads them. A loop whose vectors run along j, left to the compiler,
does neither.

Each rung takes ``out`` (m, n), ``a`` (m, k) and ``b`` (k, n) of one dtype, float32 or float64, and of any
size, 0 included; p counts the k terms. ``out`` is overwritten and must share no memory with the inputs. Any
strides give the right result, C-contiguous arrays give it fast. NaN and infinity spread as they do in
``np.matmul``, through a factor of zero too, because no rung skips a term. Shapes that do not fit raise
``ValueError``.
"""

import numpy as np
from numba import njit

from kernels.cpu.vector_math import JIT

BLOCK = 64  # terms at a time, a multiple of 4: 64 rows of 1,024 float32 are 256 KiB, which an L2 cache holds


@njit(**JIT)
def _sizes(out: np.ndarray, a: np.ndarray, b: np.ndarray) -> tuple[int, int, int]:
    """Return (m, k, n). ValueError if the shapes do not fit: nothing further down would notice."""
    m, k = a.shape
    n = b.shape[1]
    if b.shape[0] != k or out.shape[0] != m or out.shape[1] != n:
        raise ValueError("a product needs out (m, n), a (m, k) and b (k, n)")
    return m, k, n


@njit(**JIT)
def _accumulate(out: np.ndarray, a: np.ndarray, b: np.ndarray) -> None:
    """out (m, n) += a (m, k) @ b (k, n), with j innermost."""
    for i in range(a.shape[0]):
        out_row = out[i]
        for p in range(a.shape[1]):
            scale = a[i, p]
            b_row = b[p]
            for j in range(b.shape[1]):
                out_row[j] += scale * b_row[j]


@njit(**JIT)
def product_naive(out: np.ndarray, a: np.ndarray, b: np.ndarray) -> None:
    """out (m, n) = a (m, k) @ b (k, n), one dot product after another, as on paper.

    The inner loop walks down a column of ``b``. Every step lands in another cache line and uses one number of
    it, and the terms lie too far apart to be loaded as one vector.
    """
    m, k, n = _sizes(out, a, b)
    for i in range(m):
        for j in range(n):
            total = out.dtype.type(0)  # a bare 0.0 would turn a float32 sum into a float64 one
            for p in range(k):
                total += a[i, p] * b[p, j]
            out[i, j] = total


@njit(**JIT)
def product_reordered(out: np.ndarray, a: np.ndarray, b: np.ndarray) -> None:
    """out (m, n) = a (m, k) @ b (k, n), with the loop over j innermost.

    Against `product_naive`: the two inner loops have changed places, so a row of ``b``, scaled, is added to a
    row of ``out``. Both are contiguous. Cache lines are used whole, and one instruction does a vector of
    multiply-adds (8 in float32 with AVX2). The price is that ``out`` is loaded and stored for every term.
    """
    _sizes(out, a, b)
    out[:] = 0
    _accumulate(out, a, b)


@njit(**JIT)
def product_blocked(out: np.ndarray, a: np.ndarray, b: np.ndarray) -> None:
    """out (m, n) = a (m, k) @ b (k, n), ``BLOCK`` terms at a time.

    Against `product_reordered`, which reads all of ``b`` anew for every row of ``out``: a block of ``b`` now
    stays in the L2 cache while all the rows pass. It pays where ``b`` does not fit there whole (1,024 by
    1,024 in float32 is 4 MiB), and does little below.
    """
    _, k, _ = _sizes(out, a, b)
    out[:] = 0
    for start in range(0, k, BLOCK):
        _accumulate(out, a[:, start : start + BLOCK], b[start : start + BLOCK])


@njit(**JIT)
def product_unrolled_k(out: np.ndarray, a: np.ndarray, b: np.ndarray) -> None:
    """out (m, n) = a (m, k) @ b (k, n), four terms in one pass along the row.

    Against `product_blocked`: ``out`` is loaded and stored once for four terms. Six accesses (four of ``b``,
    two of ``out``) do the work of twelve.
    """
    m, k, n = _sizes(out, a, b)
    k4 = k - k % 4
    out[:] = 0
    for start in range(0, k4, BLOCK):
        for i in range(m):
            out_row = out[i]
            for p in range(start, min(start + BLOCK, k4), 4):
                a0, a1, a2, a3 = a[i, p], a[i, p + 1], a[i, p + 2], a[i, p + 3]
                b0, b1, b2, b3 = b[p], b[p + 1], b[p + 2], b[p + 3]
                for j in range(n):
                    out_row[j] += a0 * b0[j] + a1 * b1[j] + a2 * b2[j] + a3 * b3[j]
    _accumulate(out, a[:, k4:], b[k4:])


@njit(**JIT)
def product_unrolled(out: np.ndarray, a: np.ndarray, b: np.ndarray) -> None:
    """out (m, n) = a (m, k) @ b (k, n), four terms of four rows in one pass.

    Against `product_unrolled_k`: each vector of ``b``, once loaded, serves four rows of ``out``. Twelve
    accesses (four of ``b``, eight of ``out``) do the work of twenty-four.
    """
    m, k, n = _sizes(out, a, b)
    m4, k4 = m - m % 4, k - k % 4
    out[:] = 0
    for start in range(0, k4, BLOCK):
        for i in range(0, m4, 4):
            out0, out1, out2, out3 = out[i], out[i + 1], out[i + 2], out[i + 3]
            for p in range(start, min(start + BLOCK, k4), 4):
                # Read before the loop over j: inside it, for all the compiler knows, a store to out may alter a.
                a00, a01, a02, a03 = a[i, p], a[i, p + 1], a[i, p + 2], a[i, p + 3]
                a10, a11, a12, a13 = a[i + 1, p], a[i + 1, p + 1], a[i + 1, p + 2], a[i + 1, p + 3]
                a20, a21, a22, a23 = a[i + 2, p], a[i + 2, p + 1], a[i + 2, p + 2], a[i + 2, p + 3]
                a30, a31, a32, a33 = a[i + 3, p], a[i + 3, p + 1], a[i + 3, p + 2], a[i + 3, p + 3]
                b0, b1, b2, b3 = b[p], b[p + 1], b[p + 2], b[p + 3]
                for j in range(n):
                    x0, x1, x2, x3 = b0[j], b1[j], b2[j], b3[j]
                    out0[j] += a00 * x0 + a01 * x1 + a02 * x2 + a03 * x3
                    out1[j] += a10 * x0 + a11 * x1 + a12 * x2 + a13 * x3
                    out2[j] += a20 * x0 + a21 * x1 + a22 * x2 + a23 * x3
                    out3[j] += a30 * x0 + a31 * x1 + a32 * x2 + a33 * x3
    _accumulate(out[m4:], a[m4:, :k4], b[:k4])  # the last m % 4 rows
    _accumulate(out, a[:, k4:], b[k4:])  # the last k % 4 terms of all rows


LADDER = (product_naive, product_reordered, product_blocked, product_unrolled_k, product_unrolled)
