"""The GAN: its losses against their formulas, its gradients, and steps that touch only their own parameters."""

import math
from copy import deepcopy

import numpy as np
import pytest

from scratchgen import Tensor, gradcheck
from scratchgen.models.gan import (
    DISCRIMINATORS,
    GAN,
    GENERATOR_OBJECTIVES,
    GANConfig,
    GANTask,
    GANTraining,
    discriminator_loss,
    generator_loss,
    load_averaged,
)
from scratchgen.nn import masked
from scratchgen.noise import Masks, normal, turns
from scratchgen.optim import SGD, Adam
from scratchgen.tensor import no_grad
from scratchgen.training import NotFinite, require_finite

BATCH, PIXELS = 8, 6
LABELS = np.zeros(BATCH, np.int64)
SMOOTH = 2  # a seed with no kink of relu or maxout within the step of a finite difference
every_objective = pytest.mark.parametrize("objective", GENERATOR_OBJECTIVES)
every_discriminator = pytest.mark.parametrize("discriminator", DISCRIMINATORS)


def small_gan(dtype=np.float32, seed=0, **options):
    shape = {"generator_hidden": (5, 7), "discriminator_hidden": (7, 5), "pieces": 3, "hidden_dropout": 0.3}
    config = GANConfig(PIXELS, 3, **(shape | options))
    return GAN(config, np.random.default_rng(seed), dtype)


def task_of(training=None, **options):
    return GANTask(small_gan(**options), training or GANTraining(), 4, 3, lambda *_: {})


def batches(count):
    return np.random.default_rng(5).random((count, BATCH, PIXELS), dtype=np.float32)


def bits(module):
    return {name: array.tobytes() for name, array in module.state_dict().items()}


# ---- losses ----


@pytest.mark.usefixtures("kernel_set")
@pytest.mark.parametrize("label", [0.0, 0.9, 1.0])
def test_the_discriminator_s_loss_is_the_cross_entropy_of_its_probability(label, rng):
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
def test_generator_objectives_and_the_size_of_their_gradients(objective):
    logits = Tensor(np.linspace(-6, 6, 25)[:, None], requires_grad=True)
    s = 1 / (1 + np.exp(-logits.data))
    value, size = FORMULAS[objective]
    loss = generator_loss(logits, objective)
    loss.backward()
    assert loss.item() == pytest.approx(value(s).mean(), rel=1e-12)
    np.testing.assert_allclose(logits.grad * len(s), -size(s), rtol=1e-12)


@every_objective
def test_objectives_are_finite_however_sure_the_discriminator_is(objective):
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
def test_gradients_of_both_networks(discriminator, objective, batch_norm):
    rng = np.random.default_rng(SMOOTH)
    model = small_gan(np.float64, SMOOTH, discriminator=discriminator, batch_norm=batch_norm, input_dropout=0.2)
    z, real = Tensor(rng.standard_normal((4, 3))), Tensor(rng.random((4, PIXELS)))

    def losses(*_):
        with masked(model, Masks(np.array([1]))):  # the same masks each time
            fake = model.discriminate(model.generate(z))
            return discriminator_loss(model.discriminate(real), 0.9) + 0.5 * generator_loss(fake, objective)

    gradcheck(losses, *model.parameters())


# ---- the step ----


def test_a_step_is_the_algorithm():
    """L23: samples; D on data and on samples, their gradients added; then G through D as it is now (L22)."""
    task, model = task_of(GANTraining(real_label=0.9), discriminator="leaky_relu"), small_gan()
    generator, discriminator = (Adam(network, 1e-3, beta1=0.5) for network in (model.generator, model.discriminator))
    rng, same_rng = np.random.default_rng(1), np.random.default_rng(1)
    for step, images in enumerate(batches(12)):
        metrics = task.step(images, LABELS, rng)()

        generator.lr = discriminator.lr = 1e-3 * (1 + math.cos(math.pi * step / 12)) / 2
        turn = turns(same_rng)
        model.draw_from(Masks(turn))
        fake = model.generate(Tensor(normal((BATCH, 3), np.dtype(np.float32), turn)))
        discriminator.zero_grad()
        real_logits = model.discriminate(Tensor(images))
        fake_logits = model.discriminate(fake.detach())
        d_loss = discriminator_loss(real_logits, 0.9) + discriminator_loss(fake_logits, 0.0)
        d_loss.backward()
        norm = np.linalg.norm(discriminator.flat.grad)
        discriminator.step()
        generator.zero_grad()
        g_loss = generator_loss(model.discriminate(fake), "non-saturating")
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


