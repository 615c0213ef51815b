"""A mixture of products of Bernoulli distributions: naive Bayes with labels (L02), EM without (L05).

    p(x, k) = w_k prod_d t_kd^x_d (1 - t_kd)^(1 - x_d)                p(x) = sum_k p(x, k)

The D pixels of x are binary, and independent of each other given the component k = 0..K-1, which has the weight w_k
and the template t_k. With labels, a component is a class. Bishop, Pattern Recognition and Machine Learning, section
9.3.3, derives EM for it.
"""

import math

import numpy as np

from scratchgen.errors import checked_labels


class BernoulliMixture:
    """Binary images of K components, in float64 NumPy.

    Images x (n, D) hold pixels in [0, 1] and are binarised: a pixel is on above 0.5. All methods raise ValueError for
    other values, and for shapes that do not fit.

    Parameters
    ----------
    components : int
        K, the number of components.
    smoothing : float
        Pseudo-counts a >= 1e-9 (1 is Laplace's rule): a for each component, and a on and a off for each of its pixels.
        Fitted parameters maximise the posterior under the priors Dirichlet(1 + a) for the weights and
        Beta(1 + a, 1 + a) for each t_kd.

    Attributes
    ----------
    log_weights : np.ndarray
        log w (K,).
    templates : np.ndarray
        t (K, D): the probability that a pixel is on, given the component. D is 0 until ``fit``.
    objective : list of float
        What EM maximised, before each iteration: log p(all x) + a (sum log w + sum log t + sum log(1 - t)). Up to a
        constant it is the log posterior of the parameters, and it never falls.
    """

    def __init__(self, components: int, smoothing: float = 1.0) -> None:
        if components < 1:
            raise ValueError(f"components must be at least 1, got {components}")
        if not (smoothing >= 1e-9 and math.isfinite(smoothing)):  # far below, 1 - t would round to 0
            raise ValueError(f"smoothing must be at least 1e-9, got {smoothing}")
        self.components, self.smoothing = components, smoothing
        self.log_weights = np.full(components, -math.log(components))
        self.templates = np.empty((components, 0))
        self.objective: list[float] = []

    def fit(
        self,
        x: np.ndarray,
        labels: np.ndarray | None = None,
        rng: np.random.Generator | None = None,
        iterations: int = 50,
    ) -> "BernoulliMixture":
        """Fit to images x (n, D), by counting with ``labels`` (n,) in 0..K-1, else by EM; returns itself.

        Counting gives w_k = (n_k + a) / (n + K a) and t_kd = (on_kd + a) / (n_k + 2 a), with n_k images of label k
        and on_kd of them where pixel d is on. EM does the same with p(k | x) in place of the labels, ``iterations``
        times, from templates made of K images that ``rng`` draws. EM never tells components apart that start from
        equal images.
        """
        x = _binarize(x)
        if len(x) == 0:
            raise ValueError("there are no images to fit")
        self.objective = []
        if labels is not None:
            self._maximize(x, np.eye(self.components)[checked_labels(labels, len(x), self.components)])
            return self
        if rng is None:
            raise ValueError("without labels, fit needs rng, which draws the images that EM starts from")
        if len(x) < self.components:
            raise ValueError(f"EM starts from {self.components} images, got {len(x)}")
        self.templates = (x[rng.choice(len(x), self.components, replace=False)] + 0.5) / 2  # 1/4 or 3/4
        self.log_weights = np.full(self.components, -math.log(self.components))
        for _ in range(iterations):
            joint = self._log_joint(x)
            log_p = np.logaddexp.reduce(joint, axis=1)
            self.objective.append(float(log_p.sum()) + self._log_prior())
            self._maximize(x, np.exp(joint - log_p[:, None]))
        return self

    def log_joint(self, x: np.ndarray, pixels: np.ndarray | None = None) -> np.ndarray:
        """log p(x, k) (n, K) of images x (n, D); with ``pixels`` (D,), booleans, of these pixels alone."""
        x = self._check_width(_binarize(x))
        return self._log_joint(x, None if pixels is None else self._check_mask(pixels))

    def log_prob(self, x: np.ndarray, pixels: np.ndarray | None = None) -> np.ndarray:
        """log p(x) (n,) in nats; with ``pixels`` (D,), of these pixels alone."""
        return np.logaddexp.reduce(self.log_joint(x, pixels), axis=1)

    def posterior(self, x: np.ndarray, pixels: np.ndarray | None = None) -> np.ndarray:
        """p(k | x) (n, K) by Bayes' rule (L06); with ``pixels`` (D,), given these pixels alone."""
        joint = self.log_joint(x, pixels)
        return np.exp(joint - np.logaddexp.reduce(joint, axis=1, keepdims=True))

    def predict(self, x: np.ndarray, pixels: np.ndarray | None = None) -> np.ndarray:
        """The most probable component (n,), int64; with ``pixels`` (D,), given these pixels alone."""
        return self.log_joint(x, pixels).argmax(axis=1)

    def sample(
        self, n: int, rng: np.random.Generator, labels: np.ndarray | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """n draws of p(x, k), or of p(x | k) with ``labels`` (n,): images (n, D) of 0 and 1, and their k (n,)."""
        if self.templates.shape[1] == 0:
            raise ValueError("the mixture has no templates yet; fit it first")
        if labels is None:
            labels = rng.choice(self.components, n, p=np.exp(self.log_weights))
        labels = checked_labels(labels, n, self.components)
        return (rng.random((n, self.templates.shape[1])) < self.templates[labels]).astype(np.float64), labels

    def complete(self, x: np.ndarray, known: np.ndarray, rng: np.random.Generator | None = None) -> np.ndarray:
        """Images x (n, D) with the pixels outside the mask ``known`` (D,) filled in, given those inside.

        They are E[x | known] = sum_k p(k | known) t_k; with ``rng``, a draw: of k from p(k | known), then of pixels.
        """
        x, known = self._check_width(_binarize(x)), self._check_mask(known)
        filled = self.posterior(x, known)
        if rng is None:
            return np.where(known, x, filled @ self.templates)
        beyond = filled.cumsum(axis=1) <= rng.random((len(x), 1))  # the components before the drawn one
        drawn, _ = self.sample(len(x), rng, np.minimum(beyond.sum(axis=1), self.components - 1))
        return np.where(known, x, drawn)

    def _log_joint(self, x: np.ndarray, pixels: np.ndarray | None = None) -> np.ndarray:
        on, off = np.log(self.templates), np.log1p(-self.templates)
        if pixels is not None:
            on, off = on * pixels, off * pixels
        return x @ (on - off).T + off.sum(axis=1) + self.log_weights

    def _maximize(self, x: np.ndarray, responsibilities: np.ndarray) -> None:
        """The parameters that are best for responsibilities (n, K), p(k | x) or labels as one-hot rows."""
        counts, a = responsibilities.sum(axis=0), self.smoothing
        self.log_weights = np.log((counts + a) / (len(x) + self.components * a))
        self.templates = (responsibilities.T @ x + a) / (counts + 2 * a)[:, None]

    def _log_prior(self) -> float:
        templates = np.log(self.templates).sum() + np.log1p(-self.templates).sum()
        return self.smoothing * float(self.log_weights.sum() + templates)

    def _check_width(self, x: np.ndarray) -> np.ndarray:
        pixels = self.templates.shape[1]
        if x.shape[1] != pixels:
            hint = "" if pixels else "; fit it first"
            raise ValueError(f"images have {x.shape[1]} pixels, the mixture's templates {pixels}{hint}")
        return x

    def _check_mask(self, mask: np.ndarray) -> np.ndarray:
        mask, pixels = np.asarray(mask), self.templates.shape[1]
        if mask.dtype != bool or mask.shape != (pixels,):
            raise ValueError(f"a mask of pixels must be bool of shape ({pixels},), got {mask.dtype} {mask.shape}")
        return mask


def _binarize(x: np.ndarray) -> np.ndarray:
    """Images (n, D) as 0.0 and 1.0."""
    x = np.asarray(x)
    if x.ndim != 2:
        raise ValueError(f"images must have the shape (n, pixels), got {x.shape}")
    if x.size and not (x.min() >= 0 and x.max() <= 1):  # a NaN fails both
        raise ValueError("pixels must be numbers in [0, 1]")
    return (x > 0.5).astype(np.float64)
