"""The gradient penalty: the critic's input gradient as a product of its layers, and the penalty's own gradient."""

import numpy as np
import pytest

from scratchgen.gradcheck import gradcheck
from scratchgen.models.wgan import critic_loss, gradient_penalty, input_gradient
from scratchgen.nn import BatchNorm, Conv2d, Dense, Dropout, Reshape, Sequential
from scratchgen.tensor import Tensor


def dense_critic(rng, activation):
    return Sequential(
        Dropout(0.0),
        Dense(12, 7, rng, activation, dtype=np.float64),
        Dense(7, 5, rng, activation, dtype=np.float64),
        Dense(5, 1, rng, dtype=np.float64),
    )


def conv_critic(rng, activation):
    """With a stride that leaves a column over, which then has a gradient of 0."""
    return Sequential(
        Reshape(3, 4, 1),
        Conv2d(1, 3, (2, 3), rng, activation, (1, 2), dtype=np.float64),
        Conv2d(3, 2, 2, rng, activation, padding=1, dtype=np.float64),
        Reshape(-1),
        Dense(12, 1, rng, dtype=np.float64),
    )


def randomized(critic, rng):
    for parameter in critic.parameters():
        parameter.write(rng.standard_normal(parameter.shape) / np.sqrt(parameter.shape[-1]))
    return critic


critics = pytest.mark.parametrize("make", [dense_critic, conv_critic])


@pytest.mark.usefixtures("kernel_set")
@pytest.mark.parametrize("activation", ["leaky_relu", "relu", "identity"])
@critics
def test_input_gradient_is_that_of_the_backward_pass(rng, make, activation):
    critic, x = randomized(make(rng, activation), rng), Tensor(rng.standard_normal((6, 12)), requires_grad=True)
    critic(x).sum().backward()
    np.testing.assert_allclose(input_gradient(critic, x.detach()).data, x.grad, rtol=1e-12, atol=1e-12)


@pytest.mark.usefixtures("kernel_set")
@critics
def test_penalty_gradients_are_its_finite_differences(rng, make):
    """Of the weights. Biases move the masks alone, at kinks: they have no gradient."""
    critic = randomized(make(rng, "leaky_relu"), rng)
    real, fake, u = (Tensor(rng.random(shape)) for shape in ((5, 12), (5, 12), (5, 1)))
    weights = [parameter for parameter in critic.parameters() if parameter.ndim > 1]
    gradcheck(lambda *_: gradient_penalty(critic, real, fake, u), *weights)


def test_penalty_of_a_linear_critic_is_known(rng):
    """f(x) = w x has the gradient w everywhere."""
    critic, w = Sequential(Dense(3, 1, rng, dtype=np.float64)), np.array([[1.0], [2.0], [2.0]])
    critic.layers[0].weight.write(w)
    real, fake, u = (Tensor(rng.random(shape)) for shape in ((4, 3), (4, 3), (4, 1)))
    penalty = gradient_penalty(critic, real, fake, u)
    assert penalty.item() == pytest.approx(4)  # (|w| - 1)^2 = (3 - 1)^2
    penalty.backward()
    np.testing.assert_allclose(critic.layers[0].weight.grad, 2 * (3 - 1) * w / 3, rtol=1e-10)


def test_penalty_of_a_constant_critic_has_a_finite_gradient(rng):
    """The norm of a gradient that is 0 has no slope there."""
    critic = Sequential(Dense(3, 1, rng, dtype=np.float64))
    critic.layers[0].weight.write(np.zeros((3, 1)))
    penalty = gradient_penalty(critic, *(Tensor(rng.random(shape)) for shape in ((4, 3), (4, 3), (4, 1))))
    assert penalty.item() == pytest.approx(1, rel=1e-5)
    penalty.backward()
    np.testing.assert_array_equal(critic.layers[0].weight.grad, 0)


def test_penalty_points_lie_between_data_and_samples(rng):
    """Where f bends between the two, the share of points on either side shows in the penalty."""
    critic = Sequential(Dense(1, 1, rng, "leaky_relu", dtype=np.float64), Dense(1, 1, rng, dtype=np.float64))
    for layer, weight in zip(critic.layers, (5.0, 1.0), strict=True):
        layer.weight.write([[weight]])
    real, fake = Tensor(np.full((4, 1), 1.0)), Tensor(np.full((4, 1), -1.0))
    u = Tensor(np.array([[0.2], [0.4], [0.6], [0.9]]))  # x^ = 2u - 1: two below the kink, with slope 1, two above
    assert gradient_penalty(critic, real, fake, u).item() == pytest.approx((0 + 0 + 16 + 16) / 4)


def test_critic_loss_is_the_negative_difference_of_means():
    loss = critic_loss(Tensor([[1.0], [3.0]]), Tensor([[0.5], [0.0]]))
    assert loss.item() == pytest.approx(0.25 - 2)


@pytest.mark.parametrize(
    ("layer", "says"),
    [
        (lambda rng: Dense(12, 1, rng, "tanh", dtype=np.float64), "tanh is not piecewise linear"),
        (lambda rng: BatchNorm(12, dtype=np.float64), "BatchNorm has no fixed linear map"),
    ],
)
def test_input_gradient_refuses_other_layers(rng, layer, says):
    with pytest.raises(TypeError, match=says):
        input_gradient(Sequential(layer(rng)), Tensor(rng.standard_normal((2, 12))))
