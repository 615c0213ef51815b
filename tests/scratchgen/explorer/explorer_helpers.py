"""Small models of every kind, data of several shapes, and pages of both."""

from dataclasses import replace

import numpy as np
from helpers import untrained_judge

from scratchgen import explorer
from scratchgen.data.dataset import UNLABELLED, Dataset, Split
from scratchgen.data.strokes import draw_strokes
from scratchgen.models.aae import AAEConfig
from scratchgen.models.gan import GANConfig
from scratchgen.models.vae import VAEConfig
from scratchgen.nn import BatchNorm
from scratchgen.recipes import RECIPES, RunConfig
from scratchgen.runs import fitted

HALVES = {"encoder_channels": (2, 3), "decoder_channels": (3, 2)}
UPWARD = {"generator_channels": (4, 3), "generator_hidden": (9,)}


def vae(binarize="none", **options):
    sizes = {"latent_dim": 3, "encoder_hidden": (9,), "decoder_hidden": (8,)}
    return "vae", VAEConfig(**(sizes | options)), {"binarize": binarize}


def gan(**options):
    return (
        "gan",
        GANConfig(**{"latent_dim": 3, "generator_hidden": (9, 8), "discriminator_hidden": (4,), **options}),
        {},
    )


def aae(labels=0, **options):
    sizes = {
        "latent_dim": 3,
        "encoder_hidden": (9,),
        "decoder_hidden": (8,),
        "discriminator_hidden": (4,),
        "noise_dim": 2,
    }
    return "aae", AAEConfig(**(sizes | options)), {"labels": labels}


KINDS = {
    "vae": vae(),
    "vae binary": vae("dynamic", activation="softplus", decoder_hidden=(8, 7)),
    "vae 2-d": vae(latent_dim=2),
    "vae conditional 2-d": vae(latent_dim=2, conditional=True),
    "vae gaussian": vae(likelihood="gaussian"),
    "vae gaussian-fixed": vae(likelihood="gaussian-fixed", sigma=0.7),
    "vae gaussian-fixed sigmoid": vae(likelihood="gaussian-fixed", sigma=0.7, mean_activation="sigmoid"),
    "vae conv": vae(**HALVES),
    "vae conv conditional gaussian": vae(**HALVES, conditional=True, likelihood="gaussian"),
    "gan": gan(),
    "gan uniform conditional": gan(noise="uniform", batch_norm=False, conditional=True, latent_dim=2),
    "gan conv": gan(**UPWARD),
    "gan conv conditional": gan(**UPWARD, conditional=True),
    "aae gaussian posterior": aae(posterior="gaussian"),
    "aae universal conv": aae(posterior="universal", **HALVES),
    "aae uniform": aae(prior="uniform"),
    "aae mixture": aae(prior="mixture", latent_dim=2, labels=50),
    "aae swiss-roll": aae(prior="swiss-roll", latent_dim=2),
    "aae supervised": aae(labels_for="decoder", labels=50),
    "aae semi-supervised heads": aae(labels_for="encoder", labels=50, head_distance=1.0),
    "aae semi-supervised": aae(labels_for="encoder", labels=50, posterior="universal"),
}


def drawn(count=100):
    """So many digits to test with, and none to train with."""
    digits = draw_strokes(count, rng=3, labels=np.arange(count) % 10)
    images = np.rint(255 * digits.images).astype(np.float32) / 255  # as a page holds them
    return Dataset("strokes", Split(images[:0], digits.labels[:0]), Split(images, digits.labels))


def rectangles(classes, count=60):
    """So many test images of a light rectangle on a dark ground, 20 by 14 pixels."""
    rng, images = np.random.default_rng(5), np.zeros((count, 20, 14), np.float32)
    for image in images:
        top, left, height, width = rng.integers((1, 1, 4, 2), (8, 5, 11, 8))
        image[top : top + height, left : left + width] = rng.integers(100, 256) / 255
    labels = np.arange(count) % len(classes) if classes else np.full(count, UNLABELLED)
    images = images.reshape(count, -1)
    return Dataset("rectangles", Split(images[:0], labels[:0]), Split(images, labels), (20, 14), classes)


def letters(count=78):
    """Drawn digits under the names of letters."""
    images = drawn(count).test.images
    labels = np.arange(count) % 26
    test = Split(images, labels)
    return Dataset("letters", Split(images[:0], labels[:0]), test, classes=tuple("abcdefghijklmnopqrstuvwxyz"))


DATA = {
    "digits": drawn(),
    "named": rectangles(("low", "a rather long name", "<b>&amp;")),
    "unlabelled": rectangles(()),
    "letters": letters(),
}
DATA["dark on light"] = replace(DATA["named"], test=Split(1 - DATA["named"].test.images, DATA["named"].test.labels))


def built(kind, seed=0, data=DATA["digits"]):
    """A model of a kind: its configuration, and itself with biases and averages as if it had been trained."""
    name, network, training = KINDS[kind]
    recipe = RECIPES[name]
    settings = replace(recipe.configs[next(iter(recipe.configs))].training, **training)
    config = RunConfig(name, kind, network, settings, epochs=1, batch_size=10, data="strokes", seed=seed)
    config = fitted(config, data)
    model, rng = recipe.build(config), np.random.default_rng(seed)
    for parameter_name, parameter in model.named_parameters().items():
        if parameter_name.rpartition(".")[2] in ("bias", "beta"):
            parameter.write(rng.normal(0, 0.3, parameter.shape).astype(np.float32))
    for layer in model.modules():
        if isinstance(layer, BatchNorm):
            layer.gamma.write(rng.uniform(0.5, 2, layer.gamma.shape).astype(np.float32))
            layer.mean.write(rng.normal(0, 1, layer.mean.shape).astype(np.float32))
            layer.variance.write(rng.uniform(0.2, 3, layer.variance.shape).astype(np.float32))
    model.eval()
    return config, model


def page_of(config, model, data, monkeypatch, judge=True):
    """The model's page, with a judge that was not trained, or without one."""
    monkeypatch.setattr(explorer, "load_judge", untrained_judge)
    return explorer.page(config, RECIPES[config.model].explorable(config, model, data), data, with_judge=judge)
