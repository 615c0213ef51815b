"""One's own data: what is read of each kind, and what does not fit, in one line."""

import gzip
import hashlib

import numpy as np
import pytest
from idx_helpers import idx, refusal
from own_helpers import SHAPE, arrays, write_idx, write_npz, write_pictures
from PIL import Image

from scratchgen.data import dataset, load_dataset, mnist, own
from scratchgen.data.dataset import DIGITS, UNLABELLED
from scratchgen.data.own import load_own

HEIGHT, WIDTH = SHAPE


def assert_holds(data, contents, first):
    """The data set holds these arrays, its labels from 0 on."""
    train_images, train_labels, test_images, test_labels = contents
    for split, images, labels in ((data.train, train_images, train_labels), (data.test, test_images, test_labels)):
        pixels = images.reshape(len(images), -1).astype(np.float32) / np.float32(255)
        np.testing.assert_array_equal(split.images, pixels, strict=True)
        np.testing.assert_array_equal(split.labels, labels.astype(np.int64) - first, strict=True)


# ---- four IDX files ----


@pytest.mark.parametrize(("first", "classes"), [(0, 10), (3, 5), (1, 26)])
def test_idx_files_of_any_size_and_labels(tmp_path, first, classes):
    contents = arrays(classes, first)
    data = load_dataset(str(write_idx(tmp_path / "letters", contents)))
    assert (data.name, data.image_shape) == ("letters", SHAPE)
    assert data.classes == tuple(str(first + k) for k in range(classes))
    assert_holds(data, contents, first)


def test_idx_files_may_be_gzipped_and_skip_labels(tmp_path):
    contents = arrays(2)
    contents[1], contents[3] = (np.where(labels, 200, 7).astype(np.uint8) for labels in contents[1::2])
    write_idx(tmp_path, contents)
    for path in list(tmp_path.iterdir()):
        path.with_name(f"{path.name}.gz").write_bytes(gzip.compress(path.read_bytes()))
        path.unlink()
    data = load_own(tmp_path)
    assert data.classes == ("7", "200")
    assert data.train.labels.tolist() == [0, 1] * 30


def test_idx_files_that_are_published_are_known(tmp_path, monkeypatch):
    contents = arrays(10, shape=(28, 28))
    folder = write_idx(tmp_path / "digits", contents)
    assert load_own(folder).name == "digits"
    for name, array in zip(mnist.NAMES, contents, strict=True):
        monkeypatch.setitem(mnist.SHA256, name, hashlib.sha256(idx(array)).hexdigest())
    data = load_own(folder)
    assert (data.name, data.classes) == ("mnist", DIGITS)
    assert data.digest == load_dataset("mnist", folder).digest
    assert_holds(data, contents, 0)


@pytest.mark.parametrize("name", ["mnist", "strokes", "auto", "fashion-mnist"])
def test_other_data_never_has_a_name_of_ours(tmp_path, name):
    assert load_own(write_idx(tmp_path / name, arrays())).name == f"own {name}"


def test_idx_files_must_be_four_images_and_labels_that_fit(tmp_path):
    contents = arrays()
    write_idx(tmp_path, contents)
    (tmp_path / mnist.NAMES[3]).unlink()
    assert "lacks t10k-labels-idx1-ubyte" in refusal(load_own, tmp_path)
    for place, wrong, reason in (
        (0, contents[0][:, 0], "images need the shape (n, height, width), got (60, 4)"),
        (0, contents[0][:0], "images need the shape (n, height, width), got (0, 6, 4)"),
        (1, contents[1][:-1], "labels need the shape (60,), one an image, got (59,)"),
        (2, contents[2][:, :, :3], "the training images have 6 by 4 pixels and the test images 6 by 3"),
        (3, contents[3] + 1, "the label '5' never occurs in training"),
    ):
        write_idx(tmp_path, [*contents[:place], wrong, *contents[place + 1 :]])
        assert reason in refusal(load_own, tmp_path)
    (tmp_path / mnist.NAMES[0]).write_bytes(idx(contents[0])[:-1])
    message = refusal(load_own, tmp_path)
    assert "holds only 1439" in message
    assert "data fetch" not in message, "that would put digits among one's own"


# ---- an archive of NumPy ----


@pytest.mark.parametrize("kind", ["bytes", "floats", "one channel"])
def test_npz_as_keras_has_it(tmp_path, kind):
    train_images, train_labels, test_images, test_labels = contents = arrays(4)
    images = [train_images, test_images]
    if kind == "floats":
        images = [image / 255 for image in images]
    if kind == "one channel":
        images = [image[..., None] for image in images]
    path = write_npz(tmp_path / "my.npz", [images[0], train_labels.astype(np.int64), images[1], test_labels])
    data = load_own(path)
    assert (data.name, data.image_shape, data.classes) == ("my", SHAPE, tuple("0123"))
    assert_holds(data, contents, 0)


