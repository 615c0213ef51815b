"""The command line. A person's mistake is one line on standard error and exit status 2, never a traceback."""

import argparse
import io
import json
import math
import os
import shlex
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, NoReturn

import numpy as np

import kernels
from scratchgen import runs
from scratchgen.checkpoint import write_whole
from scratchgen.data import SOURCES, load_dataset
from scratchgen.data.mnist import fetch_mnist
from scratchgen.data.pixels import BINARIZE
from scratchgen.errors import UserError
from scratchgen.gradcheck import check_registry, format_table
from scratchgen.models.vae import LIKELIHOODS
from scratchgen.training import Interrupted, stream
from scratchgen.version import __version__


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; returns the exit status.

    0 done, 1 a check failed, 2 a mistake of the user's, 130 Ctrl-C, 141 nobody reads on (``| head``).
    """
    try:
        try:
            options = _parser().parse_args(arguments)
            return options.command(options)
        finally:
            sys.stdout.flush()  # here, where a closed pipe can still be caught
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # for what is left, which Python flushes at exit
        return 141
    except (UserError, OSError, MemoryError) as error:  # a full disk, a network too large
        print("scratchgen:", *str(error).splitlines(), file=sys.stderr)
        return 2
    except (Interrupted, KeyboardInterrupt):
        return 130


# ---- commands ----


def train_vae(options: argparse.Namespace) -> int:
    """Train a VAE, or continue a run."""
    if options.resume:
        folder = options.resume
        other = [
            name for name in _OVERRIDES if getattr(options, name) is not None and name not in ("epochs", "data_dir")
        ]
        if other or options.out or options.config:
            raise UserError("--resume takes everything from the run but --epochs and --data-dir; leave the rest out")
        with _saying_how_to_resume(folder):
            summary = runs.resume(folder, options.epochs, options.data_dir)
    else:
        config = _configure(options)
        folder = options.out or _new_folder(config)
        with _saying_how_to_resume(folder):
            summary = runs.start(config, folder)
    _report(runs.load_config(folder), summary, folder)
    return 0


def sample(options: argparse.Namespace) -> int:
    """Draw digits from the prior."""
    from scratchgen.figures import save_samples

    out = options.out or options.run / "samples.png"
    if out.suffix != ".npy":
        _fits_a_picture(options.n)
    config, model = runs.load_model(options.run)
    with kernels.use(config.kernels):
        images = runs.sample(model, options.n, stream(options.seed, "samples"))
    if out.suffix == ".npy":
        content = io.BytesIO()
        np.save(content, images)
        _write(out, lambda: write_whole(out, content.getvalue()), (".npy",))
    else:
        _write(out, lambda: save_samples(out, images), (".png", ".npy"))
    return 0


def reconstruct(options: argparse.Namespace) -> int:
    """Show test images beside their reconstructions."""
    from scratchgen.figures import save_reconstructions

    _fits_a_picture(options.n)
    config, model = runs.load_model(options.run)
    data = runs.load_data(config, options.run, options.data_dir)
    with kernels.use(config.kernels):
        images = runs.test_images(config, data)[: options.n]
        reconstructions = runs.reconstruct(model, images)
    out = options.out or options.run / "reconstructions.png"
    _write(out, lambda: save_reconstructions(out, images, reconstructions))
    return 0


def evaluate(options: argparse.Namespace) -> int:
    """Print the table of a trained model as JSON."""
    config, model = runs.load_model(options.run)
    data = runs.load_data(config, options.run, options.data_dir)
    with kernels.use(config.kernels):
        table = runs.evaluate(config, model, data, options.iw_samples, options.limit)
    print(json.dumps(table, indent=2))
    return 0


def gradcheck(options: argparse.Namespace) -> int:
    """Check the gradients of operations; exit status 1 if one is wrong."""
    rows = check_registry(options.names or None, [options.kernels] if options.kernels else list(kernels.SETS))
    print(format_table(rows))
    return 0 if all(row.passed for row in rows) else 1


def data_fetch(options: argparse.Namespace) -> int:
    """Download MNIST."""
    print(fetch_mnist(options.data_dir))
    return 0


def data_show(options: argparse.Namespace) -> int:
    """Say what data there is, and draw some of it."""
    from scratchgen.figures import save_samples

    data = load_dataset(options.data or "auto", options.data_dir)
    print(f"{data.name}: {len(data.train)} training and {len(data.test)} test images, {data.image_shape} pixels")
    print(f"images a class, training: {np.bincount(data.train.labels).tolist()}")
    if options.out:
        first = [np.flatnonzero(data.train.labels == label)[:10] for label in range(10)]
        images = data.train.images[np.concatenate(first)]
        _write(options.out, lambda: save_samples(options.out, images, columns=10))
    return 0


# ---- what the commands share ----

MOST_PICTURED = 1000  # images in a picture: more take minutes to draw, and nobody sees them

# Options of `train vae` that replace a field of the named configuration, and where the field is.
_OVERRIDES = {
    "epochs": "run",
    "batch_size": "run",
    "seed": "run",
    "kernels": "run",
    "data": "run",
    "data_dir": "run",
    "latent_dim": "network",
    "likelihood": "network",
    "samples": "training",
    "binarize": "training",
    "lr": "training",
    "beta": "training",
    "beta_warmup": "training",
}


def _configure(options: argparse.Namespace) -> runs.RunConfig:
    config = runs.VAE_CONFIGS[options.config or "pytorch-example"]
    given = {name: getattr(options, name) for name in _OVERRIDES if getattr(options, name) is not None}
    if "data_dir" in given:
        given["data_dir"] = str(given["data_dir"])
    parts: dict[str, dict[str, Any]] = {"run": {}, "network": {}, "training": {}}
    for name, value in given.items():
        parts[_OVERRIDES[name]][name] = value
    try:
        return replace(
            config,
            network=replace(config.network, **parts["network"]),
            training=replace(config.training, **parts["training"]),
            **parts["run"],
        )
    except ValueError as error:
        raise UserError(str(error)) from None


def _new_folder(config: runs.RunConfig) -> Path:
    base = Path("runs") / f"vae-{config.name}"
    numbered = (base.with_name(f"{base.name}-{i}") for i in range(2, 10**6))
    return base if not base.exists() else next(folder for folder in numbered if not folder.exists())


@contextmanager
def _saying_how_to_resume(folder: Path) -> Iterator[None]:
    """On Ctrl-C, say how the run goes on, if it has begun."""
    try:
        yield
    except (Interrupted, KeyboardInterrupt):
        if (folder / "config.json").exists():
            command = f"scratchgen train vae --resume {shlex.quote(str(folder))}"
            print(f"stopped; continue with: {command}", file=sys.stderr)
        raise


def _report(config: runs.RunConfig, summary: dict[str, Any], folder: Path) -> None:
    test = summary["test"]
    print(
        f"\n{config.name} on {summary['data']}, {summary['pixels']}: {summary['epochs']} epochs, {summary['seconds']} s"
    )
    print(
        f"test, nats an image: neg_elbo {test['neg_elbo']:.2f} = reconstruction {test['reconstruction']:.2f} "
        f"+ kl {test['kl']:.2f};  nll {test['nll']:.2f} (L_{test['iw_samples']}, {test['nll_images']} images);  "
        f"{test['active_units']} of {config.network.latent_dim} latent units active"
    )
    expected = runs.expectation(config, summary)
    if expected:
        print(f"is this normal? what to expect here: {expected}")
    for path in sorted(folder.glob("*.png")):
        print(path)


def _fits_a_picture(n: int) -> None:
    if n > MOST_PICTURED:
        raise UserError(
            f"a picture holds at most {MOST_PICTURED} images, not {n}; `sample --out FILE.npy` takes any number"
        )


def _write(path: Path, write: Any, suffixes: tuple[str, ...] = (".png",)) -> None:
    if path.suffix not in suffixes:
        raise UserError(f"{path}: give a name that ends in {' or '.join(suffixes)}")
    try:
        write()
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: cannot be written ({getattr(error, 'strerror', None) or error})") from None
    print(path)


# ---- options ----

_RUN = "folder of a trained run"
_DATA_DIR = "folder of the four MNIST files ($SCRATCHGEN_DATA, else the user's cache)"
_RUN_DATA_DIR = "folder of the four MNIST files (the one that the run remembers)"


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise UserError(f"{message} (see: {self.prog} --help)")


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(prog="scratchgen", description="Deep generative models from scratch.")
    parser.add_argument("--version", action="version", version=__version__)
    commands = parser.add_subparsers(required=True, metavar="command")

    train = commands.add_parser("train", help="train a model").add_subparsers(required=True, metavar="model")
    _add_train_vae(train)

    command = _command(commands, "sample", sample)
    command.add_argument("run", type=Path, help=_RUN)
    command.add_argument("-n", type=_positive, default=100, metavar="N", help="how many (100)")
    command.add_argument(
        "--out", type=Path, metavar="FILE", help=".png, or .npy for the numbers (samples.png in the run's folder)"
    )
    command.add_argument("--seed", type=_whole, default=0, metavar="N", help="of the draws (0)")

    command = _command(commands, "reconstruct", reconstruct)
    command.add_argument("run", type=Path, help=_RUN)
    command.add_argument("-n", type=_positive, default=20, metavar="N", help="how many (20)")
    command.add_argument("--out", type=Path, metavar="FILE", help=".png (reconstructions.png in the run's folder)")
    command.add_argument("--data-dir", type=Path, metavar="DIR", help=_RUN_DATA_DIR)

    command = _command(commands, "evaluate", evaluate)
    command.add_argument("run", type=Path, help=_RUN)
    command.add_argument(
        "--iw-samples", type=_positive, default=runs.IW_SAMPLES, metavar="K", help=f"K of L_K ({runs.IW_SAMPLES})"
    )
    command.add_argument(
        "--limit",
        type=_positive,
        metavar="N",
        help=f"only the first N test images, for nll too (all, and {runs.NLL_IMAGES} for nll)",
    )
    command.add_argument("--data-dir", type=Path, metavar="DIR", help=_RUN_DATA_DIR)

    command = _command(commands, "gradcheck", gradcheck)
    command.add_argument("names", nargs="*", metavar="NAME", help="operations (all)")
    command.add_argument("--kernels", choices=kernels.SETS, help="only this set (all)")

    data = commands.add_parser("data", help="MNIST and strokes", description="MNIST and strokes; without action: show.")
    data.set_defaults(command=data_show, data=None, data_dir=None, out=None)
    actions = data.add_subparsers(metavar="action")
    command = _command(actions, "fetch", data_fetch)
    command.add_argument("--data-dir", type=Path, metavar="DIR", help="where to (the user's cache)")
    command = _command(actions, "show", data_show)
    command.add_argument("--data", choices=SOURCES, help="auto: MNIST where it can be had, else strokes (auto)")
    command.add_argument("--data-dir", type=Path, metavar="DIR", help=_DATA_DIR)
    command.add_argument("--out", type=Path, metavar="FILE", help="a picture, .png, of ten images a class (none)")
    return parser


def _add_train_vae(group: Any) -> None:
    vae = _command(group, "vae", train_vae)
    vae.epilog = "In brackets: the default; where a configuration sets it, that of pytorch-example."
    config = runs.VAE_CONFIGS["pytorch-example"]
    network, training = config.network, config.training
    vae.add_argument("--config", choices=runs.VAE_CONFIGS, help=f"named configuration ({config.name})")
    vae.add_argument("--data", choices=SOURCES, help=f"auto: MNIST where it can be had, else strokes ({config.data})")
    vae.add_argument("--data-dir", type=Path, metavar="DIR", help=_DATA_DIR)
    vae.add_argument("--epochs", type=_positive, metavar="N", help=f"passes over the training images ({config.epochs})")
    vae.add_argument("--batch-size", type=_positive, metavar="N", help=f"images a step ({config.batch_size})")
    vae.add_argument(
        "--latent-dim",
        type=_positive,
        metavar="J",
        help=f"dimensions of the code; 2 brings the scatter and the manifold ({network.latent_dim})",
    )
    vae.add_argument("--likelihood", choices=LIKELIHOODS, help=f"p(x|z) of a pixel ({network.likelihood})")
    vae.add_argument("--samples", type=_positive, metavar="M", help=f"draws of z for each image ({training.samples})")
    vae.add_argument("--binarize", choices=BINARIZE, help=f"draw pixels as 0 or 1: once, or anew ({training.binarize})")
    vae.add_argument("--beta", type=_number, metavar="B", help=f"weight of the KL term ({training.beta})")
    vae.add_argument(
        "--beta-warmup",
        type=_number,
        metavar="EPOCHS",
        help=f"epochs over which beta rises from 0 ({training.beta_warmup})",
    )
    vae.add_argument("--lr", type=_number, metavar="X", help=f"Adam's learning rate ({training.lr})")
    vae.add_argument("--seed", type=_whole, metavar="N", help=f"of every random choice ({config.seed})")
    vae.add_argument("--kernels", choices=kernels.SETS, help=f"what computes ({config.kernels})")
    vae.add_argument("--out", type=Path, metavar="DIR", help="the run's folder (runs/vae-CONFIG)")
    vae.add_argument(
        "--resume",
        type=Path,
        metavar="DIR",
        help="continue this run; --epochs may add to it, which stretches a schedule that is not constant (a new run)",
    )


def _command(group: Any, name: str, run: Any) -> argparse.ArgumentParser:
    command = group.add_parser(name, help=run.__doc__.rstrip("."), description=run.__doc__)
    command.set_defaults(command=run)
    return command


def _positive(text: str) -> int:
    if not text.isdecimal() or not 0 < int(text) < 2**31:  # what NumPy takes as a size
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number above 0, and below 2^31")
    return int(text)


def _whole(text: str) -> int:
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number")
    return int(text)


def _number(text: str) -> float:
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        raise argparse.ArgumentTypeError(f"{text!r} is not a finite number")
    return number
