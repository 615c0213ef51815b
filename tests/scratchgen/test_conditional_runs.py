"""Runs whose models take labels: their pictures and metrics, a digit of choice, what is refused, older checkpoints."""

import hashlib
import json
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
from helpers import TINIES, TINY, ByBrightness, edit, tiny_data, use_tiny

import scratchgen.figures
from scratchgen import cli, recipes, runs
from scratchgen.by_hand.tasks import ByHandGANTask, ByHandVAETask
from scratchgen.data.dataset import UNLABELLED, Dataset, Split
from scratchgen.errors import UserError
from scratchgen.evaluation import ais
from scratchgen.evaluation.decoder import gan_decoder, vae_decoder
from scratchgen.evaluation.likelihood import importance_nll, mean_bound
from scratchgen.evaluation.samples import class_accuracy
from scratchgen.models.aae import AAEConfig
from scratchgen.random import RandomStream
from scratchgen.recipes import RECIPES
from scratchgen.tasks.aae import AAETraining
from scratchgen.tasks.gan import GANTraining
from scratchgen.tasks.vae import VAETraining

pytestmark = pytest.mark.usefixtures("tiny")

both_models = pytest.mark.parametrize("model", ["vae", "gan"])
CONDITIONAL = {
    model: replace(TINIES[model], epochs=2, network=replace(TINIES[model].network, conditional=True))
    for model in ("vae", "gan")
}


@pytest.fixture(scope="module")
def conditional(tmp_path_factory):
    """Folders of a conditional run of each model, with figures; to be read only."""
    folders, drawn = {}, {}
    with pytest.MonkeyPatch.context() as patch:
        use_tiny(patch.setattr)
        save = scratchgen.figures.save_samples
        patch.setattr(scratchgen.figures, "save_samples", lambda path, *a: drawn.update({path: a}) or save(path, *a))
        for model, config in CONDITIONAL.items():
            folders[model] = tmp_path_factory.mktemp("conditional") / model
            runs.start(config, folders[model])
    folders["drawn"] = drawn
    return folders


# ---- pictures and metrics ----


@both_models
def test_samples_are_drawn_with_a_code_each_row_and_a_class_each_column(conditional, model):
    names = {
        "vae": {"latent", "losses", "reconstructions", "samples"},
        "gan": {"health", "losses", "nearest", "samples"},
    }[model]
    assert {path.stem for path in conditional[model].glob("*.png")} == names
    images, shape, columns = conditional["drawn"][conditional[model] / "samples.png"]
    assert (images.shape, shape, columns) == ((100, 784), (28, 28), 10)
    _, network = runs.load_model(conditional[model])
    decode = recipes.vae.decode if model == "vae" else recipes.gan.generate
    codes = np.random.default_rng(0).standard_normal((10, network.config.latent_dim))
    by_class = decode(network, *recipes.recipe.by_class(codes, 10))
    for row in range(10):
        each = decode(network, np.tile(codes[row], (10, 1)), np.arange(10))
        np.testing.assert_allclose(by_class[10 * row :][:10], each, rtol=1e-5, atol=1e-6)


def test_vae_is_measured_with_the_test_labels(conditional, call):
    config, model = runs.load_model(conditional["vae"])
    images, labels = RECIPES["vae"].as_seen(config, tiny_data().test.images, "test"), tiny_data().test.labels
    rng = recipes.vae.stream(config.seed, "final evaluation")
    expected = mean_bound(model, images, rng, labels=labels)
    expected["nll"] = importance_nll(model, images, 20, rng, labels)
    summary = json.loads((conditional["vae"] / "summary.json").read_text())["test"]
    assert {name: summary[name] for name in expected} == expected
    assert json.loads(call("evaluate", conditional["vae"], "--iw-samples", 20)) == summary
    assert "nats an image given its label: neg_elbo" in RECIPES["vae"].report(config, summary)
    assert "given its label" not in RECIPES["vae"].report(TINIES["vae"], summary)
    few = json.loads(call("evaluate", conditional["vae"], "--limit", 7))
    assert few["nll_images"] == 7


@both_models
@pytest.mark.parametrize("sigma", [0.3, "best"])
def test_ais_is_given_the_labels_of_its_images(conditional, call, monkeypatch, model, sigma):
    monkeypatch.setattr(ais, "SIGMA_STEPS", 3)
    config, network = runs.load_model(conditional[model])
    data, rng = tiny_data(), recipes.recipe.stream(config.seed, "final evaluation")
    given = ["--ais", "--limit", 6, "--chains", 3, "--steps", 4, "--sigma", sigma, "--simulate", 2]
    found = json.loads(call("evaluate", conditional[model], *given))
    decoder, classes = {"vae": vae_decoder, "gan": gan_decoder}[model], np.eye(10, dtype=np.float32)
    if sigma == "best":
        train, labels = data.train.images[-6:], data.train.labels[-6:]
        sigma = ais.best_sigma(decoder(network, 0.2), train, rng, classes[labels])
    protocol, labels = ais.Protocol(6, 3, 4, simulate=2), data.test.labels[:6]
    expected = ais.evaluate_ais(decoder(network, sigma), protocol, data.test.images[:6], rng, classes[labels])
    assert {name: found[name] for name in expected} == expected
    assert found["sigma"] == sigma


