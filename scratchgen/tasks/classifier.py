"""Training and use of the classifier of images."""

import math

import numpy as np

from scratchgen import ops
from scratchgen.fitting import minimize
from scratchgen.inference import in_batches
from scratchgen.models.classifier import Classifier
from scratchgen.models.images import moves
from scratchgen.optim import Adam, cosine
from scratchgen.random import RandomStream
from scratchgen.tensor import Tensor

ROWS = 1_000  # images classified together


def train_classifier(
    images: np.ndarray,
    labels: np.ndarray,
    image_shape: tuple[int, int],
    rng: np.random.Generator,
    epochs: int = 8,
    batch_size: int = 256,
    classes: int = 10,
) -> Classifier:
    """A classifier trained on images (n, h · w), float32, and labels (n,) in 0..classes-1, set to evaluation.

    It lowers the cross-entropy by Adam, whose rate falls from 4e-3 to 0. It sees each image moved by up to a pixel.
    """
    model, steps = Classifier(image_shape, rng, classes), epochs * math.ceil(len(images) / batch_size)
    model.set_random(RandomStream(rng))
    optimizer, first_image, first_label = Adam(model, lr=cosine(4e-3, steps)), images[:1], labels[:1]

    def loss(images: np.ndarray, labels: np.ndarray) -> Tensor:
        if len(images) == 1:  # batch normalisation needs two
            images, labels = np.concatenate([images, first_image]), np.concatenate([labels, first_label])
        moved = images.ravel()[moves(len(images), image_shape, 1, rng)].reshape(images.shape)
        return ops.softmax_cross_entropy(model(Tensor.wrap(moved)), labels).mean()

    minimize(loss, optimizer, images, labels, rng=rng, steps=steps, batch_size=batch_size, name="classifier")
    model.eval()
    return model


def class_probabilities(model: Classifier, images: np.ndarray) -> np.ndarray:
    """p(class | image) (n, C), float32, of images (n, D)."""
    return in_batches(lambda x: (ops.softmax(model(x)),), images, size=ROWS)[0]


def features(model: Classifier, images: np.ndarray) -> np.ndarray:
    """What the last layer takes (n, FEATURES), float32, of images (n, D)."""
    return in_batches(lambda x: (model.features(x),), images, size=ROWS)[0]


def accuracy(model: Classifier, images: np.ndarray, labels: np.ndarray) -> float:
    """The share of images (n, D) whose most probable class is their label (n,)."""
    return float((class_probabilities(model, images).argmax(axis=1) == labels).mean())
