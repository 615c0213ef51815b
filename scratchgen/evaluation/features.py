"""Samples beside data in a feature space, such as the last hidden layer of a classifier.

The figures depend on the features and on the number of samples: they compare only if both are the same.
"""

import numpy as np

ROWS = 1_000  # rows of a matrix of distances at a time
NEIGHBOUR = 3  # the third: the radius of a point's ball


def frechet_distance(x: np.ndarray, y: np.ndarray) -> float:
    """The Fréchet distance of features x (n, d) and y (m, d), each taken for a normal distribution.

        |mean x - mean y|^2 + tr(C_x + C_y - 2 (C_x C_y)^(1/2)),    C their covariances

    It is 0 if both have the same mean and covariance; of few features, those of equal distributions differ, too. At
    least two of each are needed. Source: Heusel et al. 2017, equation 6.
    """
    _require_two(x, y)
    (mean_x, cov_x), (mean_y, cov_y) = (
        (f.mean(axis=0, dtype=np.float64), np.atleast_2d(np.cov(f, rowvar=False))) for f in (x, y)
    )
    # (C_x C_y)^(1/2) has the eigenvalues of (C_x^(1/2) C_y C_x^(1/2))^(1/2), which is symmetric.
    values, vectors = np.linalg.eigh(cov_x)
    root = vectors * np.sqrt(np.maximum(values, 0)) @ vectors.T
    product = np.sqrt(np.maximum(np.linalg.eigvalsh(root @ cov_y @ root), 0)).sum()
    return float(((mean_x - mean_y) ** 2).sum() + np.trace(cov_x) + np.trace(cov_y) - 2 * product)


def frechet_error(x: np.ndarray, y: np.ndarray, rng: np.random.Generator, resamples: int = 20) -> float:
    """The standard error of ``frechet_distance`` that the choice of y (m, d) brings, by resampling y.

    Source: Efron 1979 (the bootstrap).
    """
    drawn = (y[rng.integers(len(y), size=len(y))] for _ in range(resamples))
    return float(np.std([frechet_distance(x, each) for each in drawn], ddof=1))


def precision_recall(real: np.ndarray, fake: np.ndarray, neighbour: int = NEIGHBOUR) -> tuple[float, float]:
    """How many samples lie among the data, and how much of the data lies among the samples.

    Around each feature there is a ball, which reaches to its ``neighbour``-th neighbour of the same set. Precision is
    the share of ``fake`` (m, d) in any ball of ``real`` (n, d), recall the share of ``real`` in any ball of ``fake``.
    More than ``neighbour`` of each are needed. Source: Kynkäänniemi et al. 2019, equations 1 and 2.
    """
    if min(len(real), len(fake)) <= neighbour:
        raise ValueError(f"precision_recall needs more than {neighbour} of each, got {len(real)} and {len(fake)}")
    return _share_within(fake, real, neighbour), _share_within(real, fake, neighbour)


def feature_statistics(real: np.ndarray, fake: np.ndarray) -> dict[str, float]:
    """How near samples are to data, by features (n, d) and (m, d): ``frechet_distance``, ``precision``, ``recall``."""
    precision, recall = precision_recall(real, fake)
    return {"frechet_distance": frechet_distance(real, fake), "precision": precision, "recall": recall}


def nearest(x: np.ndarray, among: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Of each x (n, d) the place of the nearest ``among`` (m, d), and the distance: (n,) and (n,)."""
    found = []
    for start in range(0, len(x), ROWS):
        squares = _squared_distances(x[start : start + ROWS], among)
        places = squares.argmin(axis=1)
        found.append((places, np.sqrt(squares[np.arange(len(places)), places])))
    places, distances = (np.concatenate(parts) for parts in zip(*found, strict=True))
    return places, distances


def _share_within(x: np.ndarray, others: np.ndarray, neighbour: int) -> float:
    """The share of x (n, d) in the ball of any of the others (m, d)."""
    radii, inside = [], np.zeros(len(x), bool)
    for start in range(0, len(others), ROWS):
        squares = _squared_distances(others[start : start + ROWS], others)
        radii.append(np.partition(squares, neighbour, axis=1)[:, neighbour])  # the 0th is the point itself
    squared_radii = np.concatenate(radii)
    for start in range(0, len(x), ROWS):
        inside[start : start + ROWS] = (_squared_distances(x[start : start + ROWS], others) <= squared_radii).any(
            axis=1
        )
    return float(inside.mean())


def _squared_distances(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """|x_i - y_j|^2 (n, m) of x (n, d) and y (m, d)."""
    x, y = x.astype(np.float64), y.astype(np.float64)
    squares = (x**2).sum(axis=1)[:, None] + (y**2).sum(axis=1) - 2 * x @ y.T
    return np.maximum(squares, 0)


def _require_two(*sets: np.ndarray) -> None:
    if min(map(len, sets)) < 2:
        raise ValueError(f"a covariance needs at least two features of each, got {', '.join(map(str, map(len, sets)))}")
