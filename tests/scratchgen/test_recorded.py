"""A replayed step gives the bits of a step run by the engine, and calls nothing but kernels."""

from copy import deepcopy
from dataclasses import replace

import numpy as np
import pytest

import kernels
from scratchgen import ops
from scratchgen.data.dataset import Split
from scratchgen.models.aae import AAE, AAEConfig, AAETask, AAETraining
from scratchgen.models.gan import GAN, GANConfig, GANTask, GANTraining
from scratchgen.models.vae import VAE, VAEConfig, VAETask, VAETraining
from scratchgen.nn import BatchNormDense, Dense, flatten
from scratchgen.optim import SGD, Adam
from scratchgen.recorded import KEPT, UNFIT, Recorded, Recording
from scratchgen.tensor import Tensor

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
}


def trained(network, training, batches, steps_per_epoch=100):
    """A task after a step on each batch, and the metrics of each."""
    task = VAETask(VAE(network, np.random.default_rng(0)), training, steps_per_epoch, 1)
    rng = np.random.default_rng(1)
    return task, [task.step(x, np.zeros(len(x), np.int64), rng)() for x in batches]


LABELLED = Split(np.random.default_rng(3).random((20, 17), np.float32), np.arange(20) % 10)
ADVERSARIAL = {
    "gan": lambda: gan(GANTraining()),
    "gan with two steps of D": lambda: gan(GANTraining(discriminator_steps=2, optimizer="momentum", momentum=0.5)),
    "gan with dropout": lambda: gan(GANTraining(), input_dropout=0.2, hidden_dropout=0.3),
    "gan, minimax": lambda: gan(GANTraining(objective="minimax"), batch_norm=False, discriminator="maxout"),
    "aae": lambda: aae(),
    "aae, gaussian": lambda: aae(posterior="gaussian"),
    "aae, universal": lambda: aae(AAETraining(input_noise=0.1), posterior="universal"),
    "aae, regions": lambda: aae(AAETraining(labels=20), prior="mixture"),
    "aae, labels for the decoder": lambda: aae(labels_for="decoder"),
    "aae, labels for the encoder": lambda: aae(AAETraining(labels=20, encoder_optimizer="adam"), labels_for="encoder"),
}


def gan(training, **network):
    config = GANConfig(17, 3, generator_hidden=(6, 7), discriminator_hidden=(8, 5), **network)
    return GANTask(GAN(config, np.random.default_rng(0)), training, 20, 1, lambda *_: {})


def aae(training=None, **network):
    config = AAEConfig(17, 2, (7, 6), (6,), (5, 4), noise_dim=2, **network)
    model = AAE(config, np.random.default_rng(0))
    return AAETask(model, training or AAETraining(), 20, 1, LABELLED, lambda *_: {})


def recordings(task):
    """All that a task has recorded."""
    return [value for value in vars(task).values() if isinstance(value, Recorded)]


@pytest.mark.parametrize("make", ADVERSARIAL.values(), ids=ADVERSARIAL)
def test_adversaries_are_replayed_and_train_the_same(kernel_set, rng, monkeypatch, make):
    batches, labels = rng.random((12, 6, 17), np.float32), rng.integers(10, size=(12, 6))

    def run():
        task, noise = make(), np.random.default_rng(1)
        return task, [task.step(x, y, noise)() for x, y in zip(batches, labels, strict=True)]

    task, metrics = run()
    with monkeypatch.context() as patch:
        patch.setattr(Recorded, "__call__", Recorded._run)
        other, other_metrics = run()
    assert metrics == other_metrics
    for name, array in task.state().items():
        np.testing.assert_array_equal(array, other.state()[name], err_msg=name)
    for recorded in recordings(task):
        assert set(trusted(recorded)) == {True}


def trusted(recorded):
    """Of each computation: whether its recording is replayed, or what is known of one that has none."""
    return [bool(known.tried) if isinstance(known, Recording) else known for known in recorded.known.values()]


def same_training(monkeypatch, *arguments):
    """Whether training is the same, to the last bit, with and without recordings; returns the task with."""
    task, metrics = trained(*arguments)
    with monkeypatch.context() as patch:
        patch.setattr(Recorded, "__call__", Recorded._run)
        other, other_metrics = trained(*arguments)
    assert metrics == other_metrics
    assert other._recorded.known == {}
    for name, array in task.state().items():
        np.testing.assert_array_equal(array, other.state()[name], err_msg=name)
    return task


