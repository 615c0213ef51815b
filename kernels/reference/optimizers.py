"""One optimizer step over flat arrays (n), defined in NumPy.

``rates`` holds the numbers that change from step to step, the learning rate first. Nothing is written unless every
element of ``guard`` (k), such as the loss, is finite. Both are arrays, so that a replayed step reads their current
values.
"""

import numpy as np


def sgd_step(param, velocity, grad, rates, guard, nesterov):
    """velocity = mu velocity + grad;  param -= lr (grad + mu velocity if nesterov else velocity), rates = lr, mu."""
    if np.isfinite(guard).all():
        lr, mu = rates
        velocity[...] = mu * velocity + grad
        param[...] -= lr * (grad + mu * velocity if nesterov else velocity)


def rmsprop_step(param, mean_square, grad, rates, guard, decay, epsilon):
    """mean_square = decay mean_square + (1 - decay) grad^2;  param -= lr grad / (sqrt(mean_square) + epsilon)."""
    if np.isfinite(guard).all():
        mean_square[...] = decay * mean_square + (1 - decay) * grad**2
        param[...] -= rates[0] * grad / (np.sqrt(mean_square) + epsilon)


def adagrad_step(param, sum_square, grad, rates, guard, epsilon):
    """sum_square += grad^2;  param -= lr grad / (sqrt(sum_square) + epsilon)."""
    if np.isfinite(guard).all():
        sum_square[...] += grad**2
        param[...] -= rates[0] * grad / (np.sqrt(sum_square) + epsilon)


def adam_step(param, m, v, grad, rates, guard, beta1, beta2, epsilon):
    """m, v = EMAs of grad, grad^2;  param -= r m / (sqrt(s v) + epsilon), rates = r, s.

    r = lr / (1 - beta1^step) and s = 1 / (1 - beta2^step): the learning rate and Adam's bias corrections.
    """
    if np.isfinite(guard).all():
        rate, unbias = rates
        m[...] = beta1 * m + (1 - beta1) * grad
        v[...] = beta2 * v + (1 - beta2) * grad**2
        param[...] -= rate * m / (np.sqrt(v * unbias) + epsilon)


def average_step(average, param, decay):
    """average = decay average + (1 - decay) param, with an array decay (1)."""
    average[...] = decay * average + (1 - decay) * param
