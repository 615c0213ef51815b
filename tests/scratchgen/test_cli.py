"""The command line: every command and every option. What users get wrong is in test_cli_mistakes.py."""

import argparse
import json
import os
import signal
import statistics
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from helpers import TINY, drive, edit, files, outcome, tiny_data, train_options
from matplotlib.image import imread

import kernels
import scratchgen.data
import scratchgen.explorer
import scratchgen.figures
from scratchgen import __version__, cli, commands, recipes, runs
from scratchgen.capture import Capture, PendingMetrics
from scratchgen.evaluation.ais import Protocol, evaluate_ais
from scratchgen.evaluation.decoder import vae_decoder
from scratchgen.op import REGISTRY
from scratchgen.recipes import RECIPES
from scratchgen.tasks.vae import VAETraining

IW_SAMPLES, NLL_IMAGES = recipes.vae.IW_SAMPLES, recipes.vae.NLL_IMAGES  # before the tests make the first smaller
VAE = RECIPES["vae"]
pytestmark = pytest.mark.usefixtures("tiny")


def pictures(path, n):
    """See that a PNG holds n pictures: enough pixels, not all of them the same."""
    pixels = imread(path)
    assert pixels.shape[0] * pixels.shape[1] >= n * 28 * 28
    assert pixels.std() > 0.01


# ---- train ----


def test_train_fills_the_folder(trained):
    names = ["checkpoint.safetensors", "config.json", "metrics.jsonl", "summary.json"]
    figures = ["latent.png", "losses.png", "manifold.png", "reconstructions.png", "samples.png"]
    assert sorted(os.listdir(trained)) == sorted(names + figures)
    for figure in figures:
        pictures(trained / figure, 1)
    summary = json.loads((trained / "summary.json").read_text())
    assert summary.keys() == {"model", "config", "data", "pixels", "epochs", "seconds", "test"}
    assert (summary["model"], summary["config"], summary["data"], summary["epochs"]) == ("vae", "tiny", "strokes", 3)
    assert summary["pixels"].startswith("binarised anew for every batch")
    assert summary["seconds"] >= 0  # it is rounded
    test = summary["test"]
    assert test.keys() == {"neg_elbo", "reconstruction", "kl", "nll", "iw_samples", "nll_images", "active_units"}
    assert 0 < test["nll"] < test["neg_elbo"] < 784 * np.log(2)
    assert 0 <= test["active_units"] <= 2


def test_evaluate_uses_500_samples_and_1000_images_by_default():
    assert (IW_SAMPLES, NLL_IMAGES) == (500, 1000)


def test_train_reports_epochs_and_result(call, monkeypatch):
    monkeypatch.setattr(VAE, "expected", {("tiny", "strokes"): "a miracle"})
    out = call("train", "vae", "--config", "tiny", "--out", "here")
    assert out.startswith("training on 600 images; kernels that are not compiled yet are compiled first\n")
    assert [line[:9] for line in out.splitlines()[1:4]] == ["epoch 1/3", "epoch 2/3", "epoch 3/3"]
    assert out.splitlines()[4] == "measuring on 60 test images"
    test = json.loads(Path("here/summary.json").read_text())["test"]
    assert f"neg_elbo {test['neg_elbo']:.2f}" in out
    assert f"nll {test['nll']:.2f}" in out
    assert f"{test['active_units']} of 2 latent units active" in out
    assert "is this normal? what to expect here: a miracle\n" in out


def test_train_passes_every_option_to_the_run(call, tmp_path):
    given = {
        "epochs": 1,
        "batch_size": 300,
        "seed": 5,
        "kernels": "reference",
        "data": "strokes",
        "data_dir": str(tmp_path / "digits"),
        "patience": 4,
        "log": "csv",
    }
    network = {"latent_dim": 3, "likelihood": "gaussian"}
    training = {"samples": 3, "binarize": "none", "lr": 0.002, "beta": 0.5, "beta_warmup": 1.0, "objective": "elbo"}
    options = [(f"--{name.replace('_', '-')}", value) for name, value in (given | network | training).items()]
    # Twice the data's folder: the last one counts, and what is stored does not depend on where we are.
    call("train", "vae", "--config", "tiny", "--out", "run", *sum(options, ()), "--data-dir", "digits", "--conditional")
    network = replace(TINY.network, **network, conditional=True)
    expected = replace(TINY, network=network, training=replace(TINY.training, **training), **given)
    stored = runs.load_config(Path("run"))
    assert stored == replace(expected, versions=stored.versions)
    assert stored.versions.keys() == {"scratchgen", "numpy", "numba", "python"}
    assert {"--config", "--out", "--resume", "--conditional", *dict(options)} == set(train_options())


