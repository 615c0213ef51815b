# %% [markdown]
# # Replay: what a step costs beside its kernels
#
# A training step is a sequence of kernel calls: matrix products, activations, their gradients, an update. Python does
# not compute any of that. It finds out which kernel comes next, checks shapes, allocates the result, builds the graph
# and walks back through it. It does so anew in every step, though every step comes to the same conclusions.
#
# This lesson measures that price, and then avoids it: *capture* a step once as a list of kernel calls, and *replay* the
# list from then on. The list is easily made. Most of the lesson is about what it must not miss.
#
# All times are the fastest of many repetitions, as other work on the machine only makes them longer. Set
# `NUMBA_NUM_THREADS=1` to measure on one core.

# %%
import argparse
import itertools
import sys
import time
import warnings
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

import kernels
from scratchgen import Tensor, ops
from scratchgen.capture import Capture, Captured, from_host
from scratchgen.data.strokes import draw_strokes
from scratchgen.models.vae import VAE, VAEConfig
from scratchgen.nn import Dense, Dropout, Module, Parameter, Sequential, flatten
from scratchgen.optim import SGD
from scratchgen.random import RandomStream
from scratchgen.tasks.vae import VAETask, VAETraining

parser = argparse.ArgumentParser(description="What a training step costs beside its kernels, and how to avoid it.")
parser.add_argument("--out", type=Path, default=Path("runs/engine-5"), help="folder for the figures")
options = parser.parse_args([] if "ipykernel" in sys.modules else None)  # in a notebook: the defaults
options.out.mkdir(parents=True, exist_ok=True)


