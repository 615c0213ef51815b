"""The engine of numbers: its derivatives by the complex-step method, its graph as text, and what the lesson prints."""

import cmath
import gc
import importlib.util
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

LESSON = Path(__file__).parents[2] / "demos" / "engine" / "1_scalars.py"


@pytest.fixture(scope="module")
def lesson():
    spec = importlib.util.spec_from_file_location("engine_1", LESSON)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """What the lesson prints, and the folder it was run in."""
    folder = tmp_path_factory.mktemp("engine-1")
    command = [sys.executable, str(LESSON), "--out", "pictures"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=150)
    assert done.returncode == 0, done.stderr
    return done.stdout, folder


def rows(text, head):
    """The rows of the printed table whose first line begins with ``head``, as lists of cells."""
    lines = text[text.index(f"\n{head}") + 1 :].split("\n")
    table = lines[1 : next(i for i, line in enumerate(lines) if " | " not in line)]
    return [[cell.strip() for cell in line.split(" | ")] for line in table]


def test_scalars_engine_has_at_most_100_lines():
    cells = re.findall(r"^# %% engine\n(.*?)^# %%", LESSON.read_text(), re.MULTILINE | re.DOTALL)
    assert len(cells) == 1
    assert "class Scalar" in cells[0]
    assert "def backward" in cells[0]
    assert len(cells[0].rstrip().splitlines()) <= 100


# ---- derivatives ----


def test_backward_counts_both_uses_of_a_number(lesson):
    a = lesson.Scalar(3.0)
    b = a + a
    c = b * b
    c.backward()
    assert (c.value, c.grad, b.grad, a.grad) == (36, 1, 12, 24)


# Steps of a random program on a growing list of numbers; all are smooth, and finite where the numbers are moderate.
STEPS = {
    "add": lambda m, a, b: a + b,
    "subtract": lambda m, a, b: a - b,
    "subtract from a constant": lambda m, a, b: 1.5 - a,
    "add to a constant": lambda m, a, b: 0.5 + a,
    "multiply": lambda m, a, b: a * b,
    "multiply by a constant": lambda m, a, b: 0.7 * a,
    "negate": lambda m, a, b: -a,
    "divide": lambda m, a, b: a / (b * b + 1.0),
    "divide a constant": lambda m, a, b: 2.0 / (a * a + 1.0),
    "cube": lambda m, a, b: a**3,
    "root": lambda m, a, b: (a * a + 0.5) ** 0.5,
    "exp": lambda m, a, b: m.exp(m.tanh(a)),
    "log": lambda m, a, b: m.log(a * a + 0.5),
    "tanh": lambda m, a, b: m.tanh(a),
}
INDEX = st.integers(0, 100)
PROGRAMS = st.lists(st.tuples(st.sampled_from(sorted(STEPS)), INDEX, INDEX), min_size=1, max_size=12)


def evaluate(program, functions, numbers):
    numbers = list(numbers)
    for name, i, j in program:
        numbers.append(STEPS[name](functions, numbers[i % len(numbers)], numbers[j % len(numbers)]))
    return numbers[-1]


def complex_step(program, values, i, h=1e-30):
    """The derivative by Im f(x + ih) / h, which has no rounding error of a difference."""
    return evaluate(program, cmath, [v + 1j * h * (k == i) for k, v in enumerate(values)]).imag / h


def check_program(lesson, program, values):
    leaves = [lesson.Scalar(v) for v in values]
    out = evaluate(program, lesson, leaves)
    out.backward()
    expected = [complex_step(program, values, i) for i in range(len(values))]
    assert [leaf.grad for leaf in leaves] == pytest.approx(expected, rel=1e-9, abs=1e-9)
    assert out.value == pytest.approx(evaluate(program, cmath, [complex(v) for v in values]).real, rel=1e-12)


@given(PROGRAMS, st.lists(st.floats(-2, 2), min_size=3, max_size=3))
def test_backward_is_right_for_random_programs(lesson, program, values):
    assume(abs(evaluate(program, cmath, [complex(v) for v in values])) < 1e6)
    check_program(lesson, program, values)


@pytest.mark.parametrize("name", STEPS)
def test_backward_is_right_for_each_operation(lesson, name):
    check_program(lesson, [(name, 0, 1)], [0.8, -1.3, 0.0])


@pytest.mark.parametrize("depth", [20_000, 200_000])
def test_backward_has_no_depth_limit(lesson, depth):
    x = y = lesson.Scalar(1.0)
    for _ in range(depth):
        y = y + 1e-3
    y = y * y
    y.backward()
    assert x.grad == pytest.approx(2 * (1 + 1e-3 * depth))


def test_backward_begins_from_zero_a_second_time(lesson):
    a = lesson.Scalar(2.0)
    for _ in range(2):
        (a * a * a).backward()
        assert a.grad == 12


def test_graph_is_freed_without_the_garbage_collector(lesson):
    gc.collect()
    gc.disable()
    try:
        a = lesson.Scalar(2.0)
        lesson.log(1 + lesson.exp(a * a)).backward()
        assert gc.collect() == 0
    finally:
        gc.enable()


# ---- the graph as text ----


