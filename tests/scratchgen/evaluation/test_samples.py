"""Measures of samples by their judge and by their discriminator, on cases that can be counted."""

import math
from statistics import NormalDist

import numpy as np
import pytest

from scratchgen.evaluation.samples import (
    class_histogram,
    class_statistics,
    high_frequencies,
    missing_classes,
    overlap,
)


def judged(counts, confidence=0.9, classes=10):
    """Probabilities (n, classes) of a judge that sees ``counts`` of the classes, with the same confidence."""
    labels = np.repeat(np.arange(len(counts)), counts)
    rows = np.full((len(labels), classes), (1 - confidence) / (classes - 1), np.float32)
    rows[np.arange(len(labels)), labels] = confidence
    return np.random.default_rng(0).permutation(rows)


def test_class_histogram_counts_classes_that_nobody_drew():
    np.testing.assert_array_equal(class_histogram(judged([3, 0, 5], classes=4)), [3, 0, 5, 0])


def test_class_statistics_of_even_classes_cover_all_ten():
    found = class_statistics(judged([20] * 10))
    expected = {"classes_covered": 10, "smallest_class": 0.1, "class_entropy": math.log(10), "judge_confidence": 0.9}
    assert found == pytest.approx(expected)
    assert missing_classes(judged([20] * 10)) == []


def test_class_statistics_count_a_class_of_two_percent_as_covered():
    probabilities = judged([0, 20, 19, 961], confidence=0.6)
    found = class_statistics(probabilities)
    entropy = -sum(p * math.log(p) for p in (0.02, 0.019, 0.961))
    assert found == pytest.approx(
        {"classes_covered": 2, "smallest_class": 0, "class_entropy": entropy, "judge_confidence": 0.6}
    )
    assert missing_classes(probabilities) == [0, 2, 4, 5, 6, 7, 8, 9]


def test_a_class_counts_as_missing_below_a_fifth_of_an_equal_share():
    probabilities = judged([39, 40, 461, 460], confidence=0.6, classes=5)  # of five classes: 4%
    assert class_statistics(probabilities)["classes_covered"] == 3
    assert missing_classes(probabilities) == [0, 4]


def test_class_statistics_of_one_class_have_no_entropy():
    assert class_statistics(judged([50]))["class_entropy"] == 0


def test_overlap_is_1_for_equal_and_0_for_distant_logits(rng):
    logits = rng.standard_normal(1_000).astype(np.float32)
    assert overlap(logits, rng.permutation(logits)) == pytest.approx(1)
    assert overlap(logits, np.repeat(logits, 3)) == pytest.approx(1)  # of shares, not of counts
    assert overlap(logits, logits + 100) == 0
    assert overlap(np.ones(3), np.ones(5)) == pytest.approx(1)


def test_overlap_counts_the_smaller_share_of_each_bin():
    assert overlap(np.array([0.0, 0.0, 0.0, 1.0]), np.array([0.0, 1.0])) == pytest.approx(0.75)


@pytest.mark.parametrize("distance", [0.5, 2.0])
def test_overlap_of_two_gaussians_matches_the_closed_form(rng, distance):
    """The integral of min(p, q) is 2 Phi(-distance / 2)."""
    p, q = rng.standard_normal(100_000), distance + rng.standard_normal(100_000)
    assert overlap(p, q) == pytest.approx(2 * NormalDist().cdf(-distance / 2), abs=0.012)


def wave(cycles_down, cycles_right, side=28):
    """A wave of amplitude 1, with so many cycles along the side of an image (side²,)."""
    y, x = np.mgrid[:side, :side] / side
    return np.cos(2 * np.pi * (cycles_down * y + cycles_right * x)).reshape(-1)


def test_high_frequencies_counts_the_energy_of_waves_above_half_the_nyquist_frequency():
    below, above, diagonal = wave(7, 0), wave(0, 8), wave(5, 5)  # 1/4, 2/7 and 0.2525 cycles a pixel
    assert high_frequencies(below[None]) == pytest.approx(0, abs=1e-20)
    assert high_frequencies((1 + 3 * below + 2 * above)[None]) == pytest.approx(4 * 28 * 28 / 2)
    assert high_frequencies(np.stack([below, diagonal])) == pytest.approx(28 * 28 / 2 / 2)


def test_high_frequencies_of_noise_is_its_energy_times_the_share_of_frequencies():
    noise = np.random.default_rng(0).normal(size=(4_000, 784))
    share = np.mean(np.hypot(*np.meshgrid(np.fft.fftfreq(28), np.fft.fftfreq(28))) > 0.25)
    assert high_frequencies(noise) == pytest.approx(784 * share, rel=0.01)
