# %% [markdown]
# # One operation through the house
#
# A variational autoencoder asks of every pixel: how probable is this value, if I say "white with probability p"? The
# answer, as a negative logarithm, is the binary cross-entropy. This lesson follows it all the way: from the formula to
# a form that survives floating point, through the three places where it is written down in `kernels/`, into the
# registry of operations, to the check of its gradient, and into training.

# %%
import argparse
import ast
import decimal
import inspect
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

import kernels
from scratchgen import Tensor, ops
from scratchgen.gradcheck import check_registry, format_table
from scratchgen.op import REGISTRY, Op, register
from scratchgen.signature import REAL, UNIT_CONSTANT
from scratchgen.tensor import apply

parser = argparse.ArgumentParser(description="Binary cross-entropy, from the formula to training.")
parser.add_argument("--out", type=Path, default=Path("runs/engine-4"), help="folder for the figure")
options = parser.parse_args([] if "ipykernel" in sys.modules else None)  # in a notebook: the defaults
options.out.mkdir(parents=True, exist_ok=True)


def print_table(*rows):
    """Rows of texts in aligned columns; the first row is the header."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        print(" | ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip())
    print()


# %% [markdown]
# ## The formula
#
# A network gives a *logit* a, any real number; p = sigmoid(a) = 1 / (1 + e^-a) is the probability of 1, and t the
# target, 0 or 1 (or between, for grey pixels). The negative log-likelihood is
#
#     loss(a, t)  =  -t log p - (1 - t) log(1 - p).
#
# Nothing is easier to write down. To see what it is worth, we need the truth: Python's `decimal` computes with as many
# digits as asked for, here 150.


# %%
def naive(a, t):
    p = 1 / (1 + np.exp(-a))
    return -t * np.log(p) - (1 - t) * np.log(1 - p)


def exact(a, t):
    """The loss to far more digits than a float has."""
    with decimal.localcontext(prec=150):
        a, t = decimal.Decimal(float(a)), decimal.Decimal(float(t))
        return float((1 + a.exp()).ln() - a * t)


def show(loss, pairs):
    """A table of ``loss`` in both float types beside the exact value."""
    rows = [("logit", "target", "float32", "float64", "exact")]
    with np.errstate(all="ignore"):  # the warnings are what the table shows
        for a, t in pairs:
            got = (loss(dtype(a), dtype(t)) for dtype in (np.float32, np.float64))
            rows.append((f"{a}", f"{t}", *(f"{value:.7g}" for value in (*got, exact(a, t)))))
    print_table(*rows)


PAIRS = ((2, 0), (10, 0), (16, 0), (17, 0), (40, 0), (2, 1), (10, 1), (16, 1), (17, 1), (40, 1), (-100, 0), (-800, 0))
print("the formula as it stands")
show(naive, PAIRS)

# %% [markdown]
# Three things go wrong, each first in float32 and later in float64.
#
# - **Confident and wrong** (logit 17, target 0): p rounds to 1, and the loss is -log 0 = inf. One such pixel, and the
#   loss of the whole batch is infinite.
# - **Confident and right** (logit 10, target 1): the loss is about e^-a, but is computed as the logarithm of a number
#   that has been rounded near 1. Digits are lost, and from logit 17 on even 0 log 0 is computed, which is NaN.
# - **Far on the other side** (logit -100, target 0): e^100 is too large for float32. It becomes inf, p becomes 0, and
#   there is 0 log 0 again, for a prediction that could not be better.
#
# The first limit can be foretold. 1 + e^-a rounds to 1 as soon as e^-a is at most half of eps, that is, from
# a = -log(eps / 2) on.

# %%
rows = [("-log(1 - p) is inf from the logit", "theory", "got")]
with np.errstate(divide="ignore"):
    for dtype in (np.float32, np.float64):
        logits = np.arange(0, 50, 1 / 128, dtype)
        got = logits[np.isinf(naive(logits, dtype(0)))].min()
        theory = -np.log(np.finfo(dtype).eps / 2)
        rows.append((dtype.__name__, f"{theory:.2f}", f"{got:.2f}"))
        assert abs(got - theory) < 0.02
print_table(*rows)

# %% [markdown]
# A common patch is to clip p to [1e-7, 1 - 1e-7] before taking logarithms. No more inf. But now the loss stays the same
# however large the logit gets, so its gradient is zero, exactly where the network is most wrong:


# %%
def clipped(a, t):
    p = np.clip(1 / (1 + np.exp(-a)), 1e-7, 1 - 1e-7)
    return -t * np.log(p) - (1 - t) * np.log(1 - p)


h = 1e-3
rows = [("logit, target 0", "loss, clipped", "exact", "slope, clipped", "exact")]
for a in (10.0, 15.0, 17.0, 20.0, 30.0):
    slope_clipped, slope_exact = ((f(a + h, 0.0) - f(a - h, 0.0)) / (2 * h) for f in (clipped, exact))
    rows.append(
        (f"{a}", f"{clipped(a, 0.0):.4f}", f"{exact(a, 0.0):.4f}", f"{slope_clipped:.4f}", f"{slope_exact:.4f}")
    )
    assert (slope_clipped == 0) == (a > 16.2)
print_table(*rows)

# %% [markdown]
# ## The stable form
#
# The loss is not to blame, only the detour through p. Written with logits throughout,
#
#     -log p        =  log(1 + e^-a)
#     -log(1 - p)   =  log(1 + e^a)   =  softplus(a)          since 1 - p = 1 / (1 + e^a)
#
# and as log(1 + e^-a) = log(e^-a (e^a + 1)) = softplus(a) - a, the loss becomes
#
#     loss(a, t)  =  t (softplus(a) - a) + (1 - t) softplus(a)  =  softplus(a) - a t.
#
# e^a still overflows for a large a. But then softplus(a) = a + softplus(-a), and so for any a
#
#     softplus(a)  =  max(a, 0) + log(1 + e^-|a|).
#
# The exponent is never positive, so nothing overflows. What is left is 1 + e^-|a|, which rounds to 1 and loses a small
# e^-|a|. `log1p(x)` computes log(1 + x) without forming 1 + x. Together:
#
#     loss(a, t)  =  max(a, 0) - a t + log1p(e^-|a|)
#
# The gradient is even simpler. The derivative of softplus is e^a / (1 + e^a) = sigmoid(a), so
#
#     d loss / da  =  sigmoid(a) - t,
#
# the prediction minus the target. It is bounded by 1 and has no division by p or 1 - p, which the chain rule through
# the naive form would have.


# %%
def stable(a, t):
    return np.maximum(a, 0) - a * t + np.log1p(np.exp(-np.abs(a)))


print("the stable form")
show(stable, PAIRS)

# %% [markdown]
# The figure shows both failures of the naive form, and the stable one beside it. In the right panel, results that are
# correct to the last bit are not drawn: their error, 0, has no place on a logarithmic axis.

# %%
ORANGE, BLUE, GREEN = "#e76300", "#3f90da", "#2d8a4e"
figure = Figure(figsize=(11, 4.4), dpi=150, layout="constrained")
left, right = figure.subplots(1, 2)
logits = np.linspace(-5, 30, 701)
left.plot(logits, stable(logits, 0.0), color=GREEN, linewidth=5, alpha=0.4, label="stable")
left.plot(logits, clipped(logits, 0.0), color=BLUE, linestyle="--", label="naive, p clipped to [1e-7, 1 - 1e-7]")
with np.errstate(all="ignore"):
    losses = naive(logits.astype(np.float32), np.float32(0))
last = np.flatnonzero(np.isfinite(losses))[-1]
left.plot(logits[: last + 1], losses[: last + 1], color=ORANGE, label="naive, float32")
left.plot(logits[last], losses[last], "x", color=ORANGE, markersize=10, label="from here on it is inf")
left.set(title="Confident and wrong: target 0", xlabel="logit", ylabel="loss, nats")
left.legend()

logits = np.random.default_rng(0).uniform(0, 60, 400).astype(np.float32)  # exact in both types
logits.sort()
truth = np.array([exact(a, 1) for a in logits])
for loss, color in ((naive, ORANGE), (stable, GREEN)):
    for dtype, marker in ((np.float32, "."), (np.float64, "+")):
        with np.errstate(all="ignore"):
            error = np.abs(loss(logits.astype(dtype), dtype(1)) / truth - 1)
        right.semilogy(logits, error, marker, color=color, markersize=4, label=f"{loss.__name__}, {dtype.__name__}")
        if loss is stable:
            assert error.max() < 2 * np.finfo(dtype).eps
        else:
            last = np.flatnonzero(np.isfinite(error))[-1]
            right.axvline(logits[last], color=color, linestyle=":")
            right.text(logits[last] + 0.5, 3, "from here on\nit is NaN", color=color)
            assert error[last] > 0.1
right.set(title="Confident and right: target 1", xlabel="logit", ylabel="relative error of the loss", ylim=(1e-17, 1e3))
right.legend(loc="lower right", bbox_to_anchor=(1, 0.1))
path = options.out / "binary_cross_entropy.png"
figure.savefig(path)
print(path, "\n")

# %% [markdown]
# ## Three kernels
#
# In this project every numerical loop is a *kernel*: a plain function that fills an output array. It is written down
# three times, under the same name and with the same arguments. First the definition, for people: `reference`, in NumPy.
# Rows are examples, columns their features; a kernel sums over the features.


# %%
def source(function):
    """The text of a function, compiled by Numba or not."""
    return inspect.getsource(getattr(function, "py_func", function))


def source_in(path, *names):
    """The text of functions in a file that may not be importable here."""
    lines = path.read_text().splitlines()
    found = {node.name: node for node in ast.parse(path.read_text()).body if isinstance(node, ast.FunctionDef)}
    starts = {name: min(part.lineno for part in (*found[name].decorator_list, found[name])) for name in names}
    return "\n\n".join("\n".join(lines[starts[name] - 1 : found[name].end_lineno]) for name in names)


reference, cpu = kernels.SETS["reference"].losses, kernels.SETS["cpu"].losses
print("---- kernels/reference/losses.py\n")
print(source(reference.bce_with_logits))
print(source(reference.bce_with_logits_backward))

# %% [markdown]
# The forward is the stable form, summed over each row. The backward takes `dout`, the gradient that arrives at each
# row's loss, and multiplies by it (chain rule); `np.logaddexp(0, -a)` is log(e^0 + e^-a), so e to minus that is
# sigmoid(a), without overflow.
#
# NumPy reads well, and goes through memory once for every operation, with an array in between each time. The second
# version is for speed: `cpu` does everything to an element while it is at hand, in a loop that Numba compiles. Look for
# three things: threads share the rows (`prange`); `vm.exp` and `vm.log1p_unit` are written such that a loop around them
# computes several numbers at a time; and the sum has a fixed order, so that the same input gives the same bits every
# time.

# %%
print("---- kernels/cpu/losses.py\n")
print(source(cpu.bce_with_logits))
print(source(cpu.bce_with_logits_backward))

# %% [markdown]
# The third is for a GPU, where thousands of threads run at once. A block of threads takes a row: each of them adds up
# every n-th element, and `block_sum` adds up their sums. The backward has nothing to sum, so each thread takes elements
# wherever they lie. This file can be imported only where there is a GPU, so its text is read from the file.

# %%
print("---- kernels/cuda/losses.py\n")
names = ("bce_with_logits", "_bce_with_logits", "bce_with_logits_backward", "_bce_with_logits_backward")
print(source_in(Path(kernels.__file__).parent / "cuda" / "losses.py", *names), "\n")

# %% [markdown]
# ## Do they agree?
#
# Two implementations that were written apart rarely share a mistake. So they are compared with one another and with the
# exact value, for logits from -1e4 to 1e4 and targets 0, 1/2 and 1. What error is allowed? The
# product a t may be as large as |a| and is rounded, so an error of about eps |a| is to be expected, or of
# eps (1 + |a|), as the loss at a = 0 is not 0. A gradient lies between -1 and 1, so its unit is eps. The
# table has the largest errors, in these units.

# %%
MAGNITUDES = np.logspace(-3, 4, 100)
logits = np.concatenate([-MAGNITUDES[::-1], [0], MAGNITUDES])
logits, targets = (grid.reshape(-1, 1) for grid in np.meshgrid(logits, [0.0, 0.5, 1.0]))


def run(losses, logits, targets):
    """The losses and, for a dout of 1, the gradients that a kernel set computes."""
    out, dlogits = np.empty(len(logits), logits.dtype), np.empty_like(logits)
    losses.bce_with_logits(out, logits, targets)
    losses.bce_with_logits_backward(dlogits, np.ones_like(out), logits, targets)
    return out, dlogits[:, 0]


rows = [("", "loss: cpu - reference", "loss: cpu - exact", "gradient: cpu - reference")]
for dtype in (np.float32, np.float64):
    a, t = logits.astype(dtype), targets.astype(dtype)
    truth = np.array([exact(*pair) for pair in zip(a[:, 0], t[:, 0], strict=True)])
    (out, gradient), (out_reference, gradient_reference) = run(cpu, a, t), run(reference, a, t)
    unit = np.finfo(dtype).eps * (1 + np.abs(a[:, 0]))
    errors = (
        np.abs(out - out_reference) / unit,
        np.abs(out - truth) / unit,
        np.abs(gradient - gradient_reference) / np.finfo(dtype).eps,
    )
    rows.append((dtype.__name__, *(f"{error.max():.2f}" for error in errors)))
    assert all(error.max() < 4 for error in errors)
print_table(*rows)

# %% [markdown]
# An error of eps |a| is not a *relative* error of eps. The stable form begins with max(a, 0) - a t, which is exactly 0
# for a confident and right pixel, and keeps all digits of the small rest. softplus(a) - a t is the same formula, but
# computed in this order it rounds the rest away: another reason for the kernels to follow the stable form.

# %%
a, t = np.array([[17.0]], np.float32), np.array([[1.0]], np.float32)
print_table(
    ("logit 17, target 1, in float32", "loss"),
    ("exact", f"{exact(17, 1):.3e}"),
    ("stable form", f"{stable(a, t)[0, 0]:.3e}"),
    ("softplus(a) - a t", f"{(np.logaddexp(np.float32(0), a) - a * t)[0, 0]:.3e}"),
    ("kernel, cpu", f"{run(cpu, a, t)[0][0]:.3e}"),
    ("eps |a|", f"{np.finfo(np.float32).eps * 17:.3e}"),
    ("eps 100 nats, about the rounding of an image's loss", f"{np.finfo(np.float32).eps * 100:.3e}"),
)

# %% [markdown]
# ## How fast are they?
#
# A batch of 100 images of 784 pixels, in float32. (`NUMBA_NUM_THREADS=1` compares one core with one core. It is also
# the right setting on a machine with other work, where two threads spend their time waiting for one another.)

# %%
rng = np.random.default_rng(0)
logits = rng.normal(0, 3, (100, 784)).astype(np.float32)
targets = rng.random((100, 784), np.float32)
out, dout, dlogits = np.empty(100, np.float32), np.ones(100, np.float32), np.empty_like(logits)


def milliseconds(function, *arguments):
    """The shortest of many calls: other work on the machine only makes a call longer."""
    function(*arguments)  # to compile it
    times = []
    for _ in range(100):
        start = time.perf_counter()
        function(*arguments)
        times.append(time.perf_counter() - start)
    return 1e3 * min(times)


forward, backward = (out, logits, targets), (dlogits, dout, logits, targets)
speed = {
    name: (milliseconds(k.bce_with_logits, *forward), milliseconds(k.bce_with_logits_backward, *backward))
    for name, k in (("reference", reference), ("cpu", cpu))
}
print_table(
    ("milliseconds", "forward", "backward"),
    *((name, *(f"{time:.3f}" for time in times)) for name, times in speed.items()),
    ("times faster", *(f"{slow / fast:.1f}" for slow, fast in zip(*speed.values(), strict=True))),
)

# %% [markdown]
# ## An operation
#
# Kernels know nothing of gradients that flow. An *operation* does: it ties a forward to its backward, and says what
# inputs it takes. `Op` in `scratchgen/op.py` has these fields:
#
# - a name;
# - a signature, in the notation of NumPy's gufuncs. `(...,d),(...,d)->(...)`: two arrays with the same d features
#   and the same leading dimensions; the result loses the last one;
# - a domain for each input: what values it may take in a check, and whether it has a gradient. The logits are real; the
#   targets lie in [0, 1] and are constants;
# - forward(kernels, *arrays) returns the result, and whatever backward will need;
# - backward(kernels, needs, dout, saved) returns a gradient for each input, None for one that has none.
#
# `kernels` is the set in use: the operation does not know which. Here is ours, from scratch. The project has its own,
# `bce_with_logits` in `scratchgen/ops/losses.py`, so this one takes another name.


# %%
def rows_of(array):
    """An array (..., d) as (rows, d), which is what kernels take."""
    return array.reshape(-1, array.shape[-1])


def lesson_forward(kernels, logits, targets):
    out = kernels.memory.empty(logits.shape[:-1], logits.dtype)
    kernels.losses.bce_with_logits(out.reshape(-1), rows_of(logits), rows_of(targets))
    return out, (logits, targets)


def lesson_backward(kernels, needs, dout, saved):
    logits, targets = saved
    dlogits = kernels.memory.empty_like(logits)
    kernels.losses.bce_with_logits_backward(rows_of(dlogits), dout.reshape(-1), rows_of(logits), rows_of(targets))
    return dlogits, None


registry_before = dict(REGISTRY)
lesson_bce = register(
    Op(
        name="lesson_bce",
        signature="(...,d),(...,d)->(...)",
        domains=(REAL, UNIT_CONSTANT),
        forward=lesson_forward,
        backward=lesson_backward,
    )
)

# %% [markdown]
# That is all. `apply` runs it by its name and records it for the backward pass. It computes the same bits as the
# project's own:

# %%
found = {}
for name in ("lesson_bce", "bce_with_logits"):
    a = Tensor(logits, requires_grad=True)
    loss = apply(name, a, targets)
    loss.mean().backward()
    found[name] = loss.data, a.grad
    print(f"{name:<16} {loss.mean().item():.4f} nats an image, gradient {a.grad.shape} {a.grad.dtype}")
same = all(np.array_equal(ours, theirs) for ours, theirs in zip(*found.values(), strict=True))
print(f"the same bits: {same}\n")
assert same

# %% [markdown]
# Misuse is noticed before anything is computed, as signature and domains say what fits:

# %%
a = Tensor(np.zeros((2, 3)), requires_grad=True)
for targets_of_a_beginner in (np.zeros((2, 4)), np.zeros((2, 3), np.float32), Tensor(np.zeros((2, 3)), True)):
    try:
        apply("lesson_bce", a, targets_of_a_beginner)
        raise RuntimeError("this must not work")
    except (TypeError, ValueError) as error:
        print(f"{type(error).__name__}: {error}")
print()

# %% [markdown]
# ## The gradient check that comes for free
#
# The registry is also what the checks go through. The command `scratchgen gradcheck` checks every registered operation
# on every kernel set, against finite differences of 4th order (lesson 3). It needs no test to be written: shapes come
# from the signature, values from the domains. These two lines are what the command does.

# %%
rows = check_registry(["lesson_bce"])
print(format_table(rows), "\n")
assert all(row.passed for row in rows)

# %% [markdown]
# And can this check fail? Let us make a mistake that is easily made: to forget dout. For `loss.sum()` dout is 1 and the
# gradient right. For `loss.mean()` it is too large by the size of the batch, and training still works, with another
# learning rate than one believes.


# %%
def careless_backward(kernels, needs, dout, saved):
    return lesson_backward(kernels, needs, np.ones_like(dout), saved)


REGISTRY["lesson_bce"] = replace(lesson_bce, backward=careless_backward)
try:
    rows = check_registry(["lesson_bce"], ["reference"])
finally:
    REGISTRY["lesson_bce"] = lesson_bce
print(format_table(rows), "\n")
assert not rows[0].passed
assert "off by" in rows[0].failure

# %% [markdown]
# The message names the operation, the shapes and the kernel set, and then the elements that are furthest off. The
# *analytic* value is what backward said, the *numeric* one is the slope of the forward. Here each numeric value is the
# analytic one times the dout of its example, so a look at one example's ratios tells what is missing.
#
# The project's tests go through the registry as well. `tests/scratchgen/test_mutants.py` plants a dozen mistakes in
# every operation and requires that each is found.
#
# ## In use
#
# At last, what was all this for? Logistic regression: two classes of points in the plane, measured in units that make
# the numbers large, as happens to anyone who forgets to normalise. The same gradient descent runs twice, once with the
# formula as it stands, once with our operation. The kernels are those in NumPy: they need not be compiled.


# %%
def naive_loss(a, t):
    p = ops.sigmoid(a)
    return (-(t * ops.log(p)) - (1 - t) * ops.log(1 - p)).reshape(-1)


def lesson_loss(a, t):
    return apply("lesson_bce", a, t)


def descend(loss, steps=200, lr=0.1):
    """The mean loss before each step, and the share of points on their side at the end."""
    rng = np.random.default_rng(0)
    t = (np.arange(200) % 2).astype(np.float32)[:, None]
    x = Tensor(rng.normal(0, 15, (200, 2)) + 20 * (2 * t - 1), dtype=np.float32)
    w, b = np.zeros((2, 1), np.float32), np.zeros(1, np.float32)
    losses = []
    for _ in range(steps):
        w, b = Tensor(w, requires_grad=True), Tensor(b, requires_grad=True)
        mean = loss(x @ w + b, t).mean()
        mean.backward()
        losses.append(mean.item())
        w, b = w.data - lr * w.grad, b.data - lr * b.grad
    return losses, float(np.mean((x.data @ w + b > 0) == t))


with np.errstate(all="ignore"), kernels.use("reference"):
    (naive_losses, naive_share), (lesson_losses, lesson_share) = descend(naive_loss), descend(lesson_loss)
print_table(
    ("step", "naive", "lesson_bce"),
    *((f"{i}", f"{naive_losses[i]:.4f}", f"{lesson_losses[i]:.4f}") for i in (0, 1, 2, 3, 10, 50, 199)),
    ("right at the end", f"{naive_share:.1%}", f"{lesson_share:.1%}"),
)
assert abs(naive_losses[0] - lesson_losses[0]) < 1e-6
assert np.isnan(naive_losses[1:]).all()
assert lesson_losses[-1] < 0.2
assert lesson_share > 0.9

# %% [markdown]
# The first step makes some logits so large that 0 log 0 is computed for them. One NaN among 200 losses is enough: the
# mean is NaN, then the gradient, then the weights, and nothing brings them back. The other run does not even notice.
#
# What is left is to tidy up. The operation of this lesson leaves the registry as it found it.

# %%
del REGISTRY["lesson_bce"]
assert registry_before == REGISTRY
print("in the registry:", "lesson_bce" in REGISTRY)