def test_mermaid_shows_a_graph_that_obeys_the_chain_rule(lesson):
    x, w = lesson.Scalar(0.5), lesson.Scalar(-2.0)
    h = lesson.tanh(x * w)
    out = h * h + x
    out.backward()
    text = lesson.mermaid(out, {x: "x", w: "w", out: "out"})
    assert text.splitlines()[:2] == ["```mermaid", "flowchart LR"]
    assert text.splitlines()[-1] == "```"
    node = r'^    (n\d+)\["(.*?)<br>value (\S+)<br>grad (\S+)"\]$'
    nodes = {key: (title, float(grad)) for key, title, _, grad in re.findall(node, text, re.MULTILINE)}
    edges = re.findall(r'^    (n\d+) -- "(\S+)" --> (n\d+)$', text, re.MULTILINE)
    assert len(nodes) + len(edges) == len(text.splitlines()) - 3
    assert [title for title, _ in nodes.values()] == ["x", "w", "multiply", "tanh", "multiply", "out = add"]
    assert len(edges) == 2 + 1 + 2 + 2
    for key, (title, grad) in nodes.items():
        if not title.startswith("out"):
            total = sum(float(slope) * nodes[to][1] for source, slope, to in edges if source == key)
            assert total == pytest.approx(grad, rel=2e-3)


# ---- the classifier ----


def test_mean_loss_matches_numpy(lesson):
    rng = np.random.default_rng(0)
    layers = [(rng.standard_normal((i, o)), rng.standard_normal(o)) for i, o in ((2, 4), (4, 3), (3, 1))]
    points, labels = lesson.two_moons(7, rng)
    x = points
    for weights, bias in layers[:-1]:
        x = np.tanh(x @ weights + bias)
    logits = (x @ layers[-1][0] + layers[-1][1])[:, 0]
    loss = lesson.mean_loss(lesson.mlp_of_scalars(layers), points, labels)
    assert loss.value == pytest.approx(np.log1p(np.exp(-labels * logits)).mean(), rel=1e-12)
    assert [lesson.logit(lesson.mlp_of_scalars(layers), p).value for p in points.tolist()] == pytest.approx(logits)


def test_train_step_goes_down_the_gradient(lesson):
    rng = np.random.default_rng(1)
    points, labels = lesson.two_moons(20, rng)
    mlp = lesson.mlp_of_scalars(lesson.initial_weights((2, 3, 1), rng))
    before = [p.value for p in lesson.parameters(mlp)]
    assert len(before) == 13
    slopes = lesson.central_differences(lambda: lesson.mean_loss(mlp, points, labels).value, lesson.parameters(mlp))
    assert [p.value for p in lesson.parameters(mlp)] == before
    lesson.train_step(mlp, points, labels, lr=0.1)
    moves = [p.value - b for p, b in zip(lesson.parameters(mlp), before, strict=True)]
    assert moves == pytest.approx([-0.1 * slope for slope in slopes], abs=1e-9)


# ---- what is printed ----


def test_scalars_lesson_prints_correct_derivatives(run):
    table = rows("\n" + run[0], "what")
    assert len(table) == 6
    assert table[1][1:] == ["24", "24"]
    for _, expected, got in table:
        assert float(got) == pytest.approx(float(expected), rel=1e-12)


def test_scalars_lesson_prints_two_graphs(run):
    text, folder = run
    assert text.count("```mermaid") == 2
    assert '["a<br>value 3<br>grad 24"]' in text
    graphs = (folder / "pictures" / "graphs.md").read_text()
    assert graphs in text


def test_scalars_lesson_prints_finite_differences_that_agree(run):
    for _, backward, differences, error in rows(run[0], "parameter")[:-1]:
        assert float(backward) == pytest.approx(float(differences), abs=1e-9)
        assert float(error) < 1e-9
    assert rows(run[0], "parameter")[-1][0] == "largest of all 105"
    (_, one, cost), (_, many, cost_of_many) = rows(run[0], "gradient of 105 parameters")
    assert (one, many) == ("1", "210")
    assert float(cost_of_many) > 10 * sum(map(float, cost.split(" + ")))


def test_scalars_lesson_prints_that_training_succeeds(run):
    first, last = re.search(r"mean loss of the first and last 25 steps: (\S+), (\S+)", run[0]).groups()
    assert float(last) < 0.3 * float(first)
    assert float(re.search(r"classified correctly: (\S+)", run[0])[1]) > 0.95


def test_scalars_lesson_prints_costs_that_agree(run):
    one, classifier, vae = rows(run[0], "a training step")
    assert [row[1] for row in (one, classifier, vae)] == ["1", "4,127", "130,240,000"]
    microseconds = float(one[2].removesuffix(" µs"))
    assert microseconds * 4.127 == pytest.approx(float(classifier[2].removesuffix(" ms")), rel=0.1)
    assert microseconds * 130.24 / 60 == pytest.approx(float(vae[2].removesuffix(" min")), rel=0.1, abs=0.6)


def test_scalars_lesson_ends_with_its_figure(run):
    picture = (run[1] / run[0].splitlines()[-1]).read_bytes()
    assert picture.startswith(b"\x89PNG")
    assert len(picture) < 150_000
