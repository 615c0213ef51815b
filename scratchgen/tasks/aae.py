"""Training the adversarial autoencoder (Makhzani et al. 2015, section 2; L26): three updates a batch, or four.

See ``models.aae`` for what each of them is for.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

import kernels
from scratchgen import ops
from scratchgen.capture import from_host
from scratchgen.data.dataset import Dataset, Split
from scratchgen.errors import require, require_one_of
from scratchgen.models.aae import AAE
from scratchgen.models.gan import discriminator_loss, generator_loss
from scratchgen.models.images import moves
from scratchgen.models.labels import one_hot
from scratchgen.nn import Module, flatten, frozen
from scratchgen.optim import SCHEDULES, SGD, Adam, Optimizer
from scratchgen.random import RandomStream
from scratchgen.tasks.task import Metrics, Task
from scratchgen.tensor import Tensor, no_grad

ENCODER_OPTIMIZERS = ("sgd", "adam")


@dataclass(frozen=True)
class AAETraining:
    """How an adversarial autoencoder is trained.

    Attributes
    ----------
    labels : int
        How many training images have their label, equally many of each class; 0 is none.
    reconstruction_lr, discriminator_lr, encoder_lr, classification_lr : float
        Learning rates of updates 1 to 4.
    encoder_optimizer : str
        Of update 3: "sgd", with a momentum of 0.1, or "adam", which moves the codes faster. All other updates take
        Adam, with beta1 = 0.5 where they are adversarial.
    schedule : str
        How every learning rate goes down: a name in ``SCHEDULES`` (see ``optim``).
    input_noise : float
        Standard deviation of the noise that is added to the pixels which the encoder sees.
    consistency : float
        Weight, in update 4, of the squared difference, summed over classes, between q(y|x) of the batch's images and of
        the same images moved by up to ``moved`` pixels along both axes. Each has its own noise; the prediction for an
        image that is not moved is a constant target. Source: Laine & Aila 2017, here without a rise of the weight.
    """

    labels: int = 0
    reconstruction_lr: float = 4e-4
    discriminator_lr: float = 1e-3
    encoder_lr: float = 0.02
    classification_lr: float = 1e-3
    encoder_optimizer: str = "sgd"
    schedule: str = "late-cosine"
    input_noise: float = 0.0
    consistency: float = 0.0
    moved: int = 0

    def __post_init__(self) -> None:
        require_one_of("encoder_optimizer", self.encoder_optimizer, ENCODER_OPTIMIZERS)
        require_one_of("schedule", self.schedule, SCHEDULES)
        rates = ("reconstruction_lr", "discriminator_lr", "encoder_lr", "classification_lr")
        require(
            {
                "labels >= 0": self.labels >= 0,
                **{f"{name} > 0": getattr(self, name) > 0 for name in rates},
                "input_noise >= 0": self.input_noise >= 0,
                "consistency >= 0": self.consistency >= 0,
                "moved >= 0": self.moved >= 0,
            }
        )


class AdversarialPair(NamedTuple):
    """A discriminator, and what it has to tell apart: codes (b, ·) and draws (b, ·) of their prior."""

    discriminator: Module
    codes: Tensor
    draws: Tensor


class AAETask(Task):
    """An adversarial autoencoder in training.

    Training labels are ``UNLABELLED`` where they are not given; ``labelled`` are the images that update 4 draws from.
    ``measure(model, dataset, rng)`` computes the metrics at the end of an epoch. ``image_shape`` is (height, width).
    """

    def __init__(
        self,
        model: AAE,
        settings: AAETraining,
        random: RandomStream,
        steps_per_epoch: int,
        epochs: int,
        labelled: Split,
        measure: Callable[[AAE, Dataset, np.random.Generator], Metrics],
        image_shape: tuple[int, int] = (28, 28),
    ) -> None:
        self.model, self.settings, self.random, self.image_shape = model, settings, random, image_shape
        self.labelled, self.measure = labelled, measure
        if settings.moved and math.prod(image_shape) != model.config.input_dim:
            raise ValueError(
                f"images of {model.config.input_dim} pixels to be moved cannot have the shape {image_shape}"
            )
        model.set_random(random)
        flatten(model.parameters())  # each optimizer updates a contiguous slice of it
        encoder, decoder = model.encoder.parameters(), model.decoder.parameters()
        discriminators = model.parameters()[len(encoder) + len(decoder) :]  # AAE defines them in this order

        def schedule(lr: float) -> Callable[[int], float]:
            return SCHEDULES[settings.schedule](lr, steps_per_epoch * epochs)

        self.optimizers: dict[str, Optimizer] = {
            "autoencoder": Adam(encoder + decoder, schedule(settings.reconstruction_lr)),
            "discriminator": Adam(discriminators, schedule(settings.discriminator_lr), beta1=0.5),
            "encoder": Adam(encoder, schedule(settings.encoder_lr), beta1=0.5)
            if settings.encoder_optimizer == "adam"
            else SGD(encoder, schedule(settings.encoder_lr), momentum=0.1),
        }
        if model.config.labels_for == "encoder":
            self.optimizers["classifier"] = Adam(encoder, schedule(settings.classification_lr))
            if not np.isin(labelled.labels, range(model.config.classes)).all():
                raise ValueError(f"the labels of labelled images lie in 0..{model.config.classes - 1}")
            to_device = kernels.active().memory.to_device
            self._known = to_device(labelled.images), to_device(labelled.labels.astype(np.int64))  # once

    def train_step(self, x: Tensor, labels: np.ndarray) -> dict[str, Tensor]:
        """The updates of a batch x (b, D) with labels (b,), one after the other (L26)."""
        y = self.one_hot_labels(labels)
        metrics = self.update_autoencoder(x, y)
        pairs = self.adversarial_pairs(x, y, labels)
        metrics |= self.update_discriminators(pairs)
        metrics |= self.update_encoder(pairs)
        if self.classifies:
            metrics |= self.update_classifier(x)
        return metrics

    def update_autoencoder(self, x: Tensor, y: Tensor | None) -> dict[str, Tensor]:
        """1, reconstruction phase: encoder and decoder minimise -log p(x|z), in nats an image.

        If the decoder has cluster heads, they are penalised for being near one another.
        """
        z, class_logits = self.encode(x)
        logits = self.model.decode(z, self.model.decoder_classes(class_logits, y))
        loss = total = ops.bce_with_logits(logits, x).mean()
        if heads := self.model.heads:
            total = loss + heads.penalty(self.model.config.head_distance)
        self._update("autoencoder", total)
        return {"reconstruction": loss}

    def adversarial_pairs(self, x: Tensor, y: Tensor | None, labels: np.ndarray) -> list[AdversarialPair]:
        """Codes of x (b, D) and draws of the prior, for updates 2 and 3; classes too, if the encoder predicts them."""
        z, class_logits = self.encode(x)
        codes, prior = (self.model.beside_labels(each, y) for each in (z, self.draw_prior(labels)))
        pairs = [AdversarialPair(self.model.discriminator, codes, prior)]
        if class_logits is not None:
            classes = self.draw_classes(len(x))
            pairs.append(AdversarialPair(self.model.class_discriminator, ops.softmax(class_logits), classes))
        return pairs

    def update_discriminators(self, pairs: list[AdversarialPair]) -> dict[str, Tensor]:
        """2, regularisation phase: each D learns to give 1 for draws of its prior and 0 for codes."""
        losses = []
        for pair in pairs:
            on_draws, on_codes = pair.discriminator(pair.draws), pair.discriminator(pair.codes.detach())
            losses.append(discriminator_loss(on_draws, 1.0) + discriminator_loss(on_codes, 0.0))
        loss = sum(losses[1:], losses[0])
        self._update("discriminator", loss)
        return {"d_loss": loss}

    def update_encoder(self, pairs: list[AdversarialPair]) -> dict[str, Tensor]:
        """3, regularisation phase: the encoder, as the generator, learns to fool each D, held fixed (L22)."""
        losses = []
        for pair in pairs:
            with frozen(pair.discriminator):
                losses.append(generator_loss(pair.discriminator(pair.codes), "non-saturating"))
        loss = sum(losses[1:], losses[0])
        self._update("encoder", loss)
        return {"e_loss": loss}

    @property
    def classifies(self) -> bool:
        """Whether the encoder predicts classes, and there are labelled images, or moved ones, to teach it."""
        return "classifier" in self.optimizers and (len(self.labelled) > 0 or self.settings.consistency > 0)

    def update_classifier(self, x: Tensor) -> dict[str, Tensor]:
        """4, semi-supervised phase: the encoder minimises -log q(y|x) of as many labelled images as x (b, D) are.

        With ``consistency``, it is also taught to give x and x moved the same classes, for which no label is needed.
        """
        metrics, losses = dict[str, Tensor](), list[Tensor]()
        if len(self.labelled):
            known, y = self.draw_labelled(len(x))
            metrics["c_loss"] = ops.softmax_cross_entropy(self.class_logits(known), y).mean()
            losses.append(metrics["c_loss"])
        if self.settings.consistency:
            with no_grad():
                target = ops.softmax(self.class_logits(x))
            difference = ops.softmax(self.class_logits(self.moved(x))) - target
            metrics["inconsistency"] = (difference * difference).sum(axis=1).mean()
            losses.append(self.settings.consistency * metrics["inconsistency"])
        self._update("classifier", sum(losses[1:], losses[0]))
        return metrics

    def _update(self, name: str, loss: Tensor) -> None:
        """One step of an optimizer, which changes its own parameters only."""
        self.optimizers[name].zero_grad()
        loss.backward()
        self.optimizers[name].step(loss)

    def encode(self, x: Tensor) -> tuple[Tensor, Tensor | None]:
        """z and class logits of images x (b, D)."""
        return self.model.encode(self.encoder_input(x), self.model.draw_noise(len(x), self.random))

    def class_logits(self, x: Tensor) -> Tensor:
        """The logits (b, C) of q(y|x) of images x (b, D), if the encoder predicts classes."""
        _, class_logits = self.encode(x)
        assert class_logits is not None
        return class_logits

    def moved(self, x: Tensor) -> Tensor:
        """Images x (b, D), each moved by up to ``settings.moved`` pixels along both axes."""
        memory, shape, most = kernels.active().memory, self.image_shape, self.settings.moved
        if most == 0:
            return x
        places = from_host(lambda: moves(len(x), shape, most, self.random.generator), np.int64)
        out = memory.empty((x.size, 1), x.dtype)
        memory.rows(out, x._data.reshape(-1, 1), places)
        return Tensor.wrap(out.reshape(x.shape))

    def encoder_input(self, x: Tensor) -> Tensor:
        """Images (b, D) as the encoder sees them in training: with noise, if there is to be some."""
        if self.settings.input_noise == 0:
            return x
        return x + self.settings.input_noise * self.random.normal(x.shape, x.dtype)

    # ---- what the host draws ----

    def draw_prior(self, labels: np.ndarray) -> Tensor:
        """A draw (b, J) of p(z) for each label (b,), in its region if it has one."""
        model, given = self.model, labels if self.model.regional else None
        return Tensor.wrap(
            from_host(lambda: model.prior.sample(len(labels), self.random.generator, given), model.dtype)
        )

    def draw_classes(self, b: int) -> Tensor:
        """Draws (b, C) of p(y), uniform: rows of the identity."""
        rng, dtype, classes = self.random.generator, self.model.dtype, self.model.config.classes
        return Tensor.wrap(from_host(lambda: one_hot(rng.integers(classes, size=b), classes, dtype), dtype))

    def draw_labelled(self, b: int) -> tuple[Tensor, Tensor]:
        """Images (b, D) and their labels (b,), drawn from those that have one."""
        chosen = from_host(lambda: self.random.generator.integers(len(self.labelled), size=b), np.int64)
        drawn = []
        for known in self._known:
            out = kernels.active().memory.empty((b, *known.shape[1:]), known.dtype)
            kernels.active().memory.rows(out, known, chosen)
            drawn.append(Tensor.wrap(out))
        return drawn[0], drawn[1]

    def evaluate(self, dataset: Dataset, rng: np.random.Generator) -> Metrics:
        """What ``measure`` says."""
        return self.measure(self.model, dataset, rng)

    def parts(self) -> dict[str, Any]:
        return {"model": self.model, **{f"{name}_optimizer": each for name, each in self.optimizers.items()}}
