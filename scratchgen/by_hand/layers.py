"""The layers that the models in this folder share, forward and backward, by hand.

A layer maps h (b, ·), one example a row, to h⁺. Write δ for d(loss)/da, and ẏ for d(loss)/dy of any other y. Backward,
a layer takes ḣ⁺ and returns ḣ and the gradients of its own parameters. By the chain rule, with a given mask (0 for
dropped elements, 1 / (1 − rate) for the others),

    dense, a = h W + c:                       Ẇ = hᵀ δ,   ċ = Σ_rows δ,   ḣ = δ Wᵀ                                  (1)
    activation, h⁺ = φ(a):                    δ = ḣ⁺ ⊙ φ'(a)                                                        (2)
    maxout, h⁺_u = max_j a_uj:                δ_uj = ḣ⁺_u if j is the first of the largest pieces of unit u, else 0 (3)
    dropout, h⁺ = h ⊙ mask:                   ḣ = ḣ⁺ ⊙ mask                                                         (4)

Batch normalisation standardises each column of a over its b rows to mean 0 and variance 1, then scales and shifts it:

    μ = 1/b Σ a,    v = 1/b Σ (a − μ)²,    s = √(v + ε),    n = (a − μ) / s,    o = γ ⊙ n + β.                      (5)

For its own parameters and for n that gives γ̇ = Σ ȯ ⊙ n, β̇ = Σ ȯ, ṅ = ȯ ⊙ γ. Within a column every n_k depends on a_i
through a_k if k = i, through μ and through s, with ∂μ/∂a_i = 1/b and ∂s/∂a_i = (a_i − μ) / b s = n_i / b (the part of
∂v/∂a_i through μ vanishes, because Σ (a − μ) = 0). So ∂n_k/∂a_i = [1(k = i) − 1/b − n_k n_i / b] / s, and

    γ̇ = Σ_rows ȯ ⊙ n,      β̇ = Σ_rows ȯ,      δ = Σ_k ṅ_k ∂n_k/∂a = γ / s ⊙ [ȯ − β̇ / b − n ⊙ γ̇ / b].               (6)
"""

from collections.abc import Callable, Sequence

import numpy as np

Arrays = dict[str, np.ndarray]
Mask = np.ndarray | float  # (b, width), or 1 where nothing is dropped

LEAKY_SLOPE = 0.2
EPSILON, MOMENTUM = 1e-5, 0.9  # of batch normalisation


def softplus(a: np.ndarray) -> np.ndarray:
    """log(1 + e^a), without overflow."""
    return np.logaddexp(0, a)


def sigmoid(a: np.ndarray) -> np.ndarray:
    """1 / (1 + e^-a), without overflow."""
    return np.exp(-softplus(-a))


# φ and φ', the derivative as a function of a.
ACTIVATIONS: dict[str, tuple[Callable[[np.ndarray], np.ndarray], Callable[[np.ndarray], np.ndarray]]] = {
    "relu": (lambda a: np.maximum(a, 0), lambda a: (a > 0).astype(a.dtype)),
    "leaky_relu": (
        lambda a: np.where(a > 0, a, LEAKY_SLOPE * a),
        lambda a: np.where(a > 0, 1, LEAKY_SLOPE).astype(a.dtype),
    ),
    "sigmoid": (sigmoid, lambda a: sigmoid(a) * (1 - sigmoid(a))),
    "tanh": (np.tanh, lambda a: 1 - np.tanh(a) ** 2),
    "softplus": (softplus, sigmoid),
}


# ---- dense layers. For a frozen network ``grad`` is None: only ḣ is computed ----


def dense(p: Arrays, name: str, h: np.ndarray) -> np.ndarray:
    """a (b, outputs) of h (b, inputs): (1)."""
    return h @ p[f"{name}.weight"] + p[f"{name}.bias"]  # a = h W + c


def dense_backward(p: Arrays, grad: Arrays | None, name: str, h: np.ndarray, delta: np.ndarray) -> np.ndarray:
    """(1), of h (b, inputs) and δ (b, outputs): stores the layer's gradients in ``grad``, returns ḣ (b, inputs)."""
    if grad is not None:
        grad[f"{name}.weight"] = h.T @ delta  # Ẇ = hᵀ δ
        grad[f"{name}.bias"] = delta.sum(0)  # ċ = Σ_rows δ
    return delta @ p[f"{name}.weight"].T  # ḣ = δ Wᵀ


