"""Digits drawn by a program: a stand-in for MNIST that needs no download.

Each digit is a skeleton of smooth strokes. For every image the skeleton's knots are jittered, the result is
transformed by known factors (slant, height, ...) and drawn with a soft round pen. The factors are returned with
the pixels, so that a model's latent space can be compared with the true factors of variation.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from scratchgen.data.dataset import Dataset, Split

# Each factor follows a triangular distribution (low, mode, high): bounded, with rare extremes.
FACTORS: dict[str, tuple[float, float, float]] = {
    "slant": (-0.30, 0.12, 0.55),  # of upright strokes, radians, positive to the right
    "rotation": (-0.15, 0.0, 0.15),  # of the whole digit, radians, positive clockwise
    "height": (14.0, 17.0, 19.0),  # top to bottom of the unjittered skeleton before it is rotated, pixels
    "aspect": (0.75, 1.0, 1.25),  # scale factor along x
    "width": (1.5, 2.5, 3.9),  # diameter of the pen, pixels
    "dx": (-1.2, 0.0, 1.2),  # centre of the strokes relative to the image's, pixels, positive to the right
    "dy": (-1.2, 0.0, 1.2),  # the same, positive downwards
}

_SIDE = 28  # height and width of an image, pixels
_BOX = 10.0  # height of the skeletons, in their own units
_JITTER = 0.25  # standard deviation of each knot's displacement, in the skeletons' units
_STEPS = 3  # line segments per span of a spline
_EDGE = 1.2  # pixels over which the pen fades from full ink to none
_CHUNK = 64  # images drawn at a time, few enough that their pixels stay in the cache

# The writing styles of 0, 1, ..., 9. Strokes are separated by "|" and made of knots "x,y", y down; one that
# ends at its first knot is a smooth loop. A knot shared by several strokes is jittered once, so they stay joined.
_STYLES: tuple[tuple[str, ...], ...] = (
    ("3.3,0 1,1.8 0,5 0.9,8.4 3.2,10 5.7,8.2 6.6,5 5.6,1.6 3.3,0",),
    ("1,0 1,5 1,10", "0,2.4 1.2,1.5 2.2,0 | 2.2,0 2.2,5 2.2,10"),
    (
        "0.3,2.4 1.3,0.5 3.4,0 5.2,1.4 4.9,4 2.8,7 0,10 | 0,10 3,9.8 6.3,9.8",
        "0.4,2.2 1.5,0.4 3.6,0 5.1,1.6 4.7,4.4 3.2,7.4 1.2,9.8 -0.2,8.9 1,7.6 3.4,8.9 6.4,9.7",
    ),
    ("0.4,1.4 2.2,0 4.6,0.6 5,2.6 3.8,4.2 2,4.8 | 2,4.8 4.4,5.2 5.7,7.2 4.7,9.3 2.4,10 0,8.8",),
    (
        "0.6,0.2 0.3,2.8 0.1,5.5 | 0.1,5.5 2.6,5.4 6.4,5.1 | 5.2,0 5,5.1 4.8,10",
        "4.6,0 2.4,3.1 0,6.4 | 0,6.4 3,6.5 6.6,6.4 | 4.6,0 4.6,5 4.6,10",
    ),
    ("5.8,0 3.6,0.1 1.3,0.2 | 1.3,0.2 1,2.2 0.7,4.4 | 0.7,4.4 3,3.7 5.2,4.9 5.7,7.2 4.4,9.4 2.2,10 0,8.9",),
    ("4.4,0 2.2,2 0.7,4.7 0.2,7.3 1.2,9.4 3.2,10 5.3,8.9 5.6,6.6 3.8,5 1.6,5.7 0.3,7.9",),
    (
        "0.4,0.7 3,0.3 5.8,0 | 5.8,0 4,4.6 2.4,10",
        "0.4,0.7 3,0.3 5.8,0 | 5.8,0 4,4.6 2.4,10 | 1.8,5.4 3.8,5.3 5.9,5.1",
    ),
    ("3,4.7 1,3.4 0.9,1.3 3,0 5.1,1.2 4.9,3.3 3,4.7 0.9,6.2 0.3,8.3 2.8,10 5.5,8.5 5.1,6.3 3,4.7",),
    (
        "5.4,2.3 3.8,0.2 1.6,0.5 0.2,2.6 1.1,4.8 3.2,4.8 5,3 5.4,2.3 | 5.4,2.3 5,6 4.4,10",
        "5.4,2.3 3.8,0.2 1.6,0.5 0.2,2.6 1.1,4.8 3.2,4.8 5,3 5.4,2.3 | 5.4,2.3 5.4,5.8 4.7,8.8 2.6,10 0.6,9",
    ),
)


class _Glyph(NamedTuple):
    """A digit's ``knots`` (K, 2), and ``pieces`` (2, S, K): their weights in the start and end of S line segments."""

    knots: np.ndarray
    pieces: np.ndarray


