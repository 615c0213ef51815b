"""Runs of convolutional models, of a Wasserstein GAN and of conditional ones: a stopped run ends with the same bits."""

import json
import os
import signal
from dataclasses import replace
from functools import partial

import pytest
from helpers import CONVOLUTIONAL, outcome
from matplotlib.figure import Figure

from scratchgen import cli, figures, runs
from scratchgen.capture import Capture
from scratchgen.checkpoint import load_checkpoint
from scratchgen.recipes import RECIPES
from scratchgen.recipes.gan import WASSERSTEIN, GANRecipe
from scratchgen.training import Interrupted

pytestmark = pytest.mark.usefixtures("tiny")

RUNS = CONVOLUTIONAL | {
    f"conditional {name}": replace(config, network=replace(config.network, conditional=True))
    for name, config in CONVOLUTIONAL.items()
    if name != "aae"
}
each_run = pytest.mark.parametrize("name", RUNS)


@each_run
def test_run_that_is_interrupted_ends_with_the_same_bits(name, tmp_path, monkeypatch):
    whole, stopped = tmp_path / "whole", tmp_path / "stopped"
    runs.start(RUNS[name], whole)
    taken = []

    def step(capture, *arguments, original=Capture.__call__, **options):
        taken.append(1)
        if len(taken) == 7:  # in the second epoch
            os.kill(os.getpid(), signal.SIGINT)
        return original(capture, *arguments, **options)

    with monkeypatch.context() as patch:
        patch.setattr(Capture, "__call__", step)
        with pytest.raises(Interrupted):
            runs.start(RUNS[name], stopped)
    assert load_checkpoint(stopped / "checkpoint.safetensors")[1]["batch"] > 0
    runs.resume(stopped)
    assert outcome(stopped) == outcome(whole)


@pytest.mark.parametrize("name", ["wasserstein", "conditional wasserstein"])
def test_wasserstein_run_reports_the_difference_of_the_critic_s_means(name, tmp_path, capsys):
    run = tmp_path / "run"
    runs.start(RUNS[name], run)
    *_, last = (json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines())
    assert last["train"].keys() == {"wasserstein", "penalty", "d_gradient", "g_loss", "g_gradient"}
    assert "wasserstein" in last["test"]
    assert not last["test"].keys() & {"d_real", "d_fake"}
    capsys.readouterr()
    assert cli.main(["evaluate", str(run), "--limit", "20"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert f"f(x) - f(G(z)) {found['wasserstein']:.2f}" in RECIPES["gan"].report(RUNS[name], found)


@pytest.mark.parametrize(
    ("name", "health", "curves"),
    [("gan", "discriminator", set()), ("wasserstein", "critic", {*WASSERSTEIN.values()})],
)
def test_figures_tell_a_critic_from_a_discriminator(name, health, curves, tmp_path, monkeypatch):
    drawn, config = [], replace(RUNS[name], epochs=1)
    monkeypatch.setattr(figures, "Figure", lambda *args, **kwargs: drawn.append(Figure(*args, **kwargs)) or drawn[-1])
    monkeypatch.setattr(RECIPES["gan"], "draw", partial(GANRecipe.draw, RECIPES["gan"]))
    runs.start(config, tmp_path / "run")
    *_, losses, outputs = drawn
    assert {axes.get_ylabel() for axes in losses.axes} - {""} == curves
    assert outputs.axes[0].get_title(loc="left") == health


@pytest.mark.parametrize(
    ("config", "says"),
    [
        ("mlp", "a critic takes one picture at a time: pack must be 1, not 2"),
        ("goodfellow", "the objective wasserstein takes no max_norm"),
    ],
)
def test_train_refuses_a_network_that_cannot_be_a_critic(config, says, tmp_path, capsys):
    options = ["--config", config, "--data", "strokes", "--objective", "wasserstein", "--out", str(tmp_path / "run")]
    assert cli.main(["train", "gan", *options]) == 2
    line = capsys.readouterr().err.splitlines()[-1]
    assert says in line
    assert line.endswith("use --config wgan-gp")