def heads_backward(p: Arrays, grad: Arrays | None, h: np.ndarray, deltas: Arrays) -> np.ndarray:
    """(1) for all dense layers that take h, by name: returns the sum of their ḣ."""
    return np.sum([dense_backward(p, grad, name, h, delta) for name, delta in deltas.items()], axis=0)


def numbered(prefix: str, depth: int) -> list[str]:
    """The names of the first ``depth`` layers of a network."""
    return [f"{prefix}.layers.{layer}" for layer in range(depth)]


def dense_stack(
    p: Arrays, names: Sequence[str], activation: str, x: np.ndarray
) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Consecutive dense layers, each with φ: every h, from x to the last layer's output, and every a."""
    phi, _ = ACTIVATIONS[activation]
    h, a = [x], list[np.ndarray]()
    for name in names:
        a.append(dense(p, name, h[-1]))
        h.append(phi(a[-1]))  # h⁺ = φ(a)
    return h, a


def dense_stack_backward(
    p: Arrays,
    grad: Arrays | None,
    names: Sequence[str],
    activation: str,
    h: Sequence[np.ndarray],
    a: Sequence[np.ndarray],
    h_dot: np.ndarray,
) -> np.ndarray:
    """(2) and (1) from the last layer to the first: from the last one's ḣ⁺ to the first one's ḣ."""
    _, phi_prime = ACTIVATIONS[activation]
    for layer in reversed(range(len(names))):
        h_dot = dense_backward(p, grad, names[layer], h[layer], h_dot * phi_prime(a[layer]))  # δ = ḣ⁺ ⊙ φ'(a)
    return h_dot


# ---- maxout ----


def maxout(a: np.ndarray) -> np.ndarray:
    """h⁺ (b, u), the maximum over the pieces of a (b, u, pieces): (3)."""
    return a.max(axis=2)


def maxout_backward(a: np.ndarray, h_dot: np.ndarray) -> np.ndarray:
    """δ (b, u, pieces) of a (b, u, pieces) and ḣ⁺ (b, u): (3)."""
    first_largest = np.arange(a.shape[2]) == a.argmax(axis=2)[:, :, None]
    return first_largest * h_dot[:, :, None]


# ---- batch normalisation ----


def batch_moments(a: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """μ and v (width,) of a (b, width): (5)."""
    mean = a.sum(0) / len(a)  # μ = 1/b Σ a
    return mean, ((a - mean) ** 2).sum(0) / len(a)  # v = 1/b Σ (a − μ)²


def _standardized(a: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """n (b, width) and s (width,) of a (b, width): (5)."""
    mean, variance = batch_moments(a)
    s = np.sqrt(variance + EPSILON)  # s = √(v + ε)
    return (a - mean) / s, s  # n = (a − μ) / s


def batch_norm(p: Arrays, name: str, a: np.ndarray) -> np.ndarray:
    """o of a, both (b, width): (5)."""
    n, _ = _standardized(a)
    return p[f"{name}.gamma"] * n + p[f"{name}.beta"]  # o = γ ⊙ n + β


def batch_norm_backward(p: Arrays, grad: Arrays, name: str, a: np.ndarray, o_dot: np.ndarray) -> np.ndarray:
    """(6), of a and ȯ (b, width): stores the gradients of γ and β in ``grad``, returns δ (b, width)."""
    b, (n, s) = len(a), _standardized(a)
    gamma_dot = grad[f"{name}.gamma"] = (o_dot * n).sum(0)  # γ̇ = Σ_rows ȯ ⊙ n
    beta_dot = grad[f"{name}.beta"] = o_dot.sum(0)  # β̇ = Σ_rows ȯ
    return p[f"{name}.gamma"] / s * (o_dot - beta_dot / b - n * gamma_dot / b)  # δ


def running_average(before: np.ndarray, now: np.ndarray) -> np.ndarray:
    """The moving average (width,) of a batch moment, for evaluation; ``MOMENTUM`` is the decay."""
    return MOMENTUM * before + (1 - MOMENTUM) * now


# ---- binary cross-entropy ----


def cross_entropy(a: np.ndarray, target: np.ndarray | float) -> np.ndarray:
    """-[x log s + (1 − x) log(1 − s)] = log(1 + e^a) − x a, elementwise, with s = sigmoid(a), x the target."""
    return softplus(a) - target * a


def cross_entropy_prime(a: np.ndarray, target: np.ndarray | float) -> np.ndarray:
    """Its derivative with respect to a: sigmoid(a) − x."""
    return sigmoid(a) - target
