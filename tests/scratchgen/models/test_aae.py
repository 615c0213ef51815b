"""The adversarial autoencoder: its codes, who sees the labels, and its gradients."""

import math
from dataclasses import replace

import numpy as np
import pytest
from aae_helpers import PIXELS, every_kind, small_aae

from scratchgen import Tensor, gradcheck, ops
from scratchgen.data.dataset import UNLABELLED
from scratchgen.models.aae import AAE, LABELS_FOR, POSTERIORS, AAEConfig
from scratchgen.models.gan import discriminator_loss, generator_loss
from scratchgen.models.labels import one_hot
from scratchgen.nn import BatchNorm
from scratchgen.random import RandomStream
from scratchgen.recipes.aae import encode

SMOOTH = 9  # a seed with no kink of relu within the step of a finite difference


def test_one_hot():
    labels = np.array([3, UNLABELLED, 0])
    np.testing.assert_array_equal(one_hot(labels, 10, np.float32), [np.eye(10)[3], np.zeros(10), np.eye(10)[0]])
    six = one_hot(labels, 5, np.float64, unlabelled=True)
    np.testing.assert_array_equal(six, [np.eye(6)[3], np.eye(6)[5], np.eye(6)[0]])
    assert six.dtype == np.float64


@pytest.mark.parametrize("posterior", POSTERIORS)
def test_encode_draws_from_the_posterior(posterior):
    """One code an image, or a normal distribution with mean and variance by the formula, or some other one."""
    rng, n = np.random.default_rng(0), 20_000
    model = small_aae(posterior, np.float64)
    x = Tensor(np.repeat(rng.random((1, PIXELS)), n, axis=0))
    noise = model.draw_noise(n, RandomStream(rng))
    z = model.encode(x, noise)[0].data
    assert z.shape == (n, 2)
    np.testing.assert_array_equal(model.encode(x, noise)[0].data, z)
    if posterior == "deterministic":
        assert noise is None
        np.testing.assert_allclose(z, z[:1].repeat(n, axis=0), rtol=1e-12)
        return
    assert z.std(axis=0).min() > 1e-3
    if posterior == "gaussian":
        h = model.encoder.body(Tensor(x.data[:1]))
        mean, sd = model.encoder.code(h).data[0], np.exp(model.encoder.logvar(h).data[0] / 2)
        assert (np.abs(z.mean(axis=0) - mean) < 4 * sd / math.sqrt(n)).all()
        np.testing.assert_allclose(z.std(axis=0), sd, rtol=0.03)
    else:
        assert noise.shape == (n, 2)


def test_labels_given_go_to_the_network_that_takes_them(rng):
    labels = np.array([1, UNLABELLED])
    z = Tensor(rng.standard_normal((2, 2)), dtype=np.float32)
    regions, plain = small_aae("regions"), small_aae()
    seen = regions.beside_labels(z, Tensor(regions.labels_given(labels)))
    np.testing.assert_array_equal(seen.data, np.concatenate([z.data, np.eye(11)[[1, 10]]], axis=1))
    assert plain.labels_given(labels) is None
    assert plain.beside_labels(z, None) is z
    assert regions.decoder_classes(None, Tensor(regions.labels_given(labels))) is None
    supervised = small_aae("supervised")
    given = supervised.decoder_classes(None, Tensor(supervised.labels_given(labels)))
    assert supervised.beside_labels(z, given) is z
    np.testing.assert_array_equal(given.data, [np.eye(10)[1], np.zeros(10)])
    code = Tensor(rng.standard_normal((2, 3)), dtype=np.float32)
    assert not np.array_equal(
        supervised.mean(code, given).data[0], supervised.mean(code, Tensor(one_hot(labels * 0, 10, "f4"))).data[0]
    )
    semi = small_aae("semi-supervised")
    _, logits = semi.encode(Tensor(rng.random((2, PIXELS)), dtype=np.float32))
    e = np.exp(logits.data)
    np.testing.assert_allclose(semi.decoder_classes(logits, None).data, e / e.sum(1, keepdims=True), rtol=1e-5)


@every_kind
@pytest.mark.usefixtures("kernel_set")
def test_aae_gradients_of_every_loss(kind):
    rng = np.random.default_rng(SMOOTH)
    model = small_aae(kind, np.float64, SMOOTH)
    x, labels = Tensor(rng.random((4, PIXELS))), np.array([1, 0, UNLABELLED, 7])
    noise, prior = model.draw_noise(4, RandomStream(rng)), Tensor(model.prior.sample(4, rng))
    y = model.labels_given(labels)
    y = None if y is None else Tensor(y)

    def losses(*_):
        z, class_logits = model.encode(x, noise)
        logits = model.decode(z, model.decoder_classes(class_logits, y))
        total = ops.bce_with_logits(logits, x).mean()
        if model.heads:
            total = total + model.heads.penalty(model.config.head_distance)
        total = total + discriminator_loss(model.discriminator(model.beside_labels(prior, y)), 1.0)
        total = total + generator_loss(model.discriminator(model.beside_labels(z, y)), "non-saturating")
        if class_logits is not None:
            total = total + generator_loss(model.class_discriminator(ops.softmax(class_logits)), "non-saturating")
            total = total + ops.softmax_cross_entropy(class_logits, np.abs(labels)).mean()
        return total

    gradcheck(losses, *model.parameters())


