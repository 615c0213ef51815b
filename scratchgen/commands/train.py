"""Training: a new run, or one that goes on."""

import argparse
import shlex
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from itertools import chain, count
from pathlib import Path
from typing import Any

from scratchgen import runs
from scratchgen.errors import UserError
from scratchgen.options import configure, given
from scratchgen.recipes import RECIPES, RunConfig
from scratchgen.training import Interrupted


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


@contextmanager
def _new_folder(out: Path | None, config: RunConfig) -> Iterator[Path]:
    """``out``, or a new folder named after what is trained on what; removed if no run has begun in it at the end.

    It is created at once, so that no other process takes the same name.
    """
    if out is not None:
        yield out
        return
    data = [] if config.data in ("auto", "mnist") else [Path(config.data).absolute().stem]
    conditional = ["conditional"] * getattr(config.network, "conditional", False)
    base = Path("runs") / "-".join([config.model, config.name, *conditional, *data])
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
        else:
            print("stopped before the run had begun; there is nothing to continue", file=sys.stderr)
        raise


def _report(config: RunConfig, summary: dict[str, Any], folder: Path) -> None:
    recipe = RECIPES[config.model]
    epochs = f"{summary['epochs']} epoch{'s' * (summary['epochs'] > 1)}"
    print(f"\n{config.name} on {summary['data']}, {summary['pixels']}: {epochs}, {summary['seconds']} s")
    if "best_epoch" in summary:
        figures = ", then ".join(recipe.selection(config).metrics)
        print(f"kept: epoch {summary['best_epoch']}, the best by test {figures}; chosen so, it looks slightly too good")
    print(recipe.report(config, summary["test"]))
    expected = recipe.expectation(config, summary["data"])
    if expected:
        print(f"is this normal? what to expect here: {expected}")
    for path in sorted(folder.glob("*.png")):
        print(path)
