"""The page as a file: what it holds, what it leaves out, how large it is. What it does is in test_browser.py."""

import json
import re
import zlib
from dataclasses import replace
from importlib import resources

import numpy as np
import pytest
from explorer_helpers import DATA as DATAS
from explorer_helpers import KINDS, built, drawn, page_of
from helpers import untrained_judge

from scratchgen import explorer
from scratchgen.data.dataset import UNLABELLED, Dataset, Split
from scratchgen.errors import UserError
from scratchgen.explorer.networks import Weights, described, packed, rounded
from scratchgen.nn import (
    AvgPool2d,
    BatchNorm,
    Conv2d,
    ConvTranspose2d,
    Dense,
    Dropout,
    GaussianNoise,
    Reshape,
    Sequential,
)
from scratchgen.priors import Gaussian, Mixture, SwissRoll, Uniform
from scratchgen.recipes import RECIPES

DATA = drawn(60)


def held(page, name):
    """What the page holds under a name: data, or the bytes of its text."""
    (text,) = re.findall(rf'<script type="[^"]*" id="{name}">(.*?)</script>', page.decode(), re.DOTALL)
    return json.loads(text) if name == "run" else unpacked(text)


def unpacked(text):
    """The bytes of a packed text, which may have zeros after them."""
    sevens = [int(bit) for character in text for bit in f"{ord(character) & 127:07b}"]
    return zlib.decompressobj().decompress(np.packbits(sevens).tobytes())


def numbers(planes):
    return np.frombuffer(planes, np.uint8).reshape(4, -1).T.copy().view("<f4").ravel()


# ---- networks ----


def test_described_gives_every_layer_its_parameters(rng):
    network = Sequential(
        Reshape(5, 7, 1),
        Sequential(Conv2d(1, 2, (3, 2), rng, "relu", stride=(2, 1), padding=(1, 0)), BatchNorm(2, "tanh", epsilon=0.1)),
        ConvTranspose2d(2, 3, 4, rng, stride=2, padding=1, output_padding=(1, 0), bias=False),
        Reshape(-1),
        Dropout(0.5),
        GaussianNoise(0.1),
        Dense(252, 4, rng, "elu"),
    )
    for parameter in network.parameters():
        parameter.write(rng.standard_normal(parameter.shape).astype(np.float32))
    weights = Weights()
    weights.add(network.parameters()[0])  # another network's
    layers = described(network, weights)
    assert [layer["kind"] for layer in layers] == ["convolution", "batch norm", "transposed convolution", "dense"]
    assert [layer["activation"] for layer in layers] == ["relu", "tanh", "identity", "elu"]
    assert (layers[0]["before"], layers[0]["after"], layers[2]["after"]) == ([5, 7], [3, 6], [7, 12])
    assert [(layer["inputs"], layer["outputs"]) for layer in layers if "inputs" in layer] == [(1, 2), (2, 3), (252, 4)]
    assert (layers[1]["epsilon"], layers[2]["bias"]) == (0.1, None)
    every = numbers(unpacked(weights.text()))
    conv, norm, transposed, dense = (
        layer for layer in network.modules() if not isinstance(layer, Sequential | Reshape | Dropout | GaussianNoise)
    )
    for layer, described_layer in zip((conv, norm, transposed, dense), layers, strict=True):
        for name, tensor in vars(layer).items():
            if name in described_layer and described_layer[name] is not None and hasattr(tensor, "data"):
                np.testing.assert_array_equal(every[slice(*described_layer[name])], tensor.data.ravel())


def test_described_refuses_a_layer_that_the_page_cannot_compute():
    with pytest.raises(UserError, match="AvgPool2d"):
        described(Sequential(AvgPool2d(2)), Weights())


def test_described_refuses_parameters_that_are_not_finite(rng):
    layer = Dense(2, 3, rng)
    layer.bias.write(np.array([0, np.inf, 0], np.float32))
    with pytest.raises(UserError, match="train again"):
        described(layer, Weights())


def test_packed_holds_every_byte_and_nothing_that_a_page_changes(rng):
    for count in (0, 1, 2, 7, 8, 1000):
        data = rng.integers(0, 256, count).astype(np.uint8)
        text = packed(data, zlib.Z_HUFFMAN_ONLY)
        assert unpacked(text) == data.tobytes()
    assert not set(text) & set("\0\r<")
    assert len(text.encode()) < 1200  # of base64 there are 1,336


