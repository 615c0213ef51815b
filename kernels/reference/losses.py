"""Losses, defined in NumPy: a sum over the features (d) of each example (b)."""

import numpy as np

LOG_TWO_PI = np.log(2 * np.pi)


def bce_with_logits(out, logits, targets):
    """out (b) = sum over d of softplus(logits) - logits targets: -log Bernoulli(targets | sigmoid(logits))."""
    # softplus(x) = max(x, 0) + log(1 + e^-|x|), of which max(x, 0) cancels with x targets, exactly at targets 1
    out[...] = (np.maximum(logits, 0) - logits * targets + np.log1p(np.exp(-abs(logits)))).sum(1)


def bce_with_logits_backward(dlogits, dout, logits, targets):
    """dlogits (b,d) = (sigmoid(logits) - targets) dout."""
    dlogits[...] = (np.exp(-np.logaddexp(0, -logits)) - targets) * dout[:, None]


def gaussian_nll(out, mean, logvar, x):
    """out (b) = sum over d of (log 2 pi + logvar + (x - mean)^2 e^-logvar) / 2."""
    out[...] = (LOG_TWO_PI + logvar + (x - mean) ** 2 * np.exp(-logvar)).sum(1) / 2


def gaussian_nll_backward(dmean, dlogvar, dx, dout, mean, logvar, x):
    """dx (b,d) = (x - mean) e^-logvar dout = -dmean;  dlogvar = (1 - (x - mean)^2 e^-logvar) dout / 2."""
    dx[...] = (x - mean) * np.exp(-logvar) * dout[:, None]
    dmean[...] = -dx
    dlogvar[...] = (1 - (x - mean) ** 2 * np.exp(-logvar)) / 2 * dout[:, None]


def gaussian_nll_fixed(out, mean, x, sigma):
    """out (b) = sum over d of (x - mean)^2 / (2 sigma^2) + log sigma + log(2 pi) / 2."""
    out[...] = ((x - mean) ** 2 / (2 * sigma**2) + np.log(sigma) + LOG_TWO_PI / 2).sum(1)


def gaussian_nll_fixed_backward(dmean, dout, mean, x, sigma):
    """dmean (b,d) = (mean - x) dout / sigma^2."""
    dmean[...] = (mean - x) / sigma**2 * dout[:, None]


def squared_error(out, prediction, target):
    """out (b) = sum over d of (prediction - target)^2."""
    out[...] = ((prediction - target) ** 2).sum(1)


def squared_error_backward(dprediction, dout, prediction, target):
    """dprediction (b,d) = 2 (prediction - target) dout."""
    dprediction[...] = 2 * (prediction - target) * dout[:, None]


def softmax_cross_entropy(out, logits, labels):
    """out (b) = logsumexp(logits) - logits[label], with logits (b,c) and integer labels (b); NaN unless in 0..c-1."""
    classes, shifted = logits.shape[1], _less_largest(logits)
    picked = shifted[np.arange(len(labels)), labels.clip(0, classes - 1)]
    out[...] = np.log(np.exp(shifted).sum(1)) - np.where((labels >= 0) & (labels < classes), picked, np.nan)


def softmax_cross_entropy_backward(dlogits, dout, logits, labels):
    """dlogits (b,c) = (softmax(logits) - one_hot(labels)) dout."""
    e = np.exp(_less_largest(logits))
    softmax = e / e.sum(1, keepdims=True)
    dlogits[...] = (softmax - (np.arange(logits.shape[1]) == labels[:, None])) * dout[:, None]


def _less_largest(x):
    """x less the maximum of each row: small numbers, whose differences round little."""
    return x - x.max(1, keepdims=True)


def kl_standard_normal(out, mu, logvar):
    """out (b) = KL(N(mu, e^logvar) || N(0, I)) = -1/2 sum over j of 1 + logvar - mu^2 - e^logvar."""
    out[...] = (mu**2 + (np.expm1(logvar) - logvar)).sum(1) / 2  # e^logvar - 1 would cancel near logvar = 0


def kl_standard_normal_backward(dmu, dlogvar, dout, mu, logvar):
    """dmu (b,j) = mu dout;  dlogvar = (e^logvar - 1) dout / 2."""
    dmu[...] = mu * dout[:, None]
    dlogvar[...] = np.expm1(logvar) / 2 * dout[:, None]
