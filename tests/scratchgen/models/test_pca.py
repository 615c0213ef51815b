"""PCA against its definition: the best subspace, by the singular values of the data and by brute force."""

import numpy as np
import pytest

from scratchgen.models.pca import PCA, principal_angles

N, D = 40, 6


@pytest.fixture
def x(rng):
    """Correlated data (N, D) with a mean, in float32, as images are."""
    return (rng.standard_normal((N, D)) @ rng.standard_normal((D, D)) + rng.standard_normal(D)).astype(np.float32)


def centred(x):
    x = x.astype(np.float64)
    return x - x.mean(axis=0)


def error_of(x, basis):
    """Mean squared distance of x from mean + the span of orthonormal columns (D, k), by projection."""
    residual = centred(x) - centred(x) @ basis @ basis.T
    return (residual**2).sum() / len(x)


@pytest.mark.parametrize("k", range(1, D + 1))
def test_reconstruction_error_is_that_of_the_best_matrix_of_rank_k(x, k):
    """Eckart & Young: the SVD of the centred data, cut after k singular values, is the nearest matrix of rank k."""
    u, s, v = np.linalg.svd(centred(x), full_matrices=False)
    model = PCA(k).fit(x)
    best = (u[:, :k] * s[:k]) @ v[:k] + x.astype(np.float64).mean(axis=0)
    np.testing.assert_allclose(model.decode(model.encode(x)), best, atol=1e-12)
    assert model.reconstruction_error(x) == pytest.approx((s[k:] ** 2).sum() / N, rel=1e-10, abs=1e-12)
    assert model.reconstruction_error(x) == pytest.approx(model.variances[k:].sum(), rel=1e-10, abs=1e-12)


@pytest.mark.parametrize("k", [1, 3, 5])
def test_fit_finds_a_subspace_better_than_random_and_neighbouring_ones(rng, x, k):
    model = PCA(k).fit(x)
    least = model.reconstruction_error(x)
    for spread in (10.0, 0.1, 1e-3):
        for _ in range(50):
            near = model.directions.T + spread * rng.standard_normal((D, k))
            assert error_of(x, np.linalg.qr(near)[0]) > least


def test_reconstruction_error_of_other_data_is_their_distance_from_the_subspace(rng, x):
    model, other = PCA(2).fit(x), rng.standard_normal((7, D))
    residual = other - model.mean
    residual = residual - residual @ model.directions.T @ model.directions
    assert model.reconstruction_error(other) == pytest.approx((residual**2).sum() / 7, rel=1e-12)


def test_fit_gives_orthonormal_directions_of_falling_variance_with_a_fixed_sign(x):
    model = PCA(4).fit(x)
    np.testing.assert_allclose(model.directions @ model.directions.T, np.eye(4), atol=1e-12)
    assert (np.diff(model.variances) <= 0).all()
    assert all(row[np.abs(row).argmax()] > 0 for row in model.directions)
    np.testing.assert_allclose(PCA(4).fit(2 * x.mean(axis=0) - x).directions, model.directions, atol=1e-5)  # mirrored


def test_encode_gives_uncorrelated_codes_with_the_variances(x):
    model = PCA(3).fit(x)
    z = model.encode(x)
    np.testing.assert_allclose(z.mean(axis=0), 0, atol=1e-12)
    np.testing.assert_allclose(z.T @ z / N, np.diag(model.variances[:3]), atol=1e-10)


def test_decode_is_a_right_inverse_of_encode(rng, x):
    model, z = PCA(3).fit(x), rng.standard_normal((5, 3))
    np.testing.assert_allclose(model.encode(model.decode(z)), z, atol=1e-12)


def test_explained_variance_is_a_share_of_the_variance_of_the_data(x):
    model = PCA(D).fit(x)
    total = x.astype(np.float64).var(axis=0).sum()
    assert model.variances.sum() == pytest.approx(total, rel=1e-12)
    np.testing.assert_allclose(model.explained_variance(), model.encode(x).var(axis=0) / total, rtol=1e-9)
    np.testing.assert_allclose(PCA(2).fit(x).explained_variance(), model.explained_variance()[:2], rtol=1e-12)


def test_fit_takes_fewer_rows_than_pixels(x):
    few = x[:4]
    model = PCA(4).fit(few)  # three directions hold all of it, the fourth is any other
    assert model.reconstruction_error(few) == pytest.approx(0, abs=1e-10)
    assert (model.variances >= 0).all()
    assert (PCA(6).fit(1e-12 * x).variances > 0).all()  # small, but far above rounding


