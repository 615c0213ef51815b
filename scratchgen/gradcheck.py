"""The gradient check: backward against finite differences, for every operation and for whole models.

Checking a backward requires only its forward. Along a direction v, with f(t) = <cotangent, function(x + t v)>,

    <gradient, v> = D(h) + O(h^4),    D(h) = [8 (f(h) - f(-h)) - (f(2h) - f(-2h))] / 12h.

How small h must be depends on the function. So h is halved until D stays the same, and the last changes of D say how
far it can be trusted. Where rounding, which grows as 1 / h, takes over before, the check raises ``UndecidedError``; so
it does at a kink, where the slopes ahead and behind stay apart however small h is.

A random direction per input reveals any error that is not tiny beside the whole gradient of that input; only then are
single elements examined. The cotangent, which reduces the output to a number, is random too: the plain sum of a softmax
is always 1, so a wrong gradient of zero would pass.
"""

import difflib
import math
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, combinations, count, product
from typing import Any, NamedTuple

import numpy as np

import kernels
from scratchgen.errors import UserError
from scratchgen.op import REGISTRY, Case, Op
from scratchgen.signature import Shape, Signature
from scratchgen.tensor import Tensor, apply, graphs_are_built, no_grad

RTOL, ATOL = 1e-7, 1e-9
STEP = 0.04  # the first, times the size of x where that is above 1; exp needs three halvings
HALVINGS = 40
EPS, TINY = float(np.finfo(np.float64).eps), float(np.finfo(np.float64).tiny)
SAFETY = 10  # the uncertainty of a derivative, in units of its last changes
DECIDABLE = 1e-4  # the largest relative uncertainty for a gradient to pass
CONVERGED = 0.01  # the largest relative change between steps, rounding aside, for a derivative to count at all
KINK_BEND = 0.75  # the bend falls to less than this share, in fact to about half, where a function is smooth
KINK_DISTANCE = 0.005  # for kinks inside an operation
LONG = (67, 1030)  # sizes past a vector, a tile and a block of any kernel, with a remainder
TABLE_ELEMENTS, TABLE_ROWS = 200, 10  # elements of an input that a table examines, and rows that it shows


@dataclass(frozen=True)
class Check:
    """The error of a gradient along a direction, and the largest error that rounding explains."""

    error: float
    tolerance: float

    @property
    def ratio(self) -> float:
        """Error / tolerance; the gradient is wrong if it is above 1 or NaN."""
        return self.error / self.tolerance


class GradientError(AssertionError):
    """A gradient is wrong, or an operation breaks another rule. ``check`` has the numbers, if there are any."""

    def __init__(self, message: str, check: Check | None = None) -> None:
        super().__init__(message)
        self.check = check or Check(math.nan, math.nan)


class UndecidedError(GradientError):
    """No error was found, but the finite differences are too inaccurate to call the gradient right."""


# ---- any function ----


