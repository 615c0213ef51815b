"""Optimizers against their textbook formulas in plain Python floats, and learning-rate schedules."""

import math
from itertools import pairwise

import numpy as np
import pytest

from scratchgen import optim
from scratchgen.nn import Parameter
from scratchgen.optim import SGD, Adagrad, Adam, RMSProp, Schedule
from scratchgen.tensor import Tensor

both_dtypes = pytest.mark.parametrize("dtype", [np.float32, np.float64], ids=["float32", "float64"])
TOLERANCE = {np.float32: 5e-6, np.float64: 1e-13}  # tens of roundings, and 1 - 0.999^t cancels three digits
LEARNING_RATES = [0.1, 0.1, 0.02, 0.05, 0.05, 0.3, 0.01]  # it may change between steps


def parameters(rng, dtype=np.float64):
    return [Parameter(rng.standard_normal(shape), dtype) for shape in [(2, 3), (4,), ()]]


def give_gradients(params, gradients):
    """By a backward pass of the sum of parameter times gradient."""
    for p, gradient in zip(params, gradients, strict=True):
        (p * Tensor(gradient, dtype=p.dtype)).sum().backward()


def take_steps(optimizer, params, rng, count):
    for _ in range(count):
        optimizer.zero_grad()
        give_gradients(params, [rng.standard_normal(p.shape) for p in params])
        optimizer.step()


# ---- the textbook: one number x and its gradients g, unrolled instead of kept in running means ----


def weighted(values, decay):
    """Sum of decay^age value, the last of age 0."""
    return sum(decay**age * value for age, value in enumerate(reversed(values)))


def descent(x, gradients, rates):
    for g, lr in zip(gradients, rates, strict=True):
        x -= lr * g
    return x


def heavy_ball(x, gradients, rates, momentum):
    for t, lr in enumerate(rates, 1):
        x -= lr * weighted(gradients[:t], momentum)
    return x


def nesterov(x, gradients, rates, momentum):
    """Where the velocity will have carried it: one more decay, and the last gradient again."""
    for t, lr in enumerate(rates, 1):
        x -= lr * (gradients[t - 1] + momentum * weighted(gradients[:t], momentum))
    return x


def rmsprop(x, gradients, rates, decay, epsilon):
    for t, lr in enumerate(rates, 1):
        mean_square = (1 - decay) * weighted([g * g for g in gradients[:t]], decay)
        x -= lr * gradients[t - 1] / (math.sqrt(mean_square) + epsilon)
    return x


def adagrad(x, gradients, rates, epsilon):
    for t, lr in enumerate(rates, 1):
        x -= lr * gradients[t - 1] / (math.sqrt(sum(g * g for g in gradients[:t])) + epsilon)
    return x


def adam(x, gradients, rates, beta1, beta2, epsilon):
    """With the bias correction, the moments are plain weighted means."""
    for t, lr in enumerate(rates, 1):
        mean = weighted(gradients[:t], beta1) / weighted([1.0] * t, beta1)
        mean_square = weighted([g * g for g in gradients[:t]], beta2) / weighted([1.0] * t, beta2)
        x -= lr * mean / (math.sqrt(mean_square) + epsilon)
    return x


TEXTBOOK = [
    (SGD, {}, descent, ()),
    (SGD, {"momentum": 0.9}, heavy_ball, (0.9,)),
    (SGD, {"momentum": 0.6, "nesterov": True}, nesterov, (0.6,)),
    (RMSProp, {}, rmsprop, (0.9, 1e-8)),
    (RMSProp, {"decay": 0.7, "epsilon": 0.1}, rmsprop, (0.7, 0.1)),
    (Adagrad, {}, adagrad, (1e-10,)),
    (Adagrad, {"epsilon": 0.2}, adagrad, (0.2,)),
    (Adam, {}, adam, (0.9, 0.999, 1e-8)),
    (Adam, {"beta1": 0.5, "beta2": 0.9, "epsilon": 0.1}, adam, (0.5, 0.9, 0.1)),
]
every_optimizer = pytest.mark.parametrize("make", [SGD, RMSProp, Adagrad, Adam])


