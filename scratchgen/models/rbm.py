"""The restricted Boltzmann machine (Smolensky 1986; Hinton 2002; L03): units of two layers, none connected within one.

    p(v, h) = e^-E(v, h) / Z                     E(v, h) = -v W h - a v - b h
    p(h_j = 1 | v) = sigmoid(v W + b)_j          p(v_i = 1 | h) = sigmoid(W h + a)_i
    p(v) = e^-F(v) / Z                           F(v) = -a v - sum_j softplus(v W + b)_j

Z, the sum over all states, is out of reach, but the gradient of log p(v) needs only samples of p:

    -d log p(v) = dF(v) - E[dF(v')],  v' ~ p     dF/dW = -v p(h|v),  dF/da = -v,  dF/db = -p(h|v)

Gaussian visible units have the energy |v - a|^2 / 2 s^2 - v W h / s^2 - b h, so that v | h is N(W h + a, s^2 I), and v
is divided by s^2 wherever W or a multiplies it (Cho, Ilin & Raiko 2011).
"""

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

import kernels
from scratchgen import ops
from scratchgen.errors import require, require_one_of
from scratchgen.nn import Buffer, Module, Parameter
from scratchgen.random import RandomStream
from scratchgen.tensor import Tensor, no_grad

VISIBLE = ("bernoulli", "gaussian")
INITIAL_SD = 0.01  # of weights (Hinton 2010, "A practical guide to training restricted Boltzmann machines", section 8)
MARGIN = 0.005  # pixels that are always on or off begin with this probability of being the other


@dataclass(frozen=True)
class RBMConfig:
    """The size of an RBM.

    Attributes
    ----------
    input_dim, hidden : int
        D visible units, which are pixels, and H hidden ones.
    visible : str
        p(v|h): "bernoulli", or "gaussian" with the standard deviation ``sigma``.
    """

    input_dim: int = 784
    hidden: int = 500
    visible: str = "bernoulli"
    sigma: float = 0.2

    def __post_init__(self) -> None:
        require({"input_dim >= 1": self.input_dim >= 1, "hidden >= 1": self.hidden >= 1, "sigma > 0": self.sigma > 0})
        require_one_of("visible", self.visible, VISIBLE)


class Units(NamedTuple):
    """Units of a layer (n, ·): a draw of their states, and the means that it was drawn with."""

    states: Tensor
    means: Tensor


