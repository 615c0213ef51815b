"""One optimizer step over flat arrays (n): parameters, the optimizer's moments, gradient. All but the gradient are
updated in place, in one launch; what is the same for all numbers is computed before it."""

import math

from kernels.cuda.device import cuda, launch_over


def sgd_step(param, velocity, grad, lr, momentum, nesterov):
    """velocity = momentum velocity + grad;  param -= lr (grad + momentum velocity if nesterov else velocity)."""
    real = param.dtype.type
    launch_over(param.size, _sgd_step, param, velocity, grad, real(lr), real(momentum), nesterov)


@cuda.jit
def _sgd_step(param, velocity, grad, lr, momentum, nesterov):
    for i in range(cuda.grid(1), param.size, cuda.gridsize(1)):
        v = momentum * velocity[i] + grad[i]
        velocity[i] = v
        param[i] -= lr * (grad[i] + momentum * v if nesterov else v)


def rmsprop_step(param, mean_square, grad, lr, decay, epsilon):
    """mean_square = decay mean_square + (1 - decay) grad^2;  param -= lr grad / (sqrt(mean_square) + epsilon)."""
    real = param.dtype.type
    rest = real(1.0 - decay)
    launch_over(param.size, _rmsprop_step, param, mean_square, grad, real(lr), real(decay), rest, real(epsilon))


@cuda.jit
def _rmsprop_step(param, mean_square, grad, lr, decay, rest, epsilon):
    for i in range(cuda.grid(1), param.size, cuda.gridsize(1)):
        s = decay * mean_square[i] + rest * grad[i] * grad[i]
        mean_square[i] = s
        param[i] -= lr * grad[i] / (math.sqrt(s) + epsilon)


def adagrad_step(param, sum_square, grad, lr, epsilon):
    """sum_square += grad^2;  param -= lr grad / (sqrt(sum_square) + epsilon)."""
    real = param.dtype.type
    launch_over(param.size, _adagrad_step, param, sum_square, grad, real(lr), real(epsilon))


@cuda.jit
def _adagrad_step(param, sum_square, grad, lr, epsilon):
    for i in range(cuda.grid(1), param.size, cuda.gridsize(1)):
        s = sum_square[i] + grad[i] * grad[i]
        sum_square[i] = s
        param[i] -= lr * grad[i] / (math.sqrt(s) + epsilon)


def adam_step(param, m, v, grad, lr, beta1, beta2, epsilon, step):
    """m, v = running means of grad, grad^2;  param -= lr m^ / (sqrt(v^) + epsilon), m^ = m / (1 - beta1^step)."""
    real = param.dtype.type
    means = real(beta1), real(1.0 - beta1), real(beta2), real(1.0 - beta2)
    rate, unbias2 = real(lr / (1.0 - beta1**step)), real(1.0 / (1.0 - beta2**step))
    launch_over(param.size, _adam_step, param, m, v, grad, *means, rate, unbias2, real(epsilon))


@cuda.jit
def _adam_step(param, m, v, grad, keep1, rest1, keep2, rest2, rate, unbias2, epsilon):
    for i in range(cuda.grid(1), param.size, cuda.gridsize(1)):
        mean = keep1 * m[i] + rest1 * grad[i]
        square = keep2 * v[i] + rest2 * grad[i] * grad[i]
        m[i], v[i] = mean, square
        param[i] -= rate * mean / (math.sqrt(square * unbias2) + epsilon)


def average_step(average, param, decay):
    """average = decay average + (1 - decay) param."""
    real = param.dtype.type
    launch_over(param.size, _average_step, average, param, real(decay), real(1.0 - decay))


@cuda.jit
def _average_step(average, param, keep, rest):
    for i in range(cuda.grid(1), param.size, cuda.gridsize(1)):
        average[i] = keep * average[i] + rest * param[i]
