"""The engine of arrays: first and second derivatives against the complex-step method and formulas, and WGAN-GP."""

import gc
import importlib
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import mutually_broadcastable_shapes

LESSON = Path(__file__).parents[2] / "demos" / "engine" / "2_arrays.py"
FIGURES = r"-?\d[\d.e+-]*"


@pytest.fixture(scope="module")
def lesson():
    sys.path.insert(0, str(LESSON.parent))  # as when the script is run: it imports lesson 1
    try:
        yield importlib.import_module("2_arrays")
    finally:
        sys.path.remove(str(LESSON.parent))


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """What the lesson prints, and the folder it was run in."""
    folder = tmp_path_factory.mktemp("engine-2")
    command = [sys.executable, str(LESSON), "--out", "pictures"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=150)
    assert done.returncode == 0, done.stderr
    assert "Warning" not in done.stderr
    return done.stdout, folder


def rows(text, head):
    """The rows of the printed table whose first line begins with ``head``, as lists of cells."""
    lines = ("\n" + text)[("\n" + text).index(f"\n{head}") + 1 :].split("\n")
    table = lines[1 : next(i for i, line in enumerate(lines) if " | " not in line)]
    return [[cell.strip() for cell in line.split(" | ")] for line in table]


def engine_cell():
    (cell,) = re.findall(r"^# %% engine\n(.*?)^# %%", LESSON.read_text(), re.MULTILINE | re.DOTALL)
    return cell


def test_arrays_engine_has_at_most_150_lines():
    assert "class Tensor" in engine_cell()
    assert "def gradients" in engine_cell()
    assert len(engine_cell().rstrip().splitlines()) <= 150


def test_unbroadcast_is_called_in_one_place():
    assert len(re.findall(r"(?<!def )unbroadcast\(", engine_cell())) == 1


# ---- operations ----


class Plain:
    """The lesson's functions for complex arrays of NumPy."""

    exp, log, tanh = np.exp, np.log, np.tanh
    broadcast_to = staticmethod(np.broadcast_to)


class Ours:
    """The same for the lesson's tensors."""

    def __init__(self, lesson):
        self.exp, self.log, self.tanh = lesson.exp, lesson.log, lesson.tanh

    def broadcast_to(self, a, shape):
        return a.broadcast_to(shape)


C = np.arange(1.0, 13.0).reshape(4, 3)
OPERATIONS = {
    "add": lambda m, a, b: a + b,
    "subtract": lambda m, a, b: a - b,
    "multiply": lambda m, a, b: a * b,
    "divide": lambda m, a, b: a / (2 + b * b),
    "negate": lambda m, a, b: -a * b,
    "from an array": lambda m, a, b: C - a * b,
    "array plus": lambda m, a, b: C + a * b,
    "array times": lambda m, a, b: C * a * b,
    "array over": lambda m, a, b: C / (2 + a * a),
    "cube": lambda m, a, b: a**3,
    "square of a product": lambda m, a, b: (a * b) ** 2,
    "inverse square root": lambda m, a, b: (a * a + b * b + 1) ** -0.5,
    "matmul": lambda m, a, b: (a @ b.T) @ a,
    "array matmul": lambda m, a, b: C.T @ a,
    "matmul array": lambda m, a, b: (a * b) @ C.T,
    "reshape": lambda m, a, b: a.reshape((2, 6)) * b.reshape((1, 2, 6)),
    "broadcast_to": lambda m, a, b: m.broadcast_to(a * a, (2, 4, 3)),
    "sum": lambda m, a, b: a.sum() * b,
    "sum of rows": lambda m, a, b: a.sum(axis=1) * b.sum(axis=1) ** 2,
    "sum of columns": lambda m, a, b: a.sum(axis=0) * b,
    "sum kept": lambda m, a, b: a.sum(axis=-1, keepdims=True) * b,
    "sum of both kept": lambda m, a, b: (a * b).sum(axis=(0, 1), keepdims=True) * b,
    "mean": lambda m, a, b: a.mean() * b,
    "exp": lambda m, a, b: m.exp(a * b),
    "log": lambda m, a, b: m.log(a * a + b * b),
    "tanh": lambda m, a, b: m.tanh(a + b),
}


def complex_step(function, arrays, directions, h=1e-30):
    """The derivative of a function of arrays along directions, by Im f(x + ih v) / h."""
    return function(*(a + 1j * h * v for a, v in zip(arrays, directions, strict=True))).imag / h