@pytest.mark.parametrize("training", TRAININGS.values(), ids=TRAININGS)
@pytest.mark.parametrize("network", NETWORKS.values(), ids=NETWORKS)
def test_a_vae_is_replayed_and_trains_the_same(kernel_set, rng, monkeypatch, network, training):
    batches = rng.random((8, 5, 17), np.float32)
    task = same_training(monkeypatch, network, training, batches)
    assert trusted(task._recorded) == [True]


def test_batches_of_other_sizes_and_a_rising_beta(kernel_set, rng, monkeypatch):
    sizes = [5, 5, 5, 2, 5, 5, 5, 5, 2, 2, 2, 2, 5]
    batches = [rng.random((n, 17), np.float32) for n in sizes]
    task = same_training(monkeypatch, CONFIG, VAETraining(), batches)
    assert trusted(task._recorded) == [True, True]
    batches = rng.random((16, 5, 17), np.float32)
    task = same_training(monkeypatch, CONFIG, VAETraining(beta_warmup=0.5), batches, 16)  # constant from step 8 on
    assert trusted(task._recorded) == [True]


class Layer:
    """A dense layer, a function of it, and how often that has been called."""

    def __init__(self, compute=lambda x: x):
        self.dense = Dense(4, 3, np.random.default_rng(0), "tanh")
        self.compute, self.calls = compute, 0
        self.flat = flatten(self.dense.parameters())
        self.recorded = Recorded(self.function, [self.dense], [])

    def function(self, x, factor=1.0):
        self.calls += 1
        out = self.dense(self.compute(Tensor.wrap(x))) * factor
        out.sum().backward()
        return (out._data,)

    def __call__(self, x, **constants):
        """The result and the gradients of a call."""
        (out,) = self.recorded(x, **constants)
        return [np.array(out), *(np.array(p.grad) for p in self.dense.parameters())]


def assert_equal(found, expected):
    for a, b in zip(found, expected, strict=True):
        np.testing.assert_array_equal(a, b)


def test_from_the_fourth_call_on_the_function_is_not_run(kernel_set, rng):
    layer, engine = Layer(), Layer()
    for number, x in enumerate(rng.random((6, 5, 4), np.float32)):
        found = layer(x)
        assert layer.calls == min(number + 1, 3)
        engine.recorded.known.clear()
        assert_equal(found, engine(x))


def test_a_host_s_array_that_is_filled_anew_is_another_input(rng):
    """The recording remembers the numbers, not the array."""
    layer, given = Layer(), rng.random((5, 4), np.float32)
    expected = [Layer()(given) for _ in range(3)]
    for each in expected:
        assert_equal(layer(given), each)
    given[:] = rng.random((5, 4), np.float32)
    assert_equal(layer(given), Layer()(given))
    assert layer.calls == 4  # compared now, for the first time
    assert trusted(layer.recorded) == [True]


def test_what_numpy_makes_of_the_inputs_is_not_frozen(kernel_set, rng):
    outside = Layer(lambda x: Tensor(np.sort(x.data)))
    for x in rng.random((6, 5, 4), np.float32):
        assert_equal(outside(x), Layer()(np.sort(x)))
    assert trusted(outside.recorded) == [UNFIT]
    assert outside.calls == 6


def test_an_operation_that_reads_what_it_was_not_given_is_not_frozen(rng):
    seen = []
    layer = Layer(lambda x: x + Tensor(np.float32(len(seen))))
    for x in rng.random((6, 5, 4), np.float32):
        seen.append(x)
        assert_equal(layer(x), Layer()(x + np.float32(len(seen))))


def test_constants_shapes_and_kernel_sets_have_recordings_of_their_own(rng):
    layer, cases = Layer(), [(5, 1.0, "cpu"), (5, 2.0, "cpu"), (2, 2.0, "cpu"), (2, 2.0, "reference")]
    for _ in range(5):
        for n, factor, kernel_set in cases:
            x = rng.random((n, 4), np.float32)
            with kernels.use(kernel_set):
                assert_equal(layer(x, factor=factor), Layer()(x, factor=factor))
    assert layer.calls == 3 * len(cases)
    for n in range(1, KEPT):
        layer(np.ones((n, 4), np.float32), factor=3.0)
    assert len(layer.recorded.known) == KEPT


