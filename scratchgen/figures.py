"""Figures: arrays in, PNG files out, and a GIF.

Independent of the models. The figures are drawn without pyplot, so they need no display and keep no global
state, and files are written atomically. Each function returns the path it wrote; it raises ValueError for
inconsistent arguments, and OSError if the file cannot be written (or its folder does not exist).

Importing this module imports matplotlib, which is slow: import it only where a figure is drawn.
"""

import math
import os
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from statistics import NormalDist
from typing import Any

import numpy as np

try:
    import matplotlib
except ValueError:  # MPLBACKEND names a backend, of a notebook say, that is not here; none is needed
    os.environ.pop("MPLBACKEND", None)
    import matplotlib
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke
from matplotlib.ticker import MaxNLocator
from PIL import Image

from scratchgen.data.dataset import DIGITS

# Lengths are in pixels of the PNG, which is meant to be shown at half size: 1600 are 800 wide in a README.
# As 192 = 2⁷ + 2⁶, pixels / _DPI * _DPI is exact in floating point: the conversion to inches loses none.
_DPI = 192
_WIDTH = 1600
_MARGIN = 16
_TITLE = 40  # what a title adds to the height
FRAMES_A_SECOND = 20  # of an animation
_GREYS = 32
_STYLE: dict[Any, Any] = {
    "font.size": 9,
    "axes.titlesize": 10,
    "axes.titlelocation": "left",
    "axes.edgecolor": "#888888",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#e6e6e6",
    "legend.frameon": False,
}

# Ten colours that are distinguishable with the common kinds of colour blindness.
# Source: Petroff, "Accessible Color Sequences for Data Visualization", 2021, https://arxiv.org/abs/2107.02270
_BLUE, _ORANGE = "#3f90da", "#e76300"
COLOURS = [_BLUE, "#ffa90e", "#bd1f01", "#94a4a2", "#832db6", "#a96b59", _ORANGE, "#b9ac70", "#717581", "#92dadd"]


def save_samples(
    path: Path, images: np.ndarray, image_shape: tuple[int, int] = (28, 28), columns: int | None = None, title: str = ""
) -> Path:
    """Draw images in a grid, row by row.

    Parameters
    ----------
    images : np.ndarray
        (n, h * w) or (n, h, w), from 0, black, to 1, white.
    image_shape : tuple[int, int]
        (h, w), pixels.
    columns : int, optional
        Images in a row; by default the grid is nearly square.
    """
    images = _as_images("images", images, image_shape)
    columns = math.ceil(math.sqrt(len(images))) if columns is None else columns
    if columns < 1:
        raise ValueError(f"columns must be at least 1, got {columns}")
    with _mosaic_figure(path, _mosaic(images, min(columns, len(images)), gap=1), title):
        pass
    return path


def save_animation(path: Path, images: np.ndarray, image_shape: tuple[int, int] = (28, 28)) -> Path:
    """Write images, as in `save_samples`, as a GIF that shows ``FRAMES_A_SECOND`` and begins again at its end.

    Each image pixel covers 8 by 8 pixels. ``_GREYS`` grey levels look like all, and take half the space.
    """
    levels = np.rint(np.clip(_as_images("images", images, image_shape), 0, 1) * (_GREYS - 1)).astype(np.uint8)
    palette = np.repeat(np.linspace(0, 255, _GREYS).round().astype(np.uint8), 3).tobytes()
    frames = [Image.fromarray(level.repeat(8, axis=0).repeat(8, axis=1)) for level in levels]
    for frame in frames:
        frame.putpalette(palette)
    with _written(path) as part:
        duration = 1000 // FRAMES_A_SECOND
        frames[0].save(part, "GIF", save_all=True, append_images=frames[1:], duration=duration, loop=0)
    return path


def save_pairs(
    path: Path,
    upper: np.ndarray,
    lower: np.ndarray,
    image_shape: tuple[int, int] = (28, 28),
    names: tuple[str, str] = ("original", "reconstruction"),
    title: str = "",
) -> Path:
    """Draw each ``upper`` image above its ``lower`` one, up to ten pairs in a row; images as in `save_samples`."""
    upper, lower = _as_images("upper", upper, image_shape), _as_images("lower", lower, image_shape)
    if len(upper) != len(lower):
        raise ValueError(f"{len(upper)} upper images do not pair with {len(lower)} lower ones")
    (height, width), gap = image_shape, 4
    pairs = np.concatenate([upper, np.ones((len(upper), 1, width)), lower], axis=1)
    mosaic = _mosaic(pairs, min(10, len(pairs)), gap)
    tops = np.arange(0, len(mosaic), pairs.shape[1] + gap)
    with _mosaic_figure(path, mosaic, title, left=192) as axes:
        ticks = np.stack([tops + height / 2, tops + 1.5 * height + 1], axis=1).ravel()
        axes.set_yticks(ticks, [*names] * len(tops))
        axes.tick_params(length=0)
    return path


