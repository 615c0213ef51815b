"""The explorer in a browser: its numbers are the engine's, and it does what its controls say.

Skipped where there is no Chromium. One browser for all tests, since it takes a second to start.
"""

import json
from itertools import pairwise

import numpy as np
import pytest
from browser_helpers import MISSING, load, open_browser, resize
from explorer_helpers import DATA, KINDS, built, page_of
from helpers import untrained_judge
from matplotlib.image import imsave

from scratchgen.data.pictures import centred, digit_of, ink
from scratchgen.nn import ACTIVATIONS
from scratchgen.recipes import RECIPES, aae, gan, vae
from scratchgen.tensor import Tensor, no_grad
from tests.benchmarks.explorer import measure, write_page

pytest.importorskip("selenium")
pytestmark = pytest.mark.skipif(bool(MISSING), reason=MISSING)
DIGITS = DATA["digits"]
TOLERANCE = {"rtol": 0, "atol": 1e-5}


@pytest.fixture(scope="module")
def browser():
    driver = open_browser()
    yield driver
    driver.quit()


@pytest.fixture
def opened(browser, tmp_path, monkeypatch):
    """Opens the page of a kind of model; at the end nothing may have gone wrong on it, and nothing been requested."""

    def opened(kind, width=1200, judge=False, data=DIGITS):
        config, model = built(kind, data=data)
        (tmp_path / "explorer.html").write_bytes(page_of(config, model, data, monkeypatch, judge))
        resize(browser, width)
        assert load(browser, tmp_path / "explorer.html") == ""
        return config, model

    browser.get_log("browser")
    yield opened
    assert [entry for entry in browser.get_log("browser") if entry["level"] == "SEVERE"] == []
    assert browser.execute_script("return performance.getEntriesByType('resource').length") == 0


def asked(browser, expression, *arguments):
    """The value of a JavaScript expression, in which arrays are plain; ``given`` are the arguments."""
    plain = "(_, value) => (ArrayBuffer.isView(value) ? Array.from(value) : value)"
    arguments = [a.tolist() if isinstance(a, np.ndarray) else a for a in arguments]
    script = f"const given = Array.from(arguments); return JSON.stringify({expression}, {plain})"
    return json.loads(browser.execute_script(script, *arguments))


def pressed(browser, name):
    browser.find_element("id", name).click()


# ---- the numbers ----


def decoded(config, model, codes, labels):
    """The engine's pictures (n, D) of codes (n, J)."""
    return {"vae": vae.decode, "gan": gan.generate, "aae": aae.decode}[config.model](model, codes, labels)


def encoded(config, model, data, noise):
    """The engine's mean of q(z|x) for each test image, or z of noise; its logvar and class logits, or None."""
    x, y = Tensor(RECIPES[config.model].as_seen(config, data.test.images, "test")), model.labels_given(data.test.labels)
    if config.model == "vae":
        mean, logvar = model.encode(x, None if y is None else Tensor(y))
        return mean.data, logvar.data, None
    if config.network.posterior == "universal":
        z, class_logits = model.encode(x, Tensor(noise))
    else:
        z, class_logits = model.encode(x, Tensor(np.zeros((len(x), config.network.latent_dim), np.float32)))
    logvar = None
    if config.network.posterior == "gaussian":
        logvar = 2 * np.log(model.encode(x, Tensor(np.ones(z.shape, np.float32)))[0].data - z.data)
    return z.data, logvar, None if class_logits is None else class_logits.data


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        *((kind, "digits") for kind in KINDS),
        ("vae 2-d", "named"),
        ("vae conditional 2-d", "named"),
        ("aae gaussian posterior", "named"),
        ("vae gaussian", "unlabelled"),
        ("gan", "unlabelled"),
        ("aae swiss-roll", "unlabelled"),
        ("vae conv conditional gaussian", "letters"),
        ("gan uniform conditional", "letters"),
        ("aae semi-supervised", "letters"),
    ],
)
def test_networks_equal_the_engine(browser, opened, rng, kind, name):
    """Decoder or generator on a code for each test image, encoder on the test images."""
    data = DATA[name]
    config, model = opened(kind, data=data)
    labels = data.test.labels
    codes, noise = (
        rng.standard_normal((len(labels), size)).astype(np.float32) for size in (config.network.latent_dim, 2)
    )
    expected = decoded(config, model, 2 * codes, labels)
    found = asked(browser, "given[0].map((z, n) => decode(model, z, oneHot(given[1][n])))", 2 * codes, labels)
    np.testing.assert_allclose(found, expected, **TOLERANCE)
    assert expected.std() > 0.01
    if config.model == "gan":
        return
    script = "model.examples.map(({ x, label }, n) => encode(model, x, oneHot(label), given[0][n]))"
    found = asked(browser, script, noise)
    with no_grad():
        parts = encoded(config, model, data, noise)
    for name, expected in zip(("mean", "logvar", "classLogits"), parts, strict=True):
        if expected is None:
            assert {each[name] for each in found} == {None}
        else:
            np.testing.assert_allclose([each[name] for each in found], expected, **TOLERANCE)
            assert expected.std() > 0.01


