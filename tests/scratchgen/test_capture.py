"""A replayed step gives the bits of a step run by the engine, and calls nothing but kernels."""

import warnings
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import replace

import numpy as np
import pytest
from task_helpers import bits, captured, eager

import kernels
from scratchgen import ops
from scratchgen.capture import MOST, READS, REFUSED, Capture, Captured, from_host
from scratchgen.data.dataset import Split
from scratchgen.models.aae import AAE, AAEConfig
from scratchgen.models.gan import GAN, GANConfig
from scratchgen.models.vae import VAE, VAEConfig
from scratchgen.nn import BatchNorm, Buffer, Dense, Module, Parameter, Sequential, flatten
from scratchgen.optim import SGD, Adam
from scratchgen.random import RandomStream
from scratchgen.tasks.aae import AAETask, AAETraining
from scratchgen.tasks.gan import GANTask, GANTraining
from scratchgen.tasks.vae import VAETask, VAETraining
from scratchgen.tensor import Tensor, no_grad

CONFIG = VAEConfig(17, 3, (11, 6), (7,))
NETWORKS = {
    "bernoulli": CONFIG,
    "gaussian": replace(CONFIG, likelihood="gaussian"),
    "gaussian-fixed": replace(CONFIG, likelihood="gaussian-fixed"),
    "tanh": replace(CONFIG, activation="tanh"),
    "leaky relu": replace(CONFIG, activation="leaky_relu"),
    "gelu": replace(CONFIG, activation="gelu"),
}
TRAININGS = {
    "one draw": VAETraining(),
    "three draws": VAETraining(samples=3),
    "sampled KL": VAETraining(samples=2, monte_carlo_kl=True),
    "binarised, beta rising": VAETraining(binarize="dynamic", beta_warmup=0.2),
    "importance weighted": VAETraining(objective="iwae", samples=3),
    "doubly reparametrised": VAETraining(objective="dreg", samples=3),
}
LABELLED = Split(np.random.default_rng(3).random((20, 17), np.float32), np.arange(20) % 10)
ADVERSARIAL = {
    "gan": lambda: gan(GANTraining()),
    "gan with two steps of D": lambda: gan(GANTraining(discriminator_steps=2, optimizer="momentum", momentum=0.5)),
    "gan with dropout": lambda: gan(GANTraining(), input_dropout=0.2, hidden_dropout=0.3),
    "gan with max-norm": lambda: gan(GANTraining(max_norm=0.3), discriminator="maxout"),
    "gan, minimax": lambda: gan(GANTraining(objective="minimax"), batch_norm=False, discriminator="maxout"),
    "aae": lambda: aae(),
    "aae, gaussian": lambda: aae(posterior="gaussian"),
    "aae, universal": lambda: aae(AAETraining(input_noise=0.1), posterior="universal"),
    "aae, regions": lambda: aae(AAETraining(labels=20), prior="mixture"),
    "aae, labels for the decoder": lambda: aae(labels_for="decoder"),
    "aae, labels for the encoder": lambda: aae(AAETraining(labels=20, encoder_optimizer="adam"), labels_for="encoder"),
    "aae, batch norm": lambda: aae(
        AAETraining(labels=20, consistency=2.0, moved=1),
        labels_for="encoder",
        batch_norm=True,
        hidden_noise=0.1,
        posterior="gaussian",
    ),
}


def vae(network=CONFIG, training=None, steps_per_epoch=100):
    model = VAE(network, np.random.default_rng(0))
    return VAETask(model, training or VAETraining(), RandomStream(1), steps_per_epoch, 1)


def gan(training, **network):
    config = GANConfig(17, 3, generator_hidden=(6, 7), discriminator_hidden=(8, 5), **network)
    return GANTask(GAN(config, np.random.default_rng(0)), training, RandomStream(1), 20, 1, lambda *_: {})


def aae(training=None, **network):
    model = AAE(AAEConfig(17, 2, (7, 6), (6,), (5, 4), noise_dim=2, **network), np.random.default_rng(0))
    return AAETask(model, training or AAETraining(), RandomStream(1), 20, 1, LABELLED, lambda *_: {}, (1, 17))


def states(capture):
    """The state of each of its captures."""
    return [
        ("verified" if state.verified else "captured") if isinstance(state, Captured) else state
        for state in capture.states.values()
    ]


