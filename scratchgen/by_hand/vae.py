"""The whole backward pass of the VAE, by hand (L19).

With b examples x (b, D), M draws of noise ε (M, b, J) and the weight β of the KL term, the loss is the mean

    loss = 1/b Σ_i [ 1/M Σ_m r(x_i, z_mi) + β KL_i ],        z_m = μ + σ ⊙ ε_m,   σ = e^(v/2),   v = log σ².

A hidden layer makes h⁺ = φ(a) of a = h W + c. Write δ for d(loss)/da and ḣ for d(loss)/dh. Then, by the chain rule,

    δ = ḣ⁺ ⊙ φ'(a),      d(loss)/dW = hᵀ δ,      d(loss)/dc = Σ_rows δ,      ḣ = δ Wᵀ,                        (1)

and a linear layer is the same with φ' = 1. The rows of the decoder are all M b codes. It begins at its output, with

    Bernoulli, logits a:              r = Σ_D [log(1 + e^a) − x a]                ∂r/∂a = sigmoid(a) − x          (2)
    Gaussian, mean m, sd σ_x fixed:   r = Σ_D [(x − m)²/2σ_x² + log σ_x + ½ log 2π]   ∂r/∂m = (m − x)/σ_x²        (3)
    Gaussian, mean m, log var s:      r = ½ Σ_D [log 2π + s + (x − m)² e^(−s)]
                                      ∂r/∂m = (m − x) e^(−s),   ∂r/∂s = ½ [1 − (x − m)² e^(−s)]                  (4)
      where s = f + log(1 + e^(u − f)) for an output u and the floor f, so  ∂s/∂u = sigmoid(u − f),              (5)

each divided by b M, the weight of one draw in the loss. What arrives at the codes, ż, goes on through
z = μ + e^(v/2) ε, and the KL term, KL = ½ Σ_J (μ² + e^v − 1 − v), joins it (L16):

    d(loss)/dμ = Σ_m ż_m + β μ / b,         d(loss)/dv = Σ_m ż_m ⊙ ε_m ⊙ ½ e^(v/2) + β (e^v − 1) / 2b.          (6)

Both heads of the encoder are linear layers on the same h, whose ḣ is the sum of theirs; (1) leads back to the pixels.
"""

import math
from collections.abc import Callable

import numpy as np

from scratchgen.models.vae import VAEConfig

Arrays = dict[str, np.ndarray]


def sigmoid(a: np.ndarray) -> np.ndarray:
    """1 / (1 + e^-a), without overflow."""
    return np.exp(-np.logaddexp(0, -a))


# φ and φ', the derivative as a function of a.
ACTIVATIONS: dict[str, tuple[Callable[[np.ndarray], np.ndarray], Callable[[np.ndarray], np.ndarray]]] = {
    "relu": (lambda a: np.maximum(a, 0), lambda a: (a > 0).astype(a.dtype)),
    "sigmoid": (sigmoid, lambda a: sigmoid(a) * (1 - sigmoid(a))),
    "tanh": (np.tanh, lambda a: 1 - np.tanh(a) ** 2),
    "softplus": (lambda a: np.logaddexp(0, a), sigmoid),
}


