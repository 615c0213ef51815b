"""The user's cache folder, for what can be compiled, computed or downloaded again."""

import os
from pathlib import Path


def user_cache_folder() -> Path:
    """``scratchgen`` in the user's cache, whether it exists or not. RuntimeError without a home folder.

    A relative ``XDG_CACHE_HOME`` is ignored, as the XDG Base Directory Specification (0.8) asks.
    """
    xdg = Path(os.environ.get("XDG_CACHE_HOME", ""))
    return (xdg if xdg.is_absolute() else Path.home() / ".cache") / "scratchgen"
