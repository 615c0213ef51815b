"""Tensors as Python, NumPy, copies and threads meet them: nothing is lost silently."""

import copy
import gc
import math
import pickle
import threading
import weakref

import numpy as np
import pytest

import kernels
from scratchgen import SGD, Adam, Tensor, no_grad, ops
from scratchgen.nn import Buffer, Dense, Module, Parameter, Sequential
from scratchgen.optim import ExponentialMovingAverage
from scratchgen.tensor import graphs_are_built


def leaf(values=(1.0, 2.0, 3.0), dtype=np.float64):
    return Tensor(np.array(values, dtype), requires_grad=True)


def dense(rng, inputs=3, outputs=2):
    return Dense(inputs, outputs, rng, dtype=np.float64)


# ---- gradients that are assigned ----


@pytest.mark.parametrize("optimizer", [lambda m: SGD(m, 0.1), lambda m: Adam(m, 0.1)])
def test_grad_assigned_after_backward_is_what_the_optimizer_reads(rng, optimizer):
    module = dense(rng)
    optimizer, before = optimizer(module), module.state_dict()
    module(Tensor(rng.normal(size=(4, 3)))).sum().backward()
    for p in module.parameters():
        p.grad = np.zeros_like(p.grad)
    optimizer.step()
    assert all(np.array_equal(before[name], array) for name, array in module.state_dict().items())


def test_grad_assigned_before_backward_is_added_to(rng):
    module, x = dense(rng), Tensor(rng.normal(size=(4, 3)))
    optimizer = SGD(module, 0.1)
    module(x).sum().backward()
    alone = [np.array(p.grad) for p in module.parameters()]
    optimizer.zero_grad()
    for p in module.parameters():
        p.grad = np.ones(p.shape)
    before = module.state_dict()
    module(x).sum().backward()
    optimizer.step()
    for (name, p), gradient in zip(module.named_parameters().items(), alone, strict=True):
        np.testing.assert_allclose(p.grad, gradient + 1, rtol=1e-14)
        np.testing.assert_allclose(p.data, before[name] - 0.1 * (gradient + 1), rtol=1e-13)


def test_grad_of_a_leaf_without_optimizer_is_added_to():
    x = leaf()
    x.grad = mine = np.ones(3)
    (2.0 * x).sum().backward()
    assert np.array_equal(x.grad, [3.0, 3.0, 3.0])
    assert np.array_equal(mine, np.ones(3))  # a copy is kept


def test_grad_that_is_there_before_the_optimizer_is_taken():
    p = Parameter(np.ones(3))
    (p * p).sum().backward()
    SGD([p], 0.1).step()
    np.testing.assert_allclose(p.data, 0.8)


def test_grad_scaled_in_place_is_scaled(rng):
    module = dense(rng)
    optimizer, before = SGD(module, 1.0), module.state_dict()
    module(Tensor(rng.normal(size=(4, 3)))).sum().backward()
    gradients = [np.array(p.grad) for p in module.parameters()]
    for p in module.parameters():
        p.grad *= 0.5
    optimizer.step()
    for (name, p), gradient in zip(module.named_parameters().items(), gradients, strict=True):
        np.testing.assert_allclose(p.data, before[name] - 0.5 * gradient, rtol=1e-13)


@pytest.mark.parametrize("wrong", [np.zeros(2), np.zeros(3, np.float32), np.zeros((3, 1)), [0.0, 0.0, 0.0], 0.0])
def test_grad_of_another_shape_or_dtype_is_refused(wrong):
    x = leaf()
    with pytest.raises(ValueError, match=r"grad: an array of shape \(3,\) and float64"):
        x.grad = wrong
    assert x.grad is None


def test_grad_of_a_result_is_refused():
    with pytest.raises(RuntimeError, match="only leaves"):
        (leaf() * 2).grad = np.zeros(3)


# ---- NumPy ----


@pytest.mark.parametrize(
    "convert",
    [
        np.asarray,
        np.array,
        lambda a: np.dot(np.ones(3), a),
        lambda a: np.concatenate([a, a]),
        lambda a: np.stack([a, a]),
        lambda a: np.where(np.ones(3) > 0, a, 0.0),
        lambda a: np.exp(np.asarray(a)),
        lambda a: Tensor([a, a]),
        lambda a: Tensor([a[0], a[1]]),
        Tensor,
        Parameter,
        lambda a: Tensor(a * 2, dtype=np.float32),
    ],
)
def test_array_of_a_tensor_that_needs_a_gradient_is_an_error(convert):
    a = leaf()
    with pytest.raises(RuntimeError, match=r"\.data or x\.detach\(\)"):
        convert(a)
    with no_grad():
        assert convert(a) is not None  # nothing is lost where no graph is built
    assert convert(a.detach()) is not None


