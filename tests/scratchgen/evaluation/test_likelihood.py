"""The measures that are taken of a VAE, against plain NumPy and where log p(x) is known."""

import math

import numpy as np
import pytest
from vae_helpers import LinearGaussian, both_dtypes, plain, small_vae, standard_error

from scratchgen.evaluation import likelihood
from scratchgen.evaluation.likelihood import active_units, evaluate_vae, importance_nll, mean_bound
from scratchgen.models.vae import VAE, VAEConfig
from scratchgen.random import RandomStream
from scratchgen.tensor import Tensor


@pytest.mark.parametrize("batch_size", [1, 7, 500])
def test_mean_bound_matches_numpy(rng, batch_size):
    model, x, noise = small_vae(), rng.integers(0, 2, (20, 6)), np.random.default_rng(2).standard_normal((1, 20, 3))
    p_x, _, _, mu, sigma = plain(model, x, noise)
    found = mean_bound(model, x.astype(np.float32), np.random.default_rng(2), batch_size)  # float32 into float64
    reconstruction, kl = -np.log(p_x).mean(), (-np.log(sigma) + (sigma**2 + mu**2 - 1) / 2).sum(axis=1).mean()
    expected = {"neg_elbo": reconstruction + kl, "reconstruction": reconstruction, "kl": kl}
    assert found == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("rows", [1, 35, 2000])
@pytest.mark.parametrize("samples", [1, 10])
def test_importance_nll_with_exact_posterior_is_exact(monkeypatch, rng, rows, samples):
    monkeypatch.setattr(likelihood, "ROWS", rows)
    exact = LinearGaussian()
    x = exact.draw(20, rng)
    assert importance_nll(exact.model, x, samples, rng) == pytest.approx(-exact.log_p(x).mean(), abs=1e-10)


def test_importance_nll_adds_up_the_weights_of_all_parts_of_the_draws(monkeypatch, rng):
    """With 50 draws at a time of 120, and the same noise, it is the bound by all of them at once."""
    model, x, whole = small_vae(), rng.random((3, 6)).astype(np.float32), rng.standard_normal((3, 120, 1, 3))
    drawn = iter([image[start : start + 50] for image in whole for start in (0, 50, 100)])
    monkeypatch.setattr(likelihood, "ROWS", 50)
    monkeypatch.setattr(RandomStream, "normal", lambda *_: Tensor(next(drawn)))
    images = x.astype(float)[:, None]
    expected = np.mean([model.importance_bound(Tensor(images[i]), Tensor(whole[i])).item() for i in range(3)])
    assert importance_nll(model, x, 120, rng) == pytest.approx(-expected, rel=1e-12)
    assert next(drawn, None) is None


def test_importance_nll_nears_log_p_in_batches_of_any_size(monkeypatch, rng):
    linear = LinearGaussian(shift=0.5, stretch=1.5)
    x = linear.draw(50, rng)
    truth = -linear.log_p(x).mean()
    assert importance_nll(linear.model, x, 2000, rng) == pytest.approx(truth, abs=0.005)
    found = {}
    for rows in (20, 130, 2000):  # 1, 6 and all images at a time
        monkeypatch.setattr(likelihood, "ROWS", rows)
        found[rows] = np.array([importance_nll(linear.model, x, 20, rng) for _ in range(40)])
        assert found[rows].mean() > truth
    for rows in (20, 130):
        spread = math.hypot(standard_error(found[rows]), standard_error(found[2000]))
        assert abs(found[rows].mean() - found[2000].mean()) < 3 * spread


def test_measures_of_a_conditional_vae_are_given_each_image_s_label(rng):
    """The mean over images is that of each class alone, whose rows of weights are then as good as biases."""
    model, x, labels = small_vae(conditional=True), rng.random((20, 6)).astype(np.float32), rng.integers(10, size=20)
    state = model.state_dict()
    first = {"encoder.layers.0": 6, "decoder.layers.0": 3}  # and how many inputs it has besides
    found = np.zeros(2)
    for i, label in enumerate(labels):
        alone = small_vae()
        changed = dict(state)
        for name, inputs in first.items():
            changed[f"{name}.weight"], rows = np.split(state[f"{name}.weight"], [inputs])
            changed[f"{name}.bias"] = state[f"{name}.bias"] + rows[label]
        alone.load_state_dict(changed)
        for j, samples in enumerate((1, 4)):
            noise = RandomStream(np.random.default_rng(2)).normal((samples, 20, 3), np.float64).data[:, i : i + 1]
            terms = alone.log_weights(Tensor(x[i : i + 1].astype(float)), Tensor(noise)).data
            found[j] += np.log(np.exp(terms).mean()) / 20
    bound = mean_bound(model, x, np.random.default_rng(2), labels=labels)["reconstruction"]
    noise = Tensor(np.random.default_rng(2).standard_normal((1, 20, 3)))
    y = Tensor(np.eye(10)[labels])
    assert bound == pytest.approx(model.negative_elbo(Tensor(x.astype(float)), noise, y=y)[0].data.mean(), rel=1e-12)
    for j, samples in enumerate((1, 4)):
        nll = importance_nll(model, x, samples, np.random.default_rng(2), labels)
        assert nll == pytest.approx(-found[j], rel=1e-12)
    table = evaluate_vae(model, x, np.random.default_rng(2), 4, 7, labels)
    rng = np.random.default_rng(2)
    assert table["reconstruction"] == mean_bound(model, x, rng, labels=labels)["reconstruction"]
    assert table["nll"] == importance_nll(model, x[:7], 4, rng, labels[:7])


@both_dtypes
def test_active_units_are_counted_over_all_images(rng, dtype):
    """Sorted images: within a batch the means hardly vary. Of variances 1, 0.0101, 0.0099 and 0 two are above 0.01."""
    n = 2 * likelihood.ROWS + 100
    column = np.linspace(-1, 1, n)
    images = np.stack([column / column.std(), np.ones(n)], axis=1).astype(np.float32)
    model = VAE(VAEConfig(2, 4, (), ()), rng, dtype)
    model.encoder_mu.weight.write(np.array([np.sqrt([1, 0.0101, 0.0099, 0]), [3, 1, 1, 5]]))
    assert active_units(model, images) == 2


def test_evaluate_vae_combines_all_measures(rng):
    exact = LinearGaussian()
    x = exact.draw(30, rng)
    table = evaluate_vae(exact.model, x, np.random.default_rng(4), iw_samples=3, nll_images=10)
    assert {name: table[name] for name in ("neg_elbo", "reconstruction", "kl")} == mean_bound(
        exact.model, x, np.random.default_rng(4)
    )
    assert table["nll"] == pytest.approx(-exact.log_p(x[:10]).mean(), abs=1e-10)
    assert (table["iw_samples"], table["nll_images"], table["active_units"]) == (3, 10, 2)
    assert evaluate_vae(exact.model, x, rng, iw_samples=1, nll_images=100)["nll_images"] == 30
