"""The judge of digits: a classifier that says what a generative model has drawn."""

import hashlib
import sys

import numpy as np

from scratchgen.cache import cache_folder
from scratchgen.checkpoint import load_checkpoint, save_checkpoint
from scratchgen.data.dataset import Dataset, Split
from scratchgen.errors import UserError
from scratchgen.models.classifier import Classifier, accuracy, class_probabilities, train_classifier

VERSION = 2  # of how the judge is built and trained; counted up whenever that makes another one


class Judge:
    """A trained classifier; ``accuracy`` is its share of right answers on the test images."""

    def __init__(self, classifier: Classifier, test: Split) -> None:
        self.classifier = classifier
        self.accuracy = accuracy(classifier, test.images, test.labels)

    def probabilities(self, images: np.ndarray) -> np.ndarray:
        """p(class | image) (n, 10), float32, of images (n, D)."""
        return class_probabilities(self.classifier, images)


def load_judge(data: Dataset) -> Judge:
    """The judge trained on the data's training images, by a fixed seed: out of the user's cache, or made and put there.

    What cannot be read there is made anew; where nothing can be kept, it is made each time.
    """
    name, pixels = f"judge-{_digest(data.train)}.safetensors", data.train.images.shape[1]
    try:
        classifier = _read(name, pixels)
    except UserError:  # not there, or damaged
        print("training the judge of digits, once: it takes about half a minute", file=sys.stderr)
        classifier = train_classifier(data.train.images, data.train.labels, np.random.default_rng(0))
        try:
            _keep(name, classifier)
        except UserError as error:
            print(f"the judge is not kept for the next time: {error}", file=sys.stderr)
    return Judge(classifier, data.test)


def _digest(train: Split) -> str:
    """Of all that makes a judge."""
    digest = hashlib.sha256(f"{VERSION} {train.images.shape}".encode())
    for array in (train.images, train.labels):
        digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()[:16]


def _read(name: str, pixels: int) -> Classifier:
    """A classifier out of the cache; UserError where there is no good one."""
    arrays, _ = load_checkpoint(cache_folder() / name)
    classifier = Classifier(pixels, np.random.default_rng(0))
    try:
        classifier.load_state_dict(arrays)
    except ValueError as error:
        raise UserError(f"{name}: {error}") from None
    classifier.eval()
    return classifier


def _keep(name: str, classifier: Classifier) -> None:
    """Put a classifier into the cache; UserError where that cannot be."""
    folder = cache_folder()
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"{folder}: cannot be made ({error.strerror})") from None
    save_checkpoint(folder / name, classifier.state_dict(), {})