def _glyph(style: str) -> _Glyph:
    """Cut a style's strokes, uniform Catmull-Rom splines through their knots, into line segments.

    Each point of such a spline is a weighted sum of four knots, so one matrix product turns jittered knots
    into segments. Source: Catmull and Rom, "A class of local interpolating splines", 1974.
    """
    names = list(dict.fromkeys(style.replace("|", " ").split()))
    basis = np.array([[-1, 3, -3, 1], [2, -5, 4, -1], [-1, 0, 1, 0], [0, 2, 0, 0]]) / 2
    weights = np.vander(np.arange(_STEPS) / _STEPS, 4) @ basis
    pieces = []
    for stroke in style.split("|"):
        rows = np.eye(len(names))[[names.index(knot) for knot in stroke.split()]]
        closed = np.array_equal(rows[0], rows[-1])
        rows = np.vstack([rows[-2 if closed else 0], rows, rows[1 if closed else -1]])
        curve = np.vstack([*(weights @ rows[i : i + 4] for i in range(len(rows) - 3)), rows[-2]])
        pieces.append(np.stack([curve[:-1], curve[1:]]))
    return _Glyph(np.array([knot.split(",") for knot in names], float), np.concatenate(pieces, axis=1))


_GLYPHS = tuple(tuple(_glyph(style) for style in styles) for styles in _STYLES)
_N_STYLES = np.array([len(glyphs) for glyphs in _GLYPHS])
_MAX_KNOTS = max(len(glyph.knots) for glyphs in _GLYPHS for glyph in glyphs)


@dataclass(frozen=True)
class Strokes:
    """Drawn digits and the factors that they were drawn from.

    Attributes
    ----------
    images : np.ndarray
        (n, 784) float32 in [0, 1], white on black, row-major pixels.
    labels : np.ndarray
        (n,) int64, the digit 0..9.
    factors : dict[str, np.ndarray]
        Latent factors: those of `FACTORS`, (n,) float64 in the units given there, and ``style``, (n,) int64,
        the index of the digit's writing style.
    """

    images: np.ndarray
    labels: np.ndarray
    factors: dict[str, np.ndarray]


def draw_strokes(
    n: int,
    rng: int | np.random.Generator,
    labels: np.ndarray | None = None,
    factors: Mapping[str, np.ndarray] | None = None,
) -> Strokes:
    """Draw ``n`` digits, bit-identical for the same state of ``rng``.

    Parameters
    ----------
    n : int
        Number of images.
    rng : int or np.random.Generator
        A seed, or the source of every random choice.
    labels : np.ndarray, optional
        (n,) integers 0..9, the digits to draw; uniform if not given.
    factors : mapping, optional
        Values (n,) of some of `FACTORS`. All else is drawn as it would be without them, so that two calls with the same
        seed give the same digits, written in the same way, with other factors.

    Raises
    ------
    ValueError
        If ``n`` is negative, ``labels`` is not ``n`` integers in 0..9, or ``factors`` is not ``n`` numbers of each.
    """
    if n < 0:
        raise ValueError(f"n must be at least 0, got {n}")
    rng = np.random.default_rng(rng)
    labels = rng.integers(10, size=n) if labels is None else np.asarray(labels)
    if labels.shape != (n,):
        raise ValueError(f"labels must have shape ({n},), got {labels.shape}")
    if not np.issubdtype(labels.dtype, np.integer) or np.any((labels < 0) | (labels > 9)):
        raise ValueError("labels must be integers in 0..9")
    labels = labels.astype(np.int64)
    given = {name: np.asarray(each, np.float64) for name, each in (factors or {}).items()}
    if not given.keys() <= FACTORS.keys() or any(each.shape != (n,) for each in given.values()):
        shapes = ", ".join(f"{name} {each.shape}" for name, each in given.items())
        raise ValueError(f"factors must be among {', '.join(FACTORS)}, each of shape ({n},), got {shapes}")
    values = {name: rng.triangular(*bounds, size=n) for name, bounds in FACTORS.items()} | given
    values["style"] = rng.integers(_N_STYLES[labels])
    jitter = rng.normal(scale=_JITTER, size=(n, _MAX_KNOTS, 2))
    images = np.empty((n, _SIDE * _SIDE), np.float32)
    for digit, glyphs in enumerate(_GLYPHS):
        for style, glyph in enumerate(glyphs):
            members = np.flatnonzero((labels == digit) & (values["style"] == style))
            for first in range(0, len(members), _CHUNK):
                chunk = members[first : first + _CHUNK]
                knots = glyph.knots + jitter[chunk, : len(glyph.knots)]
                images[chunk] = _draw(glyph.pieces, knots, {name: f[chunk] for name, f in values.items()})
    return Strokes(images, labels, values)


