"""The adversarial autoencoder's gradients by hand are the engine's, and those of finite differences, event by event."""

from typing import NamedTuple

import numpy as np
import pytest
from by_hand_helpers import (
    assert_finite_differences,
    assert_the_engine_s,
    before_updates,
    dense,
    far_from_kinks,
    images,
    randomize,
    sizes,
)
from hypothesis import given
from hypothesis import strategies as st

import kernels
from scratchgen.by_hand import aae
from scratchgen.models.aae import AAE, LABELS_FOR, POSTERIORS, AAEConfig
from scratchgen.random import RandomStream
from scratchgen.tasks.aae import AAETask, AAETraining
from scratchgen.tensor import Tensor

hidden = st.lists(sizes, max_size=2).map(tuple)
seeds = st.integers(0, 2**32)


@st.composite
def problems(draw, networks=dense):
    """A configuration, the size of the batch, and a seed."""
    prior = draw(st.sampled_from(["gaussian", "mixture"]))
    config = AAEConfig(
        **draw(networks),
        latent_dim=2 if prior == "mixture" else draw(st.integers(1, 3)),
        encoder_hidden=draw(hidden),
        decoder_hidden=draw(hidden),
        discriminator_hidden=draw(hidden),
        posterior=draw(st.sampled_from(POSTERIORS)),
        noise_dim=draw(st.integers(1, 3)),
        prior=prior,
        labels_for=draw(st.sampled_from(LABELS_FOR)),
        classes=draw(st.sampled_from([10, 5, 2])),
    )
    return config, draw(sizes), draw(seeds)


def made(problem):
    """A model in float64, images, labels of which some are not given."""
    config, b, seed = problem
    rng = np.random.default_rng(seed)
    model = AAE(config, rng, np.float64)
    randomize(model, rng)
    return model, rng.random((b, config.input_dim)), rng.integers(-1, config.classes, b)


INPUT_NOISE = 0.3


class Labelled(NamedTuple):
    """What event 4 draws from, in float64."""

    images: np.ndarray
    labels: np.ndarray

    def __len__(self):
        return len(self.labels)


def draws_of_priors(model, labels, rng):
    """Draws of z, and of the classes where the encoder classifies."""
    prior = model.prior.sample(len(labels), rng, labels if model.regional else None)
    return prior, rng.integers(model.config.classes, size=len(labels)) if model.config.labels_for == "encoder" else None


def seen_by_encoder(images, model, random):
    """Images with the noise of training, and the noise of the posterior."""
    x = images + INPUT_NOISE * random.normal(images.shape, np.float64).data
    noise = model.draw_noise(len(images), random)
    return x, None if noise is None else noise.data


def assert_by_hand_is_the_engine(kernel_set, problem, seed):
    with kernels.use(kernel_set):
        model, images, labels = made(problem)
        state, config, labelled = model.state_dict(), model.config, Labelled(images, np.abs(labels))
        task = AAETask(model, AAETraining(input_noise=INPUT_NOISE), RandomStream(seed), 1, 1, labelled, None)
        found = before_updates(task, task.optimizers.values())
        losses = [loss.item() for loss in task.train_step(Tensor(images), labels).values()]

        random = RandomStream(seed)
        x, noise = seen_by_encoder(images, model, random)
        expected = [aae.reconstruction_gradients(state, config, images, x, labels, noise)]
        x, noise = seen_by_encoder(images, model, random)
        prior, classes = draws_of_priors(model, labels, random.generator)
        expected.append(aae.discriminator_gradients(state, config, x, labels, noise, prior, classes))
        expected.append(aae.encoder_gradients(state, config, x, labels, noise))
        if config.labels_for == "encoder":
            chosen = random.generator.integers(len(labelled), size=len(images))
            x, noise = seen_by_encoder(labelled.images[chosen], model, random)
            expected.append(aae.classification_gradients(state, config, x, labelled.labels[chosen], noise))
    for engine_loss, engine, (loss, gradients) in zip(losses, found, expected, strict=True):
        np.testing.assert_allclose(loss, engine_loss, rtol=1e-12)
        assert_the_engine_s(gradients, engine)


@pytest.mark.parametrize("kernel_set", kernels.SETS)
@given(problem=problems(), seed=seeds)
def test_aae_gradients_match_the_engine(kernel_set, problem, seed):
    assert_by_hand_is_the_engine(kernel_set, problem, seed)


@pytest.mark.parametrize("kernel_set", kernels.SETS)
@given(problem=problems(images("encoder_channels", "decoder_channels")), seed=seeds)
def test_convolutional_aae_gradients_match_the_engine(kernel_set, problem, seed):
    assert_by_hand_is_the_engine(kernel_set, problem, seed)


CASES = [(event, who) for event in ("reconstruction", "discriminator", "encoder") for who in LABELS_FOR]


@pytest.mark.parametrize("posterior", POSTERIORS)
@pytest.mark.parametrize(("event", "labels_for"), [*CASES, ("classification", "encoder")])
def test_aae_gradients_match_finite_differences(posterior, event, labels_for):
    config = AAEConfig(4, 2, (5, 3), (3, 5), (4, 3), posterior, 2, "mixture", labels_for, classes=5)

    def problem(rng):
        model = AAE(config, rng, np.float64)
        randomize(model, rng)
        (images, x), labels = rng.random((2, 3, 4)), np.array([3, -1, 0])
        of_priors = draws_of_priors(model, labels, rng)
        noise = model.draw_noise(len(images), RandomStream(rng))
        noise = None if noise is None else noise.data

        def loss_and_gradients(p):
            if event == "reconstruction":
                return aae.reconstruction_gradients(p, config, images, x, labels, noise)
            if event == "discriminator":
                return aae.discriminator_gradients(p, config, x, labels, noise, *of_priors)
            if event == "encoder":
                return aae.encoder_gradients(p, config, x, labels, noise)
            return aae.classification_gradients(p, config, x, np.abs(labels), noise)

        return loss_and_gradients, model.state_dict()

    assert_finite_differences(*far_from_kinks(problem))


def test_aae_gradients_refuse_an_event_that_does_not_fit(rng):
    x, labels = rng.random((3, 4)), np.array([3, 1, 0])
    silent, classifying = (AAEConfig(4, 2, (), (), (), labels_for=who) for who in ("decoder", "encoder"))
    with pytest.raises(ValueError, match="labels_for is decoder: only an encoder that classifies has update 4"):
        aae.classification_gradients(AAE(silent, rng, np.float64).state_dict(), silent, x, labels, None)
    parameters = AAE(classifying, rng, np.float64).state_dict()
    with pytest.raises(ValueError, match="update 2 needs draws of the classes"):
        aae.discriminator_gradients(parameters, classifying, x, labels, None, rng.random((3, 2)))
