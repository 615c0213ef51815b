"""The engine's training steps: what ``scratchgen train`` repeats, with the kernels of the device that
SCRATCHGEN_BENCHMARK_DEVICE names."""

import os
from typing import Any

import numpy as np

import kernels
from scratchgen.data.dataset import Split
from scratchgen.models.aae import AAETask
from scratchgen.models.gan import GANTask
from scratchgen.models.vae import VAETask
from scratchgen.training import Reading
from tests.benchmarks.workloads import Contestant, Shared, Workload, engine_model, engine_quantities


def contestant(name: str, workload: Workload, shared: Shared, images: np.ndarray) -> Contestant:
    """The task of a run, on batches drawn at random. ValueError if there are no kernels for the device."""
    kernel_set = os.environ.get("SCRATCHGEN_BENCHMARK_DEVICE", "cpu")
    with kernels.use(kernel_set):
        rng, task = np.random.default_rng(0), _task(workload, engine_model(workload, shared, np.float32), images)
        memory = kernels.active().memory
        data = memory.to_device(images)
    labels, reading = np.zeros(len(images), np.int64), dict[str, Reading]()

    def step() -> None:
        chosen = rng.integers(len(images), size=workload.batch)
        with kernels.use(kernel_set):
            reading["last"] = task.step(memory.rows(data, memory.to_device(chosen)), labels[chosen], rng)

    def check() -> dict[str, np.ndarray]:
        with kernels.use(kernel_set):
            return engine_quantities(workload, shared, np.float32)

    return Contestant(step, check, lambda: reading["last"]())  # which can be read once all steps are done


def _task(workload: Workload, model: Any, images: np.ndarray) -> Any:
    steps_per_epoch, epochs = len(images) // workload.batch, 1
    if workload.model == "vae":
        return VAETask(model, workload.training, steps_per_epoch, epochs)
    if workload.model == "gan":
        return GANTask(model, workload.training, steps_per_epoch, epochs, lambda *_: {})
    nothing = Split(images[:0], np.zeros(0, np.int64))
    return AAETask(model, workload.training, steps_per_epoch, epochs, nothing, lambda *_: {})
