"""The VAE: its terms against plain NumPy, its gradients, its bounds where log p(x) is known, how it begins."""

import math
from itertools import pairwise

import numpy as np
import pytest
from vae_helpers import SIGMA, LinearGaussian, both_dtypes, every_likelihood, plain, small_vae, standard_error

from scratchgen import ops
from scratchgen.gradcheck import gradcheck
from scratchgen.models.vae import VAE, VAEConfig
from scratchgen.tensor import Tensor, no_grad

both_activations = pytest.mark.parametrize("activation", ["tanh", "softplus"])
closed_form_or_monte_carlo = pytest.mark.parametrize("monte_carlo_kl", [False, True], ids=["closed", "monte carlo"])
one_or_more_samples = pytest.mark.parametrize("samples", [1, 3])


def noise_for(model, rng, samples, examples):
    return Tensor(rng.standard_normal((samples, examples, model.config.latent_dim)), dtype=model.dtype)


def estimates(model, x, n, rng, samples=1, monte_carlo_kl=False):
    """n independent estimates of the two terms for one example x (d,), each (n,)."""
    with no_grad():
        copies = Tensor(np.tile(x, (n, 1)), dtype=model.dtype)
        terms = model.negative_elbo(copies, noise_for(model, rng, samples, n), monte_carlo_kl)
        return tuple(term.data for term in terms)


# ---- the terms, once more in NumPy ----


@pytest.mark.usefixtures("kernel_set")
@both_dtypes
@every_likelihood
@both_activations
@one_or_more_samples
def test_negative_elbo_and_importance_bound_match_numpy(rng, dtype, likelihood, activation, samples):
    model = small_vae(likelihood, activation, dtype)
    x = Tensor(rng.integers(0, 2, (4, 6)) if likelihood == "bernoulli" else rng.standard_normal((4, 6)), dtype=dtype)
    noise = noise_for(model, rng, samples, 4)
    p_x, q, prior, mu, sigma = plain(model, x.data.astype(float), noise.data.astype(float))
    expected = {
        "reconstruction": -np.log(p_x).mean(axis=0),
        "kl": (-np.log(sigma) + (sigma**2 + mu**2 - 1) / 2).sum(axis=1),
        "kl, monte carlo": (np.log(q) - np.log(prior)).mean(axis=0),
        "log weights": np.log(p_x * prior / q),
        "importance bound": np.log((p_x * prior / q).mean(axis=0)),
    }
    reconstruction, kl = model.negative_elbo(x, noise)
    same, sampled_kl = model.negative_elbo(x, noise, monte_carlo_kl=True)
    np.testing.assert_array_equal(same.data, reconstruction.data)
    weights, bound = model.log_weights(x, noise), model.importance_bound(x, noise)
    found = [reconstruction, kl, sampled_kl, weights, bound]
    for (name, numbers), term in zip(expected.items(), found, strict=True):
        assert term.dtype == dtype
        assert term.shape == numbers.shape
        tolerance = {"rtol": 1e-12, "atol": 1e-12} if dtype == np.float64 else {"rtol": 1e-5, "atol": 1e-5}
        np.testing.assert_allclose(term.data, numbers, **tolerance, err_msg=name)


def test_reconstruction_of_soft_targets_is_cross_entropy(rng):
    model, x = small_vae(), rng.random((4, 6))
    z = Tensor(rng.standard_normal((1, 4, 3)))
    p = model.mean(z).data
    expected = -(x * np.log(p) + (1 - x) * np.log(1 - p)).sum(axis=-1)
    np.testing.assert_allclose(model.reconstruction(z, Tensor(x)).data, expected, rtol=1e-12)


# ---- gradients, with respect to every parameter ----


@pytest.mark.usefixtures("kernel_set")
@every_likelihood
@both_activations
@closed_form_or_monte_carlo
@one_or_more_samples
@pytest.mark.parametrize("beta", [1.0, 0.5])
def test_negative_elbo_gradients(rng, likelihood, activation, monte_carlo_kl, samples, beta):
    model = small_vae(likelihood, activation)
    x, noise = Tensor(rng.random((4, 6))), noise_for(model, rng, samples, 4)

    def loss(*_):
        reconstruction, kl = model.negative_elbo(x, noise, monte_carlo_kl)
        return reconstruction + beta * kl

    assert len(model.parameters()) == (12 if likelihood == "gaussian" else 10)
    gradcheck(loss, *model.parameters())


