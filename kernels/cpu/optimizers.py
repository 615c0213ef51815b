"""One optimizer step over flat arrays (n): parameters, the optimizer's moments, gradient. All but the gradient are
updated in place."""

import math

from numba import njit, prange

from kernels.cpu.vector_math import JIT


@njit(parallel=True, **JIT)
def sgd_step(param, velocity, grad, lr, momentum, nesterov):
    """velocity = momentum velocity + grad;  param -= lr (grad + momentum velocity if nesterov else velocity)."""
    real = param.dtype.type
    rate, mu = real(lr), real(momentum)
    for i in prange(param.size):
        velocity[i] = mu * velocity[i] + grad[i]
        param[i] -= rate * (grad[i] + mu * velocity[i] if nesterov else velocity[i])


@njit(**JIT)
def rmsprop_step(param, mean_square, grad, lr, decay, epsilon):
    """mean_square = decay mean_square + (1 - decay) grad^2;  param -= lr grad / (sqrt(mean_square) + epsilon)."""
    real = param.dtype.type
    rate, keep, rest, eps = real(lr), real(decay), real(1.0 - decay), real(epsilon)
    for i in range(param.size):
        mean_square[i] = keep * mean_square[i] + rest * grad[i] * grad[i]
        param[i] -= rate * grad[i] / (math.sqrt(mean_square[i]) + eps)


@njit(**JIT)
def adagrad_step(param, sum_square, grad, lr, epsilon):
    """sum_square += grad^2;  param -= lr grad / (sqrt(sum_square) + epsilon)."""
    real = param.dtype.type
    rate, eps = real(lr), real(epsilon)
    for i in range(param.size):
        sum_square[i] += grad[i] * grad[i]
        param[i] -= rate * grad[i] / (math.sqrt(sum_square[i]) + eps)


@njit(parallel=True, **JIT)
def adam_step(param, m, v, grad, lr, beta1, beta2, epsilon, step):
    """m, v = running means of grad, grad^2;  param -= lr m^ / (sqrt(v^) + epsilon), m^ = m / (1 - beta1^step)."""
    real = param.dtype.type
    keep1, rest1, keep2, rest2 = real(beta1), real(1.0 - beta1), real(beta2), real(1.0 - beta2)
    rate, unbias2, eps = real(lr / (1.0 - beta1**step)), real(1.0 / (1.0 - beta2**step)), real(epsilon)
    for i in prange(param.size):
        m[i] = keep1 * m[i] + rest1 * grad[i]
        v[i] = keep2 * v[i] + rest2 * grad[i] * grad[i]
        param[i] -= rate * m[i] / (math.sqrt(v[i] * unbias2) + eps)


@njit(parallel=True, **JIT)
def average_step(average, param, decay):
    """average = decay average + (1 - decay) param."""
    real = param.dtype.type
    keep, rest = real(decay), real(1.0 - decay)
    for i in prange(param.size):
        average[i] = keep * average[i] + rest * param[i]
