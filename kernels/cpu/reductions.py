"""Reductions, and functions built on them."""

import math

import numpy as np
from numba import njit, prange

from kernels.cpu import vector_math as vm
from kernels.cpu.vector_math import BLOCK, JIT, cast

PART = 1 << 15  # numbers per turn of a parallel loop


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


@njit(parallel=True, **JIT)
def sum_squares(out, x):
    """out (1) = sum of x^2 over x (n), accumulated in float64, by parts that do not depend on the number of threads."""
    parts = np.empty((x.size + PART - 1) // PART)
    for part in prange(parts.size):
        total = 0.0
        for i in range(PART * part, min(PART * (part + 1), x.size)):
            number = np.float64(x[i])  # ``float`` would leave a float32 as it is
            total += number * number
        parts[part] = total
    out[0] = parts.sum()


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
