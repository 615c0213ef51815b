"""The engine's rules: what a tensor holds, how gradients flow and add up, and which mistakes are errors."""

import gc

import numpy as np
import pytest

import kernels
from scratchgen import Tensor, no_grad, ops
from scratchgen.tensor import apply

both_dtypes = pytest.mark.parametrize("dtype", [np.float32, np.float64], ids=lambda dtype: dtype.__name__)
both_sets = pytest.mark.usefixtures("kernel_set")


def leaf(data, dtype=np.float64):
    return Tensor(np.array(data, dtype), requires_grad=True)


def assert_gradient(tensor, expected):
    """The gradient is an array of the tensor's shape and dtype, with these values."""
    assert isinstance(tensor.grad, np.ndarray)
    assert (tensor.grad.shape, tensor.grad.dtype) == (tensor.shape, tensor.dtype)
    np.testing.assert_allclose(tensor.grad, expected, rtol=1e-6 if tensor.dtype == np.float32 else 1e-14)


# ---- gradients flow ----


@both_sets
@both_dtypes
@pytest.mark.parametrize("data", [3.0, [3.0, -2.0]], ids=["scalar", "vector"])
def test_backward_sums_the_gradients_of_a_tensor_used_twice(data, dtype):
    a = leaf(data, dtype)
    b = a + a
    c = b * b
    c.sum().backward()
    assert_gradient(a, 8 * np.array(data))


@both_sets
def test_backward_sums_both_paths_of_a_diamond():
    a = leaf([0.5, 2.0])
    left, right = ops.exp(a), ops.log(a)
    (left * right).sum().backward()
    assert_gradient(a, np.exp(a.data) * np.log(a.data) + np.exp(a.data) / a.data)


@both_sets
def test_backward_waits_for_the_longest_path():
    """A node waits for its longest path: walked breadth first, ``a`` would pass on its gradient too early."""
    x = leaf(1.5)
    a = x * 2.0
    long = ops.square(a * 3.0 - 1.0)
    (a + long).backward()
    assert_gradient(x, 2 + 2 * (6 * 1.5 - 1) * 6)


@both_sets
def test_backward_sums_uses_of_a_leaf_and_skips_constants():
    x, w, constant = leaf([[1.0, 2.0]]), leaf([[3.0], [4.0]]), Tensor([[1.0, 5.0]], dtype=np.float64)
    (x @ w + (x * constant) @ w).sum().backward()
    assert_gradient(x, w.data.T * (1 + constant.data))
    assert_gradient(w, (x.data * (1 + constant.data)).T)
    assert constant.grad is None


def test_backward_has_no_depth_limit():
    """20,000 operations, each tensor used twice: 2^10,000 paths, each node walked once, and no recursion."""
    x = leaf(1.25, np.float32)
    y = x
    for _ in range(10_000):
        y = (y + y) * 0.5
    y.backward()
    assert_gradient(x, 1.0)
    del y
    gc.collect()


def test_tensor_of_a_deep_graph_can_be_deleted():
    y = leaf(1.25)
    for _ in range(20_000):
        y = y + 1.0
    del y
    gc.collect()


def test_backward_accumulates_gradients():
    x, w = leaf([1.0, 2.0]), leaf([3.0, 4.0])
    (x * w).sum().backward()
    (ops.square(x)).sum().backward()
    assert_gradient(x, w.data + 2 * x.data)
    assert_gradient(w, x.data)
    x.grad = None
    x.sum().backward()
    assert_gradient(x, [1.0, 1.0])