def test_array_of_a_tensor_is_a_copy_and_says_so():
    x = Tensor([1.0, 2.0])
    assert not np.shares_memory(np.asarray(x), x.data)
    with pytest.raises(ValueError, match=r"x\.data"):
        np.asarray(x, copy=False)


@pytest.mark.parametrize("function", [np.sum, np.mean, np.exp, np.max])
def test_numpy_functions_of_a_tensor_that_needs_a_gradient_are_errors(function):
    with pytest.raises((RuntimeError, TypeError)):
        function(leaf())


# ---- in place ----


@pytest.mark.parametrize("make", [lambda x: leaf(x), lambda x: Parameter(np.array(x)), lambda x: Tensor(np.array(x))])
def test_in_place_operators_write_into_a_leaf_inside_no_grad(make):
    x = make([1.0, 2.0, 3.0])
    same, data, expected = x, x.data, np.array([1.0, 2.0, 3.0])
    with no_grad():
        x += 1
        x -= np.array([0.5, 0.25, 0.125])
        x *= 3
        x /= Tensor(np.array([2.0, 4.0, 8.0]))
        x **= 2
    expected = ((expected + 1 - [0.5, 0.25, 0.125]) * 3 / [2.0, 4.0, 8.0]) ** 2
    assert x is same
    assert x.version == 5
    np.testing.assert_allclose(data, expected, rtol=1e-14)


def test_in_place_matmul_writes_into_a_leaf_inside_no_grad(rng):
    x, m = rng.normal(size=(2, 3, 3))
    tensor = Tensor(x)
    with no_grad():
        tensor @= Tensor(m)
    np.testing.assert_allclose(tensor.data, x @ m, rtol=1e-13)


@pytest.mark.parametrize("symbol", ["+", "-", "*", "/", "**"])
def test_in_place_operators_are_errors_outside_no_grad(symbol):
    names = {"x": leaf()}
    with pytest.raises(RuntimeError, match=f"write x = x {'[*][*]' if symbol == '**' else '[' + symbol + ']'} y"):
        exec(f"x {symbol}= 2", names)
    assert np.array_equal(names["x"].data, [1.0, 2.0, 3.0])


def test_in_place_operators_are_errors_for_results():
    total = leaf() * 2
    with no_grad(), pytest.raises(RuntimeError, match="not the result of an operation"):
        total += 1


@pytest.mark.parametrize("operation", [ops.exp, ops.relu, ops.softmax])
def test_write_refuses_the_result_of_an_operation(operation):
    y = operation(leaf())
    with pytest.raises(RuntimeError, match=f"write: this is the result of {operation.__name__}"):
        y.write(0)
    y.sum().backward()


@pytest.mark.parametrize("value", [None, "3", True, 1j, [None, 1.0]])
def test_write_takes_numbers_alone(value):
    x = leaf()
    with pytest.raises(TypeError, match="a tensor holds float32 or float64"):
        x.write(value)
    assert np.array_equal(x.data, leaf().data)


def test_in_place_operators_refuse_to_broadcast_the_tensor():
    x = leaf()
    with no_grad(), pytest.raises(ValueError, match=r"shape \(2, 3\), and x has \(3,\)"):
        x += np.ones((2, 3))


def test_gradient_descent_in_place_trains_the_parameters_of_a_module(rng):
    module, x = dense(rng), Tensor(rng.normal(size=(4, 3)))
    before = module.state_dict()
    module(x).sum().backward()
    with no_grad():
        for p in module.parameters():
            p -= 0.1 * p.grad
        module.weight -= 0.1 * module.weight.grad
    assert list(module.named_parameters()) == ["weight", "bias"]
    np.testing.assert_allclose(module.weight.data, before["weight"] - 0.2 * module.weight.grad, rtol=1e-13)


def test_backward_after_an_in_place_operator_is_an_error():
    x = leaf()
    y = (x * x).sum()
    with no_grad():
        x += 1
    with pytest.raises(RuntimeError, match="written to since the forward"):
        y.backward()