def print_table(*rows):
    """Rows of texts in aligned columns; the first row is the header."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        print(" | ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip())
    print()


# %% [markdown]
# ## A clock around each kernel
#
# Operations do not call a kernel directly. They ask for the kernel set in use, `kernels.active()`, and call what they
# find there. So we can give them a set of our own: `kernels.wrapped` makes a copy of a set in which each kernel is
# replaced by whatever our function returns for it. Here it returns a function that calls the kernel and reads the clock
# before and after.

# %%
CALLS = []  # of kernels, since the list was last cleared: name, start, end


def with_clock(name, kernel):
    def call(*arguments):
        start = time.perf_counter()
        kernel(*arguments)
        CALLS.append((name, start, time.perf_counter()))

    return call


CLOCKED = kernels.wrapped(kernels.active(), with_clock)


def wall(function, *arguments):
    """The seconds that a call takes."""
    start = time.perf_counter()
    function(*arguments)
    return time.perf_counter() - start


def in_kernels(function, *arguments):
    """The seconds that a call spends inside kernels."""
    CALLS.clear()
    with kernels.use(CLOCKED):
        function(*arguments)
    return sum(end - start for _, start, end in CALLS)


def fastest(*measurements, seconds=0.5):
    """The smallest result of each, all measured in turns for so many seconds, after a few rounds that do not count."""
    for _ in range(6):  # kernels compile
        for measure in measurements:
            measure()
    found, end = [], time.perf_counter() + seconds
    while len(found) < 10 or time.perf_counter() < end:
        found.append([measure() for measure in measurements])
    return [min(column) for column in zip(*found, strict=True)]


def eager_and_kernels(function, *arguments):
    """The seconds that a call takes, and those of them inside kernels."""
    return fastest(lambda: wall(function, *arguments), lambda: in_kernels(function, *arguments))


# %% [markdown]
# ## The price of an operation
#
# The simplest operation changes the sign of every number in an array. Here it is applied to arrays of different sizes,
# forward only, with a graph being built.

# %%
REPEATS = 50


def change_signs(x):
    for _ in range(REPEATS):
        y = -x
    return y


rows = [("numbers in the array", "µs an operation", "in its kernel", "beside it", "in percent")]
prices = []
for size in (1, 100, 1_000, 10_000, 100_000):
    leaf = Tensor(np.ones(size), requires_grad=True, dtype=np.float32)
    total, inside = (1e6 * seconds / REPEATS for seconds in eager_and_kernels(change_signs, leaf))
    prices.append(total - inside)
    rows.append((f"{size:,}", f"{total:.1f}", f"{inside:.1f}", f"{prices[-1]:.1f}", f"{prices[-1] / total:.0%}"))
print_table(*rows)
assert prices[2] < 3 * prices[0]  # for a thousand times as many numbers

# %% [markdown]
# The work of a kernel grows with its array. What Python does beside it (look the operation up, check types and shapes,
# allocate the result, add a node to the graph) is nearly the same for any array: the price of an operation. Beside a
# small kernel it is nearly everything.
#
# ## The price of a training step
#
# So much for a toy. This is one step of a variational autoencoder on 10 digits, drawn by `scratchgen.data.strokes`,
# with hidden layers of different widths: `train_step` of `scratchgen/tasks/vae.py`, the method that trains all VAEs
# of this project.

# %%
BATCH = 10
DIGITS = draw_strokes(30 * BATCH, np.random.default_rng(0)).images.astype(np.float32)


def vae_task(width):
    """A small VAE in training, the same each time."""
    model = VAE(VAEConfig(784, 2, (width,), (width,)), np.random.default_rng(0))
    return VAETask(model, VAETraining(), RandomStream(1), steps_per_epoch=100, epochs=1)


x = Tensor(DIGITS[:BATCH])
shares, counts = [], set()
rows = [("width", "kernel calls", "ms a step", "ms in kernels", "beside them", "in percent", "µs beside a kernel call")]
for width in (4, 16, 64, 256):
    step = vae_task(width).train_step
    total, inside = eager_and_kernels(step, x)
    beside = total - inside
    shares.append(beside / total)
    rows.append(
        (
            *(f"{width}", f"{len(CALLS)}", f"{1e3 * total:.2f}", f"{1e3 * inside:.2f}"),
            *(f"{1e3 * beside:.2f}", f"{shares[-1]:.0%}", f"{1e6 * beside / len(CALLS):.1f}"),
        )
    )
    counts.add(len(CALLS))
print_table(*rows)
assert len(counts) == 1
assert shares[0] > 0
assert shares[0] > shares[-1]

# %% [markdown]
# A step calls the same number of kernels whatever the width, each at about the same price. In a wide network that is a
# small part of the step. In a narrow one it is a large part, and faster kernels would do nothing about it.
#
# Could the Python be made faster? Somewhat. But it would still do again what it has done before. The better question
# is what *changes* from one step to the next. The kernels are the same, in the same order. Their arrays have the same
# shapes. Only the numbers in the arrays are new.
#
# ## Capture in a few lines
#
# So note each kernel call with its arguments while the step runs, and later make the same calls again. We have the tool
# for it already: where the function around a kernel read a clock, it now notes the call.


# %%
class Recording:
    """A step, run once on ``inputs`` and noted as a list of kernel calls."""

    def __init__(self, step, *inputs):
        self.inputs, self.calls = [x.detach() for x in inputs], []  # detach copies: the arrays are the recording's own

        def note(name, kernel):
            def call(*arguments):
                kernel(*arguments)
                self.calls.append((name, kernel, arguments))

            return call

        with kernels.use(kernels.wrapped(kernels.active(), note)):
            self.results = step(*self.inputs)

    def replay(self, *inputs):
        for mine, new in zip(self.inputs, inputs, strict=True):
            mine._data[...] = new._data
        for _, kernel, arguments in self.calls:
            kernel(*arguments)
        return self.results


# %% [markdown]
# A step to try it on: a small network learns a sine by gradient descent.


# %%
class Regression:
    """A small network and its training step; each one begins with the same weights."""

    def __init__(self):
        rng = np.random.default_rng(0)
        self.net = Sequential(Dense(1, 16, rng, "tanh"), Dense(16, 1, rng))
        self.optimizer = SGD(self.net, lr=0.05)

    def step(self, x, t):
        loss = ops.squared_error(self.net(x), t).mean()
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        return {"loss": loss}


rng = np.random.default_rng(1)
xs = rng.uniform(-3, 3, (200, 20, 1)).astype(np.float32)
batches = [(Tensor(x), Tensor(np.sin(x))) for x in xs]

eager, replayed = Regression(), Regression()
losses = [eager.step(*batch)["loss"].item() for batch in batches]
recording = Recording(replayed.step, *batches[0])
losses_replayed = [recording.results["loss"].item()]
losses_replayed += [recording.replay(*batch)["loss"].item() for batch in batches[1:]]


# %% [markdown]
# This is all that is left of the step:


# %%
def described(argument):
    return f"array {argument.shape}" if isinstance(argument, np.ndarray) else repr(argument)


for name, _, arguments in recording.calls:
    print(f"{name}({', '.join(map(described, arguments))})")
print()

# %% [markdown]
# No graph, no tensors, no shapes to check: kernels and arrays. And it trains as before, to the last bit:

# %%
rows = [("step", "loss, eager", "loss, replayed")]
rows += [(f"{i + 1}", f"{losses[i]:.9f}", f"{losses_replayed[i]:.9f}") for i in (0, 1, 2, 9, 99, 199)]
print_table(*rows)
same = losses == losses_replayed and np.array_equal(eager.optimizer.flat.data, replayed.optimizer.flat.data)
print(f"after 200 steps, all losses and weights the same bits: {same}")
assert same
seconds = fastest(lambda: wall(eager.step, *batches[0]), lambda: wall(recording.replay, *batches[0]))
print(f"eager {1e6 * seconds[0]:.0f} µs a step, replayed {1e6 * seconds[1]:.0f} µs\n")

# %% [markdown]
# Why is this right? Because every number that changes comes through an array that stays where it is:
#
# - the inputs are copied into the arrays that the recording was made with;
# - the optimizer updates the weights in place, so the next replay reads the new ones;
# - intermediate results and gradients are written before they are read. Their arrays belong to the recording as long as
#   the list refers to them; nobody else is given that memory.
#
# The condition is severe: *every number that changes comes through the same arrays*. Whatever else Python does in the
# step happens once, while it is recorded, and never again. Four ways to break the condition follow, each as a
# `careless` step and a `remedy`. Both run eagerly, by our `Recording`, and by the project's own `Capture` from
# `scratchgen/capture.py`. What matters is whether the second and third column of each group equal the first.


# %%
def state_of(capture):
    """The state of what a capture used last."""
    state = list(capture.states.values())[-1]
    return state if isinstance(state, str) else "verified" if state.verified else "captured"


def three_ways(make, batches):
    """The results of a step run eagerly, by Recording and by Capture; its last state, and what Capture said."""
    (step, *_), (recorded, *_), (captured, *modules) = make(), make(), make()
    capture, found = Capture(captured, *modules), []
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        for number, x in enumerate(map(Tensor, batches)):
            if number == 0:
                recording = Recording(recorded, x)
                results = recording.results
            else:
                results = recording.replay(x)
            found.append((step(x)["result"].item(), results["result"].item(), capture(x).read()["result"]))
    return found, state_of(capture), [str(warning.message) for warning in said]


def compare(careless, remedy, batches):
    """Print both steps, each in three ways; check that Recording fails on the careless one and that Capture does not.

    Returns whether Recording gets the remedy right.
    """
    groups = [three_ways(make, batches) for make in (careless, remedy)]
    rows = [("call", "careless: eager", "Recording", "Capture", "remedy: eager", "Recording", "Capture")]
    for number, results in enumerate(zip(*(found for found, _, _ in groups), strict=True), start=1):
        rows.append((f"{number}", *(f"{value:.5f}" for three in results for value in three)))
    rows.append(("in the end", "", "", groups[0][1], "", "", groups[1][1]))
    print(f"{careless.__name__} (careless) and {remedy.__name__} (remedy)")
    print_table(*rows)
    for message in groups[0][2]:
        print("RuntimeWarning:", message)
    print()
    for found, _, _ in groups:
        assert all(eager == captured for eager, _, captured in found)
    assert any(eager != recorded for eager, recorded, _ in groups[0][0])
    assert (groups[0][1], len(groups[0][2])) == ("refused", 1)
    assert (groups[1][1], len(groups[1][2])) == ("verified", 0)
    return all(eager == recorded for eager, recorded, _ in groups[1][0])


# %% [markdown]
# ## 1. A learning rate that changes
#
# A single weight w goes downhill on the loss w, whose slope is 1, with learning rates 1, 1/2, 1/4, ... The careless
# step passes the rate to a kernel as a Python number.


# %%
class Weight(Module):
    def __init__(self):
        self.w = Parameter([0.0])


def rate_in_python():
    weight, rates = Weight(), (0.5**i for i in itertools.count())
    flat = flatten(weight.parameters())  # the arrays that hold all weights and all gradients

    def step(x):
        flat.clear_gradients()
        loss = (weight.w * x).sum()
        loss.backward()
        change = kernels.active().memory.empty_like(flat.grad)
        kernels.active().elementwise.scale(change, flat.grad, -next(rates))
        kernels.active().memory.add_to(flat.data, change)
        flat.mark_written()
        return {"result": loss}

    return step, weight


def rate_from_host():
    weight = Weight()
    optimizer = SGD(weight, lr=lambda steps: 0.5**steps)

    def step(x):
        optimizer.zero_grad()
        loss = (weight.w * x).sum()
        loss.backward()
        optimizer.step()
        return {"result": loss}

    return step, weight


recording_right = compare(rate_in_python, rate_from_host, np.ones((8, 1), np.float32))
assert not recording_right

# %% [markdown]
# Recording stays at the rate 1: -1.0 is an argument in its list, a number and not an array. It does so even for the
# remedy, as it knows nothing of the remedy's trick.
#
# The trick is `from_host`, which `Optimizer.step` uses. It takes a *function* instead of a number, here one that counts
# the step and returns the rate. It calls the function and puts the result into an array, which is what the kernel gets.
# `Capture` notes both, and before each replay it calls the function again and writes the result into the array. Again:
# numbers that change come through arrays.
#
# And the careless step? `Capture` does not trust its list. After the first replay it puts all arrays back as they were,
# runs the step itself on the same inputs, and compares what the two have written. If any number differs, it says so
# and from then on runs the step each time. Refused, a step is still right, only not faster.
#
# ## 2. Random numbers that repeat
#
# A step that adds noise to its input, which is 0 here so that we see the noise.


# %%
def noise_from_numpy():
    rng = np.random.default_rng(0)

    def step(x):
        return {"result": (x + Tensor(rng.standard_normal(x.shape, np.float32))).sum()}

    return (step,)


def noise_from_stream():
    random = RandomStream(0)

    def step(x):
        return {"result": (x + random.normal(x.shape)).sum()}

    return (step,)


recording_right = compare(noise_from_numpy, noise_from_stream, np.zeros((6, 1), np.float32))
assert not recording_right

# %% [markdown]
# The recorded noise is the same in every replay. A VAE would train with it, and no error would tell.
#
# `RandomStream` leaves the random numbers to a kernel. It computes them from a *key*, which is a single integer, and
# the same key gives the same numbers (a counter-based generator: Salmon et al. 2011). The key comes from the host, by
# `from_host`: one new integer for each draw, however many numbers are drawn.
#
# ## 3. NumPy on the data
#
# The variance of a batch, whose mean is taken by NumPy. The batches have the means 1, 2, 3, ... and the variance 1.


# %%
def mean_by_numpy():
    def step(x):
        centred = x - x.data.mean()
        return {"result": (centred * centred).mean()}

    return (step,)


def mean_by_operation():
    def step(x):
        centred = x - x.mean()
        return {"result": (centred * centred).mean()}

    return (step,)


plus_minus = np.array([1, -1, 1, -1], np.float32)
recording_right = compare(mean_by_numpy, mean_by_operation, [mean + plus_minus for mean in range(1, 7)])
assert recording_right

# %% [markdown]
# The mean of the first batch is in the list as a constant, and the others are centred by it. This time the warning is
# another one, and comes without any comparison: `.data`, `.item()` and `np.asarray` of a tensor all ask the kernel set
# for the numbers, and while a step is noted, the set remembers that it was asked. Whatever Python does with a number
# that it has read is missing from the list.
#
# The remedy is to stay inside: an operation is in the list, NumPy is not. Then even our Recording gets it right.
#
# ## 4. A branch
#
# A loss that counts positive errors double: 2x if x > 0, else -x.


# %%
def decided_by_python():
    def step(x):
        return {"result": x * 2.0 if x.item() > 0 else x * -1.0}

    return (step,)


def decided_by_arithmetic():
    def step(x):
        return {"result": ops.relu(x) * 2.0 + ops.relu(-x)}

    return (step,)


recording_right = compare(
    decided_by_python, decided_by_arithmetic, np.array([[1], [2], [-3], [4], [-5], [6]], np.float32)
)
assert recording_right

# %% [markdown]
# The list holds the branch that was taken first, and a loss becomes negative. To branch, Python must read the number,
# so `Capture` notices as before. The remedy computes both sides and lets arithmetic choose.
#
# There is a fifth way to fail, which is no fault of the step. `detach`, among others, calls `memory.copied`, which
# allocates an array and fills it. As it returns something it is not a kernel, and Recording does not see it. `Capture`
# notes it as two calls: one that allocates, one that writes.


# %%
def copies(x):
    return {"result": x.detach()}


recording, capture = Recording(copies, Tensor([1.0])), Capture(copies)
rows = [("call", "expected", "Recording", "Capture")]
for number in (1.0, 2.0, 3.0, 4.0, 5.0):
    x = Tensor([number])
    found = recording.replay(x)["result"].item(), capture(x).read()["result"]
    rows.append((f"{number:.0f}", f"{number}", *map(str, found)))
    assert found == (1.0, number)
print_table(*rows)
assert (len(recording.calls), state_of(capture)) == (0, "verified")

# %% [markdown]
# ## One list for each kind of step
#
# Other branches are harmless, because Python knows beforehand which way they go. The last batch of an epoch is smaller.
# Dropout drops in training and not in evaluation. A GAN updates its discriminator in each step, and its generator in
# every k-th. Each kind of step is a list of its own, and `Capture` keeps them apart by a *key*: the kernel set, the
# shapes and types of the inputs, the training flag of each module, which parameters learn and which have a gradient so
# far, and the keyword arguments of the call, which are constants for the step.


# %%
class Noisy:
    """A network with dropout, and a step with a constant."""

    def __init__(self):
        rng = np.random.default_rng(0)
        self.net = Sequential(Dense(4, 8, rng, "tanh"), Dropout(0.5), Dense(8, 1, rng))
        self.net.set_random(RandomStream(0))

    def step(self, x, factor):
        return {"mean": (self.net(x) * factor).mean()}


eager, noisy = Noisy(), Noisy()
capture = Capture(noisy.step, noisy.net)
same = []
for size, training, factor in ((20, True, 1.0), (7, True, 1.0), (20, False, 1.0), (20, True, 3.0)):
    eager.net.train(training)
    noisy.net.train(training)
    for x in rng.standard_normal((5, size, 4), np.float32):
        same.append(capture(Tensor(x), factor=factor).read()["mean"] == eager.step(Tensor(x), factor)["mean"].item())
rows = [("batch", "training", "factor", "state", "kernel calls", "taken from the host")]
for key, state in capture.states.items():
    assert isinstance(state, Captured)
    assert state.verified
    ((_, shape, _),) = key.inputs
    kind = shape[0], key.training[0], dict(key.constants)["factor"]
    rows.append(tuple(map(str, (*kind, "verified", len(state.trace.calls), len(state.trace.arrays)))))
print_table(*rows)
print(f"{sum(same)} of {len(same)} results equal to the eager ones\n")
assert all(same)
assert len(capture.states) == 4

# %% [markdown]
# The number taken from the host is the key of the dropout mask. In evaluation there is no mask, hence no key, and the
# list is shorter.
#
# ## What no comparison can see
#
# A comparison proves something about the calls that it compares. A number that stays the same until the list is
# verified, and changes later, gets past it. Here the factor is read from a variable (careless) or passed as a keyword
# argument (remedy), and is changed before the seventh call:

# %%
factor = 1.0


def reads_a_variable(x):
    return {"result": (x * factor).sum()}


def takes_an_argument(x, factor):
    return {"result": (x * factor).sum()}


careless, remedy = Capture(reads_a_variable), Capture(takes_an_argument)
rows = [("call", "factor", "expected", "careless", "remedy")]
for call in range(1, 11):
    factor = 1.0 if call < 7 else 10.0
    x = Tensor([float(call)])
    found = careless(x).read()["result"], remedy(x, factor=factor).read()["result"]
    rows.append((f"{call}", f"{factor}", f"{call * factor}", *map(str, found)))
    assert found[1] == call * factor
    assert (found[0] == call * factor) == (call < 7)
print_table(*rows)

# %% [markdown]
# No warning: this one is for the author of the step to know. The contract is short. What a step computes, it computes
# by operations. What changes comes as an input, by `from_host` or as a keyword argument. In this project all training
# steps keep it, and the tests compare each of them with its eager twin.
#
# A number that changes in every step must not be a keyword argument: each value would be a step of another kind, with a
# list of its own that is never used again. For that, there is `from_host`:

# %%
runs = {"keyword": 0, "from_host": 0}
numbers = iter(range(1, 11))


def takes_a_keyword(x, factor):
    runs["keyword"] += 1
    return {"result": (x * factor).sum()}


def takes_from_host(x):
    runs["from_host"] += 1
    return {"result": (x * Tensor.wrap(from_host(lambda: [next(numbers)], np.float32))).sum()}


x, (keyword, host) = Tensor([1.0]), (Capture(takes_a_keyword), Capture(takes_from_host))
rows = [("a number that is new each time", "results", "run by Python")]
for name, found in (
    ("keyword", [keyword(x, factor=float(number)).read()["result"] for number in range(1, 11)]),
    ("from_host", [host(x).read()["result"] for _ in range(1, 11)]),
):
    rows.append((name, " ".join(f"{result:.0f}" for result in found), f"{runs[name]} of {len(found)} times"))
    assert found == list(range(1, 11))
print_table(*rows)
assert runs["keyword"] == 10
assert runs["from_host"] < 5

# %% [markdown]
# ## The real thing
#
# Back to the VAE, whose step has everything that broke our Recording: random noise, Adam's rates (which change even at
# a constant learning rate, by the bias correction), a weight of the KL term that may rise. 30 steps, eager and
# captured; every tenth batch is a short one.

# %%
eager, task = vae_task(64), vae_task(64)
capture = Capture(task.train_step, *task.modules())
steps, states = [], {}  # the last state of each kind of step
for number in range(1, 31):
    first = BATCH * (number - 1)
    x = Tensor(DIGITS[first : first + (BATCH if number % 10 else 4)])
    kind = str(len(x)), "there" if task.model.encoder_mu.weight.grad is not None else "none yet"
    start = time.perf_counter()
    pending = capture(x)
    seconds = time.perf_counter() - start
    expected = {name: metric.item() for name, metric in eager.train_step(x).items()}
    before, states[kind] = states.get(kind, "new"), state_of(capture)
    steps.append(((*kind, before, states[kind]), number, seconds, pending.read() == expected))

rows = [("calls", "batch", "gradients", "state before", "after", "ms", "metrics equal")]
for kind, group in itertools.groupby(steps, key=lambda step: step[0]):
    _, numbers, seconds, equal = zip(*group, strict=True)
    calls = f"{numbers[0]}" if len(numbers) == 1 else f"{numbers[0]} to {numbers[-1]}"
    rows.append((calls, *kind, f"{1e3 * min(seconds):.2f}", f"{sum(equal)} of {len(equal)}"))
print_table(*rows)
assert all(equal for *_, equal in steps)
assert states == {("10", "none yet"): "warm", ("10", "there"): "verified", ("4", "there"): "verified"}

# %% [markdown]
# The states, one by one:
#
# - **new**: the step is run as always, and its kernels compile if they never ran. A kind of step that comes only once
#   costs nothing more.
# - **warm**: it is run and noted.
# - **captured**: it is replayed, put back, run, and compared. This call costs far more than an eager one.
# - **verified**: it is replayed. (An input that has been the same so far proves nothing: when it changes for the first
#   time, that call is compared too.)
#
# The very first call is a kind of its own, since before it there are no gradients to clear. The short batches come
# three times, and are verified the third time.
#
# And what is left behind is the same: weights, Adam's averages, its count of steps, and the *versions* of the
# parameters. A version counts how often a parameter has been written, so that a graph notices if someone trained in
# between. Replay has no graph, but somebody else may have one:

# %%
got, expected = task.state_dict(), eager.state_dict()
arrays = sum(np.array_equal(got[name], expected[name]) for name in expected)
versions = {p.version for p in task.model.parameters()}, {p.version for p in eager.model.parameters()}
numbers = sum(array.size for array in got.values())
print(f"arrays with the same bits: {arrays} of {len(expected)}, with {numbers:,} numbers in all")
print(f"versions of the parameters: captured {versions[0]}, eager {versions[1]}")
assert arrays == len(expected)
assert versions[0] == versions[1]

x = Tensor(DIGITS[:BATCH])
stale = task.model.encode(x)[0].sum()
capture(x)
try:
    stale.backward()
    raise AssertionError("a gradient at weights that are gone")
except RuntimeError as error:
    print(f"RuntimeError: {error}\n")

# %% [markdown]
# Where do the arrays come from? An eager step asks for the same sizes as the one before, so the `cpu` kernels keep a
# pool of arrays that nobody refers to any more: new memory would come from the system page by page in every step. A
# capture refers to the arrays of its list, so the pool never gives them to anyone else, and a replay allocates next to
# nothing.

# %%
state = list(capture.states.values())[-1]  # the last used
print_table(
    ("the capture of a full batch", ""),
    ("kernel calls", f"{len(state.trace.calls)}"),
    ("arrays allocated in the step, now held", f"{len(state.trace.made)}"),
    ("their size", f"{sum(array.nbytes for array in state.trace.made) / 1024:.0f} KiB"),
    ("size of the parameters", f"{task.optimizer.flat.data.nbytes / 1024:.0f} KiB"),
)

# %% [markdown]
# ## What is saved
#
# First one step at width 16, kernel by kernel. The clocked kernel set is a kernel set like any other, so the step can
# be captured with it, clocks included.


# %%
def timeline(step):
    """A step's seconds, and its kernel calls as (file, start since its beginning, seconds)."""
    CALLS.clear()
    with kernels.use(CLOCKED):
        start = time.perf_counter()
        step(x)
        seconds = time.perf_counter() - start
    return seconds, [(name.split(".")[0], a - start, b - a) for name, a, b in CALLS]


