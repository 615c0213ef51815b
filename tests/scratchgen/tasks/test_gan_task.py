"""The GAN in training: a step is the algorithm, and each update touches only its own parameters."""

import math
from copy import deepcopy

import numpy as np
import pytest
from gan_helpers import PIXELS, every_discriminator, small_gan
from task_helpers import bits, captured, eager

from scratchgen import Tensor
from scratchgen.models.gan import discriminator_loss, generator_loss
from scratchgen.optim import SGD, Adam
from scratchgen.random import RandomStream
from scratchgen.tasks.gan import GANTask, GANTraining, load_averaged
from scratchgen.training import NotFinite, require_finite

BATCH = 8


def task_of(settings=None, **options):
    return GANTask(small_gan(**options), settings or GANTraining(), RandomStream(1), 4, 3, lambda *_: {})


def batches(count):
    return np.random.default_rng(5).random((count, BATCH, PIXELS), dtype=np.float32)


def all_labels(count):
    return np.random.default_rng(6).integers(10, size=(count, BATCH))


def changed(before, module):
    """The names of what is not what it was, of the state ``before``."""
    return {name for name, array in module.state_dict().items() if array.tobytes() != before[name].tobytes()}


def last_state(take):
    """What a captured step has become for batches like the last one."""
    return list(take.capture.states.values())[-1]


@pytest.mark.parametrize("how", [eager, captured])
@pytest.mark.parametrize("conditional", [False, True])
def test_train_step_is_the_algorithm(how, conditional):
    """L23: samples; D on data and on samples, their gradients added; then G through D as it is now (L22).

    In a conditional GAN data and samples have the same labels, and both networks are given them.
    """
    task = task_of(GANTraining(real_label=0.9), discriminator="leaky_relu", conditional=conditional)
    model, random = small_gan(conditional=conditional), RandomStream(1)
    take = how(task)
    generator, discriminator = (Adam(network, 1e-3, beta1=0.5) for network in (model.generator, model.discriminator))
    model.set_random(random)
    for step, (images, labels) in enumerate(zip(batches(12), all_labels(12), strict=True)):
        metrics = take(images, labels)
        y = Tensor(np.eye(10, dtype=np.float32)[labels]) if conditional else None

        generator.lr = discriminator.lr = 1e-3 * (1 + math.cos(math.pi * step / 12)) / 2
        fake = model.generate(random.normal((BATCH, 3)), y)
        discriminator.zero_grad()
        real_logits = model.discriminate(Tensor(images), y)
        fake_logits = model.discriminate(fake.detach(), y)
        d_loss = discriminator_loss(real_logits, 0.9) + discriminator_loss(fake_logits, 0.0)
        d_loss.backward()
        norm = np.linalg.norm(discriminator.flat.grad)
        discriminator.step()
        generator.zero_grad()
        g_loss = generator_loss(model.discriminate(fake, y), "non-saturating")
        g_loss.backward()
        generator.step()
        assert metrics["d_loss"] == pytest.approx(d_loss.item(), rel=1e-5)
        assert metrics["g_loss"] == pytest.approx(g_loss.item(), rel=1e-5)
        assert metrics["d_gradient"] == pytest.approx(norm, rel=1e-4)
        assert metrics["g_gradient"] == pytest.approx(np.linalg.norm(generator.flat.grad), rel=1e-4)
        assert metrics["d_real"] == pytest.approx((1 / (1 + np.exp(-real_logits.data))).mean(), rel=1e-5)
        assert metrics["d_fake"] == pytest.approx((1 / (1 + np.exp(-fake_logits.data))).mean(), rel=1e-5)
    for name, array in task.model.state_dict().items():
        np.testing.assert_allclose(array, model.state_dict()[name], atol=2e-5, err_msg=name)
    assert how is eager or last_state(take).verified


@every_discriminator
@pytest.mark.parametrize("steps", [1, 2])
@pytest.mark.parametrize("conditional", [False, True])
def test_train_step_captured_is_the_same_to_the_bit(discriminator, steps, conditional):
    settings, options = GANTraining(discriminator_steps=steps), {"input_dropout": 0.2, "conditional": conditional}
    tasks = [task_of(settings, discriminator=discriminator, **options) for _ in range(2)]
    replayed, run = captured(tasks[0]), eager(tasks[1])
    for images, labels in zip(batches(14), all_labels(14), strict=True):
        assert replayed(images, labels) == run(images, labels)
    assert bits(tasks[0]) == bits(tasks[1])
    for state in list(replayed.capture.states.values())[-steps:]:
        assert state.verified