@pytest.mark.parametrize(("name", "model"), [("vae", "conv"), ("gan", "dcgan")])
def test_rounded_weights_leave_half_of_the_tolerance(browser, tmp_path, rng, name, model):
    """The largest networks, whose weights are rounded: see test_page_of_a_named_configuration_has_..."""
    config = RECIPES[name].configs[model]
    write_page(config, tmp_path / "explorer.html", digits=10)
    assert load(browser, tmp_path / "explorer.html") == ""
    codes = rng.standard_normal((10, config.network.latent_dim)).astype(np.float32)
    expected = decoded(config, RECIPES[name].build(config), codes, np.zeros(10, int))
    found = asked(browser, "given[0].map((z) => decode(model, z, null))", codes)
    np.testing.assert_allclose(found, expected, rtol=0, atol=TOLERANCE["atol"] / 2)


def test_activations_equal_the_engine(browser, opened):
    opened("vae")
    x = np.concatenate([np.linspace(-12, 12, 400), [-1000, -80, 0, 80, 1000]])
    for name, activation in ACTIVATIONS.items():
        found = asked(browser, f"given[0].map(ACTIVATIONS.{name})", x)
        np.testing.assert_allclose(found, activation(Tensor(x)).data, rtol=1e-10, atol=1e-13, err_msg=name)


@pytest.mark.parametrize("kind", ["vae 2-d", "vae gaussian", "vae gaussian-fixed", "vae conv conditional gaussian"])
def test_terms_of_the_bound_equal_the_engine(browser, opened, rng, kind):
    config, model = opened(kind)
    z, images, labels = (
        rng.standard_normal((10, config.network.latent_dim)),
        DIGITS.test.images[:10],
        DIGITS.test.labels[:10],
    )
    rows = model.labels_given(labels)
    y = None if rows is None else Tensor(rows)
    with no_grad():
        reconstruction = model.reconstruction(Tensor(z, dtype=np.float32), Tensor(images), y)
        mean, logvar = model.encode(Tensor(images), y)
        _, kl = model.negative_elbo(Tensor(images), Tensor(np.zeros((1, *z.shape), np.float32)), y=y)
    script = "given[0].map((x, n) => negativeLogLikelihood(model, x, given[1][n], oneHot(given[2][n])))"
    np.testing.assert_allclose(asked(browser, script, images, z, labels), reconstruction.data, rtol=1e-5)
    script = "given[0].map((mean, n) => klStandardNormal(mean, given[1][n]))"
    np.testing.assert_allclose(asked(browser, script, mean.data, logvar.data), kl.data, rtol=1e-5)


def test_judge_equals_the_engine(browser, opened):
    opened("vae 2-d", judge=True)
    judge = untrained_judge(DIGITS)
    found = asked(browser, "model.examples.map(({ x }) => reading(x))")
    np.testing.assert_allclose(found, judge.probabilities(DIGITS.test.images), **TOLERANCE)


def test_posterior_has_the_spread_of_its_draws(browser, opened):
    for kind in ("vae 2-d", "aae universal conv", "aae gaussian posterior"):
        opened(kind)
        found = asked(browser, "posterior(model, model.examples[3].x, oneHot(3), normalsFrom(9), 2000)")
        draws, mean, sd = (np.array(found[name]) for name in ("draws", "mean", "sd"))
        assert draws.shape == (2000, len(mean))
        assert sd.min() > 0
        np.testing.assert_allclose(draws.mean(axis=0), mean, atol=5 * sd.max() / 2000**0.5)
        np.testing.assert_allclose(draws.std(axis=0), sd, rtol=0.1)
        if "universal" not in kind:
            np.testing.assert_allclose(np.square(sd), np.exp(found["logvar"]))
    opened("aae mixture")
    assert asked(browser, "posterior(model, model.examples[3].x, null, normalsFrom(9)).sd") == [0, 0]


