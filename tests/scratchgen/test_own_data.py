"""Runs on one's own data: images of any shape, classes of any number and name, or none; what a run remembers."""

import hashlib
import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from helpers import TINIES, edit, files, outcome
from idx_helpers import idx
from matplotlib.image import imread
from own_helpers import SHAPE, arrays, write_idx, write_npz, write_pictures
from PIL import Image

import scratchgen.data
import scratchgen.figures
from scratchgen import cli, commands, judge, recipes, runs
from scratchgen.data import mnist
from scratchgen.data.dataset import DIGITS
from scratchgen.models.aae import LABELS_FOR
from scratchgen.priors import PRIORS
from scratchgen.recipes import RECIPES
from scratchgen.recipes.recipe import classes_in_turn

PIXELS = SHAPE[0] * SHAPE[1]
DRAW = {name: recipe.draw for name, recipe in RECIPES.items()}  # before the fixture ``tiny`` has none draw


@pytest.fixture(autouse=True)
def own(tiny, monkeypatch, tmp_path_factory):
    """Load what is asked for, and train a judge of it, quickly."""
    for module in (runs, commands.data, commands.engine):
        monkeypatch.setattr(module, "load_dataset", scratchgen.data.load_dataset)
    monkeypatch.setattr(recipes.gan, "load_judge", judge.load_judge)
    monkeypatch.setattr(judge, "LEAST_STEPS", 40)
    monkeypatch.setattr(judge, "cache_folder", lambda: tmp_path_factory.getbasetemp() / "judges")


@pytest.fixture
def figures(monkeypatch):
    """Runs draw; returns what was drawn, the arguments by the name of the file."""
    drawn = {}

    def spy(original):
        return lambda path, *arguments, **named: (
            drawn.update({path.name: (arguments, named)}) or original(path, *arguments, **named)
        )

    for name in ("save_samples", "save_pairs", "save_latent_scatter", "save_manifold", "save_health"):
        monkeypatch.setattr(scratchgen.figures, name, spy(getattr(scratchgen.figures, name)))
    for name, recipe in RECIPES.items():
        monkeypatch.setattr(recipe, "draw", DRAW[name])
    return drawn


DATA = {
    "five": lambda: write_idx(Path("five"), arrays(5, 3)),
    "letters": lambda: write_idx(Path("letters"), arrays(26, 1, train=104, test=52)),
    "floats": lambda: write_npz(Path("floats.npz"), [array / 255 if array.ndim > 1 else array for array in arrays(4)]),
    "zoo": lambda: write_pictures(Path("zoo")),
    "plain": lambda: write_pictures(Path("plain"), ("",), each=70),
}
NAMES = {
    "five": tuple("34567"),
    "letters": tuple(str(k) for k in range(1, 27)),
    "floats": tuple("0123"),
    "zoo": ("cat", "dog", "owl"),
    "plain": (),
}


def train(model, kind, *options, out="run"):
    """Train a tiny model for an epoch of a few steps on data of this kind; returns its folder and its summary."""
    command = ["train", model, "--config", "tiny", "--data", DATA[kind](), "--epochs", 1, "--batch-size", 16]
    assert cli.main([str(each) for each in (*command, "--out", out, *options)]) == 0
    return Path(out), json.loads(Path(out, "summary.json").read_text())["test"]


