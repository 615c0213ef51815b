"""Every operation, in every case, on every kernel set, against finite differences; and the check itself as users see
it."""

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any
from unittest import mock

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, mutually_broadcastable_shapes

import kernels
from scratchgen import Tensor, UserError, nn, ops
from scratchgen.gradcheck import (
    KINK_DISTANCE,
    LONG,
    GradientError,
    Row,
    UndecidedError,
    check_operation,
    check_registry,
    draw_inputs,
    format_table,
    gradcheck,
    input_shapes,
    long_shapes,
)
from scratchgen.op import REGISTRY, Case, Op
from scratchgen.signature import NONZERO, POSITIVE, REAL, UNIT_CONSTANT, Shape
from scratchgen.tensor import apply, no_grad

CASES = [
    pytest.param(op, case, id=f"{op.name}-{i}" if len(op.cases) > 1 else op.name)
    for op in REGISTRY.values()
    for i, case in enumerate(op.cases)
]
BROADCASTING = [op for op in REGISTRY.values() if op.shapes.elementwise and len(op.domains) > 1]
NOT_EMPTY = {
    "logsumexp": "n",
    "softmax": "n",
    "softmax_cross_entropy": "c",
    "mean": "abc",
    "max": "n",
    "batch_norm": "b",
}  # the dimensions that must be

on_every_set = pytest.mark.parametrize("kernel_set", ["cpu", "reference"])
seeds = st.integers(0, 2**32 - 1)


def transposed(x: np.ndarray) -> np.ndarray:
    return np.array(x, order="F")


def strided(x: np.ndarray) -> np.ndarray:
    """Every second element, backwards, of a larger array."""
    larger = np.full([2 * size for size in x.shape], 9, x.dtype)
    view = larger[(..., *[slice(None, None, -2)] * x.ndim)]
    view[...] = x
    return view


LAYOUTS: list[Callable[[np.ndarray], np.ndarray]] = [np.copy, transposed, strided]


# ---- every operation ----


@on_every_set
@pytest.mark.parametrize(("op", "case"), CASES)
@given(data=st.data(), seed=seeds, layout=st.sampled_from(LAYOUTS), wide=st.booleans())
def test_backward_matches_finite_differences(
    op: Op, case: Case, kernel_set: str, data: st.DataObject, seed: int, layout: Callable, wide: bool
) -> None:
    """Sizes 0 to 4, any leading dimensions, inputs that are views; float32 is part of the check."""

    def size(dim: str) -> int:
        return data.draw(st.integers(int(dim in NOT_EMPTY.get(op.name, "")), 4), label=dim)

    lead = data.draw(array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=3), label="lead")
    rng = np.random.default_rng(seed)
    inputs = draw_inputs(op, case, input_shapes(op, case, lead, size), rng, wide)
    check_operation(op, case, [layout(x) for x in inputs], kernel_set, rng)


@on_every_set
@pytest.mark.parametrize(("op", "case"), CASES)
def test_gradient_along_a_long_dimension(op: Op, case: Case, kernel_set: str) -> None:
    """Each dimension in turn past a vector, a tile, a block and a chunk of the loops."""
    rng = np.random.default_rng(0)
    for shapes in long_shapes(op, case):
        check_operation(op, case, draw_inputs(op, case, shapes, rng), kernel_set, rng)


@on_every_set
@pytest.mark.parametrize("op", BROADCASTING, ids=lambda op: op.name)
@given(data=st.data(), seed=seeds)
def test_backward_matches_finite_differences_when_inputs_broadcast(
    op: Op, kernel_set: str, data: st.DataObject, seed: int
) -> None:
    strategy = mutually_broadcastable_shapes(num_shapes=len(op.domains), min_side=0, max_side=3, max_dims=3)
    rng = np.random.default_rng(seed)
    for case in op.cases:
        inputs = draw_inputs(op, case, data.draw(strategy).input_shapes, rng)
        check_operation(op, case, inputs, kernel_set, rng)