def test_vae_reconstructs_with_the_label(conditional, call):
    config, model = runs.load_model(conditional["vae"])
    images, labels = tiny_data().test.images[:8], tiny_data().test.labels[:8]
    right, wrong = (RECIPES["vae"].reconstruct(config, model, images, y) for y in (labels, (labels + 1) % 10))
    assert (np.abs(right - wrong).max(axis=1) > 0).all()
    assert call("reconstruct", conditional["vae"], "--out", "r.png") == "r.png\n"


def test_gan_is_measured_by_the_classes_asked_for(conditional, call, monkeypatch):
    asked, judged = [], []

    def draw_samples(model, labels, rng, original=recipes.gan.draw_samples):
        asked.append(labels)
        return original(model, labels, rng)

    class Judge(ByBrightness):
        def probabilities(self, images):
            judged.append(super().probabilities(images))
            return judged[-1]

    monkeypatch.setattr(recipes.gan, "draw_samples", draw_samples)
    monkeypatch.setattr(recipes.gan, "load_judge", lambda data: Judge())
    found = json.loads(call("evaluate", conditional["gan"]))
    assert found == json.loads((conditional["gan"] / "summary.json").read_text())["test"]
    assert set(asked[0]) == set(range(10))
    assert found["class_accuracy"] == np.mean(judged[0].argmax(axis=1) == asked[0])
    last = json.loads((conditional["gan"] / "metrics.jsonl").read_text().splitlines()[-1])
    assert 0 <= last["test"]["class_accuracy"] <= 1
    words = f"{found['class_accuracy']:.1%} of the class asked for"
    assert words in RECIPES["gan"].report(CONDITIONAL["gan"], found)
    del found["class_accuracy"]
    assert "asked for" not in RECIPES["gan"].report(TINIES["gan"], found)


