"""Time the ladder of convolutions, and the kernels of training, against a matrix product, on one thread.

Run by ``python -m tests.benchmarks.convolutions``, it prints GFLOP/s (2 b p q k l i o operations over the median time
of a call) and, below, the fraction of NumPy's product of as many multiply-adds: that of windows which are spread out
already. PyTorch, if it is installed, has images channels first and channels last. The contestants take turns within
every round, so a change of the clock or a busy neighbour falls on all of them.
"""

import os

from tests.benchmarks.machine import let_libraries_choose, machine

if __name__ == "__main__":  # One thread against one thread. All read this once, when they are imported.
    os.environ["OPENBLAS_NUM_THREADS"] = os.environ["NUMBA_NUM_THREADS"] = os.environ["OMP_NUM_THREADS"] = "1"
    let_libraries_choose()

import time
from collections.abc import Callable
from importlib.util import find_spec
from typing import Any

import numpy as np

from kernels import reference
from kernels.cpu import conv
from kernels.cpu.convolutions import LADDER
from tests.benchmarks.workloads import RTOL

ROUNDS = 11
STRIDE, PADDING = (2, 2), (1, 1)
SHAPES = [  # of images (b, h, w, i) and weights (k, l, i, o); transposed convolutions are these in the other direction
    ((100, 28, 28, 1), (4, 4, 1, 32)),  # the workload `vae-conv`
    ((100, 14, 14, 32), (4, 4, 32, 64)),
    ((64, 28, 28, 1), (4, 4, 1, 64)),  # the workload `dcgan`
    ((64, 14, 14, 64), (4, 4, 64, 128)),
]
DIRECTIONS = ("conv2d", "conv2d_input", "conv2d_weight")
NAMES = [*(rung.__name__.removeprefix("conv_") for rung in LADDER), "kernel", "product"]
FORMATS = {"torch, first": "contiguous_format", "torch, last": "channels_last"}

Contestants = dict[str, Callable[[], np.ndarray]]


def contestants(x: np.ndarray, w: np.ndarray, dout: np.ndarray) -> dict[str, Contestants]:
    """For each direction, calls that return its result; the call "product" returns something of no interest."""

    def filling(function: Callable[..., None], like: np.ndarray, *arguments: np.ndarray) -> Callable[[], np.ndarray]:
        out = np.empty_like(like)

        def call() -> np.ndarray:
            function(out, *arguments, STRIDE, PADDING)
            return out

        return call

    def multiplying(a: np.ndarray, b: np.ndarray) -> Callable[[], np.ndarray]:
        out = np.empty((len(a), b.shape[1]), a.dtype)
        return lambda: np.matmul(a, b, out=out)

    weights, pixels = w.reshape(-1, w.shape[3]), dout.reshape(-1, dout.shape[3])
    windows = np.ones((len(pixels), len(weights)), x.dtype)
    found: dict[str, Contestants] = {
        "conv2d": {name: filling(rung, dout, x, w) for name, rung in zip(NAMES, LADDER, strict=False)}
        | {"kernel": filling(conv.conv2d, dout, x, w), "product": multiplying(windows, weights)},
        "conv2d_input": {
            "kernel": filling(conv.conv2d_input, x, dout, w),
            "product": multiplying(pixels, weights.T),
        },
        "conv2d_weight": {
            "kernel": filling(conv.conv2d_weight, w, x, dout),
            "product": multiplying(windows.T, pixels),
        },
    }
    if find_spec("torch"):
        for name, memory_format in FORMATS.items():
            for direction, call in in_pytorch(x, w, dout, memory_format).items():
                found[direction][name] = call
    return found


def in_pytorch(x: np.ndarray, w: np.ndarray, dout: np.ndarray, memory_format: str) -> Contestants:
    """Each direction by PyTorch, in one of its memory formats; results are views in the engine's order."""
    import torch

    torch.set_num_threads(1)
    layout: dict[str, Any] = {"memory_format": getattr(torch, memory_format)}
    images, gradient = (torch.from_numpy(array).permute(0, 3, 1, 2).contiguous(**layout) for array in (x, dout))
    weights = torch.from_numpy(w).permute(3, 2, 0, 1).contiguous(**layout)

    def backward(*needed: bool) -> tuple[Any, ...]:
        window = STRIDE, PADDING, (1, 1), False, (0, 0), 1
        return torch.ops.aten.convolution_backward(gradient, images, weights, None, *window, (*needed, False))

    return {
        "conv2d": lambda: torch.conv2d(images, weights, None, STRIDE, PADDING).permute(0, 2, 3, 1).numpy(),
        "conv2d_input": lambda: backward(True, False)[0].permute(0, 2, 3, 1).numpy(),
        "conv2d_weight": lambda: backward(False, True)[1].permute(2, 3, 1, 0).numpy(),
    }


def measure(x_shape: tuple[int, ...], w_shape: tuple[int, ...]) -> dict[str, dict[str, float]]:
    """GFLOP/s of every contestant, in each direction."""
    rng = np.random.default_rng(0)
    x, w = rng.standard_normal(x_shape, np.float32), rng.standard_normal(w_shape, np.float32)
    p, q = ((x_shape[a + 1] + 2 * PADDING[a] - w_shape[a]) // STRIDE[a] + 1 for a in (0, 1))
    dout = rng.standard_normal((x_shape[0], p, q, w_shape[3]), np.float32)
    arguments, speeds = {"conv2d": (dout, x, w), "conv2d_input": (x, dout, w), "conv2d_weight": (w, x, dout)}, {}
    for direction, calls in contestants(x, w, dout).items():
        like, *inputs = arguments[direction]
        expected = np.empty_like(like)
        getattr(reference.conv, direction)(expected, *inputs, STRIDE, PADDING)
        for name, call in calls.items():  # compiles, and times nothing that computes something else
            if name != "product":
                np.testing.assert_allclose(call(), expected, rtol=0, atol=RTOL * np.abs(expected).max(), err_msg=name)
        seconds = np.empty((ROUNDS, len(calls)))
        for turn in range(ROUNDS):
            for c, call in enumerate(calls.values()):
                start = time.perf_counter()
                call()
                seconds[turn, c] = time.perf_counter() - start
        speed = 2e-9 * dout.size * w[..., 0].size / np.median(seconds, axis=0)
        speeds[direction] = dict(zip(calls, speed.tolist(), strict=True))
    return speeds


def main() -> None:
    print(machine())
    print("float32, 1 thread, GFLOP/s by the median of", ROUNDS, "rounds, and the fraction of the product\n")
    names = [*NAMES, *(FORMATS if find_spec("torch") else ())]
    print(f"{'':<15}", *(f"{name:>12}" for name in names))
    for shapes in SHAPES:
        print(*shapes)
        for direction, speeds in measure(*shapes).items():
            print(f"{direction:<15}", *(f"{speeds[n]:12.1f}" if n in speeds else f"{'-':>12}" for n in names))
            shares = {name: speed / speeds["product"] for name, speed in speeds.items()}
            print(f"{'':<15}", *(f"{shares[n]:12.2f}" if n in shares else f"{'-':>12}" for n in names), flush=True)


if __name__ == "__main__":
    main()
