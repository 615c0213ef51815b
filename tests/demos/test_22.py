"""The one-dimensional GAN of L22 to L24: what can be known of it exactly, and what the demo prints."""

import itertools
from dataclasses import replace
from statistics import NormalDist

import numpy as np
import pytest
from lesson_helpers import load, run
from PIL import Image

from scratchgen import Tensor

LESSON = "22_gan_one_dimensional"
NORMAL = NormalDist()


@pytest.fixture(scope="module")
def demo():
    return load(LESSON)


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    """What ``--quick`` prints: the figures by name, and its files."""
    return run(LESSON, tmp_path_factory.mktemp("lesson"), "--quick")


# ---- the best discriminator ----


def test_best_discriminator_has_the_divergence_as_its_value(demo):
    p, q = demo.normal_density(demo.GRID), demo.normal_density(demo.GRID, 0.7, 1.8)
    x = np.random.default_rng(0).normal(-1, 1, 400_000)
    y = np.random.default_rng(1).normal(0.7, 1.8, 400_000)
    value = demo.game_value(demo.best_discriminator(p, q), p, q, demo.SPACING)
    assert value == pytest.approx(2 * demo.jensen_shannon(p, q, demo.SPACING) - np.log(4), abs=1e-12)
    # and by Monte Carlo, from the ratio of densities written out: log D* = -log(1 + q/p)
    ratio = [np.exp(-(((v - 0.7) / 1.8) ** 2) / 2 + (v + 1) ** 2 / 2) / 1.8 for v in (x, y)]
    assert value == pytest.approx(-np.log1p(ratio[0]).mean() - np.log1p(1 / ratio[1]).mean(), abs=0.005)


def test_best_discriminator_has_the_highest_value(demo):
    p, q = demo.normal_density(demo.GRID), demo.normal_density(demo.GRID, 0.7, 1.8)
    best = demo.best_discriminator(p, q)
    value = demo.game_value(best, p, q, demo.SPACING)
    for shift in (-0.02, 0.02):
        assert demo.game_value(np.clip(best + shift, 0, 1), p, q, demo.SPACING) < value - 1e-4


def test_jensen_shannon_is_exact_for_equal_and_disjoint_densities(demo):
    p, far = demo.normal_density(demo.GRID, -7, 0.5), demo.normal_density(demo.GRID, 7, 0.5)
    assert demo.jensen_shannon(p, p, demo.SPACING) == pytest.approx(0, abs=1e-12)
    assert demo.jensen_shannon(p, far, demo.SPACING) == pytest.approx(np.log(2), abs=1e-12)


# ---- the product ----


def test_best_threshold_has_the_highest_product_by_brute_force(demo):
    # Densities constant on five pieces: D at k/6 all over a piece is worth as much as D at 1 on k of its six points.
    rng = np.random.default_rng(2)
    choices = np.array(list(itertools.product(np.linspace(0, 1, 7), repeat=5)))
    for _ in range(20):
        p, q = rng.dirichlet(np.ones(5)), rng.dirichlet(np.ones(5))
        values = (choices @ p) * (1 - choices @ q)
        d, ratio = demo.best_threshold(np.repeat(p, 6), np.repeat(q, 6), 1 / 6)
        assert set(d) <= {0.0, 1.0}
        np.testing.assert_allclose(d.reshape(5, 6).mean(axis=1), choices[values.argmax()])
        assert demo.product_value(d, np.repeat(p, 6), np.repeat(q, 6), 1 / 6) == pytest.approx(values.max(), abs=1e-12)
        mean = d.reshape(5, 6).mean(axis=1)
        assert ratio == pytest.approx((mean @ p) / (1 - mean @ q), rel=1e-9)


def test_best_threshold_between_equal_normals_lies_in_the_middle(demo):
    p, q = demo.normal_density(demo.GRID, -1), demo.normal_density(demo.GRID, 1)
    d, ratio = demo.best_threshold(p, q, demo.SPACING)
    assert ratio == pytest.approx(1, abs=0.01)
    assert demo.product_value(d, p, q, demo.SPACING) == pytest.approx(NORMAL.cdf(1) ** 2, abs=1e-5)


def test_criterion_loss_depends_on_order_for_the_product_only(demo):
    rng = np.random.default_rng(3)
    real, fake = rng.normal(size=(2, 2, 50, 1))

    def losses(criterion):
        orders = (real, np.sort(real, axis=1)), (fake, np.sort(fake, axis=1))
        return [demo.criterion_loss(criterion, Tensor(a), Tensor(b)).item() for a, b in zip(*orders, strict=True)]

    assert np.diff(losses("logarithms")) == pytest.approx(0, abs=1e-12)
    assert abs(np.diff(losses("product"))) > 1e-3


# ---- the networks and their gradients ----


def test_criterion_loss_sums_batch_means_over_seeds(demo):
    real, fake = np.random.default_rng(4).normal(size=(2, 3, 50, 1))
    d, e = 1 / (1 + np.exp(-real)), 1 / (1 + np.exp(-fake))
    logarithms = -(np.log(d) + np.log(1 - e)).mean(axis=1).sum()
    product = -(d * (1 - e)).mean(axis=1).sum()
    assert demo.criterion_loss("logarithms", Tensor(real), Tensor(fake)).item() == pytest.approx(logarithms, rel=1e-12)
    assert demo.criterion_loss("product", Tensor(real), Tensor(fake)).item() == pytest.approx(product, rel=1e-12)


