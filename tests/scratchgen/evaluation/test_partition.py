"""log Z by annealed importance sampling is log Z by enumeration (L03)."""

import math

import numpy as np
import pytest
from rbm_helpers import enumerated, small_rbm

from scratchgen.evaluation.partition import (
    all_states,
    anneal,
    anneal_between,
    annealed_log_partition,
    annealed_log_partition_of_top,
    base_log_partition,
    draw_base,
    exact_log_partition,
    inverse_temperatures,
    reverse_log_partition,
    reverse_log_partition_of_top,
)
from scratchgen.models.dbn import DBN, DBNConfig
from scratchgen.random import RandomStream
from scratchgen.tensor import Tensor

SEEDS = 200


def test_all_states_are_the_binary_numbers():
    np.testing.assert_array_equal(all_states(2), [[0, 0], [1, 0], [0, 1], [1, 1]])
    np.testing.assert_array_equal(all_states(3, 5, 7), [[1, 0, 1], [0, 1, 1]])


@pytest.mark.parametrize(("d", "h"), [(4, 3), (3, 5), (16, 15)])
def test_exact_log_partition_is_the_sum_over_all_states(d, h):
    """Whichever layer is enumerated; with 15 hidden units in two parts."""
    rbm = small_rbm(d, h)
    v = all_states(d)
    expected = np.logaddexp.reduce(-rbm.free_energy(Tensor(v)).data)
    np.testing.assert_allclose(exact_log_partition(rbm), expected, rtol=1e-12)


def test_exact_log_partition_of_gaussian_units_is_the_integral():
    """Over a grid of two visible units, far finer than their standard deviation."""
    rbm = small_rbm(2, 3, "gaussian")
    grid = np.linspace(-15, 15, 1501)
    v = np.stack(np.meshgrid(grid, grid), axis=-1).reshape(-1, 2)
    total = np.exp(-rbm.free_energy(Tensor(v)).data).sum() * (grid[1] - grid[0]) ** 2
    np.testing.assert_allclose(exact_log_partition(rbm), math.log(total), rtol=1e-10)


def test_exact_log_partition_refuses_what_takes_years():
    with pytest.raises(ValueError, match="at most 20 units"):
        exact_log_partition(small_rbm(21, 22))


def test_inverse_temperatures_go_from_0_to_1():
    for steps in (3, 29, 1_000, 14_500):
        betas = inverse_temperatures(steps)
        assert (betas[0], betas[-1]) == (0, 1)
        assert (np.diff(betas) > 0).all()
        assert len(betas) == steps + 1
    with pytest.raises(ValueError, match="3 steps or more"):
        inverse_temperatures(2)
    betas = inverse_temperatures(14_500)
    assert [np.sum(betas < 0.5), np.sum(betas < 0.9)] == [500, 4_500]


@pytest.mark.usefixtures("kernel_set")
@pytest.mark.parametrize("visible", ["bernoulli", "gaussian"])
def test_the_base_machine_needs_no_annealing(visible):
    rbm = small_rbm(5, 4, visible)
    for parameter, value in zip(rbm.parameters(), (0, rbm.base_bias(), 0), strict=True):
        parameter.write(np.broadcast_to(value, parameter.shape))
    found = annealed_log_partition(rbm, 3, 5, RandomStream(0))
    np.testing.assert_allclose([found.log_z, base_log_partition(rbm)], exact_log_partition(rbm), rtol=1e-12)
    assert found.standard_error < 1e-12
    np.testing.assert_allclose(found.effective_sample_size, 3)


@pytest.mark.usefixtures("kernel_set")
@pytest.mark.parametrize(("visible", "scale"), [("bernoulli", 1.0), ("gaussian", 0.5)])
def test_log_z_is_within_its_errors_of_enumeration(visible, scale):
    """Both ways, and neither by chance: the errors of both are small, and both are above 0."""
    rbm = small_rbm(6, 5, visible, scale=scale)
    exact, random = exact_log_partition(rbm), RandomStream(3)
    found = annealed_log_partition(rbm, 1_000, 300, random)
    assert abs(found.log_z - exact) < 3 * found.standard_error
    assert 0.001 < found.standard_error < 0.1
    if visible == "bernoulli":
        v, _, joint = enumerated(rbm)
        samples = v[np.random.default_rng(0).choice(len(v), 1_000, p=joint.sum(axis=1))]
        found = reverse_log_partition(rbm, samples, 300, random)
        assert abs(found.log_z - exact) < 3 * found.standard_error
        assert 0.001 < found.standard_error < 0.1


@pytest.mark.usefixtures("kernel_set")
@pytest.mark.parametrize(("visible", "scale"), [("bernoulli", 1.5), ("gaussian", 0.5)])
def test_the_mean_weight_is_unbiased_however_few_the_steps(visible, scale):
    """Of 100,000 chains of three steps, forwards from the base and, for binary units, back from exact samples."""
    rbm, random, n = small_rbm(4, 3, visible, scale=scale), RandomStream(0), 100_000
    betas, ratio = np.array([0, 0.2, 0.6, 1]), exact_log_partition(rbm) - base_log_partition(rbm)
    ways = [(betas, draw_base(rbm, n, random), ratio)]
    if visible == "bernoulli":
        v, _, joint = enumerated(rbm)
        exact = Tensor(v[np.random.default_rng(0).choice(len(v), n, p=joint.sum(axis=1))])
        ways.append((betas[::-1], exact, -ratio))
    for path, start, expected in ways:
        weights = np.exp(anneal(rbm, start, path, random)[0] - expected)
        error = weights.std() / n**0.5
        assert abs(weights.mean() - 1) < 4 * error
        assert error < 0.02


