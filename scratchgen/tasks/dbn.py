"""Training deep belief networks, one layer after the other (Hinton, Osindero & Teh 2006; L03)."""

from collections.abc import Hashable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

import kernels
from scratchgen.data.dataset import Dataset
from scratchgen.errors import require
from scratchgen.evaluation.energy import evaluate_dbn
from scratchgen.models.dbn import DBN
from scratchgen.random import RandomStream
from scratchgen.tasks.rbm import Chains, RBMTraining, contrastive_step
from scratchgen.tasks.task import Metrics, Task
from scratchgen.tensor import Tensor

SAMPLES = 5  # of q for the importance-weighted bound at the end of an epoch
DECAY = 0.99  # of the moving averages that are an upper layer's ``means``


@dataclass(frozen=True)
class DBNTraining(RBMTraining):
    """How a deep belief network is trained; other attributes as in ``RBMTraining``, for each of its RBMs.

    Attributes
    ----------
    layer_epochs : int
        Epochs of each layer but the top one, which has the rest.
    upper_lr : float
        The learning rate of the layers above the first, which begin with weights that are good already.
    """

    layer_epochs: int = 40
    upper_lr: float = 0.001

    def __post_init__(self) -> None:
        super().__post_init__()
        require({"layer_epochs >= 1": self.layer_epochs >= 1, "upper_lr > 0": self.upper_lr > 0})


class DBNTask(Task):
    """A deep belief network in training, its layers in turn, from the pixels up."""

    def __init__(
        self, model: DBN, settings: DBNTraining, random: RandomStream, steps_per_epoch: int, epochs: int
    ) -> None:
        self.model, self.settings, self.random = model, settings, random
        below = len(model.rbms) - 1
        shares = [settings.layer_epochs] * below + [max(1, epochs - below * settings.layer_epochs)]
        self.steps = [steps_per_epoch * share for share in shares]
        of_layers = [settings, *[replace(settings, lr=settings.upper_lr)] * below]
        kinds = zip(of_layers, model.rbms, self.steps, strict=True)
        self.optimizers = [kind.optimizer(rbm, steps) for kind, rbm, steps in kinds]
        self.chains = [Chains(settings.chains, h, random.generator, model.dtype) for h in model.config.hidden]

    def train_step(self, x: Tensor, labels: Any = None, layer: int = 0, begin: bool = False) -> dict[str, Tensor]:
        """A step of contrastive divergence of a layer's RBM, on what the layers below draw for a batch x (b, D)."""
        if begin:
            self.model.begin(layer)
        rbm, v = self.model.rbms[layer], self.model.up(self.settings.pixels(x, self.random), layer, self.random)
        if layer:
            follow_means(rbm.means, v)
            if begin:  # weights that are good already would unlearn much with chains from anywhere
                self.chains[layer].begin(rbm.hidden(v, self.random).states)
        return contrastive_step(
            rbm, v, self.chains[layer], self.optimizers[layer], self.settings.gibbs_steps, self.random
        )

    def step_options(self) -> dict[str, Hashable]:
        """Which layer's turn it is, and whether this is its first step."""
        unfinished = (i for i, steps in enumerate(self.steps) if self.optimizers[i].steps < steps)
        layer = next(unfinished, len(self.steps) - 1)
        return {"layer": layer, "begin": self.optimizers[layer].steps == 0}

    def evaluate(self, dataset: Dataset, rng: np.random.Generator) -> Metrics:
        """``evaluate_dbn`` of the layers that have begun, on the test images, binarised anew if "dynamic"."""
        random = RandomStream(rng)
        images = self.settings.pixels(Tensor(dataset.test.images), random).data
        self.model.depth = max(1, sum(optimizer.steps > 0 for optimizer in self.optimizers))
        found = evaluate_dbn(self.model, images, random, *self.settings.after_an_epoch(), SAMPLES)
        return {name: found[name] for name in ("nll", "neg_bound", "effective_sample_size", "reconstruction")}

    def parts(self) -> dict[str, Any]:
        return {
            "model": self.model,
            **{f"optimizer_{layer}": each for layer, each in enumerate(self.optimizers)},
            **{f"chains_{layer}": each for layer, each in enumerate(self.chains)},
        }


def follow_means(means: Tensor, states: Tensor) -> None:
    """Let ``means`` (D,) follow those of states (n, D): a moving average."""
    active = kernels.active()
    decay = active.memory.empty((1,), states.dtype)
    active.memory.write(decay, DECAY)
    active.optimizers.average_step(means._data, states.mean(axis=0)._data, decay)
    means.version += 1