@pytest.mark.parametrize("how", [eager, captured])
def test_max_norm_bounds_the_weights_of_d_after_each_step(how):
    settings = GANTraining(max_norm=0.4, discriminator_lr=0.05)
    limited = task_of(settings, discriminator="maxout")
    take, longest = how(limited), []
    for images in batches(8):
        take(images)
        norms = {
            name: np.linalg.norm(array, axis=0)
            for name, array in limited.model.state_dict().items()
            if name.startswith("discriminator") and array.ndim == 2
        }
        longest.append(max(norm.max() for norm in norms.values()))
    assert max(longest) <= 0.4 * (1 + 1e-5)
    assert min(longest) > 0.39  # some reach it
    assert min(norm.min() for norm in norms.values()) < 0.39
    generator = [array for name, array in limited.model.state_dict().items() if name.startswith("generator")]
    assert max(np.linalg.norm(array, axis=0).max() for array in generator if array.ndim == 2) > 0.4


@every_discriminator
def test_train_step_updates_each_network_alone(discriminator):
    task, found = task_of(discriminator=discriminator), []
    for optimizer in (task.discriminator_optimizer, task.generator_optimizer):

        def watched(loss=None, step=optimizer.step):
            before = task.model.state_dict()
            step(loss)
            found.append(changed(before, task.model))

        optimizer.step = watched
    task.train_step(Tensor(batches(1)[0]))
    names = task.model.named_parameters()
    players = ("discriminator.", "generator.")
    assert found == [{name for name in names if name.startswith(player)} for player in players]


def test_train_step_adds_the_gradients_of_both_passes_of_the_discriminator():
    """L24: D1 on data and D2 on samples are one network, whose gradient is the sum of theirs, exactly."""
    model, images, found = small_gan(np.float64), Tensor(batches(1)[0].astype(np.float64)), []
    task = GANTask(model, GANTraining(real_label=1.0), RandomStream(0), 1, 1, lambda *_: {})
    task.discriminator_optimizer.step = lambda loss: None

    def only_data(random):
        model.draw_noise(BATCH, random)
        discriminator_loss(model.discriminate(images), 1.0).backward()

    def only_samples(random):
        fake = model.generate(model.draw_noise(BATCH, random)).detach()
        model.discriminate(images)  # the masks of D2 are those that it has after D1
        discriminator_loss(model.discriminate(fake), 0.0).backward()

    def both(random):
        task.random = random
        task.train_step(images)

    for backward in (only_data, only_samples, both):
        random = RandomStream(0)
        model.set_random(random)
        task.discriminator_optimizer.zero_grad()
        backward(random)
        found.append([p.grad.copy() for p in model.discriminator.parameters()])
    for first, second, total in zip(*found, strict=True):
        np.testing.assert_array_equal(first + second, total)
        assert first.any()
        assert second.any()


@pytest.mark.parametrize("how", [eager, captured])
def test_step_options_let_the_generator_step_after_every_kth_step_of_the_discriminator(how):
    task, found = task_of(GANTraining(discriminator_steps=3, schedule="constant")), []
    take = how(task)
    for images in batches(19):
        before = task.model.generator.state_dict()
        metrics = take(images)
        found.append("layers.0.weight" in changed(before, task.model.generator))
        assert ("g_loss" in metrics) == found[-1]
    assert found == [(step + 1) % 3 == 0 for step in range(19)]
    if how is captured:  # a step with an update of G, and one without
        assert all(state.verified for state in list(take.capture.states.values())[-2:])


