"""The VAE's gradients by hand are the engine's, and those of finite differences, for every parameter."""

import numpy as np
import pytest
from by_hand_helpers import assert_the_engine_s, dense, gradients_of, images, randomize
from hypothesis import given
from hypothesis import strategies as st

import kernels
from scratchgen import Tensor
from scratchgen.by_hand.layers import ACTIVATIONS
from scratchgen.by_hand.vae import vae_gradients
from scratchgen.models.vae import LIKELIHOODS, MEANS, VAE, VAEConfig

sizes = st.integers(1, 6)
hidden = st.lists(sizes, max_size=2).map(tuple)


@st.composite
def problems(draw, networks=dense):
    """A configuration, sizes of the batch and of the noise, and a seed."""
    likelihood = draw(st.sampled_from(LIKELIHOODS))
    config = VAEConfig(
        **draw(networks),
        latent_dim=draw(st.integers(1, 3)),
        encoder_hidden=draw(hidden),
        decoder_hidden=draw(hidden),
        activation=draw(st.sampled_from(sorted(ACTIVATIONS))),
        likelihood=likelihood,
        mean_activation="identity" if likelihood == "bernoulli" else draw(st.sampled_from(MEANS)),
    )
    return config, draw(sizes), draw(st.integers(1, 3)), draw(st.integers(0, 2**32))


def assert_by_hand_is_the_engine(kernel_set, problem, beta):
    config, b, samples, seed = problem
    rng = np.random.default_rng(seed)
    with kernels.use(kernel_set):
        model = VAE(config, rng, np.float64)
        randomize(model, rng)
        x, noise = rng.random((b, config.input_dim)), rng.standard_normal((samples, b, config.latent_dim))
        reconstruction, kl, gradients = vae_gradients(model.state_dict(), config, x, noise, beta)
        terms = [term.mean() for term in model.negative_elbo(Tensor(x), Tensor(noise))]
        (terms[0] + beta * terms[1]).backward()
    np.testing.assert_allclose([reconstruction, kl], [term.item() for term in terms], rtol=1e-12)
    assert_the_engine_s(gradients, gradients_of(model.named_parameters()))
    assert gradients.keys() == model.named_parameters().keys()


@pytest.mark.parametrize("kernel_set", kernels.SETS)
@given(problem=problems(), beta=st.sampled_from([0.0, 0.3, 1.0]))
def test_vae_gradients_match_the_engine(kernel_set, problem, beta):
    assert_by_hand_is_the_engine(kernel_set, problem, beta)


@pytest.mark.parametrize("kernel_set", kernels.SETS)
@given(problem=problems(images("encoder_channels", "decoder_channels")), beta=st.sampled_from([0.0, 0.3, 1.0]))
def test_convolutional_vae_gradients_match_the_engine(kernel_set, problem, beta):
    assert_by_hand_is_the_engine(kernel_set, problem, beta)


@pytest.mark.parametrize("likelihood", LIKELIHOODS)
@pytest.mark.parametrize("activation", ["tanh", "softplus", "sigmoid"])
@pytest.mark.parametrize(
    "channels", [{}, {"encoder_channels": (2, 3), "decoder_channels": (3, 2)}], ids=["dense", "convolutional"]
)
def test_vae_gradients_match_finite_differences(likelihood, activation, channels):
    config = VAEConfig(16, 2, (5, 3), (3, 5), activation, likelihood, **channels)
    rng = np.random.default_rng(0)
    parameters = VAE(config, rng, np.float64).state_dict()
    x, noise = rng.random((3, 16)), rng.standard_normal((2, 3, 2))

    def loss(name, step):
        moved = {**parameters, name: parameters[name] + step}
        reconstruction, kl, _ = vae_gradients(moved, config, x, noise, 0.7)
        return reconstruction + 0.7 * kl

    gradients = vae_gradients(parameters, config, x, noise, 0.7)[2]
    assert gradients.keys() == parameters.keys()
    for name, gradient in gradients.items():
        step = rng.standard_normal(gradient.shape)
        step *= 1e-3 / np.linalg.norm(step)
        near, far = loss(name, step) - loss(name, -step), loss(name, 2 * step) - loss(name, -2 * step)
        np.testing.assert_allclose(np.vdot(gradient, step), (8 * near - far) / 12, rtol=1e-7, atol=1e-12)


def test_vae_gradients_refuse_an_activation_that_is_not_derived(rng):
    config = VAEConfig(4, 2, activation="gelu")
    with pytest.raises(ValueError, match="activation 'gelu' is not one of identity, relu"):
        vae_gradients(VAE(config, rng, np.float64).state_dict(), config, rng.random((3, 4)), rng.random((1, 3, 2)))
