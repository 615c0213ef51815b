"""Losses. Each sums over the features (the last axis) and leaves one number an example: ``.mean()`` makes the loss.

Negative log-likelihoods are in nats, with every constant: they compare across models.
"""

from typing import Any

import numpy as np

from scratchgen.op import Case, Op, register
from scratchgen.ops.reductions import rows
from scratchgen.signature import CONSTANT, LABEL, REAL, UNIT_CONSTANT
from scratchgen.tensor import Tensor, apply


def _loss(x: np.ndarray) -> np.ndarray:
    return np.empty(x.shape[:-1], x.dtype)


def _bce(kernels, logits, targets):
    out = _loss(logits)
    kernels.losses.bce_with_logits(out.reshape(-1), rows(logits), rows(targets))
    return out, (logits, targets)


def _bce_backward(kernels, needs, dout, saved):
    logits, targets = saved
    dlogits = np.empty_like(logits)
    kernels.losses.bce_with_logits_backward(rows(dlogits), dout.reshape(-1), rows(logits), rows(targets))
    return dlogits, None


def _gaussian(kernels, mean, logvar, x):
    out = _loss(mean)
    kernels.losses.gaussian_nll(out.reshape(-1), rows(mean), rows(logvar), rows(x))
    return out, (mean, logvar, x)


def _gaussian_backward(kernels, needs, dout, saved):
    gradients = tuple(np.empty_like(a) for a in saved)
    kernels.losses.gaussian_nll_backward(*map(rows, gradients), dout.reshape(-1), *map(rows, saved))
    return gradients


def _gaussian_fixed(kernels, mean, x, sigma):
    out = _loss(mean)
    kernels.losses.gaussian_nll_fixed(out.reshape(-1), rows(mean), rows(x), sigma)
    return out, (mean, x)


def _gaussian_fixed_backward(kernels, needs, dout, saved, sigma):
    mean, x = saved
    dmean = np.empty_like(mean)
    kernels.losses.gaussian_nll_fixed_backward(rows(dmean), dout.reshape(-1), rows(mean), rows(x), sigma)
    return dmean, None


def _squared(kernels, prediction, target):
    out = _loss(prediction)
    kernels.losses.squared_error(out.reshape(-1), rows(prediction), rows(target))
    return out, (prediction, target)


def _squared_backward(kernels, needs, dout, saved):
    prediction, target = saved
    dprediction = np.empty_like(prediction)
    kernels.losses.squared_error_backward(rows(dprediction), dout.reshape(-1), rows(prediction), rows(target))
    return dprediction, None


def _cross_entropy(kernels, logits, labels):
    classes = logits.shape[-1]
    if labels.size and not (labels.min() >= 0 and labels.max() < classes):
        raise ValueError(f"softmax_cross_entropy: labels lie in 0..{classes - 1}, not {labels.min()}..{labels.max()}")
    out = _loss(logits)
    kernels.losses.softmax_cross_entropy(out.reshape(-1), rows(logits), labels.reshape(-1))
    return out, (logits, labels)


def _cross_entropy_backward(kernels, needs, dout, saved):
    logits, labels = saved
    dlogits = np.empty_like(logits)
    kernels.losses.softmax_cross_entropy_backward(rows(dlogits), dout.reshape(-1), rows(logits), labels.reshape(-1))
    return dlogits, None


def _kl(kernels, mu, logvar):
    out = _loss(mu)
    kernels.losses.kl_standard_normal(out.reshape(-1), rows(mu), rows(logvar))
    return out, (mu, logvar)


def _kl_backward(kernels, needs, dout, saved):
    mu, logvar = saved
    dmu, dlogvar = np.empty_like(mu), np.empty_like(logvar)
    kernels.losses.kl_standard_normal_backward(rows(dmu), rows(dlogvar), dout.reshape(-1), rows(mu), rows(logvar))
    return dmu, dlogvar


PAIR = "(...,d),(...,d)->(...)"
register(Op("bce_with_logits", PAIR, (REAL, UNIT_CONSTANT), _bce, _bce_backward))
register(Op("gaussian_nll", "(...,d),(...,d),(...,d)->(...)", (REAL, REAL, REAL), _gaussian, _gaussian_backward))
register(
    Op(
        "gaussian_nll_fixed",
        PAIR,
        (REAL, CONSTANT),
        _gaussian_fixed,
        _gaussian_fixed_backward,
        (Case({"sigma": 0.7}),),
    )
)
register(Op("squared_error", PAIR, (REAL, CONSTANT), _squared, _squared_backward))
register(Op("softmax_cross_entropy", "(...,c),(...)->(...)", (REAL, LABEL), _cross_entropy, _cross_entropy_backward))
register(Op("kl_standard_normal", PAIR, (REAL, REAL), _kl, _kl_backward))


def bce_with_logits(logits: Tensor, targets: Any) -> Tensor:
    """-log Bernoulli(targets | sigmoid(logits)) (L13), exact at any logit; targets in [0, 1], shapes (..., d).

    With targets strictly between 0 and 1 it is the cross-entropy of soft targets, not a likelihood of them.
    """
    return apply("bce_with_logits", logits, targets)


def gaussian_nll(mean: Tensor, logvar: Tensor, x: Any) -> Tensor:
    """-log N(x | mean, diag e^logvar), constant included (L13); shapes (..., d)."""
    return apply("gaussian_nll", mean, logvar, x)


def gaussian_nll_fixed(mean: Tensor, x: Any, sigma: float) -> Tensor:
    """-log N(x | mean, sigma^2 I), constant included (L13): least squares / sigma^2, to gradients; shapes (..., d)."""
    if not sigma > 0:
        raise ValueError(f"gaussian_nll_fixed: sigma is above 0, not {sigma}")
    return apply("gaussian_nll_fixed", mean, x, sigma=sigma)


def squared_error(prediction: Tensor, target: Any) -> Tensor:
    """The sum over d of (prediction - target)^2; divided by d it is the MSE. Shapes (..., d)."""
    return apply("squared_error", prediction, target)


def softmax_cross_entropy(logits: Tensor, labels: np.ndarray) -> Tensor:
    """-log softmax(logits)[label], with logits (..., c) and whole labels (...) in 0..c-1."""
    return apply("softmax_cross_entropy", logits, labels)


def kl_standard_normal(mu: Tensor, logvar: Tensor) -> Tensor:
    """KL(N(mu, diag e^logvar) || N(0, I)) = -1/2 sum_j (1 + logvar_j - mu_j^2 - e^logvar_j) (L16); shapes (..., j).

    Source: Kingma & Welling 2013, appendix B.
    """
    return apply("kl_standard_normal", mu, logvar)
