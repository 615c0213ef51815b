"""The ring of L09: its exact maps and distances against theory, the learned map's parts, and what the lesson prints."""

import subprocess
import sys

import numpy as np
import pytest
from lesson_helpers import LECTURE, load, run
from PIL import Image

from scratchgen import Tensor

LESSON = "09_ring"


@pytest.fixture(scope="module")
def demo():
    return load(LESSON)


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    """What ``--quick`` prints: the figures by name, and its files."""
    return run(LESSON, tmp_path_factory.mktemp("lesson"), "--quick")


@pytest.fixture(scope="module")
def normal():
    return np.random.default_rng(0).standard_normal((200_000, 2))


def on_circle(turns, radius):
    return radius * np.exp(2j * np.pi * turns)


def plane(complex_numbers):
    return np.stack([complex_numbers.real, complex_numbers.imag], axis=1)


# ---- exact maps ----


def test_ring_is_its_formula(demo, normal):
    for z, x in zip(normal[:100].tolist(), demo.ring(normal[:100]), strict=True):
        norm = (z[0] ** 2 + z[1] ** 2) ** 0.5
        assert x.tolist() == pytest.approx([z[0] / 10 + z[0] / norm, z[1] / 10 + z[1] / norm], abs=1e-15)


def test_ring_has_radius_and_angle_to_rounding(demo, normal):
    radius, angle = demo.polar(demo.ring(normal))
    norm, direction = demo.polar(normal)
    assert np.abs(radius - (1 + norm / 10)).max() <= 1e-15
    assert np.abs(angle - direction).max() <= 1e-15


@pytest.mark.parametrize("tiny", [1e-3, 1e-170, 5e-324])
def test_ring_is_guarded_at_and_near_zero(demo, tiny):
    z = tiny * np.array([[3.0, -4.0], [0.0, 1.0], [0.0, 0.0]])
    ratio = z[0, 0] / z[0, 1]  # of the smallest numbers, that of -3 to 4 too
    with np.errstate(all="raise", under="ignore"):
        x = demo.ring(z)
    assert ratio == pytest.approx(-3 / 4)
    np.testing.assert_allclose(x, [[0.6, -0.8], [0, 1], [1, 0]], atol=1e-3)
    np.testing.assert_allclose(np.linalg.norm(x[2]), 1, rtol=1e-15)


def test_ring_has_the_mean_and_sd_of_theory(demo, normal):
    radius, _ = demo.polar(demo.ring(normal))
    theory = demo.MEAN, demo.SD
    assert theory == pytest.approx((1.1253, 0.0655), abs=5e-5)
    assert radius.mean() == pytest.approx(demo.MEAN, abs=4 * demo.SD / 200_000**0.5)
    assert radius.std() == pytest.approx(demo.SD, abs=0.0004)
    u = (np.arange(1_000_000) + 0.5) / 1_000_000
    r = demo.radius_quantile(u)  # moments by integrating the quantiles
    assert r.mean() == pytest.approx(demo.MEAN, abs=1e-6)
    assert r.std() == pytest.approx(demo.SD, abs=1e-5)


def test_radius_quantile_inverts_the_rayleigh_distribution(demo):
    u = np.linspace(0, 0.999, 50)
    norm = 10 * (demo.radius_quantile(u) - 1)
    np.testing.assert_allclose(1 - np.exp(-(norm**2) / 2), u, atol=1e-12)


def test_bent_plane_has_the_ring_as_its_distribution(demo, normal):
    x = demo.bent_plane(normal[:20_000])
    assert demo.radius_distance(x) < 0.002
    assert demo.angle_distance(x) < 0.005
    radius, angle = demo.polar(x)
    assert abs(np.corrcoef(radius, np.cos(2 * np.pi * angle))[0, 1]) < 0.03


def test_polar_gives_radius_and_turns(demo):
    radius, angle = demo.polar(np.array([[2.0, 0], [0, 3], [-1, 0], [0, -0.5]]))
    np.testing.assert_allclose(radius, [2, 3, 1, 0.5])
    np.testing.assert_allclose(angle, [0, 0.25, 0.5, 0.75])


# ---- distances ----


def test_radius_distance_is_exact_for_moved_quantiles(demo):
    n = 1_000
    r = np.random.default_rng(1).permutation(demo.radius_quantile((np.arange(n) + 0.5) / n))
    x = plane(on_circle(np.linspace(0, 1, n), 1))
    assert demo.radius_distance(r[:, None] * x) == pytest.approx(0, abs=1e-12)
    assert demo.radius_distance((r + 0.03)[:, None] * x) == pytest.approx(0.03, rel=1e-9)


@pytest.mark.parametrize(
    ("part", "distance"),
    [(1.0, 0.0), (0.5, 0.125), (0.75, 0.0625), (0.01, 0.2475)],
)
def test_angle_distance_is_exact_for_parts_of_a_circle_wherever_they_begin(demo, part, distance):
    # F - uniform is a triangle of height 1 - part; its mean distance from its median is a quarter of that
    for start in (0.0, 0.3, 0.9):
        turns = start + part * (np.arange(10_000) + 0.5) / 10_000
        assert demo.angle_distance(plane(on_circle(turns, 1.1))) == pytest.approx(distance, abs=2e-4)


# ---- the learned map ----


