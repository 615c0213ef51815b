"""The engine's training steps: what ``scratchgen train`` repeats, with the kernels of the device that
SCRATCHGEN_BENCHMARK_DEVICE names."""

import os
from typing import Any

import numpy as np

import kernels
from scratchgen.capture import Capture, PendingMetrics
from scratchgen.data.dataset import Split
from scratchgen.random import RandomStream
from scratchgen.tasks.aae import AAETask
from scratchgen.tasks.gan import GANTask
from scratchgen.tasks.rbm import RBMTask
from scratchgen.tasks.task import Task
from scratchgen.tasks.vae import VAETask
from scratchgen.training import batches
from tests.benchmarks.workloads import Contestant, Shared, Workload, engine_model, engine_quantities


def contestant(name: str, workload: Workload, shared: Shared, images: np.ndarray) -> Contestant:
    """A task's steps as the trainer takes them, on batches drawn at random. ValueError if the device has no kernels."""
    kernel_set = os.environ.get("SCRATCHGEN_BENCHMARK_DEVICE", "cpu")
    with kernels.use(kernel_set):
        task = _task(workload, engine_model(workload, shared, np.float32), images)
        data = kernels.active().memory.to_device(images)
    train_step, rng = Capture(task.train_step, *task.modules()), np.random.default_rng(0)
    labels, last = np.zeros(len(images), np.int64), list[PendingMetrics]()

    def step() -> None:
        chosen = rng.integers(len(images), size=workload.batch)
        with kernels.use(kernel_set):
            for x, y in batches(data, labels, chosen, workload.batch):  # one
                last[:] = [train_step(x, y, **task.step_options())]

    def check() -> dict[str, np.ndarray]:
        with kernels.use(kernel_set):
            return engine_quantities(workload, shared, np.float32)

    return Contestant(step, check, lambda: last[0].read())  # which can be read once all steps are done


def _task(workload: Workload, model: Any, images: np.ndarray) -> Task:
    arguments = model, workload.training, RandomStream(0), len(images) // workload.batch, 1
    if workload.model == "vae":
        return VAETask(*arguments)
    if workload.model == "gan":
        return GANTask(*arguments, lambda *_: {})
    if workload.model == "rbm":
        return RBMTask(*arguments)
    return AAETask(*arguments, Split(images[:0], np.zeros(0, np.int64)), lambda *_: {})
