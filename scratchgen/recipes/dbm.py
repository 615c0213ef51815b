"""The deep Boltzmann machine's recipe (L03)."""

from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np

from scratchgen.data import Dataset
from scratchgen.data.pixels import describe
from scratchgen.errors import UserError
from scratchgen.evaluation.energy import evaluate_dbm
from scratchgen.evaluation.partition import LogPartition, reverse_log_partition
from scratchgen.models.dbm import DBM, DBMConfig
from scratchgen.models.rbm import RBM
from scratchgen.random import RandomStream, stream
from scratchgen.recipes.boltzmann import BoltzmannRecipe, log_z_in_words, require_no_patience
from scratchgen.recipes.recipe import RunConfig, named
from scratchgen.tasks.dbm import DBMTask, DBMTraining
from scratchgen.tensor import Tensor
from scratchgen.training import Selection


class DBMRecipe(BoltzmannRecipe):
    """Deep Boltzmann machines. A chain's state is that of the layer next to the pixels."""

    model = "dbm"
    network, training = DBMConfig, DBMTraining
    configs: ClassVar = named(
        RunConfig("dbm", "centered", DBMConfig(), DBMTraining(), epochs=20, batch_size=100),
        RunConfig(
            "dbm",
            "pretrained",
            DBMConfig(),
            DBMTraining(
                gibbs_steps=5, chains=100, lr=0.001, centered=False, pretraining_epochs=10, mean_field_steps=10
            ),
            epochs=60,
            batch_size=100,
        ),
    )
    expected: ClassVar = {("centered", "mnist"): "neg_bound 91 to 93"}  # one seed

    def pixels(self, config: RunConfig) -> str:
        """The pixels that the model sees, in words."""
        return describe(config.training.binarize, "bernoulli")

    def selection(self, config: RunConfig) -> Selection:
        """The bound, of which each epoch has an estimate."""
        return Selection(("neg_bound",))

    def build(self, config: RunConfig) -> DBM:
        """A new machine."""
        return DBM(config.network, stream(config.seed, "parameters"))

    def task(self, config: RunConfig, model: DBM, data: Dataset) -> DBMTask:
        """The machine in training, with the pixels' means as its visible biases. UserError for too few epochs."""
        pretraining = config.training.pretraining_epochs
        if config.epochs <= 2 * pretraining:
            raise UserError(
                f"of {config.epochs} epochs none is left after 2 x {pretraining} of pretraining; "
                "give more --epochs, or fewer --pretraining-epochs"
            )
        if pretraining:
            require_no_patience(config)
        self.with_means(model, data)
        return DBMTask(model, config.training, self.random(config), self.steps_per_epoch(config, data), config.epochs)

    def evaluate(
        self, config: RunConfig, model: DBM, data: Dataset, limit: int | None = None, iw_samples: int | None = None
    ) -> dict[str, Any]:
        """The bound over the first ``limit`` test images: see ``evaluate_dbm``."""
        self.refuse(iw_samples=iw_samples)
        images = self.as_seen(config, data.test.images, "test")[:limit]
        random, training = RandomStream(stream(config.seed, "final evaluation")), config.training
        annealing = training.annealed_chains, training.annealing_steps
        found = evaluate_dbm(model, images, random, *annealing, training.mean_field_steps)
        return self.with_log_z_back(config, model, found, random)

    def report(self, config: RunConfig, test: dict[str, Any]) -> str:
        """The bound, and how well log Z is known."""
        return f"test, nats an image: neg_bound {test['neg_bound']:.2f};  {log_z_in_words(test)}"

    def annealed(self, model: DBM) -> RBM:
        """The machine as an RBM whose visible units are h1."""
        return model.as_rbm()

    def first(self, model: DBM) -> RBM:
        """The RBM at the bottom."""
        return model.bottom

    def begin(self, config: RunConfig, model: DBM, v: Tensor, random: RandomStream) -> Tensor:
        """A draw of h1 by mean field."""
        return random.bernoulli(model.mean_field(v, config.training.mean_field_steps).h1)

    def begin_annealed(self, model: DBM, v: Tensor, random: RandomStream) -> Tensor:
        """They are h1."""
        return v

    def advance(self, model: DBM, state: Tensor, steps: int, random: RandomStream) -> tuple[Tensor, Tensor]:
        """Gibbs sampling in all layers."""
        _, state, means = model.gibbs(state, steps, random)
        return state, means

    def log_z_back(self, model: DBM, state: Tensor, steps: int, random: RandomStream) -> LogPartition:
        """From these, which are the visible units of ``as_rbm``."""
        return reverse_log_partition(model.as_rbm(), state.data, steps, random)

    def kept(self, model: DBM, arrays: Mapping[str, np.ndarray]) -> np.ndarray:
        """The chains of training, once they have moved."""
        return arrays["chains.states"] if arrays["joint_optimizer.steps"][0] else model.kept[:0]

    def top_means(self, config: RunConfig, model: DBM, v: Tensor) -> Tensor:
        """By mean field."""
        return model.codes(v, config.training.mean_field_steps)

    def down_again(self, config: RunConfig, model: DBM, v: Tensor) -> Tensor:
        """From h1 by mean field."""
        return model.reconstruct(v, config.training.mean_field_steps)
