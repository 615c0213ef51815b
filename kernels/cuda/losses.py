"""Losses: a sum over the features (d) of each example (b), computed by a block of threads; the backward is elementwise.

Backward kernels take ``dout`` (b), so the mean over the batch and any weights of the examples are fused into them.
"""

import math

from kernels.cuda.device import THREADS, cuda, launch_over, launch_rows
from kernels.cuda.functions import block_sum, cast, row_max, row_sum_exp, sigmoid

LOG_TWO_PI = math.log(2 * math.pi)


def bce_with_logits(out, logits, targets):
    """out (b) = sum over d of softplus(logits) - logits targets: -log Bernoulli(targets | sigmoid(logits)).

    softplus(x) = max(x, 0) + log(1 + e^-|x|), of which max(x, 0) cancels with x targets, exactly at targets 1.
    """
    launch_rows(logits.shape, _bce_with_logits, out, logits, targets)


@cuda.jit
def _bce_with_logits(out, logits, targets):
    shared = cuda.shared.array(THREADS, out.dtype)
    b = cuda.blockIdx.x
    total = out.dtype.type(0)
    for i in range(cuda.threadIdx.x, logits.shape[1], cuda.blockDim.x):
        a = logits[b, i]
        positive = a if a > cast(0.0, a) else cast(0.0, a)
        total += (positive - a * targets[b, i]) + math.log1p(math.exp(-abs(a)))
    total = block_sum(shared, total)
    if cuda.threadIdx.x == 0:
        out[b] = total


def bce_with_logits_backward(dlogits, dout, logits, targets):
    """dlogits (b,d) = (sigmoid(logits) - targets) dout."""
    launch_over(dlogits.size, _bce_with_logits_backward, dlogits, dout, logits, targets)


@cuda.jit
def _bce_with_logits_backward(dlogits, dout, logits, targets):
    size = logits.shape[1]
    for i in range(cuda.grid(1), logits.size, cuda.gridsize(1)):
        b, d = i // size, i % size
        dlogits[b, d] = (sigmoid(logits[b, d]) - targets[b, d]) * dout[b]


def gaussian_nll(out, mean, logvar, x):
    """out (b) = sum over d of (log 2 pi + logvar + (x - mean)^2 e^-logvar) / 2."""
    launch_rows(mean.shape, _gaussian_nll, out, mean, logvar, x)


@cuda.jit
def _gaussian_nll(out, mean, logvar, x):
    shared = cuda.shared.array(THREADS, out.dtype)
    b = cuda.blockIdx.x
    total, constant = out.dtype.type(0), out.dtype.type(LOG_TWO_PI)
    for i in range(cuda.threadIdx.x, mean.shape[1], cuda.blockDim.x):
        error = x[b, i] - mean[b, i]
        total += constant + logvar[b, i] + error * error * math.exp(-logvar[b, i])
    total = block_sum(shared, total)
    if cuda.threadIdx.x == 0:
        out[b] = cast(0.5, total) * total


def gaussian_nll_backward(dmean, dlogvar, dx, dout, mean, logvar, x):
    """dx (b,d) = (x - mean) e^-logvar dout = -dmean;  dlogvar = (1 - (x - mean)^2 e^-logvar) dout / 2."""
    launch_over(dx.size, _gaussian_nll_backward, dmean, dlogvar, dx, dout, mean, logvar, x)


@cuda.jit
def _gaussian_nll_backward(dmean, dlogvar, dx, dout, mean, logvar, x):
    size, half, one = x.shape[1], x.dtype.type(0.5), x.dtype.type(1)
    for i in range(cuda.grid(1), x.size, cuda.gridsize(1)):
        b, d = i // size, i % size
        error = x[b, d] - mean[b, d]
        scaled = error * math.exp(-logvar[b, d])
        dmean[b, d] = -scaled * dout[b]
        dlogvar[b, d] = half * (one - error * scaled) * dout[b]
        dx[b, d] = scaled * dout[b]


def gaussian_nll_fixed(out, mean, x, sigma):
    """out (b) = sum over d of (x - mean)^2 / (2 sigma^2) + log sigma + log(2 pi) / 2."""
    real, constant = x.dtype.type, x.shape[1] * (math.log(sigma) + 0.5 * LOG_TWO_PI)
    launch_rows(x.shape, _scaled_squared_error, out, mean, x, real(0.5 / (sigma * sigma)), real(constant))


@cuda.jit
def _scaled_squared_error(out, a, b, weight, constant):
    """out (b) = weight (sum over d of (a - b)^2) + constant."""
    shared = cuda.shared.array(THREADS, out.dtype)
    r = cuda.blockIdx.x
    total = out.dtype.type(0)
    for i in range(cuda.threadIdx.x, a.shape[1], cuda.blockDim.x):
        error = a[r, i] - b[r, i]
        total += error * error
    total = block_sum(shared, total)
    if cuda.threadIdx.x == 0:
        out[r] = weight * total + constant


