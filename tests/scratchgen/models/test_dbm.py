"""The deep Boltzmann machine: energy, mean field, chains and gradients, by enumeration of all three layers (L03)."""

import numpy as np
import pytest
from rbm_helpers import small_rbm

from scratchgen.evaluation.energy import evaluate_dbm
from scratchgen.evaluation.partition import all_states, exact_log_partition
from scratchgen.models.dbm import DBM, DBMConfig, Layers, entropy
from scratchgen.nn import Parameter
from scratchgen.random import RandomStream
from scratchgen.tensor import Tensor

SIZES = (4, 3, 2)


def small_dbm(sizes=SIZES, scale=1.0):
    dbm = DBM(DBMConfig(sizes[0], tuple(sizes[1:])), 0, np.float64)
    for number, rbm in enumerate((dbm.bottom, dbm.top)):
        rbm.load_state_dict(small_rbm(*sizes[number : number + 2], seed=number, scale=scale).state_dict())
    return dbm


def enumerated(dbm):
    """All states of the layers, and p(v, h1, h2) by its definition."""
    v, h1, h2 = map(all_states, (dbm.config.input_dim, *dbm.config.hidden))
    w1, a, b1 = (p.data for p in dbm.bottom.parameters())
    w2, _, b2 = (p.data for p in dbm.top.parameters())
    negative = (v @ w1 @ h1.T + (v @ a)[:, None] + h1 @ b1)[:, :, None] + (h1 @ w2 @ h2.T)[None] + h2 @ b2
    joint = np.exp(negative)
    return (v, h1, h2), joint / joint.sum(), np.log(joint.sum())


def as_layers(*arrays):
    return Layers(*map(Tensor, arrays))


@pytest.mark.usefixtures("kernel_set")
def test_energy_is_that_of_the_enumerated_distribution():
    dbm = small_dbm()
    (v, h1, h2), joint, log_z = enumerated(dbm)
    places = np.indices(joint.shape).reshape(3, -1)
    energy = dbm.energy(as_layers(*(layer[place] for layer, place in zip((v, h1, h2), places, strict=True)))).data
    np.testing.assert_allclose(np.exp(-energy - log_z).reshape(joint.shape), joint, rtol=1e-10)


@pytest.mark.usefixtures("kernel_set")
def test_as_rbm_is_the_same_distribution():
    dbm = small_dbm()
    rbm = dbm.as_rbm()
    (_, h1, _), joint, log_z = enumerated(dbm)
    assert exact_log_partition(rbm) == pytest.approx(log_z, rel=1e-12)
    np.testing.assert_allclose(np.exp(-rbm.free_energy(Tensor(h1)).data - log_z), joint.sum(axis=(0, 2)), rtol=1e-10)


@pytest.mark.usefixtures("kernel_set")
def test_mean_field_raises_the_bound_at_every_step_to_a_fixed_point_below_log_p():
    dbm = small_dbm(scale=1.5)
    (v, _, _), joint, log_z = enumerated(dbm)
    log_p = np.log(joint.sum(axis=(1, 2)))
    bounds = [
        -dbm.variational_free_energy(dbm.mean_field(Tensor(v), steps)).data - log_z for steps in (0, 1, 2, 5, 10, 300)
    ]
    assert (np.diff(bounds, axis=0) >= -1e-12).all()
    assert (bounds[-1] > bounds[0] + 1e-3).any()
    assert (bounds[-1] <= log_p).all()
    assert (bounds[-1] < log_p - 1e-3).any()
    _, mu1, mu2 = (layer.data for layer in dbm.mean_field(Tensor(v), 300))
    w1, w2 = dbm.bottom.weight.data, dbm.top.weight.data
    b1, b2 = dbm.bottom.hidden_bias.data, dbm.top.hidden_bias.data
    np.testing.assert_allclose(mu1, 1 / (1 + np.exp(-(v @ w1 + mu2 @ w2.T + b1))), rtol=1e-6)
    np.testing.assert_allclose(mu2, 1 / (1 + np.exp(-(mu1 @ w2 + b2))), rtol=1e-6)


@pytest.mark.usefixtures("kernel_set")
def test_the_bound_is_tight_where_the_layers_do_not_touch():
    """With W2 = 0 the posterior is a product."""
    dbm = small_dbm()
    dbm.top.weight.write(np.zeros((3, 2)))
    (v, _, _), joint, log_z = enumerated(dbm)
    bound = -dbm.variational_free_energy(dbm.mean_field(Tensor(v), 1)).data - log_z
    np.testing.assert_allclose(bound, np.log(joint.sum(axis=(1, 2))), rtol=1e-10)


@pytest.mark.usefixtures("kernel_set")
def test_entropy_of_units(rng):
    means = rng.random((3, 5))
    expected = -(means * np.log(means) + (1 - means) * np.log(1 - means)).sum(axis=1)
    np.testing.assert_allclose(entropy(Tensor(means)).data, expected, rtol=1e-12)
    np.testing.assert_allclose(entropy(Tensor([[0.0, 1.0]])).data, 0, atol=1e-30)