# ---- centring ----


def test_centred_equals_python_on_any_picture(browser, opened, rng):
    opened("vae 2-d")
    digits = DIGITS.test.images[:20].reshape(-1, 28, 28)
    pictures = [np.pad(np.kron(digit, np.ones((5, 3))), ((0, 9), (17, 0))) for digit in digits]
    pictures += [np.full((20, 18), 1 / 3), np.zeros((5, 9)), np.eye(1), rng.random((9, 40)), np.full((70, 1), 0.5)]
    for picture in pictures:
        found = asked(browser, "centred(given[0].flat(), given[0].length, given[0][0].length)", picture)
        np.testing.assert_allclose(np.reshape(found, (28, 28)), centred(picture), atol=1e-6)


def test_ink_equals_python_on_any_picture(browser, opened, rng):
    opened("vae 2-d")
    digits = [
        np.pad(np.kron(image.reshape(28, 28), np.ones((3, 2))), ((9, 5), (7, 0))) for image in DIGITS.test.images[:6]
    ]
    slope = np.linspace(-30, 30, digits[0].shape[1])
    pictures = [255 - 200 * digit for digit in digits[:2]] + [60 + 150 * digit for digit in digits[2:4]]
    pictures += [200 + slope + rng.normal(0, 4, digit.shape) - 120 * digit for digit in digits[4:]]
    pictures += [image.reshape(28, 28) * 255 for image in DIGITS.test.images[:2]]
    pictures += [
        255 - pictures[-1],
        np.full((5, 9), 77),
        np.full((1, 1), 200),
        np.eye(2) * 255,
        rng.random((9, 40)) * 255,
    ]
    for picture in pictures:
        grey = np.clip(picture, 0, 255).astype(np.uint8)
        pixels = np.dstack([grey, grey, grey, np.full_like(grey, 255)]).ravel()
        script = "NAME(greyOf(Uint8ClampedArray.from(given[0])), given[1], given[2])"
        levels, height, width = asked(browser, script.replace("NAME", "inkOf"), pixels, *grey.shape)
        expected = ink(grey)[0]
        assert (height, width) == expected.shape
        np.testing.assert_allclose(np.reshape(levels, (height, width)), expected, atol=1e-6)
        image = asked(browser, script.replace("NAME", "digitOf"), pixels, *grey.shape)
        np.testing.assert_allclose(np.reshape(image, (28, 28)), digit_of(grey)[0], atol=1e-6)


def test_strokes_are_centred_as_python_does(browser, opened):
    from selenium.webdriver import ActionChains

    opened("vae 2-d")
    easel = browser.find_element("id", "easel")
    browser.execute_script("arguments[0].scrollIntoView({block: 'center'})", easel)
    for stroke in ([(-60, -90), (40, -80), (10, 0), (-30, 70)], [(-40, 10), (50, 15)]):
        moves = ActionChains(browser, duration=0).move_to_element_with_offset(easel, *stroke[0]).click_and_hold()
        for before, after in pairwise(stroke):
            moves.move_by_offset(after[0] - before[0], after[1] - before[1])
        moves.release().perform()
        levels, height, width = asked(browser, "strokeLevels(drawing.strokes)")
        expected = centred(np.reshape(levels, (height, width)))
        np.testing.assert_allclose(asked(browser, "drawing.x"), expected.ravel(), atol=1e-6)
        assert np.ptp(np.argwhere(expected > 0), axis=0).max() == 19
    assert asked(browser, "drawing.strokes.map((stroke) => stroke.length)") == [4, 2]
    inked = expected > 0.5
    assert 1.5 < inked.sum() / 40 < 3.5  # the pen's width: the strokes are some forty pixels long
    pressed(browser, "clear")
    assert asked(browser, "drawing.x") is None


