"""``scratchgen export``: PyTorch's models compute what ours do, and NumPy's archives hold our parameters."""

import importlib.util
import os
import subprocess
import sys
from dataclasses import replace
from itertools import product
from pathlib import Path

import numpy as np
import pytest
from helpers import CONVOLUTIONAL, TINIES, TINY_DCGAN, TINY_GAN, tiny_data

from scratchgen import runs
from scratchgen.errors import UserError
from scratchgen.export import to_pytorch, write_pytorch
from scratchgen.models.aae import LABELS_FOR, POSTERIORS
from scratchgen.models.labels import one_hot
from scratchgen.models.vae import LIKELIHOODS
from scratchgen.nn import ACTIVATIONS, BatchNorm, MaxPool2d, evaluating
from scratchgen.recipes import RECIPES
from scratchgen.tensor import Tensor

IMAGES = tiny_data().test.images[:20]
LABELS = tiny_data().test.labels[:20]
CONV = CONVOLUTIONAL


def networks(config, **changes):
    return replace(config, network=replace(config.network, **changes))


SIDES = {"dense": {}, "conv": {"encoder_channels": (3, 2), "decoder_channels": (2, 3)}}
VAES = {
    f"vae {likelihood} {side} {'with classes' if conditional else ''}": networks(
        TINIES["vae"], likelihood=likelihood, conditional=conditional, activation="tanh", **SIDES[side]
    )
    for likelihood, side, conditional in product(LIKELIHOODS, SIDES, (False, True))
}
VAES |= {f"vae of {each}": networks(TINIES["vae"], activation=each) for each in ACTIVATIONS}
VAES |= {
    "vae with a sigmoid for its mean": networks(TINIES["vae"], likelihood="gaussian", mean_activation="sigmoid"),
    "vae without hidden layers": networks(TINIES["vae"], encoder_hidden=(), decoder_hidden=()),
    "convolutional vae without them": networks(CONV["vae"], encoder_hidden=(), decoder_hidden=()),
}
GANS = {
    f"gan {side}, {pack} together {'with classes' if conditional else ''}": networks(
        TINY_GAN if side == "dense" else replace(TINY_GAN, network=TINY_DCGAN), pack=pack, conditional=conditional
    )
    for side, pack, conditional in product(SIDES, (1, 2), (False, True))
}
GANS |= {
    "gan without batch norm": networks(CONV["gan"], batch_norm=False, discriminator_batch_norm=False),
    "gan with hidden layers and dropout": networks(
        CONV["gan"], generator_hidden=(8, 9), discriminator_hidden=(7,), input_dropout=0.2, hidden_dropout=0.5
    ),
    "gan with maxout on images": networks(CONV["gan"], discriminator="maxout", pieces=3, discriminator_hidden=(7, 5)),
    "wasserstein": CONV["wasserstein"],
}
AAES = {
    f"aae {posterior} {side}, labels for the {labels_for}, {prior}": networks(
        TINIES["aae"], posterior=posterior, labels_for=labels_for, prior=prior, noise_dim=3, **SIDES[side]
    )
    for posterior, side, (labels_for, prior) in product(
        POSTERIORS, SIDES, [*((each, "gaussian") for each in LABELS_FOR), ("discriminator", "mixture")]
    )
}
AAES |= {
    f"aae {side} with batch norm": networks(
        TINIES["aae"], labels_for="encoder", batch_norm=True, hidden_noise=0.1, **SIDES[side]
    )
    for side in SIDES
}
AAES |= {
    f"aae with heads, labels for the {each}": networks(TINIES["aae"], labels_for=each, head_distance=1.0)
    for each in ("decoder", "encoder")
}
OF_FIVE = {
    "vae of five classes": networks(TINIES["vae"], conditional=True, classes=5),
    "gan of five classes": networks(replace(TINY_GAN, network=TINY_DCGAN), conditional=True, classes=5),
    "aae of five classes": networks(TINIES["aae"], labels_for="encoder", classes=5),
    "mixture of five classes": networks(TINIES["aae"], labels_for="discriminator", prior="mixture", classes=5),
}
EVERY = VAES | GANS | AAES | OF_FIVE


