"""The GAN's recipe: named configurations, evaluation of its samples, figures."""

import math
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from tqdm import tqdm

from scratchgen import ops
from scratchgen.data import Dataset
from scratchgen.data.dataset import Split
from scratchgen.errors import UserError
from scratchgen.evaluation.ais import Protocol
from scratchgen.evaluation.decoder import Decoder, gan_decoder
from scratchgen.evaluation.features import NEIGHBOUR, feature_statistics, frechet_error, nearest
from scratchgen.evaluation.samples import class_accuracy, class_histogram, class_statistics, missing_classes, overlap
from scratchgen.inference import in_batches
from scratchgen.judge import Judge, load_judge
from scratchgen.models.gan import GAN, GANConfig
from scratchgen.models.wgan import check_critic
from scratchgen.nn import Sequential, evaluating
from scratchgen.priors import Gaussian, Prior, Uniform
from scratchgen.random import RandomStream, stream
from scratchgen.recipes.recipe import (
    Explorable,
    Recipe,
    RunConfig,
    by_class,
    named,
    require_batches,
    require_labels,
    sample_labels,
    walk_classes,
)
from scratchgen.tasks.gan import GANTask, GANTraining, load_averaged
from scratchgen.tasks.task import Metrics
from scratchgen.tasks.wgan import WGANTask
from scratchgen.tensor import Tensor
from scratchgen.training import Selection

SAMPLES, SAMPLES_AN_EPOCH = 10_000, 2_000  # judged for the summary, and after each epoch
NEAREST = 20  # samples that are shown above their nearest training images
EXPLORED = 100  # draws of noise, over which it is found how much each of its numbers changes the pictures
ROWS = 1_000  # pictures generated or judged at a time

# The metrics of a Wasserstein GAN; the first is an estimate of the distance.
WASSERSTEIN = {"wasserstein": "mean f(x) − mean f(G(z))", "penalty": "mean (|∇f| − 1)²", "g_loss": "−mean f(G(z))"}


