"""Runs of GANs and adversarial autoencoders: stopped anywhere they end with the same bits; a checkpoint is enough."""

import json
import math
import os
import signal
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from helpers import STEPS, TINIES, ByBrightness, drive, outcome, tiny_data, train_options, use_tiny, without_figures

import scratchgen.figures
from scratchgen import cli, recipes, runs
from scratchgen.capture import Capture
from scratchgen.checkpoint import load_checkpoint
from scratchgen.data.dataset import UNLABELLED
from scratchgen.errors import UserError
from scratchgen.evaluation import ais
from scratchgen.evaluation.decoder import gan_decoder
from scratchgen.evaluation.features import frechet_distance, precision_recall
from scratchgen.recipes import RECIPES
from scratchgen.training import Interrupted

both_models = pytest.mark.parametrize("model", ["gan", "aae"])
pytestmark = pytest.mark.usefixtures("tiny")


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """Folders of a run of each model, with figures, that nothing disturbed; to be read only."""
    folders = {model: tmp_path_factory.mktemp("whole") / model for model in ("gan", "aae")}
    with pytest.MonkeyPatch.context() as patch:
        use_tiny(patch.setattr)
        for model, folder in folders.items():
            runs.start(TINIES[model], folder)
    return folders


# ---- the folder ----

METRICS = {
    "gan": (
        {"d_loss", "d_real", "d_fake", "d_gradient", "g_loss", "g_gradient"},
        {"classes_covered", "smallest_class", "class_entropy", "judge_confidence", "d_real", "d_fake", "overlap"},
        {
            *("samples", "class_histogram", "judge_accuracy"),
            *("frechet_distance", "frechet_error", "precision", "recall", "as_training"),
        },
    ),
    "aae": (
        {"reconstruction", "d_loss", "e_loss", "c_loss", "inconsistency"},
        {"reconstruction_mse", "error_rate", "mmd", "code_sd"},
        {"mmd_prior_vs_prior", "fresh_discriminator_bce"},
    ),
}


@both_models
def test_start_writes_metrics_and_summary(whole, model):
    train, test, more = METRICS[model]
    for entry in (json.loads(line) for line in (whole[model] / "metrics.jsonl").read_text().splitlines()):
        assert entry["train"].keys() == train
        assert entry["test"].keys() == test
    summary = json.loads((whole[model] / "summary.json").read_text())
    assert (summary["model"], summary["config"], summary["epochs"]) == (model, "tiny", 3)
    assert summary["pixels"] == "grey levels in [0, 1]"
    assert summary["test"].keys() == (test | more) - {"code_sd"}
    if model == "gan":
        assert sum(summary["test"]["class_histogram"]) == summary["test"]["samples"] == 300
        assert 0 <= summary["test"]["class_entropy"] <= math.log(10)


def test_gan_samples_are_compared_with_test_images_by_the_judge_s_features(whole, monkeypatch):
    drawn = []

    def draw_samples(model, labels, rng, original=recipes.gan.draw_samples):
        drawn.append(original(model, labels, rng))
        return drawn[-1]

    monkeypatch.setattr(recipes.gan, "draw_samples", draw_samples)
    monkeypatch.setattr(recipes.gan, "load_judge", lambda data: ByBrightness())
    config, model = runs.load_model(whole["gan"])
    recipe, data, features = RECIPES["gan"], tiny_data(), ByBrightness().features
    found = recipe.evaluate(config, model, data, 40)
    real = features(data.test.images[:40])
    for samples, metrics in ((drawn[0], found), (data.train.images[:40], found["as_training"])):
        fake = features(samples)
        assert metrics["frechet_distance"] == frechet_distance(real, fake)
        assert (metrics["precision"], metrics["recall"]) == precision_recall(real, fake)
    assert 0 < found["frechet_error"] < 1
    distances = [found["frechet_distance"], found["frechet_error"], found["as_training"]["frechet_distance"]]
    said = "Fréchet distance {:.1f} ± {:.1f}, of training images {:.1f}; precision ".format(*distances)
    assert said in recipe.report(config, found)
    assert "Fréchet" not in recipe.report(config, few := recipe.evaluate(config, model, data, 2))
    assert "precision" not in few


@pytest.mark.parametrize(
    ("model", "names"),
    [
        ("gan", ["health.png", "losses.png", "nearest.png", "samples.png"]),
        ("aae", ["losses.png", "reconstructions.png", "samples.png", "styles.png"]),
    ],
)
def test_start_draws_the_figures_of_its_model(whole, model, names):
    assert sorted(path.name for path in whole[model].glob("*.png")) == names


