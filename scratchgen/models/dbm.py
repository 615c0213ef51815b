"""The deep Boltzmann machine (Salakhutdinov & Hinton 2009; L03): one energy over two hidden layers.

    E(v, h1, h2) = -v W1 h1 - h1 W2 h2 - a v - b1 h1 - b2 h2

    p(v = 1 | h1) = sigmoid(W1 h1 + a)         p(h1 = 1 | v, h2) = sigmoid(v W1 + W2 h2 + b1)
                                               p(h2 = 1 | h1) = sigmoid(h1 W2 + b2)

Given v the hidden layers depend on each other, so that p(h1, h2 | v) is out of reach. Mean field takes the product
q = prod sigmoid of independent units which is nearest to it, that is, with the highest bound

    log p(v) >= -E_q[E(v, h1, h2)] + H(q) - log Z;

its means are a fixed point of mu1 = sigmoid(v W1 + W2 mu2 + b1), mu2 = sigmoid(mu1 W2 + b2), and each of these two
updates raises the bound. The gradient is that of an RBM, with these means in the place of p(h|v) for the data, and
Gibbs chains of all three layers for the model.

At first a hidden unit is on half of the time, and so acts on the layers beside it like a bias. The energy may also be
written with the layers' means c, d1 and d2 subtracted (Montavon & Mueller 2012):

    E = -(v - c) W1 (h1 - d1) - (h1 - d1) W2 (h2 - d2) - a' v - b1' h1 - b2' h2 + constant

    a = a' - W1 d1        b1 = b1' - c W1 - W2 d2        b2 = b2' - d1 W2

A gradient step in W1, W2, a', b1' and b2' changes a by da' - dW1 d1, and b1 and b2 likewise. That is another direction
than the gradient in a, b1 and b2, and along it both hidden layers can be trained from random weights.
"""

from dataclasses import dataclass
from operator import sub
from typing import Any, NamedTuple

import numpy as np

from scratchgen import ops
from scratchgen.errors import require
from scratchgen.models.rbm import RBM, RBMConfig, statistics, times_transposed
from scratchgen.nn import Buffer, Module
from scratchgen.random import RandomStream
from scratchgen.tensor import Tensor, no_grad


@dataclass(frozen=True)
class DBMConfig:
    """The sizes of a deep Boltzmann machine.

    Attributes
    ----------
    input_dim, hidden : int, tuple of int
        D visible units, and the hidden units of both layers, H1 and H2.
    """

    input_dim: int = 784
    hidden: tuple[int, ...] = (500, 1000)

    def __post_init__(self) -> None:
        require({"two hidden layers": len(self.hidden) == 2})
        require({"input_dim >= 1": self.input_dim >= 1, "hidden >= 1": min(self.hidden) >= 1})


class Layers(NamedTuple):
    """The three layers (n, D), (n, H1) and (n, H2): states, or means."""

    v: Tensor
    h1: Tensor
    h2: Tensor


