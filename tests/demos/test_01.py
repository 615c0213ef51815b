"""The lesson on generative and discriminative models: its functions against closed forms, and what it prints."""

import os
from fractions import Fraction

import numpy as np
import pytest
from lesson_helpers import load, needs_mnist, run

from scratchgen.models.bernoulli_mixture import BernoulliMixture
from scratchgen.models.linear import LogisticRegression

LESSON = "01_generative_and_discriminative"


@pytest.fixture(scope="module")
def lesson():
    return load(LESSON)


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    """What ``--quick`` prints, on MNIST where it is: the figures by name, and its files."""
    data = "mnist" if os.environ.get("SCRATCHGEN_DATA") else "strokes"
    return run(LESSON, tmp_path_factory.mktemp("lesson"), "--quick", "--data", data)


# ---- four points ----


def test_joint_by_counts_and_its_conditionals_are_the_fractions_of_the_ledger(lesson):
    half, quarter = Fraction(1, 2), Fraction(1, 4)
    assert lesson.joint_by_counts(lesson.POINTS) == [[half, 0], [quarter, quarter]]
    assert lesson.rows_to_one(lesson.joint) == [[1, 0], [half, half]]
    assert lesson.rows_to_one(lesson.transposed(lesson.joint)) == [[Fraction(2, 3), Fraction(1, 3)], [0, 1]]


def test_rows_to_one_of_the_transposed_joint_is_bayes_rule(lesson):
    points = [(0, 0)] * 3 + [(0, 1)] * 2 + [(1, 0)] * 7 + [(1, 1)] * 5
    joint = lesson.joint_by_counts(points)
    p_x, p_y = [sum(row) for row in joint], [sum(column) for column in zip(*joint, strict=True)]
    posterior = lesson.rows_to_one(joint)
    by_bayes = [[posterior[x][y] * p_x[x] / p_y[y] for x in (0, 1)] for y in (0, 1)]
    assert lesson.rows_to_one(lesson.transposed(joint)) == by_bayes


def test_draw_points_has_the_frequencies_of_the_joint(lesson, rng):
    x, y = lesson.draw_points(lesson.joint, 100_000, rng)
    counts = np.array([[((x == i) & (y == k)).sum() for k in (0, 1)] for i in (0, 1)])
    assert counts[0, 1] == 0
    np.testing.assert_allclose(counts / 100_000, [[0.5, 0], [0.25, 0.25]], atol=0.008)  # five standard errors


# ---- digits ----


def test_as_linear_gives_naive_bayes_as_a_softmax(lesson, rng):
    x, labels = rng.integers(0, 2, (50, 12)), rng.integers(0, 3, 50)
    mixture = BernoulliMixture(3, 0.5).fit(x, labels)
    weight, bias = lesson.as_linear(mixture)
    np.testing.assert_allclose(x @ weight + bias, mixture.log_joint(x), rtol=1e-10)


def test_linear_divides_the_penalty_by_the_number_of_labels(lesson, rng):
    x, labels = rng.integers(0, 2, (40, 5)).astype(np.float32), np.arange(40) % 10
    assert lesson.linear(LogisticRegression)(x, labels, rng).l2 == 1 / 40
    assert lesson.linear(LogisticRegression, penalty=0.0)(x, labels, rng).l2 == 0


def test_choose_smoothing_looks_at_the_last_5000_images_and_trains_on_the_others(lesson, rng, monkeypatch):
    x, labels = np.arange(12_000, dtype=np.float32)[:, None], np.arange(12_000) % 10
    trained = {0.01: [], 0.1: [], 1.0: []}
    monkeypatch.setattr(lesson, "naive_bayes", lambda x, labels, smoothing: trained[smoothing].append(x) or smoothing)
    monkeypatch.setattr(
        lesson, "accuracy", lambda model, x, labels: {0.01: 0.3, 0.1: 0.5, 1.0: 0.4}[model] * (x.min() == 7000)
    )
    assert lesson.choose_smoothing(x, labels, rng) == 0.1
    assert max(x.max() for x in trained[0.1]) < 7000
    for subsets in zip(*trained.values(), strict=True):  # the same for each pseudo-count
        assert all((x == subsets[0]).all() for x in subsets)


