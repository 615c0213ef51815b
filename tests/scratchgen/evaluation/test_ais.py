"""Annealed importance sampling, where log p(x) is known: a linear model, and integrals on a grid."""

import math

import numpy as np
import pytest
from tqdm import tqdm
from vae_helpers import SIGMA, LinearGaussian, small_vae, standard_error

from scratchgen.errors import UserError
from scratchgen.evaluation import ais
from scratchgen.evaluation.ais import (
    ACCEPTANCE,
    Point,
    Protocol,
    anneal,
    annealed_importance,
    best_sigma,
    bidirectional_bounds,
    evaluate_ais,
    evaluator,
    leapfrog,
    sigmoid_schedule,
    transition,
)
from scratchgen.evaluation.decoder import Decoder, gan_decoder, vae_decoder
from scratchgen.models.gan import GAN, GANConfig
from scratchgen.models.vae import VAE, VAEConfig
from scratchgen.tensor import Tensor


def linear(sigma=None):
    exact = LinearGaussian()
    exact.model.eval()
    return exact, vae_decoder(exact.model, sigma)


def plane_vae(likelihood="bernoulli"):
    """A 6-8-2 decoder with weights of order 1, which bend the posterior."""
    rng = np.random.default_rng(3)
    model = VAE(VAEConfig(6, 2, (4,), (8,), "tanh", likelihood), rng, np.float64)
    for p in model.parameters():
        p.write(1.5 * rng.standard_normal(p.shape))
    model.eval()
    return model


def small_gan(noise="normal", conditional=False):
    config = GANConfig(6, 2, noise, (5,), discriminator_hidden=(4,), conditional=conditional, classes=3)
    rng = np.random.default_rng(2)
    model = GAN(config, rng, np.float64)
    for p in model.generator.parameters():
        p.write(rng.standard_normal(p.shape))
    model.eval()
    return model


def on_a_grid(decoder, images, prior, limit, n=400, classes=None):
    """log of the integral of p(z) p(x|z) over [-limit, limit]^2, at the centres of n^2 squares; ``prior`` is of z."""
    line = (np.arange(n) + 0.5) / n * 2 * limit - limit
    z = np.stack(np.meshgrid(line, line), axis=-1).reshape(-1, 2)
    log_prior, found = np.log(prior(z)), []
    for i, x in enumerate(images):
        given = [] if classes is None else [Tensor(np.tile(classes[i], (len(z), 1)))]
        out = decoder.output(Tensor(z), *given).data
        if decoder.sigma is None:
            log_likelihood = np.where(x == 1, -np.log1p(np.exp(-out)), -np.log1p(np.exp(out))).sum(axis=1)
        else:
            density = np.exp(-(((x - out) / decoder.sigma) ** 2) / 2) / (decoder.sigma * math.sqrt(2 * math.pi))
            log_likelihood = np.log(density).sum(axis=1)
        found.append(np.logaddexp.reduce(log_prior + log_likelihood) + 2 * math.log(2 * limit / n))
    return np.array(found)


def normal(z):
    return np.exp(-(z**2).sum(axis=1) / 2) / (2 * math.pi)


def uniform(z):
    return np.full(len(z), 1 / 12)  # a square of side 2 sqrt 3


def assert_agrees(estimate, truth, most):
    """The mean is within 3 standard errors of the truth, and the standard error below ``most``."""
    error = math.sqrt((estimate.standard_error**2).sum()) / len(truth)
    assert error < most
    assert abs((estimate.log_p - truth).mean()) < 3 * error


# ---- estimates where log p(x) is known ----


def test_a_sigma_so_small_that_log_p_overflows_is_named(rng):
    model = VAE(plane_vae().config, 0, np.float32)
    model.eval()
    with pytest.raises(UserError, match="sigma is too small"):
        annealed_importance(vae_decoder(model, 1e-30), rng.random((2, 6)), 2, 3, rng)


@pytest.mark.parametrize("rows", [130, 800])
def test_log_p_of_a_linear_model_is_exact_in_batches_of_any_size(monkeypatch, rng, rows):
    monkeypatch.setattr(ais, "ROWS", rows)
    exact, decoder = linear()
    x = exact.draw(30, rng)
    assert_agrees(annealed_importance(decoder, x, 20, 200, rng), exact.log_p(x), most=0.02)


