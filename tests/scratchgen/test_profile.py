"""``scratchgen profile``: its numbers are those of training, which the clocks leave as it is."""

import json
import math
import re
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from helpers import STEPS, TINIES, TINY, drive, files, tiny_data
from task_helpers import captured

import kernels
from scratchgen import cli, commands, profile, runs
from scratchgen.checkpoint import load_checkpoint
from scratchgen.errors import UserError
from scratchgen.profile import Call, Round, measure, summarize, table, timed
from scratchgen.tasks.vae import VAETraining

HELD_UP = profile.HELD_UP  # before it is changed
pytestmark = pytest.mark.usefixtures("tiny")
every_model = pytest.mark.parametrize("model", TINIES)


@pytest.fixture(autouse=True)
def small(monkeypatch):
    """A profile of five steps takes as many as training in eighteen epochs, and all of them count; quick ceilings."""
    monkeypatch.setattr(profile, "WARM_UP", 8 * STEPS)
    monkeypatch.setattr(profile, "ROUND", 2)
    monkeypatch.setattr(profile, "HELD_UP", math.inf)
    monkeypatch.setattr(profile, "SIDE", 64)
    monkeypatch.setattr(profile, "LARGE", 1 << 16)


def profiled(config, steps=STEPS):
    task, data = runs.prepare(config, tiny_data())
    return measure(config, task, data, steps), task


# ---- the clocks ----


@pytest.mark.parametrize(
    ("kernel", "shapes", "scalars", "flops"),
    [
        ("dense.matmul", [(5, 7), (5, 3), (3, 7)], [], 2 * 5 * 3 * 7),
        ("dense.matmul", [(2, 5, 7), (2, 5, 3), (2, 3, 7)], [], 2 * 2 * 5 * 3 * 7),
        ("dense.matmul_tn", [(5, 7), (3, 5), (3, 7)], [], 2 * 5 * 3 * 7),
        ("dense.matmul_nt", [(5, 7), (5, 3), (7, 3)], [], 2 * 5 * 3 * 7),
        ("dense.dense_forward", [(5, 7), (5, 3), (3, 7), (7,)], ["relu"], 2 * 5 * 3 * 7),
        ("dense.dense_activation_backward", [(5, 7), (7,), (5, 7), (5, 7)], ["relu"], 0),
        (
            "conv.conv2d",
            [(2, 3, 4, 5), (2, 6, 8, 3), (4, 4, 3, 5)],
            [(2, 2), (1, 1)],
            2 * (2 * 3 * 4) * (4 * 4 * 3 * 5),
        ),
        ("conv.conv2d_input", [(2, 6, 8, 3), (2, 3, 4, 5), (4, 4, 3, 5)], [(2, 2), (1, 1)], 2 * 24 * 240),
        ("conv.conv2d_weight", [(4, 4, 3, 5), (2, 6, 8, 3), (2, 3, 4, 5)], [(2, 2), (1, 1)], 2 * 24 * 240),
        ("elementwise.scale", [(9,), (9,)], [2.0], 0),
        ("optimizers.average_step", [(9,), (9,), (1,)], [], 0),
    ],
)
def test_timed_kernels_count_operations_and_bytes_and_compute_the_same(kernel_set, rng, kernel, shapes, scalars, flops):
    arrays, calls = [rng.random(shape, np.float32) for shape in shapes], []
    expected = [array.copy() for array in arrays]
    file, name = kernel.split(".")
    getattr(getattr(kernel_set, file), name)(*expected, *scalars)
    getattr(getattr(timed(kernel_set, calls), file), name)(*arrays, *scalars)
    for array, wanted in zip(arrays, expected, strict=True):
        np.testing.assert_array_equal(array, wanted)
    ((called, nanoseconds, counted, nbytes),) = calls  # one, though a kernel may call another
    assert (called, counted, nbytes) == (kernel, flops, 4 * sum(map(math.prod, shapes)))
    assert nanoseconds > 0


