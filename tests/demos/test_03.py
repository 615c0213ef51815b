"""The lesson on Boltzmann machines: what it prints of a short run, and what its page says of the long one."""

import re

import pytest
from lesson_helpers import LECTURE, run

LESSON = "03_boltzmann_machines"


@pytest.fixture(scope="module")
def lesson(tmp_path_factory):
    """The table and the files of a short run on strokes."""
    return run(LESSON, tmp_path_factory.mktemp("lesson"), "--quick", "--data", "strokes")


def number(text):
    return float(re.match(r"-?[\d.e-]+", text)[0])


@pytest.mark.slow
def test_lesson_03_prints_probabilities_of_the_toy_that_are_enumerated_ones(lesson):
    got, _ = lesson
    for what in ("log Z, enumerated", "p(v) less", "E[h|v] less", "E[v|h] less"):
        (found,) = [value for name, value in got.items() if name.startswith(what)]
        assert number(found) < 1e-10


@pytest.mark.slow
def test_lesson_03_shows_that_contrastive_divergence_nears_the_gradient(lesson):
    got, _ = lesson
    assert number(got["error of CD-1's expected update"]) > 0.1
    assert number(got["error of CD-200's"]) < 1e-10


@pytest.mark.slow
def test_lesson_03_brackets_log_z(lesson):
    got, _ = lesson
    for what in ("log Z, 100 chains of so many steps, less the exact", "back from samples"):
        error, spread = (float(part) for part in got[what].split(" ± "))
        assert abs(error) < 4 * spread + 0.1


@pytest.mark.slow
def test_lesson_03_shows_mean_field_that_raises_the_bound(lesson):
    got, files = lesson
    lost = [number(got[what]) for what in got if what.startswith(("the bound lost", "by 1 update", "by 5"))]
    assert len(lost) == 3
    assert lost[0] > lost[1] >= lost[2] >= 0
    assert len(files) == 8


@pytest.mark.slow
def test_lesson_03_shows_that_centring_helps(lesson):
    got, _ = lesson
    pretrained, centered = (number(found) for what, found in got.items() if what.startswith("DBM, "))
    assert centered < pretrained - 10


def test_lesson_03_page_holds_what_it_expects():
    """Of the run with full sizes on MNIST: the orders that the column of expectations names."""
    page = (LECTURE / f"{LESSON}.md").read_text()
    found = {
        what.strip(): got.strip()
        for what, _, got in (line.split("|") for line in page.splitlines() if line.count("|") == 2)
    }
    assert (
        number(found["CD-1: nll, nats a test image"]) > number(found["chains that go on: nll, nats a test image"]) + 10
    )
    assert abs(number(found["log Z, 100 chains of so many steps, less the exact"])) < 0.1
    rbm, upside_down, bound, taken_off = (
        number(next(got for what, got in found.items() if name in what))
        for name in ("its first RBM alone", "upside down above", "its second layer trained", "importance weights take")
    )
    assert abs(upside_down - rbm) < 0.2
    assert bound < rbm
    assert taken_off > 0
    scratch, tuned = (
        number(next(got for what, got in found.items() if name in what).rstrip(" %"))
        for name in ("from random weights", "from the deep belief network")
    )
    assert tuned > scratch + 1
    pretrained, centered = (
        number(next(got for what, got in found.items() if what.startswith(f"DBM, {name}")))
        for name in ("pretrained", "by the centred energy")
    )
    assert centered < pretrained
