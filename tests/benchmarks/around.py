"""What surrounds a training step: the start of a run, the engine between the kernels, epochs, evaluation, data.

Run by ``python -m tests.benchmarks.around``, it measures each part in processes of its own, prints a table and writes
``around.json``. A part run by itself, ``python -m tests.benchmarks.around --part NAME``, prints one line of JSON.
"""

import argparse
import ctypes
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import date
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

STARTS, ROUNDS, STEPS = 5, 40, 25  # starts of a run; rounds of so many steps of either kind
HALF = 0.5
PR_SET_THP_DISABLE = 41  # of Linux's prctl
Report = dict[str, Any]


# ---- the start of a run ----

# Trains as the command does, up to its first step. Time is that of the system, for the clock starts in another process.
_FIRST_STEP = """
import os, sys, time
began = float(sys.argv[1])
from scratchgen import cli
from scratchgen.models.vae import VAETask
imported, step = time.time(), VAETask.step
def first(*arguments):
    step(*arguments)
    print(imported - began, time.time() - began, flush=True)
    os._exit(0)
VAETask.step = first
sys.exit(cli.main(["train", "vae", *sys.argv[2:]]))
"""


def start_of_a_run() -> Report:
    """Seconds from the command to its first step, and of it to the end of the imports, with kernels cached and not."""
    with tempfile.TemporaryDirectory() as folder:
        cache = os.environ | {"NUMBA_CACHE_DIR": f"{folder}/cache"}
        cold = _first_step(cache, f"{folder}/cold")
        warm = [_first_step(cache, f"{folder}/warm{i}") for i in range(STARTS)]
    imports, first = (statistics.median(column) for column in zip(*warm, strict=True))
    return {"warm_imports_s": imports, "warm_first_step_s": first, "cold_first_step_s": cold[1]}


def _first_step(environment: dict[str, str], out: str, data: str = "auto") -> list[float]:
    command = [sys.executable, "-c", _FIRST_STEP, str(time.time()), "--data", data, "--out", out]
    said = subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout
    return [float(number) for number in said.split()]


# ---- the engine ----


def engine() -> Report:
    """Milliseconds of a VAE's step, 784-400-20 at batch 100, through autodiff and as a bare sequence of its kernels."""
    from tests.benchmarks.kernel_sequence import KernelSequence

    images, config = _data().train.images, _recipe("pytorch-example")
    by_engine, bare = _task(config), KernelSequence(_model(config), config.training.lr, 100)
    batches = [images[start : start + 100] for start in range(0, 100 * STEPS, 100)]
    generators = np.random.default_rng(0), np.random.default_rng(0)
    steps: list[Callable[[np.ndarray], Any]] = [
        lambda x: by_engine.step(x, np.zeros(len(x), np.int64), generators[0]),
        lambda x: bare.step(x, generators[1]),
    ]
    times: list[list[float]] = [[], []]
    for _ in range(ROUNDS + 1):  # in turns; the first one compiles
        for step, taken in zip(steps, times, strict=True):
            start = time.perf_counter()
            for x in batches:
                step(x)
            taken.append(1e3 * (time.perf_counter() - start) / STEPS)
    if by_engine.optimizer.flat.data.tobytes() != bare.optimizer.flat.data.tobytes():
        raise AssertionError("the bare sequence of kernels trains to other parameters")
    found = [statistics.median(taken[1:]) for taken in times]
    return {"engine_ms": found[0], "kernels_ms": found[1], "overhead": found[0] / found[1] - 1}


def allocation() -> Report:
    """Bytes of memory newly mapped in a training step, by the page faults of a hundred, for every workload."""
    from tests.benchmarks.scratchgen_steps import contestant
    from tests.benchmarks.workloads import WORKLOADS, Shared

    images = np.ascontiguousarray(_data().train.images[:2000])
    return {
        name: bytes_mapped(contestant("", workload, Shared.draw(workload, images), images).step)
        for name, workload in WORKLOADS.items()
    }


def bytes_mapped(step: Callable[[], Any], warm_up: int = 10, steps: int = 100) -> float:
    """Newly mapped by one call of ``step``, on average, once it has run a few times."""
    ctypes.CDLL(None).prctl(PR_SET_THP_DISABLE, 1, 0, 0, 0)  # a fault is to map a page, not two million bytes
    for _ in range(warm_up):
        step()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(steps):
        step()
    return (resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before) * resource.getpagesize() / steps


# ---- epochs, evaluation, data ----