@on_every_set
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(
    ("operation", "params", "slope"),
    [("relu", {}, 0.0), ("leaky_relu", {"slope": 0.25}, 0.25), ("elu", {}, 1.0)],
)
def test_backward_gives_the_documented_slope_at_a_kink(
    operation: str, params: dict, slope: float, dtype: type, kernel_set: str
) -> None:
    x = Tensor(np.zeros(3, dtype), requires_grad=True)
    with kernels.use(kernel_set):
        apply(operation, x, **params).backward(np.array([1.0, -2.0, 3.0]))
    np.testing.assert_array_equal(x.grad, np.array([1.0, -2.0, 3.0], dtype) * slope)


@on_every_set
@pytest.mark.parametrize(("activation", "slope"), [("relu", 0.0), ("elu", 1.0)])
def test_dense_backward_gives_the_documented_slope_at_a_kink(activation: str, slope: float, kernel_set: str) -> None:
    x, w, b = (Tensor(np.array(v), requires_grad=True) for v in ([[1.0, 2.0]], [[2.0], [-1.0]], [0.0]))
    with kernels.use(kernel_set):
        ops.dense(x, w, b, activation).backward(np.array([[3.0]]))
    np.testing.assert_array_equal(b.grad, [3.0 * slope])
    np.testing.assert_array_equal(x.grad, [[6.0 * slope, -3.0 * slope]])


# ---- what they are checked with ----


@pytest.mark.parametrize(("op", "case"), CASES)
@given(seed=seeds, lead=array_shapes(min_dims=0, max_dims=2, min_side=1, max_side=3), wide=st.booleans())
@example(seed=0, lead=(), wide=False)
def test_draw_inputs_stays_within_the_domains(op: Op, case: Case, seed: int, lead: Shape, wide: bool) -> None:
    rng = np.random.default_rng(seed)
    shapes = input_shapes(op, case, lead, lambda dim: 3)
    inputs = draw_inputs(op, case, shapes, rng, wide)
    assert [x.shape for x in inputs] == shapes
    for i, x in enumerate(inputs):
        domain = op.domain(i).wide if wide else op.domain(i)
        if domain.whole:
            assert x.dtype == np.int64
            assert ((x >= 0) & (x < 3)).all()
        else:
            assert x.dtype == np.float64
            assert ((x >= domain.low) & (x <= domain.high)).all()
            assert all((np.abs(x - kink) >= domain.gap).all() for kink in domain.kinks)
    if case.kink:
        assert (np.abs(case.kink(*inputs)) >= KINK_DISTANCE).all()


def test_wide_domains_reach_further_and_nearer_to_kinks() -> None:
    wide = {domain: (domain.wide.low, domain.wide.high, domain.wide.gap) for domain in (REAL, NONZERO, POSITIVE)}
    assert wide == {REAL: (-9, 9, 0.001), NONZERO: (-9, 9, 0.05), POSITIVE: (0.05, 9, 0.001)}
    assert UNIT_CONSTANT.wide == UNIT_CONSTANT


def test_long_shapes_have_each_dimension_long_in_turn() -> None:
    matmul, exp = REGISTRY["matmul"], REGISTRY["exp"]
    assert list(long_shapes(exp, exp.cases[0])) == [[(size,)] for size in LONG]
    longest = [max(max(shapes)) for shapes in long_shapes(matmul, matmul.cases[0])]
    assert longest == [*LONG] * 4  # of ..., k, m, n


@pytest.mark.parametrize("name", ["dense", "max"])
def test_long_inputs_are_drawn_away_from_inner_kinks(name: str) -> None:
    op, rng = REGISTRY[name], np.random.default_rng(0)
    case = next(case for case in op.cases if case.kink)
    for shapes in long_shapes(op, case):
        assert (np.abs(case.kink(*draw_inputs(op, case, shapes, rng))) >= KINK_DISTANCE).all()


def test_draw_inputs_draws_every_label() -> None:
    op = REGISTRY["softmax_cross_entropy"]
    _, labels = draw_inputs(op, op.cases[0], [(99, 3), (99,)], np.random.default_rng(0))
    assert set(labels) == {0, 1, 2}


# ---- as users see it ----


def test_gradcheck_takes_arrays_and_any_output() -> None:
    rng = np.random.default_rng(1)
    a, b = rng.standard_normal((3, 4)), rng.standard_normal(4)
    check = gradcheck(lambda x, y: ops.tanh(x * y) + x, a, b)
    assert check.error <= check.tolerance < 1e-7


