"""Runs that several processes start or continue at the same time, and samples without number."""

import os
import subprocess
import sys
import tracemalloc

import helpers
import numpy as np
import pytest
from helpers import TINIES, TINY, files, outcome, use_tiny, without_figures

from scratchgen import checkpoint, cli, commands, runs
from scratchgen.recipes import RECIPES, boltzmann


def train_at_once(cwd, *commands):
    """The ends of several trainings that start at once: status and standard error."""
    environment = os.environ | {"MOMENT": "", "AFTER": "0"}
    pipes = {"stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE, "text": True}
    processes = [
        subprocess.Popen(
            [sys.executable, helpers.__file__, "train", "vae", *command], env=environment, cwd=cwd, **pipes
        )
        for command in commands
    ]
    errors = [process.communicate(timeout=200)[1] for process in processes]
    return [(process.returncode, error) for process, error in zip(processes, errors, strict=True)]


def test_train_at_once_gives_each_run_its_folder(tmp_path):
    ends = train_at_once(tmp_path, *(["--config", "tiny", "--epochs", "1", "--seed", str(seed)] for seed in range(3)))
    assert ends == [(0, "")] * 3
    folders = sorted((tmp_path / "runs").iterdir())
    assert [folder.name for folder in folders] == ["vae-tiny-strokes", "vae-tiny-strokes-2", "vae-tiny-strokes-3"]
    assert {runs.load_config(folder).seed for folder in folders} == {0, 1, 2}
    for folder in folders:
        assert outcome(folder)["summary"]["epochs"] == 1
        assert not (folder / ".scratchgen-lock").exists()


def test_train_at_once_into_one_folder(tmp_path):
    ends = train_at_once(tmp_path, *[["--config", "tiny", "--epochs", "1", "--out", "run"]] * 2)
    assert sorted(status for status, _ in ends) == [0, 2]
    (line,) = [error for status, error in ends if status]
    assert "is training this run" in line or "holds a run already" in line
    assert outcome(tmp_path / "run")["summary"]["epochs"] == 1


@pytest.mark.usefixtures("tiny")
def test_resume_while_another_process_trains(run, capsys, tmp_path):
    before = files(run)
    with checkpoint.locked(run):
        assert cli.main(["train", "vae", "--resume", str(run), "--epochs", "9"]) == 2
    line = f"scratchgen: {run}: another process (pid {os.getpid()}) is training this run; wait for it to end\n"
    assert capsys.readouterr().err == line
    assert files(run) == before


@pytest.mark.usefixtures("tiny")
def test_train_that_fails_before_it_begins_leaves_no_folder(tmp_path):
    assert cli.main(["train", "gan", "--batch-size", "599"]) == 2
    assert not files(tmp_path)
    (tmp_path / "runs").touch()  # a file in the place of the folder
    assert cli.main(["train", "vae", "--config", "tiny"]) == 2
    assert list(files(tmp_path)) == [tmp_path / "runs"]


# ---- samples ----


@pytest.fixture(scope="module")
def trained_of(tmp_path_factory):
    """The folder of a short run of each model."""
    folder = tmp_path_factory.mktemp("runs")
    with pytest.MonkeyPatch.context() as patch:
        use_tiny(patch.setattr)
        without_figures(patch.setattr)
        for model, config in TINIES.items():
            runs.start(config, folder / model)
    return folder


@pytest.mark.parametrize("model", TINIES)
def test_sample_of_any_number_needs_little_memory(trained_of, tmp_path, monkeypatch, model):
    monkeypatch.setattr(commands.trained, "DRAWN", 500)
    monkeypatch.setattr(boltzmann, "SAMPLED", 10)  # steps of a chain
    counts, original = [], RECIPES[model].sample
    monkeypatch.setattr(
        RECIPES[model], "sample", lambda c, m, n, *rest: counts.append(n) or original(c, m, n, *rest), raising=False
    )
    out = tmp_path / "a.npy"
    tracemalloc.start()
    assert cli.main(["sample", str(trained_of / model), "-n", "20250", "--out", str(out)]) == 0
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert counts == [500] * 40 + [250]
    images = np.load(out)
    assert (images.shape, images.dtype, images.flags.c_contiguous) == ((20250, 784), np.float32, True)
    assert peak < images.nbytes / 2
    assert len(np.unique(images[:, 300])) > 10_000, "the parts differ"


def test_sample_in_parts_is_the_same_as_at_once(trained_of, tmp_path, monkeypatch):
    parts = {}
    for size in (7, 100):
        monkeypatch.setattr(commands.trained, "DRAWN", size)
        assert cli.main(["sample", str(trained_of / TINY.model), "-n", "20", "--out", str(tmp_path / "a.npy")]) == 0
        parts[size] = np.load(tmp_path / "a.npy")
    np.testing.assert_allclose(parts[7], parts[100], rtol=1e-5, atol=1e-6)
