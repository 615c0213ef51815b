"""Drawn digits: their form, the truth of their factors, and that they are ten classes."""

import time

import numpy as np
import pytest

from scratchgen.data import strokes
from scratchgen.data.strokes import FACTORS, Strokes, draw_strokes, load_strokes

PER_CLASS = 200


@pytest.fixture(scope="module")
def drawn() -> Strokes:
    return draw_strokes(10 * PER_CLASS, np.random.default_rng(0), np.repeat(np.arange(10), PER_CLASS))


@pytest.fixture(scope="module")
def moments(drawn: Strokes) -> dict[str, np.ndarray]:
    """Ink, its centre from the field's centre, and its covariance, by image (pixels, pixels²)."""
    axis = np.arange(28) - 13.5
    y, x = (grid.ravel() for grid in np.meshgrid(axis, axis, indexing="ij"))
    ink = drawn.images.sum(axis=1, dtype=float)
    mean = {name: drawn.images @ values / ink for name, values in {"x": x, "y": y}.items()}
    dx, dy = x - mean["x"][:, None], y - mean["y"][:, None]
    second = {"xx": dx * dx, "xy": dx * dy, "yy": dy * dy}
    return {"ink": ink} | mean | {k: (drawn.images * v).sum(axis=1) / ink for k, v in second.items()}


@pytest.fixture(scope="module")
def bars(drawn: Strokes) -> np.ndarray:
    """Which images show a 1 that is a bare bar: geometry known by hand."""
    return (drawn.labels == 1) & (drawn.factors["style"] == 0)


def pin(monkeypatch: pytest.MonkeyPatch, **values: float) -> None:
    """Draw each factor at the value given or else at its mode."""
    for name, (_, mode, _) in FACTORS.items():
        value = values.get(name, mode)
        monkeypatch.setitem(FACTORS, name, (value, value, value + 1e-9))


def correlation_within_styles(drawn: Strokes, a: np.ndarray, b: np.ndarray) -> float:
    """Correlation of two quantities once what differs between the skeletons is taken away."""
    _, group = np.unique(np.stack([drawn.labels, drawn.factors["style"]]), axis=1, return_inverse=True)
    group = group.ravel()
    a, b = (v - (np.bincount(group, v) / np.bincount(group))[group] for v in (a, b))
    return float(np.corrcoef(a, b)[0, 1])


def test_draw_strokes_gives_images_labels_and_factors_in_range(drawn: Strokes) -> None:
    n = 10 * PER_CLASS
    assert drawn.images.shape == (n, 784)
    assert drawn.images.dtype == np.float32
    assert drawn.images.min() == 0
    assert drawn.images.max() == 1
    assert drawn.labels.dtype == np.int64
    np.testing.assert_array_equal(drawn.labels, np.repeat(np.arange(10), PER_CLASS))
    assert drawn.factors.keys() == FACTORS.keys() | {"style"}
    for name, (low, _, high) in FACTORS.items():
        values = drawn.factors[name]
        assert values.shape == (n,)
        assert low <= values.min() < values.max() <= high