def _draw(pieces: np.ndarray, knots: np.ndarray, factors: dict[str, np.ndarray]) -> np.ndarray:
    """Images (n, 784) of a glyph's ``pieces`` (2, S, K) with jittered ``knots`` (n, K, 2)."""
    slant, stretch, scale = np.tan(factors["slant"]), factors["aspect"], factors["height"] / _BOX
    cos, sin = scale * np.cos(factors["rotation"]), scale * np.sin(factors["rotation"])
    # Rotation after slant after stretch, (2, 2, n); y points down, so leaning right is a negative shear.
    pose = np.array([[cos * stretch, -cos * slant - sin], [sin * stretch, cos - sin * slant]])
    starts, ends = pieces[:, None] @ np.einsum("ijn,nkj->nki", pose, knots)  # (n, S, 2) each, pixels
    length = np.linalg.norm(ends - starts, axis=-1, keepdims=True)
    middle = (starts + ends) / 2
    # Centred by the ink's centre of mass, as in MNIST, so that dx and dy can be measured from the pixels.
    centre = (length * middle).sum(axis=1) / length.sum(axis=1)
    shift = np.stack([factors["dx"], factors["dy"]], axis=-1) - centre
    return _pen(middle + shift[:, None], (ends - starts) / length, length, factors["width"])


def _pen(middle: np.ndarray, along: np.ndarray, length: np.ndarray, width: np.ndarray) -> np.ndarray:
    """Ink (n, 784) of a soft round pen: a linear ramp in each pixel's distance to the nearest segment.

    A segment has a ``middle`` (n, S, 2) in pixels from the image's centre, a unit vector ``along`` it (n, S, 2)
    and a ``length`` (n, S, 1) in pixels; ``width`` (n,) is the pen's diameter in pixels.
    """
    axis = np.arange(_SIDE) - (_SIDE - 1) / 2
    offset = axis - middle[..., None]  # (n, S, 2, 28): x of each column, y of each row
    # A pixel's coordinates along (u) and across (v) a segment are each a column term plus a row term.
    u = (along[..., None] * offset).astype(np.float32)
    v = (along[..., ::-1, None] * [[-1], [1]] * offset).astype(np.float32)
    half = (length[..., None] / 2).astype(np.float32)
    nearest = np.full((len(width), _SIDE, _SIDE), np.inf, np.float32)  # squared distance, pixels²
    for s in range(middle.shape[1]):  # one at a time: an (n, S, 28, 28) array would not fit in the cache
        beyond = np.maximum(np.abs(u[:, s, 0, None] + u[:, s, 1, :, None]) - half[:, s], 0)
        across = v[:, s, 0, None] + v[:, s, 1, :, None]
        np.minimum(nearest, beyond * beyond + across * across, out=nearest)
    ink = 0.5 + (width[:, None, None] / 2 - np.sqrt(nearest)) / _EDGE
    return np.clip(ink, 0, 1).reshape(len(width), -1)


def load_strokes(n_train: int = 20_000, n_test: int = 4_000, seed: int = 0) -> Dataset:
    """Draw a data set, about 0.1 ms an image; its two splits use independent random streams of ``seed``.

    Raises
    ------
    ValueError
        If a size is negative.
    """
    train_rng, test_rng = np.random.default_rng(seed).spawn(2)
    train, test = draw_strokes(n_train, train_rng), draw_strokes(n_test, test_rng)
    return Dataset("strokes", Split(train.images, train.labels), Split(test.images, test.labels))