@pytest.mark.parametrize("name", [None, *VAE.configs])
def test_train_numbers_the_folders_of_a_named_configuration(call, monkeypatch, name):
    started = []

    def start(config, folder):
        started.append((config, folder))
        (folder / "config.json").touch()
        return {"data": "mnist"}

    monkeypatch.setattr(runs, "start", start)
    monkeypatch.setattr(commands.train, "_report", lambda *_: None)
    monkeypatch.setattr(runs, "load_config", lambda folder: None)
    for _ in range(3):
        call("train", "vae", *(["--config", name] if name else []))
    config = VAE.configs[name or "pytorch-example"]
    base = f"runs/vae-{config.name}"
    assert started == [(config, Path(base)), (config, Path(f"{base}-2")), (config, Path(f"{base}-3"))]
    Path("my pictures").mkdir()
    call("train", "vae", *(["--config", name] if name else []), "--data", "my pictures", "--conditional")
    assert started[-1][1] == Path(f"{base}-conditional-my pictures")


def test_expectation_is_given_for_unchanged_configurations_only(monkeypatch):
    monkeypatch.setattr(VAE, "expected", {("tiny", "strokes"): "a miracle"})
    assert VAE.expectation(replace(TINY, seed=7, kernels="reference"), "strokes") == "a miracle"
    assert VAE.expectation(TINY, "mnist") is None
    for change in ({"epochs": 4}, {"patience": 9}, {"batch_size": 64}, {"name": "other"}, {"training": VAETraining()}):
        assert VAE.expectation(replace(TINY, **change), "strokes") is None
    other = replace(TINY, network=replace(TINY.network, latent_dim=3))
    assert VAE.expectation(other, "strokes") is None


def test_train_resume_with_more_epochs_stretches_the_schedule(capsys, run):
    before = outcome(run)["metrics"]
    assert cli.main(["train", "vae", "--resume", str(run), "--epochs", "5"]) == 0
    out, err = capsys.readouterr()
    assert err.startswith("3 epochs become 5: the tripling schedule is stretched")
    assert len(err.splitlines()) == 1
    assert [line[:9] for line in out.splitlines()[1:3]] == ["epoch 4/5", "epoch 5/5"]
    after = outcome(run)
    assert after["metrics"][:3] == before
    assert (len(after["metrics"]), after["summary"]["epochs"], runs.load_config(run).epochs) == (5, 5, 5)


def test_train_resume_with_a_constant_learning_rate_warns_of_nothing(call):
    config = replace(TINY, epochs=1, training=replace(TINY.training, schedule="constant"))
    runs.start(config, Path("run"))
    call("train", "vae", "--resume", "run", "--epochs", 2)


def test_train_resume_remembers_a_new_data_folder(call, run, monkeypatch, tmp_path):
    asked = []
    monkeypatch.setattr(runs, "load_dataset", lambda *arguments: asked.append(arguments) or tiny_data())
    before = outcome(run)
    call("train", "vae", "--resume", run, "--data-dir", "digits")
    assert asked == [("strokes", Path("digits"))]
    assert outcome(run) == before
    call("train", "vae", "--resume", run)
    assert asked[1] == ("strokes", tmp_path / "digits")  # it is remembered


def test_train_exits_with_130_on_ctrl_c(capsys, monkeypatch, tmp_path):
    def step(*_):
        os.kill(os.getpid(), signal.SIGINT)
        return PendingMetrics(("kl",), np.ones(1))

    monkeypatch.setattr(Capture, "__call__", step)
    assert cli.main(["train", "vae", "--config", "tiny", "--out", "a run"]) == 130
    assert capsys.readouterr().err == "stopped; continue with: scratchgen train vae --resume 'a run'\n"


