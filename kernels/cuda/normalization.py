"""Batch normalisation: a block reduces a stripe of columns over the batch; the rest is elementwise."""

import math

from kernels.cuda.device import cuda, launch, launch_over
from kernels.cuda.functions import COLUMN_TILE, COLUMNS, ROWS, cast, column_sum


def batch_moments(mean, variance, x):
    """mean and biased variance (n) of the columns of x (b,n)."""
    _launch_stripes(mean.size, _batch_moments, mean, variance, x)


def _launch_stripes(columns, kernel, *arguments):
    if columns:
        launch(kernel, -(-columns // COLUMNS), ROWS * COLUMNS, *arguments)


@cuda.jit
def _batch_moments(mean, variance, x):
    shared = cuda.shared.array(COLUMN_TILE, x.dtype)
    row, n = cuda.threadIdx.x // COLUMNS, cuda.blockIdx.x * COLUMNS + cuda.threadIdx.x % COLUMNS
    zero, count = x.dtype.type(0), x.dtype.type(x.shape[0])
    total = zero
    if n < x.shape[1]:
        for b in range(row, x.shape[0], ROWS):
            total += x[b, n]
    middle = column_sum(shared, total) / count
    total = zero
    if n < x.shape[1]:
        for b in range(row, x.shape[0], ROWS):
            off = x[b, n] - middle
            total += off * off
    total = column_sum(shared, total) / count
    if row == 0 and n < x.shape[1]:
        mean[n], variance[n] = middle, total


def batch_norm(out, normalized, x, mean, variance, gamma, beta, epsilon):
    """normalized (b,n) = (x - mean) / sqrt(variance + epsilon);  out = gamma normalized + beta;  the others (n)."""
    launch_over(out.size, _batch_norm, out, normalized, x, mean, variance, gamma, beta, x.dtype.type(epsilon))


@cuda.jit
def _batch_norm(out, normalized, x, mean, variance, gamma, beta, epsilon):
    size = x.shape[1]
    for i in range(cuda.grid(1), out.size, cuda.gridsize(1)):
        b, n = i // size, i % size
        scaled = (x[b, n] - mean[n]) / math.sqrt(variance[n] + epsilon)
        normalized[b, n] = scaled
        out[b, n] = gamma[n] * scaled + beta[n]


def batch_norm_backward(dx, dgamma, dbeta, dout, normalized, variance, gamma, epsilon):
    """dgamma, dbeta (n) = sums over b of (dout normalized) and of dout;  dx (b,n), for mean and variance from x:

    dx = gamma / sqrt(variance + epsilon) (dout - dbeta / b - normalized dgamma / b).
    """
    _launch_stripes(dbeta.size, _batch_norm_sums, dgamma, dbeta, dout, normalized)
    eps = dx.dtype.type(epsilon)
    launch_over(dx.size, _batch_norm_backward, dx, dgamma, dbeta, dout, normalized, variance, gamma, eps)


@cuda.jit
def _batch_norm_sums(dgamma, dbeta, dout, normalized):
    shared = cuda.shared.array(COLUMN_TILE, dout.dtype)
    row, n = cuda.threadIdx.x // COLUMNS, cuda.blockIdx.x * COLUMNS + cuda.threadIdx.x % COLUMNS
    weighted = plain = dout.dtype.type(0)
    if n < dout.shape[1]:
        for b in range(row, dout.shape[0], ROWS):
            weighted += dout[b, n] * normalized[b, n]
            plain += dout[b, n]
    weighted = column_sum(shared, weighted)
    plain = column_sum(shared, plain)
    if row == 0 and n < dout.shape[1]:
        dgamma[n], dbeta[n] = weighted, plain


@cuda.jit
def _batch_norm_backward(dx, dgamma, dbeta, dout, normalized, variance, gamma, epsilon):
    size = dx.shape[1]
    for i in range(cuda.grid(1), dx.size, cuda.gridsize(1)):
        b, n = i // size, i % size
        weight = cast(1.0, epsilon) / cast(dx.shape[0], epsilon)
        slope = gamma[n] / math.sqrt(variance[n] + epsilon)
        dx[b, n] = slope * (dout[b, n] - weight * (dbeta[n] + normalized[b, n] * dgamma[n]))
