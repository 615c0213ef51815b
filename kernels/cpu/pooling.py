"""Pooling: channels are innermost, so that a loop over them is a loop over vectors."""

import numpy as np
from numba import njit, prange

from kernels.cpu.vector_math import JIT, cast


@njit(parallel=True, **JIT)
def sum_pool2d(out, x, size, stride, scale):
    """out (b,p,q,c) = scale times the sum of each window of x (b,h,w,c)."""
    for b in prange(out.shape[0]):
        for p in range(out.shape[1]):
            for q in range(out.shape[2]):
                total = out[b, p, q]
                total[:] = 0
                for k in range(size[0]):
                    for j in range(size[1]):
                        pixel = x[b, stride[0] * p + k, stride[1] * q + j]
                        for c in range(total.size):
                            total[c] += pixel[c]
                for c in range(total.size):
                    total[c] *= cast(scale, total[c])


@njit(parallel=True, **JIT)
def sum_pool2d_backward(dx, dout, size, stride, scale):
    """dx (b,h,w,c) = scale times the sum of dout (b,p,q,c) over the windows that hold the pixel."""
    for b in prange(dx.shape[0]):
        dx[b] = 0
        for p in range(dout.shape[1]):
            for q in range(dout.shape[2]):
                share = dout[b, p, q]
                for k in range(size[0]):
                    for j in range(size[1]):
                        pixel = dx[b, stride[0] * p + k, stride[1] * q + j]
                        for c in range(share.size):
                            pixel[c] += cast(scale, share[c]) * share[c]


@njit(parallel=True, **JIT)
def max_pool2d(out, x, size, stride):
    """out (b,p,q,c) = the maximum of each window of x (b,h,w,c)."""
    for b in prange(out.shape[0]):
        for p in range(out.shape[1]):
            for q in range(out.shape[2]):
                largest = out[b, p, q]
                largest[:] = x[b, stride[0] * p, stride[1] * q]
                for k in range(size[0]):
                    for j in range(size[1]):
                        pixel = x[b, stride[0] * p + k, stride[1] * q + j]
                        for c in range(largest.size):
                            larger = pixel[c] > largest[c] or pixel[c] != pixel[c]  # NaN is the maximum
                            largest[c] = pixel[c] if larger else largest[c]


@njit(parallel=True, **JIT)
def max_pool2d_backward(dx, dout, x, size, stride):
    """dx (b,h,w,c): dout (b,p,q,c) goes to the first maximum of each window of x, row by row, or to its first NaN."""
    for b in prange(dx.shape[0]):
        dx[b] = 0
        largest, place = np.empty_like(x[b, 0, 0]), np.empty(x.shape[3], np.int64)
        for p in range(dout.shape[1]):
            for q in range(dout.shape[2]):
                largest[:] = x[b, stride[0] * p, stride[1] * q]
                place[:] = 0
                for k in range(size[0]):
                    for j in range(size[1]):
                        pixel = x[b, stride[0] * p + k, stride[1] * q + j]
                        for c in range(largest.size):
                            larger = pixel[c] > largest[c] or (pixel[c] != pixel[c] and largest[c] == largest[c])
                            largest[c] = pixel[c] if larger else largest[c]
                            place[c] = k * size[1] + j if larger else place[c]
                for c in range(largest.size):
                    row, column = stride[0] * p + place[c] // size[1], stride[1] * q + place[c] % size[1]
                    dx[b, row, column, c] += dout[b, p, q, c]