@pytest.mark.parametrize("n", [5, 10, 1000])
@pytest.mark.parametrize("value", [1.0, 0.1, -1e30])  # the computed mean of ten 0.1 is not 0.1
def test_fit_gives_data_without_variance_none(n, value):
    same = PCA(2).fit(np.full((n, 3), value))
    np.testing.assert_array_equal(same.variances, 0)
    np.testing.assert_array_equal(same.explained_variance(), 0)
    np.testing.assert_allclose(same.directions @ same.directions.T, np.eye(2), atol=1e-12)


def test_fit_agrees_with_scikit_learn(x):
    decomposition = pytest.importorskip("sklearn.decomposition", reason="scikit-learn is not installed")
    theirs, ours = decomposition.PCA(3).fit(x.astype(np.float64)), PCA(3).fit(x)
    signs = np.sign((theirs.components_ * ours.directions).sum(axis=1))
    np.testing.assert_allclose(theirs.components_ * signs[:, None], ours.directions, atol=1e-10)
    np.testing.assert_allclose(theirs.transform(x.astype(np.float64)) * signs, ours.encode(x), atol=1e-9)
    np.testing.assert_allclose(theirs.explained_variance_ * (N - 1) / N, ours.variances[:3], rtol=1e-10)
    np.testing.assert_allclose(theirs.explained_variance_ratio_, ours.explained_variance(), rtol=1e-10)


def test_principal_angles_are_those_of_rotated_lines_and_planes(rng):
    angle = np.radians(30)
    a, b = np.array([[1.0, 0, 0], [0, 1, 0]]), np.array([[1.0, 0, 0], [0, np.cos(angle), np.sin(angle)]])
    np.testing.assert_allclose(principal_angles(a, b), [0, 30], atol=1e-5)
    mixed = rng.standard_normal((2, 2)) @ b  # another basis of the same plane
    np.testing.assert_allclose(principal_angles(a, mixed), [0, 30], atol=1e-5)
    np.testing.assert_allclose(principal_angles(a[:1], np.array([[0.0, 0, -2]])), [90], atol=1e-5)
    np.testing.assert_allclose(principal_angles([[1, 0, 0]], [[1e-9, 0, 0]]), [0], atol=1e-5)


MISTAKES = {
    "no component": (lambda x: PCA(0), "components must be at least 1, got 0"),
    "more than pixels": (lambda x: PCA(7).fit(x), "40 rows of 6 numbers have no 7 principal components"),
    "more than rows": (lambda x: PCA(3).fit(x[:2]), "2 rows of 6 numbers have no 3 principal components"),
    "one image": (lambda x: PCA(1).fit(x[0]), r"x must have the shape \(n, d\) with n >= 1, got \(6,\)"),
    "no rows": (lambda x: PCA(1).fit(x).reconstruction_error(x[:0]), r"with n >= 1, got \(0, 6\)"),
    "NaN": (lambda x: PCA(1).fit(x * np.nan), "x must be finite"),
    "encode before fit": (lambda x: PCA(1).encode(x), "call fit first"),
    "decode before fit": (lambda x: PCA(1).decode(np.ones((1, 1))), "call fit first"),
    "share before fit": (lambda x: PCA(1).explained_variance(), "call fit first"),
    "wrong width of x": (lambda x: PCA(2).fit(x).encode(x[:, :5]), r"x must have the shape \(n, 6\), got \(40, 5\)"),
    "wrong width of z": (lambda x: PCA(2).fit(x).decode(x), r"z must have the shape \(n, 2\), got \(40, 6\)"),
    "angles of two sizes": (lambda x: principal_angles(x[:2], x[:3]), r"got \(2, 6\) and \(3, 6\)"),
    "angles of equal rows": (lambda x: principal_angles(x[[0, 0]], x[:2]), "a: its 2 rows span fewer dimensions"),
    "angles of a zero row": (
        lambda x: principal_angles(x[:2], [x[0], 0 * x[0]]),
        "b: its 2 rows span fewer dimensions",
    ),
    "angles of NaN": (lambda x: principal_angles(x[:2] * np.nan, x[:2]), "a must be finite"),
    "angles of numbers": (lambda x: principal_angles(x[0], x[0]), r"a must have the shape \(n, d\)"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_pca_names_what_is_wrong(x, mistake):
    call, message = MISTAKES[mistake]
    with pytest.raises(ValueError, match=message):
        call(x)