def test_gradcheck_shows_the_elements_of_a_wrong_gradient() -> None:
    def double_but_half_of_it_detached(x: Tensor) -> Tensor:
        return x + ops.concatenate([x[:2], x[2:].detach()])

    with pytest.raises(GradientError) as caught:
        gradcheck(double_but_half_of_it_detached, np.array([1.0, 2.0, 3.0]))
    head, names, worst, *rest = str(caught.value).splitlines()
    assert head.startswith("input 0: off by")
    assert names.split() == ["input", "index", "analytic", "numeric", "difference"]
    place, index, analytic, numeric, difference = worst.split()
    assert (place, index) == ("0", "(2,)")
    assert float(numeric) == pytest.approx(2 * float(analytic))
    assert float(difference) == pytest.approx(abs(float(analytic)), rel=1e-2)
    assert len(rest) == 2
    assert all(float(line.split()[-1]) < 1e-9 for line in rest)
    assert caught.value.check.error > caught.value.check.tolerance


def test_gradcheck_names_the_input_that_is_wrong() -> None:
    with pytest.raises(GradientError, match="input 1: off by") as caught:
        gradcheck(lambda x, y: x * y.detach(), np.ones(2), np.ones(2))
    assert "input 0" not in str(caught.value)


def test_gradcheck_looks_at_some_elements_of_a_large_input() -> None:
    with pytest.raises(GradientError, match="200 of its 1000 elements") as caught:
        gradcheck(lambda x: x + x.detach(), np.ones(1000))
    assert len(str(caught.value).splitlines()) == 2 + 10


def test_gradcheck_fails_on_nan() -> None:
    with pytest.raises(GradientError), np.errstate(invalid="ignore"):
        gradcheck(lambda x: ops.log(x), np.array([-1.0]))


SMOOTH: list[tuple[Callable[..., Tensor], tuple[np.ndarray, ...]]] = [
    (ops.log, (np.array([0.05]),)),
    (ops.log, (np.array([3.0, 0.05, 1e-6]),)),
    (lambda x: 1 / x, (np.array([0.05, 2.0]),)),
    (lambda x: 1 / x, (np.array([1e-9]),)),
    (ops.square, (np.array([1e12, 3e11]),)),
    (lambda x: ops.exp(100.0 * x), (np.array([0.01, -0.02]),)),
    (lambda x: 1e-6 * ops.tanh(x), (np.array([0.3, 2.0]),)),
    (
        ops.batch_norm,
        (5 + 0.01 * np.random.default_rng(0).standard_normal((8, 3)), np.array([1.0, 2.0, 3.0]), np.ones(3)),
    ),
    (ops.relu, (np.array([1e-6, -1e-6, 0.5]),)),
]
STATIONARY: list[tuple[Callable[..., Tensor], tuple[np.ndarray, ...]]] = [
    (ops.square, (np.zeros(3),)),
    (lambda x: ops.softmax(x).sum(), (np.random.default_rng(0).uniform(-9, 9, (5, 7)),)),
    (lambda x: x - x + 1e3, (np.array([0.3, 2.0]),)),
    (ops.gelu, (np.array([-8.6]),)),  # 1e-15, from terms near 1
]


@pytest.mark.parametrize(("function", "inputs"), SMOOTH + STATIONARY)
def test_gradcheck_finds_the_step_that_a_function_needs(function: Callable, inputs: tuple[np.ndarray, ...]) -> None:
    gradcheck(function, *inputs)


@pytest.mark.parametrize(("function", "inputs"), SMOOTH)
def test_gradcheck_sees_a_thousandth_at_any_scale(function: Callable, inputs: tuple[np.ndarray, ...]) -> None:
    def wrong(*leaves: Tensor) -> Tensor:
        out = function(*leaves)
        return out.detach() + 1.001 * (out - out.detach())

    with pytest.raises(GradientError, match="input 0: off by"):
        gradcheck(wrong, *inputs)


def test_gradcheck_sees_half_a_gradient_beside_a_large_constant() -> None:
    with pytest.raises(GradientError, match="input 0: off by"):
        gradcheck(lambda x: x + x.detach() + 1e10, np.array([1.0, 2.0]))


