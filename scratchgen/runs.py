"""A run from its configuration to its summary: what the command line and the demos call."""

import os
import platform
import reprlib
import sys
from dataclasses import asdict, fields, replace
from pathlib import Path
from typing import Any

import numba
import numpy as np

import kernels
from scratchgen import checkpoint
from scratchgen.data import SOURCES, Dataset, load_dataset
from scratchgen.data.mnist import PUBLISHED, missing_files
from scratchgen.data.pictures import are_centred
from scratchgen.errors import UserError
from scratchgen.nn import Module
from scratchgen.optim import STRETCHED
from scratchgen.recipes import RECIPES, RunConfig
from scratchgen.tasks.task import Task
from scratchgen.training import Trainer
from scratchgen.version import __version__


def versions() -> dict[str, str]:
    """The versions of all that a run's results depend on besides its configuration."""
    return {
        "scratchgen": __version__,
        "numpy": np.__version__,
        "numba": numba.__version__,
        "python": platform.python_version(),
    }


def start(config: RunConfig, folder: Path) -> dict[str, Any]:
    """Train a new run in ``folder``; returns its summary."""
    if os.path.isdir(folder):  # before anything that takes time
        checkpoint.require_no_run(folder)
    if config.data_dir is not None:
        config = replace(config, data_dir=str(Path(config.data_dir).absolute()))
    if config.data not in SOURCES:
        config = replace(config, data=str(Path(config.data).absolute()))
    data = load_dataset(config.data, Path(config.data_dir) if config.data_dir else None)
    config = replace(fitted(config, data), versions=versions())
    trainer = _trainer(config, data, folder)  # first, so that an invalid run leaves no folder
    checkpoint.create_folder(folder)
    with checkpoint.locked(folder):
        checkpoint.create_run(folder, asdict(config))
        return _train(config, data, trainer)


def resume(folder: Path, epochs: int | None = None, data_dir: Path | None = None) -> dict[str, Any]:
    """Continue the run in ``folder``, to its own number of epochs or more; returns its summary."""
    load_config(folder)  # or say that this is no run, before a lock is written there
    with checkpoint.locked(folder):
        config = before = load_config(folder)
        if data_dir is not None:
            config = replace(config, data_dir=str(data_dir.absolute()))
        if epochs is not None and epochs < config.epochs:
            raise UserError(f"{folder} is a run of {config.epochs} epochs; --epochs can only add to them")
        config = replace(config, epochs=epochs or config.epochs)
        if (folder / "checkpoint.safetensors").exists():
            # Or say that it does not fit, before a network of any size is made.
            _load_arrays(config, folder, "checkpoint.safetensors")
        elif (folder / "metrics.jsonl").exists():  # written after a checkpoint
            raise UserError(f"{folder} has finished epochs, but its checkpoint.safetensors is gone; train anew")
        data = load_data(config, folder, data_dir, resuming=True)
        trainer = _trainer(config, data, folder, resume=True)
        if config.epochs > before.epochs and trainer.out_of_patience():
            raise UserError(
                f"{folder} has stopped early, after {len(trainer.progress.history)} epochs: no epoch was better for "
                f"{config.patience}; more --epochs would not continue it"
            )
        schedule = config.training.schedule
        if config.epochs > before.epochs and schedule in STRETCHED:
            print(
                f"{before.epochs} epochs become {config.epochs}: the {schedule} schedule is stretched over all of "
                "them, and the learning rate rises again",
                file=sys.stderr,
            )
        checkpoint.sweep(folder)
        if config != before:
            checkpoint.write_json(folder / "config.json", {"format": checkpoint.FORMAT, **asdict(config)})
        return _train(config, data, trainer)


def fitted(config: RunConfig, data: Dataset) -> RunConfig:
    """The configuration for this data: networks for its pixels and classes, and what a run remembers of it.

    Without labels the number of classes stays, for a prior whose regions need none. UserError if the networks take no
    such images.
    """
    (height, width), network = data.image_shape, config.network
    try:
        if height != width and any(getattr(network, each.name) for each in fields(network) if "channels" in each.name):
            raise ValueError("the convolutions of this configuration take square images")
        network = replace(network, input_dim=height * width)
        if data.classes and hasattr(network, "classes"):
            network = replace(network, classes=len(data.classes))
    except ValueError as error:
        raise UserError(
            f"{data.name} has images of {height} by {width} pixels: {error}; give another --config"
        ) from None
    if data.name in SOURCES and config.data not in SOURCES:  # known data, found at a path
        config = replace(config, data_dir=config.data)
    return replace(
        config,
        network=network,
        data=data.name if data.name in SOURCES else config.data,
        image_shape=data.image_shape,
        centred=are_centred(data.test.images.reshape(-1, height, width)),
        classes=data.classes,
        data_digest=data.digest,
    )


def prepare(config: RunConfig, data: Dataset) -> tuple[Task, Dataset]:
    """A run's task, and the data as its model sees it. UserError if the two do not fit."""
    _require_fit(config, data)
    recipe = RECIPES[config.model]
    with kernels.use(config.kernels):  # where the parameters will lie
        seen, model = recipe.seen(config, data), _model(config)
        return recipe.task(config, model, seen), seen


