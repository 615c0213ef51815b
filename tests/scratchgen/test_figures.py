"""Figures, read back pixel by pixel where images are shown, and as matplotlib's objects where data is plotted."""

import errno
import math
import os
import subprocess
import sys
import tempfile
from itertools import pairwise
from statistics import NormalDist
from typing import Any

import matplotlib
import numpy as np
import pytest
from matplotlib.figure import Figure
from matplotlib.image import imread
from PIL import Image

from scratchgen import figures

pytestmark = pytest.mark.filterwarnings("error")

RNG = np.random.default_rng(0)
CODES = RNG.normal(size=(50, 2))
LABELS = np.arange(50) % 10
ROUNDING = 2 / 255  # what a colour map and a PNG's grays may cost
PRIOR = 3 * RNG.normal(size=(20, 2))
HISTORY = [
    {"epoch": e, "seconds": 2.0, "train": {"loss": 9 / e, "kl": e}, "test": {"loss": 10 / e, "kl": e}}
    for e in (1, 2, 3)
]


def gray(n, height=28, width=28):
    """Draw read-only images (n, height, width) of random grays."""
    images = RNG.random((n, height, width))
    images.setflags(write=False)
    return images


SAVE = {
    "samples": lambda path: figures.save_samples(path, gray(20)),
    "columns": lambda path: figures.save_columns(path, gray(12).reshape(4, 3, -1), ["a", "b", "c"], title="columns"),
    "pairs": lambda path: figures.save_pairs(path, gray(12), gray(12), title="pairs"),
    "manifold": lambda path: figures.save_manifold(path, gray(20), 4, 5),
    "scatter": lambda path: figures.save_latent_scatter(path, CODES, LABELS),
    "scatter and prior": lambda path: figures.save_latent_scatter(path, CODES, LABELS, "codes", PRIOR),
    "curves": lambda path: figures.save_loss_curves(path, HISTORY),
    "comparison": lambda path: figures.save_comparison(path, {"a": HISTORY, "b": HISTORY[:1]}, ["loss", "kl"]),
    "health": lambda path: figures.save_health(path, CODES[:, 0], CODES[:, 1], np.arange(10)),
}
every_figure = pytest.mark.parametrize("save", SAVE.values(), ids=SAVE)


def shown(path, left=16, bottom=16, top=16):
    """Read a file's images back in their own pixels, each of which fills a square of the file's."""
    pixels = imread(path)[top:-bottom, left:-16]
    assert np.array_equal(pixels[..., 0], pixels[..., 1])
    assert np.array_equal(pixels[..., 0], pixels[..., 2])
    zoom = next(z for z in range(12, 0, -1) if is_zoomed(pixels[..., 0], z))
    return pixels[::zoom, ::zoom, 0]


def is_zoomed(pixels, zoom):
    """Tell whether an image is made of squares, ``zoom`` pixels on a side."""
    return np.array_equal(pixels[::zoom, ::zoom].repeat(zoom, axis=0).repeat(zoom, axis=1), pixels)


@pytest.fixture
def drawn(monkeypatch):
    """List every figure that is made."""
    made = []

    class Recorded(Figure):
        def __init__(self, *args, **kwargs):
            super().__init__(*args, **kwargs)
            made.append(self)

    monkeypatch.setattr(figures, "Figure", Recorded)
    return made


# --- files --------------------------------------------------------------------------------------------------


@every_figure
def test_figures_are_pngs_of_sane_size_on_white(tmp_path, save):
    path = tmp_path / "figure.png"
    assert save(path) == path
    assert list(tmp_path.iterdir()) == [path]
    assert path.read_bytes().startswith(b"\x89PNG\r\n\x1a\n")
    height, width, channels = imread(path).shape
    assert 800 <= width <= 1600
    assert 200 <= height <= 1600
    assert channels == 4
    corners = imread(path)[:: height - 1, :: width - 1]
    assert np.array_equal(corners, np.ones((2, 2, 4)))


