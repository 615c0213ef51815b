"""The VAE: its terms against plain NumPy, its gradients, its bounds where log p(x) is known, its training step.

Below are the measures that are taken of it, and the pixels that it sees.
"""

import math
from itertools import pairwise

import numpy as np
import pytest

import kernels
from scratchgen import evaluation, ops
from scratchgen.data.dataset import Dataset, Split
from scratchgen.data.pixels import binarized
from scratchgen.data.strokes import draw_strokes
from scratchgen.evaluation import active_units, evaluate_vae, importance_nll
from scratchgen.gradcheck import gradcheck
from scratchgen.models.vae import LIKELIHOODS, VAE, VAEConfig, VAETask, VAETraining, mean_bound
from scratchgen.optim import Adam, tripling_stages
from scratchgen.tensor import Tensor, no_grad
from scratchgen.training import NotFinite

both_dtypes = pytest.mark.parametrize("dtype", [np.float32, np.float64], ids=["float32", "float64"])
every_likelihood = pytest.mark.parametrize("likelihood", LIKELIHOODS)
both_activations = pytest.mark.parametrize("activation", ["tanh", "softplus"])
closed_form_or_monte_carlo = pytest.mark.parametrize("monte_carlo_kl", [False, True], ids=["closed", "monte carlo"])
one_or_more_samples = pytest.mark.parametrize("samples", [1, 3])


@pytest.fixture(params=kernels.SETS)
def kernel_set(request):
    with kernels.use(request.param):
        yield request.param


@pytest.fixture
def rng():
    return np.random.default_rng(0)


def small_vae(likelihood="bernoulli", activation="tanh", dtype=np.float64, seed=0):
    """A 6-5-3-5-6 VAE whose parameters are all of order 1, biases too."""
    config = VAEConfig(6, 3, (5,), (5,), activation, likelihood, sigma=0.7, sigma_floor=0.3)
    rng = np.random.default_rng(seed)
    model = VAE(config, rng, dtype)
    for p in model.parameters():
        p.write(0.5 * rng.standard_normal(p.shape))
    return model


def noise_for(model, rng, samples, examples):
    return Tensor(rng.standard_normal((samples, examples, model.config.latent_dim)), dtype=model.dtype)


def estimates(model, x, n, rng, samples=1, monte_carlo_kl=False):
    """n independent estimates of the two terms for one example x (d,), each (n,)."""
    with no_grad():
        copies = Tensor(np.tile(x, (n, 1)), dtype=model.dtype)
        terms = model.negative_elbo(copies, noise_for(model, rng, samples, n), monte_carlo_kl)
        return tuple(term.data for term in terms)


def standard_error(draws):
    return draws.std() / math.sqrt(len(draws))


# ---- the terms, once more in NumPy ----


def normal_density(x, mean, sigma):
    return np.exp(-(((x - mean) / sigma) ** 2) / 2) / (sigma * math.sqrt(2 * math.pi))


def plain(model, x, noise):
    """p(x|z), q(z|x) and p(z) (M, b), and mu and sigma of q(z|x), of a ``small_vae`` in float64: as the formulas go."""
    config, state = model.config, {name: array.astype(float) for name, array in model.state_dict().items()}
    activation = np.tanh if config.activation == "tanh" else lambda a: np.log(1 + np.exp(a))

    def dense(name, h):
        return h @ state[f"{name}.weight"] + state[f"{name}.bias"]

    h = activation(dense("encoder.layers.0", x))
    mu, sigma = dense("encoder_mu", h), np.exp(dense("encoder_logvar", h)) ** 0.5
    z = mu + sigma * noise
    h = activation(dense("decoder.layers.0", z))
    if config.likelihood == "bernoulli":
        p = 1 / (1 + np.exp(-dense("decoder_out", h)))
        p_x = p**x * (1 - p) ** (1 - x)
    elif config.likelihood == "gaussian":
        variance = config.sigma_floor**2 + np.exp(dense("decoder_logvar", h))  # softplus(a - f) + f, exponentiated
        p_x = normal_density(x, dense("decoder_out", h), variance**0.5)
    else:
        p_x = normal_density(x, dense("decoder_out", h), config.sigma)
    densities = p_x, normal_density(z, mu, sigma), normal_density(z, 0, 1)
    return *(density.prod(axis=-1) for density in densities), mu, sigma


@pytest.mark.usefixtures("kernel_set")
@both_dtypes
@every_likelihood
@both_activations
@one_or_more_samples
def test_terms_against_plain_numpy(rng, dtype, likelihood, activation, samples):
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


