# %% [markdown]
# # Arrays: the same engine, and gradients that can be differentiated again
#
# The engine of [lesson 1](1_scalars.py) created a Python object for every number, and spent its time on objects, not on
# arithmetic. Here a node of the graph holds a whole NumPy array. The operations are operations on arrays, whose loops
# run in compiled code.
#
# Two things are new: a local derivative is no longer one number, and arrays of different shapes are *broadcast*. A
# third comes almost for free: if backward uses the engine's own operations, then a gradient has a graph too, and can be
# differentiated like any other tensor. The second half of the lesson needs this, for a loss that contains a gradient:
# the gradient penalty of WGAN-GP (Gulrajani et al. 2017).

# %%
import argparse
import importlib
import math
from itertools import count
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

scalars = importlib.import_module("1_scalars")  # lesson 1; an import statement takes no name that begins with a digit

# %% [markdown]
# ## Vector-Jacobian products
#
# In lesson 1 each edge of the graph had a local derivative, and backward multiplied by it. If a is an array of m
# numbers and b = f(a) one of n, the local derivative is the Jacobian db/da, of n × m numbers. For the tanh of a million
# numbers this would be 10^12 numbers, nearly all of them 0. But backward never needs the Jacobian itself. It needs the
# *product* of the gradient g = dL/db, which arrives at b, with it:
#
#     dL/da_i  =  Σ_j g_j db_j/da_i            the vector-Jacobian product (VJP).
#
# This is an array of the shape of a, and usually easy to compute. So an edge now has a function, from g to dL/da. For b
# = tanh(a) it is g * (1 - b²), elementwise. For a product of matrices c = a @ b, write c_ik = Σ_j a_ij b_jk and apply
# the chain rule:
#
#     dL/da  =  g @ b.T,        dL/db  =  a.T @ g.
#
# ## Broadcasting and its reverse
#
# When a bias of shape (8,) is added to an array of shape (20, 8), NumPy repeats it 20 times. A number that is used 20
# times gets the sum of 20 gradients. So **the reverse of repeating is summing**, over the axes that broadcasting has
# added or stretched. The function `unbroadcast` does this, and `gradients` calls it in one place, whenever a VJP
# returns another shape than the operand has. No operation has to think of it. The VJP of `broadcast_to`, for example,
# returns g as it is.
#
# ## The engine
#
# It has at most 150 lines, blank lines and docstrings included. Every VJP is written with tensors, so calling it adds
# nodes to the graph. The order of creation is still a topological order, as the nodes of a gradient, too, are created
# after their operands.
#
# A VJP is given the result of its operation as `out`. It could also capture it, but then a tensor would refer to itself
# through its own VJP, and Python would not free the graph as soon as it is no longer used.


# %% engine
class Tensor:
    """An array of float64 that knows how it was computed.

    ``operands`` are the tensors it was computed from. ``vjps`` has a function for each of them: from g = dL/d(self) and
    self to dL/d(operand), before ``unbroadcast``. ``number`` counts up in the order of creation.
    """

    __slots__ = ("data", "number", "operands", "vjps")
    __array_ufunc__ = None  # in array * tensor, let NumPy leave the product to the tensor
    _numbers = count()

    def __init__(self, data, operands=(), vjps=()):
        self.data = np.asarray(data, dtype=np.float64)
        self.operands, self.vjps = operands, vjps
        self.number = next(Tensor._numbers)

    @property
    def shape(self):
        return self.data.shape

    def __add__(self, other):
        other = as_tensor(other)
        return Tensor(self.data + other.data, (self, other), (lambda g, out: g, lambda g, out: g))

    def __mul__(self, other):
        other = as_tensor(other)
        return Tensor(self.data * other.data, (self, other), (lambda g, out: g * other, lambda g, out: g * self))

    def __pow__(self, exponent):  # the exponent is a number
        if exponent == 0:
            return Tensor(np.ones(self.shape))  # a constant; the rule below would compute 0 * 0**-1 at 0
        return Tensor(self.data**exponent, (self,), (lambda g, out: g * exponent * self ** (exponent - 1),))

    def __matmul__(self, other):  # of two matrices
        other = as_tensor(other)
        vjps = (lambda g, out: g @ other.T, lambda g, out: self.T @ g)
        return Tensor(self.data @ other.data, (self, other), vjps)

    __radd__, __rmul__ = __add__, __mul__

    def __neg__(self):
        return self * -1.0

    def __sub__(self, other):
        return self + -as_tensor(other)

    def __rsub__(self, other):
        return as_tensor(other) - self

    def __truediv__(self, other):
        return self * as_tensor(other) ** -1

    def __rtruediv__(self, other):
        return as_tensor(other) / self

    def __rmatmul__(self, other):
        return as_tensor(other) @ self

    @property
    def T(self):
        return Tensor(self.data.T, (self,), (lambda g, out: g.T,))

    def reshape(self, shape):
        return Tensor(self.data.reshape(shape), (self,), (lambda g, out: g.reshape(self.shape),))

    def broadcast_to(self, shape):
        return Tensor(np.broadcast_to(self.data, shape), (self,), (lambda g, out: g,))

    def sum(self, axis=None, keepdims=False):
        total = self.data.sum(axis, keepdims=True)
        kept = total.shape
        vjp = (lambda g, out: g.reshape(kept).broadcast_to(self.shape),)
        return Tensor(total if keepdims else total.squeeze(axis), (self,), vjp)

    def mean(self):
        return self.sum() * (1 / self.data.size)