def test_npz_with_names_for_labels_or_without_labels(tmp_path):
    train_images, train_labels, test_images, test_labels = arrays(2)
    names = np.array(["pear", "apple"])
    labelled = write_npz(tmp_path / "a.npz", [train_images, names[train_labels], test_images, names[test_labels]])
    data = load_own(labelled)
    assert data.classes == ("apple", "pear")
    np.testing.assert_array_equal(data.train.labels, 1 - train_labels)
    data = load_own(write_npz(tmp_path / "b.npz", [train_images, None, test_images, None]))
    assert data.classes == ()
    assert set(data.train.labels) == set(data.test.labels) == {UNLABELLED}


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"x_test": None}, "has no x_test; store"),
        ({"x_train": None, "x_test": None}, "has no x_train and no x_test"),
        ({"y_test": None}, "x_train has labels and"),
        ({"y_train": np.zeros((60, 5), np.uint8)}, "labels need the shape (60,)"),
        ({"y_train": np.zeros(60)}, "y_train holds float64; labels are integers or text"),
        ({"y_train": np.array([None] * 60)}, "cannot be read as .npz"),
        ({"x_train": np.zeros((60, 6, 4), np.int64)}, "the pixels are int64"),
        ({"x_train": np.zeros((60, 6, 4, 3), np.uint8)}, "got (60, 6, 4, 3)"),
        ({"x_train": np.full((60, 6, 4), 255.0)}, "x_train: 60 images hold pixels that are NaN or not in [0, 1]"),
        ({"x_train": np.full((60, 6, 4), np.nan)}, "60 images hold pixels that are NaN"),
        ({"y_train": np.array([None] * 60)}, "an array holds Python objects, not numbers"),
        ({"y_train": np.arange(60), "y_test": np.arange(20)}, "there are 60 different labels, and at most 50"),
    ],
)
def test_npz_that_does_not_fit(tmp_path, monkeypatch, change, reason):
    monkeypatch.setattr(dataset, "MOST_CLASSES", 50)
    assert reason in refusal(load_own, write_npz(tmp_path / "my.npz", arrays(), **change))


@pytest.mark.parametrize("damage", [lambda b: b"", lambda b: b[:-40], lambda b: b"text", lambda b: b[:60] + b[80:]])
def test_file_that_is_no_npz(tmp_path, damage):
    path = write_npz(tmp_path / "my.npz", arrays())
    path.write_bytes(damage(path.read_bytes()))
    assert "my.npz': cannot be read as .npz" in refusal(load_own, path)
    np.save(tmp_path / "one.npy", np.zeros(3))
    assert "it is not an archive" in refusal(load_own, tmp_path / "one.npy")


# ---- pictures ----


def test_pictures_by_class_hold_out_every_seventh(tmp_path):
    folder = write_pictures(tmp_path / "zoo", ("dog", "cat"), each=15)
    (folder / "readme.txt").write_text("mine")
    (folder / ".hidden").mkdir()
    data = load_own(folder)
    assert (data.name, data.image_shape, data.classes) == ("zoo", SHAPE, ("cat", "dog"))
    assert (len(data.train), len(data.test)) == (26, 4)
    for label, name in enumerate(("cat", "dog")):
        expected = [np.asarray(Image.open(folder / name / f"{i:02}.png")).ravel() / 255 for i in (6, 13)]
        found = data.test.images[data.test.labels == label]
        np.testing.assert_allclose(sorted(found.tolist()), sorted(np.array(expected).tolist()), rtol=1e-6)


def test_pictures_come_with_their_classes_mixed_in_the_same_way_each_time(tmp_path):
    folder = write_pictures(tmp_path / "zoo", ("dog", "cat"), each=30)
    labels = load_own(folder).train.labels
    assert 5 < labels[:26].sum() < 21  # in the order of the folders it would be 0
    np.testing.assert_array_equal(load_own(folder).train.labels, labels)


def test_pictures_divided_into_train_and_test(tmp_path):
    write_pictures(tmp_path / "train", ("cat", "dog"), each=5)
    write_pictures(tmp_path / "test", ("dog",), each=2)
    write_pictures(tmp_path / "validation", ("cow",), each=2)
    data = load_own(tmp_path)
    assert (len(data.train), data.test.labels.tolist(), data.classes) == (10, [1, 1], ("cat", "dog"))