task = vae_task(16)
capture = Capture(task.train_step, *task.modules())
fastest_two = fastest(lambda: timeline(task.train_step), lambda: timeline(capture), seconds=1.0)  # by their seconds
lines = dict(zip(("eager", "replayed"), fastest_two, strict=True))
rows = [("a step at width 16", "ms, clocks included", "in kernels", "kernel calls")]
for name, (seconds, calls) in lines.items():
    inside = sum(duration for *_, duration in calls)
    rows.append((name, f"{1e3 * seconds:.3f}", f"{1e3 * inside:.3f}", f"{len(calls)}"))
print_table(*rows)

COLORS = {
    "dense": "#3f90da",
    "losses": "#e76300",
    "random": "#832db6",
    "optimizers": "#2d8a4e",
    "elementwise": "#ffa90e",
    "reductions": "#bd1f01",
    "memory": "#717581",
}
figure = Figure(figsize=(11, 3.2), dpi=150, layout="constrained")
panel = figure.subplots()
for row, (seconds, calls) in enumerate(lines.values()):
    panel.broken_barh([(0, 1e3 * seconds)], (row - 0.35, 0.7), facecolor="#eeeeee", edgecolor="#999999")
    for file, start, duration in calls:
        panel.broken_barh([(1e3 * start, 1e3 * duration)], (row - 0.35, 0.7), facecolor=COLORS[file])
    panel.text(1e3 * seconds, row, f"  {1e3 * seconds:.2f} ms", va="center")
