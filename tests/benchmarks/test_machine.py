"""Benchmarks let libraries choose their kernels, and say which these are."""

import os
import re
import subprocess
import sys
from importlib.util import find_spec

import pytest

from tests.benchmarks.machine import FORCED, let_libraries_choose, machine

AS_A_COMMAND = """
import os, runpy, sys
sys.argv = ["benchmark", "--help"]
try:
    runpy.run_module("tests.benchmarks.{}", run_name="__main__")
except SystemExit:
    from tests.benchmarks.machine import blas
    print(sorted(os.environ.keys() & {{"OPENBLAS_CORETYPE"}}), blas())
"""


def test_let_libraries_choose_forgets_what_forces_them(monkeypatch):
    for name in FORCED:
        monkeypatch.setenv(name, "1")
    monkeypatch.setenv("OPENBLAS_NUM_THREADS", "1")
    let_libraries_choose()
    assert not os.environ.keys() & set(FORCED)
    assert os.environ["OPENBLAS_NUM_THREADS"] == "1"


@pytest.mark.parametrize("benchmark", ["steps", "whole"])
def test_a_benchmark_does_not_use_the_kernels_that_are_forced(benchmark):
    """Not those of a processor of 2008, which any x86 processor of today could run."""
    done = subprocess.run(
        [sys.executable, "-c", AS_A_COMMAND.format(benchmark)],
        env={**os.environ, "OPENBLAS_CORETYPE": "Nehalem"},
        capture_output=True,
        text=True,
        timeout=100,
    )
    last = done.stdout.splitlines()[-1]
    assert last.startswith("[] "), done.stderr
    assert "Nehalem" not in last


def test_machine_says_which_kernels_are_in_use():
    said = machine()
    assert re.search(r", (128|256|512)-bit vectors, \d+ cores; Python 3", said)
    if find_spec("threadpoolctl"):
        assert re.search(r"\(kernels: \w+\)", said)
    else:
        assert "threadpoolctl is not installed" in said