@pytest.mark.parametrize("name", ["scatter and prior", "curves"])
def test_figures_ignore_and_keep_matplotlib_settings(tmp_path, name):
    save = SAVE[name]
    save(tmp_path / "plain.png")
    theirs: dict[Any, Any] = {
        "savefig.bbox": "tight",
        "figure.facecolor": "black",
        "font.size": 30.0,
        "image.origin": "lower",
    }
    with matplotlib.rc_context(theirs):
        save(tmp_path / "theirs.png")
        assert {name: matplotlib.rcParams[name] for name in theirs} == theirs
    assert (tmp_path / "plain.png").read_bytes() == (tmp_path / "theirs.png").read_bytes()


def test_save_samples_writes_nothing_where_there_is_no_folder(tmp_path):
    with pytest.raises(FileNotFoundError):
        figures.save_samples(tmp_path / "missing" / "figure.png", gray(1))
    (tmp_path / "file").write_bytes(b"kept")
    with pytest.raises(NotADirectoryError):
        figures.save_samples(tmp_path / "file" / "figure.png", gray(1))
    assert [p.name for p in tmp_path.iterdir()] == ["file"]
    assert (tmp_path / "file").read_bytes() == b"kept"


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="root may write anywhere")
def test_save_samples_writes_nothing_without_permission(tmp_path):
    tmp_path.chmod(0o500)
    with pytest.raises(PermissionError):
        figures.save_samples(tmp_path / "figure.png", gray(1))
    assert not list(tmp_path.iterdir())


def test_save_samples_leaves_nothing_beside_a_folder_of_its_name(tmp_path):
    (tmp_path / "figure.png").mkdir()
    with pytest.raises(OSError, match=r"figure\.png"):
        figures.save_samples(tmp_path / "figure.png", gray(1))
    assert [p.name for p in tmp_path.rglob("*")] == ["figure.png"]


def test_save_samples_keeps_the_old_file_on_a_full_disk(tmp_path, monkeypatch):
    def half_write(self, part):
        part.write_bytes(b"half")
        raise OSError(errno.ENOSPC, "No space left on device")

    path = figures.save_samples(tmp_path / "figure.png", gray(1))
    before = path.read_bytes()
    monkeypatch.setattr(Figure, "savefig", half_write)
    with pytest.raises(OSError, match="No space"):
        figures.save_samples(path, gray(2))
    assert list(tmp_path.iterdir()) == [path]
    assert path.read_bytes() == before


def test_save_samples_replaces_the_old_file_atomically(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "other disk"))
    path, link = tmp_path / "figure.png", tmp_path / "link"
    path.write_bytes(b"old")
    link.hardlink_to(path)
    assert len(shown(figures.save_samples(path, gray(1)))) == 28
    assert link.read_bytes() == b"old"  # a file that were rewritten in place would show here


def test_figures_need_neither_pyplot_nor_a_display(tmp_path):
    code = (
        "import sys, numpy, pathlib; from scratchgen import figures;"
        "figures.save_latent_scatter(pathlib.Path(sys.argv[1]), numpy.eye(2), numpy.arange(2));"
        "assert 'matplotlib.pyplot' not in sys.modules"
    )
    env = {name: value for name, value in os.environ.items() if name != "DISPLAY"} | {"MPLBACKEND": "tkagg"}
    subprocess.run([sys.executable, "-c", code, str(tmp_path / "figure.png")], check=True, env=env)


# --- images -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("white", range(6))
def test_save_samples_puts_each_image_into_its_cell(tmp_path, white):
    images = np.zeros((6, 784), np.float32)
    images[white] = 1
    pixels = shown(figures.save_samples(tmp_path / "figure.png", images, columns=3))
    assert pixels.shape == (2 * 28 + 1, 3 * 28 + 2)
    for i in range(6):
        row, column = divmod(i, 3)
        cell = pixels[29 * row :, 29 * column :][:28, :28]
        assert np.all(cell == (i == white))


