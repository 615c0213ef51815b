"""The GAN's recipe: named configurations, evaluation of its samples, figures."""

import math
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from tqdm import tqdm

from scratchgen import ops
from scratchgen.data import Dataset
from scratchgen.errors import UserError
from scratchgen.evaluation.samples import class_histogram, class_statistics, missing_classes, overlap
from scratchgen.inference import in_batches
from scratchgen.judge import Judge, load_judge
from scratchgen.models.gan import GAN, GANConfig
from scratchgen.models.wgan import check_critic
from scratchgen.nn import evaluating
from scratchgen.random import RandomStream, stream
from scratchgen.recipes.recipe import Recipe, RunConfig, named
from scratchgen.tasks.gan import GANTask, GANTraining, load_averaged
from scratchgen.tasks.task import Metrics
from scratchgen.tasks.wgan import WGANTask
from scratchgen.tensor import Tensor

SAMPLES, SAMPLES_AN_EPOCH = 10_000, 2_000  # judged for the summary, and after each epoch
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
        # rises to 0.7 over 250 epochs, weights initialised within 0.05 in G and within 0.005 in D. Their code also
        # bounds the norm of D's weights, which is not done here: in the first epoch D separates data and samples
        # completely, and G draws one class; after nine epochs it draws all ten.
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
            ),
            epochs=50,
            batch_size=100,
        ),
        # The deep convolutional GAN of Radford et al. 2015, scaled to images of 28 by 28 pixels.
        RunConfig(
            "gan",
            "dcgan",
            GANConfig(
                latent_dim=100,
                generator_hidden=(),
                generator_channels=(128, 64),
                discriminator_hidden=(),
                discriminator_channels=(64, 128),
                pack=1,
                initializer="normal",
                discriminator_initializer="normal",
            ),
            GANTraining(generator_lr=2e-4, discriminator_lr=2e-4),
            epochs=20,
            batch_size=64,
        ),
        # The same with the distance and the gradient penalty of Gulrajani et al. 2017, and their five steps of f.
        RunConfig(
            "gan",
            "wgan-gp",
            GANConfig(
                latent_dim=100,
                generator_hidden=(),
                generator_channels=(128, 64),
                discriminator_hidden=(),
                discriminator_channels=(64, 128),
                discriminator_batch_norm=False,
                pack=1,
            ),
            GANTraining(
                objective="wasserstein", discriminator_steps=5, generator_lr=2e-4, discriminator_lr=2e-4, momentum=0.0
            ),
            epochs=20,
            batch_size=64,
        ),
    )
    # Of 10,000 samples, over three seeds.
    expected: ClassVar = {
        ("mlp", "mnist"): "10 classes, each above 8%; class entropy 2.29 to 2.30; judge's confidence 0.92 to 0.93",
    }

    def build(self, config: RunConfig) -> GAN:
        """A new GAN."""
        return GAN(config.network, stream(config.seed, "parameters"))

    def task(self, config: RunConfig, model: GAN, data: Dataset) -> GANTask:
        """The GAN in training. UserError if an epoch's last batch would be too small."""
        smallest = len(data.train) % config.batch_size or min(config.batch_size, len(data.train))
        for least, why in (
            (config.network.pack, f"the discriminator judges {config.network.pack} together"),
            (2 if config.network.batch_norm else 1, "batch normalisation needs two images"),
        ):
            if smallest < least:
                raise UserError(
                    f"{len(data.train)} images in batches of {config.batch_size} leave a batch of {smallest}, but "
                    f"{why}; give another --batch-size"
                )
        steps_per_epoch = math.ceil(len(data.train) / config.batch_size)
        random = RandomStream(stream(config.seed, "noise"))
        wasserstein = config.training.objective == "wasserstein"
        if wasserstein:
            try:
                check_critic(model)
            except TypeError as error:
                raise UserError(f"the objective wasserstein does not fit this network: {error}") from None
        health, kind = Health(load_judge(data), wasserstein), WGANTask if wasserstein else GANTask
        return kind(model, config.training, random, steps_per_epoch, config.epochs, health)

    def load(self, model: GAN, arrays: Mapping[str, np.ndarray]) -> None:
        """Load a checkpoint's parameters into the model, with the averaged generator."""
        load_averaged(model, arrays)
        model.eval()

    def evaluate(
        self, config: RunConfig, model: GAN, data: Dataset, limit: int | None = None, iw_samples: int | None = None
    ) -> dict[str, Any]:
        """Metrics of 10,000 samples and all test images, or of ``limit`` of each."""
        if iw_samples is not None:
            raise UserError("a GAN has no likelihood; leave --iw-samples out")
        if limit is not None and limit < model.config.pack:
            raise UserError(f"the discriminator judges {model.config.pack} together; give a larger --limit")
        judge, rng = load_judge(data), stream(config.seed, "final evaluation")
        samples = draw_samples(model, limit or SAMPLES, rng)
        probabilities = judge.probabilities(samples)
        statistics = critic_statistics if config.training.objective == "wasserstein" else discriminator_statistics
        return {
            **class_statistics(probabilities),
            **statistics(model, data.test.images[:limit], samples),
            "samples": len(samples),
            "judge_accuracy": judge.accuracy,
            "class_histogram": class_histogram(probabilities).tolist(),
        }

    def report(self, config: RunConfig, test: dict[str, Any]) -> str:
        """Class coverage, the judge's confidence, and D's outputs."""
        if "wasserstein" in test:
            critic = f"f(x) - f(G(z)) {test['wasserstein']:.2f}"
        else:
            critic = f"D(x) {test['d_real']:.2f}, D(G(z)) {test['d_fake']:.2f}"
        return (
            f"{test['samples']:,} samples: {test['classes_covered']} of 10 classes, the smallest "
            f"{test['smallest_class']:.1%}; class entropy {test['class_entropy']:.3f} of {math.log(10):.3f} nats; "
            f"judge's confidence {test['judge_confidence']:.3f};  {critic}, overlap {test['overlap']:.2f}"
        )

    def sample(self, config: RunConfig, model: GAN, n: int, rng: np.random.Generator) -> np.ndarray:
        """n samples (n, D)."""
        return draw_samples(model, n, rng)

    def draw(
        self, config: RunConfig, model: GAN, data: Dataset, history: list[dict[str, Any]], folder: Path
    ) -> list[Path]:
        """Samples, loss curves, and the metrics of the samples."""
        from scratchgen import figures  # imported here: matplotlib takes half a second to import

        samples = draw_samples(model, SAMPLES_AN_EPOCH, stream(config.seed, "samples"))
        on_real, on_fake = (logits(model, images) for images in (data.test.images, samples))
        counts = class_histogram(load_judge(data).probabilities(samples))
        critic = config.training.objective == "wasserstein"
        return [
            figures.save_samples(folder / "samples.png", samples[:100], data.image_shape),
            figures.save_loss_curves(folder / "losses.png", history, ylabel="", formulas=WASSERSTEIN if critic else {}),
            figures.save_health(folder / "health.png", on_real, on_fake, counts, critic),
        ]