def test_timed_leaves_memory_without_a_clock(kernel_set):
    calls = []
    assert timed(kernel_set, calls).memory.empty((2, 3), np.dtype(np.float32)).shape == (2, 3)
    assert not calls


# ---- the steps ----


@every_model
@pytest.mark.parametrize("kernel_set", ["cpu", pytest.param("reference", marks=pytest.mark.slow)])
def test_measure_trains_to_the_same_bits_as_a_run(model, kernel_set):
    config = replace(TINIES[model], kernels=kernel_set, epochs=18)
    runs.start(config, Path("run"))
    trained, _ = load_checkpoint(Path("run/checkpoint.safetensors"))
    _, task = profiled(config)
    state = task.state_dict()
    assert state.keys() == trained.keys()
    for name, array in trained.items():
        np.testing.assert_array_equal(state[name], array, name)
    assert kernels.active() is kernels.cpu


def noting(kernel_set, asked):
    """A kernel set that notes which kernels it is asked for."""

    def wrap(name, kernel):
        def call(*arguments):
            asked[name] += 1
            kernel(*arguments)

        return call

    return kernels.wrapped(kernel_set, wrap)


@every_model
@pytest.mark.parametrize("kernel_set", kernels.SETS)
def test_measure_reports_every_kernel_and_times_that_add_up(model, kernel_set):
    config, asked = replace(TINIES[model], kernels=kernel_set), Counter()
    report, task = profiled(config)
    images, labels, rng = tiny_data().train.images, tiny_data().train.labels, np.random.default_rng(0)
    step = captured(task)
    with kernels.use(noting(kernels.SETS[kernel_set], asked)):
        for number in range(-profile.WARM_UP - 1, STEPS):  # an odd number first: G plays in 3 of 5, as in the report
            if number == 0:
                asked.clear()
            chosen = rng.permutation(len(images))[:128]
            step(images[chosen], labels[chosen])
    rows = report["timings"]
    assert {row["kernel"]: row["calls"] for row in rows} == {name: count / STEPS for name, count in asked.items()}
    forward = (
        {"random.binary_units"} if model in ("rbm", "dbn", "dbm") else {"dense.dense_forward", "losses.bce_with_logits"}
    )
    assert {"dense.matmul_tn", *forward} <= asked.keys()
    assert [row["ms"] for row in rows] == sorted((row["ms"] for row in rows), reverse=True)
    assert min(row["ms"] for row in rows) > 0
    assert sum(row["ms"] for row in rows) == pytest.approx(report["kernels_ms"])
    assert report["kernels_ms"] < report["step_with_clocks_ms"]
    assert report["between_ms"] == pytest.approx(report["step_ms"] - report["kernels_ms"])
    for row in rows:
        assert row["share"] == pytest.approx(row["ms"] / report["step_ms"])
        assert (row["gflops"] is None) == (row["kernel"] not in profile.PRODUCTS)


def test_measure_counts_the_operations_of_convolutions():
    """28 28 1 to 14 14 3 to 7 7 4 in the encoder, and in the decoder the same convolutions the other way round; each of
    them once forwards, once for its weights, and once for its input unless that is data."""
    network = replace(TINY.network, encoder_channels=(3, 4), decoder_channels=(4, 3))
    training = replace(TINY.training, samples=1)
    report, _ = profiled(replace(TINY, network=network, training=training, batch_size=100), steps=2)
    rows = {row["kernel"]: row for row in report["timings"]}
    large, small = 100 * 14 * 14 * 4 * 4 * 1 * 3, 100 * 7 * 7 * 4 * 4 * 3 * 4
    assert {name: 1e6 * rows[name]["gflops"] * rows[name]["ms"] for name in profile.CONVOLUTIONS} == pytest.approx(
        {
            "conv.conv2d": 2 * 2 * (large + small),  # forwards in the encoder, backwards in the decoder
            "conv.conv2d_input": 2 * (large + small + small),
            "conv.conv2d_weight": 2 * 2 * (large + small),
        }
    )


