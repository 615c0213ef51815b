"""Principal component analysis: of all linear autoencoders, one with the least squared error (L10).

    z = V (x - m)        x' = m + V^T z        error = 1/n sum_i |x_i - x'_i|^2 = lambda_(k+1) + ... + lambda_D

m (D,) is the mean of the data, lambda_1 >= lambda_2 >= ... are the eigenvalues of their covariance C, and the k rows of
V are eigenvectors of the largest k. No linear map of rank k has a smaller error on these data (Eckart & Young 1936).
Bishop, Pattern Recognition and Machine Learning, section 12.1.
"""

from typing import Self

import numpy as np


class PCA:
    """The k directions of largest variance of data x (n, D), in float64 NumPy.

    ``encode`` and ``decode`` are the ``transform`` and ``inverse_transform`` of other libraries. All methods raise
    ValueError for shapes that do not fit, for x that is not finite, and, but for ``fit``, before ``fit``.

    Parameters
    ----------
    components : int
        k, at least 1.

    Attributes
    ----------
    mean : np.ndarray
        m (D,). D is 0 until ``fit``.
    directions : np.ndarray
        V (k, D): orthonormal rows, by falling variance. An eigenvector has no sign; here the entry of largest size is
        positive.
    variances : np.ndarray
        All eigenvalues of C (D,), falling, 0 or above. C is divided by n, not n - 1, so that the error of the data is
        the sum of those from k on.
    """

    def __init__(self, components: int) -> None:
        if components < 1:
            raise ValueError(f"components must be at least 1, got {components}")
        self.components = components
        self.mean, self.variances = np.empty(0), np.empty(0)
        self.directions = np.empty((components, 0))

    def fit(self, x: np.ndarray) -> Self:
        """Fit to x (n, D), with k <= min(n, D), by an eigendecomposition of C (D, D); returns itself."""
        x = _finite_rows(x, "x")
        if self.components > min(x.shape):
            raise ValueError(f"{len(x)} rows of {x.shape[1]} numbers have no {self.components} principal components")
        centred = x - x[0]  # first, so that rows that are all the same have no variance, not that of rounding
        offset = centred.mean(axis=0)
        centred -= offset
        variances, vectors = np.linalg.eigh(centred.T @ centred / len(x))  # rising
        directions = vectors.T[::-1][: self.components]
        largest = np.abs(directions).argmax(axis=1)
        signs = np.sign(directions[np.arange(self.components), largest])
        self.mean, self.directions = x[0] + offset, directions * signs[:, None]
        self.variances = np.maximum(variances[::-1], 0)  # rounding makes some that are 0 negative
        return self

    def encode(self, x: np.ndarray) -> np.ndarray:
        """The codes z (n, k) of x (n, D): uncorrelated on the data of ``fit``, with the first k ``variances``."""
        x = self._check(x, "x", len(self.mean))
        return (x - self.mean) @ self.directions.T

    def decode(self, z: np.ndarray) -> np.ndarray:
        """The points x' (n, D) of codes z (n, k)."""
        z = self._check(z, "z", self.components)
        return self.mean + z @ self.directions

    def reconstruction_error(self, x: np.ndarray) -> float:
        """The mean over x (n, D) of |x - x'|^2, a sum over D; on the data of ``fit``, the sum of ``variances[k:]``."""
        residual = self.decode(self.encode(x)) - x
        return float((residual**2).sum(axis=1).mean())

    def explained_variance(self) -> np.ndarray:
        """The share (k,) of each direction in the variance of the data, lambda_j / sum lambda; 0 if there is none."""
        self._check_fitted()
        return self.variances[: self.components] / (self.variances.sum() or 1.0)

    def _check(self, array: np.ndarray, name: str, width: int) -> np.ndarray:
        self._check_fitted()
        array = _finite_rows(array, name)
        if array.shape[1] != width:
            raise ValueError(f"{name} must have the shape (n, {width}), got {array.shape}")
        return array

    def _check_fitted(self) -> None:
        if len(self.mean) == 0:
            raise ValueError("this PCA has no directions yet: call fit first")


def _finite_rows(array: np.ndarray, name: str) -> np.ndarray:
    """The array in float64; ValueError unless it is finite and of the shape (n, d), n >= 1."""
    array = np.asarray(array, np.float64)
    if array.ndim != 2 or len(array) == 0:
        raise ValueError(f"{name} must have the shape (n, d) with n >= 1, got {array.shape}")
    if not np.isfinite(array).all():
        raise ValueError(f"{name} must be finite")
    return array


def principal_angles(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """The angles (k,) in degrees, rising, between the subspaces that the rows of a (k, D) and of b (k, D) span.

    All are 0 if the subspaces are the same, whatever their bases. ValueError for other shapes, for rows that are not
    finite, and for linearly dependent ones. Source: Björck & Golub 1973: their cosines are the singular values of
    Q_a^T Q_b, with orthonormal bases Q.
    """
    a, b = _finite_rows(a, "a"), _finite_rows(b, "b")
    if a.shape != b.shape or a.shape[0] > a.shape[1]:
        raise ValueError(f"two subspaces need bases of one shape (k, D), k <= D, got {a.shape} and {b.shape}")
    for name, rows in (("a", a), ("b", b)):
        if np.linalg.matrix_rank(rows) < len(rows):
            raise ValueError(f"{name}: its {len(rows)} rows span fewer dimensions")
    bases = [np.linalg.qr(rows.T)[0] for rows in (a, b)]
    cosines = np.linalg.svd(bases[0].T @ bases[1], compute_uv=False)
    return np.degrees(np.arccos(np.clip(cosines, 0, 1)))