@pytest.mark.parametrize("value", [Tensor(np.zeros((3, 2))), np.zeros((3, 2)), 0.0, Buffer(np.zeros((3, 2)))])
def test_module_refuses_to_replace_a_parameter_by_something_else(rng, value):
    module = dense(rng)
    weight = module.weight
    with pytest.raises(TypeError, match=r"Dense\.weight is a Parameter"):
        module.weight = value
    assert module.weight is weight
    module.weight = Parameter(np.zeros((3, 2)))
    module.bias = None
    assert list(module.named_parameters()) == ["weight"]


def test_module_refuses_to_replace_a_parameter_by_a_result(rng):
    module = dense(rng)
    with pytest.raises(TypeError, match="stays one"):
        module.weight = module.weight - 0.1


# ---- comparisons, truth, numbers, iteration ----


@pytest.mark.parametrize("other", [np.array([1.0, 5.0, 3.0]), Tensor(np.array([1.0, 5.0, 3.0])), 2.0, [1, 5, 3]])
def test_comparisons_are_elementwise(other):
    x, numbers = leaf(), np.array([1.0, 2.0, 3.0])
    right = other.data if isinstance(other, Tensor) else np.asarray(other)
    for found, expected in [
        (x == other, numbers == right),
        (x != other, numbers != right),
        (x < other, numbers < right),
        (x <= other, numbers <= right),
        (x > other, numbers > right),
        (x >= other, numbers >= right),
    ]:
        assert found.dtype == bool
        assert np.array_equal(found, expected)


def test_comparison_with_an_array_on_the_left_is_elementwise():
    assert np.array_equal(np.array([1.0, 5.0, 3.0]) == leaf(), [True, False, True])
    assert np.array_equal(np.array([1.0, 5.0, 3.0]) > leaf(), [False, True, False])


def test_comparison_gives_the_accuracy_of_predictions():
    assert (Tensor([0.0, 1.0, 2.0, 3.0]) == np.array([0, 1, 2, 4])).mean() == 0.75


def test_hash_is_by_identity():
    x, y = leaf(), leaf()
    assert len({x, y, x}) == 2
    assert {x: 1, y: 2}[y] == 2


def test_truth_is_that_of_one_number():
    assert bool(Tensor([0.5]))
    assert not Tensor([0.0])
    assert not Tensor(0.0)
    assert bool(Tensor([math.nan]))
    for several in (Tensor([1.0, 2.0]), Tensor(np.zeros((0, 2)))):
        with pytest.raises(ValueError, match="no truth value"):
            bool(several)


def test_iteration_goes_over_the_first_axis_and_carries_gradients():
    x = Tensor(np.arange(6.0).reshape(2, 3), requires_grad=True)
    first, second = x
    (first * 2 + second * 3).sum().backward()
    assert np.array_equal(x.grad, [[2.0] * 3, [3.0] * 3])
    assert [float(number) for number in leaf()] == [1.0, 2.0, 3.0]
    assert list(Tensor(np.zeros((0, 3)))) == []


@pytest.mark.parametrize("use", [iter, list, len])
def test_iteration_over_a_scalar_is_an_error(use):
    with pytest.raises(TypeError):
        use(Tensor(3.0))


def test_float_and_format_take_one_number():
    loss = (leaf() * 2).sum()
    assert float(loss) == 12.0
    assert f"{loss:.3f}" == "12.000"
    assert not math.isnan(loss)
    assert math.isnan(Tensor([math.nan]))
    assert f"{loss}" == str(loss)
    with pytest.raises(TypeError, match="not one number"):
        float(leaf())
    with pytest.raises(TypeError, match="not one number"):
        f"{leaf():.3f}"


# ---- threads ----


def overlapping(block, look):
    """What ``look`` says in two threads whose blocks overlap, inside and after them, and here meanwhile and after."""
    first_in, second_in, first_out = (threading.Event() for _ in range(3))
    seen = {}

    def first():
        with block():
            first_in.set()
            second_in.wait(10)
            seen["first"] = look()
        first_out.set()
        seen["first, after"] = look()

    def second():
        first_in.wait(10)
        with block():
            second_in.set()
            first_out.wait(10)
            seen["second"] = look()
        seen["second, after"] = look()

    threads = [threading.Thread(target=run) for run in (first, second)]
    for thread in threads:
        thread.start()
    first_in.wait(10)
    seen["here, meanwhile"] = look()
    for thread in threads:
        thread.join()
    seen["here, after"] = look()
    return seen


@pytest.mark.parametrize(
    ("block", "look", "inside", "outside"),
    [
        (no_grad, graphs_are_built, False, True),
        (lambda: kernels.use("reference"), kernels.active, kernels.reference, kernels.cpu),
    ],
)
def test_no_grad_and_kernels_use_are_of_their_thread_alone(block, look, inside, outside):
    seen = overlapping(block, look)
    assert len(seen) == 6
    for name, value in seen.items():
        assert value is (inside if name in ("first", "second") else outside), name


