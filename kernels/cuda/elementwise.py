"""Elementwise kernels over flat arrays of one size (n), of which each thread computes some elements.

Each public function launches the kernel below it.
"""

import math

from kernels.cuda.device import cuda, launch_over
from kernels.cuda.functions import ELU, RELU, SIGMOID, SOFTPLUS, TANH, activate, cast, slope

# ---- arithmetic ----


def add(out, a, b):
    """out = a + b."""
    launch_over(out.size, _add, out, a, b)


@cuda.jit
def _add(out, a, b):
    for i in range(cuda.grid(1), out.size, cuda.gridsize(1)):
        out[i] = a[i] + b[i]


def subtract(out, a, b):
    """out = a - b."""
    launch_over(out.size, _subtract, out, a, b)


@cuda.jit
def _subtract(out, a, b):
    for i in range(cuda.grid(1), out.size, cuda.gridsize(1)):
        out[i] = a[i] - b[i]


def multiply(out, a, b):
    """out = a b."""
    launch_over(out.size, _multiply, out, a, b)


@cuda.jit
def _multiply(out, a, b):
    for i in range(cuda.grid(1), out.size, cuda.gridsize(1)):
        out[i] = a[i] * b[i]


def divide(out, a, b):
    """out = a / b."""
    launch_over(out.size, _divide, out, a, b)


@cuda.jit
def _divide(out, a, b):
    for i in range(cuda.grid(1), out.size, cuda.gridsize(1)):
        out[i] = a[i] / b[i]


def scale(out, x, factor):
    """out = factor x."""
    launch_over(out.size, _scale, out, x, x.dtype.type(factor))


@cuda.jit
def _scale(out, x, factor):
    for i in range(cuda.grid(1), out.size, cuda.gridsize(1)):
        out[i] = factor * x[i]


def square(out, x):
    """out = x^2."""
    launch_over(out.size, _multiply, out, x, x)


def square_backward(dx, dout, x):
    """dx = 2 x dout."""
    launch_over(dx.size, _square_backward, dx, dout, x)


@cuda.jit
def _square_backward(dx, dout, x):
    for i in range(cuda.grid(1), dx.size, cuda.gridsize(1)):
        dx[i] = (x[i] + x[i]) * dout[i]


def sqrt(out, x):
    """out = sqrt(x)."""
    launch_over(out.size, _sqrt, out, x)


@cuda.jit
def _sqrt(out, x):
    for i in range(cuda.grid(1), out.size, cuda.gridsize(1)):
        out[i] = math.sqrt(x[i])


def sqrt_backward(dx, dout, out):
    """dx = dout / (2 out)."""
    launch_over(dx.size, _sqrt_backward, dx, dout, out)


@cuda.jit
def _sqrt_backward(dx, dout, out):
    for i in range(cuda.grid(1), dx.size, cuda.gridsize(1)):
        dx[i] = dout[i] / (out[i] + out[i])


def power(out, x, exponent):
    """out = x^exponent."""
    launch_over(out.size, _power, out, x, x.dtype.type(exponent))


@cuda.jit
def _power(out, x, exponent):
    for i in range(cuda.grid(1), out.size, cuda.gridsize(1)):
        out[i] = x[i] ** exponent


def power_backward(dx, dout, x, exponent):
    """dx = exponent x^(exponent - 1) dout; 0 for exponent 0, at x = 0 too."""
    real = x.dtype.type
    launch_over(dx.size, _power_backward, dx, dout, x, real(exponent), real(exponent - 1.0))


@cuda.jit
def _power_backward(dx, dout, x, exponent, less):
    zero = x.dtype.type(0)
    for i in range(cuda.grid(1), dx.size, cuda.gridsize(1)):
        dx[i] = exponent * x[i] ** less * dout[i] if exponent != zero else zero


def exp(out, x):
    """out = e^x."""
    launch_over(out.size, _exp, out, x)


@cuda.jit
def _exp(out, x):
    for i in range(cuda.grid(1), out.size, cuda.gridsize(1)):
        out[i] = math.exp(x[i])


def log(out, x):
    """out = ln x."""
    launch_over(out.size, _log, out, x)


@cuda.jit
def _log(out, x):
    for i in range(cuda.grid(1), out.size, cuda.gridsize(1)):
        out[i] = math.log(x[i])


# ---- activations: the backward of all but gelu is a function of the output ----


