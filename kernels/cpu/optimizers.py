"""One optimizer step over flat arrays (n): parameters, optimizer state, gradient. Parameters and state are updated in
place, unless an element of ``guard`` (k) is not finite. ``rates`` holds what changes from step to step."""

import math

from numba import njit, prange

from kernels.cpu.vector_math import JIT


@njit(**JIT)
def _all_finite(guard):
    finite = True
    for i in range(guard.size):
        finite = finite and math.isfinite(guard[i])
    return finite


@njit(parallel=True, **JIT)
def sgd_step(param, velocity, grad, rates, guard, nesterov):
    """velocity = mu velocity + grad;  param -= lr (grad + mu velocity if nesterov else velocity), rates = lr, mu."""
    if not _all_finite(guard):
        return
    rate, mu = rates[0], rates[1]
    for i in prange(param.size):
        velocity[i] = mu * velocity[i] + grad[i]
        param[i] -= rate * (grad[i] + mu * velocity[i] if nesterov else velocity[i])


@njit(**JIT)
def rmsprop_step(param, mean_square, grad, rates, guard, decay, epsilon):
    """mean_square = decay mean_square + (1 - decay) grad^2;  param -= lr grad / (sqrt(mean_square) + epsilon)."""
    if not _all_finite(guard):
        return
    real = param.dtype.type
    rate, keep, rest, eps = rates[0], real(decay), real(1.0 - decay), real(epsilon)
    for i in range(param.size):
        mean_square[i] = keep * mean_square[i] + rest * grad[i] * grad[i]
        param[i] -= rate * grad[i] / (math.sqrt(mean_square[i]) + eps)


@njit(**JIT)
def adagrad_step(param, sum_square, grad, rates, guard, epsilon):
    """sum_square += grad^2;  param -= lr grad / (sqrt(sum_square) + epsilon)."""
    if not _all_finite(guard):
        return
    rate, eps = rates[0], param.dtype.type(epsilon)
    for i in range(param.size):
        sum_square[i] += grad[i] * grad[i]
        param[i] -= rate * grad[i] / (math.sqrt(sum_square[i]) + eps)


@njit(parallel=True, **JIT)
def adam_step(param, m, v, grad, rates, guard, beta1, beta2, epsilon):
    """m, v = EMAs of grad, grad^2;  param -= r m / (sqrt(s v) + epsilon), rates = r, s."""
    if not _all_finite(guard):
        return
    real = param.dtype.type
    keep1, rest1, keep2, rest2 = real(beta1), real(1.0 - beta1), real(beta2), real(1.0 - beta2)
    rate, unbias, eps = rates[0], rates[1], real(epsilon)
    for i in prange(param.size):
        m[i] = keep1 * m[i] + rest1 * grad[i]
        v[i] = keep2 * v[i] + rest2 * grad[i] * grad[i]
        param[i] -= rate * m[i] / (math.sqrt(v[i] * unbias) + eps)


@njit(parallel=True, **JIT)
def average_step(average, param, decay):
    """average = decay average + (1 - decay) param, with an array decay (1)."""
    keep = decay[0]
    rest = param.dtype.type(1.0) - keep
    for i in prange(param.size):
        average[i] = keep * average[i] + rest * param[i]
