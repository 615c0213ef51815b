"""Convolutions of images: all three directions are products of windows that are never copied (``convolutions.py``).

- `conv2d` is the last rung of the ladder there.
- `conv2d_input`: with a stride of 2, the even rows of dx meet other weights than the odd ones, and so do the columns.
  That makes four phases, each a convolution of dout with stride 1 and its own quarter of the weights; with strides s
  and t there are s·t. Where dx has few channels, which would leave most of a vector empty, the products are computed
  for all weights side by side, and added to their pixels afterwards (`_fold`).
- `conv2d_weight`: the same product with the windows transposed. A term is an output pixel, a row is a weight.
"""

import numpy as np
from numba import njit, prange

from kernels.cpu.convolutions import (
    conv_direct,
    multiply_patches,
    pack_weights,
    pad_images,
    plan_of_windows,
    sum_at_offsets,
    write_row,
)
from kernels.cpu.products import pack_columns
from kernels.cpu.simd import BITS, ROWS, lanes, load_tile, store_tile
from kernels.cpu.vector_math import JIT

TERMS = 128  # output pixels, or those of one image, that weights are summed over at a time: a near cache holds them
GROUPS = 8  # of weights, which threads share


def conv2d(out, x, w, stride, padding):
    """out (b,p,q,o) = the sum over each window of x (b,h,w,i) times w (k,l,i,o)."""
    reach = w.shape[0] - 1 - padding[0], w.shape[1] - 1 - padding[1]
    if _few(out) and stride == (1, 1) and min(reach) >= 0:  # the same, seen from the other side
        _fold_products(out, x, np.ascontiguousarray(w[::-1, ::-1].swapaxes(2, 3)), stride, reach)
    else:
        conv_direct(out, x, w, stride, padding)


def conv2d_input(dx, dout, w, stride, padding):
    """dx (b,h,w,i) from dout (b,p,q,o): each number of dout, times w (k,l,i,o), is added to its window."""
    if _few(dx):
        _fold_products(dx, dout, w, stride, padding)
    else:
        terms, first_term, *rest, taps = _plan_of_phases(dx.shape, dout.shape, w.shape, stride, padding)
        multiply_patches(dx, dout, _pack_taps(w, taps), terms, first_term, *rest)


def conv2d_weight(dw, x, dout, stride, padding):
    """dw (k,l,i,o) = the sum over the output pixels of their windows of x (b,h,w,i) times dout (b,p,q,o)."""
    terms, _, corners, _, _, frame = plan_of_windows(x.shape, dw.shape, dout.shape, stride, padding)
    _sum_over_pixels(dw.reshape(terms.size, dw.shape[3]), x, dout, terms, corners, frame)


def _few(images):
    """Whether the channels fill at most half of the two vectors that a tile is wide."""
    return 2 * images.shape[3] * 8 * images.itemsize <= 2 * BITS


