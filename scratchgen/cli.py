"""The command line. A user error prints one line on stderr and exits with status 2, never with a traceback."""

import argparse
import io
import json
import math
import os
import shlex
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from itertools import chain, count
from pathlib import Path
from typing import Any, NoReturn

import numpy as np

import kernels
from scratchgen import runs
from scratchgen.checkpoint import write_json, write_whole
from scratchgen.compare import read_run, shared_metrics
from scratchgen.compare import table as comparison
from scratchgen.data import SOURCES, load_dataset
from scratchgen.data.mnist import fetch_mnist
from scratchgen.errors import UserError
from scratchgen.gradcheck import check_registry, format_table
from scratchgen.options import DATA_DIR, add_config_options, add_train_options, configure, digit, given, positive, whole
from scratchgen.profile import measure, table
from scratchgen.random import stream
from scratchgen.recipes import RECIPES, RunConfig
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
            options = _parser().parse_args(arguments)
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


# ---- commands ----


def train(options: argparse.Namespace) -> int:
    """Train a model, or continue a run."""
    recipe = RECIPES[options.model]
    if options.resume:
        folder = options.resume
        if given(options, recipe).keys() - {"epochs", "data_dir"} or options.out or options.config:
            raise UserError("--resume reads all settings from the run; only --epochs and --data-dir may be given")
        if (model := runs.load_config(folder).model) != recipe.model:
            raise UserError(
                f"{folder} is a run of model {model}; continue it with: scratchgen train {model} --resume {folder}"
            )
        with _saying_how_to_resume(folder, recipe.model):
            summary = runs.resume(folder, options.epochs, options.data_dir)
    else:
        config = configure(options, recipe)
        with _new_folder(options.out, config) as folder, _saying_how_to_resume(folder, recipe.model):
            summary = runs.start(config, folder)
    _report(runs.load_config(folder), summary, folder)
    return 0


def sample(options: argparse.Namespace) -> int:
    """Draw digits from the prior."""
    chosen = options.digit
    from scratchgen.figures import save_samples

    out = options.out or options.run / ("samples.png" if chosen is None else f"digit-{chosen}.png")
    if out.suffix != ".npy":
        _fits_a_picture(options.n)
    config, model = runs.load_model(options.run)
    rng, counts = stream(options.seed, "samples"), [min(DRAWN, options.n - i) for i in range(0, options.n, DRAWN)]
    with kernels.use(config.kernels):
        parts = (RECIPES[config.model].sample(config, model, count, rng, chosen) for count in counts)
        if out.suffix == ".npy":
            _write(out, lambda: write_whole(out, _npy((options.n, config.network.input_dim), parts)), (".npy",))
        else:
            (images,) = parts
            _write(out, lambda: save_samples(out, images), (".png", ".npy"))
    return 0


def walk(options: argparse.Namespace) -> int:
    """Animate a random walk through the prior and the classes."""
    if options.seconds > LONGEST_WALK:
        raise UserError(f"a walk lasts at most {LONGEST_WALK} seconds, not {options.seconds}")
    from scratchgen.figures import FRAMES_A_SECOND, save_animation

    out = options.out or options.run / ("walk.gif" if options.digit is None else f"walk-{options.digit}.gif")
    config, model = runs.load_model(options.run)
    frames, waves = options.seconds * FRAMES_A_SECOND, math.ceil(options.seconds * WAVES_A_SECOND)
    with kernels.use(config.kernels):
        rng = stream(options.seed, "samples")
        images = RECIPES[config.model].walk(config, model, frames, waves, rng, options.digit)
    _write(out, lambda: save_animation(out, images), (".gif",))
    return 0


def reconstruct(options: argparse.Namespace) -> int:
    """Show test images beside their reconstructions."""
    from scratchgen.figures import save_reconstructions

    _fits_a_picture(options.n)
    config, model = runs.load_model(options.run)
    data, recipe = runs.load_data(config, options.run, options.data_dir), RECIPES[config.model]
    with kernels.use(config.kernels):
        images = recipe.test_images(config, data)[: options.n]
        reconstructions = recipe.reconstruct(config, model, images, data.test.labels[: options.n])
    out = options.out or options.run / "reconstructions.png"
    _write(out, lambda: save_reconstructions(out, images, reconstructions))
    return 0


def export(options: argparse.Namespace) -> int:
    """Write a trained model for other programs."""
    from scratchgen.export import write_pytorch

    config, model = runs.load_model(options.run)
    with kernels.use(config.kernels):
        if options.to == "torch":
            folder = options.out or options.run / "pytorch"
            write_pytorch(folder, model)
            print(folder / "model.py")
        else:
            out, archive = options.out or options.run / "weights.npz", io.BytesIO()
            arrays: dict[str, Any] = model.state_dict()
            np.savez(archive, **arrays)
            _write(out, lambda: write_whole(out, archive.getvalue()), (".npz",))
    return 0