def load_config(folder: Path) -> RunConfig:
    """The configuration of the run in ``folder``."""
    content = checkpoint.read_config(folder)
    try:
        model = content.get("model")
        if not isinstance(model, str) or model not in RECIPES:
            raise ValueError(f"model cannot be {reprlib.repr(model)}; it is one of {', '.join(RECIPES)}")
        return RECIPES[model].config(content)
    except ValueError as error:
        raise UserError(f"{folder / 'config.json'}: not a configuration of this version ({error})") from None


def load_model(folder: Path) -> tuple[RunConfig, Module]:
    """The trained model of the run in ``folder``, from its checkpoint alone; with patience, that of the best epoch."""
    config = load_config(folder)
    arrays, progress = _load_arrays(config, folder, "checkpoint.safetensors")
    if config.patience is not None and progress.get("history"):  # once an epoch has ended
        arrays, _ = _load_arrays(config, folder, "best.safetensors")
    with kernels.use(config.kernels):
        model = _model(config)
    try:
        RECIPES[config.model].load(model, arrays)
    except (ValueError, KeyError) as error:
        raise UserError(f"{folder}: its checkpoint does not fit its config.json: {error}") from None
    return config, model


def _load_arrays(config: RunConfig, folder: Path, name: str) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """The arrays and the progress of a checkpoint. UserError if it was made with other settings than the run's."""
    arrays, progress = checkpoint.load_checkpoint(folder / name)
    if not isinstance(progress, dict) or progress.get("fingerprint") != config.fingerprint():
        raise UserError(
            f"{folder}: its checkpoint does not fit its config.json: "
            "it was made with other settings, or by another version of scratchgen"
        )
    return arrays, progress


def load_data(config: RunConfig, folder: Path, data_dir: Path | None = None, resuming: bool = False) -> Dataset:
    """The data of the run in ``folder``, from ``data_dir`` or else from where its ``config.json`` says.

    A notice on stderr if they are other data than it was trained on; UserError if ``resuming``, or if they do not fit.
    """
    recorded = Path(config.data_dir) if config.data_dir else None
    which = PUBLISHED.get(config.data)
    if data_dir is None and recorded and which and missing_files(recorded, which):
        raise UserError(
            f"{folder / 'config.json'} names the data folder {config.data_dir!r}, but {which.title} is not there (any "
            "more); give its folder with --data-dir"
        )
    if config.data not in SOURCES:
        place = (data_dir or recorded or Path(config.data)).absolute()  # not to be taken for a name
        if data_dir is None and not place.exists():
            raise UserError(
                f"{folder / 'config.json'} names the data {str(place)!r}, which are not there (any more); give "
                "their path with --data-dir"
            )
        data = load_dataset(str(place))
    else:
        data = load_dataset(config.data, data_dir or recorded)
    _require_fit(config, data)
    if config.data_digest not in ("", data.digest):
        other = f"{folder} was trained on other data than these: pixels, labels or names differ"
        if resuming:
            raise UserError(f"{other}; give the path of the former with --data-dir")
        print(f"{other}; what follows is of these", file=sys.stderr)
    return data


def _require_fit(config: RunConfig, data: Dataset) -> None:
    """UserError unless the data have images of the shape, and as many classes, as the network takes."""
    pixels, classes = data.train.images.shape[1], len(data.classes)
    if pixels != config.network.input_dim:
        raise UserError(f"{data.name} has images of {pixels} pixels, and the network takes {config.network.input_dim}")
    if data.image_shape != config.image_shape:
        shapes = [f"{height} by {width}" for height, width in (data.image_shape, config.image_shape)]
        raise UserError(f"{data.name} has images of {shapes[0]} pixels, and the run is of images of {shapes[1]}")
    if classes != len(config.classes):
        raise UserError(f"{data.name} has {classes} classes, and the run is of data with {len(config.classes)}")


def _model(config: RunConfig) -> Module:
    try:
        return RECIPES[config.model].build(config)
    except (ValueError, OverflowError) as error:
        raise UserError(f"invalid network: {error}") from None


def _trainer(config: RunConfig, data: Dataset, folder: Path, resume: bool = False) -> Trainer:
    task, seen = prepare(config, data)
    return Trainer(
        task,
        seen,
        folder,
        selection=RECIPES[config.model].selection(config),
        patience=config.patience,
        log=config.log,
        epochs=config.epochs,
        batch_size=config.batch_size,
        seed=config.seed,
        fingerprint=config.fingerprint(),
        resume=resume,
    )


def _train(config: RunConfig, data: Dataset, trainer: Trainer) -> dict[str, Any]:
    recipe, folder = RECIPES[config.model], trainer.folder
    with kernels.use(config.kernels):
        if trainer.progress.epoch < config.epochs:
            begins = f"training on {len(data.train):,} images; kernels that are not compiled yet are compiled first"
            print(begins, flush=True)
        history = trainer.run()
        print(f"measuring on {len(data.test):,} test images", flush=True)
        _, model = load_model(folder)  # what is measured and drawn is the checkpoint
        summary = {
            "model": config.model,
            "config": config.name,
            "data": data.name,
            "pixels": recipe.pixels(config),
            "epochs": len(history),
            **({"best_epoch": trainer.selection.best(history)} if config.patience is not None else {}),
            "seconds": round(history[-1]["seconds"], 1),
            "test": recipe.evaluate(config, model, data),
        }
        checkpoint.write_json(folder / "summary.json", summary)
        recipe.draw(config, model, data, history, folder)
    return summary
