"""The forwards against independent definitions, which finite differences cannot see; extremes, NaN, and moments.

A definition here is the formula of a textbook in float64, not rearranged: it overflows where an operation must not.
"""

import math
from statistics import NormalDist

import numpy as np
import pytest
from numpy.polynomial.hermite_e import hermegauss

from scratchgen import Tensor, ops
from scratchgen.gradcheck import gradcheck
from scratchgen.op import REGISTRY
from scratchgen.tensor import apply

both_dtypes = pytest.mark.parametrize("dtype", [np.float32, np.float64], ids=lambda dtype: dtype.__name__)


# ---- definitions ----


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def elu(x):
    return np.where(x > 0, x, np.exp(x) - 1)


def softplus(x):
    return np.log(1 + np.exp(x))


def relu(x):
    return (x + abs(x)) / 2


def tanh(x):
    return (np.exp(x) - np.exp(-x)) / (np.exp(x) + np.exp(-x))


def gelu(x):
    return x * np.vectorize(NormalDist().cdf)(x)


def softmax(x):
    return np.exp(x) / np.exp(x).sum(-1, keepdims=True)


def bce(logits, targets):
    p = sigmoid(logits)
    return -(targets * np.log(p) + (1 - targets) * np.log(1 - p)).sum(-1)


def normal_density(x, mean, sigma):
    return np.exp(-(((x - mean) / sigma) ** 2) / 2) / (sigma * math.sqrt(2 * math.pi))


def kl(mu, logvar):
    """The mean of log q - log p under q, by quadrature, which is exact for these polynomials in the noise."""
    noise, weights = hermegauss(5)
    sigma = np.sqrt(np.exp(logvar))
    z = mu[..., None] + sigma[..., None] * noise
    log_ratio = np.log(normal_density(z, mu[..., None], sigma[..., None]) / normal_density(z, 0.0, 1.0))
    return (log_ratio @ weights).sum(-1) / math.sqrt(2 * math.pi)


def cross_entropy(logits, labels):
    return -np.log(np.array([row[label] for row, label in zip(softmax(logits), labels, strict=True)]))


def batch_norm(x, gamma, beta):
    mean = np.einsum("bn->n", x) / len(x)
    variance = np.einsum("bn,bn->n", x, x) / len(x) - mean**2
    return gamma * (x - mean) / (variance + 0.1) ** 0.5 + beta


def dense_of(activation):
    return lambda x, w, b: activation(np.einsum("bi,io->bo", x, w) + b)


def conv2d(x, w, bias=0.0):
    """One window after the other, with steps of 2 rows and 1 column, and a row of zeros on either side."""
    framed = np.pad(x, ((0, 0), (1, 1), (0, 0), (0, 0)))
    windows = [[framed[:, 2 * p : 2 * p + 3, q : q + 2] for q in range(3)] for p in range(3)]
    return np.array([[np.tensordot(window, w, 3) for window in row] for row in windows]).transpose(2, 0, 1, 3) + bias


def conv_transpose2d(x, w, bias=0.0):
    """Each pixel of x is spread over its window; the result of 4 columns and 5 rows is in a frame of a row of zeros."""
    framed = np.zeros((len(x), 7, 4, w.shape[2]))
    for p, q in np.ndindex(3, 3):
        framed[:, 2 * p : 2 * p + 3, q : q + 2] += np.tensordot(x[:, p, q], w, (1, 3))
    return framed[:, 1:-1] + bias


def blocks(x, reduced):
    """Of each block of two by two pixels."""
    rows, columns = x.shape[1] // 2, x.shape[2] // 2
    return reduced(x[:, : 2 * rows, : 2 * columns].reshape(len(x), rows, 2, columns, 2, x.shape[3]), (2, 4))


RNG = np.random.default_rng(0)
IMAGES, SMALL = RNG.uniform(-1, 1, (2, 5, 4, 2)), RNG.uniform(-1, 1, (2, 3, 3, 4))
WINDOW, BIASES, STEPS = (
    RNG.uniform(-1, 1, (3, 2, 2, 4)),
    RNG.uniform(-1, 1, (4,)),
    {"stride": (2, 1), "padding": (1, 0)},
)
A, B, C = RNG.uniform(-3, 3, (3, 4, 5))
POSITIVE, UNIT = RNG.uniform(0.5, 3, (4, 5)), RNG.random((4, 5))
W, BIAS, MASK = RNG.uniform(-1, 1, (5, 3)), RNG.uniform(-1, 1, 3), RNG.integers(0, 2, (4, 5)) / 0.6
LABELS, PICKED = np.array([4, 0, 2, 2]), np.array([2, 0, 2])

