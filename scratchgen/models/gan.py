"""The generative adversarial network (Goodfellow et al. 2014): two networks, their losses, and one training step.

The generator G turns noise z into pictures G(z). The discriminator gives a logit a for each picture, and
D = sigmoid(a) is the probability that it is real. The two play (L22, L23)

    D maximises  V = E_x log D(x) + E_z log(1 - D(G(z))),      G wants D(G(z)) to be high.

For any G the best D is p / (p + p_g), which leaves V = -log 4 + 2 JSD(p, p_g); it is smallest, -log 4, where p_g = p
and D = 1/2 everywhere: nobody wins.
"""

import math
from collections.abc import Callable, Mapping
from copy import copy
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np

from scratchgen import ops
from scratchgen.data.dataset import Dataset
from scratchgen.errors import require, require_one_of
from scratchgen.init import INITIALIZERS
from scratchgen.nn import BatchNormDense, Dense, Dropout, Maxout, Module, Sequential, frozen, masked
from scratchgen.noise import Masks, normal, turns, uniform
from scratchgen.optim import SCHEDULES, SGD, Adam, Optimizer, RunningAverage
from scratchgen.recorded import Recorded
from scratchgen.tensor import Tensor
from scratchgen.training import Metrics, Reading, load_parameters, prefixed, reading, side_by_side, under


def discriminator_loss(logits: Tensor, label: float) -> Tensor:
    """-[label log D + (1 - label) log(1 - D)], the mean over the batch, of logits (b, 1) (L23).

    ``label`` is 1 for data and 0 for samples. One-sided smoothing takes 0.9 for data instead, which keeps D from
    growing ever surer (Salimans et al. 2016, section 3.4); the label of samples stays 0, for a smoothed one would teach
    G to stay where it is.
    """
    return ops.bce_with_logits(logits, np.full(logits.shape, label, logits.dtype)).mean()


# What G minimises, as a function of the logits a (b, 1) of its samples, with s = sigmoid(a) = D(G(z)) (L22).
GENERATOR_OBJECTIVES: dict[str, Callable[[Tensor], Tensor]] = {
    # log(1 - s) = -softplus(a); its derivative is -s: nothing to learn from while D sees through every sample.
    "minimax": lambda logits: -ops.softplus(logits).mean(),
    # -log s = softplus(-a), with derivative -(1 - s): strongest where D sees through.
    "non-saturating": lambda logits: ops.softplus(-logits).mean(),
    # The lecture's: G maximises s itself, with derivative -s (1 - s). It has no gradient at either end.
    "literal": lambda logits: -ops.sigmoid(logits).mean(),
}


def generator_loss(logits: Tensor, objective: str) -> Tensor:
    """What G minimises, the mean over the batch: one of ``GENERATOR_OBJECTIVES``, of the logits (b, 1) of samples."""
    return GENERATOR_OBJECTIVES[objective](logits)


# ---- the networks ----

NOISES = ("normal", "uniform")
DISCRIMINATORS = ("leaky_relu", "maxout")


@dataclass(frozen=True)
class GANConfig:
    """The networks of a GAN.

    Attributes
    ----------
    input_dim, latent_dim : int
        D pixels, J dimensions of noise.
    noise : str
        p(z): "normal" is N(0, I), "uniform" is uniform in [-sqrt 3, sqrt 3]^J, with the same variance.
    generator_hidden : tuple of int
        Sizes of the hidden layers, each with relu; the output is the sigmoid of a linear layer, so pixels in [0, 1].
    batch_norm : bool
        Whether the generator's hidden layers are batch-normalised.
    discriminator_hidden : tuple of int
        Sizes of the hidden layers, each followed by dropout.
    discriminator : str
        Its hidden layers: "leaky_relu", or "maxout" with ``pieces`` linear pieces a unit.
    pack : int
        How many pictures of one kind the discriminator judges together, side by side. Two tell it of a generator that
        repeats itself, which one alone cannot (PacGAN, Lin et al. 2018).
    input_dropout, hidden_dropout : float
        What the discriminator drops of its input and of its hidden layers.
    initializer, discriminator_initializer : str
        How weights begin, G's and D's: "by_activation", each layer's own default, or a name in ``init.INITIALIZERS``.
    """

    input_dim: int = 784
    latent_dim: int = 64
    noise: str = "normal"
    generator_hidden: tuple[int, ...] = (512, 1024)
    batch_norm: bool = True
    discriminator_hidden: tuple[int, ...] = (512, 256)
    discriminator: str = "leaky_relu"
    pieces: int = 5
    pack: int = 2
    input_dropout: float = 0.0
    hidden_dropout: float = 0.0
    initializer: str = "by_activation"
    discriminator_initializer: str = "by_activation"

    def __post_init__(self) -> None:
        require_one_of("noise", self.noise, NOISES)
        require_one_of("discriminator", self.discriminator, DISCRIMINATORS)
        for name in ("initializer", "discriminator_initializer"):
            require_one_of(name, getattr(self, name), ("by_activation", *INITIALIZERS))
        require({"pack >= 1": self.pack >= 1})
        if min(self.input_dim, self.latent_dim, self.pieces, *self.generator_hidden, *self.discriminator_hidden) < 1:
            raise ValueError("every layer, the noise and the input have at least one dimension")


