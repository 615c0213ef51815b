"""Elementwise operations that choose: where, maximum, minimum, clip, abs. Inputs broadcast."""

from typing import Any

import numpy as np

from scratchgen.op import REGISTRY, Case, Op, register
from scratchgen.ops.elementwise import flat, relu
from scratchgen.signature import CONSTANT, REAL
from scratchgen.tensor import Tensor, apply, as_tensors


def _where(kernels, a, b, condition):
    out = kernels.memory.empty_like(a)
    kernels.elementwise.where(flat(out), flat(condition), flat(a), flat(b))
    return out, (condition,)


def _where_backward(kernels, needs_grad, dout, saved):
    da, db = kernels.memory.empty_like(dout), kernels.memory.empty_like(dout)
    kernels.elementwise.where_backward(flat(da), flat(db), flat(dout), flat(saved[0]))
    return da, db, None


def _maximum(kernels, a, b):
    out = kernels.memory.empty_like(a)
    kernels.elementwise.maximum(flat(out), flat(a), flat(b))
    return out, (a, b)


def _maximum_backward(kernels, needs_grad, dout, saved):
    da, db = kernels.memory.empty_like(dout), kernels.memory.empty_like(dout)
    kernels.elementwise.maximum_backward(flat(da), flat(db), flat(dout), *map(flat, saved))
    return da, db


register(Op("where", "(),(),()->()", (REAL, REAL, CONSTANT), _where, _where_backward))
register(Op("maximum", "(),()->()", (REAL, REAL), _maximum, _maximum_backward, (Case(kink=np.subtract),)))


def where(condition: Any, a: Any, b: Any) -> Tensor:
    """a where the condition holds, else b. The condition is an array of booleans, or a tensor, which holds above 0.

    The gradient of the one not chosen is exactly 0, whatever the numbers. (Of ``where(x > 0, log(x), 0)``, log's own
    backward still divides that 0 by x: let log have only what it is good for, as in ``log(where(x > 0, x, 1))``.)
    """
    if not isinstance(condition, Tensor):
        condition = np.asarray(condition)
        if condition.dtype != bool:
            raise TypeError(f"where: the condition holds booleans, such as x > 0, not {condition.dtype}")
        dtypes = [x.dtype for x in (a, b) if isinstance(x, Tensor | np.ndarray)]
        condition = condition.astype(dtypes[0] if dtypes else np.float32)
    return apply("where", a, b, condition)


def maximum(a: Any, b: Any) -> Tensor:
    """The larger of a and b, NaN where one is. Equal ones get half of the gradient each; where one is NaN, both get it
    all, as in PyTorch."""
    return apply("maximum", a, b)


def minimum(a: Any, b: Any) -> Tensor:
    """The smaller of a and b; with equal ones and NaN as in ``maximum``."""
    a, b = as_tensors(REGISTRY["maximum"], (a, b))
    return -maximum(-a, -b)


def clip(x: Tensor, low: float, high: float) -> Tensor:
    """x, but at least ``low`` and at most ``high``. Its derivative is 1 in [low, high], bounds included, else 0."""
    low, high = float(low), float(high)
    if not low <= high:
        raise ValueError(f"clip: the bounds {low:g} and {high:g} are not in order")
    return apply("clip", x, low=low, high=high)


def abs(x: Tensor) -> Tensor:
    """The absolute value. Its derivative at 0 and at NaN is 0."""
    return relu(x) + relu(apply("scale", x, factor=-1.0))
