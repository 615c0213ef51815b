"""The lesson on optimizers: what it prints beside theory, and its figures."""

import math
import subprocess
import sys
from pathlib import Path

import pytest

DEMO = Path(__file__).parents[2] / "demos" / "engine" / "6_optimizers.py"
FIGURES = (
    "rates",
    "paths_aligned_valley",
    "paths_turned_valley",
    "paths_rosenbrock",
    "bias_correction",
    "clipping",
    "vae",
)


@pytest.fixture(scope="module")
def lesson(tmp_path_factory):
    """The tables that ``--quick`` prints, as lists of rows of cells, and the folder of its figures."""
    folder = tmp_path_factory.mktemp("optimizers")
    command = [sys.executable, str(DEMO), "--quick", "--out", str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    tables = []
    for block in done.stdout.split("\n\n"):
        tables.append([[cell.strip() for cell in line.split(" | ")] for line in block.splitlines() if " | " in line])
    return tables, folder


def table(lesson, *header):
    """The rows below the header that begins with these cells, by their first cell."""
    found = next(rows for rows in lesson[0] if rows and rows[0][: len(header)] == list(header))
    return {name: cells for name, *cells in found[1:]}


@pytest.mark.slow
def test_optimizers_lesson_prints_the_rates_of_theory(lesson):
    rows = table(lesson, "method", "rate expected")
    kappa = 100
    theory = {
        "gradient descent": (kappa - 1) / (kappa + 1),
        "momentum": (math.sqrt(kappa) - 1) / (math.sqrt(kappa) + 1),
        "Nesterov": 1 - 1 / math.sqrt(kappa),
    }
    assert rows.keys() == theory.keys()
    for name, rate in theory.items():
        expected, got = map(float, rows[name][:2])
        assert expected == pytest.approx(rate, abs=1e-5)
        assert got == pytest.approx(rate, rel=0.0015)  # two equal roots add a factor of 1 + 1 / k at step k, here 1,000


@pytest.mark.slow
def test_optimizers_lesson_prints_the_step_counts_of_theory(lesson):
    rows = table(lesson, "method", "rate expected")
    for expected, got in (row[2:] for row in rows.values()):
        assert expected == got
    assert int(rows["gradient descent"][3]) == math.ceil(math.log(1e-6) / math.log(99 / 101))


@pytest.mark.slow
def test_optimizers_lesson_shows_momentum_beat_gradient_descent(lesson):
    rows = table(lesson, "optimizer", "aligned valley", "turned valley")
    steps = {name: [int(cell.split()[0]) for cell in cells] for name, cells in rows.items()}
    for valley in (0, 1):
        assert steps["momentum"][valley] < steps["gradient descent"][valley]
        assert steps["Nesterov"][valley] < steps["gradient descent"][valley]
    for name in ("gradient descent", "momentum", "Nesterov"):
        assert steps[name][0] == steps[name][1]  # the angle makes no difference
    assert steps["Adagrad"][0] < steps["gradient descent"][0]
    assert steps["Adagrad"][1] > 10 * steps["Adagrad"][0]


@pytest.mark.slow
def test_optimizers_lesson_shows_adaptive_paths_independent_of_kappa_when_aligned(lesson):
    rows = table(lesson, "optimizer", "aligned, expected")
    assert rows.keys() == {"Adagrad", "RMSProp", "Adam"}
    for _, aligned, _, turned in rows.values():
        assert float(aligned) < 1e-4
        assert float(turned) > 0.1


@pytest.mark.slow
def test_optimizers_lesson_shows_adam_overstep_without_bias_correction(lesson):
    for step, (_, corrected, _, uncorrected) in table(lesson, "step", "corrected, expected").items():
        factor = (1 - 0.9 ** int(step)) / math.sqrt(1 - 0.999 ** int(step))
        assert float(corrected) == pytest.approx(1, abs=0.001)
        assert float(uncorrected) == pytest.approx(factor, abs=0.001)


@pytest.mark.slow
def test_optimizers_lesson_shows_only_the_unclipped_path_thrown_off(lesson):
    rows = table(lesson, "path", "first gradient")
    _, _, step, loss = map(float, rows["clipped to norm 0.2"])
    _, gradient, longest, left = map(float, rows["without clipping"])
    assert step <= 0.0605  # lr 0.3 times 0.2, rounded
    assert loss < 0.01 < left
    assert longest == pytest.approx(0.3 * gradient, rel=0.001)
    assert longest > 5


@pytest.mark.slow
def test_optimizers_lesson_trains_the_vae_best_with_adam(lesson):
    bounds = next(rows for rows in lesson[0] if rows and rows[0][-1].startswith("best "))
    best = {name: float(cells[-1].removeprefix("best ")) for name, *cells in bounds}
    assert len(best) == 6
    assert best["Adam"] == min(best.values())
    assert best["momentum"] < best["gradient descent"]


@pytest.mark.parametrize("name", FIGURES)
@pytest.mark.slow
def test_optimizers_lesson_writes_its_figures(lesson, name):
    assert (lesson[1] / f"{name}.png").read_bytes().startswith(b"\x89PNG")
