"""Importing scratchgen where another package has taken the name of its kernels."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import scratchgen

PACKAGE = Path(scratchgen.__file__).parent
OTHER = "raise RuntimeError('the other package has run')\n"


def python(*arguments, path):
    """Run Python with ``path`` before all else that it searches."""
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(path), str(PACKAGE.parent)])}
    return subprocess.run([sys.executable, *arguments], capture_output=True, text=True, env=environment, cwd=path)


@pytest.fixture(params=["hides ours", "was written over ours"])
def other_kernels(request, tmp_path):
    """A folder with another ``kernels``, alone or beside a scratchgen."""
    if request.param == "was written over ours":
        (tmp_path / "scratchgen").symlink_to(PACKAGE)
        shutil.copytree(PACKAGE.parent / "kernels", tmp_path / "kernels", ignore=shutil.ignore_patterns("__pycache__"))
    else:
        (tmp_path / "kernels").mkdir()
    (tmp_path / "kernels" / "__init__.py").write_text(OTHER)
    return tmp_path


def test_import_refuses_another_package_called_kernels(other_kernels):
    done = python("-c", "import scratchgen", path=other_kernels)
    assert done.returncode == 1
    last = done.stderr.splitlines()[-1]
    assert last.startswith("ImportError: scratchgen needs its own package kernels, but")
    assert str(other_kernels / "kernels" / "__init__.py") in last


COMMAND = "import sys; sys.argv[0] = '/bin/scratchgen'; from scratchgen.cli import main; sys.exit(main())"


@pytest.mark.parametrize("command", [("-m", "scratchgen"), ("-c", COMMAND)], ids=["module", "script"])
def test_command_line_reports_another_kernels_package_in_one_line(other_kernels, command):
    done = python(*command, "data", "show", path=other_kernels)
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert line.startswith("scratchgen: scratchgen needs its own package kernels, but")


def test_import_ignores_a_folder_called_kernels(tmp_path):
    (tmp_path / "kernels").mkdir()  # it is no package, so Python searches on
    assert python("-c", "import scratchgen", path=tmp_path).returncode == 0


def test_import_says_when_kernels_are_missing(tmp_path):
    (tmp_path / "scratchgen").symlink_to(PACKAGE)
    done = subprocess.run(
        [sys.executable, "-S", "-c", "import scratchgen"], capture_output=True, text=True, cwd=tmp_path, env={}
    )
    assert "Python finds nothing" in done.stderr.splitlines()[-1]