@every_discriminator
def test_each_step_changes_only_its_own_parameters(discriminator, rng):
    task, changed = task_of(discriminator=discriminator), []
    for optimizer in (task.discriminator_optimizer, task.generator_optimizer):

        def watched(rates, guard, update=optimizer.update):
            before = bits(task.model)
            update(rates, guard)
            changed.append({name for name, now in bits(task.model).items() if now != before[name]})

        optimizer.update = watched
    task.step(batches(1)[0], LABELS, rng)
    names = task.model.named_parameters()
    players = ("discriminator.", "generator.")
    assert changed == [{name for name in names if name.startswith(player)} for player in players]


def test_the_gradient_of_the_shared_discriminator_is_the_sum_of_both_passes_exactly():
    """L24: D1 on data and D2 on samples are one network."""
    model = small_gan(np.float64)
    images, turn = batches(1)[0].astype(np.float64), turns(np.random.default_rng(0))  # that of the step
    real, fake = Tensor(images), model.generate(model.draw_noise(BATCH, turn)).detach()
    network, found = model.discriminator, []
    task = GANTask(model, GANTraining(real_label=1.0), 1, 1, lambda *_: {})
    task.discriminator_optimizer.update = lambda rates, guard: None
    passes = (
        lambda: discriminator_loss(model.discriminate(real), 1.0).backward(),
        # the masks of D2 are those that it has after D1
        lambda: model.discriminate(real) and discriminator_loss(model.discriminate(fake), 0.0).backward(),
        lambda: task.step(images, LABELS, np.random.default_rng(0)),
    )
    for backward in passes:
        model.draw_from(Masks(turn))
        task.discriminator_optimizer.zero_grad()
        backward()
        found.append([p.grad.copy() for p in network.parameters()])
    for first, second, both in zip(*found, strict=True):
        np.testing.assert_array_equal(first + second, both)
        assert first.any()
        assert second.any()


def test_the_generator_steps_after_every_kth_step_of_the_discriminator(rng):
    task, changed = task_of(GANTraining(discriminator_steps=3)), []
    for images in batches(7):
        before = task.model.generator.named_parameters()["layers.0.weight"].data.tobytes()
        metrics = task.step(images, LABELS, rng)()
        changed.append(task.model.generator.named_parameters()["layers.0.weight"].data.tobytes() != before)
        assert ("g_loss" in metrics) == changed[-1]
    assert changed == [False, False, True, False, False, True, False]


def test_momentum_rises_and_the_learning_rate_falls(rng):
    training = GANTraining(
        optimizer="momentum", momentum=0.5, final_momentum=0.7, momentum_epochs=1.5, schedule="cosine", generator_lr=0.1
    )
    task, seen = task_of(training), []
    for images in batches(12):
        task.step(images, LABELS, rng)
        assert isinstance(task.generator_optimizer, SGD)
        seen.append((task.generator_optimizer.momentum, task.generator_optimizer.lr))
    expected = [0.5 + 0.2 * min(1, step / 6) for step in range(12)]
    assert [momentum for momentum, _ in seen] == pytest.approx(expected)
    assert [lr for _, lr in seen] == pytest.approx([0.05 * (1 + math.cos(math.pi * step / 12)) for step in range(12)])


@pytest.mark.parametrize("broken", ["generator", "discriminator"])
def test_what_is_not_finite_stops_before_harm_is_done(broken, rng):
    task = task_of(hidden_dropout=0.0)
    for images in batches(5):  # from the fourth on a step is replayed
        task.step(images, LABELS, rng)
    getattr(task.model, broken).parameters()[-1].write(np.float32(np.nan))
    whole = {"generator": "discriminator", "discriminator": "generator"}[broken]
    before = bits(getattr(task.model, whole))
    metrics = task.step(batches(1)[0], LABELS, rng)()
    with pytest.raises(NotFinite, match="is nan"):
        require_finite(metrics)
    parameters = getattr(task.model, whole).named_parameters()
    assert all(bits(getattr(task.model, whole))[name] == before[name] for name in parameters)


@pytest.mark.parametrize(
    "training", [GANTraining(average=0.9), GANTraining(optimizer="momentum"), GANTraining(discriminator_steps=2)]
)
def test_a_loaded_task_continues_with_the_same_bits(training, rng):
    task, other = task_of(training), task_of(training, seed=1)
    noise = np.random.default_rng(2)
    for images in batches(3):
        task.step(images, LABELS, noise)
    other.load_state(task.state())
    again = np.random.default_rng(0)
    again.bit_generator.state = noise.bit_generator.state
    for images in batches(3):
        assert task.step(images, LABELS, noise)() == other.step(images, LABELS, again)()
    assert {k: v.tobytes() for k, v in task.state().items()} == {k: v.tobytes() for k, v in other.state().items()}