def test_soft_targets_are_a_cross_entropy(rng):
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
def test_gradients_of_the_loss(rng, likelihood, activation, monte_carlo_kl, samples, beta):
    model = small_vae(likelihood, activation)
    x, noise = Tensor(rng.random((4, 6))), noise_for(model, rng, samples, 4)

    def loss(*_):
        reconstruction, kl = model.negative_elbo(x, noise, monte_carlo_kl)
        return reconstruction + beta * kl

    assert len(model.parameters()) == (12 if likelihood == "gaussian" else 10)
    gradcheck(loss, *model.parameters())


@pytest.mark.usefixtures("kernel_set")
@every_likelihood
def test_gradients_of_the_importance_bound(rng, likelihood):
    model = small_vae(likelihood)
    x, noise = Tensor(rng.random((4, 6))), noise_for(model, rng, 5, 4)
    gradcheck(lambda *_: model.importance_bound(x, noise), *model.parameters())


@pytest.mark.usefixtures("kernel_set")
def test_a_fixed_sigma_is_least_squares(rng):
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
def test_closed_form_kl_is_the_mean_of_monte_carlo_kl(rng, seed):
    """L15."""
    model, x = small_vae(seed=seed), rng.random(6)
    closed = estimates(model, x, 1, rng)[1].item()
    sampled = estimates(model, x, 50_000, rng, monte_carlo_kl=True)[1]
    assert abs(sampled.mean() - closed) < 3 * standard_error(sampled)
    assert sampled.std() > 0.1


def test_variance_of_the_estimator_falls_as_one_over_samples(rng):
    """L17."""
    model, x = small_vae(), rng.random(6)
    counts = [1, 2, 4, 8, 16, 32, 64]
    draws = [estimates(model, x, 8000, rng, samples)[0] for samples in counts]
    slope, _ = np.polyfit(np.log(counts), [np.log(d.var()) for d in draws], 1)
    assert slope == pytest.approx(-1, abs=0.05)
    for few, many in pairwise(draws):  # and whatever M, the mean is the same
        assert abs(few.mean() - many.mean()) < 3 * math.hypot(standard_error(few), standard_error(many))


def test_the_code_has_the_mean_and_variance_of_the_encoder(rng):
    """L18: logvar is log sigma^2, and sigma multiplies the noise."""
    seen = []

    class Watched(VAE):
        def decode(self, z):
            seen.append(z.data)
            return super().decode(z)

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

SIGMA = 0.5


class LinearGaussian:
    """A VAE without hidden layers: p(x|z) = N(z W + b, SIGMA^2 I), so that x ~ N(b, W^T W + SIGMA^2 I).

    The rows of W are orthogonal, so the posterior is diagonal and the encoder can be it. ``shift``, in posterior
    standard deviations, and ``stretch``, of its variance, move the encoder away from it, at ``gap`` = KL(q || p(z|x)).
    """

    def __init__(self, shift=0.0, stretch=1.0):
        rng = np.random.default_rng(7)
        d, j = 5, 2
        scale = np.array([1.2, 0.6])
        self.weight = scale[:, None] * np.linalg.qr(rng.standard_normal((d, j)))[0].T
        self.bias = rng.standard_normal(d)
        variance = 1 / (1 + scale**2 / SIGMA**2)
        to_mean = self.weight.T * variance / SIGMA**2
        config = VAEConfig(d, j, (), (), likelihood="gaussian-fixed", sigma=SIGMA)
        self.model = VAE(config, rng, np.float64)
        written = {
            "encoder_mu.weight": to_mean,
            "encoder_mu.bias": -self.bias @ to_mean + shift * np.sqrt(variance),
            "encoder_logvar.weight": np.zeros((d, j)),
            "encoder_logvar.bias": np.log(stretch * variance),
            "decoder_out.weight": self.weight,
            "decoder_out.bias": self.bias,
        }
        self.model.load_state_dict(written)
        self.gap = j * (stretch - 1 - math.log(stretch) + shift**2) / 2

    def draw(self, n, rng):
        z, noise = rng.standard_normal((n, 2)), rng.standard_normal((n, 5))
        return z @ self.weight + self.bias + SIGMA * noise

    def log_p(self, x):
        covariance = self.weight.T @ self.weight + SIGMA**2 * np.eye(5)
        off = x - self.bias
        distance = np.einsum("ni,ij,nj->n", off, np.linalg.inv(covariance), off)
        return -(distance + np.linalg.slogdet(2 * math.pi * covariance)[1]) / 2


