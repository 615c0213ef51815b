"""A run's configuration, and the interface by which each kind of model is trained, evaluated and drawn."""

import hashlib
import json
import reprlib
import sys
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import MISSING, asdict, dataclass, field, fields, replace
from pathlib import Path
from types import UnionType
from typing import Any, ClassVar, get_args, get_origin, get_type_hints

import numpy as np

import kernels
from scratchgen.data import Dataset
from scratchgen.data.dataset import DIGITS, UNLABELLED, Split
from scratchgen.data.pictures import SIDE
from scratchgen.errors import UserError, require, require_one_of
from scratchgen.evaluation.ais import Protocol, best_sigma, evaluate_ais
from scratchgen.evaluation.decoder import Decoder
from scratchgen.nn import Module
from scratchgen.priors import Prior, in_turn
from scratchgen.random import stream
from scratchgen.tasks.task import Task, under
from scratchgen.training import LOGS, Selection

FIRST_SIGMA = 0.2  # where the search for the best one begins

# Fields of later versions, by model: fingerprints leave them out at these values, so that checkpoints from before fit.
LATER: dict[str, dict[str, dict[str, Any]]] = {
    "vae": {
        "network": {"conditional": False, "classes": 10, "mean_activation": "identity"},
        "training": {"objective": "elbo"},
    },
    "gan": {"network": {"conditional": False, "classes": 10}, "training": {"max_norm": None}},
    "aae": {
        "network": {"classes": 10, "batch_norm": False, "hidden_noise": 0.0, "head_distance": 0.0},
        "training": {"consistency": 0.0, "moved": 0},
    },
}


@dataclass(frozen=True)
class RunConfig:
    """All that determines a run, to the last bit on one machine and number of BLAS threads.

    ``network`` and ``training`` are those of ``model``, such as VAEConfig and VAETraining. ``data`` is a name in
    ``data.SOURCES``, or the path of one's own data; ``data_dir`` is where they are read from instead. With ``patience``
    training stops when no epoch has been better, by the recipe's ``selection``, for so many epochs, and the best one is
    kept. ``log`` is a further format of the metrics, one of ``training.LOGS``. The last four are those of the data that
    the run was trained on; its images are ``centred`` if they are like MNIST's.
    """

    model: str
    name: str
    network: Any
    training: Any
    epochs: int
    batch_size: int
    data: str = "auto"
    seed: int = 0
    kernels: str = "cpu"
    data_dir: str | None = None
    patience: int | None = None
    log: str | None = None
    versions: dict[str, str] = field(default_factory=dict)
    image_shape: tuple[int, int] = (28, 28)
    centred: bool = True
    classes: tuple[str, ...] = DIGITS
    data_digest: str = ""

    def __post_init__(self) -> None:
        require({"epochs >= 1": self.epochs >= 1, "batch_size >= 1": self.batch_size >= 1, "seed >= 0": self.seed >= 0})
        require({"image_shape (height, width)": len(self.image_shape) == 2})
        require({"patience >= 1": self.patience is None or self.patience >= 1})
        if self.log is not None:
            require_one_of("log", self.log, LOGS)
        require_one_of("kernels", self.kernels, kernels.NAMES)

    def fingerprint(self) -> str:
        """A hash of all that determines training; a checkpoint fits only configurations with the same one."""
        content = asdict(self)
        made_of = {name: content[name] for name in ("network", "training", "seed", "batch_size", "data", "kernels")}
        for part, later in LATER.get(self.model, {}).items():
            made_of[part] = {name: value for name, value in made_of[part].items() if later.get(name, ...) != value}
        return hashlib.sha256(json.dumps(made_of, sort_keys=True).encode()).hexdigest()


@dataclass(frozen=True)
class Explorable:
    """What the latent explorer shows of a model.

    Attributes
    ----------
    networks : Mapping
        Its networks, by the names that they have in ``explorer/models.js``.
    prior : Prior
        p(z), also of a GAN's noise.
    variation : np.ndarray
        (J,) how much there is to see along each dimension of the code: the variance of test images' codes, or how far
        a GAN's pixels move.
    facts : dict
        What else ``explorer/models.js`` needs to know of the model, by its names there.
    images, codes : np.ndarray, optional
        Test images (n, D) as the model sees them, and their codes (n, J), if it has an encoder.
    """

    networks: Mapping[str, Module]
    prior: Prior
    variation: np.ndarray
    facts: dict[str, Any]
    images: np.ndarray | None = None
    codes: np.ndarray | None = None


