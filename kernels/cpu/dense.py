"""The dense layer. Its products are the last rung of ``products.py``; one loop adds the bias and applies the activation
while the row is in cache, and one takes both back.

A product leaves out terms in which a whole tile's share of ``a`` is zero, as it is for most pixels of a digit, if a
sample of ``a`` has enough of them. So NaN and infinity in ``b`` may or may not spread through zeros.
"""

import numpy as np
from numba import njit, prange

from kernels.cpu import functions
from kernels.cpu import vector_math as vm
from kernels.cpu.products import product_tiled
from kernels.cpu.vector_math import BLOCK, JIT

ROWS = 16  # per chunk of a parallel loop


def matmul(out, a, b):
    """out (...,m,n) = a (...,m,k) b (...,k,n)."""
    _multiply(out, a, b)


def matmul_tn(out, a, b):
    """out (...,m,n) = a^T b, with a (...,k,m) and b (...,k,n)."""
    _multiply(out, a.swapaxes(-1, -2), b)


def matmul_nt(out, a, b):
    """out (...,m,n) = a b^T, with a (...,m,k) and b (...,n,k)."""
    _multiply(out, a, b.swapaxes(-1, -2))


def _multiply(out, a, b):
    if out.ndim == 2:
        product_tiled(out, a, b, True)
    else:
        for batch in np.ndindex(out.shape[:-2]):
            product_tiled(out[batch], a[batch], b[batch], True)


def dense_forward(out, x, w, b, activation):
    """out (r,o) = activation(x w + b), with x (r,i), w (i,o), b (o)."""
    matmul(out, x, w)
    bias_activation(out, b, activation)


def bias_activation(out, b, activation):
    """out (r,o) = activation(out + b), with b (o)."""
    if b.size == 1:  # a loop over one column does not vectorise, one over a row does
        out, b = out.reshape(1, -1), np.repeat(b, len(out))
    _BIAS_THEN[activation](out, b)


def dense_activation_backward(dpre, db, dout, out, activation):
    """dpre (r,o) = activation'(x w + b) dout, from out (r,o); db (o) = its sum over the rows."""
    if db.size == 1:  # likewise; the loop sums columns, so db is summed here
        dpre, dout, out = (x.reshape(1, -1) for x in (dpre, dout, out))
        _BACK_THROUGH[activation](dpre, np.empty(dpre.size, dpre.dtype), dout, out)
        db[0] = dpre.sum()
    else:
        _BACK_THROUGH[activation](dpre, db, dout, out)


# Numba inlines these two loops, so that ``activation`` becomes a name in the code of each kernel below. Were it passed
# as an argument when the kernel runs, Numba could not cache it; were it a number to branch on, no loop would vectorise.


@njit(inline="always", **JIT)
def _bias_then(out, b, activation):
    for r in range(out.shape[0]):
        row = out[r]
        for o in range(b.size):
            row[o] = activation(row[o] + b[o])


@njit(inline="always", **JIT)
def _back_through(dpre, db, dout, out, backward):
    db[:] = 0
    block = np.empty_like(db)
    for start in range(0, out.shape[0], BLOCK):
        block[:] = 0
        ys, dys, results = out[start : start + BLOCK], dout[start : start + BLOCK], dpre[start : start + BLOCK]
        for r in range(ys.shape[0]):
            y, dy, result = ys[r], dys[r], results[r]
            for o in range(db.size):
                result[o] = backward(y[o], dy[o])
                block[o] += result[o]
        for o in range(db.size):
            db[o] += block[o]


@njit(parallel=True, **JIT)
def _bias_identity(out, b):
    for chunk in prange((out.shape[0] + ROWS - 1) // ROWS):
        _bias_then(out[ROWS * chunk : ROWS * (chunk + 1)], b, functions.identity)


@njit(parallel=True, **JIT)
def _bias_relu(out, b):
    for chunk in prange((out.shape[0] + ROWS - 1) // ROWS):
        _bias_then(out[ROWS * chunk : ROWS * (chunk + 1)], b, functions.relu)


@njit(parallel=True, **JIT)
def _bias_elu(out, b):
    for chunk in prange((out.shape[0] + ROWS - 1) // ROWS):
        _bias_then(out[ROWS * chunk : ROWS * (chunk + 1)], b, functions.elu)


@njit(parallel=True, **JIT)
def _bias_sigmoid(out, b):
    for chunk in prange((out.shape[0] + ROWS - 1) // ROWS):
        _bias_then(out[ROWS * chunk : ROWS * (chunk + 1)], b, vm.sigmoid)


@njit(parallel=True, **JIT)
def _bias_tanh(out, b):
    for chunk in prange((out.shape[0] + ROWS - 1) // ROWS):
        _bias_then(out[ROWS * chunk : ROWS * (chunk + 1)], b, vm.tanh)


@njit(parallel=True, **JIT)
def _bias_softplus(out, b):
    for chunk in prange((out.shape[0] + ROWS - 1) // ROWS):
        _bias_then(out[ROWS * chunk : ROWS * (chunk + 1)], b, vm.softplus)


@njit(**JIT)
def _back_identity(dpre, db, dout, out):
    _back_through(dpre, db, dout, out, functions.identity_backward)


@njit(**JIT)
def _back_relu(dpre, db, dout, out):
    _back_through(dpre, db, dout, out, functions.relu_backward)


@njit(**JIT)
def _back_elu(dpre, db, dout, out):
    _back_through(dpre, db, dout, out, functions.elu_backward)


@njit(**JIT)
def _back_sigmoid(dpre, db, dout, out):
    _back_through(dpre, db, dout, out, functions.sigmoid_backward)


@njit(**JIT)
def _back_tanh(dpre, db, dout, out):
    _back_through(dpre, db, dout, out, functions.tanh_backward)


@njit(**JIT)
def _back_softplus(dpre, db, dout, out):
    _back_through(dpre, db, dout, out, functions.softplus_backward)


_BIAS_THEN = {
    "identity": _bias_identity,
    "relu": _bias_relu,
    "elu": _bias_elu,
    "sigmoid": _bias_sigmoid,
    "tanh": _bias_tanh,
    "softplus": _bias_softplus,
}
_BACK_THROUGH = {
    "identity": _back_identity,
    "relu": _back_relu,
    "elu": _back_elu,
    "sigmoid": _back_sigmoid,
    "tanh": _back_tanh,
    "softplus": _back_softplus,
}