def random_model(config):
    """A model with random parameters, also those that begin at 0 or 1, and averages as if it had been trained."""
    model, rng = RECIPES[config.model].build(config), np.random.default_rng(0)
    for parameter in model.parameters():
        parameter.write((parameter.data + 0.3 * rng.standard_normal(parameter.shape)).astype(np.float32))
    for layer in model.modules():
        if isinstance(layer, BatchNorm):
            layer.mean.write(rng.standard_normal(layer.mean.shape, dtype=np.float32))
            layer.variance.write(rng.uniform(0.5, 2, layer.variance.shape).astype(np.float32))
    model.eval()
    return model


def load(folder):
    """The model that ``model.py`` in a folder loads."""
    spec = importlib.util.spec_from_file_location("model", folder / "model.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.load()


def assert_equal(theirs, ours):
    theirs, ours = (each if isinstance(each, tuple) else (each,) for each in (theirs, ours))
    assert len(theirs) == len(ours)
    for their, our in zip(theirs, ours, strict=True):
        assert tuple(their.shape) == our.shape
        assert our.data.std() > 1e-3
        scale = max(1, np.abs(our.data).max())
        np.testing.assert_allclose(their.numpy() / scale, our.data / scale, rtol=0, atol=1e-5)


@pytest.mark.parametrize("name", EVERY)
def test_pytorch_computes_the_same(name, tmp_path):
    torch = pytest.importorskip("torch")
    config = EVERY[name]
    model, rng = random_model(config), np.random.default_rng(1)
    write_pytorch(tmp_path, model)
    twin = load(tmp_path)
    assert not twin.training
    z = rng.standard_normal((20, config.network.latent_dim), dtype=np.float32)
    y = one_hot(LABELS % config.network.classes, config.network.classes, np.float32)
    kind = config.model
    takes_y = model.decodes_classes if kind == "aae" else config.network.conditional
    beside = [y] if takes_y else []
    calls = {
        "vae": [("encode", [IMAGES, *beside]), ("decode", [z, *beside])],
        "gan": [("generate", [z, *beside]), ("discriminate", [IMAGES, *beside])],
        "aae": [("decode", [z, *beside])],
    }[kind]
    with evaluating(model), torch.no_grad():
        for method, arrays in calls:
            theirs = getattr(twin, method)(*map(torch.from_numpy, arrays))
            ours = getattr(model, {"vae decode": "mean", "aae decode": "mean"}.get(f"{kind} {method}", method))
            if kind == "vae" and method == "decode" and config.network.likelihood == "gaussian":
                ours = model.decode
            assert_equal(theirs, ours(*map(Tensor, arrays)))
        if kind == "aae":
            compare_codes(torch, twin, model, config, rng, z)


def compare_codes(torch, twin, model, config, rng, z):
    """Compare the encoders and discriminators of adversarial autoencoders."""
    x = torch.from_numpy(IMAGES)
    posterior = config.network.posterior
    noise = None
    if posterior == "universal":
        drawn = rng.standard_normal((20, 3), dtype=np.float32)
        found, noise = twin.encode(x, torch.from_numpy(drawn)), Tensor(drawn)
    else:
        found = twin.encode(x)
    found = found if isinstance(found, tuple) else (found,)
    if posterior == "gaussian":
        drawn = rng.standard_normal(z.shape, dtype=np.float32)
        mu, logvar, *rest = found
        found, noise = (mu + torch.exp(logvar / 2) * torch.from_numpy(drawn), *rest), Tensor(drawn)
    codes, classes = model.encode(Tensor(IMAGES), noise)
    assert_equal(tuple(found), (codes,) if classes is None else (codes, classes))
    classes = config.network.classes
    y = one_hot(LABELS % classes, classes, np.float32, unlabelled=True) if model.regional else None
    given = [z] if y is None else [z, y]
    theirs = twin.discriminate(*map(torch.from_numpy, given))
    assert_equal(theirs, model.discriminator(model.beside_labels(Tensor(z), None if y is None else Tensor(y))))
    if config.network.labels_for == "encoder":
        y = one_hot(LABELS % classes, classes, np.float32)
        assert_equal(twin.class_discriminator(torch.from_numpy(y)), model.class_discriminator(Tensor(y)))


@pytest.mark.parametrize("name", ["vae", "gan", "aae"])
def test_source_is_short_and_readable(name):
    for config in (RECIPES[name].configs | {"conv": CONV[name]}).values():
        source, _ = to_pytorch(RECIPES[name].build(config))
        lines = source.splitlines()
        assert len(lines) < 90
        assert max(map(len, lines)) <= 120
        assert not any(line != line.rstrip() for line in lines)
        formatted = subprocess.run(
            [sys.executable, "-m", "ruff", "format", "--line-length", "120", "-"],
            input=source, capture_output=True, text=True, check=True,
        )  # fmt: skip
        assert formatted.stdout == source


def test_to_pytorch_refuses_layers_without_a_counterpart():
    model = RECIPES["vae"].build(TINIES["vae"])
    model.encoder.layers.append(MaxPool2d(2))
    with pytest.raises(TypeError, match="MaxPool2d has no counterpart"):
        to_pytorch(model)


# ---- the command ----


@pytest.mark.usefixtures("tiny")
def test_export_to_torch_writes_a_folder_that_draws_what_the_run_s_decoder_does(call, run):
    torch = pytest.importorskip("torch")
    assert call("export", run, "--to", "torch") == f"{run / 'pytorch' / 'model.py'}\n"
    assert sorted(os.listdir(run / "pytorch")) == ["model.py", "weights.safetensors"]
    config, model = runs.load_model(run)
    z = np.random.default_rng(0).standard_normal((7, config.network.latent_dim), dtype=np.float32)
    with torch.no_grad():
        drawn = load(run / "pytorch").decode(torch.from_numpy(z))
    np.testing.assert_allclose(drawn.numpy(), model.mean(Tensor(z)).data, atol=1e-5)
    call("export", run, "--to", "torch")  # over its own files


@pytest.mark.usefixtures("tiny")
def test_export_of_a_gan_has_the_averaged_generator(call, tmp_path):
    torch = pytest.importorskip("torch")
    runs.start(replace(TINIES["gan"], epochs=1), tmp_path / "run")
    call("export", "run", "--to", "torch", "--out", "deep/er")
    call("export", "run", "--to", "numpy")
    _, model = runs.load_model(tmp_path / "run")
    z = np.random.default_rng(0).standard_normal((5, 3), dtype=np.float32)
    with torch.no_grad(), evaluating(model):
        drawn = load(tmp_path / "deep/er").generate(torch.from_numpy(z))
        np.testing.assert_allclose(drawn.numpy(), model.generate(Tensor(z)).data, atol=1e-5)
    assert_same_arrays(tmp_path / "run/weights.npz", model)


def assert_same_arrays(path, model):
    with np.load(path) as archive:
        state = model.state_dict()
        assert set(archive) == set(state)
        for name, array in state.items():
            assert archive[name].dtype == array.dtype
            assert np.array_equal(archive[name], array)


@pytest.mark.usefixtures("tiny")
def test_export_to_numpy_writes_the_parameters_that_load_again(call, trained):
    assert call("export", trained, "--to", "numpy", "--out", "a.npz") == "a.npz\n"
    config, model = runs.load_model(trained)
    assert_same_arrays("a.npz", model)
    other = RECIPES["vae"].build(replace(config, seed=5))
    with np.load("a.npz") as archive:
        other.load_state_dict(archive)
    assert np.array_equal(other.encoder_mu.weight.data, model.encoder_mu.weight.data)


@pytest.mark.usefixtures("tiny")
def test_export_needs_no_torch(trained, tmp_path):
    code = (
        "import sys; sys.modules['torch'] = None; from scratchgen.cli import main; "
        f"sys.exit(main(['export', {str(trained)!r}, '--to', 'torch', '--out', 'here']))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize(
    "files", [{"model.py": "somebody's"}, {"weights.safetensors": "somebody's"}], ids=lambda f: next(iter(f))
)
def test_write_pytorch_keeps_the_files_of_others(tmp_path, files):
    for name, content in files.items():
        (tmp_path / name).write_text(content)
    with pytest.raises(UserError, match="of another kind; give another --out"):
        write_pytorch(tmp_path, RECIPES["vae"].build(TINIES["vae"]))
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == files


@pytest.mark.parametrize("out", ["file", "file/run", "n" * 300])
def test_write_pytorch_says_where_it_cannot_write(tmp_path, monkeypatch, out):
    monkeypatch.chdir(tmp_path)
    Path("file").write_text("a file")
    with pytest.raises(UserError, match=r"cannot be written .*; give another --out"):
        write_pytorch(Path(out), RECIPES["vae"].build(TINIES["vae"]))
    assert os.listdir() == ["file"]