def test_sliced_distance_is_the_mean_of_distances_between_sorted_projections(demo):
    rng = np.random.default_rng(2)
    x, y, w = rng.normal(size=(30, 2)), rng.normal(size=(30, 2)), demo.draw_directions(rng, 7).astype(np.float64)
    expected = np.mean([np.abs(np.sort(x @ w[:, k]) - np.sort(y @ w[:, k])).mean() for k in range(7)])
    assert demo.sliced_distance(Tensor(x), y, w).item() == pytest.approx(expected, rel=1e-12)
    assert demo.sliced_distance(Tensor(x), rng.permutation(x), w).item() == pytest.approx(0, abs=1e-15)
    assert demo.sliced_distance(Tensor(x + np.array([0.3, 0])), x, np.eye(2)).item() == pytest.approx(0.15, rel=1e-12)


def test_sliced_distance_has_the_gradient_of_its_value(demo):
    rng = np.random.default_rng(3)
    x, y, w = rng.normal(size=(5, 2)), rng.normal(size=(5, 2)), demo.draw_directions(rng, 3).astype(np.float64)
    sample, h = Tensor(x, requires_grad=True), 1e-6
    demo.sliced_distance(sample, y, w).backward()
    for i in range(5):
        for j in range(2):
            moved = [x.copy(), x.copy()]
            moved[0][i, j], moved[1][i, j] = x[i, j] + h, x[i, j] - h
            above, below = (demo.sliced_distance(Tensor(point), y, w).item() for point in moved)
            assert sample.grad[i, j] == pytest.approx((above - below) / (2 * h), abs=1e-8)


def test_draw_directions_are_unit_vectors_evenly_over_half_a_circle(demo):
    w = demo.draw_directions(np.random.default_rng(4), 16)
    np.testing.assert_allclose(np.linalg.norm(w, axis=0), 1, rtol=1e-6)
    np.testing.assert_allclose((w[:, :-1] * w[:, 1:]).sum(axis=0), np.cos(np.pi / 16), rtol=1e-5)
    assert abs(w[:, 0] @ w[:, -1] + np.cos(np.pi / 16)) < 1e-5  # and the last to the opposite of the first


@pytest.mark.parametrize("turns", [1, -1, 0, 2])
def test_winding_counts_turns_about_the_origin(demo, turns):
    def network(z):  # z^turns, z^0 moved along the circle but not round it
        z = z.data[:, 0] + 1j * z.data[:, 1]
        w = z**turns if turns else np.exp(1j * z.real)
        return Tensor(plane((w * np.exp(2j)).astype(np.complex64)))

    assert demo.winding(network) == turns


# ---- what the lesson prints ----


def test_lesson_09_prints_the_exact_map(table):
    got = table[0]
    assert float(got["g: |radius - (1 + ||z||/10)|, largest"]) <= 1e-15
    assert float(got["g: |angle - angle of z|, turns, largest"]) < 1e-15
    assert float(got["g: mean radius"]) == pytest.approx(1.1253, abs=0.0003)
    assert float(got["g: sd of the radius"]) == pytest.approx(0.0655, abs=0.0002)
    assert got["g(0)"] == "[1. 0.]"
    for name in ("g", "bent plane"):
        draws = " of 10,000 draws" if name == "g" else ""
        assert float(got[f"{name}: W1 of radii{draws}"]) < 0.003
        assert float(got[f"{name}: W1 of angles{draws}, turns"]) < 0.006


def test_lesson_09_prints_that_half_a_ring_has_the_radii_but_not_the_angles(table):
    assert float(table[0]["half of g's ring: W1 of radii"]) < 0.003
    assert float(table[0]["half of g's ring: W1 of angles, turns"]) == pytest.approx(0.125, abs=0.005)


def test_lesson_09_prints_learned_rings(table):
    got = table[0]
    assert float(got["learned: W1 of radii, worst of 3 seeds"]) < 0.05
    assert float(got["learned: W1 of angles, turns, worst"]) < 0.01
    assert float(got["learned: sliced W1 to fresh data, worst"]) < 0.03
    assert float(got["g: sliced W1 to fresh data"]) < 0.02
    assert float(got["learned: share of points in the hole, worst"]) < 0.1
    assert set(map(int, got["learned: winding numbers"].split())) <= {-1, 0, 1}


def test_lesson_09_ends_with_its_figure_and_animation(table):
    picture, animation = table[1]
    assert picture.read_bytes().startswith(b"\x89PNG")
    with Image.open(animation) as film:
        assert film.format == "GIF"
        assert film.n_frames > 8


@pytest.mark.slow
def test_train_ends_within_the_ledger_s_distance_from_three_seeds(demo, normal):
    for seed in range(3):
        x = demo.generate(demo.train(seed, 3_000), normal[:10_000])
        assert demo.radius_distance(x) < 0.02
        assert demo.angle_distance(x) < 0.01


def test_lesson_09_says_in_a_line_what_is_wrong_with_an_option(tmp_path):
    for option, line in (
        (["--seed", "-1"], "error: argument --seed: '-1' is not a non-negative integer below 2^63"),
        (["--study", "0"], "error: argument --study: '0' is not a positive integer below 2^31"),
    ):
        command = [sys.executable, str(LECTURE / f"{LESSON}.py"), *option]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=60)
        assert done.returncode == 2
        assert done.stderr.splitlines()[-1].endswith(line)
