"""The restricted Boltzmann machine: probabilities, samples and gradients are those of its energy, enumerated (L03)."""

import numpy as np
import pytest
from rbm_helpers import enumerated, exact_gradients, small_rbm

from scratchgen.evaluation.partition import exact_log_partition
from scratchgen.gradcheck import gradcheck
from scratchgen.models.rbm import RBM, VISIBLE, RBMConfig
from scratchgen.random import RandomStream
from scratchgen.tensor import Tensor

every_kind = pytest.mark.parametrize("visible", VISIBLE)


@pytest.mark.usefixtures("kernel_set")
def test_energy_and_free_energy_are_those_of_the_enumerated_distribution():
    rbm = small_rbm()
    v, h, joint = enumerated(rbm)
    log_z = exact_log_partition(rbm)
    pairs = np.repeat(v, len(h), axis=0), np.tile(h, (len(v), 1))
    np.testing.assert_allclose(
        np.exp(-rbm.energy(*map(Tensor, pairs)).data - log_z).reshape(joint.shape), joint, rtol=1e-10
    )
    np.testing.assert_allclose(np.exp(-rbm.free_energy(Tensor(v)).data - log_z), joint.sum(axis=1), rtol=1e-10)


@pytest.mark.usefixtures("kernel_set")
def test_conditional_means_are_those_of_the_enumerated_distribution():
    rbm, random = small_rbm(), RandomStream(0)
    v, h, joint = enumerated(rbm)
    given_v, given_h = joint / joint.sum(axis=1, keepdims=True), joint / joint.sum(axis=0)
    np.testing.assert_allclose(rbm.hidden(Tensor(v), random).means.data, given_v @ h, rtol=1e-10)
    np.testing.assert_allclose(rbm.visible(Tensor(h), random).means.data, given_h.T @ v, rtol=1e-10)


@pytest.mark.usefixtures("kernel_set")
def test_reconstruct_goes_down_from_the_means_of_hidden_units():
    rbm = small_rbm(5, 2)
    v = np.eye(5)
    w, a, b = (p.data for p in rbm.parameters())

    def sigmoid(x):
        return 1 / (1 + np.exp(-x))

    np.testing.assert_allclose(rbm.reconstruct(Tensor(v)).data, sigmoid(sigmoid(v @ w + b) @ w.T + a), rtol=1e-12)


@pytest.mark.usefixtures("kernel_set")
@every_kind
def test_free_energy_gradients(visible, rng):
    rbm = small_rbm(6, 5, visible)
    v = Tensor(rng.random((3, 6)), requires_grad=True)
    gradcheck(lambda *_: rbm.free_energy(v), *rbm.parameters())
    gradcheck(rbm.free_energy, v)


@pytest.mark.usefixtures("kernel_set")
@every_kind
def test_set_gradients_are_those_of_the_free_energy(visible, rng):
    """Of different numbers of images and of chains."""
    rbm, random = small_rbm(6, 5, visible), RandomStream(0)
    data, model = Tensor(rng.random((3, 6))), Tensor(rng.random((4, 6)))
    (rbm.free_energy(data).mean() - rbm.free_energy(model).mean()).backward()
    expected = [parameter.grad.copy() for parameter in rbm.parameters()]
    for parameter in rbm.parameters():
        parameter.grad = None
    rbm.set_gradients(*((v, rbm.hidden(v, random).means) for v in (data, model)))
    for parameter, gradient in zip(rbm.parameters(), expected, strict=True):
        assert gradient.any()
        np.testing.assert_allclose(parameter.grad, gradient, rtol=1e-12, atol=1e-14)


# ---- samples ----


def drawn(rng, v, joint, n):
    return v[rng.choice(len(v), n, p=joint.sum(axis=1))]


def frequencies(states):
    """How often each state (n, D) comes, by its number."""
    numbers = states.astype(int) @ 2 ** np.arange(states.shape[1])
    return np.bincount(numbers, minlength=2 ** states.shape[1]) / len(states)


