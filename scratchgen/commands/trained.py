"""What can be done with trained runs."""

import argparse
import io
import json
import math
import re
import sys
from typing import Any

import numpy as np

import kernels
from scratchgen import explorer, runs
from scratchgen.checkpoint import write_whole
from scratchgen.commands.images import fits_a_picture, label_of
from scratchgen.commands.output import npy, require_suffix, write
from scratchgen.compare import read_run, shared_metrics, table
from scratchgen.data.dataset import DIGITS
from scratchgen.errors import UserError
from scratchgen.evaluation.ais import Protocol
from scratchgen.random import stream
from scratchgen.recipes import RECIPES

DRAWN = 10_000  # samples drawn at a time, so that any number fits into memory
LONGEST_WALK = 300  # seconds, whose 6,000 frames take nearly a GB of memory
WAVES_A_SECOND = 0.3  # of a walk: about every second it comes to another picture


def sample(options: argparse.Namespace) -> int:
    """Draw images from the prior."""
    from scratchgen.figures import save_samples

    out = options.out or options.run / f"{_samples_of(options.class_name)}.png"
    if out.suffix != ".npy":
        fits_a_picture(options.n)
    config, model = runs.load_model(options.run)
    chosen = label_of(config, options.class_name)
    rng, counts = stream(options.seed, "samples"), [min(DRAWN, options.n - i) for i in range(0, options.n, DRAWN)]
    with kernels.use(config.kernels):
        parts = (RECIPES[config.model].sample(config, model, count, rng, chosen) for count in counts)
        if out.suffix == ".npy":
            write(out, lambda: write_whole(out, npy((options.n, config.network.input_dim), parts)), (".npy",))
        else:
            (images,) = parts
            write(out, lambda: save_samples(out, images, config.image_shape), (".png", ".npy"))
    return 0


def walk(options: argparse.Namespace) -> int:
    """Animate a random walk through the prior and the classes."""
    if options.seconds > LONGEST_WALK:
        raise UserError(f"a walk lasts at most {LONGEST_WALK} seconds, not {options.seconds}")
    from scratchgen.figures import FRAMES_A_SECOND, save_animation

    out = options.out or options.run / f"{_walk_of(options.class_name)}.gif"
    require_suffix(out, ".gif")  # before thousands of pictures are made
    config, model = runs.load_model(options.run)
    chosen = label_of(config, options.class_name)
    frames, waves = options.seconds * FRAMES_A_SECOND, math.ceil(options.seconds * WAVES_A_SECOND)
    with kernels.use(config.kernels):
        rng = stream(options.seed, "samples")
        images = RECIPES[config.model].walk(config, model, frames, waves, rng, chosen)
    write(out, lambda: save_animation(out, images, config.image_shape), (".gif",))
    return 0


def explore(options: argparse.Namespace) -> int:
    """Write a page on which to explore the model in a browser."""
    out = options.out or options.run / "explorer.html"
    require_suffix(out, ".html")  # before a judge is trained
    config, model = runs.load_model(options.run)
    data, recipe = runs.load_data(config, options.run, options.data_dir), RECIPES[config.model]
    with kernels.use(config.kernels):
        content = explorer.page(config, recipe.explorable(config, model, data), data)
    write(out, lambda: write_whole(out, content), (".html",))
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
            write(out, lambda: write_whole(out, archive.getvalue()), (".npz",))
    return 0


def evaluate(options: argparse.Namespace) -> int:
    """Print the test metrics of a trained model as JSON."""
    protocol = _protocol(options)
    config, model = runs.load_model(options.run)
    recipe = RECIPES[config.model]
    config = recipe.annealing(config, options.annealed_chains, options.annealing_steps)
    data = runs.load_data(config, options.run, options.data_dir)
    with kernels.use(config.kernels):
        if protocol is None:
            metrics = recipe.evaluate(config, model, data, options.limit, options.iw_samples)
        else:
            metrics = recipe.evaluate_ais(config, model, data, protocol)
    print(json.dumps(metrics, indent=2))
    return 0


def _protocol(options: argparse.Namespace) -> Protocol | None:
    """What ``--ais`` and its options ask for, None without it. UserError for options that do not fit together."""
    names = {"limit": "images", "chains": "chains", "steps": "steps", "sigma": "sigma", "simulate": "simulate"}
    given = {name: getattr(options, name) for name in names if getattr(options, name) is not None}
    if not options.ais:
        if alone := given.keys() - {"limit"}:
            raise UserError(f"--{min(alone)} is for --ais; give that too")
        return None
    if options.iw_samples is not None:
        raise UserError("--ais and --iw-samples are two estimates; give one of them")
    try:
        return Protocol(**{names[name]: value for name, value in given.items()})
    except ValueError as error:
        raise UserError(f"--ais: {error}") from None


def compare(options: argparse.Namespace) -> int:
    """Show runs side by side, and draw the test metrics that they share, if they are of the same pixels."""
    from scratchgen.figures import save_comparison

    if len(options.runs) < 2 or len(set(options.runs)) < len(options.runs):
        raise UserError("give two runs or more, each once")
    require_suffix(options.out, ".png")
    found = [read_run(folder) for folder in options.runs]
    print(table(found))
    metrics = shared_metrics(found)
    if not metrics:
        print("there is no figure: the runs share no test metric over the epochs", file=sys.stderr)
    elif len({run.pixels for run in found}) > 1:
        pixels = "; ".join(f"{run.name}: {run.pixels}" for run in found)
        print(f"there is no figure: their pixels differ, so their losses cannot be compared: {pixels}", file=sys.stderr)
    else:
        histories = {run.name: run.history for run in found}
        write(options.out, lambda: save_comparison(options.out, histories, metrics))
    return 0


def _samples_of(class_name: str | None) -> str:
    """The name of the picture of samples, or of those of a class."""
    if class_name is None:
        return "sampled"
    return f"{'digit' if class_name in DIGITS else 'class'}-{_in_a_file_name(class_name)}"


def _walk_of(class_name: str | None) -> str:
    """The name of the animation of a walk through all classes, or through one."""
    return "walk" if class_name is None else f"walk-{_in_a_file_name(class_name)}"


def _in_a_file_name(class_name: str) -> str:
    return re.sub(r"\W+", "-", class_name)
