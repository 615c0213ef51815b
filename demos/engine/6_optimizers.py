# %% [markdown]
# # Optimizers
#
# Backward gives the gradient, the direction in which the loss rises fastest. An optimizer decides what step to take
# against it. This lesson takes the six of `scratchgen.optim` in the order in which they were invented, asks of each
# what the one before could not do, and tests the answer on functions of two variables, where the path can be drawn.
# At the end they all train the same small VAE.
#
# Throughout, x are the parameters, g is the gradient at x, and lr is the learning rate. Squares, roots and divisions
# of vectors are taken coordinate by coordinate.

# %%
import argparse
import math
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
from matplotlib.figure import Figure

from scratchgen import Tensor, no_grad, ops
from scratchgen.data.strokes import draw_strokes
from scratchgen.models.vae import VAE, VAEConfig
from scratchgen.nn import Parameter
from scratchgen.optim import SGD, Adagrad, Adam, RMSProp

# %% [markdown]
# ## A valley
#
# The hard case for an optimizer is a narrow valley: steep across, almost flat along. The simplest one is a quadratic
#
#     f = (mu p² + L q²) / 2,      mu = 1, L = 100,
#
# where p is the coordinate along the valley and q the one across. Its curvatures are mu and L, and the condition
# number kappa is their ratio L / mu. The valley may be turned by an angle, so that p and q are not the coordinates that
# the optimizer sees. All functions below take many points at once, (n, 2), and return n losses: one point to descend
# from, a grid of them to draw contours.


# %%
KAPPA = 100.0


def axes(degrees):
    """The directions along and across the valley, as columns (2, 2)."""
    turn = math.radians(degrees)
    return np.array([[math.cos(turn), -math.sin(turn)], [math.sin(turn), math.cos(turn)]])


def valley(degrees, kappa=KAPPA):
    """A function of points (n, 2): (p² + kappa q²) / 2, with p and q along and across the valley."""
    scaled = Tensor(axes(degrees) * np.sqrt([1.0, kappa]))
    return lambda points: ((points @ scaled) ** 2).sum(axis=1) * 0.5


def descend(function, start, make_optimizer, steps, clip=None):
    """The path (steps + 1, 2) of an optimizer from ``start``, cut short where it diverges.

    ``make_optimizer`` takes the list of parameters. The gradient is clipped to norm ``clip`` if that is given.
    """
    point = Parameter(np.array([start]), dtype=np.float64)
    optimizer = make_optimizer([point])
    path = [point.data[0].copy()]
    for _ in range(steps):
        optimizer.zero_grad()
        function(point).backward()
        if clip is not None:
            optimizer.clip_gradient_norm(clip)
        optimizer.step()
        path.append(point.data[0].copy())
        if not np.abs(path[-1]).max() < 1e3:  # also true of NaN
            break
    return np.array(path)


def losses_of(function, points):
    """The losses (n,) at points (n, 2)."""
    with no_grad():
        return function(Tensor(points)).data


def gradients_of(function, points):
    """The gradients (n, 2) at points (n, 2)."""
    points = Tensor(points, requires_grad=True)
    function(points).sum().backward()
    return points.grad