@pytest.mark.parametrize("prior", ["gaussian", "uniform", "mixture", "swiss-roll"])
def test_aae_recipe_draws_two_dimensional_codes_beside_their_prior(tmp_path, monkeypatch, prior):
    drawn = {}

    def spy(original):
        return lambda path, *arguments, **named: (
            drawn.update({path.name: (arguments, named)}) or original(path, *arguments, **named)
        )

    for name in ("save_latent_scatter", "save_manifold", "save_samples"):
        monkeypatch.setattr(scratchgen.figures, name, spy(getattr(scratchgen.figures, name)))
    tiny = TINIES["aae"]
    network = replace(tiny.network, prior=prior, labels_for="discriminator")
    monkeypatch.setattr(RECIPES["aae"], "draw", type(RECIPES["aae"]).draw.__get__(RECIPES["aae"]))
    regional = prior in ("mixture", "swiss-roll")
    training = replace(tiny.training, labels=50 if regional else 0)
    summary = runs.start(replace(tiny, epochs=1, network=network, training=training), tmp_path)
    assert (tmp_path / "latent.png").exists()
    (codes, labels), named = drawn["latent.png"]
    assert codes.shape == (60, 2)
    assert np.array_equal(labels, tiny_data().test.labels)
    assert named["prior_samples"].shape == (2000, 2)
    assert (named["prior_labels"] is not None) == regional == ("own_region" in summary["test"])
    assert len(drawn["manifold.png"][0][0]) == (200 if regional else 400)


@pytest.mark.parametrize("labels_for", ["encoder", "decoder"])
def test_aae_recipe_draws_the_sum_of_code_and_head_if_it_has_two_dimensions(tmp_path, monkeypatch, labels_for):
    tiny, data, drawn = TINIES["aae"], tiny_data(), {}
    network = replace(tiny.network, latent_dim=2, posterior="deterministic", labels_for=labels_for, head_distance=4.0)
    config, recipe = replace(tiny, network=network), RECIPES["aae"]
    model = recipe.build(config)
    model.eval()

    def save(path, *given, **named):
        drawn[path.name] = given, named
        return path

    for name in ("save_loss_curves", "save_latent_scatter"):
        monkeypatch.setattr(scratchgen.figures, name, save)
    type(recipe).draw(recipe, config, model, data, [], tmp_path)
    (points, labels), named = drawn["representation.png"]
    np.testing.assert_array_equal(labels, data.test.labels)
    found = recipe.encode(config, model, data.test.images, data.test.labels)
    classes = found.get("predicted", data.test.labels)
    expected = found["codes"] + model.heads.embedding.data[classes]
    np.testing.assert_allclose(points, expected, rtol=1e-5, atol=1e-6)
    assert named["classes"] == data.classes


# ---- what is done with labels ----


def test_aae_recipe_hides_labels_that_are_not_given():
    recipe, config = RECIPES["aae"], TINIES["aae"]
    seen = recipe.seen(config, tiny_data())
    given = seen.train.labels != UNLABELLED
    assert given.sum() == 50
    assert np.array_equal(seen.train.labels[given], tiny_data().train.labels[given])
    assert set(np.bincount(seen.train.labels[given])) == {5}
    assert np.array_equal(seen.test.labels, tiny_data().test.labels)
    assert np.array_equal(recipe.seen(config, tiny_data()).train.labels, seen.train.labels)
    other = recipe.seen(replace(config, seed=1), tiny_data()).train.labels
    assert not np.array_equal(other, seen.train.labels)
    task = recipe.task(config, recipe.build(config), seen)
    assert np.array_equal(task.labelled.images, tiny_data().train.images[given])


def test_clusters_without_labels_have_no_error_rate(monkeypatch, tmp_path):
    """Classes that the encoder finds for itself are not those of the labels, in whatever order."""
    without_figures(monkeypatch.setattr)
    tiny = TINIES["aae"]
    config = replace(tiny, epochs=1, training=replace(tiny.training, labels=0))
    summary = runs.start(config, tmp_path)
    history = json.loads((tmp_path / "metrics.jsonl").read_text())
    assert "error_rate" not in summary["test"].keys() | history["test"].keys()


def test_aae_with_batch_norm_refuses_a_last_batch_of_one_image():
    recipe, tiny = RECIPES["aae"], TINIES["aae"]
    config = replace(tiny, batch_size=599)
    with pytest.raises(
        UserError, match="600 images in batches of 599 leave a batch of 1, but batch normalisation needs"
    ):
        recipe.task(config, recipe.build(config), tiny_data())
    without = replace(config, network=replace(tiny.network, batch_norm=False))
    recipe.task(without, recipe.build(without), tiny_data())


