"""The adversarial autoencoder in training: a step is the algorithm, and each update has its own parameters."""

import math
from dataclasses import replace

import numpy as np
import pytest
from aae_helpers import PIXELS, every_kind, small_aae
from task_helpers import bits, captured, eager

from scratchgen import Tensor, ops
from scratchgen.data.dataset import UNLABELLED, Split
from scratchgen.models.aae import AAE, AAEConfig
from scratchgen.models.gan import discriminator_loss, generator_loss
from scratchgen.models.labels import one_hot
from scratchgen.optim import Adam
from scratchgen.random import RandomStream
from scratchgen.tasks.aae import AAETask, AAETraining
from scratchgen.training import NotFinite, require_finite

BATCH = 7


def task_of(kind="deterministic", settings=None, seed=0):
    rng = np.random.default_rng(3)
    labelled = Split(rng.random((20, PIXELS), dtype=np.float32), np.arange(20) % 10)
    model = small_aae(kind, seed=seed)
    return AAETask(model, settings or AAETraining(), RandomStream(1), 4, 3, labelled, lambda *_: {}, (2, 3))


def batches(count, rng):
    """Images and labels, the first two of each batch without a label."""
    for _ in range(count):
        labels = rng.integers(10, size=BATCH)
        labels[:2] = UNLABELLED
        yield rng.random((BATCH, PIXELS), dtype=np.float32), labels


def changed(before, model):
    """The names of parameters that are not what they were, in the state ``before``."""
    now = model.named_parameters()
    return {name for name, parameter in now.items() if parameter.data.tobytes() != before[name].tobytes()}


def last_state(take):
    """What a captured step has become for batches like the last one."""
    return list(take.capture.states.values())[-1]


@every_kind
def test_train_step_makes_each_update_change_only_its_own_parameters(kind, rng):
    """L26."""
    task = task_of(kind)
    model = task.model
    images, labels = next(batches(1, rng))
    own = {
        part: {name for name in model.named_parameters() if name.startswith(part)}
        for part in ("encoder.", "decoder.", "discriminator.", "class_discriminator.")
    }
    assert set.union(*own.values()) == set(model.named_parameters())

    found = {}
    for name, optimizer in task.optimizers.items():

        def watched(loss=None, name=name, step=optimizer.step):
            before = model.state_dict()
            step(loss)
            found[name] = changed(before, model)

        optimizer.step = watched
    task.train_step(Tensor(images), labels)
    assert list(found) == list(task.optimizers)  # in this order
    assert own["decoder."] <= found["autoencoder"] <= own["encoder."] | own["decoder."]
    assert found["discriminator"] == own["discriminator."] | own["class_discriminator."]
    assert found["encoder"] == own["encoder."]
    if kind == "semi-supervised":
        assert found["classifier"] == {name for name in own["encoder."] if not name.startswith("encoder.code")}


def penalty_of_heads(model):
    """What the distances of heads lack of 2.5, pair by pair."""
    heads, total = model.heads.embedding, Tensor(0.0)
    for i in range(10):
        for j in range(i):
            difference = heads[i] - heads[j]
            total = total + ops.relu(2.5 - ops.sqrt((difference * difference).sum()))
    return total