def assert_trains_the_same(make, batches, labels=None):
    """Training is the same, to the last bit, with capture and without; returns the capture."""
    tasks = make(), make()
    steps, labels = (captured(tasks[0]), eager(tasks[1])), [None] * len(batches) if labels is None else labels
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # that something is not captured
        for x, y in zip(batches, labels, strict=True):
            with_capture, without = (step(x, y) for step in steps)
            assert with_capture == without
    assert bits(tasks[0]) == bits(tasks[1])
    return steps[0].capture


# ---- the tasks ----


@pytest.mark.parametrize("make", ADVERSARIAL.values(), ids=ADVERSARIAL)
def test_capture_of_adversarial_steps_trains_the_same(kernel_set, rng, make):
    batches, labels = rng.random((12, 6, 17), np.float32), rng.integers(10, size=(12, 6))
    capture = assert_trains_the_same(make, batches, labels)
    # Of the first step, in which no gradient is there to be cleared, there is no second one.
    assert [state for state in states(capture) if state != "warm"]
    assert set(states(capture)) <= {"warm", "verified"}


@pytest.mark.parametrize("training", TRAININGS.values(), ids=TRAININGS)
@pytest.mark.parametrize("network", NETWORKS.values(), ids=NETWORKS)
def test_capture_of_a_vae_s_step_trains_the_same(kernel_set, rng, network, training):
    capture = assert_trains_the_same(lambda: vae(network, training, 20), rng.random((9, 5, 17), np.float32))
    assert states(capture)[-1] == "verified"


def test_capture_of_batches_of_two_sizes(kernel_set, rng):
    sizes = [5, 5, 5, 5, 2, 5, 5, 5, 5, 2, 2, 2, 2, 5]
    capture = assert_trains_the_same(vae, [rng.random((n, 17), np.float32) for n in sizes])
    assert states(capture) == ["warm", "verified", "verified"]


def test_capture_of_a_copied_task_goes_its_own_way(rng):
    task, batches = vae(), rng.random((12, 5, 17), np.float32)
    step = captured(task)
    for x in batches[:6]:
        step(x)
    other, before = deepcopy(task), bits(task)
    for x in batches[6:]:
        captured(other)(x)
    assert bits(task) == before
    for x in batches[6:]:
        step(x)
    assert bits(task) == bits(other)


# ---- steps made for the purpose ----


class Layer:
    """A dense layer, a step of it, and how often that has been run."""

    def __init__(self, compute=lambda x: x):
        self.dense = Dense(4, 3, np.random.default_rng(0), "tanh")
        self.compute, self.calls = compute, 0
        self.flat = flatten(self.dense.parameters())
        self.capture = Capture(self.step, self.dense)

    def step(self, x, factor=1.0):
        self.calls += 1
        self.flat.clear_gradients()
        total = (self.dense(self.compute(x)) * factor).sum()
        total.backward()
        return {"total": total}

    def __call__(self, x, **constants):
        """The result of a call, and the gradients."""
        found = self.capture(Tensor(x), **constants).read()
        return [found["total"], *(np.array(p.grad) for p in self.dense.parameters())]

    def eagerly(self, x, **constants):
        found = self.step(Tensor(x), **constants)
        return [found["total"].item(), *(np.array(p.grad) for p in self.dense.parameters())]


@contextmanager
def warned_once():
    """Inside the ``with`` block, a capture is refused once, because a replay gave something else."""
    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("always")
        yield
    assert len(found) == 1
    assert "something else changes from call to call" in str(found[0].message)


@pytest.mark.usefixtures("kernel_set")
@pytest.mark.parametrize("changed", ["gradient", "buffer"])
def test_step_whose_metrics_alone_repeat_is_not_captured(rng, changed):
    """A Python number that only a gradient depends on, or only a moving average."""
    layer, calls = BatchNorm(3), [0]

    def step(x):
        calls[0] += 1
        layer.momentum = 1 / (1 + calls[0]) if changed == "buffer" else 0.9
        loss = (layer(x) ** 3).mean()
        for parameter in layer.parameters():
            parameter.grad = None
        (loss * (float(calls[0]) if changed == "gradient" else 1.0)).backward()
        return {"loss": loss}

    capture, x = Capture(step, layer), rng.standard_normal((10, 3)).astype(np.float32)
    with warned_once():
        for _ in range(6):
            capture(Tensor(x))
    assert states(capture)[-1] == REFUSED


def assert_equal(found, expected):
    for a, b in zip(found, expected, strict=True):
        np.testing.assert_array_equal(a, b)


