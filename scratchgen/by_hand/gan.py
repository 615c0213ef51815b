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

averaged over b. Its δ is propagated through the frozen D to the pixels: ẋ. G's last layer is dense, x = sigmoid(u),

    ds/da = s (1 − s)      so      u̇ = ẋ ⊙ x ⊙ (1 − x),                                                              (6)

and layers (1) and (2) lead back to z, with layers (6) between them if G's hidden layers are batch-normalised,

    a = h W,   o = batch norm of a,   h⁺ = relu(o):       ȯ = ḣ⁺ ⊙ relu'(o),   δ from ȯ,   Ẇ = hᵀ δ,   ḣ = δ Wᵀ.     (7)

D may judge packs of P pictures: x (b, D) is reshaped to (b/P, P D), there are b/P logits, and the means are over b/P.
Nothing else changes, and ẋ is reshaped back to (b, D).

D's layers, from the first: x ⊙ mask, then for each hidden layer φ(h W + c) or maxout(h W + c), then its ⊙ mask, and the
logit. The backward pass takes them in reverse, by layers (1), (4), (2) or (3), (1), (4), and so on.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from scratchgen.by_hand.layers import (
    ACTIVATIONS,
    Arrays,
    Mask,
    batch_moments,
    batch_norm,
    batch_norm_backward,
    cross_entropy,
    cross_entropy_prime,
    dense,
    dense_backward,
    maxout,
    maxout_backward,
    running_average,
    sigmoid,
    softplus,
)
from scratchgen.models.gan import GANConfig
from scratchgen.random import RandomStream

# What G minimises, and its derivative, as functions of the logits a (b, 1): (3), (4), (5).
OBJECTIVES = {
    "minimax": (lambda a: -softplus(a), lambda a: -sigmoid(a)),
    "non-saturating": (lambda a: softplus(-a), lambda a: -sigmoid(-a)),
    "literal": (lambda a: -sigmoid(a), lambda a: -sigmoid(a) * sigmoid(-a)),
}


class DiscriminatorStep(NamedTuple):
    """``loss_real`` and ``loss_fake`` of (2), the means of s over real pictures and samples, and D's gradients."""

    loss_real: float
    loss_fake: float
    d_real: float
    d_fake: float
    gradients: Arrays


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
    losses, certainty, passes = [], [], []
    for x, label, mask in ((real, real_label, masks[0]), (fake, 0.0, masks[1])):
        logits, h, a = _discriminate(parameters, config, x, mask)
        losses.append(float(cross_entropy(logits, label).mean()))  # 1/b Σ r(a, t)
        certainty.append(float(sigmoid(logits).mean()))
        grad: Arrays = {}
        delta = cross_entropy_prime(logits, label) / len(logits)  # δ = (s − t) / b
        _discriminate_backward(parameters, grad, config, mask, h, a, delta)
        passes.append(grad)
    gradients = {name: passes[0][name] + passes[1][name] for name in passes[0]}  # the same D: they add up
    return DiscriminatorStep(losses[0], losses[1], certainty[0], certainty[1], gradients)


def generate(parameters: Arrays, config: GANConfig, z: np.ndarray) -> tuple[np.ndarray, Arrays]:
    """G(z) (b, D) of z (b, J) in training, and batch normalisation's moving averages after it, by name."""
    h, a, _ = _generate(parameters, config, z)
    averages = {}
    for layer in range(len(config.generator_hidden) * config.batch_norm):
        for kind, now in zip(("mean", "variance"), batch_moments(a[layer]), strict=True):
            name = f"{_normalized(layer)}.{kind}"
            averages[name] = running_average(parameters[name], now)
    return h[-1], averages


def generator_gradients(
    parameters: Arrays, config: GANConfig, z: np.ndarray, objective: str, masks: Sequence[Mask]
) -> tuple[float, Arrays]:
    """The generator step: the loss, and its gradients with respect to G's parameters.

    Parameters
    ----------
    parameters : dict
        As ``GAN.state_dict`` names them; the gradients have the same names.
    z : np.ndarray
        Noise (b, J).
    objective : str
        A name in ``OBJECTIVES``.
    masks : sequence
        For the pass of G(z) through D, from ``draw_masks``.
    """
    p, grad, (loss, loss_prime) = parameters, dict[str, np.ndarray](), OBJECTIVES[objective]
    relu_prime, depth = ACTIVATIONS["relu"][1], len(config.generator_hidden)

    h, a, o = _generate(p, config, z)
    logits, g, c = _discriminate(p, config, h[-1], masks)
    delta = loss_prime(logits) / len(logits)  # (3), (4), (5)
    packed = _discriminate_backward(p, None, config, masks, g, c, delta)
    x_dot = np.zeros_like(h[-1])  # pictures of an incomplete last pack are not judged
    x_dot[: config.pack * len(packed)] = packed.reshape(-1, config.input_dim)

    delta = x_dot * h[-1] * (1 - h[-1])  # (6)
    h_dot = dense_backward(p, grad, _generator_linear(config, depth), h[depth], delta)
    for layer in reversed(range(depth)):  # (7)
        name = _generator_linear(config, layer)
        o_dot = h_dot * relu_prime(o[layer])  # ȯ = ḣ⁺ ⊙ relu'(o)
        if config.batch_norm:
            delta = batch_norm_backward(p, grad, _normalized(layer), a[layer], o_dot)
            grad[f"{name}.weight"] = h[layer].T @ delta  # Ẇ = hᵀ δ
            h_dot = delta @ p[f"{name}.weight"].T  # ḣ = δ Wᵀ
        else:
            h_dot = dense_backward(p, grad, name, h[layer], o_dot)
    return float(loss(logits).mean()), grad


