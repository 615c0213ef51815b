"""Deep belief networks and deep Boltzmann machines in training: whose turn it is, and what a step does (L03)."""

import numpy as np
import pytest
from rbm_helpers import enumerated, small_rbm
from task_helpers import bits, captured, eager

from scratchgen.evaluation.partition import all_states, exact_log_partition
from scratchgen.models.dbm import DBM, DBMConfig
from scratchgen.models.dbn import DBN, DBNConfig
from scratchgen.models.rbm import Units
from scratchgen.optim import SGD
from scratchgen.random import RandomStream
from scratchgen.tasks.dbm import DBMTask, DBMTraining
from scratchgen.tasks.dbn import DECAY, DBNTask, DBNTraining
from scratchgen.tasks.rbm import Chains
from scratchgen.tensor import Tensor

PIXELS, BATCH = 6, 8
both_ways = pytest.mark.parametrize("how", [eager, captured])


def dbn_task(epochs=4, chains=3, hidden=(5, 4), lr=0.1):
    settings = DBNTraining(chains=chains, lr=0.3, schedule="constant", layer_epochs=2, upper_lr=lr)
    return DBNTask(DBN(DBNConfig(PIXELS, hidden), 0), settings, RandomStream(1), 3, epochs)


def dbm_task(centered=False):
    early = 0 if centered else 1
    settings = DBMTraining(2, 5, 0.1, "constant", mean_field_steps=4, centered=centered, pretraining_epochs=early)
    return DBMTask(DBM(DBMConfig(PIXELS, (5, 4)), 0), settings, RandomStream(1), 3, 4)


def batches(count):
    return np.random.default_rng(5).random((count, BATCH, PIXELS), dtype=np.float32)


def changed(before, task):
    """The parts of a task of which something has changed."""
    return {name.split(".")[0] for name, content in bits(task).items() if content != before[name]}


@both_ways
def test_layers_of_a_dbn_take_turns(how):
    """Each has its share of the epochs, begins upside down, and leaves the others alone."""
    task = dbn_task(epochs=5, hidden=(5, PIXELS), lr=0.01)
    take = how(task)
    for step, images in enumerate(batches(15)):
        layer = 0 if step < 3 * 2 else 1
        assert task.step_options() == {"layer": layer, "begin": step in (0, 6)}
        before, models = bits(task), [rbm.state_dict() for rbm in task.model.rbms]
        take(images)
        assert changed(before, task) == {"model", f"optimizer_{layer}", f"chains_{layer}"}
        other = task.model.rbms[1 - layer].state_dict()
        assert all((other[name] == array).all() for name, array in models[1 - layer].items())
        if step == 6:  # one step away from the layer below, turned upside down
            np.testing.assert_allclose(task.model.rbms[1].weight.data, task.model.rbms[0].weight.data.T, atol=0.01)
    assert task.step_options() == {"layer": 1, "begin": False}


@pytest.mark.parametrize(("chains", "batch"), [(3, 8), (11, 4)])
def test_chains_of_an_upper_layer_begin_at_what_the_data_lead_to(chains, batch, monkeypatch):
    """Fewer chains than images, or more: each is a draw of the top layer for an image, a Gibbs step later."""
    task, begun = dbn_task(chains=chains), []
    images = np.repeat(batches(1)[0], 2, axis=0)[:batch]
    for _ in range(6):
        captured(task)(images)
    monkeypatch.setattr(
        Chains, "begin", lambda self, states, original=Chains.begin: (begun.append(states.data), original(self, states))
    )
    monkeypatch.setattr(task.model.rbms[1], "gibbs", lambda h, *_: (_units(h, 5), _units(h, 4)))
    task.train_step(Tensor(images), None, 1, True)
    (states,) = begun
    assert states.shape == (batch, 4)
    np.testing.assert_array_equal(task.chains[1].states.data, [states[i % batch] for i in range(chains)])


def _units(h, width):
    """Units as if the chain had stayed where it was: the hidden ones are its state."""
    states = h if h.shape[1] == width else Tensor(np.zeros((len(h), width), np.float32))
    return Units(states, states)


def test_more_epochs_are_for_the_top_layer_of_a_dbn():
    task, longer = dbn_task(epochs=4), dbn_task(epochs=9)
    for images in batches(12):
        captured(task)(images)
    longer.load_state_dict(task.state_dict())
    assert longer.step_options() == {"layer": 1, "begin": False}


