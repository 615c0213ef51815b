# %% [markdown]
# # Trust: how to know that a gradient is right
#
# A wrong gradient does not crash. The loss still falls, only more slowly, or to a worse place, and the mistake looks
# like a bad learning rate. So a gradient must be checked by something that knows nothing of how it was computed, and
# there is such a thing: the function itself. The derivative is its slope, and a slope can be measured.
#
# This lesson builds the check that `scratchgen/gradcheck.py` does, one decision at a time: which difference formula,
# which step, which direction, which cotangent, where not to look. Then it plants wrong gradients and counts how many
# of them three different checkers find.

# %%
import argparse
import math
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from matplotlib.figure import Figure

import kernels
from scratchgen import Tensor, ops  # importing ops fills the registry
from scratchgen.gradcheck import (
    ATOL,
    RTOL,
    GradientError,
    UndecidedError,
    check_operation,
    draw_inputs,
    gradcheck,
    input_shapes,
)
from scratchgen.op import REGISTRY
from scratchgen.tensor import apply

parser = argparse.ArgumentParser(description="How to know that a gradient is right.")
parser.add_argument("--out", type=Path, default=Path("runs/engine-3"), help="folder for the figures")
options = parser.parse_args([] if "ipykernel" in sys.modules else None)  # in a notebook: the defaults
options.out.mkdir(parents=True, exist_ok=True)


