"""One optimizer step over flat arrays (n), defined in NumPy."""

import numpy as np


def sgd_step(param, velocity, grad, lr, momentum, nesterov):
    """velocity = momentum velocity + grad;  param -= lr (grad + momentum velocity if nesterov else velocity)."""
    velocity[...] = momentum * velocity + grad
    param[...] -= lr * (grad + momentum * velocity if nesterov else velocity)


def rmsprop_step(param, mean_square, grad, lr, decay, epsilon):
    """mean_square = decay mean_square + (1 - decay) grad^2;  param -= lr grad / (sqrt(mean_square) + epsilon)."""
    mean_square[...] = decay * mean_square + (1 - decay) * grad**2
    param[...] -= lr * grad / (np.sqrt(mean_square) + epsilon)


def adagrad_step(param, sum_square, grad, lr, epsilon):
    """sum_square += grad^2;  param -= lr grad / (sqrt(sum_square) + epsilon)."""
    sum_square[...] += grad**2
    param[...] -= lr * grad / (np.sqrt(sum_square) + epsilon)


def adam_step(param, m, v, grad, lr, beta1, beta2, epsilon, step):
    """m, v = running means of grad, grad^2;  param -= lr m^ / (sqrt(v^) + epsilon), m^ = m / (1 - beta1^step)."""
    m[...] = beta1 * m + (1 - beta1) * grad
    v[...] = beta2 * v + (1 - beta2) * grad**2
    param[...] -= lr * (m / (1 - beta1**step)) / (np.sqrt(v / (1 - beta2**step)) + epsilon)


def average_step(average, param, decay):
    """average = decay average + (1 - decay) param."""
    average[...] = decay * average + (1 - decay) * param