@pytest.mark.usefixtures("kernel_set")
def test_the_mean_weight_from_one_machine_to_another_is_unbiased_however_few_the_steps():
    """Of 100,000 chains of two steps, from exact samples of the first; and they end near the second."""
    before, after, n = small_rbm(4, 3), small_rbm(4, 3, seed=1), 100_000
    v, _, joint = enumerated(before)
    exact = Tensor(v[np.random.default_rng(0).choice(len(v), n, p=joint.sum(axis=1))])
    log_weights, ends = anneal_between(before, after, exact, 2, RandomStream(0))
    weights = np.exp(log_weights - exact_log_partition(after) + exact_log_partition(before))
    error = weights.std() / n**0.5
    assert abs(weights.mean() - 1) < 4 * error
    assert 0.0001 < error < 0.02
    found = np.bincount(ends.data.astype(int) @ 2 ** np.arange(4), weights, minlength=16) / weights.sum()
    np.testing.assert_allclose(found, enumerated(after)[2].sum(axis=1), atol=0.01)


def network(*sizes):
    """A network whose layers above the first are near what they began as."""
    dbn = DBN(DBNConfig(sizes[0], sizes[1:]), 0, np.float64)
    dbn.rbms[0].load_state_dict(small_rbm(*sizes[:2], scale=0.7).state_dict())
    rng = np.random.default_rng(1)
    for layer, rbm in enumerate(dbn.rbms[1:], start=1):
        dbn.begin(layer)
        for parameter in rbm.parameters():
            parameter.write(parameter.data + 0.3 * rng.standard_normal(parameter.shape))
    return dbn


@pytest.mark.usefixtures("kernel_set")
@pytest.mark.parametrize("sizes", [(5, 4), (5, 4, 5), (5, 4, 7, 4), (5, 4, 3), (5, 4, 3, 6)])
def test_log_z_of_a_networks_top_is_within_its_errors_of_enumeration(sizes):
    """There and back, whether all layers, the upper ones, or none began upside down."""
    dbn, random = network(*sizes), RandomStream(3)
    v, _, joint = enumerated(dbn.top)
    samples = v[np.random.default_rng(0).choice(len(v), 1_000, p=joint.sum(axis=1))]
    for found in (
        annealed_log_partition_of_top(dbn, 1_000, 300, random),
        reverse_log_partition_of_top(dbn, samples, 300, random),
    ):
        assert abs(found.log_z - exact_log_partition(dbn.top)) < 3 * found.standard_error
        assert 0.001 < found.standard_error < 0.1


def test_log_z_of_a_layer_upside_down_is_that_of_the_layer_below():
    """The chains go on from it without any error, and further units count log 2 each."""
    dbn = network(5, 4, 7)
    dbn.rbms[1].load_state_dict(dbn.upside_down(1).state_dict())
    below = annealed_log_partition(dbn.rbms[0], 10, 30, RandomStream(3))
    found = annealed_log_partition_of_top(dbn, 10, 30, RandomStream(3))
    np.testing.assert_allclose(found.log_z, below.log_z + 2 * math.log(2), rtol=1e-12)
    np.testing.assert_allclose(found.standard_error, below.standard_error, rtol=1e-9)


def test_log_z_of_a_machine_with_20_hidden_units_is_within_a_tenth_of_a_nat():
    """Of 2^20 states; a fifth of the weights to 100 visible units are not 0, and biases keep most of these off."""
    rng = np.random.default_rng(0)
    rbm = small_rbm(100, 20, scale=0.0)
    rbm.weight.write(rng.normal(0, 0.7, (100, 20)) * (rng.random((100, 20)) < 0.2))
    rbm.set_means(np.full(100, 0.12))
    found = annealed_log_partition(rbm, 100, 2_000, RandomStream(0))
    assert abs(found.log_z - exact_log_partition(rbm)) < 0.1
    assert exact_log_partition(rbm) - base_log_partition(rbm) > 1  # which has to be found


def test_float32_is_enough():
    """Over 3,000 steps both types are within their errors of enumeration."""
    for dtype in (np.float32, np.float64):
        rbm = small_rbm(30, 12, scale=0.7, dtype=dtype)
        found = annealed_log_partition(rbm, 100, 3_000, RandomStream(0))
        assert abs(found.log_z - exact_log_partition(rbm)) < 4 * found.standard_error
        assert found.standard_error < 0.05


def test_few_steps_give_too_low_a_log_z_and_backwards_too_high_a_one():
    """On the average over seeds: what makes them bounds."""
    rbm = small_rbm(6, 5, scale=3.0)
    v, _, joint = enumerated(rbm)
    exact, rng = exact_log_partition(rbm), np.random.default_rng(0)
    lower = [annealed_log_partition(rbm, 3, 3, RandomStream(seed)).log_z - exact for seed in range(SEEDS)]
    samples = [v[rng.choice(len(v), 3, p=joint.sum(axis=1))] for _ in range(SEEDS)]
    upper = [reverse_log_partition(rbm, s, 3, RandomStream(seed)).log_z - exact for seed, s in enumerate(samples)]
    for found, sign in ((lower, -1), (upper, 1)):
        mean, error = np.mean(found), np.std(found, ddof=1) / SEEDS**0.5
        assert sign * mean > 3 * error