def test_log_p_of_images_far_from_what_the_model_draws(rng):
    """The posterior is then far out in the prior, where importance sampling from the prior would fail."""
    exact, decoder = linear()
    x = exact.bias + 4 * exact.weight[:1] + np.zeros((10, 1))
    found = annealed_importance(decoder, x, 20, 400, rng)
    assert_agrees(found, exact.log_p(x), most=0.05)


def test_standard_error_is_the_spread_of_estimates(rng):
    exact, decoder = linear()
    found = annealed_importance(decoder, np.repeat(exact.draw(1, rng), 400, axis=0), 20, 20, rng)
    assert found.standard_error.mean() == pytest.approx(found.log_p.std(), rel=0.15)


def test_weights_that_are_equal_or_one_alone():
    log_weights = np.array([[-900.0] * 4, [-900.0, -2000, -2000, -2000]])
    found = ais._estimate(log_weights, np.array([0.5, 0.7]))
    assert found.log_p == pytest.approx([-900, -900 - math.log(4)])
    assert found.effective_sample_size == pytest.approx([4, 1])
    assert found.standard_error == pytest.approx([0, 1])
    assert found.acceptance == 0.6


def test_weights_that_differ_by_rounding_errors_have_a_standard_error(rng):
    found = ais._estimate(1e-9 * rng.standard_normal((500, 16)), np.zeros(500))
    assert found.standard_error.mean() == pytest.approx(1e-9 / 4, rel=0.1)


def test_log_p_under_a_bernoulli_decoder_matches_quadrature(rng):
    decoder = vae_decoder(plane_vae())
    x = decoder.draw_images(decoder.draw_codes(20, rng), rng)
    truth = on_a_grid(decoder, x, normal, limit=7)
    assert truth.std() > 0.5
    assert_agrees(annealed_importance(decoder, x, 20, 300, rng), truth, most=0.01)


def test_log_p_of_a_gan_with_uniform_noise_matches_quadrature(rng):
    decoder = gan_decoder(small_gan("uniform"), sigma=0.2)
    x = decoder.draw_images(decoder.draw_codes(20, rng), rng)
    truth = on_a_grid(decoder, x, uniform, limit=math.sqrt(3))
    assert_agrees(annealed_importance(decoder, x, 20, 400, rng), truth, most=0.02)


def test_log_p_given_a_class_matches_quadrature(rng):
    model = small_gan(conditional=True)
    decoder, classes = gan_decoder(model, sigma=0.2), np.eye(3)[rng.integers(3, size=20)]
    x = decoder.draw_images(decoder.draw_codes(20, rng), rng, classes)
    truth = on_a_grid(decoder, x, normal, limit=7, classes=classes)
    assert_agrees(annealed_importance(decoder, x, 20, 400, rng, classes), truth, most=0.02)
    other = np.roll(classes, 1, axis=1)
    assert abs(on_a_grid(decoder, x, normal, limit=7, classes=other) - truth).mean() > 0.5


@pytest.mark.parametrize("noise", ["normal", "uniform"])
def test_codes_are_draws_of_the_prior(rng, noise):
    decoder = gan_decoder(small_gan(noise), sigma=0.2)
    codes = decoder.draw_codes(40_000, rng)
    z = codes if noise == "normal" else math.sqrt(3) * np.tanh(codes / 2)
    assert abs(z.mean()) < 0.02
    assert z.var() == pytest.approx(1, abs=0.02)
    assert (z**4).mean() == pytest.approx({"normal": 3, "uniform": 9 / 5}[noise], abs=0.1)
    energies = decoder.neg_log_prior(Tensor(codes)).data
    log_density = -(codes**2) / 2 if noise == "normal" else -codes - 2 * np.log1p(np.exp(-codes))
    assert energies == pytest.approx(-log_density.sum(axis=1), rel=1e-12)


def test_float32_gives_what_float64_gives(rng):
    model = plane_vae()
    single = VAE(model.config, 0, np.float32)
    single.load_state_dict({name: array.astype(np.float32) for name, array in model.state_dict().items()})
    single.eval()
    decoder = vae_decoder(model)
    x = decoder.draw_images(decoder.draw_codes(20, rng), rng)
    both = [annealed_importance(each, x, 20, 300, rng) for each in (decoder, vae_decoder(single))]
    error = math.hypot(*[math.sqrt((found.standard_error**2).sum()) / 20 for found in both])
    assert abs((both[0].log_p - both[1].log_p).mean()) < 3 * error
    assert both[1].log_p.dtype == np.float64