@pytest.mark.parametrize("decay", [0.0, 0.6, 0.999])
def test_samples_come_from_a_running_average_of_the_generator(decay, rng):
    task, measured = task_of(GANTraining(average=decay, generator_lr=0.01)), []
    task.measure = lambda model, *_: measured.append(model.generator.state_dict()) or {}
    expected = task.model.generator.state_dict()
    for n, images in enumerate(batches(5), start=1):
        task.step(images, LABELS, rng)
        kept = min(decay, (1 + n) / (10 + n))
        for name, now in task.model.generator.state_dict().items():
            expected[name] = kept * expected[name] + (1 - kept) * now
    task.evaluate(None, rng)
    for name, array in measured[0].items():
        np.testing.assert_allclose(array, expected[name], rtol=1e-5, atol=1e-7)
    other = small_gan(seed=1)
    load_averaged(other, task.state())
    assert all(np.array_equal(array, measured[0][name]) for name, array in other.generator.state_dict().items())
    assert np.array_equal(other.discriminator.parameters()[0].data, task.model.discriminator.parameters()[0].data)


def test_a_copy_of_a_task_goes_on_as_it_would_have(rng):
    task, batch = task_of(GANTraining(average=0.9)), batches(6)
    for images in batch[:2]:
        task.step(images, LABELS, rng)
    other = deepcopy(task)
    for each in (task, other):
        noise = np.random.default_rng(5)
        for images in batch[2:]:
            each.step(images, LABELS, noise)
    for name, array in task.state().items():
        np.testing.assert_array_equal(array, other.state()[name], name)


# ---- the model ----


def test_noise_has_the_moments_it_is_told():
    rng, n = np.random.default_rng(0), 20_000
    for noise, variance in (("normal", 1), ("uniform", 1)):
        z = small_gan(noise=noise).draw_noise(n, turns(rng)).data
        assert z.shape == (n, 3)
        assert z.dtype == np.float32
        assert np.abs(z.mean(axis=0)).max() < 4 * math.sqrt(variance / n)
        np.testing.assert_allclose(z.var(axis=0), variance, rtol=0.05)


def test_pictures_are_in_the_unit_interval_and_evaluation_is_a_function(rng):
    model = small_gan()
    z = model.draw_noise(50, turns(rng))
    for _ in range(5):
        model.generate(model.draw_noise(50, turns(rng)))
    model.eval()
    with no_grad():
        pictures = model.generate(z).data
        assert pictures.min() > 0
        assert pictures.max() < 1
        np.testing.assert_allclose(model.generate(Tensor(z.data[:1])).data, pictures[:1], rtol=1e-5)
        first = model.discriminate(Tensor(pictures)).data
        np.testing.assert_array_equal(model.discriminate(Tensor(pictures)).data, first)


@pytest.mark.parametrize("n", [8, 7])
def test_a_packed_discriminator_judges_pictures_side_by_side(n, rng):
    packed, x = small_gan(pack=2, hidden_dropout=0.0), rng.random((n, PIXELS), dtype=np.float32)
    pairs = np.stack([np.concatenate([x[2 * i], x[2 * i + 1]]) for i in range(n // 2)])
    np.testing.assert_array_equal(packed.discriminate(Tensor(x)).data, packed.discriminator(Tensor(pairs)).data)
    single = small_gan(pack=1, hidden_dropout=0.0)
    np.testing.assert_array_equal(single.discriminate(Tensor(x)).data, single.discriminator(Tensor(x)).data)


@pytest.mark.parametrize(
    ("kind", "options", "message"),
    [
        (GANConfig, {"noise": "pink"}, "noise 'pink' is not one of normal, uniform"),
        (GANConfig, {"discriminator": "tree"}, "discriminator 'tree' is not one of leaky_relu, maxout"),
        (GANConfig, {"initializer": "zero"}, "initializer 'zero' is not one of"),
        (GANConfig, {"latent_dim": 0}, "at least one dimension"),
        (GANConfig, {"pack": 0}, "pack >= 1 is needed"),
        (GANConfig, {"generator_hidden": (5, 0)}, "at least one dimension"),
        (GANTraining, {"objective": "win"}, "objective 'win' is not one of minimax, non-saturating, literal"),
        (GANTraining, {"optimizer": "luck"}, "optimizer 'luck' is not one of adam, momentum"),
        (GANTraining, {"schedule": "late"}, "schedule 'late' is not one of"),
        (GANTraining, {"real_label": 1.1}, "0 < real_label <= 1 is needed"),
        (GANTraining, {"real_label": math.nan}, "0 < real_label <= 1 is needed"),
        (GANTraining, {"discriminator_steps": 0}, "discriminator_steps >= 1 is needed"),
        (GANTraining, {"generator_lr": 0.0}, "generator_lr > 0 is needed"),
        (GANTraining, {"discriminator_lr": math.nan}, "discriminator_lr > 0 is needed"),
        (GANTraining, {"momentum": 1.0}, "0 <= momentum < 1 is needed"),
        (GANTraining, {"average": 1.0}, "0 <= average < 1 is needed"),
    ],
)
def test_impossible_settings_are_refused(kind, options, message):
    with pytest.raises(ValueError, match=message):
        kind(**options)