@pytest.mark.parametrize("operation", [lambda a, b: a + b, lambda a, b: a - b, lambda a, b: a * b, lambda a, b: a / b])
@pytest.mark.parametrize(
    ("left", "right"),
    [((3, 4), (4,)), ((3, 1), (1, 4)), ((), (2, 3)), ((1,), ()), ((2, 1, 4), (3, 1)), ((0, 3), (1, 3)), ((1, 1), (1,))],
)
@both_sets
def test_backward_sums_the_gradients_of_broadcast_inputs(left, right, operation):
    """The gradient of a repeated input is the sum over the places where it went."""
    rng = np.random.default_rng(0)
    a, b = leaf(rng.uniform(1, 2, left)), leaf(rng.uniform(1, 2, right))
    result = operation(a, b)
    cotangent = rng.normal(size=result.shape)
    result.backward(cotangent)
    repeated = [leaf(np.broadcast_to(tensor.data, result.shape)) for tensor in (a, b)]
    operation(*repeated).backward(cotangent)
    for tensor, full in zip((a, b), repeated, strict=True):
        expected = np.zeros(tensor.shape)
        places = np.broadcast_to(np.arange(tensor.size).reshape(tensor.shape), result.shape)  # where each number went
        np.add.at(expected.reshape(-1), places.reshape(-1), full.grad.reshape(-1))
        assert_gradient(tensor, expected)


def test_backward_takes_a_gradient_and_leaves_it_unchanged():
    x = leaf([1.0, 2.0])
    given = np.array([10.0, 100.0])
    ops.square(x).backward(given)
    assert_gradient(x, [20.0, 400.0])
    np.testing.assert_array_equal(given, [10, 100])


def test_backward_of_a_leaf_copies_the_given_gradient():
    x = leaf([1.0, 2.0])
    given = np.array([10.0, 100.0])
    x.backward(given)
    assert_gradient(x, [10.0, 100.0])
    assert not np.shares_memory(x.grad, given)


def test_backward_gives_leaves_gradients_that_share_no_memory():
    a, b, c = leaf([1.0, 2.0]), leaf([3.0, 4.0]), leaf([5.0, 6.0])
    cotangent = np.ones(2)
    ((a + b) + c.reshape(2)).backward(cotangent)
    grads = [a.grad, b.grad, c.grad, cotangent]
    assert not any(np.shares_memory(p, q) for i, p in enumerate(grads) for q in grads[:i])
    kept = a.grad
    a.sum().backward()  # a later backward makes a new array
    np.testing.assert_array_equal(kept, [1, 1])


@both_sets
@both_dtypes
def test_backward_gives_the_same_bits_for_the_same_inputs(dtype):
    def run():
        rng = np.random.default_rng(7)
        x, mu, logvar = (leaf(rng.normal(size=(32, 8)), dtype) for _ in range(3))
        w, b = leaf(rng.normal(size=(8, 8)), dtype), leaf(rng.normal(size=8), dtype)
        z = ops.reparameterize(mu, logvar, rng.normal(size=(32, 8)).astype(dtype))
        logits = ops.dense(ops.gelu(ops.dense(x, w, b, "elu")) + z, w, b)
        loss = ops.bce_with_logits(logits, rng.random((32, 8)).astype(dtype)).mean()
        (loss + ops.kl_standard_normal(mu, logvar).mean()).backward()
        return [loss.data.tobytes(), *(t.grad.tobytes() for t in (x, mu, logvar, w, b))]

    assert run() == run()


# ---- what a tensor holds ----


def test_tensor_copies_the_array_it_is_given():
    array = np.array([1.0, 2.0])
    tensor, again = Tensor(array), Tensor(Tensor(array))
    array[...] = 7
    np.testing.assert_array_equal(tensor.data, [1, 2])
    np.testing.assert_array_equal(again.data, [1, 2])


def test_bce_with_logits_copies_its_targets():
    x, targets = leaf([[0.0, 0.0]]), np.array([[0.0, 1.0]])
    loss = ops.bce_with_logits(x, targets).sum()
    targets[...] = 0.5
    loss.backward()
    assert_gradient(x, [[0.5, -0.5]])


def test_tensor_takes_arrays_of_any_memory_order():
    array = np.arange(12.0).reshape(3, 4)
    for view in (array.T, array[::-1, ::2], np.broadcast_to(array[0], (5, 4))):
        tensor = Tensor(view)
        np.testing.assert_array_equal(tensor.data, view)
        np.testing.assert_array_equal((tensor * 2.0).data, 2 * view)


