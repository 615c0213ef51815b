"""What the lesson on one operation prints: where the naive loss breaks, how kernels agree, what the check says."""

import math
import os
import subprocess
import sys
from pathlib import Path

import pytest

LESSON = Path(__file__).parents[2] / "demos" / "engine" / "4_one_operation.py"


@pytest.fixture(scope="module")
def text(tmp_path_factory):
    """What the lesson prints in a folder of its own. The time limit is for kernels that have to be compiled first."""
    folder = tmp_path_factory.mktemp("one-operation")
    command = [sys.executable, str(LESSON), "--out", "figures"]
    environment = os.environ | {"NUMBA_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=300, env=environment)
    assert done.returncode == 0, done.stderr
    assert (folder / "figures" / "binary_cross_entropy.png").read_bytes().startswith(b"\x89PNG")
    assert done.stderr == ""  # no warning: what overflows does so on purpose
    return done.stdout


@pytest.fixture(scope="module")
def table(text):
    """The cells below a line that begins so, up to an empty line."""

    def find(beginning):
        lines = text.splitlines()
        start = next(i for i, line in enumerate(lines) if line.startswith(beginning))
        return [[cell.strip() for cell in line.split(" | ")] for line in lines[start + 1 : lines.index("", start)]]

    return find


def losses(rows):
    """float32 and float64 beside the exact loss, by logit and target."""
    return {(float(a), int(t)): tuple(map(float, values)) for a, t, *values in rows[1:]}


def softplus(a):
    return max(a, 0) + math.log1p(math.exp(-abs(a)))


def test_one_operation_lesson_prints_the_exact_losses(table):
    for (a, t), (_, _, exact) in losses(table("the formula")).items():
        expected = softplus(-a) if t == 1 else softplus(a)
        assert exact == pytest.approx(expected, rel=1e-6)


def test_one_operation_lesson_shows_the_naive_formula_break(table):
    naive = losses(table("the formula"))
    assert naive[17, 0][:2] == (math.inf, pytest.approx(17))
    assert naive[40, 0][:2] == (math.inf, math.inf)
    assert math.isnan(naive[17, 1][0])
    assert math.isnan(naive[40, 1][1])
    assert abs(naive[10, 1][0] / naive[10, 1][2] - 1) > 1e-4  # digits are lost before all are
    theory = {"float32": 24 * math.log(2), "float64": 53 * math.log(2)}
    for name, expected, got in table("-log(1 - p) is inf"):
        assert float(expected) == pytest.approx(theory[name], abs=0.01)
        assert float(got) == pytest.approx(theory[name], abs=0.02)


def test_one_operation_lesson_shows_the_stable_form_hold(table):
    for single, double, exact in losses(table("the stable form")).values():
        assert single == pytest.approx(exact, rel=1e-6, abs=1e-45)
        assert double == pytest.approx(exact, rel=1e-6)


def test_one_operation_lesson_shows_clipping_remove_the_gradient(table):
    for a, _, loss, slope, exact_slope in table("logit, target 0"):
        assert float(loss) == pytest.approx(softplus(float(a)), abs=1e-4)
        assert float(exact_slope) == pytest.approx(1, abs=1e-3)
        assert float(slope) == pytest.approx(1 if float(a) < 16 else 0, abs=1e-3)


def test_one_operation_lesson_shows_the_source_of_three_kernels(text):
    for kernel_set, line in (("reference", "np.log1p(np.exp(-abs(logits)))"), ("cpu", "prange"), ("cuda", "@cuda.jit")):
        _, _, shown = text.partition(f"---- kernels/{kernel_set}/losses.py")
        shown = shown.partition("----")[0]
        assert line in shown
        assert "def bce_with_logits(out, logits, targets):" in shown
        assert "def bce_with_logits_backward(dlogits, dout, logits, targets):" in shown


def test_one_operation_lesson_shows_kernels_that_agree(table):
    rows = table("        | loss: cpu - reference")
    assert [name for name, *_ in rows] == ["float32", "float64"]
    errors = [float(cell) for _, *cells in rows for cell in cells]
    assert max(errors) < 4
    assert max(errors) > 0  # floating point: somewhere they differ


def test_one_operation_lesson_shows_compiled_kernels_that_are_faster(table):
    for row in table("milliseconds")[:2]:
        assert all(0 < float(cell) < 1000 for cell in row[1:])
    assert all(float(cell) > 1 for cell in table("milliseconds")[2][1:])


def test_one_operation_lesson_registers_the_operation_of_the_project(text):
    assert "the same bits: True" in text
    assert "ValueError: lesson_bce: shapes (2, 3) and (2, 4) do not fit (...,d),(...,d)->(...)" in text
    assert "TypeError: lesson_bce: inputs are float32 and float64" in text


def test_one_operation_lesson_passes_its_gradient_and_fails_the_mutant(text):
    verdicts = [line.split() for line in text.splitlines() if line.startswith("lesson_bce  ") and "e-" in line]
    assert [(kernel_set, verdict) for _, kernel_set, _, _, verdict in verdicts] == [
        ("cpu", "pass"),
        ("reference", "pass"),
        ("reference", "FAIL"),
    ]
    for _, _, error, tolerance, verdict in verdicts:
        assert (float(error) < float(tolerance)) == (verdict == "pass")
    assert "input 0: off by" in text
    assert "analytic         numeric" in text


def test_one_operation_lesson_trains_with_the_stable_loss_only(table):
    *steps, share = table("step  ")
    assert steps[0][1] == steps[0][2] == f"{math.log(2):.4f}"
    assert {naive for _, naive, _ in steps[1:]} == {"nan"}
    stable = [float(loss) for _, _, loss in steps]
    assert stable == sorted(stable, reverse=True)
    assert float(share[2].removesuffix("%")) > 90


def test_one_operation_lesson_leaves_the_registry_as_it_was(text):
    assert text.splitlines()[-1] == "in the registry: False"
