"""How fast the explorer's page is, in a headless Chromium with all of its processes on one core.

``python -m tests.benchmarks.explorer`` drags the ring or a slider of models of the usual sizes and prints, in ms, how
long after the page was told of a move its picture was painted, and how many frames a second the walk has. (A browser
tells of moves once a frame, and shows what was painted in that frame.) It ends with an AssertionError if the VAE of
``scratchgen train vae`` takes 16 ms or more, or a walk has fewer than 30 frames a second. The weights are those of
untrained networks: the work is the same.
"""

import os
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from scratchgen import explorer
from scratchgen.data.dataset import Dataset, Split
from scratchgen.data.strokes import draw_strokes
from scratchgen.recipes import RECIPES, RunConfig
from tests.benchmarks.machine import machine
from tests.scratchgen.explorer.browser_helpers import MISSING, load, open_browser

DEFAULT = "vae pytorch-example"
LATENCY_MS, FRAMES = 16.0, 30.0  # what the first of these may reach, the other must
MOVES, SECONDS = 200, 3

LISTEN = """
  latencies = [];
  addEventListener(arguments[0], () => (told = performance.now()), { capture: true });
  addEventListener(arguments[0], () => latencies.push(performance.now() - told));
"""  # on the window: the first listener of all, and the last one
COUNT = """
  const [seconds, done] = arguments;
  const began = performance.now();
  let frames = 0;
  const count = (now) => {
    if (now - began > 1000 * seconds) return done(frames / seconds);
    frames++;
    requestAnimationFrame(count);
  };
  requestAnimationFrame(count);
"""


def configurations() -> dict[str, RunConfig]:
    """The models by name."""
    metzen = RECIPES["vae"].configs["metzen"]
    return {
        DEFAULT: RECIPES["vae"].configs["pytorch-example"],
        "vae metzen, 2-D": replace(metzen, network=replace(metzen.network, latent_dim=2)),
        "vae conv": RECIPES["vae"].configs["conv"],
        "gan mlp": RECIPES["gan"].configs["mlp"],
        "gan dcgan": RECIPES["gan"].configs["dcgan"],
        "aae gaussian": RECIPES["aae"].configs["gaussian"],
    }


def write_page(config: RunConfig, path: Path, digits: int = 200) -> None:
    """The page of an untrained model, without a judge."""
    drawn, recipe = draw_strokes(digits, rng=0), RECIPES[config.model]
    data = Dataset("strokes", Split(drawn.images[:0], drawn.labels[:0]), Split(drawn.images, drawn.labels))
    shown = recipe.explorable(config, recipe.build(config), data)
    path.write_bytes(explorer.page(config, shown, data, with_judge=False))


def measure(driver: Any, page: Path, moves: int = MOVES, seconds: float = SECONDS) -> tuple[np.ndarray, float]:
    """Latencies (n,), in ms, of a drag by so many moves, and frames a second of the walk."""
    from selenium.webdriver import ActionChains

    assert (problem := load(driver, page)) == "", problem
    driver.execute_async_script("setTimeout(arguments[1], 500 * arguments[0])", seconds)  # the map's pictures are drawn
    on_map = bool(driver.find_elements("id", "map"))
    handle = driver.find_element("css selector", "#map" if on_map else "#sliders input")
    driver.execute_script("arguments[0].scrollIntoView({block: 'center'})", handle)
    driver.execute_script(LISTEN, "pointermove" if on_map else "input")
    drag = ActionChains(driver, duration=5).move_to_element(handle).click_and_hold()
    for move in range(moves):
        drag.move_by_offset(3 if move // 25 % 2 else -3, 0)
    drag.release().perform()
    latencies = np.array(driver.execute_script("return latencies"))
    driver.find_element("id", "wander").click()
    return latencies, driver.execute_async_script(COUNT, seconds)


def main() -> None:
    if MISSING:
        raise SystemExit(MISSING)
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    print(machine())
    print(f"{'':22}{'page, MB':>10}{'median':>10}{'95 %':>10}{'largest':>10}{'frames/s':>10}")
    found = {}
    with tempfile.TemporaryDirectory() as folder:
        page, driver = Path(folder) / "explorer.html", open_browser()
        try:
            for name, config in configurations().items():
                write_page(config, page)
                latencies, frames = found[name] = measure(driver, page)
                low, high, largest = np.quantile(latencies, [0.5, 0.95, 1])
                print(f"{name:22}{page.stat().st_size / 1e6:10.2f}{low:10.1f}{high:10.1f}{largest:10.1f}{frames:10.0f}")
        finally:
            driver.quit()
    require_fast(found)


def require_fast(found: dict[str, tuple[np.ndarray, float]]) -> None:
    """AssertionError, saying what is slow, unless latencies and frames a second are as promised."""
    latency = float(np.quantile(found[DEFAULT][0], 0.95))
    assert latency < LATENCY_MS, f"{DEFAULT}: 95 % of the pictures within {latency:.1f} ms, not {LATENCY_MS}"
    slow = [name for name, (_, frames) in found.items() if frames < FRAMES]
    assert not slow, f"fewer than {FRAMES:.0f} frames a second: {', '.join(slow)}"


if __name__ == "__main__":
    main()
