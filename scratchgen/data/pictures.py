"""Pictures of a digit from anywhere, made like MNIST's.

MNIST's makers scaled each digit to fit a box of 20 by 20 pixels, keeping its proportions, and shifted it until its
centre of mass was at the centre of an image of 28 by 28. A network trained on such images is easily misled by others.
Source: LeCun et al. 1998, "Gradient-based learning applied to document recognition", section III.A.

Their centre is the middle of pixel (14, 14), counted from 0: with it, MNIST's own images stay as they are.
"""

import math

import numpy as np

SIDE, BOX, CENTRE = 28, 20, 14  # of the image, of the box that the digit fits, of the centre of mass; pixels
TIE = 1e-6  # pixels: sides and shifts that close to a half are rounded up, whatever rounding errors they have


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
