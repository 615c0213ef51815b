"""Surroundings that break programs: a line that says what to do, or output that a poor terminal can show."""

import os
import pty
import subprocess
import sys
import termios
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[2]


def python(*arguments, cwd=None, stdout=subprocess.PIPE, stderr=subprocess.PIPE, **variables):
    """Run Python with these environment variables."""
    path = os.pathsep.join([str(REPOSITORY), str(REPOSITORY / "tests" / "scratchgen")])
    return subprocess.run(
        [sys.executable, *map(str, arguments)],
        cwd=cwd,
        env=os.environ | {"PYTHONPATH": path} | variables,
        stdout=stdout,
        stderr=stderr,
        timeout=100,
        check=False,
    )


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("NUMBA_NUM_THREADS", "0"),
        ("NUMBA_NUM_THREADS", "-1"),
        ("NUMBA_DISABLE_JIT", "1"),
        ("NUMBA_THREADING_LAYER", "nonsense"),
        ("NUMBA_THREADING_LAYER", "tbb"),
        ("NUMBA_THREADING_LAYER_PRIORITY", "nonsense"),
    ],
)
def test_numba_settings_that_cannot_work(name, value):
    if value == "tbb" and python("-c", "import numba.np.ufunc.tbbpool").returncode == 0:
        pytest.skip("TBB is installed")
    done = python("-m", "scratchgen", "gradcheck", "exp", **{name: value})
    line = done.stderr.decode()
    assert (done.returncode, done.stdout, line.count("\n")) == (2, b"", 1)
    assert line.startswith("scratchgen: ")
    assert line.endswith(f"; unset {name}\n")
    done = python("-c", "import scratchgen", **{name: value})
    assert done.stderr.decode().splitlines()[-1].startswith("ImportError: ")


@pytest.mark.parametrize("layer", ["workqueue", "default"])
def test_numba_settings_that_work(layer):
    done = python("-m", "scratchgen", "--version", NUMBA_THREADING_LAYER=layer, NUMBA_NUM_THREADS="1")
    assert (done.returncode, done.stderr) == (0, b"")


def test_backend_of_a_notebook_that_is_not_installed(tmp_path):
    imports = "import numpy as np; from pathlib import Path; from scratchgen.figures import save_samples"
    draw = "save_samples(Path('a.png'), np.zeros((1, 784)))"
    done = python("-c", f"{imports}; {draw}", cwd=tmp_path, MPLBACKEND="module://matplotlib_inline.no_such_backend")
    assert (done.returncode, done.stderr) == (0, b"")
    assert (tmp_path / "a.png").exists()


@pytest.mark.parametrize("optimize", [pytest.param("-O", marks=pytest.mark.slow), "-OO"])
def test_python_without_docstrings(optimize):
    done = python(optimize, "-m", "scratchgen", "gradcheck", "exp", "--kernels", "reference")
    assert (done.returncode, done.stderr) == (0, b"")
    assert b"pass" in done.stdout
    assert python(optimize, "-m", "scratchgen", "sample", "--help").returncode == 0


NAMES = ["größe ζ", "\udcff\udc80"]  # the second is no UTF-8


@pytest.mark.parametrize("name", [pytest.param(NAMES[0], marks=pytest.mark.slow), NAMES[1]], ids=["greek", "bytes"])
def test_names_that_the_terminal_cannot_show(tmp_path, name):
    folder = tmp_path / name
    train = ("tests/scratchgen/helpers.py", "train", "vae", "--config", "tiny", "--epochs", "1", "--out", folder)
    ascii_only = {"cwd": REPOSITORY, "MOMENT": "", "AFTER": "0", "PYTHONIOENCODING": "ascii"}
    assert python(*train, **ascii_only).returncode == 0
    for command in (["sample", folder, "-n", "1"], ["data", "show", "--data", "strokes", "--out", f"{folder}.png"]):
        done = python("tests/scratchgen/helpers.py", *command, **ascii_only)
        assert (done.returncode, done.stderr) == (0, b"")
        assert done.stdout.decode("ascii").endswith(".png\n")
    done = python(*train, **ascii_only)  # refused, for the folder holds a run
    assert (done.returncode, done.stderr.count(b"\n")) == (2, 1)
    done = python("tests/scratchgen/helpers.py", "train", "vae", "--resume", folder, "--epochs", "2", **ascii_only)
    assert done.returncode == 0


def test_progress_bar_in_an_ascii_terminal(tmp_path):
    ours, theirs = pty.openpty()
    termios.tcsetwinsize(theirs, (24, 80))
    os.set_blocking(ours, False)
    train = ("tests/scratchgen/helpers.py", "train", "vae", "--config", "tiny", "--epochs", "1")
    done = python(
        *train,
        "--out",
        tmp_path / NAMES[0],
        cwd=REPOSITORY,
        stderr=theirs,
        MOMENT="",
        AFTER="0",
        PYTHONIOENCODING="ascii",
    )
    shown = os.read(ours, 10_000)
    os.close(theirs)
    os.close(ours)
    assert done.returncode == 0
    assert b"epoch 1/1" in shown
    shown.decode("ascii")