class DBM(Module):
    """A deep Boltzmann machine of two RBMs that share the layer h1.

    ``bottom`` has W1, a and b1, ``top`` W2 and b2; ``top.visible_bias`` is used in pretraining only. The means of
    ``bottom`` and ``top`` are those of v and h1, and ``h2_means`` (H2,) those of h2, in the data.
    """

    def __init__(self, config: DBMConfig, rng: int | np.random.Generator, dtype: Any = np.float32) -> None:
        self.config, self.dtype, rng = config, np.dtype(dtype), np.random.default_rng(rng)
        self.bottom = RBM(RBMConfig(config.input_dim, config.hidden[0]), rng, dtype)
        self.top = RBM(RBMConfig(config.hidden[0], config.hidden[1]), rng, dtype)
        self.h2_means = Buffer(np.full(config.hidden[1], 0.5), dtype=dtype)
        self.kept = np.zeros((0, config.hidden[0]))  # states (n, H1) of h1 where training has left chains

    def mean_field(self, v: Tensor, steps: int) -> Layers:
        """v (n, D) with the means of q after so many updates of both layers.

        They begin where a pass up with doubled weights leads, which stand for the input from above that is still
        missing.
        """
        with no_grad():
            from_below = ops.dense(v, self.bottom.weight, self.bottom.hidden_bias)
            h1 = ops.sigmoid(from_below * 2 - self.bottom.hidden_bias)
            h2 = ops.sigmoid(self.top.inputs(h1))
            for _ in range(steps):
                h1 = ops.sigmoid(from_below + times_transposed(h2, self.top.weight))
                h2 = ops.sigmoid(self.top.inputs(h1))
        return Layers(v, h1, h2)

    def energy(self, layers: Layers) -> Tensor:
        """E (n,) of states, or E_q[E] of the means of independent units."""
        return self.bottom.energy(layers.v, layers.h1) - (self.top.inputs(layers.h1) * layers.h2).sum(axis=1)

    def variational_free_energy(self, layers: Layers) -> Tensor:
        """E_q[E] - H(q) (n,) of the means of q: the bound is minus this and minus log Z."""
        with no_grad():
            return self.energy(layers) - entropy(layers.h1) - entropy(layers.h2)

    def gibbs(self, h1: Tensor, steps: int, random: RandomStream) -> tuple[Layers, Tensor, Tensor]:
        """Gibbs sampling, at least one step, from states h1 (n, H1): given them v and h2, then given these h1 again.

        Returns the layers with the means of h1, its states, and the means of v.
        """
        with no_grad():
            for _ in range(steps):
                v, h2 = self.bottom.visible(h1, random), self.top.hidden(h1, random).states
                inputs = v.states @ self.bottom.weight + times_transposed(h2, self.top.weight)
                h1, means = random.binary_units(inputs, self.bottom.hidden_bias)
        return Layers(v.states, means, h2), h1, v.means

    def set_gradients(self, data: Layers, model: Layers, centered: bool = True) -> None:
        """The gradients of the bound, negated: of the mean E over the data's layers less that over the model's.

        If ``centered``, the direction of a gradient step in the centred energy's parameters, in terms of these here.
        """
        bottom, top = self.bottom, self.top
        c, d1, d2 = means = [each.reshape(1, -1) for each in (bottom.means, top.means, self.h2_means)]
        with no_grad():
            a = model.v.mean(axis=0) - data.v.mean(axis=0)
            if centered:
                data, model = (Layers(*map(sub, layers, means)) for layers in (data, model))
            (w1, b1), (w2, b2) = statistics(data[:2], model[:2]), statistics(data[1:], model[1:])
            if centered:
                a = a - times_transposed(d1, w1).reshape(-1)
                b1 = b1 - (c @ w1 + times_transposed(d2, w2)).reshape(-1)
                b2 = b2 - (d1 @ w2).reshape(-1)
        bottom.weight.grad, bottom.visible_bias.grad, bottom.hidden_bias.grad = w1, a, b1
        top.weight.grad, top.visible_bias.grad, top.hidden_bias.grad = w2, None, b2

    def as_rbm(self) -> RBM:
        """The same distribution as an RBM with h1 as its visible and v and h2 as its hidden units: a copy."""
        (h1, h2), dim = self.config.hidden, self.config.input_dim
        rbm = RBM(RBMConfig(h1, dim + h2), 0, self.dtype)
        rbm.weight.write(np.concatenate([self.bottom.weight.data.T, self.top.weight.data], axis=1))
        rbm.visible_bias.write(self.bottom.hidden_bias.detach())
        rbm.hidden_bias.write(np.concatenate([self.bottom.visible_bias.data, self.top.hidden_bias.data]))
        rbm.means.write(self.top.means.detach())
        return rbm

    def codes(self, v: Tensor, steps: int) -> Tensor:
        """The means (n, H2) of the top layer."""
        return self.mean_field(v, steps).h2

    def reconstruct(self, v: Tensor, steps: int) -> Tensor:
        """E[v | mu1] (n, D)."""
        return self.bottom.visible_means(self.mean_field(v, steps).h1)


def entropy(means: Tensor) -> Tensor:
    """The entropy (n,), in nats, of independent binary units of these means (n, H)."""
    tiny = float(np.finfo(means.dtype).tiny)
    on, off = ops.clip(means, tiny, 1.0), ops.clip(1 - means, tiny, 1.0)
    return -(on * ops.log(on) + off * ops.log(off)).sum(axis=1)