def epochs(count: int, share: float = 1.0) -> Report:
    """Seconds of an epoch of the default VAE on a share of the training images, and the process's largest memory."""
    from scratchgen.data.dataset import Split
    from scratchgen.training import Trainer

    data, config = _data(), _recipe("pytorch-example")
    kept = slice(0, round(share * len(data.train)))
    data = replace(data, train=Split(data.train.images[kept], data.train.labels[kept]))
    with tempfile.TemporaryDirectory() as folder:
        options = {"batch_size": config.batch_size, "seed": 0, "fingerprint": ""}
        _task(config).step(data.train.images[:100], data.train.labels[:100], np.random.default_rng(0))  # compiles
        start = time.perf_counter()
        Trainer(_task(config), data, Path(folder), epochs=count, **options).run()
        seconds = time.perf_counter() - start
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return {"images": len(data.train), "s_per_epoch": seconds / count, "peak_MiB": peak}


def evaluation() -> Report:
    """Seconds of L_5000 of 1,000 images, 784-200-200-50, and of PyTorch's for a tenth of them, times ten.

    Both are first checked to give the same bound of two images from the same noise.
    """
    from scratchgen.evaluation.likelihood import importance_nll
    from scratchgen.tensor import Tensor

    images, model = _data().test.images[:1000], _model(_recipe("iwae"))
    importance_nll(model, images[:2], 5000, np.random.default_rng(0))  # compiles
    start = time.perf_counter()
    importance_nll(model, images, 5000, np.random.default_rng(0))
    report = {"scratchgen_s": time.perf_counter() - start}
    if find_spec("torch"):
        from tests.benchmarks.pytorch_bound import importance_bound

        noise = np.random.default_rng(0).standard_normal((5000, 2, 50), np.float32)
        ours = model.importance_bound(Tensor(images[:2]), Tensor(noise)).data
        np.testing.assert_allclose(importance_bound(model, images[:2], noise), ours, rtol=1e-5)
        start = time.perf_counter()
        for image in images[:100]:
            importance_bound(model, image[None])
        report["pytorch_s"] = 10 * (time.perf_counter() - start)
    return report


def strokes() -> Report:
    """Images a second that ``draw_strokes`` draws."""
    from scratchgen.data.strokes import draw_strokes

    draw_strokes(500, np.random.default_rng(0))
    start = time.perf_counter()
    draw_strokes(5000, np.random.default_rng(0))
    return {"images_per_s": 5000 / (time.perf_counter() - start)}


def _data() -> Any:
    from scratchgen.data import load_dataset

    return load_dataset("mnist" if os.environ.get("SCRATCHGEN_DATA") else "strokes")


def _recipe(name: str) -> Any:
    from scratchgen.recipes import RECIPES

    return RECIPES["vae"].configs[name]


def _model(config: Any) -> Any:
    from scratchgen.models.vae import VAE

    return VAE(config.network, np.random.default_rng(0))


def _task(config: Any) -> Any:
    from scratchgen.models.vae import VAETask

    return VAETask(_model(config), config.training, 600, 10)


PARTS: dict[str, Callable[[], Report]] = {
    "start of a run": start_of_a_run,
    "engine": engine,
    "allocation": allocation,
    "one epoch": lambda: epochs(1),
    "ten epochs": lambda: epochs(10),
    "an epoch of half the images": lambda: epochs(1, HALF),
    "evaluation": evaluation,
    "strokes": strokes,
}
ONE_AND_TWO = ("engine", "evaluation")  # parts that are measured on one thread and on two


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.around", description=__doc__.partition("\n")[0])
    parser.add_argument("--part", choices=PARTS)
    parser.add_argument("--out", type=Path, default=Path("benchmarks"))
    options = parser.parse_args()
    if options.part:
        print(json.dumps(PARTS[options.part]()))
        return
    from tests.benchmarks.products import machine
    from tests.benchmarks.steps import environment, versions

    print(machine(), "\n")
    entries = []
    for part in PARTS:
        for threads in (1, 2) if part in ONE_AND_TWO else (2,):
            said = subprocess.run(
                [sys.executable, "-m", "tests.benchmarks.around", "--part", part],
                env=os.environ | environment(threads),
                stdout=subprocess.PIPE,
                text=True,
                check=True,
            ).stdout
            found = json.loads(said.splitlines()[-1])
            entries.append({"part": part, "threads": threads, **found})
            print(f"{part}, {threads} thread{'s' * (threads > 1)}", flush=True)
            for name, value in found.items():
                print(f"    {name:<24}{value:12.4g}", flush=True)
    options.out.mkdir(parents=True, exist_ok=True)
    about = {"machine": machine(), "date": str(date.today()), "versions": versions()}
    (options.out / "around.json").write_text(json.dumps(about | {"entries": entries}, indent=1) + "\n")
    print("wrote", options.out / "around.json")


if __name__ == "__main__":
    main()
