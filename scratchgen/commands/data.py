"""MNIST and strokes."""

import argparse

import numpy as np

from scratchgen.commands.output import write
from scratchgen.data import load_dataset
from scratchgen.data.mnist import fetch_mnist


def fetch(options: argparse.Namespace) -> int:
    """Download MNIST."""
    print(fetch_mnist(options.data_dir))
    return 0


def show(options: argparse.Namespace) -> int:
    """Describe the data, and draw some of it."""
    from scratchgen.figures import save_samples

    data = load_dataset(options.data or "auto", options.data_dir)
    print(f"{data.name}: {len(data.train)} training and {len(data.test)} test images, {data.image_shape} pixels")
    print(f"images a class, training: {np.bincount(data.train.labels).tolist()}")
    if options.out:
        first = [np.flatnonzero(data.train.labels == label)[:10] for label in range(10)]
        images = data.train.images[np.concatenate(first)]
        write(options.out, lambda: save_samples(options.out, images, columns=10))
    return 0