# ---- the two networks. The forward pass returns every h and a for the backward pass ----


def _generate(p: Arrays, config: GANConfig, z: np.ndarray) -> tuple[list[np.ndarray], ...]:
    """Every h, from z to G(z), and each hidden layer's a and o, which are the same without batch normalisation: (7)."""
    relu, depth = ACTIVATIONS["relu"][0], len(config.generator_hidden)
    h, a, o = [z], list[np.ndarray](), list[np.ndarray]()
    for layer in range(depth):
        name = _generator_linear(config, layer)
        if config.batch_norm:
            a.append(h[-1] @ p[f"{name}.weight"])  # a = h W
            o.append(batch_norm(p, _normalized(layer), a[-1]))
        else:
            a.append(dense(p, name, h[-1]))
            o.append(a[-1])
        h.append(relu(o[-1]))  # h⁺ = relu(o)
    h.append(sigmoid(dense(p, _generator_linear(config, depth), h[-1])))  # x = sigmoid(u)
    return h, a, o


def _discriminate(
    p: Arrays, config: GANConfig, x: np.ndarray, masks: Sequence[Mask]
) -> tuple[np.ndarray, list[np.ndarray], list[np.ndarray]]:
    """The logits (b / pack, 1) of x (b, D), every layer's input h, and every hidden layer's a."""
    packs = len(x) // config.pack
    packed = x[: packs * config.pack].reshape(packs, -1)
    h, a = [packed * masks[0]], list[np.ndarray]()  # layers (4)
    for layer, width in enumerate(config.discriminator_hidden):
        linear = dense(p, _linear(config, layer), h[-1])
        if config.discriminator == "maxout":
            a.append(linear.reshape(packs, width, config.pieces))
            out = maxout(a[-1])
        else:
            a.append(linear)
            out = ACTIVATIONS["leaky_relu"][0](linear)
        h.append(out * masks[layer + 1])  # layers (4)
    return dense(p, _linear(config, len(a)), h[-1]), h, a


def _discriminate_backward(
    p: Arrays,
    grad: Arrays | None,
    config: GANConfig,
    masks: Sequence[Mask],
    h: Sequence[np.ndarray],
    a: Sequence[np.ndarray],
    delta: np.ndarray,
) -> np.ndarray:
    """ẋ, packed, from the δ (b / pack, 1) of the logits; stores D's gradients in ``grad`` unless it is None."""
    h_dot = dense_backward(p, grad, _linear(config, len(a)), h[-1], delta) * masks[-1]  # layers (1), (4)
    for layer in reversed(range(len(a))):
        if config.discriminator == "maxout":
            delta = maxout_backward(a[layer], h_dot).reshape(len(h_dot), -1)  # layers (3)
        else:
            delta = h_dot * ACTIVATIONS["leaky_relu"][1](a[layer])  # layers (2)
        h_dot = dense_backward(p, grad, _linear(config, layer), h[layer], delta) * masks[layer]  # layers (1), (4)
    return h_dot


def _generator_linear(config: GANConfig, layer: int) -> str:
    """The name of G's dense layer number ``layer``; batch normalisation follows each hidden one."""
    return f"generator.layers.{layer * (1 + config.batch_norm)}"


def _normalized(layer: int) -> str:
    """The name of the batch normalisation after G's hidden layer number ``layer``."""
    return f"generator.layers.{2 * layer + 1}"


def _linear(config: GANConfig, layer: int) -> str:
    """The name of D's dense layer number ``layer``; a dropout layer precedes each."""
    hidden = layer < len(config.discriminator_hidden)
    name = f"discriminator.layers.{2 * layer + 1}"
    return f"{name}.linear" if hidden and config.discriminator == "maxout" else name
