"""Training the generative adversarial network (Goodfellow et al. 2014, algorithm 1; L22 to L24)."""

from collections.abc import Callable, Hashable, Mapping
from copy import copy
from dataclasses import dataclass
from typing import Any

import numpy as np

from scratchgen import ops
from scratchgen.data.dataset import Dataset
from scratchgen.errors import require, require_one_of
from scratchgen.models.gan import GAN, GENERATOR_OBJECTIVES, discriminator_loss, generator_loss
from scratchgen.nn import Module, frozen
from scratchgen.optim import SCHEDULES, SGD, Adam, ExponentialMovingAverage, Optimizer, limit_norms, linear
from scratchgen.random import RandomStream
from scratchgen.tasks.task import Metrics, Task, under
from scratchgen.tensor import Tensor

OBJECTIVES = (*GENERATOR_OBJECTIVES, "wasserstein")
OPTIMIZERS = ("adam", "momentum")


@dataclass(frozen=True)
class GANTraining:
    """How a GAN is trained.

    Attributes
    ----------
    objective : str
        What G minimises: a name in ``GENERATOR_OBJECTIVES`` (L22); or "wasserstein", for ``tasks.wgan``.
    real_label : float
        D's target for data: 1, or less for one-sided label smoothing.
    penalty : float
        lambda, the weight of the gradient penalty of "wasserstein".
    discriminator_steps : int
        k, steps of D for each one of G.
    optimizer : str
        "adam" with beta1 = ``momentum``; or "momentum", SGD with a momentum that rises from ``momentum`` to
        ``final_momentum`` over ``momentum_epochs``.
    generator_lr, discriminator_lr, schedule : float, float, str
        The learning rates, and how both go down: a name in ``SCHEDULES`` (see ``optim``).
    max_norm : float or None
        The largest norm of the weights into a unit of D, to which longer ones are scaled down after each step of D.
    average : float
        Samples come from an exponential moving average of G. Its decay after n steps is the smaller of this and
        (1 + n) / (10 + n), so that the first steps are soon forgotten. With 0 they come from G itself.
    """

    objective: str = "non-saturating"
    real_label: float = 0.9
    discriminator_steps: int = 1
    optimizer: str = "adam"
    generator_lr: float = 1e-3
    discriminator_lr: float = 1e-3
    schedule: str = "cosine"
    momentum: float = 0.5
    final_momentum: float = 0.5
    momentum_epochs: float = 0.0
    average: float = 0.999
    penalty: float = 10.0
    max_norm: float | None = None

    def __post_init__(self) -> None:
        require_one_of("objective", self.objective, OBJECTIVES)
        require_one_of("optimizer", self.optimizer, OPTIMIZERS)
        require_one_of("schedule", self.schedule, SCHEDULES)
        require(
            {
                "0 < real_label <= 1": 0 < self.real_label <= 1,
                "discriminator_steps >= 1": self.discriminator_steps >= 1,
                "generator_lr > 0": self.generator_lr > 0,
                "discriminator_lr > 0": self.discriminator_lr > 0,
                "0 <= momentum < 1": 0 <= self.momentum < 1,
                "0 <= final_momentum < 1": 0 <= self.final_momentum < 1,
                "momentum_epochs >= 0": self.momentum_epochs >= 0,
                "0 <= average < 1": 0 <= self.average < 1,
                "penalty >= 0": self.penalty >= 0,
                "max_norm > 0": self.max_norm is None or self.max_norm > 0,
            }
        )
        if self.objective == "wasserstein" and self.max_norm is not None:
            raise ValueError("the objective wasserstein takes no max_norm; use --config wgan-gp")


