"""The checker is checked: every backward is broken in a dozen ways, and the gradient check must see each of them."""

import math
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any
from unittest import mock

import numpy as np
import pytest

import kernels
from scratchgen.gradcheck import GradientError, check_operation, draw_inputs, input_shapes
from scratchgen.op import REGISTRY, Case, Op, register
from scratchgen.signature import REAL, Signature
from scratchgen.tensor import Tensor

Gradient = np.ndarray | None
Backward = Callable[[np.ndarray], tuple[Gradient, ...]]  # an operation's, from dout

on_every_set = pytest.mark.parametrize("kernel_set", ["cpu", "reference"])

DIFFERENTIABLE = [
    pytest.param(op, case, position, id=f"{op.name}-{number}-{position}")
    for op in REGISTRY.values()
    for number, case in enumerate(op.cases)
    for position in range(len(Signature(case.signature or op.signature).inputs))
    if op.domain(position).differentiable
]


def without_largest(gradient: np.ndarray) -> np.ndarray:
    changed = gradient.copy()
    changed.flat[np.abs(gradient).argmax()] = 0
    return changed


def nudged(gradient: np.ndarray) -> np.ndarray:
    changed = gradient.copy()
    changed.flat[-1] += 1e-3
    return changed


def mutations(backward: Backward, dout: np.ndarray, position: int) -> Iterator[tuple[str, np.ndarray]]:
    """What a wrong backward might return for the input at ``position``, where the shapes allow it."""
    gradients = backward(dout)
    gradient = gradients[position]
    assert gradient is not None
    yield "scaled", gradient * 1.001
    yield "sign flipped", -gradient
    yield "zero", 0 * gradient
    yield "added twice", gradient + gradient
    yield "largest element dropped", without_largest(gradient)
    yield "one element nudged", nudged(gradient)
    yield "dout ignored", at(backward(np.ones_like(dout)), position)
    yield "dout squared", at(backward(dout * dout), position)
    if dout.size > 1:
        yield "dout reversed", at(backward(np.flip(dout).copy()), position)
    if gradient.size > 1:
        yield "reversed", np.flip(gradient).copy()
    if gradient.ndim > 1 and gradient.shape[-1] == gradient.shape[-2]:
        yield "transposed", np.swapaxes(gradient, -1, -2).copy()
    for other, theirs in enumerate(gradients):
        if other != position and theirs is not None and theirs.shape == gradient.shape:
            yield f"that of input {other}", theirs


def at(gradients: tuple[Gradient, ...], position: int) -> np.ndarray:
    gradient = gradients[position]
    assert gradient is not None
    return gradient


# Where a mutation changes nothing, whatever the numbers.
EQUIVALENT = {
    ("add", "that of input 0"): "d(a + b)/da = d(a + b)/db",
    ("add", "that of input 1"): "d(a + b)/da = d(a + b)/db",
    ("sum", "reversed"): "over everything, every element has the gradient dout",
    ("sum", "transposed"): "over everything or the last two axes, the same along them",
    ("mean", "reversed"): "over everything, every element has the gradient dout / count",
    ("mean", "transposed"): "over everything or the last two axes, the same along them",
}


def is_equivalent(op: Op, case: Case, mutation: str) -> bool:
    over = (None, (-2, -1)) if mutation == "transposed" else (None,)
    return (op.name, mutation) in EQUIVALENT and case.params.get("axis") in over


def on_host(op: Op, k: Any, needs_grad: Any, saved: Any, params: dict) -> Backward:
    """The operation's backward from arrays of the host to arrays of the host, wherever the kernels' arrays lie."""

    def backward(dout: np.ndarray) -> tuple[Gradient, ...]:
        gradients = op.backward(k, needs_grad, k.memory.to_device(dout), saved, **params)
        return tuple(None if gradient is None else k.memory.to_host(gradient) for gradient in gradients)

    return backward


def mutate(op: Op, position: int, mutation: str) -> Op:
    """The operation, with a mutation of the gradient of the input at ``position``."""

    def backward(k: Any, needs_grad: Any, dout: Any, saved: Any, **params: Any) -> tuple[Any, ...]:
        gradients = list(op.backward(k, needs_grad, dout, saved, **params))
        mutants = mutations(on_host(op, k, needs_grad, saved, params), k.memory.to_host(dout), position)
        gradients[position] = k.memory.to_device(next(wrong for name, wrong in mutants if name == mutation))
        return tuple(gradients)

    return replace(op, backward=backward)


