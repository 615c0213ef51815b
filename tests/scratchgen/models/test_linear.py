"""Logistic regression and the linear SVM: losses against definitions, fits against what makes an optimum one."""

import numpy as np
import pytest

from scratchgen.gradcheck import gradcheck
from scratchgen.models.linear import LinearClassifier, LinearSVM, LogisticRegression
from scratchgen.tensor import Tensor

KINDS = [LogisticRegression, LinearSVM]
N, D, K = 60, 3, 4


def overlapping_classes(rng, n=N):
    """Points (n, D) of K classes, which no boundary separates, and labels (n,)."""
    labels = rng.integers(0, K, n)
    return 2 * rng.normal(size=(K, D))[labels] + rng.normal(size=(n, D)), labels


def random_model(kind, rng, l2=0.3):
    model = kind(D, K, l2, np.float64)
    model.linear.weight.write(rng.normal(size=(D, K)))
    model.linear.bias.write(rng.normal(size=K))
    return model


def exactly_fitted(kind, x, labels, l2, steps=3000):
    """Fitted on whole batches, in float64, with many more steps than a classifier needs."""
    model = kind(x.shape[1], labels.max() + 1, l2, np.float64)
    return model.fit(x, labels, np.random.default_rng(1), steps, batch_size=len(x), lr=0.03)


def loss_by_hand(model, x, labels):
    """The objective, example by example and class by class."""
    weight, bias = model.linear.weight.data, model.linear.bias.data
    total = 0.0
    for point, label in zip(x, labels, strict=True):
        scores = [float(point @ weight[:, k] + bias[k]) for k in range(len(bias))]
        if isinstance(model, LinearSVM):
            total += max(0, 1 - scores[label]) + sum(max(0, 1 + s) for k, s in enumerate(scores) if k != label)
        else:
            total -= np.log(np.exp(scores[label]) / np.sum(np.exp(scores)))
    return total / len(x) + model.l2 / 2 * (weight**2).sum()


def loss_and_gradients(model, x, labels):
    for parameter in model.parameters():
        parameter.grad = None
    loss = model.loss(Tensor(x), labels)
    loss.backward()
    return loss.item(), model.linear.weight.grad, model.linear.bias.grad


# ---- the losses ----


@pytest.mark.parametrize("kind", KINDS)
def test_loss_is_its_definition(rng, kind):
    model, (x, labels) = random_model(kind, rng), overlapping_classes(rng)
    np.testing.assert_allclose(model.loss(Tensor(x), labels).item(), loss_by_hand(model, x, labels), rtol=1e-12)


@pytest.mark.parametrize("kind", KINDS)
def test_loss_gradients(rng, kind):
    model, (x, labels) = random_model(kind, rng), overlapping_classes(rng)
    kinks = np.abs(np.abs(model.scores(x)) - 1)  # where the hinge has a kink, |score| is 1
    x, labels = x[kinks.min(axis=1) > 0.02], labels[kinks.min(axis=1) > 0.02]
    assert len(x) > N / 2
    gradcheck(lambda *_: model.loss(Tensor(x), labels), *model.parameters())


@pytest.mark.parametrize("kind", KINDS)
def test_loss_gradient_is_a_subgradient_also_at_kinks(rng, kind):
    """loss(v) >= loss(w) + <gradient(w), v - w>, which for a convex function is what a subgradient is."""
    model = kind(D, K, 0.1, np.float64)
    x, labels = overlapping_classes(rng)
    x = np.sign(x)
    model.linear.weight.write(rng.integers(-1, 2, (D, K)).astype(float))
    assert (np.abs(model.scores(x)) == 1).mean() > 0.1
    here, *gradients = loss_and_gradients(model, x, labels)
    start = model.state_dict()
    for size in (1e-3, 0.1, 10.0):
        moves = [size * rng.normal(size=gradient.shape) for gradient in gradients]
        for parameter, old, move in zip(model.parameters(), start.values(), moves, strict=True):
            parameter.write(old + move)
        rise = sum((gradient * move).sum() for gradient, move in zip(gradients, moves, strict=True))
        assert model.loss(Tensor(x), labels).item() >= here + rise - 1e-12 * size


