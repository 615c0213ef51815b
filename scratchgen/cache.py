"""The user's cache: what can be downloaded or computed again."""

import os
from pathlib import Path

from scratchgen.errors import UserError


def cache_folder() -> Path:
    """The user's folder of scratchgen, there or not (XDG Base Directory Specification 0.8).

    UserError where there is neither XDG_CACHE_HOME nor a home folder.
    """
    xdg = Path(os.environ.get("XDG_CACHE_HOME", ""))
    try:
        return (xdg if xdg.is_absolute() else Path.home() / ".cache") / "scratchgen"
    except RuntimeError as error:
        raise UserError("no home folder for a cache; set XDG_CACHE_HOME, and SCRATCHGEN_DATA for MNIST") from error