class GANRecipe(Recipe):
    """Generative adversarial networks."""

    model = "gan"
    network, training = GANConfig, GANTraining
    configs: ClassVar = named(
        # Without batch normalisation the generator collapses within a few epochs. Judging pictures in pairs keeps the
        # ten classes balanced at a learning rate that would otherwise lose some. Dropout in D would weaken it too much
        # for clean strokes. The averaged generator and the cosine schedule remove the noise of the last steps.
        RunConfig("gan", "mlp", GANConfig(), GANTraining(), epochs=40, batch_size=128),
        # The network of Goodfellow et al. 2014, from their code: maxout and dropout, uniform noise, a momentum that
        # rises to 0.7 over 250 epochs, weights initialised within 0.05 in G and within 0.005 in D, and in D of norm
        # 1.9365 at most.
        RunConfig(
            "gan",
            "goodfellow",
            GANConfig(
                latent_dim=100,
                noise="uniform",
                generator_hidden=(1200, 1200),
                batch_norm=False,
                discriminator_hidden=(240, 240),
                discriminator="maxout",
                pack=1,
                input_dropout=0.2,
                hidden_dropout=0.5,
                initializer="uniform",
                discriminator_initializer="small_uniform",
            ),
            GANTraining(
                real_label=1.0,
                optimizer="momentum",
                generator_lr=0.1,
                discriminator_lr=0.1,
                schedule="goodfellow",
                final_momentum=0.7,
                momentum_epochs=250.0,
                average=0.0,
                max_norm=1.9365,
            ),
            epochs=50,
            batch_size=100,
        ),
        # The deep convolutional GAN of Radford et al. 2015, scaled to images of 28 by 28 pixels. Without hidden layers
        # in G too much of the noise lies between two digits: after ten epochs the judge's confidence is 0.88, not 0.96.
        # With them D needs one, too.
        RunConfig(
            "gan",
            "dcgan",
            GANConfig(
                latent_dim=20,
                generator_hidden=(256, 512),
                generator_channels=(64, 32),
                discriminator_hidden=(256,),
                discriminator_channels=(32, 64),
                initializer="normal",
                discriminator_initializer="normal",
            ),
            GANTraining(),
            epochs=24,
            batch_size=64,
        ),
        # The same layers with the distance and the gradient penalty of Gulrajani et al. 2017, and their five steps of
        # f, which must judge pictures one by one and have no batch normalisation.
        RunConfig(
            "gan",
            "wgan-gp",
            GANConfig(
                latent_dim=20,
                generator_hidden=(256, 512),
                generator_channels=(64, 32),
                discriminator_hidden=(256,),
                discriminator_channels=(32, 64),
                discriminator_batch_norm=False,
                pack=1,
            ),
            GANTraining(
                objective="wasserstein", discriminator_steps=5, generator_lr=5e-4, discriminator_lr=5e-4, momentum=0.0
            ),
            epochs=24,
            batch_size=64,
        ),
    )
    # Of 10,000 samples: shares and entropies over three seeds, confidences and distances of one.
    expected: ClassVar = {
        (
            "mlp",
            "mnist",
        ): "10 classes, each above 8%; class entropy 2.29 to 2.30; judge's confidence 0.91; Fréchet distance 4.3",
        (
            "dcgan",
            "mnist",
        ): "10 classes, each above 7%; class entropy 2.29 to 2.30; judge's confidence 0.97; Fréchet distance 1.0",
    }

    def selection(self, config: RunConfig) -> Selection:
        """Classes, then legibility: a generator that draws one class only may draw it well."""
        return Selection(("classes_covered", "judge_confidence"), larger=True)

    def build(self, config: RunConfig) -> GAN:
        """A new GAN."""
        return GAN(config.network, stream(config.seed, "parameters"))

    def task(self, config: RunConfig, model: GAN, data: Dataset) -> GANTask:
        """The GAN in training. UserError if an epoch's last batch would be too small, or a label is missing."""
        if config.network.conditional:
            require_labels(data.train, config.network.classes)
        require_batches(config, data, config.network.pack)
        steps_per_epoch = math.ceil(len(data.train) / config.batch_size)
        random = RandomStream(stream(config.seed, "noise"))
        wasserstein = config.training.objective == "wasserstein"
        if wasserstein:
            model.set_random(random)  # for dropout, which the check meets
            try:
                check_critic(model)
            except TypeError as error:
                raise UserError(
                    f"the objective wasserstein does not fit this network: {error}; use --config wgan-gp"
                ) from None
        if not data.classes:
            if config.patience is not None:
                raise UserError(
                    "without labels there is no judge of samples, by which --patience would find the best epoch; leave "
                    "it out"
                )
            print("the data have no labels to train a judge with: samples are not judged", file=sys.stderr)
        health, kind = Health(judge_of(data), wasserstein), WGANTask if wasserstein else GANTask
        return kind(model, config.training, random, steps_per_epoch, config.epochs, health)

    def load(self, model: GAN, arrays: Mapping[str, np.ndarray]) -> None:
        """Load a checkpoint's parameters into the model, with the averaged generator."""
        load_averaged(model, arrays)
        model.eval()

    def evaluate(
        self, config: RunConfig, model: GAN, data: Dataset, limit: int | None = None, iw_samples: int | None = None
    ) -> dict[str, Any]:
        """Metrics of 10,000 samples and all test images, or of ``limit`` of each; without labels none of the judge.

        The samples of a conditional GAN have uniform labels; ``class_accuracy`` is how often the judge agrees. In the
        judge's features samples are compared with test images (``evaluation.features``), and, in ``as_training``, so
        are as many training images: of both sets as many as the smaller one has.
        """
        if iw_samples is not None:
            raise UserError("a GAN has no encoder, which L_K needs; leave --iw-samples out, or give --ais")
        if limit is not None and limit < model.config.pack:
            raise UserError(f"the discriminator judges {model.config.pack} together; give a larger --limit")
        judge, rng = judge_of(data), stream(config.seed, "final evaluation")
        test = Split(data.test.images[:limit], data.test.labels[:limit])
        wasserstein = config.training.objective == "wasserstein"
        n = limit or SAMPLES
        samples, probabilities, table = measure(model, judge, test, n, rng, wasserstein)
        table["samples"] = n
        if judge is not None and probabilities is not None:
            table["judge_accuracy"] = judge.accuracy
            table["class_histogram"] = class_histogram(probabilities).tolist()
            few = min(n, len(data.train))
            real, fake, train = map(judge.features, (test.images, samples[:few], data.train.images[:few]))
            if min(few, len(test)) > NEIGHBOUR and np.isfinite(fake).all():
                table |= feature_statistics(real, fake) | {"frechet_error": frechet_error(real, fake, rng)}
                table["as_training"] = feature_statistics(real, train)
        return table

    def decoder(self, config: RunConfig, model: GAN, sigma: float | None) -> Decoder:
        """The generator, with pixels of standard deviation ``sigma``."""
        if sigma is None:
            raise ValueError("a GAN has no likelihood of its own: sigma is needed")
        return gan_decoder(model, sigma)

    def evaluate_ais(self, config: RunConfig, model: GAN, data: Dataset, protocol: Protocol) -> dict[str, Any]:
        """log p(x) of the first test images by AIS, by default with the best sigma, since a GAN has none of its own."""
        return super().evaluate_ais(config, model, data, replace(protocol, sigma=protocol.sigma or "best"))

    def report(self, config: RunConfig, test: dict[str, Any]) -> str:
        """Class coverage, the judge's confidence, and D's outputs."""
        if "wasserstein" in test:
            critic = f"f(x) - f(G(z)) {test['wasserstein']:.2f}"
        else:
            critic = f"D(x) {test['d_real']:.2f}, D(G(z)) {test['d_fake']:.2f}"
        critic += f", overlap {test['overlap']:.2f}"
        if "class_histogram" not in test:
            return f"{test['samples']:,} samples, which no judge has seen;  {critic}"
        asked = f"; {test['class_accuracy']:.1%} of the class asked for" if "class_accuracy" in test else ""
        near, classes = "", len(test["class_histogram"])
        if "frechet_distance" in test:
            near = (
                f"Fréchet distance {test['frechet_distance']:.1f} ± {test['frechet_error']:.1f}, of training images "
                f"{test['as_training']['frechet_distance']:.1f}; precision {test['precision']:.2f}, recall "
                f"{test['recall']:.2f};  "
            )
        return (
            f"{test['samples']:,} samples: {test['classes_covered']} of {classes} classes, the smallest "
            f"{test['smallest_class']:.1%}; class entropy {test['class_entropy']:.3f} of {math.log(classes):.3f} nats; "
            f"judge's confidence {test['judge_confidence']:.3f}{asked};  {near}{critic}"
        )

    def sample(
        self, config: RunConfig, model: GAN, n: int, rng: np.random.Generator, label: int | None = None
    ) -> np.ndarray:
        """n samples (n, D), of class ``label``, or of uniform ones, if G takes them."""
        return draw_samples(model, sample_labels(model, n, rng, label), rng)

    def walk(
        self,
        config: RunConfig,
        model: GAN,
        frames: int,
        waves: int,
        rng: np.random.Generator,
        label: int | None = None,
    ) -> np.ndarray:
        """Samples (frames, D) along a closed path through the noise."""
        classes = walk_classes(model, frames, label)
        return _generated(model, noise_prior(config.network).loop(frames, waves, rng), classes)

    def explorable(self, config: RunConfig, model: GAN, data: Dataset) -> Explorable:
        """The generator."""
        prior, rng = noise_prior(config.network), stream(config.seed, "samples")
        networks = {"decoder": model.generator, "output": Sequential()}
        facts = {"decoderClasses": config.network.conditional, "decoderGives": "means"}
        return Explorable(networks, prior, pixel_changes(model, prior.sample(EXPLORED, rng), rng), facts)

    def draw(
        self, config: RunConfig, model: GAN, data: Dataset, history: list[dict[str, Any]], folder: Path
    ) -> list[Path]:
        """Samples, the nearest training images of some, loss curves, and the metrics of the samples.

        The samples of a conditional GAN have a draw of noise each row and a class each column.
        """
        from scratchgen import figures  # imported here: matplotlib takes half a second to import

        rng, test = stream(config.seed, "samples"), data.test
        labels = sample_labels(model, SAMPLES_AN_EPOCH, rng)
        samples = draw_samples(model, labels, rng)
        on_real, on_fake = logits(model, test.images, test.labels), logits(model, samples, labels)
        judge = judge_of(data)
        counts = None if judge is None else class_histogram(judge.probabilities(samples))
        critic, columns, shown = config.training.objective == "wasserstein", 10, samples[:100]
        if model.config.conditional:
            columns = model.config.classes
            shown = generate(model, *by_class(model.draw_noise(10, RandomStream(rng)).data, columns))
        some, images, names = samples[:NEAREST], data.train.images, ("sample", "nearest\ntraining image")
        return [
            figures.save_samples(folder / "samples.png", shown, data.image_shape, columns),
            figures.save_pairs(folder / "nearest.png", some, images[nearest(some, images)[0]], data.image_shape, names),
            figures.save_loss_curves(folder / "losses.png", history, ylabel="", formulas=WASSERSTEIN if critic else {}),
            figures.save_health(folder / "health.png", on_real, on_fake, counts, critic, data.classes),
        ]


