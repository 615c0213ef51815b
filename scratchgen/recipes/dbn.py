"""The deep belief network's recipe (L03)."""

from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np

from scratchgen.data import Dataset
from scratchgen.data.pixels import describe
from scratchgen.errors import UserError
from scratchgen.evaluation.energy import evaluate_dbn
from scratchgen.models.dbn import DBN, DBNConfig
from scratchgen.models.rbm import RBM
from scratchgen.random import RandomStream, stream
from scratchgen.recipes import boltzmann
from scratchgen.recipes.boltzmann import BoltzmannRecipe, log_z_in_words
from scratchgen.recipes.recipe import RunConfig, named
from scratchgen.tasks.dbn import DBNTask
from scratchgen.tasks.rbm import RBMTraining
from scratchgen.tensor import Tensor
from scratchgen.training import Selection

SAMPLES = 100  # of q for the importance-weighted bound in the summary


class DBNRecipe(BoltzmannRecipe):
    """Deep belief networks. A chain's state is that of the top layer."""

    model = "dbn"
    network, training = DBNConfig, RBMTraining
    configs: ClassVar = named(
        RunConfig("dbn", "persistent", DBNConfig(), RBMTraining(chains=100), epochs=80, batch_size=100),
        # The sizes of Salakhutdinov & Murray 2008.
        RunConfig("dbn", "wide", DBNConfig(hidden=(500, 2000)), RBMTraining(chains=100), epochs=80, batch_size=100),
    )
    expected: ClassVar = {}

    def pixels(self, config: RunConfig) -> str:
        """The pixels that the model sees, in words."""
        return describe(config.training.binarize, config.network.visible)

    def selection(self, config: RunConfig) -> Selection:
        """The bound, of which each epoch has an estimate."""
        return Selection(("neg_bound",))

    def build(self, config: RunConfig) -> DBN:
        """A new network."""
        return DBN(config.network, stream(config.seed, "parameters"))

    def task(self, config: RunConfig, model: DBN, data: Dataset) -> DBNTask:
        """The network in training, with the pixels' means as its visible biases. UserError for too few epochs."""
        if config.epochs < len(model.rbms):
            raise UserError(f"{len(model.rbms)} layers need an epoch each; give a larger --epochs")
        self.with_means(config, model, data)
        return DBNTask(model, config.training, self.random(config), self.steps_per_epoch(config, data), config.epochs)

    def evaluate(
        self, config: RunConfig, model: DBN, data: Dataset, limit: int | None = None, iw_samples: int | None = None
    ) -> dict[str, Any]:
        """The bound over the first ``limit`` test images: see ``evaluate_dbn``."""
        self.refuse(iw_samples=iw_samples)
        images = self.as_seen(config, data.test.images, "test")[:limit]
        random = RandomStream(stream(config.seed, "final evaluation"))
        return evaluate_dbn(model, images, random, boltzmann.CHAINS, boltzmann.STEPS, SAMPLES)

    def report(self, config: RunConfig, test: dict[str, Any]) -> str:
        """The bound and the likelihood, and how well log Z is known."""
        return (
            f"test, nats an image: neg_bound {test['neg_bound']:.2f}, nll {test['nll']:.2f} (by {test['samples']} "
            f"draws of the hidden layers);  {log_z_in_words(test)}"
        )

    def first(self, model: DBN) -> RBM:
        return model.rbms[0]

    def log_partition_of(self, model: DBN) -> RBM:
        return model.rbms[-1]

    def begin(self, config: RunConfig, model: DBN, v: Tensor, random: RandomStream) -> Tensor:
        return model.up(v, len(model.rbms), random)

    def begin_annealed(self, model: DBN, states: Tensor, random: RandomStream) -> Tensor:
        return model.rbms[-1].hidden(states, random).states

    def advance(self, model: DBN, state: Tensor, steps: int, random: RandomStream) -> tuple[Tensor, Tensor]:
        v, h = model.rbms[-1].gibbs(state, steps, random)
        below = len(model.rbms) - 1
        return h.states, model.down(v.states, below, random).means if below else v.means

    def kept(self, arrays: Mapping[str, np.ndarray]) -> np.ndarray:
        layers = sum(name.startswith("chains_") for name in arrays)
        return arrays[f"chains_{layers - 1}.states"]

    def filters(self, model: DBN) -> np.ndarray:
        return model.rbms[0].weight.data.T

    def codes(self, config: RunConfig, model: DBN, v: Tensor) -> Tensor:
        return model.codes(v)

    def reconstructed(self, config: RunConfig, model: DBN, v: Tensor) -> Tensor:
        return model.reconstruct(v)
