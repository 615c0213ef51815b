"""Conditional models: what their networks make of a class against plain NumPy, their gradients, the class in use."""

import numpy as np
import pytest
from gan_helpers import PIXELS, small_gan
from vae_helpers import both_dtypes, every_likelihood, normal_density, small_vae

from scratchgen import Tensor
from scratchgen.gradcheck import gradcheck
from scratchgen.models.gan import GAN, GANConfig, discriminator_loss, generator_loss
from scratchgen.models.labels import one_hot
from scratchgen.models.vae import VAE, VAEConfig
from scratchgen.models.wgan import gradient_penalty
from scratchgen.nn import Conv2d, Dense
from scratchgen.random import RandomStream

SIDE = 4
LABELS = np.array([3, 0, 9, 3])


def classes(labels=LABELS, dtype=np.float64, count=10):
    return Tensor(one_hot(labels, count, dtype))


def conv_vae(**options):
    sizes = {"encoder_hidden": (5,), "decoder_hidden": (6,), "encoder_channels": (2,), "decoder_channels": (3,)}
    return VAE(VAEConfig(SIDE * SIDE, 3, activation="tanh", conditional=True, **sizes, **options), 0, np.float64)


def conv_gan(**options):
    sizes = {"generator_hidden": (), "discriminator_hidden": (), "generator_channels": (3,)}
    options = {"conditional": True, "discriminator_channels": (2,)} | options
    model = GAN(GANConfig(SIDE * SIDE, 5, **sizes, **options), 0, np.float64)
    rng = np.random.default_rng(1)
    for parameter in model.parameters():  # of order 1, biases too
        parameter.write(0.5 * rng.standard_normal(parameter.shape))
    return model


# ---- the VAE ----


def likelihood_of(model, x, z, labels):
    """p(x|z, y) (M, b) of a ``small_vae`` whose decoder looks up a row of weights for each class."""
    config, state = model.config, {name: array.astype(float) for name, array in model.state_dict().items()}
    weight, rows = np.split(state["decoder.layers.0.weight"], [config.latent_dim])
    h = np.tanh(z @ weight + rows[labels] + state["decoder.layers.0.bias"])
    out, logvar = (
        h @ state[f"{name}.weight"] + state[f"{name}.bias"] if f"{name}.bias" in state else None
        for name in ("decoder_out", "decoder_logvar")
    )
    if config.likelihood == "bernoulli":
        p = 1 / (1 + np.exp(-out))
        return (p**x * (1 - p) ** (1 - x)).prod(axis=-1), p
    sigma = config.sigma if logvar is None else np.sqrt(config.sigma_floor**2 + np.exp(logvar))
    return normal_density(x, out, sigma).prod(axis=-1), out


def posterior_of(model, x, labels):
    """mu and logvar of q(z|x, y) of a ``small_vae`` whose encoder looks up a row of weights for each class."""
    state = {name: array.astype(float) for name, array in model.state_dict().items()}
    weight, rows = np.split(state["encoder.layers.0.weight"], [model.config.input_dim])
    h = np.tanh(x @ weight + rows[labels] + state["encoder.layers.0.bias"])
    return (h @ state[f"{name}.weight"] + state[f"{name}.bias"] for name in ("encoder_mu", "encoder_logvar"))


