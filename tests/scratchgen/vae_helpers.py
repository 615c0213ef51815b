"""Small VAEs: one to compute once more in plain NumPy, and one whose log p(x) is known."""

import math

import numpy as np
import pytest

from scratchgen.models.vae import LIKELIHOODS, VAE, VAEConfig

both_dtypes = pytest.mark.parametrize("dtype", [np.float32, np.float64], ids=["float32", "float64"])
every_likelihood = pytest.mark.parametrize("likelihood", LIKELIHOODS)


def small_vae(likelihood="bernoulli", activation="tanh", dtype=np.float64, seed=0, conditional=False):
    """A 6-5-3-5-6 VAE whose parameters are all of order 1, biases too."""
    sigmas = {"sigma": 0.7, "sigma_floor": 0.3}
    config = VAEConfig(6, 3, (5,), (5,), activation, likelihood, **sigmas, conditional=conditional)
    rng = np.random.default_rng(seed)
    model = VAE(config, rng, dtype)
    for p in model.parameters():
        p.write(0.5 * rng.standard_normal(p.shape))
    return model


def standard_error(draws):
    return draws.std() / math.sqrt(len(draws))


def normal_density(x, mean, sigma):
    return np.exp(-(((x - mean) / sigma) ** 2) / 2) / (sigma * math.sqrt(2 * math.pi))


def plain(model, x, noise):
    """p(x|z), q(z|x) and p(z) (M, b), and mu and sigma of q(z|x), of a ``small_vae`` in float64: as the formulas go."""
    config, state = model.config, {name: array.astype(float) for name, array in model.state_dict().items()}
    activation = np.tanh if config.activation == "tanh" else lambda a: np.log(1 + np.exp(a))

    def dense(name, h):
        return h @ state[f"{name}.weight"] + state[f"{name}.bias"]

    h = activation(dense("encoder.layers.0", x))
    mu, sigma = dense("encoder_mu", h), np.exp(dense("encoder_logvar", h)) ** 0.5
    z = mu + sigma * noise
    h = activation(dense("decoder.layers.0", z))
    if config.likelihood == "bernoulli":
        p = 1 / (1 + np.exp(-dense("decoder_out", h)))
        p_x = p**x * (1 - p) ** (1 - x)
    elif config.likelihood == "gaussian":
        variance = config.sigma_floor**2 + np.exp(dense("decoder_logvar", h))  # softplus(a - f) + f, exponentiated
        p_x = normal_density(x, dense("decoder_out", h), variance**0.5)
    else:
        p_x = normal_density(x, dense("decoder_out", h), config.sigma)
    densities = p_x, normal_density(z, mu, sigma), normal_density(z, 0, 1)
    return *(density.prod(axis=-1) for density in densities), mu, sigma


SIGMA = 0.5


class LinearGaussian:
    """A VAE without hidden layers: p(x|z) = N(z W + b, SIGMA^2 I), so that x ~ N(b, W^T W + SIGMA^2 I).

    The rows of W are orthogonal, so the posterior is diagonal and the encoder can be it. ``shift``, in posterior
    standard deviations, and ``stretch``, of its variance, move the encoder away from it, at ``gap`` = KL(q || p(z|x)).
    """

    def __init__(self, shift=0.0, stretch=1.0):
        rng = np.random.default_rng(7)
        d, j = 5, 2
        scale = np.array([1.2, 0.6])
        self.weight = scale[:, None] * np.linalg.qr(rng.standard_normal((d, j)))[0].T
        self.bias = rng.standard_normal(d)
        variance = 1 / (1 + scale**2 / SIGMA**2)
        to_mean = self.weight.T * variance / SIGMA**2
        config = VAEConfig(d, j, (), (), likelihood="gaussian-fixed", sigma=SIGMA)
        self.model = VAE(config, rng, np.float64)
        written = {
            "encoder_mu.weight": to_mean,
            "encoder_mu.bias": -self.bias @ to_mean + shift * np.sqrt(variance),
            "encoder_logvar.weight": np.zeros((d, j)),
            "encoder_logvar.bias": np.log(stretch * variance),
            "decoder_out.weight": self.weight,
            "decoder_out.bias": self.bias,
        }
        self.model.load_state_dict(written)
        self.gap = j * (stretch - 1 - math.log(stretch) + shift**2) / 2

    def draw(self, n, rng):
        z, noise = rng.standard_normal((n, 2)), rng.standard_normal((n, 5))
        return z @ self.weight + self.bias + SIGMA * noise

    def log_p(self, x):
        covariance = self.weight.T @ self.weight + SIGMA**2 * np.eye(5)
        off = x - self.bias
        distance = np.einsum("ni,ij,nj->n", off, np.linalg.inv(covariance), off)
        return -(distance + np.linalg.slogdet(2 * math.pi * covariance)[1]) / 2