def gradcheck(
    function: Callable[..., Tensor],
    *inputs: np.ndarray | Tensor,
    rng: np.random.Generator | int = 0,
    rtol: float = RTOL,
    atol: float = ATOL,
) -> Check:
    """Compare the gradients of ``function(*inputs)`` with finite differences; return the check closest to failing.

    An input is a float64 array or a leaf tensor, which is perturbed in place and restored exactly; its ``grad`` is
    None afterwards. So a function that closes over a model can be checked with respect to every parameter (what else
    it changes, such as moving averages, stays changed):

    >>> gradcheck(lambda *_: model.loss(x, noise), *model.parameters())  # doctest: +SKIP

    Parameters
    ----------
    function
        From tensors to a tensor of any shape; smooth near the inputs, and deterministic.
    rng
        Draws the directions and the cotangent; a generator, or a seed.
    rtol
        The tolerance is rtol |derivative| and the uncertainty of the finite differences.
    atol
        An uncertainty up to atol passes, however small the derivative.

    Raises
    ------
    GradientError
        With a table of the elements with the largest errors.
    UndecidedError
        The finite differences are too inaccurate, as near a kink, or beside a large constant.
    TypeError, ValueError
        An input is not a float64 leaf, the function is not deterministic or does not return a tensor, or no graphs are
        built.
    """
    if not graphs_are_built():
        raise ValueError("gradcheck: inside no_grad() no graph is built; call it outside")
    leaves = [x if isinstance(x, Tensor) else Tensor(x, requires_grad=True) for x in inputs]
    if any(leaf.dtype != np.float64 for leaf in leaves):
        found = ", ".join(str(leaf.dtype) for leaf in leaves)
        raise TypeError(f"gradcheck takes float64 arrays or tensors, not {found}; Python numbers become float32")
    if not leaves or any(leaf.node is not None or not leaf.requires_grad for leaf in leaves):
        raise ValueError("gradcheck takes one or more leaves: tensors that require a gradient and were not computed")
    rng = np.random.default_rng(rng)
    out = function(*leaves)
    if not isinstance(out, Tensor):
        raise TypeError(f"gradcheck: the function returns a {type(out).__name__}; it has to return one tensor")
    cotangent = np.array(rng.standard_normal(out.shape))

    def weighted() -> np.ndarray:
        with no_grad(), np.errstate(all="ignore"):  # a step may reach beyond a pole
            return cotangent * function(*leaves).data

    now = weighted()
    _require(bool(np.isfinite(now).all()), "the result is not finite")
    if not np.array_equal(now, cotangent * out.data):
        raise ValueError("gradcheck: the same input gave different results; does the function draw random numbers?")
    gradients = _gradients(out, leaves, cotangent)
    checks, wrong, undecided = [], {}, []
    for i, (leaf, gradient) in enumerate(zip(leaves, gradients, strict=True)):
        direction = np.array(rng.standard_normal(leaf.shape))
        direction /= np.linalg.norm(direction) or 1.0  # an empty one has norm 0
        numeric, uncertainty = _derivative(weighted, now, leaf, direction, rtol)
        analytic = float(np.vdot(gradient, direction))
        error = abs(analytic - numeric)
        checks.append(Check(error, rtol * abs(numeric) + uncertainty + TINY))
        if error > checks[-1].tolerance or not math.isfinite(analytic):
            wrong[i] = checks[-1]
        elif error != 0 and not uncertainty <= max(DECIDABLE * abs(numeric), atol):  # 0 where both are exactly 0
            undecided.append(
                f"input {i}: cannot be decided, for the derivative along a random direction is {numeric:.3g} with an "
                f"uncertainty of {uncertainty:.3g}; move the inputs away from kinks and poles, and leave out large "
                "constants, beside which the result's changes are rounded off; if the derivative should be about 0, "
                "give an atol above that uncertainty"
            )
    worst = max(checks, key=lambda check: check.ratio)
    if wrong:
        raise GradientError(
            _table(weighted, now, leaves, gradients, wrong, rng), max(wrong.values(), key=lambda c: c.ratio)
        )
    if undecided:
        raise UndecidedError("\n".join(undecided), worst)
    return worst


def _gradients(out: Tensor, leaves: list[Tensor], cotangent: np.ndarray) -> list[np.ndarray]:
    """The gradients of <cotangent, out>; zero for leaves that it does not depend on."""
    for leaf in leaves:
        leaf.grad = None
    if out.requires_grad:
        out.backward(cotangent)
    gradients = [np.zeros(leaf.shape) if leaf.grad is None else np.array(leaf.grad) for leaf in leaves]
    for leaf in leaves:
        leaf.grad = None
    return gradients


