"""The importance-weighted bound of a VAE in PyTorch, straightforwardly: one image with all its samples at a time."""

import math
from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits, linear

from scratchgen.models.vae import VAEConfig

ACTIVATIONS = {"relu": torch.relu, "tanh": torch.tanh}


class VAE:
    """The networks of ``config``, with the engine's parameters under the engine's names."""

    def __init__(self, config: VAEConfig, parameters: Mapping[str, np.ndarray]) -> None:
        self.config, self.activation = config, ACTIVATIONS[config.activation]
        self.p = {name: torch.tensor(p.T) for name, p in parameters.items()}  # linear() wants (outputs, inputs)

    def dense(self, name: str, h: Tensor) -> Tensor:
        return linear(h, self.p[f"{name}.weight"], self.p[f"{name}.bias"])

    def hidden(self, name: str, layers: int, h: Tensor) -> Tensor:
        for layer in range(layers):
            h = self.activation(self.dense(f"{name}.layers.{layer}", h))
        return h

    @torch.inference_mode()
    def importance_bound(self, x: Tensor, noise: Tensor) -> Tensor:
        """L_K (b,), in nats, of x (b, D) and noise (K, b, J)."""
        h = self.hidden("encoder", len(self.config.encoder_hidden), x)
        mu, logvar = self.dense("encoder_mu", h), self.dense("encoder_logvar", h)
        z = mu + torch.exp(logvar / 2) * noise
        logits = self.dense("decoder_out", self.hidden("decoder", len(self.config.decoder_hidden), z))
        log_likelihood = -binary_cross_entropy_with_logits(logits, x.expand_as(logits), reduction="none").sum(-1)
        log_prior_over_posterior = (noise.square() + logvar - z.square()).sum(-1) / 2
        return torch.logsumexp(log_likelihood + log_prior_over_posterior, 0) - math.log(len(noise))

    def importance_nll(self, images: np.ndarray, samples: int) -> float:
        """-L_K, in nats an image, over images (n, D), with K = ``samples``."""
        bounds = [
            self.importance_bound(x, torch.randn(samples, 1, self.config.latent_dim))
            for x in torch.from_numpy(images).split(1)
        ]
        return -torch.cat(bounds).mean().item()
