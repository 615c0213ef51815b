"""Priors p(z) to which codes are matched (L25), after Makhzani et al. 2015.

Two of them, ``REGIONS``, have a region for each of C classes: draws with a label lie in the region of its class.
"""

import math
from statistics import NormalDist

import numpy as np

from scratchgen.data.dataset import UNLABELLED

PRIORS = ("gaussian", "uniform", "mixture", "swiss-roll")
REGIONS = ("mixture", "swiss-roll")


class Prior:
    """A distribution p(z) of codes of ``dim`` dimensions.

    ``labels`` (n,) are classes 0..C-1, or ``UNLABELLED``, which stands for any class; a prior without regions
    ignores them.
    """

    dim: int

    def sample(self, n: int, rng: np.random.Generator, labels: np.ndarray | None = None) -> np.ndarray:
        """n draws (n, dim), float64, each in the region of its label."""
        raise NotImplementedError

    def log_prob(self, z: np.ndarray, labels: np.ndarray | None = None) -> np.ndarray:
        """log p(z) (n,) of codes z (n, dim), or log p(z | label). NotImplementedError without a density."""
        raise NotImplementedError(f"{type(self).__name__} has no density")

    def region(self, z: np.ndarray) -> np.ndarray:
        """The class (n,), int64, of the region of each code z (n, dim). NotImplementedError without regions."""
        raise NotImplementedError(f"{type(self).__name__} has no regions")

    def outlines(self, points: int) -> np.ndarray:
        """Lines (C, points, 2), one around or along the region of each class. NotImplementedError without regions."""
        raise NotImplementedError(f"{type(self).__name__} has no regions")

    def walk(self, rows: int, columns: int) -> np.ndarray:
        """A grid of codes (rows * columns, 2), row by row, that covers the prior, to be decoded into a picture.

        z1 grows to the right and z2 upwards; with regions, each of C rows covers one. ValueError for codes that
        are not two-dimensional, or another number of rows.
        """
        raise NotImplementedError

    def loop(self, frames: int, waves: int, rng: np.random.Generator, label: int | None = None) -> np.ndarray:
        """A smooth closed random path of codes (frames, dim) in the prior, or in the region of ``label``.

        After the last code comes the first again; the more ``waves``, the longer the way (see `normal_loop`). Without a
        label a path over a prior with regions visits them in turn.
        """
        raise NotImplementedError


class Gaussian(Prior):
    """N(0, sd^2 I)."""

    def __init__(self, dim: int, sd: float = 1.0) -> None:
        self.dim, self.sd = dim, sd

    def sample(self, n: int, rng: np.random.Generator, labels: np.ndarray | None = None) -> np.ndarray:
        return self.sd * rng.standard_normal((n, self.dim))

    def log_prob(self, z: np.ndarray, labels: np.ndarray | None = None) -> np.ndarray:
        return _log_normal(z, self.sd).sum(axis=1)

    def walk(self, rows: int, columns: int) -> np.ndarray:
        """At the quantiles (i + 0.5) / n of both dimensions, so that every code represents the same probability."""
        _require_two(self.dim)
        return _grid(*([self.sd * NormalDist().inv_cdf(p) for p in _middles(n)] for n in (rows, columns)))

    def loop(self, frames: int, waves: int, rng: np.random.Generator, label: int | None = None) -> np.ndarray:
        """Each code is distributed as a draw."""
        return self.sd * normal_loop(frames, self.dim, waves, rng)


