"""Batch normalisation."""

import math

from scratchgen.op import Case, Op, register
from scratchgen.ops.reductions import rows
from scratchgen.signature import REAL
from scratchgen.tensor import Tensor, apply


def _batch_norm(kernels, x, gamma, beta, epsilon):
    if rows(x).shape[0] == 0:
        raise ValueError(f"batch_norm: a batch of shape {x.shape} has no examples")
    mean, variance, normalized, out = (
        kernels.memory.empty_like(gamma),
        kernels.memory.empty_like(gamma),
        kernels.memory.empty_like(x),
        kernels.memory.empty_like(x),
    )
    kernels.normalization.batch_moments(mean, variance, rows(x))
    kernels.normalization.batch_norm(rows(out), rows(normalized), rows(x), mean, variance, gamma, beta, epsilon)
    return out, (normalized, variance, gamma)


def _batch_norm_backward(kernels, needs_grad, dout, saved, epsilon):
    dx, dgamma, dbeta = (
        kernels.memory.empty_like(dout),
        kernels.memory.empty_like(saved[1]),
        kernels.memory.empty_like(saved[1]),
    )
    normalized, variance, gamma = saved
    kernels.normalization.batch_norm_backward(
        rows(dx), dgamma, dbeta, rows(dout), rows(normalized), variance, gamma, epsilon
    )
    return dx, dgamma, dbeta


register(
    Op(
        "batch_norm",
        "(...,n),(n),(n)->(...,n)",
        (REAL, REAL, REAL),
        _batch_norm,
        _batch_norm_backward,
        (
            Case({"epsilon": 0.1}, "(b,n),(n),(n)->(b,n)"),
            Case({"epsilon": 0.7}, "(b,2,3,n),(n),(n)->(b,2,3,n)"),
        ),
    )
)


def batch_norm(x: Tensor, gamma: Tensor, beta: Tensor, epsilon: float = 1e-5) -> Tensor:
    """gamma (x - mean) / sqrt(variance + epsilon) + beta, with x (..., n), gamma and beta (n).

    Mean and variance of each feature, or channel of images (b, h, w, n), are those over all leading dimensions, and the
    gradient flows through them. ValueError if there is one number to average, which is its own mean: the result would
    be beta. Source: Ioffe & Szegedy 2015, algorithm 1 and section 3.2.
    """
    if math.prod(x.shape[:-1]) == 1:
        raise ValueError(f"batch_norm: a batch of shape {x.shape} has one example; moments need two or more")
    return apply("batch_norm", x, gamma, beta, epsilon=epsilon)
