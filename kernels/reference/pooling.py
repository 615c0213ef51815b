"""Pooling, defined in NumPy: images (b,h,w,c) to (b,p,q,c), each number from a window of one channel.

Windows of ``size`` (k,l) move in steps of ``stride``, both pairs (rows, columns); what is left after the last whole one
is left out. Average pooling is `sum_pool2d` with the scale 1 / (k l); its adjoint with the scale 1 is upsampling to the
nearest neighbour.
"""

import numpy as np


def _windows(x, size, stride):
    """(b,p,q,c,k,l)."""
    return np.lib.stride_tricks.sliding_window_view(x, size, (1, 2))[:, :: stride[0], :: stride[1]]


def _add_to_windows(dx, share, size, stride):
    """dx (b,h,w,c) = for each k, l, ``share(k, l)`` (b,p,q,c) added to the pixels that are k, l in their windows."""
    dx[...] = 0
    for k, j in np.ndindex(*size):
        part = share(k, j)
        dx[:, k :: stride[0], j :: stride[1]][:, : part.shape[1], : part.shape[2]] += part


def sum_pool2d(out, x, size, stride, scale):
    """out (b,p,q,c) = scale times the sum of each window of x (b,h,w,c)."""
    out[...] = scale * _windows(x, size, stride).sum((4, 5))


def sum_pool2d_backward(dx, dout, size, stride, scale):
    """dx (b,h,w,c) = scale times the sum of dout (b,p,q,c) over the windows that hold the pixel."""
    _add_to_windows(dx, lambda k, j: scale * dout, size, stride)


def max_pool2d(out, x, size, stride):
    """out (b,p,q,c) = the maximum of each window of x (b,h,w,c)."""
    out[...] = _windows(x, size, stride).max((4, 5))


def max_pool2d_backward(dx, dout, x, size, stride):
    """dx (b,h,w,c): dout (b,p,q,c) goes to the first maximum of each window of x, row by row, or to its first NaN."""
    windows = _windows(x, size, stride)
    first = windows.reshape(*windows.shape[:4], size[0] * size[1]).argmax(-1)
    _add_to_windows(dx, lambda k, j: np.where(first == k * size[1] + j, dout, 0), size, stride)