# %% [markdown]
# ## Gradient descent
#
#     x  <-  x - lr g                                                                        (Cauchy 1847)
#
# In the valley the gradient is mu p along and L q across, so a step multiplies p by 1 - lr mu and q by 1 - lr L,
# whatever the angle. A learning rate that is good for p is far too large for q: above 2 / L the second factor is below
# -1, and the path leaves the valley. The best compromise makes both factors equal in size, at lr = 2 / (L + mu):
#
#     rate = (kappa - 1) / (kappa + 1).
#
# The rate is the factor by which a step shrinks the distance to the minimum. It is nearly 1 - 2 / kappa: ten times the
# condition number takes ten times as many steps.
#
# ## Momentum
#
# On the way through the valley, the gradients across it change sign from step to step, and those along it add up. A
# running sum of gradients keeps the second and cancels the first (Polyak 1964, the heavy ball):
#
#     v  <-  m v + g,      x  <-  x - lr v.
#
# In a direction of curvature c, three positions in a row obey
#
#     x_{k+1} = (1 + m - lr c) x_k - m x_{k-1},
#
# so x_k is made of powers r^k of the two roots of r² - (1 + m - lr c) r + m = 0. Their product is m. If they are a
# complex pair, both have size √m, whatever the curvature. So we want the smallest m for which the roots of all
# curvatures from mu to L are complex, or just equal. It is m = rate² at lr = 4 / (√L + √mu)², where
#
#     rate = (√kappa - 1) / (√kappa + 1).
#
# That is nearly 1 - 2 / √kappa: ten times the condition number takes only about three times as many steps.
#
# ## Nesterov's momentum
#
# Polyak's rate is that of a quadratic. On other convex functions the heavy ball, tuned this way, may cycle forever
# (Lessard et al. 2016 give an example): it takes the gradient where it is, and then moves on by its old velocity to
# where that gradient may be wrong. Nesterov (1983) moves first and takes the gradient there; this form is that of
# Sutskever et al. (2013), with x standing for the point where the gradient is taken:
#
#     v  <-  m v + g,      x  <-  x - lr (g + m v).
#
# With lr = 1 / L and m = (√kappa - 1) / (√kappa + 1) its number of steps grows with √kappa too, and does so on every
# function whose curvatures lie between mu and L. In the valley, the roots are those of
#
#     r² - (1 + m)(1 - lr c) r + m (1 - lr c) = 0.
#
# They are equal at c = mu, and at c = L, where both are 0. The larger ones give
#
#     rate = 1 - 1 / √kappa.
#
# ## Expected beside got
#
# Where two roots are equal, x_k is (1 + b k) r^k, with b given by the first step. So these methods shrink the
# distance a little slower than r at first, and the number of steps is more than log(10⁻⁶) / log(rate) says. But it
# can be computed, and must come out to the step.

# %%
BLUE, ORANGE = "#3f90da", "#e76300"


def double_root(first, r, steps):
    """x_k (steps + 1,) of a recurrence whose two roots are both r, from x_0 = 1 and x_1 = ``first``."""
    k = np.arange(1, steps + 1)
    return np.concatenate([[1.0], r**k + k * (first - r) * r ** (k - 1.0)])


def tuned():
    """Each method at its best for the valley: its optimizer, its rate, and x_k (steps + 1,) at curvature c."""
    root = (math.sqrt(KAPPA) - 1) / (math.sqrt(KAPPA) + 1)
    plain, ball, nesterov = 2 / (KAPPA + 1), 4 / (math.sqrt(KAPPA) + 1) ** 2, 1 / KAPPA
    return {
        "gradient descent": (
            lambda parameters: SGD(parameters, plain),
            (KAPPA - 1) / (KAPPA + 1),
            lambda c, steps: (1 - plain * c) ** np.arange(steps + 1),
        ),
        "momentum": (
            lambda parameters: SGD(parameters, ball, momentum=root**2),
            root,
            lambda c, steps: double_root(1 - ball * c, (1 + root**2 - ball * c) / 2, steps),
        ),
        "Nesterov": (
            lambda parameters: SGD(parameters, nesterov, momentum=root, nesterov=True),
            1 - 1 / math.sqrt(KAPPA),
            lambda c, steps: double_root(1 - (1 + root) * nesterov * c, (1 + root) * (1 - nesterov * c) / 2, steps),
        ),
    }


def show_rates(out):
    """Rates and steps of the three methods in the turned valley, beside theory; returns them by method."""
    steps, found = 1000, {}
    figure = Figure(figsize=(7, 4.5), dpi=150, layout="constrained")
    panel = figure.subplots()
    for (name, (make, rate, position)), color in zip(tuned().items(), (BLUE, ORANGE, "black"), strict=True):
        expected = np.hypot(position(1.0, steps), position(KAPPA, steps)) / math.sqrt(2)
        path = descend(valley(30), axes(30) @ [1.0, 1.0], make, steps)
        got = np.linalg.norm(path, axis=1) / np.linalg.norm(path[0])
        reached = [int(np.argmax(distances <= 1e-6)) for distances in (expected, got)]
        found[name] = (rate, got[-1] / got[-2], *reached)
        panel.semilogy(got, color=color, label=name)
        panel.semilogy(range(0, steps + 1, 25), expected[::25], "o", color=color, fillstyle="none")
    print(f"\nin a valley of condition number {KAPPA:.0f}; steps to a millionth of the distance")
    print(f"{'method':<16} | rate expected | rate got | steps expected | steps got")
    for name, (rate, got_rate, expected_steps, got_steps) in found.items():
        print(f"{name:<16} | {rate:13.5f} | {got_rate:8.5f} | {expected_steps:14d} | {got_steps:9d}")
        assert abs(got_rate - rate) < 0.002  # at step k, (1 + b k) still adds a factor of about 1 + 1 / k
        assert expected_steps == got_steps
    panel.plot([], [], "o", color="gray", fillstyle="none", label="theory")
    panel.set(
        title=f"Distance to the minimum of a valley, κ = {KAPPA:.0f}", xlabel="steps", ylabel="distance, of start"
    )
    panel.set(xlim=(0, steps), ylim=(1e-20, 3))
    panel.legend(frameon=False)
    save(figure, out / "rates.png")
    return found