def test_gan_logits_are_those_of_pictures_with_their_labels(conditional):
    _, model = runs.load_model(conditional["gan"])
    images, labels = tiny_data().test.images[:7], tiny_data().test.labels[:7]
    found = recipes.gan.logits(model, images, labels)
    assert found.shape == (7 // model.config.pack,)
    swapped = recipes.gan.logits(model, images, np.roll(labels, 1))
    assert not np.allclose(found, swapped)
    for i, pair in enumerate(found):
        two = slice(2 * i, 2 * i + 2)
        np.testing.assert_allclose(recipes.gan.logits(model, images[two], labels[two]), [pair], rtol=1e-4, atol=1e-5)


def test_class_accuracy_is_the_share_of_agreement():
    probabilities = np.eye(3)[[0, 1, 2, 2]]
    assert class_accuracy(probabilities, np.array([0, 2, 2, 1])) == 0.5


# ---- a digit of choice ----


@both_models
def test_sample_draws_the_digit(conditional, call, model, monkeypatch):
    folder, seen = conditional[model], []
    module = {"vae": recipes.vae, "gan": recipes.gan}[model]
    name = {"vae": "decode", "gan": "draw_samples"}[model]
    original = getattr(module, name)

    def spy(*arguments):
        seen.append(next(a for a in arguments if isinstance(a, np.ndarray) and a.ndim == 1))
        return original(*arguments)

    monkeypatch.setattr(module, name, spy)
    for digit in (7, 0):
        call("sample", folder, "--digit", digit, "-n", 6, "--out", f"{digit}.npy")
    assert [labels.tolist() for labels in seen] == [[7] * 6, [0] * 6]
    seven, zero = np.load("7.npy"), np.load("0.npy")
    assert seven.shape == (6, 784)
    assert not np.allclose(seven, zero)
    call("sample", folder, "-n", 50, "--out", "any.npy")
    assert len(set(seen[-1])) > 5


def test_sample_names_its_picture_after_the_digit(call, conditional, tmp_path):
    run = tmp_path / "run"
    run.mkdir()
    for name in ("config.json", "checkpoint.safetensors"):
        (run / name).write_bytes((conditional["vae"] / name).read_bytes())
    assert call("sample", run, "--digit", 3, "-n", 4) == f"{run / 'digit-3.png'}\n"
    assert not (run / "samples.png").exists()


AAES = {
    "decoder": ({"labels_for": "decoder"}, 50),
    "encoder": ({"labels_for": "encoder"}, 50),
    "regions": ({"labels_for": "discriminator", "prior": "mixture"}, 50),
    "regions without labels": ({"labels_for": "discriminator", "prior": "mixture"}, 0),
    "classes without labels": ({"labels_for": "encoder"}, 0),
    "no labels": ({"labels_for": "discriminator"}, 0),
}


def aae(kind):
    network, labels = AAES[kind]
    tiny = TINIES["aae"]
    return replace(
        tiny, network=replace(tiny.network, **network), training=replace(tiny.training, labels=labels), epochs=1
    )


@pytest.mark.parametrize("kind", ["decoder", "encoder", "regions"])
def test_aae_draws_the_digit_by_its_decoder_or_its_region(kind, monkeypatch):
    config, recipe = aae(kind), RECIPES["aae"]
    model, seen = recipe.build(config), []
    monkeypatch.setattr(recipes.aae, "decode", lambda model, *given: seen.append(given) or np.zeros((40, 784)))
    recipe.sample(config, model, 40, np.random.default_rng(0), 7)
    ((codes, labels),) = seen
    assert labels.tolist() == [7] * 40
    if kind == "regions":
        assert (model.prior.region(codes) == 7).mean() > 0.9  # petals overlap a little


@pytest.mark.parametrize("kind", ["regions without labels", "classes without labels", "no labels"])
def test_aae_without_labels_cannot_draw_a_digit(kind):
    config, recipe = aae(kind), RECIPES["aae"]
    model = recipe.build(config)
    recipe.sample(config, model, 3, np.random.default_rng(0))
    with pytest.raises(UserError, match="so none can be chosen; train a run with labels: with --config supervised"):
        recipe.sample(config, model, 3, np.random.default_rng(0), 7)


def test_sample_refuses_a_digit_of_a_run_without_labels(trained, capsys, tmp_path):
    assert cli.main(["sample", str(trained), "--digit", "7", "--out", "seven.png"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line == (
        "scratchgen: the run's networks take no labels, so no class can be chosen; train a run with --conditional"
    )
    assert not Path("seven.png").exists()


# ---- the command line, and what is refused ----


@both_models
def test_train_and_profile_take_conditional(call, capsys, model):
    options = ["--config", "tiny", "--conditional", "--epochs", "1"]
    assert cli.main(["train", model, *options, "--out", "run"]) == 0
    stored = runs.load_config(Path("run"))
    assert stored.network == CONDITIONAL[model].network
    capsys.readouterr()
    call("profile", model, *options[:3], "--steps", 3)


@both_models
def test_images_without_a_label_are_refused(model):
    config, recipe, data = CONDITIONAL[model], RECIPES[model], tiny_data()
    labels = data.train.labels.copy()
    labels[[3, 500]] = UNLABELLED, 10
    unlabelled = Dataset("strokes", Split(data.train.images, labels), data.test)
    with pytest.raises(UserError, match="and 2 of 600 training images have none"):
        recipe.task(config, recipe.build(config), unlabelled)
    plain = TINIES[model]
    recipe.task(plain, recipe.build(plain), unlabelled)  # which needs none


@pytest.mark.parametrize(("model", "kind"), [("vae", ByHandVAETask), ("gan", ByHandGANTask)])
def test_by_hand_refuses_labels(model, kind):
    config = CONDITIONAL[model]
    arguments = RECIPES[model].build(config), config.training, RandomStream(0), 1, 1
    with pytest.raises(ValueError, match="leave conditional out"):
        kind(*arguments, *([] if model == "vae" else [lambda *_: {}]))


# ---- older runs ----


def test_run_without_the_field_loads_and_its_checkpoint_fits(run, call):
    before = runs.load_config(run)
    edit(run, ["network", "conditional"], ...)
    edit(run, ["network", "classes"], ...)
    assert runs.load_config(run) == before
    call("evaluate", run, "--limit", 3)


IWAE = replace(TINY, training=VAETraining(objective="iwae"))
LIMITED = replace(TINIES["gan"], training=GANTraining(max_norm=1.0))


PLAIN_AAE = replace(TINIES["aae"], network=AAEConfig(), training=AAETraining())


@pytest.mark.parametrize("config", [*TINIES.values(), *CONDITIONAL.values(), IWAE, LIMITED, PLAIN_AAE])
def test_fingerprint_is_that_of_before_unless_a_later_field_is_used(config):
    content = asdict(config)
    made_of = {name: content[name] for name in ("network", "training", "seed", "batch_size", "data", "kernels")}
    made_of["network"].pop("conditional", None)
    made_of["network"].pop("classes", None)
    later = {
        "vae": ["objective", "mean_activation"],
        "gan": [],
        "aae": ["batch_norm", "hidden_noise", "head_distance", "consistency", "moved"],
        "rbm": [],
        "dbn": [],
        "dbm": [],
    }
    for name in later[config.model]:
        made_of["training"].pop(name, None)
        made_of["network"].pop(name, None)
    made_of["training"].pop("max_norm", None)
    before = hashlib.sha256(json.dumps(made_of, sort_keys=True).encode()).hexdigest()
    assert (config.fingerprint() == before) == (config not in [*CONDITIONAL.values(), IWAE, LIMITED, TINIES["aae"]])