@pytest.mark.parametrize("name", OPERATIONS)
def test_gradients_give_first_and_second_derivatives_of_each_operation(lesson, rng, name):
    a, b, u, v, w, x = rng.standard_normal((6, 4, 3))
    ours, operation = Ours(lesson), OPERATIONS[name]
    cotangent = rng.standard_normal(operation(Plain, a, b).shape)

    def plain(a, b):
        return (cotangent * operation(Plain, a, b)).sum()

    def along(a, b):
        """The derivative along (u, v), and the tensors it is a function of."""
        inputs = [lesson.Tensor(a), lesson.Tensor(b)]
        found = lesson.gradients((cotangent * operation(ours, *inputs)).sum(), inputs)
        assert [g.shape for g in found] == [(4, 3), (4, 3)]
        return lesson.inner(found, (u, v)), inputs

    first, inputs = along(a, b)
    assert first.data == pytest.approx(complex_step(plain, (a, b), (u, v)), rel=1e-10)
    second = lesson.inner(lesson.gradients(first, inputs), (w, x)).data
    h = 1e-4  # central differences of 4th order, of the derivative that has just been checked
    at = [along(a + k * h * w, b + k * h * x)[0].data for k in (1, -1, 2, -2)]
    assert second == pytest.approx((8 * (at[0] - at[1]) - (at[2] - at[3])) / (12 * h), rel=1e-7, abs=1e-7)


@given(mutually_broadcastable_shapes(num_shapes=2, max_dims=3, max_side=3), st.integers(0, 2**32))
def test_gradients_of_broadcast_operands_match_the_complex_step(lesson, shapes, seed):
    rng = np.random.default_rng(seed)
    a, b = (rng.standard_normal(shape) for shape in shapes.input_shapes)
    u, v = rng.standard_normal(a.shape), rng.standard_normal(b.shape)
    cotangent = rng.standard_normal(shapes.result_shape)

    def function(a, b):
        return (cotangent * (a * b + a / (2 + b * b) - b)).sum()

    inputs = [lesson.Tensor(a), lesson.Tensor(b)]
    found = lesson.gradients(function(*inputs), inputs)
    assert [g.shape for g in found] == [a.shape, b.shape]
    expected = complex_step(function, (a, b), (u, v))
    assert lesson.inner(found, (u, v)).data == pytest.approx(expected, rel=1e-9, abs=1e-9)


def test_relu_has_derivative_0_at_0(lesson):
    x = lesson.Tensor([-2.0, 0.0, 3.0])
    y = lesson.relu(x) * x
    (g,) = lesson.gradients(y.sum(), [x])
    (h,) = lesson.gradients(g.sum(), [x])
    assert (y.data.tolist(), g.data.tolist(), h.data.tolist()) == ([0, 0, 9], [0, 0, 6], [0, 0, 2])


# ---- gradients ----


def test_gradients_count_both_uses_of_a_tensor(lesson):
    a = lesson.Tensor(3.0)
    b = a + a
    c = b * b
    of_a, of_b, of_c = lesson.gradients(c, [a, b, c])
    assert (of_a.data, of_b.data, of_c.data) == (24, 12, 1)
    assert lesson.gradients(of_a, [a])[0].data == 8


def test_gradients_are_0_for_inputs_without_influence(lesson):
    a, b = lesson.Tensor(np.ones((2, 3))), lesson.Tensor(np.ones(4))
    found = lesson.gradients((a * a).sum(), [b, a])
    assert found[0].data.tolist() == [0] * 4
    assert found[1].data.tolist() == [[2] * 3] * 2


def test_gradients_call_only_the_vjps_they_need(lesson):
    def refuse(g, out):
        raise AssertionError("an unnecessary VJP")

    a, constant = lesson.Tensor(3.0), lesson.Tensor(4.0)
    aside = lesson.Tensor(5.0, (constant,), (refuse,))
    product = lesson.Tensor(60.0, (a, aside), (lambda g, out: g * 20, refuse))
    assert lesson.gradients(product * constant, [a])[0].data == 80


def test_gradients_refuse_an_output_of_several_numbers(lesson):
    a = lesson.Tensor(np.ones((2, 3)))
    with pytest.raises(ValueError, match=r"\(2, 3\); take a sum first"):
        lesson.gradients(a * a, [a])


def test_gradients_of_both_orders_have_no_depth_limit(lesson):
    x = y = lesson.Tensor(0.5)
    for _ in range(20_000):
        y = y * 1.0001
    (first,) = lesson.gradients(y * y, [x])
    (second,) = lesson.gradients(first, [x])
    assert first.data == pytest.approx(1.0001**40_000, rel=1e-10)
    assert second.data == pytest.approx(2 * 1.0001**40_000, rel=1e-10)