def test_tensor_elements_cannot_be_assigned():
    tensor = leaf([1.0, 2.0])
    with pytest.raises(ValueError, match="read-only"):
        tensor.data[...] = 0
    with pytest.raises(TypeError, match="elements are not assigned"):
        tensor[...] = 0
    with pytest.raises(TypeError, match="elements are not assigned"):
        tensor[0] = 0
    with pytest.raises(AttributeError):
        tensor.data = np.zeros(2)
    np.testing.assert_array_equal(tensor.data, [1, 2])


def test_tensor_makes_numbers_float32_and_keeps_the_type_of_arrays():
    assert Tensor(1).dtype == Tensor([1, 2]).dtype == Tensor(np.ones(2, np.float32)).dtype == np.float32
    assert Tensor(np.ones(2)).dtype == Tensor([1.0], dtype=np.float64).dtype == np.float64
    assert Tensor(Tensor(np.ones(2)), dtype=np.float32).dtype == np.float32
    assert Tensor(np.arange(3), dtype=np.float32).dtype == np.float32


@pytest.mark.parametrize("dtype", [np.int64, np.uint8, np.bool_, np.float16, np.complex128])
def test_tensor_refuses_arrays_of_other_types(dtype):
    with pytest.raises(TypeError, match=f"float32 or float64, not {np.dtype(dtype)}"):
        Tensor(np.ones(3, dtype))
    with pytest.raises(TypeError, match=f"float32 or float64, not {np.dtype(dtype)}"):
        Tensor([1.0], dtype=dtype)
    with pytest.raises(TypeError, match=str(np.dtype(dtype))):
        Tensor([1.0]) + np.ones(1, dtype)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (None, "object: None"),
        ([1.0, None], r"object: \[1.0, None\]"),
        pytest.param(object(), "object: <object", id="object"),
        ("1", "<U1: '1'"),
        ([b"1"], "S1: "),
        (True, "bool: True"),
        ([True, False], "bool: "),
        (np.bool_(True), "bool: "),
        (np.ones(1, bool), "bool: "),
        (1j, "complex128: 1j"),
        (np.array([None]), "object: "),
    ],
    ids=str,
)
def test_tensor_refuses_what_is_no_number(value, message):
    for mistake in (
        lambda: Tensor(value),
        lambda: Tensor(value, dtype=np.float64),
        lambda: Tensor([1.0]) + value,
        lambda: ops.bce_with_logits(Tensor([1.0]), value),
    ):
        with pytest.raises(TypeError, match=f"a tensor holds float32 or float64, not .?{message}"):
            mistake()


@both_sets
@both_dtypes
def test_tensor_keeps_its_dtype_beside_python_numbers(dtype):
    x = leaf([1.0, 2.0], dtype)
    for result in (x + 1, 1 + x, x - 0.1, 0.1 - x, x * 2, 2 * x, x / 3, 3 / x, x**2, -x, x.mean(), x * [1.0, 2.0]):
        assert result.dtype == dtype
        x.grad = None
        result.backward(np.ones(result.shape, dtype))
        assert (x.grad.dtype, x.grad.shape) == (dtype, (2,))


def test_operators_refuse_mixed_float_types():
    single, double = Tensor([1.0]), Tensor(np.ones(1))
    for mix in (lambda: single + double, lambda: single * np.ones(1), lambda: np.ones(1) - single):
        with pytest.raises(TypeError, match=r"(add|multiply|subtract): inputs are float32 and float64"):
            mix()


def test_operators_take_numpy_arrays_on_the_left():
    array, x = np.array([[1.0, 2.0], [3.0, 4.0]]), leaf([[5.0, 6.0], [7.0, 8.0]])
    pairs = [
        (array + x, array + x.data),
        (array - x, array - x.data),
        (array * x, array * x.data),
        (array / x, array / x.data),
        (array @ x, array @ x.data),
        (np.float64(2.0) * x, 2 * x.data),
    ]
    for result, expected in pairs:
        assert isinstance(result, Tensor)
        assert result.requires_grad
        np.testing.assert_allclose(result.data, expected, rtol=1e-15)


