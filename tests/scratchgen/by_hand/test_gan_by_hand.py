"""The GAN's gradients by hand are the engine's, and those of finite differences, for every parameter."""

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
from scratchgen import Tensor
from scratchgen.by_hand.gan import OBJECTIVES, discriminator_gradients, draw_masks, generate, generator_gradients
from scratchgen.models.gan import DISCRIMINATORS, GAN, GENERATOR_OBJECTIVES, GANConfig
from scratchgen.random import RandomStream
from scratchgen.tasks.gan import GANTask, GANTraining

hidden = st.lists(sizes, max_size=2).map(tuple)
seeds = st.integers(0, 2**32)
every_kernel_set = pytest.mark.parametrize("kernel_set", kernels.SETS)


@st.composite
def problems(draw, networks=dense):
    """Configurations of a model and its training, the size of the batch, and a seed."""
    config = GANConfig(
        **draw(networks),
        latent_dim=draw(st.integers(1, 3)),
        generator_hidden=draw(hidden),
        batch_norm=draw(st.booleans()),
        discriminator_hidden=draw(hidden),
        discriminator=draw(st.sampled_from(DISCRIMINATORS)),
        pieces=draw(st.integers(1, 3)),
        pack=draw(st.integers(1, 3)),
        input_dropout=draw(st.sampled_from([0.0, 0.2])),
        hidden_dropout=draw(st.sampled_from([0.0, 0.4])),
        discriminator_batch_norm=draw(st.booleans()),
    )
    normalized = config.discriminator_batch_norm and len(config.discriminator_channels) > 1
    smallest = max(1 + config.batch_norm, config.pack * (1 + normalized))  # two rows to normalise
    settings = GANTraining(
        objective=draw(st.sampled_from(sorted(GENERATOR_OBJECTIVES))), real_label=draw(st.sampled_from([0.9, 1.0]))
    )
    return config, settings, draw(st.integers(smallest, 6)), draw(seeds)


def made(problem, seed):
    """A task in float64 and a batch, on the set in use; and the gradients of the updates that it does not make.

    ``seed`` is that of the task's random numbers.
    """
    config, settings, b, own_seed = problem
    rng = np.random.default_rng(own_seed)
    model = GAN(config, rng, np.float64)
    randomize(model, rng)
    task = GANTask(model, settings, RandomStream(seed), 1, 1, lambda *_: {})
    found = before_updates(task, [task.discriminator_optimizer, task.generator_optimizer])
    return task, rng.random((b, config.input_dim)), found


def draws(model, b, seed):
    """What a step draws: noise, and the masks of its three passes through D."""
    random = RandomStream(seed)
    return model.draw_noise(b, random).data, [draw_masks(model.config, b, random, np.float64) for _ in range(3)]


def assert_the_discriminator_s_step_is_the_engine_s(kernel_set, problem, seed):
    with kernels.use(kernel_set):
        task, real, found = made(problem, seed)
        model, state = task.model, task.model.state_dict()
        z, (*masks, _) = draws(model, len(real), seed)
        fake, _ = generate(state, model.config, z)
        np.testing.assert_allclose(fake, model.generate(Tensor(z)).data, rtol=1e-12)
        step = discriminator_gradients(state, model.config, real, fake, task.settings.real_label, tuple(masks))
        metrics = {name: metric.item() for name, metric in task.train_step(Tensor(real)).items()}
    losses = [step.loss_real + step.loss_fake, step.d_real, step.d_fake]
    np.testing.assert_allclose(losses, [metrics[name] for name in ("d_loss", "d_real", "d_fake")], rtol=1e-12)
    assert_the_engine_s(step.gradients, found[0])


def assert_the_generator_s_step_is_the_engine_s(kernel_set, problem, seed):
    with kernels.use(kernel_set):
        task, real, found = made(problem, seed)
        model, state = task.model, task.model.state_dict()
        z, (*of_discriminator, masks) = draws(model, len(real), seed)
        fake, averages = generate(state, model.config, z)
        averages |= discriminator_gradients(state, model.config, real, fake, 1.0, tuple(of_discriminator)).averages
        loss, gradients, after = generator_gradients(state | averages, model.config, z, task.settings.objective, masks)
        averages |= after
        metrics = {name: metric.item() for name, metric in task.train_step(Tensor(real)).items()}
    np.testing.assert_allclose(loss, metrics["g_loss"], rtol=1e-12)
    norm = np.sqrt(sum(np.vdot(gradient, gradient) for gradient in gradients.values()))
    np.testing.assert_allclose(metrics["g_gradient"], norm, rtol=1e-12)
    assert_the_engine_s(gradients, found[1])
    state = model.state_dict()
    assert averages.keys() == state.keys() - model.named_parameters().keys()
    for name, average in averages.items():  # after one forward of G and three of D
        np.testing.assert_allclose(average, state[name], rtol=1e-12, atol=1e-15, err_msg=name)