@pytest.mark.usefixtures("kernel_set")
@both_dtypes
@pytest.mark.parametrize(
    ("make", "options", "textbook", "scalars"), TEXTBOOK, ids=lambda part: getattr(part, "__name__", str(part))
)
def test_step_follows_the_textbook_formula(rng, dtype, make, options, textbook, scalars):
    params = parameters(rng, dtype)
    before = [p.data.astype(float) for p in params]
    gradients = [[rng.standard_normal(p.shape).astype(dtype) for p in params] for _ in LEARNING_RATES]
    optimizer = make(params, lr=1.0, **options)
    for lr, gradient in zip(LEARNING_RATES, gradients, strict=True):
        optimizer.lr = lr
        optimizer.zero_grad()
        give_gradients(params, gradient)
        optimizer.step()
    assert optimizer.steps == len(LEARNING_RATES)
    for i, (p, start) in enumerate(zip(params, before, strict=True)):
        assert p.version == len(LEARNING_RATES)
        assert p.dtype == dtype
        for place in np.ndindex(p.shape):
            seen = [float(gradient[i][place]) for gradient in gradients]
            expected = textbook(float(start[place]), seen, LEARNING_RATES, *scalars)
            assert float(p.data[place]) == pytest.approx(expected, rel=0, abs=TOLERANCE[dtype])


@pytest.mark.usefixtures("kernel_set")
@both_dtypes
def test_adam_first_step_has_the_size_of_the_learning_rate(dtype):
    gradient = np.array([1e-3, -0.5, 7.0, -1e4, 0.0], dtype)
    p = Parameter(np.zeros(5), dtype)
    optimizer = Adam([p], lr=0.01)
    give_gradients([p], [gradient])
    optimizer.step()
    np.testing.assert_allclose(p.data, -0.01 * np.sign(gradient), rtol=2e-5)  # epsilon / 1e-3 = 1e-5


@pytest.mark.usefixtures("kernel_set")
@pytest.mark.parametrize(
    ("options", "slope"),
    [({"momentum": 0.25}, 0.5), ({"momentum": 1 / 3, "nesterov": True}, 1 / 3)],
    ids=["momentum", "nesterov"],
)
def test_sgd_with_momentum_follows_the_closed_form_on_a_quadratic(options, slope):
    """On f = k x^2 / 2, with s = sqrt(lr k), the fastest momenta have closed trajectories from x = 1.

    Polyak's, (1 - s)^2, gives (1 + s t)(1 - s)^t and Nesterov's, (1 - s) / (1 + s), gives (1 + s t / (1 + s))(1 - s)^t.
    Without momentum it is (1 - s^2)^t. Here s = 1/2.
    """
    k, lr = 2.0, 0.125
    for momentum, expected in [
        ({}, [0.75**t for t in range(1, 21)]),
        (options, [(1 + slope * t) * 0.5**t for t in range(1, 21)]),
    ]:
        p = Parameter(1.0, np.float64)
        optimizer = SGD([p], lr, **momentum)
        trajectory = []
        for _ in expected:
            optimizer.zero_grad()
            (0.5 * k * p**2).backward()
            optimizer.step()
            trajectory.append(p.item())
        np.testing.assert_allclose(trajectory, expected, rtol=1e-12)


def test_sgd_moves_a_parameter_without_gradient_by_its_momentum(rng):
    params = parameters(rng)
    optimizer = SGD(params, lr=1.0, momentum=0.5)
    give_gradients(params, [np.ones(p.shape) for p in params])
    optimizer.step()
    optimizer.zero_grad()
    before = [p.data.copy() for p in params]
    give_gradients(params[:1], [np.ones((2, 3))])
    optimizer.step()
    for p, old, moved in zip(params, before, [1.5, 0.5, 0.5], strict=True):
        np.testing.assert_allclose(old - p.data, moved)


# ---- state ----


@pytest.mark.usefixtures("kernel_set")
@both_dtypes
@every_optimizer
def test_load_state_dict_continues_bit_for_bit(dtype, make):
    params, rng = parameters(np.random.default_rng(0), dtype), np.random.default_rng(1)
    optimizer = make(params, lr=0.1)
    take_steps(optimizer, params, rng, 5)
    state, copies, stream = optimizer.state_dict(), [Parameter(p.data) for p in params], rng.bit_generator.state
    take_steps(optimizer, params, rng, 5)

    rng.bit_generator.state = stream
    resumed = make(copies, lr=0.1)
    resumed.load_state_dict(state)
    assert resumed.steps == 5
    take_steps(resumed, copies, rng, 5)
    assert [p.data.tobytes() for p in copies] == [p.data.tobytes() for p in params]
    assert {k: a.tobytes() for k, a in resumed.state_dict().items()} == {
        k: a.tobytes() for k, a in optimizer.state_dict().items()
    }