# name of the operation, then of the case: (operation, definition, *inputs)
CASES = {
    "add": (lambda a, b: a + b, np.add, A, B),
    "subtract": (lambda a, b: a - b, lambda a, b: a + -b, A, B),
    "multiply": (lambda a, b: a * b, np.multiply, A, B),
    "divide": (lambda a, b: a / b, lambda a, b: a * b**-1.0, A, POSITIVE),
    "scale": (lambda x: -x, lambda x: 0 - x, A),
    "square": (ops.square, lambda x: x * x, A),
    "sqrt": (ops.sqrt, lambda x: np.exp(np.log(x) / 2), POSITIVE),
    "power": (lambda x: x**1.7, lambda x: np.exp(1.7 * np.log(x)), POSITIVE),
    "power-whole": (lambda x: x**3, lambda x: x * x * x, A),
    "exp": (ops.exp, np.vectorize(math.exp), A),
    "log": (ops.log, np.vectorize(math.log), POSITIVE),
    "relu": (ops.relu, relu, A),
    "leaky_relu": (lambda x: ops.leaky_relu(x, 0.2), lambda x: np.maximum(x, 0.2 * x), A),
    "elu": (ops.elu, elu, A),
    "sigmoid": (ops.sigmoid, sigmoid, A),
    "tanh": (ops.tanh, tanh, A),
    "softplus": (ops.softplus, softplus, A),
    "gelu": (ops.gelu, gelu, A),
    "clip": (lambda x: ops.clip(x, -1, 2), lambda x: x + np.fmax(-1 - x, 0) - np.fmax(x - 2, 0), A),
    "abs": (ops.abs, lambda x: np.sqrt(x * x), A),
    "maximum": (ops.maximum, lambda a, b: (a + b + abs(a - b)) / 2, A, B),
    "minimum": (ops.minimum, lambda a, b: (a + b - abs(a - b)) / 2, A, B),
    "where": (ops.where, np.where, UNIT.round(), A, B),
    "dropout": (ops.dropout, np.multiply, A, MASK),
    "reparameterize": (ops.reparameterize, lambda mu, v, noise: mu + np.sqrt(np.exp(v)) * noise, A, B, C),
    "sum": (lambda x: x.sum(), lambda x: np.einsum("ij->", x), A),
    "mean": (lambda x: x.mean(axis=0), lambda x: np.einsum("ij->j", x) / 4, A),
    "logsumexp": (ops.logsumexp, lambda x: np.log(np.exp(x).sum(-1)), A),
    "logsumexp-first": (lambda x: ops.logsumexp(x, axis=0), lambda x: np.log(np.exp(x).sum(0)), A),
    "max": (ops.max, lambda x: np.sort(x, axis=None)[-1], A),
    "max-last": (lambda x: ops.max(x, axis=-1), lambda x: np.sort(x, axis=-1)[..., -1], A),
    "min": (lambda x: ops.min(x, axis=0), lambda x: -np.sort(-x, axis=0)[-1], A),
    "softmax": (ops.softmax, softmax, A),
    "batch_norm": (lambda *xgb: ops.batch_norm(*xgb, 0.1), batch_norm, A, W[:, 0], W[:, 1]),
    "conv2d": (lambda x, w: ops.conv2d(x, w, **STEPS), conv2d, IMAGES, WINDOW),
    "conv2d_bias": (
        lambda x, w, b: ops.conv2d(x, w, b, "tanh", **STEPS),
        lambda x, w, b: np.tanh(conv2d(x, w, b)),
        *(IMAGES, WINDOW, BIASES),
    ),
    "conv_transpose2d": (lambda x, w: ops.conv_transpose2d(x, w, **STEPS), conv_transpose2d, SMALL, WINDOW),
    "conv_transpose2d_bias": (
        lambda x, w, b: ops.conv_transpose2d(x, w, b, "sigmoid", **STEPS),
        lambda x, w, b: sigmoid(conv_transpose2d(x, w, b)),
        *(SMALL, WINDOW, BIASES[:2]),
    ),
    "avg_pool2d": (lambda x: ops.avg_pool2d(x, 2), lambda x: blocks(x, np.sum) / 4, IMAGES),
    "max_pool2d": (lambda x: ops.max_pool2d(x, 2), lambda x: blocks(x, np.max), IMAGES),
    "upsample2d": (lambda x: ops.upsample2d(x, (3, 2)), lambda x: np.kron(x, np.ones((1, 3, 2, 1))), IMAGES),
    "pad2d": (lambda x: ops.pad2d(x, (1, 2)), lambda x: np.pad(x, ((0, 0), (1, 1), (2, 2), (0, 0))), IMAGES),
    "log_softmax": (ops.log_softmax, lambda x: np.log(softmax(x)), A),
    "matmul": (lambda a, b: a @ b, lambda a, b: np.einsum("ij,jk->ik", a, b), A, W),
    "matmul-batched": (
        lambda a, b: a.reshape(2, 2, 5) @ b.reshape(2, 5, 2),
        lambda a, b: np.einsum("bij,bjk->bik", a.reshape(2, 2, 5), b.reshape(2, 5, 2)),
        A,
        B,
    ),
    "dense": (ops.dense, dense_of(lambda y: y), A, W, BIAS),
    "dense-relu": (lambda *xwb: ops.dense(*xwb, "relu"), dense_of(relu), A, W, BIAS),
    "dense-elu": (lambda *xwb: ops.dense(*xwb, "elu"), dense_of(elu), A, W, BIAS),
    "dense-sigmoid": (lambda *xwb: ops.dense(*xwb, "sigmoid"), dense_of(sigmoid), A, W, BIAS),
    "dense-tanh": (lambda *xwb: ops.dense(*xwb, "tanh"), dense_of(tanh), A, W, BIAS),
    "dense-softplus": (lambda *xwb: ops.dense(*xwb, "softplus"), dense_of(softplus), A, W, BIAS),
    "bce_with_logits": (ops.bce_with_logits, bce, A, UNIT),
    "gaussian_nll": (
        ops.gaussian_nll,
        lambda mean, logvar, x: -np.log(normal_density(x, mean, np.exp(logvar / 2)).prod(-1)),
        A / 3,
        B / 3,
        C,
    ),
    "gaussian_nll_fixed": (
        lambda mean, x: ops.gaussian_nll_fixed(mean, x, 0.7),
        lambda mean, x: -np.log(normal_density(x, mean, 0.7).prod(-1)),
        A,
        B,
    ),
    "squared_error": (ops.squared_error, lambda p, t: np.linalg.norm(p - t, axis=-1) ** 2, A, B),
    "softmax_cross_entropy": (ops.softmax_cross_entropy, cross_entropy, A, LABELS),
    "kl_standard_normal": (ops.kl_standard_normal, kl, A, B),
    "reshape": (lambda x: x.reshape(2, -1), lambda x: x.reshape(2, 10), A),
    "transpose": (lambda x: x.transpose(), lambda x: x.T, A),
    "slice": (lambda x: x[1:, ::-2], lambda x: x[1:, ::-2], A),
    "slice-array": (lambda x: x[PICKED], lambda x: x[PICKED], A),
    "slice-mask": (lambda x: x[UNIT > 0.5], lambda x: x[UNIT > 0.5], A),
    "slice-number": (lambda x: x[..., 1], lambda x: x[..., 1], A),
    "concatenate": (lambda a, b: ops.concatenate([a, b], axis=-1), lambda a, b: np.concatenate([a, b], -1), A, W[:4]),
    "stack": (
        lambda a, b: ops.stack([a, b], axis=-1),
        lambda a, b: np.concatenate([a[..., None], b[..., None]], -1),
        A,
        B,
    ),
    "concatenate-three": (lambda *parts: ops.concatenate(parts), lambda *parts: np.concatenate(parts), A, B, C),
}
every_case = pytest.mark.parametrize("case", CASES)


