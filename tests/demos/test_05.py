"""The latent digit of L05 and L06: dimensions, Bayes' rule and completed halves against closed forms, and the table."""

import math
from types import SimpleNamespace

import numpy as np
import pytest
from lesson_helpers import load, needs_mnist, run

from scratchgen.models.bernoulli_mixture import BernoulliMixture

LESSON = "05_latent_digit"
TABLES = [("strokes", ["--quick"]), pytest.param(("mnist", ["--quick"]), marks=[needs_mnist, pytest.mark.slow])]


@pytest.fixture(scope="module")
def demo():
    return load(LESSON)


@pytest.fixture(scope="module", params=TABLES, ids=["strokes", "mnist"])
def table(request, tmp_path_factory):
    """What ``--quick`` prints: the figures by name, and its files."""
    data, options = request.param
    return run(LESSON, tmp_path_factory.mktemp("lesson"), "--data", data, *options)


def stripes(parts, on=0.999):
    """A mixture of ten components; the k-th has rows k and k + 10 on, in the named halves of the picture."""
    mixture = BernoulliMixture(10)
    rows, columns = np.divmod(np.arange(784), 28)
    own = (rows % 10 == np.arange(10)[:, None]) & (rows < 20)
    mixture.templates = np.where(own & np.isin(columns < 14, parts), on, 1 - on)
    return mixture


def test_theory_equals_what_is_known_of_small_and_large_dimensions(demo):
    mean, sd, _, outer, ball = demo.theory(1)
    np.testing.assert_allclose([mean, sd, outer, ball], [math.sqrt(2 / math.pi), math.sqrt(1 - 2 / math.pi), 0.1, 1])
    mean, sd, _, outer, ball = demo.theory(3)  # |x| is Maxwell's speed
    known = [math.sqrt(8 / math.pi), math.sqrt(3 - 8 / math.pi), 0.271, math.pi / 6]
    np.testing.assert_allclose([mean, sd, outer, ball], known)
    mean, sd, ratio, outer, ball = demo.theory(10_000)
    np.testing.assert_allclose([mean, sd, ratio, outer], [100, 1 / math.sqrt(2), 1.04, 1], rtol=3e-4)
    assert ball == 0


@pytest.mark.parametrize("d", [1, 3, 10, 300])
def test_measure_agrees_with_theory(demo, d):
    n = 20_000
    mean, sd, _, outer, ball, norms = demo.measure(d, n, np.random.default_rng(d))
    expected = demo.theory(d)
    assert len(norms) == n
    assert abs(mean - expected[0]) < 5 * expected[1] / math.sqrt(n)
    assert sd == pytest.approx(expected[1], rel=5 / math.sqrt(n))
    for got, share in ((outer, expected[3]), (ball, min(expected[4], 1))):  # 1 + rounding for d = 1
        assert abs(got - share) <= 5 * math.sqrt(share * (1 - share) / n) + 1e-12


def test_far_over_near_agrees_with_theory_of_many_dimensions(demo):
    assert demo.far_over_near(3000, np.random.default_rng(0)) == pytest.approx(demo.theory(3000)[2], rel=0.006)
    assert demo.far_over_near(2, np.random.default_rng(0)) > 10


def test_posterior_of_cats_equals_enumeration(demo):
    model = demo.cat_model()
    np.testing.assert_allclose(np.exp(model.log_weights), [2 / 3, 1 / 3])
    x, table = demo.joint_table(np.exp(model.log_weights), model.templates)
    assert len(np.unique(x, axis=0)) == 512
    assert table.sum() == pytest.approx(1, abs=1e-12)
    np.testing.assert_allclose(table.sum(axis=0), [2 / 3, 1 / 3], rtol=1e-12)  # the prior is the mean of the posterior
    np.testing.assert_allclose(model.posterior(x), table / table.sum(axis=1, keepdims=True), rtol=0, atol=1e-12)


def test_posterior_is_1_only_where_nothing_else_looks_like_this(demo):
    templates = np.array([[0.0, 0.5, 0.5], [0.5, 0.5, 0.9]])  # without a cat, the first pixel is never on
    x, table = demo.joint_table(np.array([2 / 3, 1 / 3]), templates)
    cat = table[:, 1] / table.sum(axis=1)
    np.testing.assert_array_equal(cat == 1, x[:, 0] == 1)
    assert table[:, 1].sum() == pytest.approx(1 / 3)  # the lecture's P(z) = 1 is no prior


def test_cats_among_draws_are_as_many_as_the_posterior_says(demo):
    for low, high in ((0.05, 0.2), (0.4, 0.6), (0.8, 1)):
        mean, share, error = demo.cats_among(demo.cat_model(), low, high, np.random.default_rng(1))
        assert low < mean < high
        assert abs(share - mean) < 4 * error


def test_fit_by_class_with_one_template_counts(demo):
    x, labels = stripes([True, False], on=0.8).sample(500, np.random.default_rng(2))
    mixture = demo.fit_by_class(x, labels, 1, np.random.default_rng(3))
    for digit in range(10):
        own = x[labels == digit]
        template = (own.sum(axis=0) + demo.SMOOTHING) / (len(own) + 2 * demo.SMOOTHING)
        np.testing.assert_allclose(mixture.templates[digit], template, rtol=1e-12)
        np.testing.assert_allclose(np.exp(mixture.log_weights[digit]), len(own) / 500, rtol=1e-12)