@pytest.mark.usefixtures("kernel_set")
@every_likelihood
def test_importance_bound_gradients(rng, likelihood):
    model = small_vae(likelihood)
    x, noise = Tensor(rng.random((4, 6))), noise_for(model, rng, 5, 4)
    gradcheck(lambda *_: model.importance_bound(x, noise), *model.parameters())


@pytest.mark.usefixtures("kernel_set")
def test_reconstruction_with_fixed_sigma_is_least_squares(rng):
    """L13: to every parameter, the gradient of the NLL is that of squared error / (2 sigma^2)."""
    model = small_vae("gaussian-fixed")
    x, noise = Tensor(rng.standard_normal((4, 6))), noise_for(model, rng, 1, 4)
    model.negative_elbo(x, noise)[0].sum().backward()
    found = {name: p.grad for name, p in model.named_parameters().items()}
    for p in model.parameters():
        p.grad = None
    z = ops.reparameterize(*model.encode(x), noise)
    (ops.squared_error(model.mean(z), x.data[None]).sum() * (0.5 / 0.7**2)).backward()
    for name, p in model.named_parameters().items():
        np.testing.assert_allclose(found[name], p.grad, rtol=1e-12, atol=1e-12, err_msg=name)
        assert p.grad.any()


# ---- sampling: L15, L17, L18 ----


@pytest.mark.parametrize("seed", range(4))
def test_negative_elbo_closed_form_kl_is_mean_of_monte_carlo_kl(rng, seed):
    """L15."""
    model, x = small_vae(seed=seed), rng.random(6)
    closed = estimates(model, x, 1, rng)[1].item()
    sampled = estimates(model, x, 50_000, rng, monte_carlo_kl=True)[1]
    assert abs(sampled.mean() - closed) < 3 * standard_error(sampled)
    assert sampled.std() > 0.1


def test_negative_elbo_variance_falls_as_one_over_samples(rng):
    """L17."""
    model, x = small_vae(), rng.random(6)
    counts = [1, 2, 4, 8, 16, 32, 64]
    draws = [estimates(model, x, 8000, rng, samples)[0] for samples in counts]
    slope, _ = np.polyfit(np.log(counts), [np.log(d.var()) for d in draws], 1)
    assert slope == pytest.approx(-1, abs=0.05)
    for few, many in pairwise(draws):  # and whatever M, the mean is the same
        assert abs(few.mean() - many.mean()) < 3 * math.hypot(standard_error(few), standard_error(many))


def test_negative_elbo_draws_z_with_mean_and_variance_of_encoder(rng):
    """L18: logvar is log sigma^2, and sigma multiplies the noise."""
    seen = []

    class Watched(VAE):
        def decode(self, z, y=None):
            seen.append(z.data)
            return super().decode(z, y)

    model = Watched(VAEConfig(2, 3, (), (), likelihood="gaussian-fixed"), rng, np.float64)
    mu, logvar = np.array([-1.0, 0.0, 2.0]), np.array([-2.0, 0.5, 1.5])
    for head, values in [(model.encoder_mu, mu), (model.encoder_logvar, logvar)]:
        head.weight.write(np.zeros((2, 3)))
        head.bias.write(values)
    n = 200_000
    estimates(model, np.zeros(2), n, rng)
    z = seen[0].reshape(n, 3)
    np.testing.assert_allclose(z.var(axis=0), np.exp(logvar), rtol=0.01)
    np.testing.assert_array_less(np.abs(z.mean(axis=0) - mu), 4 * np.exp(logvar / 2) / math.sqrt(n))


# ---- bounds, where log p(x) is known ----


@pytest.mark.usefixtures("kernel_set")
@pytest.mark.parametrize("samples", [1, 7])
def test_bounds_with_exact_posterior_are_log_p(rng, samples):
    """Every importance weight p(x, z) / p(z|x) is p(x), whatever the noise."""
    exact = LinearGaussian()
    x = exact.draw(20, rng)
    noise = Tensor(3 * rng.standard_normal((samples, 20, 2)))
    weights = exact.model.log_weights(Tensor(x), noise).data
    np.testing.assert_allclose(weights, np.tile(exact.log_p(x), (samples, 1)), rtol=0, atol=1e-10)
    bound = exact.model.importance_bound(Tensor(x), noise).data
    np.testing.assert_allclose(bound, exact.log_p(x), rtol=0, atol=1e-10)
    reconstruction, kl = exact.model.negative_elbo(Tensor(x), noise, monte_carlo_kl=True)
    np.testing.assert_allclose(-(reconstruction + kl).data, exact.log_p(x), rtol=0, atol=1e-10)