def as_dtype(array, dtype):
    return array if array.dtype.kind == "i" else array.astype(dtype)


def wrapped(array):
    return array if array.dtype.kind == "i" else Tensor(array)


def test_operations_each_have_a_definition_here():
    functions = {name for name in ops.__all__ if callable(getattr(ops, name))}
    assert {name.split("-")[0] for name in CASES} == functions | set(REGISTRY)


@every_case
@both_dtypes
@pytest.mark.usefixtures("kernel_set")
def test_forward_matches_its_definition(case, dtype):
    operation, definition, *inputs = CASES[case]
    inputs = [as_dtype(array, dtype) for array in inputs]
    out = operation(*map(wrapped, inputs))
    expected = definition(*(as_dtype(array, np.float64) for array in inputs))
    assert (out.dtype, out.shape) == (dtype, expected.shape)
    tolerance = 1e-13 if dtype == np.float64 else 2e-6  # up to 20 roundings of 6e-8 in a sum; polynomials add 2e-7
    np.testing.assert_allclose(out.data, expected, rtol=0, atol=tolerance * np.abs(expected).max(initial=1.0))


@every_case
@both_dtypes
@pytest.mark.usefixtures("kernel_set")
def test_forward_passes_nan_on_where_its_definition_does(case, dtype):
    """At every element of every input, NaN shows in the output just where it does in the definition."""
    operation, definition, *inputs = CASES[case]
    seen = False
    for i, array in enumerate(inputs):
        for element in range(array.size if array.dtype.kind == "f" else 0):
            changed = [as_dtype(a, dtype).copy() for a in inputs]
            changed[i].reshape(-1)[element] = np.nan
            with np.errstate(invalid="ignore"):
                out, expected = operation(*map(wrapped, changed)).data, definition(*changed)
            np.testing.assert_array_equal(np.isnan(out), np.isnan(expected))
            seen |= np.isnan(expected).any()
    assert seen


# ---- shapes ----


@pytest.mark.parametrize("keepdims", [False, True])
@pytest.mark.parametrize("axis", [None, 0, 1, 2, -1, -3, (), (0, 1), (1, 2), (2, 0), (-1, 0), (0, 1, 2)], ids=str)
@pytest.mark.parametrize("shape", [(2, 3, 4), (1, 3, 1), (2, 1, 5), (0, 3, 2)], ids=str)
@pytest.mark.usefixtures("kernel_set")
def test_sum_and_mean_match_numpy_over_every_axis(shape, axis, keepdims):
    data = np.random.default_rng(0).normal(size=shape)
    total = Tensor(data).sum(axis, keepdims)
    expected = data.sum(axis, keepdims=keepdims)
    assert total.shape == np.shape(expected)
    np.testing.assert_allclose(total.data, expected, rtol=1e-13, atol=1e-13)
    if data.size:
        mean = Tensor(data).mean(axis, keepdims).data
        np.testing.assert_allclose(mean, data.mean(axis, keepdims=keepdims), rtol=1e-13, atol=1e-13)


@pytest.mark.usefixtures("kernel_set")
def test_sum_and_mean_of_a_number_are_the_number():
    assert Tensor(3.0).sum().item() == Tensor(3.0).mean().item() == 3.0


@pytest.mark.parametrize("axes", [(0, 1, 2), (2, 0, 1), (1, 2, 0), (0, -1, 1), (-1, -3, -2)], ids=str)
def test_transpose_backward_inverts_the_permutation(axes):
    """The axes of a cube: a wrong way back keeps the shape."""
    rng = np.random.default_rng(0)
    data, cotangent = rng.normal(size=(2, 3, 3, 3))
    x = Tensor(data, requires_grad=True)
    y = x.transpose(*axes)
    y.backward(cotangent)
    np.testing.assert_array_equal(y.data, data.transpose(axes))
    np.testing.assert_array_equal(x.grad.transpose(axes), cotangent)


