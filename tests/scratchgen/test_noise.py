"""Random numbers of training: distributed as they should be, and told by the generator alone."""

import numpy as np
import pytest

import kernels
from scratchgen.noise import MASKS, PIXELS, Masks, normal, turns, uniform

N = 40_000


@pytest.mark.usefixtures("kernel_set")
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_moments(rng, dtype):
    for draw, mean, sd, fourth in ((normal, 0, 1, 3), (uniform, 1 / 2, 1 / 12**0.5, 1.8)):
        x = np.asarray(draw((N // 4, 4), np.dtype(dtype), turns(rng)))
        assert (x.shape, x.dtype) == ((N // 4, 4), dtype)
        z = ((x - mean) / sd).ravel().astype(np.float64)
        assert abs(z.mean()) < 4 / N**0.5
        assert abs((z**2).mean() - 1) < 4 * ((fourth - 1) / N) ** 0.5
        assert np.abs(np.corrcoef(x.T) - np.eye(4)).max() < 0.05


@pytest.mark.parametrize("draw", [normal, uniform])
def test_the_generator_alone_tells_which_numbers(draw):
    """The same on every kernel set, others at the next turn and at another draw of this one."""
    found = {}
    for name in kernels.SETS:
        rng = np.random.default_rng(5)
        with kernels.use(name):
            turn = turns(rng, 2)
            places = (turn[:1], 0), (turn[1:], 0), (turn[:1], 1)
            found[name] = [np.array(draw((7,), np.dtype(np.float32), *place)) for place in places]
    first, second, third = found["reference"]
    assert not np.isclose(first, second).any()
    assert not np.isclose(first, third).any()
    np.testing.assert_allclose(found["cpu"], found["reference"], rtol=1e-5, atol=1e-6)
    plain = np.random.default_rng(5)
    assert turn.tolist() == [plain.integers(2**63) for _ in range(2)]  # one number of the generator each


@pytest.mark.usefixtures("kernel_set")
def test_masks_follow_one_another_and_share_nothing_with_other_noise(rng):
    turn, kind = turns(rng), np.dtype(np.float32)
    masks = Masks(turn)
    found = [np.asarray(masks((9, 11), kind, rate)) for rate in (0.3, 0.5)]
    for mask, rate, draw in zip(found, (0.3, 0.5), (MASKS, MASKS + 1), strict=True):
        numbers = np.asarray(uniform((9, 11), kind, turn, draw))
        np.testing.assert_allclose(mask, np.where(numbers < np.float32(rate), 0, 1 / (1 - rate)), rtol=1e-6)
    assert 0 < PIXELS < MASKS  # no mask is another noise of its turn