@pytest.mark.usefixtures("kernel_set")
@both_dtypes
@every_likelihood
@pytest.mark.parametrize("samples", [1, 3])
def test_vae_bounds_match_numpy(rng, dtype, likelihood, samples):
    model, y = small_vae(likelihood, dtype=dtype, conditional=True), classes(dtype=dtype)
    x, noise = Tensor(rng.random((4, 6)), dtype=dtype), Tensor(rng.standard_normal((samples, 4, 3)), dtype=dtype)
    mu, logvar = posterior_of(model, x.data.astype(float), LABELS)
    z = mu + np.exp(logvar / 2) * noise.data
    p_x, mean = likelihood_of(model, x.data.astype(float), z, LABELS)
    q, prior = (normal_density(z, *by).prod(axis=-1) for by in ((mu, np.exp(logvar / 2)), (0, 1)))
    reconstruction, _ = model.negative_elbo(x, noise, y=y)
    found = {
        "reconstruction": (reconstruction, -np.log(p_x).mean(axis=0)),
        "weights": (model.log_weights(x, noise, y), np.log(p_x * prior / q)),
        "bound": (model.importance_bound(x, noise, y), np.log((p_x * prior / q).mean(axis=0))),
        "score function": (model.score_function_loss(x, noise, y), -np.log(p_x) * np.log(q)),
        "mean": (model.mean(Tensor(z, dtype=dtype), y), mean),
        "one sample": (model.reconstruction(Tensor(z[0], dtype=dtype), x, y), -np.log(p_x[0])),
    }
    tolerance = {"rtol": 1e-12, "atol": 1e-12} if dtype == np.float64 else {"rtol": 2e-5, "atol": 1e-5}
    for name, (term, expected) in found.items():
        assert (term.dtype, term.shape) == (dtype, expected.shape)
        np.testing.assert_allclose(term.data, expected, **tolerance, err_msg=name)


@pytest.mark.usefixtures("kernel_set")
@every_likelihood
def test_vae_gradients(rng, likelihood):
    model, x = small_vae(likelihood, conditional=True), Tensor(rng.random((4, 6)))
    noise = Tensor(rng.standard_normal((2, 4, 3)))

    def losses(*_):
        return sum(model.negative_elbo(x, noise, y=classes())) - model.importance_bound(x, noise, classes())

    gradcheck(losses, *model.parameters())
    assert model.named_parameters()["decoder.layers.0.weight"].shape == (3 + 10, 5)
    assert model.named_parameters()["encoder.layers.0.weight"].shape == (6 + 10, 5)


@pytest.mark.usefixtures("kernel_set")
@every_likelihood
def test_convolutional_vae_gradients_and_samples(rng, likelihood):
    model, x = conv_vae(likelihood=likelihood), Tensor(rng.random((4, SIDE * SIDE)))
    noise = Tensor(rng.standard_normal((3, 4, 3)))
    together = model.decode(noise, classes())
    first, *rest = model.decoder.layers
    weight, rows = np.split(first.weight.data, [3])
    for sample, z in enumerate(noise.data):
        h = Tensor(np.tanh(z @ weight + rows[LABELS] + first.bias.data))
        for layer in rest:
            h = layer(h)
        np.testing.assert_allclose(together[0].data[sample], model.decoder_out(h).data, rtol=1e-12, atol=1e-12)
    gradcheck(lambda *_: sum(model.negative_elbo(x, noise, y=classes())), *model.parameters())


@every_likelihood
def test_vae_without_weights_for_classes_is_the_unconditional_one(rng, likelihood):
    plain, model = small_vae(likelihood), small_vae(likelihood, conditional=True)
    state = plain.state_dict()
    first = "encoder.layers.0.weight", "decoder.layers.0.weight"
    model.load_state_dict(state | {name: np.concatenate([state[name], np.zeros((10, 5))]) for name in first})
    x, noise = Tensor(rng.random((4, 6))), Tensor(rng.standard_normal((3, 4, 3)))
    for name in ("log_weights", "importance_bound", "score_function_loss"):
        expected = getattr(plain, name)(x, noise).data
        np.testing.assert_allclose(getattr(model, name)(x, noise, classes()).data, expected, rtol=1e-12, err_msg=name)
    for term, expected in zip(model.negative_elbo(x, noise, y=classes()), plain.negative_elbo(x, noise), strict=True):
        np.testing.assert_allclose(term.data, expected.data, rtol=1e-12)


