"""Pictures of one's own through trained runs: ``encode`` and ``reconstruct --image``."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from helpers import TINIES, TINY, tiny_data
from own_helpers import write_pictures
from PIL import Image

import scratchgen.data
import scratchgen.figures
from scratchgen import cli, recipes, runs
from scratchgen.data.pictures import centred, digit_of
from scratchgen.models.aae import AAEConfig
from scratchgen.recipes import RECIPES
from scratchgen.tasks.aae import AAETraining

pytestmark = pytest.mark.usefixtures("tiny")

VAE = RECIPES["vae"]


@pytest.fixture
def start():
    """Train a tiny run of an epoch; returns its configuration and its model."""

    def start(model="vae", out="run", **network):
        config = replace(TINIES[model], epochs=1, network=replace(TINIES[model].network, **network))
        runs.start(config, Path(out))
        return runs.load_model(Path(out))

    return start


@pytest.fixture
def said(capsys):
    """Run a command that succeeds; returns what it says on standard error."""

    def said(*arguments):
        capsys.readouterr()
        assert cli.main([str(each) for each in arguments]) == 0
        return capsys.readouterr().err

    return said


@pytest.fixture
def refused(capsys):
    """The line of a command that must refuse, and leaves no file behind."""

    def refused(*arguments):
        before = set(Path().rglob("*"))
        capsys.readouterr()
        assert cli.main([str(each) for each in arguments]) == 2
        (line,) = capsys.readouterr().err.splitlines()[-1:]
        assert set(Path().rglob("*")) == before
        return line

    return refused


def digit(place=0):
    return tiny_data().test.images[place].reshape(28, 28)


def save(name, levels, mode="L"):
    """Write grey levels in [0, 1] as a picture."""
    Image.fromarray(np.rint(255 * levels).astype(np.uint8)).convert(mode).save(name)
    return name


def large(levels):
    return np.pad(np.kron(levels, np.ones((6, 6))), ((20, 40), (70, 10)))


# ---- the images of the data ----


@pytest.mark.parametrize("split", ["train", "test"])
def test_encode_writes_the_posteriors_of_a_vae(call, start, split):
    config, model = start()
    assert call("encode", "run", "--split", split, "--out", "a.npz") == "a.npz\n"
    part = getattr(tiny_data(), split)
    with np.load("a.npz") as codes:
        assert set(codes) == {"codes", "logvar", "labels", "classes"}
        np.testing.assert_array_equal(codes["labels"], part.labels)
        assert codes["classes"].tolist() == list(config.classes)
        mu, logvar = (each.data for each in model.encode(VAE.as_seen(config, part.images, split)))
        np.testing.assert_allclose(codes["codes"], mu, rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(codes["logvar"], logvar, rtol=1e-5, atol=1e-6)
    assert call("encode", "run") == "run/codes.npz\n"  # of the test images
    assert (np.load("run/codes.npz")["codes"].shape == mu.shape) == (split == "test")


def test_encode_writes_codes_and_predicted_classes_of_an_aae(call, start):
    config, model = start("aae")
    call("encode", "run")
    with np.load("run/codes.npz") as codes:
        expected, classes = recipes.aae.encode(
            model, tiny_data().test.images, recipes.aae.stream(config.seed, "final evaluation")
        )
        np.testing.assert_array_equal(codes["codes"], expected)
        np.testing.assert_array_equal(codes["predicted"], classes)


def test_encode_refuses_a_gan(start, refused):
    start("gan")
    assert "a GAN has no encoder" in refused("encode", "run")


# ---- one's own pictures ----


def test_pictures_need_no_data_and_are_encoded_as_the_digits_in_them(start, said, monkeypatch):
    _, model = start()
    monkeypatch.setattr(runs, "load_dataset", None)
    names = [
        save("dark.png", 1 - large(digit())),
        save("light.png", large(digit()), "RGB"),
        save("small.png", digit()),
    ]
    notices = said("encode", "run", "--image", *names).splitlines()
    assert [line.partition(",")[0] for line in notices] == [
        "dark.png: dark on light", "light.png: light on dark", "small.png: light on dark"
    ]  # fmt: skip
    with np.load("run/own-codes.npz") as codes:
        assert set(codes) == {"codes", "logvar", "classes", "files"}
        assert codes["files"].tolist() == names
        images = np.stack([digit_of(np.asarray(Image.open(name).convert("L")))[0].ravel() for name in names])
        mu = model.encode((images >= 0.5).astype(np.float32))[0].data  # the run binarises
        np.testing.assert_allclose(codes["codes"], mu, rtol=1e-4, atol=1e-5)


def test_background_may_be_said(start, said):
    start()
    name = save("a.png", large(digit()))
    assert said("encode", "run", "--image", name, "--background", "dark", "--out", "dark.npz") == ""
    said("encode", "run", "--image", name, "--out", "found.npz")
    np.testing.assert_array_equal(np.load("dark.npz")["codes"], np.load("found.npz")["codes"])


def test_reconstruct_draws_pictures_as_the_model_sees_them(start, said, monkeypatch):
    config, model = start()
    drawn = []
    monkeypatch.setattr(scratchgen.figures, "save_pairs", lambda *arguments: drawn.append(arguments))
    said("reconstruct", "run", "--image", save("a.png", large(digit(3))), save("b.jpg", large(digit(4))))
    ((out, images, found, shape),) = drawn
    assert (out, shape, images.shape) == (Path("run/own-reconstructed.png"), (28, 28), (2, 784))
    assert set(np.unique(images)) == {0, 1}
    expected = centred(digit(3) / digit(3).max()).ravel() >= 0.5
    assert (images[0] != expected).sum() <= 1
    np.testing.assert_array_equal(found, VAE.reconstruct(config, model, images, np.full(2, -1)))


def test_conditional_models_take_the_class_of_each_picture(start, said, refused):
    start(conditional=True)
    names = [save(f"{place}.png", digit(place)) for place in range(2)]
    for command in ("encode", "reconstruct"):
        assert "the class of each image" in refused(command, "run", "--image", *names)
        assert "2 pictures and 3 classes" in refused(command, "run", "--image", *names, "--class", 1, 2, 3)
        assert "no class 'x'" in refused(command, "run", "--image", *names, "--class", "x")
    said("encode", "run", "--image", *names, "--class", 4, 7, "--out", "each.npz")
    said("encode", "run", "--image", *names, "--class", 7, "--out", "all.npz")
    each, both = np.load("each.npz"), np.load("all.npz")
    assert each["labels"].tolist() == [4, 7]
    assert both["labels"].tolist() == [7, 7]
    np.testing.assert_array_equal(each["codes"][1], both["codes"][1])
    assert not np.allclose(each["codes"][0], both["codes"][0])


def test_decoder_of_an_aae_takes_the_class(said, refused):
    network = AAEConfig(encoder_hidden=(8,), decoder_hidden=(8,), discriminator_hidden=(8,), labels_for="decoder")
    runs.start(replace(TINIES["aae"], epochs=1, network=network, training=AAETraining(labels=50)), Path("run"))
    name = save("a.png", digit())
    assert "the class of each image" in refused("reconstruct", "run", "--image", name)
    said("reconstruct", "run", "--image", name, "--class", 4)
    said("encode", "run", "--image", name)  # the encoder takes none
    assert np.load("run/own-codes.npz")["codes"].shape == (1, 2)


def test_pictures_of_other_data_need_their_size(refused, said, monkeypatch):
    monkeypatch.setattr(runs, "load_dataset", scratchgen.data.load_dataset)
    write_pictures(Path("zoo"))
    runs.start(replace(TINY, epochs=1, batch_size=16, data="zoo"), Path("run"))
    picture = next(Path("zoo").rglob("*.png"))
    height, width = np.asarray(Image.open(picture)).shape[:2]
    assert said("encode", "run", "--image", picture) == ""
    _, model = runs.load_model(Path("run"))
    image = np.asarray(Image.open(picture).convert("L"), np.float32).reshape(1, -1) / 255
    mu = model.encode((image >= 0.5).astype(np.float32))[0].data
    np.testing.assert_allclose(np.load("run/own-codes.npz")["codes"], mu, rtol=1e-4, atol=1e-5)
    wrong = save("wrong.png", digit())
    assert f"28 by 28 pixels, and the run's images {height} by {width}" in refused("encode", "run", "--image", wrong)
    assert "--background is for images like MNIST's" in refused(
        "encode", "run", "--image", picture, "--background", "dark"
    )


@pytest.mark.parametrize("command", ["encode", "reconstruct"])
def test_pictures_that_cannot_be_read_are_named(start, refused, command):
    start()
    Path("text.png").write_text("no picture")
    assert "'text.png': cannot be read as PNG or JPEG" in refused(command, "run", "--image", "text.png")
    assert "'none.png': cannot be read" in refused(command, "run", "--image", "none.png")
    assert "nothing found that stands out" in refused(command, "run", "--image", save("empty.png", np.zeros((50, 40))))
    assert "--image" in refused(command, "run", "--class", 3)
    assert "--image" in refused(command, "run", "--background", "dark")


def test_class_is_refused_where_it_would_be_ignored(start, refused):
    start()
    for command in ("encode", "reconstruct"):
        assert "leave --class out" in refused(command, "run", "--image", save("a.png", digit()), "--class", 3)


def test_background_that_was_said_is_named_if_nothing_is_found(start, refused):
    start()
    name = save("a.png", large(digit()))
    assert "nothing found that stands out as darker" in refused(
        "encode", "run", "--image", name, "--background", "light"
    )
