"""Sums, means, maxima, logsumexp and softmax."""

import math
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np

from scratchgen.op import Case, Op, register
from scratchgen.signature import REAL, Shape, whole_numbers
from scratchgen.tensor import Tensor, apply, no_grad


def rows(array: np.ndarray) -> np.ndarray:
    """An array (..., n) as the view (r, n) that row-wise kernels take."""
    return array if array.ndim == 2 else array.reshape(math.prod(array.shape[:-1]), array.shape[-1])


def _reduced_axes(name: str, shape: Shape, axis: Any) -> tuple[int, ...]:
    """The axes given by ``axis``, or all for None, as sorted non-negative numbers."""
    ndim = len(shape)
    if axis is None:
        return tuple(range(ndim))
    wanted = whole_numbers((axis,))
    if any(not -ndim <= a < ndim for a in wanted):
        raise ValueError(f"{name}: there is no axis {axis} in shape {shape}")
    axes = {a % ndim for a in wanted}
    if len(axes) < len(wanted):
        raise ValueError(f"{name}: axis {axis} of shape {shape} is named twice")
    return tuple(sorted(axes))


class _Plan(NamedTuple):
    """How an array is summed over axes: as the middle axis of ``view`` (outer, count, inner)."""

    order: Shape | None  # a permutation that makes the axes to sum over adjacent, where they are not
    view: Shape
    kept: Shape  # the result's shape with keepdims
    without: Shape  # and without


@lru_cache(maxsize=1000)  # training uses few
def _plan(name: str, shape: Shape, axis: Any) -> _Plan:
    axes = _reduced_axes(name, shape, axis)
    others = tuple(a for a in range(len(shape)) if a not in axes)
    kept = tuple(1 if a in axes else size for a, size in enumerate(shape))
    without = tuple(shape[a] for a in others)
    first, last = (axes[0], axes[-1] + 1) if axes else (0, 0)
    if last - first == len(axes):  # adjacent
        order, parts = None, (shape[:first], shape[first:last], shape[last:])
    else:
        order, parts = axes + others, ((), tuple(shape[a] for a in axes), without)
    return _Plan(order, tuple(math.prod(part) for part in parts), kept, without)


def _sum(kernels, x, axis, keepdims, name="sum"):
    plan = _plan(name, x.shape, axis if axis is None or isinstance(axis, int) else whole_numbers((axis,)))
    together = x if plan.order is None else kernels.memory.copied(x.transpose(plan.order))
    out = kernels.memory.empty(plan.view[::2], x.dtype)
    kernels.reductions.sum_axis(out, together.reshape(plan.view))
    return out.reshape(plan.kept if keepdims else plan.without), (x.shape, plan)


def _sum_backward(kernels, needs_grad, dout, saved, axis, keepdims):
    shape, plan = saved
    dx = kernels.memory.empty(shape, dout.dtype)
    kernels.memory.write(dx, dout.reshape(plan.kept))
    return (dx,)


def _mean(kernels, x, axis, keepdims):
    total, saved = _sum(kernels, x, axis, keepdims, "mean")
    count = saved[1].view[1]
    if count == 0:
        raise ValueError(f"mean: there is nothing to average over axis {axis} of shape {x.shape}")
    return _scaled(kernels, total, 1 / count), saved


def _mean_backward(kernels, needs_grad, dout, saved, axis, keepdims):
    return _sum_backward(kernels, needs_grad, _scaled(kernels, dout, 1 / saved[1].view[1]), saved, axis, keepdims)


def _scaled(kernels, x, factor):
    out = kernels.memory.empty_like(x)
    kernels.elementwise.scale(out.reshape(-1), x.reshape(-1), factor)
    return out


def _logsumexp(kernels, x):
    _need_something("logsumexp", x)
    out = kernels.memory.empty(x.shape[:-1], x.dtype)
    kernels.reductions.logsumexp(out.reshape(-1), rows(x))
    return out, (x,)


def _logsumexp_backward(kernels, needs_grad, dout, saved):
    (x,) = saved
    dx = kernels.memory.empty_like(x)
    kernels.reductions.logsumexp_backward(rows(dx), dout.reshape(-1), rows(x))
    return (dx,)


def _softmax(kernels, x):
    _need_something("softmax", x)
    out = kernels.memory.empty_like(x)
    kernels.reductions.softmax(rows(out), rows(x))
    return out, (out,)


def _softmax_backward(kernels, needs_grad, dout, saved):
    dx = kernels.memory.empty_like(dout)
    kernels.reductions.softmax_backward(rows(dx), rows(dout), rows(saved[0]))
    return (dx,)


def _max(kernels, x):
    _need_something("max", x)
    out = kernels.memory.empty(x.shape[:-1], x.dtype)
    kernels.reductions.max(out.reshape(-1), rows(x))
    return out, (x,)