class GANTask(Task):
    """A GAN in training. Samples are drawn from the generator ``average.module``.

    ``measure(model, dataset, rng)`` computes the metrics at the end of an epoch. ValueError for the objective of
    another task.
    """

    objectives: tuple[str, ...] = (*GENERATOR_OBJECTIVES,)

    def __init__(
        self,
        model: GAN,
        settings: GANTraining,
        random: RandomStream,
        steps_per_epoch: int,
        epochs: int,
        measure: Callable[[GAN, Dataset, np.random.Generator], Metrics],
    ) -> None:
        require_one_of(f"{type(self).__name__}: objective", settings.objective, self.objectives)
        self.model, self.settings, self.random, self.measure = model, settings, random, measure
        k = settings.discriminator_steps
        self.discriminator_optimizer = self._optimizer(
            model.discriminator, settings.discriminator_lr, steps_per_epoch, epochs
        )
        self.generator_optimizer = self._optimizer(model.generator, settings.generator_lr, steps_per_epoch / k, epochs)
        self.average = ExponentialMovingAverage(model.generator, self._decay)
        model.set_random(random)

    def train_step(self, x: Tensor, labels: Any = None, train_generator: bool = True) -> dict[str, Tensor]:
        """A step of D on a batch x (b, D) and as many samples; after every k-th, one of G on the same samples.

        In a conditional GAN the samples have the batch's ``labels`` (b,).
        """
        y = self.one_hot_labels(labels)
        fake = self.model.generate(self.model.draw_noise(len(x), self.random), y)
        metrics = self.update_discriminator(x, fake.detach(), y)
        if train_generator:
            metrics |= self.update_generator(fake, y)
        return metrics

    def update_discriminator(self, real: Tensor, fake: Tensor, y: Tensor | None = None) -> dict[str, Tensor]:
        """D maximises log D(real) + log(1 - D(fake)): two passes, whose gradients add up (L23, L24)."""
        on_real, on_fake = self.model.discriminate(real, y), self.model.discriminate(fake, y)
        loss = discriminator_loss(on_real, self.settings.real_label) + discriminator_loss(on_fake, 0.0)
        self.discriminator_optimizer.zero_grad()
        loss.backward()
        self.discriminator_optimizer.step(loss)
        self.limit_norms()
        d_real, d_fake = (ops.sigmoid(logits.detach()).mean() for logits in (on_real, on_fake))
        norm = self.discriminator_optimizer.gradient_norm()
        return {"d_loss": loss, "d_real": d_real, "d_fake": d_fake, "d_gradient": norm}

    def limit_norms(self) -> None:
        """Keep D's weights within ``max_norm``, if there is one."""
        if self.settings.max_norm is not None:
            limit_norms(self.model.discriminator, self.settings.max_norm)

    def update_generator(self, fake: Tensor, y: Tensor | None = None) -> dict[str, Tensor]:
        """G minimises its loss (L22). The gradient flows through D, whose parameters are frozen, to G's."""
        with frozen(self.model.discriminator):  # the forward decides what needs a gradient; backward may come later
            loss = generator_loss(self.model.discriminate(fake, y), self.settings.objective)
        self.generator_optimizer.zero_grad()
        loss.backward()
        self.generator_optimizer.step(loss)
        self.average.step()
        return {"g_loss": loss, "g_gradient": self.generator_optimizer.gradient_norm()}

    def step_options(self) -> dict[str, Hashable]:
        """G takes a step after every k-th of D."""
        return {"train_generator": (self.discriminator_optimizer.steps + 1) % self.settings.discriminator_steps == 0}

    def _optimizer(self, network: Module, lr: float, steps_per_epoch: float, epochs: int) -> Optimizer:
        settings = self.settings
        schedule = SCHEDULES[settings.schedule](lr, max(1, round(steps_per_epoch * epochs)))
        if settings.optimizer == "adam":
            return Adam(network, schedule, beta1=settings.momentum)
        ramp = settings.momentum_epochs * steps_per_epoch
        return SGD(network, schedule, linear(settings.momentum, settings.final_momentum, ramp))

    def _decay(self) -> float:
        n = self.generator_optimizer.steps
        return min(self.settings.average, (1 + n) / (10 + n))

    def evaluate(self, dataset: Dataset, rng: np.random.Generator) -> Metrics:
        """What ``measure`` says of the model that samples are drawn from."""
        sampled = copy(self.model)
        sampled.generator = self.average.module
        return self.measure(sampled, dataset, rng)

    def parts(self) -> dict[str, Any]:
        return {
            "model": self.model,
            "averaged": self.average.module,
            "generator_optimizer": self.generator_optimizer,
            "discriminator_optimizer": self.discriminator_optimizer,
        }


def load_averaged(model: GAN, state: Mapping[str, np.ndarray]) -> None:
    """Give the model a checkpoint's parameters, with the averaged generator; ValueError if they are another model's."""
    model.load_state_dict(under("model.", state))
    model.generator.load_state_dict(under("averaged.", state))