def test_learning_curves_give_all_models_the_same_subsets(lesson, rng):
    seen = []

    class Constant:
        def predict(self, x):
            return np.zeros(len(x), int)

    def fit(x, labels, rng):
        seen.append((x.ravel().tolist(), labels.tolist()))
        return Constant()

    train = np.arange(100)[:, None], np.arange(100) * 2
    test = np.zeros((4, 1)), np.array([0, 0, 0, 1])
    curves = lesson.learning_curves({"a": fit, "b": fit}, train, test, {5: 2, 100: 1}, rng)
    assert curves == {"a": [[0.75, 0.75], [0.75]], "b": [[0.75, 0.75], [0.75]]}
    assert seen[::2] == seen[1::2]
    assert [len(x) for x, _ in seen[::2]] == [5, 5, 100]
    assert seen[0] != seen[2]
    assert all(labels == [2 * row for row in x] and len(set(x)) == len(x) for x, labels in seen)


@pytest.mark.parametrize(
    ("lead", "expected"),
    [
        ([1, 1, -1], 10**2.5),
        ([-1, 3, -1], 10**2.75),
        ([1, -1, -2], 10**1.5),
        ([-1, -2, -3], None),
        ([1, 2, 3], None),
        ([1, 0, -1], 100),
    ],
)
def test_crossing_interpolates_in_the_logarithm_of_the_labels(lesson, lead, expected):
    found = lesson.crossing([10, 100, 1000], np.array(lead, float))
    assert found == (expected if expected is None else pytest.approx(expected))


def test_paired_lead_is_the_mean_difference_and_its_standard_error(lesson):
    lead, error = lesson.paired_lead([[0.5, 0.7, 0.6], [0.9]], [[0.4, 0.5, 0.6], [0.95]])
    np.testing.assert_allclose(lead, [10, -5])
    np.testing.assert_allclose(error, [10 / np.sqrt(3), np.nan])


# ---- the run ----


def percent(table, name):
    return float(table[0][name].removesuffix(" %"))


@pytest.mark.slow
def test_lesson_01_prints_the_fractions(table):
    assert table[0]["p(x, y) at (0,0), (0,1), (1,0), (1,1)"] == "1/2, 0, 1/4, 1/4"
    assert table[0]["p(y|x=0), p(y|x=1)"] == "1, 0, 1/2, 1/2"
    assert table[0]["p(x|y=0), by Bayes"] == "2/3, 1/3"
    assert table[0]["(0, 1) among 100,000 draws of p(x, y)"] == "0"
    assert float(table[0]["shares of the others, standard errors off"]) <= 4


@needs_mnist
@pytest.mark.slow
def test_lesson_01_prints_the_accuracies_of_the_ledger(table):
    assert percent(table, "naive Bayes, test images right") == pytest.approx(84, abs=1)
    assert percent(table, "logistic regression, test images right") == pytest.approx(92, abs=1)
    assert percent(table, "linear SVM, test images right") == pytest.approx(91, abs=1)


@pytest.mark.slow
def test_lesson_01_prints_that_naive_bayes_draws_digits_and_knows_noise(table):
    assert float(table[0]["p(y|x) of naive Bayes less softmax(x W + b)"]) < 1e-9
    assert percent(table, "naive Bayes's draws that LR gives their digit") > 95
    digits, noise = (
        float(table[0][f"mean log p(x), naive Bayes: {what}"].removesuffix(" nats"))
        for what in ("test images", "noise")
    )
    assert digits > noise + 100
    assert float(table[0]["mean of LR's largest p(y|x) on noise"]) > 0.3


@pytest.mark.slow
def test_lesson_01_prints_that_naive_bayes_leads_on_its_own_digits(table):
    errors = [
        percent(table, f"error on its draws, 200 labels: {name}")
        for name in ("naive Bayes", "LR with penalty", "LR without penalty")
    ]
    assert errors[0] <= min(errors[1:])


@needs_mnist
@pytest.mark.slow
def test_lesson_01_prints_that_logistic_regression_overtakes(table):
    assert float(table[0]["lead at 100 labels, LR without penalty"].split(" ± ")[0]) > 0
    assert 100 <= float(table[0]["labels where LR without penalty overtakes"]) <= 500


@pytest.mark.slow
def test_lesson_01_ends_with_its_figures(table):
    assert [path.name for path in table[1]] == ["pictures.png", "labels.png"]
    assert all(path.read_bytes().startswith(b"\x89PNG") for path in table[1])


@pytest.mark.slow
def test_lesson_01_runs_on_strokes(tmp_path):
    got, _ = run(LESSON, tmp_path, "--quick", "--data", "strokes")
    assert percent((got, []), "logistic regression, test images right") > 90