def _derivative(
    weighted: Callable[[], np.ndarray], now: np.ndarray, leaf: Tensor, direction: np.ndarray, rtol: float
) -> tuple[float, float]:
    """The derivative of the sum of ``weighted()``, which is ``now``, along ``direction``, and its uncertainty.

    D(h) is (4 S(h) - S(2h)) / 3, with the 2nd-order differences S(h) = (f(h) - f(-h)) / 2h. The uncertainty is infinite
    where D does not converge. The slopes ahead and behind differ by the bend (f(h) - 2 f(0) + f(-h)) / h, which falls
    with h where f is smooth; at a kink it stays, and the derivative may be anything between the two slopes.
    """
    base = np.array(leaf._data)

    def at(t: float) -> np.ndarray:
        leaf._data[...] = base + t * direction
        return weighted()

    h = STEP * max(1.0, float(np.linalg.norm(base)) / math.sqrt(max(base.size, 1)))
    best, uncertainty, share, converges = math.nan, math.inf, math.inf, False
    slope = value = before = math.nan
    bends: list[float] = []
    try:
        for _ in range(HALVINGS):
            ahead, behind = at(h), at(-h)
            rounding = EPS * (1 + float(np.abs(ahead).sum())) / h  # 1 for what was computed on the way
            bends.append(abs(float(np.sum(ahead + behind - 2 * now))) / h)
            coarser, slope = slope, float(np.sum(ahead - behind)) / (2 * h)
            oldest, before, value = before, value, (4 * slope - coarser) / 3
            changes = abs(value - before) + abs(before - oldest)
            if changes / (abs(value) + TINY) < share:  # not where it is NaN
                best, share = value, changes / (abs(value) + TINY)
                uncertainty = SAFETY * (changes + rounding)
                converges = changes <= CONVERGED * abs(value) + SAFETY * rounding
            if uncertainty <= rtol * abs(best) or SAFETY * rounding > uncertainty:
                break
            h /= 2
    finally:
        leaf._data[...] = base
    if not converges:
        return best, math.inf
    *_, twice_before, before_that, last = 0.0, 0.0, *bends
    at_a_kink = last > KINK_BEND * before_that and before_that > KINK_BEND * twice_before
    return best, uncertainty + (last / 2 if at_a_kink else 0.0)


def _table(
    weighted: Callable[[], np.ndarray],
    now: np.ndarray,
    leaves: list[Tensor],
    gradients: list[np.ndarray],
    wrong: dict[int, Check],
    rng: np.random.Generator,
) -> str:
    """The errors of the wrong inputs, and their worst elements."""
    lines, elements = [], []
    for i, check in wrong.items():
        leaf, gradient = leaves[i], gradients[i]
        lines.append(f"input {i}: off by {check.error:.3g} along a random direction, tolerance {check.tolerance:.3g}")
        if leaf.size > TABLE_ELEMENTS:
            lines[-1] += f"; examined {TABLE_ELEMENTS} of its {leaf.size} elements, chosen at random"
        for place in rng.permutation(leaf.size)[:TABLE_ELEMENTS]:
            index = tuple(map(int, np.unravel_index(place, leaf.shape)))
            direction = np.zeros(leaf.shape)
            direction[index] = 1.0
            analytic, numeric = gradient[index], _derivative(weighted, now, leaf, direction, DECIDABLE)[0]
            elements.append((abs(analytic - numeric), f"{i:>5}  {index!s:<12}{analytic:>16.9g}{numeric:>16.9g}"))
    elements.sort(key=lambda element: -np.nan_to_num(element[0], nan=np.inf))
    lines.append(f"{'input':>5}  {'index':<12}{'analytic':>16}{'numeric':>16}{'difference':>12}")
    return "\n".join(lines + [f"{text}{difference:>12.3g}" for difference, text in elements[:TABLE_ROWS]])


# ---- an operation ----


