"""Convolutions of images, defined in NumPy.

Images are (b,h,w,i): channels last. A convolution with weights (k,l,i,o) gives images (b,p,q,o). Its window of k by l
pixels moves in steps of ``stride`` over images that have ``padding`` rows and columns of zeros added on either side;
both are pairs (rows, columns). The adjoint of a convolution is the transposed convolution, whose weights therefore are
(k,l,o,i) where it maps i channels to o.
"""

import numpy as np


def _windows(x, w, stride, padding):
    """The windows of the padded images x (b,h,w,i), one for each output pixel: (b,p,q,i,k,l)."""
    rows, columns = padding
    padded = np.pad(x, ((0, 0), (rows, rows), (columns, columns), (0, 0)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, w.shape[:2], (1, 2))
    return windows[:, :: stride[0], :: stride[1]]


def conv2d(out, x, w, stride, padding):
    """out (b,p,q,o) = the sum over each window of x (b,h,w,i) times w (k,l,i,o)."""
    out[...] = np.einsum("bpqikl,klio->bpqo", _windows(x, w, stride, padding), w, optimize=True)


def conv2d_input(dx, dout, w, stride, padding):
    """dx (b,h,w,i) from dout (b,p,q,o): each number of dout, times w (k,l,i,o), is added to its window."""
    (b, h, width, i), (rows, columns) = dx.shape, padding
    padded = np.zeros((b, h + 2 * rows, width + 2 * columns, i), dx.dtype)
    for k, j in np.ndindex(w.shape[:2]):
        padded[:, k :: stride[0], j :: stride[1]][:, : dout.shape[1], : dout.shape[2]] += dout @ w[k, j].T
    dx[...] = padded[:, rows : rows + h, columns : columns + width]


def conv2d_weight(dw, x, dout, stride, padding):
    """dw (k,l,i,o) = the sum over the output pixels of their windows of x (b,h,w,i) times dout (b,p,q,o)."""
    dw[...] = np.einsum("bpqikl,bpqo->klio", _windows(x, dw, stride, padding), dout, optimize=True)