def as_tensor(x):
    return x if isinstance(x, Tensor) else Tensor(x)


def exp(a):
    return Tensor(np.exp(a.data), (a,), (lambda g, out: g * out,))


def log(a):
    return Tensor(np.log(a.data), (a,), (lambda g, out: g / a,))


def tanh(a):
    return Tensor(np.tanh(a.data), (a,), (lambda g, out: g * (1 - out * out),))


def relu(a):
    return Tensor(np.maximum(a.data, 0), (a,), (lambda g, out: g * (a.data > 0),))


def unbroadcast(g, shape):
    """Sum a gradient over the axes along which an array of ``shape`` was repeated."""
    added = g.data.ndim - len(shape)
    stretched = [added + i for i, size in enumerate(shape) if size == 1]
    return g.sum((*range(added), *stretched), keepdims=True).reshape(shape)


def graph(output):
    """All tensors that ``output`` was computed from, and itself, in the order of creation."""
    nodes, waiting = {output}, [output]
    while waiting:
        for source in waiting.pop().operands:
            if source not in nodes:
                nodes.add(source)
                waiting.append(source)
    return sorted(nodes, key=lambda node: node.number)


def gradients(output, inputs):
    """d(output)/d(input) for each of ``inputs``: tensors of their shapes, which can be differentiated again.

    ``output`` holds one number. An input that it does not depend on has the gradient 0.
    """
    if output.data.size != 1:
        raise ValueError(f"gradients: the output must hold one number, its shape is {output.shape}; take a sum first")
    nodes, needed = graph(output), set(inputs)
    for node in nodes:  # operands come first, so this finds all that depend on the inputs
        if not needed.isdisjoint(node.operands):
            needed.add(node)
    found = {output: Tensor(np.ones(output.shape))}
    for node in reversed(nodes):
        for source, vjp in zip(node.operands, node.vjps, strict=True):
            if source in needed:
                g = vjp(found[node], node)
                if g.shape != source.shape:
                    g = unbroadcast(g, source.shape)
                found[source] = found[source] + g if source in found else g
    return [found[x] if x in found else Tensor(np.zeros(x.shape)) for x in inputs]


# %% [markdown]
# ## Expected beside got: broadcasting
#
# L = Σ c * (a + b), with a constant c of the shape of a + b, has the gradient dL/da = c, summed over the axes along
# which a was repeated. NumPy's `einsum` computes the same sums in another way.


# %%
def check_broadcasting(rng):
    """Print the shapes of gradients, and how far they are from the sums that they should be."""
    print(f"{'a':<8} | {'b':<8} | {'dL/da':<8} | {'dL/db':<8} | error")
    cases = [((4, 3), "ij", (3,), "j"), ((4, 1), "i", (1, 3), "j"), ((1, 1), "", (4, 3), "ij"), ((), "", (4, 3), "ij")]
    for a_shape, a_axes, b_shape, b_axes in cases:
        a, b, c = (Tensor(rng.standard_normal(shape)) for shape in (a_shape, b_shape, (4, 3)))
        found = gradients((c * (a + b)).sum(), [a, b])
        expected = [np.einsum(f"ij->{axes}", c.data).reshape(x.shape) for axes, x in ((a_axes, a), (b_axes, b))]
        error = max(np.abs(g.data - e).max() for g, e in zip(found, expected, strict=True))
        print(*(f"{x.shape!s:<8}" for x in (a, b, *found)), f"{error:.1e}", sep=" | ")
        assert error < 1e-14


