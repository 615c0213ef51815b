"""Batch normalisation: one pass for the mean, one for the variance, one to normalise."""

import math

import numpy as np
from numba import njit, prange

from kernels.cpu.vector_math import JIT, cast

FEWEST = 16  # rows of a part


@njit(**JIT)
def _rows_of_a_part(x):
    """How many rows of x (b,n) are summed in one part: parts run in parallel, and their sums are added in order.

    From 256 rows on there are about as many parts as rows in each, so a sum rounds like sums of sqrt(b) numbers.
    """
    return max(FEWEST, int(math.sqrt(x.shape[0])))


@njit(**JIT)
def _sum_rows(out, rows):
    """out (n) = the sum of ``rows`` (b,n)."""
    out[:] = 0
    for b in range(rows.shape[0]):
        row = rows[b]
        for n in range(out.size):
            out[n] += row[n]


@njit(**JIT)
def _sum_differences(out, squares, rows, middle):
    """out, squares (n) = the sums of the differences of ``rows`` (b,n) from ``middle`` (n), and of their squares."""
    out[:] = 0
    squares[:] = 0
    for b in range(rows.shape[0]):
        row = rows[b]
        for n in range(out.size):
            off = row[n] - middle[n]
            out[n] += off
            squares[n] += off * off


@njit(parallel=True, **JIT)
def batch_moments(mean, variance, x):
    """mean and biased variance (n) of the columns of x (b,n).

    Far from 0, the sum of x rounds too much. The mean is about ``middle``, and the differences from that, which are
    small, correct it.
    """
    middle, rows = np.empty_like(mean), _rows_of_a_part(x)
    parts = (x.shape[0] + rows - 1) // rows
    sums, squares = np.empty((parts, mean.size), x.dtype), np.empty((parts, mean.size), x.dtype)
    for part in prange(parts):
        _sum_rows(sums[part], x[rows * part : rows * (part + 1)])
    _sum_rows(middle, sums)
    for n in range(mean.size):
        middle[n] /= cast(x.shape[0], middle[n])
    for part in prange(parts):
        _sum_differences(sums[part], squares[part], x[rows * part : rows * (part + 1)], middle)
    _sum_rows(mean, sums)
    _sum_rows(variance, squares)
    for n in range(mean.size):
        zero, count = cast(0.0, mean[n]), cast(x.shape[0], mean[n])
        off = mean[n] / count
        mean[n] = middle[n] + off
        spread = variance[n] / count - off * off
        variance[n] = zero if spread < zero else spread


@njit(parallel=True, **JIT)
def batch_norm(out, normalized, x, mean, variance, gamma, beta, epsilon):
    """normalized (b,n) = (x - mean) / sqrt(variance + epsilon);  out = gamma normalized + beta;  the others (n)."""
    for b in prange(x.shape[0]):
        row, scaled, result = x[b], normalized[b], out[b]
        for n in range(row.size):
            scaled[n] = (row[n] - mean[n]) / math.sqrt(variance[n] + cast(epsilon, row[n]))
            result[n] = gamma[n] * scaled[n] + beta[n]


@njit(**JIT)
def _sum_products(products, sums, dout, normalized):
    """products, sums (n) = the sums over b of (dout normalized) and of dout (b,n)."""
    products[:] = 0
    sums[:] = 0
    for b in range(dout.shape[0]):
        dy, scaled = dout[b], normalized[b]
        for n in range(sums.size):
            products[n] += dy[n] * scaled[n]
            sums[n] += dy[n]


@njit(parallel=True, **JIT)
def batch_norm_backward(dx, dgamma, dbeta, dout, normalized, variance, gamma, epsilon):
    """dgamma, dbeta (n) = sums over b of (dout normalized) and of dout;  dx (b,n), for mean and variance from x:

    dx = gamma / sqrt(variance + epsilon) (dout - dbeta / b - normalized dgamma / b).
    """
    rows = _rows_of_a_part(dout)
    parts = (dout.shape[0] + rows - 1) // rows
    products, sums = np.empty((parts, gamma.size), dout.dtype), np.empty((parts, gamma.size), dout.dtype)
    for part in prange(parts):
        here = slice(rows * part, rows * (part + 1))
        _sum_products(products[part], sums[part], dout[here], normalized[here])
    _sum_rows(dgamma, products)
    _sum_rows(dbeta, sums)
    for b in prange(dout.shape[0]):
        dy, scaled, result = dout[b], normalized[b], dx[b]
        for n in range(dy.size):
            weight = cast(1.0 / dout.shape[0], dy[n])
            slope = gamma[n] / math.sqrt(variance[n] + cast(epsilon, dy[n]))
            result[n] = slope * (dy[n] - weight * (dbeta[n] + scaled[n] * dgamma[n]))
