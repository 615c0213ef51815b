"""The GAN: its losses against their formulas, its gradients, its noise and pictures."""

import math

import numpy as np
import pytest
from gan_helpers import PIXELS, every_discriminator, small_gan

from scratchgen import Tensor, gradcheck
from scratchgen.models.gan import GENERATOR_OBJECTIVES, GANConfig, discriminator_loss, generator_loss
from scratchgen.random import RandomStream
from scratchgen.tensor import no_grad

SMOOTH = 2  # a seed with no kink of relu or maxout within the step of a finite difference
every_objective = pytest.mark.parametrize("objective", GENERATOR_OBJECTIVES)


# ---- losses ----


@pytest.mark.usefixtures("kernel_set")
@pytest.mark.parametrize("label", [0.0, 0.9, 1.0])
def test_discriminator_loss_is_cross_entropy_of_its_probability(label, rng):
    a = rng.normal(0, 3, (20, 1))
    d = 1 / (1 + np.exp(-a))
    expected = -np.mean(label * np.log(d) + (1 - label) * np.log(1 - d))
    assert discriminator_loss(Tensor(a), label).item() == pytest.approx(expected, rel=1e-12)


# What G minimises as a function of D = s, and the size of its derivative by the logit (L22).
FORMULAS = {
    "minimax": (lambda s: np.log(1 - s), lambda s: s),
    "non-saturating": (lambda s: -np.log(s), lambda s: 1 - s),
    "literal": (lambda s: -s, lambda s: s * (1 - s)),
}


@every_objective
@pytest.mark.usefixtures("kernel_set")
def test_generator_loss_and_size_of_its_gradient(objective):
    logits = Tensor(np.linspace(-6, 6, 25)[:, None], requires_grad=True)
    s = 1 / (1 + np.exp(-logits.data))
    value, size = FORMULAS[objective]
    loss = generator_loss(logits, objective)
    loss.backward()
    assert loss.item() == pytest.approx(value(s).mean(), rel=1e-12)
    np.testing.assert_allclose(logits.grad * len(s), -size(s), rtol=1e-12)


@every_objective
def test_generator_loss_is_finite_however_sure_the_discriminator_is(objective):
    for sure in (-1e4, 1e4):
        logits = Tensor(np.full((3, 1), sure, np.float32), requires_grad=True)
        loss = generator_loss(logits, objective)
        loss.backward()
        assert math.isfinite(loss.item())
        assert np.isfinite(logits.grad).all()


@every_discriminator
@every_objective
@pytest.mark.parametrize("batch_norm", [False, True])
@pytest.mark.usefixtures("kernel_set")
def test_gan_gradients_of_both_networks(discriminator, objective, batch_norm):
    rng = np.random.default_rng(SMOOTH)
    model = small_gan(np.float64, SMOOTH, discriminator=discriminator, batch_norm=batch_norm, input_dropout=0.2)
    z, real = Tensor(rng.standard_normal((4, 3))), Tensor(rng.random((4, PIXELS)))

    def losses(*_):
        model.set_random(RandomStream(1))  # the same masks each time
        fake = model.discriminate(model.generate(z))
        return discriminator_loss(model.discriminate(real), 0.9) + 0.5 * generator_loss(fake, objective)

    gradcheck(losses, *model.parameters())


# ---- the model ----


def test_draw_noise_has_mean_0_and_variance_1():
    random, n = RandomStream(0), 20_000
    for noise in ("normal", "uniform"):
        z = small_gan(noise=noise).draw_noise(n, random).data
        assert z.shape == (n, 3)
        assert z.dtype == np.float32
        assert np.abs(z.mean(axis=0)).max() < 4 / math.sqrt(n)
        np.testing.assert_allclose(z.var(axis=0), 1, rtol=0.05)


def test_generate_stays_in_the_unit_interval_and_is_deterministic_in_evaluation():
    model, random = small_gan(), RandomStream(0)
    z = model.draw_noise(50, random)
    for _ in range(5):
        model.generate(model.draw_noise(50, random))
    model.eval()
    with no_grad():
        pictures = model.generate(z).data
        assert pictures.min() > 0
        assert pictures.max() < 1
        np.testing.assert_allclose(model.generate(Tensor(z.data[:1])).data, pictures[:1], rtol=1e-5)
        first = model.discriminate(Tensor(pictures)).data
        np.testing.assert_array_equal(model.discriminate(Tensor(pictures)).data, first)


@pytest.mark.parametrize("n", [8, 7])
def test_discriminate_judges_packed_pictures_side_by_side(n, rng):
    packed, x = small_gan(pack=2, hidden_dropout=0.0), rng.random((n, PIXELS), dtype=np.float32)
    pairs = np.stack([np.concatenate([x[2 * i], x[2 * i + 1]]) for i in range(n // 2)])
    np.testing.assert_array_equal(packed.discriminate(Tensor(x)).data, packed.discriminator(Tensor(pairs)).data)
    single = small_gan(pack=1, hidden_dropout=0.0)
    np.testing.assert_array_equal(single.discriminate(Tensor(x)).data, single.discriminator(Tensor(x)).data)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"noise": "pink"}, "noise 'pink' is not one of normal, uniform"),
        ({"discriminator": "tree"}, "discriminator 'tree' is not one of leaky_relu, maxout"),
        ({"initializer": "zero"}, "initializer 'zero' is not one of"),
        ({"latent_dim": 0}, "at least one dimension"),
        ({"pack": 0}, "pack >= 1 is needed"),
        ({"generator_hidden": (5, 0)}, "at least one dimension"),
    ],
)
def test_gan_config_refuses_impossible_settings(options, message):
    with pytest.raises(ValueError, match=message):
        GANConfig(**options)
