"""The Wasserstein GAN with gradient penalty (Arjovsky et al. 2017; Gulrajani et al. 2017).

The critic f gives each picture a number, not a probability. Over all f that are 1-Lipschitz, the largest difference

    E_x f(x) - E_z f(G(z))                                                                                  (1)

is the Wasserstein-1 distance between data and samples: f maximises it, G minimises it. To keep f near 1-Lipschitz, the
norm of its gradient is pulled to 1 at random points between data and samples:

    f minimises  E_z f(G(z)) - E_x f(x) + lambda E (|grad f(x^)| - 1)^2,      x^ = u x + (1 - u) G(z), u uniform.    (2)

So the critic's update needs the gradient, with respect to its parameters, of a norm of a gradient with respect to its
input. The engine has no second derivatives, and for these critics needs none. A leaky relu is linear on either side of
0, so near a point x^ the critic is a chain of linear maps, W_n M_(n-1) W_(n-1) ... M_1 W_1, where the diagonal M_l
holds the slope, 1 or 0.2, of each unit. Then

    grad f(x^) = W_1^T M_1 ... M_(n-1) W_n^T,                                                               (3)

and the M stay the same while the parameters move a little, unless a unit is exactly at its kink. `input_gradient`
computes (3) with the engine's operations, the M as constants, and an ordinary backward pass through that product is the
gradient of the penalty. The transposed map of a convolution is the transposed convolution.

In a conditional GAN f(x, y) is to be 1-Lipschitz in the picture, for each class: x^ lies between a real picture and a
sample of the same class, which it has too, and the norm is of the gradient with respect to the pixels alone.
"""

import numpy as np

from scratchgen import ops
from scratchgen.models.gan import GAN
from scratchgen.nn import Conv2d, Dense, Dropout, Module, Reshape, Sequential
from scratchgen.tensor import Tensor, no_grad

SLOPES = {"identity": 1.0, "relu": 0.0, "leaky_relu": 0.2}  # below 0


def check_critic(model: GAN) -> None:
    """TypeError, saying why, unless the model's discriminator can be a critic with a gradient penalty."""
    if model.config.pack != 1:
        raise TypeError(f"a critic takes one picture at a time: pack must be 1, not {model.config.pack}")
    y = model.labels_given(np.zeros(1, np.int64))
    with no_grad():
        blank = Tensor(np.zeros((1, model.config.input_dim)), dtype=model.dtype)
        input_gradient(model.discriminator, model.discriminator_input(blank, None if y is None else Tensor(y)))


def critic_loss(on_real: Tensor, on_fake: Tensor) -> Tensor:
    """What f minimises, without the penalty: the negative of (1), from f (b, 1) of data and of samples."""
    return on_fake.mean() - on_real.mean()


def gradient_penalty(critic: Sequential, real: Tensor, fake: Tensor, u: Tensor, pixels: slice | None = None) -> Tensor:
    """The penalty of (2) without lambda, of data and samples (b, D) and u (b, 1) in [0, 1].

    ``pixels`` are the columns of the critic's input with respect to which the gradient is taken; None is all.
    """
    between = u.detach() * real.detach() + (1 - u.detach()) * fake.detach()
    gradient = input_gradient(critic, between)
    if pixels is not None:
        gradient = gradient[:, pixels]
    norms = ops.sqrt((gradient**2).sum(axis=1) + 1e-12)  # the root of 0 has no slope
    return ((norms - 1) ** 2).mean()


def input_gradient(critic: Sequential, x: Tensor) -> Tensor:
    """grad f (b, D) at x (b, D), as a function of the critic's parameters: (3).

    TypeError, naming the layer, for a layer that is not piecewise linear, such as batch normalisation, which also makes
    f(x) depend on the other pictures of the batch.
    """
    passed = list[tuple[Module, tuple[int, ...], Tensor | None]]()  # each layer, the shape of its input, and M
    with no_grad():
        for layer in critic.layers:
            shape, x = x.shape, layer(x)
            passed.append((layer, shape, _slopes(layer, x)))
    gradient = Tensor.wrap(np.ones(x.shape, x.dtype))
    for layer, shape, slopes in reversed(passed):
        gradient = _transposed(layer, gradient if slopes is None else gradient * slopes, shape)
    return gradient


def _slopes(layer: Module, out: Tensor) -> Tensor | None:
    """M, from the layer's output, which has the sign of what came before the activation; None where it is 1."""
    activation = getattr(layer, "activation", "identity")
    if activation not in SLOPES:
        raise TypeError(f"input_gradient: {activation} is not piecewise linear; use relu or leaky_relu")
    return None if activation == "identity" else ops.where(out, 1.0, SLOPES[activation])


def _transposed(layer: Module, g: Tensor, shape: tuple[int, ...]) -> Tensor:
    """The transpose of the layer's linear map, whose input has this shape, applied to g."""
    if isinstance(layer, Dense):
        return g @ layer.weight.transpose()
    if isinstance(layer, Conv2d):
        window = zip(shape[1:3], layer.weight.shape[:2], layer.stride, layer.padding, strict=True)
        left = [(size + 2 * p - k) % s for size, k, s, p in window]  # rows and columns that no window reaches
        return ops.conv_transpose2d(
            g, layer.weight, stride=layer.stride, padding=layer.padding, output_padding=(left[0], left[1])
        )
    if isinstance(layer, Reshape):
        return g.reshape(shape)
    if isinstance(layer, Dropout) and (layer.rate == 0 or not layer.training):
        return g
    raise TypeError(f"input_gradient: {type(layer).__name__} has no fixed linear map")