def draw(op: Op, case: Case) -> list[np.ndarray]:
    """Inputs with all sizes 3, so that operands may be mistaken for one another."""
    lead = (3, 3) if op.shapes.elementwise else (3,)
    return draw_inputs(op, case, input_shapes(op, case, lead, lambda dim: 3), np.random.default_rng(0))


def erf(x: np.ndarray) -> np.ndarray:
    return np.vectorize(math.erf)(x)


def softmax(x: np.ndarray) -> np.ndarray:
    return np.exp(x) / np.exp(x).sum(-1, keepdims=True)


# Backwards with a slip of the pen, as functions of dout and the inputs: operation, what is forgotten, gradients.
SLIPS: list[tuple[str, str, Callable[..., tuple[Gradient, ...]]]] = [
    ("divide", "the square", lambda dout, a, b: (dout / b, -dout * a / b)),
    ("sigmoid", "1 - out", lambda dout, x: (dout / (1 + np.exp(-x)),)),
    ("tanh", "the square", lambda dout, x: ((1 - np.tanh(x)) * dout,)),
    ("gelu", "x phi(x)", lambda dout, x: ((1 + erf(x / math.sqrt(2))) / 2 * dout,)),
    ("clip", "the bounds", lambda dout, x: (dout,)),
    ("where", "the condition", lambda dout, a, b, condition: (dout, dout, None)),
    ("max", "where it is", lambda dout, x: (np.broadcast_to(dout[..., None] / x.shape[-1], x.shape).copy(),)),
    ("matmul", "both transposes", lambda dout, a, b: (dout @ b, a @ dout)),
    ("mean", "the count", lambda dout, x: (np.broadcast_to(dout, x.shape).copy(),)),
    ("logsumexp", "the softmax", lambda dout, x: (np.broadcast_to(dout[..., None], x.shape).copy(),)),
    ("softmax", "the inner product", lambda dout, x: (softmax(x) * dout,)),
    ("softmax_cross_entropy", "the label", lambda dout, x, labels: (softmax(x) * dout[..., None], None)),
    ("bce_with_logits", "the target", lambda dout, x, target: (dout[..., None] / (1 + np.exp(-x)), None)),
    ("kl_standard_normal", "-1", lambda dout, m, v: (m * dout[..., None], np.exp(v) / 2 * dout[..., None])),
    (
        "batch_norm",
        "the moments of x",
        lambda dout, x, gamma, beta: (
            gamma / np.sqrt(x.var(0) + 0.1) * dout,
            (dout * (x - x.mean(0)) / np.sqrt(x.var(0) + 0.1)).sum(0),
            dout.sum(0),
        ),
    ),
    ("reparameterize", "the half", lambda dout, m, v, noise: (dout, np.exp(v / 2) * noise * dout, None)),
]


def complaint(op: Op, case: Case, inputs: list[np.ndarray], kernel_set: str) -> str:
    """What the check has to say; nothing if the operation passes."""
    try:
        check_operation(op, case, inputs, kernel_set, np.random.default_rng(1))
    except GradientError as error:
        return str(error)
    return ""


def assert_every_mutant_is_caught(op: Op, case: Case, position: int, kernel_set: str) -> None:
    inputs = draw(op, case)
    assert complaint(op, case, inputs, kernel_set) == ""
    with kernels.use(kernel_set):
        k = kernels.active()
        out, saved = op.forward(k, *map(k.memory.to_device, inputs), **case.params)
        needs_grad = tuple(op.domain(i).differentiable for i in range(len(inputs)))
        dout = np.array(np.random.default_rng(2).standard_normal(out.shape))
        backward = on_host(op, k, needs_grad, saved, case.params)
        truth, mutants = backward(dout)[position], dict(mutations(backward, dout, position))

    complaints = {}
    for mutation, gradient in mutants.items():
        if is_equivalent(op, case, mutation):
            np.testing.assert_array_equal(gradient, truth)
        else:
            assert not np.array_equal(gradient, truth), f"{mutation}: no mutant"
            mutant = mutate(op, position, mutation)
            complaints[mutation] = complaint(mutant, case, inputs, kernel_set)
    # seen by finite differences, and in that input: not by accident
    assert [mutation for mutation, text in complaints.items() if f"input {position}: off by" not in text] == []
    assert len(complaints) >= 8