def test_gradients_that_are_there_already_are_forgotten(rng):
    layer = Layer()
    for x in rng.random((5, 5, 4), np.float32):
        for parameter in layer.dense.parameters():
            parameter.grad = np.ones_like(parameter.data)
        assert_equal(layer(x), Layer()(x))
    assert trusted(layer.recorded) == [True]


def test_frozen_parameters_have_a_recording_of_their_own(rng):
    layer, other = Layer(), Layer()
    plan = [True, True, False, True, True, False, True, False, False, False, True]
    for learns in plan:
        x = rng.random((5, 4), np.float32)
        other.recorded.known.clear()
        for each in (layer, other):
            each.dense.weight.requires_grad = learns
            each.recorded(x)
        assert (layer.dense.weight.grad is not None) == learns
        assert_equal(
            [p.grad for p in layer.dense.parameters() if p.requires_grad],
            [p.grad for p in other.dense.parameters() if p.requires_grad],
        )
    assert trusted(layer.recorded) == [True, True]


def test_a_gradient_that_the_replay_left_behind_proves_nothing(rng):
    layer = Layer()

    def frozen_weight(x):
        layer.dense.weight.requires_grad = False
        return x

    for x in rng.random((2, 5, 4), np.float32):
        layer(x)
    layer.compute = frozen_weight  # from the comparison on
    for x in rng.random((3, 5, 4), np.float32):
        layer.dense.weight.requires_grad = True
        layer.recorded(x)
        assert layer.dense.weight.grad is None
    assert trusted(layer.recorded) == [UNFIT]


def test_equal_inputs_prove_nothing(rng):
    layer, x = Layer(lambda x: Tensor(np.sort(x.data))), rng.random((5, 4), np.float32)
    for _ in range(4):
        layer(x)
    assert trusted(layer.recorded) == [False]
    for x in rng.random((3, 5, 4), np.float32):
        assert_equal(layer(x), Layer()(np.sort(x)))
    assert trusted(layer.recorded) == [UNFIT]


class Sum(Layer):
    """A layer of the sum of two inputs, of which NumPy sorts the second."""

    def function(self, x, y):
        self.calls += 1
        out = self.dense(Tensor.wrap(x) + Tensor(np.sort(np.asarray(y))))
        out.sum().backward()
        return (out._data,)

    def __call__(self, x, y):
        (out,) = self.recorded(x, y)
        return [np.array(out), *(np.array(p.grad) for p in self.dense.parameters())]


def test_an_input_that_never_changed_is_tried_when_it_does(rng):
    layer, y = Sum(), rng.random((5, 4), np.float32)
    for x in rng.random((6, 5, 4), np.float32):
        assert_equal(layer(x, y), Sum()(x, y))
    assert layer.calls == 3  # replayed, as long as y is the same
    for x, other in rng.random((4, 2, 5, 4), np.float32):
        assert_equal(layer(x, other), Sum()(x, other))
    assert trusted(layer.recorded) == [UNFIT]


def test_a_copy_of_a_task_goes_its_own_way(rng):
    batches = rng.random((12, 5, 17), np.float32)
    task, _ = trained(CONFIG, VAETraining(), batches[:6])
    other, labels = deepcopy(task), np.zeros(5, np.int64)
    before = task.state()
    for x in batches[6:]:
        other.step(x, labels, np.random.default_rng(7))
    for name, array in task.state().items():
        np.testing.assert_array_equal(array, before[name])
    for x in batches[6:]:
        task.step(x, labels, np.random.default_rng(7))
    for name, array in task.state().items():
        np.testing.assert_array_equal(array, other.state()[name])


@pytest.mark.parametrize("calls_before", [1, 2])  # then it is recorded, or compared
def test_a_call_that_fails_leaves_nothing_behind(rng, calls_before):
    layer, batches = Layer(), list(rng.random((6, 5, 4), np.float32))
    for x in batches[:calls_before]:
        layer(x)
    layer.compute = lambda x: 1 / 0
    with pytest.raises(ZeroDivisionError):
        layer(batches[0])
    assert kernels.active() is kernels.cpu
    layer.compute = lambda x: x
    for x in batches:
        assert_equal(layer(x), Layer()(x))
    assert trusted(layer.recorded) == [True]