EVERY_AXIS = [None, 0, 1, 2, -1, -3, (), (0, 1), (2, 0), (-1, 0), (0, 1, 2)]


@pytest.mark.parametrize("axis", EVERY_AXIS, ids=str)
def test_logsumexp_matches_numpy_along_every_axis(axis):
    data = np.random.default_rng(0).normal(size=(2, 3, 4))
    np.testing.assert_allclose(ops.logsumexp(Tensor(data), axis).data, np.log(np.exp(data).sum(axis)), rtol=1e-13)


@pytest.mark.parametrize("keepdims", [False, True])
@pytest.mark.parametrize("axis", EVERY_AXIS, ids=str)
@pytest.mark.parametrize("name", ["max", "min"])
@pytest.mark.usefixtures("kernel_set")
def test_max_and_min_along_every_axis(name, axis, keepdims):
    data = np.random.default_rng(0).normal(size=(2, 3, 4))
    x = Tensor(data, requires_grad=True)
    out = getattr(ops, name)(x, axis, keepdims)
    expected = getattr(np, name)(data, axis=axis, keepdims=keepdims)
    np.testing.assert_array_equal(out.data, expected)
    assert out.shape == np.shape(expected)
    out.backward(np.full(out.shape, 3.0))
    np.testing.assert_array_equal(x.grad, 3.0 * (data == getattr(np, name)(data, axis=axis, keepdims=True)))


@pytest.mark.parametrize("name", ["max", "min", "logsumexp"])
def test_max_min_and_logsumexp_of_nothing_say_so(name):
    operation = getattr(ops, name)
    assert operation(Tensor(np.ones((0, 3))), axis=1).shape == (0,)
    with pytest.raises(ValueError, match=rf"^{name}: there is nothing to reduce over axis 0 of shape \(0, 3\)"):
        operation(Tensor(np.ones((0, 3))), axis=0)
    with pytest.raises(ValueError, match=rf"^{name}: there is no axis 2 in shape \(0, 3\)"):
        operation(Tensor(np.ones((0, 3))), axis=2)


@pytest.mark.parametrize("axis", [0, 1, 2, -1, -2, -3])
def test_stack_along_every_axis(axis):
    parts = np.random.default_rng(0).normal(size=(4, 2, 3))
    np.testing.assert_array_equal(ops.stack([Tensor(part) for part in parts], axis).data, np.stack(parts, axis))


@pytest.mark.parametrize(
    ("shapes", "axis", "says"),
    [
        ([], 0, "there are no parts"),
        ([(2, 3), (3, 2)], 0, r"shapes \(2, 3\) and \(3, 2\) are not all the same"),
        ([(2,), (2,)], 2, r"there is no axis 2 in a stack of shapes \(2,\)"),
    ],
)
def test_stack_says_what_does_not_fit(shapes, axis, says):
    with pytest.raises(ValueError, match=f"^stack: {says}"):
        ops.stack([Tensor(np.ones(shape)) for shape in shapes], axis)


def test_stack_takes_an_iterator():
    np.testing.assert_array_equal(ops.stack(Tensor([i, i]) for i in range(3)).data, [[0, 0], [1, 1], [2, 2]])


def test_minimum_and_abs_take_what_maximum_takes():
    assert ops.minimum(np.uint8(3), Tensor([5.0])).data == 3
    assert ops.minimum(7, Tensor([5.0], dtype=np.float64)).data == 5
    np.testing.assert_array_equal(ops.minimum([1.0, 2.0], [0.0, 3.0]).data, [0, 2])
    np.testing.assert_array_equal(ops.abs([1.0, -2.0]).data, [1, 2])
    for operation in (ops.minimum, ops.maximum):
        with pytest.raises(TypeError, match="holds float32 or float64, not bool"):
            operation(True, Tensor([5.0]))


@pytest.mark.parametrize("condition", [[1, -1], [0.5, 1.0], np.array([1e-50, 1.0]), ["a", "b"]])
def test_where_refuses_a_condition_that_is_not_boolean(condition):
    with pytest.raises(TypeError, match="where: the condition holds booleans, such as x > 0"):
        ops.where(condition, Tensor([1.0, 1.0]), 0.0)


@pytest.mark.parametrize("compute", [lambda n: n * 0.5, lambda n: n.mean(), ops.exp, lambda n: n + n, lambda n: n / 2])
def test_operations_refuse_whole_numbers(compute):
    with pytest.raises(TypeError, match="holds int64; convert it"):
        compute(Tensor.wrap(np.array([1, 2, 3])))


def test_clip_takes_numbers_as_bounds():
    x = Tensor([0.1], requires_grad=True)
    ops.clip(x, np.float32(0), np.float64(0.1)).sum().backward()
    assert x.grad == 1
    assert ops.clip(x, Tensor(0.0), Tensor(0.05)).data == np.float32(0.05)


def test_clip_refuses_bounds_out_of_order():
    for low, high in ((2, 1), (math.nan, 1)):
        with pytest.raises(ValueError, match=f"^clip: the bounds {low} and {high} are not in order"):
            ops.clip(Tensor([1.0]), low, high)


COMPOSITES = {  # of operations that are checked themselves
    "abs": (ops.abs, A),
    "minimum": (ops.minimum, A, B),
    "max": (lambda x: ops.max(x, axis=(0, 2), keepdims=True), A.reshape(2, 2, 5)),
    "min": (lambda x: ops.min(x, axis=0), A),
    "stack": (lambda a, b: ops.stack([a, b], axis=1), A, B),
    "log_softmax": (ops.log_softmax, A),
    "logsumexp": (lambda x: ops.logsumexp(x, axis=0), A),
    "where": (lambda a, b: ops.where(UNIT > 0.5, a, b), A, B),
}