def test_train_says_that_nothing_is_left_before_the_run_begins(capsys, monkeypatch, tmp_path):
    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(runs, "load_dataset", interrupted)
    assert cli.main(["train", "vae", "--config", "tiny", "--out", "run"]) == 130
    assert capsys.readouterr().err == "stopped before the run had begun; there is nothing to continue\n"
    assert not files(tmp_path)


# ---- the other commands ----


def test_sample_writes_reproducible_images_as_npy_or_png(call, trained):
    assert call("sample", trained, "--out", "a.npy") == "a.npy\n"
    call("sample", trained, "--out", "b.npy", "-n", 7)
    call("sample", trained, "--out", "c.npy", "--seed", 1)
    call("sample", trained, "--out", "d.npy")
    a, b, c, d = (np.load(f"{name}.npy") for name in "abcd")
    assert (a.shape, b.shape, a.dtype) == ((100, 784), (7, 784), np.float32)
    assert a.min() >= 0
    assert a.max() <= 1
    assert np.array_equal(a, d)
    assert not np.array_equal(a, c)
    assert a.std(axis=0).max() > 0
    call("sample", trained, "--out", "a.png", "-n", 4)
    pictures("a.png", 4)


def test_sample_writes_into_the_run_by_default(call, run):
    before = (run / "samples.png").read_bytes()
    assert call("sample", run) == f"{run / 'sampled.png'}\n"
    pictures(run / "sampled.png", 100)
    assert (run / "samples.png").read_bytes() == before  # the run's own picture


def test_reconstruct_draws_test_images_and_their_reconstructions(call, run, monkeypatch):
    before = (run / "reconstructions.png").read_bytes()
    assert call("reconstruct", run) == f"{run / 'reconstructed.png'}\n"
    pictures(run / "reconstructed.png", 40)
    assert (run / "reconstructions.png").read_bytes() == before  # the run's own picture
    drawn = []
    monkeypatch.setattr(scratchgen.figures, "save_pairs", lambda *arguments: drawn.append(arguments))
    call("reconstruct", run, "-n", 3, "--out", "three.png")
    (out, images, reconstructions, shape), (config, model) = drawn[0], runs.load_model(run)
    assert (out, shape) == (Path("three.png"), (28, 28))
    assert np.array_equal(images, VAE.as_seen(config, tiny_data().test.images, "test")[:3])
    assert set(np.unique(images)) == {0, 1}  # as the model sees pixels
    assert np.array_equal(reconstructions, VAE.reconstruct(config, model, images, tiny_data().test.labels[:3]))


@pytest.mark.parametrize("command", ["encode", "reconstruct", "evaluate"])
def test_data_dir_option_replaces_the_data_folder_of_the_run(call, run, monkeypatch, command):
    edit(run, ["data_dir"], "/the/run/s")
    asked = []
    monkeypatch.setattr(runs, "load_dataset", lambda *arguments: asked.append(arguments) or tiny_data())
    call(command, run)
    call(command, run, "--data-dir", "/mine")
    assert asked == [("strokes", Path("/the/run/s")), ("strokes", Path("/mine"))]


def test_explore_writes_the_page_of_the_trained_model(call, run):
    assert call("explore", run) == f"{run / 'explorer.html'}\n"
    assert call("explore", run, "--out", "page.html") == "page.html\n"
    assert Path("page.html").read_bytes() == (run / "explorer.html").read_bytes()
    config, model = runs.load_model(run)
    shown = VAE.explorable(config, model, tiny_data())
    assert Path("page.html").read_bytes() == scratchgen.explorer.page(config, shown, tiny_data())
    np.testing.assert_array_equal(
        shown.images, VAE.as_seen(config, tiny_data().test.images, "test")
    )  # as the model sees pixels


