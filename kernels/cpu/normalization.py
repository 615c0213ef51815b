"""Batch normalisation: one pass for the mean, one for the variance, one to normalise."""

import math

import numpy as np
from numba import njit

from kernels.cpu.vector_math import BLOCK, JIT, cast


@njit(**JIT)
def batch_moments(mean, variance, x):
    """mean and biased variance (n) of the columns of x (b,n).

    Far from 0, the sum of x rounds too much. The mean is about ``middle``, and the differences from that, which are
    small, correct it.
    """
    middle, block, squares = np.empty_like(mean), np.empty_like(mean), np.empty_like(mean)
    middle[:] = 0
    for start in range(0, x.shape[0], BLOCK):
        block[:] = 0
        rows = x[start : start + BLOCK]
        for b in range(rows.shape[0]):
            row = rows[b]
            for n in range(mean.size):
                block[n] += row[n]
        for n in range(mean.size):
            middle[n] += block[n]
    for n in range(mean.size):
        middle[n] /= cast(x.shape[0], middle[n])
    mean[:] = 0
    variance[:] = 0
    for start in range(0, x.shape[0], BLOCK):
        block[:] = 0
        squares[:] = 0
        rows = x[start : start + BLOCK]
        for b in range(rows.shape[0]):
            row = rows[b]
            for n in range(mean.size):
                off = row[n] - middle[n]
                block[n] += off
                squares[n] += off * off
        for n in range(mean.size):
            mean[n] += block[n]
            variance[n] += squares[n]
    for n in range(mean.size):
        zero, count = cast(0.0, mean[n]), cast(x.shape[0], mean[n])
        off = mean[n] / count
        mean[n] = middle[n] + off
        spread = variance[n] / count - off * off
        variance[n] = zero if spread < zero else spread


@njit(**JIT)
def batch_norm(out, normalized, x, mean, variance, gamma, beta, epsilon):
    """normalized (b,n) = (x - mean) / sqrt(variance + epsilon);  out = gamma normalized + beta;  the others (n)."""
    for b in range(x.shape[0]):
        row, scaled, result = x[b], normalized[b], out[b]
        for n in range(row.size):
            scaled[n] = (row[n] - mean[n]) / math.sqrt(variance[n] + cast(epsilon, row[n]))
            result[n] = gamma[n] * scaled[n] + beta[n]


@njit(**JIT)
def batch_norm_backward(dx, dgamma, dbeta, dout, normalized, variance, gamma, epsilon):
    """dgamma, dbeta (n) = sums over b of (dout normalized) and of dout;  dx (b,n), for mean and variance from x:

    dx = gamma / sqrt(variance + epsilon) (dout - dbeta / b - normalized dgamma / b).
    """
    dgamma[:] = 0
    dbeta[:] = 0
    weighted, plain = np.empty_like(dgamma), np.empty_like(dbeta)
    for start in range(0, dout.shape[0], BLOCK):
        weighted[:] = 0
        plain[:] = 0
        dys, scaleds = dout[start : start + BLOCK], normalized[start : start + BLOCK]
        for b in range(dys.shape[0]):
            dy, scaled = dys[b], scaleds[b]
            for n in range(dy.size):
                weighted[n] += dy[n] * scaled[n]
                plain[n] += dy[n]
        for n in range(dgamma.size):
            dgamma[n] += weighted[n]
            dbeta[n] += plain[n]
    for b in range(dout.shape[0]):
        dy, scaled, result = dout[b], normalized[b], dx[b]
        for n in range(dy.size):
            weight = cast(1.0 / dout.shape[0], dy[n])
            slope = gamma[n] / math.sqrt(variance[n] + cast(epsilon, dy[n]))
            result[n] = slope * (dy[n] - weight * (dbeta[n] + scaled[n] * dgamma[n]))
