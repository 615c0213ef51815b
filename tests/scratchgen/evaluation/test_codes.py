"""Measures of codes beside a prior, against plain loops, closed forms and quadrature."""

import math
import tracemalloc

import numpy as np
import pytest

from scratchgen.evaluation import codes
from scratchgen.evaluation.codes import fresh_discriminator_bce, kernel_scale, mmd
from scratchgen.priors import Mixture

# ---- MMD ----


@pytest.mark.parametrize("rows", [1, 4, 100])
@pytest.mark.parametrize("scale", [0.5, 4.0])
def test_mmd_is_what_its_formula_says(monkeypatch, rng, rows, scale):
    monkeypatch.setattr(codes, "ROWS", rows)
    x, y = rng.standard_normal((7, 3)), rng.standard_normal((9, 3)) + 1

    def mean(a, b, same):
        pairs = [(i, j) for i in range(len(a)) for j in range(len(b)) if not (same and i == j)]
        return sum(scale / (scale + sum((a[i] - b[j]) ** 2)) for i, j in pairs) / len(pairs)

    expected = mean(x, x, True) + mean(y, y, True) - 2 * mean(x, y, False)
    assert mmd(x, y, scale) == pytest.approx(expected, rel=1e-10)
    assert mmd(y, x, scale) == pytest.approx(expected, rel=1e-10)


def test_mmd_is_unbiased(rng):
    """Its mean over many small samples: 0 where the distributions are the same, else the true discrepancy.

    That of N(0, 1) and N(2, 1) is a sum of means of the kernel over differences, N(0, 2) and N(2, 2), by quadrature.
    """
    scale = 2.0
    t = np.linspace(-20, 20, 40_001)
    kernel = scale / (scale + t**2) * (t[1] - t[0])
    same, other = ((np.exp(-((t - m) ** 2) / 4) / math.sqrt(4 * math.pi) * kernel).sum() for m in (0, 2))
    for shift, expected in ((0, 0), (2, 2 * same - 2 * other)):
        draws = [mmd(rng.standard_normal((4, 1)), rng.standard_normal((6, 1)) + shift, scale) for _ in range(4_000)]
        assert np.mean(draws) == pytest.approx(expected, abs=4 * np.std(draws) / math.sqrt(4_000))
        assert np.std(draws) / math.sqrt(4_000) < 0.005  # so that a mean over i = j as well would be seen


def test_mmd_of_float32_codes_is_computed_in_float64(rng):
    x, y = rng.standard_normal((2, 50, 2)).astype(np.float32)
    assert mmd(x, y, 4.0) == mmd(x.astype(float), y.astype(float), 4.0)


def test_mmd_takes_little_memory(rng):
    x, y = rng.standard_normal((2, 4_000, 2))
    tracemalloc.start()
    mmd(x, y, 4.0)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 16e6  # the whole kernel matrix would take 128 MB


def test_mmd_refuses_a_single_code(rng):
    with pytest.raises(ValueError, match="at least two samples of each, got 1 and 5"):
        mmd(np.zeros((1, 2)), np.zeros((5, 2)), 1.0)


def test_kernel_scale_is_twice_the_summed_variances(rng):
    z = rng.standard_normal((100_000, 3)) * [1, 2, 3] + 10
    assert kernel_scale(z) == pytest.approx(2 * (1 + 4 + 9), rel=0.02)
    assert kernel_scale(np.array([[0.0, 1.0], [2.0, 1.0]])) == 2
    difference = z[:50_000] - z[50_000:]
    assert kernel_scale(z) == pytest.approx((difference**2).sum(axis=1).mean(), rel=0.02)


# ---- a fresh discriminator ----


@pytest.fixture
def bce(monkeypatch, rng):
    """Trains in fewer steps than usual on 10,000 codes, and takes 20,000 others; each by a function of their number."""
    monkeypatch.setattr(codes, "STEPS", 1_000)

    def bce(draw_codes, draw_prior):
        drawn = draw_codes(10_000), draw_prior(10_000), draw_codes(20_000), draw_prior(20_000)
        return fresh_discriminator_bce(*drawn, rng)

    return bce


def least(p, q, width):
    """log 2 - JSD of densities on a grid: the cross-entropy of D = p / (p + q), half each (L23)."""
    logs = (f * np.log(f / (p + q), where=f > 0, out=np.zeros_like(f)) for f in (p, q))
    return -sum(log.sum() for log in logs) * width / 2


@pytest.mark.parametrize("shift", [0.3, 1.5])
def test_fresh_discriminator_bce_nears_that_of_the_best_discriminator(bce, rng, shift):
    t = np.linspace(-10, 10, 10_001)
    densities = (np.exp(-((t - m) ** 2) / 2) / math.sqrt(2 * math.pi) for m in (0, shift))
    best = least(*densities, t[1] - t[0])
    found = bce(lambda n: rng.standard_normal((n, 1)) + shift, lambda n: rng.standard_normal((n, 1)))
    assert found == pytest.approx(best, abs=0.01)


@pytest.mark.parametrize("dim", [2, 8])
def test_fresh_discriminator_bce_is_log_2_for_equal_distributions(bce, rng, dim):
    """In eight dimensions 10,000 codes can be learnt by heart."""
    found = bce(lambda n: 5 * rng.standard_normal((n, dim)), lambda n: 5 * rng.standard_normal((n, dim)))
    assert found == pytest.approx(math.log(2), abs=0.01)


def test_fresh_discriminator_bce_sees_that_a_petal_is_missing(bce, rng):
    """Codes have petals 0..8 of the prior's ten, in order: log 2 - JSD of shares 1/9 and 1/10."""
    p, q = np.full(10, 1 / 10), np.array([1 / 9] * 9 + [0])
    found = bce(lambda n: Mixture().sample(n, rng, np.sort(rng.integers(0, 9, n))), lambda n: Mixture().sample(n, rng))
    assert found == pytest.approx(least(p, q, 1), abs=0.012)


def test_fresh_discriminator_bce_sees_petals_where_moments_are_the_same(bce, rng):
    """A Gaussian with the mixture's moments; what is best comes from both densities on a grid."""
    variance = (1.4**2 + 0.5**2 + 0.1**2) / 2
    axis = np.linspace(-5, 5, 801)
    z = np.stack(np.meshgrid(axis, axis), axis=-1).reshape(-1, 2)
    gaussian = np.exp(-(z**2).sum(axis=1) / (2 * variance)) / (2 * math.pi * variance)
    best = least(np.exp(Mixture().log_prob(z)), gaussian, (axis[1] - axis[0]) ** 2)
    found = bce(lambda n: math.sqrt(variance) * rng.standard_normal((n, 2)), lambda n: Mixture().sample(n, rng))
    assert found == pytest.approx(best, abs=0.03)


def test_fresh_discriminator_bce_ignores_the_scale_of_the_prior(monkeypatch):
    monkeypatch.setattr(codes, "STEPS", 100)

    def run(scale, shift):
        rng = np.random.default_rng(2)
        z = scale * rng.standard_normal((4, 500, 2)) + shift
        return fresh_discriminator_bce(z[0] + scale, z[1], z[2] + scale, z[3], rng)

    assert run(1, 0) == pytest.approx(run(1024, 4096), abs=1e-3)


def test_fresh_discriminator_bce_refuses_too_few_codes():
    with pytest.raises(ValueError, match="at least ten codes and ten draws of the prior, got 9"):
        fresh_discriminator_bce(*np.zeros((4, 9, 2)), np.random.default_rng(0))