def vae_gradients(
    parameters: Arrays, config: VAEConfig, x: np.ndarray, noise: np.ndarray, beta: float = 1.0
) -> tuple[float, float, Arrays]:
    """The means of ``reconstruction`` and ``kl``, and d(reconstruction + beta kl) / d(parameter) for each of them.

    Parameters
    ----------
    parameters : dict
        As ``VAE.state_dict`` names them; the gradients have the same names.
    config : VAEConfig
        With an activation in ``ACTIVATIONS``.
    x, noise : np.ndarray
        (b, D) and (M, b, J).
    """
    p, grad = parameters, dict.fromkeys(parameters, np.empty(0))
    samples, b, _ = noise.shape
    phi, phi_prime = ACTIVATIONS[config.activation]
    depth_in, depth_out = len(config.encoder_hidden), len(config.decoder_hidden)

    # encoder, forward
    h, a = [x], []
    for layer in range(depth_in):
        a.append(h[-1] @ p[f"encoder.layers.{layer}.weight"] + p[f"encoder.layers.{layer}.bias"])
        h.append(phi(a[-1]))
    mu = h[-1] @ p["encoder_mu.weight"] + p["encoder_mu.bias"]
    v = h[-1] @ p["encoder_logvar.weight"] + p["encoder_logvar.bias"]
    kl = (mu**2 + np.exp(v) - 1 - v).sum() / 2 / b

    # the codes, and the decoder, forward
    z = mu + np.exp(v / 2) * noise
    g, c = [z.reshape(samples * b, -1)], []
    for layer in range(depth_out):
        c.append(g[-1] @ p[f"decoder.layers.{layer}.weight"] + p[f"decoder.layers.{layer}.bias"])
        g.append(phi(c[-1]))
    out = g[-1] @ p["decoder_out.weight"] + p["decoder_out.bias"]

    # the likelihood and its gradient: (2) to (5)
    target = np.tile(x, (samples, 1))
    deltas = {}
    if config.likelihood == "bernoulli":
        r = np.logaddexp(0, out) - target * out
        deltas["decoder_out"] = (sigmoid(out) - target) / (b * samples)
    elif config.likelihood == "gaussian-fixed":
        r = (target - out) ** 2 / (2 * config.sigma**2) + math.log(config.sigma) + math.log(2 * math.pi) / 2
        deltas["decoder_out"] = (out - target) / config.sigma**2 / (b * samples)
    else:
        u, f = g[-1] @ p["decoder_logvar.weight"] + p["decoder_logvar.bias"], 2 * math.log(config.sigma_floor)
        s = f + np.logaddexp(0, u - f)
        r = (math.log(2 * math.pi) + s + (target - out) ** 2 * np.exp(-s)) / 2
        deltas["decoder_out"] = (out - target) * np.exp(-s) / (b * samples)
        deltas["decoder_logvar"] = (1 - (target - out) ** 2 * np.exp(-s)) / 2 * sigmoid(u - f) / (b * samples)
    reconstruction = r.sum() / (b * samples)

    # decoder, backward: (1) from the outputs to the codes
    g_dot = _backward_heads(p, grad, g[-1], deltas)
    for layer in reversed(range(depth_out)):
        g_dot = _backward_heads(p, grad, g[layer], {f"decoder.layers.{layer}": g_dot * phi_prime(c[layer])})
    z_dot = g_dot.reshape(noise.shape)

    # the codes and the KL term: (6)
    mu_dot = z_dot.sum(0) + beta * mu / b
    v_dot = (z_dot * noise).sum(0) * np.exp(v / 2) / 2 + beta * (np.exp(v) - 1) / (2 * b)

    # encoder, backward: (1) from both heads to the pixels
    h_dot = _backward_heads(p, grad, h[-1], {"encoder_mu": mu_dot, "encoder_logvar": v_dot})
    for layer in reversed(range(depth_in)):
        h_dot = _backward_heads(p, grad, h[layer], {f"encoder.layers.{layer}": h_dot * phi_prime(a[layer])})
    return float(reconstruction), float(kl), grad


def _backward_heads(p: Arrays, grad: Arrays, h: np.ndarray, deltas: Arrays) -> np.ndarray:
    """(1) for the layers that read h: enters their gradients, returns ḣ, the sum of δ Wᵀ over them."""
    for name, delta in deltas.items():
        grad[f"{name}.weight"] = h.T @ delta  # d(loss)/dW = hᵀ δ
        grad[f"{name}.bias"] = delta.sum(0)  # d(loss)/dc = Σ_rows δ
    return np.sum([delta @ p[f"{name}.weight"].T for name, delta in deltas.items()], axis=0)  # ḣ = Σ δ Wᵀ