@pytest.mark.parametrize("name", COMPOSITES)
@pytest.mark.usefixtures("kernel_set")
def test_composite_operations_have_the_gradient_of_finite_differences(name):
    function, *inputs = COMPOSITES[name]
    gradcheck(function, *inputs)


@pytest.mark.usefixtures("kernel_set")
def test_bce_with_logits_keeps_leading_dimensions():
    """Losses see any leading shape as rows: none, one, or two dimensions."""
    rng = np.random.default_rng(0)
    logits, targets = rng.normal(size=(2, 3, 5)), rng.random((2, 3, 5))
    for index in (np.s_[:], np.s_[0], np.s_[0, 0]):
        loss = ops.bce_with_logits(Tensor(logits[index]), targets[index])
        assert loss.shape == logits[index].shape[:-1]
        np.testing.assert_allclose(loss.data, bce(logits[index], targets[index]), rtol=1e-13)


@both_dtypes
@pytest.mark.usefixtures("kernel_set")
def test_softmax_cross_entropy_of_an_empty_batch(dtype):
    leaf = Tensor(np.zeros((0, 3), dtype), requires_grad=True)
    for labels in ([], (), np.zeros(0, np.int64)):
        out = ops.softmax_cross_entropy(leaf, labels)
        assert (out.shape, out.dtype) == ((0,), dtype)
        out.backward(np.zeros(0))
        assert leaf.grad.shape == (0, 3)
    assert ops.softmax_cross_entropy(leaf.reshape(2, 0, 3), [[], []]).shape == (2, 0)


# ---- extremes ----


def value_and_gradient(operation, x, dtype):
    """What the operation gives, and the gradient of its sum."""
    leaf = Tensor(np.array(x, dtype), requires_grad=True)
    out = operation(leaf)
    out.backward(np.ones(out.shape, dtype))
    return out.data, leaf.grad


# operation: (x, its value, its gradient), to the last bit
EXTREMES = {
    "bce_with_logits": (
        lambda x: ops.bce_with_logits(x, np.array([[1], [0], [1], [0]], x.dtype)),
        [[1000], [1000], [-1000], [-1000]],
        [0, 1000, 1000, 0],
        [[0], [1], [-1], [0]],
    ),
    "sigmoid": (ops.sigmoid, [1000, -1000, 1e30, -1e30], [1, 0, 1, 0], [0, 0, 0, 0]),
    "tanh": (ops.tanh, [1000, -1000, 1e30, -1e30], [1, -1, 1, -1], [0, 0, 0, 0]),
    "softplus": (ops.softplus, [1000, -1000, 1e30, -1e30], [1000, 0, np.float32(1e30), 0], [1, 0, 1, 0]),
    "elu": (ops.elu, [1000, -1000], [1000, -1], [1, 0]),
    "gelu": (ops.gelu, [1000, -1000], [1000, 0], [1, 0]),
    "softmax": (ops.softmax, [[1000, -1000], [-1000, -1000]], [[1, 0], [0.5, 0.5]], [[0, 0], [0, 0]]),
    "logsumexp": (ops.logsumexp, [[1000, -1000], [-1000, -3000]], [1000, -1000], [[1, 0], [1, 0]]),
    "log_softmax": (ops.log_softmax, [[1000, -1000]], [[0, -2000]], [[-1, 1]]),
    "softmax_cross_entropy": (
        lambda x: ops.softmax_cross_entropy(x, [0, 1]),
        [[1000, -1000], [1000, -1000]],
        [0, 2000],
        [[0, 0], [1, -1]],
    ),
}


@both_dtypes
@pytest.mark.parametrize("name", EXTREMES)
@pytest.mark.usefixtures("kernel_set")
def test_operations_are_exact_at_extreme_inputs(name, dtype):
    operation, x, value, gradient = EXTREMES[name]
    x, value = np.array(x, np.float32), np.array(value, np.float32)  # 1e30 as a float32, in float64 too
    with np.errstate(over="ignore"):
        actual_value, actual_gradient = value_and_gradient(operation, x, dtype)
    np.testing.assert_array_equal(actual_value, value)
    np.testing.assert_array_equal(actual_gradient, gradient)


@both_dtypes
@pytest.mark.usefixtures("kernel_set")
def test_logsumexp_of_equal_large_numbers_is_accurate(dtype):
    value, gradient = value_and_gradient(ops.logsumexp, [[1000.0] * 4, [-1000.0] * 4], dtype)
    np.testing.assert_allclose(value, [1000 + math.log(4), -1000 + math.log(4)], rtol=2 * np.finfo(dtype).eps)
    np.testing.assert_array_equal(gradient, np.full((2, 4), 0.25))


# Numbers of every size up to 1e4, and rows of neighbours there: results must not round to the digits of these.
WIDE = np.concatenate([-np.geomspace(1e4, 1e-4, 999), np.geomspace(1e-4, 1e4, 999)]).astype(np.float32)
ROWS = (np.array([[1e4], [-1e4], [30], [0]]) + np.array([0, -1, -9, 2.5])).astype(np.float32)


def log_sum(x):
    return np.logaddexp.reduce(x, -1, keepdims=True)


