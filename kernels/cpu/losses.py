"""Losses: a sum over the features (d) of each example (b), in nats where they are log-likelihoods.

Backward kernels take ``dout`` (b), so the mean over the batch and any weights of the examples are fused into them.
"""

import math

import numpy as np
from numba import njit, prange

from kernels.cpu import vector_math as vm
from kernels.cpu.simd import lanes, load, multiply_add, store, zeros
from kernels.cpu.vector_math import EXACT, JIT, cast

ROWS = 16  # per chunk of a parallel loop
LOG_TWO_PI = math.log(2 * math.pi)


@njit(parallel=True, **EXACT)
def bce_with_logits(out, logits, targets):
    """out (b) = sum over d of softplus(logits) - logits targets: -log Bernoulli(targets | sigmoid(logits)).

    Numba compiles the body of a ``prange`` once for this process and again for the cache. So the order of the sum is
    fixed here: an order chosen by the compiler could differ between the two.

    softplus(x) = max(x, 0) + log(1 + e^-|x|), of which max(x, 0) cancels with x targets, exactly at targets 1.
    """
    rows, size = logits.shape
    step = 2 * lanes(logits)
    for chunk in prange((rows + ROWS - 1) // ROWS):
        terms = np.zeros((size + step - 1) // step * step + step, out.dtype)  # zero-padded, with workspace for ``_sum``
        for r in range(ROWS * chunk, min(ROWS * (chunk + 1), rows)):
            a, t = logits[r], targets[r]
            for i in range(size):
                positive = a[i] if a[i] > cast(0.0, a[i]) else cast(0.0, a[i])
                terms[i] = (positive - a[i] * t[i]) + vm.log1p_unit(vm.exp(-abs(a[i])))
            out[r] = _sum(terms)


@njit(**EXACT)
def _sum(terms):
    """The sum of terms (n) except the last two vectors, which are workspace: a factor of 1, and the sums of lanes."""
    width = lanes(terms)
    end = terms.size - 2 * width
    terms[end] = 1
    even, odd = zeros(terms), zeros(terms)
    for i in range(0, end, 2 * width):
        even = multiply_add(even, terms, end, load(terms, i))
        odd = multiply_add(odd, terms, end, load(terms, i + width))
    store(terms, end + width, multiply_add(even, terms, end, odd))
    total = terms[end + width]
    for i in range(end + width + 1, terms.size):
        total += terms[i]
    return total


@njit(parallel=True, **JIT)
def bce_with_logits_backward(dlogits, dout, logits, targets):
    """dlogits (b,d) = (sigmoid(logits) - targets) dout."""
    for r in prange(logits.shape[0]):
        a, t, result = logits[r], targets[r], dlogits[r]
        for i in range(a.size):
            result[i] = (vm.sigmoid(a[i]) - t[i]) * dout[r]


@njit(**JIT)
def gaussian_nll(out, mean, logvar, x):
    """out (b) = sum over d of (log 2 pi + logvar + (x - mean)^2 e^-logvar) / 2."""
    for r in range(mean.shape[0]):
        m, v, y = mean[r], logvar[r], x[r]
        total = cast(0.0, out[r])
        for i in range(m.size):
            error = y[i] - m[i]
            total += v[i] + error * error * vm.exp(-v[i])
        total += cast(m.size * LOG_TWO_PI, total)  # once: added in the loop, it would be rounded in each turn
        out[r] = cast(0.5, total) * total


@njit(**JIT)
def gaussian_nll_backward(dmean, dlogvar, dx, dout, mean, logvar, x):
    """dx (b,d) = (x - mean) e^-logvar dout = -dmean;  dlogvar = (1 - (x - mean)^2 e^-logvar) dout / 2."""
    for r in range(mean.shape[0]):
        m, v, y, dm, dv, dy = mean[r], logvar[r], x[r], dmean[r], dlogvar[r], dx[r]
        half, one = cast(0.5, dout[r]), cast(1.0, dout[r])
        for i in range(m.size):
            error = y[i] - m[i]
            scaled = error * vm.exp(-v[i])
            dm[i] = -scaled * dout[r]
            dv[i] = half * (one - error * scaled) * dout[r]
            dy[i] = scaled * dout[r]


@njit(**JIT)
def gaussian_nll_fixed(out, mean, x, sigma):
    """out (b) = sum over d of (x - mean)^2 / (2 sigma^2) + log sigma + log(2 pi) / 2."""
    weight = 0.5 / (sigma * sigma)
    for r in range(mean.shape[0]):
        m, y = mean[r], x[r]
        total = cast(0.0, out[r])
        for i in range(m.size):
            error = y[i] - m[i]
            total += error * error
        out[r] = cast(weight, total) * total + cast(m.size * (math.log(sigma) + 0.5 * LOG_TWO_PI), total)


@njit(**JIT)
def gaussian_nll_fixed_backward(dmean, dout, mean, x, sigma):
    """dmean (b,d) = (mean - x) dout / sigma^2."""
    for r in range(mean.shape[0]):
        m, y, result = mean[r], x[r], dmean[r]
        weight = dout[r] / cast(sigma * sigma, dout[r])
        for i in range(m.size):
            result[i] = (m[i] - y[i]) * weight


@njit(**JIT)
def squared_error(out, prediction, target):
    """out (b) = sum over d of (prediction - target)^2."""
    for r in range(prediction.shape[0]):
        p, t = prediction[r], target[r]
        total = cast(0.0, out[r])
        for i in range(p.size):
            error = p[i] - t[i]
            total += error * error
        out[r] = total


@njit(**JIT)
def squared_error_backward(dprediction, dout, prediction, target):
    """dprediction (b,d) = 2 (prediction - target) dout."""
    for r in range(prediction.shape[0]):
        p, t, result = prediction[r], target[r], dprediction[r]
        for i in range(p.size):
            result[i] = (p[i] - t[i]) * (dout[r] + dout[r])


@njit(**JIT)
def softmax_cross_entropy(out, logits, labels):
    """out (b) = logsumexp(logits) - logits[label], with logits (b,c) and integer labels (b); NaN unless in 0..c-1."""
    for r in range(logits.shape[0]):
        a = logits[r]
        largest = a[0]
        for i in range(a.size):
            largest = largest if a[i] < largest else a[i]
        total = cast(0.0, largest)
        for i in range(a.size):
            total += vm.exp(a[i] - largest)
        inside = 0 <= labels[r] < a.size
        out[r] = largest - a[labels[r]] + vm.log(total) if inside else cast(math.nan, total)


@njit(**JIT)
def softmax_cross_entropy_backward(dlogits, dout, logits, labels):
    """dlogits (b,c) = (softmax(logits) - one_hot(labels)) dout."""
    for r in range(logits.shape[0]):
        a, result = logits[r], dlogits[r]
        largest = a[0]
        for i in range(a.size):
            largest = largest if a[i] < largest else a[i]
        total = cast(0.0, largest)
        for i in range(a.size):
            result[i] = vm.exp(a[i] - largest)
            total += result[i]
        weight = dout[r] / total
        for i in range(a.size):
            result[i] *= weight
        if 0 <= labels[r] < a.size:
            result[labels[r]] -= dout[r]


@njit(**JIT)
def kl_standard_normal(out, mu, logvar):
    """out (b) = KL(N(mu, e^logvar) || N(0, I)) = -1/2 sum over j of 1 + logvar - mu^2 - e^logvar.

    Near logvar = 0 a term is about logvar^2 / 2. With expm1 its rounding error is relative to logvar, not to 1.
    """
    for r in range(mu.shape[0]):
        m, v = mu[r], logvar[r]
        total = cast(0.0, out[r])
        for j in range(m.size):
            total += m[j] * m[j] + (vm.expm1(v[j]) - v[j])
        out[r] = cast(0.5, total) * total


@njit(**JIT)
def kl_standard_normal_backward(dmu, dlogvar, dout, mu, logvar):
    """dmu (b,j) = mu dout;  dlogvar = (e^logvar - 1) dout / 2."""
    for r in range(mu.shape[0]):
        m, v, dm, dv = mu[r], logvar[r], dmu[r], dlogvar[r]
        half = cast(0.5, dout[r])
        for j in range(m.size):
            dm[j] = m[j] * dout[r]
            dv[j] = half * vm.expm1(v[j]) * dout[r]
