"""Models with convolutional networks: shapes, gradients, what their configurations refuse."""

import math
import re

import numpy as np
import pytest

from scratchgen import ops
from scratchgen.gradcheck import gradcheck
from scratchgen.models.aae import AAE, AAEConfig
from scratchgen.models.gan import GAN, GANConfig
from scratchgen.models.images import moves
from scratchgen.models.vae import LIKELIHOODS, VAE, VAEConfig
from scratchgen.nn import BatchNorm, Conv2d, ConvTranspose2d, Dense
from scratchgen.tensor import Tensor

SIDE = 8
CHANNELS = {"encoder_channels": (2, 3), "decoder_channels": (4, 2)}


def conv_vae(**options):
    return VAE(VAEConfig(SIDE * SIDE, 3, (5,), (6,), "tanh", **CHANNELS, **options), 0, np.float64)


def conv_gan(**options):
    channels = {"generator_channels": (4, 3), "discriminator_channels": (2, 3)}
    sizes = {"generator_hidden": (), "discriminator_hidden": ()}
    return GAN(GANConfig(SIDE * SIDE, 5, **sizes, **channels, **options), 0, np.float64)


def layers_of(network, kind):
    return [layer for layer in network.modules() if isinstance(layer, kind)]


@pytest.mark.parametrize("likelihood", LIKELIHOODS)
def test_vae_decodes_many_samples_as_each_alone(rng, likelihood):
    model, z = conv_vae(likelihood=likelihood), rng.standard_normal((4, 2, 3))
    together = model.decode(Tensor(z))
    for sample in range(4):
        for part, alone in zip(together, model.decode(Tensor(z[sample])), strict=True):
            assert alone.shape == (2, SIDE * SIDE)
            np.testing.assert_allclose(part.data[sample], alone.data, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("likelihood", LIKELIHOODS)
@pytest.mark.usefixtures("kernel_set")
def test_vae_gradients_of_both_terms(rng, likelihood):
    model, x = conv_vae(likelihood=likelihood), Tensor(rng.random((2, SIDE * SIDE)))
    noise = Tensor(rng.standard_normal((2, 2, 3)))
    gradcheck(lambda *_: sum(term.mean() for term in model.negative_elbo(x, noise)), *model.parameters())


@pytest.mark.parametrize("images", [0, 1])
def test_convolutional_networks_take_no_images_too(images):
    model = conv_vae()
    x = Tensor(np.zeros((images, SIDE * SIDE)))
    mu, logvar = model.encode(x)
    assert mu.shape == logvar.shape == (images, model.config.latent_dim)
    assert model.mean(mu).shape == x.shape


def test_vae_output_bias_takes_the_mean_of_all_pixels(rng):
    model, means = conv_vae(), rng.random(SIDE * SIDE)
    model.set_output_bias(means)
    *_, bias = model.decoder_out.parameters()
    np.testing.assert_allclose(1 / (1 + np.exp(-bias.data)), means.mean(), rtol=1e-12)


@pytest.mark.usefixtures("kernel_set")
def test_gan_normalises_all_layers_but_the_first_of_d_and_the_last_of_g(rng):
    model = conv_gan(pack=1)
    assert [layer.mean.size for layer in layers_of(model.generator, BatchNorm)] == [4, 3]
    assert [layer.mean.size for layer in layers_of(model.discriminator, BatchNorm)] == [3]
    assert len(layers_of(model.generator, ConvTranspose2d)) == len(layers_of(model.discriminator, Conv2d)) == 2
    fake = model.generate(Tensor(rng.standard_normal((6, 5))))
    assert fake.shape == (6, SIDE * SIDE)
    assert model.discriminate(fake).shape == (6, 1)
    assert not conv_gan(batch_norm=False).state_dict().keys() & {"generator.layers.2.gamma"}


def test_layers_before_batch_normalisation_have_the_initialisation_of_relu():
    """Their own activation is the identity; the relu comes after the normalisation."""
    side = {"input_dim": 784, "pack": 1, "generator_hidden": (200,), "generator_channels": (32, 32)}
    model = GAN(GANConfig(**side, latent_dim=50, discriminator_channels=(32, 32)), 0)
    weights = [
        layer.weight.data
        for layer in model.generator.layers + model.discriminator.layers
        if isinstance(layer, Dense | Conv2d | ConvTranspose2d) and layer.bias is None
    ]
    fan_ins = [50, 200, 4 * 32, 16 * 32]  # two dense layers and a transposed convolution of G, a convolution of D
    for weight, fan_in in zip(weights, fan_ins, strict=True):
        assert weight.std() == pytest.approx(math.sqrt(2 / fan_in), rel=0.05)


def test_gan_packs_pictures_as_channels(rng):
    model = conv_gan(pack=2)
    first = layers_of(model.discriminator, Conv2d)[0]
    x = rng.random((4, SIDE * SIDE))
    packed = np.stack([x[0], x[1]], axis=-1).reshape(1, SIDE, SIDE, 2)
    expected = ops.leaky_relu(ops.conv2d(Tensor(packed), first.weight, first.bias, stride=2, padding=1), slope=0.2)
    seen = []
    layers = model.discriminator.layers
    place = layers.index(first)
    layers.insert(place + 1, lambda h: seen.append(h) or h)
    model.discriminate(Tensor(x[:3]))  # an incomplete pack is left out
    np.testing.assert_allclose(seen[0].data, expected.data, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("posterior", ["deterministic", "universal"])
def test_aae_gradients(rng, posterior):
    config = AAEConfig(SIDE * SIDE, 2, (5,), (6,), (4,), posterior, 3, **CHANNELS)
    model, x = AAE(config, 0, np.float64), Tensor(rng.random((3, SIDE * SIDE)))
    noise = Tensor(rng.standard_normal((3, 3))) if posterior == "universal" else None
    parameters = model.encoder.parameters() + model.decoder.parameters()
    for parameter in parameters:
        if parameter.ndim == 1:  # biases begin at 0, where relu of a blank window has its kink
            parameter.write(rng.uniform(0.5, 1, parameter.shape))
    gradcheck(lambda *_: ops.bce_with_logits(model.decode(model.encode(x, noise)[0]), x).mean(), *parameters)


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: VAEConfig(63, encoder_channels=(2,)), "images of 63 pixels cannot go through 1 convolutions"),
        (lambda: VAEConfig(784, decoder_channels=(2, 3, 4)), "with a side that is a multiple of 8"),
        (lambda: GANConfig(784, generator_channels=(0, 3)), "channels >= 1"),
        (lambda: AAEConfig(784, encoder_channels=(2, -3)), "channels >= 1"),
    ],
)
def test_configurations_refuse_images_that_cannot_be_halved(make, says):
    with pytest.raises(ValueError, match=re.escape(says)):
        make()


@pytest.mark.parametrize("most", [0, 1, 2])
def test_moves_are_of_up_to_so_many_pixels_and_the_edge_fills_what_is_left(rng, most):
    image, n = rng.random((4, 5)), 100 * (2 * most + 1) ** 2
    images = np.stack([image + i for i in range(n)])  # each image from itself alone
    found = images.ravel()[moves(n, (4, 5), most, rng)].reshape(n, 4, 5) - np.arange(n)[:, None, None]
    counts = []
    for down in range(-most, most + 1):
        for right in range(-most, most + 1):
            expected = image[np.clip(np.arange(4) + down, 0, 3)][:, np.clip(np.arange(5) + right, 0, 4)]
            counts.append(np.isclose(found, expected, rtol=0, atol=1e-9).all(axis=(1, 2)).sum())
    assert sum(counts) == n
    assert 60 < min(counts) <= max(counts) < 140 or most == 0
