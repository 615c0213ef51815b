"""The variational autoencoder (Kingma & Welling 2013): its networks and bounds.

The encoder gives q(z|x) = N(mu, diag e^logvar), the decoder p(x|z), the prior is p(z) = N(0, I), and

    log p(x) >= E_q[log p(x|z)] - KL(q(z|x) || p(z)) = -(reconstruction + kl)                       (L12, L15)

``reconstruction`` and ``kl`` are in nats, summed over pixels and latent dimensions, one number per example. Noise is an
argument of shape (M, b, J): M samples of z for each of b examples (L17, L18).

A conditional VAE models p(x|y) of a class y, which encoder and decoder take too (Sohn et al. 2015, equation 4):

    log p(x|y) >= E_q[log p(x|z, y)] - KL(q(z|x, y) || p(z))

All its methods then take the classes y (b, C), one-hot. The bound holds for any q, also for one without y; but such an
encoder is slow to leave the class out of z, and as long as it is in z, a decoder need not heed y.
"""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

import kernels
from scratchgen import ops
from scratchgen.errors import require, require_one_of
from scratchgen.init import INITIALIZERS
from scratchgen.models.images import check_sides, decoder_layers, decoder_output, encoder_layers
from scratchgen.models.labels import beside_classes, beside_planes, one_hot
from scratchgen.nn import Dense, Module, Sequential, mlp
from scratchgen.tensor import Tensor, no_grad

LIKELIHOODS = ("bernoulli", "gaussian", "gaussian-fixed")
MEANS = ("identity", "sigmoid")


@dataclass(frozen=True)
class VAEConfig:
    """The networks of a VAE.

    Attributes
    ----------
    input_dim, latent_dim : int
        D pixels, J latent dimensions.
    encoder_hidden, decoder_hidden : tuple of int
        Sizes of the hidden layers, each followed by ``activation``.
    encoder_channels, decoder_channels : tuple of int
        Of the encoder: what each convolution gives, before the hidden layers. Of the decoder: what each transposed
        convolution takes, after the hidden layers. See ``models.images``.
    likelihood : str
        p(x|z): "bernoulli" of logits; "gaussian" with its own mean and variance for every pixel, its standard deviation
        at least ``sigma_floor``; "gaussian-fixed" with standard deviation ``sigma`` throughout (L13).
    mean_activation : str
        What the decoder's mean of a Gaussian goes through: "identity", or "sigmoid", which keeps it in [0, 1].
    initializer : str
        Weight initialisation: a name in ``init.INITIALIZERS``.
    conditional : bool
        Whether encoder and decoder take the class, beside the pixels and beside the code.
    classes : int
        C, the number of classes.
    """

    input_dim: int = 784
    latent_dim: int = 20
    encoder_hidden: tuple[int, ...] = (400,)
    decoder_hidden: tuple[int, ...] = (400,)
    activation: str = "relu"
    likelihood: str = "bernoulli"
    sigma: float = 0.2
    sigma_floor: float = 0.01
    initializer: str = "glorot_uniform"
    encoder_channels: tuple[int, ...] = ()
    decoder_channels: tuple[int, ...] = ()
    conditional: bool = False
    classes: int = 10
    mean_activation: str = "identity"

    def __post_init__(self) -> None:
        require_one_of("likelihood", self.likelihood, LIKELIHOODS)
        require_one_of("mean_activation", self.mean_activation, MEANS)
        if self.likelihood == "bernoulli" and self.mean_activation != "identity":
            raise ValueError("mean_activation is for Gaussian likelihoods; the Bernoulli one has logits")
        require_one_of("initializer", self.initializer, INITIALIZERS)
        if min(self.input_dim, self.latent_dim, *self.encoder_hidden, *self.decoder_hidden) < 1:
            raise ValueError("every layer, the latent code and the input must have at least one dimension")
        require({"classes >= 1": self.classes >= 1})
        check_sides(self.input_dim, self.encoder_channels, self.decoder_channels)
        if not (self.sigma > 0 and self.sigma_floor > 0):
            raise ValueError("sigma and sigma_floor must be above 0")


