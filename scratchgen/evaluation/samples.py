"""Metrics of samples: the classes that a judge sees, and how well a discriminator separates them from data."""

import math
from typing import Any

import numpy as np

COVERED = 0.2  # a class with less than this part of an equal share of the samples counts as missing
BINS = 50


def class_histogram(probabilities: np.ndarray) -> np.ndarray:
    """The number of samples (c,) in each class, by the largest of a judge's probabilities (n, c)."""
    return np.bincount(probabilities.argmax(axis=1), minlength=probabilities.shape[1])


def class_statistics(probabilities: np.ndarray) -> dict[str, Any]:
    """Class coverage of a model's samples, from a judge's probabilities (n, c).

    Returns
    -------
    dict
        ``classes_covered``, the number of classes with a share of at least ``COVERED`` / c; ``smallest_class``, the
        smallest share; ``class_entropy``, the entropy of the shares in nats, log c if they are equal;
        ``judge_confidence``, the mean of the largest probability.
    """
    shares = class_histogram(probabilities) / len(probabilities)
    drawn = shares[shares > 0]
    return {
        "classes_covered": int((shares >= COVERED / len(shares)).sum()),
        "smallest_class": float(shares.min()),
        "class_entropy": float((drawn * np.log(1 / drawn)).sum()),
        "judge_confidence": float(probabilities.max(axis=1).mean(dtype=np.float64)),
    }


def class_accuracy(probabilities: np.ndarray, labels: np.ndarray) -> float:
    """The share of samples to which a judge's probabilities (n, c) give the class asked for, labels (n,)."""
    return float(np.mean(probabilities.argmax(axis=1) == labels))


def missing_classes(probabilities: np.ndarray) -> list[int]:
    """The classes with a share below ``COVERED`` / c, by a judge's probabilities (n, c)."""
    shares = class_histogram(probabilities) / len(probabilities)
    return np.flatnonzero(shares < COVERED / len(shares)).tolist()


def overlap(real_logits: np.ndarray, fake_logits: np.ndarray) -> float:
    """The area shared by the histograms of logits (n,) and (m,): 1 if they are equal, 0 if disjoint (L23).

    ``BINS`` equal bins span all logits; NaN if a logit is not finite. It estimates the overlapping coefficient, the
    integral of min(p, q), which is 1 minus the total variation distance (Inman & Bradley 1989).
    """
    if not (np.isfinite(real_logits).all() and np.isfinite(fake_logits).all()):
        return math.nan
    edges = np.histogram_bin_edges(np.concatenate([real_logits, fake_logits]), BINS)
    real, fake = (np.histogram(logits, edges)[0] / len(logits) for logits in (real_logits, fake_logits))
    return float(np.minimum(real, fake).sum())


def high_frequencies(images: np.ndarray) -> float:
    """The mean energy of images (n, D), squares of pixels, above half the Nyquist frequency, where blur has none (L27).

    The images are square; a frequency (u, v) counts if the root of u² + v² is above 1/4 cycle a pixel. All frequencies
    together have the energy of the pixels, the mean of |x|² (Parseval).
    """
    side = math.isqrt(images.shape[1])
    energy = np.abs(np.fft.fft2(images.reshape(-1, side, side))) ** 2 / side**2
    frequency = np.fft.fftfreq(side)
    return float(energy[:, np.hypot(frequency[:, None], frequency) > 0.25].sum(axis=1).mean())
