"""The dense layer, defined in NumPy."""

import numpy as np

from kernels.reference import elementwise


def matmul(out, a, b):
    """out (...,m,n) = a (...,m,k) b (...,k,n)."""
    np.matmul(a, b, out=out)


def matmul_tn(out, a, b):
    """out (...,m,n) = a^T b, with a (...,k,m) and b (...,k,n)."""
    np.matmul(np.swapaxes(a, -1, -2), b, out=out)


def matmul_nt(out, a, b):
    """out (...,m,n) = a b^T, with a (...,m,k) and b (...,n,k)."""
    np.matmul(a, np.swapaxes(b, -1, -2), out=out)


def dense_forward(out, x, w, b, activation):
    """out (r,o) = activation(x w + b), with x (r,i), w (i,o), b (o)."""
    out[...] = x @ w
    bias_activation(out, b, activation)


def bias_activation(out, b, activation):
    """out (r,o) = activation(out + b), with b (o)."""
    out += b
    if activation != "identity":
        getattr(elementwise, activation)(out, out.copy())


def dense_activation_backward(dpre, db, dout, out, activation):
    """dpre (r,o) = activation'(x w + b) dout, from out (r,o); db (o) = its sum over the rows."""
    if activation == "identity":
        dpre[...] = dout
    else:
        getattr(elementwise, activation + "_backward")(dpre, dout, out)
    db[...] = dpre.sum(0, dtype=np.float64)