@closed_form_or_monte_carlo
@pytest.mark.parametrize(("shift", "stretch"), [(0.0, 1.0), (0.5, 1.0), (0.3, 1.5)])
def test_negative_elbo_gap_is_kl_to_posterior(rng, monte_carlo_kl, shift, stretch):
    """log p(x) - ELBO = KL(q(z|x) || p(z|x))."""
    linear = LinearGaussian(shift, stretch)
    x = linear.draw(1, rng)
    reconstruction, kl = estimates(linear.model, x[0], 50_000, rng, monte_carlo_kl=monte_carlo_kl)
    elbo = -(reconstruction + kl)
    assert abs(elbo.mean() - (linear.log_p(x)[0] - linear.gap)) < 3 * standard_error(elbo) + 1e-10


def test_importance_bound_rises_to_log_p_with_samples(rng):
    """L12: E[ELBO] = E[L_1] < E[L_4] < E[L_16] < log p(x), and L_K converges to it."""
    linear = LinearGaussian(shift=0.5, stretch=1.5)
    x = linear.draw(1, rng)
    log_p = linear.log_p(x)[0]
    means, errors = [], []
    with no_grad():
        for samples, n in [(1, 50_000), (4, 50_000), (16, 50_000), (3000, 100)]:
            noise = Tensor(rng.standard_normal((samples, n, 2)))
            bounds = linear.model.importance_bound(Tensor(np.tile(x, (n, 1))), noise).data
            means.append(bounds.mean())
            errors.append(standard_error(bounds))
    assert abs(means[0] - (log_p - linear.gap)) < 3 * errors[0]
    for i, above in enumerate([*means[1:3], log_p]):
        assert means[i] + 3 * errors[i] < above
    assert means[3] == pytest.approx(log_p, abs=0.005)


def test_negative_elbo_is_unbiased_for_any_number_of_samples(rng):
    """L17, where E_q log p(x|z) is known: squares of a Gaussian."""
    linear = LinearGaussian(shift=0.3, stretch=1.5)
    x = linear.draw(1, rng)
    mu, logvar = (out.data for out in linear.model.encode(Tensor(x)))
    square = ((x - mu @ linear.weight - linear.bias) ** 2).sum() + (np.exp(logvar) @ linear.weight**2).sum()
    expected = square / (2 * SIGMA**2) + 5 * math.log(SIGMA * math.sqrt(2 * math.pi))
    for samples in (1, 10):
        draws = estimates(linear.model, x[0], 20_000, rng, samples)[0]
        assert abs(draws.mean() - expected) < 3 * standard_error(draws)


def test_score_function_loss_is_unbiased_and_varies_more_than_reparametrisation(rng):
    """L18, where the gradient of E_q[-log p(x|z)] with respect to mu and logvar is known."""
    linear = LinearGaussian(shift=0.3, stretch=1.5)
    model, x = linear.model, linear.draw(1, rng)
    mu, logvar = (out.data for out in model.encode(Tensor(x)))
    to_mu = (mu @ linear.weight + linear.bias - x) @ linear.weight.T
    to_logvar = np.exp(logvar) * (linear.weight**2).sum(axis=1) / 2
    expected = np.concatenate([to_mu[0], to_logvar[0]]) / SIGMA**2
    copies = Tensor(np.tile(x, (100, 1)))

    def gradients(loss):
        found = []
        for _ in range(400):
            for p in model.parameters():
                p.grad = None
            loss(copies, noise_for(model, rng, 1, 100)).mean().backward()
            found.append(np.concatenate([model.encoder_mu.bias.grad, model.encoder_logvar.bias.grad]))
        return np.array(found)

    reparametrised = gradients(lambda *given: model.negative_elbo(*given)[0])
    score_function = gradients(model.score_function_loss)
    assert model.decoder_out.bias.grad is None  # it is for the encoder alone
    for draws in (reparametrised, score_function):
        error = draws.std(axis=0) / math.sqrt(len(draws))
        np.testing.assert_array_less(np.abs(draws.mean(axis=0) - expected), 4 * error)
    assert (score_function.var(axis=0) > 10 * reparametrised.var(axis=0)).all()