# %% [markdown]
# ## The classifier of lesson 1, in arrays
#
# The same network 2-8-8-1, loss, initial weights and batches. In lesson 1 a layer was a loop over neurons, inside a
# loop over points. Here it is one line, for all neurons and points.
#
# Both engines first take the same twenty training steps, and must agree: they share no line of backward, so each checks
# the other. Then a step is timed, with batches of 20 and of 200 points. Ten times as many points cost lesson 1 about
# ten times as many nodes. The arrays need the same number of nodes for both.


# %%
def mlp(parameters, x):
    """An MLP with tanh in the hidden layers, of points x (n, inputs): (n, outputs)."""
    *hidden, last = zip(parameters[::2], parameters[1::2], strict=True)
    for weights, bias in hidden:
        x = tanh(x @ weights + bias)
    return x @ last[0] + last[1]


def mean_loss(parameters, points, labels):
    """The mean of log(1 + e^(-y f(x))) over the points (n, 2) and labels (n,)."""
    return log(1 + exp(-labels[:, None] * mlp(parameters, as_tensor(points)))).mean()


def initial_parameters(sizes, rng):
    """The initial weights of lesson 1 as tensors: weights, biases, weights, ..."""
    return [Tensor(array) for layer in scalars.initial_weights(sizes, rng) for array in layer]


def train_step(parameters, points, labels, lr=0.4):
    """A step of gradient descent; returns the loss before it."""
    loss = mean_loss(parameters, points, labels)
    for p, g in zip(parameters, gradients(loss, parameters), strict=True):
        p.data = p.data - lr * g.data
    return loss.data.item()


def nodes_created(function):
    """How many tensors are created while ``function()`` runs."""
    first = Tensor(0).number
    function()
    return Tensor(0).number - first - 1


def compare_with_scalars(seed):
    """Train the classifier in both engines; print how far they differ, and what a step costs."""
    points, labels = scalars.two_moons(200, np.random.default_rng(seed))
    of_scalars = scalars.mlp_of_scalars(scalars.initial_weights(scalars.SIZES, np.random.default_rng(seed)))
    of_arrays = initial_parameters(scalars.SIZES, np.random.default_rng(seed))
    expected = scalars.train(of_scalars, points, labels, 20, np.random.default_rng(seed))
    rng = np.random.default_rng(seed)
    batches = [rng.integers(0, len(points), 20) for _ in range(20)]  # as in scalars.train
    got = [train_step(of_arrays, points[batch], labels[batch]) for batch in batches]
    difference = np.abs(np.subtract(got, expected)).max()
    print(f"\nlosses of twenty steps, largest difference between scalars and arrays: {difference:.1e}")
    assert difference < 1e-12

    print(f"{'a training step':<15} | {'nodes and ms, scalars':<21} | {'nodes and ms, arrays':<20} | ratio of times")
    for n in (20, 200):
        batch = points[:n], labels[:n]
        scalar_nodes = len(scalars.graph(scalars.mean_loss(of_scalars, *batch)))
        array_nodes = nodes_created(lambda batch=batch: train_step(of_arrays, *batch))
        slow = scalars.milliseconds(lambda batch=batch: scalars.train_step(of_scalars, *batch), repeats=3)
        fast = scalars.milliseconds(lambda batch=batch: train_step(of_arrays, *batch), repeats=50)
        costs = f"{f'{scalar_nodes:,} and {slow:.1f}':<21} | {f'{array_nodes} and {fast:.2f}':<20}"
        print(f"{f'batch of {n}':<15} | {costs} | {slow / fast:.0f}")
    assert slow > 10 * fast


# %% [markdown]
# ## Derivatives of derivatives
#
# `gradients` returns tensors that the engine's operations have computed, so `gradients` of a gradient is a second
# derivative. It is compared with formulas, for x in [-2, 2] and t = tanh(x):
#
#     tanh' = 1 - t²,    tanh'' = -2t (1 - t²),    tanh''' = (6t² - 2)(1 - t²),    (x³)'' = 6x,    (x³)''' = 6.
#
# x is an array, and each y_i depends on its own x_i alone. So the gradient of the sum of y holds all derivatives
# dy_i/dx_i.