@pytest.mark.usefixtures("kernel_set")
@pytest.mark.parametrize("samples", [1, 7])
def test_with_the_posterior_every_bound_is_log_p(rng, samples):
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
def test_the_gap_of_the_elbo_is_the_kl_to_the_posterior(rng, monte_carlo_kl, shift, stretch):
    """L14."""
    linear = LinearGaussian(shift, stretch)
    x = linear.draw(1, rng)
    reconstruction, kl = estimates(linear.model, x[0], 50_000, rng, monte_carlo_kl=monte_carlo_kl)
    elbo = -(reconstruction + kl)
    assert abs(elbo.mean() - (linear.log_p(x)[0] - linear.gap)) < 3 * standard_error(elbo) + 1e-10


def test_more_samples_bring_the_bound_up_to_log_p(rng):
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


def test_the_m_sample_estimate_is_unbiased(rng):
    """L17, where E_q log p(x|z) is known: squares of a Gaussian."""
    linear = LinearGaussian(shift=0.3, stretch=1.5)
    x = linear.draw(1, rng)
    mu, logvar = (out.data for out in linear.model.encode(Tensor(x)))
    square = ((x - mu @ linear.weight - linear.bias) ** 2).sum() + (np.exp(logvar) @ linear.weight**2).sum()
    expected = square / (2 * SIGMA**2) + 5 * math.log(SIGMA * math.sqrt(2 * math.pi))
    for samples in (1, 10):
        draws = estimates(linear.model, x[0], 20_000, rng, samples)[0]
        assert abs(draws.mean() - expected) < 3 * standard_error(draws)


def test_both_gradient_estimators_are_unbiased_and_reparametrisation_varies_less(rng):
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


# ---- how the decoder begins, and its floor ----


@pytest.mark.usefixtures("kernel_set")
@both_dtypes
@every_likelihood
def test_the_output_bias_gives_the_mean_picture(rng, dtype, likelihood):
    model = VAE(VAEConfig(6, 3, (5,), (5,), "tanh", likelihood), rng, dtype)
    means = np.array([0.0, 0.001, 0.3, 0.5, 0.9, 1.0])
    model.set_output_bias(means.astype(np.float32))
    picture = model.mean(Tensor(np.zeros((1, 3)), dtype=dtype)).data[0]  # at z = 0 a fresh tanh layer is 0
    expected = np.clip(means, 0.001, 0.999) if likelihood == "bernoulli" else means
    np.testing.assert_allclose(picture, expected, rtol=1e-5)
    assert model.decoder_out.bias.version == 1


def test_means_of_real_data_are_taken_as_they_are(rng):
    model = VAE(VAEConfig(2, 1, likelihood="gaussian"), rng)
    model.set_output_bias(np.array([-3.0, 25.0]))
    np.testing.assert_array_equal(model.decoder_out.bias.data, [-3, 25])


@pytest.mark.usefixtures("kernel_set")
@both_dtypes
def test_sigma_stays_above_its_floor(rng, dtype):
    model = small_vae("gaussian", dtype=dtype)
    z = Tensor(rng.standard_normal((4, 3)), dtype=dtype)
    for raw, expected in [(-1e4, 2 * math.log(0.3)), (20.0, 20.0)]:  # far above its floor, logvar is what it says
        model.decoder_logvar.weight.write(np.zeros((5, 6)))
        model.decoder_logvar.bias.write(np.full(6, raw))
        np.testing.assert_allclose(model.decode(z)[1].data, expected, rtol=1e-6)
    model.decoder_logvar.weight.write(100 * rng.standard_normal((5, 6)))
    assert (model.decode(z)[1].data >= dtype(2 * math.log(0.3))).all()


