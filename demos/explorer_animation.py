"""The animation of the README: the explorer's page in use, as a GIF that begins again at its end.

    scratchgen train vae --config metzen --latent-dim 2
    python -m demos.explorer_animation runs/vae-metzen

opens the page of a run, which needs an encoder and codes of two dimensions, in a headless Chromium, and writes
``demos/pictures/explorer.gif``: the ring is dragged around the map; a digit is drawn, encoded and decoded; and the ring
is at its code. Run it from the repository's folder. It needs Chromium, its driver and selenium, as the explorer's tests
do.
"""

import argparse
import base64
import io
import math
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from PIL import Image, ImageColor

from scratchgen import cli
from tests.scratchgen.explorer.browser_helpers import MISSING, load, open_browser, resize

OUT = Path(__file__).parent / "pictures" / "explorer.gif"
PAGE = (840, 756)  # CSS pixels of the page that are seen
WIDTH = 640  # pixels of the animation
FRAME_MS = 80
DRAGGED, RADIUS = 64, 1.5  # frames of the way around the map; its distance from 0, as a code
SIX = (  # points of a drawn digit, in parts of the canvas
    (0.60, 0.20), (0.50, 0.26), (0.42, 0.36), (0.37, 0.48), (0.36, 0.60), (0.40, 0.71),
    (0.50, 0.76), (0.60, 0.72), (0.63, 0.63), (0.58, 0.55), (0.48, 0.54), (0.38, 0.61),
)  # fmt: skip


class Recorder:
    """A page in a browser, its pointer, and the frames that were recorded of it."""

    def __init__(self, driver: Any) -> None:
        self.driver = driver
        self.frames = list[Image.Image]()
        resize(driver, PAGE[0], 900)
        driver.execute_cdp_cmd("Emulation.setScrollbarsHidden", {"hidden": True})

    def look_at(self, section: str) -> None:
        """Scroll so that a section is at the top."""
        self.driver.execute_script(f"scrollTo(0, document.getElementById('{section}').offsetTop - 8)")

    def pointer(self, kind: str, place: Sequence[float]) -> None:
        """Press, move or release the pointer at a place of the window."""
        event = {"type": kind, "x": place[0], "y": place[1], "button": "left", "clickCount": 1}
        event["buttons"] = int(kind != "mouseReleased")
        self.driver.execute_cdp_cmd("Input.dispatchMouseEvent", event)

    def drag(self, places: Iterable[Sequence[float]], every: int = 1) -> None:
        """Press, move and release the pointer, a frame for each so many places."""
        places = list(places)
        self.pointer("mousePressed", places[0])
        for n, place in enumerate(places):
            self.pointer("mouseMoved", place)
            if n % every == 0:
                self.record()
        self.pointer("mouseReleased", places[-1])

    def record(self, count: int = 1) -> None:
        """Record what is seen, once it is painted, so many times."""
        self.driver.execute_async_script("requestAnimationFrame(() => requestAnimationFrame(arguments[0]))")
        top = self.driver.execute_script("return scrollY")
        clip = {"x": 0, "y": top, "width": PAGE[0], "height": PAGE[1], "scale": WIDTH / PAGE[0]}
        png = self.driver.execute_cdp_cmd("Page.captureScreenshot", {"clip": clip})["data"]
        self.frames += [Image.open(io.BytesIO(base64.b64decode(png))).convert("RGB")] * count

    def box(self, name: str) -> tuple[float, float, float]:
        """The left edge, the upper edge and the width of an element, in the window."""
        box = self.driver.find_element("id", name).rect  # in the page
        return box["x"], box["y"] - self.driver.execute_script("return scrollY"), box["width"]


def along(stroke: Sequence[tuple[float, float]], step: float = 0.02) -> Iterator[np.ndarray]:
    """Points along a line, at equal distances."""
    for begin, end in zip(map(np.array, stroke), map(np.array, stroke[1:]), strict=False):
        for part in np.arange(0, 1, step / np.linalg.norm(end - begin)):
            yield begin + part * (end - begin)
    yield np.array(stroke[-1])


def draw_a_digit(page: Recorder) -> None:
    """Draw a digit, and rest for a moment on what the model makes of it."""
    page.look_at("draw")
    page.driver.execute_script("document.getElementById('clear').click()")
    page.record(5)
    left, top, width = page.box("easel")
    page.drag(((left + width * x, top + width * y) for x, y in along(SIX)), every=3)
    page.driver.execute_async_script("setTimeout(arguments[0], 300)")  # the bound is measured
    page.record(16)


