"""The data."""

import argparse

import numpy as np

from scratchgen.commands.output import write
from scratchgen.data import load_dataset
from scratchgen.data.dataset import UNLABELLED
from scratchgen.data.mnist import PUBLISHED, fetch_mnist


def fetch(options: argparse.Namespace) -> int:
    """Download MNIST or Fashion-MNIST."""
    print(fetch_mnist(options.data_dir, which=PUBLISHED[options.data]))
    return 0


def show(options: argparse.Namespace) -> int:
    """Describe the data, and draw some of it."""
    from scratchgen.figures import save_samples

    data = load_dataset(options.data or "auto", options.data_dir)
    height, width = data.image_shape
    print(f"{data.name}: {len(data.train)} training and {len(data.test)} test images, {height} by {width} pixels")
    labels = range(len(data.classes)) if data.classes else [UNLABELLED]
    if data.classes:
        print(f"images a class, training: {np.bincount(data.train.labels).tolist()}")
        print(f"{len(data.classes)} classes: {', '.join(data.classes)}")
    else:
        print("no labels")
    if options.out:
        first = [np.flatnonzero(data.train.labels == label)[: 10 if data.classes else 100] for label in labels]
        images = data.train.images[np.concatenate(first)]
        write(options.out, lambda: save_samples(options.out, images, data.image_shape, columns=10))
    return 0