@pytest.mark.parametrize(
    ("background", "ink", "noise", "tolerance"), [(0.0, 1.0, 0.0, 0.01), (0.9, 0.1, 0.0, 0.02), (0.8, 0.2, 0.03, 0.05)]
)
def test_file_becomes_the_digit_in_it(browser, opened, tmp_path, rng, background, ink, noise, tolerance):
    from selenium.webdriver.support.wait import WebDriverWait

    opened("vae 2-d")
    digit = centred(DIGITS.test.images[7].reshape(28, 28) > 0.5)  # no faint rows, which might be noise
    picture = np.pad(np.kron(digit / digit.max(), np.ones((3, 3))), ((40, 10), (5, 60)))
    picture = background + (ink - background) * picture + rng.uniform(-noise, noise, picture.shape)
    imsave(tmp_path / "digit.png", picture, cmap="gray", vmin=0, vmax=1)
    browser.find_element("id", "file").send_keys(str(tmp_path / "digit.png"))
    WebDriverWait(browser, 5).until(lambda _: asked(browser, "drawing.x"))
    difference = np.abs(asked(browser, "drawing.x") - (digit / digit.max()).ravel())
    assert (difference.mean() if noise else difference.max()) < tolerance  # noise may take a row off the digit's edge
    (tmp_path / "text.png").write_text("no picture")
    browser.find_element("id", "file").send_keys(str(tmp_path / "text.png"))
    WebDriverWait(browser, 5).until(lambda _: "no picture" in browser.find_element("id", "draw-text").text)
    imsave(tmp_path / "even.png", np.full((50, 40), 0.7), cmap="gray", vmin=0, vmax=1)
    browser.find_element("id", "file").send_keys(str(tmp_path / "even.png"))
    WebDriverWait(browser, 5).until(lambda _: "nothing stands out" in browser.find_element("id", "draw-text").text)
    assert asked(browser, "drawing.x") is None


@pytest.mark.parametrize(("name", "ground"), [("named", 0), ("dark on light", 1)])
def test_strokes_on_other_data_are_scaled_where_they_lie(browser, opened, name, ground):
    from selenium.webdriver import ActionChains

    opened("vae 2-d", data=DATA[name])
    np.testing.assert_array_equal(shown(browser, "seen"), ground)
    easel = browser.find_element("id", "easel")
    browser.execute_script("arguments[0].scrollIntoView({block: 'center'})", easel)
    assert (easel.size["width"], easel.size["height"]) == (pytest.approx(196, abs=1), pytest.approx(280, abs=1))
    moves = ActionChains(browser, duration=0).move_to_element_with_offset(easel, -60, -110).click_and_hold()
    moves.move_by_offset(0, 100).release().perform()
    expected = shown(browser, "easel").reshape(20, 14, 14, 14).mean(axis=(1, 3))
    x = np.reshape(asked(browser, "drawing.x"), (20, 14))
    np.testing.assert_allclose(x, expected, atol=0.005)
    np.testing.assert_allclose(shown(browser, "seen"), x.ravel(), atol=0.005)
    rows, columns = np.nonzero(np.abs(x - ground) > 0.9)
    assert (rows.min(), rows.max(), set(columns)) == (2, 9, {2})  # the stroke goes from (30, 38) to (130, 38)


@pytest.mark.parametrize("name", ["named", "letters"])
def test_file_like_the_data_becomes_its_own_image(browser, opened, tmp_path, name):
    from selenium.webdriver.support.wait import WebDriverWait

    data = DATA[name]
    opened("vae 2-d", data=data)
    image = data.test.images[5].reshape(data.image_shape)
    imsave(tmp_path / "file.png", image, cmap="gray", vmin=0, vmax=1)
    browser.find_element("id", "file").send_keys(str(tmp_path / "file.png"))
    WebDriverWait(browser, 5).until(lambda _: asked(browser, "drawing.x"))
    found = np.reshape(asked(browser, "drawing.x"), data.image_shape)
    np.testing.assert_allclose(found, image, atol=0.01)


