"""How to make a convolution fast: a ladder of four versions, each with one idea more than the one before.

A convolution is a matrix product. A row of the left matrix is the window of an output pixel, spread out: its
k·l·i numbers. The right matrix is the weights (k l i, o). What changes is how the rows reach the micro-kernel, which
multiplies six of them at a time by two vectors of output channels, as in ``products.py``:

    conv_naive      there are no rows: seven loops, as on paper
    conv_im2col     all rows are copied to a matrix, in which a pixel of x appears once for each window that holds it
    conv_packed     six rows at a time are copied to the place from which the micro-kernel reads them
    conv_direct     none is copied: the micro-kernel reads the image itself

Each rung takes ``out`` (b,p,q,o), ``x`` (b,h,w,i) and ``w`` (k,l,i,o), C-contiguous and of one dtype, float32 or
float64, with stride and padding as in ``kernels/reference/conv.py``. They are timed by
``python -m tests.benchmarks.convolutions``. Training uses the last one, by way of `multiply_patches`.
"""

import numpy as np
from numba import njit, prange

from kernels.cpu.products import multiply_tile, pack_columns, product_tiled
from kernels.cpu.simd import lanes, load, multiply_add, store, zeros
from kernels.cpu.vector_math import JIT

NEAR = 1 << 15  # numbers of the images that one thread works on at a time, so that they stay in a near cache
ENOUGH = 96  # output pixels: with fewer, the last group of six, which may be incomplete, would count


@njit(**JIT)
def conv_naive(out, x, w, stride, padding):
    """out (b,p,q,o) = the convolution of x (b,h,w,i) with w (k,l,i,o), number by number."""
    for b in range(out.shape[0]):
        for p in range(out.shape[1]):
            for q in range(out.shape[2]):
                for o in range(out.shape[3]):
                    total = out.dtype.type(0)
                    for k in range(w.shape[0]):
                        for j in range(w.shape[1]):
                            row, column = stride[0] * p + k - padding[0], stride[1] * q + j - padding[1]
                            if 0 <= row < x.shape[1] and 0 <= column < x.shape[2]:
                                for i in range(x.shape[3]):
                                    total += x[b, row, column, i] * w[k, j, i, o]
                    out[b, p, q, o] = total


@njit(**JIT)
def _copy_window(row, image, w, top, left):
    """row (k l i) = the window of the image (h,w,i) whose corner is at (top, left); zeros outside."""
    place, channels = 0, image.shape[2]
    for k in range(w.shape[0]):
        for j in range(w.shape[1]):
            inside = 0 <= top + k < image.shape[0] and 0 <= left + j < image.shape[1]
            for i in range(channels):
                row[place + i] = image[top + k, left + j, i] if inside else 0
            place += channels


