"""The adversarial autoencoder's gradients by hand are the engine's, and those of finite differences, event by event."""

import numpy as np
import pytest
from by_hand_helpers import assert_finite_differences, assert_the_engine_s, before_updates, far_from_kinks, randomize
from hypothesis import given
from hypothesis import strategies as st

import kernels
from scratchgen.by_hand import aae
from scratchgen.data.dataset import CLASSES, Split
from scratchgen.models.aae import AAE, LABELS_FOR, POSTERIORS, AAEConfig, AAETask, AAETraining, one_hot
from scratchgen.noise import normal, turns

sizes = st.integers(1, 5)
hidden = st.lists(sizes, max_size=2).map(tuple)
seeds = st.integers(0, 2**32)


@st.composite
def problems(draw):
    """A configuration, the size of the batch, and a seed."""
    prior = draw(st.sampled_from(["gaussian", "mixture"]))
    config = AAEConfig(
        input_dim=draw(sizes),
        latent_dim=2 if prior == "mixture" else draw(st.integers(1, 3)),
        encoder_hidden=draw(hidden),
        decoder_hidden=draw(hidden),
        discriminator_hidden=draw(hidden),
        posterior=draw(st.sampled_from(POSTERIORS)),
        noise_dim=draw(st.integers(1, 3)),
        prior=prior,
        labels_for=draw(st.sampled_from(LABELS_FOR)),
    )
    return config, draw(sizes), draw(seeds)


def made(problem):
    """A model in float64, images, labels of which some are not given."""
    config, b, seed = problem
    rng = np.random.default_rng(seed)
    model = AAE(config, rng, np.float64)
    randomize(model, rng)
    return model, rng.random((b, config.input_dim)), rng.integers(-1, CLASSES, b)


INPUT_NOISE = 0.3
TRAINING = AAETraining(input_noise=INPUT_NOISE)


def draws(model, labels, seed):
    """What events draw: turns of random numbers, and draws of the priors."""
    rng, b = np.random.default_rng(seed), len(labels)
    prior = model.prior.sample(b, rng, labels if model.regional else None)
    classes = rng.integers(CLASSES, size=b) if model.config.labels_for == "encoder" else None
    return turns(rng, 3), prior, classes


def read_by_encoder(images, model, turn):
    """Images with the noise of training, and the noise of the posterior."""
    noise = model.draw_noise(len(images), turn)
    x = images + INPUT_NOISE * np.asarray(normal(images.shape, np.dtype(np.float64), turn, draw=1))
    return x, None if noise is None else noise.data


def assert_by_hand_is_the_engine(kernel_set, problem, seed):
    with kernels.use(kernel_set):
        model, images, labels = made(problem)
        state, config = model.state_dict(), model.config
        task = AAETask(model, TRAINING, 1, 1, Split(np.empty((0, config.input_dim), np.float32), labels[:0]), None)
        found = before_updates(task, task.optimizers.values())
        turn, prior, classes = draws(model, labels, seed)
        rows = None if classes is None else one_hot(classes, CLASSES, np.float64)
        known = (images, np.abs(labels)) if config.labels_for == "encoder" else (None, None)
        losses = task._recorded(images, turn, np.ones((4, 2)), prior, model.labels_given(labels), rows, *known)
        x, noise = read_by_encoder(images, model, turn[:1])
        again, other_noise = read_by_encoder(images, model, turn[1:2])
        expected = [
            aae.reconstruction_gradients(state, config, images, x, labels, noise),
            aae.discriminator_gradients(state, config, again, labels, other_noise, prior, classes),
            aae.encoder_gradients(state, config, again, labels, other_noise),
        ]
        if config.labels_for == "encoder":
            x, noise = read_by_encoder(images, model, turn[2:])
            expected.append(aae.classification_gradients(state, config, x, np.abs(labels), noise))
    for parts, engine, (loss, gradients) in zip(losses, found, expected, strict=True):
        np.testing.assert_allclose(loss, np.asarray(parts).sum(), rtol=1e-12)
        assert_the_engine_s(gradients, engine)


@pytest.mark.parametrize("kernel_set", kernels.SETS)
@given(problem=problems(), seed=seeds)
def test_by_hand_is_the_engine(kernel_set, problem, seed):
    assert_by_hand_is_the_engine(kernel_set, problem, seed)


CASES = [(event, who) for event in ("reconstruction", "discriminator", "encoder") for who in LABELS_FOR]


@pytest.mark.parametrize("posterior", POSTERIORS)
@pytest.mark.parametrize(("event", "labels_for"), [*CASES, ("classification", "encoder")])
def test_by_hand_is_finite_differences(posterior, event, labels_for):
    config = AAEConfig(4, 2, (5, 3), (3, 5), (4, 3), posterior, 2, "mixture", labels_for)

    def problem(rng):
        model = AAE(config, rng, np.float64)
        randomize(model, rng)
        (images, x), labels = rng.random((2, 3, 4)), np.array([3, -1, 0])
        turn, *of_priors = draws(model, labels, rng.integers(2**32))
        noise = read_by_encoder(images, model, turn[:1])[1]

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


def test_an_event_that_does_not_fit_is_refused(rng):
    x, labels = rng.random((3, 4)), np.array([3, 1, 0])
    silent, classifying = (AAEConfig(4, 2, (), (), (), labels_for=who) for who in ("decoder", "encoder"))
    with pytest.raises(ValueError, match="labels_for is decoder: only an encoder that classifies has event 4"):
        aae.classification_gradients(AAE(silent, rng, np.float64).state_dict(), silent, x, labels, None)
    parameters = AAE(classifying, rng, np.float64).state_dict()
    with pytest.raises(ValueError, match="event 2 needs draws of the classes"):
        aae.discriminator_gradients(parameters, classifying, x, labels, None, rng.random((3, 2)))