# %%
def derivative(function, x, order):
    """The derivative of an elementwise function at the points x (n,), as a tensor."""
    x = Tensor(x)
    y = function(x)
    for _ in range(order):
        (y,) = gradients(y.sum(), [x])
    return y


def check_known_derivatives():
    """Print derivatives of tanh and x³ beside their formulas."""
    x = np.linspace(-2, 2, 101)
    t = np.tanh(x)
    cases = [
        ("tanh'", tanh, 1, 1 - t**2),
        ("tanh''", tanh, 2, -2 * t * (1 - t**2)),
        ("tanh'''", tanh, 3, (6 * t**2 - 2) * (1 - t**2)),
        ("(x³)''", lambda x: x**3, 2, 6 * x),
        ("(x³)'''", lambda x: x**3, 3, np.full_like(x, 6)),
        ("(x³)''''", lambda x: x**3, 4, np.zeros_like(x)),
    ]
    print(f"\n{'derivative':<10} | {'expected at 1':<14} | {'got at 1':<14} | largest error in [-2, 2]")
    for name, function, order, expected in cases:
        got = derivative(function, x, order).data
        error = np.abs(got - expected).max()
        print(f"{name:<10} | {expected[75]:<14.10f} | {got[75]:<14.10f} | {error:.1e}")  # x[75] is 1
        assert error < 1e-12


# %% [markdown]
# ## A Hessian-vector product
#
# The loss of the classifier has 105 parameters, and its Hessian H has 105 × 105 second derivatives. For a real model, H
# would be too large to store. Its product with a vector v needs only one more backward (Pearlmutter 1994):
#
#     H v  =  d/dw <g(w), v>,        with the gradient g(w), and v held constant.
#
# H v says how the gradient changes along v, so differences of gradients can check it: (g(w + hv) - g(w - hv)) / 2h. And
# since the order of two derivatives does not matter, H is symmetric: <u, Hv> = <v, Hu>.


# %%
def inner(a, b):
    """The inner product of two lists of arrays or tensors."""
    return sum((x * y).sum() for x, y in zip(a, b, strict=True))


def hessian_vector_product(loss, parameters, vector):
    """H v; ``vector`` is a list of arrays of the shapes of the parameters, the result one of tensors."""
    return gradients(inner(gradients(loss, parameters), vector), parameters)


def check_hessian_vector_product(rng, h=1e-5):
    """Print H v beside differences of gradients, and <u, Hv> beside <v, Hu>."""
    points, labels = scalars.two_moons(200, rng)
    parameters = initial_parameters(scalars.SIZES, rng)
    u, v = ([rng.standard_normal(p.shape) for p in parameters] for _ in range(2))
    loss = mean_loss(parameters, points, labels)
    hv, hu = (hessian_vector_product(loss, parameters, vector) for vector in (v, u))

    def gradient(step):
        moved = [Tensor(p.data + step * x) for p, x in zip(parameters, v, strict=True)]
        return [g.data for g in gradients(mean_loss(moved, points, labels), moved)]

    differences = [(a - b) / (2 * h) for a, b in zip(gradient(h), gradient(-h), strict=True)]
    rows = [(f"Hv, element {i} of the last weights", differences[4][i, 0], hv[4].data[i, 0]) for i in range(3)]
    rows.append(("<u, Hv>, expected to be <v, Hu>", inner(v, hu).data.item(), inner(u, hv).data.item()))
    print(f"\n{'Hessian-vector product':<35} | {'expected':<15} | got")
    for name, expected, got in rows:
        print(f"{name:<35} | {expected:<15.12f} | {got:.12f}")
    error = max(np.abs(a.data - b).max() for a, b in zip(hv, differences, strict=True))
    print(f"{'largest error of all elements of Hv':<35} | {'below 1e-8':<15} | {error:.1e}")
    assert error < 1e-8 * max(np.abs(b).max() for b in differences)
    assert abs(rows[-1][1] - rows[-1][2]) < 1e-12


