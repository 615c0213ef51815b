"""Time the kernels of the set ``cuda`` on a GPU: matrix products, what memory limits, training steps, whole epochs.

Run by ``python -m tests.benchmarks.gpu``. Products stand beside cuBLAS, through PyTorch and without TF32; kernels that
memory limits beside a copy from device to device; training steps beside PyTorch, eager, compiled, and compiled into
CUDA graphs; epochs of a VAE alone. Nothing is timed beside another before its result has been compared. CUDA events
around as many calls as fill a few milliseconds, so that a launch from Python hides behind the kernels before it
wherever these take longer; medians. Steps and epochs are timed by the clock.
"""

import argparse
import os
import sys
import time
from collections.abc import Callable, Iterator
from datetime import date
from functools import partial
from importlib.metadata import version
from importlib.util import find_spec
from typing import Any, NamedTuple

import numpy as np

import kernels
from kernels import reference
from kernels.cuda import dense, elementwise, losses, optimizers, products, random, reductions
from kernels.cuda.device import cuda
from kernels.cuda.memory import to_device, to_host
from scratchgen.capture import Capture, PendingMetrics
from scratchgen.models.vae import VAE, VAEConfig
from scratchgen.random import RandomStream
from scratchgen.tasks.vae import VAETask, VAETraining
from scratchgen.training import UNREAD, batches

PARTS = ("products", "bandwidth", "steps", "epochs")
ROUNDS, ROUND_MS = 11, 20.0
SQUARES = [(n, n, n) for n in (512, 1024, 2048, 4096, 8192)]
LAYERS = [  # (m, k, n) of a batch of 128: forward, and the gradients of the weights and the input
    *[(128, 784, 400), (784, 128, 400), (128, 400, 784), (128, 400, 20), (128, 20, 400)],
    *[(128, 512, 1024), (128, 1024, 784), (128, 1000, 1000), (1000, 128, 1000)],
]
ROWS, COLUMNS = 1 << 15, 1 << 10  # 128 MiB in float32: more than any cache


def milliseconds(run: Callable[[], Any]) -> float:
    """Of a call, by the median of the rounds."""
    start, end = cuda.event(), cuda.event()

    def timed(calls: int) -> float:
        start.record()
        for _ in range(calls):
            run()
        end.record()
        end.synchronize()
        return start.elapsed_time(end) / calls

    timed(2)  # compiles
    calls = int(np.clip(ROUND_MS / max(timed(3), 1e-3), 1, 1000))
    return float(np.median([timed(calls) for _ in range(ROUNDS)]))


def torch_or_none() -> Any:
    """PyTorch without TF32, if it is installed and has a GPU."""
    if find_spec("torch") is None:
        return None
    import torch

    torch.backends.cuda.matmul.allow_tf32 = False
    return torch if torch.cuda.is_available() else None


# ---- products ----------------------------------------------------------------------------------------------------


def product_speeds(m: int, k: int, n: int, rungs: bool) -> dict[str, float]:
    """TFLOP/s of a float32 product by name: the rungs of the ladder, or what trains alone, and cuBLAS."""
    rng = np.random.default_rng(0)
    a, b = rng.standard_normal((m, k), np.float32), rng.standard_normal((k, n), np.float32)
    device_a, device_b = to_device(a), to_device(b)
    chosen = rng.integers(m, size=64)  # rows that are compared: all of a large product would take the host minutes
    expected, scale = a[chosen].astype(np.float64) @ b, np.abs(a[chosen]).astype(np.float64) @ np.abs(b)
    runs: dict[str, tuple[Callable[[], Any], Callable[[], np.ndarray]]] = {}  # how to run it, how to see the result
    for product in (*(products.LADDER if rungs else ()), products.matmul):
        out = to_device(np.full((m, n), np.nan, np.float32))
        runs[product.__name__.removeprefix("product_")] = (
            partial(product, out, device_a, device_b),
            partial(to_host, out),
        )
    if torch := torch_or_none():
        x, y, z = (torch.from_numpy(array).cuda() for array in (a, b, np.full((m, n), np.nan, np.float32)))
        runs["cuBLAS"] = partial(torch.mm, x, y, out=z), lambda: z.cpu().numpy()
    speeds = {}
    for name, (run, result) in runs.items():
        run()
        if not (np.abs(result()[chosen] - expected) <= 1e-6 * scale).all():  # TF32 would be off by 1e-5
            sys.exit(f"{name} is not timed, for its result is wrong at {(m, k, n)}")
        speeds[name] = 2e-9 * m * k * n / milliseconds(run)
    return speeds


