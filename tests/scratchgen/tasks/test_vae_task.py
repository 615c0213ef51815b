"""The VAE in training: a step is the algorithm, it refuses what is not finite, and a loaded task continues it."""

import math

import numpy as np
import pytest
from task_helpers import bits, captured, eager
from vae_helpers import every_likelihood, small_vae

from scratchgen.data.dataset import Dataset, Split
from scratchgen.data.strokes import draw_strokes
from scratchgen.evaluation.likelihood import importance_nll, mean_bound
from scratchgen.models.vae import VAE, VAEConfig
from scratchgen.optim import Adam, tripling_stages
from scratchgen.random import RandomStream
from scratchgen.tasks.vae import VAETask, VAETraining
from scratchgen.tensor import Tensor
from scratchgen.training import NotFinite, require_finite

every_training = pytest.mark.parametrize(
    "settings",
    [
        VAETraining(lr=0.01),
        VAETraining(lr=0.01, samples=3, monte_carlo_kl=True, beta=0.5, binarize="static"),
        VAETraining(lr=0.01, schedule="tripling", beta=2.0, beta_warmup=2.5, binarize="dynamic"),
        VAETraining(lr=0.01, objective="iwae", samples=3, binarize="dynamic"),
        VAETraining(lr=0.01, objective="dreg", samples=3, binarize="dynamic"),
    ],
    ids=["plain", "monte carlo", "staged", "importance weighted", "doubly reparametrised"],
)
EPOCHS, STEPS = 3, 4  # and steps an epoch


def task_of(settings, seed=0, **options):
    return VAETask(small_vae(dtype=np.float32, seed=seed, **options), settings, RandomStream(1), STEPS, EPOCHS)


def batches(count):
    return np.random.default_rng(5).random((count, 8, 6), dtype=np.float32)


def all_labels(count):
    return np.random.default_rng(6).integers(10, size=(count, 8))


def last_state(take):
    """What a captured step has become for batches like the last one."""
    return list(take.capture.states.values())[-1]


@every_training
@pytest.mark.parametrize("how", [eager, captured])
@pytest.mark.parametrize("conditional", [False, True])
def test_train_step_is_the_algorithm(settings, how, conditional):
    """L19, step by step: noise, the two terms or L_K, their gradient, Adam."""
    kind = {"dtype": np.float32, "conditional": conditional}
    task, model, random = task_of(settings, conditional=conditional), small_vae(**kind), RandomStream(1)
    take, optimizer = how(task), Adam(model)
    for step, (images, labels) in enumerate(zip(batches(EPOCHS * STEPS), all_labels(EPOCHS * STEPS), strict=True)):
        metrics = take(images, labels)
        y = Tensor(np.eye(10, dtype=np.float32)[labels]) if conditional else None

        warmup = settings.beta_warmup * STEPS
        beta = settings.beta * min(1, step / warmup) if warmup else settings.beta
        x = random.bernoulli(Tensor(images)) if settings.binarize == "dynamic" else Tensor(images)
        noise = random.normal((settings.samples, 8, 3))
        if settings.objective == "iwae":
            loss = -model.importance_bound(x, noise, y).mean()
            assert list(metrics) == ["neg_iwae"]
            assert metrics["neg_iwae"] == pytest.approx(loss.item(), rel=1e-5)
        elif settings.objective == "dreg":
            loss = -model.doubly_reparameterized_bound(x, noise, y).mean()
            assert list(metrics) == ["neg_iwae"]
            assert metrics["neg_iwae"] == pytest.approx(loss.item(), rel=1e-5)
        else:
            reconstruction, kl = (term.mean() for term in model.negative_elbo(x, noise, settings.monte_carlo_kl, y))
            loss = reconstruction + beta * kl
            assert list(metrics) == ["neg_elbo", "reconstruction", "kl"]
            assert metrics["neg_elbo"] == np.float32(metrics["reconstruction"]) + np.float32(metrics["kl"])
            assert metrics["reconstruction"] == pytest.approx(reconstruction.item(), rel=1e-5)
            assert metrics["kl"] == pytest.approx(kl.item(), rel=1e-5)
        optimizer.lr = tripling_stages(0.01, EPOCHS * STEPS)(step) if settings.schedule == "tripling" else 0.01
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    for name, array in task.model.state_dict().items():
        np.testing.assert_allclose(array, model.state_dict()[name], atol=1e-5, err_msg=name)
    assert how is eager or last_state(take).verified


@every_training
@pytest.mark.parametrize("conditional", [False, True])
def test_train_step_captured_is_the_same_to_the_bit(settings, conditional):
    tasks = task_of(settings, conditional=conditional), task_of(settings, conditional=conditional)
    replayed, run = captured(tasks[0]), eager(tasks[1])
    for images, labels in zip(batches(EPOCHS * STEPS), all_labels(EPOCHS * STEPS), strict=True):
        assert replayed(images, labels) == run(images, labels)
    assert bits(tasks[0]) == bits(tasks[1])
    assert last_state(replayed).verified