# %% [markdown]
# ## A loss that contains a gradient: WGAN-GP on a line
#
# The generator of a GAN learns from a second network, which compares its samples with the data. In a Wasserstein GAN
# this network, the *critic*, estimates the Wasserstein-1 distance: how far probability has to be moved, on average, to
# turn one distribution into the other. By the duality of Kantorovich and Rubinstein it is
#
#     W1(p, q)  =  max  E_p f(x) - E_q f(y)        over all f with |f(a) - f(b)| <= |a - b|,
#
# functions with a slope of at most 1. Without this condition there is no maximum: 2f scores twice as much as f.
# Gulrajani et al. (2017) maximise by gradient ascent, and subtract a penalty where the slope is not 1:
#
#     E_p f(x) - E_q f(y) - λ E (|f'(z)| - 1)²,        z = εx + (1 - ε)y,    ε uniform in (0, 1),    λ = 10.
#
# f'(z) is the gradient with respect to the *input* of the critic. Training needs the gradient of the penalty with
# respect to the *weights*, so it differentiates a gradient: double backward. In this engine it takes three lines, in
# `critic_loss` below.
#
# ## What should come out
#
# On a line everything can be computed. Let q be N(0, 0.5²), and let p have two bumps of the same width, at -2 and 2.
# With the distribution functions P and Q, integration by parts gives
#
#     E_p f - E_q f  =  ∫ f' (Q - P) dx.
#
# With |f'| <= 1 this is largest for f' = sign(Q - P), so W1 = ∫ |Q - P| dx. Here the best slope is -1 on the left and 1
# on the right, so the best critic is f(x) = |x|. That gives W1 a second time, as E_p|x| - E_q|x|, for which there is a
# closed form.
#
# With the penalty, the slope s = f'(x) at each x maximises s (Q - P) - λ r (|s| - 1)², where r is the density of z.
# Setting the derivative to zero, for s > 0 and for s < 0:
#
#     s(x)  =  ±1 + (Q - P) / (2 λ r).
#
# With the sign of Q - P everywhere, this is a little steeper than 1, and the estimate exceeds W1 by ∫ (Q - P)² / (2 λ
# r) dx.
#
# The other sign is a local maximum as well, and this is a trap. An untrained critic has slopes near 0. There the
# penalty pulls with a force of 2 λ r towards 1 or -1, whichever is nearer, and this is much more than Q - P (printed
# below). So the initial weights decide about the sign, not the data. To change it later, the slope would have to pass
# through 0, where the penalty is largest. If s has one sign everywhere, then ±∫ (Q - P) dx is the difference of the
# means, here 0, and only the overestimate remains.
#
# The trap exists on a line, where the gradients of length 1 are just two points. In the plane they are a circle, and a
# gradient can turn without getting shorter. The *one-sided* penalty max(0, |f'(z)| - 1)², which Gulrajani et al.
# mention and Petzka et al. (2018) recommend, has no trap: at each x the objective is then a concave function of the
# slope, with the same maximum.
#
# Four critics will be trained: without penalty, with the one-sided penalty, with the two-sided penalty, and again with
# the two-sided penalty, but from the weights that the one-sided penalty has led to, where the signs are right.

# %%
LAMBDA, BUMP, SD = 10.0, 2.0, 0.5
GRID, SPACING = np.linspace(-7, 7, 7001, retstep=True)


def normal_density(x, mean, sd):
    """The density of N(mean, sd²) at x."""
    return np.exp(-(((x - mean) / sd) ** 2) / 2) / (sd * math.sqrt(2 * math.pi))


def normal_distribution(x, mean, sd):
    """The probability of a value below x (n,)."""
    return np.array([math.erfc((mean - v) / (sd * math.sqrt(2))) / 2 for v in x])


def normal_absolute(mean, sd):
    """E|x| for x from N(mean, sd²)."""
    bell = sd * math.sqrt(2 / math.pi) * math.exp(-((mean / sd) ** 2) / 2)
    return bell + mean * math.erf(mean / (sd * math.sqrt(2)))


def exact():
    """p, q, Q - P and r on the grid."""
    bumps = (-BUMP, BUMP)
    p = sum(normal_density(GRID, bump, SD) for bump in bumps) / 2
    difference = normal_distribution(GRID, 0, SD) - sum(normal_distribution(GRID, bump, SD) for bump in bumps) / 2
    epsilons = (np.arange(500) + 0.5) / 500  # given ε and a bump, z is normal
    r = sum(normal_density(GRID, e * bump, SD * math.hypot(e, 1 - e)) for e in epsilons for bump in bumps) / 1000
    return p, normal_density(GRID, 0, SD), difference, r


