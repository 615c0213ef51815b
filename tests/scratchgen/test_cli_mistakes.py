"""Every mistake at the command line: one line, status 2 and nothing written."""

import errno
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from helpers import TINY, edit, files, outcome, tiny_data, train_options

import kernels
import scratchgen.data
import scratchgen.figures
from scratchgen import checkpoint, cli, commands, runs
from scratchgen.data.dataset import Dataset, Split
from scratchgen.data.mnist import SHA256
from scratchgen.errors import UserError
from scratchgen.tasks.vae import VAETask

pytestmark = pytest.mark.usefixtures("tiny")


@pytest.fixture
def mistake(capsys, tmp_path):
    """Run a command that must refuse and leave every file as it was; returns its line on standard error."""

    def mistake(*arguments):
        capsys.readouterr()
        before = files(tmp_path)
        status = cli.main([str(argument) for argument in arguments])
        err = capsys.readouterr().err
        assert status == 2
        assert err.startswith("scratchgen: ")
        assert err.endswith("\n")
        assert len(err.splitlines()) == 1
        assert files(tmp_path) == before
        return err

    return mistake


# ---- what this machine lacks ----


@pytest.mark.parametrize("command", ["train vae", "train gan", "train aae", "profile vae", "gradcheck exp"])
def test_kernels_option_refuses_kernels_that_cannot_run_here(command, mistake, monkeypatch):
    def find(name):
        raise kernels.Unavailable("the kernels for cuda need a GPU")

    monkeypatch.setattr(kernels, "find", find)
    assert mistake(*command.split(), "--kernels", "cuda") == "scratchgen: the kernels for cuda need a GPU\n"


# ---- mistakes in what was typed ----


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ("", "command"),
        ("train", "model"),
        ("train flow", "'flow'"),
        ("--nonsense", "command"),
        ("train vae --nonsense", "--nonsense"),
        ("train vae --epochs 0", "'0'"),
        ("train vae --epochs -1", "'-1'"),
        ("train vae --epochs 1.5", "'1.5'"),
        ("train vae --epochs ten", "'ten'"),
        ("train vae --epochs", "--epochs"),
        ("train vae --batch-size 0", "--batch-size"),
        ("train vae --latent-dim 0", "--latent-dim"),
        ("train vae --latent-dim 99999999999999999999", "--latent-dim"),
        ("train vae --samples 0", "--samples"),
        ("train vae --seed -1", "--seed"),
        ("train vae --seed 0x1", "--seed"),
        ("train vae --lr -1", "scratchgen: lr > 0 is needed\n"),
        ("train vae --lr 0", "scratchgen: lr > 0 is needed\n"),
        *[(f"train vae --{name} {value}", f"--{name}") for name in ("lr", "beta", "beta-warmup") for value in
          ("nan", "inf", "-inf", "1e999", "much")],
        ("train vae --beta -1", "beta >= 0"),
        ("train vae --beta-warmup -0.5", "beta_warmup >= 0"),
        ("train vae --objective iwae --beta 2", "the objective iwae takes no beta"),
        ("train vae --objective poisson", "'poisson'"),
        ("train vae --patience 0", "'0' is not a positive integer"),
        ("train aae --patience x", "--patience"),
        ("train gan --log xlsx", "'xlsx'"),
        ("train vae --config unknown", "'unknown'"),
        ("train vae --likelihood poisson", "'poisson'"),
        ("train vae --binarize often", "'often'"),
        ("train vae --kernels fortran", "'fortran'"),
        ("train vae --data imagenet", "'imagenet'"),
        ("train vae --resume nowhere", "nowhere"),
        ("sample", "run"),
        ("sample nowhere", "nowhere"),
        ("sample nowhere -n 0", "'0'"),
        ("sample nowhere --seed x", "'x'"),
        *[(f"sample nowhere --digit {digit}", f"'{digit}' is not a digit 0 to 9") for digit in ("10", "-1", "x", "٣")],
        ("sample nowhere --digit", "--digit"),
        ("train aae --conditional", "--conditional"),
        ("walk nowhere", "nowhere"),
        ("walk nowhere --seconds 0", "'0'"),
        ("walk nowhere --seconds 1.5", "'1.5'"),
        ("walk nowhere --seconds 301", "at most 300 seconds, not 301"),
        ("walk nowhere --digit 10", "'10' is not a digit"),
        ("reconstruct nowhere", "nowhere"),
        ("reconstruct nowhere -n -3", "'-3'"),
        ("reconstruct nowhere -n 3 --image a.png", "not allowed with"),
        ("encode nowhere", "nowhere"),
        ("encode nowhere --split all", "'all'"),
        ("encode nowhere --split train --image a.png", "not allowed with"),
        ("encode nowhere --image", "--image"),
        ("encode nowhere --image a.png --background white", "'white'"),
        ("explore", "run"),
        ("explore nowhere", "nowhere"),
        ("export nowhere", "--to"),
        ("export nowhere --to jax", "'jax'"),
        ("export nowhere --to torch", "nowhere"),
        ("export nowhere --to numpy", "nowhere"),
        ("evaluate nowhere", "nowhere"),
        ("evaluate nowhere --iw-samples 0", "--iw-samples"),
        ("evaluate nowhere --limit 0", "--limit"),
        *[(f"evaluate nowhere --{name} 2", f"--{name} is for") for name in ("chains", "steps", "sigma", "simulate")],
        ("evaluate nowhere --ais --iw-samples 3", "--iw-samples"),
        ("evaluate nowhere --ais --chains 1", "chains >= 2"),
        ("evaluate nowhere --ais --steps 0", "--steps"),
        ("evaluate nowhere --ais --simulate 0", "--simulate"),
        *[(f"evaluate nowhere --ais --sigma {sigma}", "--sigma") for sigma in ("0", "-1", "nan", "inf", "worst")],
        ("gradcheck unknown", "'unknown'"),
        ("gradcheck exp --kernels unknown", "'unknown'"),
        ("data show --data imagenet", "'imagenet'"),
        ("data burn", "'burn'"),
    ],
)  # fmt: skip
def test_command_line_names_the_wrong_argument(mistake, arguments, named):
    assert named in mistake(*arguments.split())


