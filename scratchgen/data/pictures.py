"""Pictures from files, and digits from anywhere, made like MNIST's.

MNIST's makers scaled each digit to fit a box of 20 by 20 pixels, keeping its proportions, and shifted it until its
centre of mass was at the centre of an image of 28 by 28. A network trained on such images is easily misled by others.
Source: LeCun et al. 1998, "Gradient-based learning applied to document recognition", section III.A.

Their centre is the middle of pixel (14, 14), counted from 0: with it, MNIST's own images stay as they are.
"""

import math
import struct
import zlib
from pathlib import Path

import numpy as np

from scratchgen.errors import UserError

SIDE, BOX, CENTRE = 28, 20, 14  # of the image, of the box that the digit fits, of the centre of mass; pixels
PICTURES = (".png", ".jpg", ".jpeg")  # the ends of their files' names
BACKGROUNDS = ("light", "dark")
LARGEST = 300  # pixels: larger pictures are reduced, by which their noise becomes less
STRONG = 1 / 8  # of the most ink: a digit reaches as far as such pixels do
LOOKED_AT = 200  # images of a data set that show what all are like
NOISE = 5  # times what three quarters of the edge differ from the background: less is taken for background
TIE = 1e-6  # pixels: sides and shifts that close to a half are rounded up, whatever rounding errors they have


def read_grey(path: Path) -> np.ndarray:
    """The luminance (h, w), uint8, of a PNG or JPEG file, before white where it is transparent.

    UserError if it cannot be read.
    """
    from PIL import Image, ImageOps  # imported here because only pictures need it

    try:
        with Image.open(path, formats=("PNG", "JPEG")) as file:
            if file.mode.startswith(("I", "F")):  # converted, they would be cut off at 255
                raise ValueError("more than 8 bits a pixel; save it with 8")
            picture = ImageOps.exif_transpose(file)  # cameras store pictures as they held them
            if picture.mode in ("RGBA", "LA", "PA") or "transparency" in picture.info:
                seen = picture.convert("RGBA")
                return np.asarray(Image.alpha_composite(Image.new("RGBA", seen.size, "white"), seen).convert("L"))
            return np.asarray(picture.convert("L"))
    except (
        OSError,
        ValueError,
        SyntaxError,
        EOFError,
        struct.error,
        zlib.error,
        Image.DecompressionBombError,
    ) as error:
        reason = getattr(error, "strerror", None) or str(error).partition(":")[0]
        raise UserError(f"{str(path)!r}: cannot be read as PNG or JPEG ({reason})") from None


def digit_of(picture: np.ndarray, background: str | None = None) -> tuple[np.ndarray, str]:
    """The digit in a picture (h, w), uint8, as an image of MNIST (28, 28); and the background, found if not given.

    One of 28 by 28 pixels counts as scaled and centred already. The image is 0 if nothing is found in the picture.
    """
    if picture.shape == (SIDE, SIDE):
        background = background or ("light" if _quantile(picture[_edge(picture.shape)], 0.5) > 127 else "dark")
        levels = np.divide(picture, 255, dtype=np.float32)
        return (1 - levels if background == "light" else levels), background
    drawn, background = ink(picture, background)
    return centred(drawn), background