@pytest.mark.parametrize("divided", [False, True])
def test_pictures_without_sub_folders_have_no_labels(tmp_path, divided):
    for split in ("train", "test") if divided else ("",):
        write_pictures(tmp_path / split, ("",), each=14)
    data = load_own(tmp_path)
    assert data.classes == ()
    assert (len(data.train), len(data.test)) == ((14, 14) if divided else (12, 2))


def test_pictures_become_grey(tmp_path, monkeypatch):
    """By luminance, 0.299 R + 0.587 G + 0.114 B; and before white where they are transparent."""
    monkeypatch.setattr(own, "LEAST_TRAINING", 5)
    monkeypatch.setattr(own, "LEAST_TEST", 1)
    colours = {"red": (255, 0, 0), "green": (0, 255, 0), "blue": (0, 0, 255), "clear": (0, 0, 0, 0)}
    (tmp_path / "train").mkdir()
    write_pictures(tmp_path / "test", ("",), each=1)
    for name, colour in colours.items():
        Image.new("RGBA" if len(colour) == 4 else "RGB", (WIDTH, HEIGHT), colour).save(
            tmp_path / "train" / f"{name}.png"
        )
    Image.new("P", (WIDTH, HEIGHT)).save(tmp_path / "train" / "palette.png", transparency=0)
    found = load_own(tmp_path).train.images[:, 0]  # blue, red, green; clear and palette are white
    np.testing.assert_allclose(sorted(found), [0.114, 0.299, 0.587, 1, 1], atol=1 / 255)


@pytest.mark.parametrize("suffix", ["jpg", "JPEG", "PNG"])
def test_pictures_have_one_of_these_endings(tmp_path, suffix):
    data = load_own(write_pictures(tmp_path, suffix=suffix))
    assert len(data.train) == 36


def test_pictures_that_do_not_fit(tmp_path):
    def wrong(name, change):
        folder = write_pictures(tmp_path / name)
        change(folder)
        return refusal(load_own, folder)

    assert "no pictures" in wrong("a", lambda folder: (folder / "pig").mkdir())
    assert "'pig'" in wrong("a", lambda folder: None)
    assert "lies beside the folders of the classes" in wrong("b", lambda f: (f / "owl" / "00.png").rename(f / "00.png"))
    assert "5 by 4 pixels" in wrong("d", lambda f: Image.new("L", (4, 5)).save(f / "owl" / "99.png"))
    for content in (b"", b"no picture", (tmp_path / "d" / "owl" / "00.png").read_bytes()[:-30]):
        message = wrong("e", lambda f, content=content: (f / "owl" / "03.png").write_bytes(content))
        assert "owl/03.png': cannot be read as PNG or JPEG" in message
    deep = Image.fromarray(np.zeros(SHAPE, np.uint16))
    assert "more than 8 bits a pixel" in wrong("f", lambda f: deep.save(f / "owl" / "03.png"))
    few = write_pictures(tmp_path / "g", each=6)
    assert "every 7th picture is a test image, and none has so many" in refusal(load_own, few)
    write_pictures(tmp_path / "h" / "train", ("cat",))
    write_pictures(tmp_path / "h" / "test", ("cat", "pig"))
    assert "the label 'pig' never occurs in training" in refusal(load_own, tmp_path / "h")
    (tmp_path / "empty").mkdir()
    assert "neither MNIST's four files nor pictures" in refusal(load_own, tmp_path / "empty")


# ---- all of them ----


def test_path_must_be_there_and_stand_alone(tmp_path):
    assert "is neither a folder nor a file" in refusal(load_own, tmp_path / "nowhere")
    assert "leave --data-dir out" in refusal(load_dataset, str(tmp_path), tmp_path)


@pytest.mark.parametrize(("train", "test"), [(9, 2), (10, 1)])
def test_data_must_not_be_too_few(tmp_path, train, test):
    path = write_npz(tmp_path / "few.npz", arrays(1, train=train, test=test))
    assert f"has {train} training and {test} test images; at least 10 and 2 are needed" in refusal(load_own, path)
    assert len(load_own(write_npz(path, arrays(1, train=10, test=2))).test) == 2


def test_digest_is_of_what_the_files_hold(tmp_path):
    contents = arrays()
    folder = write_idx(tmp_path / "idx", contents)
    same = load_own(folder).digest
    assert len(same) == 64
    assert load_own(write_npz(tmp_path / "my.npz", contents)).digest == same
    for place in range(4):
        changed = [array.copy() for array in contents]
        changed[place].flat[0] ^= 1
        assert load_own(write_idx(tmp_path / str(place), changed)).digest != same
    assert (
        load_own(write_idx(tmp_path / "names", [*contents[:1], contents[1] + 1, contents[2], contents[3] + 1])).digest
        != same
    )
