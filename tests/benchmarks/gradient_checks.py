"""Which wrong gradients three checkers catch, and on which right ones they raise false alarms.

    python -m tests.benchmarks.gradient_checks

All check the same NumPy formulas on the same inputs:

scratchgen
    What ``scratchgen gradcheck`` does: random direction, random cotangent, a step found for each function, and float32.
PyTorch
    ``torch.autograd.gradcheck`` with its default settings, the formulas being in a ``torch.autograd.Function``.
common
    As in many tutorials: every element, one-sided differences with h = 1e-6, a cotangent of ones, rtol 1e-3, atol 1e-5.
"""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from scratchgen.gradcheck import GradientError, UndecidedError, check_operation
from scratchgen.op import Case, Op
from scratchgen.signature import REAL

try:
    import torch
except ImportError:
    torch = None

Backward = Callable[..., tuple[Any, ...]]  # (needs_grad, dout, *inputs) -> gradients


class Formula(NamedTuple):
    """A function of arrays with its gradient, right or wrong."""

    name: str
    signature: str
    inputs: tuple[np.ndarray, ...]
    forward: Callable[..., np.ndarray]
    backward: Backward


# ---- the formulas ----

RNG = np.random.default_rng(0)
X, Y, Z = RNG.uniform(0.5, 2, (3, 4, 4)) * RNG.choice([-1, 1], (3, 4, 4))
LONG, ROW, LABELS = RNG.uniform(-2, 2, 100), RNG.uniform(-2, 2, 4), np.eye(4)[[2, 0, 1, 1]]
SAME, BOTH = "()->()", "(),()->()"
EPSILON, DENSITY = 1e-5, 1 / math.sqrt(2 * math.pi)


