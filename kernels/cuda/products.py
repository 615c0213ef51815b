"""How to make a matrix product fast on a GPU: a ladder of five versions, each with one idea more than the one before.

They are meant to be read in order, and timed by ``python -m tests.benchmarks.gpu``. Training uses the last one. All do
the same m·n·k multiply-adds, one instruction each; what changes is how many numbers are fetched for them, and from
which memory. Per 64 multiply-adds of a thread, in numbers (and in instructions, where one fetches four):

                       from global memory   from shared memory
    product_naive            128
    product_shared             8                   128
    product_registers          1                    16
    product_vectors            1 (1/4)              16 (4)
    product_ahead              the same, while the multiply-adds before them run

Global memory has a latency of hundreds of cycles. Shared memory belongs to a block of threads, with a latency of some
thirty. Registers belong to one thread and are read at once.

Each rung takes ``out`` (m, n), ``a`` (m, k) and ``b`` (k, n) of one dtype, float32 or float64, C-contiguous, on the
device and of any size, 0 included; ``out`` may be 65,535 tiles wide, the limit of a launch. p indexes the k terms.
``out`` is overwritten and must share no memory with the inputs. No rung skips a term, so NaN and infinity propagate as
in ``np.matmul``; past its edges a matrix is read as zeros. Shapes that do not match raise ``ValueError``.

Last come ``matmul``, ``matmul_tn``, ``matmul_nt`` and ``dense``, which choose the size of a tile and how many blocks
share its terms.
"""

import numpy as np

from kernels.cuda import memory
from kernels.cuda.device import SIMULATED, cuda, launch, multiprocessors
from kernels.cuda.functions import activate
from kernels.cuda.vectors import in_fours, load4, store4

# Threads per row of a block, which has as many rows, and terms in shared memory at a time. The simulator runs threads
# one after the other, so there they are few, and small matrices still have several tiles.
BLOCK, LARGE_THREADS, LARGE_DEPTH, SMALL_THREADS, SMALL_DEPTH = (4, 2, 4, 2, 4) if SIMULATED else (16, 16, 8, 8, 16)
LARGE, SMALL = 8 * LARGE_THREADS, 4 * SMALL_THREADS  # rows and columns of a tile of out, 8 by 8 or 4 by 4 per thread

PLAIN = -1  # instead of the index of an activation: a product without bias