def save_columns(
    path: Path,
    images: np.ndarray,
    names: Sequence[str],
    image_shape: tuple[int, int] = (28, 28),
    xlabel: str = "",
    title: str = "",
) -> Path:
    """Draw rows of images (rows, columns, h * w) with a name below each column; images as in `save_samples`."""
    rows, columns, gap = *images.shape[:2], 2
    if columns != len(names):
        raise ValueError(f"{columns} columns of images do not go with {len(names)} names")
    tiles = _as_images("images", images.reshape(rows * columns, -1), image_shape)
    with _mosaic_figure(path, _mosaic(tiles, columns, gap), title, left=48, bottom=96) as axes:
        width = image_shape[1]
        axes.set_xticks(np.arange(columns) * (width + gap) + width / 2, names)
        axes.tick_params(length=0)
        axes.set_xlabel(xlabel)
    return path


def save_manifold(
    path: Path, images: np.ndarray, rows: int, cols: int, image_shape: tuple[int, int] = (28, 28), title: str = ""
) -> Path:
    """Draw images, as in `save_samples`, of a grid of two-dimensional codes edge to edge.

    The axes are linear in the cumulative probability of N(0, 1) and labelled with the codes, for the ``rows`` by
    ``cols`` codes of `priors.Gaussian.walk`.
    """
    images = _as_images("images", images, image_shape)
    if min(rows, cols) < 1 or len(images) != rows * cols:
        raise ValueError(f"{len(images)} images do not make {rows} rows of {cols}")
    mosaic = _mosaic(images, cols, gap=0)
    codes = np.arange(-1.5, 2, 0.5)
    probabilities = np.array([NormalDist().cdf(z) for z in codes])
    names = [f"{z:g}".replace("-", "−") for z in codes]
    with _mosaic_figure(path, mosaic, title, left=120, bottom=96) as axes:
        axes.set_xticks(probabilities * mosaic.shape[1], names)
        axes.set_yticks((1 - probabilities) * mosaic.shape[0], names)
        axes.set(xlabel="z₁, spaced by quantiles of N(0, 1)", ylabel="z₂, spaced by quantiles of N(0, 1)")
    return path


def save_latent_scatter(
    path: Path,
    codes: np.ndarray,
    labels: np.ndarray | None,
    title: str = "",
    prior_samples: np.ndarray | None = None,
    prior_labels: np.ndarray | None = None,
    classes: Sequence[str] = DIGITS,
) -> Path:
    """Draw codes coloured by class, with the name of each class at its median.

    Parameters
    ----------
    codes : np.ndarray
        (n, 2), finite.
    labels : np.ndarray or None
        (n,) integers 0..C-1; None draws all codes alike.
    prior_samples : np.ndarray, optional
        (m, 2), finite, shown beside the codes on the same scale.
    prior_labels : np.ndarray, optional
        (m,) integers 0..C-1: the classes whose regions of the prior the samples come from.
    classes : Sequence[str]
        The C names.
    """
    codes = _as_points("codes", codes)
    panels = [codes] if prior_samples is None else [codes, _as_points("prior_samples", prior_samples)]
    low, high = np.vstack(panels).min(axis=0), np.vstack(panels).max(axis=0)
    half = 0.53 * float((high - low).max()) or 1.0
    x_limits, y_limits = np.stack([(low + high) / 2 - half, (low + high) / 2 + half], axis=1)
    shuffled = np.random.default_rng(0).permutation(len(codes))  # so that the last class does not hide the others
    dots: dict[str, Any] = {"s": float(np.clip(2e4 / len(codes), 3, 20)), "alpha": 0.7, "linewidths": 0}
    with _figure(path, *((1200, 1120) if len(panels) == 1 else (_WIDTH, 820)), layout="compressed") as figure:
        left, *right = figure.subplots(1, len(panels), sharex=True, sharey=True, squeeze=False)[0]
        colours = _class_colours("labels", labels, len(codes), len(classes))
        left.scatter(*codes[shuffled].T, c=[colours[i] for i in shuffled], **dots)
        left.set(title=title, xlabel="z₁", ylabel="z₂", xlim=x_limits, ylim=y_limits, aspect="equal")
        halo = [withStroke(linewidth=3, foreground="white")]
        for label in [] if labels is None else np.unique(labels):
            members = np.flatnonzero(labels == label)
            name, size = classes[label], 12 if len(classes[label]) < 3 else 8
            left.text(
                *np.median(codes[members], axis=0),
                name,
                ha="center",
                va="center",
                size=size,
                weight="bold",
                path_effects=halo,
            )
            left.scatter([], [], color=colours[members[0]], s=30, label=name)
        for axes in right:
            axes.scatter(
                *panels[1].T, c=_class_colours("prior_labels", prior_labels, len(panels[1]), len(classes)), **dots
            )
            axes.set(title="samples of the prior", xlabel="z₁", aspect="equal")
            axes.label_outer(remove_inner_ticks=True)
        if labels is not None:
            columns = math.ceil(len(np.unique(labels)) / 20)  # more do not fit into the height
            figure.legend(loc="outside right center", handletextpad=0.1, ncols=columns)
    return path