def test_file_of_another_shape_is_shown_whole(browser, opened, tmp_path):
    from selenium.webdriver.support.wait import WebDriverWait

    opened("vae 2-d", data=DATA["named"])
    imsave(tmp_path / "file.png", np.full((14, 28), 0.6), cmap="gray", vmin=0, vmax=1)
    browser.find_element("id", "file").send_keys(str(tmp_path / "file.png"))
    WebDriverWait(browser, 5).until(lambda _: asked(browser, "drawing.x"))
    found = np.reshape(asked(browser, "drawing.x"), (20, 14))
    np.testing.assert_allclose(found[7:13], 0.6, atol=0.01)
    np.testing.assert_array_equal(found[[5, 14]], 0)


# ---- the controls ----


def shown(browser, name="picture"):
    """The pixels of a canvas, painted in the light theme's colours or in black and white, as grey levels with ink 1."""
    canvas = f"element('{name}')"
    script = f"Array.from({canvas}.getContext('2d').getImageData(0, 0, {canvas}.width, {canvas}.height).data)"
    red = np.array(asked(browser, script))[::4]
    paper, ink = (asked(browser, f"theme.{name}Bytes[0]") for name in ("paper", "ink"))
    return (red - paper) / (ink - paper)


def expect_picture_of_code(browser):
    picture = asked(browser, "decode(model, code.z, oneHot(code.label))")
    np.testing.assert_allclose(shown(browser), np.clip(picture, 0, 1), atol=0.01)


def test_map_is_dragged_and_moved_by_keys(browser, opened):
    from selenium.webdriver import ActionChains, Keys

    opened("vae conditional 2-d")
    expect_picture_of_code(browser)
    canvas = browser.find_element("id", "map")
    browser.execute_script("arguments[0].scrollIntoView({block: 'center'})", canvas)
    ActionChains(browser, duration=0).move_to_element_with_offset(canvas, 0, 0).click_and_hold().move_by_offset(
        100, -50
    ).release().perform()
    width, extent = asked(browser, "[element('map').clientWidth, model.extent]")
    unit = 2 * extent / width
    np.testing.assert_allclose(asked(browser, "code.z"), [100 * unit, 50 * unit], atol=2 * unit)
    expect_picture_of_code(browser)
    before = np.array(asked(browser, "code.z"))
    canvas.send_keys(Keys.ARROW_LEFT, Keys.ARROW_UP, Keys.ARROW_UP)
    np.testing.assert_allclose(asked(browser, "code.z") - before, [-extent / 50, 2 * extent / 50])
    browser.find_elements("css selector", "#class-buttons button")[7].click()
    assert asked(browser, "code.label") == 7
    expect_picture_of_code(browser)
    nearest = np.linalg.norm(asked(browser, "model.codes") - np.array(asked(browser, "code.z")), axis=1).argsort()[:15]
    classes = np.bincount(DIGITS.test.labels[nearest], minlength=10)
    assert asked(browser, "nearestClass(code.z)") == classes.argmax()


def test_sliders_come_by_activity_and_move_their_dimension(browser, opened):
    from selenium.webdriver import Keys

    config, model = opened("vae")
    variances = RECIPES["vae"].explorable(config, model, DIGITS).variation
    order = np.argsort(-variances)
    sliders = browser.find_elements("css selector", "#sliders .slider")
    for slider, j in zip(sliders, order, strict=True):
        assert slider.text.split()[:3] == [f"z{j + 1}", "variance", f"{variances[j]:.2f}"]
    pressed(browser, "origin")
    sliders[0].find_element("tag name", "input").send_keys(Keys.ARROW_RIGHT * 5)
    expected = np.zeros(3)
    expected[order[0]] = 0.05
    np.testing.assert_allclose(asked(browser, "code.z"), expected, atol=1e-9)
    expect_picture_of_code(browser)
    pressed(browser, "surprise")
    assert np.abs(asked(browser, "code.z")).min() > 0
    expect_picture_of_code(browser)


def test_walk_moves_until_it_is_paused(browser, opened):
    opened("gan")
    pressed(browser, "wander")
    browser.execute_async_script("setTimeout(arguments[0], 300)")
    first = asked(browser, "code.z")
    browser.execute_async_script("setTimeout(arguments[0], 200)")
    assert asked(browser, "code.z") != first
    for ending in ("wander", "surprise", "origin"):
        pressed(browser, ending)
        last = asked(browser, "code.z")
        browser.execute_async_script("setTimeout(arguments[0], 150)")
        assert asked(browser, "code.z") == last
        expect_picture_of_code(browser)
        pressed(browser, "wander")
    pressed(browser, "wander")


