"""Runs of Boltzmann machines: stopped anywhere they end with the same bits; a checkpoint is enough for all commands."""

import json
import os
import signal
from dataclasses import replace

import numpy as np
import pytest
from helpers import FEW, STEPS, TINIES, outcome, tiny_data, use_tiny, without_figures
from PIL import Image

from scratchgen import cli, runs
from scratchgen.capture import Capture
from scratchgen.checkpoint import load_checkpoint
from scratchgen.errors import UserError
from scratchgen.evaluation.partition import anneal
from scratchgen.random import RandomStream
from scratchgen.recipes import RECIPES, boltzmann
from scratchgen.tensor import Tensor
from scratchgen.training import Interrupted

MODELS = ("rbm", "dbn", "dbm")
LIKELIHOODS = {"rbm": {"nll"}, "dbn": {"nll", "neg_bound"}, "dbm": {"neg_bound"}}
every_model = pytest.mark.parametrize("model", MODELS)
pytestmark = pytest.mark.usefixtures("tiny")


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """Folders of a run of each model, with figures, that nothing disturbed; to be read only."""
    folders = {model: tmp_path_factory.mktemp("whole") / model for model in MODELS}
    with pytest.MonkeyPatch.context() as patch:
        use_tiny(patch.setattr)
        for model, folder in folders.items():
            runs.start(TINIES[model], folder)
    return folders


@every_model
def test_start_writes_metrics_summary_and_figures(whole, model):
    for entry in (json.loads(line) for line in (whole[model] / "metrics.jsonl").read_text().splitlines()):
        assert entry["train"].keys() == {"gradient", "activity"}
        assert entry["test"].keys() == {*LIKELIHOODS[model], "effective_sample_size", "reconstruction"}
    summary = json.loads((whole[model] / "summary.json").read_text())
    assert summary["pixels"].startswith("binarised anew")
    assert summary["test"].keys() >= {
        *LIKELIHOODS[model],
        "log_z",
        "log_z_error",
        "effective_sample_size",
        "annealed_chains",
        "annealing_steps",
        "reconstruction",
    }
    for name in ("samples", "reconstructions", "losses", "filters", "chains"):
        assert Image.open(whole[model] / f"{name}.png").size[0] > 500


