"""Elementwise kernels: one loop each over flat arrays of one size (n)."""

import math

from numba import njit, prange

from kernels.cpu import functions
from kernels.cpu import vector_math as vm
from kernels.cpu.vector_math import JIT, cast

# ---- arithmetic ----


@njit(**JIT)
def add(out, a, b):
    """out = a + b."""
    for i in range(out.size):
        out[i] = a[i] + b[i]


@njit(**JIT)
def subtract(out, a, b):
    """out = a - b."""
    for i in range(out.size):
        out[i] = a[i] - b[i]


@njit(**JIT)
def multiply(out, a, b):
    """out = a b."""
    for i in range(out.size):
        out[i] = a[i] * b[i]


@njit(**JIT)
def divide(out, a, b):
    """out = a / b."""
    for i in range(out.size):
        out[i] = a[i] / b[i]


@njit(**JIT)
def scale(out, x, factor):
    """out = factor x."""
    for i in range(out.size):
        out[i] = cast(factor, x[i]) * x[i]


@njit(**JIT)
def square(out, x):
    """out = x^2."""
    for i in range(out.size):
        out[i] = x[i] * x[i]


@njit(**JIT)
def square_backward(dx, dout, x):
    """dx = 2 x dout."""
    for i in range(dx.size):
        dx[i] = (x[i] + x[i]) * dout[i]


@njit(**JIT)
def sqrt(out, x):
    """out = sqrt(x)."""
    for i in range(out.size):
        out[i] = math.sqrt(x[i])


@njit(**JIT)
def sqrt_backward(dx, dout, out):
    """dx = dout / (2 out)."""
    for i in range(dx.size):
        dx[i] = dout[i] / (out[i] + out[i])


@njit(**JIT)
def power(out, x, exponent):
    """out = x^exponent."""
    for i in range(out.size):
        out[i] = x[i] ** cast(exponent, x[i])


@njit(**JIT)
def power_backward(dx, dout, x, exponent):
    """dx = exponent x^(exponent - 1) dout; 0 for exponent 0, at x = 0 too."""
    for i in range(dx.size):
        slope = cast(exponent, x[i]) * x[i] ** cast(exponent - 1.0, x[i])
        dx[i] = slope * dout[i] if exponent != 0 else cast(0.0, x[i])


@njit(**JIT)
def exp(out, x):
    """out = e^x."""
    for i in range(out.size):
        out[i] = vm.exp(x[i])


@njit(**JIT)
def log(out, x):
    """out = ln x."""
    for i in range(out.size):
        out[i] = vm.log(x[i])


# ---- activations: the backward of all but gelu is a function of the output ----

# The first four, which follow batch normalisation, run on all threads: on two, a small array takes 2 us longer, and one
# of more than 100,000 numbers little more than half as long.


@njit(parallel=True, **JIT)
def relu(out, x):
    """out = max(x, 0)."""
    for i in prange(out.size):
        out[i] = functions.relu(x[i])


@njit(parallel=True, **JIT)
def relu_backward(dx, dout, out):
    """dx = dout where out > 0, else 0."""
    for i in prange(dx.size):
        dx[i] = functions.relu_backward(out[i], dout[i])


@njit(parallel=True, **JIT)
def leaky_relu(out, x, slope):
    """out = x where x > 0, else slope x."""
    for i in prange(out.size):
        out[i] = x[i] if x[i] > cast(0.0, x[i]) else cast(slope, x[i]) * x[i]


@njit(parallel=True, **JIT)
def leaky_relu_backward(dx, dout, out, slope):
    """dx = dout where out > 0, else slope dout."""
    for i in prange(dx.size):
        dx[i] = dout[i] if out[i] > cast(0.0, out[i]) else cast(slope, dout[i]) * dout[i]


@njit(**JIT)
def elu(out, x):
    """out = x where x > 0, else e^x - 1."""
    for i in range(out.size):
        out[i] = functions.elu(x[i])


@njit(**JIT)
def elu_backward(dx, dout, out):
    """dx = dout where out > 0, else (out + 1) dout."""
    for i in range(dx.size):
        dx[i] = functions.elu_backward(out[i], dout[i])


@njit(**JIT)
def sigmoid(out, x):
    """out = 1 / (1 + e^-x)."""
    for i in range(out.size):
        out[i] = vm.sigmoid(x[i])


@njit(**JIT)
def sigmoid_backward(dx, dout, out):
    """dx = out (1 - out) dout."""
    for i in range(dx.size):
        dx[i] = functions.sigmoid_backward(out[i], dout[i])


@njit(**JIT)
def tanh(out, x):
    """out = tanh(x)."""
    for i in range(out.size):
        out[i] = vm.tanh(x[i])


