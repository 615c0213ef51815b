"""One contestant in a process of its own, for two pools of threads in one process would disturb each other.

``python -m tests.benchmarks.worker CONTESTANT WORKLOAD FOLDER`` reads a line of JSON and answers by one, in turns:

    {"check": PATH}       computes the losses and gradients at the shared parameters and saves them as PATH (.npz)
    {"time": SECONDS}     trains for about so long; answers {"milliseconds": of a step}
    {"peak": true}        answers {"mib": the most memory that the process has held}

Between two lines it is blocked and takes no time from others.
"""

import json
import os
import sys
import time
from importlib import import_module
from pathlib import Path

import numpy as np

from tests.benchmarks.memory import peak_memory
from tests.benchmarks.workloads import WORKLOADS, Contestant, Shared

LEAST_STEPS, WARM_UP = 5, 2

CONTESTANTS = {  # the module that builds it, and the package that it needs
    "scratchgen": ("scratchgen_steps", "scratchgen"),
    "PyTorch eager": ("pytorch_steps", "torch"),
    "PyTorch eager, fused Adam": ("pytorch_steps", "torch"),
    "torch.compile": ("pytorch_steps", "torch"),
    "JAX jit": ("jax_steps", "jax"),
    "products alone": ("products_alone", "numpy"),
}
ON_A_GPU = {  # what stands on the device that SCRATCHGEN_BENCHMARK_DEVICE names
    name: CONTESTANTS[name] for name in ("scratchgen", "PyTorch eager", "PyTorch eager, fused Adam", "torch.compile")
} | {"torch.compile, CUDA graphs": ("pytorch_steps", "torch")}


def build(name: str, workload: str, folder: Path) -> Contestant:
    """The contestant, on the shared parameters, inputs and images that lie in ``folder``."""
    module = import_module(f"tests.benchmarks.{(CONTESTANTS | ON_A_GPU)[name][0]}")
    shared = Shared.load(folder / f"{workload}.npz")
    return module.contestant(name, WORKLOADS[workload], shared, np.load(folder / "images.npy"))


def milliseconds(contestant: Contestant, seconds: float) -> float:
    """Of a step, by the mean over about ``seconds``, and ``LEAST_STEPS`` at least, after ``WARM_UP`` others."""

    def run(steps: int) -> float:
        start = time.perf_counter()
        for _ in range(steps):
            contestant.step()
        contestant.wait()
        return (time.perf_counter() - start) / steps

    # The number of steps is fixed beforehand: JAX returns from a step before it is done.
    return 1e3 * run(max(LEAST_STEPS, round(seconds / run(WARM_UP))))


def main() -> None:
    name, workload, folder = sys.argv[1:]
    with os.fdopen(os.dup(1), "w", buffering=1) as answers:
        os.dup2(2, 1)  # what a library prints is no answer
        contestant = build(name, workload, Path(folder))
        for line in sys.stdin:
            command = json.loads(line)
            if "check" in command:
                np.savez(command["check"], **contestant.check())
                answer = {}
            elif "peak" in command:
                answer = {"mib": peak_memory() / 2**20}
            else:
                answer = {"milliseconds": milliseconds(contestant, command["time"])}
            print(json.dumps(answer), file=answers)


if __name__ == "__main__":
    main()