# the operation; its definition in float64, without overflow; the relative error allowed
WIDE_CASES = {
    "sigmoid": (ops.sigmoid, lambda x: np.exp(-np.logaddexp(0, -x)), WIDE, 5e-7),
    "softplus": (ops.softplus, lambda x: np.logaddexp(0, x), WIDE, 5e-7),
    "tanh": (ops.tanh, np.tanh, WIDE, 5e-7),
    "elu": (ops.elu, lambda x: np.where(x > 0, x, np.expm1(np.minimum(x, 0))), WIDE, 5e-7),
    "gelu": (ops.gelu, lambda x: x * np.vectorize(math.erfc)(-x / math.sqrt(2)) / 2, WIDE, 3e-5),  # x^2 eps in e^-x^2/2
    **{
        f"bce_with_logits of {t}": (
            lambda x, t=t: ops.bce_with_logits(x, np.full(x.shape, t, np.float32)),
            lambda x, t=t: (t * np.logaddexp(0, -x) + (1 - t) * np.logaddexp(0, x))[:, 0],
            WIDE[:, None],
            5e-7,
        )
        for t in (0, 1, 0.25)
    },
    "logsumexp": (ops.logsumexp, lambda x: log_sum(x)[:, 0], ROWS, 5e-7),
    "softmax": (ops.softmax, lambda x: np.exp(x - log_sum(x)), ROWS, 5e-7),
    "log_softmax": (ops.log_softmax, lambda x: x - log_sum(x), ROWS, 5e-7),
    "softmax_cross_entropy": (
        lambda x: ops.softmax_cross_entropy(x, [0, 1, 3, 3]),
        lambda x: (log_sum(x) - x)[range(4), [0, 1, 3, 3]],
        ROWS,
        1e-6,
    ),
}


@pytest.mark.parametrize("name", WIDE_CASES)
@pytest.mark.usefixtures("kernel_set")
def test_large_numbers_keep_the_relative_error_small(name):
    operation, definition, x, tolerance = WIDE_CASES[name]
    expected = definition(x.astype(np.float64))
    np.testing.assert_allclose(operation(Tensor(x)).data, expected, rtol=tolerance, atol=1e-37)  # below: 0


@pytest.mark.usefixtures("kernel_set")
def test_gradients_at_large_numbers_keep_the_relative_error_small():
    expected = np.exp(ROWS.astype(np.float64) - log_sum(ROWS.astype(np.float64)))
    _, gradient = value_and_gradient(ops.logsumexp, ROWS, np.float32)
    np.testing.assert_allclose(gradient, expected, rtol=5e-7)
    _, gradient = value_and_gradient(lambda x: ops.softmax_cross_entropy(x, [0, 1, 3, 3]), ROWS, np.float32)
    np.testing.assert_allclose(gradient, expected - np.eye(4)[[0, 1, 3, 3]], rtol=5e-7)


@both_dtypes
@pytest.mark.usefixtures("kernel_set")
def test_activations_have_their_documented_derivative_at_zero(dtype):
    for operation, at_zero in ((ops.relu, 0), (ops.elu, 1), (lambda x: ops.leaky_relu(x, 0.25), 0.25)):
        value, gradient = value_and_gradient(operation, [0.0, -0.0], dtype)
        np.testing.assert_array_equal(value, 0)
        np.testing.assert_array_equal(gradient, at_zero)


WHOLE_POWERS = {  # exponent: (the power, its derivative)
    0: (lambda x: 0 * x + 1, lambda x: 0 * x),
    1: (lambda x: x, lambda x: 0 * x + 1),
    2: (lambda x: x * x, lambda x: 2 * x),
    3: (lambda x: x * x * x, lambda x: 3 * x * x),
    -1: (lambda x: 1 / x, lambda x: -1 / (x * x)),
    -2: (lambda x: 1 / (x * x), lambda x: -2 / (x * x * x)),
}


@both_dtypes
@pytest.mark.parametrize("exponent", [0, 0.0, 1, 2, 3, -1, -2], ids=repr)
@pytest.mark.usefixtures("kernel_set")
def test_power_raises_zero_and_negative_numbers_to_whole_exponents(exponent, dtype):
    x = np.array([-2.0, -0.5, 1.5] if exponent < 0 else [-2.0, -0.5, -0.0, 0.0, 1.5])
    value, gradient = value_and_gradient(lambda t: t**exponent, x, dtype)
    power, derivative = WHOLE_POWERS[exponent]
    np.testing.assert_allclose(value, power(x), rtol=4 * np.finfo(dtype).eps)
    np.testing.assert_allclose(gradient, derivative(x), rtol=4 * np.finfo(dtype).eps)


@both_dtypes
@pytest.mark.usefixtures("kernel_set")
def test_kl_standard_normal_is_accurate_near_zero(dtype):
    """Gradients to the last bits however near; the value to a rounding of each logvar, though it is logvar^2 / 4."""
    eps, signs = np.finfo(dtype).eps, np.where(np.arange(200) % 2, 1, -1)
    logvar = (signs * np.geomspace(1e-12, 0.5, 200)).reshape(20, 10).astype(dtype)
    leaf = Tensor(logvar, requires_grad=True)
    out = ops.kl_standard_normal(Tensor(np.zeros_like(logvar)), leaf)
    out.backward(np.ones(20, dtype))
    exact = logvar.astype(np.float64)
    np.testing.assert_allclose(leaf.grad, np.expm1(exact) / 2, rtol=4 * eps)
    series = sum(exact**n / math.factorial(n) for n in range(2, 20)) / 2
    assert (abs(out.data - series.sum(1)) <= 2 * eps * abs(exact).sum(1)).all()


