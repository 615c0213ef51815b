"""The whole backward pass of the VAE, by hand (L19).

With b examples x (b, D), M draws of noise ε (M, b, J) and the weight β of the KL term, the loss is the mean

    loss = 1/b Σ_i [ 1/M Σ_m r(x_i, z_mi) + β KL_i ],        z_m = μ + σ ⊙ ε_m,   σ = e^(v/2),   v = log σ².

A hidden layer computes h⁺ = φ(a) with a = h W + c. Write δ for d(loss)/da and ḣ for d(loss)/dh. Then, as in ``layers``,

    δ = ḣ⁺ ⊙ φ'(a),      d(loss)/dW = hᵀ δ,      d(loss)/dc = Σ_rows δ,      ḣ = δ Wᵀ,                        (1)

and a linear layer is the same with φ' = 1. The rows of the decoder are all M b codes. Its backward pass begins with

    Bernoulli, logits a:              r = Σ_D [log(1 + e^a) − x a]                ∂r/∂a = sigmoid(a) − x          (2)
    Gaussian, mean m, sd σ_x fixed:   r = Σ_D [(x − m)²/2σ_x² + log σ_x + ½ log 2π]   ∂r/∂m = (m − x)/σ_x²        (3)
    Gaussian, mean m, log var s:      r = ½ Σ_D [log 2π + s + (x − m)² e^(−s)]
                                      ∂r/∂m = (m − x) e^(−s),   ∂r/∂s = ½ [1 − (x − m)² e^(−s)]                  (4)
      where s = f + log(1 + e^(u − f)) for an output u and the floor f, so  ∂s/∂u = sigmoid(u − f),              (5)

each divided by b M, the weight of one draw in the loss. The gradient of the codes, ż, continues through
z = μ + e^(v/2) ε, and that of the KL term, KL = ½ Σ_J (μ² + e^v − 1 − v), is added (L16):

    d(loss)/dμ = Σ_m ż_m + β μ / b,         d(loss)/dv = Σ_m ż_m ⊙ ε_m ⊙ ½ e^(v/2) + β (e^v − 1) / 2b.          (6)

Both heads of the encoder are linear layers on the same h, and their ḣ add up; (1) leads back to the pixels.
"""

import math

import numpy as np

from scratchgen.by_hand.layers import (
    Arrays,
    cross_entropy,
    cross_entropy_prime,
    dense,
    dense_stack,
    dense_stack_backward,
    heads_backward,
    numbered,
    sigmoid,
    softplus,
)
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
        With an activation in ``layers.ACTIVATIONS``.
    x, noise : np.ndarray
        (b, D) and (M, b, J).
    """
    p, grad = parameters, dict[str, np.ndarray]()
    samples, b, _ = noise.shape
    encoder = numbered("encoder", len(config.encoder_hidden))
    decoder = numbered("decoder", len(config.decoder_hidden))

    # encoder, forward
    h, a = dense_stack(p, encoder, config.activation, x)
    mu, v = dense(p, "encoder_mu", h[-1]), dense(p, "encoder_logvar", h[-1])
    kl = (mu**2 + np.exp(v) - 1 - v).sum() / 2 / b

    # the codes, and the decoder, forward
    z = mu + np.exp(v / 2) * noise
    g, c = dense_stack(p, decoder, config.activation, z.reshape(samples * b, -1))
    out = dense(p, "decoder_out", g[-1])

    # the likelihood and its gradient: (2) to (5)
    target = np.tile(x, (samples, 1))
    deltas = {}
    if config.likelihood == "bernoulli":
        r = cross_entropy(out, target)
        deltas["decoder_out"] = cross_entropy_prime(out, target) / (b * samples)
    elif config.likelihood == "gaussian-fixed":
        r = (target - out) ** 2 / (2 * config.sigma**2) + math.log(config.sigma) + math.log(2 * math.pi) / 2
        deltas["decoder_out"] = (out - target) / config.sigma**2 / (b * samples)
    else:
        u, f = dense(p, "decoder_logvar", g[-1]), 2 * math.log(config.sigma_floor)
        s = f + softplus(u - f)
        r = (math.log(2 * math.pi) + s + (target - out) ** 2 * np.exp(-s)) / 2
        deltas["decoder_out"] = (out - target) * np.exp(-s) / (b * samples)
        deltas["decoder_logvar"] = (1 - (target - out) ** 2 * np.exp(-s)) / 2 * sigmoid(u - f) / (b * samples)
    reconstruction = r.sum() / (b * samples)

    # decoder, backward: (1) from the outputs to the codes
    g_dot = heads_backward(p, grad, g[-1], deltas)
    z_dot = dense_stack_backward(p, grad, decoder, config.activation, g, c, g_dot).reshape(noise.shape)

    # the codes and the KL term: (6)
    mu_dot = z_dot.sum(0) + beta * mu / b
    v_dot = (z_dot * noise).sum(0) * np.exp(v / 2) / 2 + beta * (np.exp(v) - 1) / (2 * b)

    # encoder, backward: (1) from both heads to the pixels
    h_dot = heads_backward(p, grad, h[-1], {"encoder_mu": mu_dot, "encoder_logvar": v_dot})
    dense_stack_backward(p, grad, encoder, config.activation, h, a, h_dot)
    return float(reconstruction), float(kl), grad