def _max_backward(kernels, needs_grad, dout, saved):
    dx = kernels.memory.empty_like(saved[0])
    kernels.reductions.max_backward(rows(dx), dout.reshape(-1), rows(saved[0]))
    return (dx,)


def _largest_two_apart(x):
    """Zero where the two largest elements of a row are equal: a kink. A row of one element has none."""
    ordered = np.sort(x, axis=-1)
    return ordered[..., -1] - ordered[..., -2] if x.shape[-1] > 1 else np.ones(1)


def _need_something(name: str, x: np.ndarray) -> None:
    if x.shape[-1] == 0:
        raise ValueError(f"{name}: the last axis of shape {x.shape} is empty")


_SUM_CASES = (
    Case({"axis": None, "keepdims": False}, "(a,b)->()"),
    Case({"axis": 0, "keepdims": False}, "(a,b)->(b)"),
    Case({"axis": -1, "keepdims": True}, "(a,b)->(a,1)"),
    Case({"axis": 1, "keepdims": False}, "(a,b,c)->(a,c)"),
    Case({"axis": (0, 2), "keepdims": False}, "(a,b,c)->(b)"),
    Case({"axis": (-1, 0), "keepdims": True}, "(a,b,c)->(1,b,1)"),
    Case({"axis": (-2, -1), "keepdims": False}, "(a,b,c)->(a)"),
    Case({"axis": (), "keepdims": False}, "(a,b)->(a,b)"),
    Case({"axis": None, "keepdims": True}, "(a,b)->(1,1)"),
)
register(Op("sum", "(...)->(...)", (REAL,), _sum, _sum_backward, _SUM_CASES))
register(Op("mean", "(...)->(...)", (REAL,), _mean, _mean_backward, _SUM_CASES))
register(Op("logsumexp", "(...,n)->(...)", (REAL,), _logsumexp, _logsumexp_backward))
register(Op("softmax", "(...,n)->(...,n)", (REAL,), _softmax, _softmax_backward))
register(Op("max", "(...,n)->(...)", (REAL,), _max, _max_backward, (Case(kink=_largest_two_apart),)))


Axes = int | tuple[int, ...] | None


def max(x: Tensor, axis: Axes = None, keepdims: bool = False) -> Tensor:
    """The maximum over ``axis``, or over everything; NaN where there is one.

    The gradient goes to the first maximum, or to the first NaN. (PyTorch does so with an ``axis``; it and JAX share the
    gradient among equal ones without.)
    """
    return _largest("max", x, axis, keepdims)


def min(x: Tensor, axis: Axes = None, keepdims: bool = False) -> Tensor:
    """The minimum over ``axis``, or over everything; its gradient as in ``max``."""
    return -_largest("min", -x, axis, keepdims)


def _largest(name: str, x: Tensor, axis: Axes, keepdims: bool) -> Tensor:
    largest = apply("max", _as_last(name, x, axis))
    return largest.reshape(_plan(name, x.shape, _reduced_axes(name, x.shape, axis)).kept) if keepdims else largest


def logsumexp(x: Tensor, axis: Axes = -1) -> Tensor:
    """log of the sum of e^x over ``axis``, which is removed; without overflow.

    Where all x are -inf, it is -inf, and its gradient 0 (in PyTorch and JAX, NaN).
    """
    return apply("logsumexp", _as_last("logsumexp", x, axis))


def softmax(x: Tensor) -> Tensor:
    """e^x / sum of e^x along the last axis; NaN where all x are -inf, as in PyTorch and JAX."""
    return apply("softmax", x)


def log_softmax(x: Tensor) -> Tensor:
    """log softmax(x) along the last axis; NaN where all x are -inf, as in PyTorch and JAX."""
    with no_grad():  # the result does not depend on the shift
        largest = max(x, axis=-1, keepdims=True)
    shifted = x - largest  # first: x - logsumexp(x) would round to the digits that x has
    return shifted - logsumexp(shifted).reshape(*x.shape[:-1], 1)


def _as_last(name: str, x: Tensor, axis: Axes) -> Tensor:
    """x with the axes to reduce as one, the last."""
    axes = _reduced_axes(name, x.shape, axis)
    if any(x.shape[a] == 0 for a in axes):
        raise ValueError(f"{name}: there is nothing to reduce over axis {axis} of shape {x.shape}")
    others = tuple(a for a in range(x.ndim) if a not in axes)
    if others + axes != tuple(range(x.ndim)):
        x = x.transpose(others + axes)
    lead = x.shape[: len(others)]
    return x if len(axes) == 1 else x.reshape(*lead, math.prod(x.shape[len(others) :]))