# ---- what the losses are to each other ----


@pytest.mark.usefixtures("kernel_set")
def test_gaussian_nll_fixed_has_the_gradient_of_least_squares():
    """Its gradient is that of |x - mean|^2 / 2, over sigma^2."""
    rng = np.random.default_rng(0)
    mean, x, cotangent = rng.normal(size=(6, 7)), rng.normal(size=(6, 7)), rng.normal(size=6)
    gaussian, squares = Tensor(mean, requires_grad=True), Tensor(mean, requires_grad=True)
    ops.gaussian_nll_fixed(gaussian, x, 0.3).backward(cotangent)
    (ops.squared_error(squares, x) * 0.5).backward(cotangent)
    np.testing.assert_allclose(gaussian.grad, squares.grad / 0.3**2, rtol=1e-12)


@pytest.mark.usefixtures("kernel_set")
def test_gaussian_nll_with_equal_variances_is_gaussian_nll_fixed():
    rng = np.random.default_rng(0)
    mean, x = Tensor(rng.normal(size=(6, 7))), rng.normal(size=(6, 7))
    logvar = Tensor(np.full((6, 7), 2 * math.log(0.3)))
    expected = ops.gaussian_nll_fixed(mean, x, 0.3).data
    np.testing.assert_allclose(ops.gaussian_nll(mean, logvar, x).data, expected, rtol=1e-12)


@pytest.mark.usefixtures("kernel_set")
def test_softmax_cross_entropy_is_minus_log_softmax():
    logits = Tensor(A)
    picked = -ops.log_softmax(logits).data[np.arange(4), LABELS]
    np.testing.assert_allclose(ops.softmax_cross_entropy(logits, LABELS).data, picked, rtol=1e-12)


# ---- moments ----

DRAWS = 1_000_000


@pytest.mark.usefixtures("kernel_set")
def test_reparameterize_draws_have_the_given_mean_and_variance():
    rng = np.random.default_rng(0)
    mu, logvar = np.array([0.0, -2.0, 5.0], np.float32), np.array([-3.0, 0.0, 1.5], np.float32)
    z = ops.reparameterize(Tensor(mu), Tensor(logvar), rng.standard_normal((DRAWS, 3), np.float32)).data
    z = z.astype(np.float64)
    variance = np.exp(logvar)
    np.testing.assert_allclose(z.var(0), variance, rtol=0.01)
    assert (abs(z.mean(0) - mu) < 3 * np.sqrt(variance / DRAWS)).all()


