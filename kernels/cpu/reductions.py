"""Reductions, and functions built on them."""

import math

import numpy as np
from numba import njit, prange

from kernels.cpu import vector_math as vm
from kernels.cpu.vector_math import BLOCK, EXACT, JIT, cast

PART, LANES = 1 << 15, 64  # numbers per turn of a parallel loop, and sums that it adds up side by side


@njit(**JIT)
def sum_axis(out, x):
    """out (o,i) = sum over the middle axis of x (o,n,i)."""
    outer, size, inner = x.shape
    block = np.empty(inner, out.dtype)
    for o in range(outer):
        if inner == 1:
            row, total = x[o], cast(0.0, out[o, 0])
            if size <= BLOCK:  # slices cost as much time as a short row
                total = _row_sum(row)
            else:
                for start in range(0, size, BLOCK):
                    total += _row_sum(row[start : start + BLOCK])
            out[o, 0] = total
        else:
            result = out[o]
            result[:] = 0
            for start in range(0, size, BLOCK):
                block[:] = 0
                rows = x[o, start : start + BLOCK]
                for n in range(rows.shape[0]):
                    row = rows[n]
                    for i in range(inner):
                        block[i] += row[i]
                for i in range(inner):
                    result[i] += block[i]


@njit(**JIT)
def _row_sum(row):
    """The sum of a row (n,1)."""
    total = cast(0.0, row[0, 0])
    for n in range(row.shape[0]):
        total += row[n, 0]
    return total


@njit(parallel=True, **EXACT)
def sum_squares(out, x):
    """out (1) = sum of x^2 over x (n), accumulated in float64.

    The order of the sum is fixed: of parts, each the sum of ``LANES`` sums. It depends on no number of threads (as
    ``parts.sum()`` would, in a parallel function) and on no compilation (see ``bce_with_logits``).
    """
    sums = np.zeros(((x.size + PART - 1) // PART, LANES))
    for part in prange(len(sums)):
        lanes, numbers = sums[part], x[PART * part : PART * (part + 1)]
        whole = numbers.size - numbers.size % LANES
        for start in range(0, whole, LANES):
            for lane in range(LANES):
                number = np.float64(numbers[start + lane])  # ``float`` would leave a float32 as it is
                lanes[lane] += number * number
        for i in range(whole, numbers.size):
            lanes[0] += np.float64(numbers[i]) * np.float64(numbers[i])
    total = 0.0
    for part in range(len(sums)):
        for lane in range(LANES):
            total += sums[part, lane]
    out[0] = total


@njit(**JIT)
def _largest(row):
    """The maximum of a row (n); 0 if it is infinite, since inf - inf would be NaN."""
    largest = row[0]
    for n in range(row.size):
        largest = largest if row[n] < largest else row[n]
    return cast(0.0, largest) if math.isinf(largest) else largest


@njit(**JIT)
def logsumexp(out, x):
    """out (r) = log of the sum of e^x along the rows of x (r,n), n > 0."""
    for r in range(x.shape[0]):
        row = x[r]
        shift, total = _largest(row), cast(0.0, row[0])
        for n in range(row.size):
            total += vm.exp(row[n] - shift)
        out[r] = shift + vm.log(total)


@njit(**JIT)
def logsumexp_backward(dx, dout, x):
    """dx (r,n) = softmax(x) dout, with dout (r); 0 for a row of -inf."""
    for r in range(x.shape[0]):
        row, result = x[r], dx[r]
        shift, total = _largest(row), cast(0.0, row[0])
        for n in range(row.size):
            result[n] = vm.exp(row[n] - shift)
            total += result[n]
        weight = dout[r] / (total if total != cast(0.0, total) else cast(1.0, total))
        for n in range(row.size):
            result[n] *= weight


@njit(**JIT)
def softmax(out, x):
    """out (r,n) = e^x / sum of e^x along the rows of x (r,n), n > 0; NaN for a row of -inf."""
    for r in range(x.shape[0]):
        row, result = x[r], out[r]
        largest = row[0]
        for n in range(row.size):
            largest = largest if row[n] < largest else row[n]
        total = cast(0.0, largest)
        for n in range(row.size):
            result[n] = vm.exp(row[n] - largest)
            total += result[n]
        for n in range(row.size):
            result[n] /= total


@njit(**JIT)
def softmax_backward(dx, dout, out):
    """dx (r,n) = out (dout - <dout, out>), with the inner product along the row."""
    for r in range(out.shape[0]):
        y, dy, result = out[r], dout[r], dx[r]
        product = cast(0.0, y[0])
        for n in range(y.size):
            product += dy[n] * y[n]
        for n in range(y.size):
            result[n] = y[n] * (dy[n] - product)


@njit(**JIT)
def max(out, x):
    """out (r) = the maximum of each row of x (r,n), n > 0."""
    for r in range(x.shape[0]):
        row = x[r]
        largest = row[0]
        for n in range(row.size):
            larger = row[n] > largest or math.isnan(row[n])  # NaN propagates: nothing compares larger
            largest = row[n] if larger else largest
        out[r] = largest


@njit(**JIT)
def max_backward(dx, dout, x):
    """dx (r,n) = dout (r) at the first maximum of each row of x (r,n), or at its first NaN; 0 elsewhere."""
    for r in range(x.shape[0]):
        row, result = x[r], dx[r]
        result[:] = 0
        first = 0
        for n in range(row.size):
            larger = row[n] > row[first] or (math.isnan(row[n]) and not math.isnan(row[first]))
            first = n if larger else first
        result[first] = dout[r]
