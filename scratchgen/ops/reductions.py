"""Sums, means, logsumexp and softmax."""

import math
from typing import Any

import numpy as np

from scratchgen.op import Case, Op, register
from scratchgen.signature import REAL, Shape
from scratchgen.tensor import Tensor, apply


def rows(array: np.ndarray) -> np.ndarray:
    """An array (..., n) as the view (r, n) that row kernels walk."""
    return array.reshape(math.prod(array.shape[:-1]), array.shape[-1])


def _reduced_axes(name: str, ndim: int, axis: Any) -> tuple[int, ...]:
    wanted = range(ndim) if axis is None else (axis,) if isinstance(axis, int) else axis
    if any(not -ndim <= a < ndim for a in wanted):
        raise ValueError(f"{name}: there is no axis {axis} in {ndim} dimensions")
    return tuple(sorted({a % ndim for a in wanted}))


def _sum_over(k: Any, x: np.ndarray, axes: tuple[int, ...]) -> np.ndarray:
    """The sum over ``axes``, which stay behind with size 1."""
    kept = tuple(1 if a in axes else size for a, size in enumerate(x.shape))
    if axes and axes != tuple(range(axes[0], axes[-1] + 1)):  # bring the axes together
        x = np.array(np.moveaxis(x, axes, range(len(axes))), order="C")
        axes = tuple(range(len(axes)))
    first, last = (axes[0], axes[-1] + 1) if axes else (0, 0)
    outer, size, inner = (math.prod(part) for part in (x.shape[:first], x.shape[first:last], x.shape[last:]))
    out = np.empty((outer, inner), x.dtype)
    k.reductions.sum_axis(out, x.reshape(outer, size, inner))
    return out.reshape(kept)


def _sum(k, x, axis, keepdims):
    axes = _reduced_axes("sum", x.ndim, axis)
    total = _sum_over(k, x, axes)
    return (total if keepdims else total.reshape(_without(x.shape, axes))), (x.shape, axes)


def _sum_backward(k, needs, dout, saved, axis, keepdims):
    shape, axes = saved
    kept = tuple(1 if a in axes else size for a, size in enumerate(shape))
    return (np.array(np.broadcast_to(dout.reshape(kept), shape), order="C"),)


def _mean(k, x, axis, keepdims):
    out, (shape, axes) = _sum(k, x, axis, keepdims)
    count = math.prod(shape[a] for a in axes)
    if count == 0:
        raise ValueError(f"mean: there is nothing to average over axis {axis} of shape {shape}")
    out *= 1 / count
    return out, (shape, axes, count)


def _mean_backward(k, needs, dout, saved, axis, keepdims):
    shape, axes, count = saved
    (dx,) = _sum_backward(k, needs, dout, (shape, axes), axis, keepdims)
    dx *= 1 / count
    return (dx,)


def _without(shape: Shape, axes: tuple[int, ...]) -> Shape:
    return tuple(size for a, size in enumerate(shape) if a not in axes)


def _logsumexp(k, x):
    _need_something("logsumexp", x)
    out = np.empty(x.shape[:-1], x.dtype)
    k.reductions.logsumexp(out.reshape(-1), rows(x))
    return out, (x, out)


def _logsumexp_backward(k, needs, dout, saved):
    x, out = saved
    dx = np.empty_like(x)
    k.reductions.logsumexp_backward(rows(dx), dout.reshape(-1), rows(x), out.reshape(-1))
    return (dx,)


def _softmax(k, x):
    _need_something("softmax", x)
    out = np.empty_like(x)
    k.reductions.softmax(rows(out), rows(x))
    return out, (out,)


def _softmax_backward(k, needs, dout, saved):
    dx = np.empty_like(dout)
    k.reductions.softmax_backward(rows(dx), rows(dout), rows(saved[0]))
    return (dx,)


def _need_something(name: str, x: np.ndarray) -> None:
    if x.shape[-1] == 0:
        raise ValueError(f"{name}: the last axis of shape {x.shape} is empty")


_SUM_CASES = (
    Case({"axis": None, "keepdims": False}, "(a,b)->()"),
    Case({"axis": 0, "keepdims": False}, "(a,b)->(b)"),
    Case({"axis": -1, "keepdims": True}, "(a,b)->(a,1)"),
    Case({"axis": 1, "keepdims": False}, "(a,b,c)->(a,c)"),
    Case({"axis": (0, 2), "keepdims": False}, "(a,b,c)->(b)"),
)
register(Op("sum", "(...)->(...)", (REAL,), _sum, _sum_backward, _SUM_CASES))
register(Op("mean", "(...)->(...)", (REAL,), _mean, _mean_backward, _SUM_CASES))
register(Op("logsumexp", "(...,n)->(...)", (REAL,), _logsumexp, _logsumexp_backward))
register(Op("softmax", "(...,n)->(...,n)", (REAL,), _softmax, _softmax_backward))


def logsumexp(x: Tensor, axis: int = -1) -> Tensor:
    """log of the sum of e^x along ``axis``, without overflow. The axis goes."""
    return apply("logsumexp", _with_last(x, axis))


def softmax(x: Tensor) -> Tensor:
    """e^x / sum of e^x along the last axis."""
    return apply("softmax", x)


def log_softmax(x: Tensor) -> Tensor:
    """log softmax(x) = x - logsumexp(x) along the last axis."""
    return x - logsumexp(x).reshape(*x.shape[:-1], 1)


def _with_last(x: Tensor, axis: int) -> Tensor:
    (last,) = _reduced_axes("logsumexp", x.ndim, axis)
    if last == x.ndim - 1:
        return x
    return x.transpose(*(a for a in range(x.ndim) if a != last), last)
