"""The adversarial autoencoder (Makhzani et al. 2015): an autoencoder whose codes are shaped into a prior by a GAN.

The encoder draws z from q(z|x). Over the data that makes the aggregated posterior q(z) = E_x q(z|x), and a
discriminator D on codes is what pulls it to the prior p(z) (L25). Every batch has three events, each an update of its
own parameters by its own optimizer (L26):

    1. reconstruction   encoder and decoder lower the reconstruction error
    2. discrimination   D learns to tell p(z), which is 1, from q(z), which is 0
    3. confusion        the encoder learns to have its codes taken for draws of the prior

The prior is 1 and the code is 0, here and everywhere.

Labels, where there are some, may help in three ways. Given to D, beside the code, each class gets its own region of the
prior. Given to the decoder, the code need not carry the class: it keeps the style. Or the encoder itself says the
class: a second, categorical code with a prior and a discriminator of its own, and labelled images teach it by

    4. classification   the encoder lowers the cross-entropy of the labels
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

import kernels
from scratchgen import ops
from scratchgen.data.dataset import CLASSES, UNLABELLED, Dataset, Split
from scratchgen.errors import require, require_one_of
from scratchgen.models.gan import discriminator_loss, generator_loss
from scratchgen.nn import Dense, Module, Sequential, flatten, frozen, mlp
from scratchgen.noise import PIXELS, normal, turns
from scratchgen.optim import SCHEDULES, SGD, Adam, Optimizer
from scratchgen.priors import PRIORS, REGIONS, make_prior
from scratchgen.recorded import Recorded
from scratchgen.tensor import Tensor
from scratchgen.training import Metrics, Reading, load_parameters, prefixed, reading, side_by_side, under

POSTERIORS = ("deterministic", "gaussian", "universal")
LABELS_FOR = ("discriminator", "decoder", "encoder")


@dataclass(frozen=True)
class AAEConfig:
    """The networks of an adversarial autoencoder.

    Attributes
    ----------
    input_dim, latent_dim : int
        D pixels, J dimensions of the code.
    encoder_hidden, decoder_hidden, discriminator_hidden : tuple of int
        Sizes of the hidden layers, each with relu.
    posterior : str
        q(z|x): "deterministic", one code an image; "gaussian", with a mean and a variance of its own; "universal", an
        encoder that is fed ``noise_dim`` numbers of noise beside the pixels, so that q(z|x) may be anything.
    prior : str
        p(z): a name in ``priors.PRIORS``.
    labels_for : str
        Who is given the labels: "discriminator", if the prior has a region for each class; "decoder", for codes of
        style; "encoder", which then classifies.
    """

    input_dim: int = 784
    latent_dim: int = 2
    encoder_hidden: tuple[int, ...] = (256, 256)
    decoder_hidden: tuple[int, ...] = (256, 256)
    discriminator_hidden: tuple[int, ...] = (256, 256)
    posterior: str = "deterministic"
    noise_dim: int = 10
    prior: str = "gaussian"
    labels_for: str = "discriminator"

    def __post_init__(self) -> None:
        require_one_of("posterior", self.posterior, POSTERIORS)
        require_one_of("prior", self.prior, PRIORS)
        require_one_of("labels_for", self.labels_for, LABELS_FOR)
        hidden = (*self.encoder_hidden, *self.decoder_hidden, *self.discriminator_hidden)
        if min(self.input_dim, self.latent_dim, self.noise_dim, *hidden) < 1:
            raise ValueError("every layer, the latent code, the noise and the input have at least one dimension")
        make_prior(self.prior, self.latent_dim)


def one_hot(labels: np.ndarray, classes: int, dtype: Any) -> np.ndarray:
    """Rows (n, classes) with a 1 at labels (n,); ``UNLABELLED`` is the last class where there are more than ten."""
    rows = np.zeros((len(labels), classes), dtype)
    known = labels != UNLABELLED
    rows[np.flatnonzero(known), labels[known]] = 1
    if classes > CLASSES:
        rows[~known, CLASSES] = 1
    return rows


class Encoder(Module):
    """q(z|x), and beside it q(y|x) where the encoder classifies."""

    def __init__(self, config: AAEConfig, rng: np.random.Generator, dtype: Any) -> None:
        universal = config.posterior == "universal"
        sizes = (config.input_dim + universal * config.noise_dim, *config.encoder_hidden)
        self.body = mlp(sizes, "relu", rng, dtype)
        self.code = Dense(sizes[-1], config.latent_dim, rng, dtype=dtype)  # z, or its mean
        if config.posterior == "gaussian":
            self.logvar = Dense(sizes[-1], config.latent_dim, rng, dtype=dtype)
        if config.labels_for == "encoder":
            self.classes = Dense(sizes[-1], CLASSES, rng, dtype=dtype)


class AAE(Module):
    """Encoder, decoder and discriminators. ``dtype`` is float32 to train and float64 to check."""

    def __init__(self, config: AAEConfig, rng: np.random.Generator, dtype: Any = np.float32) -> None:
        self.config, self.dtype = config, np.dtype(dtype)
        self.prior = make_prior(config.prior, config.latent_dim)
        # With labels D also sees the class, or that there is none, as one of eleven.
        self.regional = config.labels_for == "discriminator" and config.prior in REGIONS

        def network(inputs: int, hidden: tuple[int, ...], outputs: int) -> Sequential:
            body = mlp((inputs, *hidden), "relu", rng, dtype)
            return Sequential(*body.layers, Dense((inputs, *hidden)[-1], outputs, rng, dtype=dtype))

        self.encoder = Encoder(config, rng, dtype)
        to_decoder = config.latent_dim + CLASSES * (config.labels_for != "discriminator")
        self.decoder = network(to_decoder, config.decoder_hidden, config.input_dim)
        self.discriminator = network(config.latent_dim + (CLASSES + 1) * self.regional, config.discriminator_hidden, 1)
        if config.labels_for == "encoder":
            self.class_discriminator = network(CLASSES, config.discriminator_hidden, 1)

    def draw_noise(self, n: int, turn: Any) -> Tensor | None:
        """What ``encode`` needs beside n images: nothing for a deterministic posterior, else (n, ·) from N(0, I).

        ``turn`` (1,) tells which numbers (see ``noise``).
        """
        if self.config.posterior == "deterministic":
            return None
        size = self.config.latent_dim if self.config.posterior == "gaussian" else self.config.noise_dim
        return Tensor.wrap(normal((n, size), self.dtype, turn))

    def encode(self, x: Tensor, noise: Tensor | None = None) -> tuple[Tensor, Tensor | None]:
        """A draw z (n, J) from q(z|x), and the logits (n, 10) of q(y|x) where the encoder classifies."""
        universal, gaussian = (self.config.posterior == kind for kind in ("universal", "gaussian"))
        h = self.encoder.body(ops.concatenate([x, noise], axis=1) if universal and noise is not None else x)
        z = self.encoder.code(h)
        if gaussian:
            z = ops.reparameterize(z, self.encoder.logvar(h), noise)
        return z, self.encoder.classes(h) if self.config.labels_for == "encoder" else None

    def decode(self, z: Tensor, y: Tensor | None = None) -> Tensor:
        """The logits (n, D) of the pixels of codes z (n, J), and classes y (n, 10) where the decoder takes them."""
        return self.decoder(z if y is None else ops.concatenate([z, y], axis=1))

    def labels_given(self, labels: np.ndarray) -> np.ndarray | None:
        """The labels (n,) as rows for who is given them: (n, 10) for the decoder, (n, 11) for D, or None."""
        if self.config.labels_for == "decoder":
            return one_hot(labels, CLASSES, self.dtype)
        return one_hot(labels, CLASSES + 1, self.dtype) if self.regional else None

    def mean(self, z: Tensor, y: Tensor | None = None) -> Tensor:
        """The pictures (n, D) of codes z (n, J) and, where the decoder takes them, classes y (n, 10)."""
        return ops.sigmoid(self.decode(z, y))

    def decoder_classes(self, class_logits: Tensor | None, y: Tensor | None) -> Tensor | None:
        """The classes (n, 10) that the decoder is given: the encoder's own, or ``labels_given`` y, or none."""
        if class_logits is not None:
            return ops.softmax(class_logits)
        return y if self.config.labels_for == "decoder" else None

    def beside_labels(self, z: Tensor, y: Tensor | None) -> Tensor:
        """What D sees of codes z (n, J): ``labels_given`` y too, where each class has its own region of the prior."""
        return ops.concatenate([z, y], axis=1) if self.regional and y is not None else z