@pytest.mark.parametrize("command", ["train vae", "profile gan", "sample run", "gradcheck", "data", "data show"])
def test_unknown_options_are_named_with_the_help_of_their_command(mistake, command):
    line = mistake(*command.split(), "--nonsense")
    prog = " ".join(part for part in command.split() if part != "run")
    assert line.strip() == f"scratchgen: unrecognized arguments: --nonsense (see: scratchgen {prog} --help)"


def test_command_line_reports_an_argument_of_two_lines_in_one(mistake):
    assert "two lines" in mistake("sample", "two\nlines")
    assert "two lines" in mistake("train", "vae", "two\nlines")


@pytest.mark.parametrize("option", sorted({*train_options()} - {"--resume", "--epochs", "--data-dir"}))
def test_train_resume_refuses_other_options(mistake, run, option):
    values = {
        "--config": "iwae",
        "--likelihood": "gaussian",
        "--objective": "iwae",
        "--binarize": "none",
        "--kernels": "cpu",
        "--data": "auto",
        "--log": "csv",
    }
    value = [] if option == "--conditional" else [values.get(option, "1")]
    assert "only --epochs and --data-dir" in mistake("train", "vae", "--resume", run, option, *value)


def test_train_resume_refuses_fewer_epochs(mistake, run):
    assert "run of 3 epochs" in mistake("train", "vae", "--resume", run, "--epochs", 2)


def test_train_refuses_a_folder_that_holds_a_run(mistake, run):
    assert "holds a run already" in mistake("train", "vae", "--config", "tiny", "--out", run)


# ---- folders and files that are not what they should be ----


