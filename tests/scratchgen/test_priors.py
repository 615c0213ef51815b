"""Priors: samples and densities against one another and against closed forms, regions, walks."""

import math
from statistics import NormalDist

import numpy as np
import pytest

from scratchgen.priors import (
    PRIORS,
    REGIONS,
    Gaussian,
    Mixture,
    SwissRoll,
    Uniform,
    in_turn,
    make_prior,
    normal_loop,
)

LABELS = np.arange(10)
PLANE = {"gaussian": Gaussian(2, sd=1.5), "uniform": Uniform(2, limit=2.0), "mixture": Mixture()}
in_the_plane = pytest.mark.parametrize("prior", PLANE.values(), ids=PLANE)
with_regions = pytest.mark.parametrize("name", REGIONS)

# ---- samples and densities ----


def test_gaussian_and_uniform_samples_have_their_moments(rng):
    for prior, sd in ((Gaussian(5, sd=3.0), 3.0), (Uniform(5, limit=3.0), math.sqrt(3.0))):
        z = prior.sample(40_000, rng)
        assert (z.shape, z.dtype) == ((40_000, 5), np.float64)
        np.testing.assert_allclose(z.mean(axis=0), 0, atol=0.06)
        np.testing.assert_allclose(np.cov(z.T), sd**2 * np.eye(5), atol=0.25)


def test_make_prior_gives_the_standard_gaussian_and_uniform():
    assert make_prior("gaussian", 3).log_prob(np.zeros((1, 3))) == pytest.approx(-1.5 * math.log(2 * math.pi))
    assert make_prior("uniform", 3).log_prob(np.full((1, 3), 1.0)) == pytest.approx(-3 * math.log(2))
    assert make_prior("uniform", 3).log_prob(np.array([[0, 0, 1.001]])) == -np.inf
    assert np.abs(make_prior("uniform", 3).sample(1_000, np.random.default_rng(0))).max() <= 1


@pytest.mark.parametrize("label", LABELS)
def test_mixture_petals_are_rotated_gaussians(rng, label):
    z = Mixture().sample(40_000, rng, np.full(40_000, label))
    c, s = math.cos(2 * math.pi * label / 10), math.sin(2 * math.pi * label / 10)
    turn = np.array([[c, -s], [s, c]])
    np.testing.assert_allclose(z.mean(axis=0), turn @ [1.4, 0], atol=0.015)
    covariance = turn @ np.diag([0.5**2, 0.1**2]) @ turn.T
    np.testing.assert_allclose(np.cov(z.T), covariance, atol=0.01)
    difference = z[:100] - turn @ [1.4, 0]
    squares = np.einsum("ni,ij,nj->n", difference, np.linalg.inv(covariance), difference)
    expected = -squares / 2 - math.log(2 * math.pi * 0.5 * 0.1)
    np.testing.assert_allclose(Mixture().log_prob(z[:100], np.full(100, label)), expected, rtol=1e-10)


def test_mixture_density_is_the_mean_of_its_petals(rng):
    prior, z = Mixture(), rng.uniform(-3, 3, (50, 2))
    petals = np.exp([prior.log_prob(z, np.full(50, label)) for label in LABELS])
    np.testing.assert_allclose(np.exp(prior.log_prob(z)), petals.mean(axis=0), rtol=1e-10)
    some = np.where(np.arange(50) % 2, 3, -1)  # -1 is any
    expected = np.where(some == 3, petals[3], petals.mean(axis=0))
    np.testing.assert_allclose(np.exp(prior.log_prob(z, some)), expected, rtol=1e-10)


@in_the_plane
def test_sample_follows_the_density_of_log_prob(rng, prior):
    """In 40 x 40 cells; the density is summed over 20 x 20 points of each, and over all of them is 1."""
    n, fine, half = 400_000, 800, 8.0
    axis = half * (2 * (np.arange(fine) + 0.5) / fine - 1)
    points = np.stack(np.meshgrid(axis, axis, indexing="ij"), axis=-1).reshape(-1, 2)
    mass = np.exp(prior.log_prob(points)) * (2 * half / fine) ** 2
    assert mass.sum() == pytest.approx(1, abs=1e-6)
    cells = mass.reshape(40, 20, 40, 20).sum(axis=(1, 3))
    z = prior.sample(n, rng)
    edges = np.linspace(-half, half, 41)
    found = np.histogram2d(*z.T, bins=[edges, edges])[0]
    assert found.sum() == n
    assert np.abs(found - n * cells).max() < 6 * math.sqrt(n * cells.max())
    inside = cells * n > 25
    chi_squared = ((found - n * cells)[inside] ** 2 / (n * cells[inside])).mean()
    assert chi_squared == pytest.approx(1, abs=5 * math.sqrt(2 / inside.sum()))