@pytest.mark.usefixtures("kernel_set")
def test_gibbs_sampling_keeps_the_distribution(rng):
    """From exact samples, all 512 states of the three layers are as frequent three steps later."""
    dbm, n = small_dbm(), 60_000
    (v, h1, h2), joint, _ = enumerated(dbm)
    begin = rng.choice(joint.size, n, p=joint.ravel())
    _, places, _ = np.unravel_index(begin, joint.shape)
    random = RandomStream(1)
    layers, states, means = dbm.gibbs(Tensor(h1[places]), 3, random)
    numbers = [
        layer.astype(int) @ 2 ** np.arange(layer.shape[1]) for layer in (layers.v.data, states.data, layers.h2.data)
    ]
    found = np.bincount(np.ravel_multi_index(numbers, joint.shape), minlength=joint.size) / n
    p = joint.ravel()
    assert (abs(found - p) < 4.5 * np.sqrt(p * (1 - p) / n) + 1e-5).all()
    given = joint.sum(axis=2) / joint.sum(axis=(0, 2))
    assert means.shape == (n, 4)
    np.testing.assert_allclose(means.data.mean(axis=0), (given @ joint.sum(axis=(0, 2))) @ v, atol=0.01)
    inputs = layers.v.data @ dbm.bottom.weight.data + layers.h2.data @ dbm.top.weight.data.T
    expected = 1 / (1 + np.exp(-(inputs + dbm.bottom.hidden_bias.data)))
    np.testing.assert_allclose(layers.h1.data, expected, rtol=1e-10)
    assert len(h2) == 4


@pytest.mark.usefixtures("kernel_set")
def test_set_gradients_are_those_of_the_energies(rng):
    dbm = small_dbm()
    data, model = (as_layers(*(rng.random((n, size)) for size in SIZES)) for n in (3, 5))
    (dbm.energy(data).mean() - dbm.energy(model).mean()).backward()
    expected = {name: p.grad for name, p in dbm.named_parameters().items()}
    for p in dbm.parameters():
        p.grad = None
    dbm.set_gradients(data, model, centered=False)
    for name, p in dbm.named_parameters().items():
        if name == "top.visible_bias":
            assert p.grad is None
        else:
            np.testing.assert_allclose(p.grad, expected[name], rtol=1e-12, atol=1e-14, err_msg=name)


@pytest.mark.usefixtures("kernel_set")
def test_centered_gradients_are_those_of_the_centered_energy(rng):
    """Of its own parameters, by autodiff; a small step along them is the step that the plain parameters take."""
    dbm, step = small_dbm(), 1e-6
    data, model = (as_layers(*(rng.random((n, size)) for size in SIZES)) for n in (3, 5))
    means = [rng.random(size) for size in SIZES]
    for buffer, mean in zip((dbm.bottom.means, dbm.top.means, dbm.h2_means), means, strict=True):
        buffer.write(mean)
    c, d1, d2 = map(Tensor, means)
    w1, a, b1 = (Parameter(p.data.copy()) for p in dbm.bottom.parameters())
    w2, _, b2 = (Parameter(p.data.copy()) for p in dbm.top.parameters())
    a.write(a.data + w1.data @ means[1])
    b1.write(b1.data + means[0] @ w1.data + w2.data @ means[2])
    b2.write(b2.data + means[1] @ w2.data)

    def energy(layers):
        v, h1, h2 = layers.v - c, layers.h1 - d1, layers.h2 - d2
        links = ((v @ w1) * h1).sum(axis=1) + ((h1 @ w2) * h2).sum(axis=1)
        return -links - (v * a).sum(axis=1) - (h1 * b1).sum(axis=1) - (h2 * b2).sum(axis=1)

    difference = energy(data).data - dbm.energy(data).data
    np.testing.assert_allclose(difference, difference[0], rtol=1e-10)  # the same machine
    (energy(data).mean() - energy(model).mean()).backward()
    before = dict(zip(("a", "b1", "b2"), plain(w1, w2, a, b1, b2, means), strict=True))
    biases = {"a": dbm.bottom.visible_bias, "b1": dbm.bottom.hidden_bias, "b2": dbm.top.hidden_bias}
    for name, p in biases.items():
        np.testing.assert_allclose(before[name], p.data, rtol=1e-10, err_msg=name)
    for p in (w1, w2, a, b1, b2):
        p.write(p.data - step * p.grad)
    after = dict(zip(("a", "b1", "b2"), plain(w1, w2, a, b1, b2, means), strict=True))
    dbm.set_gradients(data, model)
    np.testing.assert_allclose(dbm.bottom.weight.grad, w1.grad, rtol=1e-10)
    np.testing.assert_allclose(dbm.top.weight.grad, w2.grad, rtol=1e-10)
    assert dbm.top.visible_bias.grad is None
    for name, p in biases.items():
        np.testing.assert_allclose(p.grad, (before[name] - after[name]) / step, rtol=1e-6, err_msg=name)


def plain(w1, w2, a, b1, b2, means):
    """The biases of the energy without means, from those of the centred one."""
    c, d1, d2 = means
    return a.data - w1.data @ d1, b1.data - c @ w1.data - w2.data @ d2, b2.data - d1 @ w2.data


def test_evaluate_dbm_is_the_bound_with_the_annealed_log_z():
    dbm = small_dbm()
    (v, _, _), joint, log_z = enumerated(dbm)
    found = evaluate_dbm(dbm, v, RandomStream(0), 1_000, 200, 50)
    expected = (dbm.variational_free_energy(dbm.mean_field(Tensor(v), 50)).data + log_z).mean()
    assert found["neg_bound"] == pytest.approx(expected, abs=4 * found["log_z_error"])
    assert found["log_z_error"] < 0.05
    assert found["neg_bound"] > -np.log(joint.sum(axis=(1, 2))).mean() - 4 * found["log_z_error"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"hidden": (3,)}, "two hidden layers"),
        ({"hidden": (3, 0)}, "hidden >= 1"),
        ({"input_dim": 0}, "input_dim >= 1"),
    ],
)
def test_dbm_config_refuses_impossible_settings(options, message):
    with pytest.raises(ValueError, match=message):
        DBMConfig(**options)