def test_capture_replays_from_the_fifth_call_on(kernel_set, rng):
    """In the first call there were no gradients to clear, which makes it another step than the second."""
    layer, engine = Layer(), Layer()
    for number, x in enumerate(rng.random((7, 5, 4), np.float32)):
        found = layer(x)
        assert layer.calls == min(number + 1, 4)
        assert_equal(found, engine.eagerly(x))
    assert states(layer.capture) == ["warm", "verified"]


def test_capture_of_a_host_s_array_that_is_filled_anew(rng):
    """What was given is remembered by its numbers, not as an array."""
    layer, given = Layer(), rng.random((5, 4), np.float32)
    for _ in range(5):
        assert_equal(layer(given), Layer().eagerly(given))
    given[:] = rng.random((5, 4), np.float32)
    assert_equal(layer(given), Layer().eagerly(given))
    assert states(layer.capture)[-1] == "verified"


def test_capture_refuses_a_step_that_reads_a_tensor_back(kernel_set, rng):
    reads = {
        "data": lambda x: Tensor(np.sort(x.data)),
        "NumPy": lambda x: Tensor(np.sort(x)),
        "Tensor": lambda x: Tensor(ops.relu(x)),
        "item": lambda x: x * x[0, 0].item(),
        "float": lambda x: x * float(np.asarray(x)[0, 0]),
    }
    for compute in reads.values():
        layer, batches = Layer(compute), rng.random((6, 5, 4), np.float32)
        for x in batches[:2]:
            layer(x)
        with pytest.warns(RuntimeWarning, match=r"Layer.step is not captured but run each time: it reads a number"):
            layer(batches[2])
        with warnings.catch_warnings():
            warnings.simplefilter("error")  # it has been said
            for x in batches[3:]:
                assert_equal(layer(x), Layer(compute).eagerly(x))
        assert (states(layer.capture)[-1], layer.calls) == (REFUSED, 6)


def test_capture_refuses_a_step_that_changes_a_gradient_by_numpy(rng):
    def clipped(layer):
        def step(x):
            found = layer.step(x)
            for p in layer.dense.parameters():
                np.clip(p.grad, -1.0, 1.0, out=p.grad)  # does nothing to gradients that are small
            return found

        return step

    layer, twin = Layer(), Layer()
    layer.capture = Capture(clipped(layer), layer.dense)
    for i, x in enumerate([*np.full((4, 5, 4), 0.01, np.float32), *rng.random((3, 5, 4), np.float32) * 9]):
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always")
            found = layer(x)
        assert [READS in str(warning.message) for warning in said] == ([True] if i == 2 else [])
        clipped(twin)(Tensor(x))
        assert_equal(found[1:], [p.grad for p in twin.dense.parameters()])


def test_capture_leaves_gradients_alone_that_the_step_does_not_touch(rng):
    class Two(Module):
        def __init__(self):
            self.used, self.unused = Parameter(np.ones(3)), Parameter(np.ones(3))

    two = Two()
    optimizer = SGD([two.used], 0.1)

    def step(x):
        optimizer.zero_grad()
        loss = (two.used * x).sum()
        loss.backward()
        optimizer.step()
        return {"loss": loss}

    capture, x = Capture(step, two), Tensor(rng.random(3), dtype=np.float64)
    for value in range(6):
        two.unused.grad = np.full(3, float(value))
        capture(x)
        assert_equal([two.unused.grad, two.used.grad], [np.full(3, value), x.data])
    assert states(capture)[-1] == "verified"


def test_capture_refuses_a_step_that_depends_on_what_it_is_not_given(rng):
    seen = []
    layer = Layer(lambda x: x + Tensor(np.float32(len(seen))))
    with warned_once():
        for x in rng.random((6, 5, 4), np.float32):
            seen.append(x)
            assert_equal(layer(x), Layer().eagerly(x + np.float32(len(seen))))
    assert states(layer.capture)[-1] == REFUSED


def test_capture_takes_numbers_from_the_host_by_from_host(kernel_set, rng):
    seen = []

    def count():
        seen.append(None)
        return len(seen)

    layer = Layer(lambda x: x + Tensor.wrap(from_host(count, np.float32)))
    for number, x in enumerate(rng.random((8, 5, 4), np.float32), start=1):
        assert_equal(layer(x), Layer().eagerly(x + np.float32(number)))
        assert len(seen) == number  # once a step, while captured and verified too
    assert (states(layer.capture)[-1], layer.calls) == ("verified", 4)