def check_operation(
    op: Op, case: Case, inputs: Sequence[np.ndarray], kernel_set: str, rng: np.random.Generator
) -> Check:
    """Check an operation, registered or not: its gradients, in-place writes and float32. ``inputs`` are float64.

    Raises
    ------
    GradientError
        Naming the operation, shapes, parameters and kernel set.
    """
    with kernels.use(kernel_set):
        try:
            values, leaves, out = _run(op, case, inputs)
            cotangent = np.array(rng.standard_normal(out.shape))
            _check_shape(op, case, [*(x.shape for x in inputs), out.shape])
            _check_writes(op, case, inputs, cotangent)
            check = gradcheck(lambda *_: apply(op, *values, **case.params), *leaves.values(), rng=rng)
            _check_gradients(op, case, inputs, cotangent)
            _check_float32(op, case, inputs, cotangent)
        except GradientError as error:
            call = f"{op.name} of shapes {', '.join(str(x.shape) for x in inputs)}, {case.params}, on {kernel_set}"
            raise type(error)(f"{call}: {error}", error.check) from None
    return check


def _run(
    op: Op,
    case: Case,
    arrays: Sequence[np.ndarray],
    cotangent: np.ndarray | None = None,
    needed: Collection[int] | None = None,
) -> tuple[list[Any], dict[int, Any], Any]:
    """The inputs, floats as tensors; the leaves, all differentiable inputs or those ``needed``; the result."""
    domains = [op.domain(i) for i in range(len(arrays))]
    needs = [d.differentiable and (needed is None or i in needed) for i, d in enumerate(domains)]
    values = [a if d.whole else Tensor(a, need) for a, d, need in zip(arrays, domains, needs, strict=True)]
    out = apply(op, *values, **case.params)
    if cotangent is not None:
        out.backward(cotangent)
    return values, {i: values[i] for i, need in enumerate(needs) if need}, out


def _require(condition: bool, complaint: str) -> None:
    if not condition:
        raise GradientError(complaint)


def _check_shape(op: Op, case: Case, shapes: list[Shape]) -> None:
    """The result, whose shape comes last, fits the signature."""
    text = case.signature or op.signature
    if op.shapes.elementwise:
        _require(shapes[-1] == np.broadcast_shapes(*shapes[:-1]), f"the result has shape {shapes[-1]}")
        return
    try:
        Signature(text.replace("->", ",") + "->()").check("the result", shapes)  # checked as one more input
    except ValueError as error:
        raise GradientError(str(error)) from None


def _check_writes(op: Op, case: Case, inputs: Sequence[np.ndarray], cotangent: np.ndarray) -> None:
    """Inputs, result and cotangent, which other backwards may share, are not modified.

    Nor is the result a view of an input: an optimizer step on a parameter would change it.
    """
    before = [x.tobytes() for x in inputs]
    cotangent = kernels.active().memory.to_device(cotangent)
    values, _, out = _run(op, case, inputs)
    held = [*(v._data if isinstance(v, Tensor) else v for v in values), out._data, cotangent]
    _require(not any(np.shares_memory(out._data, x) for x in held[: len(values)]), "the result is a view of an input")
    before += [out._data.tobytes(), cotangent.tobytes()]
    out.node.backward(cotangent)  # Tensor.backward would pass a copy
    _require([x.tobytes() for x in held] == before, "an input, the result or the cotangent has been written into")


def _check_gradients(op: Op, case: Case, inputs: Sequence[np.ndarray], cotangent: np.ndarray) -> None:
    """Gradients have their inputs' shapes, share no memory, are zero for a zero cotangent, whichever are needed."""
    values, leaves, out = _run(op, case, inputs, cotangent)
    _, zeros, _ = _run(op, case, inputs, np.zeros_like(cotangent))
    held = [*inputs, *(v._data for v in values if isinstance(v, Tensor)), out._data, cotangent]
    for i, leaf in leaves.items():
        grad, where = leaf.grad, f"the gradient of input {i}"
        _require(isinstance(grad, type(leaf._data)), f"{where} is a {type(grad).__name__}")
        right = grad.shape == inputs[i].shape and grad.dtype == np.float64
        _require(right, f"{where} is an array of {grad.shape}, {grad.dtype}")
        _require(not any(np.shares_memory(grad, array) for array in held), f"{where} shares memory")
        held.append(grad)
        _require(not zeros[i].grad.any(), f"{where} is not zero for a cotangent of zero")
    for needed in chain.from_iterable(combinations(leaves, size) for size in range(1, len(leaves))):
        for i, leaf in _run(op, case, inputs, cotangent, needed)[1].items():
            same = np.array_equal(np.asarray(leaf.grad), np.asarray(leaves[i].grad))
            _require(same, f"the gradient of input {i} is different if only those of {needed} are needed")