# ---- the doubly reparametrised gradient ----


def gradients_of(model, bound):
    """The gradients of the sum of a bound, by the parameters' names."""
    for p in model.parameters():
        p.grad = None
    bound.sum().backward()
    return {name: p.grad for name, p in zip(model.state_dict(), model.parameters(), strict=True)}


def doubly(model, *given):
    return gradients_of(model, model.doubly_reparameterized_bound(*given))


def of_encoder(gradients):
    return np.concatenate([array.ravel() for name, array in gradients.items() if name.startswith("encoder")])


@every_likelihood
def test_doubly_reparameterized_bound_is_the_bound_with_its_gradient_for_the_decoder(rng, likelihood):
    model = small_vae(likelihood)
    x, noise = Tensor(rng.random((4, 6))), noise_for(model, rng, 5, 4)
    bound = model.doubly_reparameterized_bound(x, noise)
    expected = model.importance_bound(x, noise)
    np.testing.assert_allclose(bound.data, expected.data, rtol=1e-12)
    found, expected = doubly(model, x, noise), gradients_of(model, expected)
    for name in found:
        if name.startswith("decoder"):
            np.testing.assert_allclose(found[name], expected[name], rtol=1e-10, atol=1e-12, err_msg=name)
    assert not np.allclose(of_encoder(found), of_encoder(expected), rtol=0.01)


@every_likelihood
def test_doubly_reparameterized_gradient_of_the_encoder_is_the_formula(rng, likelihood):
    """Tucker et al. 2018, equation 8: sum_k w_k^2 d(log w_k)/dz_k dz_k/d(mu, logvar), by differences in z_k."""
    model = small_vae(likelihood)
    x, noise = rng.random((1, 6)), rng.standard_normal((5, 1, 3))
    found = doubly(model, Tensor(x), Tensor(noise))
    with no_grad():
        sigma = np.exp(model.encode(Tensor(x))[1].data / 2)
        log_w = model.log_weights(Tensor(x), Tensor(noise)).data[:, 0]
        shares = np.exp(log_w) / np.exp(log_w).sum()
        slopes, step = np.zeros((5, 3)), 1e-4
        for j in range(3):
            moved = [noise + sign * step * np.eye(3)[j] / sigma for sign in (1, -1)]  # z moves by the step
            up, down = (model.log_weights(Tensor(x), Tensor(each)).data[:, 0] for each in moved)
            slopes[:, j] = (up - down) / (2 * step)
    to_mu = (shares[:, None] ** 2 * slopes).sum(axis=0)
    to_logvar = (shares[:, None] ** 2 * slopes * sigma * noise[:, 0] / 2).sum(axis=0)
    np.testing.assert_allclose(found["encoder_mu.bias"], to_mu, rtol=1e-5, atol=1e-7)
    np.testing.assert_allclose(found["encoder_logvar.bias"], to_logvar, rtol=1e-5, atol=1e-7)


def test_doubly_reparameterized_gradient_is_unbiased_and_varies_less(rng):
    linear = LinearGaussian(shift=0.3, stretch=2.0)
    model, x = linear.model, Tensor(np.tile(linear.draw(1, rng), (20, 1)))
    draws = []
    for _ in range(3000):
        noise = noise_for(model, rng, 8, 20)
        both = doubly(model, x, noise), gradients_of(model, model.importance_bound(x, noise))
        draws.append([np.concatenate([each["encoder_mu.bias"], each["encoder_logvar.bias"]]) for each in both])
    doubled, single = np.moveaxis(np.array(draws), 1, 0)
    error = (doubled - single).std(axis=0) / math.sqrt(len(draws))
    np.testing.assert_array_less(np.abs((doubled - single).mean(axis=0)), 4 * error)
    np.testing.assert_array_less(10 * error, np.abs(single.mean(axis=0)))  # or it would show nothing
    np.testing.assert_array_less(2 * doubled.var(axis=0), single.var(axis=0))


def test_doubly_reparameterized_gradient_of_an_exact_posterior_is_0_for_any_noise(rng):
    exact = LinearGaussian()
    x, noise = Tensor(exact.draw(4, rng)), Tensor(rng.standard_normal((3, 4, 2)))
    np.testing.assert_allclose(of_encoder(doubly(exact.model, x, noise)), 0, atol=1e-10)
    assert np.abs(of_encoder(gradients_of(exact.model, exact.model.importance_bound(x, noise)))).max() > 0.1