class Uniform(Prior):
    """Uniform in [-limit, limit]^dim."""

    def __init__(self, dim: int, limit: float = 1.0) -> None:
        self.dim, self.limit = dim, limit

    def sample(self, n: int, rng: np.random.Generator, labels: np.ndarray | None = None) -> np.ndarray:
        return rng.uniform(-self.limit, self.limit, (n, self.dim))

    def log_prob(self, z: np.ndarray, labels: np.ndarray | None = None) -> np.ndarray:
        inside = (np.abs(z) <= self.limit).all(axis=1)
        return np.where(inside, -self.dim * math.log(2 * self.limit), -np.inf)

    def walk(self, rows: int, columns: int) -> np.ndarray:
        """At the centres of equal cells."""
        _require_two(self.dim)
        return _grid(*([self.limit * (2 * p - 1) for p in _middles(n)] for n in (rows, columns)))

    def loop(self, frames: int, waves: int, rng: np.random.Generator, label: int | None = None) -> np.ndarray:
        """Each code is distributed as a draw."""
        return self.limit * (2 * _cumulative(normal_loop(frames, self.dim, waves, rng)) - 1)


class Mixture(Prior):
    """C Gaussians, the petals of a flower, each the region of a class (Makhzani et al. 2015, section 2.3, with ten).

    Component k has standard deviations 0.5 along an axis at the angle 2 pi k / C and 0.1 across, and its mean on that
    axis, 1.4 from the origin.
    """

    dim = 2
    shift, along, across = 1.4, 0.5, 0.1

    def __init__(self, classes: int = 10) -> None:
        self.classes = classes
        angles = 2 * np.pi * np.arange(classes) / classes
        self.axes = np.stack([np.cos(angles), np.sin(angles)], axis=1)  # (C, 2)
        self.normals = np.stack([-np.sin(angles), np.cos(angles)], axis=1)

    def sample(self, n: int, rng: np.random.Generator, labels: np.ndarray | None = None) -> np.ndarray:
        k = _classes(self.classes, n, rng, labels)
        return self._at(k, rng.standard_normal((n, 2)))

    def log_prob(self, z: np.ndarray, labels: np.ndarray | None = None) -> np.ndarray:
        components = self._log_components(z)
        mixture = np.logaddexp.reduce(components, axis=1) - math.log(self.classes)
        if labels is None:
            return mixture
        labels = _checked(self.classes, labels, len(z))
        return np.where(labels == UNLABELLED, mixture, components[np.arange(len(z)), labels])

    def region(self, z: np.ndarray) -> np.ndarray:
        """The most probable component."""
        return self._log_components(z).argmax(axis=1)

    def outlines(self, points: int) -> np.ndarray:
        """Ellipses at two standard deviations, closed."""
        angles = np.linspace(0, 2 * np.pi, points)[:, None]
        along, across = self.shift + 2 * self.along * np.cos(angles), 2 * self.across * np.sin(angles)
        return along * self.axes[:, None] + across * self.normals[:, None]

    def walk(self, rows: int, columns: int) -> np.ndarray:
        """Row k follows the axis of component k outwards, at the quantiles (j + 0.5) / columns."""
        _require_a_row_each(self.classes, rows)
        radii = np.array([NormalDist(self.shift, self.along).inv_cdf(p) for p in _middles(columns)])
        return (radii[:, None] * self.axes[:, None]).reshape(-1, 2)

    def loop(self, frames: int, waves: int, rng: np.random.Generator, label: int | None = None) -> np.ndarray:
        """Each code is distributed as a draw of its petal; from petal to petal the path passes near the centre.

        Two neighbours meet there: of the points as far from one as from the other, the path passes through the one
        where both are most probable. With ten classes it is 2 standard deviations inwards and little more than 1 aside
        from either. Further out the path would leave the prior.
        """
        noise = normal_loop(frames, 2, waves, rng)
        at = in_turn(frames, self.classes) if label is None else np.full(frames, float(label))
        half, between = math.pi / self.classes, 2 * np.pi * (np.floor(at) + 0.5) / self.classes  # angles
        inwards, aside = math.cos(half) / self.along, math.sin(half) / self.across
        radius = self.shift * inwards / self.along / (inwards**2 + aside**2)  # where the log density's derivative is 0
        meeting = radius * np.stack([np.cos(between), np.sin(between)], axis=1)
        outside = (1 - 2 * (at % 1))[:, None] ** 2  # 1 in a petal, 0 half-way between two
        return outside * self._at(np.rint(at).astype(int) % self.classes, noise) + (1 - outside) * meeting

    def _at(self, k: np.ndarray, noise: np.ndarray) -> np.ndarray:
        """The codes (n, 2) of components k (n,) for noise (n, 2): along their axes, and across."""
        return (self.shift + self.along * noise[:, :1]) * self.axes[k] + self.across * noise[:, 1:] * self.normals[k]

    def _log_components(self, z: np.ndarray) -> np.ndarray:
        """log p(z | k), (n, C), of z (n, 2)."""
        return _log_normal(z @ self.axes.T - self.shift, self.along) + _log_normal(z @ self.normals.T, self.across)