@pytest.mark.parametrize(
    ("make", "options", "message"),
    [
        (VAEConfig, {"likelihood": "poisson"}, "'poisson' is not one of bernoulli, gaussian, gaussian-fixed"),
        (VAEConfig, {"input_dim": 0}, "at least one dimension"),
        (VAEConfig, {"latent_dim": 0}, "at least one dimension"),
        (VAEConfig, {"encoder_hidden": (4, 0)}, "at least one dimension"),
        (VAEConfig, {"decoder_hidden": (-1,)}, "at least one dimension"),
        *((VAEConfig, {"sigma": sigma}, "sigma and sigma_floor are above 0") for sigma in (0.0, math.nan)),
        *((VAEConfig, {"sigma_floor": sigma}, "sigma and sigma_floor are above 0") for sigma in (-0.1, math.nan)),
        (VAEConfig, {"initializer": "zeros"}, "'zeros' is not one of glorot_uniform, "),
        (VAETraining, {"schedule": "sawtooth"}, "'sawtooth' is not one of constant, cosine, tripling"),
        (VAETraining, {"binarize": "always"}, "'always' is not one of none, static, dynamic"),
        *((VAETraining, {"samples": n}, "^samples >= 1 is needed$") for n in (0, -1)),
        *((VAETraining, {"lr": lr}, "^lr > 0 is needed$") for lr in (0.0, -1.0, math.nan)),
        *((VAETraining, {"beta": beta}, "^beta >= 0 is needed$") for beta in (-0.1, math.nan)),
        *((VAETraining, {"beta_warmup": epochs}, "^beta_warmup >= 0 is needed$") for epochs in (-0.1, math.nan)),
    ],
    ids=str,
)
def test_impossible_settings_are_refused(make, options, message):
    with pytest.raises(ValueError, match=message):
        make(**options)


def test_an_unknown_activation_is_refused(rng):
    with pytest.raises(ValueError, match="activation 'relo'"):
        VAE(VAEConfig(activation="relo"), rng)


# ---- the training step ----

TRAININGS = pytest.mark.parametrize(
    "training",
    [
        VAETraining(lr=0.01),
        VAETraining(lr=0.01, samples=3, monte_carlo_kl=True, beta=0.5, binarize="static"),
        VAETraining(lr=0.01, schedule="tripling", beta=2.0, beta_warmup=2.5, binarize="dynamic"),
    ],
    ids=["plain", "monte carlo", "staged"],
)
EPOCHS, STEPS = 3, 4  # and steps an epoch
LABELS = np.zeros(8, np.int64)


def task_of(training, seed=0, **options):
    return VAETask(small_vae(dtype=np.float32, seed=seed, **options), training, STEPS, EPOCHS)


def batches(count):
    return np.random.default_rng(5).random((count, 8, 6), dtype=np.float32)


@TRAININGS
def test_a_step_is_the_algorithm(training):
    """L19, step by step: noise, the two terms, their gradient, Adam."""
    task, model = task_of(training), small_vae(dtype=np.float32)
    optimizer, rng, same_rng = Adam(model), np.random.default_rng(1), np.random.default_rng(1)
    for step, images in enumerate(batches(EPOCHS * STEPS)):
        warmup = training.beta_warmup * STEPS
        beta = training.beta * min(1, step / warmup) if warmup else training.beta
        assert task.beta() == pytest.approx(beta)
        metrics = task.step(images, LABELS, rng)

        x = binarized(images, same_rng) if training.binarize == "dynamic" else images
        noise = same_rng.standard_normal((training.samples, 8, 3), dtype=np.float32)
        terms = model.negative_elbo(Tensor(x), Tensor(noise), training.monte_carlo_kl)
        reconstruction, kl = (term.mean() for term in terms)
        optimizer.lr = tripling_stages(0.01, EPOCHS * STEPS)(step) if training.schedule == "tripling" else 0.01
        optimizer.zero_grad()
        (reconstruction + beta * kl).backward()
        optimizer.step()
        assert list(metrics) == ["neg_elbo", "reconstruction", "kl"]
        assert metrics["neg_elbo"] == metrics["reconstruction"] + metrics["kl"]
        assert metrics["reconstruction"] == pytest.approx(reconstruction.item(), rel=1e-5)
        assert metrics["kl"] == pytest.approx(kl.item(), rel=1e-5)
    for name, array in task.model.state_dict().items():
        np.testing.assert_allclose(array, model.state_dict()[name], atol=1e-5, err_msg=name)


def test_beta_ramps_up_and_stays():
    task = task_of(VAETraining(beta=0.5, beta_warmup=2))
    found = []
    for images in batches(10):
        found.append(task.beta())
        task.step(images, LABELS, np.random.default_rng(0))
    assert found == [0, 1 / 16, 2 / 16, 3 / 16, 4 / 16, 5 / 16, 6 / 16, 7 / 16, 0.5, 0.5]