@pytest.mark.parametrize("out", ["file", "file/run", "n" * 300, "file/deep/run"])
def test_train_refuses_a_folder_it_cannot_write(mistake, out):
    Path("file").write_text("a file")
    assert "give another --out" in mistake("train", "vae", "--config", "tiny", "--out", out)


UNWRITABLE = ["file/a.png", "nowhere/a.png", "n" * 300 + ".png", "folder.png", "a.txt", "a"]


@pytest.mark.parametrize(
    ("command", "out"),
    [(command, out) for command in ("sample", "reconstruct", "data show") for out in UNWRITABLE]
    + [("walk --seconds 1", out.replace("png", "gif")) for out in UNWRITABLE]
    + [("export --to numpy", out.replace("png", "npz")) for out in UNWRITABLE]
    + [("export --to torch", "file"), ("export --to torch", "file/folder"), ("export --to torch", "n" * 300)]
    + [("walk", "a.png"), ("sample", "file/a.npy"), ("sample", "folder.npy"), ("reconstruct", "a.npy")]
    + [("explore", out.replace("png", "html")) for out in UNWRITABLE]
    + [("encode", out.replace("png", "npz")) for out in UNWRITABLE]
    + [("explore", "a.png"), ("encode", "a.npy")],
)
def test_out_option_refuses_a_file_that_cannot_be_written(mistake, trained, command, out):
    Path("file").write_text("a file")
    Path("folder.png").mkdir()
    Path("folder.npy").mkdir()
    Path("folder.gif").mkdir()
    Path("folder.npz").mkdir()
    Path("folder.html").mkdir()
    assert out in mistake(*command.split(), *([] if command == "data show" else [trained]), "--out", out)


@pytest.mark.parametrize("error", [OSError(errno.ENOSPC, "No space left on device"), MemoryError("Unable to allocate")])
def test_train_reports_a_full_disk_or_memory(capsys, monkeypatch, error):
    def fail(*_):
        raise error

    monkeypatch.setattr(VAETask, "train_step", fail)
    assert cli.main(["train", "vae", "--config", "tiny", "--out", "run"]) == 2
    assert str(error) in capsys.readouterr().err


READING = ["train vae --resume", "sample", "walk", "encode", "reconstruct", "explore", "evaluate", "export --to numpy"]


