"""Reductions: a block of threads reduces a row, or a stripe of columns. Where that gives too few blocks for the GPU,
several share one, and a second launch adds their partial sums, in order: results are bitwise reproducible."""

import math

import numpy as np

from kernels.cuda.device import THREADS, Block, cuda, launch, launch_over, launch_rows, shares
from kernels.cuda.functions import COLUMN_TILE, COLUMNS, ROWS, block_sum, cast, column_sum, row_max, row_sum_exp

# ---- sums ----


def sum_axis(out, x):
    """out (o,i) = sum over the middle axis of x (o,n,i)."""
    outer, size, inner = x.shape
    if not out.size:
        return
    along_rows, stripes = inner == 1, -(-inner // COLUMNS)
    parts = shares(outer * stripes, size, THREADS if along_rows else ROWS)
    kernel, threads = (_sum_row, THREADS) if along_rows else (_sum_stripe, ROWS * COLUMNS)
    if parts == 1:
        launch(kernel, (outer * stripes, 1, 1), threads, out.reshape(outer, 1, inner), x)
        return
    found = Block(outer * parts * inner, x.dtype)
    launch(kernel, (outer * stripes, parts, 1), threads, found.shaped(outer, parts, inner), x)
    launch(kernel, (outer * stripes, 1, 1), threads, out.reshape(outer, 1, inner), found.shaped(outer, parts, inner))


@cuda.jit
def _sum_row(out, x):
    """out[o, p, 0] = the sum of part p of x[o, :, 0]."""
    shared = cuda.shared.array(THREADS, x.dtype)
    o, part = cuda.blockIdx.x, cuda.blockIdx.y
    share = (x.shape[1] + cuda.gridDim.y - 1) // cuda.gridDim.y
    total = x.dtype.type(0)
    for n in range(part * share + cuda.threadIdx.x, min(x.shape[1], (part + 1) * share), THREADS):
        total += x[o, n, 0]
    total = block_sum(shared, total)
    if cuda.threadIdx.x == 0:
        out[o, part, 0] = total


@cuda.jit
def _sum_stripe(out, x):
    """out[o, p, i] = the sum over n of part p of x[o, n, i], for ``COLUMNS`` of i."""
    shared = cuda.shared.array(COLUMN_TILE, x.dtype)
    stripes = (x.shape[2] + COLUMNS - 1) // COLUMNS
    o, part = cuda.blockIdx.x // stripes, cuda.blockIdx.y
    row, i = cuda.threadIdx.x // COLUMNS, cuda.blockIdx.x % stripes * COLUMNS + cuda.threadIdx.x % COLUMNS
    share = (x.shape[1] + cuda.gridDim.y - 1) // cuda.gridDim.y
    total = x.dtype.type(0)
    if i < x.shape[2]:
        for n in range(part * share + row, min(x.shape[1], (part + 1) * share), ROWS):
            total += x[o, n, i]
    total = column_sum(shared, total)
    if row == 0 and i < x.shape[2]:
        out[o, part, i] = total


def sum_squares(out, x):
    """out (1) = sum of x^2 over x (n), accumulated in float64."""
    parts = shares(1, x.size, THREADS)
    found = Block(parts, np.float64)
    launch(_sum_squares, parts, THREADS, found.shaped(parts), x)
    launch(_add_up, 1, THREADS, out, found.shaped(parts))


@cuda.jit
def _sum_squares(parts, x):
    shared = cuda.shared.array(THREADS, parts.dtype)
    total = 0.0
    for i in range(cuda.grid(1), x.size, cuda.gridsize(1)):
        total += parts.dtype.type(x[i]) * parts.dtype.type(x[i])
    total = block_sum(shared, total)
    if cuda.threadIdx.x == 0:
        parts[cuda.blockIdx.x] = total


@cuda.jit
def _add_up(out, parts):
    shared = cuda.shared.array(THREADS, parts.dtype)
    total = 0.0
    for i in range(cuda.threadIdx.x, parts.size, THREADS):
        total += parts[i]
    total = block_sum(shared, total)
    if cuda.threadIdx.x == 0:
        out[0] = total


# ---- softmax and logsumexp: one block per row ----


def logsumexp(out, x):
    """out (r) = log of the sum of e^x along the rows of x (r,n), n > 0."""
    launch_rows(x.shape, _logsumexp, out, x)


@cuda.jit
def _logsumexp(out, x):
    shared = cuda.shared.array(THREADS, x.dtype)
    r = cuda.blockIdx.x
    shift = _finite(row_max(shared, x, r))
    total = row_sum_exp(shared, x, r, shift)
    if cuda.threadIdx.x == 0:
        zero = cast(0.0, total)  # of which the simulator's logarithm is an error
        out[r] = shift + math.log(total) if total != zero else cast(-math.inf, total)


@cuda.jit(device=True)
def _finite(largest):
    """The maximum of a row; 0 if it is infinite, since inf - inf would be NaN."""
    return cast(0.0, largest) if math.isinf(largest) else largest


def logsumexp_backward(dx, dout, x):
    """dx (r,n) = softmax(x) dout, with dout (r); 0 for a row of -inf."""
    launch_rows(x.shape, _logsumexp_backward, dx, dout, x)


@cuda.jit
def _logsumexp_backward(dx, dout, x):
    shared = cuda.shared.array(THREADS, x.dtype)
    r = cuda.blockIdx.x
    shift = _finite(row_max(shared, x, r))
    total = row_sum_exp(shared, x, r, shift)
    weight = dout[r] / (total if total != cast(0.0, total) else cast(1.0, total))
    for n in range(cuda.threadIdx.x, x.shape[1], cuda.blockDim.x):
        dx[r, n] = math.exp(x[r, n] - shift) * weight


def softmax(out, x):
    """out (r,n) = e^x / sum of e^x along the rows of x (r,n), n > 0; NaN for a row of -inf."""
    launch_rows(x.shape, _softmax, out, x)


@cuda.jit
def _softmax(out, x):
    shared = cuda.shared.array(THREADS, x.dtype)
    r = cuda.blockIdx.x
    largest = row_max(shared, x, r)
    total = row_sum_exp(shared, x, r, largest)
    for n in range(cuda.threadIdx.x, x.shape[1], cuda.blockDim.x):
        out[r, n] = math.exp(x[r, n] - largest) / total


def softmax_backward(dx, dout, out):
    """dx (r,n) = out (dout - <dout, out>), with the inner product along the row."""
    launch_rows(dx.shape, _softmax_backward, dx, dout, out)


@cuda.jit
def _softmax_backward(dx, dout, out):
    shared = cuda.shared.array(THREADS, out.dtype)
    r = cuda.blockIdx.x
    product = out.dtype.type(0)
    for n in range(cuda.threadIdx.x, out.shape[1], cuda.blockDim.x):
        product += dout[r, n] * out[r, n]
    product = block_sum(shared, product)
    for n in range(cuda.threadIdx.x, out.shape[1], cuda.blockDim.x):
        dx[r, n] = out[r, n] * (dout[r, n] - product)


# ---- max: rows are short, so one thread per row ----


def max(out, x):
    """out (r) = the maximum of each row of x (r,n), n > 0."""
    launch_over(x.shape[0], _max, out, x)


@cuda.jit
def _max(out, x):
    for r in range(cuda.grid(1), x.shape[0], cuda.gridsize(1)):
        largest = x[r, 0]
        for n in range(1, x.shape[1]):
            larger = x[r, n] > largest or math.isnan(x[r, n])  # NaN propagates: nothing compares larger
            largest = x[r, n] if larger else largest
        out[r] = largest


def max_backward(dx, dout, x):
    """dx (r,n) = dout (r) at the first maximum of each row of x (r,n), or at its first NaN; 0 elsewhere."""
    launch_over(x.shape[0], _max_backward, dx, dout, x)


@cuda.jit
def _max_backward(dx, dout, x):
    for r in range(cuda.grid(1), x.shape[0], cuda.gridsize(1)):
        first = 0
        for n in range(x.shape[1]):
            dx[r, n] = dx.dtype.type(0)
            larger = x[r, n] > x[r, first] or (math.isnan(x[r, n]) and not math.isnan(x[r, first]))
            first = n if larger else first
        dx[r, first] = dout[r]
