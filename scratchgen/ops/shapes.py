"""Operations that move numbers and change none: reshape, transpose, slice, concatenate."""

from collections.abc import Sequence

import numpy as np

from scratchgen.op import Case, Op, register
from scratchgen.signature import REAL
from scratchgen.tensor import Tensor, apply


def _reshape(k, x, shape):
    try:
        return x.reshape(shape), (x.shape,)
    except ValueError:
        raise ValueError(f"reshape: {x.size} numbers of shape {x.shape} do not fit {tuple(shape)}") from None


def _reshape_backward(k, needs, dout, saved, shape):
    return (dout.reshape(saved[0]),)


def _transpose(k, x, axes):
    return np.array(x.transpose(axes), order="C"), ()


def _transpose_backward(k, needs, dout, saved, axes):
    return (np.array(dout.transpose(np.argsort([a % dout.ndim for a in axes])), order="C"),)


def _slice(k, x, index):
    return np.array(x[index], order="C"), (x.shape,)


def _slice_backward(k, needs, dout, saved, index):
    dx = np.zeros(saved[0], dout.dtype)
    np.add.at(dx, index, dout)  # an index array may name an element twice
    return (dx,)


def _concatenate(k, *parts, axis):
    try:
        return np.concatenate(parts, axis), tuple(part.shape[axis] for part in parts)
    except ValueError:
        shapes = " and ".join(str(part.shape) for part in parts)
        raise ValueError(f"concatenate: shapes {shapes} do not fit along axis {axis}") from None


def _concatenate_backward(k, needs, dout, saved, axis):
    pieces = np.split(dout, np.cumsum(saved)[:-1], axis)
    return tuple(np.array(piece, order="C") for piece in pieces)


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
        (Case({"axes": (1, 0)}, "(a,b)->(b,a)"), Case({"axes": (2, 0, 1)}, "(a,b,c)->(c,a,b)")),
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
        (Case({"axis": 1}, "(a,b),(a,c)->(a,d)"), Case({"axis": 0}, "(a,n),(b,n),(c,n)->(d,n)")),
    )
)


def concatenate(parts: Sequence[Tensor], axis: int = 0) -> Tensor:
    """The parts, one after the other along ``axis``; their other sizes agree."""
    return apply("concatenate", *parts, axis=axis)