@pytest.mark.usefixtures("kernel_set")
def test_kl_standard_normal_matches_its_monte_carlo_estimate():
    rng = np.random.default_rng(0)
    mu, logvar = np.array([[0.5, -1.0, 0.0]]), np.array([[-1.0, 0.7, 0.0]])
    z = ops.reparameterize(Tensor(mu), Tensor(logvar), rng.standard_normal((DRAWS // 5, 3)))
    log_p = -ops.gaussian_nll_fixed(Tensor(np.zeros((1, 3)) + 0 * z.data), z, 1.0).data
    log_q = -ops.gaussian_nll(Tensor(mu + 0 * z.data), Tensor(logvar + 0 * z.data), z).data
    estimate, error = (log_q - log_p).mean(), (log_q - log_p).std() / math.sqrt(len(log_q))
    assert abs(ops.kl_standard_normal(Tensor(mu), Tensor(logvar)).item() - estimate) < 3 * error


@both_dtypes
def test_bernoulli_draws_ones_with_the_given_probability(kernel_set, dtype):
    probability = np.repeat(np.array([0.0, 0.1, 0.5, 0.9, 1.0], dtype), DRAWS // 5)
    out = np.full_like(probability, np.nan)
    kernel_set.elementwise.bernoulli(out, probability, np.random.default_rng(0).random(DRAWS, dtype))
    assert set(np.unique(out)) == {0, 1}
    means, p = out.reshape(5, -1).mean(1, dtype=np.float64), probability[:: DRAWS // 5].astype(np.float64)
    assert (means[[0, 4]] == [0, 1]).all()
    assert (abs(means - p) <= 3 * np.sqrt(p * (1 - p) / (DRAWS // 5))).all()


@pytest.mark.usefixtures("kernel_set")
def test_dropout_keeps_the_mean_and_masks_the_gradient():
    rng, rate = np.random.default_rng(0), 0.3
    x = Tensor(np.full(DRAWS, 2.0, np.float32), requires_grad=True)
    mask = ((rng.random(DRAWS) >= rate) / (1 - rate)).astype(np.float32)
    out = ops.dropout(x, mask)
    out.sum().backward()
    spread = 2.0 * math.sqrt(rate / (1 - rate) / DRAWS)
    assert abs(out.data.mean(dtype=np.float64) - 2.0) < 3 * spread
    np.testing.assert_array_equal(x.grad, mask)


def test_apply_by_name_equals_the_function():
    np.testing.assert_array_equal(apply("exp", Tensor(A)).data, ops.exp(Tensor(A)).data)


INFINITE = [[-np.inf, -np.inf], [0.0, np.inf], [-np.inf, 3.0]]


@both_dtypes
@pytest.mark.usefixtures("kernel_set")
def test_logsumexp_of_infinities(dtype):
    with np.errstate(invalid="ignore"):
        value, gradient = value_and_gradient(ops.logsumexp, INFINITE, dtype)
    assert value.tolist() == [-np.inf, np.inf, 3.0]
    np.testing.assert_array_equal(gradient, [[0, 0], [0, np.nan], [0, 1]])


@both_dtypes
@pytest.mark.usefixtures("kernel_set")
def test_softmax_and_log_softmax_of_infinities(dtype):
    x = Tensor(np.array(INFINITE, dtype))
    with np.errstate(invalid="ignore", divide="ignore"):
        softmax, log_softmax = ops.softmax(x).data, ops.log_softmax(x).data
    assert np.isnan(softmax[0]).all()
    assert np.isnan(log_softmax[0]).all()
    assert softmax[2].tolist() == [0, 1]
    assert log_softmax[2].tolist() == [-np.inf, 0]


@both_dtypes
@pytest.mark.usefixtures("kernel_set")
def test_max_and_min_send_the_gradient_to_the_first_extreme_or_nan(dtype):
    x = np.array([[1, 3, 3], [np.nan, 5, 1], [5, np.nan, 1], [5, np.nan, np.nan], [-np.inf, -np.inf, -np.inf]])
    for operation, sign in ((ops.max, 1), (ops.min, -1)):
        value, gradient = value_and_gradient(lambda t, take=operation: take(t, axis=-1), sign * x, dtype)
        np.testing.assert_array_equal(sign * value, [3, np.nan, np.nan, np.nan, -np.inf])
        np.testing.assert_array_equal(gradient, np.eye(3)[[1, 0, 1, 1, 0]])


@both_dtypes
@pytest.mark.usefixtures("kernel_set")
def test_abs_and_clip_at_their_kinks_infinities_and_nan(dtype):
    x = [-np.inf, -2, -1, -0.0, 0, 2, 3, np.inf, np.nan]
    value, gradient = value_and_gradient(ops.abs, x, dtype)
    np.testing.assert_array_equal(value, np.abs(x))
    np.testing.assert_array_equal(gradient, [-1, -1, -1, 0, 0, 1, 1, 1, 0])
    value, gradient = value_and_gradient(lambda t: ops.clip(t, -1, 2), x, dtype)
    np.testing.assert_array_equal(value, [-1, -1, -1, 0, 0, 2, 2, 2, np.nan])
    np.testing.assert_array_equal(gradient, [0, 0, 1, 1, 1, 1, 0, 0, 0])
    value, gradient = value_and_gradient(lambda t: ops.clip(t, -np.inf, 0.1), x, dtype)
    np.testing.assert_array_equal(value, np.array([-np.inf, -2, -1, 0, 0, 0.1, 0.1, 0.1, np.nan], dtype))
    np.testing.assert_array_equal(gradient, [1, 1, 1, 1, 1, 0, 0, 0, 0])


def gradients_of_two(operation, a, b, dtype):
    """What the operation of two inputs gives, and its gradients for a cotangent of 1, 2, ..."""
    leaves = [Tensor(np.array(x, dtype), requires_grad=True) for x in (a, b)]
    out = operation(*leaves)
    out.backward(np.arange(1, out.size + 1).reshape(out.shape))
    return out.data, *(leaf.grad for leaf in leaves)


@both_dtypes
@pytest.mark.usefixtures("kernel_set")
def test_maximum_and_minimum_at_ties_infinities_and_nan(dtype):
    inf, nan = np.inf, np.nan
    a, b = np.array([[1, 2, 3, inf, -inf, -inf, nan, 1, nan], [2, 1, 3, inf, 0, -inf, 1, nan, nan]])
    for operation, sign in ((ops.maximum, 1), (ops.minimum, -1)):
        value, da, db = gradients_of_two(operation, sign * a, sign * b, dtype)
        np.testing.assert_array_equal(sign * value, [2, 2, 3, inf, 0, -inf, nan, nan, nan])
        np.testing.assert_array_equal(da, [0, 2, 1.5, 2, 0, 3, 7, 8, 9])
        np.testing.assert_array_equal(db, [1, 0, 1.5, 2, 5, 3, 7, 8, 9])


@both_dtypes
@pytest.mark.usefixtures("kernel_set")
def test_where_lets_nothing_through_from_the_side_not_chosen(dtype):
    inf, nan = np.inf, np.nan
    a, b = [[nan, 1, 2, 3], [inf, 4, 5, 6]], [inf, nan, 7, -inf]
    condition = np.array([[False, True, True, False], [False, True, False, True]])
    for given in (condition, condition.tolist(), Tensor(condition.astype(dtype))):
        value, da, db = gradients_of_two(lambda x, y, c=given: ops.where(c, x, y), a, b, dtype)
        np.testing.assert_array_equal(value, [[inf, 1, 2, -inf], [inf, 4, 7, 6]])
        np.testing.assert_array_equal(da, [[0, 2, 3, 0], [0, 6, 0, 8]])
        np.testing.assert_array_equal(db, [6, 0, 7, 4])
    np.testing.assert_array_equal(ops.where([[True], [False]], 1.0, Tensor(np.zeros(2, dtype))).data, [[1, 1], [0, 0]])
    x, y = (Tensor(np.ones(2, dtype), requires_grad=True) for _ in range(2))
    ops.where([True, False], x, y).backward(np.array([inf, nan]))
    np.testing.assert_array_equal(x.grad, [inf, 0])
    np.testing.assert_array_equal(y.grad, [0, nan])