@pytest.mark.parametrize(
    ("function", "value"),
    [
        (lambda x: x + x + 1e10, 1.0),
        (lambda x: 1e-7 * x + 1e10, 1.0),
        (lambda x: x**1.5, 0.0),  # not finite on one side, however small the step
    ],
)
def test_gradcheck_says_when_it_cannot_decide(function: Callable, value: float) -> None:
    with (
        np.errstate(invalid="ignore"),
        pytest.raises(UndecidedError, match=r"input 0: cannot be decided, .* move the inputs away"),
    ):
        gradcheck(function, np.array([value]))


@pytest.mark.parametrize("slope", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("near", [0.0, 1e-10, -1e-12])
def test_gradcheck_says_of_a_kink_that_it_cannot_decide(slope: float, near: float) -> None:
    def relu(x: Tensor) -> Tensor:
        """With this gradient below 0.1, be it that of one side or of none."""
        right = ops.relu(x)
        return ops.where(x > 0.1, right, right.detach() + slope * (x - x.detach()))

    gradcheck(relu, np.array([0.5, 2.0]))
    with pytest.raises(UndecidedError, match="input 0: cannot be decided"):
        gradcheck(relu, np.array([0.5, near, 2.0]))


@pytest.mark.parametrize("scale", [1e-30, 1e-100, 1e-150])
@pytest.mark.parametrize("function", [lambda x: 1 / x, ops.log, ops.sqrt])
def test_gradcheck_does_not_decide_where_no_step_is_small_enough(function: Callable, scale: float) -> None:
    with pytest.raises(UndecidedError):
        gradcheck(function, scale * np.array([1.0, 2.0]))


def test_gradcheck_inside_no_grad_says_so() -> None:
    with no_grad(), pytest.raises(ValueError, match=r"inside no_grad\(\) no graph is built"):
        gradcheck(ops.exp, np.ones(2))


@pytest.mark.parametrize("result", [lambda x: (x, x), lambda x: x.data, lambda x: 1.0])
def test_gradcheck_takes_functions_that_return_a_tensor(result: Callable) -> None:
    with pytest.raises(TypeError, match="it has to return one tensor"):
        gradcheck(result, np.ones(2))


def test_gradcheck_takes_a_seed() -> None:
    assert gradcheck(ops.exp, np.ones(2), rng=3) == gradcheck(ops.exp, np.ones(2), rng=np.random.default_rng(3))


def test_gradcheck_prefers_a_wrong_input_to_an_undecided_one() -> None:
    with pytest.raises(GradientError, match="input 1: off by") as caught:
        gradcheck(lambda x, y: x + (y + y.detach()) * 1e8 + 1e10, np.ones(2), np.ones(2))
    assert not isinstance(caught.value, UndecidedError)


def test_gradcheck_takes_three_times_the_evaluations_of_one_difference_at_most() -> None:
    count = 0

    def function(x: Tensor) -> Tensor:
        nonlocal count
        count += 1
        return ops.tanh(x)

    gradcheck(function, np.random.default_rng(0).standard_normal((3, 4)))
    assert count <= 2 + 3 * 4


def test_gradcheck_passes_when_an_input_is_not_used() -> None:
    gradcheck(lambda x, y: ops.exp(x) + 1e10, np.ones(2) * 20, np.ones(3))
    gradcheck(lambda x, y: ops.exp(x), np.ones(2), np.ones(3))
    gradcheck(lambda x: Tensor(np.ones(2)), np.ones(2))


def test_gradcheck_passes_for_a_view_of_the_input() -> None:
    gradcheck(lambda x: x, np.ones((2, 3)))
    gradcheck(lambda x: x.reshape(3, 2), np.ones((2, 3)))


@pytest.mark.parametrize(
    ("value", "error", "message"),
    [
        (np.ones(2, np.float32), TypeError, "float64 arrays or tensors, not float32"),
        (Tensor(np.ones(2)), ValueError, "leaves"),
        (Tensor(np.ones(2), requires_grad=True) * 2.0, ValueError, "leaves"),
    ],
)
def test_gradcheck_refuses_float32_and_tensors_that_are_no_leaves(
    value: np.ndarray | Tensor, error: type, message: str
) -> None:
    with pytest.raises(error, match=message):
        gradcheck(ops.exp, value)


def test_gradcheck_refuses_noise() -> None:
    rng = np.random.default_rng(0)
    with pytest.raises(ValueError, match="different results"):
        gradcheck(lambda x: x + rng.standard_normal(2), np.ones(2))


class TestModel:
    """A loss with respect to the parameters of a module, flattened for an optimizer or not."""

    def setup_method(self) -> None:
        rng = np.random.default_rng(3)
        self.weights = [nn.Parameter(rng.standard_normal(shape)) for shape in ((3, 4), (4,), (4, 2), (2,))]
        self.x, self.labels = rng.standard_normal((5, 3)), rng.integers(0, 2, 5)

    def loss(self, *_: Tensor) -> Tensor:
        w1, b1, w2, b2 = self.weights
        hidden = ops.dense(Tensor(self.x), w1, b1, "tanh")
        return ops.softmax_cross_entropy(ops.dense(hidden, w2, b2), self.labels).mean()

    @pytest.mark.parametrize("flat", [False, True])
    def test_gradcheck_restores_parameters(self, flat: bool) -> None:
        if flat:
            nn.flatten(self.weights)
        before = [p.data.copy() for p in self.weights]
        gradcheck(self.loss, *self.weights)
        for parameter, data in zip(self.weights, before, strict=True):
            np.testing.assert_array_equal(parameter.data, data)
            assert parameter.grad is None

    def test_gradcheck_restores_parameters_after_an_error(self) -> None:
        before, calls = self.weights[0].data.copy(), iter(range(100))

        def loss(*_: Tensor) -> Tensor:
            if next(calls) == 4:
                raise ZeroDivisionError
            return self.loss()

        with pytest.raises(ZeroDivisionError):
            gradcheck(loss, *self.weights)
        np.testing.assert_array_equal(self.weights[0].data, before)

    def test_gradcheck_finds_a_detached_parameter(self) -> None:
        def loss(*_: Tensor) -> Tensor:
            return self.loss() + self.weights[3].detach().sum()

        with pytest.raises(GradientError, match="input 3: off by"):
            gradcheck(loss, *self.weights)


# ---- the registry ----


def test_check_registry_passes_and_format_table_prints_it() -> None:
    rows = check_registry(repeats=1)
    assert {(row.operation, row.kernel_set) for row in rows} == {(o, k) for o in REGISTRY for k in kernels.SETS}
    assert [row for row in rows if not (row.passed and row.error <= row.tolerance)] == []
    lines = format_table(rows).splitlines()
    assert lines[0].split() == ["operation", "kernels", "error", "tolerance", "verdict"]
    assert len(lines) == 1 + len(rows)
    assert all(line.endswith("  pass") for line in lines[1:])


def test_registry_checks_long_dimensions() -> None:
    op = REGISTRY["exp"]

    def backward(k: Any, needs_grad: Any, dout: np.ndarray, saved: Any) -> tuple[np.ndarray]:
        (dx,) = op.backward(k, needs_grad, dout, saved)
        dx.reshape(-1)[64:] = 0
        return (dx,)

    with mock.patch.dict(REGISTRY, exp=replace(op, backward=backward)):
        assert check_registry(["exp"], ["reference"], long=())[0].passed
        assert not check_registry(["exp"], ["reference"])[0].passed


def test_check_registry_checks_chosen_operations_reproducibly() -> None:
    (row,) = check_registry(["relu"], ["reference"], repeats=1)
    assert row[:2] == ("relu", "reference")
    assert row == check_registry(["exp", "relu"], ["cpu", "reference"], repeats=1)[-1]


def test_check_registry_refuses_an_unknown_name() -> None:
    with pytest.raises(UserError, match=r"no operation 'sofmax'; did you mean softmax"):
        check_registry(["sofmax"])
    with pytest.raises(UserError, match="choose from add, avg_pool2d, batch_norm, bce_with_logits"):
        check_registry(["zzz"])


def test_format_table_shows_failures_below_its_rows() -> None:
    table = format_table(
        [Row("exp", "cpu", 2e-3, 1e-9, "exp: off"), Row("log", "cpu", math.nan, math.nan, "log: writes")]
    )
    lines = table.splitlines()
    assert lines[1].split() == ["exp", "cpu", "2.0e-03", "1.0e-09", "FAIL"]
    assert lines[2].split() == ["log", "cpu", "nan", "nan", "FAIL"]
    assert lines[3:] == ["", "exp: off", "", "log: writes"]
