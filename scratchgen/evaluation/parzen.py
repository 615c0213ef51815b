"""Parzen windows: the log density of images under a kernel density estimate of a model's samples.

    log p(x) = log (1/m) sum_i N(x | s_i, sigma^2 I),    s_i samples of the model

The papers on GANs and adversarial autoencoders report it for MNIST (Goodfellow et al. 2014, table 1; Makhzani et al.
2015, table 1), in nats of a density of continuous pixels. In 784 dimensions 10,000 samples are far too few: real digits
in place of samples score lower than some models, and the centres of clusters far higher (Theis et al. 2016, table 1).
"""

import math
from typing import NamedTuple

import numpy as np

SIGMAS = np.logspace(-1, 0, 10)  # of the papers: their grid for sigma
ROWS = 500  # images at a time: with 10,000 samples their distances take 20 MB


class Parzen(NamedTuple):
    """The mean log density of test images, its standard error over them, and the sigma chosen."""

    log_density: float
    standard_error: float
    sigma: float


def parzen(samples: np.ndarray, validation: np.ndarray, test: np.ndarray, sigmas: np.ndarray = SIGMAS) -> Parzen:
    """The papers' protocol: of the ``sigmas`` the one under which ``validation`` images are most probable.

    Samples (m, D), usually 10,000; validation images (n, D), usually 1,000 that no model was trained on; test images
    (k, D), at least two.
    """
    sigma = float(sigmas[log_densities(samples, validation, sigmas).mean(axis=1).argmax()])
    (found,) = log_densities(samples, test, np.array([sigma]))
    return Parzen(float(found.mean()), float(found.std(ddof=1) / math.sqrt(len(found))), sigma)


def log_densities(samples: np.ndarray, images: np.ndarray, sigmas: np.ndarray) -> np.ndarray:
    """log p(x) (k, n), in nats, of images x (n, D) under the windows of samples (m, D), for each of ``sigmas`` (k,)."""
    samples, images = samples.astype(np.float64), images.astype(np.float64)
    dimensions, found = samples.shape[1], np.empty((len(sigmas), len(images)))
    sample_squares = (samples**2).sum(axis=1)
    for start in range(0, len(images), ROWS):
        x = images[start : start + ROWS]
        distances = (x**2).sum(axis=1)[:, None] + sample_squares - 2 * x @ samples.T
        nearest = distances.min(axis=1, keepdims=True)
        for k, sigma in enumerate(sigmas):
            windows = np.exp((nearest - distances) / (2 * sigma**2)).mean(axis=1)
            log_norm = dimensions * math.log(sigma * math.sqrt(2 * math.pi))
            found[k, start : start + ROWS] = np.log(windows) - nearest[:, 0] / (2 * sigma**2) - log_norm
    return found
