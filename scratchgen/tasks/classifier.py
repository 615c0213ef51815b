"""Training and use of the classifier of images."""

import math

import numpy as np

from scratchgen import ops
from scratchgen.fitting import minimize
from scratchgen.inference import in_batches
from scratchgen.models.classifier import Classifier
from scratchgen.optim import Adam, cosine
from scratchgen.random import RandomStream
from scratchgen.tensor import Tensor

ROWS = 1_000  # images classified together


def train_classifier(
    images: np.ndarray,
    labels: np.ndarray,
    rng: np.random.Generator,
    epochs: int = 6,
    batch_size: int = 256,
    classes: int = 10,
) -> Classifier:
    """A classifier trained on images (n, D), float32, and labels (n,) in 0..classes-1, set to evaluation.

    It lowers the cross-entropy by Adam, whose rate falls from 2e-3 to 0.
    """
    model, steps = Classifier(images.shape[1], rng, classes), epochs * math.ceil(len(images) / batch_size)
    model.set_random(RandomStream(rng))
    optimizer = Adam(model, lr=cosine(2e-3, steps))

    def loss(images: np.ndarray, labels: np.ndarray) -> Tensor:
        return ops.softmax_cross_entropy(model(Tensor.wrap(images)), labels).mean()

    minimize(loss, optimizer, images, labels, rng=rng, steps=steps, batch_size=batch_size, name="classifier")
    model.eval()
    return model


def class_probabilities(model: Classifier, images: np.ndarray) -> np.ndarray:
    """p(class | image) (n, C), float32, of images (n, D)."""
    return in_batches(lambda x: (ops.softmax(model(x)),), images, size=ROWS)[0]


def accuracy(model: Classifier, images: np.ndarray, labels: np.ndarray) -> float:
    """The share of images (n, D) whose most probable class is their label (n,)."""
    return float((class_probabilities(model, images).argmax(axis=1) == labels).mean())