def test_the_inputs_are_copied_and_may_be_of_any_layout(rng):
    layer, x = Layer(), rng.random((4, 5), np.float32)
    for _ in range(4):
        expected = Layer()(x.T.copy())
        given = x.copy()
        assert_equal(layer(given.T), expected)
        given[:] = 0
        x = rng.random((4, 5), np.float32)


def test_parameters_written_by_an_optimizer_are_seen(rng):
    layer, x = Layer(), rng.random((5, 4), np.float32)
    for _ in range(5):
        layer.flat.data[:] *= 0.9
        other = Layer()
        other.flat.data[:] = layer.flat.data
        assert_equal(layer(x), other(x))


def test_a_softmax_of_a_slice_is_replayed(kernel_set, rng):
    layer = Layer(lambda x: ops.softmax(x.transpose(1, 0)[1:].transpose(1, 0)).reshape(5, 4))
    for x in rng.random((5, 5, 5), np.float32):
        assert_equal(layer(x), Layer(lambda x: ops.softmax(x))(np.ascontiguousarray(x[:, 1:])))
    assert trusted(layer.recorded) == [True]


class Pair(Layer):
    """Two layers that learn in turn, the second from what the first, by then updated, makes of the same input."""

    def __init__(self, returns=2):
        super().__init__()
        self.second, self.returns = BatchNormDense(3, 2, np.random.default_rng(1), "tanh"), returns
        self.optimizers = Adam(self.dense, 0.1), SGD(self.second, 0.1, 0.9)
        self.moments = [moment for optimizer in self.optimizers for moment in optimizer.moments.values()]
        self.recorded = Recorded(self.function, [self.dense, self.second], self.moments)

    def function(self, x, rates):
        self.calls += 1
        first, second = self.optimizers
        loss = self.dense(Tensor.wrap(x)).sum()
        loss.backward()
        first.update(rates[0], rates[0])
        again = self.second(self.dense(Tensor.wrap(x)).detach())
        again.sum().backward()
        second.update(rates[1], rates[1])
        return (loss._data, again._data)[: self.returns]

    def __call__(self, x):
        """The results of a call, and all that it leaves behind."""
        rates = np.array([optimizer.next_rates() for optimizer in self.optimizers], np.float32)
        found = [np.array(result) for result in self.recorded(x, rates)]
        tensors = [*self.dense.named_tensors().values(), *self.second.named_tensors().values()]
        return found + [np.array(array) for array in [tensor._data for tensor in tensors] + self.moments]


def test_updates_are_replayed_too(kernel_set, rng):
    pair, engine = Pair(), Pair()
    for x in rng.random((6, 5, 4), np.float32):
        engine.recorded.known.clear()
        assert_equal(pair(x), engine(x))
    assert trusted(pair.recorded) == [True]
    assert (pair.calls, engine.calls) == (3, 6)


@pytest.mark.parametrize("forgotten", ["a tensor", "a moment"])
def test_what_the_function_writes_unsaid_does_not_pass(rng, forgotten):
    """The comparison finds an array changed twice that it does not know of."""
    pair = Pair()
    if forgotten == "a tensor":
        pair.recorded = Recorded(pair.function, [pair.dense], pair.moments)
    else:
        pair.recorded = Recorded(pair.function, [pair.dense, pair.second], [])
    for x in rng.random((4, 5, 4), np.float32):
        pair(x)
    assert trusted(pair.recorded) == [UNFIT]


def test_another_number_of_results_than_recorded(rng):
    pair, engine = Pair(), Pair()
    for number, x in enumerate(rng.random((6, 5, 4), np.float32)):
        pair.returns = engine.returns = 1 if number == 2 else 2
        engine.recorded.known.clear()
        assert_equal(pair(x), engine(x))
    assert trusted(pair.recorded) == [UNFIT]


def test_graphs_of_before_a_replay_are_told(rng):
    pair = Pair()
    for x in rng.random((4, 5, 4), np.float32):
        pair(x)
    stale = pair.dense(Tensor(x)).sum()
    pair(x)
    with pytest.raises(RuntimeError, match="written"):
        stale.backward()
