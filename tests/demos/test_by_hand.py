"""The lessons on MNIST train by hand along the engine's curve."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

LESSONS = Path(__file__).parents[2] / "demos" / "lecture"


SLOW = [pytest.param(lesson, marks=pytest.mark.slow) for lesson in ("23_gan_mnist", "25_aae_mnist")]


@pytest.mark.parametrize("lesson", ["15_vae_mnist", *SLOW])
def test_lessons_train_by_hand_along_the_engine_s_curve(lesson, tmp_path):
    command = [sys.executable, str(LESSONS / f"{lesson}.py"), "--by-hand", "--data", "strokes", "--out", "runs"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=200, env=os.environ)
    assert done.returncode == 0, done.stderr
    differences = re.findall(r"largest relative difference (\S+)", done.stdout)
    assert len(differences) >= 3
    assert max(map(float, differences)) < 1e-9
