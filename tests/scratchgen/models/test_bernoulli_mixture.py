"""The mixture of Bernoulli templates against sums over every image and class, and EM against its definition."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from scratchgen.models.bernoulli_mixture import BernoulliMixture

K, D = 3, 5
IMAGES = np.array(list(itertools.product((0.0, 1.0), repeat=D)))  # all 32
LEFT = np.array([True, True, False, True, False])


def random_mixture(rng, components=K, pixels=D):
    mixture = BernoulliMixture(components)
    mixture.log_weights = np.log(rng.dirichlet(np.ones(components)))
    mixture.templates = rng.uniform(0.05, 0.95, (components, pixels))
    return mixture


def joint_by_hand(mixture):
    """p(x, k) (32, K) of every image and class, factor by factor."""
    table = np.ones((len(IMAGES), mixture.components))
    for i, k in np.ndindex(*table.shape):
        table[i, k] = np.exp(mixture.log_weights[k])
        for pixel, probability in zip(IMAGES[i], mixture.templates[k], strict=True):
            table[i, k] *= probability if pixel else 1 - probability
    return table


def same_on(mask):
    """(32, 32): whether two images agree on the pixels of a mask."""
    return (IMAGES[:, None, mask] == IMAGES[None, :, mask]).all(axis=2)


def test_log_prob_and_posterior_equal_enumeration(rng):
    mixture = random_mixture(rng)
    table = joint_by_hand(mixture)
    np.testing.assert_allclose(np.exp(mixture.log_joint(IMAGES)), table, rtol=1e-12)
    np.testing.assert_allclose(mixture.log_prob(IMAGES), np.log(table.sum(axis=1)), rtol=1e-12)
    np.testing.assert_allclose(np.exp(mixture.log_prob(IMAGES)).sum(), 1, rtol=1e-12)
    posterior = table / table.sum(axis=1, keepdims=True)
    np.testing.assert_allclose(mixture.posterior(IMAGES), posterior, rtol=1e-12)
    np.testing.assert_array_equal(mixture.predict(IMAGES), posterior.argmax(axis=1))


def test_posterior_of_some_pixels_equals_enumeration_over_the_others(rng):
    mixture = random_mixture(rng)
    table = same_on(LEFT) @ joint_by_hand(mixture)  # summed over the images that agree
    np.testing.assert_allclose(mixture.log_prob(IMAGES, LEFT), np.log(table.sum(axis=1)), rtol=1e-12)
    np.testing.assert_allclose(mixture.posterior(IMAGES, LEFT), table / table.sum(axis=1, keepdims=True), rtol=1e-12)
    np.testing.assert_array_equal(mixture.predict(IMAGES, LEFT), table.argmax(axis=1))
    np.testing.assert_allclose(mixture.posterior(IMAGES, np.zeros(D, bool))[0], np.exp(mixture.log_weights))


def test_posterior_is_finite_where_probabilities_underflow(rng):
    mixture = random_mixture(rng, pixels=5000)
    x = rng.integers(0, 2, (4, 5000))
    assert np.isfinite(mixture.log_prob(x)).all()
    assert mixture.log_prob(x).max() < np.log(np.finfo(float).tiny)
    np.testing.assert_allclose(mixture.posterior(x).sum(axis=1), 1, rtol=1e-12)


def test_pixels_are_binarized_at_one_half(rng):
    mixture = random_mixture(rng)
    grey = np.where(IMAGES == 1, rng.uniform(0.51, 1, IMAGES.shape), rng.uniform(0, 0.5, IMAGES.shape))
    np.testing.assert_array_equal(mixture.log_prob(grey.astype(np.float32)), mixture.log_prob(IMAGES))
    labels = rng.integers(0, K, len(grey))
    pair = BernoulliMixture(K).fit(grey, labels), BernoulliMixture(K).fit(IMAGES, labels)
    np.testing.assert_array_equal(pair[0].templates, pair[1].templates)


@pytest.mark.parametrize("smoothing", [1e-9, 0.3, 1.0])
def test_fit_with_labels_counts(rng, smoothing):
    x, labels = rng.integers(0, 2, (40, D)), rng.integers(0, K, 40)
    mixture = BernoulliMixture(K, smoothing).fit(x, labels)
    for k in range(K):
        own = x[labels == k]
        weight = (len(own) + smoothing) / (40 + K * smoothing)
        template = (own.sum(axis=0) + smoothing) / (len(own) + 2 * smoothing)
        np.testing.assert_allclose(np.exp(mixture.log_weights[k]), weight, rtol=1e-12)
        np.testing.assert_allclose(mixture.templates[k], template, rtol=1e-12)


@pytest.mark.parametrize("smoothing", [0.1, 1.0])
def test_fit_with_labels_is_the_naive_bayes_of_scikit_learn(rng, smoothing):
    naive_bayes = pytest.importorskip("sklearn.naive_bayes", reason="scikit-learn is not installed")
    x, labels = rng.integers(0, 2, (60, D)), rng.integers(0, K, 60)
    mixture = BernoulliMixture(K, smoothing).fit(x, labels)
    # scikit-learn does not smooth the weights of the classes
    oracle = naive_bayes.BernoulliNB(alpha=smoothing, class_prior=np.exp(mixture.log_weights)).fit(x, labels)
    np.testing.assert_allclose(np.log(mixture.templates), oracle.feature_log_prob_, rtol=1e-12)
    np.testing.assert_allclose(mixture.posterior(IMAGES), oracle.predict_proba(IMAGES), rtol=1e-10)


def test_fit_with_labels_gives_a_class_without_examples_a_flat_template(rng):
    mixture = BernoulliMixture(3).fit(rng.integers(0, 2, (10, D)), np.arange(10) % 2)
    np.testing.assert_allclose(mixture.templates[2], 0.5)
    np.testing.assert_allclose(np.exp(mixture.log_weights), [6 / 13, 6 / 13, 1 / 13])


def test_fit_with_labels_maximizes_what_em_maximizes(rng):
    x, labels = rng.integers(0, 2, (30, D)), rng.integers(0, K, 30)
    best = BernoulliMixture(K, 0.7).fit(x, labels)

    def objective(log_weights, templates):
        mixture = BernoulliMixture(K, 0.7)
        mixture.log_weights, mixture.templates = log_weights, templates
        prior = log_weights.sum() + np.log(templates).sum() + np.log(1 - templates).sum()
        return mixture.log_joint(x)[np.arange(30), labels].sum() + 0.7 * prior

    top = objective(best.log_weights, best.templates)
    for _ in range(50):
        log_weights = best.log_weights + 0.01 * rng.standard_normal(K)
        templates = best.templates + 0.001 * rng.standard_normal((K, D))
        assert objective(log_weights - np.logaddexp.reduce(log_weights), templates) < top


def test_em_step_equals_its_definition():
    """Two images, two classes, two pixels, by hand: p(k | x) in fractions, then the smoothed means."""
    x = np.array([[1, 1], [1, 0]])
    mixture = BernoulliMixture(2, smoothing=1.0).fit(x, rng=np.random.default_rng(0), iterations=1)
    # the templates start at (3/4, 3/4) and (3/4, 1/4), in either order: p(k | x) is 3/4 for the image's own one
    weights = np.array([[3 / 4, 1 / 4], [1 / 4, 3 / 4]])
    expected = np.array([(row[0] * x[0] + row[1] * x[1] + 1) / (1 + 2) for row in weights])
    got = mixture.templates[np.argsort(-mixture.templates[:, 1])]
    np.testing.assert_allclose(got, expected, rtol=1e-12)
    np.testing.assert_allclose(np.exp(mixture.log_weights), 0.5)
    start = 2 * np.log(3 / 4 * (3 / 4 + 1 / 4) / 2)
    prior = 2 * np.log(1 / 2) + 4 * np.log(3 / 4 * 1 / 4)
    np.testing.assert_allclose(mixture.objective, [start + prior], rtol=1e-12)


@given(
    seed=st.integers(0, 10_000),
    n=st.integers(4, 40),
    pixels=st.integers(1, 8),
    components=st.integers(1, 4),
    smoothing=st.sampled_from([1e-6, 0.01, 1.0, 5.0]),
)
def test_em_never_lowers_its_objective(seed, n, pixels, components, smoothing):
    rng = np.random.default_rng(seed)
    x = rng.random((n, pixels)) < rng.random(pixels)
    mixture = BernoulliMixture(components, smoothing).fit(x, rng=rng, iterations=30)
    assert len(mixture.objective) == 30
    assert (np.diff(mixture.objective) >= -1e-10 * np.abs(mixture.objective[:-1])).all()  # rounding
    np.testing.assert_allclose(np.exp(mixture.log_weights).sum(), 1, rtol=1e-12)
    assert ((mixture.templates > 0) & (mixture.templates < 1)).all()


def test_em_recovers_well_separated_templates(rng):
    truth = BernoulliMixture(2)
    truth.log_weights, truth.templates = np.log([0.3, 0.7]), np.where(np.arange(20) < 10, 0.9, 0.1) * np.ones((2, 1))
    truth.templates[1] = truth.templates[1, ::-1]
    x, labels = truth.sample(20_000, rng)
    mixture = BernoulliMixture(2).fit(x, rng=rng)
    order = np.argsort(-mixture.templates[:, 0])
    np.testing.assert_allclose(mixture.templates[order], truth.templates, atol=0.02)
    np.testing.assert_allclose(np.exp(mixture.log_weights[order]), [0.3, 0.7], atol=0.02)
    assert (order[labels] == mixture.predict(x)).mean() > 0.999


def test_sample_has_the_moments_of_the_mixture(rng):
    mixture = random_mixture(rng)
    x, labels = mixture.sample(200_000, rng)
    weights = np.exp(mixture.log_weights)
    np.testing.assert_allclose(np.bincount(labels, minlength=K) / len(x), weights, atol=0.006)  # five sd or more
    second = np.einsum("k,kd,ke->de", weights, mixture.templates, mixture.templates)
    np.fill_diagonal(second, weights @ mixture.templates)  # as x² = x
    np.testing.assert_allclose(x.T @ x / len(x), second, atol=0.006)
    given, same = mixture.sample(100_000, rng, np.full(100_000, 2))
    assert (same == 2).all()
    np.testing.assert_allclose(given.mean(axis=0), mixture.templates[2], atol=0.008)


def test_complete_equals_the_conditional_by_enumeration(rng):
    mixture = random_mixture(rng)
    weights = same_on(LEFT) * joint_by_hand(mixture).sum(axis=1)  # of every completion of every image
    conditional = weights / weights.sum(axis=1, keepdims=True)
    np.testing.assert_allclose(mixture.complete(IMAGES, LEFT), conditional @ IMAGES, rtol=1e-12, atol=1e-15)
    np.testing.assert_array_equal(mixture.complete(IMAGES, LEFT)[:, LEFT], IMAGES[:, LEFT])
    for i in (0, 21, 31):
        drawn = mixture.complete(np.tile(IMAGES[i], (100_000, 1)), LEFT, rng)
        shares = np.bincount((drawn @ 2 ** np.arange(D)[::-1]).astype(int), minlength=len(IMAGES)) / len(drawn)
        np.testing.assert_allclose(shares, conditional[i], atol=0.008)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda m: BernoulliMixture(0), "components must be at least 1, got 0"),
        (lambda m: BernoulliMixture(2, 0.0), "smoothing must be at least 1e-9, got 0.0"),
        (lambda m: BernoulliMixture(2, float("nan")), "smoothing must be at least 1e-9, got nan"),
        (lambda m: BernoulliMixture(2).log_prob(IMAGES), "the mixture's templates 0; fit it first"),
        (lambda m: m.log_prob(IMAGES[:, :3]), "images have 3 pixels, the mixture's templates 5"),
        (lambda m: m.log_prob(IMAGES[0]), r"images must have the shape \(n, pixels\), got \(5,\)"),
        (lambda m: m.log_prob(IMAGES * 255), r"pixels must be numbers in \[0, 1\]"),
        (lambda m: m.log_prob(IMAGES * np.nan), r"pixels must be numbers in \[0, 1\]"),
        (lambda m: m.posterior(IMAGES, np.arange(5)), r"a mask of pixels must be bool of shape \(5,\), got int64"),
        (lambda m: m.complete(IMAGES, LEFT[:3]), r"a mask of pixels must be bool of shape \(5,\), got bool \(3,\)"),
        (lambda m: m.fit(IMAGES, np.full(32, 3)), "labels must be 0 to 2, got 3"),
        (lambda m: m.fit(IMAGES, np.full(32, -1)), "labels must be 0 to 2, got -1"),
        (lambda m: m.fit(IMAGES, np.zeros(32)), r"labels must be integers of shape \(32,\), got float64"),
        (lambda m: m.fit(IMAGES, np.zeros(3, int)), r"labels must be integers of shape \(32,\), got int64 \(3,\)"),
        (lambda m: m.fit(IMAGES), "without labels, fit needs rng"),
        (lambda m: m.fit(IMAGES[:0], np.zeros(0, int)), "there are no images to fit"),
        (lambda m: m.fit(IMAGES[:2], rng=np.random.default_rng(0)), "EM starts from 3 images, got 2"),
        (lambda m: BernoulliMixture(2).sample(3, np.random.default_rng(0)), "no templates yet; fit it first"),
        (lambda m: BernoulliMixture(2).complete(IMAGES, LEFT), "the mixture's templates 0; fit it first"),
        (lambda m: m.sample(2, np.random.default_rng(0), np.array([0, 3])), "labels must be 0 to 2, got 3"),
    ],
)
def test_mistakes_are_one_clear_line(rng, call, message):
    with pytest.raises(ValueError, match=message) as raised:
        call(random_mixture(rng))
    assert "\n" not in str(raised.value)
