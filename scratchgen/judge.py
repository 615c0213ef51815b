"""The judge: a classifier that evaluates the samples of generative models."""

import hashlib
import math
import sys

import numpy as np

from scratchgen.cache import cache_folder
from scratchgen.checkpoint import load_checkpoint, save_checkpoint
from scratchgen.data.dataset import Dataset, Split
from scratchgen.errors import UserError
from scratchgen.models.classifier import Classifier
from scratchgen.tasks.classifier import accuracy, class_probabilities, features, train_classifier

VERSION = 4  # of the judge's network and training; incremented whenever they change
EPOCHS, BATCH_SIZE = 8, 256
LEAST_STEPS = 400  # of few images there are more epochs


class Judge:
    """A trained classifier, with its ``accuracy`` on the test images."""

    def __init__(self, classifier: Classifier, test: Split) -> None:
        self.classifier = classifier
        self.accuracy = accuracy(classifier, test.images, test.labels)

    def probabilities(self, images: np.ndarray) -> np.ndarray:
        """p(class | image) (n, C), float32, of images (n, D)."""
        return class_probabilities(self.classifier, images)

    def features(self, images: np.ndarray) -> np.ndarray:
        """The features (n, 128), float32, of images (n, D) by which its last layer classifies them."""
        return features(self.classifier, images)


def load_judge(data: Dataset) -> Judge:
    """The judge trained on the data's training images with a fixed seed, from the user's cache or trained and cached.

    It is trained again if the cached one cannot be read, and each time if it cannot be cached.
    """
    images, labels, classes = data.train.images, data.train.labels, len(data.classes)
    name = f"judge-{_digest(data)}.safetensors"
    try:
        classifier = _read(name, data.image_shape, classes)
    except UserError:  # missing or damaged
        print("training the classifier that judges samples, once: it takes a minute or two", file=sys.stderr)
        epochs = max(EPOCHS, math.ceil(LEAST_STEPS / math.ceil(len(images) / BATCH_SIZE)))
        rng = np.random.default_rng(0)
        classifier = train_classifier(images, labels, data.image_shape, rng, epochs, BATCH_SIZE, classes)
        try:
            _keep(name, classifier)
        except UserError as error:
            print(f"the classifier could not be cached: {error}", file=sys.stderr)
    return Judge(classifier, data.test)


def _digest(data: Dataset) -> str:
    """A hash of all that determines a judge."""
    digest = hashlib.sha256(f"{VERSION} {len(data.train)} {data.image_shape}".encode())
    for array in (data.train.images, data.train.labels):
        digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()[:16]


def _read(name: str, image_shape: tuple[int, int], classes: int) -> Classifier:
    """The cached classifier; UserError if it is missing or damaged."""
    arrays, _ = load_checkpoint(cache_folder() / name)
    classifier = Classifier(image_shape, np.random.default_rng(0), classes)
    try:
        classifier.load_state_dict(arrays)
    except ValueError as error:
        raise UserError(f"{name}: {error}") from None
    classifier.eval()
    return classifier


def _keep(name: str, classifier: Classifier) -> None:
    """Cache a classifier; UserError if that fails."""
    folder = cache_folder()
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"{folder}: cannot be created ({error.strerror})") from None
    save_checkpoint(folder / name, classifier.state_dict(), {})
