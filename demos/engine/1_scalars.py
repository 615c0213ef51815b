# %% [markdown]
# # Scalars: automatic differentiation of numbers
#
# Training follows the gradient: for each of many parameters, how much does the loss change when this one changes? There
# are three ways to find out.
#
# - By hand: differentiate the formula on paper. Exact and fast, but the work begins anew with every model.
# - By finite differences: move a parameter a little and compute the loss again. It works for any program, but costs two
#   evaluations for each parameter, and rounding limits its accuracy.
# - By automatic differentiation: let the program, while it computes the loss, record how it did so, and apply the chain
#   rule to the record. Exact like the first, general like the second.
#
# This lesson builds the third for plain Python numbers, in at most 100 lines, checks it against the second, and trains
# a small classifier with it.

# %%
import argparse
import math
import time
import tracemalloc
from itertools import count, pairwise
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

# %% [markdown]
# ## The chain rule on a graph
#
# Whatever a program computes, it computes step by step, and each step is an elementary operation: an addition, a
# product, an exponential. Draw a node for each number and an edge from each operand to the result. This is the
# *computation graph*. Each edge has a *local derivative*, which is known from calculus: for c = a * b it is dc/da = b
# on one edge and dc/db = a on the other.
#
# The chain rule says how a number v of the graph influences the output L. If v is an operand of u1, ..., uk, then
#
#     dL/dv  =  dL/du1 * du1/dv  +  ...  +  dL/duk * duk/dv.
#
# It is a sum because v acts on L through each of them. So we start at the output, where dL/dL = 1, and go backward:
# each node u sends dL/du times the local derivative to each of its operands, and each node adds up what arrives. One
# pass over the graph gives the derivative of L with respect to *every* number in it. This is reverse-mode automatic
# differentiation (Linnainmaa 1970), better known as back-propagation.
#
# ## In which order?
#
# A node may send only when everything has arrived: after all nodes that were computed from it. An order in which each
# node comes after its operands is called *topological*, and backward needs the reverse of one. There is no need to
# search for it. A number can only be computed from numbers that exist already, so **the order of creation is a
# topological order**. Each node takes the next number when it is created, and backward goes from the largest number to
# the smallest.
#
# It goes in a loop, not by recursion: by default Python allows about 1,000 nested calls, and graphs get deeper than
# that.
#
# ## The engine
#
# The local derivatives are computed in the forward pass, together with the value.


# %% engine
class Scalar:
    """A number that knows how it was computed.

    ``operands`` are the scalars it was computed from and ``slopes`` its derivative with respect to each, both empty for
    a leaf. ``backward`` sets ``grad``. ``number`` counts up in the order of creation.
    """

    __slots__ = ("grad", "number", "operands", "operation", "slopes", "value")
    _numbers = count()

    def __init__(self, value, operation="", operands=(), slopes=()):
        self.value, self.operation, self.operands, self.slopes = value, operation, operands, slopes
        self.grad = 0.0
        self.number = next(Scalar._numbers)

    def backward(self):
        """Set ``grad`` to d(self)/d(node), for each node that this one was computed from."""
        nodes = graph(self)
        for node in nodes:
            node.grad = 0.0
        self.grad = 1.0
        for node in reversed(nodes):  # all nodes computed from this one have been visited: its grad is complete
            for source, slope in zip(node.operands, node.slopes, strict=True):
                source.grad += node.grad * slope

    def __add__(self, other):
        other = as_scalar(other)
        return Scalar(self.value + other.value, "add", (self, other), (1.0, 1.0))

    def __mul__(self, other):
        other = as_scalar(other)
        return Scalar(self.value * other.value, "multiply", (self, other), (other.value, self.value))

    def __pow__(self, exponent):  # the exponent is a number
        slope = exponent * self.value ** (exponent - 1)
        return Scalar(self.value**exponent, f"power {exponent}", (self,), (slope,))

    __radd__, __rmul__ = __add__, __mul__

    def __neg__(self):
        return self * -1.0

    def __sub__(self, other):
        return self + -as_scalar(other)

    def __rsub__(self, other):
        return as_scalar(other) - self

    def __truediv__(self, other):
        return self * as_scalar(other) ** -1

    def __rtruediv__(self, other):
        return as_scalar(other) / self