@every_kernel_set
@given(problem=problems(), seed=seeds)
def test_discriminator_gradients_match_the_engine(kernel_set, problem, seed):
    assert_the_discriminator_s_step_is_the_engine_s(kernel_set, problem, seed)


@every_kernel_set
@given(problem=problems(), seed=seeds)
def test_generator_gradients_match_the_engine(kernel_set, problem, seed):
    assert_the_generator_s_step_is_the_engine_s(kernel_set, problem, seed)


convolutional = problems(images("generator_channels", "discriminator_channels"))


@every_kernel_set
@given(problem=convolutional, seed=seeds)
def test_convolutional_discriminator_gradients_match_the_engine(kernel_set, problem, seed):
    assert_the_discriminator_s_step_is_the_engine_s(kernel_set, problem, seed)


@every_kernel_set
@given(problem=convolutional, seed=seeds)
def test_convolutional_generator_gradients_match_the_engine(kernel_set, problem, seed):
    assert_the_generator_s_step_is_the_engine_s(kernel_set, problem, seed)


@pytest.mark.parametrize("discriminator", DISCRIMINATORS)
@pytest.mark.parametrize("real_label", [0.9, 1.0])
def test_discriminator_gradients_match_finite_differences(discriminator, real_label):
    def problem(rng):
        config = GANConfig(
            4,
            2,
            discriminator_hidden=(5, 3),
            discriminator=discriminator,
            pieces=3,
            input_dropout=0.2,
            hidden_dropout=0.3,
        )
        model = GAN(config, rng, np.float64)
        randomize(model, rng)
        real, fake = rng.random((2, 4, 4))
        random = RandomStream(rng)
        masks = tuple(draw_masks(config, 4, random, np.float64) for _ in range(2))

        def loss_and_gradients(parameters):
            step = discriminator_gradients(parameters, config, real, fake, real_label, masks)
            return step.loss_real + step.loss_fake, step.gradients

        return loss_and_gradients, model.state_dict()

    assert_finite_differences(*far_from_kinks(problem))


@pytest.mark.parametrize("objective", OBJECTIVES)
@pytest.mark.parametrize("discriminator", DISCRIMINATORS)
@pytest.mark.parametrize("batch_norm", [True, False])
def test_generator_gradients_match_finite_differences(objective, discriminator, batch_norm):
    def problem(rng):
        config = GANConfig(
            4, 2, "normal", (3, 5), batch_norm, (5, 3), discriminator, pieces=2, input_dropout=0.2, hidden_dropout=0.3
        )
        model = GAN(config, rng, np.float64)
        randomize(model, rng)
        z, masks = rng.standard_normal((4, 2)), draw_masks(config, 4, RandomStream(rng), np.float64)
        return lambda parameters: generator_gradients(parameters, config, z, objective, masks)[:2], model.state_dict()

    assert_finite_differences(*far_from_kinks(problem))


def test_objectives_are_those_of_the_engine():
    assert OBJECTIVES.keys() == GENERATOR_OBJECTIVES.keys()


def test_generator_gradients_refuse_an_objective_that_is_not_derived(rng):
    config = GANConfig(4, 2)
    with pytest.raises(ValueError, match="objective 'wasserstein' is not one of minimax, non-saturating, literal"):
        generator_gradients(GAN(config, rng).state_dict(), config, rng.random((4, 2)), "wasserstein", [1.0] * 3)


def test_draw_masks_drops_at_its_rates_and_keeps_the_mean(rng):
    config = GANConfig(500, 3, discriminator_hidden=(400, 300), pack=1, input_dropout=0.2, hidden_dropout=0.5)
    masks = draw_masks(config, 200, RandomStream(rng), np.float32)
    assert [mask.shape for mask in masks] == [(200, 500), (200, 400), (200, 300)]
    for mask, rate in zip(masks, (0.2, 0.5, 0.5), strict=True):
        assert mask.dtype == np.float32
        np.testing.assert_allclose(np.unique(mask), [0, 1 / (1 - rate)], rtol=1e-7)
        assert mask.mean(dtype=np.float64) == pytest.approx(1, abs=5 * (rate / (1 - rate) / mask.size) ** 0.5)
    config = GANConfig(hidden_dropout=0.0, discriminator_hidden=(5,))
    assert draw_masks(config, 3, RandomStream(rng), np.float32) == [1.0, 1.0]
