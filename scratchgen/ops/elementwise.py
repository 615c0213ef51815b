"""Arithmetic and activations: elementwise operations, whose inputs broadcast as in NumPy."""

from typing import Any

import numpy as np

from scratchgen.op import Case, Op, register
from scratchgen.signature import CONSTANT, KINK_AT_ZERO, NONZERO, POSITIVE, REAL, Domain
from scratchgen.tensor import Tensor, apply


def flat(array: np.ndarray) -> np.ndarray:
    """A C-contiguous array as the one-dimensional view that elementwise kernels take."""
    return array.reshape(-1)


def _compute(kernels: Any, name: str, *arrays: np.ndarray, **params: float) -> np.ndarray:
    """The result of the kernel ``name`` on arrays of equal shape."""
    out = kernels.memory.empty_like(arrays[0])
    getattr(kernels.elementwise, name)(flat(out), *map(flat, arrays), *params.values())
    return out


# ---- two inputs ----


def _add(kernels, a, b):
    return _compute(kernels, "add", a, b), ()


def _add_backward(kernels, needs_grad, dout, saved):
    return dout, dout


def _subtract(kernels, a, b):
    return _compute(kernels, "subtract", a, b), ()


def _subtract_backward(kernels, needs_grad, dout, saved):
    return dout, _compute(kernels, "scale", dout, factor=-1.0) if needs_grad[1] else None


def _multiply(kernels, a, b):
    return _compute(kernels, "multiply", a, b), (a, b)


def _multiply_backward(kernels, needs_grad, dout, saved):
    a, b = saved
    da = _compute(kernels, "multiply", dout, b) if needs_grad[0] else None
    db = _compute(kernels, "multiply", dout, a) if needs_grad[1] else None
    return da, db


def _divide(kernels, a, b):
    out = _compute(kernels, "divide", a, b)
    return out, (b, out)


def _divide_backward(kernels, needs_grad, dout, saved):
    b, out = saved
    da, db = _compute(kernels, "divide", dout, b), None  # da = dout / b,  db = -dout a / b^2 = -da out
    if needs_grad[1]:
        db = _compute(kernels, "scale", _compute(kernels, "multiply", da, out), factor=-1.0)
    return da, db


register(Op("add", "(),()->()", (REAL, REAL), _add, _add_backward))
register(Op("subtract", "(),()->()", (REAL, REAL), _subtract, _subtract_backward))
register(Op("multiply", "(),()->()", (REAL, REAL), _multiply, _multiply_backward))
register(Op("divide", "(),()->()", (REAL, NONZERO), _divide, _divide_backward))
# dropout multiplies by a mask, which is an input so that the operation is deterministic
register(Op("dropout", "(),()->()", (REAL, CONSTANT), _multiply, _multiply_backward))


def dropout(x: Tensor, mask: Any) -> Tensor:
    """x mask, where the mask is 0 for dropped elements and 1 / (1 - rate) for the others.

    Source: Srivastava et al. 2014, in the inverted form, which needs no scaling in evaluation.
    """
    return apply("dropout", x, mask)


# ---- one input, with a backward kernel ----


def _unary(name: str, domain: Domain, backward_takes: str, *cases: Case) -> None:
    """Register the operation of the kernels ``name`` and ``name_backward``; the latter takes x or out besides dout."""

    def forward(kernels, x, **params):
        out = _compute(kernels, name, x, **params)
        return out, (x if backward_takes == "x" else out,)

    def backward(kernels, needs_grad, dout, saved, **params):
        return (_compute(kernels, f"{name}_backward", dout, saved[0], **params),)

    register(Op(name, "()->()", (domain,), forward, backward, cases or (Case(),)))


_unary("square", REAL, "x")
_unary("sqrt", POSITIVE, "out")
_unary("power", POSITIVE, "x", *(Case({"exponent": exponent}) for exponent in (1.7, 0.4, -1.3, 2, 1)))
_unary("relu", KINK_AT_ZERO, "out")
_unary("leaky_relu", KINK_AT_ZERO, "out", *(Case({"slope": slope}) for slope in (0.2, 1.5)))
_unary("elu", KINK_AT_ZERO, "out")
_unary("sigmoid", REAL, "out")
_unary("tanh", REAL, "out")
_unary("softplus", REAL, "out")
_unary("gelu", REAL, "x")
_unary("clip", Domain("real, kinks at -1 and 2", kinks=(-1.0, 2.0)), "x", Case({"low": -1.0, "high": 2.0}))


# ---- one input, with a backward of arithmetic kernels ----


def _scale(kernels, x, factor):
    return _compute(kernels, "scale", x, factor=factor), ()


def _scale_backward(kernels, needs_grad, dout, saved, factor):
    return (_compute(kernels, "scale", dout, factor=factor),)


def _exp(kernels, x):
    out = _compute(kernels, "exp", x)
    return out, (out,)


def _exp_backward(kernels, needs_grad, dout, saved):
    return (_compute(kernels, "multiply", dout, saved[0]),)


def _log(kernels, x):
    return _compute(kernels, "log", x), (x,)


def _log_backward(kernels, needs_grad, dout, saved):
    return (_compute(kernels, "divide", dout, saved[0]),)


register(Op("scale", "()->()", (REAL,), _scale, _scale_backward, (Case({"factor": -1.5}), Case({"factor": 0.3}))))
register(Op("exp", "()->()", (REAL,), _exp, _exp_backward))
register(Op("log", "()->()", (POSITIVE,), _log, _log_backward))


def exp(x: Tensor) -> Tensor:
    """e^x."""
    return apply("exp", x)


def log(x: Tensor) -> Tensor:
    """ln x, for x > 0."""
    return apply("log", x)


def sqrt(x: Tensor) -> Tensor:
    """The square root, for x > 0."""
    return apply("sqrt", x)


def square(x: Tensor) -> Tensor:
    """x^2."""
    return apply("square", x)


def relu(x: Tensor) -> Tensor:
    """max(x, 0). Its derivative at 0 is 0."""
    return apply("relu", x)


def leaky_relu(x: Tensor, slope: float = 0.01) -> Tensor:
    """x where x > 0, else slope x, with slope > 0 (Maas et al. 2013). Its derivative at 0 is the slope."""
    if slope <= 0:
        raise ValueError(f"leaky_relu: the slope must be above 0, not {slope}")
    return apply("leaky_relu", x, slope=slope)


def elu(x: Tensor) -> Tensor:
    """x where x > 0, else e^x - 1 (Clevert et al. 2015, alpha = 1)."""
    return apply("elu", x)


def sigmoid(x: Tensor) -> Tensor:
    """1 / (1 + e^-x)."""
    return apply("sigmoid", x)


def tanh(x: Tensor) -> Tensor:
    """The hyperbolic tangent."""
    return apply("tanh", x)


def softplus(x: Tensor) -> Tensor:
    """log(1 + e^x), without overflow."""
    return apply("softplus", x)


def gelu(x: Tensor) -> Tensor:
    """x Phi(x), Phi the normal distribution function (Hendrycks & Gimpel 2016, the exact form)."""
    return apply("gelu", x)