# ---- the optimum ----


def test_logistic_regression_fits_to_a_zero_gradient(rng):
    x, labels = overlapping_classes(rng)
    model = exactly_fitted(LogisticRegression, x, labels, l2=0.05)
    error = model.probabilities(x) - np.eye(K)[labels]
    np.testing.assert_allclose(x.T @ error / N + 0.05 * model.linear.weight.data, 0, atol=1e-6)
    np.testing.assert_allclose(error.mean(axis=0), 0, atol=1e-6)  # so the mean probabilities are the classes' shares


def smallest_subgradient(x, signs, weight, bias, l2, near=1e-3):
    """The norm of the shortest subgradient of a binary SVM; margins within ``near`` of the kink may have any slope.

    The slopes in [0, 1] are found by projected gradient descent on the squared norm.
    """
    margins = signs * (x @ weight + bias)
    columns = -(signs[:, None] * np.column_stack([x, np.ones(len(x))])) / len(x)  # of a hinge with slope 1
    fixed = columns[margins < 1 - near].sum(axis=0) + np.append(l2 * weight, 0)
    free = columns[np.abs(margins - 1) <= near]
    slopes, rate = np.full(len(free), 0.5), 1 / max(np.linalg.norm(free @ free.T, 2), 1e-9)
    for _ in range(5_000):
        slopes = np.clip(slopes - rate * free @ (fixed + slopes @ free), 0, 1)
    return np.linalg.norm(fixed + slopes @ free)


def test_linear_svm_fits_to_a_zero_subgradient(rng):
    x, labels = overlapping_classes(rng)
    model = exactly_fitted(LinearSVM, x, labels, l2=0.05)
    for k in range(K):
        signs, weight, bias = np.where(labels == k, 1, -1), model.linear.weight.data[:, k], model.linear.bias.data[k]
        assert smallest_subgradient(x, signs, weight, bias, 0.05) < 1e-3
        assert smallest_subgradient(x, signs, 1.1 * weight, bias, 0.05) > 1e-2  # the test can tell


@pytest.mark.parametrize(("l2", "weight"), [(4.0, 1 / 4), (0.5, 1.0)], ids=["within the margin", "on the margin"])
def test_linear_svm_of_two_points_has_its_closed_form(l2, weight):
    """Of x = -1 and 1 it lowers max(0, 1 - w) + l2/2 w²: w = min(1, 1/l2)."""
    model = exactly_fitted(LinearSVM, np.array([[-1.0], [1.0]]), np.array([0, 1]), l2)
    np.testing.assert_allclose(model.linear.weight.data, [[-weight, weight]], atol=1e-3)
    np.testing.assert_allclose(model.linear.bias.data, 0, atol=1e-3)


def test_logistic_regression_fits_as_scikit_learn(rng):
    linear_model = pytest.importorskip("sklearn.linear_model", reason="scikit-learn is not installed")
    x, labels = overlapping_classes(rng)
    oracle = linear_model.LogisticRegression(C=0.5, tol=1e-10, max_iter=10_000).fit(x, labels)
    model = exactly_fitted(LogisticRegression, x, labels, l2=1 / (0.5 * N))
    np.testing.assert_allclose(model.linear.weight.data, oracle.coef_.T, atol=1e-4)
    np.testing.assert_allclose(model.probabilities(x), oracle.predict_proba(x), atol=1e-4)
    np.testing.assert_array_equal(model.predict(x), oracle.predict(x))


def test_linear_svm_fits_as_scikit_learn(rng):
    svm = pytest.importorskip("sklearn.svm", reason="scikit-learn is not installed")
    x, labels = overlapping_classes(rng)
    # LinearSVC penalises the bias, as the weight of one more input; a large input makes that weight small
    settings = {"loss": "hinge", "C": 0.5, "intercept_scaling": 100, "tol": 1e-8, "max_iter": 10_000_000}
    oracle = svm.LinearSVC(**settings, random_state=0).fit(x, labels)
    model = exactly_fitted(LinearSVM, x, labels, l2=1 / (0.5 * N))
    best = random_model(LinearSVM, rng, model.l2)
    best.linear.weight.write(oracle.coef_.T)
    best.linear.bias.write(oracle.intercept_)
    np.testing.assert_allclose(loss_by_hand(model, x, labels), loss_by_hand(best, x, labels), rtol=1e-3)
    np.testing.assert_allclose(model.linear.weight.data, oracle.coef_.T, atol=0.02)


