"""What surrounds a step: that the bare sequence of kernels is the step, and that the measures see what they measure."""

import os

import numpy as np
import pytest

from scratchgen.models.vae import VAE, VAEConfig, VAETask, VAETraining
from tests.benchmarks import around
from tests.benchmarks.kernel_sequence import KernelSequence


def test_the_bare_sequence_of_kernels_trains_to_the_same_bits(rng):
    config, x = VAEConfig(9, 3, (7,), (5,)), rng.random((40, 9), np.float32)
    task = VAETask(VAE(config, np.random.default_rng(0)), VAETraining(lr=0.01), 10, 1)
    bare = KernelSequence(VAE(config, np.random.default_rng(0)), 0.01, 4)
    noises = np.random.default_rng(1), np.random.default_rng(1)
    before = bare.optimizer.flat.data.copy()
    for start in range(0, 40, 4):
        task.step(x[start : start + 4], np.zeros(4, np.int64), noises[0])
        bare.step(x[start : start + 4], noises[1])
    assert task.optimizer.flat.data.tobytes() == bare.optimizer.flat.data.tobytes()
    assert (bare.optimizer.flat.data != before).any()


def test_a_loss_that_is_not_finite_stops_the_bare_sequence(rng):
    bare = KernelSequence(VAE(VAEConfig(9, 3, (7,), (5,)), rng), 0.01, 4)
    with pytest.raises(FloatingPointError):
        bare.step(np.full((4, 9), np.nan, np.float32), rng)


def test_newly_mapped_memory_is_seen():
    size = 1 << 26  # so large that it comes from the system each time
    assert size <= around.bytes_mapped(lambda: np.ones(size, np.uint8), steps=3) < 1.1 * size
    assert around.bytes_mapped(lambda: None) < 1 << 14


def test_a_run_tells_when_it_has_imported_and_when_its_first_step_is_done(tmp_path):
    imported, first = around._first_step(dict(os.environ), str(tmp_path / "run"), "strokes")
    assert 0 < imported < first < 120


def test_strokes_are_counted():
    assert around.strokes()["images_per_s"] > 100


def test_pytorch_has_the_same_bound(rng):
    pytest.importorskip("torch")
    from scratchgen.tensor import Tensor
    from tests.benchmarks.pytorch_bound import importance_bound

    model = VAE(VAEConfig(6, 2, (5, 4), (3,), activation="tanh"), rng)
    x, noise = rng.random((3, 6), np.float32), rng.standard_normal((7, 3, 2), np.float32)
    ours = model.importance_bound(Tensor(x), Tensor(noise)).data
    np.testing.assert_allclose(importance_bound(model, x, noise), ours, rtol=1e-5)
    assert importance_bound(model, x, samples=9).shape == (3,)