def product_table(shapes: list[tuple[int, int, int]], rungs: bool) -> Iterator[str]:
    """A line a shape: TFLOP/s, and what trains as a fraction of cuBLAS."""
    for number, shape in enumerate(shapes):
        speeds = product_speeds(*shape, rungs)
        if not number:
            yield (f"{'(m, k, n)':>20}" + "".join(f"{name:>11}" for name in speeds) + "   / cuBLAS")
        part = f"{speeds['matmul'] / speeds['cuBLAS']:.2f}" if "cuBLAS" in speeds else "-"
        yield f"{shape!s:>20}" + "".join(f"{speed:11.3f}" for speed in speeds.values()) + f"{part:>11}"


# ---- what memory limits ------------------------------------------------------------------------------------------


class Bound(NamedTuple):
    """A kernel, its arguments (arrays by shape, the first of them written), and the numbers moved an element."""

    module: Any
    name: str
    arguments: tuple[Any, ...]
    moved: float


def bounds(rows: int, columns: int) -> list[Bound]:
    """The kernels that memory limits, for matrices of (rows, columns)."""
    matrix, row, flat = (rows, columns), (columns,), (rows * columns,)
    return [
        Bound(elementwise, "sigmoid", (flat, flat), 2),
        Bound(elementwise, "reparameterize", (flat, flat, flat, flat), 4),
        Bound(losses, "bce_with_logits", ((rows,), matrix, matrix), 2),
        Bound(losses, "bce_with_logits_backward", (matrix, (rows,), matrix, matrix), 3),
        Bound(dense, "dense_activation_backward", (matrix, row, matrix, matrix, "relu"), 3),
        Bound(reductions, "sum_axis", ((1, columns), (1, rows, columns)), 1),
        Bound(reductions, "sum_squares", ((1,), flat), 1),
        Bound(optimizers, "adam_step", (flat, flat, flat, flat, (2,), np.ones(2), 0.9, 0.999, 1e-8), 7),
        Bound(random, "uniform", (flat, 5), 1),
        Bound(random, "normal", (flat, 5), 1),
    ]


def bandwidth_table(rows: int, columns: int) -> Iterator[str]:
    """A line a kernel: GB/s, and as a fraction of a copy's."""
    rng, nbytes = np.random.default_rng(0), 4 * rows * columns
    x, y = (to_device(np.zeros((rows, columns), np.float32)) for _ in range(2))
    copy = 2e-6 * nbytes / milliseconds(partial(y.copy_to_device, x))
    yield f"{'copy':>28}{copy:>9.0f} GB/s"
    for module, name, arguments, moved in bounds(rows, columns):
        host = [rng.random(a, np.float32) if isinstance(a, tuple) else a for a in arguments]
        device = [to_device(a.copy()) if isinstance(a, np.ndarray) else a for a in host]
        getattr(module, name)(*device)
        getattr(getattr(reference, module.__name__.rpartition(".")[2]), name)(*host)
        if not np.allclose(to_host(device[0]), host[0], rtol=1e-4, atol=1e-5):
            sys.exit(f"{name} is not timed, for its result is wrong")
        speed = 1e-6 * moved * nbytes / milliseconds(partial(getattr(module, name), *device))
        yield f"{name:>28}{speed:>9.0f} GB/s{speed / copy:>7.2f}"


# ---- training steps ----------------------------------------------------------------------------------------------


