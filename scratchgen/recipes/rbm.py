"""The restricted Boltzmann machine's recipe (L03)."""

from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np

from scratchgen import ops
from scratchgen.data import Dataset
from scratchgen.data.pixels import describe
from scratchgen.errors import UserError
from scratchgen.evaluation.energy import evaluate_rbm
from scratchgen.evaluation.partition import LogPartition, reverse_log_partition
from scratchgen.models.rbm import RBM, RBMConfig
from scratchgen.random import RandomStream, stream
from scratchgen.recipes.boltzmann import BoltzmannRecipe, log_z_in_words
from scratchgen.recipes.recipe import RunConfig, named
from scratchgen.tasks.rbm import RBMTask, RBMTraining
from scratchgen.tensor import Tensor
from scratchgen.training import Selection


class RBMRecipe(BoltzmannRecipe):
    """Restricted Boltzmann machines. A chain's state is that of the hidden units."""

    model = "rbm"
    network, training = RBMConfig, RBMTraining
    configs: ClassVar = named(
        # Chains that go on give the better likelihood.
        RunConfig("rbm", "persistent", RBMConfig(), RBMTraining(chains=100), epochs=60, batch_size=100),
        # Hinton 2002. Reconstructions are good soon, but chains of one step never see what is far from the data.
        RunConfig("rbm", "cd1", RBMConfig(), RBMTraining(momentum=0.5), epochs=20, batch_size=100),
        # Grey levels as real numbers.
        RunConfig(
            "rbm",
            "gaussian",
            RBMConfig(visible="gaussian", sigma=0.3),
            RBMTraining(chains=100, lr=1e-3, binarize="none"),
            epochs=20,
            batch_size=100,
        ),
    )
    expected: ClassVar = {("persistent", "mnist"): "nll 87 to 90"}  # one seed; log Z is uncertain by a nat

    def pixels(self, config: RunConfig) -> str:
        """The pixels that the model sees, in words."""
        return describe(config.training.binarize, config.network.visible)

    def selection(self, config: RunConfig) -> Selection:
        """The likelihood, of which each epoch has an estimate: the best epoch may be one whose log Z came out low."""
        return Selection(("nll",))

    def build(self, config: RunConfig) -> RBM:
        """A new machine."""
        return RBM(config.network, stream(config.seed, "parameters"))

    def task(self, config: RunConfig, model: RBM, data: Dataset) -> RBMTask:
        """The machine in training, with the pixels' means as its visible biases.

        UserError for Gaussian units of pixels that are 0 or 1, whose density has no bound.
        """
        if config.network.visible == "gaussian" and config.training.binarize != "none":
            raise UserError(
                "Gaussian visible units are for grey levels: train with --binarize none, "
                f"not {config.training.binarize}"
            )
        self.with_means(model, data)
        return RBMTask(model, config.training, self.random(config), self.steps_per_epoch(config, data), config.epochs)

    def evaluate(
        self, config: RunConfig, model: RBM, data: Dataset, limit: int | None = None, iw_samples: int | None = None
    ) -> dict[str, Any]:
        """The likelihood of the first ``limit`` test images: see ``evaluate_rbm``."""
        self.refuse(iw_samples=iw_samples)
        images = self.as_seen(config, data.test.images, "test")[:limit]
        random = RandomStream(stream(config.seed, "final evaluation"))
        training = config.training
        found = evaluate_rbm(model, images, random, training.annealed_chains, training.annealing_steps)
        return self.with_log_z_back(config, model, found, random)

    def report(self, config: RunConfig, test: dict[str, Any]) -> str:
        """The likelihood, and how well log Z is known."""
        return f"test, nats an image: nll {test['nll']:.2f};  {log_z_in_words(test)}"

    def annealed(self, model: RBM) -> RBM:
        """Itself."""
        return model

    def first(self, model: RBM) -> RBM:
        """Itself."""
        return model

    def begin(self, config: RunConfig, model: RBM, v: Tensor, random: RandomStream) -> Tensor:
        """A draw of the hidden units."""
        return model.hidden(v, random).states

    def begin_annealed(self, model: RBM, v: Tensor, random: RandomStream) -> Tensor:
        """A draw of the hidden units."""
        return model.hidden(v, random).states

    def advance(self, model: RBM, state: Tensor, steps: int, random: RandomStream) -> tuple[Tensor, Tensor]:
        """Gibbs sampling."""
        v, h = model.gibbs(state, steps, random)
        return h.states, v.means

    def log_z_back(self, model: RBM, state: Tensor, steps: int, random: RandomStream) -> LogPartition:
        """From visible units given these."""
        return reverse_log_partition(model, model.visible(state, random).states.data, steps, random)

    def kept(self, model: RBM, arrays: Mapping[str, np.ndarray]) -> np.ndarray:
        """The chains of training."""
        return arrays["chains.states"]

    def top_means(self, config: RunConfig, model: RBM, v: Tensor) -> Tensor:
        """E[h|v]."""
        return ops.sigmoid(model.inputs(v))

    def down_again(self, config: RunConfig, model: RBM, v: Tensor) -> Tensor:
        """E[v | E[h|v]]."""
        return model.reconstruct(v)
