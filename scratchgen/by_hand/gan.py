"""The GAN's two steps, by hand (L22, L23). Equations of ``layers`` are cited as layers (1).

For each of b real pictures x (b, D) and b samples G(z), D computes a logit a; s = sigmoid(a) is the probability that it
is real. The discriminator step minimises two cross-entropies, each a mean over b,

    r(a, t) = −[t log s + (1 − t) log(1 − s)] = log(1 + e^a) − t a,          ∂r/∂a = s − t,                          (1)

with the label t = real_label for x and t = 0 for G(z). Both passes go through the same D, so their gradients add up:

    loss = 1/b Σ r(a(x), t) + 1/b Σ r(a(G(z)), 0),      δ = (s − t) / b.                                             (2)

The generator step minimises one of

    minimax          log(1 − s) = −log(1 + e^a)         ∂/∂a = −s                                                    (3)
    non-saturating   −log s = log(1 + e^(−a))           ∂/∂a = −(1 − s) = −sigmoid(−a)                               (4)
    literal          −s                                 ∂/∂a = −s (1 − s) = −sigmoid(a) sigmoid(−a)                  (5)

averaged over b. Its δ is propagated through the frozen D to the pixels: ẋ. G's last layer is x = sigmoid(u),

    ds/da = s (1 − s)      so      u̇ = ẋ ⊙ x ⊙ (1 − x),                                                              (6)

and layers (1) and (2) lead back to z, with layers (6) between them if G's hidden layers are batch-normalised,

    a = h W,   o = batch norm of a,   h⁺ = relu(o):       ȯ = ḣ⁺ ⊙ relu'(o),   δ from ȯ,   Ẇ = hᵀ δ,   ḣ = δ Wᵀ.     (7)

Where G makes images by transposed convolutions, h W and both its gradients are those of convolution (4) and (5).

D may judge packs of P pictures: x (b, D) is reshaped to (b/P, P D), there are b/P logits, and the means are over b/P.
A convolution takes the P pictures as channels of one, so then the P values of a pixel are beside each other. Nothing
else changes, and ẋ is brought back to (b, D).

D's layers, from the first: x ⊙ mask; convolutions with leaky relu, the second and later ones as in (7) if they are
batch-normalised; then for each hidden layer φ(h W + c) or maxout(h W + c), then its ⊙ mask, and the logit. The backward
pass takes them in reverse, by layers (1), (4), (2) or (3), (1), (4), and so on. Each of D's passes standardises its own
batch, data or samples, and moves the averages of batch normalisation on.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from scratchgen.by_hand.layers import Arrays, Mask, cross_entropy, cross_entropy_prime, sigmoid, softplus
from scratchgen.by_hand.networks import (
    DENSE,
    Layer,
    backward,
    decoder_layers,
    decoder_output,
    dropout,
    encoder_layers,
    forward,
    maxout_layer,
    moving_averages,
    normalized,
)
from scratchgen.errors import require_one_of
from scratchgen.models.gan import GANConfig
from scratchgen.random import RandomStream

# What G minimises, and its derivative, as functions of the logits a (b, 1): (3), (4), (5).
OBJECTIVES = {
    "minimax": (lambda a: -softplus(a), lambda a: -sigmoid(a)),
    "non-saturating": (lambda a: softplus(-a), lambda a: -sigmoid(-a)),
    "literal": (lambda a: -sigmoid(a), lambda a: -sigmoid(a) * sigmoid(-a)),
}


class DiscriminatorStep(NamedTuple):
    """``loss_real`` and ``loss_fake`` of (2), the means of s over real pictures and samples, and D's gradients.

    ``averages`` are the moving averages of D's batch normalisation after both passes, by name.
    """

    loss_real: float
    loss_fake: float
    d_real: float
    d_fake: float
    gradients: Arrays
    averages: Arrays


class GeneratorStep(NamedTuple):
    """What G minimises, its gradients, and the moving averages of D's batch normalisation after D's pass, by name."""

    loss: float
    gradients: Arrays
    averages: Arrays


def draw_masks(config: GANConfig, n: int, random: RandomStream, dtype: Any) -> list[Mask]:
    """The dropout masks of one pass of n pictures through D, from the input to the last hidden layer."""
    drawn: list[Mask] = []
    for layer, width in enumerate((config.pack * config.input_dim, *config.discriminator_hidden)):
        rate = config.hidden_dropout if layer else config.input_dropout
        drawn.append(random.dropout_mask((n // config.pack, width), dtype, rate).data if rate else 1.0)
    return drawn


def discriminator_gradients(
    parameters: Arrays,
    config: GANConfig,
    real: np.ndarray,
    fake: np.ndarray,
    real_label: float,
    masks: tuple[Sequence[Mask], Sequence[Mask]],
) -> DiscriminatorStep:
    """The discriminator step: (2).

    Parameters
    ----------
    parameters : dict
        As ``GAN.state_dict`` names them; the gradients have the same names.
    real, fake : np.ndarray
        (b, D) each.
    masks : tuple
        For the pass of ``real`` and for that of ``fake``, each from ``draw_masks``.
    """
    losses, certainty, passes, averages = [], [], [], dict[str, np.ndarray]()
    for x, label, mask in ((real, real_label, masks[0]), (fake, 0.0, masks[1])):
        layers = _discriminator(config, mask)
        passed = forward(parameters, "discriminator", layers, _packed(config, x))
        logits = passed.h[-1]
        losses.append(float(cross_entropy(logits, label).mean()))  # 1/b Σ r(a, t)
        certainty.append(float(sigmoid(logits).mean()))
        grad: Arrays = {}
        delta = cross_entropy_prime(logits, label) / len(logits)  # δ = (s − t) / b
        backward(parameters, grad, "discriminator", layers, passed, delta)
        passes.append(grad)
        averages = moving_averages(parameters | averages, "discriminator", layers, passed)
    gradients = {name: passes[0][name] + passes[1][name] for name in passes[0]}  # the same D: they add up
    return DiscriminatorStep(losses[0], losses[1], certainty[0], certainty[1], gradients, averages)


def generate(parameters: Arrays, config: GANConfig, z: np.ndarray) -> tuple[np.ndarray, Arrays]:
    """G(z) (b, D) of z (b, J) in training, and batch normalisation's moving averages after it, by name."""
    layers = _generator(config)
    passed = forward(parameters, "generator", layers, z)
    return passed.h[-1], moving_averages(parameters, "generator", layers, passed)