def test_rounded_is_within_half_a_step_and_exact_at_25_bits(rng):
    array = (rng.standard_normal((40, 30)) * 10.0 ** rng.integers(-6, 3)).astype(np.float32)
    largest = np.abs(array).max()
    for bits in (8, 23, 24):
        step = 2.0 ** (np.floor(np.log2(largest)) + 2 - bits)
        error = np.abs(rounded(array, bits) - array)
        assert step / 4 < error.max() <= step / 2
        assert len(np.unique(rounded(array, bits) / step % 1)) == 1
    assert rounded(largest, 25) == largest
    np.testing.assert_array_equal(rounded(np.zeros((2, 3), np.float32), 24), np.zeros((2, 3)))


def test_weights_with_fewer_bits_leave_biases_and_averages_as_they_are(rng):
    network = Sequential(Dense(7, 5, rng), BatchNorm(5))
    for parameter in (*network.parameters(), network.layers[1].variance):
        parameter.write(rng.uniform(0.1, 1, parameter.shape).astype(np.float32))
    weights = Weights()
    layers = described(network, weights)
    exact, fewer = (numbers(unpacked(weights.text(bits))) for bits in (None, 10))
    begin, end = layers[0]["weight"]
    assert (begin, end) == (0, 35)
    np.testing.assert_array_equal(fewer[end:], exact[end:])
    np.testing.assert_array_equal(fewer[:end], rounded(network.layers[0].weight.data.ravel(), 10))
    assert 1e-4 < np.abs(fewer[:end] - exact[:end]).max() < 1e-2


# ---- what is in the page ----


@pytest.mark.parametrize("kind", ["vae 2-d", "gan conv", "aae semi-supervised"])
def test_page_loads_nothing(monkeypatch, kind):
    page = page_of(*built(kind), DATA, monkeypatch).decode()
    assert "default-src 'none'" in page
    assert re.findall(r"(?:https?:)?//[a-z][\w.]*\.[a-z]{2,}|@import|\bsrc=|\bhref=|url\(", page) == []


def test_page_holds_the_parameters_to_the_last_bit(monkeypatch):
    config, model = built("vae 2-d")
    page = page_of(config, model, DATA, monkeypatch)
    found = numbers(held(page, "weights"))
    expected = np.concatenate([parameter.data.ravel() for parameter in model.parameters()])
    np.testing.assert_array_equal(np.sort(found), np.sort(expected))
    run = held(page, "run")
    begin, end = run["networks"]["mean"][0]["weight"]
    np.testing.assert_array_equal(found[begin:end], model.encoder_mu.weight.data.ravel())


def test_map_reaches_over_the_prior_and_all_but_the_outermost_codes(rng):
    assert [explorer._extent(prior, None) for prior in (Gaussian(2), Uniform(2, 2.0))] == pytest.approx([3, 2.2])
    for prior in (Mixture(10), SwissRoll(10)):
        outermost = np.abs(prior.outlines(100)).max()
        assert outermost < explorer._extent(prior, None) < 1.2 * outermost
    codes = rng.uniform(-5, 5, (10_000, 2))
    codes[:20] = 50  # a five-hundredth
    assert explorer._extent(Gaussian(2), codes) == pytest.approx(5.25, abs=0.1)
    assert explorer._extent(Gaussian(2), codes / 5) == 3


def test_page_holds_test_digits_of_each_class_and_codes(monkeypatch):
    config, model = built("vae 2-d")
    page = page_of(config, model, DATA, monkeypatch)
    run = held(page, "run")
    assert run["examples"] == [*range(10)] * 6
    pixels = np.frombuffer(held(page, "examples"), np.uint8).reshape(60, 784)
    np.testing.assert_array_equal(pixels, np.rint(255 * DATA.test.images))
    shown = RECIPES["vae"].explorable(config, model, DATA)
    np.testing.assert_allclose(run["codes"], shown.codes, rtol=1e-3)
    np.testing.assert_allclose(run["variation"], shown.codes.var(axis=0), rtol=1e-3)
    assert run["labels"] == DATA.test.labels.tolist()
    assert run["extent"] >= 3


def test_page_takes_images_in_turn_from_uneven_classes():
    assert explorer._in_turn(np.array([1, 1, 0, 7, 1, 7])).tolist() == [2, 0, 3, 1, 5, 4]
    assert explorer._in_turn(np.full(9, UNLABELLED)).tolist() == [*range(9)]


def test_page_describes_the_images_and_classes_of_any_data(monkeypatch):
    for name, data in DATAS.items():
        run = held(page_of(*built("vae 2-d", data=data), data, monkeypatch), "run")
        assert (run["shape"], run["classes"]) == ([*data.image_shape], [*data.classes])
        assert run["centred"] == (name in ("digits", "letters"))
        assert run["ground"] == (name == "dark on light")
        assert ("judge" in run) == bool(data.classes)
        assert sorted(run["examples"]) == sorted(data.test.labels)