@pytest.mark.parametrize(
    ("where", "value", "named", "fine"),
    [
        ("images", math.nan, ["reconstruction is nan", "kl is nan"], []),
        ("encoder_logvar.bias", math.nan, ["reconstruction is nan", "kl is nan"], []),
        ("decoder_out.bias", math.nan, ["reconstruction is nan"], ["kl"]),
        ("encoder_mu.bias", 1e30, ["kl is inf"], ["reconstruction"]),  # its square is not a float32
    ],
    ids=["images", "encoder", "decoder", "overflow"],
)
def test_what_is_not_finite_is_named_before_anything_changes(where, value, named, fine):
    task, rng = task_of(VAETraining()), np.random.default_rng(0)
    first, images = batches(2)
    task.step(first, LABELS, rng)
    if where == "images":
        images[3, 2] = value
    else:
        parameter = task.model.named_parameters()[where]
        parameter.write(np.full(parameter.shape, value))
    before = {name: array.tobytes() for name, array in task.state().items()}
    with pytest.raises(NotFinite) as error:
        task.step(images, LABELS, rng)
    assert all(text in str(error.value) for text in named)
    assert not any(text in str(error.value) for text in fine)
    assert {name: array.tobytes() for name, array in task.state().items()} == before


@every_likelihood
def test_training_lowers_the_loss(rng, likelihood):
    images = draw_strokes(160, rng).images
    model = VAE(VAEConfig(784, 4, (16,), (16,), likelihood=likelihood), rng)
    task = VAETask(model, VAETraining(lr=0.01), 8, 10)
    metrics = [task.step(images[20 * (i % 8) :][:20], LABELS, rng) for i in range(80)]
    first, last = (np.mean([f["neg_elbo"] for f in part]) for part in (metrics[:8], metrics[-8:]))
    assert last < first - 100
    assert metrics[-1]["kl"] > 1  # the code is in use
    unseen = draw_strokes(100, rng).images
    assert mean_bound(model, unseen, rng)["neg_elbo"] < first - 100


@TRAININGS
def test_a_loaded_task_continues_bit_for_bit(training):
    task, rng = task_of(training), np.random.default_rng(1)
    images = batches(8)
    for batch in images[:4]:
        task.step(batch, LABELS, rng)
    state, stream = task.state(), rng.bit_generator.state
    metrics = [task.step(batch, LABELS, rng) for batch in images[4:]]

    resumed = task_of(training, seed=9)
    resumed.load_state(state)
    rng.bit_generator.state = stream
    assert [resumed.step(batch, LABELS, rng) for batch in images[4:]] == metrics
    assert {k: a.tobytes() for k, a in resumed.state().items()} == {k: a.tobytes() for k, a in task.state().items()}


def test_the_state_of_another_model_is_refused():
    state = task_of(VAETraining(), likelihood="gaussian").state()
    task = task_of(VAETraining())
    with pytest.raises(ValueError, match=r"unexpected \['decoder_logvar.bias', 'decoder_logvar.weight'\]"):
        task.load_state(state)
    without_moments = {name: array for name, array in task.state().items() if name != "optimizer.v"}
    with pytest.raises(ValueError, match="Adam keeps"):
        task.load_state(without_moments)


@pytest.mark.parametrize("binarize", ["none", "static", "dynamic"])
def test_evaluate_sees_pixels_as_training_does(binarize):
    task, images = task_of(VAETraining(binarize=binarize)), batches(1)[0]
    empty = Split(images[:0], LABELS[:0])
    found = task.evaluate(Dataset("toy", empty, Split(images, LABELS)), np.random.default_rng(3))
    rng = np.random.default_rng(3)  # static pixels come binarised
    assert found == mean_bound(task.model, binarized(images, rng) if binarize == "dynamic" else images, rng)


# ---- measures ----


@pytest.mark.parametrize("batch_size", [1, 7, 500])
def test_mean_bound(rng, batch_size):
    model, x, noise = small_vae(), rng.integers(0, 2, (20, 6)), np.random.default_rng(2).standard_normal((1, 20, 3))
    p_x, _, _, mu, sigma = plain(model, x, noise)
    found = mean_bound(model, x.astype(np.float32), np.random.default_rng(2), batch_size)  # float32 into float64
    reconstruction, kl = -np.log(p_x).mean(), (-np.log(sigma) + (sigma**2 + mu**2 - 1) / 2).sum(axis=1).mean()
    expected = {"neg_elbo": reconstruction + kl, "reconstruction": reconstruction, "kl": kl}
    assert found == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("rows", [1, 35, 2000])
