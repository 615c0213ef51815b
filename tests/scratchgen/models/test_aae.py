"""The adversarial autoencoder: its codes, its gradients, and events that touch only their own parameters."""

import math
from dataclasses import replace

import numpy as np
import pytest

from scratchgen import Tensor, gradcheck, ops
from scratchgen.data.dataset import UNLABELLED, Split
from scratchgen.models.aae import (
    AAE,
    CLASSES,
    LABELS_FOR,
    POSTERIORS,
    AAEConfig,
    AAETask,
    AAETraining,
    one_hot,
)
from scratchgen.models.gan import discriminator_loss, generator_loss
from scratchgen.noise import normal, turns
from scratchgen.optim import Adam
from scratchgen.recorded import Recorded
from scratchgen.training import NotFinite, require_finite

BATCH, PIXELS = 7, 6
SMOOTH = 9  # a seed with no kink of relu within the step of a finite difference
KINDS = {
    "deterministic": {},
    "gaussian": {"posterior": "gaussian"},
    "universal": {"posterior": "universal"},
    "regions": {"prior": "mixture"},
    "supervised": {"labels_for": "decoder", "latent_dim": 3, "posterior": "gaussian"},
    "semi-supervised": {"labels_for": "encoder", "latent_dim": 3},
}
every_kind = pytest.mark.parametrize("kind", KINDS)


def small_aae(kind="deterministic", dtype=np.float32, seed=0):
    sizes = {"encoder_hidden": (5, 6), "decoder_hidden": (6, 5), "discriminator_hidden": (9, 8), "noise_dim": 2}
    rng = np.random.default_rng(seed)
    model = AAE(AAEConfig(PIXELS, **(sizes | KINDS[kind])), rng, dtype)
    for name, parameter in model.named_parameters().items():
        if name.endswith("bias"):  # they begin at 0, where a relu behind dead units has its kink
            parameter.write(rng.uniform(-0.5, 0.5, parameter.shape))
    return model


def task_of(kind="deterministic", training=None, seed=0):
    rng = np.random.default_rng(3)
    labelled = Split(rng.random((20, PIXELS), dtype=np.float32), np.arange(20) % CLASSES)
    return AAETask(small_aae(kind, seed=seed), training or AAETraining(), 4, 3, labelled, lambda *_: {})


def batches(count, rng):
    """Images and labels, the first two of each batch without a label."""
    for _ in range(count):
        labels = rng.integers(CLASSES, size=BATCH)
        labels[:2] = UNLABELLED
        yield rng.random((BATCH, PIXELS), dtype=np.float32), labels


def changed(before, model):
    return {name for name, array in model.state_dict().items() if array.tobytes() != before[name].tobytes()}


# ---- the model ----


def test_one_hot():
    labels = np.array([3, UNLABELLED, 0])
    np.testing.assert_array_equal(one_hot(labels, 10, np.float32), [np.eye(10)[3], np.zeros(10), np.eye(10)[0]])
    eleven = one_hot(labels, 11, np.float64)
    np.testing.assert_array_equal(eleven, [np.eye(11)[3], np.eye(11)[10], np.eye(11)[0]])
    assert eleven.dtype == np.float64


@pytest.mark.parametrize("posterior", POSTERIORS)
def test_posteriors(posterior):
    """One code an image, or a normal distribution with mean and variance by the formula, or some other one."""
    rng, n = np.random.default_rng(0), 20_000
    model = small_aae(posterior, np.float64)
    x = Tensor(np.repeat(rng.random((1, PIXELS)), n, axis=0))
    noise = model.draw_noise(n, turns(rng))
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