def test_tensor_has_item_len_shape_and_repr():
    x = leaf([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]])
    assert (len(x), x.shape, x.ndim, x.size, x.dtype) == (2, (2, 3), 2, 6, np.float64)
    assert x.sum().item() == 21.0
    assert type(x.sum().item()) is float
    with pytest.raises(ValueError, match="size 1"):
        x.item()
    with pytest.raises(TypeError, match="unsized"):
        len(x.sum())
    assert repr(Tensor([1.0, 2.5])) == "Tensor([1.  2.5], shape (2,), float32)"
    assert repr(leaf(1.0)) == "Tensor(1., shape (), float64, requires_grad)"
    assert repr(x.sum()) == "Tensor(21., shape (), float64, made by sum)"
    assert len(repr(Tensor(np.zeros((1000, 1000))))) < 200


# ---- outside the graph ----


def test_no_grad_records_nothing():
    x = leaf([1.0, 2.0])
    with no_grad():
        with no_grad():
            pass
        y = x * 2.0
    assert (y.requires_grad, y.node) == (False, None)
    with pytest.raises(ZeroDivisionError), no_grad():
        1 / 0  # noqa: B018
    assert (x * 2.0).requires_grad
    assert (Tensor([1.0]) * 2.0).node is None


def test_detach_lets_no_gradient_through():
    x = leaf([1.0, 2.0])
    y = ops.square(x)
    (y.detach() * x).sum().backward()
    assert_gradient(x, x.data**2)
    assert not y.detach().requires_grad


# ---- mistakes ----


@both_sets
def test_backward_refuses_a_second_time_and_names_the_operation():
    x = leaf([1.0, 2.0])
    y = ops.exp(x)
    first, second = y.sum(), (y * y).sum()
    first.backward()
    with pytest.raises(RuntimeError, match=r"^sum: backward has been through this graph already"):
        first.backward()
    with pytest.raises(RuntimeError, match=r"^exp: backward has been through this graph already"):
        second.backward()  # the part that is shared


@pytest.mark.parametrize("operation", [lambda w: w * w, lambda w: w + 1.0, lambda w: w.detach() * w, ops.exp])
def test_backward_refuses_a_graph_whose_parameter_has_changed(operation):
    """As optimizers do it: write in place, and count up the version."""
    w = leaf([[1.0, 2.0]])
    loss = operation(w).sum()
    w._data *= 0.9
    w.version += 1
    with pytest.raises(RuntimeError, match=r"input of shape \(1, 2\) has been written to since the forward"):
        loss.backward()


def test_backward_refuses_a_graph_whose_frozen_input_has_changed():
    """It gets no gradient itself, but the gradients of others were saved from it."""
    x, frozen = leaf([[1.0, 2.0]]), Tensor([[3.0], [4.0]], dtype=np.float64)
    loss = (x @ frozen).sum()
    frozen._data *= 0.9
    frozen.version += 1
    with pytest.raises(RuntimeError, match=r"^matmul: an input of shape \(2, 1\) has been written to"):
        loss.backward()


def test_detach_keeps_the_values_of_a_parameter():
    """What was detached does not follow the optimizer: no gradient is computed from numbers that came later."""
    x, w = leaf([1.0, 2.0]), leaf([3.0, 4.0])
    loss = (x * w.detach()).sum()
    w._data *= 0
    w.version += 1
    loss.backward()
    assert_gradient(x, [3.0, 4.0])


