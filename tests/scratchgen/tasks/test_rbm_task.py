"""A restricted Boltzmann machine in training: a step is contrastive divergence, or its persistent form (L03)."""

import math

import numpy as np
import pytest
from rbm_helpers import enumerated, small_rbm
from task_helpers import bits, captured, eager

from scratchgen.evaluation.partition import exact_log_partition
from scratchgen.models.rbm import VISIBLE
from scratchgen.optim import SGD
from scratchgen.random import RandomStream
from scratchgen.tasks.rbm import RBMTask, RBMTraining
from scratchgen.tensor import Tensor

PIXELS, BATCH = 6, 8


def task_of(settings, visible="bernoulli", **options):
    return RBMTask(small_rbm(PIXELS, 5, visible, dtype=np.float32, **options), settings, RandomStream(1), 4, 3)


def batches(count):
    return np.random.default_rng(5).random((count, BATCH, PIXELS), dtype=np.float32)


@pytest.mark.parametrize("how", [eager, captured])
@pytest.mark.parametrize("visible", VISIBLE)
@pytest.mark.parametrize("chains", [0, 7])
def test_train_step_is_the_algorithm(how, visible, chains):
    """Hinton 2002, or Tieleman 2008 with chains that go on from where they were."""
    binarize = "dynamic" if visible == "bernoulli" else "none"
    settings = RBMTraining(gibbs_steps=2, chains=chains, lr=0.1, momentum=0.5, binarize=binarize)
    task, model = task_of(settings, visible), small_rbm(PIXELS, 5, visible, dtype=np.float32)
    take, random = how(task), RandomStream(1)
    optimizer = SGD(model, 0.1, 0.5)
    going_on = Tensor(random.generator.integers(2, size=(chains, 5)), dtype=np.float32)
    for step, images in enumerate(batches(12)):
        metrics = take(images)
        optimizer.lr = 0.1 * (1 + math.cos(math.pi * step / 12)) / 2
        v = Tensor(images)
        if binarize == "dynamic":
            v = random.bernoulli(v)
        h = model.hidden(v, random)
        state = going_on if chains else h.states
        for _ in range(2):
            fantasy = model.visible(state, random).states
            hidden = model.hidden(fantasy, random)
            state = hidden.states
        going_on = state
        optimizer.zero_grad()
        (model.free_energy(v).mean() - model.free_energy(fantasy).mean()).backward()
        assert metrics["gradient"] == pytest.approx(np.linalg.norm(optimizer.flat.grad), rel=1e-4)
        assert metrics["activity"] == pytest.approx(h.means.data.mean(), rel=1e-4)
        optimizer.step()
    for name, array in task.model.state_dict().items():
        np.testing.assert_allclose(array, model.state_dict()[name], atol=2e-5, err_msg=name)
    if chains:
        np.testing.assert_array_equal(task.chains.states.data, going_on.data)
    assert how is eager or list(take.capture.states.values())[-1].verified


@pytest.mark.parametrize("how", [eager, captured])
def test_nothing_is_updated_where_a_gradient_is_not_finite(how):
    task = task_of(RBMTraining(binarize="none"))
    take = how(task)
    for images in batches(6):
        take(images)
    before = bits(task)
    assert np.isnan(take(np.full((BATCH, PIXELS), np.nan, np.float32))["gradient"])
    for name, content in bits(task).items():
        assert (content == before[name]) == (name != "optimizer.steps"), name


@pytest.mark.parametrize("chains", [0, 50])
def test_training_finds_a_distribution(chains, rng):
    """Of four pixels, drawn from another machine: the data are within 0.01 nats of what it has learned."""
    v, _, joint = enumerated(small_rbm(seed=3))
    p = joint.sum(axis=1)
    data = v[rng.choice(len(v), 5_000, p=p)].astype(np.float32)
    model = small_rbm(seed=4, scale=0.1, dtype=np.float32)
    settings = RBMTraining(gibbs_steps=1 if chains else 20, chains=chains, lr=0.2, binarize="none")
    task = RBMTask(model, settings, RandomStream(0), 50, 30)
    take = captured(task)
    for _ in range(30):
        for batch in data[rng.permutation(len(data))].reshape(50, 100, 4):
            take(batch)
    empirical = np.bincount(data.astype(int) @ 2 ** np.arange(4), minlength=16) / len(data)
    log_p = -model.free_energy(Tensor(v.astype(np.float32))).data - exact_log_partition(model)
    divergence = (empirical * (np.log(np.maximum(empirical, 1e-12)) - log_p)).sum()
    assert 0 <= divergence < 0.01


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"gibbs_steps": 0}, "gibbs_steps >= 1"),
        ({"chains": -1}, "chains >= 0"),
        ({"lr": 0.0}, "lr > 0"),
        ({"momentum": 1.0}, "0 <= momentum < 1"),
        ({"annealed_chains": 1}, "annealed_chains >= 2"),
        ({"annealing_steps": 2}, "annealing_steps >= 3"),
        ({"schedule": "steep"}, "'steep' is not one of"),
        ({"binarize": "sometimes"}, "'sometimes' is not one of"),
    ],
)
def test_rbm_training_refuses_impossible_settings(options, message):
    with pytest.raises(ValueError, match=message):
        RBMTraining(**options)


@pytest.mark.parametrize(("at_the_end", "after_an_epoch"), [(50, 50), (5_000, 1_000), (20_000, 2_000)])
def test_log_z_after_an_epoch_takes_a_tenth_of_the_steps_or_a_thousand(at_the_end, after_an_epoch):
    assert RBMTraining(annealed_chains=7, annealing_steps=at_the_end).after_an_epoch() == (7, after_an_epoch)