def penalised_slope(sign, difference, r):
    """The slope s(x) of that sign, a local maximum; where r is below 1e-9, no z is ever drawn."""
    return sign + difference / (2 * LAMBDA * np.maximum(r, 1e-9))


def check_w1():
    """Print W1 computed in two ways, and how strongly the penalty pulls."""
    _, _, difference, r = exact()
    expected, got = normal_absolute(BUMP, SD) - normal_absolute(0, SD), np.abs(difference).sum() * SPACING
    at_1 = np.searchsorted(GRID, 1)
    pull = 2 * LAMBDA * r[at_1] / abs(difference[at_1])
    print(f"\nW1: {expected:.6f} as E_p|x| - E_q|x|, {got:.6f} as ∫ |Q - P| dx")
    print(f"pull of the penalty on a slope of 0, at x = 1: {pull:.1f} times that of the data")
    assert abs(got - expected) < 1e-6


# %% [markdown]
# ## The critic
#
# The critic is an MLP 1-32-32-1, trained for 800 steps with Adam (Kingma & Ba 2014). `critic_loss` is what it
# minimises. Its gradient is compared with finite differences before it is used.


# %%
def absolute(a):
    return relu(a) + relu(-a)


def critic_loss(parameters, x, y, epsilon, penalty):
    """The negative objective, for x, y and epsilon (n, 1); the penalty is "none", "one-sided" or "two-sided"."""
    loss = mlp(parameters, as_tensor(y)).mean() - mlp(parameters, as_tensor(x)).mean()
    if penalty == "none":
        return loss
    z = Tensor(epsilon * x + (1 - epsilon) * y)
    (slope,) = gradients(mlp(parameters, z).sum(), [z])
    excess = absolute(slope) - 1
    return loss + LAMBDA * ((relu(excess) if penalty == "one-sided" else excess) ** 2).mean()


def draw_batch(n, rng):
    """x from p, y from q and epsilon, each (n, 1)."""
    x = rng.choice([-BUMP, BUMP], (n, 1)) + SD * rng.standard_normal((n, 1))
    return x, SD * rng.standard_normal((n, 1)), rng.random((n, 1))


def check_critic_gradient(rng, h=1e-5):
    """Print the derivative of the loss along a random direction of the weights, and differences of the loss."""
    parameters, batch = initial_parameters((1, 32, 32, 1), rng), draw_batch(128, rng)
    parameters = [Tensor(2 * p.data) for p in parameters]  # slopes above 1, so that both penalties act
    direction = [rng.standard_normal(p.shape) for p in parameters]
    print(f"\n{'critic, with penalty':<20} | {'differences':<13} | double backward")
    for penalty in ("one-sided", "two-sided"):
        losses = []
        for step in (h, -h):
            moved = [Tensor(p.data + step * d) for p, d in zip(parameters, direction, strict=True)]
            losses.append(critic_loss(moved, *batch, penalty).data.item())
        expected = (losses[0] - losses[1]) / (2 * h)
        got = inner(gradients(critic_loss(parameters, *batch, penalty), parameters), direction).data.item()
        print(f"{penalty:<20} | {expected:<13.8f} | {got:.8f}")
        assert abs(got - expected) < 1e-6 * abs(expected)


class Adam:
    """Kingma & Ba 2014, algorithm 1, with the betas of Gulrajani et al."""

    def __init__(self, parameters, beta1=0.0, beta2=0.9):
        self.parameters, self.beta1, self.beta2, self.steps = parameters, beta1, beta2, 0
        self.moments = [(np.zeros(p.shape), np.zeros(p.shape)) for p in parameters]

    def step(self, grads, lr):
        self.steps += 1
        for p, g, (m, v) in zip(self.parameters, grads, self.moments, strict=True):
            m += (1 - self.beta1) * (g.data - m)
            v += (1 - self.beta2) * (g.data**2 - v)
            mean, square = m / (1 - self.beta1**self.steps), v / (1 - self.beta2**self.steps)
            p.data = p.data - lr * mean / (np.sqrt(square) + 1e-8)


def train_critic(initial, penalty, rng, steps=800, batch=128, lr=5e-3):
    """The parameters after training, and E_p f - E_q f after every tenth step, integrated on the grid."""
    parameters = [Tensor(p.data) for p in initial]
    adam, estimates = Adam(parameters), []
    p, q, *_ = exact()
    for step in range(1, steps + 1):
        loss = critic_loss(parameters, *draw_batch(batch, rng), penalty)
        adam.step(gradients(loss, parameters), lr * (1 - step / (steps + 1)))
        if step % 10 == 0:
            f = mlp(parameters, as_tensor(GRID[::20, None])).data[:, 0]
            estimates.append((f * (p - q)[::20]).sum() * 20 * SPACING)
    return parameters, estimates