def as_scalar(x):
    return x if isinstance(x, Scalar) else Scalar(x)


def exp(a):
    value = math.exp(a.value)
    return Scalar(value, "exp", (a,), (value,))


def log(a):
    return Scalar(math.log(a.value), "log", (a,), (1 / a.value,))


def tanh(a):
    value = math.tanh(a.value)
    return Scalar(value, "tanh", (a,), (1 - value * value,))


def graph(output):
    """All scalars that ``output`` was computed from, and itself, in the order of creation."""
    nodes, waiting = {output}, [output]
    while waiting:
        for source in waiting.pop().operands:
            if source not in nodes:
                nodes.add(source)
                waiting.append(source)
    return sorted(nodes, key=lambda node: node.number)


# %% [markdown]
# ## Expected beside got
#
# - A number used twice. In b = a + a and in c = b * b both operands are the same node, and both edges count: c = (2a)²,
#   so dc/da = 8a, which is 24 at a = 3. An engine that overwrites grad, where it should add to it, gets 6.
# - Depth. A chain of n = 20,000 products, y = 1.0001^n x, has the derivative 1.0001^n.
# - Many paths. If y = y + y is repeated 60 times, 2^60 paths lead from the first number to the last, and the derivative
#   is the sum over all of them. Following each path would take years. Backward visits 61 nodes.


# %%
def used_twice():
    """c = b * b with b = a + a at a = 3, after backward, and a."""
    a = Scalar(3.0)
    b = a + a
    c = b * b
    c.backward()
    return c, a


def check_by_known_derivatives():
    """Print derivatives that are known beside those of the engine."""
    c, a = used_twice()
    rows = [("c = b * b, where b = a + a, at a = 3", 36.0, c.value), ("its derivative, 8a", 24.0, a.grad)]

    x = Scalar(2.0)
    (x**3 / (1 - x)).backward()
    rows.append(("x³ / (1 - x) at 2: (3x² - 2x³) / (1 - x)²", -4.0, x.grad))

    x = Scalar(0.5)
    log(1 + exp(-x)).backward()
    rows.append(("log(1 + e^-x) at 0.5: -1 / (1 + e^x)", -1 / (1 + math.exp(0.5)), x.grad))

    x = y = Scalar(1.0)
    for _ in range(20_000):
        y = y * 1.0001
    y.backward()
    rows.append(("1.0001^n x, depth 20,000", 1.0001**20_000, x.grad))

    x = y = Scalar(1.0)
    for _ in range(60):
        y = y + y
    y.backward()
    rows.append(("y = y + y, 60 times: 2^60 paths", 2.0**60, x.grad))

    print(f"{'what':<43} | {'expected':<22} | got")
    for what, expected, got in rows:
        print(f"{what:<43} | {expected:<22.17g} | {got:.17g}")
        assert math.isclose(got, expected, rel_tol=1e-12)


# %% [markdown]
# ## To see the graph
#
# GitHub draws diagrams from text in the Mermaid language, which has a line for each node and a line for each edge. A
# node shows its value and its grad, an edge its local derivative. Backward can be followed with a finger: the grad of a
# node is the sum, over the edges that leave it, of the local derivative times the grad at the other end.
#
# Two graphs are printed and written to `graphs.md`: c = b * b from above, and a neuron, tanh(w1 x1 + w2 x2 + bias).
# Paste the text into a comment or a Markdown file on GitHub to see them drawn.


# %% mermaid
def mermaid(output, names):
    """The graph of ``output`` as a Mermaid block; ``names`` maps scalars to names."""
    nodes = graph(output)
    position = {node: i for i, node in enumerate(nodes)}
    lines = ["```mermaid", "flowchart LR"]
    for i, node in enumerate(nodes):
        title = " = ".join(part for part in (names.get(node), node.operation) if part)
        lines.append(f'    n{i}["{title}<br>value {node.value:.4g}<br>grad {node.grad:.4g}"]')
        for source, slope in zip(node.operands, node.slopes, strict=True):
            lines.append(f'    n{position[source]} -- "{slope:.4g}" --> n{i}')
    return "\n".join([*lines, "```"])


