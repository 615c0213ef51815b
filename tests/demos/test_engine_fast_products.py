"""The lesson on fast products: its tables agree with themselves and with the ladder, and there is a figure."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from kernels.cpu import products

DEMO = Path(__file__).parents[2] / "demos" / "engine" / "7_fast_products.py"
RUNGS = [rung.__name__.removeprefix("product_") for rung in products.LADDER]


@pytest.fixture(scope="module")
def lesson(tmp_path_factory):
    """The lines that ``--quick`` prints, and the folder in which it ran."""
    folder = tmp_path_factory.mktemp("fast-products")
    command = [sys.executable, str(DEMO), "--quick", "--out", "pictures"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines(), folder


def table(lines, header):
    """The rows of every table whose header begins so, as lists of cells."""
    tables = []
    for start, line in enumerate(lines):
        if line.startswith(header):
            end = next((i for i in range(start, len(lines)) if " | " not in lines[i]), len(lines))
            tables.append([[cell.strip() for cell in row.split(" | ")] for row in lines[start + 1 : end]])
    return tables


def test_fast_products_lesson_times_every_rung_beside_its_ceilings(lesson):
    lines, _ = lesson
    peak = float(re.match(r"peak ([\d.]+) GFLOP/s", lines[0])[1])
    (levels,) = table(lines, "level ")
    bandwidth = {level: float(speed) for level, _, speed, _ in levels}
    assert list(bandwidth) == ["L1", "L2", "memory"]
    assert bandwidth["L1"] > bandwidth["memory"]
    ladders = table(lines, "rung ")
    assert len(ladders) == 2
    for rows in ladders:
        assert [row[0] for row in rows[: len(RUNGS)]] == RUNGS
        for _, intensity, roof, speed, of_roof, of_peak in rows[: len(RUNGS)]:
            assert float(roof) == pytest.approx(min(peak, float(intensity) * bandwidth["L1"]), rel=0.04)  # 0.17 is 1/6
            assert float(of_roof.strip("%")) == pytest.approx(100 * float(speed) / float(roof), rel=0.02, abs=0.1)
            assert float(of_peak.strip("%")) == pytest.approx(100 * float(speed) / peak, rel=0.02, abs=0.1)
        speeds = {row[0]: float(row[3]) for row in rows}
        assert speeds["tiled"] >= 5 * speeds["naive"] > 0
        assert {"naive, n = 1024", "naive, b by columns", "micro-kernel alone", "NumPy's BLAS"} < speeds.keys()


def test_fast_products_lesson_prints_the_intensities_of_the_ladder(lesson):
    """Its docstring counts accesses, of 4 bytes each, for sixteen multiply-adds of 2 operations."""
    counted = dict(re.findall(r"^    product_(\w+) +(?:.* = )?(\d+)", products.__doc__, re.MULTILINE))
    found = {row[0]: row[1] for row in table(lesson[0], "rung ")[0]}
    for rung in RUNGS[:-1]:  # the last counts vectors and numbers alike
        assert found[rung] == f"{8 / int(counted[rung]):.2f}"


def test_fast_products_lesson_ends_with_its_figure(lesson):
    lines, folder = lesson
    assert (folder / lines[-1]).read_bytes().startswith(b"\x89PNG")