# ---- how the decoder begins, and its floor ----


@pytest.mark.usefixtures("kernel_set")
@both_dtypes
@every_likelihood
def test_set_output_bias_gives_mean_picture(rng, dtype, likelihood):
    model = VAE(VAEConfig(6, 3, (5,), (5,), "tanh", likelihood), rng, dtype)
    means = np.array([0.0, 0.001, 0.3, 0.5, 0.9, 1.0])
    model.set_output_bias(means.astype(np.float32))
    picture = model.mean(Tensor(np.zeros((1, 3)), dtype=dtype)).data[0]  # at z = 0 a fresh tanh layer is 0
    expected = np.clip(means, 0.001, 0.999) if likelihood == "bernoulli" else means
    np.testing.assert_allclose(picture, expected, rtol=1e-5)
    assert model.decoder_out.bias.version == 1


def test_set_output_bias_gives_mean_picture_through_a_sigmoid(rng):
    model = VAE(VAEConfig(2, 1, (), (), likelihood="gaussian-fixed", mean_activation="sigmoid"), rng)
    model.set_output_bias(np.array([0.2, 1.0]))
    np.testing.assert_allclose(model.mean(Tensor(np.zeros((1, 1), np.float32))).data[0], [0.2, 0.999], rtol=1e-5)


def test_set_output_bias_takes_means_of_real_values_unchanged(rng):
    model = VAE(VAEConfig(2, 1, likelihood="gaussian"), rng)
    model.set_output_bias(np.array([-3.0, 25.0]))
    np.testing.assert_array_equal(model.decoder_out.bias.data, [-3, 25])


@pytest.mark.usefixtures("kernel_set")
@both_dtypes
def test_decode_keeps_sigma_above_its_floor(rng, dtype):
    model = small_vae("gaussian", dtype=dtype)
    z = Tensor(rng.standard_normal((4, 3)), dtype=dtype)
    for raw, expected in [(-1e4, 2 * math.log(0.3)), (20.0, 20.0)]:  # far above its floor, logvar is what it says
        model.decoder_logvar.weight.write(np.zeros((5, 6)))
        model.decoder_logvar.bias.write(np.full(6, raw))
        np.testing.assert_allclose(model.decode(z)[1].data, expected, rtol=1e-6)
    model.decoder_logvar.weight.write(100 * rng.standard_normal((5, 6)))
    assert (model.decode(z)[1].data >= dtype(2 * math.log(0.3))).all()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"likelihood": "poisson"}, "'poisson' is not one of bernoulli, gaussian, gaussian-fixed"),
        ({"input_dim": 0}, "at least one dimension"),
        ({"latent_dim": 0}, "at least one dimension"),
        ({"encoder_hidden": (4, 0)}, "at least one dimension"),
        ({"decoder_hidden": (-1,)}, "at least one dimension"),
        *(({"sigma": sigma}, "sigma and sigma_floor must be above 0") for sigma in (0.0, math.nan)),
        *(({"sigma_floor": sigma}, "sigma and sigma_floor must be above 0") for sigma in (-0.1, math.nan)),
        ({"initializer": "zeros"}, "'zeros' is not one of glorot_uniform, "),
        ({"likelihood": "gaussian", "mean_activation": "relu"}, "'relu' is not one of identity, sigmoid"),
        ({"mean_activation": "sigmoid"}, "is for Gaussian likelihoods"),
    ],
    ids=str,
)
def test_vae_config_refuses_impossible_settings(options, message):
    with pytest.raises(ValueError, match=message):
        VAEConfig(**options)


def test_vae_refuses_unknown_activation(rng):
    with pytest.raises(ValueError, match="activation 'relo'"):
        VAE(VAEConfig(activation="relo"), rng)


@every_likelihood
def test_negative_elbo_gradient_of_images_is_the_same_with_a_repeated_sample(rng, likelihood):
    model, x = small_vae(likelihood, "tanh", np.float64), rng.random((4, 6))
    noise = rng.standard_normal((1, 4, model.config.latent_dim))
    gradients = []
    for samples in (1, 2):
        images = Tensor(x, requires_grad=True)
        model.negative_elbo(images, Tensor(np.repeat(noise, samples, axis=0)))[0].sum().backward()
        gradients.append(images.grad)
    np.testing.assert_allclose(*gradients, rtol=1e-12)