@pytest.mark.parametrize("kind", ["gaussian", "regions", "supervised", "semi-supervised", "heads"])
@pytest.mark.parametrize("how", [eager, captured])
def test_train_step_is_the_algorithm(kind, how):
    rates = {"reconstruction_lr": 0.01, "discriminator_lr": 0.005, "encoder_lr": 0.02, "schedule": "constant"}
    settings = AAETraining(input_noise=0.2, **rates)
    task, model, random = task_of(kind, settings), small_aae(kind), RandomStream(1)
    take, both, classifying = how(task), kind in ("semi-supervised", "heads"), Adam(model.encoder, 1e-3)
    adam, discriminators = (Adam(model.encoder, 0.01), Adam(model.decoder, 0.01)), [model.discriminator]
    if both:
        discriminators.append(model.class_discriminator)
    descents = [Adam(discriminator, 0.005, beta1=0.5) for discriminator in discriminators]
    velocity = [np.zeros(p.shape, np.float32) for p in model.encoder.parameters()]

    def encode(images):
        x = Tensor(images + np.float32(0.2) * random.normal(images.shape).data)
        return model.encode(x, model.draw_noise(BATCH, random))

    for images, labels in batches(8, np.random.default_rng(4)):
        metrics = take(images, labels)

        for optimizer in adam:
            optimizer.zero_grad()
        z, logits = encode(images)
        y = Tensor(one_hot(labels, 10, np.float32)) if kind == "supervised" else None
        y = ops.softmax(logits) if both else y
        reconstruction = ops.bce_with_logits(model.decode(z, y), images).mean()
        (reconstruction + penalty_of_heads(model) if kind == "heads" else reconstruction).backward()
        for optimizer in adam:
            optimizer.step()

        z, logits = encode(images)
        codes = [z, ops.softmax(logits)] if both else [z]
        p = model.prior.sample(BATCH, random.generator, labels if kind == "regions" else None)
        drawn = [Tensor(p, dtype=np.float32)]
        if both:
            drawn.append(Tensor(np.eye(10)[random.generator.integers(10, size=BATCH)], dtype=np.float32))
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
            known = random.generator.integers(len(task.labelled), size=BATCH)
            classifying.zero_grad()
            _, logits = encode(task.labelled.images[known])
            c_loss = ops.softmax_cross_entropy(logits, task.labelled.labels[known]).mean()
            c_loss.backward()
            classifying.step()
            expected["c_loss"] = c_loss.item()
        assert metrics == pytest.approx(expected, rel=1e-4)
    for name, array in task.model.state_dict().items():
        np.testing.assert_allclose(array, model.state_dict()[name], atol=1e-4, err_msg=name)
    assert how is eager or last_state(take).verified


@every_kind
def test_train_step_captured_is_the_same_to_the_bit(kind, rng):
    tasks = [task_of(kind, AAETraining(input_noise=0.1)) for _ in range(2)]
    replayed, run = captured(tasks[0]), eager(tasks[1])
    for images, labels in batches(10, rng):
        assert replayed(images, labels) == run(images, labels)
    assert bits(tasks[0]) == bits(tasks[1])
    assert last_state(replayed).verified


def test_train_step_takes_the_prior_for_1_and_the_code_for_0(rng):
    """A discriminator trained on what lies apart says so; the encoder then moves its codes to the prior's side."""
    task = task_of(settings=AAETraining(discriminator_lr=0.01, encoder_lr=0.05, schedule="constant"))
    model, optimizers = task.model, task.optimizers
    model.encoder.code.bias.write(np.array([-3, 3], np.float32))
    images, labels = next(batches(1, rng))
    take = eager(task)  # a replay would not see that the optimizers below rest

    def rest(loss=None):
        pass

    move, optimizers["encoder"].step, optimizers["autoencoder"].step = optimizers["encoder"].step, rest, rest
    for _ in range(60):
        take(images, labels)
    codes, prior = model.encode(Tensor(images))[0], Tensor(model.prior.sample(BATCH, rng), dtype=np.float32)
    assert model.discriminator(prior).data.mean() > 0.5
    assert model.discriminator(codes).data.mean() < -0.5
    distance = np.linalg.norm(codes.data.mean(axis=0))
    optimizers["encoder"].step, optimizers["discriminator"].step = move, rest
    for _ in range(20):
        take(images, labels)
    assert np.linalg.norm(model.encode(Tensor(images))[0].data.mean(axis=0)) < distance


def test_encoder_input_has_noise_and_the_images_have_none():
    images = Tensor(np.full((500, PIXELS), 0.5, np.float32))
    noisy = task_of(settings=AAETraining(input_noise=0.3)).encoder_input(images).data
    assert noisy.dtype == np.float32
    assert abs(noisy.mean() - 0.5) < 4 * 0.3 / math.sqrt(noisy.size)
    assert noisy.std() == pytest.approx(0.3, rel=0.05)
    assert (images.data == 0.5).all()
    assert task_of().encoder_input(images) is images


