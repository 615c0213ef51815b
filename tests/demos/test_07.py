"""Variational inference (L07) and p(x) as an integral (L08): the lesson's functions, and what it prints."""

import math

import numpy as np
import pytest
from lesson_helpers import load, run

from scratchgen import Tensor, ops

LESSON = "07_inference"


@pytest.fixture(scope="module")
def demo():
    return load(LESSON)


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    """What ``--quick`` prints: the figures by name, and its files."""
    return run(LESSON, tmp_path_factory.mktemp("lesson"), "--quick")


@pytest.fixture(scope="module")
def got(table):
    return {name: float(value) for name, value in table[0].items()}


def log_density_of_normal(mean, sd):
    """log N(z | mean, sd²) of codes z (..., 1)."""
    return lambda z: -ops.gaussian_nll_fixed(z, np.full(z.shape, mean), sd)


def test_log_mixture_is_the_density_of_its_definition(demo):
    z = np.linspace(-6, 6, 25)
    terms = zip(demo.WEIGHTS, demo.MEANS, demo.SDS, strict=True)
    p = sum(w * np.exp(-(((z - m) / s) ** 2) / 2) / (s * math.sqrt(2 * math.pi)) for w, m, s in terms)
    np.testing.assert_allclose(demo.log_mixture(Tensor(z[:, None])).data, np.log(p), rtol=1e-12)


def test_reverse_kl_of_normals_is_the_closed_form(demo):
    mu, sigma = np.array([0.3, -1.0, 2.0]), np.array([0.5, 1.0, 1.7])
    eps = np.broadcast_to(demo.EPS[:, None, None], (len(demo.EPS), 3, 1))
    arrays = mu[:, None], 2 * np.log(sigma)[:, None], eps, demo.EPS_WEIGHTS[:, None]
    found = demo.reverse_kl(log_density_of_normal(0.7, 0.9), *map(Tensor, arrays)).data
    expected = [demo.normal_kl(m, s, 0.7, 0.9) for m, s in zip(mu, sigma, strict=True)]
    np.testing.assert_allclose(found, expected, rtol=1e-12)


def test_fit_reverse_finds_a_normal_target_from_any_start(demo):
    mu, sigma, kl = demo.fit_reverse(log_density_of_normal(0.7, 0.9), np.array([-3.0, 0.0, 4]), np.array([0.3, 1, 3]))
    np.testing.assert_allclose(mu, 0.7, atol=1e-4)
    np.testing.assert_allclose(sigma, 0.9, atol=1e-4)
    np.testing.assert_allclose(kl, 0, atol=1e-7)


def test_fit_reverse_ends_where_no_small_change_helps(demo):
    mu, sigma, kl = demo.fit_reverse(demo.log_mixture, np.array([-3.0, 3, 0]), np.array([1.0, 1, 3]))
    for m, s, value in zip(mu, sigma, kl, strict=True):
        assert value == pytest.approx(demo.divergences(m, s)[0], abs=1e-9)  # the quadrature over z
        for change in ((0.01, 0), (-0.01, 0), (0, 0.01), (0, -0.01)):
            assert demo.divergences(m + change[0], s + change[1])[0] > value


@pytest.mark.parametrize("start", [(-3.0, 1.0), (0.0, 1.0), (5.0, 3.0)])
def test_fit_forward_matches_mean_and_variance(demo, start):
    mean = (demo.WEIGHTS * demo.MEANS).sum()
    variance = (demo.WEIGHTS * (demo.SDS**2 + (demo.MEANS - mean) ** 2)).sum()
    np.testing.assert_allclose(demo.fit_forward(demo.log_mixture, *start), [mean, math.sqrt(variance)], atol=1e-10)


def test_divergences_are_zero_only_for_equal_distributions(demo, monkeypatch):
    monkeypatch.setattr(demo, "log_mixture", log_density_of_normal(0.4, 0.8))
    np.testing.assert_allclose(demo.divergences(0.4, 0.8), 0, atol=1e-12)
    np.testing.assert_allclose(
        demo.divergences(1.0, 0.5), [demo.normal_kl(1, 0.5, 0.4, 0.8), demo.normal_kl(0.4, 0.8, 1, 0.5)]
    )


