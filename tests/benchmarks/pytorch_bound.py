"""The importance-weighted bound in PyTorch, as its users would write it: one image's samples at a time."""

import math

import numpy as np
import torch
from torch.nn import functional as F

from scratchgen.models.vae import VAE


@torch.inference_mode()
def importance_bound(model: VAE, x: np.ndarray, noise: np.ndarray | None = None, samples: int = 5000) -> np.ndarray:
    """L_K (b,) of images x (b, D) by the engine's weights, with noise (K, b, J), or fresh noise of K ``samples``."""
    w = {name: torch.from_numpy(np.array(p.data)) for name, p in model.named_parameters().items()}

    def dense(h: torch.Tensor, name: str) -> torch.Tensor:
        return F.linear(h, w[f"{name}.weight"].T, w[f"{name}.bias"])

    def hidden(h: torch.Tensor, name: str, layers: int) -> torch.Tensor:
        for i in range(layers):
            h = torch.tanh(dense(h, f"{name}.layers.{i}"))
        return h

    config, pixels = model.config, torch.from_numpy(x)
    h = hidden(pixels, "encoder", len(config.encoder_hidden))
    mu, logvar = dense(h, "encoder_mu"), dense(h, "encoder_logvar")
    shape = (samples, len(x), config.latent_dim)
    eps = torch.randn(shape) if noise is None else torch.from_numpy(noise)
    z = mu + torch.exp(logvar / 2) * eps
    logits = dense(hidden(z, "decoder", len(config.decoder_hidden)), "decoder_out")
    likelihood = -F.binary_cross_entropy_with_logits(logits, pixels.expand_as(logits), reduction="none").sum(-1)
    prior_over_posterior = (eps.square() + logvar - z.square()).sum(-1) / 2  # log p(z) - log q(z|x)
    return (torch.logsumexp(likelihood + prior_over_posterior, 0) - math.log(len(eps))).numpy()
