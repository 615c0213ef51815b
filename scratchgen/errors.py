"""The error that a user can fix, and checks of the values in a configuration.

The command line prints a UserError as one line and exits with status 2."""

from collections.abc import Iterable, Mapping


class UserError(Exception):
    """Something outside the program is wrong: a file, an option, a download. The message says what to do."""


def require_one_of(name: str, value: str, choices: Iterable[str]) -> None:
    """ValueError, naming the choices, unless ``value`` is one of them."""
    if value not in choices:
        raise ValueError(f"{name} {value!r} is not one of {', '.join(choices)}")


def require(needs: Mapping[str, bool]) -> None:
    """ValueError naming the first condition that is false; write each so that it is false for NaN."""
    for need, met in needs.items():
        if not met:
            raise ValueError(f"{need} is needed")
