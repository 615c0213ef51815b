"""What the recipes of Boltzmann machines share: chains as samples, and figures that show how these mix (L03)."""

import math
from abc import abstractmethod
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from scratchgen.data import Dataset
from scratchgen.errors import UserError
from scratchgen.evaluation.decoder import Decoder
from scratchgen.evaluation.partition import LogPartition, anneal, draw_base, inverse_temperatures
from scratchgen.inference import in_batches
from scratchgen.models.rbm import RBM
from scratchgen.random import RandomStream, stream
from scratchgen.recipes.binarizing import BinarizingRecipe
from scratchgen.recipes.recipe import Explorable, RunConfig
from scratchgen.tensor import Tensor

ANNEALED = 1_000  # steps to where a sample's chain begins, if no chains were kept
SAMPLED = 1_000  # Gibbs steps of a sample's chain
SHOWN = (1, 10, 100, 1_000)  # steps of the chains in chains.png
ROWS = 1_000  # images, or chains, at a time
FEW = 10  # annealed chains: where effectively fewer have the weight, their spread says little


class BoltzmannRecipe(BinarizingRecipe):
    """A recipe of a machine that is sampled by Markov chains, whose state is a tensor (n, ·) of hidden units.

    A model has the attribute ``kept``: states (n, ·) where training has left chains, n = 0 if it has none.
    """

    @abstractmethod
    def annealed(self, model: Any) -> RBM:
        """The RBM in which chains are annealed that have no kept states to begin at."""

    @abstractmethod
    def first(self, model: Any) -> RBM:
        """The RBM of the pixels."""

    @abstractmethod
    def begin(self, config: RunConfig, model: Any, v: Tensor, random: RandomStream) -> Tensor:
        """The state (n, ·) of chains that begin at images v (n, D)."""

    @abstractmethod
    def begin_annealed(self, model: Any, v: Tensor, random: RandomStream) -> Tensor:
        """The state (n, ·) of chains that begin at visible units v (n, ·) of ``annealed``."""

    @abstractmethod
    def advance(self, model: Any, state: Tensor, steps: int, random: RandomStream) -> tuple[Tensor, Tensor]:
        """The state (n, ·) after so many Gibbs steps, at least one, and the means (n, D) of the pixels there."""

    @abstractmethod
    def log_z_back(self, model: Any, state: Tensor, steps: int, random: RandomStream) -> LogPartition:
        """log Z by chains that go back from this state (n, ·): an upper bound in expectation."""

    @abstractmethod
    def kept(self, model: Any, arrays: Mapping[str, np.ndarray]) -> np.ndarray:
        """Of a checkpoint, what becomes ``model.kept``."""

    @abstractmethod
    def top_means(self, config: RunConfig, model: Any, v: Tensor) -> Tensor:
        """The means (n, ·) of the top layer, of images v (n, D)."""

    @abstractmethod
    def down_again(self, config: RunConfig, model: Any, v: Tensor) -> Tensor:
        """The means (n, D) of pixels, given the means of hidden units that images v (n, D) lead to."""

    def load(self, model: Any, arrays: Mapping[str, np.ndarray]) -> None:
        """Load the parameters of a checkpoint, and where its chains are."""
        super().load(model, arrays)
        model.kept = self.kept(model, arrays)

    def steps_per_epoch(self, config: RunConfig, data: Dataset) -> int:
        """Of training on this data."""
        return math.ceil(len(data.train) / config.batch_size)

    def annealing(self, config: RunConfig, chains: int | None, steps: int | None) -> RunConfig:
        """The configuration with so many annealed chains, and so many steps of each, for log Z."""
        training = config.training
        try:
            more = replace(
                training,
                annealed_chains=chains or training.annealed_chains,
                annealing_steps=steps or training.annealing_steps,
            )
        except ValueError as error:
            raise UserError(str(error)) from None
        return replace(config, training=more)

    def decoder(self, config: RunConfig, model: Any, sigma: float | None) -> Decoder:
        """UserError: there is no code; log Z is what is annealed, without being asked."""
        raise UserError(
            f"--ais is for models with a code; without it, evaluate estimates log Z of {self.model.upper()}s, "
            "by --annealed-chains and --annealing-steps"
        )

    def explorable(self, config: RunConfig, model: Any, data: Dataset) -> Explorable:
        """UserError: there is no code with a simple prior."""
        raise UserError(f"{self.model.upper()}s have no code with a prior to explore; see a chain: scratchgen walk")

    def refuse(self, label: int | None = None, iw_samples: int | None = None) -> None:
        """UserError if a class is chosen, or L_K asked for."""
        if label is not None:
            raise UserError(f"{self.model.upper()}s take no labels, so no class can be chosen")
        if iw_samples is not None:
            raise UserError(
                f"L_K is for VAEs; evaluate, without --iw-samples, estimates log Z of {self.model.upper()}s"
            )

    def with_log_z_back(
        self, config: RunConfig, model: Any, found: dict[str, Any], random: RandomStream
    ) -> dict[str, Any]:
        """What an evaluation has ``found``, with ``log_z_back`` and its error, if training has left chains.

        As many chains as to log Z, and of as many steps, go back from a thousand Gibbs steps after those of training.
        """
        if len(model.kept) == 0:
            return found
        state, _ = self.advance(model, self.start(model, config.training.annealed_chains, random), SAMPLED, random)
        back = self.log_z_back(model, state, config.training.annealing_steps, random)
        return found | {"log_z_back": back.log_z, "log_z_back_error": back.standard_error}

    def start(self, model: Any, n: int, random: RandomStream) -> Tensor:
        """States (n, ·) of chains to be sampled: where training has left some, else at the ends of annealed ones."""
        if len(model.kept):
            places = np.resize(random.generator.permutation(len(model.kept)), n)  # none twice before all are there
            return Tensor(model.kept[places], dtype=model.dtype)
        rbm = self.annealed(model)
        _, ends = anneal(rbm, draw_base(rbm, n, random), inverse_temperatures(ANNEALED), random)
        return self.begin_annealed(model, ends, random)

    def sample(
        self, config: RunConfig, model: Any, n: int, rng: np.random.Generator, label: int | None = None
    ) -> np.ndarray:
        """The means of pixels (n, D) at the ends of as many Markov chains."""
        self.refuse(label)
        random, parts = RandomStream(rng), [min(ROWS, n - begun) for begun in range(0, n, ROWS)]
        return np.concatenate(
            [self.advance(model, self.start(model, part, random), SAMPLED, random)[1].data for part in parts]
        )

    def walk(
        self,
        config: RunConfig,
        model: Any,
        frames: int,
        waves: int,
        rng: np.random.Generator,
        label: int | None = None,
    ) -> np.ndarray:
        """The means of pixels (frames, D) along a Markov chain, a Gibbs step a frame: how it mixes."""
        self.refuse(label)
        random = RandomStream(rng)
        return self.chain(model, self.start(model, 1, random), range(1, frames + 1), random)[0]

    def chain(self, model: Any, state: Tensor, steps: Iterable[int], random: RandomStream) -> np.ndarray:
        """The means of pixels (n, len(steps), D) of Markov chains after so many steps, an increasing sequence."""
        found, done = [], 0
        for count in steps:
            state, means = self.advance(model, state, count - done, random)
            found.append(means.data)
            done = count
        return np.stack(found, axis=1)

    def encode(self, config: RunConfig, model: Any, images: np.ndarray, labels: np.ndarray) -> dict[str, np.ndarray]:
        """``codes`` (n, ·): the means of the top layer."""
        (codes,) = in_batches(lambda v: (self.top_means(config, model, v),), images, size=ROWS, dtype=model.dtype)
        return {"codes": codes}

    def reconstruct(self, config: RunConfig, model: Any, images: np.ndarray, labels: np.ndarray) -> np.ndarray:
        """The means (n, D) of pixels, of the hidden units that images (n, D) lead to."""
        (found,) = in_batches(lambda v: (self.down_again(config, model, v),), images, size=ROWS, dtype=model.dtype)
        return found

    def with_means(self, model: Any, data: Dataset) -> None:
        """Begin with the pixels' means as visible biases."""
        self.first(model).set_means(data.train.images.mean(axis=0))

    def random(self, config: RunConfig) -> RandomStream:
        """The random numbers of training."""
        return RandomStream(stream(config.seed, "noise"))

    def draw(
        self, config: RunConfig, model: Any, data: Dataset, history: list[dict[str, Any]], folder: Path
    ) -> list[Path]:
        """Samples, reconstructions, curves; the weights of a hundred hidden units; chains from test images."""
        from scratchgen import figures  # imported here: matplotlib takes half a second to import

        images, shape = self.as_seen(config, data.test.images, "test"), data.image_shape
        rng = stream(config.seed, "samples")
        random, weights = RandomStream(rng), self.first(model).weight.data.T[:100]
        state = self.begin(config, model, Tensor(images[:10], dtype=model.dtype), random)
        chains = np.concatenate([images[:10, None], self.chain(model, state, SHOWN, random)], axis=1)
        names = ["data", *(f"{steps:,}" for steps in SHOWN)]
        reconstructions = self.reconstruct(config, model, images[:20], data.test.labels[:20])
        return [
            figures.save_samples(folder / "samples.png", self.sample(config, model, 100, rng), shape, 10),
            figures.save_pairs(folder / "reconstructions.png", images[:20], reconstructions, shape),
            figures.save_loss_curves(folder / "losses.png", history, ylabel=""),
            figures.save_samples(folder / "filters.png", weights / (2 * abs(weights).max()) + 0.5, shape, 10),
            figures.save_columns(folder / "chains.png", chains, names, shape, "Gibbs steps"),
        ]


def require_no_patience(config: RunConfig) -> None:
    """UserError for ``patience`` where epochs of several phases do not compare."""
    if config.patience is not None:
        raise UserError(
            f"the epochs of {config.model.upper()}s train one part after the other and do not compare, "
            "so --patience would keep a wrong one; leave it out"
        )


def log_z_in_words(test: dict[str, Any]) -> str:
    """How log Z was estimated, for a report."""
    few = test["effective_sample_size"] < FEW
    doubt = " (few: log Z may be off by nats; evaluate it with more --annealing-steps)" if few else ""
    back = ""
    if "log_z_back" in test:
        back = f", and {test['log_z_back']:.2f} ± {test['log_z_back_error']:.2f} by chains back from training's"
    return (
        f"log Z {test['log_z']:.2f} ± {test['log_z_error']:.2f} by {test['annealed_chains']} annealed chains of "
        f"{test['annealing_steps']:,} steps, effectively {test['effective_sample_size']:.0f}{doubt}{back};  "
        f"reconstruction {test['reconstruction']:.4f} a pixel"
    )