def save(figure, path):
    """Write a figure, and say where."""
    figure.savefig(path)
    print(path)


# %% [markdown]
# ## Adagrad
#
# Those learning rates came from mu and L, which nobody knows of a neural network, and one learning rate served all
# directions. Adagrad (Duchi et al. 2011) gives each coordinate its own, by dividing by the size of the gradients it
# has seen:
#
#     s  <-  s + g²,      x  <-  x - lr g / (√s + epsilon).
#
# Multiply a coordinate's gradients by any number: √s grows by the same number, and the step remains. So if p and q
# are the optimizer's own coordinates, the curvatures do not matter at all, and a valley is as easy as a bowl. But it
# works coordinate by coordinate: in a turned valley both coordinates see the steep wall, both divide by it, and the
# help is gone. The three methods above add and scale whole gradients, so the angle makes no difference to them; to
# those from here on it does.
#
# ## RMSProp
#
# The sum s never forgets. After a start on a steep wall, Adagrad's steps are small for good, even where the ground is
# flat. RMSProp (Tieleman & Hinton 2012) takes a running mean in place of the sum, with d = 0.9:
#
#     s  <-  d s + (1 - d) g²,      x  <-  x - lr g / (√s + epsilon).
#
# The price: g / √s stays near 1 in size however small the gradient gets, so steps do not shrink towards the minimum
# by themselves. Once there, RMSProp jumps back and forth over it with steps of about lr. To come close, lr must be
# small, and then it takes many steps to get there.
#
# ## Adam
#
# Jumping back and forth is what momentum cancels. Adam (Kingma & Ba 2014) divides a running mean of the gradients by
# the root of a running mean of their squares:
#
#     m  <-  b1 m + (1 - b1) g,      v  <-  b2 v + (1 - b2) g²,
#     x  <-  x - lr m̂ / (√v̂ + epsilon),      m̂ = m / (1 - b1^t),  v̂ = v / (1 - b2^t),
#
# with b1 = 0.9, b2 = 0.999 and t the number of the step. Why m̂ and v̂, we shall see below.
#
# ## A race
#
# Three functions: the valley aligned with the coordinates, the valley turned by 30°, and the curved valley of
# Rosenbrock (1960), here (1 - x)² + 10 (y - x²)², starting from its steep wall. Which optimizer wins depends on the
# learning rates, so each one gets the same search: the same twelve, each twice the one before, with everything else
# at its default (momentum 0.9). We count the steps after which the loss stays below a target: a lucky pass through
# the minimum is worth nothing.

# %%
OPTIMIZERS = {
    "gradient descent": SGD,
    "momentum": partial(SGD, momentum=0.9),
    "Nesterov": partial(SGD, momentum=0.9, nesterov=True),
    "Adagrad": Adagrad,
    "RMSProp": RMSProp,
    "Adam": Adam,
}
ADAPTIVE = ("Adagrad", "RMSProp", "Adam")
LEARNING_RATES = 0.001 * 2.0 ** np.arange(12)


def rosenbrock(points):
    """(1 - x)² + 10 (y - x²)² (n,) of points (n, 2); the minimum is 0 at (1, 1)."""
    x, y = points[:, 0], points[:, 1]
    return (1 - x) ** 2 + 10.0 * (y - x**2) ** 2


class Race(NamedTuple):
    """A function, where to start, the loss to stay below, the steps allowed, its minimum, the rectangle to draw."""

    function: Callable[[Tensor], Tensor]
    start: np.ndarray
    target: float
    steps: int
    minimum: tuple[float, float]
    extent: tuple[float, float, float, float]


