"""Losses. Each sums over the features (the last axis) and returns one number per example; ``.mean()`` is the loss.

Negative log-likelihoods are in nats, constants included, so that they are comparable across models.
"""

from typing import Any

import numpy as np

from scratchgen.op import Case, Op, register
from scratchgen.ops.reductions import rows
from scratchgen.signature import CONSTANT, LABEL, REAL, UNIT_CONSTANT, Domain
from scratchgen.tensor import Tensor, apply


def _register(name: str, signature: str, domains: tuple[Domain, ...], *cases: Case) -> None:
    """Register the operation of the kernels ``name`` and ``name_backward``; inputs with a gradient come first."""
    gradients, backward_name = sum(domain.differentiable for domain in domains), f"{name}_backward"
    no_gradients = (None,) * (len(domains) - gradients)

    def forward(kernels, *inputs, **params):
        out = kernels.memory.empty(inputs[0].shape[:-1], inputs[0].dtype)
        getattr(kernels.losses, name)(out.reshape(-1), *[rows(x) for x in inputs], *params.values())
        return out, inputs

    def backward(kernels, needs_grad, dout, saved, **params):
        found = [kernels.memory.empty_like(x) for x in saved[:gradients]]
        kernel = getattr(kernels.losses, backward_name)
        kernel(*[rows(dx) for dx in found], dout.reshape(-1), *[rows(x) for x in saved], *params.values())
        return *found, *no_gradients

    register(Op(name, signature, domains, forward, backward, cases or (Case(),)))


PAIR = "(...,d),(...,d)->(...)"
_register("bce_with_logits", PAIR, (REAL, UNIT_CONSTANT))
_register("gaussian_nll", "(...,d),(...,d),(...,d)->(...)", (REAL, REAL, REAL))
_register("gaussian_nll_fixed", PAIR, (REAL, CONSTANT), Case({"sigma": 0.7}), Case({"sigma": 2.5}))
_register("squared_error", PAIR, (REAL, CONSTANT))
_register("kl_standard_normal", PAIR, (REAL, REAL))


def _require_labels(labels: np.ndarray, classes: int) -> None:
    if labels.size and not (labels.min() >= 0 and labels.max() < classes):
        raise ValueError(
            f"softmax_cross_entropy: labels must be in 0..{classes - 1}, not {labels.min()}..{labels.max()}"
        )


def _cross_entropy(kernels, logits, labels):
    if isinstance(labels, np.ndarray):  # on a device they are not read back
        _require_labels(labels, logits.shape[-1])
    out = kernels.memory.empty(labels.shape, logits.dtype)
    kernels.losses.softmax_cross_entropy(out.reshape(-1), rows(logits), labels.reshape(-1))
    return out, (logits, labels)


def _cross_entropy_backward(kernels, needs_grad, dout, saved):
    logits, labels = saved
    dlogits = kernels.memory.empty_like(logits)
    kernels.losses.softmax_cross_entropy_backward(rows(dlogits), dout.reshape(-1), rows(logits), labels.reshape(-1))
    return dlogits, None


register(Op("softmax_cross_entropy", "(...,c),(...)->(...)", (REAL, LABEL), _cross_entropy, _cross_entropy_backward))


def bce_with_logits(logits: Tensor, targets: Any) -> Tensor:
    """-log Bernoulli(targets | sigmoid(logits)) (L13), without overflow; targets in [0, 1], shapes (..., d).

    With targets strictly between 0 and 1 it is the cross-entropy of soft targets, not a likelihood.
    """
    return apply("bce_with_logits", logits, targets)


def gaussian_nll(mean: Tensor, logvar: Tensor, x: Any) -> Tensor:
    """-log N(x | mean, diag e^logvar), constant included (L13); shapes (..., d)."""
    return apply("gaussian_nll", mean, logvar, x)


def gaussian_nll_fixed(mean: Tensor, x: Any, sigma: float) -> Tensor:
    """-log N(x | mean, sigma^2 I) = |x - mean|^2 / (2 sigma^2), plus a constant, which is included (L13); (..., d)."""
    if not sigma > 0:
        raise ValueError(f"gaussian_nll_fixed: sigma must be above 0, not {sigma}")
    return apply("gaussian_nll_fixed", mean, x, sigma=sigma)


def squared_error(prediction: Tensor, target: Any) -> Tensor:
    """The sum over d of (prediction - target)^2; divided by d it is the MSE. Shapes (..., d)."""
    return apply("squared_error", prediction, target)


def softmax_cross_entropy(logits: Tensor, labels: Any) -> Tensor:
    """-log softmax(logits)[label], with logits (..., c) and integer labels (...) in 0..c-1.

    ValueError for other labels, except in a tensor on a device, which is not checked.
    """
    if not isinstance(labels, Tensor):
        labels = np.asarray(labels) if np.size(labels) else np.zeros(np.shape(labels), np.int64)  # [] would be float
        _require_labels(labels, logits.shape[-1])
    return apply("softmax_cross_entropy", logits, labels)


def kl_standard_normal(mu: Tensor, logvar: Tensor) -> Tensor:
    """KL(N(mu, diag e^logvar) || N(0, I)) = -1/2 sum_j (1 + logvar_j - mu_j^2 - e^logvar_j) (L16); shapes (..., j).

    Source: Kingma & Welling 2013, appendix B.
    """
    return apply("kl_standard_normal", mu, logvar)
