"""Training by hand follows the engine: the same draws, metrics and parameters, step by step."""

from copy import deepcopy
from dataclasses import dataclass

import numpy as np
import pytest
from task_helpers import bits, captured, eager

import kernels
from scratchgen.by_hand.tasks import ByHandAAETask, ByHandGANTask, ByHandVAETask, learning_curves, update
from scratchgen.capture import REFUSED, Captured
from scratchgen.data.dataset import Split
from scratchgen.data.strokes import draw_strokes
from scratchgen.models.aae import AAE, AAEConfig
from scratchgen.models.gan import GAN, GANConfig
from scratchgen.models.vae import VAE, VAEConfig
from scratchgen.optim import SGD
from scratchgen.random import RandomStream
from scratchgen.tasks.aae import AAETask, AAETraining
from scratchgen.tasks.gan import GANTask, GANTraining
from scratchgen.tasks.vae import VAETask, VAETraining

PIXELS, STEPS, BATCH = 784, 12, 20


@dataclass
class Labelled:
    """What event 4 draws from, in either float type."""

    images: np.ndarray
    labels: np.ndarray

    def __len__(self):
        return len(self.images)


def strokes(dtype):
    """200 images, and labels of which the last fifty are not given."""
    split = draw_strokes(200, np.random.default_rng(3))
    return split.images.astype(dtype), np.where(np.arange(200) < 150, split.labels, -1)


def vae_pair(dtype, config, settings):
    kinds = VAETask, ByHandVAETask
    return [kind(VAE(config, np.random.default_rng(0), dtype), settings, RandomStream(0), 5, 3) for kind in kinds]


def gan_pair(dtype, config, settings):
    models = [GAN(config, np.random.default_rng(0), dtype) for _ in range(2)]
    kinds = GANTask, ByHandGANTask
    return [
        kind(model, settings, RandomStream(0), 5, 3, lambda *_: {}) for kind, model in zip(kinds, models, strict=True)
    ]


def aae_pair(dtype, config, settings):
    models = [AAE(config, np.random.default_rng(0), dtype) for _ in range(2)]
    images, labels = strokes(dtype)
    labelled, kinds = Labelled(images[:100], labels[:100]), (AAETask, ByHandAAETask)
    return [
        kind(model, settings, RandomStream(0), 5, 3, labelled, lambda *_: {})
        for kind, model in zip(kinds, models, strict=True)
    ]


HALVES = {"encoder_channels": (2, 3), "decoder_channels": (3, 2)}
# Between them, everything that draws a number or keeps a state is on.
PAIRS = {
    "vae": (
        vae_pair,
        VAEConfig(PIXELS, 3, (30,), (30,)),
        VAETraining(schedule="cosine", samples=2, binarize="dynamic", beta_warmup=1.0),
    ),
    "vae gaussian": (
        vae_pair,
        VAEConfig(PIXELS, 3, (30, 20), (20,), "tanh", "gaussian", sigma_floor=0.3),
        VAETraining(),
    ),
    "vae convolutional": (vae_pair, VAEConfig(PIXELS, 3, (10,), (), **HALVES), VAETraining(output_bias=True)),
    "gan": (
        gan_pair,
        GANConfig(
            PIXELS, 5, generator_hidden=(20, 30), discriminator_hidden=(30, 20), input_dropout=0.2, hidden_dropout=0.3
        ),
        GANTraining(schedule="cosine"),
    ),
    "gan maxout": (
        gan_pair,
        GANConfig(PIXELS, 5, "uniform", (30,), False, (20, 10), "maxout", 3, 1, hidden_dropout=0.5),
        GANTraining("literal", 1.0, 2, "momentum", 0.1, 0.1, final_momentum=0.7, momentum_epochs=2.0, max_norm=0.9),
    ),
    "gan convolutional": (
        gan_pair,
        GANConfig(
            PIXELS,
            5,
            generator_hidden=(),
            generator_channels=(4, 3),
            discriminator_hidden=(),
            discriminator_channels=(3, 4),
        ),
        GANTraining(),
    ),
    "aae": (
        aae_pair,
        AAEConfig(PIXELS, 2, (30,), (30,), (20,), "universal", 5, "mixture"),
        AAETraining(input_noise=0.3, schedule="cosine"),
    ),
    "aae classes": (
        aae_pair,
        AAEConfig(PIXELS, 3, (30, 20), (20, 30), (20,), "gaussian", labels_for="encoder"),
        AAETraining(encoder_optimizer="adam", encoder_lr=1e-3, input_noise=0.1),
    ),
    "aae style": (
        aae_pair,
        AAEConfig(PIXELS, 3, (30,), (30,), (20, 10), labels_for="decoder", prior="uniform"),
        AAETraining(),
    ),
    "aae convolutional": (
        aae_pair,
        AAEConfig(PIXELS, 2, (10,), (10,), (20,), "universal", 5, "mixture", **HALVES),
        AAETraining(input_noise=0.3),
    ),
}


def pair(name, dtype):
    make, config, settings = PAIRS[name]
    return make(dtype, config, settings)


@pytest.mark.parametrize("name", PAIRS)
def test_learning_curves_in_float64_are_the_engine_s(name):
    task, by_hand = pair(name, np.float64)
    before = task.state_dict()
    curves = learning_curves(task, by_hand, *strokes(np.float64), STEPS, BATCH, seed=1)
    for metric, (engine, hand) in curves.items():
        assert engine.shape == (STEPS,)
        assert len(np.unique(engine[np.isfinite(engine)])) >= STEPS // 2
        np.testing.assert_allclose(hand, engine, rtol=1e-9, err_msg=metric)  # NaN where NaN is
    state, by_hand_state = task.state_dict(), by_hand.state_dict()
    assert state.keys() == by_hand_state.keys()
    for key, array in state.items():  # parameters, running averages, moments, counters
        np.testing.assert_allclose(by_hand_state[key], array, rtol=1e-9, atol=1e-11, err_msg=key)
    for name in task.model.named_parameters():
        assert not np.array_equal(state[f"model.{name}"], before[f"model.{name}"]), name