def value_and_slope(parameters):
    """f and f' on the grid."""
    x = Tensor(GRID[:, None])
    f = mlp(parameters, x)
    return f.data[:, 0], gradients(f.sum(), [x])[0].data[:, 0]


# %% [markdown]
# ## Expected beside got: critics
#
# What is expected is ∫ s (Q - P) dx, with the sign of Q - P, or with one sign everywhere for the critic in the trap.
# The slopes are those for x in [-2, 2].


# %%
def train_and_report(name, penalty, initial, expected, rng):
    """Train a critic and print a row of the table; return its parameters and (f, slope, estimates)."""
    parameters, estimates = train_critic(initial, penalty, rng)
    f, slope = value_and_slope(parameters)
    got, seen = estimates[-1], slope[np.abs(GRID) <= BUMP]
    wanted = "no maximum" if expected is None else f"{expected:.3f}"
    print(f"{name:<25} | {wanted:<10} | {got:<6.3f} | {seen.min():.2f} to {seen.max():.2f}")
    assert got > 20 if expected is None else abs(got - expected) < 0.05
    return parameters, (f, slope, estimates)


def train_critics(seed):
    """Train four critics; return (f, slope, estimates) of the first three."""
    _, _, difference, r = exact()
    best, trapped = (
        (penalised_slope(sign, difference, r) * difference).sum() * SPACING for sign in (np.sign(difference), 1)
    )
    rng = np.random.default_rng(seed)
    initial = initial_parameters((1, 32, 32, 1), rng)
    print(f"\n{'critic':<25} | {'expected':<10} | {'got':<6} | slopes")
    _, none = train_and_report("no penalty", "none", initial, None, rng)
    arrived, one_sided = train_and_report("one-sided penalty", "one-sided", initial, best, rng)
    _, two_sided = train_and_report("two-sided penalty", "two-sided", initial, trapped, rng)
    train_and_report("one-sided, then two-sided", "two-sided", arrived, best, rng)
    return {"no penalty": none, "one-sided penalty": one_sided, "two-sided penalty": two_sided}


# %% [markdown]
# ## The figure
#
# Left: the critics with a penalty. Middle: the slopes; that of the critic without penalty leaves the panel. Right: the
# estimates during training.

# %%
COLOURS = {"no penalty": "#b3261e", "one-sided penalty": "#1f6fb4", "two-sided penalty": "#e08a00"}


def draw_critics(path, critics):
    """Values, slopes and estimates of the critics."""
    p, q, difference, r = exact()
    figure = Figure(figsize=(13, 4.2), dpi=90, layout="constrained")
    left, middle, right = figure.subplots(1, 3)
    for density, name, colour in ((p, "p", "#2e7d32"), (q, "q", "#6a1b9a")):
        left.fill_between(GRID, density, color=colour, alpha=0.25, linewidth=0, label=f"density {name}")
    left.plot(GRID, np.abs(GRID), color="black", linestyle="--", label="|x|")
    middle.plot(GRID, penalised_slope(np.sign(difference), difference, r), "k--", label="s(x), sign of Q − P")
    right.axhline(np.abs(difference).sum() * SPACING, color="black", linestyle="--", label="W1")
    for name, (f, slope, estimates) in critics.items():
        if name != "no penalty":
            left.plot(GRID, f - np.interp(0, GRID, f), color=COLOURS[name], label=name)
        middle.plot(GRID, slope, color=COLOURS[name], label=name)
        right.plot(np.arange(1, len(estimates) + 1) * 10, estimates, color=COLOURS[name], label=name)
    left.set(title="Critics f(x), moved to f(0) = 0", xlabel="x", xlim=(-4, 4), ylim=(-3, 5))
    middle.set(title="Slopes f'(x)", xlabel="x", xlim=(-4, 4), ylim=(-2, 3.5))
    right.set(title="Estimates E_p f − E_q f", xlabel="step", yscale="log", ylim=(0.01, 200))
    for panel, place, columns in ((left, "upper center", 2), (middle, "upper left", 1), (right, "lower right", 2)):
        panel.legend(loc=place, frameon=False, fontsize=8, ncols=columns)
    figure.savefig(path)


