"""How a matrix product gets fast: a ladder of six, each one idea above the last.

They are here to be read in order, and to be timed by ``python -m tests.benchmarks.products``. The last one
trains: it is as fast as a BLAS, and on a batch of digits faster, for it leaves out what is zero. But for that,
all do the same m·n·k multiply-adds; what changes is the traffic between memory and registers, counted below
in accesses (loads and stores) for sixteen multiply-adds:

    product_naive         2·16 = 32   one number each, half of them in cache lines used for nothing else
    product_reordered     3·16 = 48   but a whole vector each
    product_blocked       3·16 = 48   from a nearer cache
    product_unrolled_k    4·6  = 24
    product_unrolled             12
    product_tiled                10⅔  and none of them a store

BLAS is built like the last rung. What it has above that is a loop in assembly, scheduled by hand for each processor.

Each rung takes ``out`` (m, n), ``a`` (m, k) and ``b`` (k, n) of one dtype, float32 or float64, and of any
size, 0 included; p counts the k terms. ``out`` is overwritten and must share no memory with the inputs. Any
strides give the right result, C-contiguous arrays give it fast. NaN and infinity spread as they do in
``np.matmul``, through a factor of zero too, because no rung skips a term unless asked to. Shapes that do not fit raise
``ValueError``.
"""

import numpy as np
from numba import njit, prange

from kernels.cpu.simd import lanes, load, multiply_add, some_nonzero, store, transpose, zeros
from kernels.cpu.vector_math import JIT

BLOCK = 64  # terms at a time, a multiple of 4: 64 rows of 1,024 float32 are 256 KiB, which an L2 cache holds

NEAR = 1 << 16  # bytes of b that are in a near cache while the rows of a pass


@njit(**JIT)
def _sizes(out: np.ndarray, a: np.ndarray, b: np.ndarray) -> tuple[int, int, int]:
    """Return (m, k, n). ValueError if shapes or types do not fit: nothing further down would notice."""
    m, k = a.shape
    n = b.shape[1]
    if b.shape[0] != k or out.shape[0] != m or out.shape[1] != n:
        raise ValueError("a product needs out (m, n), a (m, k) and b (k, n)")
    if a.itemsize != out.itemsize or b.itemsize != out.itemsize:
        raise ValueError("a product needs arrays of one float type")
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


@njit(**JIT)
def _pack_rows(sixes, a, i):
    """Copy six rows of ``a``, from row i on, into ``sixes``, the six numbers of a term side by side.

    Past the last row of ``a`` that one is repeated.
    """
    (m, k), width, start = a.shape, lanes(sixes), 0
    by_vectors = (
        6 <= width <= m - i and a.strides[0] % a.itemsize == 0
    )  # each holds more than six: the next one overwrites what is too much
    if by_vectors and a.strides[1] == a.itemsize:  # rows of a lie in one piece
        start = k - k % width
        for p in range(0, start, width):
            transpose(sixes, 6 * p, 6, a[i], p, a.strides[0] // a.itemsize)
    elif by_vectors and a.strides[0] == a.itemsize:  # columns do
        start = k
        for p in range(k):
            store(sixes, 6 * p, load(a[:, p], i))
    for r in range(6):
        row = a[min(i + r, m - 1)]
        for p in range(start, k):
            sixes[6 * p + r] = row[p]


@njit(**JIT)
def _has_zeros(a):
    """Whether to look for zeros in ``a``: of the first, middle and last six rows, an eighth of the terms are zero."""
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
    """Copy ``sixes`` into ``values`` but for those that are zero; ``terms`` tells which are left. Returns how many."""
    count = 0
    for p in range(terms.size):
        terms[count] = p  # written in any case, and again by the next term if this one is left out
        for start in range(0, 6, lanes(values)):
            store(values, 6 * count + start, load(sixes, 6 * p + start))
        count += 1 if some_nonzero(sixes, 6 * p, 6) else 0
    return count


@njit(**JIT)
def _pack_columns(packed, b, j):
    """Copy two vectors' width of columns of ``b``, from column j on, into ``packed``, term by term; 0 past the last."""
    k, width, start = b.shape[0], lanes(packed), 0
    columns = min(2 * width, b.shape[1] - j)
    if columns == 2 * width and b.strides[1] == b.itemsize:  # rows of b lie in one piece
        for p in range(k):
            row = b[p]
            store(packed, 2 * width * p, load(row, j))
            store(packed, 2 * width * p + width, load(row, j + width))
        start = k
    elif columns == 2 * width and b.strides[0] == b.itemsize and b.strides[1] % b.itemsize == 0:  # columns do
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
def _multiply_tile(tile, values, terms, count, packed):
    """tile (six rows of two vectors) = the sum of ``count`` terms, all of it in registers until it is done."""
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
    """Copy a tile to where it belongs in ``out``, from row i and column j on."""
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
    """out (m, n) = a (m, k) @ b (k, n), a tile of six rows and two vectors at a time; the threads share the columns.

    Against `product_unrolled`: a tile of ``out`` stays in twelve registers while all its terms pass, so that a term
    costs two vectors of ``b`` and six numbers of ``a``, and no store. Both are first copied into the order in which
    they are read, which spares them cache lines that are used in part and addresses that share a place in the cache.

    With ``skip_zeros`` a tile leaves out the terms in which its six rows of ``a`` are all zero, on a batch of digits
    more than half of them, if three tiles say that it pays. NaN and infinity in ``b`` do not spread through these.
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
            for p in range(k):  # an array assigned would take seconds more to compile
                terms[t, p] = p
    block = max(1, min(NEAR // max(1, width * k * b.itemsize), panels // 8))  # eight threads still find work
    for first in prange((panels + block - 1) // block):
        packed, tile = np.empty((block, width * k), b.dtype), np.empty(6 * width, b.dtype)
        start, end = block * first, min(block * (first + 1), panels)
        for panel in range(start, end):
            _pack_columns(packed[panel - start], b, width * panel)
        for t in range(tiles):
            for panel in range(start, end):
                _multiply_tile(tile, values[t], terms[t], counts[t], packed[panel - start])
                _unpack_tile(out, tile, 6 * t, width * panel)


LADDER = (product_naive, product_reordered, product_blocked, product_unrolled_k, product_unrolled, product_tiled)