@on_every_set
@pytest.mark.parametrize(("op", "case", "position"), DIFFERENTIABLE)
def test_every_mutant_is_caught(op: Op, case: Case, position: int, kernel_set: str) -> None:
    assert_every_mutant_is_caught(op, case, position, kernel_set)


def test_every_differentiable_input_has_its_mutants() -> None:
    covered = {(op.name, position) for op, _, position in (param.values for param in DIFFERENTIABLE)}
    assert {name for name, _ in covered} == REGISTRY.keys()
    for op in REGISTRY.values():
        if not op.shapes.variadic:
            wanted = {i for i, domain in enumerate(op.domains) if domain.differentiable}
            assert {position for name, position in covered if name == op.name} == wanted


@pytest.mark.parametrize(
    ("name", "forgotten", "slip"), SLIPS, ids=[f"{name} without {what}" for name, what, _ in SLIPS]
)
def test_a_forgotten_term_is_caught(name: str, forgotten: str, slip: Callable[..., tuple[Gradient, ...]]) -> None:
    op = REGISTRY[name]

    def forward(k: Any, *inputs: np.ndarray, **params: Any) -> tuple[np.ndarray, Any]:
        return op.forward(k, *inputs, **params)[0], inputs

    def backward(k: Any, needs_grad: Any, dout: np.ndarray, saved: Any, **params: Any) -> tuple[Gradient, ...]:
        return slip(dout, *saved)

    careless = replace(op, forward=forward, backward=backward)
    assert "off by" in complaint(careless, op.cases[0], draw(op, op.cases[0]), "cpu")


# ---- manners ----


def triple(k: Any, x: np.ndarray) -> tuple[np.ndarray, Any]:
    out = 3 * x
    return out, (x, out)


def triple_backward(k: Any, needs_grad: Any, dout: np.ndarray, saved: Any) -> tuple[Gradient, ...]:
    return (3 * dout,)


TRIPLE = Op("triple", "()->()", (REAL,), triple, triple_backward)


def check_triple(**changes: Any) -> None:
    check_operation(
        replace(TRIPLE, **changes), Case(), [np.array([[0.1, -0.2, 0.7]])], "reference", np.random.default_rng(0)
    )


def test_an_operation_outside_the_registry_can_be_checked() -> None:
    before = list(REGISTRY.items())
    check_triple()
    with pytest.raises(GradientError):
        check_triple(backward=lambda k, needs_grad, dout, saved: (dout,))
    assert list(REGISTRY.items()) == before


def writes_into_its_input(k: Any, x: np.ndarray) -> tuple[np.ndarray, Any]:
    out = 3 * x
    x += 1e-9
    return out, ()


def writes_into(what: str) -> Callable[..., tuple[Gradient, ...]]:
    def backward(k: Any, needs_grad: Any, dout: np.ndarray, saved: Any) -> tuple[Gradient, ...]:
        gradient = 3 * dout
        {"input": saved[0], "result": saved[1], "cotangent": dout}[what][..., -1] += 1e-9
        return (gradient,)

    return backward


@pytest.mark.parametrize(
    "change",
    [
        {"forward": writes_into_its_input},
        {"backward": writes_into("input")},
        {"backward": writes_into("result")},
        {"backward": writes_into("cotangent")},
    ],
    ids=["forward, input", "backward, input", "backward, result", "backward, cotangent"],
)
def test_writing_is_caught(change: dict[str, Any]) -> None:
    with pytest.raises(GradientError, match="has been written into"):
        check_triple(**change)


def test_a_gradient_out_of_nothing_is_caught() -> None:
    with pytest.raises(GradientError, match="not zero for a cotangent of zero"):
        check_triple(backward=lambda k, needs_grad, dout, saved: (3 * dout + (0 if dout.any() else 1),))


def test_a_rough_float32_is_caught() -> None:
    def backward(k: Any, needs_grad: Any, dout: np.ndarray, saved: Any) -> tuple[Gradient, ...]:
        rough = dout.astype(np.float16) if dout.dtype == np.float32 else dout
        return (3 * rough.astype(dout.dtype),)

    with pytest.raises(GradientError, match="the float32 gradient of input 0 is off by"):
        check_triple(backward=backward)


def test_promotion_is_caught() -> None:
    with pytest.raises(GradientError, match="the float32 gradient of input 0 is float64"):
        check_triple(backward=lambda k, needs_grad, dout, saved: (3 * dout.astype(np.float64),))