def test_normal_kl_is_that_of_the_engine_and_of_monte_carlo(demo):
    for m, s, *_ in demo.PAIRS:
        kl = ops.kl_standard_normal(Tensor(np.array([[float(m)]])), Tensor(np.array([[2 * math.log(s)]]))).item()
        assert demo.normal_kl(m, s, 0, 1) == pytest.approx(kl, rel=1e-12)
    for number, pair in enumerate(demo.PAIRS):
        sampled, error = demo.sampled_normal_kl(*pair, 100_000, np.random.default_rng(number))
        assert abs(sampled - demo.normal_kl(*pair)) <= 3 * error
        assert 0 < error < 0.05


def test_gradients_of_single_draws_have_the_grids_as_mean(demo):
    arguments = demo.log_mixture, 0.5, 1.2
    exact = demo.gradients(*arguments, demo.EPS[:, None, None], demo.EPS_WEIGHTS[:, None])[0]
    eps = np.random.default_rng(1).standard_normal((1, 50_000, 1))
    single = demo.gradients(*arguments, eps, np.ones((1, 1)))
    error = single.std(axis=0, ddof=1) / math.sqrt(len(single))
    assert (np.abs(single.mean(axis=0) - exact) <= 3 * error).all()
    step = 1e-4  # and the grid's is that of finite differences of the quadrature over z
    for i, change in enumerate(([step, 0], [0, step])):
        up, down = (
            demo.divergences(0.5 + sign * change[0], math.exp((1.2 + sign * change[1]) / 2)) for sign in (1, -1)
        )
        assert exact[i] == pytest.approx((up[0] - down[0]) / (2 * step), rel=1e-6)


@pytest.fixture
def linear(demo, monkeypatch):
    """The lesson with f(z) = 2z + 0.5, where p(x) = N(0.5, 4 + 0.3²) and the posterior is normal; returns these."""
    monkeypatch.setattr(demo, "decode", lambda z: 2 * z + 0.5)
    precision = 1 + 4 / 0.09
    return lambda x: (demo.log_normal(x, 0.5, math.sqrt(4.09)), 2 * (x - 0.5) / 0.09 / precision, precision**-0.5)


def test_marginal_likelihood_of_a_linear_model_all_ways(demo, linear):
    for x in (0.8, 4.0):
        log_p, mean, sd = linear(x)
        assert demo.quadrature(x) == pytest.approx(log_p, abs=1e-12)
        mu, sigma, minus_elbo = demo.fit_reverse(demo.log_joint(x), np.zeros(1), np.ones(1))
        np.testing.assert_allclose([mu[0], sigma[0]], [mean, sd], rtol=1e-3)
        assert minus_elbo[0] == pytest.approx(-log_p, abs=1e-5)
        rng = np.random.default_rng(2)
        weights = demo.log_weights(x, mean, sd, 1000, rng)
        np.testing.assert_allclose(weights, log_p, rtol=1e-10)  # of the posterior all weights are p(x)
        for q in ((0.0, 1.0), (mean, 1.5 * sd)):
            error = math.sqrt(demo.relative_variance(x, *q) / 1_000_000)
            assert demo.estimate(x, *q, 1_000_000, rng) == pytest.approx(log_p, abs=4 * error)


def test_relative_variance_of_a_linear_model_is_the_closed_form(demo, linear):
    _, mean, sd = linear(4.0)
    assert demo.relative_variance(4.0, mean, sd) == pytest.approx(0, abs=1e-9)
    assert demo.relative_variance(4.0, mean, 1.5 * sd) == pytest.approx(2.25 / math.sqrt(3.5) - 1, abs=1e-9)


