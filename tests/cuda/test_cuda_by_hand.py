"""Gradients derived on paper are the engine's on the GPU: every update of all three models, in float64.

The bodies are those of ``tests/scratchgen/by_hand``. Sizes leave remainders and pass a tile of the simulator's; what
hypothesis draws is small, down to models without a hidden layer.
"""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("numba_cuda", reason="there are no CUDA kernels to test, for numba-cuda is not installed")

import test_aae_by_hand as aae
import test_gan_by_hand as gan
import test_vae_by_hand as vae

from kernels.cuda.device import SIMULATED, cuda
from scratchgen.models.aae import LABELS_FOR, POSTERIORS, AAEConfig
from scratchgen.models.gan import DISCRIMINATORS, GENERATOR_OBJECTIVES, GANConfig
from scratchgen.models.vae import LIKELIHOODS, VAEConfig
from scratchgen.tasks.gan import GANTraining

pytestmark = [
    pytest.mark.skipif(
        not (SIMULATED or cuda.is_available()), reason="there is no GPU; the simulated run has these tests"
    ),
    pytest.mark.slow,
]
few = settings(max_examples=3 if SIMULATED else 25)
BATCH, SEED = 9, 1


@pytest.mark.parametrize("likelihood", LIKELIHOODS)
@pytest.mark.parametrize("activation", ["relu", "tanh", "softplus"])
def test_vae_gradients_match_the_engine(likelihood, activation):
    config = VAEConfig(11, 3, (7,), (6, 5), activation, likelihood)
    vae.assert_by_hand_is_the_engine("cuda", (config, BATCH, 2, SEED), 0.3)


@few
@given(problem=vae.problems(), beta=st.sampled_from([0.0, 0.3, 1.0]))
def test_vae_gradients_match_the_engine_in_small_models(problem, beta):
    vae.assert_by_hand_is_the_engine("cuda", problem, beta)


def gan_problem(discriminator="leaky_relu", batch_norm=True, **training):
    dropouts = {"input_dropout": 0.2, "hidden_dropout": 0.3}
    config = GANConfig(11, 3, "normal", (6, 7), batch_norm, (7, 5), discriminator, 3, 2, **dropouts)
    return config, GANTraining(**training), BATCH, SEED


@pytest.mark.parametrize("discriminator", DISCRIMINATORS)
@pytest.mark.parametrize("real_label", [0.9, 1.0])
def test_discriminator_gradients_match_the_engine(discriminator, real_label):
    problem = gan_problem(discriminator, real_label=real_label)
    gan.assert_the_discriminator_s_step_is_the_engine_s("cuda", problem, SEED)


@pytest.mark.parametrize("objective", GENERATOR_OBJECTIVES)
@pytest.mark.parametrize("discriminator", DISCRIMINATORS)
@pytest.mark.parametrize("batch_norm", [True, False], ids=["batch norm", "plain"])
def test_generator_gradients_match_the_engine(objective, discriminator, batch_norm):
    problem = gan_problem(discriminator, batch_norm, objective=objective)
    gan.assert_the_generator_s_step_is_the_engine_s("cuda", problem, SEED)


@few
@given(problem=gan.problems(), seed=gan.seeds)
def test_gan_gradients_match_the_engine_in_small_models(problem, seed):
    gan.assert_the_discriminator_s_step_is_the_engine_s("cuda", problem, seed)
    gan.assert_the_generator_s_step_is_the_engine_s("cuda", problem, seed)


@pytest.mark.parametrize("posterior", POSTERIORS)
@pytest.mark.parametrize("labels_for", LABELS_FOR)
@pytest.mark.parametrize("prior", ["gaussian", "mixture"])
def test_aae_gradients_match_the_engine(posterior, labels_for, prior):
    config = AAEConfig(11, 2, (7, 6), (6,), (5, 7), posterior, 3, prior, labels_for)
    aae.assert_by_hand_is_the_engine("cuda", (config, BATCH, SEED), SEED)


@few
@given(problem=aae.problems(), seed=aae.seeds)
def test_aae_gradients_match_the_engine_in_small_models(problem, seed):
    aae.assert_by_hand_is_the_engine("cuda", problem, seed)


HALVES = {"encoder_channels": (2, 3), "decoder_channels": (3, 2)}


@pytest.mark.parametrize("likelihood", LIKELIHOODS)
def test_convolutional_vae_gradients_match_the_engine(likelihood):
    config = VAEConfig(64, 3, (7,), (6,), likelihood=likelihood, **HALVES)
    vae.assert_by_hand_is_the_engine("cuda", (config, BATCH, 2, SEED), 0.3)


@pytest.mark.parametrize("batch_norm", [True, False], ids=["batch norm", "plain"])
def test_convolutional_gan_gradients_match_the_engine(batch_norm):
    channels = {"generator_channels": (3, 2), "discriminator_channels": (2, 3)}
    config = GANConfig(64, 3, "normal", (6,), batch_norm, (5,), discriminator_batch_norm=batch_norm, **channels)
    problem = config, GANTraining(), BATCH, SEED
    gan.assert_the_discriminator_s_step_is_the_engine_s("cuda", problem, SEED)
    gan.assert_the_generator_s_step_is_the_engine_s("cuda", problem, SEED)


@pytest.mark.parametrize("posterior", POSTERIORS)
def test_convolutional_aae_gradients_match_the_engine(posterior):
    config = AAEConfig(64, 2, (7,), (6,), (5,), posterior, 3, "mixture", **HALVES)
    aae.assert_by_hand_is_the_engine("cuda", (config, BATCH, SEED), SEED)