def test_who_sees_the_labels(rng):
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
def test_gradients_of_every_event(kind):
    rng = np.random.default_rng(SMOOTH)
    model = small_aae(kind, np.float64, SMOOTH)
    x, labels = Tensor(rng.random((4, PIXELS))), np.array([1, 0, UNLABELLED, 7])
    noise, prior, y = model.draw_noise(4, turns(rng)), Tensor(model.prior.sample(4, rng)), model.labels_given(labels)
    y = None if y is None else Tensor(y)

    def losses(*_):
        z, class_logits = model.encode(x, noise)
        logits = model.decode(z, model.decoder_classes(class_logits, y))
        total = ops.bce_with_logits(logits, x).mean()
        total += discriminator_loss(model.discriminator(model.beside_labels(prior, y)), 1.0)
        total += generator_loss(model.discriminator(model.beside_labels(z, y)), "non-saturating")
        if class_logits is not None:
            total += generator_loss(model.class_discriminator(ops.softmax(class_logits)), "non-saturating")
            total += ops.softmax_cross_entropy(class_logits, np.abs(labels)).mean()
        return total

    gradcheck(losses, *model.parameters())


# ---- the events ----


@every_kind
def test_each_event_changes_only_its_own_parameters(kind, rng):
    """L26."""
    task = task_of(kind)
    model = task.model
    images, labels = next(batches(1, rng))
    own = {
        part: {name for name in model.named_parameters() if name.startswith(part)}
        for part in ("encoder.", "decoder.", "discriminator.", "class_discriminator.")
    }
    assert set.union(*own.values()) == set(model.state_dict())

    found = {}
    for name, optimizer in task.optimizers.items():

        def watched(rates, guard, name=name, update=optimizer.update):
            before = model.state_dict()
            update(rates, guard)
            found[name] = changed(before, model)

        optimizer.update = watched
    task.step(images, labels, rng)
    assert list(found) == list(task.optimizers)  # in this order
    assert own["decoder."] <= found["reconstruction"] <= own["encoder."] | own["decoder."]
    assert found["discriminator"] == own["discriminator."] | own["class_discriminator."]
    assert found["encoder"] == own["encoder."]
    if kind == "semi-supervised":
        assert found["classification"] == {name for name in own["encoder."] if not name.startswith("encoder.code")}


@pytest.mark.parametrize("kind", ["gaussian", "regions", "supervised", "semi-supervised"])
def test_a_step_is_the_algorithm(kind):
    rates = {"reconstruction_lr": 0.01, "discriminator_lr": 0.005, "encoder_lr": 0.02, "schedule": "constant"}
    training = AAETraining(input_noise=0.2, **rates)
    task, model = task_of(kind, training), small_aae(kind)
    both, classifying = kind == "semi-supervised", Adam(model.encoder, 1e-3)
    adam, discriminators = (Adam(model.encoder, 0.01), Adam(model.decoder, 0.01)), [model.discriminator]
    if both:
        discriminators.append(model.class_discriminator)
    descents = [Adam(discriminator, 0.005, beta1=0.5) for discriminator in discriminators]
    velocity = [np.zeros(p.shape, np.float32) for p in model.encoder.parameters()]
    rng, same_rng = np.random.default_rng(1), np.random.default_rng(1)
    for images, labels in batches(8, np.random.default_rng(4)):
        metrics = task.step(images, labels, rng)()
        p = Tensor(model.prior.sample(BATCH, same_rng, labels if kind == "regions" else None), dtype=np.float32)
        drawn = [p, Tensor(np.eye(CLASSES)[same_rng.integers(CLASSES, size=BATCH)], dtype=np.float32)] if both else [p]
        turn = turns(same_rng, 2)

        def noisy(turn, images=images):
            return Tensor(images + np.float32(0.2) * normal(images.shape, images.dtype, turn, draw=1))

        for optimizer in adam:
            optimizer.zero_grad()
        z, logits = model.encode(noisy(turn[:1]), model.draw_noise(BATCH, turn[:1]))
        y = Tensor(one_hot(labels, CLASSES, np.float32)) if kind == "supervised" else None
        y = ops.softmax(logits) if both else y
        reconstruction = ops.bce_with_logits(model.decode(z, y), images).mean()
        reconstruction.backward()
        for optimizer in adam:
            optimizer.step()

        z, logits = model.encode(noisy(turn[1:]), model.draw_noise(BATCH, turn[1:]))
        codes = [z, ops.softmax(logits)] if both else [z]
        if kind == "regions":
            eleven = Tensor(np.eye(11)[np.where(labels < 0, 10, labels)], dtype=np.float32)
            codes, drawn = ([ops.concatenate([each, eleven], axis=1) for each in pair] for pair in (codes, drawn))
        d_loss, e_loss = Tensor(0.0), Tensor(0.0)
        for descend, discriminator, real, code in zip(descents, discriminators, drawn, codes, strict=True):
            descend.zero_grad()
            real_loss = discriminator_loss(discriminator(real), 1.0)
            d_loss = d_loss + real_loss + discriminator_loss(discriminator(code.detach()), 0.0)
        d_loss.backward()
        for descend in descents:
            descend.step()

        for optimizer in adam:
            optimizer.zero_grad()
        for discriminator, code in zip(discriminators, codes, strict=True):
            e_loss = e_loss + generator_loss(discriminator(code), "non-saturating")
        e_loss.backward()
        for v, parameter in zip(velocity, model.encoder.parameters(), strict=True):
            v[...] = 0.1 * v + parameter.grad
            parameter.write(parameter.data - np.float32(0.02) * v)

        expected = {"reconstruction": reconstruction.item(), "d_loss": d_loss.item(), "e_loss": e_loss.item()}
        if both:
            known = same_rng.integers(len(task.labelled), size=BATCH)
            last = turns(same_rng)
            x = noisy(last, task.labelled.images[known])
            classifying.zero_grad()
            c_loss = ops.softmax_cross_entropy(model.encode(x, None)[1], task.labelled.labels[known]).mean()
            c_loss.backward()
            classifying.step()
            expected["c_loss"] = c_loss.item()
        assert metrics == pytest.approx(expected, rel=1e-4)
    for name, array in task.model.state_dict().items():
        np.testing.assert_allclose(array, model.state_dict()[name], atol=1e-4, err_msg=name)


