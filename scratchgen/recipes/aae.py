"""The adversarial autoencoder's recipe: named configurations, evaluation of its codes, figures."""

import math
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from scratchgen.data import Dataset
from scratchgen.data.dataset import UNLABELLED, Split, keep_labels
from scratchgen.errors import UserError
from scratchgen.evaluation.codes import fresh_discriminator_bce, kernel_scale, mmd
from scratchgen.inference import in_batches
from scratchgen.models.aae import AAE, AAEConfig
from scratchgen.models.labels import one_hot
from scratchgen.nn import Sequential, evaluating
from scratchgen.random import RandomStream, stream
from scratchgen.recipes.recipe import (
    Explorable,
    Recipe,
    RunConfig,
    by_class,
    classes_in_turn,
    named,
    require_batches,
    require_each_label,
)
from scratchgen.tasks.aae import AAETask, AAETraining
from scratchgen.tasks.task import Metrics
from scratchgen.tensor import Tensor
from scratchgen.training import Selection

CODES_AN_EPOCH = 2_000  # compared with the prior after each epoch
PRIOR_PAIRS = 3  # pairs of samples of the prior, compared with each other
ROWS = 1_000  # images encoded, or codes decoded, at a time
ALL_LABELS = 10**6
SORTING = AAETraining(labels=ALL_LABELS, reconstruction_lr=3e-4, encoder_lr=1e-3, encoder_optimizer="adam")