def judge_of(data: Dataset) -> Judge | None:
    """The judge of samples, or None for data without labels, of which it cannot be trained."""
    return load_judge(data) if data.classes else None


class Health:
    """The metrics of a GAN at the end of an epoch, with a warning if classes are missing."""

    def __init__(self, judge: Judge | None, wasserstein: bool = False) -> None:
        self.judge, self.missing, self.wasserstein = judge, list[int](), wasserstein

    def __call__(self, model: GAN, data: Dataset, rng: np.random.Generator) -> Metrics:
        _, probabilities, table = measure(model, self.judge, data.test, SAMPLES_AN_EPOCH, rng, self.wasserstein)
        missing = [] if probabilities is None else missing_classes(probabilities)
        if missing and missing != self.missing and np.isfinite(list(table.values())).all():
            classes = ", ".join(data.classes[label] for label in missing)
            tqdm.write(f"mode collapse? {SAMPLES_AN_EPOCH:,} samples contain almost none of {classes}", file=sys.stderr)
        self.missing = missing
        return table


def measure(
    model: GAN, judge: Judge | None, test: Split, n: int, rng: np.random.Generator, wasserstein: bool
) -> tuple[np.ndarray, np.ndarray | None, dict[str, Any]]:
    """n samples (n, D), the judge's probabilities (n, C), if there is one, and metrics of samples and test images."""
    labels = sample_labels(model, n, rng)
    samples = draw_samples(model, labels, rng)
    probabilities, table = None, dict[str, Any]()
    if judge is not None:
        probabilities = judge.probabilities(samples)
        table = class_statistics(probabilities)
        if model.config.conditional:
            table["class_accuracy"] = class_accuracy(probabilities, labels)
    statistics = critic_statistics if wasserstein else discriminator_statistics
    table |= statistics(logits(model, test.images, test.labels), logits(model, samples, labels))
    return samples, probabilities, table


