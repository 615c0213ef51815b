"""Training the variational autoencoder: stochastic gradient variational Bayes (L19)."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from scratchgen.capture import from_host
from scratchgen.data.dataset import Dataset
from scratchgen.data.pixels import BINARIZE
from scratchgen.errors import require, require_one_of
from scratchgen.evaluation.likelihood import importance_nll, mean_bound
from scratchgen.models.vae import VAE
from scratchgen.optim import SCHEDULES, Adam, linear
from scratchgen.random import RandomStream
from scratchgen.tasks.task import Metrics, Task
from scratchgen.tensor import Tensor

OBJECTIVES = ("elbo", "iwae", "dreg")


@dataclass(frozen=True)
class VAETraining:
    """How a VAE is trained.

    Attributes
    ----------
    objective : str
        The bound on log p(x) that is maximised: "elbo" (L14), or "iwae", L_K with K = ``samples``, which takes no
        ``beta`` and no ``monte_carlo_kl`` (Burda et al. 2015, equation 8); or "dreg", the same with a gradient for the
        encoder that varies less and takes the decoder's forward pass twice (Tucker et al. 2018).
    lr, schedule : float, str
        Adam's learning rate, and how it goes down: a name in ``SCHEDULES`` (see ``optim``).
    samples : int
        M, draws of z for each example (L17), or K of "iwae" and "dreg".
    monte_carlo_kl : bool
        Whether the KL term is sampled instead of taken in closed form (L15).
    beta, beta_warmup : float, float
        The loss is reconstruction + beta kl (Higgins et al. 2017); beta rises from 0 over ``beta_warmup`` epochs.
    binarize : str
        "none", "static" or "dynamic": see ``data.pixels``.
    output_bias : bool
        Whether the output bias is initialised so that the decoder's first output is the mean image.
    """

    lr: float = 1e-3
    schedule: str = "constant"
    samples: int = 1
    monte_carlo_kl: bool = False
    beta: float = 1.0
    beta_warmup: float = 0.0
    binarize: str = "none"
    output_bias: bool = False
    objective: str = "elbo"

    def __post_init__(self) -> None:
        require_one_of("objective", self.objective, OBJECTIVES)
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
        if self.objective != "elbo" and (self.monte_carlo_kl, self.beta, self.beta_warmup) != (False, 1, 0):
            raise ValueError(
                f"the objective {self.objective} takes no beta, beta_warmup or monte_carlo_kl; use the objective elbo"
            )


class VAETask(Task):
    """A VAE in training, whose learning-rate schedule lasts ``epochs`` of ``steps_per_epoch`` steps."""

    def __init__(
        self, model: VAE, settings: VAETraining, random: RandomStream, steps_per_epoch: int, epochs: int
    ) -> None:
        self.model, self.settings, self.random = model, settings, random
        self.optimizer = Adam(model, SCHEDULES[settings.schedule](settings.lr, steps_per_epoch * epochs))
        self._beta = linear(0.0, settings.beta, settings.beta_warmup * steps_per_epoch)

    def train_step(self, x: Tensor, labels: Any = None) -> dict[str, Tensor]:
        """Maximise the bound of a batch x (b, D) (Kingma & Welling 2013, algorithm 1; L19).

        Of a conditional VAE, the bound of p(x|y), with labels (b,).
        """
        y = self.one_hot_labels(labels)
        if self.settings.binarize == "dynamic":
            x = self.random.bernoulli(x)
        noise = self.random.normal((self.settings.samples, len(x), self.model.config.latent_dim), x.dtype)
        if self.settings.objective == "iwae":
            loss = -self.model.importance_bound(x, noise, y).mean()
            metrics = {"neg_iwae": loss}
        elif self.settings.objective == "dreg":
            loss = -self.model.doubly_reparameterized_bound(x, noise, y).mean()
            metrics = {"neg_iwae": loss}
        else:
            terms = self.model.negative_elbo(x, noise, self.settings.monte_carlo_kl, y)
            reconstruction, kl = (term.mean() for term in terms)
            loss = reconstruction + self.beta() * kl
            metrics = {"neg_elbo": reconstruction + kl, "reconstruction": reconstruction, "kl": kl}
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step(loss)  # no update where the loss is not finite
        return metrics

    def beta(self) -> Tensor:
        """The weight of the KL term at this step: it rises linearly over the first epochs (``beta_warmup``)."""
        return Tensor.wrap(from_host(lambda: self._beta(self.optimizer.steps), self.model.dtype))

    def evaluate(self, dataset: Dataset, rng: np.random.Generator) -> Metrics:
        """The terms of the bound on the test images, binarised afresh if "dynamic"; already binary if "static".

        And ``neg_iwae`` if that is what is minimised, by "iwae" or "dreg".
        """
        images, labels = dataset.test.images, dataset.test.labels
        if self.settings.binarize == "dynamic":
            images = RandomStream(rng).bernoulli(Tensor(images)).data
        terms = mean_bound(self.model, images, rng, labels=labels)
        if self.settings.objective == "elbo":
            return terms
        return {"neg_iwae": importance_nll(self.model, images, self.settings.samples, rng, labels), **terms}

    def parts(self) -> dict[str, Any]:
        return {"model": self.model, "optimizer": self.optimizer}