# ---- copies ----

DUPLICATES = [copy.deepcopy, lambda x: pickle.loads(pickle.dumps(x))]


@pytest.mark.parametrize("duplicate", [*DUPLICATES, copy.copy])
@pytest.mark.parametrize("kind", [Tensor, Parameter, Buffer])
@pytest.mark.parametrize("needed", [True, False])
def test_copies_keep_numbers_type_and_requires_grad(duplicate, kind, needed):
    original = kind(np.array([1.0, 2.0]))
    original.requires_grad = needed
    again = duplicate(original)
    assert type(again) is kind
    assert again.requires_grad is needed
    assert np.array_equal(again.data, original.data)
    assert again.dtype == original.dtype
    assert not np.shares_memory(again.data, original.data)
    assert again.grad is None


@pytest.mark.parametrize("duplicate", DUPLICATES)
def test_copies_keep_gradients(rng, duplicate):
    module = dense(rng)
    optimizer = SGD(module, 0.1)
    module(Tensor(np.ones((4, 3)))).sum().backward()
    again, its_optimizer = duplicate((module, optimizer))
    for mine, other in zip(module.parameters(), again.parameters(), strict=True):
        assert np.array_equal(mine.grad, other.grad)
        assert not np.shares_memory(mine.grad, other.grad)
    optimizer.step()
    its_optimizer.step()
    assert all(np.array_equal(a, b) for a, b in zip(*(m.state_dict().values() for m in (module, again)), strict=True))


@pytest.mark.parametrize("duplicate", DUPLICATES)
def test_copies_of_a_frozen_module_are_frozen(rng, duplicate):
    module = dense(rng)
    module.weight.requires_grad = False
    assert [p.requires_grad for p in duplicate(module).parameters()] == [False, True]


@pytest.mark.parametrize("duplicate", DUPLICATES)
@pytest.mark.parametrize("order", ["pwm", "wpm", "mpw", "mwp", "pmw", "wmp"])
def test_copies_of_optimizers_of_a_part_and_the_whole_belong_together(rng, duplicate, order):
    model = Sequential(dense(rng), dense(rng, 2, 2))
    whole = SGD(model, 0.1)
    named = {"m": model, "w": whole, "p": SGD(model.layers[1], 0.1)}
    copies = dict(zip(order, duplicate([named[name] for name in order]), strict=True))
    twin, before = copies["m"], copies["m"].state_dict()
    twin(Tensor(np.ones((4, 3)))).sum().backward()
    copies["p"].step()
    changed = {name for name, array in twin.state_dict().items() if not np.array_equal(array, before[name])}
    assert changed == {"layers.1.weight", "layers.1.bias"}
    copies["w"].step()
    changed = {name for name, array in twin.state_dict().items() if not np.array_equal(array, before[name])}
    assert changed == set(before)
    assert all(np.array_equal(array, before[name]) for name, array in model.state_dict().items())


@pytest.mark.parametrize("duplicate", [*DUPLICATES, copy.copy])
@pytest.mark.parametrize("result", [lambda x: x.sum(), ops.exp, lambda x: x[1:], lambda x: x + 1])
def test_copies_of_a_result_say_that_a_graph_is_not_copied(duplicate, result):
    with pytest.raises(TypeError, match=r"graph .* detach\(\)"):
        duplicate(result(leaf()))
    assert np.array_equal(duplicate(result(leaf()).detach()).data, result(leaf()).data)


def test_copies_of_a_deep_graph_say_so_at_once():
    x = leaf()
    for _ in range(2000):
        x = x * 1.0
    with pytest.raises(TypeError, match="graph"):
        pickle.dumps(x)


# ---- memory ----


def test_a_kept_loss_keeps_no_activation():
    x = leaf()
    hidden = ops.exp(x)
    gone = weakref.ref(hidden)
    kept = (hidden * hidden).sum()
    kept.backward()
    del hidden
    gc.collect()
    assert gone() is None
    assert float(kept) == pytest.approx(float(np.exp([2.0, 4.0, 6.0]).sum()))
    with pytest.raises(RuntimeError, match="backward has been through this graph already"):
        kept.backward()


def test_moving_average_of_a_module_stays_trainable(rng):
    average = ExponentialMovingAverage(dense(rng), lambda: 0.9)
    assert isinstance(average.module, Module)
    average.step()