def save_loss_curves(
    path: Path,
    history: Sequence[Mapping[str, Any]],
    title: str = "",
    ylabel: str = "nats per image",
    formulas: Mapping[str, str] | None = None,
) -> Path:
    """Draw every metric over the epochs in its own panel, one line for training and one for testing.

    Parameters
    ----------
    history : Sequence[Mapping[str, Any]]
        One entry an epoch: its number, ``"epoch"``, and dicts of metrics, ``"train"`` and ``"test"``, each of
        which may be missing or incomplete. Other keys are ignored.
    ylabel : str
        Unit of the metrics.
    formulas : Mapping[str, str], optional
        What the axes of some metrics say instead.
    """
    curves: dict[str, dict[str, list[tuple[float, float]]]] = {}
    for entry in history:
        if "epoch" not in entry:
            raise ValueError(f"an entry of the history has no epoch, only {', '.join(entry) or 'nothing'}")
        for split in "train", "test":
            for metric, value in (entry.get(split) or {}).items():
                curves.setdefault(metric, {}).setdefault(split, []).append((entry["epoch"], value))
    if not curves:
        raise ValueError("the history has no metrics")
    rows, columns = _rows_and_columns(len(curves))
    looks: dict[str, dict[str, Any]] = {"train": {"color": _BLUE}, "test": {"color": _ORANGE, "linestyle": "--"}}
    with _figure(path, _WIDTH, 520 * rows + _TITLE * bool(title), layout="constrained") as figure:
        figure.suptitle(title, x=0.01, ha="left", size=11)
        for i, (metric, axes) in enumerate(_draw_curves(figure, curves, looks)):
            axes.set_ylabel((formulas or {}).get(metric, "" if i % columns else ylabel))
            axes.legend()
    return path


def save_comparison(path: Path, histories: Mapping[str, Sequence[Mapping[str, Any]]], metrics: Sequence[str]) -> Path:
    """Draw test metrics of several runs over the epochs: a panel each, with a line a run.

    Parameters
    ----------
    histories : Mapping[str, Sequence[Mapping[str, Any]]]
        By the name of a run, its history as in `save_loss_curves`.
    metrics : Sequence[str]
        The test metrics to draw, where an epoch has them.
    """
    curves = {
        metric: {
            name: [(entry["epoch"], entry["test"][metric]) for entry in history if metric in entry["test"]]
            for name, history in histories.items()
        }
        for metric in metrics
    }
    if not any(line for lines in curves.values() for line in lines.values()):
        raise ValueError("the runs have measured none of the metrics")
    looks = {name: {"color": COLOURS[i % 10], "linestyle": "-" if i < 10 else "--"} for i, name in enumerate(histories)}
    rows, _ = _rows_and_columns(len(curves))
    with _figure(path, _WIDTH, 520 * rows + 44 * len(histories), layout="constrained") as figure:  # a line each below
        panels = [axes for _, axes in _draw_curves(figure, curves, looks)]
        figure.legend(*panels[0].get_legend_handles_labels(), loc="outside lower left")
    return path


def _rows_and_columns(panels: int) -> tuple[int, int]:
    """At most three panels in a row, and rows that are about equally long."""
    rows = math.ceil(panels / 3)
    return rows, math.ceil(panels / rows)