def test_measure_counts_the_operations_of_a_whole_step():
    """784-16-(2, 2) and, for each of two draws, 2-16-784: each layer a product forward and one for its weights; and
    one for each input that needs a gradient, which images do not."""
    report, _ = profiled(replace(TINY, batch_size=100), steps=4)  # 600 images: no short batch
    rows = {row["kernel"]: row for row in report["timings"]}
    once, twice = 100 * (784 * 16 + 2 * 16 * 2), 200 * (2 * 16 + 16 * 784)
    operations = {name: 1e6 * rows[name]["gflops"] * rows[name]["ms"] for name in profile.PRODUCTS if name in rows}
    assert operations == pytest.approx(
        {
            "dense.dense_forward": 2 * (once + twice),
            "dense.matmul_tn": 2 * (once + twice),
            "dense.matmul_nt": 2 * (once + twice - 100 * 784 * 16),
        }
    )
    assert {name: rows[name]["calls"] for name in operations} == {
        "dense.dense_forward": 5,
        "dense.matmul_tn": 5,
        "dense.matmul_nt": 4,
    }
    assert rows["optimizers.adam_step"]["calls"] == 1
    parameters = 784 * 16 + 16 + 2 * (16 * 2 + 2) + 2 * 16 + 16 + 16 * 784 + 784
    moved = 1e6 * rows["optimizers.adam_step"]["gbytes"] * rows["optimizers.adam_step"]["ms"]
    assert moved == pytest.approx(4 * (4 * parameters + 2 + 1))  # parameters, two moments, gradient; rates; guard


def test_summarize_leaves_out_rounds_that_were_held_up(monkeypatch):
    monkeypatch.setattr(profile, "HELD_UP", HELD_UP)
    calls = [Call("dense.matmul", 2_000_000, 10_000_000, 4_000_000), Call("elementwise.add", 500_000, 0, 1_000_000)]
    usual, slow = Round(2, 0.010, 0.011, calls), Round(2, 0.010, 18.0, 7 * calls)
    one, slow_one = Round(1, 0.005, 0.0055, calls[:1]), Round(1, 0.012, 0.012, 7 * calls)
    found = summarize([usual, slow, usual, one, slow_one])
    assert found["steps_counted"] == 5
    assert (found["step_ms"], found["step_with_clocks_ms"]) == (pytest.approx(5.0), pytest.approx(5.5))
    assert (found["kernels_ms"], found["between_ms"]) == (pytest.approx(7 / 5), pytest.approx(5 - 7 / 5))
    product, add = found["timings"]
    assert product == {"kernel": "dense.matmul", **approx(calls=3 / 5, ms=6 / 5, share=6 / 25, gflops=5, gbytes=2)}
    assert add == {
        "kernel": "elementwise.add",
        "gflops": None,
        **approx(calls=2 / 5, ms=1 / 5, share=1 / 25, gbytes=2),
    }


def approx(**numbers):
    return {name: pytest.approx(number) for name, number in numbers.items()}


def test_ceilings_are_plausible_speeds():
    found = profile.ceilings()
    assert found.keys() == {"gflops_blas", "gflops_tiled", "gbytes_copy", "gbytes_triad"}
    assert min(found.values()) > 0.01
    assert max(found.values()) < 1e5


# ---- the command ----