# in the valleys, the target is a thousandth of the loss at the start
RACES = {
    "aligned valley": Race(valley(0), axes(0) @ [-2.0, 0.5], 0.0145, 250, (0, 0), (-2.6, 1.2, -1.1, 1.1)),
    "turned valley": Race(valley(30), axes(30) @ [-2.0, 0.5], 0.0145, 250, (0, 0), (-2.6, 1.2, -1.9, 1.0)),
    "Rosenbrock": Race(rosenbrock, np.array([-1.0, 3.0]), 0.1, 400, (1, 1), (-2.2, 2.2, -0.8, 3.8)),
}


def settled(losses, target):
    """The step from which on the loss stays at or below ``target``; infinity if the last one is above it."""
    above = np.flatnonzero(~(losses <= target))  # so NaN is above
    step = int(above[-1]) + 1 if len(above) else 0
    return step if step < len(losses) else math.inf


def search(race, optimizer):
    """The best learning rate: the steps it takes to settle, itself, and its path."""
    runs = []
    for lr in LEARNING_RATES:
        path = descend(race.function, race.start, partial(optimizer, lr=lr), race.steps)
        runs.append((settled(losses_of(race.function, path), race.target), lr, path))
    best = min(runs, key=lambda run: run[0])
    assert math.isfinite(best[0])
    assert LEARNING_RATES[0] < best[1] < LEARNING_RATES[-1]  # else the best rate may lie outside the search
    return best


def show_race(out):
    """Steps and paths of all optimizers on the three functions; returns (steps, lr, path) by function and optimizer."""
    found = {}
    for title, race in RACES.items():
        found[title] = {name: search(race, optimizer) for name, optimizer in OPTIMIZERS.items()}
        left, right, bottom, top = race.extent
        height = 7.3 * (top - bottom) / (right - left)  # of two rows of panels, three to a row
        figure = Figure(figsize=(12, height + 1.6), dpi=150, layout="constrained")
        figure.suptitle(f"{title}: paths until the loss stays below {race.target} (light: low loss, star: minimum)\n")
        for panel, (name, (count, lr, path)) in zip(figure.subplots(2, 3).flat, found[title].items(), strict=True):
            draw_contours(panel, race.function, race.extent)
            draw_path(panel, path[: count + 1], ORANGE)
            panel.plot(*race.minimum, color="black", marker="*", markersize=9)
            panel.set(title=f"{name}: {count} steps, lr {lr:.3g}")
        save(figure, out / f"paths_{title.lower().replace(' ', '_')}.png")
    print("\nsteps until the loss stays below its target, at the best of 12 learning rates (in brackets)")
    print(f"{'optimizer':<16} | " + " | ".join(f"{title:<14}" for title in RACES))
    for name in OPTIMIZERS:
        cells = [f"{found[title][name][0]} ({found[title][name][1]:.3g})" for title in RACES]
        print(f"{name:<16} | " + " | ".join(f"{cell:<14}" for cell in cells))
    return found


def draw_contours(panel, function, extent, levels=None):
    """Filled contours of a function over a rectangle, evenly spaced in the logarithm unless ``levels`` are given."""
    x, y = np.linspace(*extent[:2], 241), np.linspace(*extent[2:], 241)
    losses = losses_of(function, np.stack(np.meshgrid(x, y), axis=-1).reshape(-1, 2)).reshape(241, 241)
    levels = losses.max() * np.geomspace(1e-4, 1, 13) if levels is None else levels
    panel.contourf(x, y, losses, levels, cmap="Blues", norm="log", extend="both")
    panel.set(xlim=extent[:2], ylim=extent[2:], aspect="equal")


def draw_path(panel, path, color, label=None):
    """A path with a dot at each point, and a larger one at its start."""
    panel.plot(*path.T, color=color, linewidth=1, marker=".", markersize=4, label=label)
    panel.plot(*path[0], color=color, marker="o", markersize=7)


# %% [markdown]
# Read the table by rows, then by columns.
#
# - Gradient descent, momentum and Nesterov take the same steps in both valleys: they do not see the angle. Momentum
#   takes fewer than half of gradient descent's.
# - Adagrad needs a handful of steps in the aligned valley, and more than ten times as many in the turned one.
# - On Rosenbrock's function Adagrad starts on the wall and never forgets it. RMSProp does, and needs fewer steps.
# - RMSProp crawls at the small learning rate that it needs at the end; with one eight times as large, it
#   does not settle within the steps allowed. Adam, which replaces the gradient by a running mean, can afford such
#   rates, and needs fewer steps everywhere.
# - No method wins everywhere. Adagrad is ahead in the aligned valley, Nesterov's momentum on the other two.
#
# Below the table, what Adagrad's formula promises: the paths in an aligned valley do not depend on kappa at all.


