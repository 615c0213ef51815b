"""Runs that stop early, and what they keep; the metrics as a table. Stopped anywhere, they end with the same bits."""

import csv
import json
import os
import re
import shutil
import signal
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from helpers import STEPS, STOPPING, TINIES, TINY, drive, edit, outcome, tiny_data, use_tiny, without_figures

from scratchgen import cli, runs
from scratchgen.capture import Capture
from scratchgen.checkpoint import load_checkpoint
from scratchgen.errors import UserError
from scratchgen.recipes import RECIPES
from scratchgen.tasks.vae import VAETask, VAETraining
from scratchgen.training import Interrupted, Selection, Trainer, write_metrics

pytestmark = pytest.mark.usefixtures("tiny")

OPTIONS = ["--lr", 0.01, "--beta", 10, "--beta-warmup", 4, "--epochs", 12, "--patience", 1, "--log", "csv"]


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The folder of a run that stopped early, which nothing else disturbed; to be read only."""
    folder = tmp_path_factory.mktemp("whole") / "run"
    with pytest.MonkeyPatch.context() as patch:
        use_tiny(patch.setattr)
        without_figures(patch.setattr)
        runs.start(STOPPING, folder)
    return folder


@pytest.fixture
def stopped(whole, tmp_path):
    """A copy of it."""
    return Path(shutil.copytree(whole, tmp_path / "stopped"))


def figures(folder, name="neg_elbo"):
    return [json.loads(line)["test"][name] for line in (folder / "metrics.jsonl").read_text().splitlines()]


# ---- when a run stops, and what it keeps ----


@pytest.mark.parametrize(
    ("selection", "epochs", "best"),
    [
        (Selection(("a",)), [3, 1, 2], 2),
        (Selection(("a",), larger=True), [3, 1, 2], 1),
        (Selection(("a",)), [2, 1, 1], 2),
        (Selection(("a",), larger=True), [1, 1], 1),
        (Selection(("a", "b"), larger=True), [(9, 9), (10, 5), (10, 7), (10, 6)], 3),
        (Selection(("a", "b")), [(2, 0), (1, 9), (1, 8)], 3),
    ],
)
def test_selection_finds_the_first_of_the_best_epochs(selection, epochs, best):
    history = [{"test": dict(zip("ab", np.atleast_1d(epoch), strict=False))} for epoch in epochs]
    assert selection.best(history) == best


@pytest.mark.parametrize(
    "config",
    [*TINIES.values(), replace(TINY, training=VAETraining(objective="iwae"))],
    ids=lambda c: f"{c.model} {getattr(c.training, 'objective', '')}",
)
def test_selection_of_every_model_is_among_its_test_metrics(config, tmp_path):
    in_parts = config.model in ("dbn", "dbm")  # their epochs do not compare, so they take no patience
    runs.start(config if in_parts else replace(config, epochs=1, patience=1), tmp_path)
    entry, *_ = (json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines())
    selection = RECIPES[config.model].selection(config)
    assert set(selection.metrics) <= entry["test"].keys()
    assert selection.larger == (config.model == "gan")
    if getattr(config.training, "objective", "") == "iwae":
        assert selection.metrics == ("neg_iwae",)


class Scripted(VAETask):
    """A task that learns nothing, whose test figure goes as written."""

    def evaluate(self, dataset, rng):
        self.model.decoder_out.bias.write(np.full(784, len(self.left), np.float32))
        return {"figure": self.left.pop(0)}


def scripted(folder, goes, patience, **options):
    task = RECIPES["vae"].task(TINY, RECIPES["vae"].build(TINY), tiny_data())
    task.__class__, task.left = Scripted, list(goes)
    settings = {"epochs": len(goes), "batch_size": 600, "seed": 0, "fingerprint": "a"}
    return Trainer(
        task, tiny_data(), folder, **settings, selection=Selection(("figure",)), patience=patience, **options
    )


@pytest.mark.parametrize(
    ("goes", "patience", "epochs", "best"),
    [
        ([5, 4, 3, 2], 1, 4, 4),
        ([5, 6, 1, 1], 1, 2, 1),
        ([5, 6, 4, 5, 5, 1], 2, 5, 3),
        ([5, 5, 5, 1], 2, 3, 1),  # as good is not better
        ([5, 6, 7, 4], 3, 4, 4),
        ([5, 6, 7, 4], None, 4, None),
    ],
)
def test_trainer_stops_after_so_many_epochs_without_a_better_one(tmp_path, goes, patience, epochs, best):
    trainer = scripted(tmp_path, goes, patience)
    assert len(trainer.run()) == epochs
    assert (tmp_path / "best.safetensors").exists() == (best is not None)
    if best is None:
        return
    arrays, progress = load_checkpoint(tmp_path / "best.safetensors")
    assert (progress["epoch"], progress["batch"], len(progress["history"])) == (best, 0, best)
    assert (arrays["model.decoder_out.bias"] == len(goes) - best + 1).all()
    assert load_checkpoint(tmp_path / "checkpoint.safetensors")[1]["epoch"] == epochs
    assert trainer.out_of_patience() == (epochs < len(goes))


def test_run_measures_draws_and_loads_the_best_epoch(whole, call, monkeypatch):
    assert len(figures(whole)) == 3
    assert figures(whole)[1] == min(figures(whole))
    summary = json.loads((whole / "summary.json").read_text())
    assert (summary["epochs"], summary["best_epoch"]) == (3, 2)
    (best, progress), (last, _) = (load_checkpoint(whole / f"{name}.safetensors") for name in ("best", "checkpoint"))
    assert progress["epoch"] == 2
    _, model = runs.load_model(whole)
    for name, array in model.state_dict().items():
        assert np.array_equal(array, best[f"model.{name}"])
        assert not np.array_equal(array, last[f"model.{name}"])
    assert json.loads(call("evaluate", whole)) == summary["test"]
    drawn = []
    monkeypatch.setattr(RECIPES["vae"], "draw", lambda config, model, *_: drawn.append(model.state_dict()))
    runs.resume(Path(shutil.copytree(whole, "run")))
    assert np.array_equal(drawn[0]["decoder_out.bias"], best["model.decoder_out.bias"])


def test_train_command_says_which_epoch_it_kept(call, whole):
    out = call("train", "vae", "--config", "tiny", *OPTIONS, "--out", "run")
    assert re.search(r"tiny on strokes, binarised anew .*: 3 epochs, ", out)
    assert "kept: epoch 2, the best by test neg_elbo; chosen so, it looks slightly too good\n" in out
    assert outcome(Path("run")) == outcome(whole)


def test_run_without_patience_keeps_no_best_epoch(trained):
    assert not (trained / "best.safetensors").exists()
    assert "best_epoch" not in json.loads((trained / "summary.json").read_text())


# ---- stopped and resumed ----


def test_resume_after_an_interrupt_at_every_step_gives_the_same_bits(whole, tmp_path, monkeypatch):
    def step(capture, *arguments, original=Capture.__call__, **options):
        os.kill(os.getpid(), signal.SIGINT)
        return original(capture, *arguments, **options)

    monkeypatch.setattr(Capture, "__call__", step)
    for number in range(3 * STEPS):
        with pytest.raises(Interrupted):
            runs.resume(tmp_path) if number else runs.start(STOPPING, tmp_path)
        assert (tmp_path / "best.safetensors").exists() == (number >= STEPS)  # an epoch is measured by the next
        runs.load_model(tmp_path)
    runs.resume(tmp_path)
    assert outcome(tmp_path) == outcome(whole)
    assert table(tmp_path) == table(whole)


def test_resume_after_a_kill_at_any_moment_gives_the_same_bits(whole, tmp_path):
    for moment in [
        "before step 3",
        "amid best.safetensors 1",
        "after best.safetensors 1",  # the first epoch's; the checkpoint is still to come
        "after checkpoint.safetensors 1",
        "amid metrics.csv 1",  # on resuming
        "before best.safetensors 1",  # the second epoch's
        "after best.safetensors 1",
        "after metrics.csv 2",
        "after step 5",
        "amid checkpoint.safetensors 1",  # the third epoch's, after which it stops
    ]:
        resumed = (tmp_path / "config.json").exists()
        goal = ["--resume", tmp_path] if resumed else ["--config", "tiny", *OPTIONS, "--out", tmp_path]
        stopped = drive("train", "vae", *goal, moment=f"SIGKILL {moment}")
        assert stopped.returncode == -signal.SIGKILL, (moment, stopped.stderr)
        if (tmp_path / "checkpoint.safetensors").exists():
            runs.load_model(tmp_path)
        if (tmp_path / "metrics.csv").exists():
            assert (tmp_path / "metrics.csv").read_text().endswith("\n")
    runs.resume(tmp_path)
    assert outcome(tmp_path) == outcome(whole)
    assert table(tmp_path) == table(whole)
    assert not list(tmp_path.glob("*.tmp"))


def test_resume_of_a_run_that_has_stopped_trains_no_more(stopped, call):
    before = outcome(stopped)
    (stopped / "summary.json").unlink()
    assert not any(line.startswith("epoch") for line in call("train", "vae", "--resume", stopped).splitlines())
    assert outcome(stopped) == before


def test_resume_with_more_epochs_refuses_a_run_that_has_stopped(stopped, capsys):
    before = {path: path.read_bytes() for path in stopped.iterdir()}
    assert cli.main(["train", "vae", "--resume", str(stopped), "--epochs", "20"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"scratchgen: {stopped} has stopped early, after 3 epochs: no epoch was better for 1; ")
    assert {path: path.read_bytes() for path in stopped.iterdir()} == before


def test_resume_with_more_epochs_of_a_patient_run_equals_one_longer_run(tmp_path):
    config = replace(TINY, patience=2, log="csv", training=replace(TINY.training, schedule="constant"))
    runs.start(replace(config, epochs=1), tmp_path / "extended")
    runs.resume(tmp_path / "extended", epochs=3)
    runs.start(config, tmp_path / "at once")
    assert outcome(tmp_path / "extended") == outcome(tmp_path / "at once")
    assert table(tmp_path / "extended") == table(tmp_path / "at once")


def test_commands_refuse_a_run_whose_best_epoch_is_missing_or_damaged(stopped, capsys):
    best = stopped / "best.safetensors"
    for content, words in ((best.read_bytes()[:-1], "damaged"), (None, "no such checkpoint")):
        best.unlink()
        if content is not None:
            best.write_bytes(content)
        assert cli.main(["sample", str(stopped), "--out", "a.npy"]) == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert line.startswith(f"scratchgen: {best}: ")
        assert words in line


def test_start_refuses_a_folder_with_a_best_epoch_or_a_table(tmp_path):
    for name in ("best.safetensors", "metrics.csv"):
        folder = tmp_path / name.partition(".")[0]
        folder.mkdir()
        (folder / name).write_bytes(b"somebody's")
        with pytest.raises(UserError, match="holds a run already"):
            runs.start(STOPPING, folder)


def test_run_without_the_fields_loads_and_its_checkpoint_fits(run, call):
    before = runs.load_config(run)
    for name in ("patience", "log"):
        edit(run, [name], ...)
    assert runs.load_config(run) == before
    call("sample", run, "--out", "a.npy")


# ---- the table ----


def table(folder):
    """The lines of metrics.csv, without the seconds."""
    with open(folder / "metrics.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert all(float(row.pop("seconds")) > 0 for row in rows)
    return rows


def test_table_has_a_line_an_epoch_and_a_column_a_metric(whole):
    history = [json.loads(line) for line in (whole / "metrics.jsonl").read_text().splitlines()]
    rows = table(whole)
    assert len(rows) == 3
    for entry, row in zip(history, rows, strict=True):
        metrics = {f"{split}_{name}": value for split in ("train", "test") for name, value in entry[split].items()}
        assert {name: float(value) for name, value in row.items()} == {"epoch": entry["epoch"], **metrics}
    first = (whole / "metrics.csv").read_text().splitlines()[0]
    assert first == (
        "epoch,seconds,train_neg_elbo,train_reconstruction,train_kl,test_neg_elbo,test_reconstruction,test_kl"
    )


def test_table_leaves_missing_metrics_empty(tmp_path):
    history = [
        {"epoch": 1, "seconds": 1.0, "train": {"a": 1.0}, "test": {}},
        {"epoch": 2, "seconds": 2.0, "train": {"a": 2.0, "b": 3.0}, "test": {"a": 4.0}},
    ]
    write_metrics(tmp_path, history, "csv")
    text = (tmp_path / "metrics.csv").read_bytes()
    assert text == b"epoch,seconds,train_a,train_b,test_a\n1,1.0,1.0,,\n2,2.0,2.0,3.0,4.0\n"


def test_run_writes_a_table_only_if_asked(trained):
    assert not (trained / "metrics.csv").exists()