def ink(picture: np.ndarray, background: str | None = None) -> tuple[np.ndarray, str]:
    """The part of a picture (h, w) in which something is drawn, on whatever background, and "light" or "dark" for that.

    The background is a plane fitted to the picture's edge, so that light from one side does no harm. What differs from
    it by less than ``NOISE`` times what three quarters of the edge do is noise. Where ``background`` is not given, it
    is lighter than the ink if most of the rest is darker. Sides above ``LARGEST`` are reduced to it.

    Returns
    -------
    tuple
        Levels (h', w') from 0, the background, to 1, the most ink; and the background. (0, 0) without any ink.
    """
    scale = min(1, LARGEST / max(picture.shape))
    height, width = (max(1, _rounded(scale * side)) for side in picture.shape)
    levels = _shares(picture.shape[0], height) @ picture @ _shares(picture.shape[1], width).T
    edge = _edge(levels.shape)
    levels -= _quantile(levels[edge], 0.5)
    for along in np.meshgrid(*(np.arange(side) - (side - 1) / 2 for side in levels.shape), indexing="ij"):
        levels -= along * (levels[edge] @ along[edge]) / max(1, along[edge] @ along[edge])  # least squares
    levels -= _quantile(levels[edge], 0.5)
    noise = max(TIE, NOISE * _quantile(np.abs(levels[edge]), 0.75))
    if background is None:
        background = "light" if levels[np.abs(levels) > noise].sum() < 0 else "dark"
    if background == "light":
        levels = -levels
    strong = levels > max(noise, STRONG * levels.max())
    rows, columns = np.flatnonzero(strong.any(axis=1)), np.flatnonzero(strong.any(axis=0))
    if not len(rows):
        return np.zeros((0, 0)), background
    levels = levels[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    return np.where(levels > noise, levels / levels.max(), 0), background


def _edge(shape: tuple[int, ...]) -> np.ndarray:
    """True at the outermost pixels of a picture of this shape."""
    edge = np.ones(shape, bool)
    edge[1:-1, 1:-1] = False
    return edge


def _quantile(numbers: np.ndarray, share: float) -> float:
    return float(np.sort(numbers)[int(share * (len(numbers) - 1))])


def centred(picture: np.ndarray) -> np.ndarray:
    """One digit, scaled and centred as MNIST's are.

    Parameters
    ----------
    picture : np.ndarray
        (h, w) grey levels >= 0 of a light digit on a background of exactly 0.

    Returns
    -------
    np.ndarray
        (28, 28), float32. A pixel is the mean of the area that it covers in ``picture``, so that its grey levels are in
        the same range. Of an empty picture all are 0.
    """
    image = np.zeros((SIDE, SIDE), np.float32)
    inked = np.argwhere(picture > 0)
    if not len(inked):
        return image
    (top, left), (bottom, right) = inked.min(axis=0), inked.max(axis=0) + 1
    digit = picture[top:bottom, left:right].astype(np.float64)
    longest = max(digit.shape)
    height, width = (max(1, _rounded(BOX * side / longest)) for side in digit.shape)
    digit = _shares(digit.shape[0], height) @ digit @ _shares(digit.shape[1], width).T
    row, column = _shift(digit.sum(axis=1)), _shift(digit.sum(axis=0))
    image[row : row + height, column : column + width] = digit
    return image


def are_centred(images: np.ndarray) -> bool:
    """Whether images (n, h, w), grey levels >= 0, are as MNIST's are, by and large.

    They have its size, and of half of the first ones that are not empty the box has 20 pixels, give or take 2, and the
    centre of mass is at most a pixel away from the centre.
    """
    if images.shape[1:] != (SIDE, SIDE):
        return False
    boxes, distances = [], []
    for image in images[:LOOKED_AT]:
        inked = np.argwhere(image > 0)
        if len(inked):
            mass = image[tuple(inked.T)].astype(np.float64)
            boxes.append(np.ptp(inked, axis=0).max() + 1)
            distances.append(np.abs(mass @ inked / mass.sum() - CENTRE).max())
    return len(boxes) > 0 and bool(abs(np.median(boxes) - BOX) <= 2 and np.median(distances) <= 1)


def _shares(before: int, after: int) -> np.ndarray:
    """The shares (after, before) that old pixels have in the length of each new one, when ``before`` become ``after``.

    A row adds up to 1: new pixels are means.
    """
    edges = np.arange(after + 1) * before / after  # of the new pixels, in old ones
    old = np.arange(before)
    overlap = np.minimum(edges[1:, None], old + 1) - np.maximum(edges[:-1, None], old)
    return np.maximum(overlap, 0) * after / before


def _shift(ink: np.ndarray) -> int:
    """The place in an image of a digit's first row, whose rows have so much ink (n,), or of its first column.

    It brings the centre of mass nearest to the image's centre at which all of the digit is inside.
    """
    centre = (ink @ np.arange(len(ink))) / ink.sum()
    return min(max(_rounded(CENTRE - centre), 0), SIDE - len(ink))


def _rounded(x: float) -> int:
    return math.floor(x + 0.5 + TIE)