class Recipe(ABC):
    """What a kind of model contributes to a run; an argument ``model`` is a module made by ``build``.

    Attributes
    ----------
    model : str
        Its name on the command line.
    network, training : type
        The dataclasses of its networks and of its training.
    configs : dict
        Named configurations; the first is the default.
    expected : dict
        From (configuration, data) to what summaries of several seeds show: an answer to "is this normal?".
    """

    model: str
    network: type
    training: type
    configs: ClassVar[dict[str, RunConfig]]
    expected: ClassVar[dict[tuple[str, str], str]]

    def config(self, content: dict[str, Any]) -> RunConfig:
        """The configuration from the contents of ``config.json``. ValueError, naming the entry, if it is invalid."""
        parts: dict[str, Any] = {"network": self.network, "training": self.training}
        found = {name: from_json(kind, content[name], f"{name}.") for name, kind in parts.items() if name in content}
        config = from_json(RunConfig, {**content, **found})
        if "centred" in content:
            return config
        # A run of before: digits of MNIST's size were taken to be like MNIST's.
        return replace(config, centred=config.image_shape == (SIDE, SIDE) and config.classes == DIGITS)

    def expectation(self, config: RunConfig, data: str) -> str | None:
        """The usual results of this configuration on this data, if it is a named one and unchanged."""
        named = self.configs.get(config.name)
        decisive = ("network", "training", "epochs", "batch_size", "patience")
        same = named is not None and all(getattr(named, name) == getattr(config, name) for name in decisive)
        return self.expected.get((config.name, data)) if same else None

    def pixels(self, config: RunConfig) -> str:
        """The pixels that the model sees, in words: losses are comparable only if they are the same."""
        return "grey levels in [0, 1]"

    def seen(self, config: RunConfig, data: Dataset) -> Dataset:
        """The data as the model sees it in training."""
        return data

    def as_seen(self, config: RunConfig, images: np.ndarray, split: str | None) -> np.ndarray:
        """Images (n, D) of a split, "train" or "test", or of none, as the model sees pixels."""
        return images

    def load(self, model: Any, arrays: Mapping[str, np.ndarray]) -> None:
        """Load the parameters of a checkpoint into ``model``; ValueError if they do not fit."""
        model.load_state_dict(under("model.", arrays))
        model.eval()

    def encode(self, config: RunConfig, model: Any, images: np.ndarray, labels: np.ndarray) -> dict[str, np.ndarray]:
        """What the encoder makes of images (n, D) as the model sees pixels, with labels (n,) or ``UNLABELLED``.

        ``codes`` (n, J), and what else there is, by its name. UserError if the model has no encoder, or if it takes
        labels and not all are given.
        """
        raise UserError(f"a {self.model.upper()} has no encoder: it has no codes of images; draw samples instead")

    def reconstruct(self, config: RunConfig, model: Any, images: np.ndarray, labels: np.ndarray) -> np.ndarray:
        """Reconstructions (n, D) of images (n, D), of which the same holds as for ``encode``."""
        raise UserError(f"a {self.model.upper()} has no encoder, so it cannot reconstruct; draw samples instead")

    def decoder(self, config: RunConfig, model: Any, sigma: float | None) -> Decoder:
        """p(z) p(x|z), with the model's own likelihood or with N(x | output, sigma^2 I). UserError if it has none."""
        raise UserError(f"--ais is for VAEs and GANs; an {self.model.upper()} has no likelihood")

    def evaluate_ais(self, config: RunConfig, model: Any, data: Dataset, protocol: Protocol) -> dict[str, Any]:
        """log p(x) of the first test images by AIS, and what it was measured with."""
        n, sigma, rng = protocol.images, protocol.sigma, stream(config.seed, "final evaluation")
        if isinstance(sigma, str):  # the best one, chosen without test images
            begin, labels = self.decoder(config, model, FIRST_SIGMA), data.train.labels[-n:]
            sigma = best_sigma(begin, data.train.images[-n:], rng, model.labels_given(labels))
        decoder, real = self.decoder(config, model, sigma), sigma is not None
        images = data.test.images if real else self.as_seen(config, data.test.images, "test")
        pixels = "grey levels in [0, 1], as real values (nats of a density)" if real else self.pixels(config)
        found = evaluate_ais(decoder, protocol, images[:n], rng, model.labels_given(data.test.labels[:n]))
        return {"pixels": pixels, "sigma": decoder.sigma, **found}

    def annealing(self, config: RunConfig, chains: int | None, steps: int | None) -> RunConfig:
        """The configuration with other annealed chains for log Z, and steps. UserError for a model without one."""
        for name, value in (("annealed-chains", chains), ("annealing-steps", steps)):
            if value is not None:
                raise UserError(f"--{name} is for RBMs, DBNs and DBMs, whose log Z is estimated")
        return config

    @abstractmethod
    def selection(self, config: RunConfig) -> Selection:
        """By which test metrics a run with ``patience`` finds its best epoch."""

    @abstractmethod
    def build(self, config: RunConfig) -> Module:
        """A new model, its parameters drawn from the run's seed."""

    @abstractmethod
    def task(self, config: RunConfig, model: Any, data: Dataset) -> Task:
        """The model in training on ``data``, the result of ``seen``."""

    @abstractmethod
    def evaluate(
        self, config: RunConfig, model: Any, data: Dataset, limit: int | None = None, iw_samples: int | None = None
    ) -> dict[str, Any]:
        """The summary's ``test`` metrics over the first ``limit`` test images; ``iw_samples`` is for likelihoods."""

    @abstractmethod
    def report(self, config: RunConfig, test: dict[str, Any]) -> str:
        """The summary's ``test`` metrics in words."""

    @abstractmethod
    def sample(
        self, config: RunConfig, model: Any, n: int, rng: np.random.Generator, label: int | None = None
    ) -> np.ndarray:
        """Pictures (n, D) of n draws from the prior, all of class ``label`` if it is given.

        UserError, saying how to train one, if the model cannot draw a class of choice.
        """

    @abstractmethod
    def walk(
        self,
        config: RunConfig,
        model: Any,
        frames: int,
        waves: int,
        rng: np.random.Generator,
        label: int | None = None,
    ) -> np.ndarray:
        """Pictures (frames, D) along a smooth closed random path through the prior: see ``priors.Prior.loop``.

        A model that knows classes visits them in turn, or stays in class ``label``. UserError as in ``sample``.
        """

    @abstractmethod
    def explorable(self, config: RunConfig, model: Any, data: Dataset) -> Explorable:
        """What the latent explorer shows of the model."""

    @abstractmethod
    def draw(
        self, config: RunConfig, model: Any, data: Dataset, history: list[dict[str, Any]], folder: Path
    ) -> list[Path]:
        """The figures of a run."""


