"""Batch normalisation: a block reduces a stripe of columns over the batch; the rest is elementwise."""

import math

from kernels.cuda.device import cuda, launch, launch_over
from kernels.cuda.functions import BLOCK, COLUMN_TILE, COLUMNS, ROWS, cast, column_sum


def batch_moments(mean, variance, x):
    """mean and biased variance (n) of the columns of x (b,n).

    Far from 0, the sum of x rounds too much. The mean is about ``middle``, and the differences from that, which are
    small, correct it.
    """
    _launch_stripes(mean.size, _batch_moments, mean, variance, x)


def _launch_stripes(columns, kernel, *arguments):
    if columns:
        launch(kernel, -(-columns // COLUMNS), ROWS * COLUMNS, *arguments)


@cuda.jit
def _batch_moments(mean, variance, x):
    shared = cuda.shared.array(COLUMN_TILE, x.dtype)
    row, n = cuda.threadIdx.x // COLUMNS, cuda.blockIdx.x * COLUMNS + cuda.threadIdx.x % COLUMNS
    zero, count = x.dtype.type(0), x.dtype.type(x.shape[0])
    total = squares = zero
    if n < x.shape[1]:
        for start in range(row, x.shape[0], ROWS * BLOCK):
            block = zero
            for b in range(start, min(x.shape[0], start + ROWS * BLOCK), ROWS):
                block += x[b, n]
            total += block
    middle = column_sum(shared, total) / count
    total = zero
    if n < x.shape[1]:
        for start in range(row, x.shape[0], ROWS * BLOCK):
            block = block_of_squares = zero
            for b in range(start, min(x.shape[0], start + ROWS * BLOCK), ROWS):
                off = x[b, n] - middle
                block += off
                block_of_squares += off * off
            total += block
            squares += block_of_squares
    off = column_sum(shared, total) / count
    spread = column_sum(shared, squares) / count - off * off
    if row == 0 and n < x.shape[1]:
        mean[n], variance[n] = middle + off, zero if spread < zero else spread


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
    zero = dout.dtype.type(0)
    weighted = plain = zero
    if n < dout.shape[1]:
        for start in range(row, dout.shape[0], ROWS * BLOCK):
            block = block_of_weighted = zero
            for b in range(start, min(dout.shape[0], start + ROWS * BLOCK), ROWS):
                block += dout[b, n]
                block_of_weighted += dout[b, n] * normalized[b, n]
            plain += block
            weighted += block_of_weighted
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