@pytest.mark.parametrize("command", READING)
@pytest.mark.parametrize(
    ("name", "damage"),
    [
        ("config.json", lambda content: b""),
        ("config.json", lambda content: content[: len(content) // 2]),
        ("config.json", lambda content: b"[1, 2]"),
        ("config.json", lambda content: content.replace(b'"format": 2', b'"format": 3')),
        ("config.json", lambda content: b"\xff\xfe" + content),
        ("config.json", lambda content: None),
        ("checkpoint.safetensors", lambda content: b""),
        ("checkpoint.safetensors", lambda content: content[:-1]),
        ("checkpoint.safetensors", lambda content: content[:-1] + bytes([content[-1] ^ 1])),
        ("checkpoint.safetensors", lambda content: content.replace(b'"format":"2"', b'"format":"3"')),
        ("checkpoint.safetensors", lambda content: bytes(1000)),
    ],
    ids=["empty", "half", "list", "3", "encoding", "missing", "no bytes", "cut", "flipped", "format 3", "zeros"],
)
def test_commands_refuse_a_damaged_run(mistake, run, command, name, damage):
    content = damage((run / name).read_bytes())
    (run / name).unlink()
    if content is not None:
        (run / name).write_bytes(content)
    assert str(run) in mistake(*command.split(), run)


def test_commands_ask_to_train_first_without_a_checkpoint(mistake, call, run, trained):
    (run / "checkpoint.safetensors").unlink()
    for command in READING[1:]:
        assert "train first" in mistake(*command.split(), run)
    assert "has finished epochs, but its checkpoint.safetensors is gone" in mistake("train", "vae", "--resume", run)
    (run / "metrics.jsonl").unlink()
    call("train", "vae", "--resume", run)  # it was stopped before its first one, and starts again
    assert outcome(run) == outcome(trained)


@pytest.mark.parametrize("name", ["annealed-chains", "annealing-steps"])
def test_evaluate_anneals_to_log_z_of_boltzmann_machines_only(mistake, run, name):
    assert f"--{name} is for RBMs, DBNs and DBMs" in mistake("evaluate", run, f"--{name}", 9)


def test_train_resume_adds_no_epochs_when_refused(mistake, run):
    (run / "checkpoint.safetensors").write_bytes(b"")
    mistake("train", "vae", "--resume", run, "--epochs", 9)


EDITS = [
    ("epochs", 0), ("epochs", 2.5), ("epochs", "3"), ("epochs", None), ("epochs", ...), ("batch_size", 0.5),
    ("seed", -1), ("seed", 1.5), ("data", "imagenet"), ("data", ["mnist"]), ("data_dir", 5), ("kernels", "fortran"),
    ("patience", 0), ("patience", 1.5),
    ("patience", True), ("log", "xlsx"), ("log", 1),
    ("versions", 1), ("name", 3), ("unknown", 1), ("format", "one"), ("network", []), ("network", None),
    ("training", ...), ("training", "lr"), ("network.latent_dim", 3), ("network.latent_dim", 2.0),
    ("network.latent_dim", 0), ("network.latent_dim", 2**70), ("network.input_dim", 100),
    ("network.encoder_hidden", 16), ("network.encoder_hidden", [17]), ("network.encoder_hidden", ["16"]),
    ("network.decoder_hidden", []), ("network.activation", "step"), ("network.likelihood", "poisson"),
    ("network.likelihood", "gaussian"), ("network.initializer", "ones"), ("network.sigma", "wide"),
    ("network.sigma", -1), ("network.depth", 3),
    ("training.lr", 0), ("training.lr", float("inf")), ("training.lr", "fast"), ("training.beta", float("nan")),
    ("training.samples", 1.5), ("training.schedule", "sawtooth"), ("training.binarize", True),
    ("training.output_bias", "no"), ("training.lr", 10**400), ("network.latent_dim", 10**400), ("epochs", 0),
    # What fits in every shape and would be another run.
    ("seed", 1), ("batch_size", 64), ("data", "mnist"), ("kernels", "reference"), ("network.activation", "tanh"),
    ("network.initializer", "fan_in_uniform"), ("network.sigma", 0.5), ("training.lr", 2e-3), ("training.beta", 2.0),
    ("training.samples", 1), ("training.schedule", "cosine"), ("training.binarize", "static"),
    ("training.output_bias", False), ("training.monte_carlo_kl", True),
]  # fmt: skip


@pytest.mark.parametrize(("entry", "value"), EDITS)
def test_commands_refuse_an_edited_config(mistake, run, entry, value):
    edit(run, entry.split("."), value)
    mistake("train", "vae", "--resume", run)
    if entry != "network.input_dim":
        mistake("sample", run)


def test_config_accepts_integers_for_floats(call):
    runs.start(replace(TINY, epochs=1, training=replace(TINY.training, beta_warmup=1)), Path("run"))
    call("sample", "run", "--out", "a.npy")


@pytest.mark.parametrize(
    ("change", "need"),
    [({"epochs": 0}, "epochs >= 1"), ({"batch_size": 0}, "batch_size >= 1"), ({"seed": -1}, "seed >= 0")],
)
def test_run_config_names_only_the_wrong_setting(change, need):
    with pytest.raises(ValueError, match=f"^{need} is needed$"):
        replace(TINY, **change)


# ---- data ----


@pytest.fixture
def real_data(monkeypatch):
    """Load what is asked for, not the tiny data."""
    for module in (runs, commands.data, commands.engine):
        monkeypatch.setattr(module, "load_dataset", scratchgen.data.load_dataset)


ASKING = ["train vae --out run", "data show", "data show --out digits.png"]


@pytest.mark.parametrize("command", ASKING)
@pytest.mark.parametrize("source", ["mnist", "auto"])
@pytest.mark.parametrize("present", [[], list(SHA256)[:3]], ids=["none", "three"])
@pytest.mark.parametrize("variable", [False, True])
def test_commands_name_missing_files_of_mnist(mistake, monkeypatch, real_data, command, source, present, variable):
    Path("digits").mkdir()
    for name in present:
        Path("digits", name).write_bytes(b"")
    if variable:
        monkeypatch.setenv("SCRATCHGEN_DATA", "digits")
    line = mistake(*command.split(), "--data", source, *([] if variable else ["--data-dir", "digits"]))
    assert "digits" in line
    assert "t10k-labels-idx1-ubyte" in line
    assert ("SCRATCHGEN_DATA" if variable else "--data-dir") in line


@pytest.mark.parametrize("command", ASKING)
@pytest.mark.parametrize(
    "content", [b"", b"\0\0\x08\3" + bytes(12), b"\x1f\x8b\x08\0 no gzip", b"<html>\n404\n</html>"]
)
def test_commands_refuse_damaged_files_of_mnist(mistake, real_data, command, content):
    Path("digits").mkdir()
    for name in SHA256:
        Path("digits", name).write_bytes(content)
    assert "train-images-idx3-ubyte" in mistake(*command.split(), "--data", "mnist", "--data-dir", "digits")


def test_commands_name_the_missing_data_folder_of_a_run(mistake, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(runs, "load_dataset", lambda *_: replace(tiny_data(), name="mnist"))
        runs.start(replace(TINY, epochs=1, data_dir="/nowhere/digits"), Path("run"))
    monkeypatch.setattr(runs, "load_dataset", scratchgen.data.load_dataset)
    for command in ("train vae --resume", "encode", "reconstruct", "explore", "evaluate"):
        line = mistake(*command.split(), "run")
        assert line.startswith("scratchgen: run/config.json names the data folder '/nowhere/digits'")
        assert "give its folder with --data-dir" in line
        line = mistake(*command.split(), "run", "--data-dir", "elsewhere")
        assert line.startswith("scratchgen: --data-dir 'elsewhere' is not a folder")


def test_data_show_uses_strokes_when_mnist_cannot_be_downloaded(capsys, real_data, monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))

    def fetch(**_):
        assert capsys.readouterr().err == "MNIST not found: downloading 11 MB into your cache\n"
        raise UserError("no mirror gave a thing")

    monkeypatch.setattr(scratchgen.data.mnist, "fetch_mnist", fetch)
    monkeypatch.setattr(scratchgen.data, "load_strokes", tiny_data)
    assert cli.main(["data", "show"]) == 0
    out, err = capsys.readouterr()
    assert out.startswith("strokes: ")
    assert err == "using strokes, digits drawn by a program, instead of MNIST: no mirror gave a thing\n"


@pytest.mark.parametrize("pixel", [np.nan, np.inf, -0.01, 255.0])
def test_commands_refuse_pixels_that_are_no_grey_levels(mistake, monkeypatch, pixel):
    def load(*_):
        images = tiny_data().train.images.copy()
        images[7, 300] = pixel
        return Dataset("strokes", Split(images, tiny_data().train.labels), tiny_data().test)

    for module in (runs, commands.data, commands.engine):
        monkeypatch.setattr(module, "load_dataset", load)
    for command in ASKING:
        assert "image 7" in mistake(*command.split())


def test_explore_refuses_a_model_that_cannot_be_shown(mistake, run, monkeypatch):
    arrays, progress = checkpoint.load_checkpoint(run / "checkpoint.safetensors")
    arrays["model.decoder_out.bias"][3] = np.nan
    checkpoint.save_checkpoint(run / "checkpoint.safetensors", arrays, progress)
    assert "NaN" in mistake("explore", run)


@pytest.mark.parametrize("command", ["sample", "reconstruct"])
def test_sample_and_reconstruct_refuse_more_images_than_a_picture_holds(mistake, trained, command):
    assert "at most 1000 images, not 1001" in mistake(command, trained, "-n", 1001)
