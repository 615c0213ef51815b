"""Reductions, defined in NumPy."""

import numpy as np


def sum_axis(out, x):
    """out (o,i) = sum over the middle axis of x (o,n,i)."""
    out[...] = x.sum(1)


def sum_squares(out, x):
    """out (1) = sum of x^2 over x (n), accumulated in float64."""
    out[0] = np.sum(x.astype(np.float64) ** 2)


def logsumexp(out, x):
    """out (r) = log of the sum of e^x along the rows of x (r,n), n > 0."""
    out[...] = np.logaddexp.reduce(x, axis=1)


def logsumexp_backward(dx, dout, x, out):
    """dx (r,n) = softmax(x) dout, with dout and out (r)."""
    dx[...] = np.exp(x - out[:, None]) * dout[:, None]


def softmax(out, x):
    """out (r,n) = e^x / sum of e^x along the rows of x (r,n), n > 0."""
    e = np.exp(x - x.max(1, keepdims=True))
    out[...] = e / e.sum(1, keepdims=True)


def softmax_backward(dx, dout, out):
    """dx (r,n) = out (dout - <dout, out>), with the inner product along the row."""
    dx[...] = out * (dout - (dout * out).sum(1, keepdims=True))


def maxout(out, x):
    """out (r) = the maximum of each row of x (r,n), n > 0."""
    out[...] = x.max(1)


def maxout_backward(dx, dout, x):
    """dx (r,n) = dout (r) at the first maximum of each row of x (r,n), 0 elsewhere."""
    dx[...] = 0
    dx[np.arange(len(x)), x.argmax(1)] = dout
