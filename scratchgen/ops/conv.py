"""Convolutions of images (b, height, width, channels): `conv2d`, and its adjoint, `conv_transpose2d`."""

from functools import partial

import numpy as np

from kernels import reference
from scratchgen.op import Case, Op, empty_gradient, register
from scratchgen.ops.dense import activation_backward, checked_activation
from scratchgen.ops.reductions import rows
from scratchgen.signature import REAL, pair
from scratchgen.tensor import Tensor, apply


def _conv2d(kernels, x, w, stride, padding):
    p, q = ((x.shape[a + 1] + 2 * padding[a] - w.shape[a]) // stride[a] + 1 for a in (0, 1))
    if p < 1 or q < 1:
        raise ValueError(
            f"conv2d: a window of shape {w.shape[:2]} is larger than images of shape {x.shape[1:3]} with a padding of "
            f"{padding}"
        )
    out = kernels.memory.empty((len(x), p, q, w.shape[3]), x.dtype)
    kernels.conv.conv2d(out, x, w, stride, padding)
    return out, (x, w)


def _conv2d_backward(kernels, needs_grad, dout, saved, stride, padding):
    x, w = saved
    dx = dw = None
    if needs_grad[0]:
        dx = kernels.memory.empty_like(x)
        kernels.conv.conv2d_input(dx, dout, w, stride, padding)
    if needs_grad[1]:
        dw = empty_gradient(kernels, needs_grad[1], w.shape, w.dtype)
        kernels.conv.conv2d_weight(dw, x, dout, stride, padding)
    return dx, dw


def _conv_transpose2d(kernels, x, w, stride, padding, output_padding):
    h, width = ((x.shape[a + 1] - 1) * stride[a] - 2 * padding[a] + w.shape[a] + output_padding[a] for a in (0, 1))
    if h < 1 or width < 1 or 0 in x.shape[1:3]:
        raise ValueError(
            f"conv_transpose2d: images of shape {x.shape[1:3]}, with windows of shape {w.shape[:2]} and padding "
            f"{padding}, would become ({h}, {width})"
        )
    out = kernels.memory.empty((len(x), h, width, w.shape[2]), x.dtype)
    kernels.conv.conv2d_input(out, x, w, stride, padding)
    return out, (x, w)


def _conv_transpose2d_backward(kernels, needs_grad, dout, saved, stride, padding, output_padding):
    x, w = saved
    dx = dw = None
    if needs_grad[0]:
        dx = kernels.memory.empty_like(x)
        kernels.conv.conv2d(dx, dout, w, stride, padding)
    if needs_grad[1]:
        dw = empty_gradient(kernels, needs_grad[1], w.shape, w.dtype)
        kernels.conv.conv2d_weight(dw, dout, x, stride, padding)
    return dx, dw


def _biased(convolve, kernels, x, w, b, activation, **window):
    """Either of the two, then bias and activation."""
    out, saved = convolve(kernels, x, w, **window)
    kernels.dense.bias_activation(rows(out), b, activation)
    return out, (saved, out)


def _biased_backward(backward, kernels, needs_grad, dout, saved, activation, **window):
    inputs, out = saved
    dpre, db = activation_backward(kernels, needs_grad[2], dout, out, activation)
    return *backward(kernels, needs_grad, dpre, inputs, **window), db


def _kink(convolve, **window):
    """For a case with a kink: before the activation, the number of each image that lies nearest to zero."""

    def nearest(x, w, b):
        before = convolve(reference, x, w, **window)[0] + b
        return np.broadcast_to(np.abs(before).min((1, 2, 3), initial=np.inf, keepdims=True), x.shape)

    return nearest


# A window that leaves a remainder, more padding than a window has, a step past the window; and few and many channels.
_WINDOWS = (
    ({"stride": (1, 1), "padding": (0, 0)}, (3, 4), (2, 3)),
    ({"stride": (1, 1), "padding": (1, 2)}, (3, 4), (3, 2)),
    ({"stride": (2, 2), "padding": (1, 1)}, (4, 3), (4, 4)),
    ({"stride": (2, 3), "padding": (0, 1)}, (4, 5), (1, 2)),
)
_SMALL = {"stride": (2, 1), "padding": (1, 0)}  # with a kink, few numbers: else one would always be near it
_EDGES = ((0, 0), (0, 0), (1, 0), (1, 2))  # output padding, less than the stride


def _sizes(*numbers):
    return ",".join(map(str, numbers))


register(
    Op(
        "conv2d",
        "(b,h,w,i),(k,l,i,o)->(b,p,q,o)",
        (REAL, REAL),
        _conv2d,
        _conv2d_backward,
        tuple(
            Case(window, f"(b,{_sizes(*image)},i),({_sizes(*size)},i,o)->(b,p,q,o)") for window, image, size in _WINDOWS
        ),
    )
)
register(
    Op(
        "conv2d_bias",
        "(b,h,w,i),(k,l,i,o),(o)->(b,p,q,o)",
        (REAL, REAL, REAL),
        partial(_biased, _conv2d),
        partial(_biased_backward, _conv2d_backward),
        (
            Case({"activation": "identity", **_SMALL}, "(b,3,2,i),(2,2,i,o),(o)->(b,p,q,o)"),
            Case({"activation": "tanh", **_SMALL}, "(b,3,2,i),(2,2,i,o),(o)->(b,p,q,o)"),
            Case({"activation": "relu", **_SMALL}, "(b,2,2,i),(2,2,i,3),(3)->(b,2,1,3)", _kink(_conv2d, **_SMALL)),
        ),
    )
)
register(
    Op(
        "conv_transpose2d",
        "(b,h,w,i),(k,l,o,i)->(b,p,q,o)",
        (REAL, REAL),
        _conv_transpose2d,
        _conv_transpose2d_backward,
        tuple(
            Case(
                {**window, "output_padding": edge},
                f"(b,{_sizes(*image)},i),({_sizes(*size)},o,i)->(b,p,q,o)",
            )
            for (window, image, size), edge in zip(_WINDOWS, _EDGES, strict=True)
        ),
    )
)
register(
    Op(
        "conv_transpose2d_bias",
        "(b,h,w,i),(k,l,o,i),(o)->(b,p,q,o)",
        (REAL, REAL, REAL),
        partial(_biased, _conv_transpose2d),
        partial(_biased_backward, _conv_transpose2d_backward),
        (
            Case({"activation": "identity", **_SMALL, "output_padding": (1, 0)}, "(b,2,1,i),(2,2,o,i),(o)->(b,p,q,o)"),
            Case({"activation": "tanh", **_SMALL, "output_padding": (0, 0)}, "(b,2,1,i),(2,2,o,i),(o)->(b,p,q,o)"),
            Case(
                {"activation": "relu", **_SMALL, "output_padding": (0, 0)},
                "(b,2,1,i),(2,2,3,i),(3)->(b,2,2,3)",
                _kink(_conv_transpose2d, **_SMALL, output_padding=(0, 0)),
            ),
        ),
    )
)


def conv2d(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    activation: str = "identity",
    stride: int | tuple[int, int] = 1,
    padding: int | tuple[int, int] = 0,
) -> Tensor:
    """activation(the sum over each window of x times weight, + bias): (b, h, w, i) -> (b, p, q, o).

    Parameters
    ----------
    x : Tensor
        Images (b, h, w, i), channels last.
    weight : Tensor
        (k, l, i, o), for windows of k by l pixels. As everywhere in deep learning they are not flipped: in the terms
        of mathematics this is a cross-correlation.
    bias : Tensor, optional
        (o). Without one, there is no activation.
    activation : str
        One of ``FUSED_ACTIVATIONS``.
    stride, padding : int or pair of int
        The window's steps, and the zeros added on either side, for rows and columns. With a padding P and stride S
        there are p = floor((h + 2P - k) / S) + 1 rows.

    ValueError if shapes do not fit, or the window is larger than the padded images.
    """
    window = {"stride": pair("conv2d: stride", stride, 1), "padding": pair("conv2d: padding", padding, 0)}
    return _apply("conv2d", x, weight, bias, activation, window)


def conv_transpose2d(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    activation: str = "identity",
    stride: int | tuple[int, int] = 1,
    padding: int | tuple[int, int] = 0,
    output_padding: int | tuple[int, int] = 0,
) -> Tensor:
    """activation(the adjoint of `conv2d` applied to x, + bias): (b, h, w, i) -> (b, p, q, o).

    Each number of x, times weight (k, l, o, i), is added to a window of the result. With a padding P, a stride S and
    an output padding E, less than S, there are p = (h - 1) S - 2P + k + E rows: the images of p rows that `conv2d` with
    the same weight, stride and padding maps to h rows are those with E = 0 to S - 1. Other parameters and errors as
    there. Source: Dumoulin & Visin 2016, section 4.
    """
    name = "conv_transpose2d"
    steps, edges = pair(f"{name}: stride", stride, 1), pair(f"{name}: output_padding", output_padding, 0)
    if edges[0] >= steps[0] or edges[1] >= steps[1]:
        raise ValueError(f"{name}: output_padding {output_padding} must be less than the stride {stride}")
    window = {"stride": steps, "padding": pair(f"{name}: padding", padding, 0), "output_padding": edges}
    return _apply(name, x, weight, bias, activation, window)


def _apply(name, x, weight, bias, activation, window):
    if bias is not None:
        return apply(f"{name}_bias", x, weight, bias, activation=checked_activation(name, activation), **window)
    if activation != "identity":
        raise ValueError(f"{name}: an activation needs a bias; without one, apply {activation} to the result")
    return apply(name, x, weight, **window)