def generator_gradients(
    parameters: Arrays, config: GANConfig, z: np.ndarray, objective: str, masks: Sequence[Mask]
) -> GeneratorStep:
    """The generator step: (3), (4) or (5), then (6) and (7).

    Parameters
    ----------
    parameters : dict
        As ``GAN.state_dict`` names them; the gradients have the same names.
    z : np.ndarray
        Noise (b, J).
    objective : str
        A name in ``OBJECTIVES``, else ValueError.
    masks : sequence
        For the pass of G(z) through D, from ``draw_masks``.
    """
    require_one_of("objective", objective, OBJECTIVES)
    p, grad, (loss, loss_prime) = parameters, dict[str, np.ndarray](), OBJECTIVES[objective]
    generator, discriminator = _generator(config), _discriminator(config, masks)

    generated = forward(p, "generator", generator, z)
    judged = forward(p, "discriminator", discriminator, _packed(config, generated.h[-1]))
    logits = judged.h[-1]
    delta = loss_prime(logits) / len(logits)  # (3), (4), (5)
    x_dot = _unpacked(config, backward(p, None, "discriminator", discriminator, judged, delta), len(z))
    backward(p, grad, "generator", generator, generated, x_dot)  # (6), (7)
    return GeneratorStep(float(loss(logits).mean()), grad, moving_averages(p, "discriminator", discriminator, judged))


# ---- the two networks ----


def _generator(config: GANConfig) -> list[Layer]:
    """G's layers: (6), (7)."""
    pixels, channels = config.input_dim, config.generator_channels
    hidden = [layer for _ in config.generator_hidden for layer in normalized(DENSE, "relu", config.batch_norm)]
    images = decoder_layers(pixels, channels, "relu", config.batch_norm)
    return [*hidden, *images, decoder_output(pixels, channels, "sigmoid")]


def _discriminator(config: GANConfig, masks: Sequence[Mask]) -> list[Layer]:
    """D's layers, with the masks of a pass."""
    pixels, channels = config.input_dim, config.discriminator_channels
    images = encoder_layers(pixels, channels, "leaky_relu", config.discriminator_batch_norm, config.pack)
    kinds = {"leaky_relu": DENSE._replace(activation="leaky_relu"), "maxout": maxout_layer(config.pieces)}
    hidden = [layer for mask in masks[1:] for layer in (kinds[config.discriminator], dropout(mask))]
    return [dropout(masks[0]), *images, *hidden, DENSE]


def _packed(config: GANConfig, x: np.ndarray) -> np.ndarray:
    """Packs (b / P, P D) of x (b, D), without an incomplete last one."""
    packs = len(x) // config.pack
    whole = x[: packs * config.pack].reshape(packs, config.pack, -1)
    if config.discriminator_channels:  # pixel by pixel
        whole = whole.transpose(0, 2, 1)
    return whole.reshape(packs, -1)


def _unpacked(config: GANConfig, packed: np.ndarray, b: int) -> np.ndarray:
    """ẋ (b, D) of that of the packs; pictures of an incomplete last pack are not judged, so theirs is 0."""
    if config.discriminator_channels:
        packed = packed.reshape(len(packed), -1, config.pack).transpose(0, 2, 1)
    judged = packed.reshape(-1, config.input_dim)
    return np.concatenate([judged, np.zeros((b - len(judged), config.input_dim), judged.dtype)])
