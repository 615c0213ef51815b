"""The deep belief network: its weights, bound and samples are those of its definition, by enumeration (L03)."""

import numpy as np
import pytest
from rbm_helpers import enumerated, small_rbm

from scratchgen.evaluation.energy import evaluate_dbn, evaluate_rbm
from scratchgen.evaluation.partition import annealed_log_partition, exact_log_partition
from scratchgen.models.dbn import DBN, DBNConfig
from scratchgen.random import RandomStream
from scratchgen.tensor import Tensor


def small_dbn(sizes=(4, 3, 2), seed=0):
    """A network whose RBMs have weights of N(0, 1)."""
    dbn = DBN(DBNConfig(sizes[0], tuple(sizes[1:])), 0, np.float64)
    for number, rbm in enumerate(dbn.rbms):
        rbm.load_state_dict(small_rbm(*sizes[number : number + 2], seed=seed + number).state_dict())
    return dbn


def log_p(dbn):
    """log p(v) (2^D,) of every state v, by summing p(v|h1) ... p(h_(L-1)) over all hidden layers."""
    _, _, joint = enumerated(dbn.rbms[-1])
    p = joint.sum(axis=1)  # of the top RBM's visible units
    for rbm in reversed(dbn.rbms[:-1]):
        _, _, joint = enumerated(rbm)
        p = (joint / joint.sum(axis=0)) @ p
    return np.log(p)


@pytest.mark.usefixtures("kernel_set")
@pytest.mark.parametrize("sizes", [(4, 3), (4, 3, 2), (4, 3, 2, 3)])
def test_log_weights_average_to_the_likelihood_and_lie_below_it(sizes):
    """The mean of w is Z p(v), within 4 standard errors; the mean of log w, the bound, is lower."""
    dbn, random, n = small_dbn(sizes), RandomStream(0), 20_000
    log_z, expected = exact_log_partition(dbn.rbms[-1]), log_p(dbn)
    for number in (0, 5, 15):
        v = (number >> np.arange(4) & 1).astype(float)
        log_w = dbn.log_weights(Tensor(np.tile(v, (n, 1))), random).data - log_z
        w = np.exp(log_w)
        assert abs(w.mean() - np.exp(expected[number])) <= 4 * w.std() / n**0.5 + 1e-12
        assert log_w.mean() <= expected[number] + 1e-10
        assert (log_w.mean() < expected[number] - 0.01) == (len(sizes) > 2)


@pytest.mark.usefixtures("kernel_set")
@pytest.mark.parametrize("top", [4, 6])
def test_a_layer_begun_upside_down_changes_nothing(top):
    """Then p(v) is that of the RBM below, with a tight bound: each weight is Z p(v). Further units have no weights."""
    dbn = small_dbn((4, 3, top))
    dbn.rbms[1].weight.write(np.zeros((3, top)))
    dbn.begin(1)
    v, _, joint = enumerated(dbn.rbms[0])
    np.testing.assert_allclose(np.exp(log_p(dbn)), joint.sum(axis=1), rtol=1e-10)
    log_w = dbn.log_weights(Tensor(v), RandomStream(0)).data - exact_log_partition(dbn.top)
    np.testing.assert_allclose(log_w, np.log(joint.sum(axis=1)), rtol=1e-10)
    assert (dbn.rbms[1].hidden_bias.data[4:] == 0).all()


def test_further_units_of_a_layer_begin_with_a_tenth_of_a_new_ones_weights():
    dbn, new = small_dbn((4, 3, 6)), small_dbn((4, 3, 6)).rbms[1].weight.data
    dbn.begin(1)
    np.testing.assert_allclose(dbn.rbms[1].weight.data, np.hstack([dbn.rbms[0].weight.data.T, new[:, 4:] / 10]))
    np.testing.assert_array_equal(dbn.upside_down(1).weight.data[:, 4:], np.zeros((3, 2)))


def test_a_layer_with_fewer_units_than_pixels_begins_with_the_biases_below():
    dbn = small_dbn((4, 3, 2))
    weight = dbn.rbms[1].weight.data.copy()
    dbn.begin(0)  # nothing lies below
    assert (dbn.depth, dbn.top) == (1, dbn.rbms[0])
    dbn.begin(1)
    assert (dbn.depth, dbn.top) == (2, dbn.rbms[1])
    np.testing.assert_array_equal(dbn.rbms[1].visible_bias.data, dbn.rbms[0].hidden_bias.data)
    np.testing.assert_array_equal(dbn.rbms[1].weight.data, weight)


