"""The classifier: that it learns, and that its probabilities are those of its logits, without dropout."""

import numpy as np
import pytest
from helpers import tiny_data

from scratchgen.models.classifier import Classifier
from scratchgen.random import RandomStream
from scratchgen.tasks import classifier
from scratchgen.tasks.classifier import accuracy, class_probabilities, train_classifier
from scratchgen.tensor import Tensor


def test_train_classifier_learns_its_images_by_heart():
    train = tiny_data().train
    model = train_classifier(train.images, train.labels, np.random.default_rng(0), epochs=30)
    assert accuracy(model, train.images, train.labels) > 0.99
    assert accuracy(model, tiny_data().test.images, tiny_data().test.labels) > 0.9
    assert not any(layer.training for layer in model.network.layers)


def test_train_classifier_with_the_same_seed_gives_the_same_bits():
    train = tiny_data().train
    states = [train_classifier(train.images, train.labels, np.random.default_rng(3), 1).state_dict() for _ in range(2)]
    for name, array in states[0].items():
        np.testing.assert_array_equal(array, states[1][name])


def test_train_classifier_drops_a_third_or_so_of_hidden_units_others_at_each_step(monkeypatch):
    found = []

    def spy(self, shape, dtype, rate, original=RandomStream.dropout_mask):
        mask = original(self, shape, dtype, rate)
        found.append((shape, mask.data))
        return mask

    monkeypatch.setattr(RandomStream, "dropout_mask", spy)
    train = tiny_data().train
    train_classifier(train.images, train.labels, np.random.default_rng(0), 1, batch_size=len(train) // 2)
    (first, a), (second, b), (_, c), (_, d), *_ = found
    assert (first, second) == ((len(train) // 2, 512), (len(train) // 2, 256))
    for mask, other in ((a, c), (b, d)):
        assert (mask == 0).mean() == pytest.approx(0.3, abs=0.01)
        assert (mask != other).mean() == pytest.approx(2 * 0.3 * 0.7, abs=0.01)


@pytest.mark.parametrize("rows", [1, 7, 1000])
def test_class_probabilities_are_those_of_the_logits(monkeypatch, rng, rows):
    monkeypatch.setattr(classifier, "ROWS", rows)
    model = Classifier(6, rng)
    model.eval()
    images = rng.random((20, 6))
    logits = model(Tensor(images, dtype=np.float32)).data.astype(float)
    expected = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    found = class_probabilities(model, images)
    assert (found.shape, found.dtype) == ((20, 10), np.float32)
    np.testing.assert_allclose(found, expected, rtol=1e-4)
    labels = np.where(np.arange(20) < 15, expected.argmax(axis=1), expected.argmin(axis=1))
    assert accuracy(model, images, labels) == 0.75
