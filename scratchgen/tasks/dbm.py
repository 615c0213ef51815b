"""Training deep Boltzmann machines (Salakhutdinov & Hinton 2009; L03): all of it at once, or both RBMs first."""

from collections.abc import Hashable
from dataclasses import dataclass
from typing import Any

import numpy as np

from scratchgen.data.dataset import Dataset
from scratchgen.errors import require
from scratchgen.evaluation.energy import evaluate_dbm
from scratchgen.models.dbm import DBM
from scratchgen.nn import flatten
from scratchgen.random import RandomStream
from scratchgen.tasks.dbn import follow_means
from scratchgen.tasks.rbm import Chains, RBMTraining, contrastive_step
from scratchgen.tasks.task import Metrics, Task
from scratchgen.tensor import Tensor

PHASES = ("bottom", "top", "joint")


@dataclass(frozen=True)
class DBMTraining(RBMTraining):
    """How a deep Boltzmann machine is trained; other attributes as in ``RBMTraining``.

    Attributes
    ----------
    centered : bool
        Train by the centred energy (Montavon & Mueller 2012; see ``models.dbm``), from random weights. Without it
        ``lr`` has to be a fiftieth, and pretraining helps.
    pretraining_epochs : int
        Of each of the two RBMs; 0, if ``centered``.
    pretraining_lr : float
        Their learning rate.
    mean_field_steps : int
        Updates of the means of both hidden layers for a batch.
    """

    chains: int = 400
    lr: float = 0.05
    centered: bool = True
    pretraining_epochs: int = 0
    pretraining_lr: float = 0.05
    mean_field_steps: int = 5

    def __post_init__(self) -> None:
        super().__post_init__()
        require(
            {
                "chains >= 1": self.chains >= 1,
                "pretraining_epochs >= 0": self.pretraining_epochs >= 0,
                "pretraining_epochs = 0, or centered = False as in --config pretrained,": self.pretraining_epochs == 0
                or not self.centered,
                "pretraining_lr > 0": self.pretraining_lr > 0,
                "mean_field_steps >= 1": self.mean_field_steps >= 1,
            }
        )


class DBMTask(Task):
    """A deep Boltzmann machine in training: of ``epochs`` the first ones, if any, pretrain its two RBMs.

    In pretraining inputs that come from one side only are doubled, upwards in the bottom RBM and downwards in the top
    one: in the whole machine h1 has both sides.
    """

    def __init__(
        self, model: DBM, settings: DBMTraining, random: RandomStream, steps_per_epoch: int, epochs: int
    ) -> None:
        self.model, self.settings, self.random = model, settings, random
        flatten(model.parameters())
        joint = max(1, epochs - 2 * settings.pretraining_epochs)
        first = steps_per_epoch * settings.pretraining_epochs
        self.steps = {"bottom": first, "top": first, "joint": steps_per_epoch * joint}
        pretraining = RBMTraining(1, 0, settings.pretraining_lr, settings.schedule, settings.momentum)
        self.optimizers = {
            "bottom": pretraining.optimizer(model.bottom, max(1, first)),
            "top": pretraining.optimizer(model.top, max(1, first)),
            "joint": settings.optimizer(model, self.steps["joint"]),
        }
        h1 = model.config.hidden[0]
        self.no_chains = Chains(0, h1, random.generator, model.dtype)
        self.chains = Chains(settings.chains, h1, random.generator, model.dtype)

    def train_step(self, x: Tensor, labels: Any = None, phase: str = "joint") -> dict[str, Tensor]:
        """A step of a phase on a batch x (b, D)."""
        v = self.settings.pixels(x, self.random)
        if phase == "joint":
            return self.update_jointly(v)
        rbm, up, down = self.model.bottom, 2.0, 1.0
        if phase == "top":
            v, rbm, up, down = self.model.bottom.hidden(v, self.random, 2.0).states, self.model.top, 1.0, 2.0
            follow_means(rbm.means, v)
        return contrastive_step(rbm, v, self.no_chains, self.optimizers[phase], 1, self.random, up, down)

    def update_jointly(self, v: Tensor) -> dict[str, Tensor]:
        """Lower the energy of v (b, D) with the means of the layers above, and raise it where the chains are (L03)."""
        data = self.model.mean_field(v, self.settings.mean_field_steps)
        model, states, _ = self.model.gibbs(self.chains.states, self.settings.gibbs_steps, self.random)
        self.chains.states.write(states)
        follow_means(self.model.top.means, data.h1)
        follow_means(self.model.h2_means, data.h2)
        self.model.set_gradients(data, model, self.settings.centered)
        norm = self.optimizers["joint"].gradient_norm()
        self.optimizers["joint"].step(norm)
        return {"gradient": norm, "activity": data.h1.mean()}

    @property
    def phase(self) -> str:
        """The phase whose turn it is."""
        return next((name for name in PHASES[:2] if self.optimizers[name].steps < self.steps[name]), "joint")

    def step_options(self) -> dict[str, Hashable]:
        """Which phase."""
        return {"phase": self.phase}

    def evaluate(self, dataset: Dataset, rng: np.random.Generator) -> Metrics:
        """``evaluate_dbm`` of the test images, binarised anew if "dynamic"."""
        random = RandomStream(rng)
        images = self.settings.pixels(Tensor(dataset.test.images), random).data
        steps = self.settings.after_an_epoch()
        found = evaluate_dbm(self.model, images, random, *steps, self.settings.mean_field_steps)
        return {name: found[name] for name in ("neg_bound", "effective_sample_size", "reconstruction")}

    def parts(self) -> dict[str, Any]:
        return {
            "model": self.model,
            "chains": self.chains,
            **{f"{name}_optimizer": each for name, each in self.optimizers.items()},
        }