def test_evaluate_agrees_with_the_summary_and_obeys_its_options(call, trained):
    summary = json.loads((trained / "summary.json").read_text())["test"]
    assert json.loads(call("evaluate", trained, "--iw-samples", 20)) == summary
    few = json.loads(call("evaluate", trained, "--iw-samples", 3, "--limit", 10))
    assert few.keys() == summary.keys()
    assert (few["iw_samples"], few["nll_images"]) == (3, 10)
    all_of_them = json.loads(call("evaluate", trained, "--iw-samples", 3, "--limit", 1000))
    assert all_of_them["nll_images"] == 60
    assert json.loads(call("evaluate", trained, "--limit", 2))["iw_samples"] == recipes.vae.IW_SAMPLES


AIS_OPTIONS = ["--ais", "--limit", 6, "--chains", 3, "--steps", 4]


def test_evaluate_ais_is_of_the_pixels_that_the_likelihood_takes(call, trained):
    config, model = runs.load_model(trained)
    test, protocol = tiny_data().test, Protocol(6, 3, 4)
    for given, sigma, images, pixels in (
        ([], None, VAE.as_seen(config, tiny_data().test.images, "test"), "binarised anew"),
        (["--sigma", 0.3], 0.3, test.images, "real values"),
    ):
        found = json.loads(call("evaluate", trained, *AIS_OPTIONS, *given))
        assert pixels in found.pop("pixels")
        assert found.pop("sigma") == sigma
        rng = recipes.recipe.stream(config.seed, "final evaluation")
        assert found == evaluate_ais(vae_decoder(model, sigma), protocol, images[:6], rng)


def test_evaluate_ais_bounds_simulated_images_if_asked(call, trained):
    simulated = json.loads(call("evaluate", trained, *AIS_OPTIONS, "--simulate", 5))["simulated"]
    assert simulated["images"] == 5
    assert simulated["lower"] < simulated["upper"]


def test_evaluate_ais_of_variances_for_every_pixel_needs_a_sigma(capsys, call, tmp_path):
    runs.start(replace(TINY, epochs=1, network=replace(TINY.network, likelihood="gaussian")), tmp_path / "run")
    assert cli.main(["evaluate", str(tmp_path / "run"), "--ais"]) == 2
    assert capsys.readouterr().err.endswith("so --ais needs --sigma\n")
    assert json.loads(call("evaluate", tmp_path / "run", *AIS_OPTIONS, "--sigma", "best"))["sigma"] > 0


def test_evaluate_ais_has_the_protocol_s_defaults(call, trained, monkeypatch):
    asked = []
    monkeypatch.setattr(VAE, "evaluate_ais", lambda *arguments: asked.append(arguments[-1]) or {})
    call("evaluate", trained, "--ais")
    call("evaluate", trained, *AIS_OPTIONS, "--sigma", "best")
    assert asked == [Protocol(100, 16, 1000, None, 0), Protocol(6, 3, 4, "best")]


def test_commands_use_the_kernels_of_the_run(call, monkeypatch):
    runs.start(replace(TINY, epochs=1, kernels="reference"), Path("run"))
    used = []

    def spy(original):
        return lambda *arguments: used.append(kernels.active()) or original(*arguments)

    for name in ("sample", "encode", "reconstruct", "evaluate"):
        monkeypatch.setattr(VAE, name, spy(getattr(VAE, name)))
    for command in (["sample"], ["encode"], ["reconstruct"], ["evaluate", "--iw-samples", 2]):
        call(*command, "run")
    assert used == [kernels.SETS["reference"]] * 5  # reconstruct encodes


def test_gradcheck_prints_a_row_for_each_operation_and_kernel_set(call):
    rows = [line.split() for line in call("gradcheck", "exp", "dense").splitlines()]
    assert [(row[0], row[1], row[-1]) for row in rows[1:]] == [
        (name, kernel_set, "pass") for name in ("exp", "dense") for kernel_set in ("cpu", "reference")
    ]
    assert len(call("gradcheck", "exp", "--kernels", "reference").splitlines()) == 2


def test_gradcheck_exits_with_1_on_a_wrong_gradient(monkeypatch, capsys):
    wrong = replace(REGISTRY["exp"], backward=lambda *arguments, **_: (1.001 * arguments[2],))
    monkeypatch.setitem(REGISTRY, "exp", wrong)
    assert cli.main(["gradcheck", "exp"]) == 1
    assert "FAIL" in capsys.readouterr().out