def _draw_curves(
    figure: Figure,
    curves: Mapping[str, Mapping[str, Sequence[tuple[float, float]]]],
    looks: Mapping[str, Mapping[str, Any]],
) -> Iterator[tuple[str, Axes]]:
    """Draw a panel for each metric, with a line of points (epoch, value) for each name; yield both, panel by panel."""
    for i, (metric, lines) in enumerate(curves.items()):
        axes = figure.add_subplot(*_rows_and_columns(len(curves)), i + 1)
        for name, points in lines.items():
            marker = "o" if len(points) <= 20 else ""
            epochs, values = zip(*points, strict=True) if points else ((), ())
            axes.plot(epochs, values, label=name, marker=marker, markersize=3.5, **looks[name])
        axes.set(title=metric.replace("_", " "), xlabel="epoch")
        axes.xaxis.set_major_locator(MaxNLocator(nbins=8, steps=[1, 2, 5, 10], integer=True, min_n_ticks=1))
        yield metric, axes


def save_health(
    path: Path,
    on_real: np.ndarray,
    on_fake: np.ndarray,
    class_counts: np.ndarray | None,
    critic: bool = False,
    classes: Sequence[str] = DIGITS,
) -> Path:
    """Draw the histograms of a discriminator's outputs on images and samples, and the samples' classes by a judge.

    Parameters
    ----------
    on_real, on_fake : np.ndarray
        (n,) and (m,), finite: the logits of the probability that an image, or a sample, is real (L23).
    class_counts : np.ndarray or None
        (C,) number of samples of each class; None draws no classes.
    critic : bool
        Whether the outputs are f(x) and f(G(z)) of a critic, of which only differences mean something.
    classes : Sequence[str]
        The C names.
    """
    outputs = {"test images": np.asarray(on_real), "samples": np.asarray(on_fake)}
    counts = None if class_counts is None else np.asarray(class_counts)
    for name, found in outputs.items():
        if found.ndim != 1 or found.size == 0 or not np.isfinite(found).all():
            raise ValueError(f"the outputs on {name} must be (n,) with n > 0, and finite; got {found.shape}")
    if counts is not None and (counts.ndim != 1 or not counts.sum() > 0):
        raise ValueError(f"class_counts must be (C,) and count something, got {counts}")
    low, high = np.quantile(np.concatenate(list(outputs.values())), [0.001, 0.999])
    margin = (high - low) / 20 if critic and high > low else 0.5  # f has any scale
    edges = np.linspace(low - margin, high + margin, 61)
    formulas = (": f(x)", ": f(G(z))") if critic else ("", "")
    with _figure(path, _WIDTH, 640, layout="constrained") as figure:
        left, *right = figure.subplots(1, 1 if counts is None else 2, squeeze=False)[0]
        for (name, found), formula, colour in zip(outputs.items(), formulas, (_BLUE, _ORANGE), strict=True):
            inside = np.clip(found, edges[0], edges[-1])
            left.hist(inside, edges, density=True, color=colour, alpha=0.6, label=name + formula)
        if critic:
            left.set(title="critic", xlabel="output of the critic f", yticks=[])
        else:
            left.axvline(0, color="#444444", linewidth=0.8)
            left.set(title="discriminator", xlabel="logit; 0 is D = ½", yticks=[])
        left.set_ylim(top=1.25 * left.get_ylim()[1])  # room for the legend
        left.legend(loc="upper right")
        for axes in right:
            assert counts is not None
            axes.bar(range(len(counts)), counts / counts.sum(), color=_BLUE)
            axes.axhline(1 / len(counts), color="#444444", linestyle="--", linewidth=0.8, label="even")
            axes.set(title="samples, by the judge", xlabel="class", ylabel="share")
            upright = len("".join(classes)) > 40  # side by side they would overlap
            axes.set_xticks(range(len(counts)), classes[: len(counts)], rotation=90 if upright else 0)
            axes.set_ylim(top=1.25 * counts.max() / counts.sum())  # likewise
            axes.grid(axis="x", visible=False)
            axes.legend(loc="upper right")
    return path