class GAN(Module):
    """Generator and discriminator. ``dtype`` is float32 to train and float64 to check."""

    def __init__(self, config: GANConfig, rng: np.random.Generator, dtype: Any = np.float32) -> None:
        self.config, self.dtype = config, np.dtype(dtype)
        weights = INITIALIZERS.get(config.initializer)
        layer = BatchNormDense if config.batch_norm else Dense
        sizes = (config.latent_dim, *config.generator_hidden)
        self.generator = Sequential(
            *(layer(i, o, rng, "relu", weights, dtype) for i, o in pairwise(sizes)),
            Dense(sizes[-1], config.input_dim, rng, "sigmoid", weights, dtype),
        )
        weights = INITIALIZERS.get(config.discriminator_initializer)
        sizes = (config.pack * config.input_dim, *config.discriminator_hidden)
        layers: list[Module] = [Dropout(config.input_dropout)]
        for i, o in pairwise(sizes):
            hidden = (
                Maxout(i, o, config.pieces, rng, weights, dtype)
                if config.discriminator == "maxout"
                else Dense(i, o, rng, "leaky_relu", weights, dtype)
            )
            layers += [hidden, Dropout(config.hidden_dropout)]
        self.discriminator = Sequential(*layers, Dense(sizes[-1], 1, rng, "identity", weights, dtype))

    def draw_noise(self, n: int, turn: Any) -> Tensor:
        """n draws z (n, J) from p(z), told by ``turn`` (see ``noise``)."""
        shape = n, self.config.latent_dim
        if self.config.noise == "normal":
            return Tensor.wrap(normal(shape, self.dtype, turn))
        return math.sqrt(3) * (2 * Tensor.wrap(uniform(shape, self.dtype, turn)) - 1)

    def generate(self, z: Tensor) -> Tensor:
        """G(z): pictures (n, D) in [0, 1], of noise z (n, J)."""
        return self.generator(z)

    def discriminate(self, x: Tensor) -> Tensor:
        """The logits (n / pack, 1) of D(x), the probability that x (n, D) is real; what fills no pack is left out."""
        packs = len(x) // self.config.pack
        whole = x if packs * self.config.pack == len(x) else x[: packs * self.config.pack]
        return self.discriminator(whole if self.config.pack == 1 else whole.reshape(packs, -1))


# ---- training ----

OPTIMIZERS = ("adam", "momentum")