# %%
def draw_graphs():
    """Both graphs as text."""
    c, _ = used_twice()
    w1, w2, bias, x1, x2 = (Scalar(v) for v in (0.5, -1.0, 0.25, 2.0, 0.75))
    out = tanh(w1 * x1 + w2 * x2 + bias)
    out.backward()
    names = {w1: "w1", w2: "w2", bias: "bias", x1: "x1", x2: "x2", out: "out"}
    return "\n\n".join([mermaid(c, dict(zip(graph(c), "abc", strict=True))), mermaid(out, names)])


# %% [markdown]
# ## A classifier made of numbers
#
# The data are two moons: points near two half circles, labelled y = 1 and y = -1, which no straight line separates. The
# network is a multilayer perceptron (MLP) 2-8-8-1 with tanh, with a `Scalar` for each weight, each product and each
# sum. Its output f(x) is the logit of P(y = 1 | x), and the loss is the mean of -log P(y | x) = log(1 + e^(-y f(x))).


# %%
def two_moons(n, rng, noise=0.12):
    """Points (n, 2) of two half circles, and their labels (n,), 1 and -1."""
    angle, upper = rng.uniform(0, np.pi, n), np.arange(n) % 2 == 0
    x1 = np.where(upper, np.cos(angle), 1 - np.cos(angle))
    x2 = np.where(upper, np.sin(angle), 0.5 - np.sin(angle))
    return np.stack([x1, x2], axis=1) + noise * rng.standard_normal((n, 2)), np.where(upper, 1.0, -1.0)


SIZES = (2, 8, 8, 1)


def initial_weights(sizes, rng):
    """Layers (weights (inputs, outputs), biases (outputs,)) as arrays; weights from N(0, 1/inputs), biases 0."""
    return [(rng.standard_normal((i, o)) / math.sqrt(i), np.zeros(o)) for i, o in pairwise(sizes)]


def mlp_of_scalars(layers):
    """The same layers, where a neuron is (its weights, its bias), each a Scalar."""
    return [
        [
            ([Scalar(w) for w in column], Scalar(b))
            for column, b in zip(weights.T.tolist(), biases.tolist(), strict=True)
        ]
        for weights, biases in layers
    ]


def parameters(mlp):
    return [p for layer in mlp for weights, bias in layer for p in (*weights, bias)]


def logit(mlp, point):
    """f(x) of a point, a pair of numbers, as a scalar."""
    values = [Scalar(x) for x in point]
    for layer in mlp:
        values = [sum((w * v for w, v in zip(weights, values, strict=True)), bias) for weights, bias in layer]
        if layer is not mlp[-1]:
            values = [tanh(v) for v in values]
    return values[0]


def mean_loss(mlp, points, labels):
    """The mean of log(1 + e^(-y f(x))) over the points (n, 2) and labels (n,)."""
    pairs = zip(points.tolist(), labels.tolist(), strict=True)
    losses = [log(1 + exp(-y * logit(mlp, point))) for point, y in pairs]
    return sum(losses[1:], losses[0]) / len(losses)


# %% [markdown]
# ## Against finite differences
#
# The central difference (L(p + h) - L(p - h)) / 2h knows nothing of graphs. Its error has two parts: one of the order
# of h², from the terms of the Taylor series that it neglects, and one of the order of 1e-16 / h, from rounding. Near h
# = 1e-5 both are about 1e-11, and no other h does much better.
#
# The second table shows why networks are trained in reverse mode. Finite differences evaluate the loss twice for each
# parameter. Backward visits each edge of the graph once, however many parameters there are, and costs about as much as
# the forward pass. (It is a theorem that it costs at most a small multiple: Griewank & Walther, *Evaluating
# Derivatives*, 2008.)


# %%
def milliseconds(function, repeats=5):
    """The shortest of some runs."""
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        function()
        times.append(1e3 * (time.perf_counter() - start))
    return min(times)


def central_differences(function, scalars, h=1e-5):
    """The derivative of ``function()``, a number, with respect to each scalar."""
    slopes = []
    for s in scalars:
        value, around = s.value, []
        for s.value in (value + h, value - h):
            around.append(function())
        s.value = value
        slopes.append((around[0] - around[1]) / (2 * h))
    return slopes


