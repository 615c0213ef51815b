"""The variational autoencoder (Kingma & Welling 2013): networks, bounds, and one training step.

The encoder gives q(z|x) = N(mu, diag e^logvar), the decoder p(x|z), the prior is p(z) = N(0, I), and

    log p(x) >= E_q[log p(x|z)] - KL(q(z|x) || p(z)) = -(reconstruction + kl)                       (L14, L15)

``reconstruction`` and ``kl`` are in nats, summed over pixels and latent dimensions, one number an example. Noise comes
in as an argument of shape (M, b, J): M samples of z for each of b examples (L17, L18).
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

import kernels
from scratchgen import ops
from scratchgen.data.dataset import Dataset
from scratchgen.data.pixels import BINARIZE, binarized
from scratchgen.errors import require, require_one_of
from scratchgen.init import INITIALIZERS
from scratchgen.nn import Dense, Module, mlp
from scratchgen.noise import PIXELS, normal, turns
from scratchgen.optim import SCHEDULES, Adam
from scratchgen.recorded import Recorded
from scratchgen.tensor import Tensor, no_grad
from scratchgen.training import Metrics, Reading, load_parameters, prefixed, reading, side_by_side, under

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
    initializer : str
        How all weights begin: a name in ``init.INITIALIZERS``.
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

    def __post_init__(self) -> None:
        require_one_of("likelihood", self.likelihood, LIKELIHOODS)
        require_one_of("initializer", self.initializer, INITIALIZERS)
        if min(self.input_dim, self.latent_dim, *self.encoder_hidden, *self.decoder_hidden) < 1:
            raise ValueError("every layer, the latent code and the input have at least one dimension")
        if not (self.sigma > 0 and self.sigma_floor > 0):
            raise ValueError("sigma and sigma_floor are above 0")


class VAE(Module):
    """Encoder and decoder. ``dtype`` is float32 to train and float64 to check."""

    def __init__(self, config: VAEConfig, rng: np.random.Generator, dtype: Any = np.float32) -> None:
        self.config, self.dtype = config, np.dtype(dtype)
        encoder_sizes = (config.input_dim, *config.encoder_hidden)
        decoder_sizes = (config.latent_dim, *config.decoder_hidden)
        weights = INITIALIZERS[config.initializer]

        def head(inputs: int, outputs: int) -> Dense:
            return Dense(inputs, outputs, rng, "identity", weights, dtype)

        self.encoder = mlp(encoder_sizes, config.activation, rng, dtype, weights)
        self.encoder_mu = head(encoder_sizes[-1], config.latent_dim)
        self.encoder_logvar = head(encoder_sizes[-1], config.latent_dim)
        self.decoder = mlp(decoder_sizes, config.activation, rng, dtype, weights)
        self.decoder_out = head(decoder_sizes[-1], config.input_dim)  # logits, or the mean
        if config.likelihood == "gaussian":
            self.decoder_logvar = head(decoder_sizes[-1], config.input_dim)

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
        """-log p(x|z) (M, b) of z (M, b, J) and x (b, D), or (b,) of z (b, J), with every constant (L13)."""
        targets, out = Tensor.wrap(x._data if z.ndim == 2 else _each_sample(x, len(z))), self.decode(z)
        if self.config.likelihood == "bernoulli":
            return ops.bce_with_logits(out[0], targets)
        if self.config.likelihood == "gaussian":
            return ops.gaussian_nll(out[0], out[1], targets)
        return ops.gaussian_nll_fixed(out[0], targets, self.config.sigma)

    def negative_elbo(self, x: Tensor, noise: Tensor, monte_carlo_kl: bool = False) -> tuple[Tensor, Tensor]:
        """The two terms of the negative bound, ``reconstruction`` and ``kl``, each (b,), averaged over the M samples.

        ``kl`` is the closed form (L16), or with ``monte_carlo_kl`` the mean of log q(z|x) - log p(z) (L15).
        """
        mu, logvar = self.encode(x)
        if len(noise) == 1:  # as in most trainings: nothing to repeat, and nothing to average
            noise = Tensor.wrap(noise._data[0])
        z = ops.reparameterize(mu, logvar, noise)
        reconstruction = _over_samples(self.reconstruction(z, x))
        if monte_carlo_kl:
            return reconstruction, _over_samples(_log_normal(z, mu, logvar) - _log_standard_normal(z))
        return reconstruction, ops.kl_standard_normal(mu, logvar)

    def score_function_loss(self, x: Tensor, noise: Tensor) -> Tensor:
        """A stand-in (M, b) for ``reconstruction`` with the score-function gradient for the encoder (L18).

        Its gradient is -log p(x|z) grad log q(z|x), with z held fixed: the same in expectation as through z itself, and
        far noisier. Nothing trains with it; it shows what reparametrisation is for. Source: Williams 1992, REINFORCE.
        """
        mu, logvar = self.encode(x)
        z = ops.reparameterize(mu, logvar, noise).detach()
        return self.reconstruction(z, x).detach() * _log_normal(z, mu, logvar)

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
        """Begin near the mean picture (D,): the output bias becomes its logit, or itself for Gaussian likelihoods."""
        means = np.clip(pixel_means, 0.001, 0.999)
        bias = np.log(means / (1 - means)) if self.config.likelihood == "bernoulli" else pixel_means
        self.decoder_out.bias.write(bias.astype(self.dtype))


def _each_sample(x: Tensor, samples: int) -> np.ndarray:
    """The images (b, D) as often as there are samples: (M, b, D)."""
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


@dataclass(frozen=True)
class VAETraining:
    """How a VAE is trained.

    Attributes
    ----------
    lr, schedule : float, str
        Adam's learning rate, and how it goes down: a name in ``SCHEDULES`` (see ``optim``).
    samples : int
        M, draws of z for each example (L17).
    monte_carlo_kl : bool
        Whether the KL term is sampled instead of taken in closed form (L15).
    beta, beta_warmup : float, float
        The loss is reconstruction + beta kl (Higgins et al. 2017); beta rises from 0 over so many epochs.
    binarize : str
        "none", "static" or "dynamic": see ``data.pixels``.
    output_bias : bool
        Whether the decoder begins with the mean picture as its output.
    """

    lr: float = 1e-3
    schedule: str = "constant"
    samples: int = 1
    monte_carlo_kl: bool = False
    beta: float = 1.0
    beta_warmup: float = 0.0
    binarize: str = "none"
    output_bias: bool = False

    def __post_init__(self) -> None:
        require_one_of("schedule", self.schedule, SCHEDULES)
        require_one_of("binarize", self.binarize, BINARIZE)
        require(
            {
                "samples >= 1": self.samples >= 1,
                "lr > 0": self.lr > 0,
                "beta >= 0": self.beta >= 0,
                "beta_warmup >= 0": self.beta_warmup >= 0,
            }
        )


class VAETask:
    """A VAE in training: the model, its optimizer, and the step that the trainer repeats."""

    replays = True  # steps, see ``recorded``

    def __init__(self, model: VAE, training: VAETraining, steps_per_epoch: int, epochs: int) -> None:
        self.model, self.training, self.steps_per_epoch = model, training, steps_per_epoch
        self.optimizer = Adam(model, training.lr)
        self.schedule = SCHEDULES[training.schedule](training.lr, steps_per_epoch * epochs)
        self._recorded = Recorded(self.learn, [model], list(self.optimizer.moments.values()), self.replays)

    def beta(self) -> float:
        """The weight of the KL term now."""
        warmup = self.training.beta_warmup * self.steps_per_epoch
        return self.training.beta * min(1.0, self.optimizer.steps / warmup if warmup else 1.0)

    def step(self, images: Any, labels: np.ndarray, rng: np.random.Generator) -> Reading:
        """One step of stochastic gradient variational Bayes on a batch (b, D) (L19)."""
        beta, self.optimizer.lr = self.beta(), self.schedule(self.optimizer.steps)
        rates = np.array([*self.optimizer.next_rates(), beta], self.model.dtype)
        return reading(lambda terms: _metrics(*terms), *self._recorded(images, turns(rng), rates))

    def learn(self, images: Any, turn: Any, rates: Any) -> tuple[Any]:
        """The step from what is new in it: the images, whose random numbers, Adam's rates and beta. Returns its terms.

        All arrays lie where kernels compute; reconstruction and kl (2,) are means over the batch.
        """
        if self.training.binarize == "dynamic":
            images = binarized(images, turn, PIXELS)
        shape = (self.training.samples, len(images), self.model.config.latent_dim)
        noise = Tensor.wrap(normal(shape, self.model.dtype, turn))
        self.optimizer.zero_grad()
        terms = self.backward(Tensor.wrap(images), noise, Tensor.wrap(rates[2:]))
        self.optimizer.update(rates[:2], terms)
        return (terms,)

    def backward(self, x: Tensor, noise: Tensor, beta: Tensor) -> Any:
        """Give each parameter d(reconstruction + beta kl) / d(parameter), of images x (b, D) and ``noise`` (M, b, J).

        Returns reconstruction and kl, means over the images, as an array (2,) where kernels compute. ``beta`` is (1,).
        """
        terms = [term.mean() for term in self.model.negative_elbo(x, noise, self.training.monte_carlo_kl)]
        (terms[0] + beta * terms[1]).sum().backward()
        return side_by_side(*terms)

    def evaluate(self, dataset: Dataset, rng: np.random.Generator) -> Metrics:
        """The terms of the bound on the test images, binarised anew if every batch is; "static" ones come binarised."""
        images = dataset.test.images
        if self.training.binarize == "dynamic":
            images = kernels.active().memory.to_host(binarized(images, turns(rng)))
        return mean_bound(self.model, images, rng)

    def state(self) -> dict[str, np.ndarray]:
        """Parameters under ``model.``, Adam's moments under ``optimizer.``."""
        return prefixed("model.", self.model.state_dict()) | prefixed("optimizer.", self.optimizer.state())

    def load_state(self, state: Mapping[str, np.ndarray]) -> None:
        """Continue from ``state()``; ValueError if it is another model's."""
        load_parameters(self.model, state)
        self.optimizer.load_state(under("optimizer.", state))


def mean_bound(model: VAE, images: np.ndarray, rng: np.random.Generator, batch_size: int = 500) -> Metrics:
    """The means of ``neg_elbo``, ``reconstruction`` and ``kl`` over images (n, D), in nats, one draw of z each."""
    sums = np.zeros(2)
    with no_grad():
        for start in range(0, len(images), batch_size):
            x = Tensor(images[start : start + batch_size], dtype=model.dtype)
            noise = rng.standard_normal((1, len(x), model.config.latent_dim), dtype=model.dtype.type)
            terms = model.negative_elbo(x, Tensor.wrap(noise))
            sums += [term.data.sum(dtype=np.float64) for term in terms]
    return _metrics(*(sums / len(images)).tolist())


def _metrics(reconstruction: float, kl: float) -> Metrics:
    return {"neg_elbo": reconstruction + kl, "reconstruction": reconstruction, "kl": kl}