@every_model
def test_resume_after_an_interrupt_at_every_step_gives_the_same_bits(whole, tmp_path, model, monkeypatch):
    def step(capture, *arguments, original=Capture.__call__, **options):
        os.kill(os.getpid(), signal.SIGINT)
        return original(capture, *arguments, **options)

    without_figures(monkeypatch.setattr)
    monkeypatch.setattr(Capture, "__call__", step)
    for number in range(3 * STEPS):
        with pytest.raises(Interrupted):
            runs.resume(tmp_path) if number else runs.start(TINIES[model], tmp_path)
        progress = load_checkpoint(tmp_path / "checkpoint.safetensors")[1]
        assert (progress["epoch"], progress["batch"]) == (number // STEPS, number % STEPS + 1)
    runs.resume(tmp_path)
    assert outcome(tmp_path) == outcome(whole[model])


@every_model
def test_other_seeds_and_kernel_sets(whole, tmp_path, model, monkeypatch):
    without_figures(monkeypatch.setattr)
    runs.start(replace(TINIES[model], seed=1), tmp_path / "1")
    assert outcome(tmp_path / "1")["metrics"] != outcome(whole[model])["metrics"]
    runs.start(replace(TINIES[model], kernels="reference"), tmp_path / "reference")
    of_cpu, of_reference = (
        outcome(folder)["summary"]["test"][min(LIKELIHOODS[model])] for folder in (whole[model], tmp_path / "reference")
    )
    assert of_reference == pytest.approx(of_cpu, rel=0.05)


# ---- from a checkpoint alone ----


@every_model
def test_commands_need_only_the_checkpoint(whole, tmp_path, model, capsys):
    run = str(whole[model])
    assert cli.main(["sample", run, "-n", "7", "--out", str(tmp_path / "s.npy")]) == 0
    samples = np.load(tmp_path / "s.npy")
    assert (samples.shape, samples.dtype) == ((7, 784), np.float32)
    assert 0 <= samples.min() < samples.max() <= 1
    assert cli.main(["walk", run, "--seconds", "1", "--out", str(tmp_path / "w.gif")]) == 0
    assert Image.open(tmp_path / "w.gif").n_frames == 20
    assert cli.main(["reconstruct", run, "--out", str(tmp_path / "r.png")]) == 0
    assert cli.main(["encode", run, "--out", str(tmp_path / "c.npz")]) == 0
    assert np.load(tmp_path / "c.npz")["codes"].shape == (60, 16 if model == "rbm" else 12)
    capsys.readouterr()
    assert cli.main(["evaluate", run]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found == pytest.approx(json.loads((whole[model] / "summary.json").read_text())["test"])
    assert cli.main(["export", run, "--to", "numpy", "--out", str(tmp_path / "w.npz")]) == 0
    first = {"rbm": "weight", "dbn": "rbms.0.weight", "dbm": "bottom.weight"}[model]
    assert np.load(tmp_path / "w.npz")[first].shape == (784, 16)


@every_model
def test_evaluate_takes_other_annealed_chains_and_says_where_few_have_the_weight(whole, model, capsys):
    run, recipe, found = str(whole[model]), RECIPES[model], {}
    for steps in ("30", "1000"):
        assert cli.main(["evaluate", run, "--annealed-chains", "30", "--annealing-steps", steps]) == 0
        found[steps] = json.loads(capsys.readouterr().out)
        assert (found[steps]["annealed_chains"], found[steps]["annealing_steps"]) == (30, int(steps))
    assert found["1000"]["log_z_error"] < found["30"]["log_z_error"]
    config = runs.load_config(whole[model])
    assert ("(few: log Z" in recipe.report(config, found["30"] | {"effective_sample_size": 9.9})) is True
    assert ("(few: log Z" in recipe.report(config, found["30"] | {"effective_sample_size": 10.1})) is False
    assert cli.main(["evaluate", run, "--annealing-steps", "2"]) == 2
    assert "annealing_steps >= 3 is needed" in capsys.readouterr().err


@every_model
@pytest.mark.parametrize(
    ("command", "message"),
    [
        (["sample", "--digit", "3"], "take no labels"),
        (["walk", "--digit", "3"], "take no labels"),
        (["explore"], "have no code with a prior"),
        (["export", "--to", "torch"], "is not written in PyTorch; give --to numpy"),
        (["evaluate", "--ais"], "is for models with a code"),
        (["evaluate", "--iw-samples", "5"], "L_K is for VAEs"),
    ],
)
def test_what_a_machine_has_not_is_said_in_one_line(whole, model, command, message, capsys):
    assert cli.main([command[0], str(whole[model]), *command[1:]]) == 2
    err = capsys.readouterr().err
    assert message in err
    assert err.count("\n") == 1


# ---- settings ----


def test_gaussian_pixels_are_real_values(tmp_path, monkeypatch):
    """And after an epoch samples are like them: their mean is nearer to the data's than a blank picture's."""
    without_figures(monkeypatch.setattr)
    named = RECIPES["rbm"].configs["gaussian"]
    training = replace(named.training, lr=1e-4, **FEW | {"momentum": 0.0})
    config = replace(TINIES["rbm"], network=replace(named.network, hidden=8), training=training)
    summary = runs.start(config, tmp_path)
    assert "as real values" in summary["pixels"]
    config, model = runs.load_model(tmp_path)
    samples = RECIPES["rbm"].sample(config, model, 200, np.random.default_rng(0))
    means = tiny_data().train.images.mean(axis=0)
    assert abs(samples.mean(axis=0) - means).mean() < 0.3 * abs(means).mean()


@pytest.mark.parametrize("binarize", ["static", "dynamic"])
def test_gaussian_units_of_binary_pixels_are_refused(tmp_path, monkeypatch, capsys, binarize):
    monkeypatch.chdir(tmp_path)
    assert cli.main(["train", "rbm", "--config", "gaussian", "--binarize", binarize]) == 2
    assert f"are for grey levels: train with --binarize none, not {binarize}" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("command", "expected"),
    [
        (["dbn", "--hidden", "12,9", "--layer-epochs", "1", "--epochs", "2"], (12, 9)),
        (["dbm", "--hidden", "9,12", "--patience", "20"], (9, 12)),
        (["dbm", "--config", "pretrained", "--hidden", "9,12", "--pretraining-epochs", "1", "--epochs", "3"], (9, 12)),
        (["dbm", "--pretraining-epochs", "1"], "pretraining_epochs = 0, or centered = False"),
        (["dbn", "--hidden", "9,8,7", "--layer-epochs", "1", "--epochs", "2"], "give more --epochs, or fewer --layer-"),
        (
            ["dbm", "--config", "pretrained", "--hidden", "12,9", "--epochs", "20"],
            "give more --epochs, or fewer --pretraining-epochs",
        ),
        (["dbm", "--hidden", "12,9,7"], "two hidden layers"),
        (["dbm", "--hidden", "12,"], "'12,' is no list of sizes such as 500,1000"),
    ],
)
def test_sizes_are_given_from_the_pixels_up(tmp_path, monkeypatch, capsys, command, expected):
    """What they are, or what a message says."""
    monkeypatch.chdir(tmp_path)
    without_figures(monkeypatch.setattr)
    rest = ["--annealing-steps", "3", *([] if "--epochs" in command else ["--epochs", "1"])]
    status = cli.main(["train", *command, *rest, "--out", "run"])
    if isinstance(expected, str):
        assert status == 2
        assert expected in capsys.readouterr().err
    else:
        assert status == 0
        assert runs.load_config(tmp_path / "run").network.hidden == expected


@every_model
def test_samples_begin_where_training_has_left_the_chains(whole, model, monkeypatch):
    """Each of ten chains once, before any comes twice; and without any, at annealed ones."""
    config, machine = runs.load_model(whole[model])
    recipe, random = RECIPES[model], RandomStream(0)
    assert len(machine.kept) == 10
    begun = recipe.start(machine, 10, random).data
    assert sorted(map(bytes, begun)) == sorted(map(bytes, machine.kept.astype(np.float32)))
    machine.kept = machine.kept[:0]
    annealed = []
    monkeypatch.setattr(boltzmann, "anneal", lambda *given: annealed.append(given) or anneal(*given))
    assert recipe.start(machine, 10, random).shape == begun.shape
    assert len(annealed) == 1
    assert recipe.sample(config, machine, 3, np.random.default_rng(0)).shape == (3, 784)


@every_model
def test_log_z_is_estimated_there_and_back(whole, model):
    """Both agree within their errors, of less than a tenth of a nat: machines of short runs are near their base."""
    config, machine = runs.load_model(whole[model])
    config = replace(config, training=replace(config.training, annealed_chains=100, annealing_steps=1_000))
    found = RECIPES[model].evaluate(config, machine, tiny_data())
    assert max(found["log_z_error"], found["log_z_back_error"]) < 0.1
    error = np.hypot(found["log_z_error"], found["log_z_back_error"])
    assert abs(found["log_z_back"] - found["log_z"]) < 3 * error
    assert f"and {found['log_z_back']:.2f}" in RECIPES[model].report(config, found)
    machine.kept = machine.kept[:0]
    assert "log_z_back" not in RECIPES[model].evaluate(config, machine, tiny_data())


@pytest.mark.parametrize("model", ["rbm", "dbn"])
def test_runs_without_chains_that_go_on_are_sampled_by_annealing(tmp_path, model, monkeypatch):
    without_figures(monkeypatch.setattr)
    config = replace(TINIES[model], training=replace(TINIES[model].training, chains=0))
    runs.start(config, tmp_path)
    config, machine = runs.load_model(tmp_path)
    assert len(machine.kept) == 0
    assert RECIPES[model].sample(config, machine, 3, np.random.default_rng(0)).shape == (3, 784)


@pytest.mark.parametrize("model", ["dbn", "dbm"])
def test_patience_is_refused_where_epochs_do_not_compare(tmp_path, model):
    with pytest.raises(UserError, match="do not compare, so --patience would keep a wrong one"):
        runs.start(replace(TINIES[model], patience=2), tmp_path)
    with pytest.raises(UserError, match="none is left"):
        runs.start(replace(TINIES[model], epochs=1), tmp_path)


def test_a_belief_network_stopped_in_its_first_layer_is_an_rbm(tmp_path, monkeypatch):
    """Layers that have not begun are left out of samples, codes and likelihoods."""

    def step(capture, *arguments, original=Capture.__call__, **options):
        os.kill(os.getpid(), signal.SIGINT)
        return original(capture, *arguments, **options)

    with monkeypatch.context() as patch:
        patch.setattr(Capture, "__call__", step)
        with pytest.raises(Interrupted):
            runs.start(TINIES["dbn"], tmp_path)
    config, machine = runs.load_model(tmp_path)
    recipe, images = RECIPES["dbn"], tiny_data().test.images
    assert machine.depth == 1
    assert machine.kept.shape == (10, 16)
    assert recipe.encode(config, machine, images, tiny_data().test.labels)["codes"].shape == (60, 16)
    assert recipe.sample(config, machine, 3, np.random.default_rng(0)).shape == (3, 784)
    found = recipe.evaluate(config, machine, tiny_data())
    assert found["nll"] == pytest.approx(found["neg_bound"])


def test_static_pixels_are_drawn_once(tmp_path, monkeypatch):
    without_figures(monkeypatch.setattr)
    config = replace(TINIES["rbm"], epochs=1, training=replace(TINIES["rbm"].training, binarize="static"))
    assert runs.start(config, tmp_path)["pixels"].startswith("binarised once")
    task, seen = runs.prepare(config, tiny_data())
    assert set(np.unique(seen.train.images)) == {0, 1}
    x = Tensor(seen.train.images[:5])
    assert task.settings.pixels(x, RandomStream(0)) is x
