"""The README's animation: recorded of a small model's page, and the one that is there."""

from pathlib import Path

import numpy as np
import pytest
from browser_helpers import MISSING, load, open_browser
from explorer_helpers import DATA, built, page_of
from PIL import Image

from demos import explorer_animation
from demos.explorer_animation import OUT, SIX, Recorder, along, drag_around, draw_a_digit, palette, save

README = (Path(__file__).parents[2] / "README.md").read_text()


def test_along_goes_in_equal_steps_and_meets_every_corner():
    points = np.array(list(along(SIX)))
    steps = np.linalg.norm(np.diff(points, axis=0), axis=1)
    assert steps.max() < 0.0201
    assert all(np.abs(points - corner).sum(axis=1).min() < 1e-12 for corner in SIX)


def test_animation_of_the_readme_is_short_and_small():
    with Image.open(OUT) as animation:
        durations = []
        for n in range(animation.n_frames):
            animation.seek(n)
            durations.append(animation.info["duration"])
        assert animation.size == (640, 576)
        assert animation.info["loop"] == 0
    assert 6000 <= sum(durations) <= 10_000
    assert OUT.stat().st_size <= 1_500_000
    assert 'src="demos/pictures/explorer.gif"' in README


def test_animation_refuses_another_ending_before_it_begins(monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["explorer_animation", "nowhere", "--out", "a.png"])
    with pytest.raises(SystemExit):
        explorer_animation.main()
    assert "a.png: give a name that ends in .gif" in capsys.readouterr().err


@pytest.mark.skipif(bool(MISSING), reason=MISSING)
def test_animation_is_recorded_of_a_page(tmp_path, monkeypatch):
    pytest.importorskip("selenium")
    monkeypatch.setattr(explorer_animation, "DRAGGED", 8)
    config, model = built("vae 2-d")
    (tmp_path / "explorer.html").write_bytes(page_of(config, model, DATA["digits"], monkeypatch, judge=False))
    driver = open_browser()
    try:
        page = Recorder(driver)
        assert load(driver, tmp_path / "explorer.html") == ""
        draw_a_digit(page)
        points = driver.execute_script("return drawing.strokes[0]")
        np.testing.assert_allclose(points[0], 280 * np.array(SIX[0]), atol=1)
        np.testing.assert_allclose(points[-1], 280 * np.array(SIX[-1]), atol=1)
        drawn = len(page.frames)
        drag_around(page)
        assert len(page.frames) - drawn == 8 + 9
        code, mean, extent = driver.execute_script(
            "return [Array.from(code.z), Array.from(drawing.found.mean), model.extent]"
        )
        np.testing.assert_allclose(code, mean, atol=0.01 * extent)  # back where it began, to a pixel
        colours = palette(driver)
    finally:
        driver.quit()
    save(page.frames, colours, tmp_path / "a.gif")
    with Image.open(tmp_path / "a.gif") as animation:
        assert animation.size == (640, 576)
        shown = np.asarray(animation.convert("RGB")).astype(int)
    assert np.abs(shown - np.asarray(page.frames[0])).mean() < 1  # the palette has the page's colours
