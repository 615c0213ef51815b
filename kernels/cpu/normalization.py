"""Batch normalisation: one pass for the mean, one for the variance, one to normalise."""

import math

from numba import njit

from kernels.cpu.vector_math import JIT, cast


@njit(**JIT)
def batch_moments(mean, variance, x):
    """mean and biased variance (n) of the columns of x (b,n)."""
    mean[:] = 0
    variance[:] = 0
    for b in range(x.shape[0]):
        row = x[b]
        for n in range(mean.size):
            mean[n] += row[n]
    for n in range(mean.size):
        mean[n] /= cast(x.shape[0], mean[n])
    for b in range(x.shape[0]):
        row = x[b]
        for n in range(mean.size):
            off = row[n] - mean[n]
            variance[n] += off * off
    for n in range(mean.size):
        variance[n] /= cast(x.shape[0], mean[n])


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
    for b in range(dout.shape[0]):
        dy, scaled = dout[b], normalized[b]
        for n in range(dy.size):
            dgamma[n] += dy[n] * scaled[n]
            dbeta[n] += dy[n]
    for b in range(dout.shape[0]):
        dy, scaled, result = dout[b], normalized[b], dx[b]
        for n in range(dy.size):
            weight = cast(1.0 / dout.shape[0], dy[n])
            slope = gamma[n] / math.sqrt(variance[n] + cast(epsilon, dy[n]))
            result[n] = slope * (dy[n] - weight * (dbeta[n] + scaled[n] * dgamma[n]))
