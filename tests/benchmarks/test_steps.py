"""The benchmark of training steps: what it refuses, what its floor counts, how it prints; that rivals agree with it."""

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest

from scratchgen.capture import Capture, Captured
from scratchgen.models.vae import VAEConfig
from scratchgen.tasks.vae import VAETraining
from tests.benchmarks import scratchgen_steps
from tests.benchmarks.products_alone import multiply_adds, products
from tests.benchmarks.steps import FLOOR, OURS, RIVALS, entry, table
from tests.benchmarks.worker import CONTESTANTS, build, milliseconds
from tests.benchmarks.workloads import (
    WORKLOADS,
    Disagreement,
    Shared,
    Workload,
    engine_quantities,
    require_agreement,
    under,
)

TINY = Workload("tiny", "vae", VAEConfig(6, 2, (5,), (5,)), VAETraining(), 4)


def images(workload, rng):
    """Of noise, but for a part that is blank, as the edges of digits are: activations may be at their kinks there."""
    pixels = rng.random((2 * workload.batch, workload.network.input_dim), np.float32)
    pixels[:, : workload.network.input_dim // 4] = 0
    return pixels


@pytest.fixture
def tiny(monkeypatch, tmp_path, rng):
    """The folder of a tiny workload, and what it is checked against."""
    monkeypatch.setitem(WORKLOADS, "tiny", TINY)
    pixels = images(TINY, rng)
    shared = Shared.draw(TINY, pixels)
    shared.save(tmp_path / "tiny.npz")
    np.save(tmp_path / "images.npy", pixels)
    return tmp_path, engine_quantities(TINY, shared)


@pytest.mark.parametrize("name", [OURS, FLOOR])
def test_build_gives_a_contestant_that_steps_and_agrees(tiny, name):
    folder, expected = tiny
    contestant = build(name, "tiny", folder)
    require_agreement(contestant.check(), {} if name == FLOOR else expected)
    assert milliseconds(contestant, 0) > 0


def test_contestant_of_the_engine_replays_its_steps(tiny, monkeypatch):
    """As the trainer does: that is what is to be timed."""
    (folder, _), made = tiny, []

    def capture(*arguments):
        made.append(Capture(*arguments))
        return made[-1]

    monkeypatch.setattr(scratchgen_steps, "Capture", capture)
    milliseconds(build(OURS, "tiny", folder), 0)
    *_, state = made[0].states.values()
    assert isinstance(state, Captured)
    assert state.verified


@pytest.mark.parametrize("wrong", ["scaled", "missing", "transposed", "nan"])
def test_require_agreement_refuses_what_differs_by_name(tiny, wrong):
    _, expected = tiny
    name = "loss, d encoder.layers.0.weight"
    right = expected[name]
    found = {
        "scaled": {name: 1.001 * right},
        "missing": {},
        "transposed": {name: right.T},
        "nan": {name: np.nan * right},
    }[wrong]
    others = {other: value for other, value in expected.items() if other != name}
    with pytest.raises(Disagreement, match=name):
        require_agreement(others | found, expected)


def test_engine_quantities_hold_every_gradient_of_every_loss_that_trains_it(rng):
    trains = {
        "vae": {"loss": ("",)},
        "gan": {"d_loss": ("discriminator.",), "g_loss": ("generator.",)},
        "aae": {
            "reconstruction": ("encoder.", "decoder."),
            "d_loss": ("discriminator.",),
            "e_loss": ("encoder.",),
        },
        "rbm": {"loss": ("",)},
    }
    for workload in WORKLOADS.values():
        small = replace(workload, batch=4)
        shared = Shared.draw(small, images(small, rng))
        expected = {loss: under(shared.parameters, *trained) for loss, trained in trains[small.model].items()}
        names = [n for loss, ps in expected.items() for n in (loss, *(f"{loss}, d {p}" for p in ps))]
        found = engine_quantities(small, shared, np.float32)
        assert list(found) == names
        assert all(np.any(value) for value in found.values())


def test_shared_repeats_a_few_images_where_there_are_convolutions(rng):
    for name, different in (("vae-400", 100), ("vae-conv", 4), ("dcgan", 4)):
        workload = WORKLOADS[name]
        shared = Shared.draw(workload, images(workload, rng))
        for array, width in ((shared.x, 784), (shared.noise, workload.network.latent_dim)):
            assert array.shape == (workload.batch, width)
            assert len(np.unique(array, axis=0)) == different


def weights(*sizes):
    return sum(i * o for i, o in pairwise(sizes))


@pytest.mark.parametrize("name", [name for name in WORKLOADS if name not in ("vae-conv", "dcgan")])
def test_products_multiply_what_the_algorithm_does_and_no_more(name):
    # A layer of w weights costs w multiply-adds an example forwards, w for its weights' gradient, w for its input's.
    workload = WORKLOADS[name]
    n, b = workload.network, workload.batch
    if workload.model == "vae":
        first = n.input_dim * n.encoder_hidden[0]
        encoder = weights(n.input_dim, *n.encoder_hidden) + 2 * n.encoder_hidden[-1] * n.latent_dim
        expected = b * (3 * (encoder + weights(n.latent_dim, *n.decoder_hidden, n.input_dim)) - first)
    elif workload.model == "gan":
        generator = weights(n.latent_dim, *n.generator_hidden, n.input_dim)
        discriminator = weights(n.pack * n.input_dim, *n.discriminator_hidden, 1)
        d_step = 2 * (3 * discriminator - n.pack * n.input_dim * n.discriminator_hidden[0])  # data and samples
        g_step = 2 * discriminator  # forwards, and back to its input
        expected = b * (3 * generator - n.latent_dim * n.generator_hidden[0]) + b // n.pack * (d_step + g_step)
    elif workload.model == "rbm":  # up, down, up, and the gradient of both sides
        expected = b * 5 * n.input_dim * n.hidden
    else:
        encoder = weights(n.input_dim, *n.encoder_hidden, n.latent_dim)
        discriminator = weights(n.latent_dim, *n.discriminator_hidden, 1)
        encoding = 3 * encoder - n.input_dim * n.encoder_hidden[0]
        d_step = 2 * (3 * discriminator - n.latent_dim * n.discriminator_hidden[0])  # draws and codes
        decoding = 3 * weights(n.latent_dim, *n.decoder_hidden, n.input_dim)
        expected = b * (2 * encoding + decoding + d_step + 2 * discriminator)
    assert multiply_adds(products(workload)) == expected


@pytest.mark.parametrize(
    ("name", "expected"),
    [  # of an example; 14 14 and 7 7 pixels of a convolution's result, each from a window of 4 4 pixels
        (
            "vae-conv",
            100
            * (
                2 * 14 * 14 * 4 * 4 * 1 * 32  # the gradient with respect to the images is not needed
                + 3 * (7 * 7 * 4 * 4 * 32 * 64 + 7 * 7 * 64 * 256 + 2 * 256 * 40)
                + 3 * (40 * 256 + 256 * 7 * 7 * 64)
                # Of the 4 4 weights, 2 2 meet a pixel of the larger images, for every second one is a zero between.
                + 3 * (14 * 14 * 2 * 2 * 64 * 32 + 28 * 28 * 2 * 2 * 32 * 1)
            ),
        ),
        (
            "dcgan",
            64
            * (
                2 * 100 * 7 * 7 * 128
                + 3 * (14 * 14 * 2 * 2 * 128 * 64 + 28 * 28 * 2 * 2 * 64 * 1)
                # D: forwards and both gradients for data and samples, then forwards and back to the samples
                + 2 * (2 * 14 * 14 * 4 * 4 * 1 * 64 + 3 * (7 * 7 * 4 * 4 * 64 * 128 + 7 * 7 * 128))
                + 2 * (14 * 14 * 4 * 4 * 1 * 64 + 7 * 7 * 4 * 4 * 64 * 128 + 7 * 7 * 128)
            ),
        ),
    ],
)
def test_products_multiply_what_convolutions_do_and_no_more(name, expected):
    assert multiply_adds(products(WORKLOADS[name])) == expected


def test_table_compares_with_the_fastest_rival_and_with_the_floor():
    times = {OURS: [3.0, 2.0, 4.0], RIVALS[0]: [4.0] * 3, RIVALS[1]: [6.0] * 3, FLOOR: [1.5] * 3}
    lines = table([entry("gan", 2, name, taken) for name, taken in times.items()]).splitlines()
    assert lines[0].startswith("gan, 2 threads ")
    assert lines[1].split() == ["scratchgen", "3.000", "2.500", "-", "3.500", "0.75", "2.00"]
    assert lines[3].split()[-2:] == ["1.50", "4.00"]


def test_table_leaves_the_column_of_rivals_empty_without_them():
    lines = table([entry("gan", 1, name, [2.0]) for name in (OURS, FLOOR)]).splitlines()
    assert lines[1].split()[-2:] == ["-", "1.00"]


@pytest.mark.parametrize("workload", WORKLOADS)
@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.slow if name == "torch.compile" else ()) for name in RIVALS]
)
def test_rival_agrees_and_steps(tmp_path, rng, name, workload):
    package = CONTESTANTS[name][1]
    pytest.importorskip(package, reason=f"{name} is not tested, for {package} is not installed")
    pixels = images(WORKLOADS[workload], rng)
    shared = Shared.draw(WORKLOADS[workload], pixels)
    shared.save(tmp_path / f"{workload}.npz")
    np.save(tmp_path / "images.npy", pixels)
    rival = build(name, workload, tmp_path)
    require_agreement(rival.check(), engine_quantities(WORKLOADS[workload], shared))
    rival.step()
    rival.wait()