# ---- training ----

ENCODER_OPTIMIZERS = ("descent", "adam")
METRICS = ("reconstruction", "d_loss", "e_loss", "c_loss")  # the losses of events 1 to 4


@dataclass(frozen=True)
class AAETraining:
    """How an adversarial autoencoder is trained.

    Attributes
    ----------
    labels : int
        How many training images have their label, as many of each class; 0 is none.
    reconstruction_lr, discriminator_lr, encoder_lr, classification_lr : float
        Learning rates of events 1 to 4.
    encoder_optimizer : str
        Of event 3: "descent", gradient descent with a momentum of 0.1, whose small steps follow the prior's scale, or
        "adam", which moves codes far. All other events take Adam, and adversarial Adams have beta1 = 0.5.
    schedule : str
        How every learning rate goes down: a name in ``SCHEDULES`` (see ``optim``).
    input_noise : float
        Standard deviation of the noise that is added to the pixels which the encoder sees.
    """

    labels: int = 0
    reconstruction_lr: float = 4e-4
    discriminator_lr: float = 1e-3
    encoder_lr: float = 0.02
    classification_lr: float = 1e-3
    encoder_optimizer: str = "descent"
    schedule: str = "late-cosine"
    input_noise: float = 0.0

    def __post_init__(self) -> None:
        require_one_of("encoder_optimizer", self.encoder_optimizer, ENCODER_OPTIMIZERS)
        require_one_of("schedule", self.schedule, SCHEDULES)
        rates = ("reconstruction_lr", "discriminator_lr", "encoder_lr", "classification_lr")
        require(
            {
                "labels >= 0": self.labels >= 0,
                **{f"{name} > 0": getattr(self, name) > 0 for name in rates},
                "input_noise >= 0": self.input_noise >= 0,
            }
        )