def refused(capsys, *arguments):
    """The line of a command that must refuse."""
    capsys.readouterr()
    assert cli.main([str(each) for each in arguments]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    return line


# ---- every kind of data, and every model ----


@pytest.mark.parametrize("kind", DATA)
def test_vae_fits_its_networks_to_the_data(kind, call, tmp_path):
    labelled = kind != "plain"
    run, _ = train("vae", kind, *["--conditional"] * labelled)
    config, model = runs.load_model(run)
    assert (config.image_shape, config.classes) == (SHAPE, NAMES[kind])
    assert config.network.input_dim == PIXELS
    assert config.network.classes == (len(NAMES[kind]) or 10)
    assert Path(config.data) == tmp_path / DATA[kind]()
    assert config.data_digest == scratchgen.data.load_dataset(config.data).digest
    call("sample", run, "-n", 4, "--out", "any.npy")
    assert np.load("any.npy").shape == (4, PIXELS)
    call("sample", run, "-n", 1, "--out", "one.png")
    height, width = (size - 2 * 16 for size in imread("one.png").shape[:2])  # without its margins
    assert height / width == SHAPE[0] / SHAPE[1]
    call("reconstruct", run, "-n", 2)
    if not labelled:
        return
    for place, name in ((0, NAMES[kind][0]), (-1, NAMES[kind][-1])):
        call("sample", run, "-n", 4, "--class", name, "--out", f"at{place}.npy")
        rng = recipes.vae.stream(0, "samples")
        expected = RECIPES["vae"].sample(config, model, 4, rng, place % len(NAMES[kind]))
        np.testing.assert_array_equal(np.load(f"at{place}.npy"), expected)


@pytest.mark.parametrize("kind", ["five", "plain"])
def test_gan_is_judged_if_the_data_have_labels(kind, capsys, call, figures):
    run, test = train("gan", kind)
    out, err = capsys.readouterr()
    assert ("have no labels to train a judge with: samples are not judged\n" in err) == (kind == "plain")
    assert json.loads(call("evaluate", run)) == test
    (_, _, counts, _, classes), _ = figures["health.png"]
    assert classes == NAMES[kind]
    (samples, beside, shape, _), _ = figures["nearest.png"]
    images = scratchgen.data.load_dataset(str(runs.load_config(run).data)).train.images
    distances = ((samples[:, None] - images) ** 2).sum(axis=2)
    assert (len(samples), shape) == (20, SHAPE)
    np.testing.assert_array_equal(beside, images[distances.argmin(axis=1)])
    if kind == "plain":
        assert test.keys() == {"d_real", "d_fake", "overlap", "samples"}
        assert counts is None
        assert "300 samples, which no judge has seen;  D(x)" in out
        return
    assert len(test["class_histogram"]) == len(counts) == 5
    assert sum(test["class_histogram"]) == 300
    assert f"{test['classes_covered']} of 5 classes" in out
    assert f"of {math.log(5):.3f} nats" in out


def test_gan_names_the_classes_that_it_misses(capsys):
    class Blind:
        accuracy = 1.0

        def probabilities(self, images):
            return np.tile(np.eye(3)[1], (len(images), 1))

    data = scratchgen.data.load_dataset(str(DATA["zoo"]()))
    config = runs.fitted(TINIES["gan"], data)
    recipes.gan.Health(Blind())(RECIPES["gan"].build(config), data, np.random.default_rng(0))
    assert capsys.readouterr().err == "mode collapse? 200 samples contain almost none of cat, owl\n"


@pytest.mark.parametrize("model", ["vae", "gan"])
def test_conditional_models_draw_a_column_for_each_class(model, call, figures):
    run, test = train(model, "zoo", "--conditional")
    assert model == "vae" or 0 <= test["class_accuracy"] <= 1
    images, shape, columns = figures["samples.png"][0]
    assert (images.shape, shape, columns) == ((30, PIXELS), SHAPE, 3)
    assert call("sample", run, "-n", 4, "--class", "owl") == f"{run / 'class-owl.png'}\n"


@pytest.mark.parametrize("labels_for", LABELS_FOR)
@pytest.mark.parametrize("prior", PRIORS)
def test_aae_with_every_prior_and_use_of_labels(prior, labels_for, call, capsys):
    labels = 0 if labels_for == "discriminator" and prior in ("gaussian", "uniform") else 60
    options = ["--prior", prior, "--labels-for", labels_for, "--labels", labels]
    run, test = train("aae", "five", *options)
    config, model = runs.load_model(run)
    assert model.prior.dim == 2
    if model.regional:
        assert 0 <= test["own_region"] <= 1
        assert set(model.prior.region(model.prior.sample(500, np.random.default_rng(0)))) == set(range(5))
    assert ("error_rate" in test) == (labels_for == "encoder")
    call("sample", run, "-n", 3, "--out", "any.npy")
    call("reconstruct", run, "-n", 2)
    if labels:
        call("sample", run, "-n", 3, "--class", 7, "--out", "seven.npy")
        rng = recipes.aae.stream(0, "samples")
        np.testing.assert_array_equal(np.load("seven.npy"), RECIPES["aae"].sample(config, model, 3, rng, 4))
    else:
        assert "learnt no classes" in refused(capsys, "sample", run, "--class", 7)


@pytest.mark.parametrize("labels_for", ["discriminator", "encoder"])
def test_aae_without_labels(labels_for, capsys):
    """A prior with regions, or a second code of classes, needs none; metrics of classes there are none of."""
    run, test = train("aae", "plain", "--prior", "mixture", "--labels-for", labels_for, "--labels", 0)
    history = [json.loads(line)["test"] for line in (run / "metrics.jsonl").read_text().splitlines()]
    for measured in (test, *history):
        assert "mmd" in measured
        assert not {"own_region", "error_rate"} & measured.keys()
    assert runs.load_config(run).network.classes == 10
    line = refused(capsys, "sample", run, "--class", "cat")
    assert line == "scratchgen: the run has no class 'cat'; its classes are none: its data have no labels"


def test_aae_figures_have_a_column_or_row_for_each_class(figures):
    train("aae", "letters", "--labels-for", "decoder", "--labels", 104, out="styles")
    images, _, columns = figures["styles.png"][0]
    assert (images.shape, columns) == ((260, PIXELS), 26)
    train("aae", "letters", "--labels-for", "discriminator", "--prior", "swiss-roll", "--labels", 104, out="roll")
    (codes, labels), named = figures["latent.png"]
    assert (len(codes), set(labels), named["classes"]) == (52, set(range(26)), NAMES["letters"])
    assert len(figures["manifold.png"][0][0]) == 26 * 20


def test_vae_figures_without_labels(figures):
    train("vae", "plain")
    (_, labels), _ = figures["latent.png"]
    assert labels is None
    images, shape, columns = figures["samples.png"][0]
    assert (images.shape, shape, columns) == ((100, PIXELS), SHAPE, 10)


def test_convolutions_take_square_images_only(capsys, monkeypatch):
    channels = {"encoder_channels": (2,), "decoder_channels": (2,)}
    config = replace(TINIES["vae"], network=replace(TINIES["vae"].network, **channels))
    monkeypatch.setitem(RECIPES["vae"].configs, "tiny", config)
    square = write_idx(Path("square"), arrays(2, shape=(6, 6)))
    command = ["train", "vae", "--config", "tiny", "--epochs", "1", "--data"]
    assert cli.main([*command, str(square), "--out", "run"]) == 0
    for shape, says in (
        ((4, 9), "take square images"),
        ((7, 7), "must be square, with a side that is a multiple of 2"),
    ):
        data = write_idx(Path(f"of {shape[0]}"), arrays(2, shape=shape))  # 4 by 9 are as many as 6 by 6
        line = refused(capsys, *command, data, "--out", "other")
        assert line.startswith(f"scratchgen: of {shape[0]} has images of {shape[0]} by {shape[1]} pixels: ")
        assert says in line
        assert not Path("other").exists()


# ---- the other commands ----


def test_data_show_describes_and_draws_them(call):
    out = call("data", "show", "--data", DATA["zoo"](), "--out", "zoo.png")
    assert out.splitlines() == [
        "zoo: 36 training and 6 test images, 6 by 4 pixels",
        "images a class, training: [12, 12, 12]",
        "3 classes: cat, dog, owl",
        "zoo.png",
    ]
    out = call("data", "show", "--data", DATA["plain"](), "--out", "plain.png")
    assert "\nno labels\n" in out


@pytest.mark.parametrize(("name", "film"), [(None, "walk"), ("owl", "walk-owl")])
def test_walk_has_their_shape_and_classes(name, film, call, monkeypatch):
    run, _ = train("vae", "zoo", "--conditional")
    seen, means = [], recipes.vae._means
    monkeypatch.setattr(recipes.vae, "_means", lambda *given: seen.append(given[-1]) or means(*given))
    assert call("walk", run, "--seconds", 3, *(["--class", name] if name else [])) == f"{run / film}.gif\n"
    with Image.open(run / f"{film}.gif") as opened:
        assert opened.size == (8 * SHAPE[1], 8 * SHAPE[0])
    assert np.array_equal(seen[0], classes_in_turn(60, 3, 2 if name else None))


def test_walk_refuses_a_class_that_is_not_there(capsys, tmp_path):
    run, _ = train("vae", "five", "--conditional")
    before = files(tmp_path)
    assert "no class '9'; its classes are 3, 4, 5, 6, 7" in refused(capsys, "walk", run, "--digit", "9")
    assert "not allowed with" in refused(capsys, "walk", run, "--digit", "4", "--class", "4")
    assert files(tmp_path) == before


def test_export_takes_their_classes(call):
    run, _ = train("gan", "five", "--conditional")
    call("export", run, "--to", "torch")
    assert f"Images (n, {PIXELS}) of noise z (n, 3) and classes y (n, 5)" in Path(run, "pytorch/model.py").read_text()


def test_profile_takes_them(call):
    assert "adam" in call("profile", "vae", "--config", "tiny", "--data", DATA["five"](), "--steps", 3)


def test_sample_refuses_a_class_that_is_not_there(capsys, tmp_path):
    run, _ = train("vae", "five", "--conditional")
    before = files(tmp_path)
    assert refused(capsys, "sample", run, "--class", "9") == (
        "scratchgen: the run has no class '9'; its classes are 3, 4, 5, 6, 7"
    )
    assert "no class '9'" in refused(capsys, "sample", run, "--digit", "9")
    assert "not allowed with" in refused(capsys, "sample", run, "--digit", "4", "--class", "4")
    assert files(tmp_path) == before


@pytest.mark.parametrize(
    ("name", "picture"),
    [
        (None, "sampled"),
        ("7", "digit-7"),
        ("T-shirt/top", "class-T-shirt-top"),
        ("../a", "class--a"),
        ("猫", "class-猫"),
    ],
)
def test_samples_are_named_after_their_class(name, picture):
    assert commands.trained._samples_of(name) == picture


def test_mistakes_leave_no_run(capsys, tmp_path):
    data, plain = DATA["five"](), DATA["plain"]()
    before = files(tmp_path)
    for arguments, says in (
        (["vae", "--data", "nowhere"], "'nowhere' is neither auto, mnist, fashion-mnist, strokes nor a folder or file"),
        (["vae", "--data", ""], "'' is neither"),
        (["vae", "--data", data, "--data-dir", data], "leave --data-dir out"),
        (["vae", "--data", plain, "--conditional"], "a conditional model needs labels, and 60 of 60 training images"),
        (["gan", "--data", plain, "--conditional"], "a conditional model needs labels"),
        (["gan", "--data", plain, "--patience", "2"], "no judge of samples, by which --patience would find"),
        (["aae", "--data", plain, "--labels", "10"], "the data have no labels; give --labels 0"),
    ):
        assert says in refused(capsys, "train", arguments[0], "--config", "tiny", *arguments[1:])
        assert files(tmp_path) == before


# ---- what a run remembers ----


def test_run_continues_where_its_data_have_moved_to(tmp_path, monkeypatch):
    whole, _ = train("gan", "five", "--epochs", 2, out="whole")

    def interrupted(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(recipes.gan.Health, "__call__", interrupted)  # at the end of the first epoch
        command = "train gan --config tiny --data five --epochs 2 --batch-size 16 --out run"
        assert cli.main(command.split()) == 130
    Path("elsewhere").mkdir()
    Path("five").rename("elsewhere/five")
    assert cli.main(["train", "gan", "--resume", "run", "--data-dir", "elsewhere/five"]) == 0
    config = runs.load_config(Path("run"))
    assert (config.data, config.data_dir) == (str(tmp_path / "five"), str(tmp_path / "elsewhere" / "five"))
    assert outcome(Path("run")) == outcome(whole)
    assert cli.main(["evaluate", "run"]) == 0  # it is remembered


def test_other_data_are_refused_by_resume_and_noticed_by_others(call, capsys):
    run, _ = train("vae", "five")
    Path("five").rename("mnist")  # not the name of a published one
    for command in ("train vae --resume", "evaluate", "reconstruct"):
        line = refused(capsys, *command.split(), run)
        assert "five', which are not there (any more); give their path with --data-dir" in line
    changed = arrays(5, 3)
    changed[0][7, 2, 1] ^= 1
    write_idx(Path("five"), changed)
    assert "was trained on other data than these" in refused(capsys, "train", "vae", "--resume", run, "--epochs", 2)
    for command in ("evaluate", "reconstruct"):
        assert cli.main([command, str(run)]) == 0
        (line,) = capsys.readouterr().err.splitlines()
        assert line.startswith("run was trained on other data than these")
        call(command, run, "--data-dir", "mnist")
    for other, says in (
        (arrays(4, 3), "five has 4 classes, and the run is of data with 5"),
        (arrays(5, 3, shape=(4, 6)), "five has images of 4 by 6 pixels, and the run is of images of 6 by 4"),
        (arrays(5, 3, shape=(5, 4)), "five has images of 20 pixels, and the network takes 24"),
    ):
        write_idx(Path("five"), other)
        assert says in refused(capsys, "evaluate", run)


def test_published_data_at_a_path_are_that_data(monkeypatch):
    contents = arrays(10, shape=(28, 28))
    folder = write_idx(Path("digits"), contents)
    for name, array in zip(mnist.NAMES, contents, strict=True):
        monkeypatch.setitem(mnist.SHA256, name, hashlib.sha256(idx(array)).hexdigest())
    assert cli.main(["train", "vae", "--config", "tiny", "--epochs", "1", "--data", str(folder), "--out", "run"]) == 0
    config = runs.load_config(Path("run"))
    assert (config.data, config.data_dir, config.classes) == ("mnist", str(folder.absolute()), DIGITS)
    assert json.loads(Path("run/summary.json").read_text())["data"] == "mnist"
    assert cli.main(["evaluate", "run"]) == 0


def test_run_of_before_knows_no_shape_classes_or_digest(run, call):
    """It was of 28 by 28 pixels and ten digits, and its data are not checked."""
    before = runs.load_config(run)
    for name in ("image_shape", "classes", "data_digest"):
        edit(run, [name], ...)
    found = runs.load_config(run)
    assert found == replace(before, data_digest="")
    assert (found.image_shape, found.classes) == ((28, 28), DIGITS)
    call("sample", run, "-n", 2)


def test_run_of_before_on_other_images_does_not_centre_pictures(run):
    edit(run, ["centred"], ...)
    assert runs.load_config(run).centred
    for name, value in (("image_shape", [14, 56]), ("classes", [*"abcdefghij"])):
        before = json.loads((run / "config.json").read_text())[name]
        edit(run, [name], value)
        assert not runs.load_config(run).centred
        edit(run, [name], before)
