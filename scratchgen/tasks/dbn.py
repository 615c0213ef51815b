"""Training deep belief networks, one layer after the other (Hinton, Osindero & Teh 2006; L03)."""

from collections.abc import Hashable
from typing import Any

import numpy as np

import kernels
from scratchgen.data.dataset import Dataset
from scratchgen.evaluation.energy import evaluate_dbn
from scratchgen.models.dbn import DBN
from scratchgen.random import RandomStream
from scratchgen.tasks.rbm import CHAINS, STEPS, Chains, RBMTraining, contrastive_step
from scratchgen.tasks.task import Metrics, Task
from scratchgen.tensor import Tensor

SAMPLES = 5  # of q for the importance-weighted bound at the end of an epoch
DECAY = 0.99  # of the moving averages that are an upper layer's ``means``


class DBNTask(Task):
    """A deep belief network in training: of ``epochs``, each layer has as many, the upper ones the rest."""

    def __init__(
        self, model: DBN, settings: RBMTraining, random: RandomStream, steps_per_epoch: int, epochs: int
    ) -> None:
        self.model, self.settings, self.random = model, settings, random
        layers = len(model.rbms)
        ends = [steps_per_epoch * (epochs * (layer + 1) // layers) for layer in range(layers)]
        self.steps = [end - begin for begin, end in zip([0, *ends], ends, strict=False)]
        self.optimizers = [settings.optimizer(rbm, max(1, n)) for rbm, n in zip(model.rbms, self.steps, strict=True)]
        self.chains = [Chains(settings.chains, h, random.generator, model.dtype) for h in model.config.hidden]

    def train_step(self, x: Tensor, labels: Any = None, layer: int = 0, begin: bool = False) -> dict[str, Tensor]:
        """A step of contrastive divergence of a layer's RBM, on what the layers below draw for a batch x (b, D)."""
        if begin:
            self.model.begin(layer)
        v = self.random.bernoulli(x) if self.settings.binarize == "dynamic" else x
        below = self.model.up(v, layer, self.random)
        rbm = self.model.rbms[layer]
        if layer:
            follow_means(rbm.means, below)
        return contrastive_step(
            rbm, below, self.chains[layer], self.optimizers[layer], self.settings.gibbs_steps, self.random
        )

    @property
    def layer(self) -> int:
        """The layer whose turn it is, or was last."""
        for layer, (optimizer, steps) in enumerate(zip(self.optimizers, self.steps, strict=True)):
            if optimizer.steps < steps:
                return layer
        return len(self.steps) - 1

    def step_options(self) -> dict[str, Hashable]:
        """Which layer, and whether this is its first step."""
        return {"layer": self.layer, "begin": self.optimizers[self.layer].steps == 0}

    def evaluate(self, dataset: Dataset, rng: np.random.Generator) -> Metrics:
        """``evaluate_dbn`` of the layers that have begun, on the test images, binarised afresh if "dynamic"."""
        random, images = RandomStream(rng), dataset.test.images
        if self.settings.binarize == "dynamic":
            images = random.bernoulli(Tensor(images)).data
        begun = max(1, sum(optimizer.steps > 0 for optimizer in self.optimizers))
        found = evaluate_dbn(self.model, images, random, CHAINS, STEPS, SAMPLES, begun)
        return {name: found[name] for name in ("nll", "neg_bound", "reconstruction")}

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