def softmax(x):
    e = np.exp(x - x.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def softmax_backward(needs, dout, x):
    y = softmax(x)
    return (y * (dout - (dout * y).sum(-1, keepdims=True)),)


def tanh_backward(needs, dout, x):
    return ((1 - np.tanh(x) ** 2) * dout,)


def normalize(x):
    return (x - x.mean(0)) / np.sqrt(x.var(0) + x.dtype.type(EPSILON))


def normalize_backward(needs, dout, x):
    y = normalize(x)
    return ((dout - dout.mean(0) - y * (dout * y).mean(0)) / np.sqrt(x.var(0) + x.dtype.type(EPSILON)),)


def gelu(x):
    return (x * (1 + np.vectorize(math.erf)(x / math.sqrt(2))) / 2).astype(x.dtype)


def gelu_backward(x, dout, density_at_0=DENSITY):
    slope = (1 + np.vectorize(math.erf)(x / math.sqrt(2))) / 2 + x * density_at_0 * np.exp(-(x**2) / 2)
    return ((slope * dout).astype(x.dtype),)


def zeroed(gradient, index):
    gradient[index] = 0
    return gradient


def last_nudged(gradient):
    gradient[-1, -1] += 1e-3
    return gradient


def rough(dout):
    return dout.astype(np.float16).astype(dout.dtype) if dout.dtype == np.float32 else dout


def doubling(dout):
    gradient = dout * 2
    dout += dout
    return gradient


def linear(x, b):
    return x + b


WRONG = (
    Formula("tanh: scaled by 1.001", SAME, (X,), np.tanh, lambda n, d, x: (1.001 * tanh_backward(n, d, x)[0],)),
    Formula("tanh: sign flipped", SAME, (X,), np.tanh, lambda n, d, x: (-tanh_backward(n, d, x)[0],)),
    Formula("tanh: square forgotten", SAME, (X,), np.tanh, lambda n, d, x: ((1 - np.tanh(x)) * d,)),
    Formula("tanh: dout forgotten", SAME, (X,), np.tanh, lambda n, d, x: (1 - np.tanh(x) ** 2 + 0 * d,)),
    Formula("tanh: dout squared", SAME, (X,), np.tanh, lambda n, d, x: tanh_backward(n, d * d, x)),
    Formula(
        "tanh: last element off by 0.001",
        SAME,
        (X,),
        np.tanh,
        lambda n, d, x: (last_nudged(tanh_backward(n, d, x)[0]),),
    ),
    Formula("gelu: 1/sqrt(2 pi) to 4 digits", SAME, (X,), gelu, lambda n, d, x: gelu_backward(x, d, 0.3989)),
    Formula("softmax: zero", "(a,b)->(a,b)", (X,), softmax, lambda n, d, x: (0 * d,)),
    Formula("softmax: inner product dropped", "(a,b)->(a,b)", (X,), softmax, lambda n, d, x: (softmax(x) * d,)),
    Formula(
        "normalize: moments as constants",
        "(a,b)->(a,b)",
        (X,),
        normalize,
        lambda n, d, x: (d / np.sqrt(x.var(0) + x.dtype.type(EPSILON)),),
    ),
    Formula(
        "matmul: operands not transposed", "(a,b),(b,c)->(a,c)", (X, Y), np.matmul, lambda n, d, a, b: (d @ b, a @ d)
    ),
    Formula("divide: square forgotten", BOTH, (X, Y), np.divide, lambda n, d, a, b: (d / b, -d * a / b)),
    Formula("mean: count forgotten", "(a,b)->(b)", (X,), lambda x: x.mean(0), lambda n, d, x: (d + 0 * x,)),
    Formula(
        "x + b: of b, the first row only",
        "(a,b),(b)->(a,b)",
        (X, ROW),
        linear,
        lambda n, d, x, b: (d.copy(), d[0].copy()),
    ),
    Formula(
        "cross-entropy: label forgotten",
        "(a,b)->(a)",
        (X,),
        lambda x: -(np.log(softmax(x)) * LABELS.astype(x.dtype)).sum(1),
        lambda n, d, x: (softmax(x) * d[:, None],),
    ),
    Formula(
        "exp: zero past 64 elements", SAME, (LONG,), np.exp, lambda n, d, x: (zeroed(np.exp(x) * d, slice(64, None)),)
    ),
    Formula(
        "leaky relu: 0.02 for 0.01 below 0",
        SAME,
        (X,),
        lambda x: np.where(x > 0, x, x * x.dtype.type(0.01)),
        lambda n, d, x: (np.where(x > 0, d, d * d.dtype.type(0.02)),),
    ),
    Formula("2x + 1e10: half of it", SAME, (X,), lambda x: 2 * x + x.dtype.type(1e10), lambda n, d, x: (d.copy(),)),
    Formula(
        "1e-6 tanh: half of it",
        SAME,
        (X,),
        lambda x: x.dtype.type(1e-6) * np.tanh(x),
        lambda n, d, x: (x.dtype.type(5e-7) * tanh_backward(n, d, x)[0],),
    ),
    Formula(
        "a b: wrong where only a needs it",
        BOTH,
        (X, Y),
        np.multiply,
        lambda n, d, a, b: (d * b if n[1] else d * a, d * a),
    ),
    Formula("2x: rounded to float16 in float32", SAME, (X,), lambda x: 2 * x, lambda n, d, x: (2 * rough(d),)),
    Formula("2x: writes into dout", SAME, (X,), lambda x: 2 * x, lambda n, d, x: (doubling(d),)),
)
RIGHT = (
    Formula("tanh", SAME, (X,), np.tanh, tanh_backward),
    Formula("softmax", "(a,b)->(a,b)", (X,), softmax, softmax_backward),
    Formula("gelu", SAME, (X,), gelu, lambda n, d, x: gelu_backward(x, d)),
    Formula("log near 0.05", SAME, (0.05 * np.abs(X),), np.log, lambda n, d, x: (d / x,)),
    Formula("1/x near 0.05", SAME, (0.05 * X,), lambda x: 1 / x, lambda n, d, x: (-d / (x * x),)),
    Formula("1/x near 0.001", SAME, (0.001 * X,), lambda x: 1 / x, lambda n, d, x: (-d / (x * x),)),
    Formula("sqrt near 1e-5", SAME, (1e-5 * np.abs(X),), np.sqrt, lambda n, d, x: (d / (2 * np.sqrt(x)),)),
    Formula("exp(30 x)", SAME, (X,), lambda x: np.exp(30 * x), lambda n, d, x: (30 * np.exp(30 * x) * d,)),
    Formula("normalize, of sd 0.01", "(a,b)->(a,b)", (0.01 * X,), normalize, normalize_backward),
    Formula("relu, 1e-7 from the kink", SAME, (1e-7 * X,), lambda x: np.maximum(x, 0), lambda n, d, x: (d * (x > 0),)),
    Formula("x^2 near 1e6", SAME, (1e6 * X,), lambda x: x * x, lambda n, d, x: (2 * x * d,)),
    Formula("2x + 1e10", SAME, (X,), lambda x: 2 * x + x.dtype.type(1e10), lambda n, d, x: (2 * d,)),
)


# ---- the checkers: each says "pass", "error", or "undecided" ----


def scratchgen(formula: Formula) -> str:
    """``check_operation``, of an operation that is not registered."""
    op = Op(
        formula.name,
        formula.signature,
        (REAL,) * len(formula.inputs),
        lambda kernels, *inputs: (formula.forward(*inputs), inputs),
        lambda kernels, needs_grad, dout, saved: formula.backward(needs_grad, dout, *saved),
    )
    try:
        check_operation(op, Case(), formula.inputs, "reference", np.random.default_rng(1))
    except UndecidedError:
        return "undecided"
    except GradientError:
        return "error"
    return "pass"


def pytorch(formula: Formula) -> str:
    """``torch.autograd.gradcheck``, with its default settings."""

    class Function(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, *inputs: Any) -> Any:
            ctx.save_for_backward(*inputs)
            return torch.from_numpy(np.asarray(formula.forward(*(x.detach().numpy() for x in inputs))))

        @staticmethod
        def backward(ctx: Any, dout: Any) -> Any:
            arrays = (x.detach().numpy() for x in ctx.saved_tensors)
            gradients = formula.backward(ctx.needs_input_grad, dout.contiguous().numpy(), *arrays)
            return tuple(torch.from_numpy(np.asarray(gradient)) for gradient in gradients)

    leaves = [torch.tensor(x, requires_grad=True) for x in formula.inputs]
    return "pass" if torch.autograd.gradcheck(Function.apply, leaves, raise_exception=False) else "error"


def common(formula: Formula, h: float = 1e-6) -> str:
    """One-sided differences of the sum of the output."""
    out = formula.forward(*formula.inputs)
    gradients = formula.backward((True,) * len(formula.inputs), np.ones_like(out), *formula.inputs)
    for i, x in enumerate(formula.inputs):
        for index in np.ndindex(x.shape):
            moved = [y.copy() for y in formula.inputs]
            moved[i][index] += h
            numeric = (formula.forward(*moved) - out).sum() / h
            if not np.isclose(gradients[i][index], numeric, rtol=1e-3, atol=1e-5):
                return "error"
    return "pass"


CHECKERS = {"scratchgen": scratchgen, "PyTorch": pytorch, "common": common}


def table(title: str, formulas: tuple[Formula, ...], words: dict[str, str]) -> str:
    """What each checker says of each formula, and how often it says what it should: the first of ``words``."""
    checkers = {name: check for name, check in CHECKERS.items() if torch or name != "PyTorch"}
    with np.errstate(all="ignore"):
        said = {f.name: [words[check(f)] for check in checkers.values()] for f in formulas}
    right = [[row[i] for row in said.values()].count(next(iter(words.values()))) for i in range(len(checkers))]
    lines = [(title, list(checkers)), *said.items(), ("", [f"{count} of {len(said)}" for count in right])]
    return "\n".join(f"{name:<36}" + "".join(f"{word:<13}" for word in row).rstrip() for name, row in lines)


def main() -> None:
    """Print both tables."""
    if torch is None:
        print("PyTorch is not installed, so its checker is left out: pip install torch\n")
    print(table("wrong gradient", WRONG, {"error": "caught", "pass": "missed", "undecided": "undecided"}))
    print()
    print(table("right gradient", RIGHT, {"pass": "passes", "error": "FALSE ALARM", "undecided": "undecided"}))


if __name__ == "__main__":
    main()