def check_by_finite_differences(rng):
    """Print the gradient of the classifier's loss both ways, and what each costs."""
    points, labels = two_moons(20, rng)
    mlp = mlp_of_scalars(initial_weights(SIZES, rng))
    scalars = parameters(mlp)
    loss = mean_loss(mlp, points, labels)
    loss.backward()
    slopes = central_differences(lambda: mean_loss(mlp, points, labels).value, scalars)
    errors = [abs(s.grad - slope) for s, slope in zip(scalars, slopes, strict=True)]

    print(f"\n{'parameter':<22} | {'backward':<14} | {'differences':<14} | error")
    for i in (0, 2, 24, 32, 96, 104):  # the first weight and bias of each layer
        name = f"{i}, a {'weight' if i in (0, 24, 96) else 'bias'}"
        print(f"{name:<22} | {scalars[i].grad:<14.10f} | {slopes[i]:<14.10f} | {errors[i]:.1e}")
    print(f"{'largest of all ' + str(len(scalars)):<22} | {'':<14} | {'':<14} | {max(errors):.1e}")
    assert max(errors) < 1e-9
    assert max(abs(slope) for slope in slopes) > 0.01  # there is something to compare

    forward = milliseconds(lambda: mean_loss(mlp, points, labels))
    backward = milliseconds(loss.backward)
    print(f"\n{'gradient of ' + str(len(scalars)) + ' parameters':<29} | forward passes | ms")
    print(f"{'one forward and one backward':<29} | {1:<14} | {forward:.1f} + {backward:.1f}")
    print(f"{'finite differences':<29} | {2 * len(scalars):<14} | {2 * len(scalars) * forward:.0f}")


# %% [markdown]
# ## Training
#
# Stochastic gradient descent: draw a batch of 20 points, compute the loss, go backward, and move every parameter a
# little against its gradient. Each step builds its own graph, and Python frees it when nothing refers to the loss any
# more. PyTorch's `backward` adds to the gradients of the backward before, so a step there begins with `zero_grad`; ours
# starts from zero by itself.


# %%
def train_step(mlp, points, labels, lr=0.4):
    """A step of gradient descent, in place; returns the loss before it."""
    loss = mean_loss(mlp, points, labels)
    loss.backward()
    for p in parameters(mlp):
        p.value -= lr * p.grad
    return loss.value


def train(mlp, points, labels, steps, rng, batch=20):
    """Steps on random batches; returns the loss of each."""
    choices = (rng.integers(0, len(points), batch) for _ in range(steps))
    return [train_step(mlp, points[chosen], labels[chosen]) for chosen in choices]


def accuracy(mlp, points, labels):
    """The share of points whose logit has the sign of the label."""
    return float(np.mean([logit(mlp, x).value * y > 0 for x, y in zip(points.tolist(), labels, strict=True)]))


def draw_boundary(panel, mlp, points, labels, cells=60):
    """P(y = 1 | x) as colours, the boundary where it is 1/2, and the points."""
    x1, x2 = (np.linspace(points[:, i].min() - 0.4, points[:, i].max() + 0.4, cells) for i in (0, 1))
    logits = np.array([[logit(mlp, (u, v)).value for u in x1.tolist()] for v in x2.tolist()])
    probability = 1 / (1 + np.exp(-logits))
    filled = panel.contourf(x1, x2, probability, np.linspace(0, 1, 11), cmap="RdBu", alpha=0.5)
    panel.figure.colorbar(filled, ax=panel, label="P(y = 1 | x)", ticks=[0, 0.5, 1], shrink=0.7)
    panel.contour(x1, x2, logits, [0], colors="black")
    for label, colour, marker, name in ((1, "#0b3c8c", "o", "y = 1"), (-1, "#8c0b1c", "^", "y = −1")):
        panel.scatter(*points[labels == label].T, s=14, color=colour, marker=marker, linewidths=0, label=name)
    panel.set(title="The classifier and its decision boundary", xlabel="x₁", ylabel="x₂", aspect="equal")
    panel.legend(loc="upper left", framealpha=1)


