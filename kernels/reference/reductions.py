"""Reductions, defined in NumPy."""

import numpy as np


def sum_axis(out, x):
    """out (o,i) = sum over the middle axis of x (o,n,i)."""
    out[...] = x.sum(1, dtype=np.float64)  # where the middle axis is not the last, NumPy adds one after the other


def sum_squares(out, x):
    """out (1) = sum of x^2 over x (n), accumulated in float64."""
    out[0] = np.sum(x.astype(np.float64) ** 2)


def logsumexp(out, x):
    """out (r) = log of the sum of e^x along the rows of x (r,n), n > 0."""
    shift = _shift(x)
    with np.errstate(divide="ignore"):  # log 0 is -inf
        out[...] = (shift + np.log(np.exp(x - shift).sum(1, keepdims=True)))[:, 0]


def _shift(x):
    """The maximum of each row, kept as an axis; 0 where it is infinite, since inf - inf would be NaN."""
    largest = x.max(1, keepdims=True)
    return np.where(np.isinf(largest), 0, largest)


def logsumexp_backward(dx, dout, x):
    """dx (r,n) = softmax(x) dout, with dout (r); 0 for a row of -inf."""
    e = np.exp(x - _shift(x))
    total = e.sum(1, keepdims=True)
    dx[...] = e * (dout[:, None] / np.where(total == 0, 1, total))


def softmax(out, x):
    """out (r,n) = e^x / sum of e^x along the rows of x (r,n), n > 0; NaN for a row of -inf."""
    e = np.exp(x - x.max(1, keepdims=True))
    out[...] = e / e.sum(1, keepdims=True)


def softmax_backward(dx, dout, out):
    """dx (r,n) = out (dout - <dout, out>), with the inner product along the row."""
    dx[...] = out * (dout - (dout * out).sum(1, keepdims=True))


def max(out, x):
    """out (r) = the maximum of each row of x (r,n), n > 0."""
    out[...] = x.max(1)


def max_backward(dx, dout, x):
    """dx (r,n) = dout (r) at the first maximum of each row of x (r,n), or at its first NaN; 0 elsewhere."""
    dx[...] = 0
    dx[np.arange(len(x)), x.argmax(1)] = dout
