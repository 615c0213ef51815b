"""Convolutions of images: products, on the small tiles of ``products.py``, of matrices that are nowhere in memory.

A window of an image, spread out, is a row of k·l·i numbers, and the windows of all output pixels are a matrix
(b p q, k l i). It would be k·l / (stride · stride) times as large as the images. But a window consists of k·l pixels,
each of them a row of the images (b h w, i), and there the threads that fetch a tile find its numbers (implicit
im2col).

    conv2d           out (b p q, o)  =  the windows of x  times  w (k l i, o)
    conv2d_weight    dw (k l i, o)   =  the windows of x, transposed,  times  dout (b p q, o)
    conv2d_input     dx (b h w, i)   =  windows of dout  times  weights, transposed, phase by phase

With a stride of 2, the even rows of dx meet other weights than the odd ones. So `conv2d_input` has as many phases as a
step of the window has pixels. Each is a convolution of dout with stride 1 and its share of the weights, in reverse.

There are small tiles only: the larger ones are as wide as 128 channels.
"""

from kernels.cuda.device import cuda
from kernels.cuda.products import INLINE, SMALL, SMALL_BLOCK, below, four_of_matrix, in_small_tiles, small_tile
from kernels.cuda.vectors import in_fours, load4

MOST = 2**31 - 1  # pixels, or rows of weights, for `_split`


def _rows(images):
    """Images (b,h,w,i) as a matrix (b h w, i); weights (k,l,i,o) as (k l i, o)."""
    a, b, c, channels = images.shape
    if a * b * c > MOST:
        raise ValueError(f"a convolution on the GPU takes at most {MOST} pixels, not images of shape {images.shape}")
    return images.reshape(a * b * c, channels)


# ---- division --------------------------------------------------------------------------------------------------------
# A GPU has no instruction for it, and to find a number of a window takes several divisions. As all divisors are known
# at the launch, a multiplication and a shift do.


