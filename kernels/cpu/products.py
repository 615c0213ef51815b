"""How to make a matrix product fast: a ladder of six versions, each with one idea more than the one before.

They are meant to be read in order, and timed by ``python -m tests.benchmarks.products``. Training uses the last one:
it is as fast as a BLAS, and faster on a batch of digits, because it skips zeros. Apart from that, all do the same
m·n·k multiply-adds; what changes is the traffic between memory and registers, counted below in accesses (loads and
stores) per sixteen multiply-adds:

    product_naive         2·16 = 32   scalars, half of them from cache lines used for nothing else
    product_reordered     3·16 = 48   but whole vectors
    product_blocked       3·16 = 48   from a nearer cache
    product_unrolled_k    4·6  = 24
    product_unrolled             12
    product_tiled                10⅔  and none of them a store

BLAS is built like the last rung. What it adds is an inner loop in assembly, scheduled by hand for each processor.

Each rung takes ``out`` (m, n), ``a`` (m, k) and ``b`` (k, n) of one dtype, float32 or float64, and of any
size, 0 included; p indexes the k terms. ``out`` is overwritten and must share no memory with the inputs. Any strides
give the right result, C-contiguous arrays give it fast. NaN and infinity propagate as in ``np.matmul``, through a
factor of zero too, because no rung skips a term unless asked to. Shapes that do not match raise ``ValueError``.
"""

import numpy as np
from numba import njit, prange

from kernels.cpu.simd import lanes, load, multiply_add, some_nonzero, store, transpose, zeros
from kernels.cpu.vector_math import JIT

BLOCK = 64  # terms at a time, a multiple of 4: 64 rows of 1,024 float32 are 256 KiB, which fit in an L2 cache

NEAR = 1 << 15  # bytes of packed b at a time; where k is below 250 or so, they stay in the nearest cache


@njit(**JIT)
def _sizes(out: np.ndarray, a: np.ndarray, b: np.ndarray) -> tuple[int, int, int]:
    """Return (m, k, n). ValueError if shapes or dtypes do not match: the loops check no index."""
    m, k = a.shape
    n = b.shape[1]
    if b.shape[0] != k or out.shape[0] != m or out.shape[1] != n:
        raise ValueError("a product needs out (m, n), a (m, k) and b (k, n)")
    if a.itemsize != out.itemsize or b.itemsize != out.itemsize:
        raise ValueError("a product needs arrays of one float type")
    return m, k, n


@njit(**JIT)
def _accumulate(out: np.ndarray, a: np.ndarray, b: np.ndarray) -> None:
    """out (m, n) += a (m, k) @ b (k, n), with the loop over j innermost."""
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

    The inner loop walks down a column of ``b``. Every step reads another cache line and uses one number of it, and
    the terms are too far apart to be loaded as one vector.
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

    Compared with `product_naive`: the two inner loops are swapped, so that a scaled row of ``b`` is added to a row of
    ``out``. Both are contiguous: cache lines are used whole, and one instruction does a vector of multiply-adds (8 in
    float32 with AVX2). The price is that ``out`` is loaded and stored for every term.
    """
    _sizes(out, a, b)
    out[:] = 0
    _accumulate(out, a, b)


@njit(**JIT)
def product_blocked(out: np.ndarray, a: np.ndarray, b: np.ndarray) -> None:
    """out (m, n) = a (m, k) @ b (k, n), ``BLOCK`` terms at a time.

    Compared with `product_reordered`, which reads all of ``b`` again for every row of ``out``: a block of ``b`` now
    stays in the L2 cache while it is used for all rows. This pays where ``b`` does not fit there (1,024 by 1,024 in
    float32 is 4 MiB), and gains little for a smaller ``b``.
    """
    _, k, _ = _sizes(out, a, b)
    out[:] = 0
    for start in range(0, k, BLOCK):
        _accumulate(out, a[:, start : start + BLOCK], b[start : start + BLOCK])


@njit(**JIT)
def product_unrolled_k(out: np.ndarray, a: np.ndarray, b: np.ndarray) -> None:
    """out (m, n) = a (m, k) @ b (k, n), four terms per pass over a row.

    Compared with `product_blocked`: ``out`` is loaded and stored once for four terms. Six accesses (four of ``b``,
    two of ``out``) replace twelve.
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
    """out (m, n) = a (m, k) @ b (k, n), four terms of four rows per pass.

    Compared with `product_unrolled_k`: each vector of ``b``, once loaded, is used for four rows of ``out``. Twelve
    accesses (four of ``b``, eight of ``out``) replace twenty-four.
    """
    m, k, n = _sizes(out, a, b)
    m4, k4 = m - m % 4, k - k % 4
    out[:] = 0
    for start in range(0, k4, BLOCK):
        for i in range(0, m4, 4):
            out0, out1, out2, out3 = out[i], out[i + 1], out[i + 2], out[i + 3]
            for p in range(start, min(start + BLOCK, k4), 4):
                # Loaded before the loop over j: inside it, the compiler must assume that a store to out changes a.
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