def named(*configs: RunConfig) -> dict[str, RunConfig]:
    """Configurations by their names."""
    return {config.name: config for config in configs}


def require_batches(config: RunConfig, data: Dataset, pack: int = 1) -> None:
    """UserError if an epoch's last batch is too small for batch normalisation, or to be judged ``pack`` at a time."""
    smallest, why = len(data.train) % config.batch_size or min(config.batch_size, len(data.train)), ""
    if config.network.batch_norm and smallest < 2:
        why = "batch normalisation needs two images"
    if smallest < pack:
        why = f"the discriminator judges {pack} together"
    if why:
        raise UserError(
            f"{len(data.train)} images in batches of {config.batch_size} leave a batch of {smallest}, but {why}; give "
            "another --batch-size"
        )


def require_labels(train: Split, classes: int) -> None:
    """UserError unless every training image has a label 0..classes-1, as conditional models need."""
    missing = int((~np.isin(train.labels, range(classes))).sum())
    if missing:
        raise UserError(
            f"a conditional model needs labels, and {missing:,} of {len(train):,} training images have none; leave "
            "them out, or train without --conditional"
        )


def sample_labels(model: Any, n: int, rng: np.random.Generator, label: int | None = None) -> np.ndarray:
    """Labels (n,) for samples of a VAE or GAN: ``label``, or drawn uniformly; ``UNLABELLED`` if it takes none.

    UserError if it takes none and ``label`` is given.
    """
    _require_conditional(model, label)
    if model.config.conditional:
        return rng.integers(model.config.classes, size=n) if label is None else np.full(n, label)
    return np.full(n, UNLABELLED)