def _check_float32(op: Op, case: Case, inputs: Sequence[np.ndarray], cotangent: np.ndarray) -> None:
    """Gradients in float32 are those in float64 of the same numbers, up to rounding.

    Every addition rounds by eps / 2 of its terms. There are tens of additions, or as many as the longest dimension has
    elements, for each of the numbers in a window or an image of fixed size; and the terms are not much larger than 1 or
    the largest gradient.
    """
    single = [x.astype(np.float32) if x.dtype.kind == "f" else x for x in inputs]
    double = [x.astype(np.float64) if x.dtype.kind == "f" else x for x in single]
    cotangent = cotangent.astype(np.float32)
    (_, rounded, _), (_, exact, _) = (_run(op, case, arrays, cotangent) for arrays in (single, double))
    signature = Signature(case.signature or op.signature)
    fixed = max(math.prod(int(dim) for dim in dims if dim.isdigit()) for dims in signature.inputs)
    additions = fixed * max(30, *(size for x in inputs for size in x.shape), 0)
    for i, leaf in exact.items():
        grad, where = rounded[i].grad, f"the float32 gradient of input {i}"
        expected = np.asarray(leaf.grad)
        error = np.abs(np.asarray(grad) - expected).max(initial=0.0)
        tolerance = additions * np.finfo(np.float32).eps * (1 + np.abs(expected).max(initial=0.0))
        _require(grad.dtype == np.float32, f"{where} is {grad.dtype}")
        _require(error <= tolerance, f"{where} is off by {error:.3g}, tolerance {tolerance:.3g}")


# ---- inputs, from signature and domains ----


def input_shapes(op: Op, case: Case, lead: Shape, size: Callable[[str], int]) -> list[Shape]:
    """Shapes that fit the signature: ``size`` gives each letter's size, ``lead`` is ``...`` and elementwise inputs."""
    signature = Signature(case.signature or op.signature)
    inputs = [("...",)] * len(signature.inputs) if signature.elementwise else signature.inputs
    letters = sorted({dim for dims in inputs for dim in dims} - {"..."})
    sizes = {"...": lead, **{dim: (int(dim) if dim.isdigit() else size(dim),) for dim in letters}}
    return [tuple(n for dim in dims for n in sizes[dim]) for dims in inputs]


def long_shapes(op: Op, case: Case, sizes: Sequence[int] = LONG) -> Iterator[list[Shape]]:
    """Shapes with one long dimension, each dimension in turn; ``...`` and elementwise inputs count as one."""
    signature = Signature(case.signature or op.signature)
    dims = {dim for dims in signature.inputs for dim in dims if not dim.isdigit()} or {"..."}
    for long, size in product(sorted(dims), sizes):
        lengths = dict.fromkeys(dims, 3) | {long: size}
        yield input_shapes(op, case, (lengths.get("...", 3),), lengths.__getitem__)