class Health:
    """The metrics of a GAN at the end of an epoch, with a warning if classes are missing."""

    def __init__(self, judge: Judge, wasserstein: bool = False) -> None:
        self.judge, self.missing, self.wasserstein = judge, list[int](), wasserstein

    def __call__(self, model: GAN, data: Dataset, rng: np.random.Generator) -> Metrics:
        samples = draw_samples(model, SAMPLES_AN_EPOCH, rng)
        probabilities = self.judge.probabilities(samples)
        statistics = critic_statistics if self.wasserstein else discriminator_statistics
        table = class_statistics(probabilities) | statistics(model, data.test.images, samples)
        missing = missing_classes(probabilities)
        if missing and missing != self.missing and np.isfinite(list(table.values())).all():
            classes = ", ".join(map(str, missing))
            tqdm.write(f"mode collapse? {len(samples):,} samples contain almost none of {classes}", file=sys.stderr)
        self.missing = missing
        return table


def draw_samples(model: GAN, n: int, rng: np.random.Generator) -> np.ndarray:
    """n samples (n, D) in evaluation mode: batch normalisation uses its moving averages."""
    random = RandomStream(rng)
    with evaluating(model):
        counts = [min(ROWS, n - start) for start in range(0, n, ROWS)]
        return np.concatenate([model.generate(model.draw_noise(count, random)).data for count in counts])


def logits(model: GAN, images: np.ndarray) -> np.ndarray:
    """D's logits, or f of a critic, (n / pack,) of images (n, D), without dropout or an incomplete last pack."""
    pack, width = model.config.pack, model.config.input_dim
    packs = images[: len(images) - len(images) % pack].reshape(-1, pack * width)
    with evaluating(model):
        (found,) = in_batches(
            lambda x: (model.discriminate(x.reshape(-1, width)),), packs, size=ROWS // pack, dtype=model.dtype
        )
    return found[:, 0]


def discriminator_statistics(model: GAN, real: np.ndarray, fake: np.ndarray) -> Metrics:
    """``d_real`` and ``d_fake``, means of D over images (n, D) and samples (m, D); the ``overlap`` of its logits."""
    real_logits, fake_logits = logits(model, real), logits(model, fake)
    certainty = [float(ops.sigmoid(Tensor(found)).data.mean()) for found in (real_logits, fake_logits)]
    return {"d_real": certainty[0], "d_fake": certainty[1], "overlap": overlap(real_logits, fake_logits)}


def critic_statistics(model: GAN, real: np.ndarray, fake: np.ndarray) -> Metrics:
    """``wasserstein``, the difference of the critic's means over images (n, D) and samples (m, D), and ``overlap``."""
    on_real, on_fake = logits(model, real), logits(model, fake)
    difference = float(on_real.mean(dtype=np.float64) - on_fake.mean(dtype=np.float64))
    return {"wasserstein": difference, "overlap": overlap(on_real, on_fake)}
