"""A classifier of digits: the network that judges what generative models draw."""

import math

import numpy as np
from tqdm import tqdm

from scratchgen import ops
from scratchgen.data.dataset import CLASSES
from scratchgen.nn import Dense, Dropout, Module, Sequential, masked
from scratchgen.noise import Masks, turns
from scratchgen.optim import Adam, cosine
from scratchgen.tensor import Tensor, no_grad

ROWS = 1_000  # images looked at together


class Classifier(Module):
    """A 512-256 relu network from pixels (n, D) to the logits (n, 10) of the classes, in float32."""

    def __init__(self, input_dim: int, rng: np.random.Generator) -> None:
        self.network = Sequential(
            Dense(input_dim, 512, rng, "relu"),
            Dropout(0.3),
            Dense(512, 256, rng, "relu"),
            Dropout(0.3),
            Dense(256, CLASSES, rng),
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.network(x)


def train_classifier(
    images: np.ndarray, labels: np.ndarray, rng: np.random.Generator, epochs: int = 6, batch_size: int = 256
) -> Classifier:
    """A classifier trained on images (n, D), float32, and labels (n,) in 0..9, set to evaluation.

    It lowers the cross-entropy by Adam, whose rate falls from 2e-3 to 0.
    """
    model = Classifier(images.shape[1], rng)
    optimizer, total = Adam(model, lr=2e-3), epochs * math.ceil(len(images) / batch_size)
    rate = cosine(optimizer.lr, total)
    with tqdm(desc="classifier", total=total, leave=False, disable=None) as bar:
        for _ in range(epochs):
            order = rng.permutation(len(images))
            for start in range(0, len(images), batch_size):
                chosen = order[start : start + batch_size]
                optimizer.lr = rate(optimizer.steps)
                optimizer.zero_grad()
                with masked(model, Masks(turns(rng))):
                    logits = model(Tensor.wrap(images[chosen]))
                ops.softmax_cross_entropy(logits, labels[chosen]).mean().backward()
                optimizer.step()
                bar.update()
    model.eval()
    return model


def class_probabilities(model: Classifier, images: np.ndarray) -> np.ndarray:
    """p(class | image) (n, 10), float32, of images (n, D)."""
    out = np.empty((len(images), CLASSES), np.float32)
    with no_grad():
        for start in range(0, len(images), ROWS):
            batch = Tensor(images[start : start + ROWS], dtype=np.float32)
            out[start : start + ROWS] = ops.softmax(model(batch)).data
    return out


def accuracy(model: Classifier, images: np.ndarray, labels: np.ndarray) -> float:
    """The share of images (n, D) whose most probable class is their label (n,)."""
    return float((class_probabilities(model, images).argmax(axis=1) == labels).mean())
