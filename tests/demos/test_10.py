"""Autoencoders beside PCA, and their features (L10, L11): the lesson's parts, and what it prints."""

import re

import numpy as np
import pytest
from lesson_helpers import load, needs_mnist, run

from scratchgen import Tensor, ops
from scratchgen.data import Split, load_dataset
from scratchgen.models.linear import LogisticRegression
from scratchgen.models.pca import PCA
from scratchgen.nn import Dense, Module, Sequential

LESSON = "10_autoencoders"


@pytest.fixture(scope="module")
def demo():
    return load(LESSON)


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    """What ``--quick`` prints on strokes: the figures by name, and its files."""
    got, files = run(LESSON, tmp_path_factory.mktemp("lesson"), "--quick", "--data", "strokes")
    return {name: float(re.match(r"[-+.e\d]+", value)[0]) for name, value in got.items()}, files


@pytest.fixture
def plane(rng):
    """Points (600, 12) about a plane of three dimensions, off the origin, whose variances differ."""
    basis = np.linalg.qr(rng.standard_normal((12, 12)))[0]
    return (rng.standard_normal((600, 12)) * ([3, 2, 1.5] + [0.5] * 9) @ basis + 1).astype(np.float32)


@pytest.fixture
def digits(rng):
    """A split of 300 images in ten classes that a linear classifier can nearly tell apart."""
    labels = np.repeat(np.arange(10), 30)
    templates = rng.random((10, 784)) < 0.3
    images = np.where(rng.random((300, 784)) < 0.2, rng.random((300, 784)), templates[labels])
    return Split(images.astype(np.float32), labels)


class Recorder(Module):
    """Passes its input on, and keeps it."""

    def forward(self, x):
        self.seen = x.data
        return x


# ---- autoencoders ----


def test_error_is_its_definition(demo, rng):
    x, other = rng.random((2, 5, 7))
    assert demo.error(x, other) == pytest.approx(sum(((a - b) ** 2).sum() for a, b in zip(x, other, strict=True)) / 5)


@pytest.mark.parametrize("k", [1, 3])
def test_truncated_keeps_the_first_directions_of_pca(demo, plane, k):
    expected = PCA(k).fit(plane)
    np.testing.assert_allclose(
        demo.truncated(PCA(6).fit(plane), plane, k), expected.decode(expected.encode(plane)), atol=1e-10
    )


def test_study_linear_reaches_the_error_and_the_subspace_of_pca(demo, rng, plane):
    rows, error, directions = demo.study_linear(PCA(6).fit(plane), plane, plane, 3, 2_000, rng)
    assert error == pytest.approx(PCA(3).fit(plane).variances[3:].sum(), rel=1e-3)
    got = {name: float(re.match(r"[-+.e\d]+", value)[0]) for name, _, value in rows}
    assert got["linear, error above PCA's"] < 0.1
    assert got["largest principal angle between them"] < 2  # the fourth variance is far below the third
    projected = directions @ PCA(3).fit(plane).directions.T
    assert np.linalg.norm(projected) == pytest.approx(np.linalg.norm(directions), rel=1e-3)


def test_network_has_relu_between_its_layers_alone(demo, rng):
    model = demo.network((4, 6, 5, 3), rng)
    x = rng.standard_normal((8, 4)).astype(np.float32)
    hidden = x
    for layer in model.layers[:-1]:
        hidden = np.maximum(hidden @ layer.weight.data + layer.bias.data, 0)
    expected = hidden @ model.layers[-1].weight.data + model.layers[-1].bias.data
    np.testing.assert_allclose(demo.apply(model, x), expected, atol=1e-5)
    assert (expected < 0).any()


def test_train_autoencoder_hides_pixels_of_the_input_but_not_of_the_target(demo, rng):
    recorder, targets = Recorder(), []

    def loss(prediction, target):
        targets.append(target)
        return ops.squared_error(prediction, target)

    encoder = Sequential(recorder, Dense(200, 3, rng))
    images = (0.1 + 0.9 * rng.random((50, 200))).astype(np.float32)
    demo.train_autoencoder(encoder, Dense(3, 200, rng), images, 1, 1e-3, rng, loss, missing=0.5)
    (target,) = targets
    np.testing.assert_array_equal(np.sort(target, axis=0), np.sort(images, axis=0))
    hidden = recorder.seen == 0
    assert hidden.mean() == pytest.approx(0.5, abs=0.02)
    np.testing.assert_allclose(recorder.seen[~hidden], 2 * target[~hidden])


# ---- features ----


def test_probe_fits_the_penalised_likelihood_whatever_the_scale_of_the_features(demo, digits):
    x = digits.images[:, :40]
    model, other = (demo.probe(Sequential(), y, digits.labels, 2_000, np.random.default_rng(1)) for y in (x, x / 8))
    np.testing.assert_allclose(demo.apply(other, x / 8), demo.apply(model, x), atol=0.01)
    # the gradient of 1/n sum -log p + 0.01/2 |W|^2 for features of unit spread is 0
    layer, spread = model.layers[-1], x.std()
    fitted = LogisticRegression(40, 10, l2=0.01)
    fitted.linear.weight.write(layer.weight.data * spread)
    fitted.linear.bias.write(layer.bias.data)
    fitted.loss(Tensor(x / spread), digits.labels).backward()
    assert max(np.abs(p.grad).max() for p in fitted.parameters()) < 2e-3