# ---- use ----


@pytest.mark.parametrize("kind", KINDS)
def test_fit_of_minibatches_separates_what_can_be_separated(kind):
    x = np.repeat(np.eye(K, D + 1, dtype=np.float32), 10, axis=0)
    labels = np.repeat(np.arange(K), 10)
    model = kind(D + 1, K).fit(x, labels, np.random.default_rng(0), steps=300, batch_size=7, lr=0.03)
    np.testing.assert_array_equal(model.predict(x), labels)
    assert model.predict(x).dtype == np.int64
    again = model.linear.weight.data.copy()
    model.fit(x, labels, np.random.default_rng(0), steps=300, batch_size=7, lr=0.03)  # from zero, not from here
    np.testing.assert_array_equal(model.linear.weight.data, again)


def test_predict_takes_the_largest_score_and_probabilities_are_its_softmax(rng):
    model, (x, _) = random_model(LogisticRegression, rng), overlapping_classes(rng)
    scores = x @ model.linear.weight.data + model.linear.bias.data
    np.testing.assert_allclose(model.scores(x), scores, rtol=1e-12)
    np.testing.assert_array_equal(model.predict(x), scores.argmax(axis=1))
    expected = np.exp(scores) / np.exp(scores).sum(axis=1, keepdims=True)
    np.testing.assert_allclose(model.probabilities(x), expected, rtol=1e-12)


X, SCORES, LABELS = np.zeros((5, D)), Tensor(np.zeros((5, K))), np.zeros(5, int)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda rng: LinearSVM(D, K, -1.0), "l2 must be 0 or above, got -1.0"),
        (lambda rng: LinearSVM(D, K, float("nan")), "l2 must be 0 or above, got nan"),
        (lambda rng: LinearSVM(D, K).fit(X[:, :2], LABELS, rng), r"x must have the shape \(n, 3\), got \(5, 2\)"),
        (lambda rng: LinearSVM(D, K).fit(X[:0], LABELS[:0], rng), "there is nothing to fit"),
        (lambda rng: LinearSVM(D, K).fit(X + np.nan, LABELS, rng), "x must be finite"),
        (lambda rng: LinearSVM(D, K).fit(X, LABELS - 1, rng), "labels must be 0 to 3, got -1"),
        (lambda rng: LinearSVM(D, K).fit(X, LABELS + 4, rng), "labels must be 0 to 3, got 4"),
        (
            lambda rng: LinearSVM(D, K).fit(X, LABELS[:3], rng),
            r"labels must be integers of shape \(5,\), got int64 \(3,\)",
        ),
        (lambda rng: LinearSVM(D, K).example_losses(SCORES, LABELS - 1), "labels must be 0 to 3, got -1"),
        (
            lambda rng: LinearSVM(D, K).example_losses(SCORES, LABELS[:, None]),
            r"labels must be integers of shape \(5,\), got int64 \(5, 1\)",
        ),
        (
            lambda rng: LinearSVM(D, K).example_losses(SCORES, LABELS[:1]),
            r"labels must be integers of shape \(5,\), got int64 \(1,\)",
        ),
        (lambda rng: LogisticRegression(D, K).predict(X[0]), r"x must have the shape \(n, 3\), got \(3,\)"),
        (lambda rng: LinearClassifier(D, K).fit(X, LABELS, rng), "LinearClassifier has no loss"),
    ],
)
def test_linear_classifiers_report_mistakes_in_one_line(rng, call, message):
    with pytest.raises((ValueError, NotImplementedError), match=message) as raised:
        call(rng)
    assert "\n" not in str(raised.value)
