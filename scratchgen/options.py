"""The options of ``scratchgen train`` and ``profile``: each replaces a field of a named configuration.

Also those that the lessons share, and how they report a mistake in one: in one line."""

import argparse
import math
import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import kernels
from scratchgen.data import SOURCES, Dataset, load_dataset
from scratchgen.data.dataset import DIGITS
from scratchgen.data.pixels import BINARIZE
from scratchgen.errors import UserError
from scratchgen.models.aae import LABELS_FOR, POSTERIORS
from scratchgen.models.vae import LIKELIHOODS
from scratchgen.priors import PRIORS
from scratchgen.recipes import Recipe, RunConfig
from scratchgen.tasks import gan, vae
from scratchgen.training import LOGS

DATA = (
    f"{', '.join(SOURCES)}, or a path: a folder of pictures or of four IDX files, or an .npz; auto is MNIST if "
    "available, else strokes"
)
DATA_DIR = "folder of the four files of mnist or fashion-mnist ($SCRATCHGEN_DATA for mnist, else the user's cache)"


def positive(text: str) -> int:
    """A positive integer."""
    if not text.isdecimal() or not 0 < int(text) < 2**31:  # what NumPy takes as a size
        raise argparse.ArgumentTypeError(f"{text!r} is not a positive integer below 2^31")
    return int(text)


def sizes(text: str) -> tuple[int, ...]:
    """Positive integers, separated by commas."""
    try:
        return tuple(positive(each) for each in text.split(","))
    except argparse.ArgumentTypeError as error:
        raise argparse.ArgumentTypeError(f"{text!r} is no list of sizes such as 500,1000: {error}") from None


def whole(text: str) -> int:
    """A non-negative integer."""
    if not text.isdecimal() or not int(text) < 2**63:  # what config.json takes
        raise argparse.ArgumentTypeError(f"{text!r} is not a non-negative integer below 2^63")
    return int(text)


def digit(text: str) -> str:
    """The name of a class 0..9."""
    if text not in DIGITS:
        raise argparse.ArgumentTypeError(f"{text!r} is not a digit 0 to 9")
    return text


def data_source(text: str) -> str:
    """A name in ``SOURCES``, or a path that exists."""
    if text not in SOURCES and not (text and os.path.exists(text)):
        raise argparse.ArgumentTypeError(f"{text!r} is neither {', '.join(SOURCES)} nor a folder or file that exists")
    return text


def number(text: str) -> float:
    """A finite number."""
    try:
        found = float(text)
    except ValueError:
        found = math.nan
    if not math.isfinite(found):
        raise argparse.ArgumentTypeError(f"{text!r} is not a finite number")
    return found


def sigma(text: str) -> float | str:
    """A standard deviation, or "best"."""
    if text == "best":
        return text
    found = number(text)
    if not found > 0:
        raise argparse.ArgumentTypeError(f"{text!r} is neither a number above 0 nor best")
    return found


@dataclass(frozen=True)
class Option:
    """``--name``, for the field of that name in a ``part`` of the configuration: "run", "network" or "training".

    ``takes`` is a function that converts the text, shown as ``metavar``, or the choices; or True, for an option
    without a value, which sets the field to True.
    """

    name: str
    part: str
    takes: Callable[[str], Any] | Iterable[str] | Literal[True]
    help: str
    metavar: str | None = None

    def add(self, parser: argparse.ArgumentParser, config: RunConfig) -> None:
        """Add the option; its help shows the value in ``config`` as the default."""
        default = getattr(config if self.part == "run" else getattr(config, self.part), self.name)
        shown = ",".join(map(str, default)) if isinstance(default, tuple) else default
        known = f" ({shown})" if default is not None else ""
        kind: dict[str, Any] = {"type": self.takes, "metavar": self.metavar}
        if self.takes is True:
            kind = {"action": "store_const", "const": True}
        elif not callable(self.takes):
            kind = {"choices": self.takes}
        parser.add_argument(f"--{self.name.replace('_', '-')}", help=self.help + known, **kind)


