"""The classifier: that it learns, of images of any size, and that its probabilities are those of its logits."""

import numpy as np
import pytest
from helpers import tiny_data

from scratchgen.models.classifier import Classifier
from scratchgen.models.images import moves
from scratchgen.random import RandomStream
from scratchgen.tasks import classifier
from scratchgen.tasks.classifier import accuracy, class_probabilities, features, train_classifier
from scratchgen.tensor import Tensor


def test_train_classifier_learns_its_images_by_heart():
    train = tiny_data().train
    model = train_classifier(train.images, train.labels, (28, 28), np.random.default_rng(0), epochs=30)
    assert accuracy(model, train.images, train.labels) > 0.99
    assert accuracy(model, tiny_data().test.images, tiny_data().test.labels) > 0.9
    assert not any(layer.training for layer in model.network.layers)


def test_train_classifier_with_the_same_seed_gives_the_same_bits():
    train = tiny_data().train
    states = [
        train_classifier(train.images, train.labels, (28, 28), np.random.default_rng(3), 1).state_dict()
        for _ in range(2)
    ]
    for name, array in states[0].items():
        np.testing.assert_array_equal(array, states[1][name])


@pytest.mark.parametrize("image_shape", [(1, 1), (3, 40), (4, 4), (7, 5), (33, 18)])
@pytest.mark.parametrize("n", [1, 2, 9])
def test_train_classifier_takes_images_of_any_size_and_number(rng, image_shape, n):
    """A batch of one image, the last of nine in batches of four, is too small for batch normalisation."""
    images = rng.random((n, image_shape[0] * image_shape[1])).astype(np.float32)
    model = train_classifier(images, np.arange(n) % 3, image_shape, rng, epochs=2, batch_size=4, classes=3)
    found = class_probabilities(model, images)
    assert found.shape == (n, 3)
    assert np.isfinite(found).all()


def test_train_classifier_drops_a_third_or_so_of_hidden_units_others_at_each_step(monkeypatch):
    found = []

    def spy(self, shape, dtype, rate, original=RandomStream.dropout_mask):
        mask = original(self, shape, dtype, rate)
        found.append((shape, mask.data))
        return mask

    monkeypatch.setattr(RandomStream, "dropout_mask", spy)
    train = tiny_data().train
    train_classifier(train.images, train.labels, (28, 28), np.random.default_rng(0), 1, batch_size=len(train) // 2)
    (shape, mask), (_, other) = found
    assert shape == (len(train) // 2, 128)
    assert (mask == 0).mean() == pytest.approx(0.3, abs=0.01)
    assert (mask != other).mean() == pytest.approx(2 * 0.3 * 0.7, abs=0.01)


def test_train_classifier_sees_images_moved_by_up_to_a_pixel(monkeypatch, rng):
    seen, image = [], rng.random((1, 30)).astype(np.float32)

    def spy(n, image_shape, most, rng):
        seen.append((image_shape, most))
        return moves(n, image_shape, most, rng)

    monkeypatch.setattr(classifier, "moves", spy)
    inputs = []
    forward = Classifier.forward
    monkeypatch.setattr(Classifier, "forward", lambda self, x: inputs.append(x.data) or forward(self, x))
    train_classifier(np.repeat(image, 8, axis=0), np.arange(8) % 3, (5, 6), rng, epochs=3, batch_size=8, classes=3)
    assert seen == [((5, 6), 1)] * 3
    places = moves(1, (5, 6), 0, rng)
    np.testing.assert_array_equal(image.ravel()[places], image.ravel())
    assert len(np.unique(np.concatenate(inputs), axis=0)) > 3


@pytest.mark.parametrize("rows", [1, 7, 1000])
def test_class_probabilities_are_those_of_the_logits(monkeypatch, rng, rows):
    monkeypatch.setattr(classifier, "ROWS", rows)
    model = Classifier((2, 3), rng)
    model.eval()
    images = rng.random((20, 6))
    logits = model(Tensor(images, dtype=np.float32)).data.astype(float)
    expected = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    found = class_probabilities(model, images)
    assert (found.shape, found.dtype) == ((20, 10), np.float32)
    np.testing.assert_allclose(found, expected, rtol=1e-4)
    labels = np.where(np.arange(20) < 15, expected.argmax(axis=1), expected.argmin(axis=1))
    assert accuracy(model, images, labels) == 0.75


def test_features_are_what_the_last_layer_takes(rng):
    model = Classifier((4, 6), rng)
    model.eval()
    images = rng.random((20, 24)).astype(np.float32)
    found, last = features(model, images), model.network.layers[-1]
    assert (found.shape, found.dtype) == ((20, 128), np.float32)
    np.testing.assert_allclose(
        found @ last.weight.data + last.bias.data, model(Tensor(images)).data, rtol=1e-4, atol=1e-5
    )