class VAE(Module):
    """Encoder and decoder. ``dtype`` is float32 to train and float64 to check."""

    def __init__(self, config: VAEConfig, rng: int | np.random.Generator, dtype: Any = np.float32) -> None:
        self.config, self.dtype, rng = config, np.dtype(dtype), np.random.default_rng(rng)
        kind: dict[str, Any] = {"initializer": INITIALIZERS[config.initializer], "dtype": dtype}
        pixels, channels, phi = config.input_dim, config.encoder_channels, config.activation
        classes = config.classes * config.conditional
        layers, width = encoder_layers(pixels, channels, rng, phi, classes=classes, **kind)
        sizes = (width, *config.encoder_hidden)
        self.encoder = Sequential(*layers, *mlp(sizes, phi, rng, **kind).layers)
        self.encoder_mu = Dense(sizes[-1], config.latent_dim, rng, **kind)
        self.encoder_logvar = Dense(sizes[-1], config.latent_dim, rng, **kind)

        sizes, channels = (config.latent_dim + classes, *config.decoder_hidden), config.decoder_channels
        hidden = mlp(sizes, phi, rng, **kind).layers
        layers, width = decoder_layers(sizes[-1], pixels, channels, rng, phi, **kind)
        self.decoder = Sequential(*hidden, *layers)
        self.decoder_out = decoder_output(width, pixels, channels, rng, config.mean_activation, **kind)  # or logits
        if config.likelihood == "gaussian":
            self.decoder_logvar = decoder_output(width, pixels, channels, rng, **kind)

    def encode(self, x: Tensor, y: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """mu and logvar of q(z|x), each (..., J), of x (..., D); or of q(z|x, y), of classes y (..., C) too.

        A convolutional encoder takes x (b, D) only.
        """
        beside = beside_planes if self.config.encoder_channels else beside_classes
        h = self.encoder(beside(x, y, self.config.conditional))
        return self.encoder_mu(h), self.encoder_logvar(h)

    def labels_given(self, labels: np.ndarray | None) -> np.ndarray | None:
        """The labels (n,) as classes (n, C) for both networks, or None if they take none."""
        if labels is None or not self.config.conditional:
            return None
        return one_hot(labels, self.config.classes, self.dtype)

    def decode(self, z: Tensor, y: Tensor | None = None) -> tuple[Tensor, ...]:
        """The parameters of p(x|z), each (..., D), of z (..., J): logits, or the mean, or mean and logvar.

        Or of p(x|z, y), of z (b, J) or (M, b, J) and y (b, C).
        """
        if y is not None and z.ndim > 2:
            y = Tensor.wrap(_each_sample(y, len(z)))
        z = beside_classes(z, y, self.config.conditional)
        if z.ndim > 2 and self.config.decoder_channels:  # convolutions take one image after the other
            lead = z.shape[:-1]
            return tuple(part.reshape(*lead, -1) for part in self._likelihood(z.reshape(-1, z.shape[-1])))
        return self._likelihood(z)

    def _likelihood(self, z: Tensor) -> tuple[Tensor, ...]:
        """What ``decode`` returns, of the decoder's input."""
        h = self.decoder(z)
        if self.config.likelihood != "gaussian":
            return (self.decoder_out(h),)
        floor = 2 * math.log(self.config.sigma_floor)
        return self.decoder_out(h), ops.softplus(self.decoder_logvar(h) - floor) + floor

    def mean(self, z: Tensor, y: Tensor | None = None) -> Tensor:
        """E[x|z] (..., D) of z (..., J), or E[x|z, y]."""
        out = self.decode(z, y)[0]
        return ops.sigmoid(out) if self.config.likelihood == "bernoulli" else out

    def reconstruction(self, z: Tensor, x: Tensor, y: Tensor | None = None) -> Tensor:
        """-log p(x|z) (M, b) of z (M, b, J) and x (b, D), or (b,) of z (b, J), constants included (L13)."""
        targets, out = Tensor.wrap(x._data if z.ndim == 2 else _each_sample(x, len(z))), self.decode(z, y)
        if self.config.likelihood == "bernoulli":
            return ops.bce_with_logits(out[0], targets)
        if self.config.likelihood == "gaussian":
            return ops.gaussian_nll(out[0], out[1], targets)
        return ops.gaussian_nll_fixed(out[0], targets, self.config.sigma)

    def negative_elbo(
        self, x: Tensor, noise: Tensor, monte_carlo_kl: bool = False, y: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """The two terms of the negative bound, ``reconstruction`` and ``kl``, each (b,), averaged over the M samples.

        ``kl`` is the closed form (L16), or with ``monte_carlo_kl`` the mean of log q(z|x) - log p(z) (L15).
        """
        mu, logvar = self.encode(x, y)
        if len(noise) == 1:  # the usual case: nothing to repeat or average
            noise = Tensor.wrap(noise._data[0])
        z = ops.reparameterize(mu, logvar, noise)
        reconstruction = _over_samples(self.reconstruction(z, x, y))
        if monte_carlo_kl:
            return reconstruction, _over_samples(_log_normal(z, mu, logvar) - _log_standard_normal(z))
        return reconstruction, ops.kl_standard_normal(mu, logvar)

    def score_function_loss(self, x: Tensor, noise: Tensor, y: Tensor | None = None) -> Tensor:
        """A surrogate (M, b) for ``reconstruction`` with the score-function gradient for the encoder (L18).

        Its gradient is -log p(x|z) grad log q(z|x), with z constant: in expectation that of reparametrisation, with a
        far larger variance. It is for comparison only, not for training. Source: Williams 1992, REINFORCE.
        """
        mu, logvar = self.encode(x, y)
        z = ops.reparameterize(mu, logvar, noise).detach()
        return self.reconstruction(z, x, y).detach() * _log_normal(z, mu, logvar)

    def log_weights(self, x: Tensor, noise: Tensor, y: Tensor | None = None) -> Tensor:
        """log p(x|z) + log p(z) - log q(z|x) (K, b), of x (b, D) and noise (K, b, J), z drawn from q(z|x)."""
        mu, logvar = self.encode(x, y)
        z = ops.reparameterize(mu, logvar, noise)
        return _log_standard_normal(z) - _log_normal(z, mu, logvar) - self.reconstruction(z, x, y)

    def importance_bound(self, x: Tensor, noise: Tensor, y: Tensor | None = None) -> Tensor:
        """The IWAE bound L_K (b,): log of the mean of K importance weights (L12).

        In expectation ELBO = L_1 <= L_K <= log p(x). Source: Burda et al. 2015, equation 8.
        """
        return ops.logsumexp(self.log_weights(x, noise, y), axis=0) - math.log(noise.shape[0])

    def doubly_reparameterized_bound(self, x: Tensor, noise: Tensor, y: Tensor | None = None) -> Tensor:
        """L_K (b,), as by ``importance_bound``, with a gradient for the encoder of smaller variance, even for large K:

            sum_k w_k^2 d(log p(x, z_k) - log q(z_k|x))/dz_k dz_k/d(mu, logvar),    w_k the normalised weights,

        which vanishes where q(z|x) is p(z|x). The decoder's gradient is that of L_K. Source: Tucker et al. 2018,
        equation 8.
        """
        mu, logvar = self.encode(x, y)
        z, q = ops.reparameterize(mu, logvar, noise), (mu.detach(), logvar.detach())

        def log_weights(z: Tensor) -> Tensor:
            return _log_standard_normal(z) - _log_normal(z, *q) - self.reconstruction(z, x, y)

        constant = z.detach()
        with no_grad():
            log_w = log_weights(constant)
            w = ops.exp(log_w - ops.logsumexp(log_w, axis=0))
        # The gradient of L_K reaches z_k with one factor w_k. Here it gets the second; z - constant is 0.
        z = constant + w.reshape(*w.shape, 1) * (z - constant)
        return ops.logsumexp(log_weights(z), axis=0) - math.log(noise.shape[0])

    def set_output_bias(self, pixel_means: np.ndarray) -> None:
        """Initialise the output bias so that the decoder's mean without weights would be the mean picture (D,).

        A convolution has one bias for all pixels, which takes the mean of the picture.
        """
        *_, bias = self.decoder_out.parameters()
        means = pixel_means if bias.size == len(pixel_means) else pixel_means.mean(keepdims=True)
        if self.config.likelihood == "bernoulli" or self.config.mean_activation == "sigmoid":
            means = np.clip(means, 0.001, 0.999)
            means = np.log(means / (1 - means))
        bias.write(means.astype(self.dtype))


def _each_sample(x: Tensor, samples: int) -> np.ndarray:
    """The images, or classes, (b, D), repeated for each sample: (M, b, D)."""
    out = kernels.active().memory.empty((samples, *x.shape), x.dtype)
    kernels.active().memory.write(out, x._data)
    return out


def _over_samples(term: Tensor) -> Tensor:
    """The mean (b,) over the samples of a term (M, b); one that is (b,) comes from a single sample."""
    return term if term.ndim == 1 else term.mean(axis=0)


def _log_normal(z: Tensor, mu: Tensor, logvar: Tensor) -> Tensor:
    """log N(z | mu, diag e^logvar) (M, b) or (b,), of z (M, b, J) or (b, J), mu and logvar (b, J)."""
    spread = Tensor.wrap(np.zeros(z.shape, z.dtype))
    return -ops.gaussian_nll(mu + spread, logvar + spread, z)


def _log_standard_normal(z: Tensor) -> Tensor:
    """log N(z | 0, I) (...), of z (..., J)."""
    return -ops.gaussian_nll_fixed(z, Tensor.wrap(np.zeros(z.shape, z.dtype)), 1.0)