@every_model
def test_profile_prints_its_table_and_writes_it_as_json(call, tmp_path, model):
    out = call("profile", model, "--config", "tiny", "--steps", 3, "--json", "numbers.json")
    numbers = json.loads(Path("numbers.json").read_text())
    assert out == f"{table(numbers)}\nnumbers.json\n"
    assert list(files(tmp_path)) == [tmp_path / "numbers.json"]
    assert f"{model} tiny on strokes, batches of 128, kernels cpu: means over 3 steps\n" in out
    assert f"Numba threads: {numbers['numba_threads']}; scratchgen " in out
    lines = {line.split()[0]: line.split() for line in out.splitlines() if line}
    for row in numbers["timings"]:
        line = lines[row["kernel"]]
        assert line[1:4] == [f"{row['calls']:.4g}", f"{row['ms']:.3f}", f"{row['share']:.1%}"]
        assert (line[4:6] == ["-", "-"]) == (row["gflops"] is None)
        assert line[6] == f"{row['gbytes']:.1f}"
    best = max(numbers["ceilings"]["gflops_blas"], numbers["ceilings"]["gflops_tiled"])
    product = next(row for row in numbers["timings"] if row["kernel"] == "dense.matmul_tn")
    assert lines["dense.matmul_tn"][4:6] == [f"{product['gflops']:.1f}", f"{product['gflops'] / best:.0%}"]
    assert lines["between"][-3:] == [
        f"{numbers['between_ms']:.3f}",
        "ms",
        f"{numbers['between_ms'] / numbers['step_ms']:.1%}",
    ]
    assert "skip zero terms" in out


def test_profile_obeys_its_options(call, monkeypatch):
    given = {"epochs": 2, "batch_size": 300, "seed": 5, "kernels": "reference"}
    network, training = {"latent_dim": 3}, {"samples": 1, "lr": 0.002}
    options = [(f"--{name.replace('_', '-')}", value) for name, value in (given | network | training).items()]
    asked = []
    monkeypatch.setattr(
        commands.engine, "measure", lambda config, *rest: asked.append((config, rest[-1])) or measure(config, *rest)
    )
    out = call("profile", "vae", "--config", "tiny", "--steps", 2, *sum(options, ()))
    expected = replace(
        TINY, network=replace(TINY.network, **network), training=replace(TINY.training, **training), **given
    )
    assert asked == [(expected, 2)]
    assert "batches of 300, kernels reference: means over 2 steps\n" in out
    assert "skip zero terms" not in out


def test_table_says_how_many_steps_were_left_out(monkeypatch):
    report, _ = profiled(TINY)
    assert "left out" not in table(report).splitlines()[0]
    assert "means over 2 steps (3 left out" in table({**report, "steps_counted": 2})


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ("", "model"),
        ("flow", "'flow'"),
        ("vae --steps 0", "--steps"),
        ("vae --steps many", "--steps"),
        ("vae --out run", "--out"),
        ("vae --resume run", "--resume"),
        ("vae --lr 0", "lr > 0 is needed"),
        ("vae --config tiny --steps 1 --json numbers.txt", "numbers.txt: give a name that ends in .json"),
        ("vae --config tiny --steps 1 --json nowhere/numbers.json", "nowhere/numbers.json: cannot be written"),
        ("aae --config tiny --labels-for decoder --labels 0", "the decoder needs labels"),
    ],
)
def test_profile_reports_mistakes_in_one_line(capsys, tmp_path, arguments, named):
    assert cli.main(["profile", *arguments.split()]) == 2
    err = capsys.readouterr().err
    assert err.startswith("scratchgen: ")
    assert named in err
    assert len(err.splitlines()) == 1
    assert not files(tmp_path)


def test_profile_reports_divergence_in_one_line():
    """In a process of its own, for pytest would keep NumPy's warnings from standard error."""
    wrong = drive("profile", "vae", "--config", "tiny", "--lr", "1e30", "--kernels", "reference")
    assert (wrong.returncode, wrong.stdout) == (2, "")
    assert re.match(r"scratchgen: training stopped: \w+ is (nan|-?inf)", wrong.stderr)
    assert len(wrong.stderr.splitlines()) == 1


def test_prepare_refuses_images_of_another_size():
    config = replace(TINY, network=replace(TINY.network, input_dim=100), training=VAETraining())
    with pytest.raises(UserError, match="strokes has images of 784 pixels, and the network takes 100"):
        runs.prepare(config, tiny_data())