def test_page_holds_fewer_examples_of_large_images(monkeypatch):
    images = np.zeros((300, 100 * 90), np.float32)
    test = Split(images, np.full(300, UNLABELLED))
    data = Dataset("large", Split(images[:0], test.labels[:0]), test, (100, 90), ())
    page = page_of(*built("vae 2-d", data=data), data, monkeypatch)
    assert len(held(page, "run")["examples"]) == 111
    assert len(held(page, "examples")) == 111 * 9000


def test_page_survives_a_name_with_markup(monkeypatch):
    config, model = built("vae 2-d")
    name = "</script><b>&$title"
    page = page_of(replace(config, name=name), model, DATA, monkeypatch)
    assert held(page, "run")["name"] == name
    assert b"<b>&" not in page


def test_page_holds_the_judge_where_there_is_room(monkeypatch):
    asked = []

    def load_judge(data):
        asked.append(data)
        return untrained_judge(data)

    def judged(kind):
        config, model = built(kind)
        page = explorer.page(config, RECIPES[config.model].explorable(config, model, DATA), DATA)
        return len(page), "judge" in held(page, "run"), len(asked)

    monkeypatch.setattr(explorer, "load_judge", load_judge)
    assert judged("gan")[1:] == (False, 0)  # nothing is drawn there
    assert judged("aae semi-supervised")[1:] == (False, 0)  # the encoder reads classes
    size, *found = judged("vae 2-d")
    assert found == [True, 1]
    monkeypatch.setattr(explorer, "LARGEST", size - 1)
    assert judged("vae 2-d")[1:] == (False, 2)
    monkeypatch.setattr(explorer, "LARGEST", 1000)
    assert judged("vae 2-d")[1:] == (False, 2)


@pytest.mark.parametrize("kind", KINDS)
def test_page_describes_every_kind_of_model(monkeypatch, kind):
    config, model = built(kind)
    run = held(page_of(config, model, DATA, monkeypatch, judge=False), "run")
    assert (run["model"], run["name"], run["latentDim"]) == (config.model, kind, config.network.latent_dim)
    assert run["decoderClasses"] == ("conditional" in kind or "supervised" in kind)
    outlines = np.array(run["prior"].get("outlines", []))
    assert (outlines.shape == (10, explorer.OUTLINE, 2)) == (kind in ("aae mixture", "aae swiss-roll"))
    assert run.get("regionsOfClasses", False) == (kind == "aae mixture")  # the roll has no labels
    assert ("codes" in run, "extent" in run) == (
        run["latentDim"] == 2 and config.model != "gan",
        run["latentDim"] == 2,
    )


@pytest.mark.parametrize(
    ("model", "name", "options", "exact", "judged"),
    [
        ("vae", "pytorch-example", {}, True, True),
        ("vae", "metzen", {"latent_dim": 2}, True, False),
        ("vae", "conv", {}, False, False),
        ("gan", "mlp", {}, True, False),
        ("gan", "dcgan", {}, False, False),
        ("gan", "wgan-gp", {}, False, False),
        ("aae", "gaussian", {}, True, True),
        ("aae", "supervised", {}, True, True),
    ],
)
def test_page_of_a_named_configuration_has_at_most_six_megabytes(monkeypatch, model, name, options, exact, judged):
    """Its weights are rounded only where it would be larger."""
    config = RECIPES[model].configs[name]
    config = replace(config, network=replace(config.network, **options))
    page = page_of(config, RECIPES[model].build(config), drawn(2000), monkeypatch)
    assert len(page) <= 6_000_000
    assert ("judge" in held(page, "run")) == judged
    weights = Weights()
    for network in RECIPES[model].explorable(config, RECIPES[model].build(config), drawn(20)).networks.values():
        described(network, weights)
    assert (weights.text().encode() in page) == exact


def test_package_declares_all_files_of_the_page():
    files = [
        file.name
        for file in resources.files("scratchgen.explorer").iterdir()
        if file.name.endswith((".js", ".css", ".html"))
    ]
    assert sorted(files) == sorted([*explorer.SCRIPTS, "explorer.html", "explorer.css"])


# ---- what the recipes measure ----


def test_gan_pixel_changes_are_finite_differences_of_the_pictures(rng):
    from scratchgen.recipes.gan import generate, pixel_changes

    _, model = built("gan")
    noise = rng.standard_normal((6, 3))
    changes = pixel_changes(model, noise, rng)
    for j in range(3):
        ends = [np.where(np.arange(3) == j, side, noise) for side in (-1, 1)]
        low, high = (generate(model, end, np.zeros(6, int)) for end in ends)
        assert changes[j] == pytest.approx(np.sqrt(((high - low) ** 2).mean()), rel=1e-5)
    assert changes.min() > 0