def test_errors_are_those_of_independent_means(demo, linear):
    x = 0.8
    log_p, mean, sd = linear(x)
    v = demo.relative_variance(x, mean, 1.5 * sd)
    relative, bias, error = demo.errors(x, mean, 1.5 * sd, log_p, 10_000_000, np.random.default_rng(3))
    np.testing.assert_allclose(relative, np.sqrt(v / np.array(demo.SIZES)), rtol=0.1)
    np.testing.assert_allclose(error, math.sqrt(v / 10_000_000), rtol=0.1)  # the same number of draws for each size
    assert (np.abs(bias + v / (2 * np.array(demo.SIZES))) <= 4 * error + v**2 / np.square(demo.SIZES)).all()


def test_distinct_takes_close_ends_for_one(demo):
    ends = np.array([[1.0, 2.0], [3.0, 0.5], [1.001, 2.001], [3.0, 2.0]])
    assert [tuple(end) for end in demo.distinct(ends)] == [(3.0, 0.5), (1.0, 2.0), (3.0, 2.0)]


def test_lesson_07_prints_reverse_kl_that_takes_one_mode(got):
    assert got["optima of KL(q || p) from 33 starts"] == 3
    for name, mean, sd, weight in (("left", -2.5, 0.6, 0.6), ("right", 2.5, 0.9, 0.4)):
        assert got[f"{name} optimum: mu"] == pytest.approx(mean, abs=0.02)
        assert got[f"{name} optimum: sigma"] == pytest.approx(sd, abs=0.02)
        assert got[f"{name} optimum: KL(q || p)"] == pytest.approx(-math.log(weight), abs=0.005)
        assert got[f"{name} optimum: KL(p || q)"] > 5
    assert got["broad optimum: KL(q || p)"] > got["right optimum: KL(q || p)"] > got["left optimum: KL(q || p)"]


def test_lesson_07_prints_forward_kl_that_covers_both(got):
    assert got["forward: mu"] == pytest.approx(-0.5, abs=0.001)
    assert got["forward: sigma"] == pytest.approx(2.557, abs=0.001)
    assert got["forward: difference from mean and sd of p"] < 1e-10
    assert got["forward: KL(p || q)"] < min(got[f"{name} optimum: KL(p || q)"] for name in ("left", "right", "broad"))
    assert got["forward: KL(q || p)"] > got["left optimum: KL(q || p)"]


def test_lesson_07_prints_monte_carlo_within_three_standard_errors(got):
    assert got["closed KL of 5 pairs, Monte Carlo: standard errors"] <= 3
    assert got["gradient by single draws: standard errors"] <= 3


@pytest.mark.parametrize("place", ["middle", "tail"])
def test_lesson_07_prints_three_estimates_that_agree(got, place):
    log_p = got[f"{place}: log p(x) by quadrature"]
    assert got[f"{place}: change on a finer, wider grid"] < 1e-10
    assert got[f"{place}: naive, 7,000,000 draws"] == pytest.approx(log_p, abs=0.01)
    assert got[f"{place}: importance sampling, 100,000 draws"] == pytest.approx(log_p, abs=0.01)
    assert log_p - 0.01 < got[f"{place}: ELBO of the fitted q"] < log_p


@pytest.mark.parametrize(("place", "fewer"), [("middle", 10), ("tail", 700)])
def test_lesson_07_prints_errors_that_fall_with_the_root_of_the_draws(got, place, fewer):
    assert got[f"{place}: slope of the error, naive"] == pytest.approx(-0.5, abs=0.05)
    assert got[f"{place}: slope of the error, importance"] == pytest.approx(-0.5, abs=0.05)
    assert got[f"{place}: times fewer draws by importance"] == pytest.approx(fewer, rel=0.2)
    assert got[f"{place}: v of the widened q"] == pytest.approx(0.2, abs=0.02)


@pytest.mark.parametrize("place", ["middle", "tail"])
def test_lesson_07_prints_logarithms_that_are_too_low(got, place):
    assert got[f"{place}: bias of log, naive, N = 10"] < -0.05
    error = math.sqrt(0.2 / 3_500_000)  # --quick uses so many draws
    assert got[f"{place}: bias of log, importance, N = 10"] == pytest.approx(-0.01, abs=4 * error + 0.001)


def test_lesson_07_ends_with_its_figure(table):
    (picture,) = table[1]
    assert picture.read_bytes().startswith(b"\x89PNG")