@both_ways
@pytest.mark.parametrize(("phase", "up", "down"), [("bottom", 2.0, 1.0), ("top", 1.0, 2.0)])
def test_a_step_of_pretraining_is_the_algorithm(how, phase, up, down):
    """CD-1 with inputs doubled: upwards at the bottom, also where it draws data for the top; downwards at the top."""
    task = dbm_task()
    take, steps, n = how(task), batches(12), 2 if phase == "bottom" else 5
    for images in steps[:n]:
        take(images)
    twin, random = dbm_task(), RandomStream(1)
    twin.load_state_dict(task.state_dict())
    random.generator.bit_generator.state = task.random.generator.bit_generator.state
    take(steps[n])
    model = twin.model
    v, rbm = random.bernoulli(Tensor(steps[n])), model.bottom
    if phase == "top":
        v, rbm = model.bottom.hidden(v, random, 2.0).states, model.top
    h = rbm.hidden(v, random, up)
    fantasy, hidden = rbm.gibbs(h.states, 1, random, up, down)
    rbm.set_gradients((v, h.means), (fantasy.states, hidden.means))
    twin.optimizers[phase].step()
    for name, parameter in task.model.named_parameters().items():
        np.testing.assert_allclose(parameter.data, model.named_parameters()[name].data, atol=1e-5, err_msg=name)


@both_ways
def test_a_step_of_an_upper_layer_is_the_algorithm(how):
    """Contrastive divergence on draws of the layer below, whose mean is followed."""
    task = dbn_task()
    take, steps = how(task), batches(12)
    for images in steps[:11]:
        take(images)
    twin, random = dbn_task(), RandomStream(1)
    twin.load_state_dict(task.state_dict())
    random.generator.bit_generator.state = task.random.generator.bit_generator.state
    take(steps[11])
    model = twin.model
    below = model.rbms[0].hidden(random.bernoulli(Tensor(steps[11])), random).states
    rbm = model.rbms[1]
    expected = DECAY * rbm.means.data + (1 - DECAY) * below.data.mean(axis=0)
    h = rbm.hidden(below, random)
    fantasy, hidden = rbm.gibbs(twin.chains[1].states, 1, random)
    optimizer = SGD(rbm, 0.1)
    (rbm.free_energy(below).mean() - rbm.free_energy(fantasy.states).mean()).backward()
    optimizer.step()
    found = task.model.rbms[1]
    np.testing.assert_allclose(found.means.data, expected, rtol=1e-5)
    for name, parameter in found.named_parameters().items():
        np.testing.assert_allclose(parameter.data, rbm.named_parameters()[name].data, atol=1e-5, err_msg=name)
    np.testing.assert_array_equal(task.chains[1].states.data, hidden.states.data)
    assert h.means.shape == (BATCH, 4)


@both_ways
def test_phases_of_a_dbm_take_turns(how):
    task = dbm_task()
    take = how(task)
    parts = {"bottom": {"model"}, "top": {"model"}, "joint": {"model", "chains"}}
    for step, images in enumerate(batches(12)):
        phase = "bottom" if step < 3 else "top" if step < 6 else "joint"
        assert task.step_options() == {"phase": phase}
        before, model = bits(task), task.model.state_dict()
        take(images)
        assert changed(before, task) == parts[phase] | {f"{phase}_optimizer"}
        moved = {name for name, array in task.model.state_dict().items() if (array != model[name]).any()}
        assert any(name.startswith("bottom") for name in moved) == (phase != "top")
        assert any(name.startswith("top") for name in moved) == (phase != "bottom")
        assert ("top.visible_bias" in moved) == (phase == "top")


def test_pretraining_doubles_what_comes_from_one_side():
    """Upwards in the bottom RBM, downwards in the top one: its samples are those of doubled weights."""
    rbm, n = small_rbm(PIXELS, 5), 40_000
    v = np.tile([1.0, 0, 1, 1, 0, 1], (n, 1))
    expected = 1 / (1 + np.exp(-(2 * v[0] @ rbm.weight.data + rbm.hidden_bias.data)))
    np.testing.assert_allclose(rbm.hidden(Tensor(v), RandomStream(0), 2.0).means.data[0], expected, rtol=1e-10)
    h = np.tile([1.0, 0, 1, 1, 0], (n, 1))
    expected = 1 / (1 + np.exp(-(2 * rbm.weight.data @ h[0] + rbm.visible_bias.data)))
    units = rbm.visible(Tensor(h), RandomStream(1), 2.0)
    np.testing.assert_allclose(units.means.data[0], expected, rtol=1e-10)
    assert (abs(units.states.data.mean(axis=0) - expected) < 4 * np.sqrt(expected * (1 - expected) / n) + 1e-9).all()
    visible, hidden = rbm.gibbs(Tensor(h), 1, RandomStream(0), up=2.0, down=3.0)
    np.testing.assert_allclose(
        visible.means.data[0], 1 / (1 + np.exp(-(3 * rbm.weight.data @ h[0] + rbm.visible_bias.data))), rtol=1e-10
    )
    inputs = 2 * visible.states.data @ rbm.weight.data + rbm.hidden_bias.data
    np.testing.assert_allclose(hidden.means.data, 1 / (1 + np.exp(-inputs)), rtol=1e-10)


