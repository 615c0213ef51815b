"""Where the time of a training step goes: into which kernels, how close to the machine's limits, and between kernels.

The steps are those of training: the same task on the same batches. In each round some steps run unchanged, for the time
of a step, then as many with a kernel set that has a timer around each kernel.
"""

import math
import os
import platform
import statistics
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import numba
import numpy as np

import kernels
from kernels.cpu.optimizers import average_step
from kernels.cpu.products import product_tiled
from scratchgen.capture import Capture
from scratchgen.data import Dataset
from scratchgen.random import stream
from scratchgen.recipes import RunConfig
from scratchgen.runs import versions
from scratchgen.tasks.task import Task
from scratchgen.tensor import Tensor
from scratchgen.training import NotFinite, batches, require_finite

WARM_UP, ROUND = 20, 10  # steps of each kind: before the first round, while kernels compile; in a round
HELD_UP = 1.25  # times the median: a slower round shared its core and is left out
SIDE, LARGE = 1024, 1 << 25  # of the square matrices, and size of the float32 arrays, for measuring the ceilings
# The kernels that are matrix products, and the axis of their second argument that is summed over.
PRODUCTS = {"dense.matmul": -1, "dense.matmul_nt": -1, "dense.matmul_tn": -2, "dense.dense_forward": -1}
# The kernels that are convolutions, in either direction: which arguments are its output images and its weights.
CONVOLUTIONS = {"conv.conv2d": (0, 2), "conv.conv2d_input": (1, 2), "conv.conv2d_weight": (2, 0)}


class Call(NamedTuple):
    """A kernel call. ``flops`` are counted for matrix products and convolutions only."""

    kernel: str
    nanoseconds: int
    flops: int
    nbytes: int


class Round(NamedTuple):
    """``steps`` steps without timers and as many with them, the seconds of both, and the kernel calls of the latter."""

    steps: int
    plain: float
    clocked: float
    calls: list[Call]


def timed(kernel_set: ModuleType, calls: list[Call]) -> ModuleType:
    """The same kernels, which append each call to ``calls``, under a name such as ``dense.matmul``.

    ``nbytes`` is the size of all array arguments, each counted once whether it is read, written or both. ``flops`` is
    2 m k n for a product of (m, k) and (k, n), and 2 b p q k l i o for a convolution with weights (k, l, i, o) to
    images (b, p, q, o) and for its gradients, including terms that are zero. Nested calls count for the outer kernel.
    """
    return kernels.wrapped(kernel_set, lambda name, kernel: _timed(name, kernel, calls))


def _timed(name: str, kernel: Callable[..., None], calls: list[Call]) -> Callable[..., None]:
    def call(*arguments: Any) -> None:
        start = time.perf_counter_ns()
        kernel(*arguments)
        nanoseconds = time.perf_counter_ns() - start
        arrays = [x for x in arguments if isinstance(x, np.ndarray)]
        calls.append(Call(name, nanoseconds, _flops(name, arrays), sum([x.nbytes for x in arrays])))

    return call


def _flops(name: str, arrays: list[np.ndarray]) -> int:
    if name in PRODUCTS:
        return 2 * arrays[0].size * arrays[1].shape[PRODUCTS[name]]
    if name in CONVOLUTIONS:
        images, weights = (arrays[place] for place in CONVOLUTIONS[name])
        return 2 * images.size * math.prod(weights.shape[:3])
    return 0


def measure(config: RunConfig, task: Task, data: Dataset, steps: int) -> dict[str, Any]:
    """Take ``steps`` training steps with timers and as many without; returns a JSON-serialisable report.

    ``task`` and ``data`` are those of ``runs.prepare``. Calls and ms are means over the steps that count, ``share`` is
    that of a step without timers, and rates are in 10^9 per second. NotFinite if a metric is not finite.
    """
    coming, step = _endless_batches(config, data), Capture(task.train_step, *task.modules())

    def take(count: int, kernel_set: str | ModuleType) -> float:
        """The seconds of ``count`` steps, their batches included."""
        start = time.perf_counter()
        with kernels.use(kernel_set), np.errstate(all="ignore"):  # as in training
            for x, labels in islice(coming, count):
                require_finite(step(x, labels, **task.step_options()).read())
        return time.perf_counter() - start

    rounds, calls = [], list[Call]()
    with_clocks = timed(kernels.find(config.kernels), calls)
    try:
        for kernel_set in (config.kernels, with_clocks):
            take(WARM_UP, kernel_set)
        for done in range(0, steps, ROUND):  # alternating, so that a change of the clock rate affects both kinds
            count = min(ROUND, steps - done)
            plain = take(count, config.kernels)
            calls.clear()
            rounds.append(Round(count, plain, take(count, with_clocks), list(calls)))
    except NotFinite as error:
        raise NotFinite(f"training stopped: {error}; try a lower learning rate") from None
    return {
        **{name: getattr(config, name) for name in ("model", "name", "data", "batch_size", "kernels")},
        "processor": processor(),
        "cores": os.cpu_count(),
        "numba_threads": numba.get_num_threads(),
        "versions": versions(),
        "ceilings": ceilings(),
        "steps": steps,
        **summarize(rounds),
    }


def _endless_batches(config: RunConfig, data: Dataset) -> Iterator[tuple[Tensor, np.ndarray]]:
    """The batches of training, epoch after epoch."""
    shuffle, images = stream(config.seed, "shuffle"), kernels.active().memory.to_device(data.train.images)
    while True:
        yield from batches(images, data.train.labels, shuffle.permutation(len(images)), config.batch_size)