def test_page_begins_with_a_test_image_or_the_mean_of_the_noise(browser, opened):
    for kind in ("vae 2-d", "vae conditional 2-d", "aae semi-supervised"):
        opened(kind)
        script = "posterior(model, model.examples[0].x, oneHot(model.examples[0].label), normalsFrom(2)).mean"
        assert asked(browser, "code.z") == asked(browser, script)
        assert asked(browser, "code.label") == asked(browser, "model.examples[0].label")
    opened("gan")
    assert asked(browser, "code.z") == [0, 0, 0]
    expect_picture_of_code(browser)


SAMPLES = """(() => {
  const normals = normalsFrom(8);
  return Array.from({ length: 20000 }, () => samplePrior(model, normals));
})()"""
WALK = """(() => {
  const walk = new Walk(model, normalsFrom(4));
  return Array.from({ length: given[0] }, () => walk.advance(given[1]));
})()"""


def test_drawing_has_the_pixels_that_the_model_was_trained_on(browser, opened):
    grey = "setDrawing(Float64Array.from({ length: 784 }, (_, i) => i / 783)), drawing.x"
    for kind, expected in (("vae", np.arange(784) / 783), ("vae binary", np.arange(784) > 391.5)):
        opened(kind)
        np.testing.assert_array_equal(asked(browser, f"({grey})"), expected)


@pytest.mark.parametrize("kind", ["vae 2-d", "gan uniform conditional", "aae swiss-roll", "aae mixture"])
def test_walk_and_samples_are_draws_from_the_prior(browser, opened, kind):
    config, model = opened(kind)
    prior = RECIPES[config.model].explorable(config, model, DIGITS).prior
    exact = prior.sample(100_000, np.random.default_rng(0))
    samples = asked(browser, SAMPLES)
    grid = np.linspace(0.1, 0.9, 9)
    np.testing.assert_allclose(np.quantile(samples, grid, axis=0), np.quantile(exact, grid, axis=0), atol=0.1)
    walked = np.array(asked(browser, WALK, 20_000, 0.61))
    if kind == "aae mixture":  # it goes through the origin, which is in no component
        radii = np.linalg.norm(walked, axis=1)
        assert radii.min() < 0.01
        assert set(prior.region(walked[radii > 0.5])) == set(range(10))
        assert np.abs(walked[radii > 1] @ prior.normals.T).min(axis=1).max() < 0.5
    else:
        np.testing.assert_allclose(np.quantile(walked, grid, axis=0), np.quantile(exact, grid, axis=0), atol=0.15)
    steps = np.diff(asked(browser, WALK, 3000, 0.01), axis=0)
    assert np.linalg.norm(steps, axis=1).max() < 0.25
    assert np.linalg.norm(np.diff(steps, axis=0), axis=1).max() < 0.03


def test_paths_join_the_two_codes(browser, opened):
    opened("vae 2-d")
    a, b, t = np.array([3.0, 0, 0]), np.array([0, 1.0, 0]), 0.25
    np.testing.assert_allclose(asked(browser, "straightPath(...given)", a, b, t), (1 - t) * a + t * b)
    angle = t * np.pi / 2
    expected = 2.5 * np.array([np.cos(angle), np.sin(angle), 0])
    np.testing.assert_allclose(asked(browser, "sphericalPath(...given)", a, b, t), expected, atol=1e-12)
    for end in (2 * a, -a, 0 * a):  # no great circle, or many
        np.testing.assert_allclose(
            asked(browser, "sphericalPath(...given)", a, end, t), 0.75 * a + 0.25 * end, atol=1e-12
        )
    gallery = browser.find_elements("css selector", "#gallery button")
    gallery[5].click()
    gallery[12].click()
    ends = asked(browser, "paths.ends.map(codeOf)")
    assert asked(browser, "paths.ends.map(({ label }) => label)") == [5, 2]
    for name in ("straight", "spherical"):
        np.testing.assert_allclose(asked(browser, f"[0, 1].map(paths.at.{name}.at)"), ends, atol=1e-12)
    assert asked(browser, "code.map.paths.length") == 2


