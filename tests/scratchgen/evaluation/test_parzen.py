"""Parzen windows against their definition, where the density is known, and on real digits."""

import math
import os

import numpy as np
import pytest

from scratchgen.data.mnist import load_mnist
from scratchgen.evaluation.parzen import ROWS, SIGMAS, log_densities, parzen


def test_log_densities_are_the_definition(rng):
    samples, images, sigmas = rng.random((7, 3)), rng.random((ROWS + 4, 3)), np.array([0.3, 1.7])
    found = log_densities(samples, images, sigmas)
    assert found.shape == (2, ROWS + 4)
    for k, sigma in enumerate(sigmas):
        for n in (0, 1, ROWS - 1, ROWS, ROWS + 3):
            windows = [
                math.prod(math.exp(-(((x - s) / sigma) ** 2) / 2) / (sigma * math.sqrt(2 * math.pi)) for x, s in pairs)
                for pairs in (list(zip(images[n], sample, strict=True)) for sample in samples)
            ]
            assert found[k, n] == pytest.approx(math.log(sum(windows) / 7), rel=1e-12)


def test_density_integrates_to_one(rng):
    grid = np.linspace(-9, 9, 4001)
    for row in log_densities(rng.standard_normal((5, 1)), grid[:, None], np.array([0.2, 0.9])):
        assert np.trapezoid(np.exp(row), grid) == pytest.approx(1, abs=1e-6)


def test_log_densities_survive_far_images_and_single_samples():
    found = log_densities(np.zeros((1, 784)), np.ones((1, 784)), np.array([0.1, 1.0]))[:, 0]
    expected = [-784 * (1 / (2 * s**2) + math.log(s * math.sqrt(2 * math.pi))) for s in (0.1, 1.0)]
    np.testing.assert_allclose(found, expected, rtol=1e-12)


def test_parzen_chooses_sigma_by_the_validation_images_and_reports_the_test_images(rng):
    samples, validation, test = (rng.standard_normal((n, 2)) for n in (500, 200, 300))
    found = parzen(samples, validation, test)
    means = log_densities(samples, validation, SIGMAS).mean(axis=1)
    assert found.sigma == SIGMAS[means.argmax()]
    assert SIGMAS[0] < found.sigma < SIGMAS[-1]
    each = log_densities(samples, test, np.array([found.sigma]))[0]
    assert found.log_density == pytest.approx(each.mean())
    assert found.standard_error == pytest.approx(each.std(ddof=1) / math.sqrt(300))
    true = -math.log(2 * math.pi) - (test**2).sum(axis=1) / 2  # of many samples it is nearly the density itself
    assert found.log_density == pytest.approx(true.mean(), abs=0.1)


def test_parzen_takes_other_sigmas(rng):
    assert parzen(rng.random((9, 2)), rng.random((9, 2)), rng.random((9, 2)), np.array([0.4])).sigma == 0.4


@pytest.mark.slow
@pytest.mark.skipif(not os.environ.get("SCRATCHGEN_DATA"), reason="SCRATCHGEN_DATA names no folder with MNIST")
def test_real_training_digits_score_what_is_known_of_them():
    """242.7 +- 1.8 nats are known of 10,000 training digits in the place of samples."""
    data = load_mnist()
    known = np.random.default_rng(0).permutation(50_000)[:10_000]
    found = parzen(data.train.images[known], data.train.images[50_000:51_000], data.test.images)
    assert found.log_density == pytest.approx(242.7, abs=2 * found.standard_error)
    assert found.standard_error < 2.5
