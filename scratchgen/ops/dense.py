"""Matrix products, and the dense layer with its bias and activation in one operation."""

from scratchgen.op import Case, Op, empty_gradient, register
from scratchgen.ops.reductions import rows
from scratchgen.signature import REAL
from scratchgen.tensor import Tensor, apply

FUSED_ACTIVATIONS = ("identity", "relu", "elu", "sigmoid", "tanh", "softplus")


def _matmul(kernels, a, b):
    out = kernels.memory.empty((*a.shape[:-1], b.shape[-1]), a.dtype)
    kernels.dense.matmul(out, a, b)
    return out, (a, b)


def _matmul_backward(kernels, needs_grad, dout, saved):
    a, b = saved
    da = db = None
    if needs_grad[0]:
        da = empty_gradient(kernels, needs_grad[0], a.shape, a.dtype)
        kernels.dense.matmul_nt(da, dout, b)  # da = dout b^T
    if needs_grad[1]:
        db = empty_gradient(kernels, needs_grad[1], b.shape, b.dtype)
        kernels.dense.matmul_tn(db, a, dout)  # db = a^T dout
    return da, db


def _dense(kernels, x, w, b, activation):
    out = kernels.memory.empty((*x.shape[:-1], b.size), x.dtype)
    kernels.dense.dense_forward(rows(out), rows(x), w, b, activation)
    return out, (x, w, out)


def _dense_backward(kernels, needs_grad, dout, saved, activation):
    x, w, out = saved
    dpre, db = activation_backward(kernels, needs_grad[2], dout, out, activation)
    dx = dw = None
    if needs_grad[0]:
        dx = kernels.memory.empty_like(x)
        kernels.dense.matmul_nt(rows(dx), rows(dpre), w)  # dx = dpre w^T
    if needs_grad[1]:
        dw = empty_gradient(kernels, needs_grad[1], w.shape, w.dtype)
        kernels.dense.matmul_tn(dw, rows(x), rows(dpre))  # dw = x^T dpre
    return dx, dw, db


def activation_backward(kernels, needs_db, dout, out, activation):
    """The gradients before out (..., o) = activation(product + bias): of the product, and of the bias (o)."""
    db = empty_gradient(kernels, needs_db, out.shape[-1:], out.dtype)
    if activation != "identity":
        dpre = kernels.memory.empty_like(out)
        kernels.dense.dense_activation_backward(rows(dpre), db, rows(dout), rows(out), activation)
        return dpre, db
    if needs_db:
        kernels.reductions.sum_axis(db.reshape(1, -1), rows(dout).reshape(1, *rows(dout).shape))
    return dout, db


def checked_activation(name: str, activation: str) -> str:
    """The activation, if an operation of that name can fuse it; else ValueError."""
    if activation not in FUSED_ACTIVATIONS:
        raise ValueError(f"{name}: activation {activation!r} is not one of {', '.join(FUSED_ACTIVATIONS)}")
    return activation


def _preactivation(x, w, b):
    return x @ w + b


register(Op("matmul", "(...,m,k),(...,k,n)->(...,m,n)", (REAL, REAL), _matmul, _matmul_backward))
register(
    Op(
        "dense",
        "(...,i),(i,o),(o)->(...,o)",
        (REAL, REAL, REAL),
        _dense,
        _dense_backward,
        tuple(Case({"activation": name}, kink=_preactivation) for name in FUSED_ACTIVATIONS),
    )
)


def matmul(a: Tensor, b: Tensor) -> Tensor:
    """a b, with a (..., m, k) and b (..., k, n) of equal leading dimensions."""
    return apply("matmul", a, b)


def dense(x: Tensor, weight: Tensor, bias: Tensor, activation: str = "identity") -> Tensor:
    """activation(x weight + bias), with x (..., i), weight (i, o), bias (o).

    ``activation`` is one of ``FUSED_ACTIVATIONS``: those whose derivative is a function of their output.
    """
    return apply("dense", x, weight, bias, activation=checked_activation("dense", activation))
