"""What ``whole.py`` measures, each call in a process of its own.

``python -m tests.benchmarks.parts NAME FOLDER ARGUMENT...`` calls a function of this file and answers by a last line of
JSON. In the folder lie ``train.npy`` and ``test.npy``, images (n, D).
"""

import json
import os
import resource
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from scratchgen.capture import Capture
from scratchgen.data.dataset import Dataset, Split
from scratchgen.data.strokes import draw_strokes
from scratchgen.evaluation.likelihood import importance_nll
from scratchgen.models.vae import VAE
from scratchgen.random import RandomStream
from scratchgen.recipes import RECIPES
from scratchgen.tasks.vae import VAETask
from scratchgen.tensor import Tensor, no_grad
from scratchgen.training import Trainer
from tests.benchmarks.memory import peak_memory
from tests.benchmarks.scratchgen_steps import contestant
from tests.benchmarks.step_by_hand import StepByHand
from tests.benchmarks.workloads import WORKLOADS, Disagreement, Shared, Workload, engine_model

Numbers = dict[str, Any]
ROUNDS, STEPS = 60, 20  # of the overhead: rounds, and steps of either kind in each
WARM_UP, COUNTED = 30, 100  # steps, of the memory newly mapped
DRAWN = 5_000  # strokes a round
IW_SAMPLES, IW_IMAGES = 5_000, 1_000
CHECKED = (200, 8)  # samples and images on which the bounds are compared


def epochs(folder: Path, count: int, share: float) -> Numbers:
    """Seconds an epoch, of ``count`` on this share of the images, with its test and its checkpoint; the peak memory."""
    data = Dataset("benchmark", *(_split(folder / f"{name}.npy", share) for name in ("train", "test")))
    _train(Dataset("few", *(Split(s.images[:1000], s.labels[:1000]) for s in (data.train, data.test))), 1)
    start = time.perf_counter()
    _train(data, count)
    seconds = (time.perf_counter() - start) / count
    return {"seconds": seconds, "peak_mib": peak_memory() / 2**20}


def _split(path: Path, share: float) -> Split:
    images = np.load(path)
    images = images[: round(share * len(images))]
    return Split(images, np.zeros(len(images), np.int64))


def _train(data: Dataset, count: int) -> None:
    recipe, config = RECIPES["vae"], RECIPES["vae"].configs["pytorch-example"]
    task = recipe.task(config, recipe.build(config), data)
    with tempfile.TemporaryDirectory() as run:
        Trainer(
            task, data, Path(run), epochs=count, batch_size=config.batch_size, seed=0, fingerprint="benchmark"
        ).run()


def bound_values(folder: Path, name: str) -> Numbers:
    """L_K of a few images, each in nats, from fixed parameters and noise."""
    (samples, count), rng, model, images = CHECKED, np.random.default_rng(1), _iwae(), _binarized(folder)
    x, noise = images[:count], rng.standard_normal((samples, count, model.config.latent_dim), np.float32)
    if name == "PyTorch":
        import torch

        return {"bound": _in_pytorch(model).importance_bound(torch.tensor(x), torch.tensor(noise)).tolist()}
    with no_grad():
        return {"bound": model.importance_bound(Tensor(x), Tensor(noise)).data.tolist()}


def bound_seconds(folder: Path, name: str) -> Numbers:
    """Seconds of L_5000 over 1,000 images, after two more images."""
    model, images, rng = _iwae(), _binarized(folder), np.random.default_rng(1)
    pytorch = _in_pytorch(model) if name == "PyTorch" else None

    def evaluate(x: np.ndarray) -> float:
        return pytorch.importance_nll(x, IW_SAMPLES) if pytorch else importance_nll(model, x, IW_SAMPLES, rng)

    evaluate(images[-2:])
    start = time.perf_counter()
    evaluate(images[:IW_IMAGES])
    return {"seconds": time.perf_counter() - start}