# ---- both bounds ----


def test_bounds_of_a_linear_model_enclose_log_p_and_close_with_steps(rng):
    exact, decoder = linear()
    codes = decoder.draw_codes(1000, rng)
    x = decoder.draw_images(codes, rng)
    truth, gaps = exact.log_p(x), []
    for steps in (3, 10, 40):
        lower, upper = bidirectional_bounds(decoder, codes, x, 4, steps, rng)
        below, above = truth - lower.log_p, upper.log_p - truth
        assert below.mean() > -2 * standard_error(below)
        assert above.mean() > -2 * standard_error(above)
        gaps.append(below.mean() + above.mean())
    assert gaps[0] > 2 * gaps[1] > 4 * gaps[2] > 0
    assert below.mean() > 2 * standard_error(below)
    assert gaps[2] < 0.3


def test_upper_bound_begins_at_the_codes(rng):
    """With a single step the weight is p(x|z) itself, of the code that an image was drawn with."""
    exact, decoder = linear()
    codes = decoder.draw_codes(7, rng)
    x = decoder.draw_images(codes, rng)
    _, upper = bidirectional_bounds(decoder, codes, x, 3, 1, rng)
    off = x - codes @ exact.weight - exact.bias
    log_likelihood = -(off**2).sum(axis=1) / (2 * SIGMA**2) - 2.5 * math.log(2 * math.pi * SIGMA**2)
    assert upper.log_p == pytest.approx(log_likelihood, rel=1e-12)


def test_schedule_is_a_sigmoid_from_0_to_1():
    betas = sigmoid_schedule(8)
    assert betas[[0, 4, 8]] == pytest.approx([0, 0.5, 1], abs=1e-15)
    raw = [1 / (1 + math.exp(4)), 1 / (1 + math.exp(2)), 1 / (1 + math.exp(-4))]
    assert betas[2] == pytest.approx((raw[1] - raw[0]) / (raw[2] - raw[0]), rel=1e-12)
    assert (np.diff(betas) > 0).all()


# ---- Hamiltonian Monte Carlo ----

PRECISION = np.array([[2.0, 0.8], [0.8, 1.0]])
MEAN = np.array([1.0, -0.5])


def gaussian_target(codes):
    """A point whose second energy is that of N(MEAN, PRECISION^-1), and whose first is none."""
    off = codes - MEAN
    energies, gradients = np.zeros((2, len(codes))), np.zeros((2, *codes.shape))
    energies[1], gradients[1] = np.einsum("ni,ij,nj->n", off, PRECISION, off) / 2, off @ PRECISION
    return Point(codes, energies, gradients)


@pytest.mark.parametrize(("size", "accepted"), [(0.15, 0.99), (0.9, 0.85), (1.1, 0.6)])
def test_transitions_leave_their_target_invariant(rng, size, accepted):
    """Also where many are rejected: the share shows that the test would see a wrong acceptance."""
    n, covariance = 20_000, np.linalg.inv(PRECISION)
    codes = MEAN + rng.standard_normal((n, 2)) @ np.linalg.cholesky(covariance).T
    point, total = gaussian_target(codes), 0.0
    for _ in range(10):
        point, probability = transition(point, gaussian_target, 1.0, np.full((n, 1), size), rng)
        total += probability.mean() / 10
    assert (point.codes != codes).any(axis=1).mean() > 0.9
    assert total == pytest.approx(accepted, abs=0.1)
    assert point.codes.mean(axis=0) == pytest.approx(MEAN, abs=0.03)
    assert np.cov(point.codes.T) == pytest.approx(covariance, abs=0.04)
    kept = gaussian_target(point.codes)  # energies and gradients are those of the codes
    assert point.energies == pytest.approx(kept.energies)
    assert point.gradients == pytest.approx(kept.gradients)


def test_transitions_forget_where_they_began(rng):
    point = gaussian_target(np.full((4000, 2), 5.0))
    for _ in range(30):
        point, _ = transition(point, gaussian_target, 1.0, np.full((4000, 1), 0.23), rng)
    assert point.codes.mean(axis=0) == pytest.approx(MEAN, abs=0.07)
    assert np.cov(point.codes.T) == pytest.approx(np.linalg.inv(PRECISION), abs=0.1)