def require_each_label(labels: np.ndarray) -> None:
    """UserError unless each image that a model is to encode or reconstruct has its label (n,), as this one needs."""
    if (labels == UNLABELLED).any():
        raise UserError("the run's networks take the class of each image: give it with --class NAME")


def walk_classes(model: Any, frames: int, label: int | None = None) -> np.ndarray | None:
    """Classes (frames, C) for a walk of a VAE or GAN: ``classes_in_turn``; None if it takes none.

    UserError if it takes none and ``label`` is given.
    """
    _require_conditional(model, label)
    return classes_in_turn(frames, model.config.classes, label) if model.config.conditional else None


def _require_conditional(model: Any, label: int | None) -> None:
    """UserError if a class is chosen and the model takes none."""
    if label is not None and not model.config.conditional:
        raise UserError("the run's networks take no labels, so no class can be chosen; train a run with --conditional")


def classes_in_turn(frames: int, classes: int, label: int | None = None) -> np.ndarray:
    """Rows (frames, C) on a closed path through C classes in turn, or at ``label``: one-hot, or on the way from one to
    the next, where two add up to 1.
    """
    at = in_turn(frames, classes) if label is None else np.full(frames, float(label))
    apart = np.abs(at[:, None] - np.arange(classes))
    return np.maximum(1 - np.minimum(apart, classes - apart), 0)  # between C - 1 and C is between C - 1 and 0


def by_class(codes: np.ndarray, classes: int) -> tuple[np.ndarray, np.ndarray]:
    """Codes (C n, J), each of the given (n, J) C times, and their labels (C n,), 0 to C-1 for each code."""
    return np.repeat(codes, classes, axis=0), np.tile(np.arange(classes), len(codes))


def from_json(kind: Any, content: Any, prefix: str = "") -> Any:
    """``kind(**content)``, lists converted to tuples.

    ValueError if an entry is missing, unknown, or of another type than its field; ``prefix`` goes before its name.
    """
    if not isinstance(content, dict):
        raise ValueError(f"{prefix.rstrip('.')} cannot be {reprlib.repr(content)}")
    content = {name: tuple(value) if isinstance(value, list) else value for name, value in content.items()}
    declared = {each.name: each for each in fields(kind)}
    for name in content:
        if name not in declared:
            raise ValueError(f"{prefix}{reprlib.repr(name)[1:-1]} is unknown")
    types = get_type_hints(kind)
    for name, each in declared.items():
        if name in content and not _fits(content[name], types[name]):
            raise ValueError(f"{prefix}{name} cannot be {reprlib.repr(content[name])}")
        if name not in content and each.default is MISSING and each.default_factory is MISSING:
            raise ValueError(f"{prefix}{name} is missing")
    try:
        return kind(**content)
    except ValueError as error:
        raise ValueError(f"{prefix.replace('.', ': ')}{error}") from None


def _fits(value: Any, declared: Any) -> bool:
    if declared is Any:
        return True
    if isinstance(declared, UnionType):
        return any(_fits(value, each) for each in get_args(declared))
    if isinstance(value, bool):  # which Python takes for a number
        return declared is bool
    if declared is int:
        return isinstance(value, int) and abs(value) < 2**63  # what an array holds
    if declared is float:
        return isinstance(value, int | float) and abs(value) <= sys.float_info.max  # false for NaN
    if get_origin(declared) is tuple:
        return isinstance(value, tuple) and all(_fits(item, get_args(declared)[0]) for item in value)
    if get_origin(declared) is dict:
        return isinstance(value, dict) and all(_fits(item, get_args(declared)[1]) for item in value.values())
    return isinstance(value, declared)
