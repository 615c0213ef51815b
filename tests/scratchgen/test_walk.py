"""``scratchgen walk``: an animation that ends where it began, through the prior and classes of every kind of model."""

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from helpers import TINIES, files
from PIL import Image

from scratchgen import cli, recipes, runs
from scratchgen.errors import UserError
from scratchgen.recipes import RECIPES
from scratchgen.recipes.recipe import classes_in_turn

pytestmark = pytest.mark.usefixtures("tiny")


def configured(model, labels=50, **network):
    config = replace(TINIES[model], network=replace(TINIES[model].network, **network))
    return config if model != "aae" else replace(config, training=replace(config.training, labels=labels))


WITH_CLASSES = {
    "vae": configured("vae", conditional=True),
    "gan": configured("gan", conditional=True),
    "decoder": configured("aae", labels_for="decoder"),
    "encoder": configured("aae", labels_for="encoder"),
}
WITHOUT = {
    "vae": configured("vae"),
    "gan": configured("gan"),
    "gan, uniform": configured("gan", noise="uniform"),
    "aae": configured("aae", labels=0, labels_for="discriminator"),
}
REGIONAL = {prior: configured("aae", prior=prior, labels_for="discriminator") for prior in ("mixture", "swiss-roll")}
KINDS = WITHOUT | {f"{name} with classes": config for name, config in WITH_CLASSES.items()} | REGIONAL


def walked(config, frames, monkeypatch, label=None):
    """The codes and the classes that a walk gives a new model, and the pictures that it makes of them."""
    recipe, seen = RECIPES[config.model], []
    module = getattr(recipes, config.model)
    name = {"vae": "_means", "gan": "_generated", "aae": "_pictures"}[config.model]
    original = getattr(module, name)
    monkeypatch.setattr(module, name, lambda model, *given: seen.append(given) or original(model, *given))
    pictures = recipe.walk(config, recipe.build(config), frames, 3, np.random.default_rng(0), label)
    ((codes, classes),) = seen
    return codes, classes, pictures


@pytest.mark.parametrize("config", KINDS.values(), ids=KINDS)
def test_walk_is_smooth_and_closed(config, monkeypatch):
    codes, _, pictures = walked(config, 600, monkeypatch)
    assert codes.shape == (600, config.network.latent_dim)
    assert pictures.shape == (600, 784)
    assert 0 <= pictures.min() < pictures.max() <= 1
    steps = np.abs(pictures - np.roll(pictures, 1, axis=0)).mean(axis=1)  # the first is from the last to the first
    assert 0 < steps.max() < 0.01
    assert steps[0] < 1.5 * steps.max()
    assert np.abs(pictures - pictures[0]).mean(axis=1).max() > 5 * steps.max()


@pytest.mark.parametrize("config", WITH_CLASSES.values(), ids=WITH_CLASSES)
def test_walk_visits_the_classes_in_turn_or_stays_in_one(config, monkeypatch):
    with monkeypatch.context() as patch:
        _, classes, _ = walked(config, 100, patch)
    assert np.array_equal(classes, classes_in_turn(100, 10))
    with monkeypatch.context() as patch:
        _, classes, _ = walked(config, 100, patch, label=7)
    assert np.array_equal(classes, np.tile(np.eye(10)[7], (100, 1)))
    of_five = replace(config, network=replace(config.network, classes=5))
    _, classes, _ = walked(of_five, 100, monkeypatch)
    assert np.array_equal(classes, classes_in_turn(100, 5))


def test_classes_in_turn_are_one_hot_or_between_two_neighbours():
    classes = classes_in_turn(1000, 10)
    assert np.array_equal(classes[::100], np.eye(10))
    np.testing.assert_allclose(classes.sum(axis=1), 1)
    assert classes.min() == 0
    assert (classes.max(axis=1) == 1).mean() == pytest.approx(0.5, abs=0.02)
    assert np.flatnonzero(classes[975]).tolist() == [0, 9]
    assert np.abs(classes - np.roll(classes, 1, axis=0)).max() < 0.04


@pytest.mark.parametrize("count", [1, 2, 3, 26])
def test_classes_in_turn_are_as_many_as_the_model_has(count):
    classes = classes_in_turn(100 * count, count)
    assert np.array_equal(classes[::100], np.eye(count))
    np.testing.assert_allclose(classes.sum(axis=1), 1)
    assert np.abs(classes - np.roll(classes, 1, axis=0)).max() < 0.04


@pytest.mark.parametrize("name", REGIONAL)
def test_walk_of_an_aae_with_regions_stays_in_that_of_the_label(name, monkeypatch):
    codes, classes, _ = walked(REGIONAL[name], 200, monkeypatch, label=7)
    prior = RECIPES["aae"].build(REGIONAL[name]).prior
    assert classes is None
    assert (prior.region(codes) == 7).mean() > 0.9  # petals overlap a little


def test_walk_of_a_gan_stays_in_its_uniform_noise(monkeypatch):
    codes, _, _ = walked(WITHOUT["gan, uniform"], 500, monkeypatch)
    assert 1 < np.abs(codes).max() <= math.sqrt(3)


@pytest.mark.parametrize("config", [*WITHOUT.values(), configured("aae", labels=0)], ids=[*WITHOUT, "no labels"])
def test_walk_refuses_a_label_of_a_model_without_classes(config):
    recipe = RECIPES[config.model]
    with pytest.raises(UserError, match="can be chosen; train a run with"):
        recipe.walk(config, recipe.build(config), 10, 1, np.random.default_rng(0), 7)


def test_walk_command_writes_an_animation_of_the_length_asked_for(call, run, trained):
    assert call("walk", run, "--seconds", 2) == f"{run / 'walk.gif'}\n"
    with Image.open(run / "walk.gif") as film:
        frames = []
        for number in range(film.n_frames):
            film.seek(number)
            frames.append((film.info["duration"], np.asarray(film.convert("L"))))
        assert film.info["loop"] == 0
    assert sum(duration for duration, _ in frames) == 2_000
    assert len(frames) > 30  # equal ones are merged
    call("walk", trained, "--seconds", 2, "--out", "same.gif", "--seed", 0)
    call("walk", trained, "--seconds", 2, "--out", "other.gif", "--seed", 1)
    same, other = (Path(name).read_bytes() for name in ("same.gif", "other.gif"))
    assert same == (run / "walk.gif").read_bytes() != other


def test_walk_command_lasts_ten_seconds_and_names_the_animation_of_a_digit(call, monkeypatch, tmp_path):
    runs.start(replace(WITH_CLASSES["vae"], epochs=1), tmp_path / "run")
    asked = []

    def walk(config, model, *arguments, original=RECIPES["vae"].walk):
        asked.append((arguments[0], arguments[1], arguments[3]))
        return original(config, model, *arguments)

    monkeypatch.setattr(RECIPES["vae"], "walk", walk)
    assert call("walk", "run", "--digit", 3) == "run/walk-3.gif\n"
    call("walk", "run", "--seconds", 1, "--out", "a.gif")
    assert asked == [(200, 3, 3), (20, 1, None)]


def test_walk_command_refuses_a_digit_without_labels(trained, capsys, tmp_path):
    before = files(tmp_path)
    assert cli.main(["walk", str(trained), "--digit", "7", "--out", "seven.gif"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.endswith("take no labels, so no class can be chosen; train a run with --conditional")
    assert files(tmp_path) == before