def test_beta_raises_the_likelihood_alone(rng):
    """Of the prior N(0, I) and exp(-energy) the product with beta has the precision I + beta PRECISION."""

    def target(codes):
        point = gaussian_target(codes)
        point.energies[0], point.gradients[0] = (codes**2).sum(axis=1) / 2, codes
        return point

    precision = np.eye(2) + 0.5 * PRECISION
    point = target(np.zeros((20_000, 2)))
    for _ in range(30):
        point, _ = transition(point, target, 0.5, np.full((20_000, 1), 0.2), rng)
    assert np.cov(point.codes.T) == pytest.approx(np.linalg.inv(precision), abs=0.03)
    assert point.codes.mean(axis=0) == pytest.approx(np.linalg.solve(precision, 0.5 * PRECISION @ MEAN), abs=0.03)


def test_leapfrog_is_reversible_and_keeps_the_energy(rng):
    evaluate = evaluator(vae_decoder(plane_vae()), rng.integers(0, 2, (50, 6)).astype(float))
    start, momentum = evaluate(rng.standard_normal((50, 2))), rng.standard_normal((50, 2))
    drift = {}
    for size in (0.02, 0.01):
        sizes = np.full((50, 1), size)
        end, last = leapfrog(start, momentum, evaluate, 0.7, sizes)
        back, first = leapfrog(end, -last, evaluate, 0.7, sizes)
        assert back.codes == pytest.approx(start.codes, abs=1e-12)
        assert -first == pytest.approx(momentum, abs=1e-12)
        change = end.energy(0.7) + (last**2).sum(axis=1) / 2 - start.energy(0.7) - (momentum**2).sum(axis=1) / 2
        drift[size] = np.abs(change).max()
    assert abs(end.codes - start.codes).max() > 0.1
    assert drift[0.01] < 0.4 * drift[0.02]  # of second order, over half the time at that


def test_energies_and_gradients_are_those_of_the_model(rng):
    model = small_vae("gaussian-fixed")
    model.eval()
    x, z = rng.standard_normal((4, 6)), rng.standard_normal((4, 3))
    evaluate = evaluator(vae_decoder(model), x)
    point = evaluate(z)
    assert point.energies[0] == pytest.approx((z**2).sum(axis=1) / 2)
    assert point.energies[1] == pytest.approx(model.reconstruction(Tensor(z), Tensor(x)).data)
    for j in range(3):
        step = 1e-5 * np.eye(3)[j]
        slope = (evaluate(z + step).energies - evaluate(z - step).energies) / 2e-5
        assert point.gradients[:, :, j] == pytest.approx(slope, rel=1e-6, abs=1e-8)


def test_step_sizes_adapt_to_the_acceptance_each_image_by_itself(rng):
    """Two images of targets a hundred times as narrow as each other: one step size could not fit both."""
    scales = np.repeat([1.0, 100.0], 50)[:, None]

    def target(codes):
        point = gaussian_target(codes * scales)
        return Point(codes, point.energies, point.gradients * scales)

    with tqdm(disable=True) as bar:
        _, acceptance, _ = anneal(target, MEAN / scales, 50, np.ones(1001), rng, bar)
    assert acceptance == pytest.approx([ACCEPTANCE, ACCEPTANCE], abs=0.05)


def test_diverging_steps_are_rejected(rng):
    """Numbers that overflow, without a warning."""
    point, sizes = gaussian_target(np.zeros((10, 2))), np.full((10, 1), 1e60)
    found, probability = transition(point, gaussian_target, 1.0, sizes, rng)
    assert (probability == 0).all()
    assert (found.codes == point.codes).all()


# ---- sigma, and the table of a run ----


def test_best_sigma_is_that_of_the_highest_likelihood(monkeypatch, rng):
    monkeypatch.setattr(ais, "SIGMA_STEPS", 60)
    exact, decoder = linear(sigma=1.5)
    x = exact.draw(500, rng)
    weights, sigmas = exact.weight.T @ exact.weight, np.linspace(0.4, 0.6, 401)
    off = x - exact.bias
    totals = []
    for sigma in sigmas:
        covariance = weights + sigma**2 * np.eye(5)
        distance = np.einsum("ni,ij,nj->", off, np.linalg.inv(covariance), off)
        totals.append(-distance - len(x) * np.linalg.slogdet(covariance)[1])
    assert best_sigma(decoder, x, rng) == pytest.approx(sigmas[np.argmax(totals)], rel=0.03)