@pytest.mark.usefixtures("kernel_set")
def test_convolutional_encoder_takes_classes_as_planes(rng):
    model, x = conv_vae(), rng.random((4, SIDE * SIDE))
    planes = np.zeros((4, SIDE, SIDE, 11))
    planes[..., 0] = x.reshape(4, SIDE, SIDE)
    planes[range(4), :, :, 1 + LABELS] = 1
    _, *layers = model.encoder.layers
    h = Tensor(planes)
    for layer in layers:
        h = layer(h)
    np.testing.assert_allclose(model.encode(Tensor(x), classes())[0].data, model.encoder_mu(h).data, rtol=1e-12)


def test_vae_draws_another_picture_for_another_class(rng):
    z = Tensor(np.repeat(rng.standard_normal((1, 3)), 10, axis=0))
    for model in (small_vae(conditional=True), conv_vae()):
        pictures = model.mean(z, classes(np.arange(10))).data
        assert len(np.unique(pictures.round(6), axis=0)) == 10


# ---- the GAN ----


@pytest.mark.usefixtures("kernel_set")
def test_generator_matches_numpy(rng):
    model, z = small_gan(np.float64, batch_norm=False, conditional=True), rng.standard_normal((4, 3))
    first, *hidden, last = (
        (layer.weight.data, layer.bias.data) for layer in model.generator.layers if isinstance(layer, Dense)
    )
    weight, rows = np.split(first[0], [3])
    h = np.maximum(z @ weight + rows[LABELS] + first[1], 0)
    for w, b in hidden:
        h = np.maximum(h @ w + b, 0)
    expected = 1 / (1 + np.exp(-(h @ last[0] + last[1])))
    np.testing.assert_allclose(model.generate(Tensor(z), classes()).data, expected, rtol=1e-12)


