"""Classification by an adversarial autoencoder with few labels or none (Makhzani et al. 2015).

    python demos/papers/aae_labels.py labels-100     an hour on a core: five draws of the labels
    python demos/papers/aae_labels.py labels-1000    an hour and a half on a core
    python demos/papers/aae_labels.py clusters-16    six minutes on a core
    python demos/papers/aae_labels.py clusters-30    six minutes on a core
    python demos/papers/aae_labels.py reduced-10     ten minutes on a core
    python demos/papers/aae_labels.py reduced-2      ten minutes on a core
    python demos/papers/aae_labels.py ROW --quick    a minute: an epoch of a small network

The encoder gives a class, by a softmax, and a code of style of ten dimensions; two discriminators match them to one-hot
rows and to N(0, I). The figure is the error on the 10,000 test images, in %. In the rows labels-100 and labels-1000 it
is a mean over five seeds, each of which draws other labels, as many of each class, with its standard error.

In the rows on dimensionality reduction the decoder takes the sum of the code and of the class's head, a representation
of ten or two dimensions; ``representation.png`` in the run's folder shows the two.

Without labels there are more clusters than classes, and a cluster gets the label of the validation image, one of the
last 10,000 training images, that belongs to it with the highest probability; training has not seen it.

Settings were chosen by errors on these validation images, with 100 labels, a training on the first 50,000, and seed 0.

Other than in the paper: batch normalisation and noise are where lesson 26 says, layers have 500 units, not 1,000, there
are tens of epochs, not thousands, and the encoder is also taught to give an image and the same image moved by up to two
pixels the same classes. Without this last, 16 clusters have an error of 38 %: what the clusters of an autoencoder have
in common need not be the digit.
"""

from argparse import Namespace
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from reproduce import TRAINING, Figure, as_file, command, options, record, trained

from scratchgen import runs
from scratchgen.data import Dataset, load_dataset
from scratchgen.inference import in_batches
from scratchgen.models.aae import AAE
from scratchgen.ops import softmax
from scratchgen.recipes import RECIPES, RunConfig
from scratchgen.recipes.aae import ROWS as AT_ONCE

MEASURE = "Error of classification on MNIST, % of the 10,000 test images"
PAPER = "Makhzani et al. 2015"


@dataclass(frozen=True)
class Protocol:
    """Labels, clusters, and epochs of a training; how many draws of labels; dimensions of the code, and its heads."""

    labels: int
    clusters: int
    epochs: int
    seeds: int = 1
    dimensions: int = 10
    head_distance: float = 0.0


ROWS: dict[str, tuple[Figure, Protocol]] = {
    "labels-100": (
        Figure(MEASURE, "adversarial autoencoder, 100 labels", "1.90 ± 0.10", f"{PAPER}, table 2"),
        Protocol(100, 10, 25, seeds=5),
    ),
    "labels-1000": (
        Figure(MEASURE, "adversarial autoencoder, 1,000 labels", "1.60 ± 0.08", f"{PAPER}, table 2"),
        Protocol(1_000, 10, 20, seeds=5),
    ),
    "clusters-16": (
        Figure(MEASURE, "adversarial autoencoder, no labels, 16 clusters", "9.55", f"{PAPER}, table 3"),
        Protocol(0, 16, 20),
    ),
    "clusters-30": (
        Figure(MEASURE, "adversarial autoencoder, no labels, 30 clusters", "4.10", f"{PAPER}, table 3"),
        Protocol(0, 30, 20),
    ),
    "reduced-10": (
        Figure(
            MEASURE,
            "adversarial autoencoder, 100 labels, reduced to 10 dimensions",
            "3.90, from memory",
            f"{PAPER}, section 7",
        ),
        Protocol(100, 10, 25, head_distance=4.0),
    ),
    "reduced-2": (
        Figure(
            MEASURE,
            "adversarial autoencoder, 100 labels, reduced to 2 dimensions",
            "6.08, from memory",
            f"{PAPER}, section 7",
        ),
        Protocol(100, 10, 25, dimensions=2, head_distance=4.0),
    ),
}


def configured(protocol: Protocol, quick: bool) -> RunConfig:
    """The named configuration ``semi-supervised``, with so many labels or clusters."""
    config, epochs = RECIPES["aae"].configs["semi-supervised"], 1 if quick else protocol.epochs
    network = replace(
        config.network,
        latent_dim=protocol.dimensions,
        classes=protocol.clusters,
        head_distance=protocol.head_distance,
    )
    if quick:
        network = replace(network, encoder_hidden=(64, 64), decoder_hidden=(64, 64))
    training = replace(config.training, labels=protocol.labels)
    return replace(config, network=network, training=training, epochs=epochs, data="mnist")


def errors_with_labels(config: RunConfig, given: Namespace, seeds: int) -> tuple[list[float], float]:
    """Errors in % with the labels of each seed, and the seconds of training."""
    summaries = [
        trained(replace(config, seed=seed, data_dir=given.data_dir and str(given.data_dir)), given.out / f"seed-{seed}")
        for seed in range(1 if given.quick else seeds)
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
    if protocol.labels:
        found, seconds = errors_with_labels(config, given, protocol.seeds)
    else:
        found, seconds = error_of_clusters(config, given)
    spread = f" ± {np.std(found, ddof=1) / len(found) ** 0.5:.2f}" if len(found) > 1 else ""
    ours = f"{np.mean(found):.2f}{spread}"
    if given.quick:
        print(f"test: error {ours} %")
        return
    seeds = f"0 to {len(found) - 1}" if spread else 0
    record(
        given.row,
        figure,
        ours,
        {"errors": found},
        seconds,
        seeds,
        f"{config.epochs} epochs; with consistency under moves",
    )


if __name__ == "__main__":
    command(main)