def _divisor(number):
    """For `_split`: the number n, a factor f = 2^s / n, rounded up, and s. For m < 2^31, f n exceeds 2^s by less than
    n, and m f / 2^s exceeds m / n by less than 1 / n, too little to reach the next whole number."""
    number = max(1, number)  # what would be divided by 0 is not looked at
    shift = 31 + (number - 1).bit_length()
    return number, -(-(1 << shift) // number), shift


@cuda.jit(device=True, **INLINE)
def _split(number, divisor):
    """Quotient and remainder of a number from 0 to ``MOST``."""
    by, factor, shift = divisor
    quotient = number * factor >> shift
    return quotient, number - quotient * by


# ---- matrices put together from the rows of another: operands for ``small_tile`` -------------------------------------
# In every row, piece 0, 1, ... is the row find(view, row, piece) of ``source``, or zeros if that is -1.


@cuda.jit(device=True, **INLINE)
def _four_of_pieces(matrix, row, column, fours):
    """Four consecutive numbers of a row of such a matrix; zeros past its edges."""
    view, find, source, rows, pieces, by_width = matrix
    zero = source.dtype.type(0)
    if row >= rows or column >= pieces * source.shape[1]:
        return zero, zero, zero, zero
    if fours:  # then all are in one piece
        piece, place = _split(column, by_width)
        found = find(view, row, piece)
        return load4(source, found, place) if found >= 0 else (zero, zero, zero, zero)
    return (
        _number_of_pieces(matrix, row, column),
        _number_of_pieces(matrix, row, column + 1),
        _number_of_pieces(matrix, row, column + 2),
        _number_of_pieces(matrix, row, column + 3),
    )


@cuda.jit(device=True, **INLINE)
def _number_of_pieces(matrix, row, column):
    view, find, source, _, pieces, by_width = matrix
    piece, place = _split(column, by_width)
    found = find(view, row, piece)
    return source[found, place] if piece < pieces and found >= 0 else source.dtype.type(0)


@cuda.jit(device=True, **INLINE)
def _pixel(view, row, piece):
    """A pixel of the window of output pixel ``row``, as a row of images (b h w, i); -1 in the padding."""
    (h, w), by_across, by_high, by_wide, stride, padding = view
    above, q = _split(row, by_wide)
    image, p = _split(above, by_high)
    k, j = _split(piece, by_across)
    y, x = stride[0] * p + k - padding[0], stride[1] * q + j - padding[1]
    return (image * h + y) * w + x if 0 <= y < h and 0 <= x < w else -1


# ---- the windows of x ------------------------------------------------------------------------------------------------


def conv2d(out, x, w, stride, padding):
    """out (b,p,q,o) = the sum over each window of x (b,h,w,i) times w (k,l,i,o)."""
    windows = _windows(x, w, out, stride, padding)
    out, w = _rows(out), _rows(w)
    in_small_tiles(_conv2d, out, (*out.shape, w.shape[0]), _rows(x), w, *windows)


def _windows(x, w, out, stride, padding):
    """The view of x for `_pixel`, the pixels of a window, and the divisor by channels."""
    (_, h, width, i), (k, j, _, _), (_, p, q, _) = x.shape, w.shape, out.shape
    view = (h, width), _divisor(j), _divisor(p), _divisor(q), stride, padding
    return view, k * j, _divisor(i)


@cuda.jit(**SMALL_BLOCK)
def _conv2d(out, x, w, view, pieces, by_width, terms):
    m, i0, start = out.shape[0] // cuda.gridDim.z, cuda.blockIdx.x * SMALL, cuda.blockIdx.z * terms
    windows = (view, _pixel, x, m, pieces, by_width), _four_of_pieces, in_fours(x)
    weights, end = (w, four_of_matrix, in_fours(w)), min(w.shape[0], start + terms)
    small_tile(out, below, cuda.blockIdx.z * m, m, windows, weights, True, False, i0, start, end)


def conv2d_weight(dw, x, dout, stride, padding):
    """dw (k,l,i,o) = the sum over the output pixels of their windows of x (b,h,w,i) times dout (b,p,q,o)."""
    windows = _windows(x, dw, dout, stride, padding)
    dw, dout = _rows(dw), _rows(dout)
    in_small_tiles(_conv2d_weight, dw, (*dw.shape, dout.shape[0]), _rows(x), dout, *windows)


@cuda.jit(**SMALL_BLOCK)
def _conv2d_weight(dw, x, dout, view, pieces, by_width, terms):
    m, i0, start = dw.shape[0] // cuda.gridDim.z, cuda.blockIdx.x * SMALL, cuda.blockIdx.z * terms
    windows = (view, _pixel, x, dout.shape[0], pieces, by_width), _four_of_pieces, in_fours(x)
    outputs, end = (dout, four_of_matrix, in_fours(dout)), min(dout.shape[0], start + terms)
    small_tile(dw, below, cuda.blockIdx.z * m, m, windows, outputs, False, False, i0, start, end)


# ---- the windows of dout, phase by phase -----------------------------------------------------------------------------


def conv2d_input(dx, dout, w, stride, padding):
    """dx (b,h,w,i) from dout (b,p,q,o): each number of dout, times w (k,l,i,o), is added to its window.

    A phase is a group of tiles: the pixels of dx whose row and column leave the same remainders after a division by
    the stride. No phase has more pixels, or weights, than the sizes given here.
    """
    (b, h, width, i), (k, j, _, o), (rows, columns) = dx.shape, w.shape, stride
    sizes = b * -(-h // rows) * -(-width // columns), i, -(-k // rows) * -(-j // columns) * o
    shapes = b, (h, width), (k, j), dout.shape[1:3], stride, padding
    phases = min(rows, h), min(columns, width)
    divisors = _divisors(j, columns), _divisors(h, rows), _divisors(width, columns), _divisor(o)
    operands = _rows(dout), _rows(w), shapes, phases, divisors
    in_small_tiles(_conv2d_input, _rows(dx), sizes, *operands, groups=phases[0] * phases[1])


def _divisors(size, stride):
    """Those by the number of every ``stride``-th of ``size`` things, beginning with the first, or with a later one."""
    return _divisor(-(-size // stride)), _divisor(size // stride)


@cuda.jit(**SMALL_BLOCK)
def _conv2d_input(dx, dout, w, shapes, phases, divisors, terms):
    b, (h, width), (k, j), size, stride, padding = shapes
    by_weights, by_rows, by_columns, by_width = divisors
    phase, i0 = cuda.blockIdx.x % (phases[0] * phases[1]), cuda.blockIdx.x // (phases[0] * phases[1]) * SMALL
    y0, x0 = phase // phases[1], phase % phases[1]
    k0, down, high, above = _phase(y0, h, k, stride[0], padding[0])
    j0, across, wide, before = _phase(x0, width, j, stride[1], padding[1])
    by_across = by_weights[0] if across == by_weights[0][0] else by_weights[1]
    by_high = by_rows[0] if high == by_rows[0][0] else by_rows[1]
    by_wide = by_columns[0] if wide == by_columns[0][0] else by_columns[1]

    m, channels, pieces, start = b * high * wide, w.shape[0] // (k * j), down * across, cuda.blockIdx.z * terms
    view = size, by_across, by_high, by_wide, (1, 1), (above, before)
    windows = (view, _pixel, dout, m, pieces, by_width), _four_of_pieces, in_fours(dout)
    of_phase = by_across, (k0 + stride[0] * (down - 1), j0 + stride[1] * (across - 1)), stride, j, channels
    weights = (of_phase, _weights, w, channels, pieces, by_width), _four_of_pieces, in_fours(w)
    where = cuda.blockIdx.z * b * h * width, (h, width), by_high, by_wide, (y0, x0), stride
    end = min(pieces * w.shape[1], start + terms)
    small_tile(dx, _pixel_of_phase, where, m, windows, weights, True, True, i0, start, end)


@cuda.jit(device=True, **INLINE)
def _phase(first, size, window, stride, padding):
    """For the pixels first, first + stride, ... below ``size``: the first number of a window that meets one, how many
    such numbers there are, how many pixels, and their padding as a convolution with stride 1."""
    number = (first + padding) % stride
    numbers = (window - number + stride - 1) // stride
    return number, numbers, (size - first + stride - 1) // stride, numbers - 1 - (first + padding) // stride


@cuda.jit(device=True, **INLINE)
def _weights(view, channel, piece):
    """Those of an input channel for a pixel of a phase's window, as a row of w (k l i, o): the last come first."""
    by_across, last, stride, width, channels = view
    k, j = _split(piece, by_across)
    return ((last[0] - stride[0] * k) * width + last[1] - stride[1] * j) * channels + channel


@cuda.jit(device=True, **INLINE)
def _pixel_of_phase(where, row):
    """A pixel of a phase, as a row of dx (b h w, i), below those of other shares."""
    others, (h, w), by_high, by_wide, first, stride = where
    above, q = _split(row, by_wide)
    image, p = _split(above, by_high)
    return others + (image * h + first[0] + stride[0] * p) * w + first[1] + stride[1] * q