def step_table(workloads: list[str], rounds: int) -> Iterator[str]:
    """Milliseconds a step of every contestant, by the clock until the GPU is done, all checked first."""
    from tests.benchmarks.steps import measure
    from tests.benchmarks.worker import ON_A_GPU
    from tests.benchmarks.workloads import WORKLOADS

    os.environ["SCRATCHGEN_BENCHMARK_DEVICE"] = "cuda"  # for the contestants' processes
    images = np.random.default_rng(0).random((10_000, 784), np.float32)
    names = [name for name, (_, package) in ON_A_GPU.items() if find_spec(package)]
    for workload in workloads:
        yield WORKLOADS[workload].title
        for entry in measure(workload, os.cpu_count() or 1, names, images, rounds):
            yield f"{entry['contestant']:>28}{entry['median']:9.3f} ms  ({entry['low']:.3f} - {entry['high']:.3f})"


# ---- epochs ------------------------------------------------------------------------------------------------------


def epoch_table(images: np.ndarray, network: VAEConfig, batch_size: int, epochs: int) -> Iterator[str]:
    """A line an epoch of a VAE's training: seconds, and the mean loss. The first compiles, captures and compares."""
    rng, steps = np.random.default_rng(0), -(-len(images) // batch_size)
    with kernels.use("cuda"):
        task = VAETask(VAE(network, rng), VAETraining(), RandomStream(rng), steps, epochs)
        train_step = Capture(task.train_step, *task.modules())
        data, labels = to_device(images), np.zeros(len(images), np.int64)
        for epoch in range(epochs):
            start = time.perf_counter()
            coming = batches(data, labels, rng.permutation(len(images)), batch_size)
            losses, unread = [], list[PendingMetrics]()
            for x, y in coming:
                unread.append(train_step(x, y))
                if len(unread) == UNREAD or len(losses) + len(unread) == steps:  # as a trainer does
                    losses += [metrics.read()["neg_elbo"] for metrics in unread]
                    unread.clear()
            seconds = time.perf_counter() - start
            pace = f"{seconds:8.3f} s, {1e3 * seconds / steps:.3f} ms a step"
            yield f"epoch {epoch + 1}: {pace}, loss {np.mean(losses):.2f}"


def machine() -> str:
    """The GPU, the versions and the date, on one line."""
    gpu = cuda.get_current_device()
    name = gpu.name.decode() if isinstance(gpu.name, bytes) else gpu.name
    found = [f"{p} {version(p)}" for p in ("numba-cuda", "numba", "numpy", "torch") if find_spec(p.replace("-", "_"))]
    if torch := torch_or_none():
        found.append(f"CUDA {torch.version.cuda} in PyTorch")
    return (
        f"{name}, compute capability {'.'.join(map(str, gpu.compute_capability))}; {', '.join(found)}; {date.today()}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.gpu", description=__doc__.partition("\n")[0])
    parser.add_argument("--parts", nargs="+", choices=PARTS, metavar="PART")
    parser.add_argument("--rounds", type=int, default=15)
    options = parser.parse_args()
    parts = options.parts or PARTS
    print(machine())
    if torch_or_none() is None:
        print("without rivals, for there is no PyTorch that has a GPU")
    if "products" in parts:
        print("\nfloat32 products, TFLOP/s")
        print_lines(product_table(SQUARES, rungs=True))
        print("\nfloat32 products of layers, TFLOP/s")
        print_lines(product_table(LAYERS, rungs=False))
    if "bandwidth" in parts:
        print("\nkernels that memory limits, and as a fraction of a copy")
        print_lines(bandwidth_table(ROWS, COLUMNS))
    if "steps" in parts:
        print(f"\ntraining steps, float32, medians of {options.rounds} rounds and quartiles")
        print_lines(step_table(["vae-400", "gan", "aae"], options.rounds))
    if "epochs" in parts:
        print("\nepochs of the VAE 784-400-20, batches of 128 of 60,000 images")
        images = np.random.default_rng(0).random((60_000, 784), np.float32)
        print_lines(epoch_table(images, VAEConfig(), 128, 5))


def print_lines(lines: Iterator[str]) -> None:
    for line in lines:
        print(line, flush=True)


if __name__ == "__main__":
    main()
