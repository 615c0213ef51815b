"""Training restricted Boltzmann machines by contrastive divergence (Hinton 2002) or with chains that go on (L03)."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from scratchgen.data.dataset import Dataset
from scratchgen.data.pixels import BINARIZE
from scratchgen.errors import require, require_one_of
from scratchgen.evaluation.energy import evaluate_rbm
from scratchgen.models.rbm import RBM
from scratchgen.nn import Buffer, Module
from scratchgen.optim import SCHEDULES, SGD
from scratchgen.random import RandomStream
from scratchgen.tasks.task import Metrics, Task
from scratchgen.tensor import Tensor

LEAST = 1_000  # annealing steps after an epoch


@dataclass(frozen=True)
class RBMTraining:
    """How a restricted Boltzmann machine is trained.

    Attributes
    ----------
    gibbs_steps : int
        k, Gibbs steps from where a chain is to the model's sample: CD-k.
    chains : int
        How many chains go on from batch to batch (persistent contrastive divergence: Tieleman 2008). 0: each image of
        the batch begins a chain.
    lr, schedule : float, str
        The learning rate, and how it goes down: a name in ``SCHEDULES`` (see ``optim``).
    momentum : float
        Of SGD.
    binarize : str
        "none", "static" or "dynamic": see ``data.pixels``.
    annealed_chains, annealing_steps : int
        For log Z at the end of training: how many chains, and steps of each. After an epoch they take a tenth of them,
        but at least 1,000 if there are as many.
    """

    gibbs_steps: int = 1
    chains: int = 0
    lr: float = 0.05
    schedule: str = "cosine"
    momentum: float = 0.0
    binarize: str = "dynamic"
    annealed_chains: int = 100
    annealing_steps: int = 10_000

    def __post_init__(self) -> None:
        require_one_of("schedule", self.schedule, SCHEDULES)
        require_one_of("binarize", self.binarize, BINARIZE)
        require(
            {
                "gibbs_steps >= 1": self.gibbs_steps >= 1,
                "chains >= 0": self.chains >= 0,
                "lr > 0": self.lr > 0,
                "0 <= momentum < 1": 0 <= self.momentum < 1,
                "annealed_chains >= 2": self.annealed_chains >= 2,
                "annealing_steps >= 3": self.annealing_steps >= 3,
            }
        )

    def pixels(self, images: Tensor, random: RandomStream) -> Tensor:
        """Images (n, D) as the machine sees them in training: drawn from their grey levels if "dynamic"."""
        return random.bernoulli(images) if self.binarize == "dynamic" else images

    def after_an_epoch(self) -> tuple[int, int]:
        """Annealed chains for log Z, and steps of each."""
        return self.annealed_chains, min(self.annealing_steps, max(LEAST, self.annealing_steps // 10))

    def optimizer(self, parameters: Any, steps: int) -> SGD:
        """SGD for the parameters, whose schedule lasts so many ``steps``."""
        return SGD(parameters, SCHEDULES[self.schedule](self.lr, steps), self.momentum)


class Chains(Module):
    """Markov chains that go on from batch to batch: their hidden ``states`` (n, H), at first coin tosses."""

    def __init__(self, n: int, hidden: int, rng: np.random.Generator, dtype: Any = np.float32) -> None:
        self.states = Buffer(rng.integers(2, size=(n, hidden)), dtype=dtype)

    def begin(self, states: Tensor) -> None:
        """Begin at these states (m, H), some of them, or all and again from the first."""
        self.states.write(states.data[np.arange(len(self.states)) % len(states)])


class RBMTask(Task):
    """A restricted Boltzmann machine in training, whose schedule lasts ``epochs`` of ``steps_per_epoch`` steps."""

    def __init__(
        self, model: RBM, settings: RBMTraining, random: RandomStream, steps_per_epoch: int, epochs: int
    ) -> None:
        self.model, self.settings, self.random = model, settings, random
        self.optimizer = settings.optimizer(model, steps_per_epoch * epochs)
        self.chains = Chains(settings.chains, model.config.hidden, random.generator, model.dtype)

    def train_step(self, x: Tensor, labels: Any = None) -> dict[str, Tensor]:
        """A step of contrastive divergence on a batch x (b, D)."""
        v = self.settings.pixels(x, self.random)
        return contrastive_step(self.model, v, self.chains, self.optimizer, self.settings.gibbs_steps, self.random)

    def evaluate(self, dataset: Dataset, rng: np.random.Generator) -> Metrics:
        """``evaluate_rbm`` of the test images, binarised anew if "dynamic"."""
        random = RandomStream(rng)
        images = self.settings.pixels(Tensor(dataset.test.images), random).data
        found = evaluate_rbm(self.model, images, random, *self.settings.after_an_epoch())
        return {name: found[name] for name in ("nll", "effective_sample_size", "reconstruction")}

    def parts(self) -> dict[str, Any]:
        return {"model": self.model, "optimizer": self.optimizer, "chains": self.chains}


def contrastive_step(
    rbm: RBM,
    v: Tensor,
    chains: Chains,
    optimizer: SGD,
    gibbs_steps: int,
    random: RandomStream,
    up: float = 1.0,
    down: float = 1.0,
) -> dict[str, Tensor]:
    """Lower the free energy of visible states v (b, D), and raise it where Gibbs sampling leads (L03).

    It begins where the ``chains`` are, or, if there are none, at v. ``up`` and ``down`` are those of ``RBM.gibbs``.
    """
    h = rbm.hidden(v, random, up)
    persistent = len(chains.states) > 0
    model_v, model_h = rbm.gibbs(chains.states if persistent else h.states, gibbs_steps, random, up, down)
    if persistent:
        chains.states.write(model_h.states)
    rbm.set_gradients((v, h.means), (model_v.states, model_h.means))
    norm = optimizer.gradient_norm()
    optimizer.step(norm)  # no update where it is not finite
    return {"gradient": norm, "activity": h.means.mean()}
