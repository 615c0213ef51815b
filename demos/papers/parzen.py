"""Parzen-window log densities of samples of MNIST (Goodfellow et al. 2014, table 1; Makhzani et al. 2015, table 1).

    python demos/papers/parzen.py real-digits    seconds
    python demos/papers/parzen.py k-means        some minutes
    python demos/papers/parzen.py gan            two hours and a half on a core
    python demos/papers/parzen.py aae            ten minutes on a core
    python demos/papers/parzen.py ROW --quick    less than a minute

The figure is the mean log density of the 10,000 test images under windows of 10,000 samples, in nats, and its standard
error. Models are trained on the first 50,000 training images, and sigma is chosen by 1,000 of the others.

The rows gan and aae are far below the papers'. The GAN has 170 epochs, which give 170 nats where 50 gave 118; in its
code the momentum alone rises for 250. Of the autoencoder two trainings were compared by validation images, both of 20
epochs: that of the configuration gaussian, SGD for the encoder's adversarial update and a rate of 4e-4 for the
reconstruction, had 224 nats; Adam for that update, and a rate of 1e-3 for both, 234. Longer was worse: the first had
156 nats after 50 epochs, by the test images.

The measure is broken, and two rows show it. Real digits in the place of samples are the best that a model can draw, and
they score less than the paper's autoencoder. The centres of 10,000 clusters, blurred averages of digits, score far
above real digits: what is rewarded is to lie in the middle of many digits, not to look like one (Theis et al. 2016).
"""

import time
from argparse import Namespace
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from reproduce import TRAINING, Figure, command, options, record, trained, with_validation

from scratchgen import runs
from scratchgen.evaluation.features import nearest
from scratchgen.evaluation.parzen import parzen
from scratchgen.models.aae import AAEConfig
from scratchgen.models.gan import GANConfig
from scratchgen.random import stream
from scratchgen.recipes import RECIPES, RunConfig

MEASURE = "Parzen windows of 10,000 samples, log density of continuous pixels, nats a test image"
GAN, AAE = replace(RECIPES["gan"].configs["goodfellow"], epochs=170), RECIPES["aae"].configs["gaussian"]
WIDE = (1000, 1000)
ROWS: dict[str, tuple[Figure, RunConfig | None]] = {
    "real-digits": (Figure(MEASURE, "10,000 training digits as samples", "243", "Theis et al. 2016, table 1"), None),
    "k-means": (Figure(MEASURE, "the centres of 10,000 clusters of digits", "313", "Theis et al. 2016, table 1"), None),
    "gan": (Figure(MEASURE, "GAN", "225 ± 2", "Goodfellow et al. 2014, table 1"), GAN),
    "aae": (
        Figure(MEASURE, "adversarial autoencoder, codes of 8 dimensions", "340 ± 2", "Makhzani et al. 2015, table 1"),
        replace(
            AAE,
            network=AAEConfig(latent_dim=8, encoder_hidden=WIDE, decoder_hidden=WIDE, discriminator_hidden=WIDE),
            training=replace(AAE.training, reconstruction_lr=1e-3, encoder_lr=1e-3, encoder_optimizer="adam"),
            epochs=20,
        ),
    ),
}
SAMPLES, ROUNDS = 10_000, 10


def centres_of_clusters(images: np.ndarray, count: int, rounds: int, rng: np.random.Generator) -> np.ndarray:
    """The centres (count, D) of clusters of images (n, D), by Lloyd's algorithm from images as the first centres."""
    centres = images[rng.choice(len(images), count, replace=False)]
    for _ in range(rounds):
        places, _ = nearest(images, centres)
        members = np.bincount(places, minlength=count)
        sums = np.zeros_like(centres)
        np.add.at(sums, places, images)
        centres = np.where(members[:, None] > 0, sums / np.maximum(members, 1)[:, None], centres)
    return centres


def samples_of(
    row: str, config: RunConfig | None, given: Namespace, training: np.ndarray, path: Path
) -> tuple[np.ndarray, str, float]:
    """The samples (m, D) of a row, a word on their origin, and the seconds of training, 0 without any."""
    rng, count = stream(0, "samples"), 500 if given.quick else SAMPLES
    if row == "real-digits":
        return training[rng.choice(len(training), count, replace=False)], "drawn from the 50,000", 0
    if row == "k-means":
        rounds = 2 if given.quick else ROUNDS
        return (
            centres_of_clusters(training[: 20 * count], count, rounds, rng),
            f"{rounds} rounds of Lloyd's algorithm",
            0,
        )
    assert config is not None
    if given.quick:
        config = replace(config, epochs=1, network=_small(config.network))
    seconds = trained(replace(config, data=str(path)), given.out)["seconds"]
    config, model = runs.load_model(given.out)
    return RECIPES[config.model].sample(config, model, count, rng), f"{config.epochs} epochs", seconds


def _small(network: Any) -> Any:
    """A network to try the script with."""
    if isinstance(network, GANConfig):
        return replace(network, generator_hidden=(64,), discriminator_hidden=(32,))
    return replace(network, encoder_hidden=(64,), decoder_hidden=(64,), discriminator_hidden=(64,))


def main() -> None:
    """Draw, measure, record."""
    given, began = options("Parzen-window log densities, as in the papers on GANs.", ROWS), time.perf_counter()
    figure, config = ROWS[given.row]
    data, path = with_validation(given.out.parent, given.data_dir)
    samples, note, seconds = samples_of(given.row, config, given, data.train.images[:TRAINING], path)
    validation, test = data.train.images[TRAINING:][:1_000], data.test.images[: 500 if given.quick else None]
    found = parzen(samples, validation, test)
    ours = f"{found.log_density:.1f} ± {found.standard_error:.1f}"
    if given.quick:
        print(f"test: {ours} nats, sigma {found.sigma:.3f}, with {len(samples)} samples")
        return
    numbers = {**found._asdict(), "samples": len(samples)}
    record(
        given.row, figure, ours, numbers, seconds or time.perf_counter() - began, 0, f"{note}; sigma {found.sigma:.3f}"
    )


if __name__ == "__main__":
    command(main)
