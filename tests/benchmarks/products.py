"""Time the ladder of matrix products against NumPy's BLAS, on one thread.

Run by ``python -m tests.benchmarks.products``, it prints GFLOP/s (2 m n k operations over the median time of
a call) and, below, the fraction of BLAS. The contestants take turns within every round, so a change of the
clock or a busy neighbour falls on all of them.
"""

import os

from tests.benchmarks.machine import let_libraries_choose, machine

if __name__ == "__main__":  # One thread against one thread. Both read this once, when they are imported.
    os.environ["OPENBLAS_NUM_THREADS"] = os.environ["NUMBA_NUM_THREADS"] = "1"
    let_libraries_choose()

import time

import numpy as np

from kernels.cpu.products import LADDER

ROUNDS = 11
SHAPES = [  # (m, k, n)
    (100, 784, 400),  # the VAE's first layer, 784 to 400 at batch 100; back through its last
    (100, 400, 784),  # its last layer
    (784, 100, 400),  # the gradients of the weights of these two
    (400, 100, 784),
    (128, 784, 512),
    (512, 512, 512),
    (128, 1024, 1024),  # b is 4 MiB: here blocking shows
]


def blas(out: np.ndarray, a: np.ndarray, b: np.ndarray) -> None:
    np.matmul(a, b, out=out)


CONTESTANTS = (*LADDER, blas)


def measure(m: int, k: int, n: int) -> list[float]:
    """GFLOP/s of every contestant, in their order."""
    rng = np.random.default_rng(0)
    a, b = rng.standard_normal((m, k), np.float32), rng.standard_normal((k, n), np.float32)
    out, expected = np.empty((m, n), np.float32), a @ b
    for product in CONTESTANTS:  # compiles, and times nothing that computes something else
        product(out, a, b)
        np.testing.assert_allclose(out, expected, rtol=0, atol=1e-3)
    seconds = np.empty((ROUNDS, len(CONTESTANTS)))
    for turn in range(ROUNDS):
        for c, product in enumerate(CONTESTANTS):
            start = time.perf_counter()
            product(out, a, b)
            seconds[turn, c] = time.perf_counter() - start
    return list(2e-9 * m * n * k / np.median(seconds, axis=0))


def main() -> None:
    print(machine())
    print("float32, 1 thread, GFLOP/s by the median of", ROUNDS, "rounds, and the fraction of BLAS\n")
    names = [product.__name__.removeprefix("product_") for product in CONTESTANTS]
    print(f"{'(m, k, n)':>17}", *(f"{name:>12}" for name in names))
    for shape in SHAPES:
        speeds = measure(*shape)
        print(f"{shape!s:>17}", *(f"{speed:12.1f}" for speed in speeds))
        print(f"{'':>17}", *(f"{speed / speeds[-1]:12.2f}" for speed in speeds), flush=True)


if __name__ == "__main__":
    main()
