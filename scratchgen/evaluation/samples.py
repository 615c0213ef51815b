"""What a judge makes of samples, and how far a discriminator tells them from data."""

import math
from typing import Any

import numpy as np

COVERED = 0.02  # a class with a smaller share of the samples counts as missing; of ten even ones each has 0.1
BINS = 50


def class_histogram(probabilities: np.ndarray) -> np.ndarray:
    """How many samples (c,) are most probably of each class, by a judge's probabilities (n, c)."""
    return np.bincount(probabilities.argmax(axis=1), minlength=probabilities.shape[1])


def class_statistics(probabilities: np.ndarray) -> dict[str, Any]:
    """Whether a model draws every class, by a judge's probabilities (n, c) of its samples.

    Returns
    -------
    dict
        ``classes_covered``, those with a share of ``COVERED`` or more; ``smallest_class``, the smallest share;
        ``class_entropy``, that of the shares, in nats, log c where they are even; ``judge_confidence``, the mean of
        the largest probability.
    """
    shares = class_histogram(probabilities) / len(probabilities)
    drawn = shares[shares > 0]
    return {
        "classes_covered": int((shares >= COVERED).sum()),
        "smallest_class": float(shares.min()),
        "class_entropy": float((drawn * np.log(1 / drawn)).sum()),
        "judge_confidence": float(probabilities.max(axis=1).mean(dtype=np.float64)),
    }


def missing_classes(probabilities: np.ndarray) -> list[int]:
    """The classes with a share below ``COVERED``, by a judge's probabilities (n, c)."""
    return np.flatnonzero(class_histogram(probabilities) / len(probabilities) < COVERED).tolist()


def overlap(real_logits: np.ndarray, fake_logits: np.ndarray) -> float:
    """The area under the smaller of two histograms, of logits (n,) and (m,): 1 where alike, 0 where apart (L23).

    Over ``BINS`` equal bins from the smallest logit to the largest; NaN where one is not finite. It estimates the
    overlapping coefficient, the integral of min(p, q), which is 1 less the total variation distance (Inman & Bradley
    1989).
    """
    if not (np.isfinite(real_logits).all() and np.isfinite(fake_logits).all()):
        return math.nan
    edges = np.histogram_bin_edges(np.concatenate([real_logits, fake_logits]), BINS)
    real, fake = (np.histogram(logits, edges)[0] / len(logits) for logits in (real_logits, fake_logits))
    return float(np.minimum(real, fake).sum())
