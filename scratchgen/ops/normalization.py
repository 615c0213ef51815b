"""Batch normalisation."""

from scratchgen.op import Case, Op, register
from scratchgen.signature import REAL
from scratchgen.tensor import Tensor, apply


def _batch_norm(kernels, x, gamma, beta, epsilon):
    if len(x) == 0:
        raise ValueError(f"batch_norm: a batch of shape {x.shape} has no examples")
    mean, variance, normalized, out = (
        kernels.memory.empty_like(gamma),
        kernels.memory.empty_like(gamma),
        kernels.memory.empty_like(x),
        kernels.memory.empty_like(x),
    )
    kernels.normalization.batch_moments(mean, variance, x)
    kernels.normalization.batch_norm(out, normalized, x, mean, variance, gamma, beta, epsilon)
    return out, (normalized, variance, gamma)


def _batch_norm_backward(kernels, needs_grad, dout, saved, epsilon):
    dx, dgamma, dbeta = (
        kernels.memory.empty_like(dout),
        kernels.memory.empty_like(saved[1]),
        kernels.memory.empty_like(saved[1]),
    )
    kernels.normalization.batch_norm_backward(dx, dgamma, dbeta, dout, *saved, epsilon)
    return dx, dgamma, dbeta


register(
    Op(
        "batch_norm",
        "(b,n),(n),(n)->(b,n)",
        (REAL, REAL, REAL),
        _batch_norm,
        _batch_norm_backward,
        (Case({"epsilon": 0.1}), Case({"epsilon": 0.7})),
    )
)


def batch_norm(x: Tensor, gamma: Tensor, beta: Tensor, epsilon: float = 1e-5) -> Tensor:
    """gamma (x - mean) / sqrt(variance + epsilon) + beta, with x (b, n), gamma and beta (n).

    Mean and variance are those of each column of the batch, and the gradient flows through them. ValueError for a batch
    of one, whose mean is itself: the result would be beta. Source: Ioffe & Szegedy 2015, algorithm 1.
    """
    if len(x) == 1:
        raise ValueError(f"batch_norm: a batch of shape {x.shape} has one example; moments need two or more")
    return apply("batch_norm", x, gamma, beta, epsilon=epsilon)
