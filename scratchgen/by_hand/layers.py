"""The layers that the models in this folder share, forward and backward, by hand.

A layer maps h (b, ·), one example a row, to h⁺. Write δ for d(loss)/da, and ẏ for d(loss)/dy of any other y. Backward,
a layer takes ḣ⁺ and returns ḣ and the gradients of its own parameters. By the chain rule, with a given mask (0 for
dropped elements, 1 / (1 − rate) for the others),

    dense, a = h W + c:                       Ẇ = hᵀ δ,   ċ = Σ_rows δ,   ḣ = δ Wᵀ                                  (1)
    activation, h⁺ = φ(a):                    δ = ḣ⁺ ⊙ φ'(a)                                                        (2)
    maxout, h⁺_u = max_j a_uj:                δ_uj = ḣ⁺_u if j is the first of the largest pieces of unit u, else 0 (3)
    dropout, h⁺ = h ⊙ mask:                   ḣ = ḣ⁺ ⊙ mask                                                         (4)

Batch normalisation standardises each column of a over its b rows to mean 0 and variance 1, then scales and shifts it.
Of images (b, y, x, ·) every pixel of every image is a row, so b stands for b · y · x in what follows:

    μ = 1/b Σ a,    v = 1/b Σ (a − μ)²,    s = √(v + ε),    n = (a − μ) / s,    o = γ ⊙ n + β.                      (5)

For its own parameters and for n that gives γ̇ = Σ ȯ ⊙ n, β̇ = Σ ȯ, ṅ = ȯ ⊙ γ. Within a column every n_k depends on a_i
through a_k if k = i, through μ and through s, with ∂μ/∂a_i = 1/b and ∂s/∂a_i = (a_i − μ) / b s = n_i / b (the part of
∂v/∂a_i through μ vanishes, because Σ (a − μ) = 0). So ∂n_k/∂a_i = [1(k = i) − 1/b − n_k n_i / b] / s, and

    γ̇ = Σ_rows ȯ ⊙ n,      β̇ = Σ_rows ȯ,      δ = Σ_k ṅ_k ∂n_k/∂a = γ / s ⊙ [ȯ − β̇ / b − n ⊙ γ̇ / b].               (6)
"""

from collections.abc import Callable

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
    "identity": (lambda a: a, np.ones_like),
    "relu": (lambda a: np.maximum(a, 0), lambda a: (a > 0).astype(a.dtype)),
    "leaky_relu": (
        lambda a: np.where(a > 0, a, LEAKY_SLOPE * a),
        lambda a: np.where(a > 0, 1, LEAKY_SLOPE).astype(a.dtype),
    ),
    "sigmoid": (sigmoid, lambda a: sigmoid(a) * (1 - sigmoid(a))),
    "tanh": (np.tanh, lambda a: 1 - np.tanh(a) ** 2),
    "softplus": (softplus, sigmoid),
}


# ---- dense layers, with or without c. For a frozen network ``grad`` is None: only ḣ is computed ----


def dense(p: Arrays, name: str, h: np.ndarray) -> np.ndarray:
    """a (b, outputs) of h (b, inputs): (1)."""
    a = h @ p[f"{name}.weight"]
    return a + p[f"{name}.bias"] if f"{name}.bias" in p else a  # a = h W + c


def dense_backward(p: Arrays, grad: Arrays | None, name: str, h: np.ndarray, delta: np.ndarray) -> np.ndarray:
    """(1), of h (b, inputs) and δ (b, outputs): stores the layer's gradients in ``grad``, returns ḣ (b, inputs)."""
    if grad is not None:
        grad[f"{name}.weight"] = h.T @ delta  # Ẇ = hᵀ δ
        if f"{name}.bias" in p:
            grad[f"{name}.bias"] = delta.sum(0)  # ċ = Σ_rows δ
    return delta @ p[f"{name}.weight"].T  # ḣ = δ Wᵀ


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
    """μ and v (width,) of a (b, width), or of images (b, y, x, width): (5)."""
    rows = a.reshape(-1, a.shape[-1])
    mean = rows.sum(0) / len(rows)  # μ = 1/b Σ a
    return mean, ((rows - mean) ** 2).sum(0) / len(rows)  # v = 1/b Σ (a − μ)²


def _standardized(a: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """n (..., width) and s (width,) of a (..., width): (5)."""
    mean, variance = batch_moments(a)
    s = np.sqrt(variance + EPSILON)  # s = √(v + ε)
    return (a - mean) / s, s  # n = (a − μ) / s


def batch_norm(p: Arrays, name: str, a: np.ndarray) -> np.ndarray:
    """o of a, both (..., width): (5)."""
    n, _ = _standardized(a)
    return p[f"{name}.gamma"] * n + p[f"{name}.beta"]  # o = γ ⊙ n + β


def batch_norm_backward(p: Arrays, grad: Arrays | None, name: str, a: np.ndarray, o_dot: np.ndarray) -> np.ndarray:
    """(6), of a and ȯ (..., width): stores the gradients of γ and β in ``grad``, returns δ (..., width)."""
    (n, s), rows = _standardized(a), tuple(range(a.ndim - 1))
    b = a.size // a.shape[-1]
    gamma_dot = (o_dot * n).sum(rows)  # γ̇ = Σ_rows ȯ ⊙ n
    beta_dot = o_dot.sum(rows)  # β̇ = Σ_rows ȯ
    if grad is not None:
        grad[f"{name}.gamma"], grad[f"{name}.beta"] = gamma_dot, beta_dot
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