def test_update_classifier_draws_labelled_images_only(rng, monkeypatch):
    task, seen = task_of("semi-supervised"), []

    def spy(b, original=task.draw_labelled):
        x, y = original(b)
        seen.extend(zip(map(bytes, x.data), y.data.tolist(), strict=True))
        return x, y

    monkeypatch.setattr(task, "draw_labelled", spy)
    take = eager(task)  # a replay calls no function of the task
    for images, labels in batches(20, rng):
        assert "c_loss" in take(images, labels)
    pairs = set(zip(map(bytes, task.labelled.images), task.labelled.labels.tolist(), strict=True))
    assert set(seen) == pairs


@pytest.mark.parametrize("noise", [0, 0.2])
def test_update_classifier_with_consistency_is_its_formula(noise, rng, monkeypatch):
    """The prediction for an image that is not moved is a constant."""
    settings = AAETraining(consistency=1.5, moved=1, input_noise=noise, classification_lr=0.01, schedule="constant")
    task, model, drawn, seen = task_of("semi-supervised", settings), small_aae("semi-supervised"), [], []
    x = Tensor(rng.random((BATCH, PIXELS)), dtype=np.float32)

    def spied(name, kept):
        original = getattr(task, name)

        def spy(*given):
            kept.append(original(*given))
            return kept[-1]

        monkeypatch.setattr(task, name, spy)

    spied("draw_labelled", drawn)
    spied("encoder_input", seen)
    found = task.update_classifier(x)
    (_, y), (first, plain, moved) = drawn[0], seen
    assert len(seen) == 3
    if noise:
        assert not np.array_equal(plain.data, x.data)
    else:
        images = np.pad(x.data.reshape(-1, 2, 3), ((0, 0), (1, 1), (1, 1)), mode="edge")
        near = [images[:, i : i + 2, j : j + 3].reshape(BATCH, PIXELS) for i in range(3) for j in range(3)]
        assert np.any([(each == moved.data).all(axis=1) for each in near], axis=0).all()
        assert not np.array_equal(moved.data, x.data)
    loss = ops.softmax_cross_entropy(model.encode(first)[1], y).mean()
    p, q = (ops.softmax(model.encode(each)[1]) for each in (plain, moved))
    inconsistency = ((q - Tensor(p.data)) * (q - Tensor(p.data))).sum(axis=1).mean()
    assert {name: each.item() for name, each in found.items()} == pytest.approx(
        {"c_loss": loss.item(), "inconsistency": inconsistency.item()}, rel=1e-6
    )
    (loss + 1.5 * inconsistency).backward()
    taught = task.model.encoder.named_parameters()
    for name, parameter in model.encoder.named_parameters().items():
        if parameter.grad is not None:
            np.testing.assert_allclose(taught[name].grad, parameter.grad, rtol=1e-4, atol=1e-6, err_msg=name)


def test_aae_task_refuses_to_move_images_of_another_size():
    labelled = Split(np.zeros((0, PIXELS), np.float32), np.zeros(0, np.int64))
    with pytest.raises(ValueError, match=r"images of 6 pixels to be moved cannot have the shape \(28, 28\)"):
        AAETask(
            small_aae("semi-supervised"),
            AAETraining(consistency=1.0, moved=1),
            RandomStream(1),
            4,
            3,
            labelled,
            lambda *_: {},
        )


def test_train_step_with_consistency_needs_no_labels(rng):
    task = task_of("semi-supervised", AAETraining(consistency=1.0, moved=1))
    task.labelled = Split(task.labelled.images[:0], task.labelled.labels[:0])
    take = eager(task)
    for images, labels in batches(2, rng):
        before = task.optimizers["classifier"].state_dict()
        metrics = take(images, labels)
        assert "inconsistency" in metrics
        assert "c_loss" not in metrics
        after = task.optimizers["classifier"].state_dict()
        assert any(not np.array_equal(before[name], after[name]) for name in before)


