"""What the lesson on trust prints: best steps beside theory, and who finds which mutant."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

LESSON = Path(__file__).parents[2] / "demos" / "engine" / "3_trust.py"
REPEATS = 20


@pytest.fixture(scope="module")
def lines(tmp_path_factory):
    """What the lesson prints in a folder of its own."""
    folder = tmp_path_factory.mktemp("trust")
    command = [sys.executable, str(LESSON), "--out", "figures"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    for name in ("steps.png", "smallest_mistake.png"):
        assert (folder / "figures" / name).read_bytes().startswith(b"\x89PNG")
        assert f"figures/{name}" in done.stdout
    return done.stdout.splitlines()


@pytest.fixture(scope="module")
def table(lines):
    """The cells below a line that begins so, up to an empty line."""

    def find(beginning):
        start = next(i for i, line in enumerate(lines) if line.startswith(beginning))
        end = lines.index("", start)
        return [[cell.strip() for cell in line.split(" | ")] for line in lines[start + 1 : end]]

    return find


def counts(rows):
    """How often each mutant was found, by operation and mistake: one element, Jacobian, direction."""
    return {(operation, mistake): tuple(map(int, found)) for operation, mistake, *found in rows[1:]}


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_trust_lesson_prints_the_best_steps_of_theory(table, dtype):
    u = np.finfo(dtype).eps / 2
    best = {"forward": 2 * u ** (1 / 2), "central": (3 * u) ** (1 / 3), "4th order": (45 / 4 * u) ** (1 / 5)}
    rows = {name: cells for name, *cells in table("                   | best step")}
    for (name, step), order in zip(best.items(), (1, 2, 4), strict=True):
        theory, got, bound, error, _, above, _, below = rows[f"{name}, {dtype.__name__}"]
        assert float(theory) == pytest.approx(step, rel=0.05)
        assert 1 / 4 < float(got) / step < 4
        assert float(bound) / 10 < float(error) < float(bound)
        assert float(above.removeprefix("h^")) == pytest.approx(order, abs=0.1)
        assert float(below.removeprefix("h^")) == pytest.approx(-1, abs=0.1)


def test_trust_lesson_finds_a_mistake_along_one_direction(table):
    by_element, along_one = table("2,000 elements")
    assert (by_element[1], along_one[1]) == ("8,000", "4")
    for _, _, _, right, wrong in (by_element, along_one):
        assert float(right) < 1e-10
        assert float(wrong) > 1e-8


def test_trust_lesson_misses_mistakes_as_rarely_as_theory_says(table):
    coarse, tight = ([float(cell) for cell in row] for row in table("tolerance | chance of missing"))
    assert coarse[1:] == pytest.approx([0.0797, 0.0797], abs=0.005)
    assert tight[1:] == pytest.approx([6e-4, 6e-4], abs=5e-4)


def test_trust_lesson_shows_a_cotangent_of_ones_miss_a_mistake(table):
    right, zero = table("backward of softmax")
    assert max(map(float, right[1:])) < 1e-11
    assert float(zero[1]) < 1e-11
    assert float(zero[2]) > 1e-3


def test_a_right_relu_fails_at_its_kink_only(table):
    verdicts = {float(x): verdict for x, _, _, verdict in table("x       | relu'(x)")}
    assert {x for x, verdict in verdicts.items() if verdict == "FAIL"} == {0.0}
    assert len(set(verdicts.values())) == 2


def test_trust_lesson_finds_a_wrong_sampler_by_its_moments(table):
    right, wrong = table("sampler")
    assert right[1] == wrong[1] == "pass"
    assert float(right[5]) == pytest.approx(4, rel=0.03)
    assert float(wrong[5]) == pytest.approx(16, rel=0.03)


def test_trust_lesson_raises_no_false_alarms(table):
    found = counts(table("false alarms"))
    assert len(found) >= 10
    assert set(found.values()) == {(0, 0, 0)}


def test_trust_lesson_finds_every_mutant_by_the_project_s_check(table):
    found = counts(table("mutants found"))
    assert len(found) >= 20
    assert {direction for _, _, direction in found.values()} == {REPEATS}


def test_trust_lesson_shows_which_mutants_other_checkers_miss(table):
    found = counts(table("mutants found"))
    never = {key for key, (one_element, _, _) in found.items() if one_element == 0}
    assert never >= {
        ("softmax", "zero"),
        ("batch_norm", "gradient of x zero"),
        ("tanh", "dout forgotten"),
        ("tanh", "scaled by 1.001"),
    }
    assert found["tanh", "last element doubled"][0] < REPEATS / 2
    assert found["tanh", "sign flipped"] == (REPEATS, REPEATS, REPEATS)
    not_always = {key for key, (_, jacobian, _) in found.items() if jacobian < REPEATS}
    assert not_always == {("tanh", "scaled by 1.001"), ("gelu", "1/sqrt(2 pi) to 4 digits")}


def test_trust_lesson_shows_what_no_checker_finds(table):
    unseen = counts(table("wrong forward"))
    assert len(unseen) == 2
    assert set(unseen.values()) == {(0, 0, 0)}
    (rounded,) = counts(table("below the tolerance")).values()
    assert rounded[:2] == (0, 0)
    assert rounded[2] < REPEATS / 2


def test_trust_lesson_shows_each_checker_fail_at_its_tolerance(table):
    for _, tolerance, smallest in table("checker"):
        assert 1 / 2 < float(smallest) / float(tolerance) < 10


def test_trust_lesson_catches_a_backward_that_overwrites_dout(lines):
    assert "gradcheck: pass" in lines
    assert any(line.startswith("check_operation: tanh") and "has been written into" in line for line in lines)


def test_trust_lesson_ends_with_a_check_that_passes(lines):
    error, tolerance = (float(part.split("=")[1]) for part in lines[-1].strip("Check()").split(", "))
    assert error < tolerance < 1e-6
