"""Distances of sets of features: against closed forms, SciPy's matrix root, and their definition in loops."""

import numpy as np
import pytest

from scratchgen.evaluation import features
from scratchgen.evaluation.features import frechet_distance, frechet_error, nearest, precision_recall


@pytest.fixture
def few_rows(monkeypatch):
    monkeypatch.setattr(features, "ROWS", 7)


# ---- the Fréchet distance ----


def test_frechet_distance_of_normals_of_one_dimension(rng):
    x, y = rng.normal(1, 2, (50, 1)), rng.normal(-3, 0.5, (70, 1))
    expected = (x.mean() - y.mean()) ** 2 + (x.std(ddof=1) - y.std(ddof=1)) ** 2
    assert frechet_distance(x, y) == pytest.approx(expected, rel=1e-10)


def test_frechet_distance_is_that_of_the_definition(rng):
    linalg = pytest.importorskip("scipy.linalg", reason="SciPy, whose matrix root is the reference, is missing")
    x, y = rng.normal(size=(90, 5)) @ rng.normal(size=(5, 5)), rng.normal(size=(80, 5)) @ rng.normal(size=(5, 5)) + 1
    covariances = np.cov(x, rowvar=False), np.cov(y, rowvar=False)
    root = linalg.sqrtm(covariances[0] @ covariances[1]).real
    expected = ((x.mean(axis=0) - y.mean(axis=0)) ** 2).sum() + np.trace(sum(covariances) - 2 * root)
    assert frechet_distance(x, y) == pytest.approx(expected, rel=1e-8)
    assert frechet_distance(y, x) == pytest.approx(expected, rel=1e-8)


def test_frechet_distance_of_turned_and_scaled_features(rng):
    x = rng.normal(size=(200, 4)) * [3, 2, 1, 0.5]
    assert frechet_distance(x, x) == pytest.approx(0, abs=1e-10)
    assert frechet_distance(x, x + np.array([1, 2, 0, 0])) == pytest.approx(5, rel=1e-10)
    turn = np.linalg.qr(rng.normal(size=(4, 4)))[0]
    y = rng.normal(size=(200, 4))
    assert frechet_distance(x @ turn, y @ turn) == pytest.approx(frechet_distance(x, y), rel=1e-8)
    assert frechet_distance(2 * x, 2 * y) == pytest.approx(4 * frechet_distance(x, y), rel=1e-8)


def test_frechet_distance_of_features_that_never_vary(rng):
    x = np.concatenate([rng.normal(size=(50, 2)), np.zeros((50, 3))], axis=1)  # units that are never active
    assert frechet_distance(x, x + 1) == pytest.approx(5)


def test_frechet_error_is_the_spread_over_new_samples(rng):
    data = rng.normal(size=(400, 3))
    samples = [rng.normal(0.3, 1.2, (400, 3)) for _ in range(60)]
    spread = np.std([frechet_distance(data, each) for each in samples])
    errors = [frechet_error(data, each, rng) for each in samples[:10]]
    assert np.mean(errors) == pytest.approx(spread, rel=0.35)


@pytest.mark.parametrize("sizes", [(1, 5), (5, 1), (0, 5)])
def test_frechet_distance_refuses_fewer_than_two(sizes):
    with pytest.raises(ValueError, match="at least two"):
        frechet_distance(*(np.zeros((size, 2)) for size in sizes))


# ---- precision and recall ----


def by_loops(real, fake, neighbour):
    def share(x, others):
        inside = 0
        for point in x:
            for centre in others:
                radius = sorted(np.linalg.norm(centre - other) for other in others)[neighbour]
                if np.linalg.norm(point - centre) <= radius:
                    inside += 1
                    break
        return inside / len(x)

    return share(fake, real), share(real, fake)


@pytest.mark.usefixtures("few_rows")
@pytest.mark.parametrize("neighbour", [1, 3])
def test_precision_recall_is_the_definition(rng, neighbour):
    real, fake = rng.normal(size=(30, 2)), rng.normal(0.8, 0.6, size=(25, 2))
    found = precision_recall(real, fake, neighbour)
    assert found == by_loops(real, fake, neighbour)
    assert 0 < min(found) < 1


def test_precision_falls_with_bad_samples_and_recall_with_missing_modes(rng):
    real = np.concatenate([rng.normal(size=(500, 2)), rng.normal(9, 1, (500, 2))])
    one_mode, noisy = rng.normal(size=(500, 2)), np.concatenate([real + 0.01, rng.uniform(-40, 40, (1000, 2))])
    precision, recall = precision_recall(real, one_mode)
    assert precision > 0.9
    assert recall < 0.55
    precision, recall = precision_recall(real, noisy)
    assert precision < 0.6
    assert recall > 0.9


def test_precision_recall_refuses_too_few(rng):
    with pytest.raises(ValueError, match="more than 3 of each, got 3 and 9"):
        precision_recall(np.zeros((3, 2)), np.zeros((9, 2)))


# ---- neighbours ----


@pytest.mark.usefixtures("few_rows")
def test_nearest_is_the_smallest_distance(rng):
    x, among = rng.normal(size=(20, 3)), rng.normal(size=(15, 3))
    places, distances = nearest(x, among)
    all_distances = np.linalg.norm(x[:, None] - among, axis=2)
    np.testing.assert_array_equal(places, all_distances.argmin(axis=1))
    np.testing.assert_allclose(distances, all_distances.min(axis=1), rtol=1e-10)
    places, distances = nearest(x.astype(np.float32), x.astype(np.float32))
    np.testing.assert_array_equal(places, np.arange(20))
    np.testing.assert_allclose(distances, 0, atol=1e-6)