def test_the_prior_is_1_and_the_code_is_0(rng):
    """A discriminator trained on what lies apart says so; the encoder then moves its codes to the prior's side."""
    task = task_of(training=AAETraining(discriminator_lr=0.01, encoder_lr=0.05, schedule="constant"))
    model = task.model
    model.encoder.code.bias.write(np.array([-3, 3], np.float32))
    (images, labels), at_rest = next(batches(1, rng)), lambda rates, guard: None
    move, task.optimizers["encoder"].update = task.optimizers["encoder"].update, at_rest
    task.optimizers["reconstruction"].update = at_rest
    for _ in range(60):
        task.step(images, labels, rng)
    codes, prior = model.encode(Tensor(images))[0], Tensor(model.prior.sample(BATCH, rng), dtype=np.float32)
    assert model.discriminator(prior).data.mean() > 0.5
    assert model.discriminator(codes).data.mean() < -0.5
    distance = np.linalg.norm(codes.data.mean(axis=0))
    task.optimizers["encoder"].update, task.optimizers["discriminator"].update = move, at_rest
    task._recorded.known.clear()
    for _ in range(20):
        task.step(images, labels, rng)
    assert np.linalg.norm(model.encode(Tensor(images))[0].data.mean(axis=0)) < distance


def test_noise_is_added_to_what_the_encoder_sees_and_to_nothing_else(rng):
    images = np.full((500, PIXELS), 0.5, np.float32)
    noisy = task_of(training=AAETraining(input_noise=0.3)).encoder_input(images, turns(rng)).data
    assert noisy.dtype == np.float32
    assert abs(noisy.mean() - 0.5) < 4 * 0.3 / math.sqrt(noisy.size)
    assert noisy.std() == pytest.approx(0.3, rel=0.05)
    assert (images == 0.5).all()
    assert task_of().encoder_input(images, turns(rng))._data is images