def test_drawing_is_read_encoded_and_measured(browser, opened):
    from selenium.webdriver.support.wait import WebDriverWait

    opened("vae conv conditional gaussian", judge=True)
    pressed(browser, "take")
    WebDriverWait(browser, 5).until(lambda _: "kl" in asked(browser, "element('draw-text').textContent"))
    read = np.array(asked(browser, "reading(drawing.x)"))
    assert asked(browser, "drawing.label") == read.argmax()
    bars = [bar.text.split() for bar in browser.find_elements("css selector", "#reading > div")]
    assert bars == [[str(k), f"{100 * p:.0f}%"] for k, p in enumerate(read)]
    parts = {name: float(browser.find_element("id", f"term-{name}").text.replace("−", "-"))
             for name in ("reconstruction", "kl", "bound")}  # fmt: skip
    assert parts["bound"] == pytest.approx(parts["reconstruction"] + parts["kl"], abs=0.11)
    script = "drawing.found.draws.map((z) => negativeLogLikelihood(model, drawing.x, z, oneHot(drawing.label)))"
    assert parts["reconstruction"] == pytest.approx(np.mean(asked(browser, script)), abs=0.051)
    browser.execute_script("element('given').value = '4'; element('given').dispatchEvent(new Event('change'))")
    expected = asked(browser, "decode(model, encode(model, drawing.x, oneHot(4)).mean, oneHot(4))")
    np.testing.assert_allclose(shown(browser, "reconstruction"), np.clip(expected, 0, 1), atol=0.01)
    pressed(browser, "use-code")
    assert asked(browser, "[code.z, code.label]") == [asked(browser, "drawing.found.mean"), 4]


def test_drawing_that_nothing_reads_has_the_class_that_is_shown(browser, opened):
    opened("vae conv conditional gaussian")
    pressed(browser, "take")
    given = "element('given').selectedOptions[0].textContent"
    assert [asked(browser, given), asked(browser, "drawing.label")] == ["0", 0]
    browser.execute_script("element('given').value = '4'; element('given').dispatchEvent(new Event('change'))")
    assert [asked(browser, given), asked(browser, "drawing.label")] == ["4", 4]


def test_benchmark_measures_each_move_and_the_walk(browser, tmp_path):
    write_page(built("vae 2-d")[0], tmp_path / "explorer.html", digits=60)
    resize(browser, 1200)
    latencies, frames = measure(browser, tmp_path / "explorer.html", moves=20, seconds=0.3)
    assert 5 <= len(latencies) <= 30  # a browser may tell of several moves at once
    assert 0 <= latencies.min() <= latencies.max() < 1000
    assert 1 < frames < 300
    assert asked(browser, "code.walk.isRunning()")


# ---- the page ----


@pytest.mark.parametrize("kind", ["aae mixture", "vae conv conditional gaussian", "gan conv"])
def test_page_fits_a_small_screen_and_says_what_it_shows(browser, opened, kind):
    opened(kind, width=360, judge=True)
    if kind != "gan conv":
        pressed(browser, "take")
    browser.execute_async_script("setTimeout(arguments[0], 200)")
    assert browser.execute_script("return innerWidth - document.documentElement.clientWidth") <= 20  # its scroll bar
    assert browser.execute_script("return document.documentElement.scrollWidth") <= browser.execute_script(
        "return document.documentElement.clientWidth"
    )
    nameless = """return Array.from(document.querySelectorAll("canvas, button, input, select"), (part) => {
      if (part.closest("[aria-hidden], [aria-label]") || part.matches("button *, [role=img] *")) return "";
      if (part.labels && part.labels.length) return "";
      return part.textContent.trim() ? "" : part.outerHTML;
    }).filter(Boolean)"""
    assert browser.execute_script(nameless) == []
    left = browser.execute_script("return document.querySelectorAll('h2').length")
    assert left == (3 if kind == "gan conv" else 4)