def test_capture_of_labels_on_the_host(kernel_set, rng):
    """A NumPy array stays on the host, for functions of ``from_host``."""

    def step(x, labels):
        rows = Tensor.wrap(from_host(lambda: np.eye(4)[labels], np.float32))
        return {"sum": (x * rows).sum()}

    capture = Capture(step)
    for x in rng.random((6, 5, 4), np.float32):
        labels = rng.integers(4, size=5)
        assert capture(Tensor(x), labels).read()["sum"] == pytest.approx(x[np.arange(5), labels].sum(), rel=1e-6)
    assert states(capture) == ["verified"]


def test_capture_keeps_a_state_for_each_shape_constant_and_kernel_set(rng):
    layer, cases = Layer(), [(5, 1.0, "cpu"), (5, 2.0, "cpu"), (2, 2.0, "cpu"), (2, 2.0, "reference")]
    layer.eagerly(rng.random((5, 4), np.float32))  # so that gradients are there
    for _ in range(5):
        for n, factor, kernel_set in cases:
            x = rng.random((n, 4), np.float32)
            with kernels.use(kernel_set):
                assert_equal(layer(x, factor=factor), Layer().eagerly(x, factor=factor))
    assert layer.calls == 1 + 3 * len(cases)
    for n in range(1, MOST):
        layer(np.ones((n, 4), np.float32), factor=3.0)
    assert len(layer.capture.states) == MOST


def test_capture_knows_the_training_flag(kernel_set, rng):
    """A module that is switched to evaluation is not replayed as in training."""

    def make():
        net = Sequential(Dense(4, 3, np.random.default_rng(0), bias=False), BatchNorm(3, "tanh"))
        return net, Capture(lambda x: {"sum": net(x).sum()}, net)

    (net, capture), (other, _) = make(), make()
    for number, x in enumerate(rng.random((20, 5, 4), np.float32)):
        for each in (net, other):
            each.train(number % 8 < 4)
        assert capture(Tensor(x)).read()["sum"] == other(Tensor(x)).sum().item()
        for mine, theirs in zip(net.named_tensors().values(), other.named_tensors().values(), strict=True):
            np.testing.assert_array_equal(mine.data, theirs.data)
    assert states(capture) == ["verified", "verified"]


def test_capture_knows_frozen_parameters(rng):
    layer, other = Layer(), Layer()
    plan = [True] * 4 + [False] * 4 + [True, False, True, True, False, False, False, True]
    for learns in plan:
        x = rng.random((5, 4), np.float32)
        for each in (layer, other):
            each.dense.weight.requires_grad = learns
        layer.capture(Tensor(x))
        other.step(Tensor(x))
        assert (layer.dense.weight.grad is not None) == learns
        for p, q in zip(layer.dense.parameters(), other.dense.parameters(), strict=True):
            if p.requires_grad:
                np.testing.assert_array_equal(p.grad, q.grad)
    assert set(states(layer.capture)) == {"warm", "verified"}


def test_capture_adds_to_gradients_that_are_there(kernel_set, rng):
    """As the step does without: one that clears none adds up."""
    layer, other = Layer(), Layer()
    for each in (layer, other):
        each.flat.clear_gradients = lambda: None
    for number, x in enumerate(rng.random((9, 5, 4), np.float32)):
        if number == 6:
            for each in (layer, other):
                for parameter in each.dense.parameters():
                    parameter.grad = None
        assert_equal(layer(x), other.eagerly(x))
    assert "verified" in states(layer.capture)


def test_capture_of_gradients_that_the_replay_left_behind(rng):
    layer = Layer()

    def frozen_weight(x):
        layer.dense.weight.requires_grad = False
        return x

    for x in rng.random((3, 5, 4), np.float32):
        layer(x)
    layer.compute = frozen_weight  # from the comparison on
    with warned_once():
        for x in rng.random((3, 5, 4), np.float32):
            layer.dense.weight.requires_grad = True
            layer.dense.weight.grad = layer.dense.weight._buffer.array
            layer.capture(Tensor(x))
            assert layer.dense.weight.grad is None
    assert REFUSED in states(layer.capture)