def test_swiss_roll_samples_lie_on_the_roll(rng):
    z = SwissRoll().sample(40_000, rng)
    root = np.linalg.norm(z, axis=1) / 3
    np.testing.assert_allclose(z, 3 * np.stack([root * np.cos(4 * np.pi * root), root * np.sin(4 * np.pi * root)], 1))
    np.testing.assert_allclose(np.histogram(root**2, 20, (0, 1))[0], 2_000, atol=200)  # u is uniform


def test_swiss_roll_labels_choose_its_stretches(rng):
    labels = np.repeat(LABELS, 500)
    u = (np.linalg.norm(SwissRoll().sample(5_000, rng, labels), axis=1) / 3) ** 2
    np.testing.assert_array_equal((10 * u - 1e-12).astype(int), labels)
    np.testing.assert_allclose((10 * u - labels).reshape(10, 500).mean(axis=1), 0.5, atol=0.06)


@with_regions
def test_sample_draws_the_labels_that_are_not_given(rng, name):
    prior = make_prior(name, 2)
    labels = np.where(np.arange(20_000) % 2, 3, -1)
    found = prior.region(prior.sample(20_000, rng, labels))
    assert (found[labels == 3] == 3).mean() > 0.98
    np.testing.assert_allclose(np.bincount(found[labels == -1], minlength=10), 1_000, atol=150)
    np.testing.assert_allclose(np.bincount(prior.region(prior.sample(10_000, rng)), minlength=10), 1_000, atol=150)


@pytest.mark.parametrize("name", ["gaussian", "uniform"])
def test_gaussian_and_uniform_ignore_labels(name):
    prior, labels = make_prior(name, 3), np.array([0, 5, -1, 9])
    z = prior.sample(4, np.random.default_rng(1), labels)
    np.testing.assert_array_equal(z, prior.sample(4, np.random.default_rng(1)))
    np.testing.assert_array_equal(prior.log_prob(z, labels), prior.log_prob(z))


@pytest.mark.parametrize("name", PRIORS)
def test_sample_with_the_same_seed_gives_the_same_draws(name):
    draws = [make_prior(name, 2).sample(9, np.random.default_rng(4)) for _ in range(2)]
    np.testing.assert_array_equal(*draws)
    assert (draws[0].shape, draws[0].dtype) == ((9, 2), np.float64)
    assert make_prior(name, 2).sample(0, np.random.default_rng(4)).shape == (0, 2)


# ---- regions ----


def test_mixture_regions_are_ten_wedges(rng):
    """By symmetry the most probable component is the one whose axis is nearest in angle."""
    z = rng.uniform(-4, 4, (20_000, 2))
    wedges = np.round(np.arctan2(z[:, 1], z[:, 0]) / (2 * math.pi / 10)).astype(int) % 10
    found = Mixture().region(z)
    assert found.dtype == np.int64
    np.testing.assert_array_equal(found, wedges)


def test_mixture_samples_leave_their_regions_as_often_as_theory_says(rng):
    """Within its wedge lies a code that is less than r tan(18 degrees) off the axis, r along it."""
    radii = np.linspace(0, 4.4, 20_001)
    within = [2 * NormalDist(0, 0.1).cdf(r * math.tan(math.pi / 10)) - 1 for r in radii]
    inside = (np.array(within) * [NormalDist(1.4, 0.5).pdf(r) for r in radii]).sum() * radii[1]
    assert inside == pytest.approx(0.984, abs=0.001)
    labels = np.arange(200_000) % 10
    found = Mixture().region(Mixture().sample(200_000, rng, labels)) == labels
    assert found.mean() == pytest.approx(inside, abs=5 * math.sqrt(inside * (1 - inside) / 200_000))


