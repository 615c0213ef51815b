"""The restricted Boltzmann machine's recipe: named configurations, evaluation, figures (L03)."""

import math
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from scratchgen import ops
from scratchgen.data import Dataset
from scratchgen.data.pixels import describe
from scratchgen.errors import UserError
from scratchgen.evaluation.decoder import Decoder
from scratchgen.evaluation.energy import evaluate_rbm
from scratchgen.evaluation.partition import anneal, draw_base, inverse_temperatures
from scratchgen.inference import in_batches
from scratchgen.models.rbm import RBM, RBMConfig
from scratchgen.random import RandomStream, stream
from scratchgen.recipes.binarizing import BinarizingRecipe
from scratchgen.recipes.recipe import Explorable, RunConfig, named
from scratchgen.tasks.rbm import RBMTask, RBMTraining
from scratchgen.tensor import Tensor
from scratchgen.training import Selection

CHAINS, STEPS = 100, 10_000  # for log Z in the summary
ANNEALED = 500  # steps to a sample, from the base machine
SHOWN = (0, 1, 10, 100, 1_000)  # steps of the chains in chains.png
ROWS = 1_000


class RBMRecipe(BinarizingRecipe):
    """Restricted Boltzmann machines."""

    model = "rbm"
    network, training = RBMConfig, RBMTraining
    configs: ClassVar = named(
        # Persistent chains give the better likelihood.
        RunConfig("rbm", "persistent", RBMConfig(), RBMTraining(chains=100), epochs=60, batch_size=100),
        # Hinton 2002: faster to good reconstructions, but chains of one step never see what is far from the data.
        RunConfig("rbm", "cd1", RBMConfig(), RBMTraining(momentum=0.5), epochs=20, batch_size=100),
        # Real-valued pixels.
        RunConfig(
            "rbm",
            "gaussian",
            RBMConfig(visible="gaussian", sigma=0.3),
            RBMTraining(lr=1e-3, momentum=0.9, binarize="none"),
            epochs=20,
            batch_size=100,
        ),
    )
    expected: ClassVar = {}

    def pixels(self, config: RunConfig) -> str:
        """The pixels that the model sees, in words."""
        return describe(config.training.binarize, config.network.visible)

    def selection(self, config: RunConfig) -> Selection:
        """The likelihood, of which each epoch has an estimate."""
        return Selection(("nll",))

    def build(self, config: RunConfig) -> RBM:
        """A new machine."""
        return RBM(config.network, stream(config.seed, "parameters"))

    def task(self, config: RunConfig, model: RBM, data: Dataset) -> RBMTask:
        """The machine in training, with the pixels' means as its visible biases."""
        model.set_means(data.train.images.mean(axis=0))
        steps_per_epoch = math.ceil(len(data.train) / config.batch_size)
        random = RandomStream(stream(config.seed, "noise"))
        return RBMTask(model, config.training, random, steps_per_epoch, config.epochs)

    def evaluate(
        self, config: RunConfig, model: RBM, data: Dataset, limit: int | None = None, iw_samples: int | None = None
    ) -> dict[str, Any]:
        """The likelihood of the first ``limit`` test images, with an estimate of log Z by annealed chains."""
        if iw_samples is not None:
            raise UserError("an RBM has no encoder, which L_K needs; its likelihood is by an estimate of log Z")
        images = self.as_seen(config, data.test.images, "test")[:limit]
        random = RandomStream(stream(config.seed, "final evaluation"))
        return evaluate_rbm(model, images, random, CHAINS, STEPS)

    def decoder(self, config: RunConfig, model: RBM, sigma: float | None) -> Decoder:
        """UserError: there is no code; log Z is what is annealed, without being asked."""
        raise UserError("--ais is for models with a code; an RBM's log Z is estimated by annealing without it")

    def report(self, config: RunConfig, test: dict[str, Any]) -> str:
        """The likelihood, and how well log Z is known."""
        return (
            f"test, nats an image: nll {test['nll']:.2f} ± {test['log_z_error']:.2f}, of log Z {test['log_z']:.2f} by "
            f"{test['chains']} annealed chains of {test['steps']:,} steps (effectively "
            f"{test['effective_sample_size']:.0f});  reconstruction {test['reconstruction']:.4f} a pixel"
        )

    def sample(
        self, config: RunConfig, model: RBM, n: int, rng: np.random.Generator, label: int | None = None
    ) -> np.ndarray:
        """E[v|h] (n, D) at the ends of chains that were annealed from the base machine."""
        if label is not None:
            raise UserError("an RBM takes no labels, so no class can be chosen")
        random = RandomStream(rng)
        parts = [min(ROWS, n - start) for start in range(0, n, ROWS)]
        ends = [
            anneal(model, draw_base(model, part, random), inverse_temperatures(ANNEALED), random)[1] for part in parts
        ]
        return np.concatenate([model.gibbs(model.hidden(v, random).states, 1, random)[0].means.data for v in ends])

    def walk(
        self,
        config: RunConfig,
        model: RBM,
        frames: int,
        waves: int,
        rng: np.random.Generator,
        label: int | None = None,
    ) -> np.ndarray:
        """E[v|h] (frames, D) along a Markov chain, a Gibbs step a frame: how it mixes."""
        if label is not None:
            raise UserError("an RBM takes no labels, so no class can be chosen")
        random = RandomStream(rng)
        _, v = anneal(model, draw_base(model, 1, random), inverse_temperatures(ANNEALED), random)
        return chain(model, v.data, range(frames), random)[0]

    def encode(self, config: RunConfig, model: RBM, images: np.ndarray, labels: np.ndarray) -> dict[str, np.ndarray]:
        """``codes`` (n, H): the means of the hidden units."""
        (codes,) = in_batches(lambda v: (ops.sigmoid(model.inputs(v)),), images, size=ROWS, dtype=model.dtype)
        return {"codes": codes}

    def reconstruct(self, config: RunConfig, model: RBM, images: np.ndarray, labels: np.ndarray) -> np.ndarray:
        """E[v | E[h|v]] (n, D) of images (n, D)."""
        return in_batches(lambda v: (model.reconstruct(v),), images, size=ROWS, dtype=model.dtype)[0]

    def explorable(self, config: RunConfig, model: RBM, data: Dataset) -> Explorable:
        """UserError: there is no code with a simple prior."""
        raise UserError("an RBM has no code with a prior to explore; see its chain with scratchgen walk")

    def draw(
        self, config: RunConfig, model: RBM, data: Dataset, history: list[dict[str, Any]], folder: Path
    ) -> list[Path]:
        """Samples, reconstructions, curves; the weights of a hundred hidden units; chains from test images."""
        from scratchgen import figures  # imported here: matplotlib takes half a second to import

        images, shape = self.as_seen(config, data.test.images, "test"), data.image_shape
        rng = stream(config.seed, "samples")
        reconstructions = self.reconstruct(config, model, images[:20], data.test.labels[:20])
        weights = model.weight.data.T[:100]
        chains = chain(model, images[:10], SHOWN, RandomStream(rng))
        names = ["data" if not steps else f"{steps:,}" for steps in SHOWN]
        return [
            figures.save_samples(folder / "samples.png", self.sample(config, model, 100, rng), shape, 10),
            figures.save_pairs(folder / "reconstructions.png", images[:20], reconstructions, shape),
            figures.save_loss_curves(folder / "losses.png", history, ylabel=""),
            figures.save_samples(folder / "filters.png", weights / (2 * abs(weights).max()) + 0.5, shape, 10),
            figures.save_columns(folder / "chains.png", chains, names, shape, "Gibbs steps"),
        ]


def chain(model: RBM, v: np.ndarray, steps: Any, random: RandomStream) -> np.ndarray:
    """Pictures (n, len(steps), D) of Markov chains from v (n, D): where they begin, and E[v|h] after so many steps."""
    h, done, found = model.hidden(Tensor(v, dtype=model.dtype), random).states, 0, []
    for count in steps:
        if count == 0:
            found.append(v)
            continue
        visible, hidden = model.gibbs(h, count - done, random)
        h, done = hidden.states, count
        found.append(visible.means.data)
    return np.stack(found, axis=1)