def evaluate(options: argparse.Namespace) -> int:
    """Print the test metrics of a trained model as JSON."""
    config, model = runs.load_model(options.run)
    data = runs.load_data(config, options.run, options.data_dir)
    with kernels.use(config.kernels):
        table = RECIPES[config.model].evaluate(config, model, data, options.limit, options.iw_samples)
    print(json.dumps(table, indent=2))
    return 0


def compare(options: argparse.Namespace) -> int:
    """Show runs side by side, and draw the test metrics that they share."""
    from scratchgen.figures import save_comparison

    if len(options.runs) < 2 or len(set(options.runs)) < len(options.runs):
        raise UserError("give two runs or more, each once")
    found = [read_run(folder) for folder in options.runs]
    print(comparison(found))
    if len({run.pixels for run in found}) > 1:
        pixels = "; ".join(f"{run.name}: {run.pixels}" for run in found)
        print(f"their pixels differ, so their losses cannot be compared: {pixels}", file=sys.stderr)
    metrics = shared_metrics(found)
    if metrics:
        histories = {run.name: run.history for run in found}
        _write(options.out, lambda: save_comparison(options.out, histories, metrics))
    else:
        print("there is no figure: the runs share no test metric over the epochs", file=sys.stderr)
    return 0


def profile(options: argparse.Namespace) -> int:
    """Show where the time of a training step goes, kernel by kernel."""
    if options.json and options.json.suffix != ".json":  # checked before the measurement
        raise UserError(f"{options.json}: give a name that ends in .json")
    config = configure(options, RECIPES[options.model])
    if config.kernels == "cuda":
        kernels.find("cuda")  # or say what is missing
        raise UserError("profile cannot time CUDA kernels, which run asynchronously; use make bench-gpu")
    task, data = runs.prepare(config, load_dataset(config.data, options.data_dir))
    report = measure(replace(config, data=data.name), task, data, options.steps)
    print(table(report))
    if options.json:
        _write(options.json, lambda: write_json(options.json, report), (".json",))
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
    """Describe the data, and draw some of it."""
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

DRAWN = 10_000  # samples drawn at a time, so that any number fits into memory
LONGEST_WALK = 300  # seconds, whose 6,000 frames take a third of a GB of memory
WAVES_A_SECOND = 0.3  # of a walk: about every second it comes to another picture
MOST_PICTURED = 1000  # images in a picture: more take minutes to draw and are too small to see


@contextmanager
def _new_folder(out: Path | None, config: RunConfig) -> Iterator[Path]:
    """``out``, or a new folder named after the configuration; removed if no run has begun in it at the end.

    It is created at once, so that no other process takes the same name.
    """
    if out is not None:
        yield out
        return
    base = Path("runs") / f"{config.model}-{config.name}"
    for folder in chain([base], (base.with_name(f"{base.name}-{i}") for i in count(2))):
        try:
            folder.mkdir(parents=True)
            break
        except FileExistsError:
            if not base.parent.is_dir():
                raise
    try:
        yield folder
    finally:
        with suppress(OSError):  # they are not empty
            folder.rmdir()
            base.parent.rmdir()


@contextmanager
def _saying_how_to_resume(folder: Path, model: str) -> Iterator[None]:
    """On Ctrl-C, print the command that continues the run, if it has begun."""
    try:
        yield
    except (Interrupted, KeyboardInterrupt):
        if (folder / "config.json").exists():
            command = f"scratchgen train {model} --resume {shlex.quote(str(folder))}"
            print(f"stopped; continue with: {command}", file=sys.stderr)
        raise


def _report(config: RunConfig, summary: dict[str, Any], folder: Path) -> None:
    recipe = RECIPES[config.model]
    print(
        f"\n{config.name} on {summary['data']}, {summary['pixels']}: {summary['epochs']} epochs, {summary['seconds']} s"
    )
    if "best_epoch" in summary:
        figures = ", then ".join(recipe.selection(config).metrics)
        print(f"kept: epoch {summary['best_epoch']}, the best by test {figures}; chosen so, it looks slightly too good")
    print(recipe.report(config, summary["test"]))
    expected = recipe.expectation(config, summary["data"])
    if expected:
        print(f"is this normal? what to expect here: {expected}")
    for path in sorted(folder.glob("*.png")):
        print(path)


def _fits_a_picture(n: int) -> None:
    if n > MOST_PICTURED:
        raise UserError(
            f"a picture holds at most {MOST_PICTURED} images, not {n}; `sample --out FILE.npy` takes any number"
        )


