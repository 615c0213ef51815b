"""The deep belief network's recipe (L03)."""

from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np

from scratchgen.data import Dataset
from scratchgen.data.pixels import describe
from scratchgen.errors import UserError
from scratchgen.evaluation.energy import evaluate_dbn
from scratchgen.evaluation.partition import LogPartition, reverse_log_partition_of_top
from scratchgen.models.dbn import DBN, DBNConfig
from scratchgen.models.rbm import RBM
from scratchgen.random import RandomStream, stream
from scratchgen.recipes.boltzmann import BoltzmannRecipe, log_z_in_words, require_no_patience
from scratchgen.recipes.recipe import RunConfig, named
from scratchgen.tasks.dbn import DBNTask, DBNTraining
from scratchgen.tensor import Tensor
from scratchgen.training import Selection

SAMPLES = 100  # of q for the importance-weighted bound in the summary


class DBNRecipe(BoltzmannRecipe):
    """Deep belief networks. A chain's state is that of the top layer."""

    model = "dbn"
    network, training = DBNConfig, DBNTraining
    configs: ClassVar = named(
        RunConfig("dbn", "persistent", DBNConfig(), DBNTraining(chains=100), epochs=80, batch_size=100),
    )
    expected: ClassVar = {("persistent", "mnist"): "neg_bound 88 to 90"}  # one seed

    def pixels(self, config: RunConfig) -> str:
        """The pixels that the model sees, in words."""
        return describe(config.training.binarize, "bernoulli")

    def selection(self, config: RunConfig) -> Selection:
        """The bound, of which each epoch has an estimate."""
        return Selection(("neg_bound",))

    def build(self, config: RunConfig) -> DBN:
        """A new network."""
        return DBN(config.network, stream(config.seed, "parameters"))

    def task(self, config: RunConfig, model: DBN, data: Dataset) -> DBNTask:
        """The network in training, with the pixels' means as its visible biases. UserError for too few epochs."""
        below = (len(model.rbms) - 1) * config.training.layer_epochs
        if config.epochs <= below:
            raise UserError(
                f"of {config.epochs} epochs none is left for the top layer after {below} of those below; "
                "give more --epochs, or fewer --layer-epochs"
            )
        require_no_patience(config)
        self.with_means(model, data)
        return DBNTask(model, config.training, self.random(config), self.steps_per_epoch(config, data), config.epochs)

    def evaluate(
        self, config: RunConfig, model: DBN, data: Dataset, limit: int | None = None, iw_samples: int | None = None
    ) -> dict[str, Any]:
        """The bound over the first ``limit`` test images: see ``evaluate_dbn``."""
        self.refuse(iw_samples=iw_samples)
        images = self.as_seen(config, data.test.images, "test")[:limit]
        random, training = RandomStream(stream(config.seed, "final evaluation")), config.training
        found = evaluate_dbn(model, images, random, training.annealed_chains, training.annealing_steps, SAMPLES)
        return self.with_log_z_back(config, model, found, random)

    def report(self, config: RunConfig, test: dict[str, Any]) -> str:
        """The bound and the likelihood, and how well log Z is known."""
        return (
            f"test, nats an image: neg_bound {test['neg_bound']:.2f}, nll {test['nll']:.2f} (by {test['samples']} "
            f"draws of the hidden layers);  {log_z_in_words(test)}"
        )

    def annealed(self, model: DBN) -> RBM:
        """The RBM at the top."""
        return model.top

    def first(self, model: DBN) -> RBM:
        """The RBM at the bottom."""
        return model.rbms[0]

    def begin(self, config: RunConfig, model: DBN, v: Tensor, random: RandomStream) -> Tensor:
        """A draw of all layers."""
        return model.up(v, model.depth, random)

    def begin_annealed(self, model: DBN, v: Tensor, random: RandomStream) -> Tensor:
        """A draw of the top layer."""
        return model.top.hidden(v, random).states

    def advance(self, model: DBN, state: Tensor, steps: int, random: RandomStream) -> tuple[Tensor, Tensor]:
        """Gibbs sampling in the RBM at the top, then a pass down."""
        v, h = model.top.gibbs(state, steps, random)
        below = model.depth - 1
        return h.states, model.down(v.states, below, random).means if below else v.means

    def log_z_back(self, model: DBN, state: Tensor, steps: int, random: RandomStream) -> LogPartition:
        """From units below the top given these."""
        return reverse_log_partition_of_top(model, model.top.visible(state, random).states.data, steps, random)

    def kept(self, model: DBN, arrays: Mapping[str, np.ndarray]) -> np.ndarray:
        """The chains of the top layer; ``depth`` becomes the number of layers that have begun to be trained."""
        model.depth = max(1, sum(int(arrays[f"optimizer_{i}.steps"][0]) > 0 for i in range(len(model.rbms))))
        return arrays[f"chains_{model.depth - 1}.states"]

    def top_means(self, config: RunConfig, model: DBN, v: Tensor) -> Tensor:
        """From the means of the layers below."""
        return model.codes(v)

    def down_again(self, config: RunConfig, model: DBN, v: Tensor) -> Tensor:
        """Up and down by means."""
        return model.reconstruct(v)