@pytest.mark.parametrize("order", [1, 2, 3, 4, 5])
def test_derivative_at_0_gives_the_taylor_coefficients(lesson, order):
    at_0 = {
        "tanh": (lesson.tanh, [1, 0, -2, 0, 16]),
        "exp": (lesson.exp, [1, 1, 1, 1, 1]),
        "log(1 + x)": (lambda x: lesson.log(1 + x), [1, -1, 2, -6, 24]),
        "x³": (lambda x: x**3, [0, 0, 6, 0, 0]),
        "1 / (1 - x)": (lambda x: 1 / (1 - x), [1, 2, 6, 24, 120]),
    }
    for function, expected in at_0.values():
        got = lesson.derivative(function, np.zeros(2), order).data
        assert got.tolist() == pytest.approx([expected[order - 1]] * 2, abs=1e-12)


def test_hessian_vector_product_is_exact_for_logistic_regression(lesson, rng):
    points, labels = lesson.scalars.two_moons(30, rng)
    parameters = [lesson.Tensor(rng.standard_normal((2, 1))), lesson.Tensor(rng.standard_normal(1))]
    loss = lesson.mean_loss(parameters, points, labels)
    x = np.column_stack([points, np.ones(30)])
    p = 1 / (1 + np.exp(-x @ np.append(parameters[0].data, parameters[1].data)))
    hessian = x.T @ (x * (p * (1 - p))[:, None]) / 30
    vector = [rng.standard_normal((2, 1)), rng.standard_normal(1)]
    product = lesson.hessian_vector_product(loss, parameters, vector)
    got = np.append(product[0].data, product[1].data)
    np.testing.assert_allclose(got, hessian @ np.append(*vector), rtol=1e-12)


def test_graph_is_freed_without_the_garbage_collector(lesson, rng):
    points, labels = lesson.scalars.two_moons(10, rng)
    parameters = lesson.initial_parameters((2, 3, 1), rng)
    gc.collect()
    gc.disable()
    try:
        lesson.hessian_vector_product(
            lesson.mean_loss(parameters, points, labels), parameters, [p.data for p in parameters]
        )
        assert gc.collect() == 0
    finally:
        gc.enable()


# ---- WGAN-GP ----


def test_critic_loss_and_its_gradient_are_exact_for_linear_critics(lesson, rng):
    x, y, epsilon = lesson.draw_batch(50, rng)
    difference = y.mean() - x.mean()
    for w in (0.3, -0.4, 1.5, -2.0):
        for penalty, pull in (("none", 0), ("one-sided", max(abs(w) - 1, 0)), ("two-sided", abs(w) - 1)):
            parameters = [lesson.Tensor([[w]]), lesson.Tensor([0.7])]
            loss = lesson.critic_loss(parameters, x, y, epsilon, penalty)
            of_w, of_bias = lesson.gradients(loss, parameters)
            assert loss.data == pytest.approx(w * difference + 10 * pull**2, rel=1e-12)
            assert of_w.data.item() == pytest.approx(difference + 20 * pull * np.sign(w), rel=1e-10)
            assert of_bias.data.item() == pytest.approx(0, abs=1e-12)


def test_critic_loss_takes_its_penalty_between_data_and_samples(lesson, rng):
    x, y, epsilon = lesson.draw_batch(50, rng)
    parameters = [lesson.Tensor(value) for value in ([[0.8, -0.3]], [0.1, 0.4], [[2.5], [-1.0]], [0.0])]
    w, bias, v, _ = (p.data for p in parameters)
    z = epsilon * x + (1 - epsilon) * y
    slope = (1 - np.tanh(z @ w + bias) ** 2) @ (w.T * v)
    assert slope.shape == (50, 1)
    penalty = lesson.critic_loss(parameters, x, y, epsilon, "two-sided").data
    penalty = penalty - lesson.critic_loss(parameters, x, y, epsilon, "none").data
    assert penalty == pytest.approx(10 * ((np.abs(slope) - 1) ** 2).mean(), rel=1e-12)


def test_exact_densities_are_those_of_the_draws(lesson, rng):
    p, q, difference, r = lesson.exact()
    x, y, epsilon = lesson.draw_batch(400_000, rng)
    for density, draws in ((p, x), (q, y), (r, epsilon * x + (1 - epsilon) * y)):
        assert density.sum() * lesson.SPACING == pytest.approx(1, abs=1e-6)
        counts, edges = np.histogram(draws, np.linspace(-4, 4, 41))
        distribution = np.interp(edges, lesson.GRID, np.cumsum(density) * lesson.SPACING)
        np.testing.assert_allclose(counts / len(draws), np.diff(distribution), atol=0.004)
    np.testing.assert_allclose(difference, np.cumsum(q - p) * lesson.SPACING, atol=1e-3)