class SwissRoll(Prior):
    """A spiral of two turns, divided into a segment for each class (Makhzani et al. 2015, section 2.3).

    With u uniform in [label / C, (label + 1) / C], a code has the radius 3 sqrt(u) and the angle 4 pi sqrt(u). Codes
    lie on a line, so they have no density in the plane.
    """

    dim = 2
    points = 5_000  # of the roll, among which the nearest is found
    at_once = 1_000  # codes compared with all points at a time

    def __init__(self, classes: int = 10) -> None:
        self.classes = classes

    def sample(self, n: int, rng: np.random.Generator, labels: np.ndarray | None = None) -> np.ndarray:
        k = _classes(self.classes, n, rng, labels)
        return self._at((rng.random(n) + k) / self.classes)

    def region(self, z: np.ndarray) -> np.ndarray:
        """The class of the nearest point of the roll."""
        roll = self._at(np.array(_middles(self.points)))
        squares = (roll**2).sum(axis=1)
        nearest = np.empty(len(z), np.int64)
        for i in range(0, len(z), self.at_once):
            nearest[i : i + self.at_once] = (squares - 2 * z[i : i + self.at_once] @ roll.T).argmin(axis=1)
        return nearest * self.classes // self.points

    def outlines(self, points: int) -> np.ndarray:
        """The segments, each from the end of the one before."""
        starts = np.arange(self.classes)[:, None]
        ends = (starts + np.linspace(0, 1, points)) / self.classes
        return self._at(ends.ravel()).reshape(self.classes, points, 2)

    def walk(self, rows: int, columns: int) -> np.ndarray:
        """Row k follows the segment of class k outwards, in equal steps of u."""
        _require_a_row_each(self.classes, rows)
        return self._at((np.arange(self.classes)[:, None] + _middles(columns)).reshape(-1) / self.classes)

    def loop(self, frames: int, waves: int, rng: np.random.Generator, label: int | None = None) -> np.ndarray:
        """Each code is distributed as a draw of the segment of ``label``; without one, out along the roll and back."""
        if label is not None:
            return self._at((label + _cumulative(normal_loop(frames, 1, waves, rng)[:, 0])) / self.classes)
        return self._at(1 - np.abs(1 - 2 * np.arange(frames) / frames))

    def _at(self, u: np.ndarray) -> np.ndarray:
        """The points (n, 2) of the roll at u (n,) in [0, 1]."""
        root = np.sqrt(u)
        return 3 * root[:, None] * np.stack([np.cos(4 * np.pi * root), np.sin(4 * np.pi * root)], axis=1)


def make_prior(name: str, dim: int, classes: int = 10) -> Prior:
    """The prior of that name, one of ``PRIORS``, over codes of ``dim`` dimensions, with regions for so many classes.

    ValueError if there is none.
    """
    if name in REGIONS and dim != 2:
        raise ValueError(f"the prior {name} has two dimensions, not {dim}; use latent_dim 2 or another prior")
    if name == "gaussian":
        return Gaussian(dim)
    if name == "uniform":
        return Uniform(dim)
    if name == "mixture":
        return Mixture(classes)
    if name == "swiss-roll":
        return SwissRoll(classes)
    raise ValueError(f"prior {name!r} is not one of {', '.join(PRIORS)}")