def gaussian_nll_fixed_backward(dmean, dout, mean, x, sigma):
    """dmean (b,d) = (mean - x) dout / sigma^2."""
    weight = x.dtype.type(1.0 / (sigma * sigma))
    launch_over(dmean.size, _scaled_squared_error_backward, dmean, dout, mean, x, weight)


@cuda.jit
def _scaled_squared_error_backward(da, dout, a, b, weight):
    """da (b,d) = weight (a - b) dout."""
    size = a.shape[1]
    for i in range(cuda.grid(1), a.size, cuda.gridsize(1)):
        r, d = i // size, i % size
        da[r, d] = weight * (a[r, d] - b[r, d]) * dout[r]


def squared_error(out, prediction, target):
    """out (b) = sum over d of (prediction - target)^2."""
    real = prediction.dtype.type
    launch_rows(prediction.shape, _scaled_squared_error, out, prediction, target, real(1), real(0))


def squared_error_backward(dprediction, dout, prediction, target):
    """dprediction (b,d) = 2 (prediction - target) dout."""
    weight = prediction.dtype.type(2)
    launch_over(dprediction.size, _scaled_squared_error_backward, dprediction, dout, prediction, target, weight)


def softmax_cross_entropy(out, logits, labels):
    """out (b) = logsumexp(logits) - logits[label], with logits (b,c) and integer labels (b); NaN unless in 0..c-1."""
    launch_rows(logits.shape, _softmax_cross_entropy, out, logits, labels)


@cuda.jit
def _softmax_cross_entropy(out, logits, labels):
    shared = cuda.shared.array(THREADS, out.dtype)
    b = cuda.blockIdx.x
    largest = row_max(shared, logits, b)
    total = row_sum_exp(shared, logits, b, largest)
    if cuda.threadIdx.x == 0:
        inside = 0 <= labels[b] < logits.shape[1]
        out[b] = largest - logits[b, labels[b]] + math.log(total) if inside else out.dtype.type(math.nan)


def softmax_cross_entropy_backward(dlogits, dout, logits, labels):
    """dlogits (b,c) = (softmax(logits) - one_hot(labels)) dout."""
    launch_rows(logits.shape, _softmax_cross_entropy_backward, dlogits, dout, logits, labels)


@cuda.jit
def _softmax_cross_entropy_backward(dlogits, dout, logits, labels):
    shared = cuda.shared.array(THREADS, dout.dtype)
    b = cuda.blockIdx.x
    largest = row_max(shared, logits, b)
    weight = dout[b] / row_sum_exp(shared, logits, b, largest)
    for c in range(cuda.threadIdx.x, logits.shape[1], cuda.blockDim.x):
        share = math.exp(logits[b, c] - largest) * weight
        dlogits[b, c] = share - dout[b] if c == labels[b] else share


def kl_standard_normal(out, mu, logvar):
    """out (b) = KL(N(mu, e^logvar) || N(0, I)) = -1/2 sum over j of 1 + logvar - mu^2 - e^logvar.

    Near logvar = 0 a term is about logvar^2 / 2. With expm1 its rounding error is relative to logvar, not to 1.
    """
    launch_rows(mu.shape, _kl_standard_normal, out, mu, logvar)


@cuda.jit
def _kl_standard_normal(out, mu, logvar):
    shared = cuda.shared.array(THREADS, out.dtype)
    b = cuda.blockIdx.x
    total = out.dtype.type(0)
    for j in range(cuda.threadIdx.x, mu.shape[1], cuda.blockDim.x):
        total += mu[b, j] * mu[b, j] + (math.expm1(logvar[b, j]) - logvar[b, j])
    total = block_sum(shared, total)
    if cuda.threadIdx.x == 0:
        out[b] = cast(0.5, total) * total


def kl_standard_normal_backward(dmu, dlogvar, dout, mu, logvar):
    """dmu (b,j) = mu dout;  dlogvar = (e^logvar - 1) dout / 2."""
    launch_over(dmu.size, _kl_standard_normal_backward, dmu, dlogvar, dout, mu, logvar)


@cuda.jit
def _kl_standard_normal_backward(dmu, dlogvar, dout, mu, logvar):
    size = mu.shape[1]
    for i in range(cuda.grid(1), mu.size, cuda.gridsize(1)):
        b, j = i // size, i % size
        dmu[b, j] = mu[b, j] * dout[b]
        dlogvar[b, j] = cast(0.5, dout[b]) * math.expm1(logvar[b, j]) * dout[b]