class AAERecipe(Recipe):
    """Adversarial autoencoders."""

    model = "aae"
    network, training = AAEConfig, AAETraining
    configs: ClassVar = named(
        RunConfig("aae", "gaussian", AAEConfig(), AAETraining(), epochs=15, batch_size=100),
        # Convolutions, with fewer parameters than dense layers of 256 units; they bear a higher rate. Codes of four
        # dimensions match their prior less well: a fresh discriminator's bce is 0.61.
        RunConfig(
            "aae",
            "conv",
            AAEConfig(
                latent_dim=3,
                encoder_hidden=(128, 128),
                decoder_hidden=(128, 128),
                encoder_channels=(16, 32),
                decoder_channels=(32, 16),
            ),
            AAETraining(reconstruction_lr=7e-4),
            epochs=20,
            batch_size=100,
        ),
        # With labels, and an encoder learning rate high enough to sort the classes into their regions; noise on the
        # encoder's input prevents overfitting.
        RunConfig(
            "aae",
            "mixture",
            AAEConfig(prior="mixture"),
            replace(SORTING, input_noise=0.25),
            epochs=20,
            batch_size=100,
        ),
        # The regions of the roll touch: a low reconstruction_lr does not pull codes across the boundaries, and a low
        # discriminator_lr keeps the discriminator from outpacing the encoder.
        RunConfig(
            "aae",
            "swiss-roll",
            AAEConfig(prior="swiss-roll"),
            replace(SORTING, reconstruction_lr=5e-5, discriminator_lr=3e-4, input_noise=0.25),
            epochs=35,
            batch_size=100,
        ),
        RunConfig(
            "aae",
            "supervised",
            AAEConfig(latent_dim=4, labels_for="decoder"),
            AAETraining(labels=ALL_LABELS, reconstruction_lr=1e-3, encoder_lr=1e-3, encoder_optimizer="adam"),
            epochs=15,
            batch_size=100,
        ),
        # Batch normalisation of all that the encoder gives, noise on its input and in its hidden layers, and the same
        # classes for moved images: lesson 26 leaves out one thing at a time.
        RunConfig(
            "aae",
            "semi-supervised",
            AAEConfig(
                latent_dim=10,
                encoder_hidden=(500, 500),
                decoder_hidden=(500, 500),
                labels_for="encoder",
                batch_norm=True,
                hidden_noise=0.3,
            ),
            AAETraining(
                labels=1000,
                reconstruction_lr=1.5e-3,
                discriminator_lr=1.5e-3,
                encoder_lr=7e-4,
                classification_lr=1.5e-3,
                encoder_optimizer="adam",
                schedule="cosine",
                input_noise=0.3,
                consistency=3.0,
                moved=2,
            ),
            epochs=20,
            batch_size=250,
        ),
    )
    # Over three seeds; of mixture and semi-supervised, one seed.
    expected: ClassVar = {
        (
            "gaussian",
            "mnist",
        ): "a fresh discriminator's bce 0.65 to 0.69, mmd below 0.002, reconstruction_mse below 0.05",
        ("conv", "mnist"): "a fresh discriminator's bce 0.65 to 0.68, reconstruction_mse 0.039 to 0.040",
        ("mixture", "mnist"): "0.96 to 0.97 of the codes in their own region",
        ("swiss-roll", "mnist"): "0.955 to 0.96 of the codes in their own region",
        ("semi-supervised", "mnist"): "about 2% classified wrongly",
    }

    def seen(self, config: RunConfig, data: Dataset) -> Dataset:
        """The data, with only ``labels`` training labels kept."""
        return replace(data, train=keep_labels(data.train, config.training.labels, stream(config.seed, "labels")))

    def selection(self, config: RunConfig) -> Selection:
        """The reconstruction error: how well the codes match the prior varies too much from epoch to epoch."""
        return Selection(("reconstruction_mse",))

    def build(self, config: RunConfig) -> AAE:
        """A new adversarial autoencoder."""
        return AAE(config.network, stream(config.seed, "parameters"))

    def task(self, config: RunConfig, model: AAE, data: Dataset) -> AAETask:
        """The AAE in training. UserError for labels that no network uses, or that the decoder lacks."""
        if config.training.labels and not data.classes:
            raise UserError("the data have no labels; give --labels 0, or data whose pictures are sorted into classes")
        if config.training.labels and config.network.labels_for == "discriminator" and not model.regional:
            raise UserError(
                f"no network uses the labels: the prior {config.network.prior} has no regions for classes; use --prior "
                "mixture or swiss-roll, or another --labels-for"
            )
        if config.network.labels_for == "decoder" and not config.training.labels:
            raise UserError("the decoder needs labels; give the number of labelled images with --labels")
        require_batches(config, data)
        given = data.train.labels != UNLABELLED
        labelled = Split(data.train.images[given], data.train.labels[given])
        steps_per_epoch = math.ceil(len(data.train) / config.batch_size)
        random = RandomStream(stream(config.seed, "noise"))
        measure = partial(health, config.training.labels)
        return AAETask(
            model, config.training, random, steps_per_epoch, config.epochs, labelled, measure, data.image_shape
        )

    def evaluate(
        self, config: RunConfig, model: AAE, data: Dataset, limit: int | None = None, iw_samples: int | None = None
    ) -> dict[str, Any]:
        """Reconstruction error, and the match of codes and prior, over the first ``limit`` test images."""
        if iw_samples is not None:
            raise UserError("an AAE has no likelihood; leave --iw-samples out")
        if limit is not None and limit < 2:
            raise UserError("codes are compared in pairs; give a --limit of 2 or more")
        rng = stream(config.seed, "final evaluation")
        labels = _learnt(data.test.labels[:limit], config.training.labels)
        codes, table = _measured(model, data.test.images[:limit], labels, rng)
        train_codes, _ = encode(model, data.train.images, rng)
        prior = model.prior.sample(len(train_codes), rng)
        draws = [model.prior.sample(len(codes), rng) for _ in range(2 * PRIOR_PAIRS)]
        scale = kernel_scale(prior)
        alike = [mmd(x, y, scale) for x, y in zip(draws[::2], draws[1::2], strict=True)]
        return {
            **table,
            "mmd": mmd(codes, draws[0], scale),
            # the root mean square, since the expectation is 0
            "mmd_prior_vs_prior": math.sqrt(np.mean(np.square(alike))),
            "fresh_discriminator_bce": fresh_discriminator_bce(train_codes, prior, codes, draws[0], rng),
        }

    def report(self, config: RunConfig, test: dict[str, Any]) -> str:
        """Reconstruction error, and the match of codes and prior."""
        labels = {"own_region": "in their class's own region", "error_rate": "classified wrongly"}
        return (
            f"test: reconstruction_mse {test['reconstruction_mse']:.4f} a pixel;  codes against the prior: "
            f"mmd {test['mmd']:.1e} (the prior with itself {test['mmd_prior_vs_prior']:.1e}), "
            f"a fresh discriminator's bce {test['fresh_discriminator_bce']:.3f} of {math.log(2):.3f} nats"
            + "".join(f";  {test[name]:.2%} {words}" for name, words in labels.items() if name in test)
        )

    def sample(
        self, config: RunConfig, model: AAE, n: int, rng: np.random.Generator, label: int | None = None
    ) -> np.ndarray:
        """Pictures (n, D) of n draws from the prior, with uniform classes if the decoder takes them.

        With ``label``, that class for the decoder, or draws from its region of the prior.
        """
        if label is None:
            return decode(model, model.prior.sample(n, rng), rng.integers(model.config.classes, size=n))
        _require_classes(config, model)
        labels = np.full(n, label)
        return decode(model, model.prior.sample(n, rng, labels if model.regional else None), labels)

    def walk(
        self,
        config: RunConfig,
        model: AAE,
        frames: int,
        waves: int,
        rng: np.random.Generator,
        label: int | None = None,
    ) -> np.ndarray:
        """Pictures (frames, D) along a closed path through the prior, and the classes if the decoder takes them.

        With ``label``, that class for the decoder, or a path within its region of the prior.
        """
        if label is not None:
            _require_classes(config, model)
        codes = model.prior.loop(frames, waves, rng, label if model.regional else None)
        classes = classes_in_turn(frames, model.config.classes, label) if model.decodes_classes else None
        return _pictures(model, codes, classes)

    def encode(self, config: RunConfig, model: AAE, images: np.ndarray, labels: np.ndarray) -> dict[str, np.ndarray]:
        """``codes`` (n, J): draws of q(z|x); and if the encoder classifies, ``predicted`` (n,)."""
        codes, classes = encode(model, images, stream(config.seed, "final evaluation"))
        return {"codes": codes} | ({} if classes is None else {"predicted": classes})

    def reconstruct(self, config: RunConfig, model: AAE, images: np.ndarray, labels: np.ndarray) -> np.ndarray:
        """Pictures (n, D) of the codes of images (n, D)."""
        return decode(model, *self._codes_and_classes(config, model, images, labels))

    def _codes_and_classes(
        self, config: RunConfig, model: AAE, images: np.ndarray, labels: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Codes (n, J) of images (n, D), and their classes (n,): predicted, or else their labels."""
        if config.network.labels_for == "decoder":
            require_each_label(labels)
        codes, classes = encode(model, images, stream(config.seed, "final evaluation"))
        return codes, labels if classes is None else classes

    def explorable(self, config: RunConfig, model: AAE, data: Dataset) -> Explorable:
        """Encoder and decoder, and codes of the test images."""
        network, images, encoder = config.network, data.test.images, model.encoder
        codes, _ = encode(model, images, stream(config.seed, "final evaluation"))
        networks = {
            "images": encoder.images,
            "encoder": encoder.body,
            "mean": encoder.code,
            "decoder": model.decoder,
            "output": Sequential(),
        }
        if network.posterior == "gaussian":
            networks["logvar"] = encoder.logvar
        if network.labels_for == "encoder":
            networks["classes"] = encoder.classes
        facts = {
            "posterior": network.posterior,
            "noiseDim": network.noise_dim,
            "decoderClasses": model.decodes_classes,
            "decoderGives": "logits",
            "regionsOfClasses": model.regional and config.training.labels > 0,
        }
        return Explorable(networks, model.prior, codes.var(axis=0), facts, images, codes)

    def draw(
        self, config: RunConfig, model: AAE, data: Dataset, history: list[dict[str, Any]], folder: Path
    ) -> list[Path]:
        """Samples, reconstructions and loss curves; codes beside the prior and its manifold, or styles by digits.

        With cluster heads of two dimensions also what the decoder takes of the test images, their sums with codes.
        """
        from scratchgen import figures  # imported here: matplotlib takes half a second to import

        test, shape, rng = data.test, data.image_shape, stream(config.seed, "samples")
        classes = model.config.classes
        known, names = (test.labels, data.classes) if data.classes else (None, tuple(map(str, range(classes))))
        reconstructions = self.reconstruct(config, model, test.images[:20], test.labels[:20])
        paths = [
            figures.save_samples(folder / "samples.png", self.sample(config, model, 100, rng), shape),
            figures.save_pairs(folder / "reconstructions.png", test.images[:20], reconstructions, shape),
            figures.save_loss_curves(folder / "losses.png", history, ylabel=""),
        ]
        if model.decodes_classes:
            pictures = decode(model, *by_class(encode(model, test.images[:10], rng)[0], classes))  # one row per style
            paths.append(figures.save_samples(folder / "styles.png", pictures, shape, classes))
            if model.heads and model.config.latent_dim == 2:
                points = represent(model, *self._codes_and_classes(config, model, test.images, test.labels))
                paths.append(figures.save_latent_scatter(folder / "representation.png", points, known, classes=names))
        elif model.config.latent_dim == 2:
            codes, _ = encode(model, test.images, rng)
            labels = rng.integers(classes, size=2000) if model.regional else None
            samples = model.prior.sample(2000, rng, labels)
            paths.append(
                figures.save_latent_scatter(
                    folder / "latent.png",
                    codes,
                    known,
                    title="codes of test images",
                    prior_samples=samples,
                    prior_labels=labels,
                    classes=names,
                )
            )
            rows = classes if model.regional else 20
            walk = decode(model, model.prior.walk(rows, 20))
            if model.config.prior == "gaussian":
                paths.append(figures.save_manifold(folder / "manifold.png", walk, rows, 20, shape))
            else:
                paths.append(figures.save_samples(folder / "manifold.png", walk, shape, 20))
        return paths


def _require_classes(config: RunConfig, model: AAE) -> None:
    """UserError if the run has learnt no classes, of which one could be chosen."""
    if not config.training.labels or not (model.decodes_classes or model.regional):
        raise UserError(
            "the run has learnt no classes, so none can be chosen; train a run with labels: with --config supervised, "
            "mixture, swiss-roll or semi-supervised"
        )


def health(given: int, model: AAE, data: Dataset, rng: np.random.Generator) -> Metrics:
    """The metrics of an adversarial autoencoder at the end of an epoch, of a training with so many labels."""
    images, labels = data.test.images[:CODES_AN_EPOCH], data.test.labels[:CODES_AN_EPOCH]
    codes, table = _measured(model, images, _learnt(labels, given), rng)
    prior = model.prior.sample(len(codes), rng)
    return table | {"mmd": mmd(codes, prior, kernel_scale(prior)), "code_sd": float(codes.std(axis=0).mean())}


def _learnt(labels: np.ndarray, given: int) -> np.ndarray:
    """The labels (n,), or ``UNLABELLED`` where none were given in training: regions and clusters are of no class."""
    return labels if given else np.full_like(labels, UNLABELLED)


def _measured(
    model: AAE, images: np.ndarray, labels: np.ndarray, rng: np.random.Generator
) -> tuple[np.ndarray, dict[str, float]]:
    """The codes (n, J) of images (n, D), and the metrics of their reconstructions and classes."""
    codes, classes = encode(model, images, rng)
    pictures = decode(model, codes, labels if classes is None else classes)
    table = {"reconstruction_mse": float(np.mean((pictures - images) ** 2, dtype=np.float64))}
    labelled = bool((labels != UNLABELLED).all())
    if model.regional and labelled:
        table["own_region"] = float(np.mean(model.prior.region(codes) == labels))
    if classes is not None and labelled:
        table["error_rate"] = float(np.mean(classes != labels))
    return codes, table


def encode(model: AAE, images: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray | None]:
    """Draws of z (n, J) from q(z|x) of images (n, D), and the most probable classes (n,) if the encoder classifies."""
    random = RandomStream(rng)

    def codes_of(x: Tensor) -> tuple[Tensor, ...]:
        z, class_logits = model.encode(x, model.draw_noise(len(x), random))
        return (z,) if class_logits is None else (z, class_logits)

    with evaluating(model):
        codes, *class_logits = in_batches(codes_of, images, size=ROWS, dtype=model.dtype)
    return codes, class_logits[0].argmax(axis=1) if class_logits else None


def represent(model: AAE, codes: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """The sum (n, J) of codes (n, J) and of the cluster heads of labels (n,), for a decoder that has them."""
    heads = model.heads
    assert heads is not None
    beside = np.concatenate([codes, one_hot(labels, model.config.classes, model.dtype)], axis=1)
    return in_batches(lambda x: (heads(x),), beside, size=ROWS, dtype=model.dtype)[0]


def decode(model: AAE, codes: np.ndarray, labels: np.ndarray | None = None) -> np.ndarray:
    """Pictures (n, D) of codes (n, J) and of labels (n,), which are used only if the decoder takes them."""
    if labels is None or not model.decodes_classes:
        return _pictures(model, codes, None)
    return _pictures(model, codes, one_hot(labels, model.config.classes, model.dtype))


def _pictures(model: AAE, codes: np.ndarray, classes: np.ndarray | None) -> np.ndarray:
    """Pictures (n, D) of codes (n, J) and, if the decoder takes them, classes (n, C)."""
    given = [codes] if classes is None else [codes, classes]
    return in_batches(lambda z, y=None: (model.mean(z, y),), *given, size=ROWS, dtype=model.dtype)[0]
