"""A headless Chromium, driven as by a reader."""

import os
import shutil
from pathlib import Path
from typing import Any

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
DRIVER = shutil.which("chromedriver")
MISSING = (
    "" if BROWSER and DRIVER else "no Chromium with its driver on this machine (Debian: chromium, chromium-driver)"
)


def open_browser(width: int = 1200, height: int = 900) -> Any:
    """A new browser, to be closed with ``quit``; its log keeps what goes wrong on a page."""
    from selenium import webdriver

    options = webdriver.ChromeOptions()
    options.binary_location = BROWSER
    for argument in ("headless=new", "disable-gpu", "disable-dev-shm-usage", f"window-size={width},{height}"):
        options.add_argument(f"--{argument}")
    if os.name == "posix" and os.geteuid() == 0:  # the sandbox refuses root
        options.add_argument("--no-sandbox")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    return webdriver.Chrome(options, webdriver.ChromeService(DRIVER))


def resize(driver: Any, width: int, height: int = 900) -> None:
    """Give the page this width and height, smaller ones than a window can have, too."""
    size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
    driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)


def load(driver: Any, path: Path) -> str:
    """Open a page of the explorer and wait until it has started; returns what went wrong, "" if nothing did."""
    from selenium.webdriver.support.wait import WebDriverWait

    driver.get(path.absolute().as_uri())
    there = "try { return Boolean(ready) } catch { return false }"
    WebDriverWait(driver, 20).until(lambda driver: driver.execute_script(there))
    waiting = "const done = arguments[0]; ready.then(() => done(''), (error) => done(error.stack))"
    return driver.execute_async_script(waiting)