@pytest.mark.parametrize(
    ("n", "columns", "rows_and_columns", "shape"),
    [
        (1, None, (1, 1), (28, 28)),
        (10, None, (3, 4), (28, 28)),
        (7, 3, (3, 3), (5, 9)),
        (2, 50, (1, 2), (3, 2)),  # never more columns than images
        (6, 6, (1, 6), (4, 300)),  # too wide for the page: a pixel each, and none is lost
    ],
)
def test_save_samples_keeps_every_pixel(tmp_path, n, columns, rows_and_columns, shape):
    images, (rows, cols), (height, width) = gray(n, *shape), rows_and_columns, shape
    expected = np.ones((rows * (height + 1) - 1, cols * (width + 1) - 1))
    for i, image in enumerate(images):
        y, x = i // cols * (height + 1), i % cols * (width + 1)
        expected[y : y + height, x : x + width] = image
    for form in images, images.reshape(n, -1):
        path = figures.save_samples(tmp_path / "figure.png", form, shape, columns)
        np.testing.assert_allclose(shown(path), expected, atol=ROUNDING)


def test_figures_convert_pixels_to_inches_and_back_exactly():
    assert all(n / figures._DPI * figures._DPI == n for n in range(10_000))


def test_save_samples_puts_its_title_above_the_images(tmp_path):
    images = gray(6)
    plain = imread(figures.save_samples(tmp_path / "plain.png", images, columns=6))
    titled = imread(figures.save_samples(tmp_path / "titled.png", images, columns=6, title="Samples"))
    added = len(titled) - len(plain)
    assert added > 0
    assert np.array_equal(titled[added + 16 :], plain[16:])
    assert titled[: added + 16].min() < 0.5


def test_save_samples_leaves_a_short_row_room_for_its_title(tmp_path):
    assert imread(figures.save_samples(tmp_path / "figure.png", gray(1), title="Samples")).shape[1] == 800


def test_save_samples_clips_values_beyond_black_and_white(tmp_path):
    images = np.array([[[-1, 0.0], [1, 2]]])
    pixels = shown(figures.save_samples(tmp_path / "figure.png", images, (2, 2)))
    assert np.array_equal(pixels, [[0, 0], [1, 1]])