def test_train_step_without_labels_classifies_nothing(rng):
    task = task_of("semi-supervised")
    task.labelled = Split(task.labelled.images[:0], task.labelled.labels[:0])
    take = eager(task)
    for images, labels in batches(2, rng):
        assert "c_loss" not in take(images, labels)


def test_aae_task_refuses_labelled_images_without_a_label():
    labelled = Split(np.zeros((2, PIXELS), np.float32), np.array([UNLABELLED, 3]))
    with pytest.raises(ValueError, match=r"the labels of labelled images lie in 0..9"):
        AAETask(small_aae("semi-supervised"), AAETraining(), RandomStream(1), 4, 3, labelled, lambda *_: {})


@every_kind
def test_load_state_dict_continues_with_the_same_bits(kind):
    settings = AAETraining(schedule="cosine", input_noise=0.1, encoder_optimizer="adam", encoder_lr=1e-3)
    task, other = task_of(kind, settings), task_of(kind, settings, seed=1)
    take, data = captured(task), list(batches(12, np.random.default_rng(8)))
    for images, labels in data[:6]:
        take(images, labels)
    other.load_state_dict(task.state_dict())
    other.random.generator.bit_generator.state = task.random.generator.bit_generator.state
    again = captured(other)
    for images, labels in data[6:]:
        assert take(images, labels) == again(images, labels)
    assert bits(task) == bits(other)


@pytest.mark.parametrize("part", ["encoder", "decoder", "discriminator"])
@pytest.mark.parametrize("kind", ["deterministic", "semi-supervised"])
@pytest.mark.parametrize("how", [eager, captured])
def test_train_step_with_a_loss_that_is_not_finite_does_no_harm(kind, part, how, rng):
    task = task_of(kind)
    take = how(task)
    for images, labels in batches(6, rng):  # from the fifth on a step is replayed
        take(images, labels)
    getattr(task.model, part).parameters()[-1].write(np.float32(np.nan))
    before = task.model.state_dict()
    images, labels = next(batches(1, rng))
    metrics = take(images, labels)
    with pytest.raises(NotFinite, match="is nan"):
        require_finite(metrics)
    others = {"encoder": set(), "decoder": {"encoder", "discriminator"}, "discriminator": {"encoder", "decoder"}}
    found = changed(before, task.model)
    assert {name.removeprefix("class_").split(".")[0] for name in found} == others[part]
    assert all(np.isfinite(task.model.state_dict()[name]).all() for name in found)
    assert how is eager or last_state(take).verified


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"labels": -1}, "labels >= 0 is needed"),
        ({"encoder_optimizer": "luck"}, "encoder_optimizer 'luck' is not one of sgd, adam"),
        ({"encoder_lr": 0.0}, "encoder_lr > 0 is needed"),
        ({"reconstruction_lr": math.nan}, "reconstruction_lr > 0 is needed"),
        ({"input_noise": -0.1}, "input_noise >= 0 is needed"),
        ({"consistency": -1.0}, "consistency >= 0 is needed"),
        ({"moved": -1}, "moved >= 0 is needed"),
    ],
)
def test_aae_training_refuses_impossible_settings(options, message):
    with pytest.raises(ValueError, match=message):
        replace(AAETraining(), **options)


def test_draw_classes_are_as_many_as_the_network_has():
    config = AAEConfig(PIXELS, 2, (4,), (4,), (4,), labels_for="encoder", classes=5)
    labelled = Split(np.zeros((0, PIXELS), np.float32), np.zeros(0, np.int64))
    task = AAETask(AAE(config, 0), AAETraining(), RandomStream(1), 4, 3, labelled, lambda *_: {})
    drawn = task.draw_classes(1_000).data
    np.testing.assert_array_equal(np.unique(drawn, axis=0), np.eye(5)[::-1])
    np.testing.assert_allclose(drawn.sum(axis=0), 200, atol=60)
