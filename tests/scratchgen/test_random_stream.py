"""Random numbers of training: distributed as they should be, and determined by the generator alone."""

import numpy as np
import pytest

import kernels
from scratchgen.random import STREAMS, RandomStream, stream
from scratchgen.tensor import Tensor

N = 40_000


@pytest.mark.usefixtures("kernel_set")
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_random_stream_has_the_moments_of_its_distributions(rng, dtype):
    random = RandomStream(rng)
    for draw, mean, sd, fourth in ((random.normal, 0, 1, 3), (random.uniform, 1 / 2, 1 / 12**0.5, 1.8)):
        x = draw((N // 4, 4), dtype).data
        assert (x.shape, x.dtype) == ((N // 4, 4), dtype)
        z = ((x - mean) / sd).ravel().astype(np.float64)
        assert abs(z.mean()) < 4 / N**0.5
        assert abs((z**2).mean() - 1) < 4 * ((fourth - 1) / N) ** 0.5
        assert np.abs(np.corrcoef(x.T) - np.eye(4)).max() < 0.05


@pytest.mark.parametrize("draw", ["normal", "uniform"])
def test_random_stream_takes_one_key_of_the_generator_a_draw(draw):
    """The same numbers on every kernel set, others at the next draw."""
    found = {}
    for name in kernels.SETS:
        with kernels.use(name):
            random = RandomStream(5)
            found[name] = [getattr(random, draw)((7,)).data for _ in range(2)]
        plain = np.random.default_rng(5)
        plain.integers(2**63, size=2)
        assert random.generator.bit_generator.state == plain.bit_generator.state
    first, second = found["reference"]
    assert not np.isclose(first, second).any()
    np.testing.assert_allclose(found["cpu"], found["reference"], rtol=1e-5, atol=1e-6)
    key, expected = np.random.default_rng(5).integers(2**63), np.empty(7, np.float32)
    getattr(kernels.reference.random, draw)(expected, key)
    np.testing.assert_array_equal(first, expected)


@pytest.mark.usefixtures("kernel_set")
@pytest.mark.parametrize("rate", [0.3, 0.5])
def test_dropout_mask_scales_what_it_keeps(rate):
    mask, numbers = RandomStream(5).dropout_mask((9, 11), np.float32, rate).data, RandomStream(5).uniform((9, 11)).data
    np.testing.assert_allclose(mask, np.where(numbers < np.float32(rate), 0, 1 / (1 - rate)), rtol=1e-6)


@pytest.mark.usefixtures("kernel_set")
def test_bernoulli_draws_each_element_with_its_probability(rng):
    probability = np.repeat(np.array([[0, 0.1, 0.5, 0.9, 1]], np.float32), 4_000, axis=0)
    drawn = RandomStream(rng).bernoulli(Tensor(probability)).data
    assert set(np.unique(drawn)) == {0, 1}
    error = np.abs(drawn.mean(axis=0, dtype=np.float64) - probability[0])
    assert (error <= 4 * np.sqrt(probability[0] * (1 - probability[0]) / 4_000)).all()


@pytest.mark.usefixtures("kernel_set")
def test_binary_units_are_on_with_the_probability_of_their_inputs(rng):
    inputs, bias = rng.normal(size=(4_000, 3)).astype(np.float32), np.array([-1, 0, 2], np.float32)
    states, probabilities = (found.data for found in RandomStream(rng).binary_units(Tensor(inputs), Tensor(bias)))
    np.testing.assert_allclose(probabilities, 1 / (1 + np.exp(-(inputs + bias))), rtol=1e-5)
    assert set(np.unique(states)) == {0, 1}
    error = np.sqrt((probabilities * (1 - probabilities)).sum(axis=0, dtype=np.float64))
    assert (abs((states - probabilities).sum(axis=0, dtype=np.float64)) < 4 * error).all()


def test_stream_gives_each_purpose_numbers_of_its_own():
    keys = {stream(0, purpose).integers(2**63) for purpose in STREAMS} | {stream(0, "evaluation", 0).integers(2**63)}
    assert len(keys) == len(STREAMS) + 1
    assert stream(3, "noise", 4).random() == stream(3, "noise", 4).random()