@every_optimizer
def test_state_dict_is_a_copy(rng, make):
    params = parameters(rng)
    optimizer = make(params, lr=0.1)
    state = optimizer.state_dict()
    take_steps(optimizer, params, rng, 1)
    assert not any(array.any() for array in state.values())
    optimizer.load_state_dict(state)
    take_steps(optimizer, params, rng, 1)
    assert not any(array.any() for array in state.values())
    assert optimizer.steps == 1


@pytest.mark.parametrize("wrong", ["missing", "unexpected", "shape", "another optimizer's"])
@every_optimizer
def test_load_state_dict_refuses_a_wrong_state_and_changes_nothing(rng, make, wrong):
    params = parameters(rng)
    optimizer = make(params, lr=0.1)
    take_steps(optimizer, params, rng, 2)
    before = optimizer.state_dict()
    state = {name: array + 1 for name, array in before.items()}
    last = optimizer.slots[-1]
    if wrong == "missing":
        del state[last]
    elif wrong == "unexpected":
        state["moment"] = state[last]
    elif wrong == "shape":
        state[last] = state[last][:-1]
    else:
        state = (SGD if make is Adam else Adam)(params, lr=0.1).state_dict()
    with pytest.raises(ValueError, match=f"{make.__name__} keeps .*; the state has"):
        optimizer.load_state_dict(state)
    assert all(np.array_equal(array, before[name]) for name, array in optimizer.state_dict().items())


# ---- clipping ----


@pytest.mark.usefixtures("kernel_set")
@both_dtypes
def test_clip_gradient_norm_scales_gradients_that_are_too_long(rng, dtype):
    params = parameters(rng, dtype)
    optimizer = SGD(params, lr=1.0)
    optimizer.flat.grad[...] = np.nan  # what lies there counts for nothing
    give_gradients(params[:2], [np.full((2, 3), 2.0), np.full(4, -1.0)])  # and (): none, which is zero
    norm = math.sqrt(6 * 4 + 4 * 1)
    assert optimizer.gradient_norm().item() == pytest.approx(norm, rel=1e-6)
    before = optimizer.clip_gradient_norm(norm + 0.1)
    assert before == pytest.approx(norm, rel=1e-6)
    np.testing.assert_array_equal(optimizer.flat.grad, [2] * 6 + [-1] * 4 + [0])  # short enough: left as it is
    assert optimizer.clip_gradient_norm(0.5) == before
    np.testing.assert_allclose(optimizer.flat.grad, np.array([2] * 6 + [-1] * 4 + [0]) * 0.5 / norm, rtol=1e-6)
    np.testing.assert_array_equal(params[0].grad.ravel(), optimizer.flat.grad[:6])
    assert optimizer.clip_gradient_norm(1.0) == pytest.approx(0.5, rel=1e-6)


def test_clip_gradient_norm_leaves_other_optimizers_parameters_alone(rng):
    params = parameters(rng)
    SGD(params, lr=1.0)
    own = SGD(params[1:2], lr=1.0)
    give_gradients(params, [np.full(p.shape, 3.0) for p in params])
    assert own.clip_gradient_norm(1.0) == 6
    np.testing.assert_allclose(params[1].grad, 0.5)
    np.testing.assert_array_equal(params[0].grad, np.full((2, 3), 3.0))
    assert params[2].grad == 3


# ---- schedules ----


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_limit_norms_scales_down_the_columns_that_are_too_long(rng, dtype):
    weight = Parameter(rng.standard_normal((6, 9)).astype(dtype))
    weight.write(weight.data * np.linspace(0, 1.5, 9).astype(dtype))  # one column is 0
    bias, before = Parameter(np.full(9, 7, dtype)), weight.data.copy()
    optim.limit_norms([weight, bias], 1.5)
    norms = np.linalg.norm(before, axis=0)
    expected = before * np.minimum(1, 1.5 / np.maximum(norms, 1e-9))
    assert (norms > 1.5).sum() in range(2, 8)
    np.testing.assert_allclose(weight.data, expected, rtol=1e-5)
    np.testing.assert_array_equal(weight.data[:, norms < 1.5], before[:, norms < 1.5])
    np.testing.assert_array_equal(bias.data, np.full(9, 7))
    assert weight.node is None


def test_schedules_have_a_test_each():
    schedules = {name for name, f in vars(optim).items() if getattr(f, "__annotations__", {}).get("return") == Schedule}
    assert not [name for name in schedules if not any(test.startswith(f"test_{name}_") for test in globals())]