# ---- stopped and resumed ----


@both_models
def test_start_gives_the_same_bits_for_the_same_seed_only(whole, tmp_path, model, monkeypatch):
    without_figures(monkeypatch.setattr)
    for seed in (0, 1):
        runs.start(replace(TINIES[model], seed=seed), tmp_path / str(seed))
    assert outcome(tmp_path / "0") == outcome(whole[model])
    assert outcome(tmp_path / "1")["metrics"] != outcome(whole[model])["metrics"]


@both_models
def test_resume_after_an_interrupt_at_every_step_gives_the_same_bits(whole, tmp_path, model, monkeypatch):
    def step(capture, *arguments, original=Capture.__call__, **options):
        os.kill(os.getpid(), signal.SIGINT)
        return original(capture, *arguments, **options)

    monkeypatch.setattr(Capture, "__call__", step)
    for number in range(3 * STEPS):
        with pytest.raises(Interrupted):
            runs.resume(tmp_path) if number else runs.start(TINIES[model], tmp_path)
        progress = load_checkpoint(tmp_path / "checkpoint.safetensors")[1]
        assert (progress["epoch"], progress["batch"]) == (number // STEPS, number % STEPS + 1)
    runs.resume(tmp_path)
    assert outcome(tmp_path) == outcome(whole[model])


@pytest.mark.slow  # test_kills.py has a few of each model
@both_models
def test_resume_after_a_kill_at_any_moment_gives_the_same_bits(whole, tmp_path, model):
    for moment in ("before step 3", "amid checkpoint.safetensors 1", "after checkpoint.safetensors 1", "after step 4"):
        goal = (
            ["--resume", tmp_path] if (tmp_path / "config.json").exists() else ["--config", "tiny", "--out", tmp_path]
        )
        assert drive("train", model, *goal, moment=f"SIGKILL {moment}").returncode == -signal.SIGKILL, moment
    runs.resume(tmp_path)
    assert outcome(tmp_path) == outcome(whole[model])


# ---- from a checkpoint alone ----


@both_models
def test_sample_evaluate_and_reconstruct_need_only_the_checkpoint(call, whole, model, capsys):
    folder = whole[model]
    call("sample", folder, "-n", 7, "--out", "a.npy")
    call("sample", folder, "-n", 7, "--out", "b.npy")
    a, b = np.load("a.npy"), np.load("b.npy")
    assert a.shape == (7, 784)
    assert np.array_equal(a, b)
    assert 0 <= a.min() < a.max() <= 1
    assert json.loads(call("evaluate", folder)) == json.loads((folder / "summary.json").read_text())["test"]
    assert (
        json.loads(call("evaluate", folder, "--limit", 20)).keys()
        == METRICS[model][1] - {"code_sd"} | METRICS[model][2]
    )
    if model == "aae":
        assert call("reconstruct", folder, "--out", "r.png") == "r.png\n"


def test_load_model_gives_the_averaged_generator(whole):
    _, model = runs.load_model(whole["gan"])
    arrays, _ = load_checkpoint(whole["gan"] / "checkpoint.safetensors")
    for name, array in model.generator.state_dict().items():
        assert np.array_equal(array, arrays[f"averaged.{name}"])
        assert not np.array_equal(array, arrays[f"model.generator.{name}"])


# ---- words ----


@both_models
def test_train_reports_epochs_results_and_expectation(capsys, model, monkeypatch):
    monkeypatch.setattr(RECIPES[model], "expected", {("tiny", "strokes"): "a miracle"})
    assert cli.main(["train", model, "--config", "tiny", "--out", "here"]) == 0
    out, err = capsys.readouterr()
    assert not err or err.startswith("mode collapse?")  # so few steps draw few classes
    assert [line[:9] for line in out.splitlines()[1:4]] == ["epoch 1/3", "epoch 2/3", "epoch 3/3"]
    assert "is this normal? what to expect here: a miracle\n" in out
    words = {"gan": ["300 samples", "of 10 classes", "D(G(z))"], "aae": ["reconstruction_mse", "classified wrongly"]}
    assert all(word in out for word in words[model])


def test_health_names_missing_classes_once(whole, capsys):
    class Blind:
        def probabilities(self, images):
            return np.tile(np.eye(10)[3], (len(images), 1))

    _, model = runs.load_model(whole["gan"])
    health = recipes.gan.Health(Blind())
    for _ in range(2):
        health(model, tiny_data(), np.random.default_rng(0))
    err = capsys.readouterr().err
    assert err == "mode collapse? 200 samples contain almost none of 0, 1, 2, 4, 5, 6, 7, 8, 9\n"


@both_models
def test_train_passes_every_option_to_the_run(model):
    tiny = TINIES[model]
    network, training = {
        "gan": (
            {"latent_dim": 4},
            {
                "objective": "minimax",
                "real_label": 0.8,
                "discriminator_steps": 1,
                "generator_lr": 0.001,
                "discriminator_lr": 0.002,
            },
        ),
        "aae": (
            {"latent_dim": 3, "prior": "uniform", "posterior": "universal", "labels_for": "decoder"},
            {"labels": 40, "reconstruction_lr": 0.001, "discriminator_lr": 0.002, "encoder_lr": 0.003},
        ),
    }[model]
    given = {"epochs": 1, "batch_size": 300, "seed": 5, "kernels": "reference", "data": "strokes"}
    given |= {"patience": 4, "log": "csv"}
    options = [(f"--{name.replace('_', '-')}", value) for name, value in (given | network | training).items()]
    flags = {"gan": ["--conditional"], "aae": []}[model]
    command = ["train", model, "--config", "tiny", "--out", "run", *sum(options, ()), *flags]
    assert cli.main([str(argument) for argument in command]) == 0
    network |= {"conditional": True} if flags else {}
    expected = replace(
        tiny, network=replace(tiny.network, **network), training=replace(tiny.training, **training), **given
    )
    stored = runs.load_config(Path("run"))
    assert stored == replace(expected, versions=stored.versions)
    assert {"--config", "--out", "--resume", "--data-dir", *flags, *dict(options)} == set(train_options(model))


def test_evaluate_ais_of_a_gan_finds_sigma_by_training_images(call, whole, monkeypatch):
    config, model = runs.load_model(whole["gan"])
    data, rng = tiny_data(), recipes.recipe.stream(config.seed, "final evaluation")
    monkeypatch.setattr(ais, "SIGMA_STEPS", 3)
    found = json.loads(call("evaluate", whole["gan"], "--ais", "--limit", 6, "--chains", 3, "--steps", 4))
    best = ais.best_sigma(gan_decoder(model, 0.2), data.train.images[-6:], rng)
    expected = ais.evaluate_ais(gan_decoder(model, best), ais.Protocol(6, 3, 4), data.test.images[:6], rng)
    assert "real values" in found.pop("pixels")
    assert found.pop("sigma") == best != 0.2
    assert found == expected
    given = ["--ais", "--limit", 6, "--chains", 3, "--steps", 4, "--sigma", 0.3]
    assert json.loads(call("evaluate", whole["gan"], *given))["sigma"] == 0.3


@pytest.mark.parametrize("model", ["gan", "aae"])
def test_commands_report_mistakes_in_one_line(capsys, whole, model):
    mistakes = [
        (["evaluate", whole[model], "--iw-samples", "3"], "leave --iw-samples out"),
        (["train", "vae", "--resume", whole[model]], f"scratchgen train {model} --resume"),
    ]
    mistakes += [(["evaluate", whole[model], "--limit", "1"], "--limit")]
    if model == "gan":
        mistakes += [(["train", "gan", "--batch-size", size], "--batch-size") for size in ("1", "599")]
        diverging = ["train", "gan", "--config", "tiny", "--batch-size", "1000", "--discriminator-lr", "1e38"]
        mistakes += [
            (diverging, "try a lower learning rate"),
            (["train", "aae", "--resume", whole[model]], "train gan"),
        ]
        mistakes += [
            (["reconstruct", whole[model]], "has no encoder"),
            (["train", "gan", "--real-label", "2"], "real_label"),
        ]
    else:
        mistakes += [
            (["evaluate", whole[model], "--ais", *more], "for VAEs and GANs") for more in ([], ["--sigma", "1"])
        ]
        mistakes += [(["evaluate", whole[model], "--ais", "--sigma", "best"], "for VAEs and GANs")]
        mistakes += [(["train", "aae", "--prior", "mixture", "--latent-dim", "3"], "has two dimensions")]
        mistakes += [
            (["train", "aae", "--labels", "100"], "no network uses the labels"),
            (["train", "aae", "--config", "supervised", "--labels", "0"], "the decoder needs labels"),
        ]
    for arguments, named in mistakes:
        assert cli.main([str(argument) for argument in arguments]) == 2
        err = capsys.readouterr().err
        assert named in err
        assert err.startswith("scratchgen: ")
        assert len(err.splitlines()) == 1
