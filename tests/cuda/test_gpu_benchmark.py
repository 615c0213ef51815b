"""The benchmark of the GPU does what it says where there is none: at tiny sizes, under the simulator, with no rival."""

import numpy as np
import pytest

pytest.importorskip("numba_cuda", reason="there are no CUDA kernels to time, for numba-cuda is not installed")

from kernels.cuda.device import SIMULATED
from scratchgen.models.vae import VAEConfig
from tests.benchmarks import gpu

pytestmark = pytest.mark.skipif(
    not SIMULATED, reason="only the simulated run has these tests; on a GPU, make bench-gpu"
)


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(gpu, "ROUNDS", 1)
    monkeypatch.setattr(gpu, "ROUND_MS", 0.0)
    monkeypatch.setattr(gpu, "torch_or_none", lambda: None)


def test_product_table_has_a_line_of_speeds_for_every_product():
    header, *lines = gpu.product_table([(9, 5, 6), (4, 4, 4)], rungs=True)
    assert header.split()[3:] == ["naive", "shared", "registers", "vectors", "ahead", "matmul", "/", "cuBLAS"]
    assert [line.split(")")[0].strip() for line in lines] == ["(9, 5, 6", "(4, 4, 4"]


def test_bandwidth_table_has_a_line_for_every_kernel_that_memory_limits():
    copy, *lines = gpu.bandwidth_table(6, 5)
    assert copy.split()[0] == "copy"
    assert [line.split()[0] for line in lines] == [bound.name for bound in gpu.bounds(6, 5)]


def test_epoch_table_has_a_line_for_every_epoch():
    images = np.random.default_rng(0).random((7, 11), np.float32)
    lines = list(gpu.epoch_table(images, VAEConfig(11, 3, (7,), (6,)), 3, 4))
    losses = [float(line.split()[-1]) for line in lines]
    assert [line.split()[1] for line in lines] == ["1:", "2:", "3:", "4:"]
    assert 0 < losses[-1] < losses[0]


def test_product_speeds_times_no_wrong_product(monkeypatch):
    def matmul(out, a, b):
        """Does nothing, so that what another has computed must not count for it."""

    monkeypatch.setattr(gpu.products, "matmul", matmul)
    with pytest.raises(SystemExit, match="matmul is not timed"):
        gpu.product_speeds(4, 4, 4, rungs=True)


def test_bandwidth_table_times_no_wrong_kernel(monkeypatch):
    monkeypatch.setattr(gpu.elementwise, "sigmoid", lambda out, x: None)
    with pytest.raises(SystemExit, match="sigmoid is not timed"):
        list(gpu.bandwidth_table(6, 5))


def test_milliseconds_are_the_median_of_the_rounds(monkeypatch):
    taken = iter([0.0, 3.0, 5.0, 1.0, 2.0])  # warming up, an estimate, three rounds

    class Event:
        record = synchronize = lambda self: None

        def elapsed_time(self, end):
            return next(taken)

    monkeypatch.setattr(gpu, "ROUNDS", 3)
    monkeypatch.setattr(gpu.cuda, "event", Event)
    assert gpu.milliseconds(lambda: None) == np.median([5.0, 1.0, 2.0])