RUN_OPTIONS = (
    Option("data", "run", data_source, DATA, "DATA"),
    Option("data_dir", "run", Path, DATA_DIR, "DIR"),
    Option("epochs", "run", positive, "passes over the training images", "N"),
    Option("batch_size", "run", positive, "images per step", "N"),
    Option("log", "run", LOGS, "write the metrics in this format, too: metrics.csv, for spreadsheets (none)"),
    Option("seed", "run", whole, "random seed", "N"),
    Option("kernels", "run", kernels.NAMES, "kernel set"),
)
PATIENCE = Option("patience", "run", positive, "", "N")
STOPPING = (
    "stop when the best epoch by {} is N epochs ago, and keep that epoch; chosen by the test images, its test figures "
    "are slightly too good (off)"
)
LATENT_DIM = Option("latent_dim", "network", positive, "dimensions of the code", "J")
CONDITIONAL = Option("conditional", "network", True, "")
BOLTZMANN = (
    Option("gibbs_steps", "training", positive, "Gibbs steps to the model's sample: CD-k", "K"),
    Option(
        "chains",
        "training",
        whole,
        "chains that go on from batch to batch; 0 (not for dbm): each image begins one",
        "N",
    ),
    Option("binarize", "training", BINARIZE, "draw pixels as 0 or 1: once, or for every batch"),
    Option("lr", "training", number, "the learning rate", "X"),
    Option("momentum", "training", number, "of SGD", "M"),
    Option("annealed_chains", "training", positive, "chains that estimate log Z", "N"),
    Option(
        "annealing_steps",
        "training",
        positive,
        "steps of each at the end; after an epoch a tenth, at least 1,000",
        "N",
    ),
)
OPTIONS: dict[str, tuple[Option, ...]] = {
    "vae": (
        replace(PATIENCE, help=STOPPING.format("neg_elbo, or neg_iwae with another objective than elbo,")),
        replace(LATENT_DIM, help="dimensions of the code; 2 adds the scatter plot and the manifold"),
        replace(CONDITIONAL, help="both networks take the label, too"),
        Option("likelihood", "network", LIKELIHOODS, "p(x|z) of a pixel"),
        Option(
            "objective",
            "training",
            vae.OBJECTIVES,
            "the bound that is maximised; iwae: L_K, K = --samples, above 1; dreg: the same, its gradient less noisy",
        ),
        Option("samples", "training", positive, "draws of z for each image", "M"),
        Option("binarize", "training", BINARIZE, "draw pixels as 0 or 1: once, or for every batch"),
        Option("beta", "training", number, "weight of the KL term", "B"),
        Option("beta_warmup", "training", number, "epochs over which beta rises from 0", "EPOCHS"),
        Option("lr", "training", number, "Adam's learning rate", "X"),
    ),
    "gan": (
        replace(PATIENCE, help=STOPPING.format("classes_covered, then judge_confidence,")),
        replace(LATENT_DIM, help="dimensions of the noise"),
        replace(CONDITIONAL, help="both networks take the label, too"),
        Option("objective", "training", gan.OBJECTIVES, "what the generator minimises"),
        Option(
            "real_label",
            "training",
            number,
            "the discriminator's target for data; below 1 smooths; not of wasserstein",
            "Y",
        ),
        Option("discriminator_steps", "training", positive, "discriminator steps per generator step", "K"),
        Option("generator_lr", "training", number, "the generator's learning rate", "X"),
        Option("discriminator_lr", "training", number, "the discriminator's learning rate", "X"),
    ),
    "aae": (
        replace(PATIENCE, help=STOPPING.format("reconstruction_mse")),
        LATENT_DIM,
        Option("prior", "network", PRIORS, "p(z), to which the codes are matched"),
        Option("posterior", "network", POSTERIORS, "q(z|x): one code per image, a normal, or any distribution"),
        Option("labels_for", "network", LABELS_FOR, "the network that takes the labels"),
        Option("labels", "training", whole, "number of labelled training images", "N"),
        Option("reconstruction_lr", "training", number, "learning rate of the reconstruction phase", "X"),
        Option("discriminator_lr", "training", number, "the discriminator's learning rate", "X"),
        Option("encoder_lr", "training", number, "the encoder's learning rate in the regularisation phase", "X"),
    ),
    "rbm": (
        replace(PATIENCE, help=STOPPING.format("nll")),
        Option("hidden", "network", positive, "hidden units", "H"),
        *BOLTZMANN,
    ),
    "dbn": (
        Option("hidden", "network", sizes, "hidden units of each layer, from the pixels up", "H1,H2,..."),
        *BOLTZMANN,
        Option("layer_epochs", "training", positive, "of --epochs, for each layer but the top one", "N"),
        Option("upper_lr", "training", number, "the learning rate of the layers above the first", "X"),
    ),
    "dbm": (
        replace(PATIENCE, help=STOPPING.format("neg_bound")),
        Option("hidden", "network", sizes, "hidden units of both layers, from the pixels up", "H1,H2"),
        *BOLTZMANN,
        Option("pretraining_epochs", "training", whole, "of --epochs, for each RBM; with --config pretrained", "N"),
        Option("pretraining_lr", "training", number, "their learning rate", "X"),
        Option("mean_field_steps", "training", positive, "updates of the hidden layers' means", "N"),
    ),
}


