"""Regression as least squares and as maximum likelihood (L04): the lesson's functions, and what it prints."""

import math

import numpy as np
import pytest
from lesson_helpers import load, run

LESSON = "04_regression"


@pytest.fixture(scope="module")
def demo():
    return load(LESSON)


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    """What ``--quick`` prints: the figures by name, and its files."""
    return run(LESSON, tmp_path_factory.mktemp("lesson"), "--quick")


@pytest.mark.parametrize("n", [5, 20, 100])
def test_maximum_likelihood_is_least_squares_and_the_mean_squared_residual(demo, n):
    z, x = demo.draw_line(n, np.random.default_rng(n))
    a, b, variance = demo.maximum_likelihood(z, x)
    features = np.stack([np.ones(n), z], axis=1)
    w = np.linalg.solve(features.T @ features, features.T @ x)  # the normal equations
    np.testing.assert_allclose([a, b], w, rtol=0, atol=1e-10)
    np.testing.assert_allclose(demo.least_squares(features, x), w, rtol=0, atol=1e-10)
    np.testing.assert_allclose(variance, np.square(x - features @ w).sum() / n, rtol=0, atol=1e-10)


@pytest.mark.parametrize("n", [5, 20, 100])
def test_small_samples_have_the_bias_and_the_coverage_of_theory(demo, n):
    ratio, covered = demo.small_samples(n, 40_000, np.random.default_rng(1))
    assert ratio == pytest.approx((n - 2) / n, abs=5 * math.sqrt(2 / n / 40_000))
    rng = np.random.default_rng(2)  # new point - line = sigma sqrt(1 + h) N(0, 1), where h is the leverage
    z, _ = demo.draw_line(40_000 * n, rng)
    z, fresh = z.reshape(-1, n), demo.draw_line(40_000, rng)[0]
    offset = z - z.mean(axis=1, keepdims=True)
    leverage = 1 / n + (fresh - z.mean(axis=1)) ** 2 / (offset**2).sum(axis=1)
    error = np.sqrt(1 + leverage) * rng.standard_normal(40_000)
    sigma = np.sqrt(rng.chisquare(n - 2, 40_000) / n)
    assert covered == pytest.approx((np.abs(error) < 1.96 * sigma).mean(), abs=0.012)


def test_draw_sine_has_its_mean_and_spread(demo):
    z, x = demo.draw_sine(200_000, np.random.default_rng(3))
    noise = (x - np.sin(np.pi * z)) / (0.3 + 0.15 * z)
    for part in np.array_split(noise[z.argsort()], 4):
        assert part.mean() == pytest.approx(0, abs=0.025)
        assert part.std() == pytest.approx(1, abs=0.02)


@pytest.mark.parametrize("constant", [False, True])
def test_predict_and_log_density_describe_the_same_normal(demo, constant):
    model = demo.Regression(constant, np.random.default_rng(4))
    z, x = demo.draw_sine(50, np.random.default_rng(5))
    mean, sd = demo.predict(model, z)
    expected = [demo.log_normal(*pair) for pair in zip(x - mean, sd, strict=True)]
    np.testing.assert_allclose(demo.log_density(model, z, x), expected, rtol=1e-12)
    assert (np.ptp(sd) == 0) == constant
    assert np.ptp(mean) > 0


def test_log_normal_is_a_density(demo):
    x = np.linspace(-5, 5, 2001)
    assert np.exp([demo.log_normal(distance, 0.4) for distance in x]).sum() * 0.005 == pytest.approx(1, abs=1e-12)
    assert math.exp(demo.log_normal(0, 0.1)) == pytest.approx(3.99, abs=0.005)  # the figure in the text


def test_coverage_counts_in_equal_intervals(demo):
    z = np.array([-1, -0.6, -0.4, 0.1, 0.2, 0.9, 1])
    inside = np.array([1, 0, 1, 1, 1, 0, 1], bool)
    np.testing.assert_allclose(demo.coverage(inside, z, 2), [2 / 3, 3 / 4])
    assert demo.coverage(inside, z, 1) == inside.mean()


def test_constant_in_theory_is_what_draws_give(demo):
    sigma, expected = demo.constant_in_theory(3)
    z, x = demo.draw_sine(400_000, np.random.default_rng(6))
    residual = x - np.sin(np.pi * z)
    assert sigma == pytest.approx(math.sqrt(np.square(residual).mean()), rel=0.005)
    np.testing.assert_allclose(demo.coverage(np.abs(residual) < 1.96 * sigma, z, 3), expected, atol=0.004)