@both_ways
@pytest.mark.parametrize("centered", [True, False])
def test_a_joint_step_is_the_algorithm(how, centered):
    """The energy falls for the data's means, and rises for the chains; the hidden units' means are followed."""
    task = dbm_task(centered)
    take, steps = how(task), batches(12)
    for images in steps[:11]:
        take(images)
    twin, random = dbm_task(centered), RandomStream(1)
    twin.load_state_dict(task.state_dict())
    random.generator.bit_generator.state = task.random.generator.bit_generator.state
    metrics = take(steps[11])
    model = twin.model
    data = model.mean_field(random.bernoulli(Tensor(steps[11])), 4)
    fantasy, states, _ = model.gibbs(twin.chains.states, 2, random)
    for means, layer in ((model.top.means, data.h1), (model.h2_means, data.h2)):
        means.write(DECAY * means.data + (1 - DECAY) * layer.data.mean(axis=0))
    twin.optimizers["joint"].zero_grad()
    if centered:
        model.set_gradients(data, fantasy)
    else:
        (model.energy(data).mean() - model.energy(fantasy).mean()).backward()
    norm = twin.optimizers["joint"].gradient_norm().item()
    twin.optimizers["joint"].step()
    assert metrics["gradient"] == pytest.approx(norm, rel=1e-4)
    expected = model.state_dict()  # with the means
    for name, found in task.model.state_dict().items():
        np.testing.assert_allclose(found, expected[name], atol=1e-5, err_msg=name)
    np.testing.assert_array_equal(task.chains.states.data, states.data)


@pytest.mark.parametrize(
    "how",
    [
        {"lr": 0.1},
        {"lr": 0.1, "pretraining_epochs": 2, "pretraining_lr": 0.1, "centered": False},
    ],
)
def test_a_dbm_finds_a_distribution(rng, how):
    """Of four pixels, drawn from an RBM: the data are within 0.05 nats of what it has learned.

    A wrong direction may lead there, too: what a step does is tested above.
    """
    v, _, joint = enumerated(small_rbm(seed=3))
    data = v[rng.choice(len(v), 5_000, p=joint.sum(axis=1))].astype(np.float32)
    settings = DBMTraining(5, 100, binarize="none", mean_field_steps=10, **how)
    task = DBMTask(DBM(DBMConfig(4, (6, 3)), 0), settings, RandomStream(0), 50, 40)
    take = captured(task)
    for _ in range(40):
        for batch in data[rng.permutation(len(data))].reshape(50, 100, 4):
            take(batch)
    model, rbm = task.model, task.model.as_rbm()
    log_z, states = exact_log_partition(rbm), all_states(6)
    of_h1 = -rbm.free_energy(Tensor(states.astype(np.float32))).data - log_z
    means = model.bottom.visible_means(Tensor(states.astype(np.float32))).data.astype(np.float64)
    given_h1 = np.exp(v @ np.log(means).T + (1 - v) @ np.log(1 - means).T)
    log_p = np.log(given_h1 @ np.exp(of_h1))
    empirical = np.bincount(data.astype(int) @ 2 ** np.arange(4), minlength=16) / len(data)
    divergence = (empirical * (np.log(np.maximum(empirical, 1e-12)) - log_p)).sum()
    assert 0 <= divergence < 0.05


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"chains": 0}, "chains >= 1"),
        ({"pretraining_epochs": -1}, "pretraining_epochs >= 0"),
        ({"pretraining_epochs": 1}, "pretraining_epochs = 0, or centered = False"),
        ({"pretraining_lr": 0.0}, "pretraining_lr > 0"),
        ({"mean_field_steps": 0}, "mean_field_steps >= 1"),
        ({"lr": 0.0}, "lr > 0"),
    ],
)
def test_dbm_training_refuses_impossible_settings(options, message):
    with pytest.raises(ValueError, match=message):
        DBMTraining(**options)


@pytest.mark.parametrize(
    ("options", "message"), [({"layer_epochs": 0}, "layer_epochs >= 1"), ({"upper_lr": 0.0}, "upper_lr > 0")]
)
def test_dbn_training_refuses_impossible_settings(options, message):
    with pytest.raises(ValueError, match=message):
        DBNTraining(**options)
