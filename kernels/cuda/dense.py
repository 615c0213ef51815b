"""The dense layer. Its products are the last rung of ``products.py``, with bias and activation fused into them. In the
backward, one kernel multiplies by the activation's derivative and computes partial sums of the bias gradient."""

import numpy as np

from kernels.cuda import memory, products
from kernels.cuda.device import cuda, launch, launch_over, shares
from kernels.cuda.functions import ACTIVATIONS, COLUMN_TILE, COLUMNS, ROWS, activate, column_sum, slope
from kernels.cuda.reductions import sum_axis


def matmul(out, a, b):
    """out (...,m,n) = a (...,m,k) b (...,k,n)."""
    _each(products.matmul, out, a, b)


def matmul_tn(out, a, b):
    """out (...,m,n) = a^T b, with a (...,k,m) and b (...,k,n)."""
    _each(products.matmul_tn, out, a, b)


def matmul_nt(out, a, b):
    """out (...,m,n) = a b^T, with a (...,m,k) and b (...,n,k)."""
    _each(products.matmul_nt, out, a, b)


def _each(product, out, a, b):
    if out.ndim == 2:
        product(out, a, b)
    else:
        for batch in np.ndindex(out.shape[:-2]):
            product(out[batch], a[batch], b[batch])


def dense_forward(out, x, w, b, activation):
    """out (r,o) = activation(x w + b), with x (r,i), w (i,o), b (o)."""
    products.dense(out, x, w, b, ACTIVATIONS.index(activation))


def bias_activation(out, b, activation):
    """out (r,o) = activation(out + b), with b (o)."""
    launch_over(out.size, _bias_activation, out, b, ACTIVATIONS.index(activation))


@cuda.jit
def _bias_activation(out, b, kind):
    columns = out.shape[1]
    for i in range(cuda.grid(1), out.size, cuda.gridsize(1)):
        out[i // columns, i % columns] = activate(kind, out[i // columns, i % columns] + b[i % columns])


def dense_activation_backward(dpre, db, dout, out, activation):
    """dpre (r,o) = activation'(x w + b) dout, from out (r,o); db (o) = its sum over the rows."""
    rows, columns = out.shape
    if not columns:
        return
    stripes = -(-columns // COLUMNS)
    parts = memory.empty((1, shares(stripes, rows, ROWS), columns), out.dtype)
    kind = ACTIVATIONS.index(activation)
    launch(_back_through, (stripes, parts.shape[1], 1), ROWS * COLUMNS, dpre, parts, dout, out, kind)
    sum_axis(db.reshape(1, columns), parts)


@cuda.jit
def _back_through(dpre, parts, dout, out, kind):
    """dpre (r,o), and parts[0, p] (o) = its sum over part p of the rows."""
    shared = cuda.shared.array(COLUMN_TILE, out.dtype)
    part, row = cuda.blockIdx.y, cuda.threadIdx.x // COLUMNS
    o = cuda.blockIdx.x * COLUMNS + cuda.threadIdx.x % COLUMNS
    share = (out.shape[0] + cuda.gridDim.y - 1) // cuda.gridDim.y
    total = out.dtype.type(0)
    if o < out.shape[1]:
        for r in range(part * share + row, min(out.shape[0], (part + 1) * share), ROWS):
            d = slope(kind, out[r, o]) * dout[r, o]
            dpre[r, o] = d
            total += d
    total = column_sum(shared, total)
    if row == 0 and o < out.shape[1]:
        parts[0, part, o] = total
