"""How to make a convolution fast: a ladder of four versions, each with one idea more than the one before.

A convolution is a matrix product. A row of the left matrix is the window of an output pixel, spread out: its
k·l·i numbers. The right matrix is the weights (k l i, o). What changes is how the rows reach the micro-kernel, which
multiplies a few of them at a time by two vectors of output channels, as in ``products.py``:

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
from kernels.cpu.simd import ROWS, add_outer_product, lanes, load, store, store_rows, store_tile, zero_tile
from kernels.cpu.vector_math import JIT

NEAR = 1 << 15  # numbers of the images, or of one, that a thread works on at a time, so that they stay in a near cache
PARTS = 8  # of the images at least, so that threads are done at about the same time


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
    that is the same for all windows. So the micro-kernel reads it there, at ``ROWS`` corners plus one offset. What is
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
    row_size, left_size = width * channels, left * channels
    for image in range(count):
        for row in range(height):
            start = (image * height + row) * row_size
            framed = padded[start : start + row_size]
            if top <= row < top + h:
                framed[:left_size] = 0
                framed[left_size : left_size + w * channels] = x[first + image, row - top].reshape(-1)
                framed[left_size + w * channels :] = 0
            else:
                framed[:] = 0


@njit(inline="always", **JIT)
def sum_at_offsets(tile, x, corners, first, terms, panel):
    """The micro-kernel: the tile plus the sum over terms t of the outer products of x[corner + t], for ``ROWS`` corners
    from the first on, and of row t of the panel."""
    width, at = lanes(x), 0
    for q in range(terms.size):
        left, right = load(panel, at), load(panel, at + width)
        tile = add_outer_product(tile, x, corners, first, np.int64(terms[q]), left, right)
        at += 2 * width
    return tile


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


@njit(**JIT)
def _share(rows, part, parts):
    """The first of the rows of this part of ``parts``, and of the next: whole tiles, but for the last part."""
    tiles = (rows + ROWS - 1) // ROWS
    return tiles * part // parts * ROWS, min(tiles * (part + 1) // parts * ROWS, rows)


@njit(parallel=True, **JIT)
def multiply_patches(out, x, packed, terms, first_term, corners, places, first_corner, frame):
    """out (b,p,q,o) = a product of windows of x (b,h,w,i) and packed weights; threads share the images.

    The plan says where: phase f computes the pixels ``places[first_corner[f] : first_corner[f + 1]]`` of out, whose
    windows have their corners at ``corners`` of the image in its ``frame``, flat, and consist of the numbers
    ``terms[first_term[f] : first_term[f + 1]]`` further on. There is more than one phase if windows differ.
    """
    (b, p, q, o), width, size = out.shape, 2 * lanes(out), frame[2] * frame[3] * x.shape[3]
    flat, parts = out.reshape(-1), max(1, b // max(1, min(NEAR // max(1, size), b // PARTS)))
    for part in prange(parts):
        begin, end = b, 0  # the images of this part: a tile may reach from one into the next
        for phase in range(first_term.size - 1):
            count = first_corner[phase + 1] - first_corner[phase]
            start, stop = _share(b * count, part, parts)
            if start < stop:
                begin, end = min(begin, start // count), max(end, (stop - 1) // count + 1)
        images = max(0, end - begin)
        padded, sums = np.empty(images * size, x.dtype), np.empty(ROWS * width, x.dtype)
        pad_images(padded, x, begin, images, frame)
        for phase in range(first_term.size - 1):
            some = terms[first_term[phase] : first_term[phase + 1]]
            count = first_corner[phase + 1] - first_corner[phase]
            start, stop = _share(b * count, part, parts)
            at, rows = np.empty(stop - start + ROWS, np.int64), np.empty(stop - start, np.int64)
            for r in range(rows.size):
                image, pixel = (start + r) // count, first_corner[phase] + (start + r) % count
                at[r] = (image - begin) * size + corners[pixel]
                rows[r] = (image * p * q + places[pixel]) * o
            at[rows.size :] = at[max(0, rows.size - 1)]  # the last once more: computed, but not written
            for panel in range(packed.shape[0]):
                columns = packed[panel, width * first_term[phase] : width * first_term[phase + 1]]
                for r in range(0, rows.size, ROWS):
                    tile = sum_at_offsets(zero_tile(x), padded, at, r, some, columns)
                    if r + ROWS <= rows.size and width * (panel + 1) <= o:
                        store_rows(flat, rows, r, width * panel, tile)
                    else:
                        store_tile(sums, 0, tile)
                        for row in range(min(ROWS, rows.size - r)):
                            write_row(flat[rows[r + row] : rows[r + row] + o], width * panel, sums, row)
