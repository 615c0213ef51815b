"""Pooling: a thread computes a number of the result, and finds what it needs for it.

The backward kernels do so too: a pixel looks at the windows that hold it, in order. If each window added to its pixels,
threads would have to add to one number at once, in an order that changes from run to run, and the bits with it.
"""

import math

from kernels.cuda.device import cuda, launch_over
from kernels.cuda.functions import cast


def sum_pool2d(out, x, size, stride, scale):
    """out (b,p,q,c) = scale times the sum of each window of x (b,h,w,c)."""
    launch_over(out.size, _sum_pool2d, out, x, size, stride, scale)


@cuda.jit(device=True)
def _place(images, n):
    """(b, row, column, channel) of the n-th number of images (b,h,w,c)."""
    _, h, w, channels = images.shape
    pixel = n // channels
    return pixel // (h * w), pixel // w % h, pixel % w, n % channels


@cuda.jit
def _sum_pool2d(out, x, size, stride, scale):
    for n in range(cuda.grid(1), out.size, cuda.gridsize(1)):
        b, p, q, c = _place(out, n)
        total = x.dtype.type(0)
        for k in range(size[0]):
            for j in range(size[1]):
                total += x[b, stride[0] * p + k, stride[1] * q + j, c]
        out[b, p, q, c] = cast(scale, total) * total


@cuda.jit(device=True)
def _first_window(pixel, size, stride):
    """The first window, along rows or columns, that may hold a pixel; the last is at ``pixel // stride``."""
    return max(0, (pixel - size + stride) // stride)


def sum_pool2d_backward(dx, dout, size, stride, scale):
    """dx (b,h,w,c) = scale times the sum of dout (b,p,q,c) over the windows that hold the pixel."""
    launch_over(dx.size, _sum_pool2d_backward, dx, dout, size, stride, scale)


@cuda.jit
def _sum_pool2d_backward(dx, dout, size, stride, scale):
    for n in range(cuda.grid(1), dx.size, cuda.gridsize(1)):
        b, y, x, c = _place(dx, n)
        total = dx.dtype.type(0)
        for p in range(_first_window(y, size[0], stride[0]), min(dout.shape[1], y // stride[0] + 1)):
            for q in range(_first_window(x, size[1], stride[1]), min(dout.shape[2], x // stride[1] + 1)):
                total += dout[b, p, q, c]
        dx[b, y, x, c] = cast(scale, total) * total


def max_pool2d(out, x, size, stride):
    """out (b,p,q,c) = the maximum of each window of x (b,h,w,c)."""
    launch_over(out.size, _max_pool2d, out, x, size, stride)


@cuda.jit(device=True)
def _first_maximum(x, b, p, q, c, size, stride):
    """(row, column) of the first maximum of a window, row by row, or of its first NaN."""
    top, left = stride[0] * p, stride[1] * q
    row, column = top, left
    for y in range(top, top + size[0]):
        for z in range(left, left + size[1]):
            number, largest = x[b, y, z, c], x[b, row, column, c]
            if number > largest or (math.isnan(number) and not math.isnan(largest)):
                row, column = y, z
    return row, column


@cuda.jit
def _max_pool2d(out, x, size, stride):
    for n in range(cuda.grid(1), out.size, cuda.gridsize(1)):
        b, p, q, c = _place(out, n)
        row, column = _first_maximum(x, b, p, q, c, size, stride)
        out[b, p, q, c] = x[b, row, column, c]


def max_pool2d_backward(dx, dout, x, size, stride):
    """dx (b,h,w,c): dout (b,p,q,c) goes to the first maximum of each window of x, row by row, or to its first NaN."""
    launch_over(dx.size, _max_pool2d_backward, dx, dout, x, size, stride)


@cuda.jit
def _max_pool2d_backward(dx, dout, x, size, stride):
    for n in range(cuda.grid(1), dx.size, cuda.gridsize(1)):
        b, y, z, c = _place(dx, n)
        total = dx.dtype.type(0)
        for p in range(_first_window(y, size[0], stride[0]), min(dout.shape[1], y // stride[0] + 1)):
            for q in range(_first_window(z, size[1], stride[1]), min(dout.shape[2], z // stride[1] + 1)):
                row, column = _first_maximum(x, b, p, q, c, size, stride)
                if row == y and column == z:
                    total += dout[b, p, q, c]
        dx[b, y, z, c] = total