@cuda.jit
def _activate(out, x, kind):
    for i in range(cuda.grid(1), out.size, cuda.gridsize(1)):
        out[i] = activate(kind, x[i])


@cuda.jit
def _activate_backward(dx, dout, out, kind):
    for i in range(cuda.grid(1), dx.size, cuda.gridsize(1)):
        dx[i] = slope(kind, out[i]) * dout[i]


def relu(out, x):
    """out = max(x, 0)."""
    launch_over(out.size, _activate, out, x, RELU)


def relu_backward(dx, dout, out):
    """dx = dout where out > 0, else 0."""
    launch_over(dx.size, _activate_backward, dx, dout, out, RELU)


def leaky_relu(out, x, slope):
    """out = x where x > 0, else slope x."""
    launch_over(out.size, _leaky_relu, out, x, x.dtype.type(slope))


@cuda.jit
def _leaky_relu(out, x, slope):
    for i in range(cuda.grid(1), out.size, cuda.gridsize(1)):
        out[i] = x[i] if x[i] > cast(0.0, x[i]) else slope * x[i]


def leaky_relu_backward(dx, dout, out, slope):
    """dx = dout where out > 0, else slope dout."""
    launch_over(dx.size, _leaky_relu_backward, dx, dout, out, dout.dtype.type(slope))


@cuda.jit
def _leaky_relu_backward(dx, dout, out, slope):
    for i in range(cuda.grid(1), dx.size, cuda.gridsize(1)):
        dx[i] = dout[i] if out[i] > cast(0.0, out[i]) else slope * dout[i]


def elu(out, x):
    """out = x where x > 0, else e^x - 1."""
    launch_over(out.size, _activate, out, x, ELU)


def elu_backward(dx, dout, out):
    """dx = dout where out > 0, else (out + 1) dout."""
    launch_over(dx.size, _activate_backward, dx, dout, out, ELU)


def sigmoid(out, x):
    """out = 1 / (1 + e^-x)."""
    launch_over(out.size, _activate, out, x, SIGMOID)


def sigmoid_backward(dx, dout, out):
    """dx = out (1 - out) dout."""
    launch_over(dx.size, _activate_backward, dx, dout, out, SIGMOID)


def tanh(out, x):
    """out = tanh(x)."""
    launch_over(out.size, _activate, out, x, TANH)


def tanh_backward(dx, dout, out):
    """dx = (1 - out^2) dout."""
    launch_over(dx.size, _activate_backward, dx, dout, out, TANH)


def softplus(out, x):
    """out = log(1 + e^x)."""
    launch_over(out.size, _activate, out, x, SOFTPLUS)


def softplus_backward(dx, dout, out):
    """dx = sigmoid(x) dout = (1 - e^-out) dout."""
    launch_over(dx.size, _activate_backward, dx, dout, out, SOFTPLUS)


def gelu(out, x):
    """out = x Phi(x), with Phi the normal distribution function."""
    launch_over(out.size, _gelu, out, x)


@cuda.jit
def _gelu(out, x):
    for i in range(cuda.grid(1), out.size, cuda.gridsize(1)):
        half, root_half = cast(0.5, x[i]), cast(math.sqrt(0.5), x[i])
        out[i] = half * x[i] * math.erfc(-x[i] * root_half)  # 1 + erf(x / sqrt(2)) would cancel for x < 0


def gelu_backward(dx, dout, x):
    """dx = (Phi(x) + x phi(x)) dout."""
    launch_over(dx.size, _gelu_backward, dx, dout, x)


@cuda.jit
def _gelu_backward(dx, dout, x):
    for i in range(cuda.grid(1), dx.size, cuda.gridsize(1)):
        half, root_half = cast(0.5, x[i]), cast(math.sqrt(0.5), x[i])
        density = math.exp(-half * x[i] * x[i]) * cast(1 / math.sqrt(2 * math.pi), x[i])
        dx[i] = (half * math.erfc(-x[i] * root_half) + x[i] * density) * dout[i]


# ---- selection ----


def where(out, condition, a, b):
    """out = a where condition > 0, else b."""
    launch_over(out.size, _where, out, condition, a, b)


@cuda.jit
def _where(out, condition, a, b):
    for i in range(cuda.grid(1), out.size, cuda.gridsize(1)):
        out[i] = a[i] if condition[i] > cast(0.0, a[i]) else b[i]


