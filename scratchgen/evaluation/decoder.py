"""A decoder with a prior and an observation model: the density that AIS estimates."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from scratchgen import ops
from scratchgen.errors import require, require_one_of
from scratchgen.models.gan import GAN, NOISES
from scratchgen.models.vae import VAE
from scratchgen.nn import Module
from scratchgen.tensor import Tensor, no_grad

UNIFORM = math.sqrt(3)  # the limit of a GAN's uniform noise


@dataclass(frozen=True)
class Decoder:
    """p(z) p(x|z): a network, a prior and an observation model.

    Attributes
    ----------
    model : Module
        What ``output`` belongs to, in evaluation mode.
    output : Callable
        The logits of pixels (n, D), or their means, of a tensor z (n, J), and of classes (n, C) if it takes them.
    dim : int
        J.
    sigma : float, optional
        p(x|z) = N(x | output, sigma^2 I); None for the Bernoulli distribution of logits.
    noise : str
        p(z): "normal" is N(0, I), "uniform" is uniform in [-sqrt 3, sqrt 3]^J. For the latter the chains move in
        v (n, J) of independent logistic distributions, z = sqrt 3 tanh(v / 2), so that they meet no walls.
    dtype
        Of the network.
    """

    model: Module
    output: Callable[..., Tensor]
    dim: int
    sigma: float | None = None
    noise: str = "normal"
    dtype: Any = np.float32

    def __post_init__(self) -> None:
        require({"sigma > 0": self.sigma is None or 0 < self.sigma < math.inf})
        require({"a model in evaluation mode, model.eval(),": not any(part.training for part in self.model.modules())})
        require_one_of("noise", self.noise, NOISES)

    def draw_codes(self, n: int, rng: np.random.Generator) -> np.ndarray:
        """n draws (n, J) from the prior, as the chains see it."""
        return rng.standard_normal((n, self.dim)) if self.noise == "normal" else rng.logistic(size=(n, self.dim))

    def draw_images(self, codes: np.ndarray, rng: np.random.Generator, *classes: np.ndarray) -> np.ndarray:
        """A draw from p(x|z) (n, D) for each code (n, J)."""
        with no_grad():
            out = self._decoded(Tensor(codes, dtype=self.dtype), *[Tensor(y, dtype=self.dtype) for y in classes])
            if self.sigma is not None:
                return out.data + self.sigma * rng.standard_normal(out.shape, dtype=self.dtype)
            return (rng.random(out.shape) < ops.sigmoid(out).data).astype(self.dtype)

    def neg_log_prior(self, codes: Tensor) -> Tensor:
        """-log p (n,) of codes (n, J), constants left out."""
        if self.noise == "normal":
            return (codes * codes).sum(axis=1) / 2
        return (codes + 2 * ops.softplus(-codes)).sum(axis=1)

    def neg_log_likelihood(self, codes: Tensor, x: Tensor, *classes: Tensor) -> Tensor:
        """-log p(x|z) (n,) of codes (n, J) and images (n, D), in nats, constants included."""
        out = self._decoded(codes, *classes)
        return ops.bce_with_logits(out, x) if self.sigma is None else ops.gaussian_nll_fixed(out, x, self.sigma)

    def _decoded(self, codes: Tensor, *classes: Tensor) -> Tensor:
        z = codes if self.noise == "normal" else UNIFORM * ops.tanh(codes / 2)
        return self.output(z, *classes)


def vae_decoder(model: VAE, sigma: float | None = None) -> Decoder:
    """A VAE's decoder with its own likelihood, or its mean with a Gaussian of standard deviation ``sigma``.

    ValueError for the likelihood "gaussian" without ``sigma``, since its variance is not fixed.
    """
    kind, dim, dtype = model.config.likelihood, model.config.latent_dim, model.dtype
    if sigma is None and kind == "gaussian":
        raise ValueError("the likelihood gaussian has a variance for every pixel, so sigma is needed")
    if sigma is None and kind == "bernoulli":
        return Decoder(model, lambda *given: model.decode(*given)[0], dim, dtype=dtype)
    return Decoder(model, model.mean, dim, model.config.sigma if sigma is None else sigma, dtype=dtype)


def gan_decoder(model: GAN, sigma: float) -> Decoder:
    """A generator with a Gaussian of standard deviation ``sigma`` around its pictures."""
    return Decoder(model, model.generate, model.config.latent_dim, sigma, model.config.noise, model.dtype)
