"""The reproduced figures: their page is that of their files, their commands exist, and each script runs."""

import importlib
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from helpers import tiny_data
from lesson_helpers import needs_mnist

from scratchgen.data import load_dataset
from scratchgen.optim import SCHEDULES

PAPERS = Path(__file__).parents[2] / "demos" / "papers"
SCRIPTS = sorted(path.stem for path in PAPERS.glob("*.py") if path.stem not in ("reproduce", "table"))


@pytest.fixture
def module(monkeypatch):
    """A script as a module."""
    monkeypatch.syspath_prepend(str(PAPERS))
    return importlib.import_module


def test_page_is_that_of_the_results(module):
    assert (PAPERS / "README.md").read_text() == module("table").page()


@pytest.mark.parametrize("path", sorted((PAPERS / "results").glob("*.json")), ids=lambda path: path.stem)
def test_results_name_their_command(module, path):
    row = json.loads(path.read_text())
    python, script, name = row["command"].split()
    assert (python, Path(script).parent, name) == ("python", Path("demos/papers"), path.stem)
    figure, *_ = module(Path(script).stem).ROWS[name]
    assert {key: row[key] for key in ("measure", "what", "paper", "source")} == vars(figure)
    assert row["seconds"] > 0


def test_table_has_a_row_for_each_result_below_its_measure(module, monkeypatch, tmp_path):
    table, reproduce = module("table"), module("reproduce")
    monkeypatch.setattr(table, "RESULTS", tmp_path)
    monkeypatch.setattr(reproduce, "RESULTS", tmp_path)
    monkeypatch.setattr(sys, "argv", ["anywhere/toy.py"])
    for name, measure, seconds in (("a", "nats", 7200), ("b", "errors", 90), ("c", "nats", 60)):
        figure = reproduce.Figure(measure, f"model {name}", "1.5", "Someone 2015, table 1")
        reproduce.record(name, figure, f"ours {name}", {"nll": 1.0}, seconds, 0, "a note")
    nats, errors = table.page().split("\n## ")[1:]
    assert nats.startswith("nats")
    assert [line.split("|")[3].strip() for line in nats.splitlines() if "model" in line] == ["ours a", "ours c"]
    assert "2.0 h, " in nats
    assert "| 2 min, " in errors
    assert "| model b: a note | 1.5 (Someone 2015, table 1) | ours b | `python demos/papers/toy.py b` |" in errors


def test_vae_is_trained_as_in_the_paper(module):
    script = module("vae_likelihood")
    config = script.configured({}, 3280)
    network, training = config.network, config.training
    assert (network.encoder_hidden, network.decoder_hidden, network.latent_dim) == ((200, 200), (200, 200), 50)
    assert (network.activation, network.initializer, config.batch_size) == ("tanh", "glorot_uniform", 20)
    assert (training.binarize, training.output_bias, training.samples) == ("dynamic", True, 1)
    rate = SCHEDULES[training.schedule](training.lr, 3280 * 3000)
    for stage in range(8):
        first = 3000 * (3**stage - 1) // 2
        assert rate(first) == rate(first + 3000 * 3**stage - 1) == pytest.approx(1e-3 * 10 ** (-stage / 7))


def test_clusters_are_named_by_the_image_that_is_surest(module):
    probabilities = np.array([[0.6, 0.3, 0.1], [0.9, 0.0, 0.1], [0.1, 0.5, 0.4], [0.3, 0.2, 0.5]])
    names = module("aae_labels").names_of(probabilities, np.array([7, 4, 2, 4]))
    assert names.tolist() == [4, 2, 4]  # two clusters of one class


def test_data_of_clusters_have_no_labels_and_no_validation_images(module, monkeypatch, tmp_path):
    script, data = module("aae_labels"), tiny_data()
    monkeypatch.setattr(script, "TRAINING", 500)
    seen = load_dataset(script.without_labels(data, tmp_path / "new"))
    assert seen.classes == ()
    np.testing.assert_allclose(seen.train.images, data.train.images[:500], atol=1 / 255)
    np.testing.assert_allclose(seen.test.images, data.test.images, atol=1 / 255)


@needs_mnist
@pytest.mark.slow
@pytest.mark.parametrize("script", SCRIPTS)
def test_quick_form_runs_and_records_nothing(module, tmp_path, script):
    before = (PAPERS / "README.md").read_text(), sorted((PAPERS / "results").iterdir())
    row = next(iter(module(script).ROWS))
    command = [sys.executable, str(PAPERS / f"{script}.py"), row, "--quick"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=580, env=dict(os.environ))
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1].startswith("test")
    assert before == ((PAPERS / "README.md").read_text(), sorted((PAPERS / "results").iterdir()))