# %%
def check_race(found):
    """Assert what the text says of the race, and print how far kappa moves the paths of the adaptive methods."""
    steps = {title: {name: run[0] for name, run in runs.items()} for title, runs in found.items()}
    for name in ("gradient descent", "momentum", "Nesterov"):
        assert steps["aligned valley"][name] == steps["turned valley"][name]
    for title in RACES:
        assert 2 * steps[title]["momentum"] < steps[title]["gradient descent"]
        assert steps[title]["Adam"] < steps[title]["RMSProp"]
    race, larger = RACES["aligned valley"], 8 * found["aligned valley"]["RMSProp"][1]
    path = descend(race.function, race.start, partial(RMSProp, lr=larger), race.steps)
    assert settled(losses_of(race.function, path), race.target) == math.inf
    assert larger <= found["aligned valley"]["Adam"][1]
    assert 10 * steps["aligned valley"]["Adagrad"] < steps["turned valley"]["Adagrad"]
    assert steps["Rosenbrock"]["RMSProp"] < steps["Rosenbrock"]["Adagrad"]
    assert [min(runs, key=runs.get) for runs in steps.values()] == ["Adagrad", "Nesterov", "Nesterov"]
    wall, floor = np.linalg.norm(gradients_of(rosenbrock, np.array([[-1.0, 3.0], [0.5, 0.25]])), axis=1)
    print(f"on Rosenbrock's function the gradient has norm {wall:.0f} at the start, {floor:.0f} in the valley")
    print("\nlargest distance between the paths with condition numbers 100 and 10,000; lr 0.1, 100 steps")
    print(f"{'optimizer':<9} | aligned, expected | aligned, got | turned, expected | turned, got")
    for name in ADAPTIVE:
        moved = []
        for degrees in (0, 30):
            start, make = axes(degrees) @ [-2.0, 0.5], partial(OPTIMIZERS[name], lr=0.1)
            paths = [descend(valley(degrees, kappa), start, make, 100) for kappa in (100.0, 10_000.0)]
            moved.append(np.abs(paths[0] - paths[1]).max())
        print(f"{name:<9} | {'0':<17} | {moved[0]:<12.1e} | {'not 0':<16} | {moved[1]:.2f}")
        assert moved[0] < 1e-4 < moved[1]


# %% [markdown]
# ## What bias correction is for
#
# Adam's m and v start at 0, so at first they are means of the gradients and of zeros. Unrolled,
#
#     m_t = (1 - b1) (g_t + b1 g_{t-1} + ... + b1^(t - 1) g_1),
#
# and these weights add up to 1 - b1^t instead of 1. If all gradients have the same mean, then m_t is too small by
# that factor, and v_t by 1 - b2^t; m̂ and v̂ divide by it. Without that division one might expect steps that
# are too short. But v has the longer memory, so it is too small by more and for longer, and it is what we divide by:
# the steps are too long, by the factor
#
#     (1 - b1^t) / √(1 - b2^t).
#
# To see it on its own, walk down an even slope, where g is constant. Each step of Adam is lr long in each coordinate,
# from the first one on. Without the correction, written out here in NumPy, they are as much longer as the formula
# says.


# %%
def adam_by_hand(function, start, lr, steps, correct):
    """The path (steps + 1, 2) of Adam in NumPy, with or without its bias correction."""
    x, m, v, path = start, 0.0, 0.0, [start]
    for t in range(1, steps + 1):
        g = gradients_of(function, x[None])[0]
        m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g**2
        m_hat, v_hat = (m / (1 - 0.9**t), v / (1 - 0.999**t)) if correct else (m, v)
        x = x - lr * m_hat / (np.sqrt(v_hat) + 1e-8)
        path.append(x)
    return np.array(path)


def slope(points):
    """A function with the same gradient (3, 3) everywhere."""
    return points.sum(axis=1) * 3.0