def test_classification_draws_labelled_images_only(rng, monkeypatch):
    task, seen = task_of("semi-supervised"), []

    def spy(x, labels, *more, original=task.classify):
        seen.extend(zip(map(bytes, x), labels.tolist(), strict=True))
        return original(x, labels, *more)

    monkeypatch.setattr(task, "classify", spy)
    monkeypatch.setattr(Recorded, "__call__", Recorded._run)  # a replay calls no function of the task
    for images, labels in batches(20, rng):
        assert "c_loss" in task.step(images, labels, rng)()
    pairs = set(zip(map(bytes, task.labelled.images), task.labelled.labels.tolist(), strict=True))
    assert set(seen) == pairs


def test_without_labels_nothing_is_classified(rng):
    task = task_of("semi-supervised")
    task.labelled = Split(task.labelled.images[:0], task.labelled.labels[:0])
    for images, labels in batches(2, rng):
        assert "c_loss" not in task.step(images, labels, rng)()


def test_labels_that_are_none_are_refused():
    labelled = Split(np.zeros((2, PIXELS), np.float32), np.array([UNLABELLED, 3]))
    with pytest.raises(ValueError, match=r"the labels of labelled images lie in 0..9"):
        AAETask(small_aae("semi-supervised"), AAETraining(), 4, 3, labelled, lambda *_: {})


@every_kind
def test_a_loaded_task_continues_with_the_same_bits(kind):
    training = AAETraining(schedule="cosine", input_noise=0.1, encoder_optimizer="adam", encoder_lr=1e-3)
    task, other = task_of(kind, training), task_of(kind, training, seed=1)
    data, noise = list(batches(6, np.random.default_rng(8))), np.random.default_rng(2)
    for images, labels in data[:3]:
        task.step(images, labels, noise)
    other.load_state(task.state())
    again = np.random.default_rng(0)
    again.bit_generator.state = noise.bit_generator.state
    for images, labels in data[3:]:
        assert task.step(images, labels, noise)() == other.step(images, labels, again)()
    assert {k: v.tobytes() for k, v in task.state().items()} == {k: v.tobytes() for k, v in other.state().items()}


@pytest.mark.parametrize("part", ["encoder", "decoder", "discriminator"])
@pytest.mark.parametrize("kind", ["deterministic", "semi-supervised"])
def test_what_is_not_finite_stops_before_harm_is_done(kind, part, rng):
    task = task_of(kind)
    for images, labels in batches(5, rng):  # from the fourth on a step is replayed
        task.step(images, labels, rng)
    getattr(task.model, part).parameters()[-1].write(np.float32(np.nan))
    before = task.model.state_dict()
    images, labels = next(batches(1, rng))
    metrics = task.step(images, labels, rng)()
    with pytest.raises(NotFinite, match="is nan"):
        require_finite(metrics)
    others = {"encoder": set(), "decoder": {"encoder", "discriminator"}, "discriminator": {"encoder", "decoder"}}
    found = changed(before, task.model)
    assert {name.removeprefix("class_").split(".")[0] for name in found} == others[part]
    assert all(np.isfinite(task.model.state_dict()[name]).all() for name in found)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"posterior": "cauchy"}, "posterior 'cauchy' is not one of deterministic, gaussian, universal"),
        ({"prior": "cake"}, "prior 'cake' is not one of gaussian, uniform, mixture, swiss-roll"),
        ({"prior": "mixture", "latent_dim": 3}, "lies in two dimensions, not 3"),
        ({"labels_for": "me"}, f"labels_for 'me' is not one of {', '.join(LABELS_FOR)}"),
        ({"discriminator_hidden": (0,)}, "at least one dimension"),
    ],
)
def test_impossible_networks_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        replace(AAEConfig(), **options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"labels": -1}, "labels >= 0 is needed"),
        ({"encoder_optimizer": "luck"}, "encoder_optimizer 'luck' is not one of descent, adam"),
        ({"encoder_lr": 0.0}, "encoder_lr > 0 is needed"),
        ({"reconstruction_lr": math.nan}, "reconstruction_lr > 0 is needed"),
        ({"input_noise": -0.1}, "input_noise >= 0 is needed"),
    ],
)
def test_impossible_trainings_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        replace(AAETraining(), **options)