def _npy(shape: tuple[int, ...], parts: Iterable[np.ndarray]) -> Iterator[bytes]:
    """The contents of a .npy file of a float32 array, whose rows come in parts."""
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": "<f4", "fortran_order": False, "shape": shape})
    yield header.getvalue()
    for part in parts:
        yield part.astype("<f4", copy=False).tobytes()


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
_RUN_DATA_DIR = "folder of the four MNIST files (the one stored in the run)"


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
        model.set_defaults(command=train, model=recipe.model)
        add_train_options(model, recipe)

    what = "show where the time of a training step goes"
    models = commands.add_parser("profile", help=what).add_subparsers(required=True, metavar="model")
    for recipe in RECIPES.values():
        what = f"Time the kernels in the training of {recipe.model.upper()}s. Nothing is saved."
        model = models.add_parser(recipe.model, help=what.partition(".")[0], description=what)
        model.set_defaults(command=profile, model=recipe.model)
        add_config_options(model, recipe)
        model.add_argument(
            "--steps", type=positive, default=200, metavar="N", help="how many to time; more steps, less noise (200)"
        )
        model.add_argument("--json", type=Path, metavar="FILE", help="also write the numbers to FILE, .json (none)")

    command = _command(commands, "sample", sample)
    command.add_argument("run", type=Path, help=_RUN)
    command.add_argument("-n", type=positive, default=100, metavar="N", help="how many (100)")
    command.add_argument("--digit", type=digit, metavar="D", help="only this digit, of a run that takes labels (any)")
    command.add_argument(
        "--out",
        type=Path,
        metavar="FILE",
        help=".png, or .npy for the numbers (samples.png, or digit-D.png, in the run's folder)",
    )
    command.add_argument("--seed", type=whole, default=0, metavar="N", help="random seed (0)")

    command = _command(commands, "walk", walk)
    command.add_argument("run", type=Path, help=_RUN)
    command.add_argument("--seconds", type=positive, default=10, metavar="N", help="how long it lasts (10)")
    command.add_argument("--digit", type=digit, metavar="D", help="only this digit, of a run that takes labels (all)")
    command.add_argument("--out", type=Path, metavar="FILE", help=".gif (walk.gif, or walk-D.gif, in the run's folder)")
    command.add_argument("--seed", type=whole, default=0, metavar="N", help="random seed (0)")

    command = _command(commands, "reconstruct", reconstruct)
    command.add_argument("run", type=Path, help=_RUN)
    command.add_argument("-n", type=positive, default=20, metavar="N", help="how many (20)")
    command.add_argument("--out", type=Path, metavar="FILE", help=".png (reconstructions.png in the run's folder)")
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

    command = _command(commands, "evaluate", evaluate)
    command.add_argument("run", type=Path, help=_RUN)
    command.add_argument("--iw-samples", type=positive, metavar="K", help=f"K of a VAE's L_K ({IW_SAMPLES})")
    command.add_argument(
        "--limit",
        type=positive,
        metavar="N",
        help=f"only the first N test images, or N samples of a GAN (all, and {NLL_IMAGES} for nll)",
    )
    command.add_argument("--data-dir", type=Path, metavar="DIR", help=_RUN_DATA_DIR)

    command = _command(commands, "compare", compare)
    command.add_argument("runs", type=Path, nargs="+", metavar="run", help="folders of runs (two or more)")
    command.add_argument("--out", type=Path, default=Path("compare.png"), metavar="FILE", help=".png (compare.png)")

    command = _command(commands, "gradcheck", gradcheck)
    command.add_argument("names", nargs="*", metavar="NAME", help="operations (all)")
    command.add_argument("--kernels", choices=kernels.NAMES, help="only this kernel set (cpu and reference)")

    data = commands.add_parser("data", help="MNIST and strokes", description="MNIST and strokes; default action: show.")
    data.set_defaults(command=data_show, data=None, data_dir=None, out=None)
    actions = data.add_subparsers(metavar="action")
    command = _command(actions, "fetch", data_fetch)
    command.add_argument("--data-dir", type=Path, metavar="DIR", help="destination (the user's cache)")
    command = _command(actions, "show", data_show)
    command.add_argument("--data", choices=SOURCES, help="auto: MNIST if available, else strokes (auto)")
    command.add_argument("--data-dir", type=Path, metavar="DIR", help=DATA_DIR)
    command.add_argument("--out", type=Path, metavar="FILE", help="a picture, .png, of ten images a class (none)")
    return parser


def _command(group: Any, name: str, run: Any) -> argparse.ArgumentParser:
    what = run.__doc__ or name  # python -OO drops docstrings
    command = group.add_parser(name, help=what.rstrip("."), description=what)
    command.set_defaults(command=run)
    return command