NAMED = {  # of the schedules that configurations name: the rates after 0, 250, 500, 750 and 1,000 of 1,000 steps
    "constant": [1, 1, 1, 1, 1],
    "cosine": [1, (2 + math.sqrt(2)) / 4, 1 / 2, (2 - math.sqrt(2)) / 4, 0],
    "late-cosine": [1, 1, 1, 1 / 2, 0],
    "tripling": [1, *(10 ** (-stage / 7) for stage in (6, 7, 7, 7))],
    "goodfellow": [1.000004**-step for step in (0, 250, 500, 750, 1000)],
}


@pytest.mark.parametrize("name", optim.SCHEDULES)
def test_schedules_that_configurations_name(name):
    rate = optim.SCHEDULES[name](0.2, 1000)
    np.testing.assert_allclose([rate(step) / 0.2 for step in range(0, 1001, 250)], NAMED[name], rtol=1e-12, atol=1e-15)


def test_linear_goes_from_first_to_last():
    rate = optim.linear(0.5, 0.1, 8)
    np.testing.assert_allclose([rate(step) for step in (0, 1, 4, 8, 9, 100)], [0.5, 0.45, 0.3, 0.1, 0.1, 0.1])
    assert optim.linear(0.5, 0.1, 0)(0) == pytest.approx(0.1)


def test_geometric_multiplies_by_the_factor():
    np.testing.assert_allclose([optim.geometric(0.3, 0.5)(step) for step in range(4)], [0.3, 0.15, 0.075, 0.0375])


def test_late_cosine_keeps_the_rate_for_half_the_steps():
    rates = [optim.late_cosine(0.2, 101)(step) for step in range(130)]
    assert rates[:51] == [0.2] * 51
    np.testing.assert_allclose(rates[50:101], [optim.cosine(0.2, 51)(step) for step in range(51)])
    assert all(before > after for before, after in pairwise(rates[50:102]))
    np.testing.assert_allclose(rates[101:], 0, atol=1e-15)


def test_constant_keeps_the_learning_rate():
    assert [optim.constant(0.3)(step) for step in (0, 1, 10**6)] == [0.3] * 3


def test_staircase_decays_the_rate_at_fixed_intervals():
    rate = optim.staircase(0.001, 0.95, 2500)
    assert [rate(step) for step in (0, 2499)] == [0.001] * 2
    assert [rate(step) for step in (2500, 4999)] == [0.001 * 0.95] * 2
    assert rate(9999) == pytest.approx(0.001 * 0.95**3)


@pytest.mark.parametrize("warmup", [0, 1, 10])
def test_cosine_warms_up_and_falls_to_zero(warmup):
    total, lr = warmup + 100, 0.2
    rates = [optim.cosine(lr, total, warmup)(step) for step in range(total + 50)]
    np.testing.assert_allclose(rates[:warmup], lr * np.arange(1, warmup + 1) / max(warmup, 1))
    falling = rates[warmup : total + 1]
    assert falling[0] == lr
    assert falling[25] == pytest.approx(lr * (2 + math.sqrt(2)) / 4)
    assert falling[50] == pytest.approx(lr / 2)
    assert all(before > after for before, after in pairwise(falling))
    np.testing.assert_allclose(rates[total:], 0, atol=1e-15)


@pytest.mark.parametrize(("stages", "first"), [(8, 1), (8, 20), (8, 600), (3, 7), (2, 1)])
def test_tripling_stages_are_each_three_times_as_long(stages, first):
    total = first * (3**stages - 1) // 2  # stages of first, 3 first, 9 first, ... steps
    rate = optim.tripling_stages(0.001, total, stages)
    begin = 0
    for i in range(stages):
        end = begin + first * 3**i
        for step in (begin, end - 1):
            assert rate(step) == pytest.approx(0.001 * 10 ** (-i / (stages - 1)), rel=1e-12)
        begin = end
    assert end == total
    assert rate(total) == rate(10 * total) == pytest.approx(0.0001)


@pytest.mark.parametrize("total", [1, 5, 1000, 12345])
def test_tripling_stages_fall_in_any_number_of_steps(total):
    rates = [optim.tripling_stages(0.001, total)(step) for step in range(total)]
    assert rates == sorted(rates, reverse=True)
    assert rates[0] == 0.001
    if total > 1:
        assert rates[-1] == pytest.approx(0.0001)  # the last stage is two thirds of it all