@pytest.mark.usefixtures("kernel_set")
def test_samples_are_of_the_distribution():
    """The top RBM's exact samples, sent down two layers: every v is as frequent as enumeration says."""
    dbn, n, rng = small_dbn((4, 3, 2, 3)), 40_000, np.random.default_rng(0)
    h2, _, joint = enumerated(dbn.rbms[2])
    tops = h2[rng.choice(len(h2), n, p=joint.sum(axis=1))]
    v = dbn.down(Tensor(tops), 2, RandomStream(1)).states.data
    found = np.bincount(v.astype(int) @ 2 ** np.arange(4), minlength=16) / n
    p = np.exp(log_p(dbn))
    assert (abs(found - p) < 4 * np.sqrt(p * (1 - p) / n)).all()


def test_up_draws_from_the_layers_own_conditionals():
    dbn, n = small_dbn((4, 3, 2)), 40_000
    v = np.tile([1.0, 0, 1, 1], (n, 1))
    means = dbn.rbms[0].hidden(Tensor(v[:1]), RandomStream(0)).means.data[0]
    found = dbn.up(Tensor(v), 1, RandomStream(1)).data.mean(axis=0)
    assert (abs(found - means) < 4 * np.sqrt(means * (1 - means) / n)).all()
    np.testing.assert_array_equal(dbn.up(Tensor(v), 0, RandomStream(1)).data, v)
    assert dbn.up(Tensor(v), 2, RandomStream(1)).shape == (n, 2)


def test_evaluate_dbn_estimates_the_likelihood():
    """With many draws of q, and log Z within its error, the nll over all states is the enumerated one."""
    dbn = small_dbn((4, 3, 2))
    v, _, _ = enumerated(dbn.rbms[0])
    found = evaluate_dbn(dbn, v, RandomStream(0), 1_000, 100, 2_000)
    assert found["nll"] == pytest.approx(-log_p(dbn).mean(), abs=4 * found["log_z_error"] + 0.02)
    assert found["neg_bound"] > found["nll"] + 0.05
    dbn.depth = 1
    first = evaluate_dbn(dbn, v, RandomStream(0), 1_000, 100, 3)
    assert first["nll"] == pytest.approx(first["neg_bound"], rel=1e-12)
    of_the_rbm = evaluate_rbm(dbn.rbms[0], v, RandomStream(0), 1_000, 100)
    assert first["nll"] == pytest.approx(of_the_rbm["nll"], rel=1e-10)
    assert first["reconstruction"] == pytest.approx(of_the_rbm["reconstruction"], rel=1e-10)


def test_evaluate_dbn_anneals_by_way_of_the_layers_below():
    """What is known of log Z is then what is known of that of the first RBM, if the second is it upside down."""
    dbn, images = small_dbn((4, 3, 6)), np.eye(4)
    dbn.rbms[1].load_state_dict(dbn.upside_down(1).state_dict())
    found = evaluate_dbn(dbn, images, RandomStream(0), 1_000, 30, 1)
    dbn.depth = 1
    below = evaluate_dbn(dbn, images, RandomStream(0), 1_000, 30, 1)
    assert found["log_z_error"] == pytest.approx(below["log_z_error"], rel=0.2)
    directly = annealed_log_partition(dbn.rbms[1], 1_000, 30, RandomStream(0)).standard_error
    assert abs(directly - found["log_z_error"]) > 0.3 * directly


@pytest.mark.usefixtures("kernel_set")
def test_reconstruct_goes_up_and_down_by_means():
    dbn, v = small_dbn((4, 3, 2)), np.eye(4)

    def sigmoid(x):
        return 1 / (1 + np.exp(-x))

    (w1, a1, b1), (w2, a2, b2) = ([p.data for p in rbm.parameters()] for rbm in dbn.rbms)
    one = sigmoid(v @ w1 + b1)
    two = sigmoid(one @ w2 + b2)
    np.testing.assert_allclose(dbn.codes(Tensor(v)).data, two, rtol=1e-12)
    expected = sigmoid(sigmoid(two @ w2.T + a2) @ w1.T + a1)
    np.testing.assert_allclose(dbn.reconstruct(Tensor(v)).data, expected, rtol=1e-12)
    dbn.depth = 1
    np.testing.assert_allclose(dbn.codes(Tensor(v)).data, one, rtol=1e-12)
    np.testing.assert_allclose(dbn.reconstruct(Tensor(v)).data, sigmoid(one @ w1.T + a1), rtol=1e-12)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"hidden": ()}, "one hidden layer or more"),
        ({"hidden": (3, 0)}, "hidden >= 1"),
        ({"input_dim": 0}, "input_dim >= 1"),
    ],
)
def test_dbn_config_refuses_impossible_settings(options, message):
    with pytest.raises(ValueError, match=message):
        DBNConfig(**options)