@pytest.mark.parametrize(
    "move", [lambda w: w.reshape(-1), lambda w: w.transpose(0, 1), lambda w: w[:], lambda w: ops.concatenate([w])]
)
def test_layout_operations_keep_the_values_of_a_parameter(move):
    """The result has a version of its own: an optimizer's step on the parameter must not reach it."""
    x, w = leaf([[1.0, 2.0]]), leaf([[3.0, 4.0]])
    with no_grad():
        moved = move(w)
    loss = (x.reshape(*moved.shape) * moved).sum()
    w._data *= 0
    w.version += 1
    loss.backward()
    assert_gradient(x, [[3.0, 4.0]])


def test_backward_needs_a_number_or_a_fitting_gradient():
    x = leaf([1.0, 2.0])
    with pytest.raises(ValueError, match=r"a tensor of shape \(2,\) needs a gradient of that shape"):
        (x * 2.0).backward()
    with pytest.raises(ValueError, match=r"gradient \(1, 2\) does not fit the tensor \(2,\)"):
        (x * 2.0).backward(np.ones((1, 2)))
    with pytest.raises(RuntimeError, match="does not depend on anything that requires a gradient"):
        Tensor([1.0]).backward()
    assert x.grad is None
    ones = leaf([[2.0]])
    (ones * 3.0).backward()  # one number, whatever the shape
    assert_gradient(ones, [[3.0]])


X, Y = Tensor(np.ones((2, 3))), Tensor(np.ones((2, 2)))
MISFITS = {
    "add: shapes (2, 3) and (2, 2)": lambda: X + Y,
    "divide: shapes (2, 3) and (2, 2)": lambda: X / Y,
    "matmul: shapes (2, 3) and (2, 2)": lambda: X @ Y,
    "matmul: shapes (2, 3) and (1, 3, 2)": lambda: X @ Tensor(np.ones((1, 3, 2))),
    "dense: shapes (2, 3) and (2, 2) and (2,)": lambda: ops.dense(X, Y, Tensor(np.ones(2))),
    "dense: shapes (2, 2) and (2, 2) and (3,)": lambda: ops.dense(Y, Y, Tensor(np.ones(3))),
    "dropout: shapes (2, 3) and (2, 2)": lambda: ops.dropout(X, np.ones((2, 2))),
    "reparameterize: shapes (2, 3) and (2, 3) and (2, 2)": lambda: ops.reparameterize(X, X, Y),
    "bce_with_logits: shapes (2, 3) and (2, 2)": lambda: ops.bce_with_logits(X, Y),
    "gaussian_nll: shapes (2, 3) and (2, 3) and (2, 2)": lambda: ops.gaussian_nll(X, X, Y),
    "gaussian_nll_fixed: shapes (2, 3) and (3,)": lambda: ops.gaussian_nll_fixed(X, np.ones(3), 1.0),
    "squared_error: shapes (2, 3) and (2, 2)": lambda: ops.squared_error(X, Y),
    "kl_standard_normal: shapes (2, 3) and (2, 2)": lambda: ops.kl_standard_normal(X, Y),
    "softmax_cross_entropy: shapes (2, 3) and (3,)": lambda: ops.softmax_cross_entropy(X, [0, 1, 2]),
    "softmax: shapes () ": lambda: ops.softmax(Tensor(1.0)),
    "softmax: the last axis of shape (2, 0) is empty": lambda: ops.softmax(Tensor(np.ones((2, 0)))),
    "logsumexp: there is nothing to reduce over axis -1 of shape (2, 0)": lambda: ops.logsumexp(
        Tensor(np.ones((2, 0)))
    ),
    "mean: there is nothing to average over axis 1 of shape (2, 0)": lambda: Tensor(np.ones((2, 0))).mean(axis=1),
    "sum: there is no axis 2 in shape (2, 3)": lambda: X.sum(axis=2),
    "mean: there is no axis (0, 2) in shape (2, 3)": lambda: X.mean(axis=(0, 2)),
    "sum: axis (0, -2) of shape (2, 3) is named twice": lambda: X.sum(axis=(0, -2)),
    "logsumexp: there is no axis -3 in shape (2, 3)": lambda: ops.logsumexp(X, axis=-3),
    "transpose: (0, 2) is not a permutation of the axes of shape (2, 3)": lambda: X.transpose(0, 2),
    "transpose: (0, 0) is not a permutation of the axes of shape (2, 3)": lambda: X.transpose((0, 0)),
    "transpose: (0,) is not a permutation of the axes of shape (2, 3)": lambda: X.transpose(0),
    "slice: slice step cannot be zero; the shape is (2, 3)": lambda: X[::0],
    "concatenate: there are no parts": lambda: ops.concatenate([]),
    "concatenate: shapes (2, 3) and (2, 2) do not fit along axis 2": lambda: ops.concatenate([X, Y], axis=2),
    "reshape: 6 elements of shape (2, 3) do not fit (4, -1)": lambda: X.reshape(4, -1),
    "concatenate: shapes (2, 3) and (2, 2)": lambda: ops.concatenate([X, Y], axis=0),
}