def test_classifiers_leave_probed_encoders_as_they_are_and_tune_copies(demo, rng, digits):
    encoders = [demo.feature_encoder(784, rng) for _ in range(2)]
    before = [encoder.state_dict() for encoder in encoders]
    settings = demo.Settings(probe_steps=200, classifier_steps=100)
    found = demo.classifiers(*encoders, digits.images, digits.labels, settings, rng)
    assert list(found) == list(demo.KINDS)
    for encoder, state, kind in zip(encoders, before, ("plain", "denoising"), strict=True):
        for name, array in encoder.state_dict().items():
            np.testing.assert_array_equal(array, state[name])
        probed, tuned = found[f"probe, {kind} autoencoder"], found[f"fine-tuned {kind} autoencoder"]
        assert probed.layers[0] is encoder
        for name, array in tuned.layers[0].state_dict().items():
            assert not np.array_equal(array, state[name])
            if name.endswith("weight"):
                assert np.corrcoef(array.ravel(), state[name].ravel())[0, 1] > 0.8  # it began at the encoder
    assert all(demo.accuracy(model, digits) > 0.9 for model in found.values())


def test_study_features_trains_on_the_labels_kept_and_reports_test_images(demo, rng, digits, monkeypatch):
    given = []

    def classifiers(plain, denoising, x, labels, settings, rng):
        given.append((x, labels))
        return {kind: Sequential(Recorder(), Dense(784, 10, rng)) for kind in demo.KINDS}

    monkeypatch.setattr(demo, "classifiers", classifiers)
    monkeypatch.setattr(demo, "accuracy", lambda model, split: float(len(split)))
    test = Split(digits.images[:7], digits.labels[:7])
    found = demo.study_features(digits, test, 40, demo.Settings(feature_steps=1), rng)
    for x, labels in given:
        np.testing.assert_array_equal(np.bincount(labels), 4)
        where = [np.flatnonzero((digits.images == image).all(axis=1))[0] for image in x]
        np.testing.assert_array_equal(digits.labels[where], labels)
    assert len(given) == 3
    assert not np.array_equal(given[0][0], given[1][0])
    assert all(values.tolist() == [7.0] * 3 for values in found.values())


# ---- what the lesson prints ----


@pytest.mark.slow
def test_lesson_10_prints_a_linear_autoencoder_that_is_pca(table):
    got, _ = table
    assert got["PCA, |error on its data / Σ λ - 1|"] < 1e-10
    assert got["linear, k = 8, error"] <= 1.01 * got["PCA, k = 8, error"]
    assert got["linear, k = 8, error"] >= 0.995 * got["PCA, k = 8, error"]  # on new images another plane may be best
    assert got["linear, error above PCA's"] < 1
    assert got["median principal angle between them"] < 3
    assert got["median principal angle between them"] <= got["largest principal angle between them"] <= 90
    assert got["|cosine| of an axis and PCA's nearest, mean"] < 0.9


@pytest.mark.slow
def test_lesson_10_prints_a_lower_error_of_the_nonlinear_autoencoder(table):
    for k, share in ((2, 0.95), (8, 0.85)):
        assert table[0][f"nonlinear, k = {k}, error"] < share * table[0][f"PCA, k = {k}, error"]


@pytest.mark.slow
def test_lesson_10_prints_better_features_of_the_denoising_autoencoder(table, demo):
    got, _ = table
    right = {kind: got[f"{kind}, right"] for kind in demo.KINDS}
    assert min(right.values()) > 75
    assert right["probe, denoising autoencoder"] > max(right["probe, pixels"], right["probe, plain autoencoder"])
    gains = {
        "probe: denoising above random encoder": ("probe, denoising autoencoder", "probe, random encoder", 3),
        "fine-tuned denoising above from scratch": ("fine-tuned denoising autoencoder", "from scratch", 0),
        "probe: denoising above from scratch": ("probe, denoising autoencoder", "from scratch", -2),
        "fine-tuned plain above from scratch": ("fine-tuned plain autoencoder", "from scratch", -3),
    }
    for name, (kind, other, least) in gains.items():
        assert got[name] == pytest.approx(right[kind] - right[other], abs=0.011)
        assert got[name] > least


@pytest.mark.slow
def test_lesson_10_ends_with_its_figures(table):
    assert [path.stem for path in table[1]] == ["1_errors", "2_reconstructions", "3_features"]
    assert all(path.read_bytes().startswith(b"\x89PNG") for path in table[1])


# ---- the ledger's numbers, on MNIST ----


@needs_mnist
@pytest.mark.slow
def test_study_linear_reaches_the_error_of_pca_on_mnist_within_one_per_cent(demo, rng):
    data = load_dataset("mnist")
    pca, images = PCA(32).fit(data.train.images), data.test.images
    _, error, _ = demo.study_linear(pca, data.train.images, images, 32, demo.FULL.linear_steps, rng)
    assert error == pytest.approx(pca.reconstruction_error(images), rel=0.01)


@needs_mnist
@pytest.mark.slow
def test_study_nonlinear_has_a_lower_error_than_pca_on_mnist(demo, rng):
    data = load_dataset("mnist")
    pca = PCA(32).fit(data.train.images)
    found = demo.study_nonlinear(pca, data.train.images, data.test.images, demo.FULL, rng)
    assert list(found) == [2, 8, 32]
    for plain, ours in found.values():
        assert demo.error(data.test.images, ours) < 0.95 * demo.error(data.test.images, plain)


@needs_mnist
@pytest.mark.slow
def test_study_features_beats_random_ones_by_five_points_and_from_scratch_on_mnist(demo, rng):
    data = load_dataset("mnist")
    found = demo.study_features(data.train, data.test, demo.LABELS["mnist"], demo.FULL, rng)
    right = {kind: 100 * np.median(values) for kind, values in found.items()}
    assert right["probe, denoising autoencoder"] >= right["probe, random encoder"] + 5
    assert right["fine-tuned denoising autoencoder"] >= right["from scratch"] + 0.5