BLOCK_TILE = BLOCK, BLOCK
# Rows of the larger tiles in shared memory are padded by 4 numbers: without it, the numbers of a column would be in the
# same few of the 32 banks, each of which serves one access at a time (bank conflicts).
LARGE_TILE, TWO_LARGE_TILES = (LARGE_DEPTH, LARGE + 4), (2 * LARGE_DEPTH, LARGE + 4)
TWO_SMALL_TILES = 2 * SMALL_DEPTH, SMALL + 4
# What a thread fetches of a tile, in groups of four.
LARGE_SHARE, SMALL_SHARE = (2 * LARGE_DEPTH // LARGE_THREADS, 4), (SMALL_DEPTH // SMALL_THREADS, 4)

# Launch bounds tell the compiler how to divide the 65,536 registers of a multiprocessor: threads per block, and blocks
# per multiprocessor. The simulator's decorator does not take them.
INLINE, LARGE_BLOCK, TWO_LARGE_BLOCKS, SMALL_BLOCK = (
    ({}, {}, {}, {})
    if SIMULATED
    else (
        {"forceinline": True},
        {"launch_bounds": LARGE_THREADS**2},
        {"launch_bounds": (LARGE_THREADS**2, 2)},
        {"launch_bounds": SMALL_THREADS**2},
    )
)

FEWEST_TERMS = 4 * SMALL_DEPTH  # per block, when the terms are split
SMALL_TILES_EACH = 4  # per multiprocessor, so that one is computed while another waits


def _sizes(out, a, b, a_along=True, b_along=False):
    """Return (m, n, k). ValueError if the shapes do not match: the kernels check no index."""
    m, k = a.shape if a_along else a.shape[::-1]
    if b.shape != ((out.shape[1], k) if b_along else (k, out.shape[1])) or out.shape[0] != m:
        raise ValueError(f"a product needs out (m, n), a (m, k) and b (k, n), not {out.shape}, {a.shape} and {b.shape}")
    return m, out.shape[1], k


def _tiles(m, n, tile):
    return -(-m // tile) * -(-n // tile)


def _launch(kernel, m, n, tile, threads, *arguments, groups=1, shares=1):
    """Launch ``threads`` by ``threads`` blocks, one for each ``tile`` by ``tile`` part of (m, n), group and share."""
    if m and n:
        launch(kernel, (groups * -(-m // tile), -(-n // tile), shares), threads * threads, *arguments)


# ---- one element per thread --------------------------------------------------------------------------------------


def product_naive(out, a, b):
    """out (m, n) = a (m, k) @ b (k, n), one thread per element.

    Adjacent threads read the same number of ``a`` and adjacent numbers of ``b``, and the hardware coalesces the reads
    of a warp. Still every multiply-add waits for two numbers from global memory.
    """
    m, n, _ = _sizes(out, a, b)
    _launch(_naive, m, n, BLOCK, BLOCK, out, a, b)


@cuda.jit
def _naive(out, a, b):
    i = cuda.blockIdx.x * BLOCK + cuda.threadIdx.x // BLOCK
    j = cuda.blockIdx.y * BLOCK + cuda.threadIdx.x % BLOCK
    if i < out.shape[0] and j < out.shape[1]:
        total = out.dtype.type(0)  # a bare 0.0 would turn a float32 sum into a float64 one
        for p in range(a.shape[1]):
            total += a[i, p] * b[p, j]
        out[i, j] = total


def product_shared(out, a, b):
    """out (m, n) = a (m, k) @ b (k, n), a square tile of it per block of threads.

    Compared with `product_naive`: the threads of a block together fetch a square of ``a`` and one of ``b`` into shared
    memory, one number of each per thread, and all read them from there. A number that was fetched ``BLOCK`` times is
    now fetched once. Each square takes two barriers: until it is filled, and until all threads have used it.
    """
    m, n, _ = _sizes(out, a, b)
    _launch(_shared, m, n, BLOCK, BLOCK, out, a, b)


@cuda.jit
def _shared(out, a, b):
    tile_a = cuda.shared.array(BLOCK_TILE, a.dtype)
    tile_b = cuda.shared.array(BLOCK_TILE, a.dtype)
    row, column = cuda.threadIdx.x // BLOCK, cuda.threadIdx.x % BLOCK
    i, j = cuda.blockIdx.x * BLOCK + row, cuda.blockIdx.y * BLOCK + column
    zero = total = out.dtype.type(0)
    for start in range(0, a.shape[1], BLOCK):
        # Threads past the edge of out take part too: they fetch for the others, and all must reach the barriers.
        tile_a[row, column] = a[i, start + column] if i < a.shape[0] and start + column < a.shape[1] else zero
        tile_b[row, column] = b[start + row, j] if start + row < b.shape[0] and j < b.shape[1] else zero
        cuda.syncthreads()
        for p in range(BLOCK):
            total += tile_a[row, p] * tile_b[p, column]
        cuda.syncthreads()
    if i < out.shape[0] and j < out.shape[1]:
        out[i, j] = total


# ---- 8 by 8 elements per thread ----------------------------------------------------------------------------------


def product_registers(out, a, b):
    """out (m, n) = a (m, k) @ b (k, n), ``LARGE`` by ``LARGE`` elements per block, 8 by 8 of them per thread.

    Compared with `product_shared`, where every multiply-add waits for two numbers from shared memory: 8 numbers of
    ``a`` and 8 of ``b``, once in registers, serve 64 multiply-adds. And as a block's tile is larger, a number from
    global memory is used ``LARGE`` times. The compiler unrolls the loops over 8, for registers cannot be indexed.
    """
    m, n, _ = _sizes(out, a, b)
    _launch(_registers, m, n, LARGE, LARGE_THREADS, out, a, b)


@cuda.jit(**LARGE_BLOCK)
def _registers(out, a, b):
    tile_a = cuda.shared.array(LARGE_TILE, a.dtype)  # one row per term, as in tile_b
    tile_b = cuda.shared.array(LARGE_TILE, a.dtype)
    sums = cuda.local.array((8, 8), a.dtype)
    left = cuda.local.array(8, a.dtype)
    right = cuda.local.array(8, a.dtype)
    i0, j0 = cuda.blockIdx.x * LARGE, cuda.blockIdx.y * LARGE
    row, column = cuda.threadIdx.x // LARGE_THREADS, cuda.threadIdx.x % LARGE_THREADS
    zero = out.dtype.type(0)
    sums[:] = zero
    for start in range(0, a.shape[1], LARGE_DEPTH):
        for place in range(cuda.threadIdx.x, LARGE * LARGE_DEPTH, LARGE_THREADS * LARGE_THREADS):
            i, p = i0 + place // LARGE_DEPTH, start + place % LARGE_DEPTH
            tile_a[place % LARGE_DEPTH, place // LARGE_DEPTH] = a[i, p] if i < a.shape[0] and p < a.shape[1] else zero
            j, p = j0 + place % LARGE, start + place // LARGE
            tile_b[place // LARGE, place % LARGE] = b[p, j] if p < b.shape[0] and j < b.shape[1] else zero
        cuda.syncthreads()
        for p in range(LARGE_DEPTH):
            for i in range(8):
                left[i] = tile_a[p, row + i * LARGE_THREADS]
            for j in range(8):
                right[j] = tile_b[p, column + j * LARGE_THREADS]
            for i in range(8):
                for j in range(8):
                    sums[i, j] += left[i] * right[j]
        cuda.syncthreads()
    for i in range(8):
        for j in range(8):
            if i0 + row + i * LARGE_THREADS < out.shape[0] and j0 + column + j * LARGE_THREADS < out.shape[1]:
                out[i0 + row + i * LARGE_THREADS, j0 + column + j * LARGE_THREADS] = sums[i, j]


# ---- four numbers per instruction: helpers -----------------------------------------------------------------------
# ``along`` says that the terms lie along the rows of a matrix, as in a (m, k); in b (k, n) they lie down its columns.
# The transposed operands of a backward pass are the other way round; only fetching them differs.
# An operand is a tuple: what it is read from, the function that reads four consecutive numbers of one of its rows, and
# whether that may use load4. conv.py has a function of its own, for matrices that are nowhere in memory. (Numba warns
# of functions that come first in a tuple.)


@cuda.jit(device=True, **INLINE)
def four_of_matrix(matrix, row, column, fours):
    """Four consecutive numbers of a row of the matrix; zeros past its edges."""
    zero = matrix.dtype.type(0)
    if row >= matrix.shape[0] or column >= matrix.shape[1]:
        return zero, zero, zero, zero
    if fours:  # then all are inside
        return load4(matrix, row, column)
    return (
        matrix[row, column],
        matrix[row, column + 1] if column + 1 < matrix.shape[1] else zero,
        matrix[row, column + 2] if column + 2 < matrix.shape[1] else zero,
        matrix[row, column + 3] if column + 3 < matrix.shape[1] else zero,
    )


@cuda.jit(device=True, **INLINE)
def _fetch(share, operand, along, first, start, width, depth, threads):
    """Read this thread's share of a tile: ``depth`` terms from ``start`` on, of ``width`` rows of a, or columns of b,
    from ``first`` on."""
    matrix, four_of, fours = operand
    for v in range(share.shape[0]):
        place = 4 * (cuda.threadIdx.x + v * threads)
        if along:
            four = four_of(matrix, first + place // depth, start + place % depth, fours)
        else:
            four = four_of(matrix, start + place // width, first + place % width, fours)
        share[v, 0], share[v, 1], share[v, 2], share[v, 3] = four


@cuda.jit(device=True, **INLINE)
def _stash(tile, stage, share, along, width, depth, threads):
    """Write the share to shared memory, one row per term, from row ``stage`` on."""
    for v in range(share.shape[0]):
        place = 4 * (cuda.threadIdx.x + v * threads)
        if along:
            for i in range(4):
                tile[stage + place % depth + i, place // depth] = share[v, i]
        else:
            store4(tile, stage + place // width, place % width, (share[v, 0], share[v, 1], share[v, 2], share[v, 3]))


@cuda.jit(device=True, **INLINE)
def _add_term(sums, left, right, tile_a, tile_b, p, row, column, threads):
    """sums += the outer product of the numbers of term p, read in groups of four that are ``threads`` groups apart."""
    for i in range(0, sums.shape[0], 4):
        left[i], left[i + 1], left[i + 2], left[i + 3] = load4(tile_a, p, 4 * row + i * threads)
    for j in range(0, sums.shape[1], 4):
        right[j], right[j + 1], right[j + 2], right[j + 3] = load4(tile_b, p, 4 * column + j * threads)
    for i in range(sums.shape[0]):
        for j in range(sums.shape[1]):
            sums[i, j] += left[i] * right[j]


@cuda.jit(device=True, **INLINE)
def _add_terms(sums, left, right, tile_a, tile_b, stage, depth, threads):
    """sums += all terms of a tile, two per iteration: the compiler does not unroll this loop."""
    row, column = cuda.threadIdx.x // threads, cuda.threadIdx.x % threads
    for p in range(stage, stage + depth, 2):
        _add_term(sums, left, right, tile_a, tile_b, p, row, column, threads)
        _add_term(sums, left, right, tile_a, tile_b, p + 1, row, column, threads)


@cuda.jit(device=True, **INLINE)
def _write(out, row_of, where, rows, sums, i0, j0, threads):
    """Write row r of the sums, r < ``rows``, to row row_of(where, r) of out."""
    fours = in_fours(out)
    row, column = cuda.threadIdx.x // threads, cuda.threadIdx.x % threads
    for i in range(sums.shape[0]):
        r = i0 + 4 * row + (i - i % 4) * threads + i % 4
        if r < rows:
            to = row_of(where, r)
            for j in range(0, sums.shape[1], 4):
                c = j0 + 4 * column + j * threads
                if c < out.shape[1]:
                    if fours:
                        store4(out, to, c, (sums[i, j], sums[i, j + 1], sums[i, j + 2], sums[i, j + 3]))
                    else:
                        for q in range(4):
                            if c + q < out.shape[1]:
                                out[to, c + q] = sums[i, j + q]


@cuda.jit(device=True, **INLINE)
def below(above, row):
    """A row of a matrix that is stacked below others with ``above`` rows."""
    return above + row


@cuda.jit(device=True, **INLINE)
def _finish(out, size, i0, j0, threads, bias, kind):
    """Add the bias to the size x size numbers that this thread has written, and apply the activation.

    They are read back from a cache, a few at a time: applied to the sums in registers, it would need more registers.
    """
    fours = in_fours(out)
    row, column = cuda.threadIdx.x // threads, cuda.threadIdx.x % threads
    for i in range(size):
        r = i0 + 4 * row + (i - i % 4) * threads + i % 4
        for j in range(0, size, 4):
            c = j0 + 4 * column + j * threads
            if r < out.shape[0] and c < out.shape[1]:
                if fours:
                    n0, n1, n2, n3 = load4(out, r, c)
                    n0, n1 = activate(kind, n0 + bias[c]), activate(kind, n1 + bias[c + 1])
                    n2, n3 = activate(kind, n2 + bias[c + 2]), activate(kind, n3 + bias[c + 3])
                    store4(out, r, c, (n0, n1, n2, n3))
                else:
                    for q in range(c, min(c + 4, out.shape[1])):
                        out[r, q] = activate(kind, out[r, q] + bias[q])


# ---- four numbers per instruction: the products ------------------------------------------------------------------


def product_vectors(out, a, b):
    """out (m, n) = a (m, k) @ b (k, n), tiled as before.

    Compared with `product_registers`: an instruction moves four consecutive numbers, 16 bytes, from global or shared
    memory. A quarter of the loads leaves more cycles for multiply-adds: 64 per 4 loads, not per 16. This needs rows
    of a multiple of 4 numbers that begin at multiples of 16 bytes; others are read number by number.
    """
    m, n, _ = _sizes(out, a, b)
    _launch(_vectors, m, n, LARGE, LARGE_THREADS, out, a, b)


@cuda.jit(**LARGE_BLOCK)
def _vectors(out, a, b):
    tile_a = cuda.shared.array(LARGE_TILE, a.dtype, alignment=16)
    tile_b = cuda.shared.array(LARGE_TILE, a.dtype, alignment=16)
    share = cuda.local.array(LARGE_SHARE, a.dtype)
    sums = cuda.local.array((8, 8), a.dtype)
    left = cuda.local.array(8, a.dtype)
    right = cuda.local.array(8, a.dtype)
    i0, j0, threads = cuda.blockIdx.x * LARGE, cuda.blockIdx.y * LARGE, LARGE_THREADS * LARGE_THREADS
    from_a, from_b = (a, four_of_matrix, in_fours(a)), (b, four_of_matrix, in_fours(b))
    sums[:] = out.dtype.type(0)
    for start in range(0, a.shape[1], LARGE_DEPTH):
        _fetch(share, from_a, True, i0, start, LARGE, LARGE_DEPTH, threads)
        _stash(tile_a, 0, share, True, LARGE, LARGE_DEPTH, threads)
        _fetch(share, from_b, False, j0, start, LARGE, LARGE_DEPTH, threads)
        _stash(tile_b, 0, share, False, LARGE, LARGE_DEPTH, threads)
        cuda.syncthreads()
        _add_terms(sums, left, right, tile_a, tile_b, 0, LARGE_DEPTH, LARGE_THREADS)
        cuda.syncthreads()
    _write(out, below, 0, out.shape[0], sums, i0, j0, LARGE_THREADS)


def product_ahead(out, a, b):
    """out (m, n) = a (m, k) @ b (k, n), tiled as before, with double buffering.

    Compared with `product_vectors`, where all threads wait for global memory at each tile: they start loading the next
    tile, do the multiply-adds of this one, and only then need the loaded numbers. Shared memory holds two tiles, so
    that faster threads can write one while others still read the other: one barrier per tile instead of two.
    """
    m, n, _ = _sizes(out, a, b)
    _launch(_ahead, m, n, LARGE, LARGE_THREADS, out, a, b, True, False, out.reshape(-1), PLAIN)


@cuda.jit(**TWO_LARGE_BLOCKS)
def _ahead(out, a, b, a_along, b_along, bias, kind):
    tile_a = cuda.shared.array(TWO_LARGE_TILES, a.dtype, alignment=16)
    tile_b = cuda.shared.array(TWO_LARGE_TILES, a.dtype, alignment=16)
    share_a = cuda.local.array(LARGE_SHARE, a.dtype)
    share_b = cuda.local.array(LARGE_SHARE, a.dtype)
    sums = cuda.local.array((8, 8), a.dtype)
    left = cuda.local.array(8, a.dtype)
    right = cuda.local.array(8, a.dtype)
    i0, j0, k = cuda.blockIdx.x * LARGE, cuda.blockIdx.y * LARGE, a.shape[1] if a_along else a.shape[0]
    from_a, from_b = (a, four_of_matrix, in_fours(a)), (b, four_of_matrix, in_fours(b))
    memories = tile_a, tile_b, share_a, share_b, sums, left, right
    _sum_ahead(memories, from_a, from_b, a_along, b_along, i0, j0, 0, k, LARGE, LARGE_DEPTH, LARGE_THREADS)
    _write(out, below, 0, out.shape[0], sums, i0, j0, LARGE_THREADS)
    if kind != PLAIN:
        _finish(out, sums.shape[0], i0, j0, LARGE_THREADS, bias, kind)


@cuda.jit(device=True, **INLINE)
def _sum_ahead(memories, a, b, a_along, b_along, i0, j0, start, end, width, depth, threads):
    """sums = the sum of the terms from ``start`` to ``end``: whole tiles of ``depth``, or up to the last term."""
    tile_a, tile_b, share_a, share_b, sums, left, right = memories
    block = threads * threads
    sums[:] = sums.dtype.type(0)
    _fetch(share_a, a, a_along, i0, start, width, depth, block)
    _fetch(share_b, b, b_along, j0, start, width, depth, block)
    _stash(tile_a, 0, share_a, a_along, width, depth, block)
    _stash(tile_b, 0, share_b, b_along, width, depth, block)
    cuda.syncthreads()
    stage = 0  # first row of the tile in use, 0 or depth; the next tile goes to the other
    for coming in range(start + depth, end + depth, depth):
        if coming < end:
            _fetch(share_a, a, a_along, i0, coming, width, depth, block)
            _fetch(share_b, b, b_along, j0, coming, width, depth, block)
        _add_terms(sums, left, right, tile_a, tile_b, stage, depth, threads)
        stage = depth - stage
        if coming < end:
            _stash(tile_a, stage, share_a, a_along, width, depth, block)
            _stash(tile_b, stage, share_b, b_along, width, depth, block)
        cuda.syncthreads()


LADDER = (product_naive, product_shared, product_registers, product_vectors, product_ahead)


# ---- the products used in training -------------------------------------------------------------------------------


def matmul(out, a, b):
    """out (m,n) = a (m,k) b (k,n)."""
    _multiply(out, a, b, True, False)


def matmul_tn(out, a, b):
    """out (m,n) = a^T b, with a (k,m) and b (k,n)."""
    _multiply(out, a, b, False, False)


def matmul_nt(out, a, b):
    """out (m,n) = a b^T, with a (m,k) and b (n,k)."""
    _multiply(out, a, b, True, True)


def dense(out, x, w, b, kind):
    """out (m,n) = activation(x w + b), with x (m,k), w (k,n), b (n) and the activation's index ``kind``.

    The thread that computed a sum also applies bias and activation to it: no other kernel reads ``out`` again.
    """
    _multiply(out, x, w, True, False, b, kind)


def _multiply(out, a, b, a_along, b_along, bias=None, kind=PLAIN):
    """Large tiles if there is one for every multiprocessor, else small ones, whose terms may be split among blocks.

    A batch of 128 has a single row of large tiles, which would leave most of a GPU idle. Partial sums are added in a
    fixed order, whichever block finishes first, so results are bitwise reproducible. Float64, used to check gradients,
    takes small tiles only: 64 float64 sums leave no registers for anything else.
    """
    m, n, k = _sizes(out, a, b, a_along, b_along)
    none = out.reshape(-1)  # kernels do not take None; this is never read
    bias = none if bias is None else bias
    if out.dtype == np.float32 and _tiles(m, n, LARGE) >= multiprocessors():
        _launch(_ahead, m, n, LARGE, LARGE_THREADS, out, a, b, a_along, b_along, bias, kind)
        return
    in_small_tiles(_ahead_small, out, (m, n, k), a, b, a_along, b_along, finish=(bias, kind))


def in_small_tiles(kernel, out, sizes, *operands, groups=1, finish=()):
    """Launch kernel(out, *operands, terms, *finish) for small tiles of out, in ``groups`` of m rows each.

    Share z of the terms goes to the z-th of the matrices that are then stacked in out, and added in order. ``finish``
    are a bias and the index of an activation, if the kernel takes them.
    """
    (m, n, k), plain = sizes, (out.reshape(-1), PLAIN)
    terms = _terms_a_share(groups * m, n, k)
    shares = -(-k // terms)
    if shares <= 1:
        _launch(kernel, m, n, SMALL, SMALL_THREADS, out, *operands, terms, *finish, groups=groups)
        return
    parts, later = memory.empty((shares * out.shape[0], n), out.dtype), plain if finish else ()
    _launch(kernel, m, n, SMALL, SMALL_THREADS, parts, *operands, terms, *later, groups=groups, shares=shares)
    _launch(_add_shares, *out.shape, BLOCK, BLOCK, out, parts, *(finish or plain))


def _terms_a_share(m, n, k):
    """Terms per block: few enough to occupy all multiprocessors, but ``FEWEST_TERMS`` or more, in whole tiles."""
    wanted = -(-SMALL_TILES_EACH * multiprocessors() // max(1, _tiles(m, n, SMALL)))
    shares = max(1, min(wanted, k // FEWEST_TERMS))
    return max(1, -(-k // (shares * SMALL_DEPTH))) * SMALL_DEPTH


@cuda.jit(**SMALL_BLOCK)
def _ahead_small(out, a, b, a_along, b_along, terms, bias, kind):
    """Sum share z of the terms, ``terms`` of them, into the z-th of the matrices stacked in out."""
    i0, start = cuda.blockIdx.x * SMALL, cuda.blockIdx.z * terms
    m, k = (a.shape[0], a.shape[1]) if a_along else (a.shape[1], a.shape[0])
    from_a, from_b = (a, four_of_matrix, in_fours(a)), (b, four_of_matrix, in_fours(b))
    small_tile(out, below, cuda.blockIdx.z * m, m, from_a, from_b, a_along, b_along, i0, start, min(k, start + terms))
    if kind != PLAIN:  # then there is one share
        _finish(out, 4, i0, cuda.blockIdx.y * SMALL, SMALL_THREADS, bias, kind)


@cuda.jit(device=True, **INLINE)
def small_tile(out, row_of, where, rows, a, b, a_along, b_along, i0, start, end):
    """Sum the terms from ``start`` to ``end`` for a tile, rows from ``i0`` on and columns of block y, and write it.

    Row r of the product goes to row row_of(where, r) of out, if r < ``rows``.
    """
    tile_a = cuda.shared.array(TWO_SMALL_TILES, out.dtype, alignment=16)
    tile_b = cuda.shared.array(TWO_SMALL_TILES, out.dtype, alignment=16)
    share_a = cuda.local.array(SMALL_SHARE, out.dtype)
    share_b = cuda.local.array(SMALL_SHARE, out.dtype)
    sums = cuda.local.array((4, 4), out.dtype)
    left = cuda.local.array(4, out.dtype)
    right = cuda.local.array(4, out.dtype)
    j0, memories = cuda.blockIdx.y * SMALL, (tile_a, tile_b, share_a, share_b, sums, left, right)
    _sum_ahead(memories, a, b, a_along, b_along, i0, j0, start, end, SMALL, SMALL_DEPTH, SMALL_THREADS)
    _write(out, row_of, where, rows, sums, i0, j0, SMALL_THREADS)


@cuda.jit
def _add_shares(out, parts, bias, kind):
    """out (m, n) = the sum of the matrices (m, n) stacked in parts, then bias and activation as in ``_finish``."""
    i = cuda.blockIdx.x * BLOCK + cuda.threadIdx.x // BLOCK
    j = cuda.blockIdx.y * BLOCK + cuda.threadIdx.x % BLOCK
    if i < out.shape[0] and j < out.shape[1]:
        total = parts[i, j]
        for row in range(i + out.shape[0], parts.shape[0], out.shape[0]):
            total += parts[row, j]
        out[i, j] = total if kind == PLAIN else activate(kind, total + bias[j])
