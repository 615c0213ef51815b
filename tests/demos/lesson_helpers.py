"""What the tests of the lecture's lessons share: a lesson as a module, what it prints, and MNIST."""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

LECTURE = Path(__file__).parents[2] / "demos" / "lecture"

needs_mnist = pytest.mark.skipif(
    not os.environ.get("SCRATCHGEN_DATA"), reason="SCRATCHGEN_DATA names no folder with MNIST"
)


def load(lesson):
    """The lesson ``12_vae_two_dimensional``, say, as a module, without running its main."""
    spec = importlib.util.spec_from_file_location(f"lesson_{lesson}", LECTURE / f"{lesson}.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


def run(lesson, folder, *options):
    """Run a lesson with these options in a folder; the last column of its table by the first, and its files."""
    command = [sys.executable, str(LECTURE / f"{lesson}.py"), "--out", "pictures", *options]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    rows = [line.split(" | ") for line in lines if " | " in line]
    got = {what.strip(): got.strip() for what, *_, got in rows if what.strip() != "what"}
    return got, [folder / line for line in lines if line.startswith("pictures")]