def test_beta_rises_and_stays():
    task = task_of(VAETraining(beta=0.5, beta_warmup=2))
    found = []
    for images in batches(10):
        found.append(task.beta().item())
        task.train_step(Tensor(images))
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
@pytest.mark.parametrize("how", [eager, captured])
def test_train_step_names_what_is_not_finite_and_changes_nothing(where, value, named, fine, how):
    task = task_of(VAETraining())
    take = how(task)
    *earlier, images = batches(7)
    for batch in earlier:  # from the fifth on a step is replayed
        take(batch)
    if where == "images":
        images[3, 2] = value
    else:
        parameter = task.model.named_parameters()[where]
        parameter.write(np.full(parameter.shape, value))
    before = bits(task)
    metrics = take(images)
    with pytest.raises(NotFinite) as error:
        require_finite(metrics)
    assert all(text in str(error.value) for text in named)
    assert not any(text in str(error.value) for text in fine)
    after = bits(task)
    assert {name for name in before if after[name] != before[name]} == {"optimizer.steps"}
    assert how is eager or last_state(take).verified


@every_likelihood
def test_train_step_lowers_the_loss(rng, likelihood):
    images = draw_strokes(160, rng).images
    model = VAE(VAEConfig(784, 4, (16,), (16,), likelihood=likelihood), rng)
    take = captured(VAETask(model, VAETraining(lr=0.01), RandomStream(rng), 8, 10))
    metrics = [take(images[20 * (i % 8) :][:20]) for i in range(80)]
    first, last = (np.mean([f["neg_elbo"] for f in part]) for part in (metrics[:8], metrics[-8:]))
    assert last < first - 100
    assert metrics[-1]["kl"] > 1  # the code is in use
    unseen = draw_strokes(100, rng).images
    assert mean_bound(model, unseen, rng)["neg_elbo"] < first - 100


@every_training
def test_load_state_dict_continues_bit_for_bit(settings):
    task, images = task_of(settings), batches(12)
    take = captured(task)
    for batch in images[:6]:
        take(batch)
    state, numbers = task.state_dict(), task.random.generator.bit_generator.state
    metrics = [take(batch) for batch in images[6:]]

    resumed = task_of(settings, seed=9)
    resumed.load_state_dict(state)
    resumed.random.generator.bit_generator.state = numbers
    again = captured(resumed)
    assert [again(batch) for batch in images[6:]] == metrics
    assert bits(resumed) == bits(task)


def test_load_state_dict_refuses_another_model():
    state = task_of(VAETraining(), likelihood="gaussian").state_dict()
    task = task_of(VAETraining())
    with pytest.raises(ValueError, match=r"decoder_logvar.bias is missing in the task"):
        task.load_state_dict(state)
    without_v = {name: array for name, array in task.state_dict().items() if name != "optimizer.v"}
    with pytest.raises(ValueError, match=r"optimizer.v is \(\d+,\) float32 in the task, but missing"):
        task.load_state_dict(without_v)


@pytest.mark.parametrize("binarize", ["none", "static", "dynamic"])
def test_evaluate_sees_pixels_as_training_does(binarize):
    task, images, labels = task_of(VAETraining(binarize=binarize)), batches(1)[0], np.zeros(8, np.int64)
    empty = Split(images[:0], labels[:0])
    found = task.evaluate(Dataset("toy", empty, Split(images, labels)), np.random.default_rng(3))
    rng = np.random.default_rng(3)  # static pixels come binarised
    pixels = RandomStream(rng).bernoulli(Tensor(images)).data if binarize == "dynamic" else images
    assert found == mean_bound(task.model, pixels, rng)


@pytest.mark.parametrize("objective", ["iwae", "dreg"])
@pytest.mark.parametrize("conditional", [False, True])
def test_evaluate_measures_the_objective_too(conditional, objective):
    task = task_of(VAETraining(objective=objective, samples=5), conditional=conditional)
    images, labels = batches(1)[0], all_labels(1)[0]
    data = Dataset("toy", Split(images[:0], labels[:0]), Split(images, labels))
    found, rng = task.evaluate(data, np.random.default_rng(3)), np.random.default_rng(3)
    terms = mean_bound(task.model, images, rng, labels=labels)
    assert found == {"neg_iwae": importance_nll(task.model, images, 5, rng, labels)} | terms


def test_evaluate_gives_the_decoder_the_test_labels():
    task, images, labels = task_of(VAETraining(), conditional=True), batches(1)[0], all_labels(1)[0]
    data = Dataset("toy", Split(images[:0], labels[:0]), Split(images, labels))
    found = task.evaluate(data, np.random.default_rng(3))
    assert found == mean_bound(task.model, images, np.random.default_rng(3), labels=labels)
    assert found["reconstruction"] != mean_bound(task.model, images, np.random.default_rng(3), labels=labels[::-1])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"schedule": "sawtooth"}, "'sawtooth' is not one of constant, cosine, late-cosine, tripling"),
        ({"objective": "log p"}, "objective 'log p' is not one of elbo, iwae, dreg"),
        *(
            ({"objective": objective, name: value}, f"^the objective {objective} takes no beta")
            for objective in ("iwae", "dreg")
            for name, value in (("monte_carlo_kl", True), ("beta", 0.5), ("beta_warmup", 1.0))
        ),
        ({"binarize": "always"}, "'always' is not one of none, static, dynamic"),
        *(({"samples": n}, "^samples >= 1 is needed$") for n in (0, -1)),
        *(({"lr": lr}, "^lr > 0 is needed$") for lr in (0.0, -1.0, math.nan)),
        *(({"beta": beta}, "^beta >= 0 is needed$") for beta in (-0.1, math.nan)),
        *(({"beta_warmup": epochs}, "^beta_warmup >= 0 is needed$") for epochs in (-0.1, math.nan)),
    ],
    ids=str,
)
def test_vae_training_refuses_impossible_settings(options, message):
    with pytest.raises(ValueError, match=message):
        VAETraining(**options)