def _iwae() -> VAE:
    return VAE(RECIPES["vae"].configs["iwae"].network, np.random.default_rng(0))


def _in_pytorch(model: VAE) -> Any:
    from tests.benchmarks import bound_in_pytorch

    return bound_in_pytorch.VAE(model.config, model.state_dict())


def _binarized(folder: Path) -> np.ndarray:
    return RandomStream(0).bernoulli(Tensor(np.load(folder / "test.npy")[: IW_IMAGES + 2])).data


def strokes(folder: Path) -> Numbers:
    """Images a second, the median of a few rounds."""
    seconds = [_seconds(lambda: draw_strokes(DRAWN, np.random.default_rng(0))) for _ in range(7)]
    return {"images_a_second": DRAWN / statistics.median(seconds)}


def overhead(folder: Path) -> Numbers:
    """Milliseconds of a step by the engine and by hand, medians over rounds in which they take turns."""
    workload, images = WORKLOADS["vae-400"], np.load(folder / "train.npy")[: 100 * STEPS]
    by_engine, by_hand, agree = step_two_ways(workload, images)
    batches = list(images.reshape(STEPS, 100, -1))
    agree(batches[:5])

    def milliseconds(step: Callable[[np.ndarray], Any]) -> float:
        return 1e3 / STEPS * _seconds(lambda: [step(x) for x in batches])

    rounds = [(milliseconds(by_engine), milliseconds(by_hand)) for _ in range(ROUNDS)]
    return dict(zip(("engine_ms", "by_hand_ms"), map(statistics.median, zip(*rounds, strict=True)), strict=True))


def step_two_ways(workload: Workload, images: np.ndarray) -> tuple[Callable, Callable, Callable]:
    """A VAE's step by the engine and by hand, functions of a batch x (b, D), and one that has both train on batches.

    The latter raises Disagreement unless the parameters are then equal, to the last bit.
    """
    shared = Shared.draw(workload, images)
    task = VAETask(engine_model(workload, shared, np.float32), workload.training, RandomStream(2), 1, 1)
    train_step = Capture(task.train_step, *task.modules())
    other = StepByHand(workload.network, shared.parameters, workload.batch, workload.training.lr)
    rng, labels = np.random.default_rng(2), np.zeros(workload.batch, np.int64)

    def by_engine(x: np.ndarray) -> Any:
        return train_step(Tensor.wrap(x), labels).read()

    def by_hand(x: np.ndarray) -> Any:
        return other.step(x, rng)

    def agree(batches: list[np.ndarray]) -> None:
        for x in batches:
            if by_engine(x) != by_hand(x) or not np.array_equal(task.optimizer.flat.data, other.param):
                raise Disagreement("the step by hand trains otherwise than the engine's")

    return by_engine, by_hand, agree


def newly_mapped(folder: Path, workload: str) -> Numbers:
    """Bytes a training step, once it has been taken some times."""
    images = np.load(folder / "train.npy")[:10_000]
    step = contestant("scratchgen", WORKLOADS[workload], Shared.draw(WORKLOADS[workload], images), images).step
    for _ in range(WARM_UP):
        step()
    return {"bytes": mapped_by(step, COUNTED)}


def mapped_by(call: Callable[[], Any], times: int) -> float:
    """Bytes that a call has the system map anew, by its page faults.

    Large pages count as small ones: NumPy must not ask for them (NUMPY_MADVISE_HUGEPAGE=0).
    """
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(times):
        call()
    faults = resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
    return faults * os.sysconf("SC_PAGE_SIZE") / times


def _seconds(call: Callable[[], Any]) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def main() -> None:
    name, folder, *arguments = sys.argv[1:]
    part = {f.__name__: f for f in (epochs, bound_values, bound_seconds, strokes, overhead, newly_mapped)}[name]
    print(json.dumps(part(Path(folder), *map(json.loads, arguments))))


if __name__ == "__main__":
    main()