# %% [markdown]
# ## What is still missing
#
# **Trust.** Formulas and finite differences have confirmed a few functions at a few points, but not every operation,
# shape and broadcast. And the first table below shows results that are silently wrong. If a parameter changes between
# the forward pass and backward, the VJPs mix old numbers with new ones. And log(1 + e^a) overflows although each of its
# operations and each VJP is right. The next lessons are about trust: checks for every operation, checks of the checks,
# and errors instead of wrong numbers.
#
# **Speed.** Backward creates more nodes than the forward pass, because a VJP is several operations, and it records a
# graph for second derivatives, which ordinary training never asks for. Each operation allocates a new array and passes
# through memory once. The last two lines compare the VJP of tanh with the same arithmetic in a buffer that already
# exists. That still takes three passes through memory; a compiled *kernel* that fuses them takes one.
#
# The main engine is built for speed. Its tensors ([scratchgen/tensor.py](../../scratchgen/tensor.py)) are like these,
# and it walks the graph in the same order. But an operation ([scratchgen/op.py](../../scratchgen/op.py)) consists of a
# forward and a backward on plain arrays, which call fused kernels and write into buffers. For this it **gives up double
# backward**: what happens inside a kernel is not recorded in a graph, so there is nothing to differentiate a second
# time. The VAEs, GANs and adversarial autoencoders of this project do not need it. A WGAN-GP does, and needs an engine
# like the one of this lesson.


# %%
def show_what_is_missing(rng):
    """Print results that are wrong, the nodes of a training step, and the time of a VJP with and without a buffer."""
    w = Tensor(1.0)
    y = w * exp(w)
    w.data = np.asarray(2.0)  # as an optimizer would
    stale = gradients(y, [w])[0].data.item()
    a = Tensor(800.0)
    with np.errstate(over="ignore", invalid="ignore"):
        softplus = log(1 + exp(a))
        slope = gradients(softplus, [a])[0]
    print(f"\n{'silently wrong':<44} | {'expected':<8} | got")
    print(f"{'derivative of w e^w at 1, w then set to 2':<44} | {2 * math.e:<8.3f} | {stale:.3f}")
    print(f"{'log(1 + e^a) at 800':<44} | {'800':<8} | {softplus.data:.0f}")
    print(f"{'its derivative':<44} | {'1':<8} | {slope.data:.0f}")
    assert not math.isclose(stale, 2 * math.e)
    assert not math.isclose(stale, 3 * math.e**2)  # nor is it the derivative at 2
    assert np.isnan(slope.data)

    points, labels = scalars.two_moons(200, rng)
    parameters = initial_parameters(scalars.SIZES, rng)
    loss = mean_loss(parameters, points, labels)
    forward = nodes_created(lambda: mean_loss(parameters, points, labels))
    backward = nodes_created(lambda: gradients(loss, parameters))
    print(f"\n{'nodes created in a training step':<44} | {forward} forward, {backward} backward")

    x = tanh(Tensor(rng.standard_normal((1000, 400))))
    g, buffer = Tensor(rng.standard_normal(x.shape)), np.empty(x.shape)

    def in_place():
        np.multiply(x.data, x.data, out=buffer)
        np.subtract(1, buffer, out=buffer)
        np.multiply(g.data, buffer, out=buffer)

    in_place()
    assert np.allclose(buffer, x.vjps[0](g, x).data, rtol=1e-14)
    print(f"{'VJP of tanh, (1000, 400), by tensors':<44} | {scalars.milliseconds(lambda: x.vjps[0](g, x), 20):.2f} ms")
    print(f"{'the same in place':<44} | {scalars.milliseconds(in_place, 20):.2f} ms")


# %%
def main():
    parser = argparse.ArgumentParser(description="Automatic differentiation of arrays, as often as needed.")
    parser.add_argument("--out", type=Path, default=Path("runs/engine-2"), help="folder for the figure")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(0)

    check_broadcasting(rng)
    compare_with_scalars(seed=0)
    check_known_derivatives()
    check_hessian_vector_product(rng)
    check_w1()
    check_critic_gradient(rng)
    critics = train_critics(seed=0)
    draw_critics(options.out / "wgan_gp.png", critics)
    show_what_is_missing(rng)
    print(options.out / "wgan_gp.png")


if __name__ == "__main__":
    main()