@njit(**JIT)
def tanh_backward(dx, dout, out):
    """dx = (1 - out^2) dout."""
    for i in range(dx.size):
        dx[i] = functions.tanh_backward(out[i], dout[i])


@njit(**JIT)
def softplus(out, x):
    """out = log(1 + e^x)."""
    for i in range(out.size):
        out[i] = vm.softplus(x[i])


@njit(**JIT)
def softplus_backward(dx, dout, out):
    """dx = sigmoid(x) dout = (1 - e^-out) dout."""
    for i in range(dx.size):
        dx[i] = functions.softplus_backward(out[i], dout[i])


@njit(**JIT)
def gelu(out, x):
    """out = x Phi(x), with Phi the normal distribution function."""
    for i in range(out.size):
        half, root_half = cast(0.5, x[i]), cast(math.sqrt(0.5), x[i])
        out[i] = half * x[i] * math.erfc(-x[i] * root_half)  # 1 + erf(x / sqrt(2)) would cancel for x < 0


@njit(**JIT)
def gelu_backward(dx, dout, x):
    """dx = (Phi(x) + x phi(x)) dout."""
    for i in range(dx.size):
        half, root_half = cast(0.5, x[i]), cast(math.sqrt(0.5), x[i])
        density = vm.exp(-half * x[i] * x[i]) * cast(1 / math.sqrt(2 * math.pi), x[i])
        dx[i] = (half * math.erfc(-x[i] * root_half) + x[i] * density) * dout[i]


# ---- selection ----


@njit(**JIT)
def where(out, condition, a, b):
    """out = a where condition > 0, else b."""
    for i in range(out.size):
        out[i] = a[i] if condition[i] > cast(0.0, a[i]) else b[i]


@njit(**JIT)
def where_backward(da, db, dout, condition):
    """da = dout where condition > 0, else 0;  db the other way round."""
    for i in range(dout.size):
        zero = cast(0.0, dout[i])
        chosen = condition[i] > zero
        da[i] = dout[i] if chosen else zero
        db[i] = zero if chosen else dout[i]


@njit(**JIT)
def maximum(out, a, b):
    """out = the larger of a and b; NaN if one is."""
    for i in range(out.size):
        out[i] = a[i] if a[i] > b[i] or math.isnan(a[i]) else b[i]


@njit(**JIT)
def maximum_backward(da, db, dout, a, b):
    """da = 0 where a < b, dout / 2 where they are equal, else dout;  db likewise: where one is NaN, both get dout."""
    for i in range(dout.size):
        zero, share = cast(0.0, dout[i]), cast(0.5, dout[i]) * dout[i] if a[i] == b[i] else dout[i]
        da[i] = zero if a[i] < b[i] else share
        db[i] = zero if b[i] < a[i] else share


@njit(**JIT)
def clip(out, x, low, high):
    """out = low where x < low, high where x > high, else x."""
    for i in range(out.size):
        least, most = cast(low, x[i]), cast(high, x[i])
        out[i] = least if x[i] < least else (most if x[i] > most else x[i])


@njit(**JIT)
def clip_backward(dx, dout, x, low, high):
    """dx = dout where low <= x <= high, else 0."""
    for i in range(dx.size):
        dx[i] = dout[i] if cast(low, x[i]) <= x[i] <= cast(high, x[i]) else cast(0.0, x[i])


# ---- sampling: the noise is an input, so that every kernel is a function ----


@njit(**JIT)
def reparameterize(out, mu, logvar, noise):
    """out = mu + e^(logvar / 2) noise."""
    for i in range(out.size):
        out[i] = mu[i] + vm.exp(cast(0.5, mu[i]) * logvar[i]) * noise[i]


@njit(**JIT)
def reparameterize_backward(dmu, dlogvar, dout, logvar, noise):
    """dmu = dout;  dlogvar = e^(logvar / 2) noise dout / 2."""
    for i in range(dout.size):
        half = cast(0.5, logvar[i])
        dmu[i] = dout[i]
        dlogvar[i] = half * vm.exp(half * logvar[i]) * noise[i] * dout[i]


@njit(**JIT)
def dropout_mask(out, uniform, rate):
    """out = 0 where uniform < rate, else 1 / (1 - rate)."""
    for i in range(out.size):
        out[i] = cast(0.0, out[i]) if uniform[i] < cast(rate, out[i]) else cast(1.0 / (1.0 - rate), out[i])


@njit(**JIT)
def bernoulli(out, probability, uniform):
    """out = 1 where uniform < probability, else 0; uniform in [0, 1)."""
    for i in range(out.size):
        out[i] = cast(1.0, out[i]) if uniform[i] < probability[i] else cast(0.0, out[i])