def summarize(rounds: list[Round]) -> dict[str, Any]:
    """The means per step and per kernel, without the rounds in which the machine was busy."""
    pace = [(r.plain + r.clocked) / r.steps for r in rounds]
    kept = [r for r, seconds in zip(rounds, pace, strict=True) if seconds <= HELD_UP * statistics.median(pace)]
    steps = sum(r.steps for r in kept)
    plain, clocked = 1e3 * sum(r.plain for r in kept) / steps, 1e3 * sum(r.clocked for r in kept) / steps
    by_kernel: dict[str, list[Call]] = defaultdict(list)
    for call in (call for r in kept for call in r.calls):
        by_kernel[call.kernel].append(call)
    rows = []
    for kernel, calls in by_kernel.items():
        nanoseconds, flops, nbytes = (sum(column) for column in list(zip(*calls, strict=True))[1:])
        ms = nanoseconds / steps / 1e6
        gflops = flops / nanoseconds if kernel in PRODUCTS or kernel in CONVOLUTIONS else None
        row = {"kernel": kernel, "calls": len(calls) / steps, "ms": ms, "share": ms / plain}
        rows.append({**row, "gflops": gflops, "gbytes": nbytes / nanoseconds})
    in_kernels = sum(row["ms"] for row in rows)
    return {
        "steps_counted": steps,
        "step_ms": plain,
        "step_with_clocks_ms": clocked,
        "kernels_ms": in_kernels,
        "between_ms": plain - in_kernels,
        "timings": sorted(rows, key=lambda row: -row["ms"]),
    }


def ceilings() -> dict[str, float]:
    """The machine's limits, each the best of a few measurements, in 10^9 per second.

    Operations of a large float32 product, and bytes of arrays larger than the caches. NumPy's product uses the threads
    of its BLAS, its copy one; ``product_tiled`` and the triad x = a x + b y use all of Numba's.
    """
    a, b, out = (np.ones((SIDE, SIDE), np.float32) for _ in range(3))
    x, y = (np.ones(LARGE, np.float32) for _ in range(2))
    return {
        "gflops_blas": 2 * SIDE**3 / _fastest(np.matmul, a, b, out),
        "gflops_tiled": 2 * SIDE**3 / _fastest(product_tiled, out, a, b),
        "gbytes_copy": 2 * x.nbytes / _fastest(np.copyto, x, y),
        "gbytes_triad": 3 * x.nbytes / _fastest(average_step, x, y, np.full(1, 0.5, x.dtype)),
    }


def _fastest(function: Callable[..., Any], *arguments: Any) -> int:
    """Nanoseconds of the fastest of a few calls, after one that may compile."""
    times = []
    for _ in range(8):
        start = time.perf_counter_ns()
        function(*arguments)
        times.append(time.perf_counter_ns() - start)
    return min(times[1:])


def processor() -> str:
    """The processor's name, as far as the system tells."""
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    names = [line.partition(": ")[2] for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def table(report: dict[str, Any]) -> str:
    """The report of ``measure`` as text."""
    top, step, left_out = report["ceilings"], report["step_ms"], report["steps"] - report["steps_counted"]
    flops, nbytes = max(top["gflops_blas"], top["gflops_tiled"]), max(top["gbytes_copy"], top["gbytes_triad"])
    lines = [
        f"{report['model']} {report['name']} on {report['data']}, batches of {report['batch_size']}, kernels "
        f"{report['kernels']}: means over {report['steps_counted']} steps"
        + f" ({left_out} left out: the machine was busy)"
        * (left_out > 0),
        f"{report['processor']}, {report['cores']} cores, Numba threads: {report['numba_threads']}; "
        + ", ".join(f"{name} {number}" for name, number in report["versions"].items()),
        f"ceilings: {flops:5.1f} GFLOP/s, of a product of two {SIDE} x {SIDE} matrices "
        f"(NumPy's BLAS {top['gflops_blas']:.1f}, product_tiled {top['gflops_tiled']:.1f})",
        f"          {nbytes:5.1f} GB/s, of arrays of {4 * LARGE >> 20} MiB "
        f"(copy {top['gbytes_copy']:.1f}, triad {top['gbytes_triad']:.1f})",
        "",
        f"{'kernel':<38}{'calls/step':>10}{'ms/step':>9}{'share':>8}"
        f"{'GFLOP/s':>10}{'of ceiling':>12}{'GB/s':>8}{'of ceiling':>12}",
    ]
    for row in report["timings"]:
        done, rate = f"{'-':>10}{'-':>12}", row["gflops"]
        if rate is not None:
            done = f"{rate:10.1f}{rate / flops:12.0%}"
        moved = f"{row['gbytes']:8.1f}{row['gbytes'] / nbytes:12.0%}"
        lines.append(f"{row['kernel']:<38}{row['calls']:10.4g}{row['ms']:9.3f}{row['share']:8.1%}{done}{moved}")
    lines.append("")
    for name, ms in (
        ("a step", step),
        ("all kernels", report["kernels_ms"]),
        ("between the kernels (Python, allocation, random numbers, data)", report["between_ms"]),
    ):
        lines.append(f"{name:<62}{ms:9.3f} ms{ms / step:8.1%}")
    lines += [
        f"{'the timers around the kernels, not included above':<62}{report['step_with_clocks_ms'] - step:9.3f} ms",
        "",
        "The last two lines are differences of step times: on a busy machine only their sum is reliable.",
        "GFLOP/s: 2 m k n operations per product, 2 b p q k l i o per convolution, the zeros of its padding included.",
        "GB/s: each array argument counted once;",
        "arrays in a cache may exceed the ceiling, which is that of main memory.",
    ]
    if report["kernels"] == "cpu":
        lines.append("Products skip zero terms, which are counted all the same: they may exceed their ceiling.")
    return "\n".join(lines)