def show_bias_correction(out, lr):
    """Adam's steps with and without bias correction: on a slope, and in the turned valley at ``lr``."""
    steps, origin = 2000, np.zeros(2)
    paths = [descend(slope, origin, partial(Adam, lr=0.1), steps), adam_by_hand(slope, origin, 0.1, steps, False)]
    corrected, uncorrected = (-np.diff(path[:, 0]) / 0.1 for path in paths)
    t = np.arange(1, steps + 1)
    expected = (1 - 0.9**t) / np.sqrt(1 - 0.999**t)
    print("\nlength of Adam's steps on an even slope, in units of lr")
    print("step | corrected, expected | corrected, got | uncorrected, expected | uncorrected, got")
    for i in (1, 3, 10, 100, 1000):
        pair = f"{expected[i - 1]:21.3f} | {uncorrected[i - 1]:16.3f}"
        print(f"{i:4d} | {1:19.3f} | {corrected[i - 1]:14.3f} | {pair}")
    np.testing.assert_allclose(corrected, 1, rtol=1e-6)
    np.testing.assert_allclose(uncorrected, expected, rtol=1e-6)

    function, start, *_ = RACES["turned valley"]
    with_it, without = (adam_by_hand(function, start, lr, 60, correct) for correct in (True, False))
    # what is written out here is, with the correction, what scratchgen.optim does
    np.testing.assert_allclose(with_it, descend(function, start, partial(Adam, lr=lr), 60), atol=1e-9)
    highest = [losses_of(function, path).max() for path in (with_it, without)]
    print(f"in the turned valley, lr {lr:.3g}, the loss rises to at most {highest[0]:.1f} with correction, ", end="")
    print(f"{highest[1]:.1f} without; it starts at {losses_of(function, start[None])[0]:.1f}")
    assert highest[0] < highest[1]

    figure = Figure(figsize=(12, 4.4), dpi=150, layout="constrained")
    left, right = figure.subplots(1, 2, width_ratios=[1, 1.2])
    left.semilogx(t, corrected, color=BLUE, label="with bias correction")
    left.semilogx(t, uncorrected, color=ORANGE, label="without")
    chosen = np.unique(np.geomspace(1, steps, 25).astype(int))
    left.plot(chosen, expected[chosen - 1], "o", color=ORANGE, fillstyle="none", label="(1 − b1ᵗ) / √(1 − b2ᵗ)")
    left.set(title="Adam's steps on an even slope", xlabel="step t", ylabel="length, in units of lr", ylim=(0, 7.5))
    left.legend(frameon=False, loc="upper right")
    draw_contours(right, function, (-3.4, 2.6, -2.9, 1.0))
    draw_path(right, with_it, "black", "with bias correction")
    draw_path(right, without, ORANGE, "without")
    right.set(title=f"The first 60 steps in the turned valley, lr {lr:.3g}")
    right.legend(loc="lower right")
    save(figure, out / "bias_correction.png")


# %% [markdown]
# ## A cliff, and clipping the gradient
#
# A recurrent network applies the same weights many times over. Here is the smallest one, a single hidden unit without
# input, the kind whose loss Pascanu et al. (2013) draw: from h = 0.5 it takes fifty times
#
#     h  <-  w sigmoid(h) + b,
#
# and sigmoid(h) is to be 0.7 at the end. The derivative of the last h by the first is a product of fifty factors w
# sigmoid'(h). Where they are below 1, it vanishes and the loss is flat; where they are above 1, it explodes. Along
# the border between those (w, b) from which h ends up low and those from which it ends up high, the loss is a cliff.
# The best (w, b) lie along its foot, so sooner or later a step lands on the wall. The gradient there points the right
# way and is far too long: one step throws the parameters onto a plain so flat that they never come back.
#
# A smaller lr does not help: the gradient on the wall is hundreds of times as long as at the start, so what is small
# enough there gets nowhere elsewhere. What helps is to keep the direction and bound the length (Pascanu et al. 2013):
#
#     g  <-  g min(1, c / |g|),
#
# where |g| is the norm of the whole gradient. In a training step this is one line, between backward and step:
# `optimizer.clip_gradient_norm(c)`. The clipped path bounces along the foot of the cliff, and gets to where the wall
# is lower and a solution can be held.


