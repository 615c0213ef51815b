"""Operations that rearrange elements: reshape, transpose, slice, concatenate, stack."""

import operator
from collections.abc import Sequence
from copy import deepcopy

import numpy as np

from scratchgen.op import Case, Op, register
from scratchgen.signature import REAL
from scratchgen.tensor import Tensor, apply


def _reshape(kernels, x, shape):
    try:
        return kernels.memory.copied(x.reshape(shape)), (x.shape,)  # not a view, which an optimizer step would change
    except ValueError:
        raise ValueError(f"reshape: {x.size} elements of shape {x.shape} do not fit {tuple(shape)}") from None


def _reshape_backward(kernels, needs_grad, dout, saved, shape):
    return (dout.reshape(saved[0]),)


def _transpose(kernels, x, axes):
    try:
        return kernels.memory.copied(x.transpose(axes)), ()
    except ValueError:
        raise ValueError(f"transpose: {axes} is not a permutation of the axes of shape {x.shape}") from None


def _transpose_backward(kernels, needs_grad, dout, saved, axes):
    return (kernels.memory.copied(dout.transpose(np.argsort([a % dout.ndim for a in axes]).tolist())),)


def _slice(kernels, x, index):
    try:
        shape = np.broadcast_to(False, x.shape)[index].shape
    except (IndexError, ValueError) as error:
        raise type(error)(f"slice: {error}; the shape is {x.shape}") from None
    out, index = kernels.memory.empty(shape, x.dtype), deepcopy(index)  # the caller may reuse an index array
    kernels.memory.take(out, x, index)
    return out, (x.shape, index)


def _slice_backward(kernels, needs_grad, dout, saved, index):
    shape, taken = saved
    dx = kernels.memory.empty(shape, dout.dtype)
    kernels.memory.write(dx, 0)
    kernels.memory.add_at(dx, taken, dout)  # an index array may contain an element twice
    return (dx,)


def _concatenate(kernels, *parts, axis):
    if not parts:
        raise ValueError("concatenate: there are no parts")
    try:
        shape = np.concatenate([np.broadcast_to(False, part.shape) for part in parts], axis).shape
    except ValueError:
        shapes = " and ".join(str(part.shape) for part in parts)
        raise ValueError(f"concatenate: shapes {shapes} do not fit along axis {axis}") from None
    out = kernels.memory.empty(shape, parts[0].dtype)
    kernels.memory.concatenate(out, parts, axis)
    return out, tuple(part.shape[axis] for part in parts)


def _concatenate_backward(kernels, needs_grad, dout, saved, axis):
    pieces, end = [], 0
    for size in saved:
        start, end = end, end + size
        shape = [size if a == axis % dout.ndim else n for a, n in enumerate(dout.shape)]
        pieces.append(kernels.memory.empty(tuple(shape), dout.dtype))
        index = [slice(None)] * (axis % dout.ndim)
        kernels.memory.take(pieces[-1], dout, (*index, slice(start, end)))
    return tuple(pieces)


register(
    Op(
        "reshape",
        "(...)->(...)",
        (REAL,),
        _reshape,
        _reshape_backward,
        (Case({"shape": (-1,)}, "(a,b)->(c)"), Case({"shape": (3, -1)}, "(2,3,b)->(3,c)")),
    )
)
register(
    Op(
        "transpose",
        "(...)->(...)",
        (REAL,),
        _transpose,
        _transpose_backward,
        (
            Case({"axes": (1, 0)}, "(a,b)->(b,a)"),
            Case({"axes": (2, 0, 1)}, "(a,b,c)->(c,a,b)"),
            Case({"axes": (-2, 0, -1)}, "(a,b,c)->(b,a,c)"),
        ),
    )
)
register(
    Op(
        "slice",
        "(...)->(...)",
        (REAL,),
        _slice,
        _slice_backward,
        (
            Case({"index": (slice(1, None), slice(None, None, -2))}, "(3,b)->(2,c)"),
            Case({"index": np.array([0, 2, 2])}, "(3,b)->(3,b)"),
            Case({"index": (Ellipsis, 1)}, "(a,2)->(a)"),
            Case({"index": (None, slice(None), np.array([-1, 0, 0]))}, "(a,2)->(1,a,3)"),
            Case({"index": (np.array([[1, 0], [1, 2]]), np.array([1, 1]))}, "(3,2)->(2,2)"),
            Case({"index": np.array([True, False, True])}, "(3,b)->(2,b)"),
        ),
    )
)
register(
    Op(
        "concatenate",
        "*(...)->(...)",
        (REAL,),
        _concatenate,
        _concatenate_backward,
        (
            Case({"axis": 1}, "(a,b),(a,c)->(a,d)"),
            Case({"axis": 0}, "(a,n),(b,n),(c,n)->(d,n)"),
            Case({"axis": -2}, "(a,b,n),(a,c,n)->(a,d,n)"),
        ),
    )
)


def concatenate(parts: Sequence[Tensor], axis: int = 0) -> Tensor:
    """The parts, joined along ``axis``; their other sizes must agree."""
    return apply("concatenate", *parts, axis=operator.index(axis))


def stack(parts: Sequence[Tensor], axis: int = 0) -> Tensor:
    """The parts, all of one shape, along a new axis of the result."""
    parts = list(parts)
    shapes = [part.shape for part in parts]
    if len(set(shapes)) != 1:
        listed = " and ".join(map(str, shapes))
        raise ValueError(f"stack: shapes {listed} are not all the same" if parts else "stack: there are no parts")
    ndim, new = len(shapes[0]) + 1, operator.index(axis)
    if not -ndim <= new < ndim:
        raise ValueError(f"stack: there is no axis {axis} in a stack of shapes {shapes[0]}")
    lead = new % ndim
    return concatenate([part.reshape(*part.shape[:lead], 1, *part.shape[lead:]) for part in parts], lead)