@pytest.mark.parametrize("samples", [1, 10])
def test_importance_nll_with_the_posterior_is_exact(monkeypatch, rng, rows, samples):
    monkeypatch.setattr(evaluation, "ROWS", rows)
    exact = LinearGaussian()
    x = exact.draw(20, rng)
    assert importance_nll(exact.model, x, samples, rng) == pytest.approx(-exact.log_p(x).mean(), abs=1e-10)


def test_importance_nll_nears_the_truth_in_any_batches(monkeypatch, rng):
    linear = LinearGaussian(shift=0.5, stretch=1.5)
    x = linear.draw(50, rng)
    truth = -linear.log_p(x).mean()
    assert importance_nll(linear.model, x, 2000, rng) == pytest.approx(truth, abs=0.005)
    found = {}
    for rows in (20, 130, 2000):  # 1, 6 and all images at a time
        monkeypatch.setattr(evaluation, "ROWS", rows)
        found[rows] = np.array([importance_nll(linear.model, x, 20, rng) for _ in range(40)])
        assert found[rows].mean() > truth
    for rows in (20, 130):
        spread = math.hypot(standard_error(found[rows]), standard_error(found[2000]))
        assert abs(found[rows].mean() - found[2000].mean()) < 3 * spread


@both_dtypes
def test_active_units_are_counted_over_all_images(rng, dtype):
    """Sorted images: within a batch the means hardly vary. Of variances 1, 0.0101, 0.0099 and 0 two are above 0.01."""
    n = 2 * evaluation.ROWS + 100
    column = np.linspace(-1, 1, n)
    images = np.stack([column / column.std(), np.ones(n)], axis=1).astype(np.float32)
    model = VAE(VAEConfig(2, 4, (), ()), rng, dtype)
    model.encoder_mu.weight.write(np.array([np.sqrt([1, 0.0101, 0.0099, 0]), [3, 1, 1, 5]]))
    assert active_units(model, images) == 2


def test_evaluate_vae_puts_it_together(rng):
    exact = LinearGaussian()
    x = exact.draw(30, rng)
    table = evaluate_vae(exact.model, x, np.random.default_rng(4), iw_samples=3, nll_images=10)
    assert {name: table[name] for name in ("neg_elbo", "reconstruction", "kl")} == mean_bound(
        exact.model, x, np.random.default_rng(4)
    )
    assert table["nll"] == pytest.approx(-exact.log_p(x[:10]).mean(), abs=1e-10)
    assert (table["iw_samples"], table["nll_images"], table["active_units"]) == (3, 10, 2)
    assert evaluate_vae(exact.model, x, rng, iw_samples=1, nll_images=100)["nll_images"] == 30


# ---- pixels ----


@pytest.mark.usefixtures("kernel_set")
@both_dtypes
@pytest.mark.parametrize("order", ["C", "F"])
def test_binarized_pixels_have_their_grey_level_as_mean(rng, dtype, order):
    n, levels = 20_000, np.array([0.0, 0.01, 0.25, 0.5, 0.9, 1.0])
    images = np.array(np.tile(levels, (n, 1)), dtype, order=order)
    drawn = binarized(images, rng)
    assert drawn.shape == images.shape
    assert drawn.dtype == dtype
    assert set(np.unique(drawn)) == {0, 1}
    assert (drawn[:, 0] == 0).all()
    assert (drawn[:, -1] == 1).all()
    error = 4 * np.sqrt(levels * (1 - levels) / n)
    np.testing.assert_array_less(np.abs(drawn.mean(axis=0, dtype=float) - levels), error + 1e-12)
    np.testing.assert_array_equal(images, np.tile(levels.astype(dtype), (n, 1)))


def test_a_black_pixel_stays_black_at_the_lowest_draw_and_a_white_one_white_at_the_highest():
    class Rigged:
        def random(self, shape, dtype):
            return np.full(shape, [[0], [1 - 2**-24]], dtype)

    images = np.tile(np.array([0, 2**-25, 1], np.float32), (2, 1))
    for name in kernels.SETS:
        with kernels.use(name):
            np.testing.assert_array_equal(binarized(images, Rigged()), [[0, 1, 1], [0, 0, 1]])


def test_binarized_draws_pixels_independently_and_repeats_from_its_seed():
    images = np.full((10_000, 4), 0.5, np.float32)
    drawn = binarized(images, np.random.default_rng(0))
    np.testing.assert_array_equal(drawn, binarized(images, np.random.default_rng(0)))
    assert np.abs(np.corrcoef(drawn.T) - np.eye(4)).max() < 0.04
