"""What surrounds a step: that the step by hand is the engine's, and that the measures see what they are to measure."""

import importlib
import mmap
import sys
from dataclasses import replace

import numpy as np
import pytest

from scratchgen.models.vae import VAE, VAEConfig
from scratchgen.recipes import RECIPES
from scratchgen.tasks.vae import VAETraining
from scratchgen.tensor import Tensor
from tests.benchmarks import parts, step_by_hand, whole
from tests.benchmarks.memory import peak_memory
from tests.benchmarks.parts import mapped_by, step_two_ways
from tests.benchmarks.whole import Finding, last_line, seconds_to, start
from tests.benchmarks.workloads import WORKLOADS, Disagreement, Workload

TINY = Workload("tiny", "vae", VAEConfig(9, 3, (7,), (5,)), VAETraining(), 4)


@pytest.mark.slow
def test_step_by_hand_trains_to_the_engines_bits(rng):
    *_, agree = step_two_ways(TINY, rng.random((4, 9), np.float32))
    agree(list(rng.random((10, 4, 9), np.float32)))


@pytest.mark.parametrize("kernel", ["dense_activation_backward", "matmul_tn", "matmul_nt"])
def test_step_two_ways_refuses_a_step_by_hand_without_a_kernel(rng, monkeypatch, kernel):
    by_engine, by_hand, agree = step_two_ways(TINY, rng.random((4, 9), np.float32))
    dense = step_by_hand.kernels.active().dense
    right = getattr(dense, kernel)

    def without(x):
        calls = []

        def counted(*arguments):
            calls.append(arguments)
            if len(calls) > 1:
                right(*arguments)

        monkeypatch.setattr(dense, kernel, counted)
        by_hand(x)
        monkeypatch.setattr(dense, kernel, right)

    x = rng.random((4, 9), np.float32)
    by_engine(x)
    without(x)
    with pytest.raises(Disagreement):
        agree([x])


def test_step_by_hand_learns_nothing_from_what_is_not_finite(rng):
    _, by_hand, _ = step_two_ways(TINY, rng.random((4, 9), np.float32))
    batches = [np.full((4, 9), np.nan, np.float32), rng.random((4, 9), np.float32)]
    assert np.isnan(by_hand(batches[0])["neg_elbo"])
    assert np.isfinite(by_hand(batches[1])["neg_elbo"])


def test_mapped_by_sees_memory_that_is_mapped():
    size, held = 1 << 20, []  # less than a large page

    def map_anew():
        held.append(mmap.mmap(-1, size))
        np.frombuffer(held[-1], np.uint8)[:] = 1

    assert size <= mapped_by(map_anew, 20) < 1.2 * size
    there = np.ones(size, np.uint8)
    assert mapped_by(lambda: there.fill(2), 20) < 0.01 * size


def test_peak_memory_stays_when_the_memory_is_gone():
    before, size = peak_memory(), 1 << 26
    np.ones(before + size, np.uint8)
    assert before + size <= peak_memory() < 3 * (before + size)


def test_start_is_timed_and_leaves_no_checkpoint(tmp_path, monkeypatch):
    monkeypatch.delenv("SCRATCHGEN_DATA", raising=False)
    imported, done = start(tmp_path / "run")
    assert 0 < imported < done < 300
    assert not (tmp_path / "run" / "checkpoint.safetensors").exists()


def test_last_line_is_the_answer():
    assert last_line('epoch 1/1\n{"a": 1}\n{"seconds": 2.5}\n') == {"seconds": 2.5}
    for said in ("", "epoch 1/1\n", '{"seconds": 2.5}\nbroken\n', "3\n"):
        with pytest.raises(ValueError):  # noqa: PT011
            last_line(said)


def test_ask_says_why_a_program_fails():
    with pytest.raises(RuntimeError, match="no_such_part"):
        whole.ask("parts", "no_such_part", ".")


@pytest.fixture
def folder(tmp_path, rng):
    """Images as ``parts.py`` finds them."""
    for name in ("train", "test"):
        np.save(tmp_path / f"{name}.npy", rng.random((300, 784), np.float32))
    return tmp_path


def test_epochs_train_on_their_share(folder, monkeypatch):
    seen = []
    monkeypatch.setattr(parts, "_train", lambda data, count: seen.append((len(data.train), len(data.test), count)))
    assert parts.epochs(folder, 3, 0.5)["seconds"] >= 0
    assert seen == [(150, 150, 1), (150, 150, 3)]


def test_bound_values_are_the_same_in_both(folder):
    pytest.importorskip("torch")
    ours, theirs = (parts.bound_values(folder, name)["bound"] for name in ("scratchgen", "PyTorch"))
    assert len(ours) == 8
    np.testing.assert_allclose(ours, theirs, rtol=1e-5)


def test_finding_says_whether_it_meets_its_target():
    assert Finding("start", 2.4, "s", 2.5).line.endswith("at most 2.5   met")
    assert Finding("start", 2.6, "s", 2.5).line.endswith("at most 2.5   MISSED")
    assert "at most" not in Finding("start", 2.6, "s").line


def test_step_by_hand_is_written_for_its_workload():
    workload = WORKLOADS["vae-400"]
    assert workload.training == replace(VAETraining(), lr=workload.training.lr)
    assert workload.network == RECIPES["vae"].configs["pytorch-example"].network


SAYS = """
import sys, time
for loss in (120.0, 106.61, 106.4, 99.0):
    print(f"epoch   test neg_elbo {loss:.2f}  reconstruction 80.00", flush=True)
    time.sleep(0.2)
if len(sys.argv) > 1:
    time.sleep(60)
"""


def test_seconds_to_ends_with_the_first_loss_that_is_low_enough():
    seconds, printed = seconds_to([sys.executable, "-c", SAYS, "and waits"], 106.5, 1)
    assert 0.4 < seconds < 20
    assert printed == 3
    with pytest.raises(RuntimeError, match=r"without a test neg_elbo of 90(.|\n)*neg_elbo 99.00"):
        seconds_to([sys.executable, "-c", SAYS], 90.0, 1)


def test_pytorch_trains_the_same_network():
    """Its parameters are the named configuration's, and its loss is the engine's for the same ones and noise."""
    torch = pytest.importorskip("torch", reason="PyTorch is not installed")
    rival = importlib.import_module("tests.benchmarks.train_in_pytorch")
    torch.manual_seed(0)
    model, engine = rival.VAE(), VAE(rival.CONFIG.network, 0)
    theirs = [p.detach().numpy() for p in model.parameters()]
    for parameter, array in zip(engine.parameters(), theirs, strict=True):
        parameter.write(array.T)
    x = np.random.default_rng(0).random((7, 784), np.float32)
    torch.manual_seed(1)
    found = model.neg_elbo(torch.from_numpy(x)).item() / 7
    torch.manual_seed(1)
    noise = Tensor(torch.randn(1, 7, rival.CONFIG.network.latent_dim).numpy())
    reconstruction, kl = engine.negative_elbo(Tensor(x), noise)
    assert found == pytest.approx((reconstruction + kl).data.mean(), rel=1e-5)
