"""Convolutional layers derived on paper are the engine's, to 1e-12 of the largest number, in float64."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from scratchgen.by_hand import convolution
from scratchgen.nn import Conv2d, ConvTranspose2d
from scratchgen.tensor import Tensor

LAYERS = {
    "conv2d": (Conv2d, convolution.conv2d, convolution.conv2d_backward),
    "conv_transpose2d": (ConvTranspose2d, convolution.conv_transpose2d, convolution.conv_transpose2d_backward),
}


@pytest.mark.usefixtures("kernel_set")
@pytest.mark.parametrize("bias", [True, False], ids=["bias", "no bias"])
@pytest.mark.parametrize("name", LAYERS)
@given(
    sides=st.tuples(st.integers(3, 6), st.integers(3, 6)),
    window=st.tuples(st.integers(2, 4), st.integers(2, 4)),
    channels=st.tuples(st.integers(1, 3), st.integers(1, 3)),
    stride=st.integers(1, 3),
    padding=st.integers(0, 1),
    seed=st.integers(0, 2**32 - 1),
)
def test_forward_and_backward_are_the_engine_s(name, bias, sides, window, channels, stride, padding, seed):
    kind, forward, backward = LAYERS[name]
    rng = np.random.default_rng(seed)
    if kind is Conv2d:
        window = tuple(min(size + 2 * padding, k) for size, k in zip(sides, window, strict=True))
    layer = kind(*channels, window, rng, stride=stride, padding=padding, bias=bias, dtype=np.float64)
    if layer.bias is not None:
        layer.bias.write(rng.standard_normal(channels[1]))
    h = Tensor(rng.standard_normal((2, *sides, channels[0])), requires_grad=True)
    parameters = {f"layer.{key}": array for key, array in layer.state_dict().items()}

    out = layer(h)
    assert_near(forward(parameters, "layer", h.data, stride, padding), out.data)

    delta, gradients = rng.standard_normal(out.shape), {}
    out.backward(delta)
    assert_near(backward(parameters, gradients, "layer", h.data, delta, stride, padding), h.grad)
    assert gradients.keys() == parameters.keys()
    for key, parameter in layer.named_parameters().items():
        assert_near(gradients[f"layer.{key}"], parameter.grad)


def assert_near(actual, expected):
    np.testing.assert_allclose(actual, expected, rtol=0, atol=1e-12 * max(1.0, np.abs(expected).max()))