def where_backward(da, db, dout, condition):
    """da = dout where condition > 0, else 0;  db the other way round."""
    launch_over(dout.size, _where_backward, da, db, dout, condition)


@cuda.jit
def _where_backward(da, db, dout, condition):
    for i in range(cuda.grid(1), dout.size, cuda.gridsize(1)):
        zero = cast(0.0, dout[i])
        chosen = condition[i] > zero
        da[i] = dout[i] if chosen else zero
        db[i] = zero if chosen else dout[i]


def maximum(out, a, b):
    """out = the larger of a and b; NaN if one is."""
    launch_over(out.size, _maximum, out, a, b)


@cuda.jit
def _maximum(out, a, b):
    for i in range(cuda.grid(1), out.size, cuda.gridsize(1)):
        out[i] = a[i] if a[i] > b[i] or math.isnan(a[i]) else b[i]


def maximum_backward(da, db, dout, a, b):
    """da = 0 where a < b, dout / 2 where they are equal, else dout;  db likewise: where one is NaN, both get dout."""
    launch_over(dout.size, _maximum_backward, da, db, dout, a, b)


@cuda.jit
def _maximum_backward(da, db, dout, a, b):
    for i in range(cuda.grid(1), dout.size, cuda.gridsize(1)):
        zero, share = cast(0.0, dout[i]), cast(0.5, dout[i]) * dout[i] if a[i] == b[i] else dout[i]
        da[i] = zero if a[i] < b[i] else share
        db[i] = zero if b[i] < a[i] else share


def clip(out, x, low, high):
    """out = low where x < low, high where x > high, else x."""
    launch_over(out.size, _clip, out, x, x.dtype.type(low), x.dtype.type(high))


@cuda.jit
def _clip(out, x, low, high):
    for i in range(cuda.grid(1), out.size, cuda.gridsize(1)):
        out[i] = low if x[i] < low else (high if x[i] > high else x[i])


def clip_backward(dx, dout, x, low, high):
    """dx = dout where low <= x <= high, else 0."""
    launch_over(dx.size, _clip_backward, dx, dout, x, x.dtype.type(low), x.dtype.type(high))


@cuda.jit
def _clip_backward(dx, dout, x, low, high):
    for i in range(cuda.grid(1), dx.size, cuda.gridsize(1)):
        dx[i] = dout[i] if low <= x[i] <= high else cast(0.0, x[i])


# ---- sampling: the noise is an input, so that every kernel is deterministic ----


def reparameterize(out, mu, logvar, noise):
    """out = mu + e^(logvar / 2) noise."""
    launch_over(out.size, _reparameterize, out, mu, logvar, noise)


@cuda.jit
def _reparameterize(out, mu, logvar, noise):
    for i in range(cuda.grid(1), out.size, cuda.gridsize(1)):
        out[i] = mu[i] + math.exp(cast(0.5, mu[i]) * logvar[i]) * noise[i]


def reparameterize_backward(dmu, dlogvar, dout, logvar, noise):
    """dmu = dout;  dlogvar = e^(logvar / 2) noise dout / 2."""
    launch_over(dout.size, _reparameterize_backward, dmu, dlogvar, dout, logvar, noise)


@cuda.jit
def _reparameterize_backward(dmu, dlogvar, dout, logvar, noise):
    for i in range(cuda.grid(1), dout.size, cuda.gridsize(1)):
        half = cast(0.5, logvar[i])
        dmu[i] = dout[i]
        dlogvar[i] = half * math.exp(half * logvar[i]) * noise[i] * dout[i]


def dropout_mask(out, uniform, rate):
    """out = 0 where uniform < rate, else 1 / (1 - rate)."""
    real = out.dtype.type
    launch_over(out.size, _dropout_mask, out, uniform, real(rate), real(1 / (1 - rate)))


@cuda.jit
def _dropout_mask(out, uniform, rate, kept):
    for i in range(cuda.grid(1), out.size, cuda.gridsize(1)):
        out[i] = out.dtype.type(0) if uniform[i] < rate else kept


def bernoulli(out, probability, uniform):
    """out = 1 where uniform < probability, else 0; uniform in [0, 1)."""
    launch_over(out.size, _bernoulli, out, probability, uniform)


@cuda.jit
def _bernoulli(out, probability, uniform):
    for i in range(cuda.grid(1), out.size, cuda.gridsize(1)):
        out[i] = out.dtype.type(1) if uniform[i] < probability[i] else out.dtype.type(0)