# %%
def recurrent(points):
    """The loss (n,) of the recurrent unit, of points (w, b) (n, 2)."""
    w, b = points[:, 0], points[:, 1]
    h = Tensor(np.full(len(points), 0.5))
    for _ in range(50):
        h = w * ops.sigmoid(h) + b
    return (ops.sigmoid(h) - 0.7) ** 2


def show_clipping(out):
    """Gradient descent on the cliff, with and without clipping."""
    start, lr, clip, steps = np.array([5.0, -2.1]), 0.3, 0.2, 150
    paths = {
        f"clipped to norm {clip}": descend(recurrent, start, partial(SGD, lr=lr), steps, clip),
        "without clipping": descend(recurrent, start, partial(SGD, lr=lr), steps),
    }
    figure = Figure(figsize=(12, 4.8), dpi=150, layout="constrained")
    left, right = figure.subplots(1, 2, width_ratios=[1.1, 1])
    draw_contours(left, recurrent, (3.6, 6.0, -3.0, -1.2), np.geomspace(1e-4, 0.5, 13))
    print(f"\ngradient descent on the cliff, lr {lr}, {steps} steps")
    print(f"{'path':<19} | first gradient | longest gradient | longest step | last loss")
    last = {}
    for (name, path), color in zip(paths.items(), ("black", ORANGE), strict=True):
        losses, norms = losses_of(recurrent, path), np.linalg.norm(gradients_of(recurrent, path), axis=1)
        longest = np.linalg.norm(np.diff(path, axis=0), axis=1).max()
        print(f"{name:<19} | {norms[0]:14.3f} | {norms.max():16.1f} | {longest:12.3f} | {losses[-1]:.5f}")
        last[name] = (longest, losses[-1])
        draw_path(left, path, color, name)
        right.semilogy(losses, color=color, label=name)
        assert norms.max() > 100 * norms[0]
    (clipped_step, clipped_loss), (free_step, free_loss) = last.values()
    assert clipped_step <= lr * clip * (1 + 1e-9)
    assert free_step > 5
    assert clipped_loss < 0.01 < free_loss
    end = paths["without clipping"][-1]
    left.annotate(f"thrown to ({end[0]:.0f}, {end[1]:.0f})", (4.5, -1.35), color=ORANGE)
    left.set(title="Paths at the cliff; light is low loss", xlabel="w", ylabel="b")
    left.legend(loc="lower left")
    right.set(title="Loss", xlabel="steps", ylabel="(sigmoid(h) − 0.7)²")
    right.legend(loc="lower left", frameon=False)
    save(figure, out / "clipping.png")


# %% [markdown]
# ## A variational autoencoder
#
# Now many parameters instead of two, and a loss that changes from batch to batch. The model is a VAE
# 784-128-8-128-784 on 28×28 digits drawn by a program (`scratchgen.data.strokes`); its loss is the negative bound on
# log p(x), in nats per image (lower is better). Every optimizer begins with the same weights and sees the same
# batches and noise. Each gets four learning rates, about a factor of three apart, around the best of a coarser
# search, and is judged by the bound on 500 images that training does not see.


# %%
VAE_LEARNING_RATES = {
    "gradient descent": (0.001, 0.003, 0.01, 0.03),
    "momentum": (0.0003, 0.001, 0.003, 0.01),
    "Nesterov": (0.0003, 0.001, 0.003, 0.01),
    "Adagrad": (0.01, 0.03, 0.1, 0.3),
    "RMSProp": (0.001, 0.003, 0.01, 0.03),
    "Adam": (0.001, 0.003, 0.01, 0.03),
}
EVERY = 10  # steps between two evaluations


def negative_bound(model, x, rng):
    """The mean over the images x (b, 784) of the negative bound, in nats."""
    noise = Tensor(rng.standard_normal((1, len(x), model.config.latent_dim), dtype=np.float32))
    reconstruction, kl = model.negative_elbo(x, noise)
    return (reconstruction + kl).mean()