@pytest.mark.parametrize("width", [360, 1200])
@pytest.mark.parametrize(
    ("kind", "name"),
    [
        ("vae 2-d", "named"),
        ("vae conditional 2-d", "named"),
        ("gan", "named"),
        ("vae 2-d", "unlabelled"),
        ("aae swiss-roll", "unlabelled"),
        ("gan", "unlabelled"),
        ("vae conv conditional gaussian", "letters"),
        ("vae conditional 2-d", "letters"),
        ("gan uniform conditional", "letters"),
    ],
)
def test_page_names_the_classes_that_there_are(browser, opened, kind, name, width):
    from selenium.webdriver.support.wait import WebDriverWait

    data, encodes = DATA[name], not kind.startswith("gan")
    opened(kind, width=width, judge=True, data=data)
    assert browser.execute_script("return document.documentElement.scrollWidth <= document.documentElement.clientWidth")
    if encodes:
        pressed(browser, "take")
        WebDriverWait(browser, 5).until(lambda _: "." in browser.find_element("id", "draw-text").text)
        read = asked(browser, "reading(drawing.x)")
        assert (read is not None) == bool(data.classes)
        if read:
            order = sorted(range(len(read)), key=lambda k: -read[k])[:10] if len(read) > 10 else range(len(read))
            names = [bar.text for bar in browser.find_elements("css selector", "#reading b")]
            assert names == [data.classes[k] for k in order]
    text, visible = (asked(browser, f"document.querySelector('main').{part}") for part in ("textContent", "innerText"))
    assert "digit" not in text.replace("as MNIST's digits are", "")
    assert ("MNIST" in visible) == (encodes and name == "letters")
    assert ("without centring" in " ".join(visible.split())) == (encodes and name != "letters")
    legend = [item.text for item in browser.find_elements("css selector", "#legend li")]
    assert legend == [*data.classes] * ("2-d" in kind)
    buttons = [button.text for button in browser.find_elements("css selector", "#class-buttons button")]
    assert buttons == [*data.classes] * ("conditional" in kind)
    assert len(set(asked(browser, "model.colours"))) == max(1, len(data.classes))
    if buttons:
        third = browser.find_elements("css selector", "#class-buttons button")[2]
        browser.execute_script("arguments[0].scrollIntoView({block: 'center'})", third)
        third.click()
        assert asked(browser, "code.label") == 2
        expect_picture_of_code(browser)
        browser.execute_async_script("setTimeout(arguments[0], 300)")
        pictures = browser.find_elements("css selector", "#all-classes canvas")
        assert [picture.get_attribute("title") for picture in pictures] == buttons
    if not data.classes:
        assert (
            browser.find_elements("css selector", "#legend, #class-buttons, #all-classes, #near-text, #reading") == []
        )


def test_page_follows_the_colours_of_the_system(browser, opened):
    opened("vae 2-d")
    grounds = []
    for scheme in ("light", "dark"):
        features = [{"name": "prefers-color-scheme", "value": scheme}]
        browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})
        browser.execute_async_script("setTimeout(arguments[0], 100)")
        assert shown(browser).max() <= 1.01  # painted again, in the colours of this theme
        expect_picture_of_code(browser)
        grounds.append(asked(browser, "theme.paperBytes[0]"))
    assert grounds[0] > 200 > 50 > grounds[1]
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": []})


def test_draws_to_choose_from_stay_when_the_page_is_painted_again(browser, opened):
    opened("gan uniform conditional")
    before = asked(browser, "paths.offered.map(({ z }) => z)")
    browser.execute_script("dispatchEvent(new Event('repaint'))")
    browser.find_elements("css selector", "#gallery button")[7].click()
    assert asked(browser, "paths.ends[0].z") == before[7]
    pressed(browser, "others")
    assert asked(browser, "paths.offered[7].z") != before[7]


def test_page_says_when_it_cannot_start(browser, tmp_path, monkeypatch):
    config, model = built("vae 2-d")
    content = page_of(config, model, DIGITS, monkeypatch)
    broken = content.replace(b'"text/plain" id="weights">', b'"text/plain" id="weights">!')
    (tmp_path / "broken.html").write_bytes(broken)
    assert "damaged" in load(browser, tmp_path / "broken.html")
    assert "could not start" in browser.find_element("id", "problem").text
    (tmp_path / "whole.html").write_bytes(content)
    script = {"source": "delete globalThis.DecompressionStream"}
    old = browser.execute_cdp_cmd("Page.addScriptToEvaluateOnNewDocument", script)
    load(browser, tmp_path / "whole.html")
    assert browser.find_element("id", "problem").text == (
        "This page could not start: DecompressionStream is not defined. It needs a browser of 2024 or later."
    )
    browser.execute_cdp_cmd("Page.removeScriptToEvaluateOnNewDocument", old)
    browser.get_log("browser")
