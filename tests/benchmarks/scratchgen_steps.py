"""The engine's training steps: what ``scratchgen train`` repeats."""

from typing import Any

import numpy as np

from scratchgen.data.dataset import Split
from scratchgen.models.aae import AAETask
from scratchgen.models.gan import GANTask
from scratchgen.models.vae import VAETask
from tests.benchmarks.workloads import Contestant, Shared, Workload, engine_model, engine_quantities


def contestant(name: str, workload: Workload, shared: Shared, images: np.ndarray) -> Contestant:
    """The task of a run, on batches drawn at random."""
    rng, task = np.random.default_rng(0), _task(workload, engine_model(workload, shared, np.float32), images)
    labels = np.zeros(len(images), np.int64)

    def step() -> None:
        chosen = rng.integers(len(images), size=workload.batch)
        task.step(images.take(chosen, axis=0), labels[chosen], rng)

    return Contestant(step, lambda: engine_quantities(workload, shared, np.float32))


def _task(workload: Workload, model: Any, images: np.ndarray) -> Any:
    steps_per_epoch, epochs = len(images) // workload.batch, 1
    if workload.model == "vae":
        return VAETask(model, workload.training, steps_per_epoch, epochs)
    if workload.model == "gan":
        return GANTask(model, workload.training, steps_per_epoch, epochs, lambda *_: {})
    nothing = Split(images[:0], np.zeros(0, np.int64))
    return AAETask(model, workload.training, steps_per_epoch, epochs, nothing, lambda *_: {})
