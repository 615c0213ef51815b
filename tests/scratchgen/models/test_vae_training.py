"""The VAE's training step: it is the algorithm, it refuses what is not finite, and a loaded task continues it."""

import math

import numpy as np
import pytest
from vae_helpers import every_likelihood, small_vae

from scratchgen.data.dataset import Dataset, Split
from scratchgen.data.pixels import binarized
from scratchgen.data.strokes import draw_strokes
from scratchgen.models.vae import VAE, VAEConfig, VAETask, VAETraining, mean_bound
from scratchgen.noise import normal, turns
from scratchgen.optim import Adam, tripling_stages
from scratchgen.tensor import Tensor
from scratchgen.training import NotFinite, require_finite

TRAININGS = pytest.mark.parametrize(
    "training",
    [
        VAETraining(lr=0.01),
        VAETraining(lr=0.01, samples=3, monte_carlo_kl=True, beta=0.5, binarize="static"),
        VAETraining(lr=0.01, schedule="tripling", beta=2.0, beta_warmup=2.5, binarize="dynamic"),
    ],
    ids=["plain", "monte carlo", "staged"],
)
EPOCHS, STEPS = 3, 4  # and steps an epoch
LABELS = np.zeros(8, np.int64)


def task_of(training, seed=0, **options):
    return VAETask(small_vae(dtype=np.float32, seed=seed, **options), training, STEPS, EPOCHS)


def batches(count):
    return np.random.default_rng(5).random((count, 8, 6), dtype=np.float32)


@TRAININGS
def test_a_step_is_the_algorithm(training):
    """L19, step by step: noise, the two terms, their gradient, Adam."""
    task, model = task_of(training), small_vae(dtype=np.float32)
    optimizer, rng, same_rng = Adam(model), np.random.default_rng(1), np.random.default_rng(1)
    for step, images in enumerate(batches(EPOCHS * STEPS)):
        warmup = training.beta_warmup * STEPS
        beta = training.beta * min(1, step / warmup) if warmup else training.beta
        assert task.beta() == pytest.approx(beta)
        metrics = task.step(images, LABELS, rng)()

        turn = turns(same_rng)
        x = binarized(images, turn, draw=1) if training.binarize == "dynamic" else images
        noise = normal((training.samples, 8, 3), np.dtype(np.float32), turn)
        terms = model.negative_elbo(Tensor(x), Tensor(noise), training.monte_carlo_kl)
        reconstruction, kl = (term.mean() for term in terms)
        optimizer.lr = tripling_stages(0.01, EPOCHS * STEPS)(step) if training.schedule == "tripling" else 0.01
        optimizer.zero_grad()
        (reconstruction + beta * kl).backward()
        optimizer.step()
        assert list(metrics) == ["neg_elbo", "reconstruction", "kl"]
        assert metrics["neg_elbo"] == metrics["reconstruction"] + metrics["kl"]
        assert metrics["reconstruction"] == pytest.approx(reconstruction.item(), rel=1e-5)
        assert metrics["kl"] == pytest.approx(kl.item(), rel=1e-5)
    for name, array in task.model.state_dict().items():
        np.testing.assert_allclose(array, model.state_dict()[name], atol=1e-5, err_msg=name)


def test_beta_ramps_up_and_stays():
    task = task_of(VAETraining(beta=0.5, beta_warmup=2))
    found = []
    for images in batches(10):
        found.append(task.beta())
        task.step(images, LABELS, np.random.default_rng(0))
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
def test_what_is_not_finite_is_named_before_anything_changes(where, value, named, fine):
    task, rng = task_of(VAETraining()), np.random.default_rng(0)
    *before, images = batches(6)
    for batch in before:  # from the fourth on a step is replayed
        task.step(batch, LABELS, rng)
    if where == "images":
        images[3, 2] = value
    else:
        parameter = task.model.named_parameters()[where]
        parameter.write(np.full(parameter.shape, value))
    before = {name: array.tobytes() for name, array in task.state().items()}
    metrics = task.step(images, LABELS, rng)()
    with pytest.raises(NotFinite) as error:
        require_finite(metrics)
    assert all(text in str(error.value) for text in named)
    assert not any(text in str(error.value) for text in fine)
    after = {name: array.tobytes() for name, array in task.state().items() if name != "optimizer.steps"}
    assert after.items() <= before.items()


@every_likelihood
def test_training_lowers_the_loss(rng, likelihood):
    images = draw_strokes(160, rng).images
    model = VAE(VAEConfig(784, 4, (16,), (16,), likelihood=likelihood), rng)
    task = VAETask(model, VAETraining(lr=0.01), 8, 10)
    metrics = [task.step(images[20 * (i % 8) :][:20], LABELS, rng)() for i in range(80)]
    first, last = (np.mean([f["neg_elbo"] for f in part]) for part in (metrics[:8], metrics[-8:]))
    assert last < first - 100
    assert metrics[-1]["kl"] > 1  # the code is in use
    unseen = draw_strokes(100, rng).images
    assert mean_bound(model, unseen, rng)["neg_elbo"] < first - 100


@TRAININGS
def test_a_loaded_task_continues_bit_for_bit(training):
    task, rng = task_of(training), np.random.default_rng(1)
    images = batches(8)
    for batch in images[:4]:
        task.step(batch, LABELS, rng)
    state, stream = task.state(), rng.bit_generator.state
    metrics = [task.step(batch, LABELS, rng)() for batch in images[4:]]

    resumed = task_of(training, seed=9)
    resumed.load_state(state)
    rng.bit_generator.state = stream
    assert [resumed.step(batch, LABELS, rng)() for batch in images[4:]] == metrics
    assert {k: a.tobytes() for k, a in resumed.state().items()} == {k: a.tobytes() for k, a in task.state().items()}


def test_the_state_of_another_model_is_refused():
    state = task_of(VAETraining(), likelihood="gaussian").state()
    task = task_of(VAETraining())
    with pytest.raises(ValueError, match=r"unexpected \['decoder_logvar.bias', 'decoder_logvar.weight'\]"):
        task.load_state(state)
    without_moments = {name: array for name, array in task.state().items() if name != "optimizer.v"}
    with pytest.raises(ValueError, match="Adam keeps"):
        task.load_state(without_moments)


@pytest.mark.parametrize("binarize", ["none", "static", "dynamic"])
def test_evaluate_sees_pixels_as_training_does(binarize):
    task, images = task_of(VAETraining(binarize=binarize)), batches(1)[0]
    empty = Split(images[:0], LABELS[:0])
    found = task.evaluate(Dataset("toy", empty, Split(images, LABELS)), np.random.default_rng(3))
    rng = np.random.default_rng(3)  # static pixels come binarised
    assert found == mean_bound(task.model, binarized(images, turns(rng)) if binarize == "dynamic" else images, rng)
