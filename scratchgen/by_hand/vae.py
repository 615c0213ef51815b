"""The whole backward pass of the VAE, by hand (L19).

With b examples x (b, D), M draws of noise ε (M, b, J) and the weight β of the KL term, the loss is the mean

    loss = 1/b Σ_i [ 1/M Σ_m r(x_i, z_mi) + β KL_i ],        z_m = μ + σ ⊙ ε_m,   σ = e^(v/2),   v = log σ².

A hidden layer computes h⁺ = φ(a) with a = h W + c. Write δ for d(loss)/da and ḣ for d(loss)/dh. Then, as in ``layers``,

    δ = ḣ⁺ ⊙ φ'(a),      d(loss)/dW = hᵀ δ,      d(loss)/dc = Σ_rows δ,      ḣ = δ Wᵀ,                        (1)

and a linear layer is the same with φ' = 1. Where images are convolved, convolution (1) to (5) take the place of h W,
hᵀ δ and δ Wᵀ, and a decoder's output has one c for all pixels. The rows of the decoder are all M b codes. Its backward
pass begins with

    Bernoulli, logits a:              r = Σ_D [log(1 + e^a) − x a]                ∂r/∂a = sigmoid(a) − x          (2)
    Gaussian, mean m, sd σ_x fixed:   r = Σ_D [(x − m)²/2σ_x² + log σ_x + ½ log 2π]   ∂r/∂m = (m − x)/σ_x²        (3)
    Gaussian, mean m, log var s:      r = ½ Σ_D [log 2π + s + (x − m)² e^(−s)]
                                      ∂r/∂m = (m − x) e^(−s),   ∂r/∂s = ½ [1 − (x − m)² e^(−s)]                  (4)
      where s = f + log(1 + e^(u − f)) for an output u and the floor f, so  ∂s/∂u = sigmoid(u − f),              (5)
      and m = a, or m = sigmoid(a), which multiplies ∂r/∂m by m (1 − m),

each divided by b M, the weight of one draw in the loss. The gradient of the codes, ż, continues through
z = μ + e^(v/2) ε, and that of the KL term, KL = ½ Σ_J (μ² + e^v − 1 − v), is added (L16):

    d(loss)/dμ = Σ_m ż_m + β μ / b,         d(loss)/dv = Σ_m ż_m ⊙ ε_m ⊙ ½ e^(v/2) + β (e^v − 1) / 2b.          (6)

Both heads of the encoder are linear layers on the same h, and their ḣ add up; (1) leads back to the pixels.
"""

import math

import numpy as np

from scratchgen.by_hand.layers import ACTIVATIONS, Arrays, cross_entropy, cross_entropy_prime, dense, sigmoid, softplus
from scratchgen.by_hand.networks import (
    DENSE,
    backward,
    decoder_layers,
    decoder_output,
    encoder_layers,
    forward,
    heads_backward,
)
from scratchgen.errors import require_one_of
from scratchgen.models.vae import VAEConfig


def vae_gradients(
    parameters: Arrays, config: VAEConfig, x: np.ndarray, noise: np.ndarray, beta: float = 1.0
) -> tuple[float, float, Arrays]:
    """The means of ``reconstruction`` and ``kl``, and d(reconstruction + beta kl) / d(parameter) for every parameter.

    Parameters
    ----------
    parameters : dict
        As ``VAE.state_dict`` names them; the gradients have the same names.
    config : VAEConfig
        With an activation in ``layers.ACTIVATIONS``, else ValueError.
    x, noise : np.ndarray
        (b, D) and (M, b, J).
    """
    p, grad = parameters, dict[str, np.ndarray]()
    samples, b, _ = noise.shape
    pixels, phi = config.input_dim, config.activation
    require_one_of("activation", phi, ACTIVATIONS)
    hidden = DENSE._replace(activation=phi)
    encoder = encoder_layers(pixels, config.encoder_channels, phi) + [hidden for _ in config.encoder_hidden]
    decoder = [hidden for _ in config.decoder_hidden] + decoder_layers(pixels, config.decoder_channels, phi)
    output = decoder_output(pixels, config.decoder_channels)
    squash, squash_prime = ACTIVATIONS[config.mean_activation]

    # encoder, forward
    encoded = forward(p, "encoder", encoder, x)
    h = encoded.h[-1]
    mu, v = dense(p, "encoder_mu", h), dense(p, "encoder_logvar", h)
    kl = (mu**2 + (np.expm1(v) - v)).sum() / 2 / b  # e^v − 1 would cancel near v = 0

    # the codes, and the decoder, forward
    z = mu + np.exp(v / 2) * noise
    decoded = forward(p, "decoder", decoder, z.reshape(samples * b, -1))
    g = decoded.h[-1]
    a = output.forward(p, "decoder_out", g)
    out = squash(a)

    # the likelihood and its gradient: (2) to (5)
    target = np.tile(x, (samples, 1))
    deltas = {}
    if config.likelihood == "bernoulli":
        r = cross_entropy(out, target)
        deltas["decoder_out"] = cross_entropy_prime(out, target) / (b * samples)
    elif config.likelihood == "gaussian-fixed":
        r = (target - out) ** 2 / (2 * config.sigma**2) + math.log(config.sigma) + math.log(2 * math.pi) / 2
        deltas["decoder_out"] = (out - target) / config.sigma**2 / (b * samples) * squash_prime(a)
    else:
        u, f = output.forward(p, "decoder_logvar", g), 2 * math.log(config.sigma_floor)
        s = f + softplus(u - f)
        r = (math.log(2 * math.pi) + s + (target - out) ** 2 * np.exp(-s)) / 2
        deltas["decoder_out"] = (out - target) * np.exp(-s) / (b * samples) * squash_prime(a)
        deltas["decoder_logvar"] = (1 - (target - out) ** 2 * np.exp(-s)) / 2 * sigmoid(u - f) / (b * samples)
    reconstruction = r.sum() / (b * samples)

    # decoder, backward: (1) from the outputs to the codes
    g_dot = heads_backward(p, grad, output, g, deltas)
    z_dot = backward(p, grad, "decoder", decoder, decoded, g_dot).reshape(noise.shape)

    # the codes and the KL term: (6)
    mu_dot = z_dot.sum(0) + beta * mu / b
    v_dot = (z_dot * noise).sum(0) * np.exp(v / 2) / 2 + beta * np.expm1(v) / (2 * b)

    # encoder, backward: (1) from both heads to the pixels
    h_dot = heads_backward(p, grad, DENSE, h, {"encoder_mu": mu_dot, "encoder_logvar": v_dot})
    backward(p, grad, "encoder", encoder, encoded, h_dot)
    return float(reconstruction), float(kl), grad