@pytest.mark.parametrize("labels", [None, np.zeros(0, np.int64)])
def test_draw_strokes_of_no_images_is_empty(labels: np.ndarray | None) -> None:
    none = draw_strokes(0, np.random.default_rng(0), labels)
    assert none.images.shape == (0, 784)
    assert none.labels.shape == (0,)
    assert all(values.shape == (0,) for values in none.factors.values())


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (np.array([1, 2]), "shape"),
        (np.array([[1], [2], [3]]), "shape"),
        (np.array([0, -1, 2]), r"in 0\.\.9"),
        (np.array([0, 10, 2]), r"in 0\.\.9"),
        (np.array([0.0, 1.0, 2.0]), "integers"),
        (np.array([True, False, True]), "integers"),
    ],
)
def test_draw_strokes_refuses_labels_that_are_not_n_digits(labels: np.ndarray, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        draw_strokes(3, np.random.default_rng(0), labels)


def test_draw_strokes_and_load_strokes_refuse_negative_sizes() -> None:
    with pytest.raises(ValueError, match="at least 0, got -1"):
        draw_strokes(-1, np.random.default_rng(0))
    with pytest.raises(ValueError, match="at least 0, got -2"):
        load_strokes(3, -2)


def test_draw_strokes_takes_labels_of_any_integer_type() -> None:
    wide, narrow = (
        draw_strokes(10, np.random.default_rng(0), np.arange(10, dtype=kind)) for kind in (np.int64, np.uint8)
    )
    assert narrow.labels.dtype == np.int64
    np.testing.assert_array_equal(narrow.images, wide.images)


def test_draw_strokes_with_the_same_seed_gives_the_same_bits() -> None:
    a, b, c = (draw_strokes(50, np.random.default_rng(seed)) for seed in (3, 3, 4))
    assert a.images.tobytes() == b.images.tobytes()
    assert a.labels.tobytes() == b.labels.tobytes()
    assert all(a.factors[name].tobytes() == b.factors[name].tobytes() for name in a.factors)
    assert (a.images != c.images).any(axis=1).all()


def test_draw_strokes_changes_the_given_factors_alone() -> None:
    plain = draw_strokes(30, 5)
    for name in FACTORS:
        same = draw_strokes(30, 5, factors={name: plain.factors[name]})
        np.testing.assert_array_equal(same.images, plain.images)
        value = np.full(30, FACTORS[name][2])
        other = draw_strokes(30, 5, factors={name: value})
        np.testing.assert_array_equal(other.labels, plain.labels)
        for key, found in other.factors.items():
            np.testing.assert_array_equal(found, value if key == name else plain.factors[key])
        assert (other.images != plain.images).any(axis=1).all()


@pytest.mark.parametrize("factors", [{"slant": np.zeros(3)}, {"slant": np.zeros(4), "weight": np.zeros(4)}])
def test_draw_strokes_refuses_other_factors_and_other_numbers_of_them(factors: dict[str, np.ndarray]) -> None:
    with pytest.raises(ValueError, match=r"factors must be among slant, .*, each of shape \(4,\), got slant"):
        draw_strokes(4, 0, factors=factors)


def test_draw_strokes_draws_every_style_and_digits_uniformly() -> None:
    many = draw_strokes(3000, np.random.default_rng(1))
    counts = np.bincount(many.labels, minlength=10)
    assert ((counts - 300) ** 2 / 300).sum() < 27.9  # chi-squared with 9 degrees of freedom, p = 0.001
    for digit, styles in enumerate(strokes._STYLES):
        shown = many.factors["style"][many.labels == digit]
        assert set(shown.tolist()) == set(range(len(styles)))


@pytest.mark.parametrize("style", [style for styles in strokes._STYLES for style in styles])
def test_glyph_pieces_follow_its_strokes(style: str) -> None:
    knots, pieces = strokes._glyph(style)
    starts, ends = pieces @ knots
    lengths = [strokes._STEPS * (len(stroke.split()) - 1) for stroke in style.split("|")]
    assert len(starts) == sum(lengths)
    np.testing.assert_allclose(pieces.sum(axis=-1), 1)  # so that moving all knots moves every point as much
    within = np.delete(np.arange(len(starts)), np.cumsum(lengths) - 1)
    np.testing.assert_array_equal(ends[within], starts[within + 1])
    for stroke, last in zip(style.split("|"), np.cumsum(lengths), strict=True):
        through = np.array([knot.split(",") for knot in stroke.split()], float)
        first = last - strokes._STEPS * (len(through) - 1)
        np.testing.assert_allclose(starts[first : last : strokes._STEPS], through[:-1])
        np.testing.assert_allclose(ends[last - 1], through[-1])


def test_draw_strokes_moves_the_centre_of_ink_by_dx_dy(drawn: Strokes, moments: dict[str, np.ndarray]) -> None:
    for axis in ("x", "y"):
        miss = moments[axis] - drawn.factors["d" + axis]
        assert np.abs(miss).mean() < 0.2  # strokes that cross leave their ink once, not twice


def test_draw_strokes_leans_a_bar_by_slant_and_rotation(
    drawn: Strokes, moments: dict[str, np.ndarray], bars: np.ndarray
) -> None:
    lean = np.arctan(-moments["xy"] / moments["yy"])[bars]
    slant, rotation = drawn.factors["slant"][bars], drawn.factors["rotation"][bars]
    by_slant, by_rotation, rest = np.linalg.lstsq(np.stack([slant, rotation, slant**0], axis=1), lean)[0]
    assert by_slant == pytest.approx(1, abs=0.1)
    assert by_rotation == pytest.approx(1, abs=0.2)
    assert rest == pytest.approx(0, abs=0.03)


def test_draw_strokes_adds_slant_and_rotation(monkeypatch: pytest.MonkeyPatch) -> None:
    pin(monkeypatch, slant=0.55, rotation=0.15, dx=0.0, dy=0.0)
    monkeypatch.setattr(strokes, "_JITTER", 0.0)
    ones = draw_strokes(20, np.random.default_rng(0), np.ones(20, int))
    bar = ones.images[ones.factors["style"] == 0][0].reshape(28, 28)
    y, x = np.meshgrid(np.arange(28) - 13.5, np.arange(28) - 13.5, indexing="ij")
    assert np.arctan(-(bar * x * y).sum() / (bar * y * y).sum()) == pytest.approx(0.70, abs=0.02)


def test_draw_strokes_gives_a_bar_the_ink_of_its_size(
    drawn: Strokes, moments: dict[str, np.ndarray], bars: np.ndarray
) -> None:
    width, height, slant = (drawn.factors[name][bars] for name in ("width", "height", "slant"))
    capsule = width * height / np.cos(slant) + np.pi / 4 * width**2
    ratio = moments["ink"][bars] / capsule
    assert ratio.mean() == pytest.approx(1, abs=0.02)
    assert ratio.std() < 0.04


def test_draw_strokes_shows_its_factors_in_every_digit(drawn: Strokes, moments: dict[str, np.ndarray]) -> None:
    xx, xy, yy = moments["xx"], moments["xy"], moments["yy"]
    measured = {
        "width": moments["ink"],
        "height": np.sqrt(yy),
        "slant": -xy / yy,
        "aspect": np.sqrt(xx * yy - xy * xy) / yy,  # spread along x, whatever the slant, over that along y
    }
    for name, values in measured.items():
        assert correlation_within_styles(drawn, values, drawn.factors[name]) > 0.7, name


def test_draw_strokes_has_statistics_like_mnist(drawn: Strokes) -> None:
    assert 0.11 < drawn.images.mean() < 0.15
    inked = drawn.images.reshape(-1, 28, 28) > 0.2
    assert inked.any(axis=2).sum(axis=1).mean() == pytest.approx(20, abs=1)
    edge = np.ones((28, 28), bool)
    edge[1:-1, 1:-1] = False
    assert inked[:, edge].any(axis=1).mean() < 0.05


def test_draw_strokes_jitters_images_of_equal_factors(monkeypatch: pytest.MonkeyPatch) -> None:
    pin(monkeypatch)

    def spread() -> float:
        eights = draw_strokes(50, np.random.default_rng(0), np.full(50, 8))
        return float(eights.images.std(axis=0).max())

    assert spread() > 0.2
    monkeypatch.setattr(strokes, "_JITTER", 0.0)
    assert spread() < 1e-4


def test_draw_strokes_makes_digits_that_nearest_neighbour_tells_apart(drawn: Strokes) -> None:
    held_out = draw_strokes(500, np.random.default_rng(2))
    distance = (drawn.images**2).sum(axis=1) - 2 * held_out.images @ drawn.images.T
    accuracy = (drawn.labels[distance.argmin(axis=1)] == held_out.labels).mean()
    assert accuracy >= 0.95


def test_draw_strokes_is_quick() -> None:
    draw_strokes(10, np.random.default_rng(0))
    begin = time.perf_counter()
    draw_strokes(2000, np.random.default_rng(0))
    assert time.perf_counter() - begin < 2  # ten times what one core needs


def test_load_strokes_gives_reproducible_training_and_test_sets() -> None:
    data = load_strokes(n_train=60, n_test=40, seed=5)
    assert data.name == "strokes"
    assert data.image_shape == (28, 28)
    assert (len(data.train), len(data.test)) == (60, 40)
    assert data.train.images.shape == (60, 784)
    assert data.train.images.dtype == np.float32
    assert data.train.labels.dtype == np.int64
    assert data.train.images.tobytes() == load_strokes(60, 0, seed=5).train.images.tobytes()
    assert data.test.images.tobytes() == load_strokes(0, 40, seed=5).test.images.tobytes()
    assert data.train.images.tobytes() != load_strokes(60, 0, seed=6).train.images.tobytes()
    assert load_strokes(40, 40).train.labels.tolist() != load_strokes(40, 40).test.labels.tolist()
