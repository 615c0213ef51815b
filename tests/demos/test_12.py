"""The two-dimensional VAE of L12: its quadrature against closed forms, and what the demo prints."""

import numpy as np
import pytest
from lesson_helpers import load, run

from scratchgen.models.vae import VAE, VAEConfig

LESSON = "12_vae_two_dimensional"
SLOPE, OFFSET, BIAS = np.array([0.8, -0.5]), np.array([0.3, 0.1]), np.array([-2.0, -3.0])


@pytest.fixture(scope="module")
def demo():
    return load(LESSON)


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    """What ``--quick`` prints: the figures by name, and its files."""
    return run(LESSON, tmp_path_factory.mktemp("lesson"), "--quick")


def linear_gaussian(demo, shift):
    """A model x = SLOPE z + OFFSET + noise whose q(z|x) is the posterior, moved by ``shift``; with the noise's sd."""
    shape = {"encoder_hidden": (), "decoder_hidden": (), "likelihood": "gaussian"}
    model = VAE(VAEConfig(input_dim=2, latent_dim=1, **shape), np.random.default_rng(0), np.float64)
    model.decoder_out.weight.write(SLOPE[None])
    model.decoder_out.bias.write(OFFSET)
    model.decoder_logvar.weight.write(np.zeros((1, 2)))
    model.decoder_logvar.bias.write(BIAS)
    sd = demo.decode(model, np.zeros(1))[1][0]
    precision = 1 + (SLOPE**2 / sd**2).sum()
    gain = SLOPE / sd**2 / precision
    model.encoder_mu.weight.write(gain[:, None])
    model.encoder_mu.bias.write(np.array([shift - gain @ OFFSET]))
    model.encoder_logvar.weight.write(np.zeros((2, 1)))
    model.encoder_logvar.bias.write(np.array([-np.log(precision)]))
    return model, sd, precision


def test_quadrature_equals_the_closed_forms_of_a_linear_gaussian_model(demo):
    model, sd, precision = linear_gaussian(demo, shift=0.2)
    x = np.random.default_rng(1).normal(size=(250, 2))  # more than the 100 that are taken at a time
    covariance = np.outer(SLOPE, SLOPE) + np.diag(sd**2)
    distance = np.einsum("ni,ij,nj->n", x - OFFSET, np.linalg.inv(covariance), x - OFFSET)
    log_p, kl = demo.quadrature(model, x)
    np.testing.assert_allclose(log_p, -(distance + np.linalg.slogdet(2 * np.pi * covariance)[1]) / 2, rtol=1e-10)
    np.testing.assert_allclose(kl, 0.2**2 * precision / 2, rtol=1e-9)  # of normals that differ in the mean


def test_bounds_equal_log_p_when_the_encoder_is_the_posterior(demo):
    model, _, _ = linear_gaussian(demo, shift=0.0)
    x = np.random.default_rng(2).normal(size=(7, 2))
    log_p, kl = demo.quadrature(model, x)
    estimates, errors = demo.bounds(model, x, 2, np.random.default_rng(3))
    np.testing.assert_allclose(kl, 0, atol=1e-12)
    np.testing.assert_allclose(estimates, np.broadcast_to(log_p, estimates.shape), rtol=1e-10)
    np.testing.assert_allclose(errors, 0, atol=1e-12)


def test_bounds_rise_with_k_and_stay_below_log_p(demo):
    model, _, _ = linear_gaussian(demo, shift=0.2)
    x = np.random.default_rng(4).normal(size=(20, 2))
    log_p, kl = demo.quadrature(model, x)
    estimates, errors = demo.bounds(model, x, 10, np.random.default_rng(5))
    assert (np.diff(estimates, axis=0) >= 0).all()
    assert (estimates <= log_p + 5 * errors).all()
    assert (np.abs(log_p - estimates[0] - kl) <= 5 * errors[0]).all()  # the gap of the ELBO


def test_draw_data_spreads_about_its_curve_as_the_ledger_says(demo):
    x, z = demo.draw_data(100_000, np.random.default_rng(6))
    curve = np.sqrt(z) * np.exp(1j * np.pi * z / 4)
    noise = (x[:, 0] + 1j * x[:, 1] - curve) / (0.1 * z**2)
    np.testing.assert_allclose([noise.real.std(), noise.imag.std()], 1, atol=0.02)
    np.testing.assert_allclose([z.min(), z.mean(), z.max()], [0, 0.5, 1], atol=0.01)


def test_learned_noise_is_exact_for_a_straight_line(demo):
    model, sd, _ = linear_gaussian(demo, shift=0.0)
    across, along = demo.learned_noise(model, np.zeros(1))
    normal, tangent = np.array([0.5, 0.8]), np.array([0.8, -0.5])
    np.testing.assert_allclose(across[0] ** 2, (normal**2 * sd**2).sum() / (normal**2).sum(), rtol=1e-6)
    np.testing.assert_allclose(along[0] ** 2, (tangent**2 * sd**2).sum() / (tangent**2).sum(), rtol=1e-6)


def test_lesson_12_prints_bounds_in_order(table):
    got = {name: float(value) for name, value in table[0].items()}
    log_p, chance = got["mean log p(x), by quadrature"], 5 * got["standard error of mean L_1000"] + 1e-4
    bounds = [got["mean ELBO = L_1"], got["mean L_10"], got["mean L_100"], got["mean L_1000"]]
    assert bounds == sorted(bounds)
    assert bounds[-1] <= log_p + chance
    assert log_p > 1.5  # a model that ignores z stays near 0.4
    assert got["points with L_1, L_10 or L_100 > log p(x)"] == 0
    assert got["standard errors between the two, at a point"] <= 5
    assert got["log p(x), change on a finer, wider grid"] < 1e-10
    assert got["p(x) summed over the figure"] == pytest.approx(1, abs=0.01)


def test_lesson_12_prints_a_sigma_that_grows_with_z(table):
    assert float(table[0]["rank correlation of sigma with z"]) > 0.9
    assert 0.4 < float(table[0]["sigma across the curve on 0.1 z², slope"]) < 1.1


def test_lesson_12_ends_with_its_figure(table):
    (picture,) = table[1]
    assert picture.read_bytes().startswith(b"\x89PNG")
