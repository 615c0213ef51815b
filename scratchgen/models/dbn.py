"""The deep belief network (Hinton, Osindero & Teh 2006; L03): layers that cause the one below, an RBM at the top.

    p(v, h1, ..., hL) = p(v|h1) p(h1|h2) ... p(h_(L-1), hL),     the last of which is an RBM

Layers are trained one after the other. The RBM of v and h1 is a model p(h1) p(v|h1); with p(v|h1) kept, the next RBM
replaces p(h1), which raises the bound, with q(h1|v) = p(h1|v) of the first one,

    log p(v) >= E_q(h1|v) [log p(v|h1) + log p(h1) - log q(h1|v)],

if it models these h1 better. It begins as the first RBM turned upside down where the sizes allow that: then it is the
same model, and the bound is tight.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np

from scratchgen import ops
from scratchgen.errors import require
from scratchgen.models.rbm import RBM, VISIBLE, RBMConfig, Units
from scratchgen.nn import Module
from scratchgen.random import RandomStream
from scratchgen.tensor import Tensor, no_grad


@dataclass(frozen=True)
class DBNConfig:
    """The sizes of a deep belief network.

    Attributes
    ----------
    input_dim, hidden : int, tuple of int
        D visible units, and the hidden units of each layer, from the one next to the pixels to the top.
    visible, sigma : str, float
        p(v|h1), as in ``RBMConfig``.
    """

    input_dim: int = 784
    hidden: tuple[int, ...] = (500, 500)
    visible: str = "bernoulli"
    sigma: float = 0.2

    def __post_init__(self) -> None:
        require({"one hidden layer or more": len(self.hidden) >= 1})
        for sizes in zip((self.input_dim, *self.hidden), self.hidden, strict=False):
            RBMConfig(*sizes, self.visible, self.sigma)


class DBN(Module):
    """A deep belief network: ``rbms``, from the pixels up."""

    def __init__(self, config: DBNConfig, rng: int | np.random.Generator, dtype: Any = np.float32) -> None:
        self.config, self.dtype = config, np.dtype(dtype)
        rng, sizes = np.random.default_rng(rng), zip((config.input_dim, *config.hidden), config.hidden, strict=False)
        kinds = [config.visible, *[VISIBLE[0]] * (len(config.hidden) - 1)]
        self.rbms = [
            RBM(RBMConfig(d, h, kind, config.sigma), rng, dtype) for (d, h), kind in zip(sizes, kinds, strict=True)
        ]

    def begin(self, layer: int) -> None:
        """Begin the RBM of a layer as the one below turned upside down, as far as the sizes are the same."""
        if layer == 0:
            return
        below, rbm = self.rbms[layer - 1], self.rbms[layer]
        rbm.visible_bias.write(below.hidden_bias.detach())
        if rbm.weight.shape == below.weight.shape[::-1] and not below.gaussian:
            rbm.weight.write(np.ascontiguousarray(below.weight.data.T))
            rbm.hidden_bias.write(below.visible_bias.detach())

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

    def log_weights(self, v: Tensor, random: RandomStream, depth: int | None = None) -> Tensor:
        """log p*(v, h1, ...) - log q(h1, ... | v) (n,) of a draw of q, where p* is p times Z of the top RBM.

        Its mean is log Z + the bound, and the mean of its exponentials is Z p(v). With ``depth`` of the network of the
        first so many RBMs.
        """
        depth = depth or len(self.rbms)
        with no_grad():
            total = Tensor(np.zeros(len(v)), dtype=v.dtype)
            for rbm in self.rbms[: depth - 1]:
                h = rbm.hidden(v, random).states
                total = ops.bce_with_logits(rbm.inputs(v), h) - rbm.neg_log_conditional(v, h) + total
                v = h
            return total - self.rbms[depth - 1].free_energy(v)

    def codes(self, v: Tensor) -> Tensor:
        """The means (n, H) of the top layer, from those of the layers below."""
        with no_grad():
            for rbm in self.rbms:
                v = ops.sigmoid(rbm.inputs(v))
        return v

    def reconstruct(self, v: Tensor) -> Tensor:
        """v (n, D) from the means of all layers, up and down again."""
        with no_grad():
            h = self.codes(v)
            for rbm in reversed(self.rbms):
                h = rbm.visible_means(h)
        return h