@pytest.mark.parametrize("how", [eager, captured])
@pytest.mark.parametrize("k", [1, 2])
def test_train_step_raises_momentum_and_lowers_the_learning_rate(how, k):
    """Over the same epochs for both networks, though G takes k times fewer steps."""
    settings = GANTraining(
        optimizer="momentum",
        discriminator_steps=k,
        generator_lr=0.1,
        discriminator_lr=0.2,
        momentum=0.5,
        final_momentum=0.7,
        momentum_epochs=1.5,
        schedule="cosine",
    )
    task, seen = task_of(settings), {"generator": [], "discriminator": []}
    for name, rates in seen.items():
        optimizer = getattr(task, f"{name}_optimizer")
        assert isinstance(optimizer, SGD)

        def watched(next_rates=optimizer._next_rates, rates=rates):
            rates.append(next_rates())
            return rates[-1]

        optimizer._next_rates = watched  # what the kernel is given at each step
    take = how(task)
    for images in batches(12):  # three epochs
        take(images)
    for name, lr, steps in (("generator", 0.1, 12 // k), ("discriminator", 0.2, 12)):
        expected = [lr / 2 * (1 + math.cos(math.pi * step / steps)) for step in range(steps)]
        assert [rate for rate, _ in seen[name]] == pytest.approx(expected)
        assert [m for _, m in seen[name]] == pytest.approx([0.5 + 0.2 * min(1, 2 * n / steps) for n in range(steps)])


@pytest.mark.parametrize("broken", ["generator", "discriminator"])
@pytest.mark.parametrize("how", [eager, captured])
def test_train_step_with_a_loss_that_is_not_finite_does_no_harm(broken, how):
    task = task_of(hidden_dropout=0.0)
    take = how(task)
    for images in batches(6):  # from the fifth on a step is replayed
        take(images)
    getattr(task.model, broken).parameters()[-1].write(np.float32(np.nan))
    whole = getattr(task.model, {"generator": "discriminator", "discriminator": "generator"}[broken])
    before = whole.state_dict()
    metrics = take(batches(1)[0])
    with pytest.raises(NotFinite, match="is nan"):
        require_finite(metrics)
    assert not changed(before, whole) & whole.named_parameters().keys()
    assert how is eager or last_state(take).verified


@pytest.mark.parametrize(
    "settings", [GANTraining(average=0.9), GANTraining(optimizer="momentum"), GANTraining(discriminator_steps=2)]
)
def test_load_state_dict_continues_with_the_same_bits(settings):
    task, other = task_of(settings), task_of(settings, seed=1)
    take, images = captured(task), batches(16)
    for batch in images[:7]:
        take(batch)
    other.load_state_dict(task.state_dict())
    other.random.generator.bit_generator.state = task.random.generator.bit_generator.state
    again = captured(other)
    for batch in images[7:]:
        assert take(batch) == again(batch)
    assert bits(task) == bits(other)


@pytest.mark.parametrize("decay", [0.0, 0.6, 0.999])
@pytest.mark.parametrize("how", [eager, captured])
def test_evaluate_measures_a_moving_average_of_the_generator(decay, how, rng):
    task, measured = task_of(GANTraining(average=decay, generator_lr=0.01)), []
    task.measure = lambda model, *_: measured.append(model.generator.state_dict()) or {}
    take, expected = how(task), task.model.generator.state_dict()
    for n, images in enumerate(batches(6), start=1):
        take(images)
        kept = min(decay, (1 + n) / (10 + n))
        for name, now in task.model.generator.state_dict().items():
            expected[name] = kept * expected[name] + (1 - kept) * now
    task.evaluate(None, rng)
    for name, array in measured[0].items():
        np.testing.assert_allclose(array, expected[name], rtol=1e-5, atol=1e-7)
    other = small_gan(seed=1)
    load_averaged(other, task.state_dict())
    assert all(np.array_equal(array, measured[0][name]) for name, array in other.generator.state_dict().items())
    assert np.array_equal(other.discriminator.parameters()[0].data, task.model.discriminator.parameters()[0].data)


def test_copy_of_a_task_goes_on_as_it_would_have():
    task, images = task_of(GANTraining(average=0.9)), batches(12)
    take = captured(task)
    for batch in images[:6]:
        take(batch)
    other = deepcopy(task)
    again = captured(other)
    for batch in images[6:]:
        assert take(batch) == again(batch)
    assert bits(task) == bits(other)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"objective": "win"}, "objective 'win' is not one of minimax, non-saturating, literal"),
        ({"optimizer": "luck"}, "optimizer 'luck' is not one of adam, momentum"),
        ({"schedule": "late"}, "schedule 'late' is not one of"),
        ({"real_label": 1.1}, "0 < real_label <= 1 is needed"),
        ({"real_label": math.nan}, "0 < real_label <= 1 is needed"),
        ({"discriminator_steps": 0}, "discriminator_steps >= 1 is needed"),
        ({"generator_lr": 0.0}, "generator_lr > 0 is needed"),
        ({"discriminator_lr": math.nan}, "discriminator_lr > 0 is needed"),
        ({"momentum": 1.0}, "0 <= momentum < 1 is needed"),
        ({"average": 1.0}, "0 <= average < 1 is needed"),
        *(({"max_norm": most}, "max_norm > 0 is needed") for most in (0.0, -1.0, math.nan)),
        ({"objective": "wasserstein", "max_norm": 1.0}, "wasserstein takes no max_norm"),
    ],
)
def test_gan_training_refuses_impossible_settings(options, message):
    with pytest.raises(ValueError, match=message):
        GANTraining(**options)
