"""One optimizer step over flat arrays (n): parameters, optimizer state, gradient. Parameters and state are updated in
place, in one launch, unless an element of ``guard`` (k) is not finite. ``rates`` holds what changes from step to step;
it is on the device, so that a replayed step reads its current values."""

import math

from kernels.cuda.device import cuda, launch_over


@cuda.jit(device=True)
def _all_finite(guard):
    finite = True
    for i in range(guard.size):
        finite = finite and math.isfinite(guard[i])
    return finite


def sgd_step(param, velocity, grad, rates, guard, nesterov):
    """velocity = mu velocity + grad;  param -= lr (grad + mu velocity if nesterov else velocity), rates = lr, mu."""
    launch_over(param.size, _sgd_step, param, velocity, grad, rates, guard, nesterov)


@cuda.jit
def _sgd_step(param, velocity, grad, rates, guard, nesterov):
    if not _all_finite(guard):
        return
    lr, momentum = rates[0], rates[1]
    for i in range(cuda.grid(1), param.size, cuda.gridsize(1)):
        v = momentum * velocity[i] + grad[i]
        velocity[i] = v
        param[i] -= lr * (grad[i] + momentum * v if nesterov else v)


def rmsprop_step(param, mean_square, grad, rates, guard, decay, epsilon):
    """mean_square = decay mean_square + (1 - decay) grad^2;  param -= lr grad / (sqrt(mean_square) + epsilon)."""
    real = param.dtype.type
    constants = real(decay), real(1.0 - decay), real(epsilon)
    launch_over(param.size, _rmsprop_step, param, mean_square, grad, rates, guard, *constants)


@cuda.jit
def _rmsprop_step(param, mean_square, grad, rates, guard, decay, rest, epsilon):
    if not _all_finite(guard):
        return
    lr = rates[0]
    for i in range(cuda.grid(1), param.size, cuda.gridsize(1)):
        s = decay * mean_square[i] + rest * grad[i] * grad[i]
        mean_square[i] = s
        param[i] -= lr * grad[i] / (math.sqrt(s) + epsilon)


def adagrad_step(param, sum_square, grad, rates, guard, epsilon):
    """sum_square += grad^2;  param -= lr grad / (sqrt(sum_square) + epsilon)."""
    launch_over(param.size, _adagrad_step, param, sum_square, grad, rates, guard, param.dtype.type(epsilon))


@cuda.jit
def _adagrad_step(param, sum_square, grad, rates, guard, epsilon):
    if not _all_finite(guard):
        return
    lr = rates[0]
    for i in range(cuda.grid(1), param.size, cuda.gridsize(1)):
        s = sum_square[i] + grad[i] * grad[i]
        sum_square[i] = s
        param[i] -= lr * grad[i] / (math.sqrt(s) + epsilon)


def adam_step(param, m, v, grad, rates, guard, beta1, beta2, epsilon):
    """m, v = EMAs of grad, grad^2;  param -= r m / (sqrt(s v) + epsilon), rates = r, s."""
    real = param.dtype.type
    constants = real(beta1), real(1.0 - beta1), real(beta2), real(1.0 - beta2), real(epsilon)
    launch_over(param.size, _adam_step, param, m, v, grad, rates, guard, *constants)


@cuda.jit
def _adam_step(param, m, v, grad, rates, guard, keep1, rest1, keep2, rest2, epsilon):
    if not _all_finite(guard):
        return
    rate, unbias = rates[0], rates[1]
    for i in range(cuda.grid(1), param.size, cuda.gridsize(1)):
        mean = keep1 * m[i] + rest1 * grad[i]
        square = keep2 * v[i] + rest2 * grad[i] * grad[i]
        m[i], v[i] = mean, square
        param[i] -= rate * mean / (math.sqrt(square * unbias) + epsilon)


def average_step(average, param, decay):
    """average = decay average + (1 - decay) param, with an array decay (1)."""
    launch_over(param.size, _average_step, average, param, decay)


@cuda.jit
def _average_step(average, param, decay):
    keep = decay[0]
    rest = param.dtype.type(1) - keep
    for i in range(cuda.grid(1), param.size, cuda.gridsize(1)):
        average[i] = keep * average[i] + rest * param[i]
