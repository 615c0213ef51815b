"""The judge: it is trained once for the same data, whatever has become of its file."""

import os
from pathlib import Path

import numpy as np
import pytest
from helpers import tiny_data

from scratchgen import judge as judges
from scratchgen.cache import cache_folder
from scratchgen.data import load_dataset
from scratchgen.data.dataset import Dataset, Split
from scratchgen.judge import load_judge
from scratchgen.models.classifier import Classifier

TRAINS = "training the classifier that judges samples, once: it takes a minute or two\n"


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    """A user with an empty cache; a judge's training is short."""
    monkeypatch.setattr(judges, "LEAST_STEPS", 0)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "scratchgen"


def kept(cache):
    return sorted(cache.iterdir())


def test_load_judge_trains_once(cache, capsys):
    first = load_judge(tiny_data())
    assert capsys.readouterr().err == TRAINS
    (path,) = kept(cache)
    assert path.name.startswith("judge-")
    assert path.suffix == ".safetensors"
    before = path.stat().st_mtime_ns
    second = load_judge(tiny_data())
    assert capsys.readouterr().err == ""
    assert path.stat().st_mtime_ns == before
    images = tiny_data().test.images
    np.testing.assert_array_equal(first.probabilities(images), second.probabilities(images))
    assert first.accuracy == second.accuracy
    found = second.probabilities(images)
    assert (found.shape, found.dtype) == ((60, 10), np.float32)
    np.testing.assert_allclose(found.sum(axis=1), 1, rtol=1e-5)
    assert (second.features(images).shape, second.features(images).dtype) == ((60, 128), np.float32)
    assert second.accuracy == (found.argmax(axis=1) == tiny_data().test.labels).mean() > 0.5


def test_load_judge_makes_the_same_judge_of_the_same_data(cache):
    first = load_judge(tiny_data())
    kept(cache)[0].unlink()
    second = load_judge(tiny_data())
    images = tiny_data().test.images
    np.testing.assert_array_equal(first.probabilities(images), second.probabilities(images))


@pytest.mark.parametrize("other", ["a pixel", "a label", "fewer", "shape", "recipe"])
def test_load_judge_makes_another_judge_of_other_training_data_or_recipe(cache, capsys, monkeypatch, other):
    load_judge(tiny_data())
    capsys.readouterr()
    train = tiny_data().train
    images, labels = train.images.copy(), train.labels.copy()
    if other == "a pixel":
        images[3, 400] = 0.5
    elif other == "a label":
        labels[3] = (labels[3] + 1) % 10
    elif other == "fewer":
        images, labels = images[1:], labels[1:]
    else:
        monkeypatch.setattr(judges, "VERSION", -1)
    load_judge(Dataset("strokes", Split(images, labels), tiny_data().test, (14, 56) if other == "shape" else (28, 28)))
    assert capsys.readouterr().err == TRAINS
    assert len(kept(cache)) == 2


def test_load_judge_makes_the_same_judge_whatever_the_test_data(cache, capsys):
    load_judge(tiny_data())
    data = tiny_data()
    some = Split(data.test.images[:30], data.test.labels[:30])
    found = load_judge(Dataset("strokes", data.train, some))
    assert capsys.readouterr().err == TRAINS
    assert found.accuracy == (found.probabilities(some.images).argmax(axis=1) == some.labels).mean()


def test_load_judge_knows_as_many_classes_as_the_data_have(cache):
    some = Split(*(part[tiny_data().train.labels < 5] for part in (tiny_data().train.images, tiny_data().train.labels)))
    data = Dataset("five", some, some, classes=tuple("01234"))
    load_judge(data)
    found = load_judge(data)  # from the cache
    assert found.probabilities(some.images).shape == (len(some), 5)
    assert found.accuracy > 0.5


@pytest.mark.parametrize(("images", "epochs"), [(600, 100), (60, 300), (60_000, 8)])
def test_load_judge_trains_longer_on_few_images(cache, monkeypatch, images, epochs):
    """300 steps at least, in batches of 256, and eight epochs."""
    monkeypatch.setattr(judges, "LEAST_STEPS", 300)
    asked = []

    def train(images, labels, image_shape, rng, epochs, batch_size, classes):
        asked.append((epochs, batch_size))
        classifier = Classifier(image_shape, rng, classes)
        classifier.eval()
        return classifier

    monkeypatch.setattr(judges, "train_classifier", train)
    few = Split(np.zeros((images, 4), np.float32), np.zeros(images, np.int64))
    load_judge(Dataset("few", few, few, (2, 2)))
    assert asked == [(epochs, 256)]


@pytest.mark.parametrize("damage", ["cut", "a bit", "empty", "another's"])
def test_load_judge_replaces_a_damaged_file(cache, capsys, damage):
    expected = load_judge(tiny_data()).probabilities(tiny_data().test.images)
    (path,) = kept(cache)
    whole = path.read_bytes()
    if damage == "another's":
        judges.save_checkpoint(path, {"weight": np.zeros(3)}, {})
    else:
        flipped = whole[:-9] + bytes([whole[-9] ^ 1]) + whole[-8:]
        path.write_bytes({"cut": whole[:1000], "a bit": flipped, "empty": b""}[damage])
    capsys.readouterr()
    np.testing.assert_array_equal(load_judge(tiny_data()).probabilities(tiny_data().test.images), expected)
    assert capsys.readouterr().err == TRAINS
    load_judge(tiny_data())  # now it is whole
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("obstacle", ["a file", "a folder", "no home"])
def test_load_judge_without_a_cache_trains_each_time(cache, capsys, monkeypatch, obstacle):
    if obstacle == "a file":  # where the cache should be
        cache.parent.write_text("")
    elif obstacle == "a folder":  # where the judge should be
        load_judge(tiny_data())
        (path,) = kept(cache)
        path.unlink()
        path.mkdir()
        capsys.readouterr()
    else:
        monkeypatch.delenv("XDG_CACHE_HOME")

        def homeless():
            raise RuntimeError("Could not determine home directory.")

        monkeypatch.setattr(Path, "home", homeless)
    for _ in range(2):
        assert load_judge(tiny_data()).accuracy > 0.5
        told = capsys.readouterr().err
        assert told.startswith(f"{TRAINS}the classifier could not be cached: ")
        assert told.count("\n") == 2


def test_cache_folder_follows_xdg_cache_home_if_absolute(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    assert cache_folder() == tmp_path / "cache" / "scratchgen"
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")
    assert cache_folder() == tmp_path / ".cache" / "scratchgen"


@pytest.mark.slow
@pytest.mark.parametrize(("source", "accuracy"), [("mnist", 0.993), ("strokes", 0.99)])
def test_load_judge_knows_digits(source, accuracy):
    if source == "mnist" and not os.environ.get("SCRATCHGEN_DATA"):
        pytest.skip("SCRATCHGEN_DATA names no folder with MNIST")
    assert load_judge(load_dataset(source)).accuracy >= accuracy