def drag_around(page: Recorder) -> None:
    """Take the drawing's code to the map, and drag it once around and back."""
    page.driver.execute_script("document.getElementById('use-code').click()")
    page.look_at("decode")
    page.driver.execute_async_script("setTimeout(arguments[0], 300)")
    page.record(8)
    extent, (a, b) = page.driver.execute_script("return [model.extent, Array.from(code.z)]")
    left, top, width = page.box("map")
    begin, angle = math.hypot(a, b), math.atan2(b, a)

    def place(part: float) -> tuple[float, float]:
        eased = part - math.sin(2 * math.pi * part) / (2 * math.pi)
        radius = begin + (RADIUS - begin) * math.sin(math.pi * eased) ** 2
        z = radius * np.array([math.cos(angle + 2 * math.pi * eased), math.sin(angle + 2 * math.pi * eased)])
        return left + width * (1 + z[0] / extent) / 2, top + width * (1 - z[1] / extent) / 2

    page.drag(place(n / DRAGGED) for n in range(DRAGGED + 1))


def palette(driver: Any) -> np.ndarray:
    """The colours (n, 3), n <= 256, of the page and some between them: the same for all frames, so nothing flickers."""
    script = """const style = getComputedStyle(document.documentElement);
      const names = ["paper", "ink", "surface", "page", "line", "band", "muted", "accent"];
      return [...names.map((name) => style.getPropertyValue(`--${name}`)), ...model.colours];"""
    paper, ink, surface, *others = (np.array(ImageColor.getrgb(text.strip())) for text in driver.execute_script(script))
    colours = [paper + part * (ink - paper) for part in np.linspace(0, 1, 48)]
    colours += [surface + part * (ink - surface) for part in np.linspace(0, 1, 16)]
    colours += [paper + part * (other - paper) for other in others for part in (0.33, 0.66, 1)]
    return np.rint(colours).astype(np.int64)


def in_colours(frame: Image.Image, colours: np.ndarray) -> Image.Image:
    """The frame, each pixel in the nearest of the colours. (Pillow's own search is only roughly right.)"""
    pixels = np.asarray(frame).astype(np.int64) @ [1 << 16, 1 << 8, 1]
    different, which = np.unique(pixels, return_inverse=True)
    parts = np.stack([different >> 16, different >> 8 & 255, different & 255], axis=1)
    nearest = ((parts[:, None] - colours) ** 2).sum(axis=2).argmin(axis=1).astype(np.uint8)
    found = Image.fromarray(nearest[which].reshape(pixels.shape))
    found.putpalette(colours.astype(np.uint8).tobytes())
    return found


def save(frames: Sequence[Image.Image], colours: np.ndarray, path: Path) -> None:
    """Write the frames as a GIF."""
    first, *others = [in_colours(frame, colours) for frame in frames]
    path.parent.mkdir(parents=True, exist_ok=True)
    first.save(path, save_all=True, append_images=others, duration=FRAME_MS, loop=0, optimize=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", type=Path, help="a run's folder")
    parser.add_argument("--out", type=Path, default=OUT, help=".gif (demos/pictures/explorer.gif)")
    options = parser.parse_args()
    if options.out.suffix != ".gif":
        parser.error(f"--out {options.out}: give a name that ends in .gif")
    if MISSING:
        raise SystemExit(MISSING)
    with TemporaryDirectory() as folder:
        html = Path(folder) / "explorer.html"
        if cli.main(["explore", str(options.run), "--out", str(html)]):
            raise SystemExit(1)
        driver = open_browser()
        try:
            page = Recorder(driver)
            problem = load(driver, html)
            if problem or not driver.find_elements("id", "map") or not driver.find_elements("id", "easel"):
                raise SystemExit(problem or "the animation needs codes of two dimensions, and an encoder")
            draw_a_digit(page)
            drawn = len(page.frames)
            drag_around(page)
            colours = palette(driver)
        finally:
            driver.quit()
    save([*page.frames[drawn:], *page.frames[:drawn]], colours, options.out)
    print(options.out)


if __name__ == "__main__":
    main()