class Sum(Layer):
    """A layer of the sum of two inputs, of which NumPy sorts the second, behind the engine's back."""

    def step(self, x, y):
        self.calls += 1
        self.flat.clear_gradients()
        total = self.dense(x + Tensor(np.sort(y._data))).sum()
        total.backward()
        return {"total": total}

    def __call__(self, x, y):
        found = self.capture(Tensor(x), Tensor(y)).read()
        return [found["total"], *(np.array(p.grad) for p in self.dense.parameters())]


def test_capture_verifies_an_input_when_it_first_changes(rng):
    layer, y = Sum(), rng.random((5, 4), np.float32)
    for x in rng.random((6, 5, 4), np.float32):
        assert_equal(layer(x, y), Layer().eagerly(x + np.sort(y)))
    assert layer.calls == 4  # replayed, as long as y is the same
    with warned_once():
        for x, other in rng.random((4, 2, 5, 4), np.float32):
            assert_equal(layer(x, other), Layer().eagerly(x + np.sort(other)))
    assert states(layer.capture)[-1] == REFUSED


@pytest.mark.parametrize("calls_before", [1, 2, 3])  # then it is run, captured or verified
def test_capture_after_a_call_that_failed(rng, calls_before):
    layer, batches = Layer(), list(rng.random((6, 5, 4), np.float32))
    for x in batches[:calls_before]:
        layer(x)
    layer.compute = lambda x: 1 / 0
    with pytest.raises(ZeroDivisionError):
        layer(batches[0])
    assert kernels.active() is kernels.cpu
    layer.compute = lambda x: x
    for x in batches:
        assert_equal(layer(x), Layer().eagerly(x))
    assert states(layer.capture)[-1] == "verified"


def test_capture_copies_its_inputs_whatever_their_layout(rng):
    layer, x = Layer(), rng.random((4, 5), np.float32)
    for _ in range(6):
        given = x.copy()
        assert_equal(layer(given.T), Layer().eagerly(x.T.copy()))
        given[:] = 0
        x = rng.random((4, 5), np.float32)


def test_capture_sees_parameters_that_were_written(rng):
    layer, x = Layer(), rng.random((5, 4), np.float32)
    for _ in range(6):
        layer.flat.data[:] *= 0.9
        other = Layer()
        other.flat.data[:] = layer.flat.data
        assert_equal(layer(x), other.eagerly(x))


def test_capture_of_a_softmax_of_a_slice(kernel_set, rng):
    layer = Layer(lambda x: ops.softmax(x.transpose(1, 0)[1:].transpose(1, 0)).reshape(5, 4))
    for x in rng.random((6, 5, 5), np.float32):
        assert_equal(layer(x), Layer(ops.softmax).eagerly(np.ascontiguousarray(x[:, 1:])))
    assert states(layer.capture)[-1] == "verified"


class Pair(Layer):
    """Two layers that learn in turn, the second from what the first, by then updated, makes of the same input."""

    def __init__(self, known=2):
        super().__init__()
        self.second = Sequential(Dense(3, 2, np.random.default_rng(1), bias=False), BatchNorm(2, "tanh"))
        self.optimizers, self.names = (Adam(self.dense, 0.1), SGD(self.second, 0.1, 0.9)), ("first", "second")
        self.capture = Capture(self.step, *(self.dense, self.second)[:known])

    def step(self, x):
        self.calls += 1
        first, second = self.optimizers
        loss = self.dense(x).sum()
        first.zero_grad()
        loss.backward()
        first.step(loss)
        again = self.second(self.dense(x).detach()).sum()
        second.zero_grad()
        again.backward()
        second.step(again)
        return dict(zip(self.names, (loss, again), strict=False))

    def left(self):
        """All that a call leaves behind."""
        tensors = [*self.dense.named_tensors().values(), *self.second.named_tensors().values()]
        states = [array for optimizer in self.optimizers for array in optimizer.state_dict().values()]
        return [np.array(array) for array in [tensor._data for tensor in tensors] + states]

    def __call__(self, x):
        return [*self.capture(Tensor(x)).read().values(), *self.left()]

    def eagerly(self, x):
        return [*(metric.item() for metric in self.step(Tensor(x)).values()), *self.left()]


def test_capture_replays_updates_too(kernel_set, rng):
    pair, engine = Pair(), Pair()
    for x in rng.random((7, 5, 4), np.float32):
        assert_equal(pair(x), engine.eagerly(x))
    assert states(pair.capture)[-1] == "verified"
    assert (pair.calls, engine.calls) == (4, 7)


