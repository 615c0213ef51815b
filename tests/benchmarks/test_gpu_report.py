"""The report of a GPU: one stage that hangs or fails leaves the others, and all of it keeps to its time."""

import os
import subprocess
import sys
import time

from tests.benchmarks import gpu_report
from tests.benchmarks.gpu_report import Stage, report, stages

WAITS = "import time; time.sleep(60)"
HANGS = f"import subprocess, sys; subprocess.Popen([sys.executable, '-c', {WAITS!r}]); {WAITS}"


def python(code):
    return [sys.executable, "-c", code]


def test_a_stage_that_hangs_or_fails_leaves_the_others(tmp_path):
    began = time.monotonic()
    summary = report(
        [
            Stage("hangs", 1.0, python(HANGS)),
            Stage("fails", 20.0, python("print('so far'); raise SystemExit(3)")),
            Stage("works", 20.0, python("print('a'); print('b')")),
        ],
        tmp_path,
        60.0,
    )
    assert time.monotonic() - began < 20
    assert [line.partition(" after")[0] for line in summary] == [
        "hangs: stopped at its limit",
        "fails: exit 3",
        "works: exit 0",
    ]
    assert [line.rpartition(": ")[2] for line in summary] == ["silent", "so far", "b"]
    assert (tmp_path / "works.txt").read_text() == "a\nb\n"
    assert (tmp_path / "summary.txt").read_text().splitlines() == summary


def test_stages_are_left_out_when_no_time_is_left(tmp_path):
    summary = report([Stage("first", 9.0, python("print('ran')"))] * 2, tmp_path, gpu_report.LEAST - 1)
    assert summary == ["first: left out, for no time is left"] * 2


def test_stages_name_commands_that_exist(tmp_path, monkeypatch):
    """Without a GPU each says so, or skips its tests, and does not break down otherwise."""
    monkeypatch.setattr(gpu_report, "find_mnist", lambda: tmp_path)
    every = stages(tmp_path)
    assert [stage.name for stage in every] == ["gradcheck", "steps", "training", "products", "tests"]
    assert sum(stage.seconds for stage in every) < 660
    for stage in every:
        assert stage.command[:2] == [sys.executable, "-m"]
        module = stage.command[2]
        command = [sys.executable, "-c", f"import importlib.util as u; print(bool(u.find_spec({module!r})))"]
        done = subprocess.run(
            command, capture_output=True, text=True, env={**os.environ, "PYTHONPATH": "."}, timeout=60
        )
        assert done.stdout == "True\n", stage.name


def test_machine_names_versions_without_a_gpu():
    said = gpu_report.machine()
    assert f"Python {sys.version}" in said
    assert "numba 0." in said