@pytest.mark.parametrize("message", MISFITS)
def test_operations_name_themselves_and_all_shapes_in_errors(message):
    with pytest.raises(ValueError) as error:  # noqa: PT011  (the whole message is compared below)
        MISFITS[message]()
    assert str(error.value).startswith(message)


@pytest.mark.parametrize("index", [2, (0, 3), (0, 0, 0), "a", [0, 2], np.ones(3, bool)], ids=str)
def test_slice_names_itself_and_the_shape_in_errors(index):
    with pytest.raises(IndexError, match=r"^slice: .*; the shape is \(2, 3\)$"):
        X[index]


def test_operations_take_sizes_and_axes_as_integers_or_tuples():
    three = np.int64(3)
    for reshaped in (X.reshape(3, 2), X.reshape((3, 2)), X.reshape([three, -1]), X.reshape(three, 2)):
        np.testing.assert_array_equal(reshaped.data, np.ones((3, 2)))
    assert X.reshape((6,)).shape == X.reshape(6).shape == (6,)
    assert Tensor([1.0]).reshape(()).shape == Tensor([1.0]).reshape().shape == ()
    assert X.transpose((1, 0)).shape == X.transpose(np.int64(1), 0).shape == X.transpose().shape == (3, 2)
    assert X.sum(axis=np.int64(0)).shape == X.mean(axis=[np.int64(0)]).shape == (3,)
    assert ops.concatenate([X, X], axis=np.int64(0)).shape == (4, 3)
    for mistake in (lambda: X.reshape(3.0, 2), lambda: X.sum(axis=0.0), lambda: X.transpose("ab")):
        with pytest.raises(TypeError, match="integer"):
            mistake()


CONSTANTS = {
    "bce_with_logits": lambda x: ops.bce_with_logits(Y, x),
    "dropout": lambda x: ops.dropout(Y, x),
    "gaussian_nll_fixed": lambda x: ops.gaussian_nll_fixed(Y, x, 1.0),
    "reparameterize": lambda x: ops.reparameterize(Y, Y, x),
    "squared_error": lambda x: ops.squared_error(Y, x),
}


@pytest.mark.parametrize("name", CONSTANTS)
def test_operations_refuse_constants_that_require_a_gradient(name):
    x = leaf(np.ones((2, 2)))
    with pytest.raises(ValueError, match=rf"{name}: input \d .* takes no gradient; detach\(\) it"):
        CONSTANTS[name](x)
    CONSTANTS[name](x.detach())
    with no_grad():
        CONSTANTS[name](x)