@pytest.mark.usefixtures("kernel_set")
def test_gibbs_sampling_keeps_the_distribution(rng):
    """Three steps from exact samples all 16 states are as frequent as before; from the zero state they are not."""
    rbm, n = small_rbm(), 40_000
    v, _, joint = enumerated(rbm)
    p, random = joint.sum(axis=1), RandomStream(1)
    error = np.sqrt(p * (1 - p) / n)
    h = rbm.hidden(Tensor(drawn(rng, v, joint, n)), random).states
    visible, _ = rbm.gibbs(h, 3, random)
    assert (abs(frequencies(visible.states.data) - p) < 4 * error).all()
    start, _ = rbm.gibbs(rbm.hidden(Tensor(np.zeros((n, 4))), random).states, 1, random)
    assert (abs(frequencies(start.states.data) - p) > 4 * error).any()


def test_gibbs_gives_hidden_units_of_its_visible_ones(rng):
    rbm, random = small_rbm(), RandomStream(1)
    visible, hidden = rbm.gibbs(Tensor(np.ones((5, 3))), 2, random)
    np.testing.assert_array_equal(hidden.means.data, rbm.hidden(visible.states, random).means.data)


@pytest.mark.usefixtures("kernel_set")
def test_gaussian_visible_units_have_their_mean_and_sigma():
    rbm, n = small_rbm(2, 3, "gaussian"), 40_000
    h = np.tile([1.0, 0, 1], (n, 1))
    states, means = rbm.visible(Tensor(h), RandomStream(0))
    np.testing.assert_allclose(means.data, h @ rbm.weight.data.T + rbm.visible_bias.data)
    assert (abs(states.data.mean(axis=0) - means.data[0]) < 4 * 0.7 / n**0.5).all()
    np.testing.assert_allclose(states.data.std(axis=0), 0.7, rtol=4 / (2 * n) ** 0.5)


def test_the_mean_update_of_contrastive_divergence_nears_the_gradient_as_its_steps_grow(rng):
    """CD-1 is biased by far more than the noise; CD-100 is within 3 standard errors."""
    rbm, random, n = small_rbm(scale=1.5), RandomStream(2), 50_000
    v, _, joint = enumerated(small_rbm(seed=1))  # the data are of another machine
    data = drawn(rng, v, joint, n)
    exact = np.concatenate([gradient.ravel() for gradient in exact_gradients(rbm, data)])
    off = {}
    for steps in (1, 100):
        h = rbm.hidden(Tensor(data), random)
        model_v, model_h = rbm.gibbs(h.states, steps, random)
        model, means = model_v.states.data, (model_h.means.data, h.means.data)
        each = model[:, :, None] * means[0][:, None, :] - data[:, :, None] * means[1][:, None, :]  # of each image
        rows = np.concatenate([each.reshape(n, -1), model - data, means[0] - means[1]], axis=1)
        error = rows.std(axis=0) / n**0.5
        rbm.set_gradients((Tensor(data), h.means), (model_v.states, model_h.means))
        update = np.concatenate([parameter.grad.ravel() for parameter in rbm.parameters()])
        np.testing.assert_allclose(update, rows.mean(axis=0), atol=1e-12)
        off[steps] = abs(update - exact) / error
    assert off[100].max() < 3
    assert off[1].max() > 10


# ---- how it begins ----


def test_set_means_gives_a_machine_with_these_means():
    rbm = RBM(RBMConfig(3, 2), 0)
    means = np.array([0.0, 0.3, 1.0], np.float32)
    rbm.weight.write(np.zeros((3, 2), np.float32))
    rbm.set_means(means)
    found = rbm.visible(Tensor(np.zeros((1, 2), np.float32)), RandomStream(0)).means.data
    np.testing.assert_allclose(found[0], [0.005, 0.3, 0.995], rtol=1e-5)
    np.testing.assert_array_equal(rbm.base_bias(), rbm.visible_bias.data)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"hidden": 0}, "hidden >= 1"),
        ({"input_dim": 0}, "input_dim >= 1"),
        ({"sigma": 0.0}, "sigma > 0"),
        ({"visible": "poisson"}, "'poisson' is not one of bernoulli, gaussian"),
    ],
)
def test_rbm_config_refuses_impossible_settings(options, message):
    with pytest.raises(ValueError, match=message):
        RBMConfig(**options)