def test_capture_finds_by_itself_what_a_step_writes(kernel_set, rng):
    """The optimizers' state, and the tensors of a module that it was not told of, which serve only for gradients."""
    pair, engine = Pair(known=1), Pair()
    for x in rng.random((7, 5, 4), np.float32):
        assert_equal(pair(x), engine.eagerly(x))
    assert states(pair.capture)[-1] == "verified"


def test_capture_refuses_a_step_with_other_metrics(rng):
    pair, engine = Pair(), Pair()
    with warned_once():
        for number, x in enumerate(rng.random((7, 5, 4), np.float32)):
            pair.names = engine.names = ("first",) if number == 3 else ("first", "second")
            assert_equal(pair(x), engine.eagerly(x))
    assert states(pair.capture)[-1] == REFUSED


def test_capture_of_a_step_without_metrics(rng):
    capture = Capture(lambda x: {})
    assert [capture(Tensor(x)).read() for x in rng.random((5, 2), np.float32)] == [{}] * 5


def test_capture_counts_versions_so_that_old_graphs_are_refused(rng):
    pair = Pair()
    for x in rng.random((5, 5, 4), np.float32):
        pair(x)
    stale = pair.dense(Tensor(x)).sum()
    pair(x)
    with pytest.raises(RuntimeError, match="written"):
        stale.backward()


# ---- steps that do what a step should not ----


class Descent(Layer):
    """A layer whose optimizer's steps decide what the step does."""

    def __init__(self, factor):
        super().__init__()
        self.optimizer, self.factor = SGD(self.dense, 0.1), factor

    def step(self, x):
        loss = (self.dense(x) * self.factor(self.optimizer)).sum()
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step(loss)
        return {"loss": loss}


def beta_before(optimizer):
    beta = 0.1 * optimizer.steps
    return Tensor.wrap(from_host(lambda: beta, np.float32))


FACTORS = {
    "parity": lambda optimizer: 1.0 if optimizer.steps % 2 == 0 else -1.0,
    "steps": lambda optimizer: 0.1 * optimizer.steps,
    "a number that from_host remembers": beta_before,
}


@pytest.mark.parametrize("factor", FACTORS.values(), ids=FACTORS)
def test_capture_refuses_a_step_that_reads_a_counter(rng, factor):
    """And the very call in which it finds out does what the step does."""
    layer, other = Descent(factor), Descent(factor)
    with warned_once():
        for x in rng.random((9, 5, 4), np.float32):
            assert layer.capture(Tensor(x)).read()["loss"] == other.step(Tensor(x))["loss"].item()
            np.testing.assert_array_equal(layer.flat.data, other.flat.data)
    assert states(layer.capture)[-1] == REFUSED


def test_capture_of_a_counter_inside_from_host(rng):
    def factor(optimizer):
        return Tensor.wrap(from_host(lambda: 0.1 * optimizer.steps, np.float32))

    layer, other = Descent(factor), Descent(factor)
    for x in rng.random((9, 5, 4), np.float32):
        assert layer.capture(Tensor(x)).read()["loss"] == other.step(Tensor(x))["loss"].item()
    assert states(layer.capture)[-1] == "verified"


def test_capture_refuses_a_step_with_one_draw_less(rng):
    """Random numbers go on as without a capture."""

    def make():
        random, seen = RandomStream(0), []

        def step(x):
            seen.append(x)
            noise = random.normal(x.shape) if len(seen) != 3 else Tensor(np.zeros(x.shape), dtype=np.float32)
            return {"sum": (x + noise).sum()}

        return step

    step, capture = make(), Capture(make())
    with warned_once():
        for x in rng.random((6, 5, 4), np.float32):
            assert capture(Tensor(x)).read()["sum"] == step(Tensor(x))["sum"].item()


def test_capture_refuses_what_is_no_input_or_metric(rng):
    capture = Capture(lambda x: {"sum": x.sum() if isinstance(x, Tensor) else 1.0})
    for wrong in (Tensor([1.0], requires_grad=True), Tensor([1.0], requires_grad=True) * 2.0, 3.0, np.float32(3.0)):
        with pytest.raises(TypeError, match="takes tensors that need no gradient, NumPy arrays or None"):
            capture(wrong)
    with pytest.raises(TypeError, match="returns a dict of names to tensors of one element"):
        capture(np.ones(3))