def _wrapped(rows: Any) -> Tensor | None:
    """An array as a tensor, if there is one."""
    return None if rows is None else Tensor.wrap(rows)


class Game(NamedTuple):
    """A discriminator, the codes (b, ·) that it judges, and as many draws of their prior."""

    discriminator: Module
    codes: Tensor
    draws: Tensor


class AAETask:
    """An adversarial autoencoder in training: the model, an optimizer for each event, and the step of the trainer.

    Training labels are ``UNLABELLED`` where they are not given. ``labelled`` are the images that event 4 draws from.
    ``measure(model, dataset, rng)`` gives the metrics of an epoch's end.
    """

    replays = True  # steps, see ``recorded``

    def __init__(
        self,
        model: AAE,
        training: AAETraining,
        steps_per_epoch: int,
        epochs: int,
        labelled: Split,
        measure: Callable[[AAE, Dataset, np.random.Generator], Metrics],
    ) -> None:
        self.model, self.training, self.labelled, self.measure = model, training, labelled, measure
        self.steps_per_epoch = steps_per_epoch
        flatten(model.parameters())  # encoder, decoder and discriminators side by side: each event takes its slice
        encoder, decoder = model.encoder.parameters(), model.decoder.parameters()
        discriminators = model.parameters()[len(encoder) + len(decoder) :]
        by_adam = training.encoder_optimizer == "adam"
        self.optimizers: dict[str, Optimizer] = {
            "reconstruction": Adam(encoder + decoder, training.reconstruction_lr),
            "discriminator": Adam(discriminators, training.discriminator_lr, beta1=0.5),
            "encoder": Adam(encoder, training.encoder_lr, beta1=0.5)
            if by_adam
            else SGD(encoder, training.encoder_lr, 0.1),
        }
        if model.config.labels_for == "encoder":
            self.optimizers["classification"] = Adam(encoder, training.classification_lr)
            if not np.isin(labelled.labels, range(CLASSES)).all():
                raise ValueError(f"the labels of labelled images lie in 0..{CLASSES - 1}")
            self._known = kernels.active().memory.to_device(labelled.images)  # once
        moments = [moment for optimizer in self.optimizers.values() for moment in optimizer.moments.values()]
        self._recorded = Recorded(self.events, [model], moments, self.replays)
        self.schedules = {
            name: SCHEDULES[training.schedule](optimizer.lr, steps_per_epoch * epochs)
            for name, optimizer in self.optimizers.items()
        }

    def step(self, images: Any, labels: np.ndarray, rng: np.random.Generator) -> Reading:
        """The events of a batch (b, D), one after the other (L26)."""
        model, b, memory = self.model, len(labels), kernels.active().memory
        events = [name for name in self.optimizers if name != "classification" or len(self.labelled)]
        for name in events:
            self.optimizers[name].lr = self.schedules[name](self.optimizers[name].steps)
        rates = np.array([self.optimizers[name].next_rates() for name in events], model.dtype)
        prior = model.prior.sample(b, rng, labels if model.regional else None).astype(model.dtype)
        classifies, y = model.config.labels_for == "encoder", model.labels_given(labels)
        classes = one_hot(rng.integers(CLASSES, size=b), CLASSES, model.dtype) if classifies else None
        turn, known, labels_known = turns(rng, 2), None, None
        if "classification" in events:
            chosen = rng.integers(len(self.labelled), size=b)
            known, labels_known = memory.rows(self._known, memory.to_device(chosen)), self.labelled.labels[chosen]
            turn = np.concatenate([turn, turns(rng)])
        losses = self._recorded(images, turn, rates, prior, y, classes, known, labels_known)
        names = METRICS[: len(losses)]
        return reading(lambda *found: {name: sum(parts) for name, parts in zip(names, found, strict=True)}, *losses)

    def encoder_input(self, images: Any, turn: Any) -> Tensor:
        """Images (b, D) as the encoder sees them in training: with noise, if there is to be some."""
        x = Tensor.wrap(images)
        if self.training.input_noise == 0:
            return x
        return x + self.training.input_noise * Tensor.wrap(normal(x.shape, x.dtype, turn, PIXELS))

    def events(
        self, images: Any, turn: Any, rates: Any, prior: Any, y: Any, classes: Any, known: Any, labels_known: Any
    ) -> tuple[Any, ...]:
        """The events of images (b, D); the parts of the loss of each, (k,), where kernels compute.

        ``turn`` (3,) tells the random numbers of event 1, of 2 and 3, and of 4; ``rates`` (4, 2) are those of the
        optimizers, ``prior`` (b, J) draws of it, y what ``labels_given`` gives, and ``classes`` (b, 10) draws of
        classes. ``known`` (b, D) are images whose labels (b,) are known, or there are none and no event 4.
        """
        reconstruction = self.reconstruct(images, turn[:1], rates[0], y)
        games = self.games(images, turn[1:2], prior, y, classes)
        losses = reconstruction, self.discriminate(games, rates[1]), self.confuse(games, rates[2])
        return losses if known is None else (*losses, self.classify(known, labels_known, turn[2:], rates[3]))

    def reconstruct(self, images: Any, turn: Any, rates: Any, y: Any) -> Any:
        """Event 1: encoder and decoder lower -log p(images|z), in nats an image."""
        self.optimizers["reconstruction"].zero_grad()
        z, class_logits = self.encode(images, turn)
        logits = self.model.decode(z, self.model.decoder_classes(class_logits, _wrapped(y)))
        loss = ops.bce_with_logits(logits, Tensor.wrap(images)).mean()
        loss.backward()
        return self._updated("reconstruction", rates, loss)

    def games(self, images: Any, turn: Any, prior: Any, y: Any, classes: Any) -> list[Game]:
        """What is played for in events 2 and 3: the code, and where the encoder classifies, the class too."""
        z, class_logits = self.encode(images, turn)
        beside_labels, labels = self.model.beside_labels, _wrapped(y)
        codes = Game(self.model.discriminator, beside_labels(z, labels), beside_labels(Tensor.wrap(prior), labels))
        if class_logits is None:
            return [codes]
        return [codes, Game(self.model.class_discriminator, ops.softmax(class_logits), Tensor.wrap(classes))]

    def discriminate(self, games: list[Game], rates: Any) -> Any:
        """Event 2: each discriminator learns to tell draws of its prior, 1, from codes, 0."""
        self.optimizers["discriminator"].zero_grad()
        losses = []
        for game in games:
            for judged, label in ((game.draws, 1.0), (game.codes.detach(), 0.0)):
                losses.append(discriminator_loss(game.discriminator(judged), label))
                losses[-1].backward()
        return self._updated("discriminator", rates, *losses)

    def confuse(self, games: list[Game], rates: Any) -> Any:
        """Event 3: the encoder learns to have its codes taken for draws of the prior (L22)."""
        self.optimizers["encoder"].zero_grad()
        losses = []
        for game in games:
            with frozen(game.discriminator):
                losses.append(generator_loss(game.discriminator(game.codes), "non-saturating"))
        sum(losses[1:], losses[0]).backward()  # once, for the codes share the encoder
        return self._updated("encoder", rates, *losses)

    def classify(self, known: Any, labels_known: Any, turn: Any, rates: Any) -> Any:
        """Event 4: the encoder lowers -log q(label|x) of images (b, D) whose labels (b,) are known."""
        self.optimizers["classification"].zero_grad()
        _, class_logits = self.encode(known, turn)
        assert class_logits is not None
        loss = ops.softmax_cross_entropy(class_logits, Tensor.wrap(labels_known)).mean()
        loss.backward()
        return self._updated("classification", rates, loss)

    def encode(self, images: Any, turn: Any) -> tuple[Tensor, Tensor | None]:
        """What ``AAE.encode`` makes of images (b, D) in training, where they may have noise."""
        return self.model.encode(self.encoder_input(images, turn), self.model.draw_noise(len(images), turn))

    def _updated(self, event: str, rates: Any, *losses: Tensor) -> Any:
        """Update the parameters of an event; its losses (k,)."""
        found = side_by_side(*losses)
        self.optimizers[event].update(rates, found)
        return found

    def evaluate(self, dataset: Dataset, rng: np.random.Generator) -> Metrics:
        """What ``measure`` says."""
        return self.measure(self.model, dataset, rng)

    def state(self) -> dict[str, np.ndarray]:
        """Parameters under ``model.``, the optimizers' moments under the names of their events."""
        state = prefixed("model.", self.model.state_dict())
        for name, optimizer in self.optimizers.items():
            state |= prefixed(f"{name}.", optimizer.state())
        return state

    def load_state(self, state: Mapping[str, np.ndarray]) -> None:
        """Continue from ``state()``; ValueError if it is another model's."""
        load_parameters(self.model, state)
        for name, optimizer in self.optimizers.items():
            optimizer.load_state(under(f"{name}.", state))
