"""Elementwise kernels, defined in NumPy."""

import math

import numpy as np

_erfc = np.vectorize(math.erfc, otypes=[float])

# ---- arithmetic ----


def add(out, a, b):
    """out = a + b."""
    out[...] = a + b


def subtract(out, a, b):
    """out = a - b."""
    out[...] = a - b


def multiply(out, a, b):
    """out = a b."""
    out[...] = a * b


def divide(out, a, b):
    """out = a / b."""
    out[...] = a / b


def scale(out, x, factor):
    """out = factor x."""
    out[...] = factor * x


def square(out, x):
    """out = x^2."""
    out[...] = x**2


def square_backward(dx, dout, x):
    """dx = 2 x dout."""
    dx[...] = 2 * x * dout


def sqrt(out, x):
    """out = sqrt(x)."""
    out[...] = np.sqrt(x)


def sqrt_backward(dx, dout, out):
    """dx = dout / (2 out)."""
    dx[...] = dout / (2 * out)


def power(out, x, exponent):
    """out = x^exponent."""
    out[...] = x**exponent


def power_backward(dx, dout, x, exponent):
    """dx = exponent x^(exponent - 1) dout; 0 for exponent 0, at x = 0 too."""
    dx[...] = exponent * x ** (exponent - 1) * dout if exponent != 0 else 0


def exp(out, x):
    """out = e^x."""
    out[...] = np.exp(x)


def log(out, x):
    """out = ln x."""
    out[...] = np.log(x)


# ---- activations ----


def relu(out, x):
    """out = max(x, 0)."""
    out[...] = np.maximum(x, 0)


def relu_backward(dx, dout, out):
    """dx = dout where out > 0, else 0."""
    dx[...] = np.where(out > 0, dout, 0)


def leaky_relu(out, x, slope):
    """out = x where x > 0, else slope x."""
    out[...] = np.where(x > 0, x, slope * x)


def leaky_relu_backward(dx, dout, out, slope):
    """dx = dout where out > 0, else slope dout."""
    dx[...] = np.where(out > 0, dout, slope * dout)


def elu(out, x):
    """out = x where x > 0, else e^x - 1."""
    out[...] = np.where(x > 0, x, np.expm1(np.minimum(x, 0)))


def elu_backward(dx, dout, out):
    """dx = dout where out > 0, else (out + 1) dout."""
    dx[...] = np.where(out > 0, 1, out + 1) * dout


def sigmoid(out, x):
    """out = 1 / (1 + e^-x)."""
    e = np.exp(-abs(x))  # does not overflow
    out[...] = np.where(x >= 0, 1, e) / (1 + e)


def sigmoid_backward(dx, dout, out):
    """dx = out (1 - out) dout."""
    dx[...] = out * (1 - out) * dout


def tanh(out, x):
    """out = tanh(x)."""
    out[...] = np.tanh(x)


def tanh_backward(dx, dout, out):
    """dx = (1 - out^2) dout."""
    dx[...] = (1 - out**2) * dout


def softplus(out, x):
    """out = log(1 + e^x)."""
    out[...] = np.logaddexp(0, x)


def softplus_backward(dx, dout, out):
    """dx = sigmoid(x) dout = (1 - e^-out) dout."""
    dx[...] = -np.expm1(-out) * dout


def gelu(out, x):
    """out = x Phi(x), with Phi the normal distribution function."""
    out[...] = x * _erfc(-x / math.sqrt(2)) / 2  # 1 + erf(x / sqrt(2)) would cancel for x < 0


def gelu_backward(dx, dout, x):
    """dx = (Phi(x) + x phi(x)) dout."""
    dx[...] = (_erfc(-x / math.sqrt(2)) / 2 + x * np.exp(-(x**2) / 2) / math.sqrt(2 * math.pi)) * dout


# ---- selection ----


def where(out, condition, a, b):
    """out = a where condition > 0, else b."""
    out[...] = np.where(condition > 0, a, b)


def where_backward(da, db, dout, condition):
    """da = dout where condition > 0, else 0;  db the other way round."""
    da[...] = np.where(condition > 0, dout, 0)
    db[...] = np.where(condition > 0, 0, dout)


def maximum(out, a, b):
    """out = the larger of a and b; NaN if one is."""
    out[...] = np.maximum(a, b)


def maximum_backward(da, db, dout, a, b):
    """da = 0 where a < b, dout / 2 where they are equal, else dout;  db likewise: where one is NaN, both get dout."""
    da[...] = np.where(a < b, 0, np.where(a == b, dout / 2, dout))
    db[...] = np.where(b < a, 0, np.where(a == b, dout / 2, dout))


def clip(out, x, low, high):
    """out = low where x < low, high where x > high, else x."""
    out[...] = np.clip(x, low, high)


def clip_backward(dx, dout, x, low, high):
    """dx = dout where low <= x <= high, else 0."""
    dx[...] = np.where((x >= low) & (x <= high), dout, 0)


# ---- sampling ----


def reparameterize(out, mu, logvar, noise):
    """out = mu + e^(logvar / 2) noise."""
    out[...] = mu + np.exp(logvar / 2) * noise


def reparameterize_backward(dmu, dlogvar, dout, logvar, noise):
    """dmu = dout;  dlogvar = e^(logvar / 2) noise dout / 2."""
    dmu[...] = dout
    dlogvar[...] = np.exp(logvar / 2) * noise * dout / 2


def dropout_mask(out, uniform, rate):
    """out = 0 where uniform < rate, else 1 / (1 - rate)."""
    out[...] = (uniform >= out.dtype.type(rate)) / (1 - rate)


def bernoulli(out, probability, uniform):
    """out = 1 where uniform < probability, else 0; uniform in [0, 1)."""
    out[...] = uniform < probability