@dataclass(frozen=True)
class GANTraining:
    """How a GAN is trained.

    Attributes
    ----------
    objective : str
        What G minimises: a name in ``GENERATOR_OBJECTIVES`` (L22).
    real_label : float
        D's target for data: 1, or less for one-sided label smoothing.
    discriminator_steps : int
        k, steps of D for each one of G.
    optimizer : str
        "adam" with beta1 = ``momentum``; or "momentum", gradient descent whose momentum rises from ``momentum`` to
        ``final_momentum`` over ``momentum_epochs``.
    generator_lr, discriminator_lr, schedule : float, float, str
        The learning rates, and how both go down: a name in ``SCHEDULES`` (see ``optim``).
    average : float
        Samples come from a running average of G, of which so much stays at each of its steps: after n of them at most
        (1 + n) / (10 + n), so that its beginning is soon forgotten. With 0 they come from G as it is.
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

    def __post_init__(self) -> None:
        require_one_of("objective", self.objective, GENERATOR_OBJECTIVES)
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
            }
        )


class GANTask:
    """A GAN in training: the model, an optimizer for each network, and the step that the trainer repeats.

    Samples are drawn from the generator ``average.module``. ``measure(model, dataset, rng)`` gives the metrics of an
    epoch's end.
    """

    replays = True  # steps, see ``recorded``

    def __init__(
        self,
        model: GAN,
        training: GANTraining,
        steps_per_epoch: int,
        epochs: int,
        measure: Callable[[GAN, Dataset, np.random.Generator], Metrics],
    ) -> None:
        self.model, self.training, self.measure, self.steps_per_epoch = model, training, measure, steps_per_epoch
        self.generator_optimizer = self._optimizer(model.generator, training.generator_lr)
        self.discriminator_optimizer = self._optimizer(model.discriminator, training.discriminator_lr)
        self.average = RunningAverage(model.generator)
        moments = [*self.generator_optimizer.moments.values(), *self.discriminator_optimizer.moments.values()]
        self._recorded = Recorded(self.play, [model, self.average.module], moments, self.replays)
        schedule, total = SCHEDULES[training.schedule], steps_per_epoch * epochs
        self.schedules = schedule(training.generator_lr, total), schedule(training.discriminator_lr, total)

    def _optimizer(self, network: Module, lr: float) -> Optimizer:
        if self.training.optimizer == "adam":
            return Adam(network, lr, beta1=self.training.momentum)
        return SGD(network, lr, self.training.momentum)

    def step(self, images: Any, labels: np.ndarray, rng: np.random.Generator) -> Reading:
        """A step of D on a batch (b, D) of data and one of samples, and after every k-th a step of G (L23)."""
        self._set_rates()
        d_rates = self.discriminator_optimizer.next_rates()
        both = self.discriminator_optimizer.steps % self.training.discriminator_steps == 0
        g_rates = self.generator_optimizer.next_rates() if both else d_rates  # which nobody reads
        n = self.generator_optimizer.steps
        decay = min(self.training.average, (1 + n) / (10 + n))
        rates = np.array([d_rates, g_rates, (decay, decay)], self.model.dtype)
        return reading(_metrics, *self._recorded(images, turns(rng), rates, both=both))

    def _set_rates(self) -> None:
        step, training = self.discriminator_optimizer.steps, self.training
        optimizers = self.generator_optimizer, self.discriminator_optimizer
        for optimizer, schedule in zip(optimizers, self.schedules, strict=True):
            optimizer.lr = schedule(step)
            if isinstance(optimizer, SGD):
                ramp = training.momentum_epochs * self.steps_per_epoch
                rise = min(1.0, step / ramp if ramp else 1.0)
                optimizer.momentum = training.momentum + rise * (training.final_momentum - training.momentum)

    def play(self, images: Any, turn: Any, rates: Any, both: bool) -> tuple[Any, ...]:
        """D's step on data (b, D) and on samples, and, if both play, G's through D as it is then (L22 to L24).

        All arrays lie where kernels compute. ``turn`` tells the noise and the masks, ``rates`` (3, 2) are those of D,
        of G, and the decay of G's average. Returns what ``_metrics`` takes.
        """
        with masked(self.model, Masks(turn)):
            fake = self.model.generate(self.model.draw_noise(len(images), turn))
            self.discriminator_optimizer.zero_grad()
            losses, certainty = [], []
            passes = (Tensor.wrap(images), self.training.real_label), (fake.detach(), 0.0)
            for x, label in passes:  # D's, whose gradients add up
                logits = self.model.discriminate(x)
                losses.append(discriminator_loss(logits, label))
                certainty.append(ops.sigmoid(logits.detach()).mean())
                losses[-1].backward()
            of_d = side_by_side(*losses, *certainty, Tensor.wrap(self.discriminator_optimizer.squared_norm()))
            self.discriminator_optimizer.update(rates[0], of_d)
            if not both:
                return (of_d,)
            self.generator_optimizer.zero_grad()
            with frozen(self.model.discriminator):  # G: what D, updated and held fixed, says of the same samples (L22)
                loss = generator_loss(self.model.discriminate(fake), self.training.objective)
            loss.backward()
            of_g = side_by_side(loss, Tensor.wrap(self.generator_optimizer.squared_norm()))
            self.generator_optimizer.update(rates[1], of_g)
            self.average.step(rates[2][:1])
            return of_d, of_g

    def evaluate(self, dataset: Dataset, rng: np.random.Generator) -> Metrics:
        """What ``measure`` says of the model that samples are drawn from."""
        sampled = copy(self.model)
        sampled.generator = self.average.module
        return self.measure(sampled, dataset, rng)

    def state(self) -> dict[str, np.ndarray]:
        """Parameters under ``model.`` and ``averaged.``, the optimizers' moments under their names."""
        return (
            prefixed("model.", self.model.state_dict())
            | prefixed("averaged.", self.average.module.state_dict())
            | prefixed("generator_optimizer.", self.generator_optimizer.state())
            | prefixed("discriminator_optimizer.", self.discriminator_optimizer.state())
        )

    def load_state(self, state: Mapping[str, np.ndarray]) -> None:
        """Continue from ``state()``; ValueError if it is another model's."""
        load_parameters(self.model, state)
        self.average.module.load_state_dict(under("averaged.", state))
        self.generator_optimizer.load_state(under("generator_optimizer.", state))
        self.discriminator_optimizer.load_state(under("discriminator_optimizer.", state))


def _metrics(of_d: list[float], of_g: list[float] | None = None) -> Metrics:
    """Of D's losses on data and samples, the means of D over both, and the square of its gradient's norm; of G's."""
    on_data, on_samples, d_real, d_fake, squares = of_d
    metrics = {"d_loss": on_data + on_samples, "d_real": d_real, "d_fake": d_fake, "d_gradient": math.sqrt(squares)}
    if of_g is not None:
        metrics |= {"g_loss": of_g[0], "g_gradient": math.sqrt(of_g[1])}
    return metrics


def load_averaged(model: GAN, state: Mapping[str, np.ndarray]) -> None:
    """Give the model a checkpoint's parameters, and the generator that samples are drawn from; ValueError if unfit."""
    load_parameters(model, state)
    model.generator.load_state_dict(under("averaged.", state))