def add_config_options(parser: argparse.ArgumentParser, recipe: Recipe) -> None:
    """Add the options of a run's configuration: all that ``configure`` reads."""
    config = next(iter(recipe.configs.values()))
    parser.epilog = f"In brackets: the default; where it depends on --config, that of {config.name}."
    parser.add_argument("--config", choices=recipe.configs, help=f"named configuration ({config.name})")
    for option in (*RUN_OPTIONS, *OPTIONS[recipe.model]):
        option.add(parser, config)


def add_train_options(parser: argparse.ArgumentParser, recipe: Recipe) -> None:
    """Add all options of ``train MODEL``."""
    add_config_options(parser, recipe)
    parser.add_argument("--out", type=Path, metavar="DIR", help=f"the run's folder (runs/{recipe.model}-CONFIG)")
    parser.add_argument(
        "--resume",
        type=Path,
        metavar="DIR",
        help="continue this run; a larger --epochs extends it and stretches a cosine or staged schedule (a new run)",
    )


def given(options: argparse.Namespace, recipe: Recipe) -> dict[str, Any]:
    """The options given on the command line, by field name."""
    names = [option.name for option in (*RUN_OPTIONS, *OPTIONS[recipe.model])]
    return {name: getattr(options, name) for name in names if getattr(options, name) is not None}


def configure(options: argparse.Namespace, recipe: Recipe) -> RunConfig:
    """The named configuration, or the recipe's first, with the given options. UserError for invalid values."""
    config = recipe.configs[options.config] if options.config else next(iter(recipe.configs.values()))
    parts: dict[str, dict[str, Any]] = {"run": {}, "network": {}, "training": {}}
    part_of = {option.name: option.part for option in (*RUN_OPTIONS, *OPTIONS[recipe.model])}
    for name, value in given(options, recipe).items():
        parts[part_of[name]][name] = str(value) if name == "data_dir" else value
    try:
        return replace(
            config,
            network=replace(config.network, **parts["network"]),
            training=replace(config.training, **parts["training"]),
            **parts["run"],
        )
    except ValueError as error:
        raise UserError(str(error)) from None


def add_data_options(parser: argparse.ArgumentParser) -> None:
    """Add --data and --data-dir, which ``load_data`` reads."""
    parser.add_argument("--data", choices=SOURCES, default="auto")
    parser.add_argument("--data-dir", help="folder of the four MNIST files")


def load_data(parser: argparse.ArgumentParser, options: argparse.Namespace) -> Dataset:
    """The data set that the options name. Where it cannot be had, the program ends with one line and status 2."""
    try:
        return load_dataset(options.data, Path(options.data_dir) if options.data_dir else None)
    except UserError as error:
        parser.error(str(error))


def make_folder(parser: argparse.ArgumentParser, folder: Path) -> None:
    """Make --out if there is none. Where that is impossible, the program ends with one line and status 2."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        parser.error(f"--out {folder} cannot be a folder: {error.strerror}")