for file, color in COLORS.items():
    panel.broken_barh([(0, 0)], (0, 0), facecolor=color, label=file)
panel.broken_barh([(0, 0)], (0, 0), facecolor="#eeeeee", edgecolor="#999999", label="no kernel")
panel.set(title="A VAE's step at width 16: which kernels run when", xlabel="milliseconds since its beginning")
panel.set_yticks([0, 1], list(lines))
panel.invert_yaxis()
panel.set_xlim(0, 1.12e3 * max(seconds for seconds, _ in lines.values()))
panel.legend(title="kernels of", loc="center left", bbox_to_anchor=(1, 0.5), frameon=False)
path = options.out / "timeline.png"
figure.savefig(path)
print(path, "\n")

# %% [markdown]
# The kernels are the same and take about as long as before. The gaps between them are gone, but for the time it takes
# Python to go through a list. The few more calls are those that bring in what is new: the batch, and before it the
# comparison of its shape with the key; then three numbers from the host (the key of the noise, the weight of the KL
# term, Adam's rates); in the end the metrics are put together.

# %%
extra = len(lines["replayed"][1]) - len(lines["eager"][1])
assert extra == 1 + 3 + 1
assert [len(state.trace.arrays) for state in capture.states.values() if isinstance(state, Captured)] == [3]

