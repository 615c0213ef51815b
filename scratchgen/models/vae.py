"""The variational autoencoder (Kingma & Welling 2013): networks, bounds, and one training step.

The encoder gives q(z|x) = N(mu, diag e^logvar), the decoder p(x|z), the prior is p(z) = N(0, I), and

    log p(x) >= E_q[log p(x|z)] - KL(q(z|x) || p(z)) = -(reconstruction + kl)                       (L14, L15)

``reconstruction`` and ``kl`` are in nats, summed over pixels and latent dimensions, one number an example. Noise comes
in as an argument of shape (M, b, J): M samples of z for each of b examples (L17, L18).
"""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from scratchgen import ops
from scratchgen.nn import Dense, Module, mlp
from scratchgen.tensor import Tensor

LIKELIHOODS = ("bernoulli", "gaussian", "gaussian-fixed")


@dataclass(frozen=True)
class VAEConfig:
    """The networks of a VAE.

    Attributes
    ----------
    input_dim, latent_dim : int
        D pixels, J latent dimensions.
    encoder_hidden, decoder_hidden : tuple of int
        Sizes of the hidden layers, each followed by ``activation``.
    likelihood : str
        p(x|z): "bernoulli" of logits; "gaussian" with its own mean and variance for every pixel, its standard deviation
        at least ``sigma_floor``; "gaussian-fixed" with standard deviation ``sigma`` throughout (L13).
    """

    input_dim: int = 784
    latent_dim: int = 20
    encoder_hidden: tuple[int, ...] = (400,)
    decoder_hidden: tuple[int, ...] = (400,)
    activation: str = "relu"
    likelihood: str = "bernoulli"
    sigma: float = 0.2
    sigma_floor: float = 0.01

    def __post_init__(self) -> None:
        if self.likelihood not in LIKELIHOODS:
            raise ValueError(f"likelihood {self.likelihood!r} is not one of {', '.join(LIKELIHOODS)}")
        if min(self.input_dim, self.latent_dim, *self.encoder_hidden, *self.decoder_hidden) < 1:
            raise ValueError("every layer, the latent code and the input have at least one dimension")
        if min(self.sigma, self.sigma_floor) <= 0:
            raise ValueError("sigma and sigma_floor are above 0")


class VAE(Module):
    """Encoder and decoder. ``dtype`` is float32 to train and float64 to check."""

    def __init__(self, config: VAEConfig, rng: np.random.Generator, dtype: Any = np.float32) -> None:
        self.config, self.dtype = config, np.dtype(dtype)
        encoder_sizes = (config.input_dim, *config.encoder_hidden)
        decoder_sizes = (config.latent_dim, *config.decoder_hidden)
        self.encoder = mlp(encoder_sizes, config.activation, rng, dtype)
        self.encoder_mu = Dense(encoder_sizes[-1], config.latent_dim, rng, dtype=dtype)
        self.encoder_logvar = Dense(encoder_sizes[-1], config.latent_dim, rng, dtype=dtype)
        self.decoder = mlp(decoder_sizes, config.activation, rng, dtype)
        self.decoder_out = Dense(decoder_sizes[-1], config.input_dim, rng, dtype=dtype)  # logits, or the mean
        if config.likelihood == "gaussian":
            self.decoder_logvar = Dense(decoder_sizes[-1], config.input_dim, rng, dtype=dtype)

    def encode(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """mu and logvar of q(z|x), each (..., J), of x (..., D)."""
        h = self.encoder(x)
        return self.encoder_mu(h), self.encoder_logvar(h)

    def decode(self, z: Tensor) -> tuple[Tensor, ...]:
        """What parametrises p(x|z), each (..., D), of z (..., J): logits, or the mean, or mean and logvar."""
        h = self.decoder(z)
        if self.config.likelihood != "gaussian":
            return (self.decoder_out(h),)
        floor = 2 * math.log(self.config.sigma_floor)
        return self.decoder_out(h), ops.softplus(self.decoder_logvar(h) - floor) + floor

    def mean(self, z: Tensor) -> Tensor:
        """E[x|z] (..., D): the picture of z (..., J)."""
        out = self.decode(z)[0]
        return ops.sigmoid(out) if self.config.likelihood == "bernoulli" else out

    def reconstruction(self, z: Tensor, x: Tensor) -> Tensor:
        """-log p(x|z) (M, b) of z (M, b, J) and x (b, D), with every constant (L13)."""
        samples = z.shape[0]
        targets = x._data[None] if samples == 1 else np.repeat(x._data[None], samples, axis=0)
        out = self.decode(z)
        if self.config.likelihood == "bernoulli":
            return ops.bce_with_logits(*out, Tensor.wrap(targets))
        if self.config.likelihood == "gaussian":
            return ops.gaussian_nll(*out, Tensor.wrap(targets))
        return ops.gaussian_nll_fixed(*out, Tensor.wrap(targets), self.config.sigma)

    def negative_elbo(self, x: Tensor, noise: Tensor, monte_carlo_kl: bool = False) -> tuple[Tensor, Tensor]:
        """The two terms of the negative bound, ``reconstruction`` and ``kl``, each (b,), averaged over the M samples.

        ``kl`` is the closed form (L16), or with ``monte_carlo_kl`` the mean of log q(z|x) - log p(z) (L15).
        """
        mu, logvar = self.encode(x)
        z = ops.reparameterize(mu, logvar, noise)
        reconstruction = self.reconstruction(z, x).mean(axis=0)
        if monte_carlo_kl:
            return reconstruction, (_log_normal(z, mu, logvar) - _log_standard_normal(z)).mean(axis=0)
        return reconstruction, ops.kl_standard_normal(mu, logvar)

    def log_weights(self, x: Tensor, noise: Tensor) -> Tensor:
        """log p(x|z) + log p(z) - log q(z|x) (K, b), of x (b, D) and noise (K, b, J), z drawn from q(z|x)."""
        mu, logvar = self.encode(x)
        z = ops.reparameterize(mu, logvar, noise)
        return _log_standard_normal(z) - _log_normal(z, mu, logvar) - self.reconstruction(z, x)

    def importance_bound(self, x: Tensor, noise: Tensor) -> Tensor:
        """L_K (b,): log of the mean of K importance weights. ELBO = L_1 <= L_K <= log p(x) in expectation (L12).

        Source: Burda et al. 2015, equation 8.
        """
        return ops.logsumexp(self.log_weights(x, noise), axis=0) - math.log(noise.shape[0])

    def set_output_bias(self, pixel_means: np.ndarray) -> None:
        """Begin with a decoder that draws the mean picture (D,), whatever z: its bias is the logit of the means."""
        means = np.clip(pixel_means, 0.001, 0.999)
        bias = np.log(means / (1 - means)) if self.config.likelihood == "bernoulli" else means
        self.decoder_out.bias.write(bias.astype(self.dtype))


def _log_normal(z: Tensor, mu: Tensor, logvar: Tensor) -> Tensor:
    """log N(z | mu, diag e^logvar) (M, b), of z (M, b, J), mu and logvar (b, J)."""
    spread = Tensor.wrap(np.zeros(z.shape, z.dtype))
    return -ops.gaussian_nll(mu + spread, logvar + spread, z)


def _log_standard_normal(z: Tensor) -> Tensor:
    """log N(z | 0, I) (...), of z (..., J)."""
    return -ops.gaussian_nll_fixed(z, Tensor.wrap(np.zeros(z.shape, z.dtype)), 1.0)