def test_swiss_roll_samples_are_in_the_region_of_their_label(rng):
    labels = np.arange(20_000) % 10
    found = SwissRoll().region(SwissRoll().sample(20_000, rng, labels))
    assert found.dtype == np.int64
    assert (found == labels).mean() > 0.9999
    assert SwissRoll().region(np.zeros((0, 2))).shape == (0,)


def test_swiss_roll_region_is_that_of_the_nearest_point(rng):
    z = rng.uniform(-4, 4, (300, 2))
    root = np.sqrt((np.arange(100_000) + 0.5) / 100_000)
    spiral = 3 * root * np.exp(4j * np.pi * root)
    nearest = [np.abs(spiral - code).argmin() // 10_000 for code in z @ [1, 1j]]
    assert (SwissRoll().region(z) == nearest).mean() > 0.99  # but for those between two points of its coarser roll


@with_regions
def test_regions_are_as_many_as_classes(rng, name):
    """Five of them: a region for each label, and each a fifth of the prior."""
    prior, labels = make_prior(name, 2, 5), np.arange(20_000) % 5
    assert (prior.region(prior.sample(20_000, rng, labels)) == labels).mean() > 0.99
    np.testing.assert_allclose(np.bincount(prior.region(prior.sample(20_000, rng))), 4_000, atol=300)
    np.testing.assert_array_equal(prior.region(prior.walk(5, 6)), np.repeat(np.arange(5), 6))
    with pytest.raises(ValueError, match="5 rows, one for each class, not 10"):
        prior.walk(10, 6)
    with pytest.raises(ValueError, match=r"2 classes 0\.\.4, or -1"):
        prior.sample(2, rng, np.array([0, 5]))


def test_mixture_of_five_has_the_density_of_its_petals(rng):
    prior, z = Mixture(5), rng.uniform(-3, 3, (50, 2))
    petals = np.exp([prior.log_prob(z, np.full(50, label)) for label in range(5)])
    np.testing.assert_allclose(np.exp(prior.log_prob(z)), petals.mean(axis=0), rtol=1e-10)
    angles = np.arctan2(*prior.sample(100_000, rng, np.full(100_000, 1)).mean(axis=0)[::-1])
    assert angles == pytest.approx(2 * math.pi / 5, abs=0.01)


# ---- walks ----


def test_gaussian_walk_goes_by_quantiles():
    z = Gaussian(2, sd=5.0).walk(2, 3)
    q2, q3 = NormalDist(0, 5).inv_cdf(3 / 4), NormalDist(0, 5).inv_cdf(5 / 6)
    np.testing.assert_allclose(
        z, [[-q3, q2], [0, q2], [q3, q2], [-q3, -q2], [0, -q2], [q3, -q2]], rtol=1e-12, atol=1e-15
    )


@pytest.mark.parametrize("n", [1, 2, 3, 20])
def test_gaussian_walk_has_equally_probable_cells(n):
    grid = Gaussian(2).walk(n, n)
    probability = np.array([[0.5 + 0.5 * math.erf(z / math.sqrt(2)) for z in code] for code in grid])
    steps = (np.arange(n) + 0.5) / n
    np.testing.assert_allclose(probability[:, 0].reshape(n, n), np.tile(steps, (n, 1)), atol=1e-12)
    np.testing.assert_allclose(probability[:, 1].reshape(n, n), np.tile(steps[::-1, None], (1, n)), atol=1e-12)


def test_uniform_walk_goes_in_equal_steps():
    z = Uniform(2, limit=3.0).walk(2, 3)
    np.testing.assert_allclose(z, [[-2, 1.5], [0, 1.5], [2, 1.5], [-2, -1.5], [0, -1.5], [2, -1.5]], atol=1e-15)


def test_mixture_walk_goes_out_along_each_axis():
    z = Mixture().walk(10, 4)
    radii = [NormalDist(1.4, 0.5).inv_cdf(p) for p in (1 / 8, 3 / 8, 5 / 8, 7 / 8)]
    expected = np.exp(2j * np.pi * LABELS / 10)[:, None] * radii
    np.testing.assert_allclose(z @ [1, 1j], expected.ravel(), rtol=1e-12)


def test_swiss_roll_walk_goes_through_every_class():
    z = SwissRoll().walk(10, 5)
    root = np.sqrt((np.arange(50) + 0.5) / 50)
    np.testing.assert_allclose(z @ [1, 1j], 3 * root * np.exp(4j * np.pi * root), rtol=1e-12)
    np.testing.assert_array_equal(SwissRoll().region(z), np.repeat(LABELS, 5))


# ---- mistakes ----


def test_priors_refuse_what_they_cannot_do():
    for name in REGIONS:
        with pytest.raises(ValueError, match=f"{name} has two dimensions, not 8; use latent_dim 2 or another"):
            make_prior(name, 8)
        with pytest.raises(ValueError, match="10 rows, one for each class, not 9"):
            make_prior(name, 2).walk(9, 10)
    for name in ("gaussian", "uniform"):
        with pytest.raises(ValueError, match="needs two-dimensional codes, not 3 dimensions"):
            make_prior(name, 3).walk(10, 10)
        with pytest.raises(NotImplementedError, match="no regions"):
            make_prior(name, 2).region(np.zeros((1, 2)))
    for name in PRIORS:
        with pytest.raises(ValueError, match="at least one row and one column, got 0"):
            make_prior(name, 2).walk(10, 0)
    with pytest.raises(NotImplementedError, match="SwissRoll has no density"):
        SwissRoll().log_prob(np.zeros((1, 2)))
    with pytest.raises(ValueError, match="prior 'flat' is not one of gaussian, uniform, mixture, swiss-roll"):
        make_prior("flat", 2)


@with_regions
@pytest.mark.parametrize("labels", [[0, 10], [0, -2], [0], [[0, 1]]])
def test_sample_refuses_labels_that_are_not_n_classes(rng, name, labels):
    with pytest.raises(ValueError, match=r"labels must be 2 classes 0\.\.9, or -1 for any"):
        make_prior(name, 2).sample(2, rng, np.array(labels))


# ---- closed paths ----


def test_normal_loop_is_distributed_as_a_draw_at_every_time():
    paths = np.array([normal_loop(6, 3, 4, np.random.default_rng(seed)) for seed in range(8_000)])
    for t in range(6):
        np.testing.assert_allclose(paths[:, t].mean(axis=0), 0, atol=0.06)
        np.testing.assert_allclose(np.cov(paths[:, t].T), np.eye(3), atol=0.08)
        assert (paths[:, t] ** 4).mean() == pytest.approx(3, abs=0.25)


def test_normal_loop_keeps_the_norm_of_draws_where_straight_lines_lose_it(rng):
    norms = np.linalg.norm(normal_loop(1_000, 100, 5, rng), axis=1)
    assert norms.min() > 7.5  # a draw's norm is 10 ± 0.7
    a, b = rng.standard_normal((2, 100))
    assert np.linalg.norm((a + b) / 2) < 8.5


def test_normal_loop_takes_the_same_way_in_more_steps():
    coarse, fine = (normal_loop(frames, 2, 3, np.random.default_rng(5)) for frames in (50, 100))
    np.testing.assert_allclose(fine[::2], coarse, atol=1e-12)


@pytest.mark.parametrize("label", [None, 3])
@pytest.mark.parametrize("name", PRIORS)
def test_loop_is_smooth_and_ends_where_it_began(name, label):
    longest = []
    for frames in (400, 4_000):
        path = make_prior(name, 2).loop(frames, 3, np.random.default_rng(1), label)
        assert path.shape == (frames, 2)
        steps = np.linalg.norm(path - np.roll(path, 1, axis=0), axis=1)  # with the one from the last to the first
        longest.append(steps.max())
    assert longest[0] < 0.35
    assert longest[1] < longest[0] / (3 if name == "swiss-roll" else 8)  # where it begins, the radius is a root of u
    again, other = (make_prior(name, 2).loop(4_000, 3, np.random.default_rng(seed), label) for seed in (1, 2))
    assert np.array_equal(again, path)
    assert np.array_equal(other, path) == (name == "swiss-roll" and label is None)


@with_regions
@pytest.mark.parametrize("classes", [1, 2, 3, 10])
def test_loop_visits_the_regions_in_turn(name, classes, rng):
    prior = make_prior(name, 2, classes)
    regions = prior.region(prior.loop(200 * classes, 3, rng))
    order = [int(r) for r, before in zip(regions, [-1, *regions[:-1]], strict=True) if r != before]
    expected = [*range(classes)] if name == "mixture" else [*range(classes), *range(classes - 2, -1, -1)]
    assert order[: len(expected)] == expected
    assert order[len(expected) :] in ([], [0])  # on the way from the last to the first


@with_regions
@pytest.mark.parametrize(("label", "classes"), [*((label, 10) for label in LABELS), (2, 3)])
def test_loop_with_a_label_is_distributed_as_draws_of_its_region(name, label, classes):
    prior = make_prior(name, 2, classes)
    paths = np.concatenate([prior.loop(4, 3, np.random.default_rng(seed), label) for seed in range(2_000)])
    draws = prior.sample(8_000, np.random.default_rng(0), np.full(8_000, label))
    np.testing.assert_allclose(paths.mean(axis=0), draws.mean(axis=0), atol=0.05)
    np.testing.assert_allclose(np.cov(paths.T), np.cov(draws.T), atol=0.05)


@pytest.mark.parametrize(
    "prior",
    [*PLANE.values(), *(Mixture(classes) for classes in (1, 2, 3, 5, 26))],
    ids=[*PLANE, *(f"mixture of {classes}" for classes in (1, 2, 3, 5, 26))],
)
def test_loop_stays_where_draws_lie(prior):
    least = np.quantile(prior.log_prob(prior.sample(20_000, np.random.default_rng(0))), 0.01)
    inside = [prior.log_prob(prior.loop(500, 3, np.random.default_rng(seed))) >= least for seed in range(20)]
    assert np.mean(inside) > 0.95


def test_loop_of_the_swiss_roll_lies_on_it_and_stays_as_long_in_each_class(rng):
    path = SwissRoll().loop(2_000, 3, rng)
    root = np.linalg.norm(path, axis=1) / 3
    np.testing.assert_allclose(path, SwissRoll()._at(root**2), atol=1e-12)
    assert np.bincount(SwissRoll().region(path)).tolist() == pytest.approx([200] * 10, abs=3)


def test_in_turn_stays_in_each_class_for_half_of_its_time():
    at = in_turn(2_000, 10)
    assert at[0] == 0
    assert (np.diff(at) >= 0).all()
    assert 9.99 < at[-1] < 10
    assert [(at == k).sum() for k in range(10)] == pytest.approx([100] * 10, abs=1)
    assert np.diff(at).max() < 0.02


# ---- outlines ----


@pytest.mark.parametrize("name", REGIONS)
def test_outlines_are_of_the_regions(name):
    prior = make_prior(name, 2)
    lines = prior.outlines(41)
    assert lines.shape == (10, 41, 2)
    regions = prior.region(lines[:, 1:-1].reshape(-1, 2)).reshape(10, 39)
    np.testing.assert_array_equal(regions, np.repeat(np.arange(10)[:, None], 39, axis=1))


def test_mixture_outlines_are_two_standard_deviations_from_the_means():
    prior = make_prior("mixture", 2)
    density = prior.log_prob(prior.outlines(41).reshape(-1, 2), np.repeat(np.arange(10), 41))
    peak = prior.log_prob(1.4 * prior.axes, np.arange(10))
    np.testing.assert_allclose(density, np.repeat(peak, 41) - 2, rtol=1e-9)


def test_swiss_roll_outlines_join_to_the_whole_roll():
    lines = make_prior("swiss-roll", 2).outlines(41)
    np.testing.assert_allclose(lines[1:, 0], lines[:-1, -1], atol=1e-12)
    np.testing.assert_allclose(np.linalg.norm(lines, axis=2)[[0, 9], [0, 40]], [0, 3], atol=1e-12)


@pytest.mark.parametrize("name", sorted(set(PRIORS) - set(REGIONS)))
def test_outlines_need_regions(name):
    with pytest.raises(NotImplementedError):
        make_prior(name, 2).outlines(5)