# %% [markdown]
# Now all widths, eager, replayed and the kernels alone, measured in turns.


# %%
WIDTHS = (4, 8, 16, 32, 64, 128, 256)


def measurements(task):
    """A step of the task run eagerly, a replayed one, and the kernels alone."""
    step, capture = task.train_step, Capture(task.train_step, *task.modules())
    return lambda: wall(step, x), lambda: wall(capture, x), lambda: in_kernels(step, x)


by_width = [measurements(vae_task(width)) for width in WIDTHS]
passes = [[fastest(*functions, seconds=0.25) for functions in by_width] for _ in range(6)]  # other work comes and goes
curves = np.min(passes, axis=0)
rows = [("width", "eager, ms", "replayed", "kernels alone", "saved", "eager / replayed", "replayed / kernels")]
for width, (eager, replayed, inside) in zip(WIDTHS, curves, strict=True):
    milliseconds = (f"{1e3 * seconds:.3f}" for seconds in (eager, replayed, inside, eager - replayed))
    rows.append((f"{width}", *milliseconds, f"{eager / replayed:.2f}", f"{replayed / inside:.2f}"))
    assert width > 64 or replayed < 1.1 * eager
print_table(*rows)

figure = Figure(figsize=(8, 4.6), dpi=150, layout="constrained")
panel = figure.subplots()
eager, replayed, inside = 1e3 * curves.T
panel.loglog(WIDTHS, eager, "o-", color=COLORS["losses"], label="eager")
panel.loglog(WIDTHS, replayed, "s-", color=COLORS["dense"], label="replayed")
panel.loglog(WIDTHS, inside, "k--", linewidth=1, label="kernels alone")
panel.fill_between(WIDTHS, replayed, eager, color=COLORS["losses"], alpha=0.12, label="what replay saves")
panel.set(title=f"A training step of a VAE, {BATCH} digits", xlabel="width of the hidden layers", ylabel="milliseconds")
panel.set_xticks(WIDTHS, map(str, WIDTHS))
panel.minorticks_off()
low, high = inside.min() / 1.3, 1.3 * eager.max()
ticks = [tick for tick in (0.1, 0.2, 0.5, 1, 2, 5, 10, 20) if low < tick < high]
panel.set_yticks(ticks, map(str, ticks))
panel.grid(alpha=0.3)
panel.legend()
path = options.out / "step_time.png"
figure.savefig(path)
print(path)

# %% [markdown]
# The saving is about the same number of milliseconds at every width, so it is large where steps are small: most of the
# price that the first tables showed. Replay cannot be faster than its kernels: to go below the dashed line
# takes better kernels, or fewer of them.
#
# ## The same idea elsewhere
#
# *CUDA graphs* are this list, kept by the driver of the GPU: kernel launches with their arguments, launched together
# by one call. So the rules are the same. The memory must stay where it is; new inputs are copied into it; a few steps
# run first to warm up; nothing may be read back while it is captured; random numbers need a state that each replay
# moves on. With the `cuda` kernels of this project, `Capture` turns its list into such a graph.
#
# *`jax.jit`* gets its list by tracing: it runs the function once on stand-ins that have a shape and a type, but no
# numbers. So it keeps one program for each combination of shapes, types and static arguments, and a Python number from
# outside is a constant in it. Reading a number or branching on one is not noticed afterwards but impossible: a stand-in
# has none, and JAX raises an error. Random keys are arguments there, as everything that changes must be. Then JAX does
# what no list of ready kernels can: it compiles the whole, and fuses neighbouring operations into one.