def _as_images(name: str, images: np.ndarray, image_shape: tuple[int, int]) -> np.ndarray:
    """Check that there are images of ``image_shape`` and return them as (n, h, w)."""
    images, (height, width) = np.asarray(images), image_shape
    if images.size == 0 or images.shape[1:] not in ((height * width,), (height, width)):
        shapes = f"(n, {height * width}) or (n, {height}, {width})"
        raise ValueError(f"{name} must have shape {shapes} with n > 0, got {images.shape}")
    return images.reshape(-1, height, width)


def _as_points(name: str, points: np.ndarray) -> np.ndarray:
    """Check that there are points, (n, 2) and finite, and return them."""
    points = np.asarray(points)
    if points.size == 0 or points.shape[1:] != (2,):
        raise ValueError(f"{name} must have shape (n, 2) with n > 0, got {points.shape}")
    if not np.isfinite(points).all():
        raise ValueError(f"{name} must be finite")
    return points


def _class_colours(name: str, labels: np.ndarray | None, n: int, classes: int) -> list[Any]:
    """The colour of each of ``n`` labels 0..classes-1, or grey throughout without labels."""
    if labels is None:
        return ["#444444"] * n
    labels = np.asarray(labels)
    if labels.shape != (n,):
        raise ValueError(f"{name} must have shape ({n},), got {labels.shape}")
    if not np.issubdtype(labels.dtype, np.integer) or np.any((labels < 0) | (labels >= classes)):
        raise ValueError(f"{name} must be integers in 0..{classes - 1}")
    colours = class_colours(classes)
    return [colours[label] for label in labels]


def class_colours(classes: int) -> list[str]:
    """A colour for each class, "#rrggbb": ``COLOURS``, or for more than ten so many along the rainbow."""
    if classes <= len(COLOURS):
        return COLOURS[:classes]
    return [to_hex(colour) for colour in matplotlib.colormaps["turbo"](np.linspace(0, 1, classes))]


def _mosaic(images: np.ndarray, columns: int, gap: int) -> np.ndarray:
    """Arrange images (n, h, w) row by row on white, ``gap`` pixels apart."""
    n, height, width = images.shape
    rows = math.ceil(n / columns)
    cells = np.ones((rows * columns, height + gap, width + gap))
    cells[:n, :height, :width] = images
    mosaic = cells.reshape(rows, columns, height + gap, width + gap).swapaxes(1, 2)
    return mosaic.reshape(rows * (height + gap), -1)[: -gap or None, : -gap or None]


@contextmanager
def _mosaic_figure(
    path: Path, mosaic: np.ndarray, title: str, left: int = _MARGIN, bottom: int = _MARGIN
) -> Iterator[Axes]:
    """Write a mosaic with margins ``left`` and ``bottom`` for labels; yield its axes, in pixels of its images.

    Each image pixel covers the same whole number of pixels of the file, so nothing is interpolated.
    """
    zoom = min(max((_WIDTH - left - _MARGIN) // mosaic.shape[1], 1), 12)
    height, width = zoom * mosaic.shape[0], zoom * mosaic.shape[1]
    full_height = height + bottom + _MARGIN + _TITLE * bool(title)
    full_width = max(width + left + _MARGIN, 800 * bool(title))
    with _figure(path, full_width, full_height) as figure:
        box = (left / full_width, bottom / full_height, width / full_width, height / full_height)
        axes = figure.add_axes(box, frame_on=False, xticks=[], yticks=[], title=title)
        extent = (0, mosaic.shape[1], mosaic.shape[0], 0)
        axes.imshow(mosaic, "gray", vmin=0, vmax=1, interpolation="none", aspect="auto", extent=extent)
        axes.grid(False)
        yield axes


@contextmanager
def _figure(path: Path, width: int, height: int, **options: Any) -> Iterator[Figure]:
    """Yield a figure of ``width`` by ``height`` pixels and, unless something is raised, write it to ``path``."""
    with matplotlib.rc_context():
        matplotlib.rcdefaults()  # ignore the user's own settings
        matplotlib.rcParams.update(_STYLE)
        figure = Figure(figsize=(width / _DPI, height / _DPI), dpi=_DPI, **options)
        FigureCanvasAgg(figure)
        yield figure
        with _written(path) as part:
            figure.savefig(part)


@contextmanager
def _written(path: Path) -> Iterator[Path]:
    """Yield where to write a file that, unless something is raised, then becomes ``path``."""
    # Inside the folder, so that os.replace is atomic.
    with tempfile.TemporaryDirectory(prefix=".figure-", dir=path.parent) as scratch:
        part = Path(scratch) / f"part{path.suffix}"
        yield part
        os.replace(part, path)