@njit(**JIT)
def _copy_windows(patches, x, w, out, stride, padding):
    """patches (b p q, k l i) = the windows of x (b,h,w,i), one for each pixel of out (b,p,q,o)."""
    _, p, q, _ = out.shape
    for r in range(patches.shape[0]):
        top, left = stride[0] * (r // q % p) - padding[0], stride[1] * (r % q) - padding[1]
        _copy_window(patches[r], x[r // (p * q)], w, top, left)


def conv_im2col(out, x, w, stride, padding):
    """out (b,p,q,o) = the convolution of x (b,h,w,i) with w (k,l,i,o), as one matrix product.

    Compared with `conv_naive`: the product is as fast as any. But its left matrix is k·l / (stride · stride) times as
    large as x, and has to be written to memory and read back.
    """
    (b, p, q, o), terms = out.shape, w.shape[0] * w.shape[1] * w.shape[2]
    patches = np.empty((b * p * q, terms), x.dtype)
    _copy_windows(patches, x, w, out, stride, padding)
    # From Python: a compiled function that calls one with threads crashes when both come from Numba's cache.
    product_tiled(out.reshape(b * p * q, o), patches, w.reshape(terms, o))


@njit(parallel=True, **JIT)
def conv_packed(out, x, w, stride, padding):
    """out (b,p,q,o) = the convolution of x (b,h,w,i) with w (k,l,i,o), six windows at a time.

    Compared with `conv_im2col`: six rows are packed into the order in which the micro-kernel reads them, and used for
    all output channels while they are in the nearest cache. The large matrix is never in memory (implicit im2col).
    """
    (b, p, q, o), terms = out.shape, w.shape[0] * w.shape[1] * w.shape[2]
    packed = pack_weights(w.reshape(terms, o))
    order, flat, width = np.arange(terms).astype(np.int32), out.reshape(b * p * q, o), 2 * lanes(out)
    for tile in prange((b * p * q + 5) // 6):
        row, sixes, result = np.empty(terms, x.dtype), np.empty(6 * terms, x.dtype), np.empty(6 * width, x.dtype)
        for six in range(6):
            r = min(6 * tile + six, b * p * q - 1)
            top, left = stride[0] * (r // q % p) - padding[0], stride[1] * (r % q) - padding[1]
            _copy_window(row, x[r // (p * q)], w, top, left)
            for t in range(terms):
                sixes[6 * t + six] = row[t]
        for panel in range(packed.shape[0]):
            multiply_tile(result, sixes, order, terms, packed[panel])
            for six in range(min(6, b * p * q - 6 * tile)):
                write_row(flat[6 * tile + six], width * panel, result, six)


def conv_direct(out, x, w, stride, padding):
    """out (b,p,q,o) = the convolution of x (b,h,w,i) with w (k,l,i,o), without a copy of any window.

    Compared with `conv_packed`: number t of a window lies in the padded image at the window's corner plus an offset
    that is the same for all windows. So the micro-kernel reads it there, at six corners plus one offset. What is
    copied is x, once, to add the zeros of the padding.
    """
    (k, j, i, o), plan = w.shape, plan_of_windows(x.shape, w.shape, out.shape, stride, padding)
    multiply_patches(out, x, pack_weights(w.reshape(k * j * i, o)), *plan)


LADDER = (conv_naive, conv_im2col, conv_packed, conv_direct)


# ---- what the last rung is made of; conv.py uses it for the gradients too ----


@njit(**JIT)
def pack_weights(w):
    """The matrix w (t,o) in panels (n, t · two vectors) of two vectors of columns each."""
    width = 2 * lanes(w)
    packed = np.empty(((w.shape[1] + width - 1) // width, w.shape[0] * width), w.dtype)
    for panel in range(packed.shape[0]):
        pack_columns(packed[panel], w, width * panel)
    return packed


@njit(**JIT)
def plan_of_windows(x_shape, w_shape, out_shape, stride, padding):
    """The plan of a convolution, for `multiply_patches`."""
    (_, h, width, channels), (_, rows, columns, _) = x_shape, out_shape
    across = width + 2 * padding[1]
    terms = np.empty(w_shape[0] * w_shape[1] * channels, np.int32)
    for t in range(terms.size):
        k, j, i = t // (w_shape[1] * channels), t // channels % w_shape[1], t % channels
        terms[t] = (k * across + j) * channels + i
    corners, places = np.empty(rows * columns, np.int32), np.arange(rows * columns).astype(np.int32)
    for place in places:
        corners[place] = (stride[0] * (place // columns) * across + stride[1] * (place % columns)) * channels
    padded = (padding[0], padding[1], h + 2 * padding[0], across)
    return terms, np.array([0, terms.size]), corners, places, np.array([0, places.size]), padded


@njit(**JIT)
def pad_images(padded, x, first, count, at):
    """padded, flat, = ``count`` images of x (b,h,w,i) from the first on, in frames of zeros; ``at`` = (top, left,
    height, width) of the frame."""
    (_, h, w, channels), (top, left, height, width) = x.shape, at
    padded[:] = 0
    for image in range(count):
        for row in range(h):
            start = ((image * height + top + row) * width + left) * channels
            padded[start : start + w * channels] = x[first + image, row].reshape(-1)


@njit(**JIT)
def sum_at_offsets(tile, add, x, corners, first, terms, panel):
    """The micro-kernel: tile (six rows of two vectors) = the sum over terms t of the outer products of x[corner + t],
    for six corners from the first on, and of row t of the panel; += with ``add``."""
    width, at = lanes(tile), 0
    o0, o1, o2 = np.int64(corners[first]), np.int64(corners[first + 1]), np.int64(corners[first + 2])
    o3, o4, o5 = np.int64(corners[first + 3]), np.int64(corners[first + 4]), np.int64(corners[first + 5])
    if add:
        c00, c01, c10, c11 = load(tile, 0), load(tile, width), load(tile, 2 * width), load(tile, 3 * width)
        c20, c21, c30, c31 = load(tile, 4 * width), load(tile, 5 * width), load(tile, 6 * width), load(tile, 7 * width)
        c40, c41, c50 = load(tile, 8 * width), load(tile, 9 * width), load(tile, 10 * width)
        c51 = load(tile, 11 * width)
    else:
        c00, c01, c10, c11, c20, c21 = zeros(tile), zeros(tile), zeros(tile), zeros(tile), zeros(tile), zeros(tile)
        c30, c31, c40, c41, c50, c51 = zeros(tile), zeros(tile), zeros(tile), zeros(tile), zeros(tile), zeros(tile)
    for q in range(terms.size):
        t, b0, b1 = np.int64(terms[q]), load(panel, at), load(panel, at + width)
        at += 2 * width
        c00, c01 = multiply_add(c00, x, o0 + t, b0), multiply_add(c01, x, o0 + t, b1)
        c10, c11 = multiply_add(c10, x, o1 + t, b0), multiply_add(c11, x, o1 + t, b1)
        c20, c21 = multiply_add(c20, x, o2 + t, b0), multiply_add(c21, x, o2 + t, b1)
        c30, c31 = multiply_add(c30, x, o3 + t, b0), multiply_add(c31, x, o3 + t, b1)
        c40, c41 = multiply_add(c40, x, o4 + t, b0), multiply_add(c41, x, o4 + t, b1)
        c50, c51 = multiply_add(c50, x, o5 + t, b0), multiply_add(c51, x, o5 + t, b1)
    store(tile, 0, c00), store(tile, width, c01), store(tile, 2 * width, c10), store(tile, 3 * width, c11)
    store(tile, 4 * width, c20), store(tile, 5 * width, c21), store(tile, 6 * width, c30), store(tile, 7 * width, c31)
    store(tile, 8 * width, c40), store(tile, 9 * width, c41), store(tile, 10 * width, c50)
    store(tile, 11 * width, c51)


@njit(**JIT)
def write_row(row, j, tile, r):
    """row[j : j + two vectors], as far as it goes, = row r of the tile."""
    width = 2 * lanes(tile)
    if j + width <= row.size:
        store(row, j, load(tile, width * r))
        store(row, j + width // 2, load(tile, width * r + width // 2))
    else:
        for c in range(row.size - j):
            row[j + c] = tile[width * r + c]


@njit(parallel=True, **JIT)
def multiply_patches(out, x, packed, terms, first_term, corners, places, first_corner, frame):
    """out (b,p,q,o) = a product of windows of x (b,h,w,i) and packed weights; threads share the images.

    The plan says where: phase f computes the pixels ``places[first_corner[f] : first_corner[f + 1]]`` of out, whose
    windows have their corners at ``corners`` of the image in its ``frame``, flat, and consist of the numbers
    ``terms[first_term[f] : first_term[f + 1]]`` further on. There is more than one phase if windows differ.
    """
    (b, p, q, o), width, size = out.shape, 2 * lanes(out), frame[2] * frame[3] * x.shape[3]
    flat = out.reshape(b * p * q, o)
    together = max(1, min(ENOUGH // max(1, p * q), NEAR // max(1, size), b // 8))
    for part in prange((b + together - 1) // together):
        first, images = together * part, min(together, b - together * part)
        padded, tile = np.empty(images * size, x.dtype), np.empty(6 * width, x.dtype)
        pad_images(padded, x, first, images, frame)
        for phase in range(first_term.size - 1):
            some = terms[first_term[phase] : first_term[phase + 1]]
            start, count = first_corner[phase], first_corner[phase + 1] - first_corner[phase]
            at, rows = np.empty(images * count + 5, np.int64), np.empty(images * count, np.int64)
            for image in range(images):
                for pixel in range(count):
                    at[image * count + pixel] = image * size + corners[start + pixel]
                    rows[image * count + pixel] = (first + image) * p * q + places[start + pixel]
            at[images * count :] = at[max(0, images * count - 1)]  # the last once more: computed, but not written
            for panel in range(packed.shape[0]):
                columns = packed[panel, width * first_term[phase] : width * first_term[phase + 1]]
                for r in range(0, rows.size, 6):
                    sum_at_offsets(tile, False, padded, at, r, some, columns)
                    for six in range(min(6, rows.size - r)):
                        write_row(flat[rows[r + six]], width * panel, tile, six)