@njit(**JIT)
def _pack_rows(sixes, a, i):
    """Pack six rows of ``a``, from row i on, into the micro-panel ``sixes``, the six numbers of a term side by side.

    Past the last row of ``a``, that row is repeated.
    """
    (m, k), width, start = a.shape, lanes(sixes), 0
    # A vector may hold more than six numbers: the next one overwrites the excess.
    by_vectors = 6 <= width <= m - i and a.strides[0] % a.itemsize == 0
    if by_vectors and a.strides[1] == a.itemsize:  # rows of a are contiguous
        start = k - k % width
        for p in range(0, start, width):
            transpose(sixes, 6 * p, 6, a[i], p, a.strides[0] // a.itemsize)
    elif by_vectors and a.strides[0] == a.itemsize:  # columns are
        start = k
        for p in range(k):
            store(sixes, 6 * p, load(a[:, p], i))
    for r in range(6):
        row = a[min(i + r, m - 1)]
        for p in range(start, k):
            sixes[6 * p + r] = row[p]


@njit(**JIT)
def _has_zeros(a):
    """Whether to skip zeros in ``a``: an eighth or more of the terms are zero in its first, middle, last six rows."""
    m, k = a.shape
    count = 0
    for i in (0, max(0, m // 2 - 3), max(0, m - 6)):
        rows = a[i : i + 6]
        for p in range(k):
            r = 0
            while r < rows.shape[0] and rows[r, p] == 0:
                r += 1
            count += r == rows.shape[0]
    return 8 * count >= 3 * k


@njit(**JIT)
def _leave_out_zeros(values, terms, sixes):
    """Copy the terms of ``sixes`` that are not all zero to ``values``, their indices to ``terms``; return how many."""
    count = 0
    for p in range(terms.size):
        terms[count] = p  # written in any case; if this term is skipped, the next one overwrites it
        for start in range(0, 6, lanes(values)):
            store(values, 6 * count + start, load(sixes, 6 * p + start))
        count += 1 if some_nonzero(sixes, 6 * p, 6) else 0
    return count


@njit(**JIT)
def pack_columns(packed, b, j):
    """Pack a micro-panel of ``b``, two vectors wide, from column j on, into ``packed``; columns past the last are 0."""
    k, width, start = b.shape[0], lanes(packed), 0
    columns = min(2 * width, b.shape[1] - j)
    if columns == 2 * width and b.strides[1] == b.itemsize:  # rows of b are contiguous
        for p in range(k):
            row = b[p]
            store(packed, 2 * width * p, load(row, j))
            store(packed, 2 * width * p + width, load(row, j + width))
        start = k
    elif columns == 2 * width and b.strides[0] == b.itemsize and b.strides[1] % b.itemsize == 0:  # columns are
        left, right, stride = b[:, j], b[:, j + width], b.strides[1] // b.itemsize
        start = k - k % width
        for p in range(0, start, width):
            transpose(packed, 2 * width * p, 2 * width, left, p, stride)
            transpose(packed, 2 * width * p + width, 2 * width, right, p, stride)
    packed[2 * width * start :] = 0
    for p in range(start, k):
        for c in range(columns):
            packed[2 * width * p + c] = b[p, j + c]


@njit(**JIT)
def multiply_tile(tile, values, terms, count, packed):
    """The micro-kernel: tile (six rows of two vectors) = the sum of ``count`` terms, in registers until it is done."""
    width = lanes(tile)
    c00, c01, c10, c11, c20, c21 = zeros(tile), zeros(tile), zeros(tile), zeros(tile), zeros(tile), zeros(tile)
    c30, c31, c40, c41, c50, c51 = zeros(tile), zeros(tile), zeros(tile), zeros(tile), zeros(tile), zeros(tile)
    for q in range(count):
        at = 2 * width * np.int64(terms[q])
        b0, b1 = load(packed, at), load(packed, at + width)
        v = 6 * q
        c00, c01 = multiply_add(c00, values, v, b0), multiply_add(c01, values, v, b1)
        c10, c11 = multiply_add(c10, values, v + 1, b0), multiply_add(c11, values, v + 1, b1)
        c20, c21 = multiply_add(c20, values, v + 2, b0), multiply_add(c21, values, v + 2, b1)
        c30, c31 = multiply_add(c30, values, v + 3, b0), multiply_add(c31, values, v + 3, b1)
        c40, c41 = multiply_add(c40, values, v + 4, b0), multiply_add(c41, values, v + 4, b1)
        c50, c51 = multiply_add(c50, values, v + 5, b0), multiply_add(c51, values, v + 5, b1)
    store(tile, 0, c00), store(tile, width, c01), store(tile, 2 * width, c10), store(tile, 3 * width, c11)
    store(tile, 4 * width, c20), store(tile, 5 * width, c21), store(tile, 6 * width, c30), store(tile, 7 * width, c31)
    store(tile, 8 * width, c40), store(tile, 9 * width, c41), store(tile, 10 * width, c50)
    store(tile, 11 * width, c51)


@njit(**JIT)
def _unpack_tile(out, tile, i, j):
    """Copy a tile into ``out``, from row i and column j on."""
    (m, n), width = out.shape, 2 * lanes(tile)
    for r in range(min(6, m - i)):
        row = out[i + r]
        if j + width <= n and out.strides[1] == out.itemsize:
            store(row, j, load(tile, width * r))
            store(row, j + width // 2, load(tile, width * r + width // 2))
        else:
            for c in range(min(width, n - j)):
                row[j + c] = tile[width * r + c]


@njit(parallel=True, **JIT)
def product_tiled(out, a, b, skip_zeros=False):
    """out (m, n) = a (m, k) @ b (k, n), a tile of six rows and two vectors at a time; threads share the columns.

    Compared with `product_unrolled`: a tile of ``out`` stays in twelve registers while all its terms are added, so that
    a term costs loads of two vectors of ``b`` and six numbers of ``a``, and no store. Both are first packed into the
    order in which they are read, which avoids partly used cache lines and conflict misses.

    With ``skip_zeros`` a tile skips the terms in which its six rows of ``a`` are all zero (more than half of them on a
    batch of digits), if a sample of three tiles says that it pays. NaN and infinity in ``b`` do not propagate through
    skipped terms.
    """
    m, k, n = _sizes(out, a, b)
    width = 2 * lanes(out)
    tiles, panels = (m + 5) // 6, (n + width - 1) // width
    values, terms = np.empty((tiles, 6 * k + 2 * lanes(out)), a.dtype), np.empty((tiles, k), np.int32)
    counts, sparse = np.full(tiles, k), skip_zeros and _has_zeros(a)
    for t in prange(tiles):
        if sparse:
            sixes = np.empty_like(values[t])
            _pack_rows(sixes, a, 6 * t)
            counts[t] = _leave_out_zeros(values[t], terms[t], sixes)
        else:
            _pack_rows(values[t], a, 6 * t)
            for p in range(k):  # assigning an array would take seconds longer to compile
                terms[t, p] = p
    block = max(1, min(NEAR // max(1, width * k * b.itemsize), panels // 8))  # enough blocks for eight threads
    for first in prange((panels + block - 1) // block):
        packed, tile = np.empty((block, width * k), b.dtype), np.empty(6 * width, b.dtype)
        start, end = block * first, min(block * (first + 1), panels)
        for panel in range(start, end):
            pack_columns(packed[panel - start], b, width * panel)
        for t in range(tiles):
            for panel in range(start, end):
                multiply_tile(tile, values[t], terms[t], counts[t], packed[panel - start])
                _unpack_tile(out, tile, 6 * t, width * panel)


LADDER = (product_naive, product_reordered, product_blocked, product_unrolled_k, product_unrolled, product_tiled)