def print_table(*rows):
    """Rows of texts in aligned columns; the first row is the header."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        print(" | ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip())
    print()


# %% [markdown]
# ## Three formulas for a slope
#
# The definition of the derivative suggests the *forward difference*. Taylor's theorem says how good it is:
#
#     f(x + h) = f + h f' + h²/2 f'' + h³/6 f''' + ...
#
#     (f(x + h) - f(x)) / h  =  f' + h/2 f'' + ...                                 error ~ h
#
# The *central difference* looks to both sides. All even terms cancel, and the error falls to the next order:
#
#     (f(x + h) - f(x - h)) / 2h  =  f' + h²/6 f''' + ...                          error ~ h²
#
# The same trick again: the central differences with steps h and 2h have errors h²/6 f''' and 4h²/6 f'''. Four thirds
# of the first minus one third of the second cancels them, and leaves
#
#     [8 (f(x + h) - f(x - h)) - (f(x + 2h) - f(x - 2h))] / 12h  =  f' - h⁴/30 f⁽⁵⁾ + ...      error ~ h⁴


# %%
def forward(f, x, h):
    return (f(x + h) - f(x)) / h


def central(f, x, h):
    return (f(x + h) - f(x - h)) / (2 * h)


def fourth(f, x, h):
    return (8 * (f(x + h) - f(x - h)) - (f(x + 2 * h) - f(x - 2 * h))) / (12 * h)


# %% [markdown]
# ## Why the step must not be too small
#
# On paper, a smaller h is always better. A computer, however, rounds f(x + h) and f(x) to a relative precision of
# u = eps/2 (6e-8 in float32, 1e-16 in float64), and their difference keeps these absolute errors, while dividing by h
# makes them large. With C, p and R from the formula (R adds up the weights of the evaluations), the total is at most
#
#     error(h)  =  C h^p |f^(p+1)|  +  R u |f| / h        truncation + rounding
#
# The first term falls as h gets smaller, the second rises. The derivative of the sum is zero at
#
#     h_best  =  (R u |f| / (p C |f^(p+1)|)) ^ (1 / (p + 1)).
#
# For f = exp all derivatives equal f, and the relative error depends on h alone. So we measure with exp, at 200 points
# in [1, 1.4], and take the root mean square. The points and steps are binary fractions, so x + h itself is exact.
#
# In the table, theory stands beside what was measured: the best step, the error there, and the power of h that the
# error follows above the best step (truncation) and below it (rounding).


# %%
class Formula(NamedTuple):
    name: str
    difference: Callable
    order: int  # p
    truncation: float  # C
    rounding: float  # R

    def bound(self, h, u):
        return self.truncation * h**self.order + self.rounding * u / h

    def best_step(self, u):
        return (self.rounding * u / (self.order * self.truncation)) ** (1 / (self.order + 1))


FORMULAS = (
    Formula("forward", forward, 1, 1 / 2, 2),
    Formula("central", central, 2, 1 / 6, 1),
    Formula("4th order", fourth, 4, 1 / 30, 3 / 2),
)
POINTS = 1 + np.arange(200) / 512
STEP = 1e-3  # of this lesson from here on


def relative_error(formula, h, dtype):
    """The root mean square over the points of the relative error of the slope of exp, computed in ``dtype``."""
    slopes = formula.difference(np.exp, POINTS.astype(dtype), dtype(h))
    return float(np.sqrt(np.mean((slopes / np.exp(POINTS) - 1) ** 2)))


def power(steps, errors):
    """The power of the step that the error goes with: the slope of a line in the log-log plane."""
    return np.polyfit(np.log(steps), np.log(errors), 1)[0]


rows = [("", "best step: theory", "got", "error: at most", "got", "above: theory", "got", "below", "got")]
curves = {}
for dtype, finest in ((np.float32, 23), (np.float64, 52)):
    u = np.finfo(dtype).eps / 2
    steps = 2.0 ** -np.arange(finest + 1)
    for formula in FORMULAS:
        errors = np.array([relative_error(formula, h, dtype) for h in steps])
        curves[dtype, formula.name] = steps, errors
        best, got = formula.best_step(u), steps[errors.argmin()]
        above, below = (steps >= 2 * best) & (steps <= 0.5), (steps <= best / 8) & (errors < 0.1)
        rising, falling = power(steps[above], errors[above]), power(steps[below], errors[below])
        rows.append(
            (
                *(f"{formula.name}, {dtype.__name__}", f"{best:.1e}", f"{got:.1e}"),
                *(f"{formula.bound(best, u):.0e}", f"{errors.min():.0e}"),
                *(f"h^{formula.order}", f"h^{rising:.2f}", "h^-1", f"h^{falling:.2f}"),
            )
        )
        assert best / 4 < got < 4 * best
        assert errors.min() < formula.bound(best, u)
        assert abs(rising - formula.order) < 0.2
        assert abs(falling + 1) < 0.2
print_table(*rows)

# %%
figure = Figure(figsize=(11, 5), dpi=150, layout="constrained")
panels = figure.subplots(1, 2, sharey=True)
COLORS = {"forward": "#e76300", "central": "#3f90da", "4th order": "#2d8a4e"}
for panel, dtype in zip(panels, (np.float32, np.float64), strict=True):
    u = np.finfo(dtype).eps / 2
    for formula in FORMULAS:
        (steps, errors), color, best = curves[dtype, formula.name], COLORS[formula.name], formula.best_step(u)
        panel.loglog(steps, errors, ".", color=color, label=f"{formula.name}, measured")
        panel.loglog(steps, formula.bound(steps, u), color=color, linewidth=1)
        panel.loglog(best, formula.bound(best, u), "v", color=color, markersize=9, markeredgecolor="black")
    panel.plot([], [], color="gray", linewidth=1, label="truncation + rounding, at most")
    panel.plot([], [], "v", color="gray", markersize=9, markeredgecolor="black", label="best step, by theory")
    panel.set(title=f"Slope of exp, computed in {dtype.__name__}", xlabel="step h", ylim=(3e-15, 10))
    panel.grid(alpha=0.3)
panels[0].set_ylabel("relative error")
panels[0].legend(loc="lower left")
panels[1].axvline(STEP, color="black", linestyle=":", label="h = 1e-3, the step of this lesson")
panels[1].legend(handles=panels[1].lines[-1:], loc="lower left")
path = options.out / "steps.png"
figure.savefig(path)
print(path, "\n")

# %% [markdown]
# Two readings of table and figure:
#
# - A formula of higher order has a *larger* best step and a smaller error there. Large steps suffer little from
#   rounding, and only a high order can afford them.
# - In float32 the best formula is worse than the simplest one in float64. So gradients are checked in float64, even
#   if they will be used in float32.

# %%
assert curves[np.float32, "4th order"][1].min() > curves[np.float64, "forward"][1].min()

# %% [markdown]
# ## The step of the gradient check
#
# `scratchgen/gradcheck.py` takes the formula of 4th order and float64, and accepts a relative error of 1e-7. For exp,
# h = 1e-3 is the best step. What of other functions? For f = e^(cx), which changes c times as fast, the relative error
# is (ch)⁴/30. So there is room for functions that change tens of times as fast as exp, which is enough for this lesson.
# (The column "at most" adds the rounding of f and, as 1e-3 is no binary fraction, of x.)

# %%
u = np.finfo(np.float64).eps / 2
rows = [("steepness c", "relative error at h = 1e-3: at most", "got", "tolerance")]
for c in (1, 3, 10, 30, 100):
    slopes = fourth(lambda x, c=c: np.exp(c * x), POINTS, STEP) / c
    got = np.abs(slopes / np.exp(c * POINTS) - 1).max()
    expected = (c * STEP) ** 4 / 30 + 3 / 2 * (u + c * POINTS.max() * u) / (c * STEP)
    rows.append((f"{c}", f"{expected:.0e}", f"{got:.0e}", f"{RTOL:.0e}"))
    assert got < 1.01 * expected
    assert (expected < RTOL) == (c <= 30)
print_table(*rows)

# %% [markdown]
# It is not enough for every function: the logarithm at x = 0.05 changes twenty times as fast as at 1, at 0.001 a
# thousand times. So `gradcheck` begins with h = 0.04 and halves it until the slope stays the same. A halving costs two
# evaluations, because f(x ± 2h) is known from the one before. The last changes of the slope, and the rounding of f by
# the curve above, say how far it can be trusted. Where rounding takes over too soon, as beside a large constant, the
# answer is neither "right" nor "wrong" but `UndecidedError`.

# %%
with kernels.use("reference"):
    for x in (1.0, 0.05, 0.001):
        print(f"log at {x}:", gradcheck(ops.log, np.array([x])))
    try:
        gradcheck(lambda x: x + x + 1e10, np.array([1.0]))
        raise RuntimeError("decided")
    except UndecidedError as error:
        print("2x + 1e10:", error, "\n")

# %% [markdown]
# ## One direction instead of every element
#
# So far x was one number. A weight matrix has thousands, and the obvious check moves them one at a time: four
# evaluations of the whole function for each element. But a derivative along *any* direction v is known from the
# gradient, <gradient, v>, and can be measured with four evaluations in all, by moving every element at once:
#
#     <gradient, v>  =  d/dt f(x + t v)  at  t = 0.
#
# Below, the function is the mean square of tanh(x w) as a function of w (40, 50), and its gradient is checked in both
# ways: as it is, and with a single one of its 2,000 elements made 1 % too large.

# %%
rng = np.random.default_rng(0)
x, w = rng.standard_normal((20, 40)), rng.standard_normal((40, 50)) / math.sqrt(40)
evaluations = 0  # of mean_square


def mean_square(w):
    global evaluations
    evaluations += 1
    return np.mean(np.tanh(x @ w) ** 2)


out = np.tanh(x @ w)
right = x.T @ (2 / out.size * out * (1 - out**2))
wrong = right.copy()
wrong[7, 7] *= 1.01


def slope_along(f, x, v):
    """The derivative of the number f(x) as x moves in the direction v."""
    return fourth(lambda t: f(x + t * v), 0.0, STEP)


def check_by_element():
    """The largest error of an element, of the right gradient and of the wrong one."""
    numeric = np.empty_like(w)
    for index in np.ndindex(w.shape):
        unit = np.zeros_like(w)
        unit[index] = 1
        numeric[index] = slope_along(mean_square, w, unit)
    return np.abs(right - numeric).max(), np.abs(wrong - numeric).max()


def check_along_one_direction():
    """The error along a random direction, of the right gradient and of the wrong one."""
    v = rng.standard_normal(w.shape)
    v /= np.linalg.norm(v)
    numeric = slope_along(mean_square, w, v)
    return abs((right * v).sum() - numeric), abs((wrong * v).sum() - numeric)


rows = [("2,000 elements", "evaluations", "milliseconds", "error of the right gradient", "of the wrong one")]
for name, check, cost in (
    ("by element", check_by_element, 4 * w.size),
    ("along one direction", check_along_one_direction, 4),
):
    start, evaluations = time.perf_counter(), 0
    errors = check()
    milliseconds = 1e3 * (time.perf_counter() - start)
    rows.append((name, f"{evaluations:,}", f"{milliseconds:.1f}", *(f"{error:.0e}" for error in errors)))
    assert evaluations == cost
    assert 1e3 * errors[0] < errors[1]
print_table(*rows)

# %% [markdown]
# Both see the mistake. The direction shares it out: a gradient that is wrong by e is off by <e, v> along v. In n
# dimensions this is about a normal number times |e| / √n, so it can be small by bad luck, and a mistake slips through a
# tolerance τ with the probability
#
#     P(|<e, v>| < τ)  =  erf(τ √n / (|e| √2)),        about 0.8 τ √n / |e| for a small τ.
#
# The table counts how often 20,000 random directions miss the mistake above, with a tolerance that is far too large and
# with that of `gradcheck`.


# %%
def chance_of_missing(tolerance, wrong, n):
    return math.erf(tolerance * math.sqrt(n) / (wrong * math.sqrt(2)))


e = wrong - right
size = float(np.linalg.norm(e))
seen = np.empty(20_000)
for i in range(len(seen)):
    v = rng.standard_normal(e.shape)
    seen[i] = abs((e * v).sum()) / np.linalg.norm(v)
rows = [("tolerance", "chance of missing: theory", "got")]
for tolerance in (0.1 * size / math.sqrt(e.size), ATOL):
    expected, got = chance_of_missing(tolerance, size, e.size), np.mean(seen < tolerance)
    rows.append((f"{tolerance:.1e}", f"{expected:.5f}", f"{got:.5f}"))
    assert abs(got - expected) < 4 * math.sqrt(expected / len(seen))
print_table(*rows)

# %% [markdown]
# So one direction is enough, provided that it is random and the tolerance tight. Whoever wants better odds repeats the
# check with fresh draws, and the chances multiply. (`scratchgen gradcheck` draws each case of an operation three times,
# and with each dimension 67 and 1,030 long.) Only when a check has failed are the elements gone through, to say where
# it hurts.
#
# ## The cotangent
#
# Most operations return an array, and finite differences need a number. The number is <c, out>, for an array c of the
# shape of out that is called the *cotangent*: `backward` receives it as dout and multiplies it by the Jacobian. The
# easy choice is c = 1, which means out.sum(). It is a trap. A softmax sums to 1, whatever its input, so the derivative
# of its sum is zero, and a backward that returns zero passes the check.
#
# To see this, a wrong backward is planted in one of the project's own operations. An operation is plain data (`Op` in
# `scratchgen/op.py`): its forward returns the result and what backward will need, its backward receives dout. `plant`
# makes a copy with another backward, written as a function of three things: the `right` backward (a function of dout,
# in case a mutant wants to distort it), dout, and the inputs. `apply` takes such a copy directly. The registry never
# sees it.


# %%
def plant(op, wrong):
    """A copy of the operation whose backward returns ``wrong(right, dout, *inputs)``."""

    def forward(kernels, *inputs, **params):
        out, saved = op.forward(kernels, *inputs, **params)
        return out, (inputs, saved)

    def backward(kernels, needs, dout, saved, **params):
        inputs, saved = saved
        return wrong(lambda dout: op.backward(kernels, needs, dout, saved, **params), dout, *inputs)

    return replace(op, forward=forward, backward=backward)


zero_softmax = plant(REGISTRY["softmax"], lambda right, dout, x: (np.zeros_like(x),))


@kernels.use("reference")  # the kernels in NumPy: slower to run, but nothing has to be compiled
def error_along(v, op, x, cotangent):
    """The error of the gradient of <cotangent, op(x)> in the direction v."""
    leaf = Tensor(x, requires_grad=True)
    apply(op, leaf).backward(cotangent)
    numeric = slope_along(lambda x: (cotangent * apply(op, x).data).sum(), x, v)
    return abs((leaf.grad * v).sum() - numeric)


x, v, cotangent = (rng.standard_normal((3, 4)) for _ in range(3))
rows = [("backward of softmax", "error with a cotangent of ones", "with a random cotangent")]
for name, op in (("right", REGISTRY["softmax"]), ("zero", zero_softmax)):
    with_ones, with_random = error_along(v, op, x, np.ones_like(x)), error_along(v, op, x, cotangent)
    rows.append((name, f"{with_ones:.0e}", f"{with_random:.0e}"))
    assert with_ones < 1e-11  # whichever backward it is
    assert (with_random < 1e-11) == (name == "right")
print_table(*rows)

# %% [markdown]
# Softmax is not alone. The sum over the batch of a batch normalisation does not depend on its input either. And any
# backward that forgets to multiply by dout is right for a cotangent of ones, and wrong as soon as another operation
# follows. All three are among the mutants below.
#
# ## Kinks
#
# Finite differences suppose that the function is smooth between x - 2h and x + 2h. relu has a kink at 0, and where the
# interval reaches over it, the measured slope is a mixture of 0 and 1. `gradcheck` halves its step until the interval
# no longer does, so a right gradient passes however near the kink. At the kink itself no step will do:


# %%
def verdict(function, *inputs):
    try:
        gradcheck(function, *inputs)
    except GradientError:
        return "FAIL"
    return "pass"


rows = [("x", "relu'(x)", "measured slope", "gradcheck")]
with kernels.use("reference"):
    for x in (-0.01, -1.5e-3, -5e-4, 0.0, 5e-4, 1.5e-3, 0.01):
        numeric = fourth(lambda x: np.maximum(x, 0.0), x, STEP)
        rows.append((f"{x}", f"{float(x > 0):.0f}", f"{numeric:.4f}", verdict(ops.relu, np.array([x]))))
        assert (rows[-1][-1] == "pass") == (x != 0)
print_table(*rows)

# %% [markdown]
# The smaller the step, the more it rounds, and a check that cries wolf will be switched off. So an operation declares
# the kinks of each input as part of its domain, and inputs for the check are drawn at a distance. What the derivative
# is *at* the kink is a convention (here relu'(0) = 0), which no measurement can confirm. An ordinary test with x = 0
# pins it.

# %%
relu = REGISTRY["relu"]
drawn = draw_inputs(relu, relu.cases[0], [(100, 1000)], rng)[0]
print(f"relu's domain: {relu.domain(0).name}, to be avoided by {relu.domain(0).gap}")
print(f"smallest |x| of {drawn.size:,} that were drawn: {np.abs(drawn).min():.5f}\n")
assert np.abs(drawn).min() >= relu.domain(0).gap

# %% [markdown]
# ## What finite differences cannot see
#
# The check compares backward with forward. If both are wrong in the same way, they agree. A common mistake with
# variational autoencoders: the network's output is log σ², and the sampler computes z = μ + e^logvar ε, taking the
# variance for the standard deviation. Whoever writes that will also differentiate that.


# %%
def variance_for_sd(kernels, mu, logvar, noise):
    return mu + np.exp(logvar) * noise, (logvar, noise)


def variance_for_sd_backward(kernels, needs, dout, saved):
    logvar, noise = saved
    return dout, np.exp(logvar) * noise * dout, None


sampler = REGISTRY["reparameterize"]
wrong_sampler = replace(sampler, forward=variance_for_sd, backward=variance_for_sd_backward)

MEAN, LOGVAR = 1.0, math.log(4.0)
noise = rng.standard_normal(100_000)
rows = [("sampler", "gradcheck", "mean: asked", "got", "variance: asked", "got")]
with kernels.use("reference"):
    for name, op in (("right", sampler), ("variance for sd", wrong_sampler)):
        check = verdict(lambda mu, logvar, op=op: apply(op, mu, logvar, noise[:12]), np.zeros(12), np.ones(12))
        z = apply(op, np.full(noise.shape, MEAN), np.full(noise.shape, LOGVAR), noise).data
        rows.append((name, check, f"{MEAN}", f"{z.mean():.2f}", f"{math.exp(LOGVAR):.1f}", f"{z.var():.2f}"))
        assert check == "pass"
        assert (abs(z.var() - 4) < 0.2) == (op is sampler)
print_table(*rows)

# %% [markdown]
# The remedy is a second opinion on the *forward*: samplers are tested by the moments of their draws, everything else
# against an independent definition. In this project that is the kernel set `reference`, in plain NumPy.
#
# ## Who checks the checker?
#
# A check that always says "pass" is easily written, so a checker has to be seen to fail. The method is mutation: plant
# mistakes on purpose, and count how many are found. Three checkers compete:
#
# - **one element**: one random element of each input, forward difference in float32 with h = 1e-3, cotangent of ones,
#   tolerance 1e-2. Something like it is found in teaching code.
# - **Jacobian**: every element against every output, central differences in float64 with h = 1e-6, tolerances
#   atol = 1e-5 and rtol = 1e-3. This is the numerical part of PyTorch's `torch.autograd.gradcheck` with its default
#   values, written again in 15 lines.
# - **direction**: `scratchgen.gradcheck.gradcheck`. 4th order, a random direction for each input, a random cotangent,
#   float64, a step found for each function, rtol = 1e-7.


# %%
def as_tensors(op, inputs, dtype):
    """The inputs as tensors; those that have a gradient ask for it."""
    return [Tensor(x, requires_grad=op.domain(i).differentiable, dtype=dtype) for i, x in enumerate(inputs)]


def moved(inputs, position, index, h):
    """A copy of the inputs, with one element of one input moved by h."""
    copies = [x.copy() for x in inputs]
    copies[position][index] += h
    return copies


@kernels.use("reference")
def passes_one_element(op, inputs, params, rng, h=1e-3, tolerance=1e-2):
    inputs = [x.astype(np.float32) for x in inputs]
    values = as_tensors(op, inputs, np.float32)
    out = apply(op, *values, **params)
    out.backward(np.ones(out.shape))
    for i, leaf in enumerate(values):
        if leaf.requires_grad:
            index = tuple(rng.integers(leaf.shape))
            after = apply(op, *moved(inputs, i, index, h), **params)
            numeric = (after.data.sum() - out.data.sum()) / h
            if not np.isclose(leaf.grad[index], numeric, rtol=tolerance, atol=tolerance):
                return False
    return True


@kernels.use("reference")
def passes_jacobian(op, inputs, params, rng, h=1e-6, atol=1e-5, rtol=1e-3):
    for i in (i for i in range(len(inputs)) if op.domain(i).differentiable):
        analytic, numeric = [], []
        shape = apply(op, *inputs, **params).shape
        for one_hot in np.eye(math.prod(shape)):  # a backward for each output
            values = as_tensors(op, inputs, np.float64)
            apply(op, *values, **params).backward(one_hot.reshape(shape))
            analytic.append(values[i].grad.ravel())
        for index in np.ndindex(inputs[i].shape):  # and two forwards for each element of the input
            above, below = (apply(op, *moved(inputs, i, index, s), **params).data.ravel() for s in (h, -h))
            numeric.append((above - below) / (2 * h))
        if not np.allclose(np.array(analytic).T, numeric, rtol=rtol, atol=atol):
            return False
    return True


@kernels.use("reference")
def passes_direction(op, inputs, params, rng):
    values = as_tensors(op, inputs, np.float64)
    try:
        gradcheck(lambda *_: apply(op, *values, **params), *(leaf for leaf in values if leaf.requires_grad), rng=rng)
    except GradientError:
        return False
    return True


CHECKERS = {"one element": passes_one_element, "Jacobian": passes_jacobian, "direction": passes_direction}

# %% [markdown]
# ## The mutants
#
# Some distort the right gradient, most are slips of the pen that somebody has made before: a forgotten factor, a
# forgotten sum, a missing transpose. All sizes are 3, so that a missing transpose does not show in the shapes.
#
# A gradient must also be summed over the axes along which its input was broadcast. The engine does that in one place
# for all operations. `dense` is an exception, as it adds the bias to every row itself, so it gets a mutant: the bias
# gradient is that of the first row instead of the sum.


# %%
def erf(x):
    return np.vectorize(math.erf)(x)


def softmax(x):
    e = np.exp(x)
    return e / e.sum(-1, keepdims=True)


def last_doubled(gradient):
    changed = gradient.copy()
    changed.flat[-1] *= 2
    return changed


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def gelu_backward(x, density_at_0):
    """The derivative of x Phi(x): Phi(x) + x phi(x)."""
    return (1 + erf(x / math.sqrt(2))) / 2 + x * density_at_0 * np.exp(-(x**2) / 2)


class Mutant(NamedTuple):
    operation: str
    mistake: str
    wrong: Callable[..., tuple[Any, ...]]


MUTANTS = (
    Mutant("tanh", "sign flipped", lambda right, dout, x: (-right(dout)[0],)),
    Mutant("tanh", "zero", lambda right, dout, x: (0 * dout,)),
    Mutant("tanh", "half of it", lambda right, dout, x: (0.5 * right(dout)[0],)),
    Mutant("tanh", "scaled by 1.01", lambda right, dout, x: (1.01 * right(dout)[0],)),
    Mutant("tanh", "scaled by 1.001", lambda right, dout, x: (1.001 * right(dout)[0],)),
    Mutant("tanh", "last element doubled", lambda right, dout, x: (last_doubled(right(dout)[0]),)),
    Mutant("tanh", "dout forgotten", lambda right, dout, x: (right(np.ones_like(dout))[0],)),
    Mutant("tanh", "square forgotten", lambda right, dout, x: ((1 - np.tanh(x)) * dout,)),
    Mutant("sigmoid", "1 - out forgotten", lambda right, dout, x: (sigmoid(x) * dout,)),
    Mutant("gelu", "x phi(x) forgotten", lambda right, dout, x: ((1 + erf(x / math.sqrt(2))) / 2 * dout,)),
    Mutant("gelu", "1/sqrt(2 pi) to 4 digits", lambda right, dout, x: (gelu_backward(x, 0.3989) * dout,)),
    Mutant("multiply", "operands exchanged", lambda right, dout, a, b: (dout * a, dout * b)),
    Mutant("divide", "square forgotten", lambda right, dout, a, b: (dout / b, -dout * a / b)),
    Mutant("mean", "division forgotten", lambda right, dout, x: (np.broadcast_to(dout, x.shape).copy(),)),
    Mutant("matmul", "transposes forgotten", lambda right, dout, a, b: (dout @ b, a @ dout)),
    Mutant("dense", "bias gradient of one row only", lambda right, dout, x, w, b: (*right(dout)[:2], dout[0].copy())),
    Mutant("softmax", "zero", lambda right, dout, x: (0 * dout,)),
    Mutant("softmax", "inner product forgotten", lambda right, dout, x: (softmax(x) * dout,)),
    Mutant("softmax", "Jacobian's diagonal only", lambda right, dout, x: (softmax(x) * (1 - softmax(x)) * dout,)),
    Mutant(
        "batch_norm",
        "mean and variance as constants",
        lambda right, dout, x, gamma, beta: (gamma / np.sqrt(x.var(0) + 0.1) * dout, *right(dout)[1:]),
    ),
    Mutant("batch_norm", "gradient of x zero", lambda right, dout, x, g, b: (0 * dout, *right(dout)[1:])),
    Mutant("bce_with_logits", "target forgotten", lambda right, dout, x, t: (sigmoid(x) * dout[:, None], None)),
    Mutant("kl_standard_normal", "gradients exchanged", lambda right, dout, m, v: right(dout)[::-1]),
    Mutant(
        "reparameterize", "half forgotten", lambda right, dout, m, v, noise: (dout, np.exp(v / 2) * noise * dout, None)
    ),
)

# %% [markdown]
# Three more are expected to survive. Two are wrong forwards with matching backwards: the sampler from above, and a mean
# that forgets to divide, both ways. The third is a gradient rounded to float32: its relative error is 6e-8 at most,
# below the check's 1e-7. And the operations themselves, without a mistake, go through all three checkers too: a
# checker that rejects them gives false alarms.


# %%
def undivided(kernels, x, axis, keepdims):
    return x.sum(axis, keepdims=keepdims), (x.shape,)


def undivided_backward(kernels, needs, dout, saved, axis, keepdims):
    return (np.broadcast_to(dout, saved[0]).copy(),)


def rounded(right, dout, x):
    return (right(dout)[0].astype(np.float32).astype(dout.dtype),)


WRONG_FORWARDS = {
    ("reparameterize", "variance for sd, both ways"): wrong_sampler,
    ("mean", "division forgotten, both ways"): replace(
        REGISTRY["mean"], forward=undivided, backward=undivided_backward
    ),
}
ROUNDED = {("tanh", "rounded to float32"): plant(REGISTRY["tanh"], rounded)}

# %%
REPEATS = 20


def rejections(op, checker, repeats=REPEATS):
    """How often a checker rejects an operation, with fresh inputs each time."""
    rng, case = np.random.default_rng(1), op.cases[0]
    lead = (3, 3) if op.shapes.elementwise else (3,)
    count = 0
    for _ in range(repeats):
        inputs = draw_inputs(op, case, input_shapes(op, case, lead, lambda dim: 3), rng)
        count += not checker(op, inputs, case.params, rng)
    return count


def census(title, operations):
    """Print how often each checker rejects each operation; return the counts."""
    counts = {key: [rejections(op, checker) for checker in CHECKERS.values()] for key, op in operations.items()}
    print(f"{title}, of {REPEATS}")
    print_table(
        ("operation", "backward", *CHECKERS),
        *((*key, *(str(count) for count in row)) for key, row in counts.items()),
    )
    return np.array(list(counts.values()))


before = dict(REGISTRY)
planted = {(m.operation, m.mistake): plant(REGISTRY[m.operation], m.wrong) for m in MUTANTS}
unchanged = {(name, "right"): REGISTRY[name] for name in dict.fromkeys(m.operation for m in MUTANTS)}
false_alarms = census("false alarms", unchanged)
caught = census("mutants found", planted)
too_small = census("below the tolerance: found", ROUNDED)
unseen = census("wrong forward, matching backward: found", WRONG_FORWARDS)
assert before == REGISTRY

# %% [markdown]
# Read the columns from left to right. The check of one element finds large mistakes. It misses what is small, what is
# wrong elsewhere, and whatever a cotangent of ones cannot see. The full Jacobian needs no luck and no cotangent, and
# misses only what is smaller than its tolerance. That is far wider than it need be: by the first figure, central
# differences with h = 1e-6 are right to 1e-10. The direction costs least, four evaluations an input, and finds every
# mutant every time.
#
# The last two tables are its limits. A gradient rounded to float32 has an error below the tolerance, and is found by
# luck at best. A wrong forward with a matching backward is found by nobody.

# %%
names = list(CHECKERS)
one, every, along = (names.index(name) for name in ("one element", "Jacobian", "direction"))
assert relative_error(FORMULAS[1], 1e-6, np.float64) < 1e-9
assert not false_alarms.any()
assert (caught[:, along] == REPEATS).all()  # every mutant, every time
assert (caught[:, every] < REPEATS).sum() >= 2
assert (caught[:, one] < REPEATS).sum() >= 5
assert (caught[:, one] == 0).sum() >= 3
assert (too_small[:, along] < REPEATS / 2).all()
assert not unseen.any()
print_table(
    (f"of {len(MUTANTS)} mutants", *CHECKERS),
    ("found every time", *(str((caught[:, i] == REPEATS).sum()) for i in range(3))),
    ("found sometimes", *(str(((caught[:, i] > 0) & (caught[:, i] < REPEATS)).sum()) for i in range(3))),
    ("never found", *(str((caught[:, i] == 0).sum()) for i in range(3))),
)

# %% [markdown]
# ## How small a mistake can be
#
# "Scaled by 1.001" was one size of mistake. Here are many: the gradient of tanh times 1 + s, for s from 1 down to
# 1e-10, and the share of checks that reject it. Each checker should begin to fail where s passes its relative
# tolerance.

# %%
SIZES = 10.0 ** np.arange(-10, 0.1, 0.25)
TOLERANCES = {"one element": 1e-2, "Jacobian": 1e-3, "direction": RTOL}
shares = {name: [] for name in CHECKERS}
for s in SIZES:
    scaled = plant(REGISTRY["tanh"], lambda right, dout, x, s=s: ((1 + s) * right(dout)[0],))
    for name, checker in CHECKERS.items():
        shares[name].append(rejections(scaled, checker) / REPEATS)

rows = [("checker", "relative tolerance", "half of the checks find errors from")]
figure = Figure(figsize=(8, 4), dpi=150, layout="constrained")
panel = figure.subplots()
for (name, share), color in zip(shares.items(), COLORS.values(), strict=True):
    smallest = SIZES[np.flatnonzero(np.array(share) >= 0.5)[0]]
    rows.append((name, f"{TOLERANCES[name]:.0e}", f"{smallest:.0e}"))
    assert TOLERANCES[name] / 2 < smallest < 10 * TOLERANCES[name]
    panel.semilogx(SIZES, share, ".-", color=color, label=name)
    panel.axvline(TOLERANCES[name], color=color, linestyle=":")
panel.plot([], [], color="gray", linestyle=":", label="its relative tolerance")
panel.axvline(np.finfo(np.float32).eps / 2, color="black", linewidth=1, label="rounding of float32")
panel.set(title="Gradient of tanh times 1 + s", xlabel="relative error s", ylabel="share of checks that reject it")
panel.legend(loc="center left", bbox_to_anchor=(1.0, 0.5), frameon=False)
panel.grid(alpha=0.3)
print_table(*rows)
path = options.out / "smallest_mistake.png"
figure.savefig(path)
print(path, "\n")

# %% [markdown]
# ## Manners
#
# A gradient can have the right numbers and still do harm. `check_operation`, which is what the command
# `scratchgen gradcheck` calls for each operation, therefore asks more: that nothing is written into the inputs or into
# dout, that no two gradients share memory, that shape and dtype are those of the input, that float32 agrees with
# float64, that a zero dout gives exactly zero. This backward returns the right numbers, and spoils dout for others:


# %%
def rude(right, dout, x):
    gradients = right(dout)
    dout *= 2
    return gradients


tanh = REGISTRY["tanh"]
inputs = [rng.standard_normal((2, 3))]
print("gradcheck:", "pass" if passes_direction(plant(tanh, rude), inputs, {}, rng) else "FAIL")
try:
    check_operation(plant(tanh, rude), tanh.cases[0], inputs, "reference", rng)
    raise RuntimeError("the check has not seen it")
except GradientError as error:
    print("check_operation:", error, "\n")

# %% [markdown]
# ## In use
#
# The same function checks anything that is built from tensors. Here is a layer with its loss, three inputs at once.
# The answer is the comparison that came closest to failing.

# %%
x, labels = rng.standard_normal((5, 8)), rng.integers(0, 4, 5)
w, b = rng.standard_normal((8, 4)), rng.standard_normal(4)
with kernels.use("reference"):
    print(gradcheck(lambda x, w, b: ops.softmax_cross_entropy(ops.dense(x, w, b), labels).mean(), x, w, b))

# %% [markdown]
# What to remember: float64, 4th order, a step by trial; a random direction; a random cotangent; away from kinks; a
# tight tolerance; a second opinion on the forward; and mutants, to know that the check can fail.
