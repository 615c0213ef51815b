"""Disentanglement where it is known: a factor copied into one code, into two, mixed into all, or left out."""

import math
from statistics import NormalDist

import numpy as np
import pytest

from scratchgen.evaluation.factors import (
    BINS,
    linear_accuracy,
    linear_predictability,
    mutual_information_gap,
    smoothness,
)


@pytest.fixture
def factor(rng):
    return rng.integers(0, 4, 8_000)


def test_gap_is_one_if_one_code_alone_is_the_factor(rng, factor):
    codes = np.column_stack([rng.normal(size=8_000), factor, rng.normal(size=8_000)])
    assert mutual_information_gap(codes, factor) == pytest.approx(1, abs=0.01)
    assert mutual_information_gap(codes @ np.diag([1, -7, 1]), factor) == pytest.approx(1, abs=0.01)


def test_gap_is_zero_if_two_codes_tell_the_same_or_none_tells_anything(rng, factor):
    assert mutual_information_gap(np.column_stack([factor, 2.0 * factor]), factor) == pytest.approx(0, abs=1e-12)
    assert mutual_information_gap(rng.normal(size=(8_000, 5)), factor) < 0.01


def test_gap_is_the_difference_of_the_informations(rng):
    """A code that is the factor in a share s of the images, and another in the rest, by the closed form."""
    n, s = 200_000, 0.7
    factor, other = rng.integers(0, 2, (2, n))
    noisy = np.where(rng.random(n) < s, factor, other)
    wrong = (1 - s) / 2
    information = math.log(2) + wrong * math.log(wrong) + (1 - wrong) * math.log(1 - wrong)
    codes = np.column_stack([noisy, rng.normal(size=n)])
    assert mutual_information_gap(codes, factor) == pytest.approx(information / math.log(2), abs=0.005)


def test_gap_of_a_continuous_factor_is_of_bins_of_equal_numbers(rng):
    factor = rng.exponential(size=20_000)
    ranks = np.argsort(np.argsort(factor)) / 20_000
    codes = np.column_stack([ranks, rng.normal(size=20_000)])
    assert mutual_information_gap(codes, factor) == pytest.approx(1, abs=0.02)
    shuffled = np.column_stack([rng.permutation(ranks), rng.normal(size=20_000)])
    assert mutual_information_gap(shuffled, factor) < 0.01
    assert BINS == 20


def test_gap_refuses_one_code_and_a_constant_factor(factor):
    with pytest.raises(ValueError, match="between two codes; there is 1"):
        mutual_information_gap(factor[:, None].astype(float), factor)
    with pytest.raises(ValueError, match="constant"):
        mutual_information_gap(np.zeros((9, 2)), np.ones(9))


def test_linear_predictability_is_one_for_any_linear_mixture(rng):
    factors = rng.normal(size=(500, 3))
    codes = factors @ rng.normal(size=(3, 3)) + 5
    for factor in factors.T:
        assert linear_predictability(codes, factor) == pytest.approx(1)


def test_linear_predictability_is_r_squared_of_images_not_fitted(rng):
    code = rng.normal(size=20_000)
    factor = 2 * code + rng.normal(0, 1, 20_000)
    assert linear_predictability(code[:, None], factor) == pytest.approx(4 / 5, abs=0.02)
    assert linear_predictability(rng.normal(size=(60, 20)), rng.normal(size=60)) < 0  # overfitted


def test_linear_predictability_refuses_too_few(rng):
    with pytest.raises(ValueError, match="11 codes of 5 dimensions; at least 12"):
        linear_predictability(rng.normal(size=(11, 5)), rng.normal(size=11))
    linear_predictability(rng.normal(size=(12, 5)), rng.normal(size=12))


def test_linear_accuracy_of_two_normals_is_that_of_the_best_boundary(rng):
    """Means two standard deviations apart: a normal number lies on its own side with probability Phi(1)."""
    labels = rng.integers(2, size=40_000)
    codes = np.column_stack([rng.normal(size=40_000), 2 * labels + rng.normal(size=40_000)])
    assert linear_accuracy(codes, labels) == pytest.approx(NormalDist().cdf(1), abs=0.01)


def test_linear_accuracy_tells_classes_at_corners_apart_and_no_more_than_chance_from_noise(rng):
    labels = rng.integers(10, size=8_000)
    codes = np.eye(10)[labels] @ rng.normal(size=(10, 10)) + 5
    assert linear_accuracy(codes, labels) == 1
    assert linear_accuracy(rng.permutation(codes), labels) == pytest.approx(0.1, abs=0.02)


def test_linear_accuracy_is_of_images_not_fitted(rng):
    labels = rng.integers(2, size=60)
    codes = rng.normal(size=(60, 29))  # 29 dimensions and a constant fit any 30 labels
    assert linear_accuracy(codes, labels) < 0.8
    with pytest.raises(ValueError, match="11 codes of 5 dimensions; at least 12"):
        linear_accuracy(rng.normal(size=(11, 5)), np.arange(11) % 2)


def test_smoothness_is_one_half_way_zero_for_a_cross_fade_and_between_by_squares(rng):
    first, second, half_way = rng.random((3, 40, 9)).astype(np.float32)
    fade = (first + second) / 2
    assert smoothness(half_way, half_way, first, second) == 1
    assert smoothness(fade, half_way, first, second) == pytest.approx(0, abs=1e-6)
    assert smoothness(half_way + 0.5 * (fade - half_way), half_way, first, second) == pytest.approx(0.75, abs=1e-6)
    assert smoothness(half_way + 2 * (fade - half_way), half_way, first, second) == pytest.approx(-3, abs=1e-5)


def test_smoothness_refuses_images_that_are_the_same(rng):
    image = rng.random((4, 9))
    with pytest.raises(ValueError, match="smoothness is between two images; they are the same"):
        smoothness(image, image, image, image)