class RBM(Module):
    """A restricted Boltzmann machine.

    ``weight`` (D, H) is W, ``visible_bias`` (D,) a, and ``hidden_bias`` (H,) b. ``means`` (D,) are those of the data:
    chains that are annealed begin at the machine without hidden units that has them (``evaluation.partition``).
    """

    def __init__(self, config: RBMConfig, rng: int | np.random.Generator, dtype: Any = np.float32) -> None:
        self.config, self.dtype = config, np.dtype(dtype)
        self.precision = 1.0 if config.visible == "bernoulli" else config.sigma**-2
        self.kept = np.zeros((0, config.hidden))  # hidden states (n, H) where training has left chains
        rng, size = np.random.default_rng(rng), (config.input_dim, config.hidden)
        self.weight = Parameter(rng.normal(0, INITIAL_SD, size), dtype)
        self.visible_bias = Parameter(np.zeros(config.input_dim), dtype)
        self.hidden_bias = Parameter(np.zeros(config.hidden), dtype)
        self.means = Buffer(np.full(config.input_dim, 0.0 if self.gaussian else 0.5), dtype=dtype)

    @property
    def gaussian(self) -> bool:
        """Whether the visible units are real numbers."""
        return self.config.visible == "gaussian"

    def set_means(self, means: np.ndarray) -> None:
        """Begin with the visible biases that give these ``means`` (D,) without hidden units."""
        self.means.write(means.astype(self.dtype))
        self.visible_bias.write(self.base_bias())

    def base_bias(self) -> np.ndarray:
        """The visible biases (D,) of the machine with the ``means`` and without hidden units."""
        means = self.means.data
        if self.gaussian:
            return means
        means = np.clip(means, MARGIN, 1 - MARGIN)
        return np.log(means / (1 - means))

    def free_energy(self, v: Tensor) -> Tensor:
        """F (n,) of visible states (n, D): p(v) is proportional to e^-F."""
        return self._visible_energy(v) - ops.softplus(self.inputs(v)).sum(axis=1)

    def energy(self, v: Tensor, h: Tensor) -> Tensor:
        """E (n,) of states v (n, D) and h (n, H)."""
        return self._visible_energy(v) - (self.inputs(v) * h).sum(axis=1)

    def inputs(self, v: Tensor) -> Tensor:
        """v W + b (n, H), the logits of p(h|v), of visible states v (n, D)."""
        return ops.dense(v * self.precision if self.gaussian else v, self.weight, self.hidden_bias)

    def _visible_energy(self, v: Tensor) -> Tensor:
        """The terms (n,) of E without h."""
        if self.gaussian:
            return ops.square(v - self.visible_bias).sum(axis=1) * (self.precision / 2)
        return -(v * self.visible_bias).sum(axis=1)

    def neg_log_conditional(self, v: Tensor, h: Tensor) -> Tensor:
        """-log p(v|h) (n,) of binary states v (n, D) and h (n, H), in nats, outside the graph."""
        with no_grad():
            return ops.bce_with_logits(times_transposed(h, self.weight) + self.visible_bias, v)

    def hidden(self, v: Tensor, random: RandomStream, times: float = 1.0) -> Units:
        """A draw of the hidden units (n, H) given v (n, D), whose inputs count ``times``."""
        with no_grad():
            inputs = (v * self.precision if self.gaussian else v) @ self.weight
            return Units(*random.binary_units(inputs if times == 1 else inputs * times, self.hidden_bias))

    def visible(self, h: Tensor, random: RandomStream, times: float = 1.0) -> Units:
        """A draw of the visible units (n, D) given h (n, H), whose inputs count ``times``."""
        with no_grad():
            inputs = times_transposed(h, self.weight)
            inputs = inputs if times == 1 else inputs * times
            if self.gaussian:
                means = inputs + self.visible_bias
                return Units(means + self.config.sigma * random.normal(means.shape, means.dtype), means)
            return Units(*random.binary_units(inputs, self.visible_bias))

    def gibbs(
        self, h: Tensor, steps: int, random: RandomStream, up: float = 1.0, down: float = 1.0
    ) -> tuple[Units, Units]:
        """Visible and hidden units after so many steps of Gibbs sampling, at least one, from hidden states (n, H).

        Inputs of the hidden units count ``up`` times, those of the visible ones ``down`` times.
        """
        for _ in range(steps):
            v = self.visible(h, random, down)
            hidden = self.hidden(v.states, random, up)
            h = hidden.states
        return v, hidden

    def visible_means(self, h: Tensor) -> Tensor:
        """E[v|h] (n, D) of h (n, H), outside the graph."""
        with no_grad():
            means = times_transposed(h, self.weight) + self.visible_bias
            return means if self.gaussian else ops.sigmoid(means)

    def reconstruct(self, v: Tensor) -> Tensor:
        """E[v | E[h|v]] (n, D) of visible states (n, D): down again from the hidden units' means."""
        with no_grad():
            return self.visible_means(ops.sigmoid(self.inputs(v)))

    def set_gradients(self, data: tuple[Tensor, Tensor], model: tuple[Tensor, Tensor]) -> None:
        """The gradients of mean F(v) over the data less its mean over the model's samples.

        Both are given as visible states v (n, D) and hidden means p(h|v) (n, H), of which n may differ.
        """
        with no_grad():
            weights, hidden_biases = statistics(data, model)
            self.weight.grad = weights * self.precision if self.gaussian else weights
            self.hidden_bias.grad = hidden_biases
            self.visible_bias.grad = (model[0].mean(axis=0) - data[0].mean(axis=0)) * self.precision


def statistics(data: tuple[Tensor, Tensor], model: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
    """The means of -v h (D, H) and -h (H,) over the data, of v (n, D) and h (n, H), less those over the model's."""
    v = ops.concatenate([data[0], model[0]], axis=0)
    h = ops.concatenate([data[1] / -len(data[1]), model[1] / len(model[1])], axis=0)
    return transposed_times(v, h), h.sum(axis=0)


def times_transposed(a: Tensor, b: Tensor) -> Tensor:
    """a b^T (m, n), of a (m, k) and b (n, k), outside the graph."""
    out = kernels.active().memory.empty((len(a), len(b)), a.dtype)
    kernels.active().dense.matmul_nt(out, a._data, b._data)
    return Tensor.wrap(out)


def transposed_times(a: Tensor, b: Tensor) -> Tensor:
    """a^T b (m, n), of a (k, m) and b (k, n), outside the graph."""
    out = kernels.active().memory.empty((a.shape[1], b.shape[1]), a.dtype)
    kernels.active().dense.matmul_tn(out, a._data, b._data)
    return Tensor.wrap(out)
