"""The user's cache, for what can be downloaded or computed again."""

from pathlib import Path

from kernels.user_cache import user_cache_folder
from scratchgen.errors import UserError


def cache_folder() -> Path:
    """The user's cache folder for scratchgen, whether it exists or not.

    UserError if there is neither an absolute XDG_CACHE_HOME nor a home folder.
    """
    try:
        return user_cache_folder()
    except RuntimeError as error:
        raise UserError("no home folder for a cache; set XDG_CACHE_HOME, and SCRATCHGEN_DATA for MNIST") from error
