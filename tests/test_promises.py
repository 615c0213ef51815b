"""What the README promises of MNIST, trained to the end: minutes each, so run by ``make test-all``."""

import os
from dataclasses import replace
from pathlib import Path

import pytest

from scratchgen import runs
from scratchgen.recipes import RECIPES

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not os.environ.get("SCRATCHGEN_DATA"), reason="SCRATCHGEN_DATA names no folder with MNIST"),
]


def trained(model: str, name: str, folder: Path) -> dict:
    return runs.start(replace(RECIPES[model].configs[name], data="mnist"), folder / name)


def test_pytorch_example_reaches_its_bound_in_ten_epochs(tmp_path):
    summary = trained("vae", "pytorch-example", tmp_path)
    assert summary["epochs"] == 10
    assert summary["test"]["neg_elbo"] <= 106.5


def test_iwae_reaches_its_likelihood_in_ten_minutes(tmp_path):
    summary = trained("vae", "iwae", tmp_path)
    assert summary["seconds"] <= 600
    assert (summary["test"]["iw_samples"], summary["test"]["nll_images"]) == (500, 1000)
    assert summary["test"]["nll"] <= 90.5
