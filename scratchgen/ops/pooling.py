"""Pooling, upsampling and padding of images (b, height, width, channels)."""

import numpy as np

from scratchgen.op import Case, Op, register
from scratchgen.signature import REAL, pair
from scratchgen.tensor import Tensor, apply


def _pooled(kernels, name, x, size, stride):
    """An array for a number from each window; ValueError if there is no window."""
    p, q = ((x.shape[a + 1] - size[a]) // stride[a] + 1 for a in (0, 1))
    if p < 1 or q < 1:
        raise ValueError(f"{name}: a window of shape {size} is larger than images of shape {x.shape[1:3]}")
    return kernels.memory.empty((len(x), p, q, x.shape[3]), x.dtype)


def _avg_pool2d(kernels, x, size, stride):
    out = _pooled(kernels, "avg_pool2d", x, size, stride)
    kernels.pooling.sum_pool2d(out, x, size, stride, 1 / (size[0] * size[1]))
    return out, (x.shape,)


def _avg_pool2d_backward(kernels, needs_grad, dout, saved, size, stride):
    dx = kernels.memory.empty(saved[0], dout.dtype)
    kernels.pooling.sum_pool2d_backward(dx, dout, size, stride, 1 / (size[0] * size[1]))
    return (dx,)


def _max_pool2d(kernels, x, size, stride):
    out = _pooled(kernels, "max_pool2d", x, size, stride)
    kernels.pooling.max_pool2d(out, x, size, stride)
    return out, (x,)


def _max_pool2d_backward(kernels, needs_grad, dout, saved, size, stride):
    dx = kernels.memory.empty_like(saved[0])
    kernels.pooling.max_pool2d_backward(dx, dout, saved[0], size, stride)
    return (dx,)


def _upsample2d(kernels, x, factor):
    b, h, w, channels = x.shape
    out = kernels.memory.empty((b, factor[0] * h, factor[1] * w, channels), x.dtype)
    kernels.pooling.sum_pool2d_backward(out, x, factor, factor, 1.0)  # the adjoint of a sum: copies
    return out, (x.shape,)


def _upsample2d_backward(kernels, needs_grad, dout, saved, factor):
    dx = kernels.memory.empty(saved[0], dout.dtype)
    kernels.pooling.sum_pool2d(dx, dout, factor, factor, 1.0)
    return (dx,)


def _pad2d(kernels, x, padding):
    (b, h, w, channels), (rows, columns) = x.shape, padding
    out = kernels.memory.empty((b, h + 2 * rows, w + 2 * columns, channels), x.dtype)
    kernels.memory.write(out, 0)
    kernels.memory.add_at(out, np.s_[:, rows : rows + h, columns : columns + w], x)
    return out, (x.shape,)


def _pad2d_backward(kernels, needs_grad, dout, saved, padding):
    (_, h, w, _), (rows, columns) = saved[0], padding
    return (kernels.memory.copied(dout[:, rows : rows + h, columns : columns + w]),)


def _second(x, size, stride):
    """How far the second largest number of each window is below the largest, at least, for each image."""
    windows = np.lib.stride_tricks.sliding_window_view(x, size, (1, 2))[:, :: stride[0], :: stride[1]]
    ordered = np.sort(windows.reshape(*windows.shape[:4], size[0] * size[1]))
    least = (ordered[..., -1] - ordered[..., -2]).min((1, 2, 3), initial=np.inf)
    return np.broadcast_to(least[:, None, None, None], x.shape)


_WINDOWS = ({"size": (2, 2), "stride": (2, 2)}, {"size": (3, 2), "stride": (2, 1)}, {"size": (1, 2), "stride": (2, 3)})

register(
    Op(
        "avg_pool2d",
        "(b,h,w,c)->(b,p,q,c)",
        (REAL,),
        _avg_pool2d,
        _avg_pool2d_backward,
        tuple(Case(window, "(b,5,4,c)->(b,p,q,c)") for window in _WINDOWS),
    )
)
register(
    Op(
        "max_pool2d",
        "(b,h,w,c)->(b,p,q,c)",
        (REAL,),
        _max_pool2d,
        _max_pool2d_backward,
        tuple(
            # few channels: among many, some window has two numbers that are nearly equal
            Case(window, "(b,5,4,2)->(b,p,q,2)", lambda x, window=window: _second(x, **window))
            for window in _WINDOWS
        ),
    )
)
register(
    Op(
        "upsample2d",
        "(b,h,w,c)->(b,p,q,c)",
        (REAL,),
        _upsample2d,
        _upsample2d_backward,
        (Case({"factor": (2, 2)}, "(b,2,3,c)->(b,4,6,c)"), Case({"factor": (1, 3)}, "(b,2,1,c)->(b,2,3,c)")),
    )
)
register(
    Op(
        "pad2d",
        "(b,h,w,c)->(b,p,q,c)",
        (REAL,),
        _pad2d,
        _pad2d_backward,
        (Case({"padding": (1, 2)}, "(b,2,3,c)->(b,4,7,c)"), Case({"padding": (0, 1)}, "(b,h,2,c)->(b,h,4,c)")),
    )
)


def avg_pool2d(x: Tensor, size: int | tuple[int, int], stride: int | tuple[int, int] | None = None) -> Tensor:
    """The mean of each window: (b, h, w, c) -> (b, p, q, c), p = floor((h - size) / stride) + 1.

    ``size`` and ``stride`` are a number, or two for rows and columns; without a stride, windows lie side by side. Rows
    and columns after the last whole window are left out. ValueError if a window is larger than the images.
    """
    return _pool("avg_pool2d", x, size, stride)


def max_pool2d(x: Tensor, size: int | tuple[int, int], stride: int | tuple[int, int] | None = None) -> Tensor:
    """The maximum of each window, as in `avg_pool2d`. Its gradient goes to the first of equal maxima, row by row."""
    return _pool("max_pool2d", x, size, stride)


def _pool(name, x, size, stride):
    window = pair(f"{name}: size", size, 1)
    return apply(name, x, size=window, stride=window if stride is None else pair(f"{name}: stride", stride, 1))


def upsample2d(x: Tensor, factor: int | tuple[int, int]) -> Tensor:
    """Each pixel as a block of ``factor`` pixels (nearest neighbour): (b, h, w, c) -> (b, factor h, factor w, c)."""
    return apply("upsample2d", x, factor=pair("upsample2d: factor", factor, 1))


def pad2d(x: Tensor, padding: int | tuple[int, int]) -> Tensor:
    """``padding`` rows and columns of zeros on either side: (b, h, w, c) -> (b, h + 2 padding, w + 2 padding, c)."""
    return apply("pad2d", x, padding=pair("pad2d: padding", padding, 0))