def test_capture_from_host_of_another_shape_is_an_error(rng):
    sizes = [2] * 5 + [1]
    capture = Capture(
        lambda x: {"sum": x.sum() + Tensor.wrap(from_host(lambda: np.ones(sizes.pop(0)), np.float32)).sum()}
    )
    for x in rng.random((5, 3), np.float32):
        capture(Tensor(x))
    with pytest.raises(ValueError, match=r"gave \(2,\) when captured, and now \(1,\)"):
        capture(Tensor(x))


def test_capture_of_parameters_that_move_into_a_buffer(rng):
    dense, x = Dense(4, 3, np.random.default_rng(0)), Tensor(rng.random((5, 4), np.float32))
    capture = Capture(lambda x: {"sum": dense(x).sum()}, dense)
    for _ in range(4):
        capture(x)
    optimizer = SGD(dense, 0.1)
    for _ in range(5):
        dense(x).sum().backward()
        optimizer.step()
        optimizer.zero_grad()
        assert capture(x).read()["sum"] == dense(x).sum().item()


def test_capture_finds_a_buffer_written_by_python(rng):
    class Counter(Module):
        def __init__(self):
            self.count = Buffer(np.zeros(1), dtype=np.float32)

        def forward(self, x):
            self.count.write(self.count._data + 1)
            return x * self.count

    counter = Counter()
    capture = Capture(lambda x: {"sum": counter(x).sum()}, counter)
    with warned_once():
        for number, x in enumerate(rng.random((6, 1), np.float32), start=1):
            assert capture(Tensor(x)).read()["sum"] == np.float32(number) * x[0]
            assert counter.count.item() == number


def test_capture_under_no_grad_is_another_step(rng):
    layer = Layer()
    for x in rng.random((6, 5, 4), np.float32):
        layer(x)
    with no_grad(), pytest.raises(RuntimeError, match="does not depend on anything that requires a gradient"):
        layer(x)


def test_capture_of_a_constant_that_cannot_be_written(rng):
    constant = Tensor(np.ones(4), dtype=np.float32)
    capture = Capture(lambda x: {"sum": (x * Tensor.wrap(constant.data)).sum()})
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # .data reads it back: this step is refused
        for x in rng.random((5, 4), np.float32):
            assert capture(Tensor(x)).read()["sum"] == x.sum()
    view = constant.data
    capture = Capture(lambda x: {"sum": (x * Tensor.wrap(view)).sum()})
    for x in rng.random((5, 4), np.float32):
        capture(Tensor(x))
    assert states(capture) == ["verified"]


def test_capture_within_a_capture(rng):
    inner_random, random = RandomStream(0), RandomStream(1)
    inner = Capture(lambda x: {"sum": (x + inner_random.normal(x.shape)).sum()})

    def step(x):
        first = random.normal(x.shape)
        inner(x)
        return {"sum": (first + random.normal(x.shape)).sum()}

    expected, plain = RandomStream(1), rng.random((6, 3), np.float32)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the outer step may be refused, but its numbers are right
        capture = Capture(step)
        for x in plain:
            found = capture(Tensor(x)).read()["sum"]
            assert found == pytest.approx((expected.normal((3,)).data + expected.normal((3,)).data).sum(), rel=1e-5)


def test_capture_copied_captures_anew(rng):
    layer = Layer()
    for x in rng.random((6, 5, 4), np.float32):
        layer(x)
    other = deepcopy(layer)
    assert other.capture.states == {}
    for x in rng.random((6, 5, 4), np.float32):
        assert_equal(other(x), Layer().eagerly(x))
    assert states(other.capture)[-1] == "verified"


def test_capture_of_a_forward_leaves_graphs_alone(rng):
    dense = Dense(4, 3, np.random.default_rng(0))
    capture = Capture(lambda x: {"sum": dense(x).sum()}, dense)
    for x in rng.random((5, 5, 4), np.float32):
        capture(Tensor(x))
    loss = dense(Tensor(x)).sum()
    capture(Tensor(x))
    loss.backward()


def test_capture_records_no_graph_that_is_walked_later(rng):
    dense, kept = Dense(4, 3, np.random.default_rng(0)), []

    def step(x):
        kept.append(dense(x).sum())
        return {"sum": kept[-1]}

    capture = Capture(step, dense)
    for x in rng.random((2, 5, 4), np.float32):
        capture(Tensor(x))
    calls = len(next(iter(capture.states.values())).trace.calls)
    kept[-1].backward()
    assert len(next(iter(capture.states.values())).trace.calls) == calls
