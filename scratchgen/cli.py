"""The command line: its options; what the commands do is in ``commands``.

A user error prints one line on stderr and exits with status 2, never with a traceback."""

import argparse
import io
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

import kernels
from scratchgen.commands.data import fetch, show
from scratchgen.commands.engine import gradcheck, profile
from scratchgen.commands.images import SHOWN, encode, reconstruct
from scratchgen.commands.train import train
from scratchgen.commands.trained import compare, evaluate, explore, export, sample, walk
from scratchgen.data.mnist import PUBLISHED
from scratchgen.data.pictures import BACKGROUNDS
from scratchgen.errors import UserError
from scratchgen.evaluation.ais import Protocol
from scratchgen.options import (
    DATA,
    DATA_DIR,
    add_config_options,
    add_train_options,
    data_source,
    digit,
    positive,
    sigma,
    whole,
)
from scratchgen.recipes import RECIPES
from scratchgen.recipes.vae import IW_SAMPLES, NLL_IMAGES
from scratchgen.training import Interrupted
from scratchgen.version import __version__


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; returns the exit status.

    0 success, 1 a check failed, 2 user error, 130 Ctrl-C, 141 closed pipe (``| head``).
    """
    for output in (sys.stdout, sys.stderr):
        if isinstance(output, io.TextIOWrapper):
            output.reconfigure(errors="backslashreplace")  # a file name may hold what the terminal cannot show
    try:
        try:
            options, unknown = _parser().parse_known_args(arguments)
            if unknown:
                raise UserError(f"unrecognized arguments: {' '.join(unknown)} (see: {options.prog} --help)")
            return options.command(options)
        finally:
            sys.stdout.flush()  # here, where a closed pipe can still be caught
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # Python flushes the rest at exit
        return 141
    except (UserError, kernels.Unavailable, OSError, MemoryError) as error:  # a full disk, too large a network
        print("scratchgen:", *str(error).splitlines(), file=sys.stderr)
        return 2
    except (Interrupted, KeyboardInterrupt):
        return 130


# ---- options ----

_RUN = "folder of a trained run"
_AIS = Protocol()  # its defaults
_RUN_DATA_DIR = "where the data are, if not where the run found them (the path stored in the run)"


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise UserError(f"{message} (see: {self.prog} --help)")


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(prog="scratchgen", description="Deep generative models from scratch.")
    parser.add_argument("--version", action="version", version=__version__)
    commands = parser.add_subparsers(required=True, metavar="command")

    models = commands.add_parser("train", help="train a model").add_subparsers(required=True, metavar="model")
    for recipe in RECIPES.values():
        what = f"Train {recipe.model.upper()}s, or continue a run."
        model = models.add_parser(recipe.model, help=what.rstrip("."), description=what)
        model.set_defaults(command=train, model=recipe.model, prog=model.prog)
        add_train_options(model, recipe)

    what = "show where the time of a training step goes"
    models = commands.add_parser("profile", help=what).add_subparsers(required=True, metavar="model")
    for recipe in RECIPES.values():
        what = f"Time the kernels in the training of {recipe.model.upper()}s. Nothing is saved."
        model = models.add_parser(recipe.model, help=what.partition(".")[0], description=what)
        model.set_defaults(command=profile, model=recipe.model, prog=model.prog)
        add_config_options(model, recipe)
        model.add_argument(
            "--steps", type=positive, default=200, metavar="N", help="how many to time; more steps, less noise (200)"
        )
        model.add_argument("--json", type=Path, metavar="FILE", help="also write the numbers to FILE, .json (none)")

    command = _command(commands, "sample", sample)
    command.add_argument("run", type=Path, help=_RUN)
    command.add_argument("-n", type=positive, default=100, metavar="N", help="how many (100)")
    _add_choice_of_class(command, "any")
    command.add_argument(
        "--out",
        type=Path,
        metavar="FILE",
        help=".png, or .npy for the numbers (sampled.png, class-NAME.png or digit-D.png, in the run's folder)",
    )
    command.add_argument("--seed", type=whole, default=0, metavar="N", help="random seed (0)")

    command = _command(commands, "walk", walk)
    command.add_argument("run", type=Path, help=_RUN)
    command.add_argument(
        "--seconds", type=positive, default=10, metavar="N", help="how long it lasts, at most 300 (10)"
    )
    _add_choice_of_class(command, "all, in turn")
    command.add_argument(
        "--out", type=Path, metavar="FILE", help=".gif (walk.gif, or walk-NAME.gif, in the run's folder)"
    )
    command.add_argument("--seed", type=whole, default=0, metavar="N", help="random seed (0)")

    command = _command(commands, "reconstruct", reconstruct)
    command.add_argument("run", type=Path, help=_RUN)
    which = command.add_mutually_exclusive_group()
    which.add_argument("-n", type=positive, default=SHOWN, metavar="N", help=f"how many test images ({SHOWN})")
    _add_pictures(command, which)
    command.add_argument(
        "--out",
        type=Path,
        metavar="FILE",
        help=".png (reconstructed.png, or own-reconstructed.png, in the run's folder)",
    )
    command.add_argument("--data-dir", type=Path, metavar="DIR", help=_RUN_DATA_DIR)

    command = _command(commands, "encode", encode)
    command.add_argument("run", type=Path, help=_RUN)
    which = command.add_mutually_exclusive_group()
    which.add_argument("--split", choices=("train", "test"), default="test", help="images of the run's data (test)")
    _add_pictures(command, which)
    command.add_argument(
        "--out",
        type=Path,
        metavar="FILE",
        help=".npz of codes, and of logvar, predicted classes, labels, names of classes and files where there are any "
        "(codes.npz, or own-codes.npz, in the run's folder)",
    )
    command.add_argument("--data-dir", type=Path, metavar="DIR", help=_RUN_DATA_DIR)

    command = _command(commands, "export", export)
    command.add_argument("run", type=Path, help=_RUN)
    command.add_argument(
        "--to",
        choices=("numpy", "torch"),
        required=True,
        help="numpy: an archive of arrays, .npz; torch: model.py, for PyTorch, and its weights (required)",
    )
    command.add_argument(
        "--out",
        type=Path,
        metavar="FILE",
        help="the archive, or the folder of model.py (weights.npz, or pytorch, in the run's folder)",
    )

    command = _command(commands, "explore", explore)
    command.add_argument("run", type=Path, help=_RUN)
    command.add_argument("--out", type=Path, metavar="FILE", help=".html (explorer.html in the run's folder)")
    command.add_argument("--data-dir", type=Path, metavar="DIR", help=_RUN_DATA_DIR)

    command = _command(commands, "evaluate", evaluate)
    command.add_argument("run", type=Path, help=_RUN)
    command.add_argument("--iw-samples", type=positive, metavar="K", help=f"K of a VAE's L_K ({IW_SAMPLES})")
    command.add_argument(
        "--limit",
        type=positive,
        metavar="N",
        help="only the first N test images, or N samples of a GAN "
        f"(all, {NLL_IMAGES} for nll, {_AIS.images} for --ais)",
    )
    for name, what in (("annealed-chains", "chains that estimate log Z"), ("annealing-steps", "steps of each of them")):
        command.add_argument(f"--{name}", type=positive, metavar="N", help=f"of RBMs, DBNs, DBMs: {what} (the run's)")
    _add_ais(command)
    command.add_argument("--data-dir", type=Path, metavar="DIR", help=_RUN_DATA_DIR)

    command = _command(commands, "compare", compare)
    command.add_argument("runs", type=Path, nargs="+", metavar="run", help="folders of runs (two or more)")
    command.add_argument("--out", type=Path, default=Path("compare.png"), metavar="FILE", help=".png (compare.png)")

    command = _command(commands, "gradcheck", gradcheck)
    command.add_argument("names", nargs="*", metavar="NAME", help="operations (all)")
    command.add_argument("--kernels", choices=kernels.NAMES, help="only this kernel set (cpu and reference)")

    what = "MNIST and its relatives, strokes, and one's own"
    data = commands.add_parser("data", help=what, description=f"{what}; default action: show.")
    data.set_defaults(command=show, data=None, data_dir=None, out=None, prog=data.prog)
    actions = data.add_subparsers(metavar="action")
    command = _command(actions, "fetch", fetch)
    command.add_argument("--data", choices=PUBLISHED, default="mnist", help="what to download (mnist)")
    command.add_argument("--data-dir", type=Path, metavar="DIR", help="destination (the user's cache)")
    command = _command(actions, "show", show)
    command.add_argument("--data", type=data_source, metavar="DATA", help=f"{DATA} (auto)")
    command.add_argument("--data-dir", type=Path, metavar="DIR", help=DATA_DIR)
    command.add_argument("--out", type=Path, metavar="FILE", help="a picture, .png, of ten images a class (none)")
    return parser


def _add_ais(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--ais",
        action="store_true",
        help="instead, log p(x) by annealed importance sampling, of VAEs and GANs, in minutes (no)",
    )
    command.add_argument("--chains", type=positive, metavar="N", help=f"of --ais, for each image ({_AIS.chains})")
    command.add_argument("--steps", type=positive, metavar="N", help=f"of --ais: transitions of a chain ({_AIS.steps})")
    command.add_argument(
        "--sigma",
        type=sigma,
        metavar="S",
        help="of --ais: pixels are grey levels, normal with this standard deviation around the decoder's mean; best is "
        "chosen by the last training images (a VAE's own likelihood; best for a GAN)",
    )
    command.add_argument(
        "--simulate",
        type=positive,
        metavar="N",
        help="of --ais: also N images drawn from the model, whose log p is bounded from both sides (none)",
    )


def _add_choice_of_class(command: argparse.ArgumentParser, default: str) -> None:
    choice = command.add_mutually_exclusive_group()
    choice.add_argument(
        "--class", dest="class_name", metavar="NAME", help=f"only this class, if the run takes labels ({default})"
    )
    choice.add_argument("--digit", dest="class_name", type=digit, metavar="D", help=f"the same, for digits ({default})")


def _add_pictures(command: argparse.ArgumentParser, group: Any) -> None:
    group.add_argument(
        "--image",
        type=Path,
        nargs="+",
        metavar="FILE",
        help="PNG or JPEG; for a run on images like MNIST's of any size: they are scaled and centred like those, "
        "unless they have 28 by 28 pixels; for other runs of the size of the run's images (none)",
    )
    command.add_argument(
        "--background",
        choices=BACKGROUNDS,
        help="of the pictures; the digit is the other (found by each picture's edge)",
    )
    command.add_argument(
        "--class",
        dest="class_names",
        nargs="+",
        metavar="NAME",
        help="class of all pictures, or of each, if the run's networks take it (none)",
    )


def _command(group: Any, name: str, run: Any) -> argparse.ArgumentParser:
    what = run.__doc__ or name  # python -OO drops docstrings
    command = group.add_parser(name, help=what.rstrip("."), description=what)
    command.set_defaults(command=run, prog=command.prog)
    return command