def test_polynomials_have_the_likelihood_of_their_residuals(demo):
    z, x = demo.draw_cubic(60, np.random.default_rng(7))
    fresh = demo.draw_cubic(1000, np.random.default_rng(8))
    on_training, on_fresh = demo.polynomials(z, x, *fresh)
    for degree in demo.DEGREES:
        w = np.polyfit(z, x, degree)
        variance = np.square(x - np.polyval(w, z)).mean()
        assert on_training[degree] == pytest.approx(-(math.log(2 * math.pi * variance) + 1) / 2, abs=1e-9)
        error = np.square(fresh[1] - np.polyval(w, fresh[0])).mean()
        assert on_fresh[degree] == pytest.approx(-(math.log(2 * math.pi * variance) + error / variance) / 2, rel=1e-6)


def test_criteria_are_akaikes_and_schwarzs(demo):
    on_training = np.linspace(-1, -0.5, 10)
    aic, bic = demo.criteria(on_training, 100)
    assert aic[3] == pytest.approx(2 * 5 - 200 * on_training[3])  # four coefficients and sigma
    assert bic[3] == pytest.approx(5 * math.log(100) - 200 * on_training[3])


def test_chance_of_true_degree_is_that_of_theory(demo):
    # by Spitzer's identity, from P(chi²_k <= 2k): n c_n = sum over k of P(chi²_k <= 2k) c_(n - k)
    below = [0.842701, 0.864665, 0.888390, 0.908422, 0.924765, 0.938031]
    chance = [1.0]
    for n in range(1, 7):
        chance.append(sum(below[k - 1] * chance[n - k] for k in range(1, n + 1)) / n)
    assert demo.chance_of_true_degree(2, np.random.default_rng(9)) == pytest.approx(chance[-1], abs=0.007)


def test_lesson_04_prints_the_same_line_twice(table):
    got = {name: float(value) for name, value in table[0].items()}
    assert got["line: difference of both fits"] < 1e-10
    assert got["line: ML sigma² - mean squared residual"] < 1e-10
    assert got["n = 20: mean ML sigma² / true sigma²"] == pytest.approx(0.9, abs=0.01)
    assert got["n = 20: band mean ± 1.96 sigma holds, %"] == pytest.approx(90.6, abs=1)


def test_lesson_04_prints_bands_that_hold(table, demo):
    got = {name: float(value) for name, value in table[0].items()}
    theory = 100 * demo.constant_in_theory(3)[1]
    assert got["sigma(z): band holds, %"] == pytest.approx(95, abs=1)
    assert got["constant sigma: band holds, %"] == pytest.approx(theory.mean(), abs=1)
    for place, expected in zip(("first", "second", "last"), theory, strict=True):
        assert got[f"sigma(z): in the {place} third of z, %"] == pytest.approx(95, abs=1.5)
        assert got[f"constant sigma: in the {place} third of z, %"] == pytest.approx(expected, abs=1.5)


def test_lesson_04_prints_likelihoods_of_points(table, demo):
    got = {name: float(value) for name, value in table[0].items()}
    assert got["sigma(z): log p of the point on the sine"] > 0.5  # a density above 1
    assert got["log p of a bit reconstructed all but perfectly"] == pytest.approx(-math.exp(-40), rel=0.05)
    drop = {}
    for name, sd in (("sigma(z)", 0.18), ("constant sigma", demo.constant_in_theory(1)[0])):
        likely, unlikely = got[f"{name}: log p of the point on the sine"], got[f"{name}: log p of the point above"]
        drop[name] = likely - unlikely
        assert likely == pytest.approx(-math.log(sd * math.sqrt(2 * math.pi)), abs=0.15)
    assert drop["sigma(z)"] > 3 > 2 > drop["constant sigma"]
    assert got["sigma(z): mean log p(x|z), fresh"] > got["constant sigma: mean log p(x|z), fresh"] + 0.05


def test_lesson_04_prints_the_true_degree(table):
    got = {name: float(value) for name, value in table[0].items()}
    assert got["degree that AIC chooses"] == got["degree that BIC chooses"] == 3
    assert got["degree with the best likelihood of fresh data"] in (3, 4)
    assert 60 <= got["AIC chooses 3, of 100 data sets"] <= 85  # 73 in theory, for large n
    assert got["BIC chooses 3, of 100 data sets"] >= 90
    assert got["fresh data choose 3, of 100 data sets"] >= 75
    assert got["nats a point lost by BIC's choice, mean"] < got["nats a point lost by AIC's choice, mean"] < 0.05
    assert got["degree 3: training - fresh log p, nats"] == pytest.approx(0.05, abs=0.02)
    assert got["degree 9: training - fresh log p, nats"] > 0.1


def test_lesson_04_ends_with_its_figure(table):
    (picture,) = table[1]
    assert picture.read_bytes().startswith(b"\x89PNG")