# ---- closed paths ----


def normal_loop(frames: int, dim: int, waves: int, rng: np.random.Generator) -> np.ndarray:
    """A smooth closed random path z (frames, dim), each point of which is distributed as N(0, I).

    At the times t = 0, 1/frames, 2/frames, ... it is a sum of K = ``waves`` waves,

        z(t) = 1/sqrt(K) sum over k = 1..K of a_k cos(2 pi k t) + b_k sin(2 pi k t),      a_k, b_k from N(0, I),

    whose variances, (cos^2 + sin^2) / K each, add up to 1 at every t. Straight lines from draw to draw would not do:
    half-way the variance is 1/2, and in J dimensions the norm about sqrt(J / 2). Draws have norms near sqrt(J), and for
    large J hardly ever one so small: a network has not learnt what to make of such a code.
    """
    turns = 2 * np.pi * np.arange(frames)[:, None] / frames * np.arange(1, waves + 1)  # (frames, K)
    return np.hstack([np.cos(turns), np.sin(turns)]) @ rng.standard_normal((2 * waves, dim)) / math.sqrt(waves)


def in_turn(frames: int, classes: int) -> np.ndarray:
    """Where a closed path through C classes in turn stands (frames,): at k in class k, between on the way.

    It stays in each class for half of its time, and then passes smoothly into the next one, after C - 1 into 0 = C. A
    single class it does not leave.
    """
    if classes == 1:
        return np.zeros(frames)
    at = classes * np.arange(frames) / frames
    share = np.maximum(2 * (at % 1) - 1, 0)
    return np.floor(at) + share**2 * (3 - 2 * share)


def _cumulative(x: np.ndarray) -> np.ndarray:
    """P(N(0, 1) < x), elementwise: uniform in [0, 1] for x from N(0, 1)."""
    return np.vectorize(NormalDist().cdf, otypes=[float])(x)


def _log_normal(x: np.ndarray, sd: float) -> np.ndarray:
    """log N(x | 0, sd^2), elementwise."""
    return -((x / sd) ** 2) / 2 - math.log(sd * math.sqrt(2 * math.pi))


def _classes(classes: int, n: int, rng: np.random.Generator, labels: np.ndarray | None) -> np.ndarray:
    """The labels (n,), drawn uniformly where there is none."""
    drawn = rng.integers(classes, size=n)
    if labels is None:
        return drawn
    labels = _checked(classes, labels, n)
    return np.where(labels == UNLABELLED, drawn, labels)


def _checked(classes: int, labels: np.ndarray, n: int) -> np.ndarray:
    """Labels (n,). ValueError if they are not n of so many classes."""
    labels = np.asarray(labels)
    if labels.shape != (n,) or not np.isin(labels, np.arange(UNLABELLED, classes)).all():
        raise ValueError(f"labels must be {n} classes 0..{classes - 1}, or {UNLABELLED} for any; got {labels}")
    return labels


def _middles(n: int) -> list[float]:
    """The centres of n equal cells of [0, 1]."""
    if n < 1:
        raise ValueError(f"a walk needs at least one row and one column, got {n}")
    return [(i + 0.5) / n for i in range(n)]


def _grid(rows: list[float], columns: list[float]) -> np.ndarray:
    """Codes (rows * columns, 2), row by row: z1 grows to the right and z2 upwards."""
    z1, z2 = np.meshgrid(columns, rows[::-1])
    return np.stack([z1.ravel(), z2.ravel()], axis=1)


def _require_two(dim: int) -> None:
    if dim != 2:
        raise ValueError(f"a walk needs two-dimensional codes, not {dim} dimensions")


def _require_a_row_each(classes: int, rows: int) -> None:
    if rows != classes:
        raise ValueError(f"a walk over this prior needs {classes} rows, one for each class, not {rows}")
