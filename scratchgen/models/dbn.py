"""The deep belief network (Hinton, Osindero & Teh 2006; L03): layers that cause the one below, an RBM at the top.

    p(v, h1, ..., hL) = p(v|h1) p(h1|h2) ... p(h_(L-1), hL),     the last of which is an RBM

Layers are trained one after the other. The RBM of v and h1 is a model p(h1) p(v|h1); with p(v|h1) kept, the next RBM
replaces p(h1), which raises the bound, with q(h1|v) = p(h1|v) of the first one,

    log p(v) >= E_q(h1|v) [log p(v|h1) + log p(h1) - log q(h1|v)],

if it models these h1 better. It begins as the first RBM turned upside down, if it has as many hidden units as there are
pixels: then the model is the same, and the bound is tight. Further hidden units begin with very small weights.
"""

from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np

from scratchgen import ops
from scratchgen.errors import require
from scratchgen.models.rbm import RBM, RBMConfig, Units
from scratchgen.nn import Module
from scratchgen.random import RandomStream
from scratchgen.tensor import Tensor, no_grad

FURTHER = 0.1  # weights of further units, relative to a new RBM's: 1,216 units with those cost 1.5 nats


@dataclass(frozen=True)
class DBNConfig:
    """The sizes of a deep belief network.

    Attributes
    ----------
    input_dim, hidden : int, tuple of int
        D visible units, and the hidden units of each layer, from the one next to the pixels to the top.
    """

    input_dim: int = 784
    hidden: tuple[int, ...] = (500, 1000)

    def __post_init__(self) -> None:
        require({"one hidden layer or more": len(self.hidden) >= 1})
        for sizes in pairwise((self.input_dim, *self.hidden)):
            RBMConfig(*sizes)


class DBN(Module):
    """A deep belief network: ``rbms``, from the pixels up, of which the first ``depth`` have begun to be trained.

    Methods are of the network of these, and its top is the last of them.
    """

    def __init__(self, config: DBNConfig, rng: int | np.random.Generator, dtype: Any = np.float32) -> None:
        self.config, self.dtype, self.depth = config, np.dtype(dtype), len(config.hidden)
        rng, sizes = np.random.default_rng(rng), pairwise((config.input_dim, *config.hidden))
        self.rbms = [RBM(RBMConfig(d, h), rng, dtype) for d, h in sizes]
        self.kept = np.zeros((0, config.hidden[-1]))  # states (n, H) of the top layer where training has left chains

    @property
    def top(self) -> RBM:
        """The last of the RBMs that have begun."""
        return self.rbms[self.depth - 1]

    def begin(self, layer: int) -> None:
        """Begin the RBM of a layer, with those below already trained.

        It begins ``upside_down``, and with a tenth of a new RBM's weights for its further units, so that these come to
        differ. If it has too few units for that, only its visible biases are taken from the layer below.
        """
        self.depth = layer + 1
        if layer == 0:
            return
        below, rbm = self.rbms[layer - 1], self.rbms[layer]
        rbm.visible_bias.write(below.hidden_bias.detach())
        if self.fits_upside_down(layer):
            begun, small = self.upside_down(layer), FURTHER * rbm.weight.data
            small[:, : below.config.input_dim] = 0
            rbm.weight.write(begun.weight.data + small)
            rbm.hidden_bias.write(begun.hidden_bias.detach())

    def fits_upside_down(self, layer: int) -> bool:
        """Whether a layer above the first has as many hidden units as the one below has visible ones, or more."""
        return self.rbms[layer].config.hidden >= self.rbms[layer - 1].config.input_dim

    def upside_down(self, layer: int) -> RBM:
        """The RBM below a layer, upside down, and with further hidden units of weights 0 and biases 0.

        The distribution of its visible units is that of the hidden units below, and its Z is as large, times 2 for
        each further unit. The layer must fit (``fits_upside_down``).
        """
        below, found = self.rbms[layer - 1], RBM(self.rbms[layer].config, 0, self.dtype)
        units, weight = below.config.input_dim, np.zeros(found.weight.shape)
        weight[:, :units] = below.weight.data.T
        found.weight.write(weight)
        found.visible_bias.write(below.hidden_bias.detach())
        found.hidden_bias.write(np.concatenate([below.visible_bias.data, np.zeros(found.config.hidden - units)]))
        return found

    def up(self, v: Tensor, layers: int, random: RandomStream) -> Tensor:
        """A draw of the units (n, ·) so many layers above v (n, D), from q; of 0 layers, v."""
        for rbm in self.rbms[:layers]:
            v = rbm.hidden(v, random).states
        return v

    def down(self, h: Tensor, layers: int, random: RandomStream) -> Units:
        """Visible units (n, D) given units (n, ·) so many layers above, one or more: a draw, and its means."""
        for rbm in reversed(self.rbms[:layers]):
            units = rbm.visible(h, random)
            h = units.states
        return units

    def log_weights(self, v: Tensor, random: RandomStream) -> Tensor:
        """log p*(v, h1, ...) - log q(h1, ... | v) (n,) of a draw of q, where p* is p times Z of the top RBM.

        Its mean is log Z + the bound, and the mean of its exponentials is Z p(v).
        """
        with no_grad():
            total = Tensor(np.zeros(len(v)), dtype=v.dtype)
            for rbm in self.rbms[: self.depth - 1]:
                h = rbm.hidden(v, random).states
                total = ops.bce_with_logits(rbm.inputs(v), h) - rbm.neg_log_conditional(v, h) + total
                v = h
            return total - self.top.free_energy(v)

    def codes(self, v: Tensor) -> Tensor:
        """The means (n, H) of the top layer, from those of the layers below."""
        with no_grad():
            for rbm in self.rbms[: self.depth]:
                v = ops.sigmoid(rbm.inputs(v))
        return v

    def reconstruct(self, v: Tensor) -> Tensor:
        """v (n, D) from the means of all layers, up and down again."""
        h = self.codes(v)
        for rbm in reversed(self.rbms[: self.depth]):
            h = rbm.visible_means(h)
        return h