def test_game_probability_is_a_clipped_tanh(demo):
    game = demo.Game(demo.SOURCE, [0])
    x = np.linspace(-5, 5, 41)
    raw = np.tanh(game.discriminators(Tensor(x[None, :, None])).data[0, :, 0])
    assert (raw < 0).any()
    np.testing.assert_allclose(game.probability(x)[0], np.clip(raw, 0.01, 0.99), rtol=1e-12)


@pytest.mark.parametrize("variant", ["SOURCE", "LECTURE", "IMPROVED"])
def test_game_plays_each_seed_independently(demo, variant):
    setup = replace(getattr(demo, variant), steps=20, pretraining=20)
    together, alone = demo.Game(setup, [3, 4]).play(), demo.Game(setup, [4]).play()
    np.testing.assert_allclose(together.samples(50)[1], alone.samples(50)[0], rtol=1e-9)
    np.testing.assert_allclose(together.probability(demo.LINE)[1], alone.probability(demo.LINE)[0], rtol=1e-9)
    assert abs(together.samples(50)[0] - together.samples(50)[1]).max() > 0.1


def test_shared_gradient_difference_is_zero(demo):
    assert demo.shared_gradient_difference(5) == 0.0


def test_objective_gradients_match_finite_differences(demo):
    a, h = np.linspace(-4, 4, 9), 1e-5
    found = demo.objective_gradients(a)
    objectives = {
        "minimax": lambda a: np.log(1 - 1 / (1 + np.exp(-a))),
        "non-saturating": lambda a: -np.log(1 / (1 + np.exp(-a))),
        "literal": lambda a: -1 / (1 + np.exp(-a)),
    }
    assert found.keys() == objectives.keys() == demo.MAGNITUDES.keys()
    for name, objective in objectives.items():
        slope = np.abs(objective(a + h) - objective(a - h)) / (2 * h)
        np.testing.assert_allclose(found[name], slope, atol=1e-9)
        np.testing.assert_allclose(demo.MAGNITUDES[name](1 / (1 + np.exp(-a))), slope, atol=1e-9)


# ---- the measure, and what is printed ----


def test_wasserstein_is_exact_for_moved_and_stretched_normals(demo):
    quantiles = np.array([NORMAL.inv_cdf((i + 0.5) / 10_000) for i in range(10_000)])
    shuffled = np.random.default_rng(6).permutation(quantiles)
    assert demo.wasserstein(shuffled - 1) == pytest.approx(0, abs=1e-12)
    assert demo.wasserstein(shuffled - 0.75) == pytest.approx(0.25, abs=1e-12)
    # N(0, 1) against N(0, s²): |s - 1| E|x| = |s - 1| √(2/π)
    assert demo.wasserstein(1.5 * shuffled - 1) == pytest.approx(0.5 * np.sqrt(2 / np.pi), abs=1e-3)


def test_good_asks_for_mean_and_sd_and_distance(demo):
    score = np.array([[-1, 1, 0.1], [-0.8, 1, 0.1], [-1, 0.8, 0.1], [-1, 1, 0.2]])
    assert demo.good(score).tolist() == [True, False, False, False]


def test_lesson_22_prints_the_exact_figures(table):
    got = table[0]
    assert float(got["|V(D*) + log 4 - 2 JSD|, by quadrature"]) < 1e-5
    assert float(got["V(D*) where p = q"]) == pytest.approx(-np.log(4), abs=1e-6)
    assert float(got["gradient of shared D - (of D1 + of D2)"]) == 0.0
    for objective in ("minimax", "non-saturating", "literal"):
        assert float(got[f"|gradient| of {objective}, error"]) < 1e-12


def test_lesson_22_prints_discriminators_near_their_optima(table):
    got = table[0]
    assert float(got["mean |D - D*|, D trained by logarithms"]) < 0.03
    assert float(got["mean |D - D*|, D trained by the product"]) > 0.1
    assert float(got["V(D*)"]) - 0.02 < float(got["V of D trained by logarithms"]) <= float(got["V(D*)"])
    of_best = float(got["E D(x) (1 - D(G(z))), the product, of D*"])
    of_trained, of_threshold = (float(got[f"the product of {d}"]) for d in ("D trained by it", "the best threshold"))
    assert of_best + 0.05 < of_trained <= of_threshold
    assert of_threshold - of_trained < 0.02
    undecided = [float(got[f"share of x with D in (0.1, 0.9), {d}"]) for d in ("D*", "by logarithms", "by the product")]
    assert abs(undecided[1] - undecided[0]) < 0.1
    assert undecided[2] < 0.1


def test_lesson_22_prints_improved_samples_near_the_data(table):
    low, high = map(float, table[0]["improved, mean of the samples"].split(" to "))
    assert -1.5 < low <= high < -0.5
    low, high = map(float, table[0]["improved, sd of the samples"].split(" to "))
    assert 0.6 < low <= high < 1.4
    assert float(table[0]["improved, W1"].split(" to ")[1]) < 0.5


def test_lesson_22_ends_with_its_figure_and_animation(table):
    picture, animation = table[1]
    assert picture.read_bytes().startswith(b"\x89PNG")
    with Image.open(animation) as film:
        assert film.format == "GIF"
        assert film.n_frames > 10
