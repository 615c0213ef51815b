"""The GAN's gradients by hand are the engine's, and those of finite differences, for every parameter."""

import numpy as np
import pytest
from by_hand_helpers import assert_finite_differences, assert_the_engine_s, far_from_kinks, randomize
from hypothesis import given
from hypothesis import strategies as st

import kernels
from scratchgen import Tensor
from scratchgen.by_hand.gan import OBJECTIVES, discriminator_gradients, draw_masks, generate, generator_gradients
from scratchgen.models.gan import DISCRIMINATORS, GAN, GENERATOR_OBJECTIVES, GANConfig, GANTask, GANTraining

sizes = st.integers(1, 5)
hidden = st.lists(sizes, max_size=2).map(tuple)
seeds = st.integers(0, 2**32)
every_kernel_set = pytest.mark.parametrize("kernel_set", kernels.SETS)


@st.composite
def problems(draw):
    """Configurations of a model and its training, the size of the batch, and a seed."""
    config = GANConfig(
        input_dim=draw(sizes),
        latent_dim=draw(st.integers(1, 3)),
        generator_hidden=draw(hidden),
        batch_norm=draw(st.booleans()),
        discriminator_hidden=draw(hidden),
        discriminator=draw(st.sampled_from(DISCRIMINATORS)),
        pieces=draw(st.integers(1, 3)),
        pack=draw(st.integers(1, 3)),
        input_dropout=draw(st.sampled_from([0.0, 0.2])),
        hidden_dropout=draw(st.sampled_from([0.0, 0.4])),
    )
    training = GANTraining(
        objective=draw(st.sampled_from(sorted(GENERATOR_OBJECTIVES))), real_label=draw(st.sampled_from([0.9, 1.0]))
    )
    return config, training, draw(st.integers(config.pack, 6)), draw(seeds)


def made(problem):
    """A task in float64, a batch, and noise, on the kernel set in use."""
    config, training, b, seed = problem
    rng = np.random.default_rng(seed)
    model = GAN(config, rng, np.float64)
    randomize(model, rng)
    task = GANTask(model, training, 1, 1, lambda *_: {})
    return task, rng.random((b, config.input_dim)), rng.standard_normal((b, config.latent_dim))


def assert_the_discriminator_s_step_is_the_engine_s(kernel_set, problem, seed):
    with kernels.use(kernel_set):
        task, real, z = made(problem)
        model, rng = task.model, np.random.default_rng(seed)
        fake = model.generate(Tensor(z)).data
        np.testing.assert_allclose(generate(model.state_dict(), model.config, z)[0], fake, rtol=1e-12)
        masks = tuple(draw_masks(model.config, len(z), rng, np.float64) for _ in range(2))
        step = discriminator_gradients(
            model.state_dict(), model.config, real, fake, real_label=task.training.real_label, masks=masks
        )
        model.draw_from(np.random.default_rng(seed))  # the same numbers: the masks are drawn in the same order
        metrics = next(task.turns(real, Tensor(z)))
    found = [step.loss_real + step.loss_fake, step.d_real, step.d_fake]
    np.testing.assert_allclose(found, [metrics[name] for name in ("d_loss", "d_real", "d_fake")], rtol=1e-12)
    assert_the_engine_s(step.gradients, model)


def assert_the_generator_s_step_is_the_engine_s(kernel_set, problem, seed):
    with kernels.use(kernel_set):
        task, real, z = made(problem)
        model, objective, rng = task.model, task.training.objective, np.random.default_rng(seed)
        *_, masks = (draw_masks(model.config, len(z), rng, np.float64) for _ in range(3))  # after those of D's turn
        loss, gradients = generator_gradients(model.state_dict(), model.config, z, objective, masks)
        _, averages = generate(model.state_dict(), model.config, z)
        model.draw_from(np.random.default_rng(seed))
        _, metrics = task.turns(real, Tensor(z))
        task.discriminator_optimizer.zero_grad()
    np.testing.assert_allclose(loss, metrics["g_loss"], rtol=1e-12)
    assert_the_engine_s(gradients, model)
    state = model.state_dict()
    assert averages.keys() == state.keys() - model.named_parameters().keys()
    for name, average in averages.items():  # after one forward of each
        np.testing.assert_allclose(average, state[name], rtol=1e-12, atol=1e-15, err_msg=name)


@every_kernel_set
@given(problem=problems(), seed=seeds)
def test_the_discriminator_s_step_is_the_engine_s(kernel_set, problem, seed):
    assert_the_discriminator_s_step_is_the_engine_s(kernel_set, problem, seed)


@every_kernel_set
@given(problem=problems(), seed=seeds)
def test_the_generator_s_step_is_the_engine_s(kernel_set, problem, seed):
    assert_the_generator_s_step_is_the_engine_s(kernel_set, problem, seed)


@pytest.mark.parametrize("discriminator", DISCRIMINATORS)
@pytest.mark.parametrize("real_label", [0.9, 1.0])
def test_the_discriminator_s_step_is_finite_differences(discriminator, real_label):
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
        masks = tuple(draw_masks(config, 4, rng, np.float64) for _ in range(2))

        def loss_and_gradients(parameters):
            step = discriminator_gradients(parameters, config, real, fake, real_label, masks)
            return step.loss_real + step.loss_fake, step.gradients

        return loss_and_gradients, model.state_dict()

    assert_finite_differences(*far_from_kinks(problem))


@pytest.mark.parametrize("objective", OBJECTIVES)
@pytest.mark.parametrize("discriminator", DISCRIMINATORS)
@pytest.mark.parametrize("batch_norm", [True, False])
def test_the_generator_s_step_is_finite_differences(objective, discriminator, batch_norm):
    def problem(rng):
        config = GANConfig(
            4, 2, "normal", (3, 5), batch_norm, (5, 3), discriminator, pieces=2, input_dropout=0.2, hidden_dropout=0.3
        )
        model = GAN(config, rng, np.float64)
        randomize(model, rng)
        z, masks = rng.standard_normal((4, 2)), draw_masks(config, 4, rng, np.float64)
        return lambda parameters: generator_gradients(parameters, config, z, objective, masks), model.state_dict()

    assert_finite_differences(*far_from_kinks(problem))


def test_there_is_a_derivation_of_every_objective():
    assert OBJECTIVES.keys() == GENERATOR_OBJECTIVES.keys()


def test_masks_drop_at_their_rates_and_keep_the_mean(rng):
    config = GANConfig(500, 3, discriminator_hidden=(400, 300), pack=1, input_dropout=0.2, hidden_dropout=0.5)
    masks = draw_masks(config, 200, rng, np.float32)
    assert [mask.shape for mask in masks] == [(200, 500), (200, 400), (200, 300)]
    for mask, rate in zip(masks, (0.2, 0.5, 0.5), strict=True):
        assert mask.dtype == np.float32
        np.testing.assert_allclose(np.unique(mask), [0, 1 / (1 - rate)], rtol=1e-7)
        assert mask.mean(dtype=np.float64) == pytest.approx(1, abs=5 * (rate / (1 - rate) / mask.size) ** 0.5)
    assert draw_masks(GANConfig(hidden_dropout=0.0, discriminator_hidden=(5,)), 3, rng, np.float32) == [1.0, 1.0]