def test_data_show_counts_images_and_draws_digits(call):
    out = call("data", "show", "--data", "strokes")
    assert "strokes: 600 training and 60 test images" in out
    assert call("data") == out
    assert str(np.bincount(tiny_data().train.labels).tolist()) in out
    assert call("data", "show", "--out", "digits.png", "--data-dir", "digits").endswith("digits.png\n")
    pictures("digits.png", 100)


def test_data_fetch_prints_the_folder_of_mnist(call, monkeypatch):
    monkeypatch.setattr(commands.data, "fetch_mnist", lambda folder, which: folder or Path("the cache"))
    assert call("data", "fetch") == "the cache\n"
    assert call("data", "fetch", "--data-dir", "digits") == "digits\n"


def parsers(parser):
    """A parser and those of its subcommands."""
    yield parser
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for below in action.choices.values():
                yield from parsers(below)


def test_help_explains_every_option_and_its_default():
    for parser in parsers(cli._parser()):
        for action in parser._actions:
            if isinstance(action, argparse._SubParsersAction) or action.dest in ("help", "version"):
                continue
            assert action.help, (parser.prog, action.dest)
            assert action.dest == "run" or action.help.endswith(")"), (parser.prog, action.dest)


@pytest.mark.parametrize("arguments", [["--help"], ["train", "vae", "--help"], ["sample", "-h"], ["--version"]])
def test_help_and_version_exit_with_0(arguments, capsys):
    with pytest.raises(SystemExit) as end:
        cli.main(arguments)
    assert end.value.code == 0
    assert capsys.readouterr().out.startswith(("usage: scratchgen", __version__))


# ---- the program ----


def program(*arguments):
    command = [sys.executable, "-m", "scratchgen", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=100, check=False)


def test_program_prints_its_version_and_one_line_for_a_mistake(tmp_path):
    version = program("--version")
    assert (version.returncode, version.stdout, version.stderr) == (0, f"{__version__}\n", "")
    wrong = program("train", "vae", "--epochs", "0", "--out", "run")
    assert (wrong.returncode, wrong.stdout) == (2, "")
    assert wrong.stderr.startswith("scratchgen: argument --epochs: '0' is not a positive integer")
    assert len(wrong.stderr.splitlines()) == 1
    assert not files(tmp_path)


def test_train_reports_divergence_in_one_line(tmp_path):
    """In a process of its own, for pytest would keep NumPy's warnings from standard error."""
    wrong = drive("train", "vae", "--config", "tiny", "--lr", "1e30", "--out", tmp_path / "run")
    assert (wrong.returncode, len(wrong.stdout.splitlines())) == (2, 1)  # that training begins
    assert wrong.stderr.startswith("scratchgen: training stopped in epoch 1, step 2: ")
    assert len(wrong.stderr.splitlines()) == 1


@pytest.mark.parametrize("arguments", [["gradcheck", "exp"], ["--version"]])
def test_program_exits_quietly_when_its_output_pipe_is_closed(monkeypatch, arguments):
    monkeypatch.delenv("PYTHONUNBUFFERED", raising=False)  # then argparse itself would meet the error, and pass it over
    reader, writer = os.pipe()
    os.close(reader)
    command = [sys.executable, "-m", "scratchgen", *arguments]
    left = subprocess.run(command, stdout=writer, stderr=subprocess.PIPE, timeout=100, check=False)
    os.close(writer)
    assert (left.returncode, left.stderr) == (141, b"")


def test_import_is_quick_and_loads_no_heavy_packages():
    code = "import sys, time, numba; t = time.process_time(); import scratchgen; print(time.process_time() - t); "
    code += "print({'matplotlib', 'tqdm', 'pooch', 'requests', 'safetensors'} & sys.modules.keys())"
    outputs = [subprocess.check_output([sys.executable, "-c", code], text=True).splitlines() for _ in range(3)]
    assert statistics.median(float(seconds) for seconds, _ in outputs) < 0.3
    assert {loaded for _, loaded in outputs} == {"set()"}