def test_evaluate_ais_reports_means_and_both_bounds(rng):
    exact, decoder = linear()
    x = exact.draw(50, rng)
    table = evaluate_ais(decoder, Protocol(50, 10, 100, simulate=60), x, rng)
    assert table["log_p"] == -table["nll"] == pytest.approx(exact.log_p(x).mean(), abs=4 * table["ais_standard_error"])
    assert table["standard_error"] == pytest.approx(exact.log_p(x).std() / math.sqrt(50), rel=0.1)
    assert (table["images"], table["chains"], table["steps"]) == (50, 10, 100)
    assert 1 <= table["effective_sample_size"] <= 10
    drawn = table["simulated"]
    assert drawn["images"] == 60
    assert drawn["gap"] == drawn["upper"] - drawn["lower"]
    assert abs(drawn["gap"]) < 0.2
    assert "simulated" not in evaluate_ais(decoder, Protocol(50, 10, 1), x, rng)


def test_simulated_images_are_drawn_of_the_given_classes_and_bounded_given_them(monkeypatch, rng):
    decoder, classes, bounded = gan_decoder(small_gan(conditional=True), sigma=0.01), np.eye(3)[[0, 2, 2, 2]], []
    real = ais.bidirectional_bounds
    monkeypatch.setattr(ais, "bidirectional_bounds", lambda *given: bounded.append(given) or real(*given))
    evaluate_ais(decoder, Protocol(4, 2, 1, simulate=200), rng.random((4, 6)), rng, classes)
    ((_, codes, images, *_, y),) = bounded
    off = images - decoder.output(Tensor(codes), Tensor(y)).data
    assert np.abs(off).max() < 6 * 0.01
    assert y.mean(axis=0) == pytest.approx([1 / 4, 0, 3 / 4], abs=0.1)


def test_the_same_seed_gives_the_same_estimates():
    decoder = vae_decoder(plane_vae())
    x = decoder.draw_images(decoder.draw_codes(5, np.random.default_rng(1)), np.random.default_rng(2))
    first, second, other = (annealed_importance(decoder, x, 4, 10, np.random.default_rng(seed)) for seed in (3, 3, 4))
    for name in ("log_p", "standard_error", "effective_sample_size", "acceptance"):
        assert np.array_equal(getattr(first, name), getattr(second, name))
    assert (first.log_p != other.log_p).all()


def test_the_model_is_left_as_it_was(rng):
    model = small_gan()
    state = {name: array.copy() for name, array in model.state_dict().items()}
    annealed_importance(gan_decoder(model, 0.2), rng.random((2, 6)), 3, 2, rng)
    assert all(p.requires_grad and p.grad is None for p in model.parameters())
    assert all(np.array_equal(array, state[name]) for name, array in model.state_dict().items())


def test_mistakes_are_named(rng):
    exact, decoder = linear()
    x = exact.draw(2, rng)
    with pytest.raises(ValueError, match="chains >= 2"):
        annealed_importance(decoder, x, 1, 10, rng)
    with pytest.raises(ValueError, match="steps >= 1"):
        annealed_importance(decoder, x, 2, 0, rng)
    with pytest.raises(ValueError, match="at least one image"):
        annealed_importance(decoder, x[:0], 2, 1, rng)
    for sigma in (0, -1, math.nan, math.inf):
        with pytest.raises(ValueError, match="sigma > 0"):
            vae_decoder(exact.model, sigma)
        with pytest.raises(ValueError, match="sigma"):
            Protocol(sigma=sigma)
    with pytest.raises(ValueError, match="sigma is needed"):
        vae_decoder(plane_vae("gaussian"))
    with pytest.raises(ValueError, match="sigma to begin with"):
        best_sigma(vae_decoder(plane_vae()), x, rng)
    with pytest.raises(ValueError, match="noise"):
        Decoder(exact.model, exact.model.mean, 2, noise="cauchy")
    exact.model.train()
    with pytest.raises(ValueError, match="evaluation mode"):
        vae_decoder(exact.model)