def train(make_optimizer, images, held_out, steps):
    """The negative bounds on the held-out images, every ``EVERY`` steps; infinity from where training diverged."""
    rng = np.random.default_rng(1)
    model = VAE(VAEConfig(784, 8, (128,), (128,)), rng)
    optimizer = make_optimizer(model)
    bounds = np.full(steps // EVERY + 1, math.inf)
    for step in range(steps + 1):
        if step % EVERY == 0:
            with no_grad():
                bounds[step // EVERY] = negative_bound(model, held_out, np.random.default_rng(2)).item()
        loss = negative_bound(model, Tensor(images[rng.integers(0, len(images), 100)]), rng)
        if not np.isfinite(loss.item()):
            bounds[step // EVERY :] = math.inf
            break
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return bounds


def show_vae(out, steps):
    """Bounds of the VAE with each optimizer at its best learning rate; returns the last one by optimizer."""
    images = draw_strokes(5000, np.random.default_rng(0)).images
    training, held_out = images[:4500], Tensor(images[4500:])
    figure = Figure(figsize=(8, 5), dpi=150, layout="constrained")
    panel = figure.subplots()
    colors = ("#94a4a2", "#3f90da", "#832db6", "#ffa90e", "#bd1f01", "black")
    model = VAE(VAEConfig(784, 8, (128,), (128,)), np.random.default_rng(1))
    negative_bound(model, Tensor(training[:100]), np.random.default_rng(2)).backward()
    sizes = [math.sqrt((parameter.grad**2).mean()) for parameter in model.parameters()]
    count = sum(parameter.size for parameter in model.parameters())
    print(f"\na VAE of {count:,} parameters in {len(sizes)} arrays; before training, the root mean square of the")
    print(f"gradient of an array is between {min(sizes):.3f} and {max(sizes):.3f}")
    assert max(sizes) > 10 * min(sizes)
    print(f"\nnegative bound of the VAE on held-out images after {steps} steps, nats, by learning rate")
    best = {}
    for (name, rates), color in zip(VAE_LEARNING_RATES.items(), colors, strict=True):
        runs = [train(partial(OPTIMIZERS[name], lr=lr), training, held_out, steps) for lr in rates]
        ends = [run[-1] for run in runs]
        i = int(np.argmin(ends))
        best[name] = ends[i]
        words = [
            f"{lr:g}: {end:.1f}" if end < math.inf else f"{lr:g}: diverged" for lr, end in zip(rates, ends, strict=True)
        ]
        cells = " | ".join(f"{word:<15}" for word in words)
        print(f"{name:<16} | {cells} | best {ends[i]:.1f}")
        panel.plot(np.arange(len(runs[i])) * EVERY, runs[i], color=color, label=f"{name}, lr {rates[i]:g}")
        # else the best rate may lie outside the search; a short run needs others, and is only to see that all works
        assert 0 < i < len(rates) - 1 or steps < 200
    panel.set(title="A VAE with each optimizer at its best learning rate", xlabel="steps")
    panel.set(ylabel="negative bound on held-out images, nats", xlim=(0, steps), ylim=(90, 320))
    panel.legend(frameon=False)
    save(figure, out / "vae.png")
    assert best["momentum"] < best["gradient descent"]
    assert best["Adam"] == min(best.values())
    return best


# %% [markdown]
# The gradients of different arrays differ in size by a factor of more than ten, and one learning rate for all of them
# is a compromise. So here the adaptive methods gain what they could not in a turned valley, and Adam, which also
# averages over batches, is ahead of all. By its formula its path does not change when the loss is multiplied by a
# number. So summing over pixels instead of averaging, say, leaves its best learning rate where it was; gradient
# descent's must be divided by 784.
#
# | optimizer | what is new | what it still cannot do |
# |---|---|---|
# | gradient descent | | narrow valleys: steps grow with kappa |
# | momentum | sums up past gradients: steps grow with √kappa | only sure on quadratics |
# | Nesterov | takes the gradient ahead: as fast, on all smooth, strongly convex functions | one learning rate for all |
# | Adagrad | a learning rate for each coordinate | forget; turned valleys |
# | RMSProp | forgets | come to rest |
# | Adam | RMSProp with momentum, corrected for its start at 0 | see directions other than the coordinates |


# %%
def main():
    parser = argparse.ArgumentParser(description="Six optimizers, in the order of their invention.")
    parser.add_argument("--out", type=Path, default=Path("runs/engine-6"), help="folder for the figures")
    parser.add_argument("--quick", action="store_true", help="train the VAE for 60 steps instead of 200")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    show_rates(options.out)
    race = show_race(options.out)
    check_race(race)
    show_bias_correction(options.out, race["turned valley"]["Adam"][1])
    show_clipping(options.out)
    show_vae(options.out, 60 if options.quick else 200)


if __name__ == "__main__":
    main()