@pytest.mark.usefixtures("kernel_set")
@pytest.mark.parametrize("pack", [1, 2, 3])
def test_discriminator_takes_each_picture_with_its_class(rng, pack):
    """A pack's first layer is a sum over its pictures, each of its pixels and a row looked up for its class."""
    model = small_gan(np.float64, pack=pack, conditional=True, hidden_dropout=0.0)
    x, labels = rng.random((7, PIXELS)), rng.integers(10, size=7)
    first, *_ = dense = [layer for layer in model.discriminator.layers if isinstance(layer, Dense)]
    own = first.weight.data.reshape(pack, PIXELS + 10, -1)
    h = np.tile(first.bias.data, (7 // pack, 1))
    for n in range(7 // pack * pack):
        h[n // pack] += x[n] @ own[n % pack, :PIXELS] + own[n % pack, PIXELS + labels[n]]
    for layer in dense[1:]:
        h = np.where(h > 0, h, 0.2 * h) @ layer.weight.data + layer.bias.data
    np.testing.assert_allclose(model.discriminate(Tensor(x), classes(labels)).data, h, rtol=1e-11)


@pytest.mark.usefixtures("kernel_set")
@pytest.mark.parametrize(("pack", "count"), [(1, 10), (2, 10), (2, 5)])
def test_convolutional_discriminator_takes_classes_as_planes(rng, pack, count):
    model, x = conv_gan(pack=pack, classes=count), rng.random((5, SIDE * SIDE))
    labels = np.array([3, 0, count - 1, 3, 1])
    planes = np.zeros((5 // pack, SIDE, SIDE, pack, 1 + count))
    for n in range(5 // pack * pack):
        planes[n // pack, :, :, n % pack, 0] = x[n].reshape(SIDE, SIDE)
        planes[n // pack, :, :, n % pack, 1 + labels[n]] = 1
    expected = Tensor(planes.reshape(5 // pack, SIDE, SIDE, pack * (1 + count)))
    layers = model.discriminator.layers
    for layer in layers[next(i for i, layer in enumerate(layers) if isinstance(layer, Conv2d)) :]:
        expected = layer(expected)
    y = classes(labels, count=count)
    np.testing.assert_allclose(model.discriminate(Tensor(x), y).data, expected.data, rtol=1e-12)


@pytest.mark.usefixtures("kernel_set")
@pytest.mark.parametrize("convolutional", [False, True])
def test_gan_gradients_of_both_networks(rng, convolutional):
    if convolutional:
        model, pixels, noise = conv_gan(), SIDE * SIDE, 5
    else:
        model, pixels, noise = small_gan(np.float64, 2, conditional=True, input_dropout=0.2), PIXELS, 3
    z, real, y = Tensor(rng.standard_normal((4, noise))), Tensor(rng.random((4, pixels))), classes()

    def losses(*_):
        model.set_random(RandomStream(1))  # the same masks each time
        on_fake = model.discriminate(model.generate(z, y), y)
        loss = discriminator_loss(model.discriminate(real, y), 0.9)
        return loss + 0.5 * generator_loss(on_fake, "non-saturating")

    gradcheck(losses, *model.parameters())


def test_gan_draws_and_judges_by_class(rng):
    z = Tensor(np.repeat(rng.standard_normal((1, 5)), 10, axis=0))
    x = Tensor(np.repeat(rng.random((1, SIDE * SIDE)), 10, axis=0))
    for channels in ((2,), ()):
        model = conv_gan(pack=1, discriminator_channels=channels, discriminator_batch_norm=False)
        model.eval()
        for found in (model.generate(z, classes(np.arange(10))), model.discriminate(x, classes(np.arange(10)))):
            assert len(np.unique(found.data.round(9), axis=0)) == 10


@pytest.mark.usefixtures("kernel_set")
@pytest.mark.parametrize("channels", [(2,), ()])
@pytest.mark.parametrize("count", [10, 5])
def test_gradient_penalty_is_of_the_gradient_with_respect_to_pixels_alone(rng, channels, count):
    model = conv_gan(pack=1, discriminator_channels=channels, discriminator_batch_norm=False, classes=count)
    y = classes(LABELS % count, count=count)
    real, fake, u = rng.random((4, SIDE * SIDE)), rng.random((4, SIDE * SIDE)), rng.random((4, 1))
    between = Tensor(u * real + (1 - u) * fake, requires_grad=True)
    model.discriminate(between, y).sum().backward()
    expected = np.mean((np.linalg.norm(between.grad, axis=1) - 1) ** 2)
    inputs = (model.discriminator_input(Tensor(x), y) for x in (real, fake))
    found = gradient_penalty(model.discriminator, *inputs, Tensor(u), model.pixels)
    assert found.item() == pytest.approx(expected, rel=1e-10)


# ---- classes where there should be none, and the other way round ----


@pytest.mark.parametrize("conditional", [False, True])
def test_classes_are_given_to_conditional_models_only(rng, conditional):
    says = "takes the classes" if conditional else "takes none: set conditional"
    y = None if conditional else classes()
    vae, gan = small_vae(conditional=conditional), small_gan(np.float64, conditional=conditional)
    convolutional = conv_gan(conditional=conditional)
    for call in (
        lambda: vae.decode(Tensor(np.zeros((4, 3))), y),
        lambda: vae.importance_bound(Tensor(np.zeros((4, 6))), Tensor(np.zeros((2, 4, 3))), y),
        lambda: gan.generate(Tensor(np.zeros((4, 3))), y),
        lambda: gan.discriminate(Tensor(np.zeros((4, PIXELS))), y),
        lambda: convolutional.discriminate(Tensor(np.zeros((4, SIDE * SIDE))), y),
    ):
        with pytest.raises(ValueError, match=says):
            call()


def test_labels_given_are_classes_for_conditional_models_only():
    for make in (small_vae, small_gan):
        np.testing.assert_array_equal(make(conditional=True).labels_given(LABELS), np.eye(10)[LABELS])
        assert make().labels_given(LABELS) is None
        assert make(conditional=True).labels_given(None) is None


def test_classes_must_be_as_many_as_codes():
    with pytest.raises(ValueError, match="do not fit along axis -1"):
        small_vae(conditional=True).decode(Tensor(np.zeros((3, 3))), classes())
    with pytest.raises(ValueError, match="do not fit along axis -1"):
        small_gan(np.float64, conditional=True).discriminate(Tensor(np.zeros((3, PIXELS))), classes())