def draw_inputs(
    op: Op, case: Case, shapes: Sequence[Shape], rng: np.random.Generator, wide: bool = False
) -> list[np.ndarray]:
    """Float64 inputs from the operation's domains, away from kinks; labels are below the size of dimension ``c``."""
    sizes = {
        dim: size
        for dims, shape in zip(Signature(case.signature or op.signature).inputs, shapes, strict=True)
        for dim, size in zip(reversed(dims), reversed(shape), strict=False)
    }

    def draw(position: int, shape: Shape) -> np.ndarray:
        domain = op.domain(position).wide if wide else op.domain(position)
        if domain.whole:
            return np.array(rng.integers(0, max(sizes["c"], 1), shape))
        array = np.array(rng.uniform(domain.low, domain.high, shape))
        while (near := np.any([np.abs(array - kink) < domain.gap for kink in domain.kinks], axis=0)).any():
            array[near] = rng.uniform(domain.low, domain.high, near.sum())
        return array

    for tries in count():
        if tries % 100 == 0:  # at first, and where the rows below cannot help
            inputs = [draw(i, shape) for i, shape in enumerate(shapes)]
        if case.kink is None or not (near := np.abs(case.kink(*inputs)) < KINK_DISTANCE).any():
            break
        rows = near.reshape(*shapes[0][:-1], -1).any(-1)  # those of the first input that cause a kink
        inputs[0][rows] = draw(0, shapes[0])[rows]
    return inputs


# ---- the registry ----


class Row(NamedTuple):
    """The worst check of an operation on a kernel set, and the message if it failed."""

    operation: str
    kernel_set: str
    error: float
    tolerance: float
    failure: str = ""

    @property
    def passed(self) -> bool:
        """Whether the gradients are right."""
        return not self.failure


def check_registry(
    names: Iterable[str] | None = None,
    kernel_sets: Iterable[str] | None = None,
    seed: int = 0,
    repeats: int = 3,
    long: Sequence[int] = LONG,
) -> list[Row]:
    """Check operations on kernel sets, by default all, each case ``repeats`` times and at each of the ``long`` sizes.

    Raises
    ------
    UserError
        There is no operation of that name.
    """
    names, kernel_sets = list(names or REGISTRY), list(kernel_sets or kernels.SETS)
    for name in names:
        if name not in REGISTRY:
            near = difflib.get_close_matches(name, REGISTRY)
            choice = f"did you mean {' or '.join(near)}?" if near else f"choose from {', '.join(sorted(REGISTRY))}"
            raise UserError(f"there is no operation {name!r}; {choice}")
    from tqdm import tqdm  # imported here: what only imports the engine does without it

    checks = [(name, kernel_set) for name in names for kernel_set in kernel_sets]
    with tqdm(checks, desc="gradcheck", leave=False, disable=None) as bar:
        return [_row(REGISTRY[name], kernel_set, seed, repeats, long) for name, kernel_set in bar]


def _row(op: Op, kernel_set: str, seed: int, repeats: int, long: Sequence[int]) -> Row:
    rng = np.random.default_rng(seed)
    checks = []
    try:
        for case in op.cases:
            shapes = []
            for _ in range(repeats):
                lead = tuple(map(int, rng.integers(1, 4, rng.integers(0, 3))))
                shapes.append(input_shapes(op, case, lead, lambda dim: int(rng.integers(1, 5))))
            for i, some in enumerate(chain(shapes, long_shapes(op, case, long))):
                inputs = draw_inputs(op, case, some, rng, wide=i % 2 == 1)
                checks.append(check_operation(op, case, inputs, kernel_set, rng))
    except GradientError as error:
        return Row(op.name, kernel_set, error.check.error, error.check.tolerance, str(error))
    worst = max(checks, key=lambda check: check.ratio)
    return Row(op.name, kernel_set, worst.error, worst.tolerance)


def format_table(rows: Sequence[Row]) -> str:
    """The rows as a table, followed by the messages of those that failed."""
    lines = [f"{'operation':<24}{'kernels':<12}{'error':>10}{'tolerance':>12}  verdict"]
    for row in rows:
        verdict = "pass" if row.passed else "FAIL"
        lines.append(f"{row.operation:<24}{row.kernel_set:<12}{row.error:>10.1e}{row.tolerance:>12.1e}  {verdict}")
    return "\n".join(lines + [f"\n{row.failure}" for row in rows if row.failure])
