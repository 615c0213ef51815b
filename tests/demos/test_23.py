"""The convolutional GANs of lesson 23: the walk, the tables, and what the demo prints."""

import ast
from types import SimpleNamespace

import numpy as np
import pytest
from lesson_helpers import LECTURE, run

from scratchgen import Tensor
from scratchgen.models.gan import GAN, GANConfig

LESSON = "23_dcgan"


@pytest.fixture(scope="module")
def demo():
    """The lesson's functions alone: its other lines train."""
    tree = ast.parse((LECTURE / f"{LESSON}.py").read_text())
    tree.body = [part for part in tree.body if isinstance(part, ast.Import | ast.ImportFrom | ast.FunctionDef)]
    names = {}
    exec(compile(tree, LESSON, "exec"), names)
    return SimpleNamespace(**names)


def test_walk_goes_from_start_to_end_over_probable_noise(demo):
    starts, ends = np.random.default_rng(0).standard_normal((2, 3, 2000))
    ways = demo.walk(starts, ends, 7).reshape(3, 7, 2000)
    np.testing.assert_allclose(ways[:, 0], starts, atol=1e-12)
    np.testing.assert_allclose(ways[:, -1], ends, atol=1e-12)
    np.testing.assert_allclose((ways**2).mean(axis=2), 1, atol=0.15)  # on a straight way, 0.5 in the middle


def test_layers_table_counts_every_parameter(demo):
    model = GAN(GANConfig(16, 3, generator_hidden=(5,), generator_channels=(4, 3), discriminator_hidden=()), 0)
    lines = demo.layers_table(model.generator, Tensor(np.zeros((1, 3), np.float32))).splitlines()
    counted = sum(int(line.split()[-1].replace(",", "")) for line in lines[2:])
    assert counted == sum(parameter.size for parameter in model.generator.parameters())
    assert "(16,)" in lines[-1]


def test_losses_beside_confidence_shows_first_and_last_epochs(demo):
    history = [
        {"epoch": epoch, "train": {"d_loss": 1 / epoch}, "test": {"judge_confidence": epoch / 10}}
        for epoch in range(1, 9)
    ]
    lines = [line.split() for line in demo.losses_beside_confidence("gan", history, "d_loss").splitlines()]
    assert lines[0] == ["gan,", "epoch", "1", "2", "3", "5", "8"]
    assert lines[1] == ["d_loss", "1.000", "0.500", "0.333", "0.200", "0.125"]
    assert lines[2] == ["judge's", "confidence", "0.100", "0.200", "0.300", "0.500", "0.800"]
    assert demo.losses_beside_confidence("gan", history[:1], "d_loss").split()[-2:] == ["confidence", "0.100"]


@pytest.mark.slow
def test_lesson_23_prints_all_rows_and_draws(tmp_path):
    got, files = run(LESSON, tmp_path, "--quick", "--data", "strokes")
    assert len(got) == 22
    assert 0.9 < float(got["judge's confidence, test images"]) <= 1
    assert {"nearest.png", "walk.png", "samples.png", "losses.png"} <= {file.name for file in files}
    assert len(files) == 13
    assert all(file.stat().st_size > 5_000 for file in files)