@pytest.mark.parametrize("kind", ["batch norm", "gaussian"])
def test_codes_of_a_model_in_training_are_those_of_evaluation(kind, rng):
    """The metrics at the end of an epoch are those of the checkpoint."""
    model, images = small_aae(kind), rng.random((30, PIXELS), dtype=np.float32)
    model.encode(Tensor(images), model.draw_noise(30, RandomStream(0)))  # moves the averages of batch normalisation
    before = model.state_dict()
    found = [array for array in encode(model, images, np.random.default_rng(1)) if array is not None]
    assert all(part.training for part in model.modules())
    assert all(np.array_equal(array, model.state_dict()[name]) for name, array in before.items())
    model.eval()
    z, class_logits = model.encode(Tensor(images), model.draw_noise(30, RandomStream(1)))
    np.testing.assert_allclose(found[0], z.data, rtol=1e-5, atol=1e-6)
    if class_logits is not None:
        np.testing.assert_array_equal(found[1], class_logits.data.argmax(axis=1))


@pytest.mark.parametrize("conv", [False, True])
def test_batch_norm_is_in_every_layer_of_the_encoder_but_a_first_convolution(conv, rng):
    sizes = {"encoder_channels": (2, 3), "decoder_channels": (3, 2)} if conv else {}
    network = AAEConfig(16, 2, (5, 4), (5,), (5,), labels_for="encoder", batch_norm=True, hidden_noise=0.5, **sizes)
    model, x = AAE(network, rng), Tensor(10 * rng.random((50, 16), dtype=np.float32))
    model.set_random(RandomStream(0))
    norms = [part for part in model.modules() if isinstance(part, BatchNorm)]
    assert [norm.gamma.size for norm in norms] == [*([3] if conv else []), 5, 4, 2, 10]
    for each in model.encode(x):
        np.testing.assert_allclose(each.data.mean(axis=0), 0, atol=1e-5)
        np.testing.assert_allclose(each.data.std(axis=0), 1, rtol=1e-3)
    assert not np.array_equal(model.encode(x)[0].data, model.encode(x)[0].data)  # there is noise
    model.eval()
    np.testing.assert_array_equal(model.encode(x)[0].data, model.encode(x)[0].data)


def test_decoder_with_heads_takes_their_sum_with_the_code(rng):
    model = small_aae("heads", np.float64)
    (heads, *rest), (z, y) = model.decoder.layers, (rng.standard_normal((4, 3)), rng.random((4, 10)))
    assert heads is model.heads
    W = heads.embedding.data
    x = Tensor(z + y @ W)
    for layer in rest:
        x = layer(x)
    np.testing.assert_allclose(model.decode(Tensor(z), Tensor(y)).data, x.data, rtol=1e-12)
    for distance in (0.5, 2.5):
        lacking = [max(0, distance - np.linalg.norm(W[i] - W[j])) for i in range(10) for j in range(i)]
        assert heads.penalty(distance).item() == pytest.approx(sum(lacking))
    assert small_aae("semi-supervised").heads is None


def test_penalty_of_heads_that_coincide_has_a_gradient():
    heads = small_aae("heads", np.float64).heads
    heads.embedding.write(np.zeros((10, 3)))
    heads.penalty(1.0).backward()
    assert np.isfinite(heads.embedding.grad).all()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"hidden_noise": -0.1}, "hidden_noise >= 0 is needed"),
        ({"head_distance": -1.0}, "head_distance >= 0 is needed"),
        ({"head_distance": 1.0}, "labels_for decoder or encoder is needed"),
        ({"posterior": "cauchy"}, "posterior 'cauchy' is not one of deterministic, gaussian, universal"),
        ({"prior": "cake"}, "prior 'cake' is not one of gaussian, uniform, mixture, swiss-roll"),
        ({"prior": "mixture", "latent_dim": 3}, "has two dimensions, not 3"),
        ({"labels_for": "me"}, f"labels_for 'me' is not one of {', '.join(LABELS_FOR)}"),
        ({"discriminator_hidden": (0,)}, "at least one dimension"),
    ],
)
def test_aae_config_refuses_impossible_networks(options, message):
    with pytest.raises(ValueError, match=message):
        replace(AAEConfig(), **options)