def draw_samples(model: GAN, labels: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A sample (n, D) for each of the labels (n,), which are used only if G takes them."""
    random = RandomStream(rng)
    parts = [labels[start : start + ROWS] for start in range(0, len(labels), ROWS)]
    return np.concatenate([generate(model, model.draw_noise(len(part), random).data, part) for part in parts])


def generate(model: GAN, noise: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """G(z) (n, D) of noise (n, J), in evaluation mode: batch normalisation uses its moving averages."""
    return _generated(model, noise, model.labels_given(labels))


def _generated(model: GAN, noise: np.ndarray, classes: np.ndarray | None) -> np.ndarray:
    """G(z) (n, D) of noise (n, J) and, if G takes them, classes (n, C)."""
    given = [noise] if classes is None else [noise, classes]
    with evaluating(model):
        return in_batches(lambda z, y=None: (model.generate(z, y),), *given, size=ROWS, dtype=model.dtype)[0]


def noise_prior(network: GANConfig) -> Prior:
    """p(z)."""
    return Gaussian(network.latent_dim) if network.noise == "normal" else Uniform(network.latent_dim, math.sqrt(3))


def pixel_changes(model: GAN, noise: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """How far a pixel moves, as root mean square (J,), as each number of the noise (n, J) goes from -1 to 1."""
    labels, changes = sample_labels(model, len(noise), rng), list[float]()
    for j in range(noise.shape[1]):
        low, high = noise.copy(), noise.copy()
        low[:, j], high[:, j] = -1, 1
        difference = generate(model, high, labels) - generate(model, low, labels)
        changes.append(math.sqrt(np.mean(difference**2, dtype=np.float64)))
    return np.array(changes)


def logits(model: GAN, images: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """D's logits, or f of a critic, (n / pack,) of images (n, D) and their labels (n,), if D takes them, no dropout.

    An incomplete last pack is left out.
    """
    pack, y = model.config.pack, model.labels_given(labels)
    whole = len(images) - len(images) % pack
    packs = [rows[:whole].reshape(whole // pack, -1) for rows in (images, y) if rows is not None]

    def judged(*packed: Tensor) -> tuple[Tensor]:
        return (model.discriminate(*(rows.reshape(len(rows) * pack, -1) for rows in packed)),)

    with evaluating(model):
        (found,) = in_batches(judged, *packs, size=ROWS // pack, dtype=model.dtype)
    return found[:, 0]


def discriminator_statistics(real: np.ndarray, fake: np.ndarray) -> Metrics:
    """``d_real`` and ``d_fake``, means of D over images and samples, of its logits (n,) and (m,); their ``overlap``."""
    certainty = [float(ops.sigmoid(Tensor(found)).data.mean()) for found in (real, fake)]
    return {"d_real": certainty[0], "d_fake": certainty[1], "overlap": overlap(real, fake)}


def critic_statistics(real: np.ndarray, fake: np.ndarray) -> Metrics:
    """``wasserstein``, the difference of the critic's means over images (n,) and samples (m,), and ``overlap``."""
    difference = float(real.mean(dtype=np.float64) - fake.mean(dtype=np.float64))
    return {"wasserstein": difference, "overlap": overlap(real, fake)}