def test_demotion_is_caught() -> None:
    with pytest.raises(GradientError, match=r"the gradient of input 0 is an array of .* float32"):
        check_triple(
            forward=lambda k, x: (np.zeros_like(x), ()),
            backward=lambda k, needs_grad, dout, saved: (np.zeros(dout.shape, np.float32),),
        )


def test_a_gradient_that_depends_on_what_else_is_needed_is_caught() -> None:
    def backward(k: Any, needs_grad: Any, dout: np.ndarray, saved: Any) -> tuple[Gradient, ...]:
        return (dout, dout) if all(needs_grad) else (dout + dout, dout)

    op = replace(REGISTRY["add"], backward=backward)
    text = complaint(op, Case(), [np.ones(2), np.ones(2)], "reference")
    assert "the gradient of input 0 is different if only those of (0,) are needed" in text


@pytest.mark.parametrize("needed", [(0,), (2,), (0, 1), (1, 2)])
def test_a_gradient_that_is_wrong_for_some_of_three_inputs_is_caught(needed: tuple[int, ...]) -> None:
    right = REGISTRY["gaussian_nll"]

    def backward(k: Any, needs_grad: Any, dout: np.ndarray, saved: Any) -> tuple[Gradient, ...]:
        gradients = right.backward(k, needs_grad, dout, saved)
        if tuple(np.flatnonzero(needs_grad)) == needed:
            gradients[needed[-1]][...] *= 2
        return gradients

    text = complaint(replace(right, backward=backward), Case(), draw(right, Case()), "reference")
    assert f"the gradient of input {needed[-1]} is different if only those of {needed} are needed" in text


def test_gradients_in_one_memory_are_caught() -> None:
    """``add`` hands on its cotangent twice, and the leaves copy it; here they do not."""
    with mock.patch.object(Tensor, "_receive", lambda self, active, gradient: setattr(self, "_grad", gradient)):
        text = complaint(REGISTRY["add"], Case(), [np.ones(2), np.ones(2)], "reference")
    assert "the gradient of input 1 shares memory" in text


def test_a_result_of_another_shape_than_the_signature_is_caught() -> None:
    op = replace(REGISTRY["logsumexp"], signature="(...,n)->(...,n)")
    text = complaint(op, Case(), [np.ones((2, 3))], "reference")
    assert "the result: shapes (2, 3) and (2,) do not fit" in text


def test_a_result_of_another_size_than_the_number_in_the_signature_is_caught() -> None:
    op = replace(REGISTRY["softmax"], signature="(...,n)->(...,1)")
    text = complaint(op, Case(), [np.ones((2, 3))], "reference")
    assert "the result: shapes (2, 3) and (2, 3) do not fit" in text


@pytest.mark.parametrize(
    ("text", "fitting", "misfit"),
    [
        ("(a,b),(a,1)->()", [(2, 3), (2, 1)], [(2, 3), (2, 7)]),
        ("(3,b)->()", [(3, 5)], [(5, 3)]),
        ("(...,2)->()", [(4, 2)], [(2, 4)]),
    ],
)
def test_a_number_in_a_signature_is_a_size(text: str, fitting: list, misfit: list) -> None:
    Signature(text).check("op", fitting)
    with pytest.raises(ValueError, match=r"^op: shapes .* do not fit"):
        Signature(text).check("op", misfit)


def test_a_result_that_is_a_view_of_an_input_is_caught() -> None:
    def forward(k: Any, x: np.ndarray, shape: Any) -> tuple[np.ndarray, Any]:
        return x.reshape(shape), (x.shape,)

    op = replace(REGISTRY["reshape"], forward=forward)
    text = complaint(op, op.cases[0], [np.ones((2, 3))], "reference")
    assert "the result is a view of an input" in text


# ---- no operation without a check ----


def test_an_operation_names_the_domain_of_every_input() -> None:
    with pytest.raises(ValueError, match="1 domains for 2 inputs"):
        replace(TRIPLE, signature="(),()->()")


def test_an_operation_has_a_case() -> None:
    with pytest.raises(ValueError, match="no case"):
        replace(TRIPLE, cases=())


def test_a_name_is_taken_once() -> None:
    before = REGISTRY["exp"]
    with pytest.raises(ValueError, match="there is an operation exp already"):
        register(replace(TRIPLE, name="exp"))
    assert REGISTRY["exp"] is before