def test_fit_by_class_orders_the_templates_by_digit(demo):
    x, labels = stripes([True, False]).sample(1000, np.random.default_rng(2))
    mixture = demo.fit_by_class(x, labels, 3, np.random.default_rng(3))
    shares = np.exp(mixture.log_weights).reshape(10, 3).sum(axis=1)
    np.testing.assert_allclose(shares, np.bincount(labels) / 1000, rtol=1e-12)
    np.testing.assert_array_equal(mixture.predict(x) // 3, labels)


def test_majority_names_the_components(demo):
    mixture = stripes([True, False])
    x, components = mixture.sample(500, np.random.default_rng(4))
    labels = 9 - components // 2  # two components show the same digit
    labels[:50] = (labels[:50] + 1) % 10
    digits, share = demo.majority(mixture, x, labels)
    np.testing.assert_array_equal(digits, 9 - np.arange(10) // 2)
    assert share == 450 / 500


def test_halves_share_as_much_as_their_latent_digit(demo):
    rng = np.random.default_rng(5)
    assert demo.halves_information(stripes([True, False]), 2000, rng) == pytest.approx(math.log(10), rel=1e-6)
    for parts in ([], [True]):  # one half or none says which digit it is
        assert demo.halves_information(stripes(parts), 2000, rng) == pytest.approx(0, abs=1e-9)


def test_examine_tells_halves_that_agree_from_independent_ones(demo):
    mixture = stripes([True, False])
    x, labels = mixture.sample(2000, np.random.default_rng(6))
    right = SimpleNamespace(probabilities=lambda images: mixture.posterior(images, ~demo.LEFT))  # judges right halves
    shares = demo.examine(mixture, right, x, labels, np.random.default_rng(7))
    for name in ("inferred", "expectation", "draw", "expectation, agrees", "draw, agrees"):
        assert shares[name] == 1, name
    for name in ("independent", "independent, agrees"):
        assert shares[name] == pytest.approx(0.1, abs=0.035)  # five standard errors
    more = demo.fit_by_class(x, labels, 3, np.random.default_rng(7))  # of 30 components
    assert demo.examine(more, right, x, labels, np.random.default_rng(7))["inferred"] == 1
    other = demo.examine(mixture, right, x, (labels + 1) % 10, np.random.default_rng(7))
    assert (other["expectation"], other["inferred"], other["expectation, agrees"]) == (0, 0, 1)


def test_completions_keep_the_left_half(demo):
    mixture = stripes([True, False])
    x, labels = mixture.sample(50, np.random.default_rng(8))
    for images in demo.completions(mixture, 0.4 * x + 0.3, np.random.default_rng(9)).values():  # grey levels
        np.testing.assert_array_equal(images[:, demo.LEFT], x[:, demo.LEFT])
    got = demo.completions(mixture, x, np.random.default_rng(9))["expectation"]
    np.testing.assert_allclose(got[:, ~demo.LEFT], mixture.templates[labels][:, ~demo.LEFT], atol=1e-9)


def test_lesson_05_prints_figures_near_theory(table):
    got = {name: float(value) for name, value in table[0].items()}
    assert got["mean of |x|, R^10000"] == pytest.approx(100, abs=0.2)
    assert got["sd of |x|, R^10000"] == pytest.approx(1 / math.sqrt(2), rel=0.15)  # of 400 draws
    assert got["farthest / nearest, R^10000"] == pytest.approx(1.04, abs=0.003)
    assert got["outer tenth, R^10"] == pytest.approx(1 - 0.9**10, abs=0.01)
    assert got["ball / cube, R^10"] == pytest.approx(math.pi**5 / 120 / 2**10, abs=0.001)
    assert got["Bayes' rule - enumeration"] < 1e-12
    assert got["sum_x p(x) P(z=1|x)"] == pytest.approx(1 / 3, abs=1e-4)
    assert 0.9 < got["largest P(z=1|x)"] < 1
    assert got["cats, of draws with P(z=1|x) in 0.4 to 0.6"] == pytest.approx(0.53, abs=0.03)


def test_lesson_05_prints_mixtures_and_halves_in_order(table):
    got = {name: float(value) for name, value in table[0].items()}
    assert got["EM, largest fall of the objective"] <= 1e-6  # of a sum near 1e6
    assert got["EM, log p(x) of test digits"] > got["counting, log p(x) of test digits"]
    assert 0.3 < got["EM, test digits whose class is mostly of their digit"] < got["counting, test digits classified"]
    assert got["counting, test digits classified"] > 0.77
    assert 2 < got["I(L; R), 1 template a digit"] <= math.log(10) + 0.03
    assert got["1 template a digit, judged as the digit, a draw"] < got["1 template a digit, judged as the digit"]
    assert got["1 template a digit, judged as the digit"] < got["20 templates, judged as the digit"]
    assert got["20 templates, judged as the digit"] > 0.8
    assert got["20 templates, judged as the digit, a draw"] > 0.8
    assert got["20 templates, independent halves"] < got["1 template a digit, judged as the digit"] - 0.1
    assert got["whole test digits, judged right"] > 0.95


def test_lesson_05_ends_with_its_figures(table):
    assert [path.name for path in table[1]] == ["1_dimensions.png", "2_templates.png", "3_completions.png"]
    assert all(path.read_bytes().startswith(b"\x89PNG") for path in table[1])


@pytest.mark.slow
@needs_mnist
def test_lesson_05_completes_more_than_90_percent_of_the_digits(tmp_path):
    got = {name: float(value) for name, value in run(LESSON, tmp_path, "--data", "mnist")[0].items()}
    assert got["200 templates, judged as the digit"] > 0.9
    assert got["200 templates, judged as the digit, a draw"] > 0.9
    assert 0.75 < got["1 template a digit, judged as the digit"] < 0.9
    assert got["counting, test digits classified"] == pytest.approx(0.84, abs=0.01)