def test_penalised_slope_is_the_best_by_brute_force(lesson):
    _, _, difference, r = lesson.exact()
    slopes = np.linspace(-3, 3, 60_001)
    for i in np.flatnonzero(np.abs(lesson.GRID) < 3)[::250]:
        value = slopes * difference[i] - lesson.LAMBDA * r[i] * (np.abs(slopes) - 1) ** 2
        for sign in (-1, 1):
            side = slopes * sign > 0
            best = slopes[side][value[side].argmax()]
            assert lesson.penalised_slope(sign, difference[i], r[i]) == pytest.approx(best, abs=2e-4)


def test_adam_first_step_is_the_learning_rate_along_the_sign(lesson):
    parameter = lesson.Tensor([1.0, -2.0])
    adam = lesson.Adam([parameter])
    adam.step([lesson.Tensor([0.3, -5.0])], lr=0.1)
    np.testing.assert_allclose(parameter.data, [0.9, -1.9], rtol=1e-6)
    adam.step([lesson.Tensor([0.3, 0.0])], lr=0.1)
    np.testing.assert_allclose(parameter.data, [0.8, -1.9], rtol=1e-6)


# ---- what is printed ----


def test_arrays_lesson_prints_gradients_of_matching_shapes(run):
    table = rows(run[0], "a        | b")
    assert len(table) == 4
    for a, b, of_a, of_b, error in table:
        assert (a, b) == (of_a, of_b)
        assert float(error) < 1e-14


def test_arrays_lesson_prints_arrays_equal_to_scalars_and_faster(run):
    assert float(re.search(r"between scalars and arrays: (\S+)", run[0])[1]) < 1e-12
    small, large = rows(run[0], "a training step")
    nodes = [[int(cell.split()[0].replace(",", "")) for cell in row[1:3]] for row in (small, large)]
    assert nodes[1][0] > 9 * nodes[0][0]
    assert nodes[1][1] == nodes[0][1] < 60
    assert float(large[3]) > 10


def test_arrays_lesson_prints_correct_higher_derivatives(run):
    assert [row[0] for row in rows(run[0], "derivative ")] == [
        "tanh'",
        "tanh''",
        "tanh'''",
        "(x³)''",
        "(x³)'''",
        "(x³)''''",
    ]
    for _, expected, got, error in rows(run[0], "derivative "):
        assert float(got) == pytest.approx(float(expected), abs=1e-9)
        assert float(error) < 1e-12


def test_arrays_lesson_prints_a_correct_hessian_vector_product(run):
    *products, last = rows(run[0], "Hessian-vector product")
    for _, expected, got in products:
        assert float(got) == pytest.approx(float(expected), abs=1e-8)
        assert float(expected) != 0
    assert float(last[2]) < 1e-8


def test_arrays_lesson_prints_critics_near_their_optima(run):
    w1 = [float(value) for value in re.search(rf"W1: ({FIGURES}) as .*, ({FIGURES}) as", run[0]).groups()]
    assert w1[0] == pytest.approx(w1[1], abs=1e-5)
    table = {name: (expected, float(got), slopes) for name, expected, got, slopes in rows(run[0], "critic  ")}
    assert table["no penalty"][1] > 10 * w1[0]
    assert table["one-sided penalty"][1] == pytest.approx(w1[0], rel=0.12)
    assert table["two-sided penalty"][1] < 0.2
    for name in ("one-sided penalty", "two-sided penalty", "one-sided, then two-sided"):
        expected, got, slopes = table[name]
        assert got == pytest.approx(float(expected), abs=0.05)
        low, high = map(float, slopes.split(" to "))
        assert -1.3 < low < high < 1.3
    for _, differences, double_backward in rows(run[0], "critic, with penalty"):
        assert float(double_backward) == pytest.approx(float(differences), rel=1e-6)


def test_arrays_lesson_prints_what_its_engine_gets_wrong(run):
    stale, overflow, slope = rows(run[0], "silently wrong")
    assert float(stale[2]) == pytest.approx(3 * np.e, abs=1e-3)
    assert (overflow[2], slope[2]) == ("inf", "nan")
    forward, backward = map(int, re.search(r"(\d+) forward, (\d+) backward", run[0]).groups())
    assert backward > forward > 10


def test_arrays_lesson_ends_with_its_figure(run):
    picture = (run[1] / run[0].splitlines()[-1]).read_bytes()
    assert picture.startswith(b"\x89PNG")
    assert len(picture) < 150_000
