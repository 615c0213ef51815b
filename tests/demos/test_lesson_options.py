"""The options that the lecture's lessons share: a mistake in one ends with one line, not a traceback."""

import subprocess
import sys

import pytest
from lesson_helpers import LECTURE

LESSONS = [
    pytest.param(path.stem, marks=pytest.mark.slow if number % 5 else ())
    for number, path in enumerate(sorted(LECTURE.glob("*.py")))
]


def mistake(lesson, folder, *options):
    """The last line that a lesson prints about a mistake."""
    command = [sys.executable, str(LECTURE / f"{lesson}.py"), *options]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=60)
    assert done.returncode == 2, done.stderr
    assert "Traceback" not in done.stderr
    return done.stderr.splitlines()[-1]


@pytest.mark.parametrize("lesson", LESSONS)
def test_lessons_refuse_a_file_as_their_folder(lesson, tmp_path):
    (tmp_path / "taken").touch()
    assert mistake(lesson, tmp_path, "--out", "taken").endswith("error: --out taken cannot be a folder: File exists")


@pytest.mark.parametrize("lesson", ["01_generative_and_discriminative", "10_autoencoders", "15_vae_mnist"])
def test_lessons_refuse_a_folder_without_mnist(lesson, tmp_path):
    line = mistake(lesson, tmp_path, "--data", "mnist", "--data-dir", "nothing here")
    assert "error: " in line
    assert "nothing here" in line