@pytest.mark.parametrize("name", PAIRS)
def test_learning_curves_in_float32_are_as_near_as_rounding_lets_them(name):
    """How near that is the engine itself shows, whose two kernel sets round differently too."""
    data = strokes(np.float32)
    curves = learning_curves(*pair(name, np.float32), *data, STEPS, BATCH, seed=1)
    with kernels.use("reference"):
        others = learning_curves(*pair(name, np.float32), *data, STEPS, BATCH, seed=1)
    differences, rounding = [], []
    for metric, (engine, hand) in curves.items():
        differences.append(np.nanmax(np.abs(hand / engine - 1)))
        rounding.append(np.nanmax(np.abs(others[metric][0] / engine - 1)))
    assert max(differences) <= 10 * max(rounding)
    assert max(rounding) <= 1e-4  # measured: 1e-7 to 3e-6 over these steps


def test_learning_curves_are_nan_where_a_step_gives_no_metric():
    curves = learning_curves(*pair("gan maxout", np.float32), *strokes(np.float32), 4, BATCH, seed=1)
    for series in curves["g_loss"]:
        assert np.isnan(series).tolist() == [True, False, True, False]


def test_learning_curves_follow_from_the_seed():
    curves = [
        learning_curves(*pair("gan", np.float32), *strokes(np.float32), 2, BATCH, seed=seed)["d_loss"]
        for seed in (1, 1, 2)
    ]
    np.testing.assert_array_equal(curves[0], curves[1])
    assert not np.array_equal(curves[0], curves[2])


def test_by_hand_tasks_leave_no_graph_behind():
    images, labels = strokes(np.float32)
    for name in ("vae", "gan", "aae classes"):
        _, by_hand = pair(name, np.float32)
        for parameter in by_hand.model.parameters():
            parameter.requires_grad = False  # the engine could not train now
        for each in (by_hand, deepcopy(by_hand)):
            take = eager(each)
            for _ in range(4):
                take(images[:BATCH], labels[:BATCH])


@pytest.mark.parametrize("name", PAIRS)
def test_by_hand_tasks_are_not_replayed(name):
    """What NumPy computes is in no capture: each step is run, with the same results."""
    (_, by_hand), (_, other), (images, labels) = pair(name, np.float32), pair(name, np.float32), strokes(np.float32)
    batches = list(zip(np.split(images, 10), np.split(labels, 10), strict=True))
    take = captured(by_hand)
    with pytest.warns(RuntimeWarning, match="is not captured but run each time: it reads a number back"):
        found = [take(*batch) for batch in batches]
    run = eager(other)
    assert found == [run(*batch) for batch in batches]
    assert bits(by_hand) == bits(other)
    states = list(take.capture.states.values())
    assert states[-1] == REFUSED
    assert not any(isinstance(state, Captured) for state in states)


def test_update_refuses_a_gradient_that_does_not_fit(rng):
    model = VAE(VAEConfig(4, 2, (), ()), rng)
    for gradient, message in (
        (np.zeros((4, 3), np.float32), r"shape \(4, 2\) and float32 is needed, not \(4, 3\), float32"),
        (np.zeros((4, 2)), r"shape \(4, 2\) and float32 is needed, not \(4, 2\), float64"),
    ):
        with pytest.raises(ValueError, match=message):
            update(SGD(model, 0.1), model, {"encoder_mu.weight": gradient}, 0.0)


def test_by_hand_vae_task_refuses_a_vae_that_is_not_derived(rng):
    with pytest.raises(ValueError, match="leave monte_carlo_kl out"):
        ByHandVAETask(VAE(VAEConfig(4, 2), rng), VAETraining(monte_carlo_kl=True), RandomStream(0), 1, 1)
    with pytest.raises(ValueError, match="activation 'gelu' is not one of"):
        ByHandVAETask(VAE(VAEConfig(4, 2, activation="gelu"), rng), VAETraining(), RandomStream(0), 1, 1)
    with pytest.raises(ValueError, match="by hand the objective 'iwae' is not one of elbo"):
        ByHandVAETask(VAE(VAEConfig(4, 2), rng), VAETraining(objective="iwae"), RandomStream(0), 1, 1)


def test_by_hand_gan_task_refuses_a_wasserstein_gan(rng):
    settings = GANTraining(objective="wasserstein")
    with pytest.raises(ValueError, match="ByHandGANTask: objective 'wasserstein' is not one of minimax, "):
        ByHandGANTask(GAN(GANConfig(4, 2, pack=1), rng), settings, RandomStream(0), 1, 1, lambda *_: {})


@pytest.mark.parametrize(
    ("network", "consistency"),
    [({"batch_norm": True}, 0.0), ({"hidden_noise": 0.1}, 0.0), ({"head_distance": 1.0}, 0.0), ({}, 1.0)],
)
def test_by_hand_aae_task_refuses_what_is_not_derived(network, consistency, rng):
    model = AAE(AAEConfig(4, 2, labels_for="encoder", **network), rng)
    nobody = Split(np.zeros((0, 4), np.float32), np.zeros(0, np.int64))
    with pytest.raises(
        ValueError, match="by hand there are no batch_norm, hidden_noise, head_distance and consistency: leave"
    ):
        ByHandAAETask(model, AAETraining(consistency=consistency), RandomStream(0), 1, 1, nobody, lambda *_: {})