def draw_losses(panel, losses, window=25):
    """The loss of each step, and its moving average."""
    panel.plot(losses, color="lightgray", label="a batch of 20")
    average = np.convolve(losses, np.ones(window) / window, mode="valid")
    panel.plot(np.arange(window - 1, len(losses)), average, color="black", label=f"mean of {window} steps")
    panel.axhline(math.log(2), color="gray", linestyle=":", label="log 2, P = 1/2 everywhere")
    panel.set(title="Loss", xlabel="step", ylabel="nats", yscale="log")
    panel.legend()


# %% [markdown]
# ## What it could not do
#
# The gradients are right. What is missing is speed, and memory: every number is a Python object. A processor multiplies
# two floats in less than a nanosecond. Here a product also creates a `Scalar` and two tuples, and takes its turn in
# backward. The last table shows what that costs for a training step of the classifier, and what it would cost for a
# step of a VAE on MNIST, with layers 784-400-20 and a batch of 100 images, if there are two nodes, a product and a sum,
# for each weight and image.
#
# But the step does few *different* things. A layer does the same to all of its neurons and to all points of the batch.
# If a node held a whole array, the step would need a few dozen nodes, and compiled code would loop over the numbers.
# What then becomes of the local derivatives is the subject of the next lesson, [Arrays](2_arrays.py).


# %%
def measure_a_step(mlp, points, labels):
    """Print the nodes, time and memory of a training step, here and for a VAE on MNIST."""

    def step():
        mean_loss(mlp, points, labels).backward()

    tracemalloc.start()
    loss = mean_loss(mlp, points, labels)
    size, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    nodes, duration = len(graph(loss)), milliseconds(step)
    weights = 784 * 400 + 400 * 2 * 20 + 20 * 400 + 400 * 784  # the encoder ends in a mean and a log variance
    large = 2 * weights * 100

    scale = large / nodes
    rows = [
        ("one node", 1, f"{1e3 * duration / nodes:.1f} µs", f"{size / nodes:.0f} bytes"),
        ("this classifier, 20 points", nodes, f"{duration:.1f} ms", f"{size / 1e6:.1f} MB"),
        (
            "VAE 784-400-20, 100 images (est.)",
            large,
            f"{scale * duration / 60e3:.0f} min",
            f"{scale * size / 1e9:.0f} GB",
        ),
    ]
    print(f"\n{'a training step':<33} | {'nodes':<11} | {'time':<7} | memory of the graph")
    for name, n, time_taken, memory in rows:
        print(f"{name:<33} | {n:<11,} | {time_taken:<7} | {memory}")


# %%
def main():
    parser = argparse.ArgumentParser(description="Reverse-mode automatic differentiation of numbers.")
    parser.add_argument("--out", type=Path, default=Path("runs/engine-1"), help="folder for the figure and the graphs")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(0)

    check_by_known_derivatives()
    graphs = draw_graphs()
    print("", graphs, sep="\n")
    (options.out / "graphs.md").write_text(graphs + "\n")
    check_by_finite_differences(rng)

    points, labels = two_moons(200, rng)
    fresh = two_moons(1000, rng)
    mlp = mlp_of_scalars(initial_weights(SIZES, rng))
    start = time.perf_counter()
    losses = train(mlp, points, labels, 500, rng)
    duration, right = time.perf_counter() - start, accuracy(mlp, *fresh)
    print(f"\n{len(losses)} training steps in {duration:.1f} s")
    print(f"mean loss of the first and last 25 steps: {np.mean(losses[:25]):.3f}, {np.mean(losses[-25:]):.3f}")
    print(f"share of {len(fresh[0])} fresh points that are classified correctly: {right:.3f}")
    assert right > 0.95

    figure = Figure(figsize=(10, 4), dpi=100, layout="constrained")
    left, right = figure.subplots(1, 2, width_ratios=[1.5, 1])
    draw_boundary(left, mlp, points, labels)
    draw_losses(right, losses)
    figure.savefig(options.out / "two_moons.png")

    measure_a_step(mlp, points[:20], labels[:20])
    print(options.out / "two_moons.png")


if __name__ == "__main__":
    main()