def test_save_pairs_puts_the_lower_below_the_upper(tmp_path):
    originals, reconstructions = gray(13, 6, 4), gray(13, 6, 4)
    path = figures.save_pairs(tmp_path / "figure.png", originals, reconstructions.reshape(13, -1), (6, 4))
    pixels = shown(path, left=192)
    assert pixels.shape == (2 * 13 + 4, 10 * 8 - 4)
    for i in range(13):
        pair = pixels[i // 10 * 17 :, i % 10 * 8 :]
        np.testing.assert_allclose(pair[:6, :4], originals[i], atol=ROUNDING)
        np.testing.assert_allclose(pair[7:13, :4], reconstructions[i], atol=ROUNDING)


def test_save_pairs_labels_its_rows(tmp_path, drawn):
    figures.save_pairs(tmp_path / "figure.png", gray(13, 6, 4), gray(13, 6, 4), (6, 4), names=("above", "below"))
    (axes,) = drawn[0].axes
    assert [label.get_text() for label in axes.get_yticklabels()] == ["above", "below"] * 2
    assert axes.get_yticks().tolist() == [3, 10, 20, 27]  # the middles of the rows
    assert imread(tmp_path / "figure.png")[:, :192].min() < 0.5


def test_save_columns_names_its_columns(tmp_path, drawn):
    images = gray(6, 5, 4)
    path = figures.save_columns(tmp_path / "figure.png", images.reshape(2, 3, 20), ["a", "b", "c"], (5, 4), "steps")
    pixels = shown(path, left=48, bottom=96)
    assert pixels.shape == (2 * 7 - 2, 3 * 6 - 2)
    for i in range(6):
        tile = pixels[i // 3 * 7 :, i % 3 * 6 :][:5, :4]
        np.testing.assert_allclose(tile, images[i], atol=ROUNDING)
    (axes,) = drawn[0].axes
    assert [label.get_text() for label in axes.get_xticklabels()] == ["a", "b", "c"]
    assert axes.get_xticks().tolist() == [2, 8, 14]
    assert axes.get_xlabel() == "steps"


@pytest.mark.parametrize(("rows", "cols"), [(4, 4), (2, 5), (1, 1)])
def test_save_manifold_lays_images_edge_to_edge(tmp_path, rows, cols):
    images = gray(rows * cols, 20, 24)
    pixels = shown(figures.save_manifold(tmp_path / "figure.png", images, rows, cols, (20, 24)), left=120, bottom=96)
    np.testing.assert_allclose(
        pixels, np.block([list(row) for row in images.reshape(rows, cols, 20, 24)]), atol=ROUNDING
    )


def test_save_manifold_labels_its_axes_with_codes(tmp_path, drawn):
    figures.save_manifold(tmp_path / "figure.png", gray(100), 10, 10)
    (axes,) = drawn[0].axes
    for positions, labels, sign in (
        (axes.get_xticks(), axes.get_xticklabels(), 1),
        (axes.get_yticks(), axes.get_yticklabels(), -1),
    ):
        codes = [sign * float(label.get_text().replace("−", "-")) for label in labels]
        assert codes[0] == -1.5 * sign
        np.testing.assert_allclose([NormalDist().inv_cdf(p / 280) for p in positions], codes, atol=1e-12)
    assert axes.get_xlabel().startswith("z₁")
    assert axes.get_ylabel().startswith("z₂")


# --- codes --------------------------------------------------------------------------------------------------


def test_save_latent_scatter_colours_codes_as_in_its_legend(tmp_path, drawn):
    figures.save_latent_scatter(tmp_path / "figure.png", CODES, LABELS, "codes")
    (axes,) = drawn[0].axes
    colours = {c.get_label(): tuple(c.get_facecolor()[0][:3]) for c in axes.collections[1:]}
    assert list(colours) == [str(digit) for digit in range(10)]
    assert len(set(colours.values())) == 10
    (legend,) = drawn[0].legends
    assert [text.get_text() for text in legend.get_texts()] == list(colours)
    dots = axes.collections[0]
    drawn_as = {tuple(xy): tuple(c[:3]) for xy, c in zip(dots.get_offsets().data, dots.get_facecolor(), strict=True)}
    assert drawn_as == {tuple(xy): colours[str(label)] for xy, label in zip(CODES, LABELS, strict=True)}
    medians = {text.get_text(): text.get_position() for text in axes.texts}
    assert medians == {str(d): tuple(np.median(CODES[d == LABELS], axis=0)) for d in range(10)}


def test_save_latent_scatter_lists_only_classes_that_occur(tmp_path, drawn):
    figures.save_latent_scatter(tmp_path / "figure.png", CODES[:2], np.array([7, 3], np.uint8))
    assert [text.get_text() for text in drawn[0].legends[0].get_texts()] == ["3", "7"]


@pytest.mark.parametrize("count", [3, 26])
def test_save_latent_scatter_names_classes_and_colours_any_number(tmp_path, drawn, count):
    names, labels = [f"class {k}" for k in range(count)], np.arange(50) % count
    figures.save_latent_scatter(tmp_path / "figure.png", CODES, labels, "", CODES, labels, names)
    left, right = drawn[0].axes
    (legend,) = drawn[0].legends
    assert [text.get_text() for text in legend.get_texts()] == [text.get_text() for text in left.texts] == names
    colours = [tuple(c.get_facecolor()[0][:3]) for c in left.collections[1:]]
    assert len(set(colours)) == count
    of_prior = right.collections[0].get_facecolor()[:, :3]
    assert [tuple(colour) for colour in of_prior] == [colours[label] for label in labels]
    box = legend.get_window_extent()
    assert box.y0 >= 0
    assert box.y1 <= drawn[0].bbox.y1


def test_save_latent_scatter_without_labels_has_one_colour_and_no_legend(tmp_path, drawn):
    figures.save_latent_scatter(tmp_path / "figure.png", CODES, None)
    (axes,) = drawn[0].axes
    assert len(np.unique(axes.collections[0].get_facecolor(), axis=0)) == 1
    assert not drawn[0].legends
    assert not axes.texts


def test_save_latent_scatter_draws_the_prior_on_the_same_scale(tmp_path, drawn):
    figures.save_latent_scatter(tmp_path / "figure.png", CODES, LABELS, "codes", PRIOR)
    left, right = drawn[0].axes
    assert np.array_equal(right.collections[0].get_offsets(), PRIOR)
    assert left.get_title(loc="left") == "codes"
    for axes in left, right:
        assert axes.get_aspect() == 1
        x_limits, y_limits = axes.get_xlim(), axes.get_ylim()
        assert np.ptp(x_limits) == pytest.approx(np.ptp(y_limits))
        for points in CODES, PRIOR:
            assert x_limits[0] < points[:, 0].min() < points[:, 0].max() < x_limits[1]
            assert y_limits[0] < points[:, 1].min() < points[:, 1].max() < y_limits[1]
    assert left.get_window_extent().x1 < right.get_window_extent().x0


def test_save_latent_scatter_draws_a_single_code(tmp_path):
    figures.save_latent_scatter(tmp_path / "figure.png", np.zeros((1, 2)), np.zeros(1, int))


# --- curves -------------------------------------------------------------------------------------------------


def lines(figure):
    """Return {metric: {split: (epochs, values)}} as drawn."""
    return {
        axes.get_title(loc="left"): {
            line.get_label(): (list(line.get_xdata()), list(line.get_ydata())) for line in axes.lines
        }
        for axes in figure.axes
    }


def test_save_loss_curves_draws_every_metric_of_both_splits(tmp_path, drawn):
    figures.save_loss_curves(tmp_path / "figure.png", HISTORY, title="VAE", ylabel="bits")
    assert lines(drawn[0]) == {
        "loss": {"train": ([1, 2, 3], [9, 4.5, 3]), "test": ([1, 2, 3], [10, 5, 10 / 3])},
        "kl": {"train": ([1, 2, 3], [1, 2, 3]), "test": ([1, 2, 3], [1, 2, 3])},
    }
    assert drawn[0].get_suptitle() == "VAE"
    assert drawn[0].axes[0].get_ylabel() == "bits"
    assert {axes.get_xlabel() for axes in drawn[0].axes} == {"epoch"}
    assert len({line.get_color() for line in drawn[0].axes[0].lines}) == 2


def test_save_loss_curves_names_what_an_axis_shows(tmp_path, drawn):
    figures.save_loss_curves(tmp_path / "figure.png", HISTORY, formulas={"kl": "KL(q || p)"})
    assert [axes.get_ylabel() for axes in drawn[0].axes] == ["nats per image", "KL(q || p)"]


def test_save_loss_curves_marks_a_single_epoch(tmp_path, drawn):
    figures.save_loss_curves(tmp_path / "figure.png", HISTORY[:1])
    for axes in drawn[0].axes:
        assert [line.get_marker() for line in axes.lines] == ["o", "o"]
        assert [tick for tick in axes.get_xticks() if axes.get_xlim()[0] <= tick <= axes.get_xlim()[1]] == [1]


def test_save_loss_curves_takes_histories_with_missing_metrics(tmp_path, drawn):
    history: list[dict[str, Any]] = [
        {"epoch": 1, "train": {"neg_elbo": 3.0}},
        {"epoch": 2, "train": {"neg_elbo": math.nan}, "test": {"neg_elbo": 2.0, "accuracy": None}},
        {"epoch": 3, "test": None},
        {"epoch": 4, "train": {}, "test": {"neg_elbo": 1.0, "accuracy": 0.5}},
    ]
    figures.save_loss_curves(tmp_path / "figure.png", history)
    drawn_lines = lines(drawn[0])
    assert drawn_lines["neg elbo"]["train"][0] == [1, 2]
    assert drawn_lines["neg elbo"]["test"] == ([2, 4], [2.0, 1.0])
    assert drawn_lines["accuracy"]["test"] == ([2, 4], [None, 0.5])


@pytest.mark.parametrize(("n", "rows", "columns"), [(1, 1, 1), (3, 1, 3), (4, 2, 2)])
def test_save_loss_curves_fills_rows_with_panels(tmp_path, drawn, n, rows, columns):
    figures.save_loss_curves(tmp_path / "figure.png", [{"epoch": 1, "train": {f"m{i}": 1.0 for i in range(n)}}])
    assert len(drawn[0].axes) == n
    assert drawn[0].axes[0].get_gridspec().get_geometry() == (rows, columns)


# --- errors -------------------------------------------------------------------------------------------------

REFUSED = {
    "no samples": (figures.save_samples, (np.ones((0, 784)),), "n > 0"),
    "samples of another size": (figures.save_samples, (np.ones((2, 783)),), r"\(n, 784\).*got \(2, 783\)"),
    "a single sample": (figures.save_samples, (np.ones(784),), "images must have shape"),
    "samples turned over": (figures.save_samples, (np.ones((1, 3, 2)), (2, 3)), "images must have shape"),
    "no columns": (figures.save_samples, (np.ones((2, 784)), (28, 28), 0), "columns"),
    "a name too few": (figures.save_columns, (np.ones((2, 3, 784)), ["a", "b"]), "3 columns .* 2 names"),
    "upper": (figures.save_pairs, (np.ones((2, 3)), np.ones((2, 784))), "upper must"),
    "lower": (figures.save_pairs, (np.ones((2, 784)), np.ones((2, 3))), "lower must"),
    "odd ones out": (figures.save_pairs, (np.ones((2, 784)), np.ones((1, 784))), "2 upper images .* 1"),
    "too few for a manifold": (figures.save_manifold, (np.ones((5, 784)), 2, 3), "5 images .* 2 rows of 3"),
    "negative manifold": (figures.save_manifold, (np.ones((4, 784)), -2, -2), "-2 rows"),
    "codes in 3D": (figures.save_latent_scatter, (np.ones((2, 3)), np.zeros(2, int)), r"codes .*\(2, 3\)"),
    "no codes": (figures.save_latent_scatter, (np.ones((0, 2)), np.zeros(0, int)), "n > 0"),
    "codes at infinity": (figures.save_latent_scatter, (np.full((1, 2), np.inf), np.zeros(1, int)), "finite"),
    "labels of others": (figures.save_latent_scatter, (CODES, LABELS[:3]), r"\(50,\), got \(3,\)"),
    "labels that are no integers": (figures.save_latent_scatter, (CODES, LABELS / 2), "integers"),
    "eleven classes": (figures.save_latent_scatter, (CODES, LABELS + 1), "0..9"),
    "prior in 1D": (figures.save_latent_scatter, (CODES, LABELS, "", np.ones(2)), "prior_samples must"),
    "prior without labels": (
        figures.save_latent_scatter,
        (CODES, LABELS, "", PRIOR, np.zeros(3, int)),
        "prior_labels must",
    ),
    "prior at nan": (figures.save_latent_scatter, (CODES, LABELS, "", PRIOR * np.nan), "prior_samples must be finite"),
    "no history": (figures.save_loss_curves, ([],), "no metrics"),
    "no metrics": (figures.save_loss_curves, ([{"epoch": 1, "train": {}}],), "no metrics"),
    "no epoch": (figures.save_loss_curves, ([{"train": {"loss": 1.0}}],), "no epoch, only train"),
}


@pytest.mark.parametrize(("save", "arguments", "message"), REFUSED.values(), ids=REFUSED)
def test_figures_refuse_data_that_does_not_fit(tmp_path, save, arguments, message):
    with pytest.raises(ValueError, match=message):
        save(tmp_path / "figure.png", *arguments)
    assert not list(tmp_path.iterdir())


# --- health -------------------------------------------------------------------------------------------------


def test_save_health_draws_both_histograms_and_the_class_shares(tmp_path, drawn):
    rng = np.random.default_rng(0)
    real, fake = rng.normal(2, 1, 500), rng.normal(-2, 1, 300)
    assert figures.save_health(tmp_path / "figure.png", real, fake, np.array([30, 10, 0])) == tmp_path / "figure.png"
    left, right = drawn[0].axes
    bars = left.patches
    assert [text.get_text() for text in left.get_legend().get_texts()] == ["test images", "samples"]
    assert left.get_xlabel() == "logit; 0 is D = ½"
    assert [list(line.get_xdata()) for line in left.lines] == [[0, 0]]
    for found, group in ((real, bars[:60]), (fake, bars[60:])):
        assert sum(bar.get_height() * bar.get_width() for bar in group) == pytest.approx(1)
        centre = sum((bar.get_x() + bar.get_width() / 2) * bar.get_height() * bar.get_width() for bar in group)
        assert centre == pytest.approx(found.mean(), abs=0.1)
    assert [bar.get_height() for bar in right.patches] == [0.75, 0.25, 0]
    assert right.lines[0].get_ydata()[0] == pytest.approx(1 / 3)


@pytest.mark.parametrize(
    "names", [("cat", "dog", "owl"), ("T-shirt/top", "Trouser", "Pullover", "Dress", "Ankle boot")]
)
def test_save_health_names_the_classes(tmp_path, drawn, names):
    figures.save_health(tmp_path / "figure.png", CODES[:, 0], CODES[:, 1], np.arange(len(names)), classes=names)
    labels = drawn[0].axes[1].get_xticklabels()
    assert [label.get_text() for label in labels] == list(names)
    boxes = [label.get_window_extent() for label in labels]
    assert all(left.x1 < right.x0 for left, right in pairwise(boxes))


def test_save_health_without_a_judge_draws_the_outputs_alone(tmp_path, drawn):
    figures.save_health(tmp_path / "figure.png", CODES[:, 0], CODES[:, 1], None)
    assert [axes.get_title(loc="left") for axes in drawn[0].axes] == ["discriminator"]


@pytest.mark.parametrize("scale", [0.0, 0.01, 100.0])
def test_save_health_draws_a_critic_s_outputs_at_any_scale(tmp_path, drawn, scale):
    outputs = 7 + scale * np.random.default_rng(0).normal(size=(2, 500))
    figures.save_health(tmp_path / "figure.png", *outputs, np.arange(10), critic=True)
    left, _ = drawn[0].axes
    assert [text.get_text() for text in left.get_legend().get_texts()] == ["test images: f(x)", "samples: f(G(z))"]
    assert (left.get_title(loc="left"), left.get_xlabel()) == ("critic", "output of the critic f")
    assert not left.lines
    filled = sum(bar.get_height() > 0 for bar in left.patches[:60])
    assert filled > 30 if scale else filled == 1


@pytest.mark.parametrize(
    ("real", "fake", "counts", "message"),
    [
        ([], [1.0], [1], "the outputs on test images must be"),
        ([1.0], [np.nan], [1], "the outputs on samples must be"),
        ([1.0], [1.0], [0, 0], "class_counts must be"),
    ],
)
def test_save_health_refuses_what_cannot_be_drawn(tmp_path, real, fake, counts, message):
    with pytest.raises(ValueError, match=message):
        figures.save_health(tmp_path / "figure.png", np.array(real), np.array(fake), np.array(counts))
    assert not list(tmp_path.iterdir())


# ---- comparisons ----


def test_save_comparison_draws_a_line_a_run_in_a_panel_a_metric(tmp_path, monkeypatch):
    drawn = []
    monkeypatch.setattr(figures, "Figure", lambda *args, **kwargs: drawn.append(Figure(*args, **kwargs)) or drawn[-1])
    other = [{"epoch": 1, "test": {"kl": 7.0}}, {"epoch": 2, "test": {"loss": 4.0, "kl": 8.0}}]
    figures.save_comparison(tmp_path / "c.png", {"first": HISTORY, "second": other, "third": []}, ["kl", "loss"])
    (figure,) = drawn
    assert [axes.get_title(loc="left") for axes in figure.axes] == ["kl", "loss"]
    lines = [[(*map(tuple, line.get_data()),) for line in axes.lines] for axes in figure.axes]
    assert lines == [
        [((1, 2, 3), (1, 2, 3)), ((1, 2), (7.0, 8.0)), ((), ())],
        [((1, 2, 3), (10.0, 5.0, 10 / 3)), ((2,), (4.0,)), ((), ())],
    ]
    (legend,) = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == ["first", "second", "third"]
    assert len({line.get_color() for line in figure.axes[0].lines}) == 3


def test_save_comparison_tells_more_than_ten_runs_apart(tmp_path, monkeypatch):
    drawn = []
    monkeypatch.setattr(figures, "Figure", lambda *args, **kwargs: drawn.append(Figure(*args, **kwargs)) or drawn[-1])
    figures.save_comparison(tmp_path / "c.png", {f"run {i}": HISTORY for i in range(12)}, ["kl"])
    assert len({(line.get_color(), line.get_linestyle()) for line in drawn[0].axes[0].lines}) == 12


@pytest.mark.parametrize("metrics", [[], ["other"]])
def test_save_comparison_refuses_metrics_that_no_run_has(tmp_path, metrics):
    with pytest.raises(ValueError, match="have measured none of the metrics"):
        figures.save_comparison(tmp_path / "c.png", {"a": HISTORY}, metrics)
    assert not list(tmp_path.iterdir())


# ---- animations ----


def test_save_animation_shows_every_image_in_grey_and_repeats(tmp_path):
    images = gray(7)
    path = figures.save_animation(tmp_path / "a.gif", images.reshape(7, 784))
    with Image.open(path) as film:
        assert (film.n_frames, film.size, film.info["loop"], film.info["duration"]) == (7, (224, 224), 0, 50)
        for number, image in enumerate(images):
            film.seek(number)
            pixels = np.asarray(film.convert("RGB")) / 255
            assert np.array_equal(pixels[..., 0], pixels[..., 1])
            assert np.abs(pixels[4::8, 4::8, 0] - image).max() <= 0.5 / 31 + ROUNDING
            assert np.array_equal(pixels, pixels[::8, ::8].repeat(8, axis=0).repeat(8, axis=1))
    assert [file.name for file in tmp_path.iterdir()] == ["a.gif"]


def test_save_animation_clips_what_is_no_grey_level(tmp_path):
    images = np.stack([np.full((28, 28), value) for value in (-0.5, 1.5)])
    with Image.open(figures.save_animation(tmp_path / "a.gif", images)) as film:
        shown = []
        for number in (0, 1):
            film.seek(number)
            shown.append(np.unique(np.asarray(film.convert("L"))).tolist())
    assert shown == [[0], [255]]


def test_save_animation_keeps_the_old_file_when_it_fails(tmp_path, monkeypatch):
    def fail(*_, **__):
        raise OSError(errno.ENOSPC, "No space left on device")

    (tmp_path / "a.gif").write_bytes(b"old")
    monkeypatch.setattr(Image.Image, "save", fail)
    with pytest.raises(OSError, match="No space left"):
        figures.save_animation(tmp_path / "a.gif", gray(2))
    assert (tmp_path / "a.gif").read_bytes() == b"old"
    assert [file.name for file in tmp_path.iterdir()] == ["a.gif"]