@njit(**JIT)
def _plan_of_phases(dx_shape, dout_shape, w_shape, stride, padding):
    """The plan of `conv2d_input`, and its taps (n,2): the k, l of the weights of each phase in turn."""
    (_, h, w, _), (_, p, q, o), (k, j, _, _) = dx_shape, dout_shape, w_shape
    top = max(0, (k - 1 - padding[0] + stride[0] - 1) // stride[0])  # the frame of dout, as far as windows reach out
    left = max(0, (j - 1 - padding[1] + stride[1] - 1) // stride[1])
    bottom = max(0, (h - 1 + padding[0]) // stride[0] - (p - 1))
    right = max(0, (w - 1 + padding[1]) // stride[1] - (q - 1))
    across, phases = left + q + right, stride[0] * stride[1]
    taps, terms = np.empty((k * j, 2), np.int32), np.empty(k * j * o, np.int32)
    corners, places = np.empty(h * w, np.int32), np.empty(h * w, np.int32)
    first_term, first_corner = np.zeros(phases + 1, np.int64), np.zeros(phases + 1, np.int64)
    tap = pixel = 0
    for phase in range(phases):
        row, column = phase // stride[1], phase % stride[1]
        for a in range((row + padding[0]) % stride[0], k, stride[0]):
            for c in range((column + padding[1]) % stride[1], j, stride[1]):
                taps[tap, 0], taps[tap, 1] = a, c
                up, along = (row + padding[0] - a) // stride[0], (column + padding[1] - c) // stride[1]
                for channel in range(o):
                    terms[tap * o + channel] = (up * across + along) * o + channel
                tap += 1
        for y in range(row, h, stride[0]):
            for x in range(column, w, stride[1]):
                corners[pixel] = ((top + y // stride[0]) * across + left + x // stride[1]) * o
                places[pixel] = y * w + x
                pixel += 1
        first_term[phase + 1], first_corner[phase + 1] = tap * o, pixel
    frame = (top, left, top + p + bottom, across)
    return terms, first_term, corners, places, first_corner, frame, taps


@njit(**JIT)
def _pack_taps(w, taps):
    """The weights (k,l,i,o) of the taps in turn, a matrix (taps o, i), in panels as by `pack_weights`."""
    (_, _, i, o), width = w.shape, 2 * lanes(w)
    packed = np.empty(((i + width - 1) // width, taps.shape[0] * o * width), w.dtype)
    for panel in range(packed.shape[0]):
        for t in range(taps.shape[0]):
            part = packed[panel, t * o * width : (t + 1) * o * width]
            pack_columns(part, w[taps[t, 0], taps[t, 1]].T, width * panel)
    return packed


def _fold_products(dx, dout, w, stride, padding):
    """`conv2d_input` for few channels i: the products of dout and w (k,l,i,o), (b,p,q,k l i), are folded into dx."""
    (b, p, q, o), (k, j, i, _) = dout.shape, w.shape
    packed = pack_weights(w.reshape(k * j * i, o).T)
    products = np.empty((b, p, q, len(packed) * 2 * lanes(dx)), dx.dtype)  # with the columns that fill the last panel
    plan = plan_of_windows(dout.shape, (1, 1, o, k * j * i), products.shape, (1, 1), (0, 0))
    multiply_patches(products, dout, packed, *plan)
    _fold(dx, products, (k, j), stride, padding)


@njit(parallel=True, **JIT)
def _fold(dx, products, size, stride, padding):
    """dx (b,h,w,i) = the sum of the windows (b,p,q,k l i), each added where it lies."""
    (b, h, w, channels), (_, p, q, _), (top, left) = dx.shape, products.shape, padding
    height, width = max(top + h, stride[0] * (p - 1) + size[0]), max(left + w, stride[1] * (q - 1) + size[1])
    for image in prange(b):
        framed = np.zeros((height, width * channels), dx.dtype)
        for y in range(p):
            for x in range(q):
                window, start = products[image, y, x], stride[1] * x * channels
                for k in range(size[0]):
                    row = framed[stride[0] * y + k]
                    for j in range(size[1] * channels):
                        row[start + j] += window[k * size[1] * channels + j]
        for y in range(h):
            dx[image, y] = framed[top + y, left * channels : (left + w) * channels].reshape(w, channels)


@njit(parallel=True, **JIT)
def _sum_over_pixels(dw, x, dout, rows, corners, frame):
    """dw (k l i, o): row r adds, over the output pixels, x[corner + rows[r]] times dout (b,p,q,o).

    First all images get their frames of zeros, and dout is packed in panels. Then threads share the rows. All tiles of
    a thread are summed over the pixels of a few images, which stay in the nearest cache, before those of the next few.
    """
    (b, p, q, o), width, size = dout.shape, 2 * lanes(dw), frame[2] * frame[3] * x.shape[3]
    flat, tiles, panels = dout.reshape(b * p * q, o), (dw.shape[0] + ROWS - 1) // ROWS, (o + width - 1) // width
    together = max(1, min(TERMS // max(1, p * q), b))
    blocks = (b + together - 1) // together
    padded, columns = np.empty(b * size, x.dtype), np.empty((blocks, panels, together * p * q * width), x.dtype)
    for block in prange(blocks):
        first, images = block * together, min(together, b - block * together)
        pad_images(padded[first * size : (first + images) * size], x, first, images, frame)
        for panel in range(panels):
            pixels = flat[first * p * q : (first + images) * p * q]
            pack_columns(columns[block, panel, : pixels.shape[0] * width], pixels, width * panel)

    sums, at = np.zeros((tiles, panels, ROWS * width), dw.dtype), np.zeros(ROWS * tiles, np.int64)
    at[: rows.size] = rows
    terms = np.empty(together * p * q, np.int64)
    for t in range(terms.size):
        terms[t] = t // (p * q) * size + corners[t % (p * q)]
    for group in prange(GROUPS):
        for block in range(blocks):
            first, images = block * together, min(together, b - block * together)
            some = padded[first * size : (first + images) * size]
            for panel in range(panels):
                for tile in range(group * tiles // GROUPS, (group + 1) * tiles // GROUPS):
                    total, pixels = load_tile(sums[tile, panel], 0), terms[: images * p * q]
                    total = sum_at_offsets(total, some, at, ROWS * tile, pixels, columns[block, panel])
                    store_tile(sums[tile, panel], 0, total)
        for tile in range(group * tiles // GROUPS, (group + 1) * tiles // GROUPS):
            for panel in range(panels):
                for r in range(min(ROWS, dw.shape[0] - ROWS * tile)):
                    write_row(dw[ROWS * tile + r], width * panel, sums[tile, panel], r)
