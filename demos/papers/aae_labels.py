"""Classification by an adversarial autoencoder with few labels or none (Makhzani et al. 2015, sections 5 and 6).

    python demos/papers/aae_labels.py labels-100     perhaps two hours on a core: five draws of the labels
    python demos/papers/aae_labels.py labels-1000    perhaps an hour on a core
    python demos/papers/aae_labels.py clusters-16    about half an hour on a core
    python demos/papers/aae_labels.py clusters-30    about half an hour on a core
    python demos/papers/aae_labels.py ROW --quick    a minute: an epoch of a small network

The encoder gives a class, by a softmax, and a code of style of ten dimensions; two discriminators match them to one-hot
rows and to N(0, I). The figure is the error on the 10,000 test images, in %. With labels it is a mean over seeds, each
of which draws other labels, as many of each class, with its standard error.

Without labels there are more clusters than classes, and a cluster gets the label of the validation image, one of the
last 10,000 training images, that belongs to it with the highest probability; training has not seen it.

Settings were chosen by errors on these validation images, with 100 labels, a training on the first 50,000, and seed 0.
Without labels the same settings are far from the paper. Pictures show why, perhaps: one cluster with another style is
another digit, so a style of ten dimensions tells of the class, too.
"""

from argparse import Namespace
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from reproduce import TRAINING, Figure, as_file, options, record, trained

from scratchgen import runs
from scratchgen.data import Dataset, load_dataset
from scratchgen.inference import in_batches
from scratchgen.models.aae import AAE, AAEConfig
from scratchgen.ops import softmax
from scratchgen.recipes import RECIPES, RunConfig
from scratchgen.recipes.aae import ROWS as AT_ONCE
from scratchgen.tasks.aae import AAETraining

MEASURE = "Error of classification on MNIST, % of the 10,000 test images"
SEEDS = 5


@dataclass(frozen=True)
class Protocol:
    """How many labels, or how many clusters; and how long to train."""

    labels: int
    clusters: int
    epochs: int


ROWS: dict[str, tuple[Figure, Protocol]] = {
    "labels-100": (
        Figure(MEASURE, "adversarial autoencoder, 100 labels", "1.90 ± 0.10", "Makhzani et al. 2015, table 2"),
        Protocol(100, 10, 40),
    ),
    "labels-1000": (
        Figure(MEASURE, "adversarial autoencoder, 1,000 labels", "1.60 ± 0.08", "Makhzani et al. 2015, table 2"),
        Protocol(1_000, 10, 20),
    ),
    "clusters-16": (
        Figure(MEASURE, "adversarial autoencoder, no labels, 16 clusters", "9.55", "Makhzani et al. 2015, table 3"),
        Protocol(0, 16, 40),
    ),
    "clusters-30": (
        Figure(MEASURE, "adversarial autoencoder, no labels, 30 clusters", "4.10", "Makhzani et al. 2015, table 3"),
        Protocol(0, 30, 40),
    ),
}


def configured(protocol: Protocol, quick: bool) -> RunConfig:
    """The network and its training."""
    width = 64 if quick else 500
    network = AAEConfig(
        latent_dim=10,
        encoder_hidden=(width, width),
        decoder_hidden=(width, width),
        labels_for="encoder",
        classes=protocol.clusters,
        batch_norm=True,
        hidden_noise=0.3,
    )
    training = AAETraining(
        labels=protocol.labels,
        reconstruction_lr=1.5e-3,
        discriminator_lr=1.5e-3,
        encoder_lr=7e-4,
        classification_lr=1.5e-3,
        encoder_optimizer="adam",
        schedule="cosine",
        input_noise=0.3,
    )
    config, epochs = RECIPES["aae"].configs["semi-supervised"], 1 if quick else protocol.epochs
    return replace(config, network=network, training=training, epochs=epochs, batch_size=250, data="mnist")


def errors_with_labels(config: RunConfig, given: Namespace) -> tuple[list[float], float]:
    """Errors in % with the labels of each seed, and the seconds of training."""
    summaries = [
        trained(replace(config, seed=seed, data_dir=given.data_dir and str(given.data_dir)), given.out / f"seed-{seed}")
        for seed in range(1 if given.quick else SEEDS)
    ]
    return [100 * each["test"]["error_rate"] for each in summaries], sum(each["seconds"] for each in summaries)


def error_of_clusters(config: RunConfig, given: Namespace) -> tuple[list[float], float]:
    """The error in % of clusters that are named by validation images, and the seconds of training."""
    data = load_dataset("mnist", given.data_dir)
    seconds = trained(replace(config, data=str(without_labels(data, given.out.parent))), given.out)["seconds"]
    _, model = runs.load_model(given.out)
    named = names_of(clusters_of(model, data.train.images[TRAINING:]), data.train.labels[TRAINING:])
    found = named[clusters_of(model, data.test.images).argmax(axis=1)]
    return [100 * float(np.mean(found != data.test.labels))], seconds


def without_labels(data: Dataset, folder: Path) -> Path:
    """A file in ``folder`` with the first 50,000 training images, and the test images, and no labels."""
    path = folder / f"mnist-{TRAINING}-without-labels.npz"
    return as_file(path, data, data.train.images[:TRAINING], data.test.images, {})


def names_of(probabilities: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """The names of clusters (C,): of each, the label of the image with the highest probability, of q(y|x) (n, C)."""
    return labels[probabilities.argmax(axis=0)]


def clusters_of(model: AAE, images: np.ndarray) -> np.ndarray:
    """q(y|x) (n, C) of images (n, D)."""

    def probabilities(x):
        _, class_logits = model.encode(x)
        return (softmax(class_logits),)

    return in_batches(probabilities, images, size=AT_ONCE)[0]


def main() -> None:
    """Train, measure, record."""
    given = options("Few labels or none, as in Makhzani et al. 2015.", ROWS)
    figure, protocol = ROWS[given.row]
    config = configured(protocol, given.quick)
    found, seconds = (errors_with_labels if protocol.labels else error_of_clusters)(config, given)
    spread = f" ± {np.std(found, ddof=1) / len(found) ** 0.5:.2f}" if len(found) > 1 else ""
    ours = f"{np.mean(found):.2f}{spread}"
    if given.quick:
        print(f"test: error {ours} %")
        return
    seeds = f"0 to {len(found) - 1}" if spread else 0
    record(given.row, figure, ours, {"errors": found}, seconds, seeds, f"{config.epochs} epochs")


if __name__ == "__main__":
    main()