@both_sets
def test_softmax_cross_entropy_takes_integer_labels_within_range():
    for labels in ([0, 3], [-1, 0]):
        with pytest.raises(ValueError, match=rf"labels must be in 0..2, not {min(labels)}..{max(labels)}"):
            ops.softmax_cross_entropy(X, labels)
    for labels in ([0.0, 1.0], np.ones(2), np.ones(2, np.float32), [True, False], leaf([0.0, 1.0]), Y[0]):
        with pytest.raises(TypeError, match="softmax_cross_entropy: "):
            ops.softmax_cross_entropy(X, labels)
    for given in (np.array([0, 900]), Tensor.wrap(np.array([0, 3])), Tensor.wrap(np.array([-1, 0]))):
        with pytest.raises(ValueError, match=r"labels must be in 0..2, not "):
            apply("softmax_cross_entropy", X, given)
    expected = ops.softmax_cross_entropy(X, [0, 2]).data
    for dtype in (np.uint8, np.int32, np.int64):
        for given in (np.array([0, 2], dtype), Tensor.wrap(np.array([0, 2], dtype))):
            np.testing.assert_array_equal(ops.softmax_cross_entropy(X, given).data, expected)


@both_sets
def test_operations_refuse_arithmetic_with_labels():
    labels = Tensor.wrap(np.array([1, 2]))
    for mistake in (lambda: labels + Y[0], lambda: Y[0] * labels, lambda: ops.squared_error(Y[0], labels)):
        with pytest.raises(TypeError, match="inputs are float64 and int64"):
            mistake()


@both_sets
def test_softmax_cross_entropy_of_no_labels_is_empty():
    assert ops.softmax_cross_entropy(Tensor(np.ones((0, 3))), np.zeros(0, int)).shape == (0,)


def test_operations_check_their_parameters():
    with pytest.raises(ValueError, match="activation 'gelu' is not one of identity, relu"):
        ops.dense(X, Tensor(np.ones((3, 2))), Tensor(np.ones(2)), "gelu")
    with pytest.raises(ValueError, match="slope must be above 0, not 0"):
        ops.leaky_relu(X, 0)
    for sigma in (0.0, -1.0, np.nan):
        with pytest.raises(ValueError, match="sigma must be above 0"):
            ops.gaussian_nll_fixed(X, X, sigma)


def test_tensor_converts_to_a_numpy_array():
    x = Tensor([1.0, 2.0])
    array = np.asarray(x)
    assert array.dtype == np.float32
    assert array.tolist() == [1.0, 2.0]
    array[0] = 5.0
    assert x.data[0] == 1.0


def test_power_refuses_an_exponent_that_is_no_number():
    for exponent in (Tensor([2.0]), np.ones(1), None, "2"):
        with pytest.raises(TypeError, match="exponent is a number"):
            Tensor([1.0]) ** exponent


def test_slice_copies_its_index_array():
    x, index = Tensor([1.0, 2.0, 3.0], requires_grad=True), np.array([0, 0])
    y = x[index]
    index[:] = 2
    y.sum().backward()
    assert x.grad.tolist() == [2.0, 0.0, 0.0]


@pytest.mark.parametrize("inputs", [(), (1.0,), (1.0, 2.0, 3.0)])
def test_apply_refuses_a_wrong_number_of_inputs(inputs):
    with pytest.raises(TypeError, match=f"add takes 2 inputs, not {len(inputs)}"):
        apply("add", *inputs)


def test_backward_computes_with_the_kernel_set_of_the_forward(monkeypatch):
    """Whatever set is in use by then, for sums of gradients and broadcast inputs too."""
    called = set()

    def noted(name, kernel):
        return lambda *arguments: called.add(name) or kernel(*arguments)

    x, row = leaf(np.ones((3, 4)), np.float64), leaf(np.ones(4), np.float64)
    with kernels.use(kernels.wrapped(kernels.reference, noted)):
        loss = (ops.tanh(x + row) * x).sum()
    called.clear()
    with kernels.use("cpu"), monkeypatch.context() as patch:
        patch.setattr(kernels.cpu, "elementwise", None)  # whoever asks this set for a kernel fails
        patch.setattr(kernels.cpu, "reductions", None)
        loss.backward()
    assert {"elementwise.tanh_backward", "elementwise.multiply", "elementwise.add", "reductions.sum_axis"} <= called
    np.testing.assert_allclose(row.grad, 3 * (1 - np.tanh(2) ** 2), rtol=1e-12)
